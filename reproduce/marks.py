"""The files that a run keeps in its directory: a lock, its progress, a failure."""

import contextlib
import datetime
from collections.abc import Iterator
from pathlib import Path

from reproduce import locks
from reproduce._types import Say
from reproduce.files import write_json
from reproduce.settings import Settings

#: Held while a process trains the run.
LOCK = "lock"
#: How far the training is.
PROGRESS = "progress.json"
#: Why it failed.
FAILED = "failed.json"


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


@contextlib.contextmanager
def locked(directory: Path, wait: float, warn: Say) -> Iterator[None]:
    """Hold a lock on a run; the system releases it when the process ends, even by a kill.

    Args:
        directory (pathlib.Path): of the run.
        wait (float): for how many seconds to wait for another process.
        warn (callable): takes a line if the file system has no locks; the run then continues.

    Raises:
        Locked: another process holds it.
        ReproduceError: the lock cannot be opened.
    """
    file, holds = locks.hold(directory / LOCK, wait, directory.name)
    with file:
        if not holds:
            warn(locks.warning(directory))
        yield


def is_locked(directory: Path) -> bool | None:
    """Return whether a process trains the run of a directory; None if that is unknown."""
    return locks.is_held(directory / LOCK)


def write_failure(directory: Path, settings: Settings, reason: str, again: bool) -> None:
    """Write the reason of a failure into the directory of a run.

    Args:
        directory (pathlib.Path): of the run.
        settings (reproduce.settings.Settings): of the run.
        reason (str): one line.
        again (bool): whether the same command may succeed, as after a kill.
    """
    content = {"settings": settings.as_dict(), "reason": reason, "again": again, "when": now()}
    with contextlib.suppress(OSError):  # a full disk, say; the reason is printed as well
        write_json(directory / FAILED, content)
