"""The marks that a run leaves in its directory: a lock, its progress, a failure."""

import contextlib
import datetime
import fcntl
import time

from reproduce import Locked
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
def locked(directory, wait):
    """Hold a lock on a run; the system drops it when the process ends, however it ends."""
    with open(directory / LOCK, "a") as file:
        until = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() >= until:
                    raise Locked(
                        f"another process is training {directory.name}: wait for it, or stop it"
                    ) from error
            time.sleep(0.05)
        yield


def is_locked(directory):
    """Return whether a process trains the run of a directory."""
    try:
        with open(directory / LOCK) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def write_failure(directory, settings, reason, again):
    """Leave a word about a failure in the directory of a run.

    Args:
        directory (pathlib.Path): of the run.
        settings (reproduce.settings.Settings): of the run.
        reason (str): one line.
        again (bool): whether the same command may succeed, as after a kill.
    """
    content = {"settings": settings.as_dict(), "reason": reason, "again": again, "when": now()}
    with contextlib.suppress(OSError):  # a full disk, say; the reason is printed as well
        write_json(directory / FAILED, content)
