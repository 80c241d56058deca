"""Files that are either complete or absent: written under another name, then renamed."""

import contextlib
import errno
import io
import os
import secrets
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

import numpy

from chainer_sno._types import Array

#: The ending of a file that is being written; a killed process may leave one behind.
UNFINISHED = ".unfinished"
#: The errors of a file system that cannot wait until a file is on the disk.
_NO_SYNC = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


def unfinished(path: str | Path) -> Path:
    """Return a new name beside a file, for its content until that is whole.

    Args:
        path (pathlib.Path): the file.
    """
    path = Path(path)
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}{UNFINISHED}")


@contextlib.contextmanager
def replacing(path: str | Path, durable: bool = True) -> Iterator[Any]:
    """Open a binary file that takes the place of ``path`` when the block ends without an error.

    Args:
        path (pathlib.Path): the target, which stays as it was after an error or a kill.
        durable (bool): wait until the content is on the disk, so that a power cut leaves either
            file too.

    Yields:
        file: open for writing.
    """
    name = unfinished(path)
    # Only open, and no chmod: the mode follows the umask, or the directory's own rules, and some
    # network file systems refuse chmod.
    file = open(name, "xb")
    try:
        with file:
            yield file
            file.flush()
            if durable:
                _wait_for_disk(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def _wait_for_disk(handle: int) -> None:
    """Wait until a file is on the disk, if the file system can do so."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def write_bytes(path: str | Path, content: bytes, durable: bool = True) -> None:
    """Write a file in one step; see :func:`replacing`."""
    with replacing(path, durable) as file:
        file.write(content)


def write_npz(path: str | Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays as an uncompressed npz file in one step.

    Args:
        path (pathlib.Path): the target.
        arrays (dict): by name.
    """
    # Into memory first: an archive cut short by a full disk raises an error when it is collected.
    content = io.BytesIO()
    numpy.savez(content, **arrays)
    write_bytes(path, content.getvalue())


#: What reading an npz file that is damaged or none can raise; RuntimeError where a bit says that it
#: is encrypted or compressed by an unknown method.
DAMAGE = (OSError, EOFError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error)
#: The error numbers of an OSError that a damaged file, or a damaged disk under it, can cause.
_OF_DAMAGE = (None, errno.EINVAL, errno.EIO)


def says_nothing_of_the_file(error: BaseException) -> TypeGuard[OSError]:
    """Return whether a file that cannot be read may be whole, as with missing rights.

    Args:
        error (BaseException): one of :data:`DAMAGE`.
    """
    return isinstance(error, OSError) and error.errno not in _OF_DAMAGE


def read_npz(path: str | Path) -> dict[str, Array]:
    """Read all arrays of an npz file, whose checksums are verified before what it holds is used.

    Args:
        path (pathlib.Path): the file.

    Returns:
        dict: arrays by name.

    Raises:
        OSError, ...: it is damaged or none; see :data:`DAMAGE`.
    """
    with zipfile.ZipFile(path) as archive:
        return {
            name.removesuffix(".npy"): numpy.lib.format.read_array(
                io.BytesIO(archive.read(name)), allow_pickle=False
            )
            for name in archive.namelist()
        }
