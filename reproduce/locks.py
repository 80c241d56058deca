"""Locks on files, which the system releases when a process ends, even by a kill."""

import contextlib
import errno
import fcntl
import os
import tempfile
import time
from pathlib import Path
from typing import IO, Any, TextIO

from reproduce import Locked, ReproduceError

#: The errors of a file system without locks, such as a network file system without its daemon.
UNSUPPORTED = frozenset(
    {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.EBADF}
)
#: The errors if another process holds the lock.
_HELD = frozenset({errno.EWOULDBLOCK, errno.EAGAIN})


def _try(file: IO[Any], kind: int) -> bool | None:
    """Try to lock an open file; return whether it is locked, None if there are no locks.

    Raises:
        OSError: the file system reports another error.
    """
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            return False
        if error.errno in UNSUPPORTED:
            return None
        raise
    return True


def _open(path: Path) -> TextIO:
    """Open a lock to hold it; read access is enough, as to another user's lock."""
    try:
        return open(path, "a")
    except PermissionError:
        return open(path)


def hold(path: Path, wait: float, name: str) -> tuple[TextIO, bool]:
    """Take a lock.

    Args:
        path (pathlib.Path): of the lock, created where it is missing.
        wait (float): for how many seconds to try.
        name (str): of what is locked, for messages.

    Returns:
        tuple: the open file, which holds the lock until it is closed, and whether it holds one: on
        a file system without locks it does not.

    Raises:
        Locked: another process holds it.
        ReproduceError: the lock cannot be opened, or the file system is in trouble.
    """
    try:
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(_open(path))
            until = time.monotonic() + wait
            while (done := _try(file, fcntl.LOCK_EX)) is False:
                if time.monotonic() >= until:
                    raise Locked(f"another process is training {name}: wait for it, or stop it")
                time.sleep(0.05)
            stack.pop_all()  # it stays open
    except PermissionError as error:
        raise ReproduceError(
            f"the lock {str(path)!r} is another user's and cannot be opened: delete it when nobody "
            "trains this run, or give another --out"
        ) from error
    except OSError as error:
        raise ReproduceError(
            f"cannot lock {str(path)!r} ({error.strerror or error}): give an --out on another "
            "file system"
        ) from error
    return file, bool(done)


def is_held(path: Path) -> bool | None:
    """Return whether a process holds a lock.

    Args:
        path (pathlib.Path): of the lock.

    Returns:
        bool: None if that is unknown: the file cannot be read, or the file system has no locks.
    """
    try:
        with open(path) as file:
            done = _try(file, fcntl.LOCK_SH)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return None
    return None if done is None else not done


def are_missing(directory: Path) -> bool:
    """Return whether the file system of a directory has no locks.

    Args:
        directory (pathlib.Path): that can be written into.
    """
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            return _try(file, fcntl.LOCK_EX) is None
    except OSError:
        return False  # the code that needs the lock reports it


def warning(directory: Path) -> str:
    """Return the warning for the user if there are no locks."""
    return (
        f"the file system of {os.fspath(directory)!r} has no locks: going on without, so see to it "
        "that no second process trains the same runs"
    )
