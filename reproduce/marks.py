"""The files that a run keeps in its directory: a lock, its progress, a failure."""

import contextlib
import datetime

from reproduce import locks
from reproduce.files import write_json

#: Held while a process trains the run.
LOCK = "lock"
#: How far the training is.
PROGRESS = "progress.json"
#: Why it failed.
FAILED = "failed.json"


def now():
    """Return the time in UTC, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


@contextlib.contextmanager
def locked(directory, wait, warn):
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


def is_locked(directory):
    """Return whether a process trains the run of a directory; None if that is unknown."""
    return locks.is_held(directory / LOCK)


def write_failure(directory, settings, reason, again):
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
