"""Bad input gets one clear line and exit code 2."""

import signal
import subprocess
import sys

import pytest

from reproduce import ROOT, cli
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
    settings = cli._settings(parser.parse_args(arguments))
    assert settings.width is None
    assert "--width applies to --method fixed and is left out" in capsys.readouterr().err


def test_a_short_run_says_so(capsys):
    parser = cli.make_parser()
    cli._settings(parser.parse_args(["run", "unit-selection", "--epochs", "5"]))
    printed = capsys.readouterr().out
    assert "short run: 0.01 of the paper's iterations" in printed
    assert "eta_theta is 100/d" in printed
    cli._settings(parser.parse_args(["run", "unit-selection"]))
    assert capsys.readouterr().out == ""


def test_what_is_not_the_papers_is_said_beside_the_papers(capsys):
    parser = cli.make_parser()
    arguments = ["run", "unit-selection", "--method", "fixed", "--units", "453", "--seed", "2"]
    cli._settings(parser.parse_args(arguments))
    assert "which stand in brackets: units=453 (784)." in capsys.readouterr().out
    arguments = ["run", "unit-selection", "--epochs", "5", "--samples", "4", "--examples", "640"]
    cli._settings(parser.parse_args(arguments))
    printed = capsys.readouterr().out
    for told in ("epochs=5 (500)", "samples=4 (2)", "examples=640 (all)"):
        assert told in printed
    # What the paper varies is no change.
    arguments = ["run", "unit-selection", "--method", "fixed", "--width", "453", "--seed", "2"]
    cli._settings(parser.parse_args(arguments))
    assert capsys.readouterr().out == ""


def test_negative_epsilon0_is_a_value():
    assert cli._negative_values(["--epsilon0", "-2^-3", "--seed", "1"]) == [
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
