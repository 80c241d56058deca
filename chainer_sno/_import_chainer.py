"""Import Chainer 7.8.1, its last release, on a current NumPy and Python.

Chainer needs help to be imported and none to run:

* ``chainer.functions.as_strided`` reads ``numpy.sctypes`` while it is imported; NumPy 2.0
  removed it.
* ``chainer._environment_check`` imports ``numpy.distutils`` (gone since Python 3.12) and
  ``pkg_resources`` (gone since setuptools 81) to compare the versions of CuPy and iDeep with
  those of 2022, and to warn.  With a CuPy of today the warning is always wrong.

This is the only module that patches anything.  Both patches are undone when the import ends, so
other libraries see the NumPy they expect, and a Chainer that somebody imported before us is left
as it is.  Warnings of the import are silenced because they concern Chainer's own source (invalid
escape sequences, deprecated aliases) and a user can do nothing about them.
"""

import contextlib
import sys
import types
import warnings
from collections.abc import Iterator
from typing import Any

import numpy

_CHECK = "chainer._environment_check"
# What numpy.sctypes held on the platforms that Chainer supports.
_SCTYPES = {
    "int": [numpy.int8, numpy.int16, numpy.int32, numpy.int64],
    "uint": [numpy.uint8, numpy.uint16, numpy.uint32, numpy.uint64],
    "float": [numpy.float16, numpy.float32, numpy.float64],
    "complex": [numpy.complex64, numpy.complex128],
    "others": [bool, object, bytes, str, numpy.void],
}


@contextlib.contextmanager
def _old_numpy() -> Iterator[None]:
    """Provide ``numpy.sctypes`` where NumPy has none."""
    if "sctypes" in vars(numpy):
        yield
        return
    numpy.sctypes = _SCTYPES  # type: ignore[attr-defined]
    try:
        yield
    finally:
        del numpy.sctypes  # type: ignore[attr-defined]


@contextlib.contextmanager
def _no_environment_check() -> Iterator[None]:
    """Put a check that finds nothing in the place of Chainer's."""
    stub = types.ModuleType(_CHECK)
    stub.check = lambda: None  # type: ignore[attr-defined]
    sys.modules[_CHECK] = stub
    try:
        yield
    finally:
        sys.modules.pop(_CHECK, None)


def import_chainer() -> Any:
    """Return the module ``chainer``, imported with the two patches if it is not there yet.

    Raises:
        ImportError: Chainer is not installed; the message says how to install it.
    """
    if "chainer" in sys.modules:
        return sys.modules["chainer"]
    with warnings.catch_warnings(), _old_numpy(), _no_environment_check():
        warnings.simplefilter("ignore")
        try:
            import chainer
        except ModuleNotFoundError as error:
            if error.name != "chainer":
                raise
            raise ImportError(
                "chainer_sno needs Chainer 7.8.1: pip install 'setuptools<81' wheel && "
                "pip install --no-build-isolation chainer==7.8.1"
            ) from error
    return chainer


chainer = import_chainer()
