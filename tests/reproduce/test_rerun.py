"""Records trained again: the same bits, the first that differs, and what is refused."""

import json
import os
import signal

import pytest

from reproduce import cli, data, record, rerun, run
from reproduce.experiments.connection_selection import ConnectionSelection
from reproduce.experiments.unit_selection import UnitSelection
from tests.reproduce.synthetic import noise

UNITS = {"units": 9, "layers": 2, "examples": 640, "test_examples": 100}
SETTINGS = {
    "fast": UnitSelection(epochs=4, **UNITS),
    "plain": UnitSelection(epochs=2, method="dropout", **UNITS),
    "random": ConnectionSelection(
        method="random", usage_rate=0.6, depth=16, growth_rate=2, examples=64, epochs=1
    ),
}


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """The paths of records of short runs on noise, by what is special about them."""
    out = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load", noise)
        for name, settings in SETTINGS.items():
            run.run(settings, out, run.Options(quiet=True, plain=name == "plain"))
    return {name: out / f"{settings.name}.json" for name, settings in SETTINGS.items()}


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    """Train on noise, in a directory of the test's own."""
    monkeypatch.setattr(data, "load", noise)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def changed(path, here, change):
    """Write a record with a change; return its path."""
    content = record.read(path)
    change(content)
    written = here / path.name
    record.write(written, content)
    return written


@pytest.mark.parametrize("name", SETTINGS)
def test_a_record_trained_again_gives_the_same_bits(name, records, here, capsys):
    assert cli.main(["rerun", str(records[name])]) == 0
    printed = capsys.readouterr().out
    epochs = SETTINGS[name].epochs
    assert f"again, {epochs} of {epochs} epochs.\n" in printed
    assert f"in each of {epochs} epoch{'s' * (epochs > 1)} and the result.\n" in printed
    assert "not as it was" not in printed
    again = here / "runs" / "rerun" / records[name].name
    old, new = record.read(records[name]), record.read(again)
    assert all(old[part] == new[part] for part in old if part != "times")


@pytest.mark.parametrize("name", ["fast", "plain"])
def test_the_first_epochs_tell(name, records, here, capsys):
    assert cli.main(["rerun", str(records[name]), "--epochs", "1", "--quiet"]) == 0
    printed = capsys.readouterr().out.splitlines()
    numbers = len(record.read(records[name])["log"])
    assert printed[1:] == [f"The same bits: {numbers} numbers in each of 1 epoch."]
    assert not list((here / "runs" / "rerun").iterdir())


def test_a_record_of_another_path_is_told(records, here, capsys):
    def older(content):
        content["versions"]["path"] = "fast"
        content["settings"]["reestimate"] = 0

    path = changed(records["random"], here, older)
    cli.main(["rerun", str(path)])
    printed = capsys.readouterr().out
    assert "The path 'fast' trained the record, and 'winograd' trains here" in printed
    assert "the same bits cannot be expected" in printed


def test_the_first_epoch_that_differs_ends_it(records, here, capsys):
    def nudge(content):
        content["log"]["theta/mean"][2] *= 1 + 2**-52
        content["log"]["main/loss"][3] += 1

    path = changed(records["fast"], here, nudge)
    assert cli.main(["rerun", str(path)]) == 1
    printed = capsys.readouterr().out
    assert "Epoch 3 is not the record's:" in printed
    (row,) = (line for line in printed.splitlines() if line.startswith("theta/mean  "))
    _, old, new, relative = row.split()
    assert 1e-16 < float(relative) < 3e-16
    assert float(old) == float(new) * (1 + 2**-52)
    assert "main/loss  " not in printed.split("Epoch 3")[1]
    # The epochs before it are not in question, and the same command trains anew.
    assert cli.main(["rerun", str(path), "--epochs", "2"]) == 0
    assert not list((here / "runs" / "rerun").iterdir())


def test_a_result_that_differs_is_shown_from_where_it_does(records, here, capsys):
    def flip(content):
        found = content["result"]["structure"]
        content["result"]["structure"] = found[:-3] + "10"[int(found[-3])] + found[-2:]

    path = changed(records["random"], here, flip)
    assert cli.main(["rerun", str(path)]) == 1
    printed = capsys.readouterr().out
    assert "The result is not the record's:" in printed
    (row,) = (line for line in printed.splitlines() if line.startswith("structure"))
    found = record.read(records["random"])["result"]["structure"]
    _, old, new = row.split()
    assert (new[:3], new[3:], old[4:]) == ("...", found[-3:], found[-2:])


def test_a_number_that_is_logged_no_more_differs(records, here, capsys):
    path = changed(records["plain"], here, lambda c: c["log"].update(other=[0.5, 0.5]))
    assert cli.main(["rerun", str(path)]) == 1
    assert "Epoch 1 is not the record's:" in capsys.readouterr().out


def _rename(content, name):
    """Write the second result as it was written before it was estimated from augmented images."""
    content["log"][name.replace("_augmented", "")] = [0.99]
    del content["log"][name], content["result"]["reestimated_augmented_test_error"]
    content["result"]["reestimated_test_error"] = 0.99


def test_what_is_measured_in_some_epochs_is_held_where_both_have_it(records, here, capsys):
    name = "validation/main/reestimated_augmented_error"

    for value, code in ((None, 0), (0.99, 1)):
        path = changed(records["random"], here, lambda c, v=value: c["log"].update({name: [v]}))
        assert cli.main(["rerun", str(path), "--quiet"]) == code
    rows = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert [name, "0.99"] in rows
    # An older program estimated from other images, under a name of its own.
    older = changed(records["random"], here, lambda c: _rename(c, name))
    assert cli.main(["rerun", str(older), "--quiet"]) == 0
    # Another measured in every epoch.
    judge = rerun.Judge({"iteration": [1], name: [0.5]}, 1)
    assert judge([{"iteration": 1}])
    assert not judge.rows


def test_another_machine_or_version_is_told(records, here, capsys):
    def move(content):
        content["machine"]["processor"] = "Another processor"
        content["versions"]["numpy"] = "1.0"

    path = changed(records["plain"], here, move)
    assert cli.main(["rerun", str(path), "--epochs", "1"]) == 0
    printed = capsys.readouterr().out
    assert "What is not as it was" in printed
    assert any(line.startswith("processor  Another") for line in printed.splitlines())
    assert any(line.startswith("numpy ") for line in printed.splitlines())


def other_kernels(content):
    """Make a record one of other kernels and another loss, as they leave it."""
    content["machine"]["blas"] = ["openblas 0.3 Other, 1 thread"]
    content["log"]["main/loss"][0] *= 1.001


def test_a_record_that_moved_is_held_against_its_beginning(records, here, capsys):
    def move(content):
        here, iterations = content["machine"], content["result"]["iterations"]
        there = {**here, "blas": ["openblas 0.3 Other, 1 thread"]}
        content["machine"] = there
        content["computers"] = [
            {"machine": here, "iterations": [1, iterations // 2]},
            {"machine": there, "iterations": [iterations // 2 + 1, iterations]},
        ]
        content["log"]["main/loss"][-1] *= 1.001

    path = changed(records["fast"], here, move)
    assert cli.main(["rerun", str(path), "--quiet"]) == 1
    printed = capsys.readouterr().out
    assert "What is not as it was" not in printed
    assert "went on on another machine after iteration 40: from there on, the same bits" in printed
    assert "Epoch 4 is not the record's" in printed
    assert "with other kernels or libraries (another machine in the meantime)" in printed


def test_the_commit_that_a_record_began_at_is_told(records, here, capsys, monkeypatch):
    """Other code may add in another order."""
    old, new = "0" * 40, "1" * 40
    known = record.versions

    def printed_for(versions):
        def change(content):
            content["log"]["main/loss"][0] *= 1.001
            content["computers"][0]["versions"] = versions

        path = changed(records["fast"], here, change)
        assert cli.main(["rerun", str(path), "--epochs", "1", "--quiet"]) == 1
        return capsys.readouterr().out

    monkeypatch.setattr(record, "versions", lambda: {**known(), "commit": new})
    told = printed_for([{"commit": old}, {"commit": new}])
    assert told.endswith(
        f"The record began at commit {old}: check it out to train with the code of then.\n"
    )
    assert printed_for([None, {"commit": new}]).endswith("does not say at which commit it began.\n")
    assert " began" not in printed_for([{"commit": new}])


def test_a_record_of_this_machines_kernels_is_suggested(records, here, capsys):
    path = changed(records["fast"], here, other_kernels)
    assert cli.main(["rerun", str(path), "--epochs", "1", "--quiet"]) == 1
    assert f"No record in {str(here)!r} was made with this machine's kernels" in (
        capsys.readouterr().out
    )
    # Of two of them the one with shorter epochs; neither other code nor another processor matters.
    for name, seconds in (("random", 7.0), ("plain", 3.0)):

        def slow(content, seconds=seconds):
            content["times"]["seconds"] = seconds * len(content["log"]["epoch"])
            content["versions"]["commit"] = "0" * 40
            content["machine"]["processor"] = "Another"

        wanted = changed(records[name], here, slow)
    assert cli.main(["rerun", str(path), "--epochs", "1", "--quiet"]) == 1
    printed = capsys.readouterr().out
    assert "To repeat bits, take a record that was made with this machine's kernels" in printed
    assert f"{str(wanted)!r}." in printed
    # A record of these kernels needs no other.
    cli.main(["rerun", str(wanted), "--epochs", "1", "--quiet"])
    assert "kernels" not in capsys.readouterr().out


def test_a_difference_has_a_size_and_a_cause(records, here, capsys):
    path = changed(records["fast"], here, other_kernels)
    cli.main(["rerun", str(path), "--epochs", "1", "--quiet"])
    printed = capsys.readouterr().out
    (row,) = (line for line in printed.splitlines() if line.startswith("main/loss  "))
    assert row.endswith(" 1.0e-03")
    assert "differs by 1.0e-03 of the record's value" in printed
    assert "other kernels or libraries (blas)" in printed
    assert "so this is only rounding" in printed

    def loss(content):
        content["log"]["main/loss"][0] *= 1.001

    path = changed(records["fast"], here, loss)
    cli.main(["rerun", str(path), "--epochs", "1", "--quiet"])
    assert "this is not rounding: the code or the data" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("new", "rounding", "told"),
    [
        (0.27948920895906676, ["blas"], "differs by 3.9e-04 of the record's value.  "),
        (0.27948920895906676, ["blas", "numpy"], "(blas, numpy).  Training amplifies rounding"),
        (0.2822, ["blas"], "more than rounding"),
        (0.2821, ["blas"], "only rounding"),
        (None, ["blas"], "cannot be compared"),
        (0.27937922806161165, [], "this is not rounding"),
    ],
)
def test_rounding_is_told_from_more(new, rounding, told):
    rows = [["theta/mean", 0.4, 0.5], [rerun.LOSS, 0.27937922806161164, new]]
    assert told in rerun.explain(rows, rounding)
    assert ("only rounding" in rerun.explain(rows[:1], rounding)) == bool(rounding)


def test_an_earlier_outcome_is_never_the_answer(records, monkeypatch):
    path = str(records["fast"])
    commands = [["rerun", path, "--epochs", "2"], ["rerun", path]]
    assert [cli.main(command) for command in commands] == [0, 0]

    def other(*arguments):
        return [(images, labels[::-1].copy()) for images, labels in noise(*arguments)]

    monkeypatch.setattr(data, "load", other)
    assert [cli.main(command) for command in commands] == [1, 1]


def test_interrupted_it_goes_on(records, here, monkeypatch, capsys):
    judge = rerun.Judge.__call__

    def interrupt(self, log):
        if len(log) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return judge(self, log)

    path = str(records["fast"])
    with monkeypatch.context() as patch:
        patch.setattr(rerun.Judge, "__call__", interrupt)
        assert cli.main(["rerun", path]) == 128 + signal.SIGTERM
    capsys.readouterr()
    assert cli.main(["rerun", path]) == 0
    printed = capsys.readouterr().out
    assert "going on at iteration 40" in printed
    assert "in each of 4 epochs and the result.\n" in printed


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--epochs", "0"], "--epochs must be between 1 and the record's 4, not 0"),
        (["--epochs", "5"], "--epochs must be between 1 and the record's 4, not 5"),
        (["--device", "0"], "was trained on a CPU"),
    ],
)
def test_what_cannot_be_is_refused(options, told, records, capsys):
    assert cli.main(["rerun", str(records["fast"]), *options]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_a_record_of_a_gpu_needs_one(records, here, capsys):
    path = changed(records["fast"], here, lambda c: c["machine"].update(gpu="A GPU"))
    assert cli.main(["rerun", str(path), "--device", "-1"]) == 2
    assert "was trained on a GPU, and" in capsys.readouterr().err


def test_the_record_itself_is_not_written_over(records, here, capsys):
    assert cli.main(["rerun", str(records["plain"])]) == 0
    (again,) = (here / "runs" / "rerun").glob("*.json")
    assert cli.main(["rerun", str(again), "--epochs", "1"]) == 2
    assert "give another --out" in capsys.readouterr().err
    assert cli.main(["rerun", str(again), "--epochs", "1", "--out", "other"]) == 0
    assert again.exists()


def test_what_is_no_record_is_refused(here, capsys):
    (here / "x.json").write_text(json.dumps({"schema": 1}))
    assert cli.main(["rerun", "x.json"]) == 2
    assert "'x.json'" in capsys.readouterr().err
