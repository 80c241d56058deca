"""The signals that ask a program to stop."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def listening(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Pass SIGINT and SIGTERM, which ask to stop, to a handler while the block runs."""
    previous = {s: signal.signal(s, handler) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in previous.items():
            signal.signal(number, old)
