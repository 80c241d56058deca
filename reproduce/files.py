"""Files that are whole or absent: written beside their target, then renamed."""

import contextlib
import io
import json
import os
import tempfile
from pathlib import Path

import numpy

from reproduce import ReproduceError

#: The ending of a file that is being written; a killed process may leave one behind.
UNFINISHED = ".unfinished"


@contextlib.contextmanager
def replacing(path, durable=True):
    """Open a binary file that takes the place of ``path`` when the block ends without an error.

    Args:
        path (pathlib.Path): the target, which stays as it was after an error or a kill.
        durable (bool): wait until the content is on the disk, so that a power cut leaves either
            file too.

    Yields:
        file: open for writing.
    """
    path = Path(path)
    handle, name = tempfile.mkstemp(prefix=path.name + ".", suffix=UNFINISHED, dir=path.parent)
    try:
        with open(handle, "wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def write_bytes(path, content, durable=True):
    """Write a file in one step; see :func:`replacing`."""
    with replacing(path, durable) as file:
        file.write(content)


def write_json(path, value, durable=True):
    """Write a value as JSON in one step, with an end of line behind it."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode(), durable)


def write_npz(path, arrays):
    """Write arrays as an uncompressed npz file in one step.

    Args:
        path (pathlib.Path): the target.
        arrays (dict): by name.
    """
    # Into memory first: an archive that a full disk cuts short complains when it is collected.
    content = io.BytesIO()
    numpy.savez(content, **arrays)
    write_bytes(path, content.getvalue())


def remove_unfinished(directory, name=""):
    """Delete what a killed process left half written in a directory.

    Args:
        directory (pathlib.Path): where to look.
        name (str): how the names of the targets begin; by default all.
    """
    for path in Path(directory).glob("*" + UNFINISHED):
        if path.name.startswith(name):
            path.unlink(missing_ok=True)


def make_writable(directory):
    """Create a directory and see that files can be written in it.

    Args:
        directory (str or pathlib.Path): to be created with its parents.

    Returns:
        pathlib.Path: the same.

    Raises:
        ReproduceError: that cannot be done; the message names the reason.
    """
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise ReproduceError(
            f"cannot write into {str(directory)!r} ({reason}): name another directory"
        ) from error
    return directory
