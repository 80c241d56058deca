"""Locks: only EWOULDBLOCK means that another process has one."""

import errno
import fcntl
import os

import pytest

from reproduce import Locked, ReproduceError, locks, marks, status, sweep
from reproduce.experiments.unit_selection import UnitSelection

RUN = UnitSelection(units=8, layers=1, epochs=1)


@pytest.fixture
def directory(tmp_path):
    found = tmp_path / RUN.name
    found.mkdir()
    return found


@pytest.fixture
def answer(monkeypatch):
    """Let the file system answer any wish for a lock with an error."""

    def set_answer(number):
        def flock(file, kind):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", flock)

    return set_answer


def test_a_lock_is_held_by_one(directory):
    told = []
    assert marks.is_locked(directory) is False
    with marks.locked(directory, 0, told.append):
        assert marks.is_locked(directory) is True
        with (
            pytest.raises(Locked, match=f"another process is training {directory.name[:20]}"),
            marks.locked(directory, 0.1, told.append),
        ):
            pass
    assert marks.is_locked(directory) is False
    assert told == []


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL])
def test_a_file_system_without_locks_blames_nobody(directory, answer, number):
    answer(number)
    told, trained = [], []
    with marks.locked(directory, 10, told.append):  # and does not wait
        trained.append(True)
    assert trained
    (line,) = told
    assert "has no locks: going on without" in line
    assert marks.is_locked(directory) is None
    assert locks.are_missing(directory)


def test_a_lock_of_another_process_is_one(directory, answer):
    answer(errno.EWOULDBLOCK)
    (directory / marks.LOCK).touch()
    assert marks.is_locked(directory) is True
    with pytest.raises(Locked), marks.locked(directory, 0, print):
        pass


def test_a_file_system_in_trouble_is_named(directory, answer):
    answer(errno.EIO)
    with (
        pytest.raises(ReproduceError, match="cannot lock .*Input/output error.*: give an --out"),
        marks.locked(directory, 0, print),
    ):
        pass
    assert marks.is_locked(directory) is None


def test_a_lock_of_another_user_that_may_not_be_opened(directory, monkeypatch):
    def refused(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(locks, "open", refused, raising=False)
    with (
        pytest.raises(ReproduceError, match="is another user's and cannot be opened: delete it"),
        marks.locked(directory, 0, print),
    ):
        pass
    assert marks.is_locked(directory) is None


def test_a_lock_of_another_user_that_may_be_read(directory, monkeypatch):
    (directory / marks.LOCK).touch()

    def readable(path, mode="r"):
        if mode != "r":
            raise PermissionError(errno.EACCES, "Permission denied")
        return open(path)

    monkeypatch.setattr(locks, "open", readable, raising=False)
    with marks.locked(directory, 0, print):
        assert marks.is_locked(directory) is True


@pytest.mark.parametrize(("age", "kind"), [(5, "running"), (10_000, "interrupted")])
def test_without_locks_the_progress_tells(directory, answer, monkeypatch, age, kind):
    answer(errno.ENOLCK)
    now = 1e9
    monkeypatch.setattr(status.time, "time", lambda: now)
    (directory / marks.LOCK).touch()
    content = {"settings": RUN.as_dict(), "iteration": 3, "updated": now - age}
    (directory / marks.PROGRESS).write_text(status.json.dumps(content))
    assert status.state(directory.parent, RUN).kind == kind


class Process:
    """A training that is finished at once."""

    def __init__(self, run, out, data_dir, device, threads):
        self.run, self.device = run, device

    def has_ended(self):
        return True

    def failure(self):
        return None


@pytest.fixture
def instant(monkeypatch):
    monkeypatch.setattr(sweep, "_Process", Process)
    monkeypatch.setattr(sweep, "POLL", 0)
    monkeypatch.setattr(sweep.data, "load", lambda *_: None)


def test_a_sweep_says_for_whom_it_waits(tmp_path, monkeypatch, capsys, instant):
    answers = iter([True] * 6)
    monkeypatch.setattr(marks, "is_locked", lambda _: next(answers, False))
    runs = [RUN, UnitSelection(units=8, layers=1, epochs=1, seed=1)]
    assert sweep.run_all(runs, tmp_path) == {}
    told = capsys.readouterr().err
    assert told.count("waiting for other processes") == 1
    assert f"which train {RUN.name} and 1 more" in told
    assert told.count("is finished") == 2


def test_a_sweep_without_locks_warns_once_and_does_not_wait(tmp_path, capsys, answer, instant):
    answer(errno.ENOLCK)
    runs = [RUN, UnitSelection(units=8, layers=1, epochs=1, seed=1)]
    assert sweep.run_all(runs, tmp_path) == {}
    told = capsys.readouterr().err
    assert told.count("has no locks") == 1
    assert "waiting" not in told
