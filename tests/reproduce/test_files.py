import errno
import json
import os
from pathlib import Path

import pytest

from chainer_sno.files import write_bytes
from reproduce import ReproduceError, data
from reproduce.experiments.unit_selection import UnitSelection
from reproduce.files import check_name, make_writable, remove_unfinished, write_json
from reproduce.run import run
from reproduce.sweep import run_all


def test_json_comes_back(tmp_path):
    path = tmp_path / "file"
    write_json(path, {"b": [1, 2]})
    assert json.loads(path.read_text()) == {"b": [1, 2]}
    assert path.read_bytes().endswith(b"}\n")


def test_leavings_of_a_killed_process_are_removed(tmp_path):
    (tmp_path / "snapshot.x1y2.unfinished").write_bytes(b"half")
    write_bytes(tmp_path / "whole", b"")
    remove_unfinished(tmp_path, "record")
    assert len(list(tmp_path.iterdir())) == 2
    remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]


def test_not_a_number_is_no_json(tmp_path):
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "x", float("nan"))
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_directory_is_named(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"")
    for bad in (file, file / "below"):
        with pytest.raises(ReproduceError, match="cannot write into .*file"):
            make_writable(bad)
    assert make_writable(tmp_path / "a" / "b").is_dir()


def test_nothing_is_left_of_a_rehearsal(tmp_path):
    (tmp_path / "rehearsal.of-a-killed-process.unfinished").touch()
    (tmp_path / "other.unfinished").touch()
    make_writable(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["other.unfinished"]


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_what_a_file_system_refuses_is_found_before_a_training(tmp_path, monkeypatch, call):
    def refused(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, call, refused)
    monkeypatch.setattr(data, "load", lambda *_: pytest.fail("it begins"))
    with pytest.raises(ReproduceError, match="cannot write into .*Operation not permitted.*--out"):
        run(UnitSelection(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_user_in_a_shared_directory_is_no_failure(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    (tmp_path / "record.x.unfinished").touch()
    monkeypatch.setattr(Path, "unlink", refused)
    remove_unfinished(tmp_path)


def with_a_name_of(length):
    """Settings of a run whose name has so many letters or a few more."""
    for digits in range(1, 18):
        third = round(1 / 3, digits)
        found = UnitSelection(
            epsilon0=third,
            lr=third,
            momentum=third,
            weight_decay=third,
            eta_factor=third,
            gradients="sum",
            decayed="weights",
            inputs="mean-image",
            theta_dtype="float32",
            examples=59999,
        )
        if len(found.name) >= length:
            return found
    raise AssertionError(f"the longest name has {len(found.name)} letters")


def test_a_name_that_is_too_long_is_refused_before_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "load", lambda *_: pytest.fail("it begins"))
    settings = with_a_name_of(231)
    assert len(settings.name) < 250, (
        "of the lengths that only the record's own file is too long for"
    )
    for begin in (lambda: run(settings, tmp_path), lambda: run_all([settings], tmp_path)):
        with pytest.raises(ReproduceError, match="is too long for the files in .*leave some out"):
            begin()
    assert not list(tmp_path.glob("unit-selection*"))


def test_the_longest_name_can_be_written(tmp_path):
    longest = max(n for n in range(200, 256) if _fits(tmp_path / ("x" * n)))
    write_json(tmp_path / ("x" * longest), 1)
    with pytest.raises(OSError, match="too long"):
        write_json(tmp_path / ("x" * (longest + 1)), 1)


def _fits(path):
    try:
        check_name(path)
    except ReproduceError:
        return False
    return True
