import gzip
import io
import os
import pickle
import subprocess

import numpy
import pytest

from reproduce import ReproduceError, data


@pytest.fixture
def small(monkeypatch, rng):
    """A data set of six images under the name of MNIST, with its own checksums."""
    arrays = {
        "train_images": rng.integers(0, 256, (4, 28, 28), dtype=numpy.uint8),
        "train_labels": rng.integers(0, 10, 4, dtype=numpy.uint8),
        "test_images": rng.integers(0, 256, (2, 28, 28), dtype=numpy.uint8),
        "test_labels": rng.integers(0, 10, 2, dtype=numpy.uint8),
    }
    digest = data.hashlib.sha256
    sums = {part: digest(array.tobytes()).hexdigest() for part, array in arrays.items()}
    monkeypatch.setitem(data.SHA256, "mnist", sums)
    monkeypatch.setattr(data, "SHAPES", {part: array.shape for part, array in arrays.items()})
    return arrays


def store(arrays, directory, compress=False):
    directory.mkdir(exist_ok=True)
    for part, array in arrays.items():
        content = data.to_idx(array)
        name = data.IDX_NAMES[part]
        if compress:
            (directory / (name + ".gz")).write_bytes(gzip.compress(content))
        else:
            (directory / name).write_bytes(content)


def fail(*arguments):
    raise data.SourceError("not today")


def test_idx_round_trip(rng):
    for shape in [(3,), (2, 4, 5)]:
        array = rng.integers(0, 256, shape, dtype=numpy.uint8)
        numpy.testing.assert_array_equal(data.from_idx(data.to_idx(array)), array)
    header = bytes.fromhex("00000803 0000ea60 0000001c 0000001c")
    assert data.to_idx(numpy.zeros((60000, 28, 28), numpy.uint8))[:16] == header
    for bad in (b"", b"\0\0\x0d\x01\0\0\0\1\0", data.to_idx(numpy.zeros(5, numpy.uint8))[:-1]):
        with pytest.raises(ValueError, match="IDX|bytes of data"):
            data.from_idx(bad)


@pytest.mark.parametrize("compress", [False, True])
def test_a_directory_is_loaded(small, tmp_path, compress):
    store(small, tmp_path, compress)
    (x, t), (x_test, t_test) = data.load("mnist", tmp_path)
    numpy.testing.assert_array_equal(x, small["train_images"].reshape(4, 784))
    numpy.testing.assert_array_equal(t, small["train_labels"])
    numpy.testing.assert_array_equal(x_test, small["test_images"].reshape(2, 784))
    numpy.testing.assert_array_equal(t_test, small["test_labels"])
    assert (x.dtype, t.dtype) == (numpy.uint8, numpy.int32)


def test_sources_are_tried_in_order_and_cached(small, tmp_path, monkeypatch):
    tried = []

    def source(name, answer):
        def read(*arguments):
            tried.append(name)
            return answer()

        return read

    monkeypatch.setattr(data, "read_mirror", source("mirror", fail))
    monkeypatch.setitem(data.PACKAGES, "mnist", source("package", lambda: small))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for _ in range(2):
        data.load("mnist", say=lambda line: None)
    assert tried == ["mirror", "package"]
    names = sorted(path.name for path in (tmp_path / "chainer_sno" / "mnist").iterdir())
    assert names == sorted(data.IDX_NAMES.values())
    # A directory of the user's goes before, and nothing else is asked.
    store(small, tmp_path / "mine")
    data.fetch("mnist", tmp_path / "other", tmp_path / "mine", say=lambda line: None)
    assert tried == ["mirror", "package"]
    data.read_directory("mnist", tmp_path / "other")


def test_no_source_is_one_line(small, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "read_mirror", fail)
    monkeypatch.setitem(data.PACKAGES, "mnist", fail)
    with pytest.raises(ReproduceError, match="from no source: not today; not today"):
        data.fetch("mnist", tmp_path, say=lambda line: None)


def test_a_mirror_with_other_bytes_is_refused(small, tmp_path, monkeypatch):
    wrong = {**small, "test_labels": small["test_labels"] + 1}
    store(wrong, tmp_path / "mirror", compress=True)
    monkeypatch.setitem(data.MIRRORS, "mnist", (tmp_path / "mirror").as_uri() + "/")
    with pytest.raises(ReproduceError, match="t10k-labels.* is not mnist's test labels: its SHA"):
        data.fetch("mnist", tmp_path / "cache", say=lambda line: None)
    assert list((tmp_path / "cache").iterdir()) == []
    store(small, tmp_path / "mirror", compress=True)
    data.fetch("mnist", tmp_path / "cache", say=lambda line: None)
    data.read_directory("mnist", tmp_path / "cache")


@pytest.mark.parametrize("damage", ["byte", "short", "gzip"])
def test_a_damaged_file_is_named(small, tmp_path, damage):
    store(small, tmp_path, compress=damage == "gzip")
    path = data._find(tmp_path, "train-images-idx3-ubyte")
    content = bytearray(path.read_bytes())
    if damage == "byte":
        content[100] ^= 1
    path.write_bytes(content[: -(damage != "byte") or None])
    with pytest.raises(ReproduceError, match="train-images-idx3-ubyte.*delete it"):
        data.load("mnist", tmp_path)


def test_a_directory_without_the_files_is_named(tmp_path):
    with pytest.raises(ReproduceError, match="has no file train-images.* reproduce data mnist"):
        data.load("mnist", tmp_path)


class Malicious:
    def __reduce__(self):
        return os.system, ("touch /tmp/chainer_sno_was_here",)


@pytest.mark.parametrize("value", [Malicious(), subprocess.Popen, numpy.load])
def test_a_pickle_with_code_is_refused(value):
    content = pickle.dumps({"x": value})
    with pytest.raises(pickle.UnpicklingError, match="not an array"):
        data.ArrayUnpickler(io.BytesIO(content)).load()
    assert not os.path.exists("/tmp/chainer_sno_was_here")


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_of_arrays_is_read(protocol, rng):
    arrays = [(rng.random((2, 3)).astype("f"), rng.integers(0, 9, 2))]
    # A pickle of NumPy 1 names numpy.core, one of NumPy 2 numpy._core.
    content = pickle.dumps(arrays, protocol=protocol)
    for old, new in [(b"numpy._core", b"numpy.core"), (b"", b"")]:
        if protocol == 4 and old:
            continue  # this protocol writes the lengths of names
        found = data.ArrayUnpickler(io.BytesIO(content.replace(old, new))).load()
        numpy.testing.assert_array_equal(found[0][0], arrays[0][0])
        numpy.testing.assert_array_equal(found[0][1], arrays[0][1])


def test_mnist_is_the_real_one():
    """The cache that `make data` filled: checksums, shapes, and what MNIST is known for."""
    (x, t), (x_test, t_test) = data.load("mnist")
    assert (x.shape, x_test.shape) == ((60000, 784), (10000, 784))
    assert t[:5].tolist() == [5, 0, 4, 1, 9]
    assert numpy.bincount(t).tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949
    ]  # fmt: skip
    assert round(float(x.mean() / 255), 4) == 0.1307
