"""Errors of somebody else's code: exceptions in one line, and floating-point flags left aside."""

from typing import Any

import numpy


def in_one_line(error: BaseException) -> str:
    """Return the type and the beginning of the message of an exception, without line breaks."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def without_flags() -> Any:
    """Return a context for the calls of a check, which looks at outputs.

    A BLAS may set the flags of floating-point errors without any.  NumPy then warns, and where
    warnings are errors the call fails.
    """
    return numpy.errstate(all="ignore")
