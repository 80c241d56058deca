"""Every value of every option is meaningful, or is refused in one line before any work is done."""

import argparse
import json

import pytest

from reproduce import ROOT, arguments, cli, data, run
from reproduce.experiments.unit_selection import UnitSelection
from tests.reproduce import synthetic

UNIT = ("run", "unit-selection")
CONNECTION = ("run", "connection-selection")
HUGE = "9" * 30


def options(parser, path=()):
    """Yield the words of every command and each of its options."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                yield from options(sub, (*path, name))
            return
    for action in parser._actions:
        if action.option_strings and action.nargs != 0:
            yield path, action.option_strings[-1]


OPTIONS = list(options(cli.make_parser()))
#: What a command needs besides.
NEEDED = {
    "data": ("mnist",),
    "export": (str(ROOT / "pyproject.toml"), "--format=onnx"),
    "rerun": (str(ROOT / "pyproject.toml"),),
}


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Work in an empty directory, and fail where a test goes as far as data or a training."""

    def refuse(*values, **named):
        raise AssertionError("work was done before the value was checked")

    for name in ("load", "fetch"):
        monkeypatch.setattr(data, name, refuse)
    monkeypatch.setattr(run, "_train", refuse)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("{}")
    return tmp_path


def refused(words, capsys):
    """Return the one line that a command is refused with."""
    code = cli.main(list(words))
    captured = capsys.readouterr()
    assert code == 2, captured
    assert captured.err.startswith("reproduce: ")
    assert captured.err.count("\n") == 1
    assert len(captured.err) < 500
    return captured.err


@pytest.mark.parametrize(("command", "option"), OPTIONS)
@pytest.mark.parametrize("value", [""])
def test_no_option_takes_an_empty_value(command, option, value, capsys):
    words = [*command, f"{option}={value}", *NEEDED.get(command[0], ())]
    assert option in refused(words, capsys)


def kinds(*texts):
    """Return the options whose type has one of some names."""
    parser = cli.make_parser()

    def of(command, option):
        found = parser
        for word in command:
            (subs,) = (a for a in found._actions if isinstance(a, argparse._SubParsersAction))
            found = subs.choices[word]
        (action,) = (a for a in found._actions if option in a.option_strings)
        return getattr(action.type, "__qualname__", "").split(".")[0]

    return [pair for pair in OPTIONS if of(*pair) in texts]


@pytest.mark.parametrize(("command", "option"), kinds("whole", "number"))
@pytest.mark.parametrize("value", ["many", "nan"])
def test_what_is_not_a_number_is_refused(command, option, value, capsys):
    words = [*command, f"{option}={value}", *NEEDED.get(command[0], ())]
    line = refused(words, capsys)
    assert option in line
    assert repr(value) in line
    assert "number" in line


@pytest.mark.parametrize(("command", "option"), kinds("whole", "number"))
@pytest.mark.parametrize("value", ["-5"])
def test_no_number_may_be_far_below_zero(command, option, value, capsys, place):
    if command[0] == "rerun":
        pytest.skip("the epochs are held against the record's, which is read first")
    words = [*command, option, value, *NEEDED.get(command[0], ())]
    assert option in refused(words, capsys)
    assert sorted(path.name for path in place.iterdir()) == ["empty", "file"]


@pytest.mark.parametrize(
    ("command", "option"), kinds("directory", "existing_directory", "new_file")
)
def test_a_file_is_no_directory(command, option, capsys):
    needed = NEEDED.get(command[0], ())
    below = refused([*command, f"{option}=file/below", *needed], capsys)
    assert option in below
    assert "file" in below
    if kinds("new_file") != [(command, option)]:
        line = refused([*command, f"{option}=file", *needed], capsys)
        assert f"{option}: 'file' is a file: give a directory" in line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        # Numbers out of range.
        ((*UNIT, "--epochs", HUGE), f"--epochs must be at most 2147483647, not {HUGE}"),
        ((*UNIT, "--epochs", "2000000"), "a training has at most 999999999: give fewer epochs"),
        ((*UNIT, "--seed", "9223372036854775808"), "--seed must be at most 9223372036854775807"),
        ((*UNIT, "--samples", "100000000"), "GiB are supported: give smaller numbers than"),
        ((*UNIT, "--stochastic-samples", "100000000"), "--stochastic-samples 100000000"),
        ((*UNIT, "--units", "1000000000"), "give smaller numbers than --units 1000000000"),
        ((*UNIT, "--layers", "1000000000"), "--layers 1000000000"),
        ((*UNIT, "--method", "fixed", "--units", "1000000000"), "--units 1000000000"),
        ((*CONNECTION, "--depth", "1000000"), "--depth 1000000"),
        ((*CONNECTION, "--growth-rate", "1000000"), "--growth-rate 1000000"),
        ((*CONNECTION, "--depth", "41"), "--depth must be 4 plus a multiple of 3"),
        (
            (*CONNECTION, "--method", "random", "--usage-rate", "0"),
            "--usage-rate must be greater than 0, not 0.0",
        ),
        ((*UNIT, "--width", "0"), "--width must be at least 1, not 0"),
        ((*UNIT, "--eta-factor", "1e9"), "--eta-factor must be at most 23520"),
        ((*UNIT, "--eta-factor", "0"), "--eta-factor must be greater than 0"),
        ((*UNIT, "--lr", "1e308"), "--lr must be at most 3.4e+38, not 1e+308"),
        ((*UNIT, "--lr", "-1e-3"), "--lr must be greater than 0"),
        ((*UNIT, "--weight-decay", "1e308"), "--weight-decay must be at most 3.4e+38"),
        ((*UNIT, "--momentum", "1"), "--momentum must be less than 1, not 1.0"),
        ((*UNIT, "--epsilon0", "2^1000"), "--epsilon0 must be at most 3.4e+38"),
        ((*UNIT, "--epsilon0", "2^-99999"), "--epsilon0 '2^-99999' is not a finite number"),
        ((*UNIT, "--epsilon0", "2^" + "9" * 5000), "is not a finite number"),
        ((*UNIT, "--batch-size", "60001"), "--batch-size must be at most the 60000 training"),
        ((*UNIT, "--examples", "5"), "--batch-size must be at most the 5 training examples"),
        ((*UNIT, "--examples", "90000"), "--examples must be at most 60000"),
        ((*UNIT, "--schedule", "1/0"), "--schedule must be paper, short, quick or a part"),
        ((*UNIT, "--schedule", "1/501"), "from 1/1 to 1/500, such as 1/60, not '1/501'"),
        ((*UNIT, "--schedule", "1/" + "9" * 5000), "--schedule must be"),
        ((*UNIT, "--snapshot-interval", "0"), "--snapshot-interval: must be at least 1, not 0"),
        ((*UNIT, "--wait", "-5"), "--wait: must be at least 0, not -5"),
        ((*UNIT, "--threads", "0"), "--threads: must be between 1 and 1024, not 0"),
        ((*UNIT, "--threads", "2"), "--threads must be 1 here, not 2: only connection selection"),
        ((*CONNECTION, "--plain", "--threads", "2"), "--threads must be 1 here, not 2"),
        ((*UNIT, "--parent", "1" * 9), "process 111111111 is not the parent of this process"),
        ((*UNIT, "--device", "3"), "device 3 cannot be used"),
        # Together they are told once and first.
        (("quick", "unit-selection", "--device", "3"), "device 3 cannot be used"),
        (("quick", "unit-selection", "--seed", "-1"), "--seed must be at least 0, not -1"),
        (("quick", "unit-selection", "--jobs", HUGE), "--jobs: must be between 1 and 1024"),
        (("sweep", "unit-selection", "--trials", HUGE), "--trials: must be between 1 and 10000"),
        (("sweep", "unit-selection", "--devices", "-1,x"), "'-1,x' is not a list of numbers"),
        (("sweep", "unit-selection", "--devices", "-1,-7"), "there is no device -7"),
        (("sweep", "unit-selection", "--devices", "0,,1"), "--devices: '0,,1' has an empty name"),
        (("sweep", "unit-selection", "--methods", "sno,x"), "there is no method 'x': give some"),
        (("sweep", "unit-selection", "--methods", ","), "--methods: ',' has an empty name"),
        (("sweep", "unit-selection", "--threads", "2"), "--threads must be 1 for unit selection"),
        (("sweep", "unit-selection", "--units", HUGE), "--units must be at most 2147483647"),
        (("sweep", "connection-selection", "--depth", "8"), "--depth must be 4 plus"),
        (("regress", "--cases", "units,x"), "--cases: there is no case 'x': give some of units"),
        (("regress", "--traces", "--cases", "run-units"), "none of the --cases run-units is one"),
        (
            ("regress", "--traces", "--baselines", "empty"),
            "there is no baseline 'empty/units.json'",
        ),
        (("regress", "--update", "--baselines", "file"), "'file' is a file: give a directory"),
        # Directories and files.
        (("data", "mnist", "--from", "none"), "--from: there is no directory 'none'"),
        (("status", "--out", "none"), "--out: there is no directory 'none'"),
        (("status", "--out", "a" * 300), "--out: there is no directory"),
        (("status", "--out", "empty"), "--out: 'empty' holds no runs: give the directory"),
        (("progress", "--out", "none"), "--out: there is no directory 'none'"),
        (("progress", "--out", "empty"), "--out: 'empty' holds no runs: give the directory"),
        (("compare", "--runs", "none"), "--runs: there is no directory 'none': give the"),
        (("compare", "--runs", "empty"), "'empty' holds no record of a finished run"),
        (("compare", "--json", "--runs", "empty"), "'empty' holds no record of a finished run"),
        (("report", "--runs", "none"), "--runs: there is no directory 'none'"),
        (("report", "--runs", "empty", "--out", "report"), "'empty' holds no record"),
        (("figures", "--runs", "empty"), "'empty' holds no record of a finished run"),
        (("figures", "none.json"), "RECORD: there is no file 'none.json'"),
        (("figures", "empty"), "RECORD: 'empty' is a directory: give a file"),
        (("figures", ""), "RECORD: '' is empty: give a file"),
        (("figures", "file"), "'file' is not a record of a run (no schema): give the JSON file"),
        (("rerun", "empty"), "RECORD: 'empty' is a directory: give a file"),
        (("rerun", "file"), "'file' is not a record of a run (no schema)"),
        (("export", "empty", "--format", "onnx"), "'empty' is a directory: give a file"),
        (("export", "file", "--format", "onnx", "--out", "empty"), "'empty' is a directory"),
        (("export", "file", "--format", "onnx", "--out", "no/x"), "there is no directory 'no'"),
        (("compare", "a\nb"), "unrecognized arguments: a b"),
    ],
)
def test_one_line_says_what_is_wrong_before_any_work(words, message, capsys, place):
    assert message in refused(words, capsys)
    kept = {"empty", "file", "runs"} if words[0] in ("run", "sweep") else {"empty", "file"}
    assert {path.name for path in place.iterdir()} <= kept
    assert not list(place.glob("runs/*.json"))


def test_a_number_of_more_digits_than_a_float_has_is_refused(capsys):
    digits = "9" * 400
    line = refused([*UNIT, "--epochs", digits], capsys)
    assert line.endswith(f"--epochs must be at most 2147483647, not {digits[:60]}\n")
    line = refused(["quick", "unit-selection", "--seed", digits], capsys)
    assert "--seed must be at most" in line


def test_what_is_too_large_for_this_machine_is_refused(monkeypatch):
    settings = UnitSelection(method="fixed")
    least = 784 * 784 + 2 * 784 * 784
    assert settings.least_memory(vars(settings)) == 12 * least
    assert (
        settings.least_memory({**vars(UnitSelection(samples=5)), "width": None})
        == 12 * least + 8 * 5 * 2352
    )
    settings.check_memory()
    sizes = {"SC_PHYS_PAGES": least, "SC_PAGE_SIZE": 12}
    monkeypatch.setattr("os.sysconf", sizes.get)
    settings.check_memory()
    sizes["SC_PAGE_SIZE"] = 11
    with pytest.raises(cli.ReproduceError, match="this machine has 0.0 GiB: give smaller numbers"):
        settings.check_memory()


def test_memory_that_runs_out_in_a_training_is_one_line(monkeypatch, capsys, place):
    monkeypatch.setattr(data, "load", lambda *values: None)

    def fill(*values):
        raise MemoryError("Unable to allocate 9 TiB")

    monkeypatch.setattr(run, "_train", fill)
    assert "ran out of memory (Unable to allocate 9 TiB): run fewer" in refused(UNIT, capsys)
    (failure,) = place.glob("runs/*/failed.json")
    assert "ran out of memory" in json.loads(failure.read_text())["reason"]


def test_that_every_run_is_finished_is_no_fault(place, capsys):
    record = synthetic.unit(epsilon0="2^-7")
    (place / "empty" / f"{record['name']}.json").write_text(json.dumps(record))
    assert cli.main(["status", "--out", "empty"]) == 0
    assert cli.main(["progress", "--out", "empty", "--to", "to"]) == 0
    assert "has no unfinished run" in capsys.readouterr().out
    assert cli.main(["compare", "--runs", "empty"]) == 0


@pytest.mark.parametrize("text", ["", "inf", "-inf", "1e999", "1.5e", "0x1", "--3"])
def test_neither_type_takes_what_is_not_a_number(text):
    for convert in (arguments.whole(), arguments.number()):
        with pytest.raises(argparse.ArgumentTypeError, match=f"{text!r} is not a .*number"):
            convert(text)


@pytest.mark.parametrize(
    ("convert", "text", "value"),
    [
        (arguments.whole(), " 12 ", 12),
        (arguments.whole(0), "0", 0),
        (arguments.whole(1, 3), "3", 3),
        (arguments.number(), "-1e-3", -1e-3),
        (arguments.number(0), "0", 0.0),
        (arguments.directory, "new/below", "new/below"),
        (arguments.directory, "empty", "empty"),
        (arguments.existing_directory, ".", "."),
        (arguments.existing_file, "file", "file"),
        (arguments.new_file, "new.npz", "new.npz"),
        (arguments.new_file, "empty/new.npz", "empty/new.npz"),
        (arguments.names, "a, b,a", ["a", "b", "a"]),
    ],
)
def test_meaningful_values_are_taken_as_they_are(convert, text, value):
    assert convert(text) == value


def test_values_that_begin_with_a_minus_are_values():
    parsed = cli.parse(["sweep", "unit-selection", "--devices", "-1,0", "--retry-failed"])
    assert parsed.devices == ["-1", "0"]
    assert parsed.retry_failed
    parsed = cli.parse([*UNIT, "--epsilon0", "-2^-3", "--lr", "-1e-3", "--quiet"])
    assert (parsed.epsilon0, parsed.lr, parsed.quiet) == ("-2^-3", -1e-3, True)
