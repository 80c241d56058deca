"""Exceptions of somebody else's code, told in one line."""


def in_one_line(error: BaseException) -> str:
    """Return the type and the beginning of the message of an exception, without line breaks."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
