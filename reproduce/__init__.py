"""The experiments of the paper: settings, data, runs, and the comparison with its numbers."""

from pathlib import Path

#: The repository, which holds the published numbers and the results.
ROOT = Path(__file__).resolve().parent.parent


class Interrupted(Exception):
    """A training was stopped before its end; its state is in a snapshot.

    Attributes:
        signal (int): the signal that asked for it; None if an observer ended the training.
    """

    def __init__(self, message: str, signal: int | None) -> None:
        super().__init__(message)
        self.signal = signal


class ReproduceError(Exception):
    """An error that the user can fix; the message is one line that says what to do.

    Attributes:
        again (bool): whether the same command may then succeed, because the fault is not in its
            settings: a full disk, say.
    """

    #: What the command line exits with.
    exit_code = 2

    def __init__(self, message: str, again: bool = False) -> None:
        super().__init__(message)
        self.again = again


class Locked(ReproduceError):
    """Another process trains the same run."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: try again later
