import json

import pytest

from chainer_sno.files import write_bytes
from reproduce import ReproduceError
from reproduce.files import make_writable, remove_unfinished, write_json


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
