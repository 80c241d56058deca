"""Bad input gets one clear line and exit code 2."""

import os
import signal
import subprocess
import sys

import pytest

from reproduce import ROOT, cli
from reproduce.cli import commands
from reproduce.cli.parser import negative_values
from reproduce.data import idx

RUN = ("run", "unit-selection", "--quiet")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "required: command"),
        (("dance",), "invalid choice"),
        (("data", "imagenet"), "invalid choice"),
        ((*RUN, "--epsilon0", "2^x"), "--epsilon0 '2^x' is not a finite number"),
        ((*RUN, "--epsilon0", "-2^-"), "--epsilon0 '-2^-' is not a finite number"),
        ((*RUN, "--epsilon0"), "expected one argument"),
        ((*RUN, "--method", "fixed", "--width", "-5"), "--width must be at least 1, not -5"),
        ((*RUN, "--method", "fixed", "--width", "900"), "--width must be at most the 784 units"),
        ((*RUN, "--epochs", "0"), "--epochs must be at least 1, not 0"),
        ((*RUN, "--epochs", "many"), "--epochs: 'many' is not a whole number"),
        ((*RUN, "--device", "77"), "device 77 cannot be used"),
        ((*RUN, "--device", "-3"), "--device: must be at least -1, not -3"),
        ((*RUN, "--snapshot-interval", "0"), "--snapshot-interval: must be at least 1"),
        ((*RUN, "--data-dir", "/nowhere"), "has no file train-images-idx3-ubyte"),
        ((*RUN, "--out", "/dev/null/runs"), "lies below the file '/dev/null'"),
        (("export", __file__), "required: --format"),
        (("export", __file__, "--format", "pickle"), "invalid choice"),
        (("export", "none.json", "--format", "onnx"), "there is no file 'none.json'"),
        (("quick", "unit-selection", "--jobs", "0"), "--jobs: must be between 1 and 1024"),
        (("quick", "unit-selection", "--out", "/dev/null/x"), "lies below the file"),
        ((*RUN, "--seed", str(2**63)), "--seed must be at most 9223372036854775807"),
        ((*RUN, "--out", "~no-such-user/x"), "names a home directory that is not known"),
        (("quick", "unit-selection", "--seed", str(2**63)), "--seed must be at most"),
    ],
)
def test_one_line_and_exit_code_2(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(list(arguments)) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("reproduce: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_a_corrupted_data_file_is_named(tmp_path, capsys):
    for name in idx.NAMES.values():
        (tmp_path / name).write_bytes(bytes(16 + 60000))
    assert cli.main([*RUN, "--data-dir", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "train-images-idx3-ubyte" in error
    assert "delete it and run: python -m reproduce data mnist" in error
    assert error.count("\n") == 1


def test_what_does_not_apply_is_left_out_with_a_word(capsys):
    parser = cli.make_parser()
    arguments = ["run", "unit-selection", "--method", "sno", "--width", "205"]
    settings = commands.settings_of(parser.parse_args(arguments))
    assert settings.width is None
    assert "--width applies to --method fixed and is left out" in capsys.readouterr().err


def test_a_short_run_says_so(capsys):
    parser = cli.make_parser()
    commands.settings_of(parser.parse_args(["run", "unit-selection", "--epochs", "5"]))
    printed = capsys.readouterr().out
    assert "short run: 0.01 of the full length" in printed
    assert "eta_theta is 100/d" in printed
    few = ["run", "unit-selection", "--epochs", "5", "--units", "2"]  # eta_theta is not raised
    commands.settings_of(parser.parse_args(few))
    assert "0.01 of the full length.\n" in capsys.readouterr().out
    commands.settings_of(parser.parse_args(["run", "unit-selection"]))
    assert capsys.readouterr().out == ""


def test_what_is_not_the_papers_is_said_beside_the_papers(capsys):
    parser = cli.make_parser()
    arguments = ["run", "unit-selection", "--method", "fixed", "--units", "453", "--seed", "2"]
    commands.settings_of(parser.parse_args(arguments))
    assert "which stand in brackets: units=453 (784)." in capsys.readouterr().out
    arguments = ["run", "unit-selection", "--epochs", "5", "--samples", "4", "--examples", "640"]
    commands.settings_of(parser.parse_args(arguments))
    printed = capsys.readouterr().out
    for told in ("epochs=5 (500)", "samples=4 (2)", "examples=640 (all)"):
        assert told in printed
    # What the paper varies is no change.
    arguments = ["run", "unit-selection", "--method", "fixed", "--width", "453", "--seed", "2"]
    commands.settings_of(parser.parse_args(arguments))
    assert capsys.readouterr().out == ""


def test_negative_epsilon0_is_a_value():
    assert negative_values(["--epsilon0", "-2^-3", "--seed", "1"]) == [
        "--epsilon0=-2^-3",
        "--seed",
        "1",
    ]


def unread(command):
    """Run a command whose output nobody reads; return its exit code and what it complains of."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as process:
        process.stdout.close()
        return process.wait(timeout=100), process.stderr.read()


def test_a_reader_that_has_ended_gets_no_traceback():
    command = [sys.executable, "-m", "reproduce", "status", "--out=results/runs"]
    assert unread(command) == (128 + signal.SIGPIPE, b"")


#: A command line with each option and argument that names a file or a directory.
PATHS = [
    ("data mnist --data-dir=X --from=X", ["data_dir", "source"]),
    ("run unit-selection --data-dir=X --out=X", ["data_dir", "out"]),
    ("quick unit-selection --data-dir=X --out=X --figures=X", ["data_dir", "out", "figures"]),
    ("sweep connection-selection --data-dir=X --out=X", ["data_dir", "out"]),
    ("status --out=X", ["out"]),
    ("progress --out=X --to=X", ["out", "to"]),
    ("compare --runs=X", ["runs"]),
    ("report --runs=X --out=X", ["runs", "out"]),
    ("figures --runs=X --out=X X X", ["runs", "out", "records"]),
    ("export X --format=onnx --out=X", ["record", "out"]),
    ("rerun X --data-dir=X --out=X", ["record", "data_dir", "out"]),
    ("regress --baselines=X --data-dir=X", ["baselines", "data_dir"]),
]


@pytest.mark.parametrize(("line", "names"), PATHS)
def test_the_home_directory_in_any_path(line, names, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    where = tmp_path / "a"
    # A record is a file that exists; what gets a network must not be a directory.
    if "record" in names:
        where.write_text("{}")
        line = line.replace("--out=X", "--out=X" if "export" in line else "--out=~/b")
        line = line.replace("--data-dir=X", "--data-dir=~/b")
    elif "records" in names:
        where.write_text("{}")
        line = line.replace("--runs=X --out=X", "--runs=~/b --out=~/b")
    else:
        where.mkdir()
    parsed = cli.parse(line.replace("X", "~/a").split())
    for name in names:
        value = getattr(parsed, name)
        for each in value if isinstance(value, list) else [value]:
            assert each in (str(where), str(tmp_path / "b")), name
    # And there is no other such option: what is given is a path, or is not a text.
    for name, value in vars(parsed).items():
        assert "~" not in str(value), name


def test_every_option_for_a_path_is_known():
    """An option that takes a text is a path, which is checked and written out, or one of these."""
    texts = {"schedule", "epsilon0"}
    found = set()

    def look(parser):
        for action in parser._actions:
            if action.choices and isinstance(action.choices, dict):
                for each in action.choices.values():
                    look(each)
            elif action.type in (None, str) and action.nargs != 0 and not action.choices:
                found.add(action.dest)

    look(cli.make_parser())
    assert found == texts


def test_an_error_of_the_system_is_one_line(monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device", "/some/file")

    monkeypatch.setattr(commands, "status", full)
    assert cli.main(["status"]) == 2
    assert capsys.readouterr().err == "reproduce: '/some/file': No space left on device\n"


def test_a_warning_is_one_line():
    program = (
        "from reproduce import streams\n"
        "import warnings\n"
        "streams.show_warnings_in_one_line()\n"
        "warnings.warn('one\\ntwo')\n"
    )
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stderr == "reproduce: one two\n"


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "no-such"])
def test_the_backend_of_a_notebook_that_is_not_here(backend, tmp_path):
    """Commands inherit the name, and nothing that draws figures may fail for it."""
    program = (
        "import chainer_sno, os, numpy\n"
        "link = chainer_sno.links.MaskedMLP(3, (4,), 2)\n"
        "chainer_sno.plots.theta_by_group(link, chainer_sno.Bernoulli(link.costs))\n"
        "from reproduce import figures\n"
        "figure = figures.densenet(numpy.ones(9), 3, 1, 'x')\n"
        "print(len(figures.save(figure, 'x')), os.environ['MPLBACKEND'])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "MPLBACKEND": backend, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"2 {backend}\n"
