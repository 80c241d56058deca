"""JSON files that are either complete or absent, and directories to write into."""

import contextlib
import errno
import json
import secrets
from pathlib import Path

from reproduce import ReproduceError
from reproduce._types import StrPath

#: The ending of files that are not complete, as :data:`chainer_sno.files.UNFINISHED`; importing
#: that would import Chainer.
_UNFINISHED = ".unfinished"


def write_json(path: Path, value: object, durable: bool = True) -> None:
    """Write a value as JSON in one step, followed by an end of line."""
    # Here, not above: it takes Chainer along, which those who only read can do without.
    from chainer_sno.files import write_bytes

    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode(), durable)


def remove_unfinished(directory: StrPath, name: str = "") -> None:
    """Delete the incomplete files of a killed process in a directory.

    Args:
        directory (pathlib.Path): where to look.
        name (str): how the names of the targets begin; by default all.
    """
    for path in Path(directory).glob("*" + _UNFINISHED):
        if path.name.startswith(name):
            # A file of another user, in a shared directory, does no harm.
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def make_writable(directory: StrPath, option: str | None = None) -> Path:
    """Create a directory and test in it everything that is done to a file later.

    If a file system refuses something, such as to rename a file over another, this is found before
    a training and not at its first snapshot.

    Args:
        directory (str or pathlib.Path): to be created with its parents.
        option (str): of the command line, which names another directory.

    Returns:
        pathlib.Path: the same.

    Raises:
        ReproduceError: that cannot be done; the message names the reason.
    """
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _rehearse(directory)
    except OSError as error:
        raise ReproduceError(
            f"cannot write into {str(directory)!r} ({_reason(error, directory)}): name another "
            f"directory{f' with {option}' * bool(option)}"
        ) from error
    return directory


def check_name(path: Path) -> None:
    """Check that the file system takes the name of a file that is written much later.

    Args:
        path (pathlib.Path): the file, in a directory that :func:`make_writable` returned.

    Raises:
        ReproduceError: the name is too long, or refused for another reason.
    """
    from chainer_sno.files import unfinished

    name = unfinished(path)
    try:
        with open(name, "xb"):
            pass
        name.unlink()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise ReproduceError(
                f"cannot write {path.name!r} into {str(path.parent)!r} "
                f"({error.strerror or error}): name another directory"
            ) from error
        raise ReproduceError(
            f"the name {path.name!r} of {len(path.name)} characters is too long for the files in "
            f"{str(path.parent)!r}: every option that is not the paper's makes it longer, so "
            "leave some out, or give their values fewer digits"
        ) from error


def _rehearse(directory: Path) -> None:
    """Write a small file twice, the second time over the first, and delete it.

    Raises:
        OSError: as the file system says.
    """
    from chainer_sno.files import write_bytes

    # Those of killed processes go first.  A process that rehearses now loses its file too, and
    # takes that for what it is.
    name = "rehearsal."
    remove_unfinished(directory, name)
    path = directory / f"{name}{secrets.token_hex(4)}{_UNFINISHED}"
    try:
        for _ in range(2):
            with contextlib.suppress(FileNotFoundError):
                write_bytes(path, bytes(1024))
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


def _reason(error: OSError, directory: Path) -> object:
    """Return why a directory cannot be written into."""
    for path in (directory, *directory.parents):
        if path.exists() and not path.is_dir():
            return f"{str(path)!r} is a file"
    return error.strerror or error
