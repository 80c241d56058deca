import errno
import os

import numpy
import pytest

from chainer_sno.files import DAMAGE, read_npz, replacing, write_bytes, write_npz


def test_a_file_is_whole_or_as_it_was(tmp_path):
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def fail():
        with replacing(path) as file:
            file.write(b"half of the n")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_arrays_come_back(tmp_path):
    path = tmp_path / "arrays.npz"
    write_npz(path, {"a/b": numpy.arange(3), "text": "words"})
    found = read_npz(path)
    assert found["a/b"].tolist() == [0, 1, 2]
    assert str(found["text"]) == "words"


def test_damage_of_any_byte_is_seen_or_does_no_harm(tmp_path, rng):
    path = tmp_path / "arrays.npz"
    arrays = {"a": rng.normal(size=7), "b": numpy.arange(5)}
    write_npz(path, arrays)
    whole = path.read_bytes()
    seen, positions = 0, rng.choice(len(whole), 200, replace=False)
    for position in positions:
        damaged = bytearray(whole)
        damaged[position] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            found = read_npz(path)
        except DAMAGE:
            seen += 1
        else:
            for name in found.keys() & arrays.keys():
                numpy.testing.assert_array_equal(found[name], arrays[name])
    assert seen > 100
    numpy.save(path.with_suffix(".npy"), arrays["a"])
    single = path.with_suffix(".npy").read_bytes()
    for content in (b"", whole[:-1], whole[: len(whole) // 2], b"not an archive", single):
        path.write_bytes(content)
        with pytest.raises(DAMAGE):
            read_npz(path)


@pytest.fixture
def umask():
    """Set the mask of new files' modes; it is set back."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077])
def test_files_have_the_mode_that_the_umask_says(tmp_path, umask, mask):
    umask(mask)
    write_bytes(tmp_path / "file", b"")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_file_system_that_refuses_chmod(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chmod", refused)
    monkeypatch.setattr(os, "fchmod", refused)
    write_npz(tmp_path / "file", {"a": numpy.arange(3)})
    assert read_npz(tmp_path / "file")["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO])
def test_a_file_system_that_cannot_wait_for_its_disk(tmp_path, monkeypatch, number):
    def fsync(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    if number == errno.EIO:
        with pytest.raises(OSError, match="Input/output error"):
            write_bytes(tmp_path / "file", b"content")
        assert list(tmp_path.iterdir()) == []
    else:
        write_bytes(tmp_path / "file", b"content")
        assert (tmp_path / "file").read_bytes() == b"content"
