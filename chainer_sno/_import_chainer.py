"""Import Chainer 7.8.1, its last release, on a current NumPy and Python.

Chainer needs help to be imported and none to run:

* ``chainer.functions.as_strided`` reads ``numpy.sctypes`` while it is imported; NumPy 2.0
  removed it.
* ``chainer._environment_check`` imports ``numpy.distutils`` (gone since Python 3.12) and
  ``pkg_resources`` (gone since setuptools 81) to compare the versions of CuPy and iDeep with
  those of 2022, and to warn.  With a CuPy of today the warning is always wrong.

Parts of SciPy, which few of Chainer's functions use, take two fifths of the import's time.  Chainer
gets modules in their place that import them when they are first used.

This is the only module that patches anything.  All patches are undone when the import ends, so
other libraries see the NumPy and the SciPy they expect, and a Chainer that somebody imported before
us is left as it is.  Warnings of the import are silenced because they concern Chainer's own source
(invalid escape sequences, deprecated aliases) and a user can do nothing about them.
"""

import contextlib
import importlib.util
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
#: What Chainer imports of SciPy where it is installed.
_SCIPY = ("scipy.io", "scipy.linalg", "scipy.sparse", "scipy.special")


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


class _Later(types.ModuleType):
    """A module that stands for the one of its name, which it imports when it is first used."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:  # used while Chainer is imported
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def _stand_ins() -> dict[str, types.ModuleType]:
    """Return a check that finds nothing, and SciPy's parts for later where SciPy is installed."""
    check = types.ModuleType(_CHECK)
    check.check = lambda: None  # type: ignore[attr-defined]
    found = {_CHECK: check}
    if sys.modules.get("scipy", True) and importlib.util.find_spec("scipy"):
        found.update((name, _Later(name)) for name in _SCIPY if name not in sys.modules)
    return found


@contextlib.contextmanager
def _other_modules() -> Iterator[None]:
    """Provide the stand-ins, and take back those that are still there at the end."""
    modules = _stand_ins()
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name, module in modules.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


def import_chainer() -> Any:
    """Return the module ``chainer``, imported with the patches if it is not there yet.

    Raises:
        ImportError: Chainer is not installed; the message says how to install it.
    """
    if "chainer" in sys.modules:
        return sys.modules["chainer"]
    with warnings.catch_warnings(), _old_numpy(), _other_modules():
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
