"""Types of the command line's values: each returns the value, or says in one line what is wrong.

A value is checked here as far as possible without the other values; the settings check the rest.
"""

import argparse
import math
import os
from collections.abc import Callable

#: Characters of a value that a message repeats.
_SHOWN = 200


def _clipped(text: str) -> str:
    """Return a value without an endless rest."""
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _shown(text: str) -> str:
    """Return a value as messages repeat it: in quotes, on one line and shortened."""
    return repr(_clipped(text))


def whole(least: int | None = None, most: int | None = None) -> Callable[[str], int]:
    """Return the type of a whole number.

    Args:
        least (int): the smallest that is accepted; None for no limit.
        most (int): the largest that is accepted; None for no limit.

    Returns:
        callable: from a text to an int.
    """

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{_shown(text)} is not a whole number") from None
        if (least is not None and value < least) or (most is not None and value > most):
            limits = f"at least {least}" if most is None else f"between {least} and {most}"
            raise argparse.ArgumentTypeError(f"must be {limits}, not {_clipped(text)}")
        return value

    return convert


def number(least: float = -math.inf) -> Callable[[str], float]:
    """Return the type of a finite number.

    Args:
        least (float): the smallest that is accepted.

    Returns:
        callable: from a text to a float.
    """

    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise argparse.ArgumentTypeError(f"{_shown(text)} is not a finite number")
        if value < least:
            raise argparse.ArgumentTypeError(f"must be at least {least:g}, not {_clipped(text)}")
        return value

    return convert


def directory(text: str) -> str:
    """Return the path of a directory that exists or can be created."""
    text = _path(text, "a directory")
    place = os.path.abspath(text)
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    if not os.path.isdir(place):
        which = "is a file" if place == os.path.abspath(text) else f"lies below the file {place!r}"
        raise argparse.ArgumentTypeError(f"{_shown(text)} {which}: give a directory")
    return text


def existing_directory(text: str) -> str:
    """Return the path of a directory that exists."""
    text = directory(text)
    if not os.path.isdir(text):
        raise argparse.ArgumentTypeError(f"there is no directory {_shown(text)}")
    return text


def existing_file(text: str) -> str:
    """Return the path of a file that exists."""
    text = _no_directory(text)
    if not os.path.exists(text):
        raise argparse.ArgumentTypeError(f"there is no file {_shown(text)}")
    return text


def new_file(text: str) -> str:
    """Return the path of a file that can be created, in a directory that exists."""
    text = _no_directory(text)
    existing_directory(os.path.dirname(text) or os.curdir)
    return text


def names(text: str) -> list[str]:
    """Return names with commas between them as a list."""
    found = [name.strip() for name in text.split(",")]
    if not all(found):
        raise argparse.ArgumentTypeError(
            f"{_shown(text)} has an empty name: give names with commas between them"
        )
    return found


def address(text: str) -> str:
    """Return the address of a server."""
    _check_not_empty(text, "an address")
    return text


def _no_directory(text: str) -> str:
    """Return the path of something other than a directory."""
    text = _path(text, "a file")
    if os.path.isdir(text):
        raise argparse.ArgumentTypeError(f"{_shown(text)} is a directory: give a file")
    return text


def _path(text: str, kind: str) -> str:
    """Return a path with ``~`` expanded, which a shell does not do in ``--out=~/runs``."""
    _check_not_empty(text, kind)
    found = os.path.expanduser(text)
    if found.startswith("~"):
        raise argparse.ArgumentTypeError(
            f"{_shown(text)} names a home directory that is not known: write it out, or "
            f"./{_clipped(text)} for a name that begins like this"
        )
    return found


def _check_not_empty(text: str, kind: str) -> None:
    """Refuse a text that an unset variable of a shell leaves behind."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{_shown(text)} is empty: give {kind}")
