"""``status`` of directories that hold damaged files."""

import errno
import json
import os

import pytest

from reproduce import ReproduceError, cli, marks, run, status, sweep
from reproduce.experiments.unit_selection import UnitSelection
from tests.reproduce import synthetic

RUN = UnitSelection(units=8, layers=1, epochs=1)
PROGRESS = {
    "settings": RUN.as_dict(),
    "iteration": 100,
    "iterations": 1875,
    "seconds_per_iteration": 0.01,
    "updated": 1e9,
}
RECORD = synthetic.unit(units=(4,), epochs=2, layers=1)
#: Not a value of a number, of an object or of a list.
OTHERS = ["a text", None, [], {}, True, -1, float("nan"), float("inf")]


def say(out, capsys):
    """Return what ``status`` prints and what it complains of."""
    assert cli.main(["status", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    return printed.out.splitlines(), printed.err.splitlines()


@pytest.mark.parametrize("value", OTHERS, ids=repr)
@pytest.mark.parametrize("name", [*PROGRESS, *RUN.as_dict()])
def test_any_value_of_another_type_in_a_progress(tmp_path, capsys, name, value):
    content = json.loads(json.dumps(PROGRESS))
    part = content if name in content else content["settings"]
    if part.get(name) == value or (name == "seconds_per_iteration" and value is None):
        pytest.skip("this is its value")
    part[name] = value
    directory = tmp_path / RUN.name
    directory.mkdir()
    (directory / marks.PROGRESS).write_text(json.dumps(content))
    (directory / marks.LOCK).touch()
    lines, complaints = say(tmp_path, capsys)
    assert lines[-1].startswith(("0 runs", "1 runs"))
    if name in PROGRESS:
        (complaint,) = complaints
        assert "progress.json' is damaged or no file of a run (" in complaint
    status.state(tmp_path, RUN)


@pytest.mark.parametrize("value", OTHERS, ids=repr)
@pytest.mark.parametrize("name", ["times", "result", "settings"])
def test_any_value_of_another_type_in_a_record(tmp_path, capsys, name, value):
    (tmp_path / f"{RECORD['name']}.json").write_text(json.dumps({**RECORD, name: value}))
    lines, (complaint,) = say(tmp_path, capsys)
    assert lines[-1].startswith(f"{int(name != 'settings')} runs")
    assert "is damaged or no file of a run" in complaint


@pytest.mark.parametrize(
    "content", ["[1]", '{"runs": 3}', '{"runs": [1, null, {}]}', "{", "", "1e9"]
)
def test_plans_that_are_none(tmp_path, capsys, content):
    (tmp_path / status.PLANS).mkdir()
    (tmp_path / status.PLANS / "x.json").write_text(content)
    lines, (complaint,) = say(tmp_path, capsys)
    assert lines == ["0 runs: ; 0.0% of all iterations"]
    assert "x.json' is damaged" in complaint


@pytest.mark.parametrize("cut", [0, 1, 100, -3])
def test_a_record_that_is_cut_short_is_mentioned(tmp_path, capsys, cut):
    settings = status.from_dict(RECORD["settings"])
    status.write_plan(tmp_path, [settings])
    path = tmp_path / f"{settings.name}.json"
    path.write_text(json.dumps(RECORD)[:cut])
    lines, (complaint,) = say(tmp_path, capsys)
    assert f"its record {str(path)!r} is damaged: delete it" in lines[0]
    assert "1 failed" in lines[-1]
    assert path.name in complaint
    # And what the line says to do is right.
    with pytest.raises(ReproduceError, match="is not a record"):
        run.run(settings, tmp_path)
    path.unlink()
    assert status.state(tmp_path, settings).kind == "waiting"


def test_whole_files_are_not_mentioned(tmp_path, capsys):
    settings = status.from_dict(RECORD["settings"])
    status.write_plan(tmp_path, [settings, RUN])
    (tmp_path / f"{settings.name}.json").write_text(json.dumps(RECORD))
    directory = tmp_path / RUN.name
    directory.mkdir()
    (directory / marks.PROGRESS).write_text(json.dumps(PROGRESS))
    marks.write_failure(directory, RUN, "of some reason", again=False)
    lines, complaints = say(tmp_path, capsys)
    assert complaints == []
    assert lines[0] == f"failed       {RUN.name}: of some reason"


def test_a_plan_that_cannot_be_written_stops_no_sweep(tmp_path, capsys, monkeypatch):
    """As that of another user in a directory in which everybody may delete their own files only."""
    status.write_plan(tmp_path, [RUN])
    before = list((tmp_path / status.PLANS).iterdir())

    def refused(*_, **__):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(status, "write_json", refused)
    status.write_plan(tmp_path, [RUN])  # it is there
    assert capsys.readouterr().err == ""
    status.write_plan(tmp_path, [RUN, RUN])
    assert (
        "the plan of this sweep, is not written (Operation not permitted)"
        in capsys.readouterr().err
    )
    assert list((tmp_path / status.PLANS).iterdir()) == before


def test_a_finished_run_of_another_user(tmp_path, capsys, monkeypatch):
    settings = status.from_dict(RECORD["settings"])
    (tmp_path / f"{settings.name}.json").write_text(json.dumps(RECORD))
    directory = tmp_path / settings.name
    directory.mkdir()
    (directory / marks.PROGRESS).write_text("{}")

    def refused(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(run, "make_writable", refused)
    monkeypatch.setattr(run.Path, "unlink", refused)
    assert run.run(settings, tmp_path) == RECORD
    assert "is finished" in capsys.readouterr().out


def test_a_directory_of_a_run_that_may_not_be_looked_into(tmp_path, monkeypatch):
    """Path.exists raises there; a run of a sweep that ends so is a failure like any other."""

    def refused(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(sweep.sys, "executable", "/bin/false")
    job = sweep._Process(RUN, tmp_path, None, -1)
    job.process.wait()
    monkeypatch.setattr(os, "stat", refused)
    assert job.failure() == "it said nothing"
    assert status.state(tmp_path, RUN).kind == "waiting"
