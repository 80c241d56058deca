"""JSON files that are whole or absent, and directories to write into."""

import json
import tempfile
from pathlib import Path

from reproduce import ReproduceError


def write_json(path, value, durable=True):
    """Write a value as JSON in one step, with an end of line behind it."""
    # Here, not above: it takes Chainer along, which those who only read can do without.
    from chainer_sno.files import write_bytes

    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode(), durable)


def remove_unfinished(directory, name=""):
    """Delete what a killed process left half written in a directory.

    Args:
        directory (pathlib.Path): where to look.
        name (str): how the names of the targets begin; by default all.
    """
    from chainer_sno.files import UNFINISHED

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
        # Of a file in the directory's place, the system says "File exists".
        reason = "it is a file" if isinstance(error, FileExistsError) else error.strerror or error
        raise ReproduceError(
            f"cannot write into {str(directory)!r} ({reason}): name another directory"
        ) from error
    return directory
