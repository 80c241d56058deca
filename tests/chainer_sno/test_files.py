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
