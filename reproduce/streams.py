"""Standard output and errors: streams that may be closed, full, or not a terminal."""

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TextIO


def is_live(stream: TextIO) -> bool:
    """Return whether a stream is a terminal that understands control sequences."""
    return stream.isatty() and os.environ.get("TERM", "").lower() not in ("", "dumb", "unknown")


class _Checked:
    """A stream that reports once that it cannot be written to, and then discards its input.

    A full disk, on which the file of the output lies, does not end a training of days.

    Args:
        stream (file): the stream.
        on_failure (callable): takes the error.
        to_pipes (bool): whether the end of a reader is an error like any other; otherwise it is
            raised.
    """

    def __init__(
        self, stream: Any, on_failure: Callable[[OSError], object], to_pipes: bool
    ) -> None:
        self._stream = stream
        self._on_failure = on_failure
        self._to_pipes = to_pipes
        self.failed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text, if that is still possible."""
        self._try(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Write the buffered text."""
        self._try(self._stream.flush)

    def _try(self, call: Callable[..., object], *arguments: object) -> None:
        try:
            call(*arguments)
        except OSError as error:
            if isinstance(error, BrokenPipeError) and not self._to_pipes:
                raise
            first, self.failed = not self.failed, True
            to_nowhere(self._stream)
            if first:
                self._on_failure(error)


def to_nowhere(stream: Any) -> None:
    """Discard the text that a stream still holds, and all that follows.

    Otherwise the interpreter would write it when it ends, and report an error.
    """
    with contextlib.suppress(OSError, ValueError):  # a stream in memory has no number
        number = stream.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)


def _open_what_is_closed() -> None:
    """Open the standard streams that were closed when this process started.

    Otherwise the next file to be opened, such as a snapshot, would get the number of stdout.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))


@contextlib.contextmanager
def checked() -> Iterator[Any]:
    """Replace stdout and stderr by streams that cannot fail.

    Yields:
        file: stdout; its ``failed`` says whether some output was lost.
    """
    _open_what_is_closed()

    def complain(error: OSError) -> None:
        print(
            f"reproduce: what is printed is lost ({error.strerror or error}); files are written "
            "all the same",
            file=sys.stderr,
        )

    out, error = sys.stdout, sys.stderr
    for stream in (out, error):
        if hasattr(stream, "reconfigure"):  # a letter that the locale lacks is no reason to end
            stream.reconfigure(errors="backslashreplace")
    sys.stdout = _Checked(out, complain, to_pipes=False)
    sys.stderr = _Checked(error, lambda _: None, to_pipes=True)
    try:
        yield sys.stdout
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            to_nowhere(out)
        sys.stderr.flush()
        sys.stdout, sys.stderr = out, error


def show_warnings_in_one_line() -> None:
    """Print each warning of this process as one line, without its line of code."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        print(f"reproduce: {' '.join(str(message).split())}", file=file or sys.stderr)

    warnings.showwarning = show
