"""Import Chainer 7.8.1, its last release, on a current NumPy and Python.

Chainer needs help to be imported:

* ``chainer.functions.as_strided`` reads ``numpy.sctypes`` while it is imported; NumPy 2.0
  removed it.
* ``chainer._environment_check`` imports ``numpy.distutils`` (gone since Python 3.12) and
  ``pkg_resources`` (gone since setuptools 81) to compare the versions of CuPy and iDeep with
  those of 2022, and to warn.  With a CuPy of today the warning is always wrong.

Parts of SciPy, which few of Chainer's functions use, take two fifths of the import's time.  Chainer
gets modules in their place that import them when they are first used.

And some of its functions need help to run.  They get it in Chainer's own modules, nowhere else:

* ``resize_images`` and the backward pass of ``as_strided`` read ``numpy.float`` and
  ``numpy.sctypes``, which are gone: the two functions see a NumPy that has them.
* ``distributions.Categorical.log_prob`` adds a list to what ``numpy.meshgrid`` returns, a tuple
  since NumPy 2.0.
* Python integers that do not fit an integer dtype wrapped around before NumPy 2.0, and raise
  OverflowError since: in ``pad_sequence``, ``dataset.concat_examples`` with a padding, and the
  arithmetic of a variable with a number.
* The worker processes of ``MultiprocessIterator``, where they do not begin as copies of this
  process (spawn, forkserver), import Chainer before anything of ours unless the script does it at
  its top.  They get an initializer that imports this module first.

The following stays broken, with or without this module, because it needs libraries of 2022:
``links.caffe.CaffeFunction`` (protobuf before 4), ``sparse_matmul`` of float16 (SciPy has no such
sparse matrices), ``chainer.testing`` and so ``chainer.gradient_check`` where there is no
``pkg_resources`` (setuptools before 81 has it), and ``chainerx``, which Chainer 7.8.1 has for
Python up to 3.8 only.

This is the only module that patches anything.  The patches of NumPy and ``sys.modules`` are undone
when the import ends, so other libraries see the NumPy and the SciPy they expect.  A Chainer that
was imported before this module stays as it is.  Warnings of the import are silenced because they
concern Chainer's own source (invalid escape sequences, deprecated aliases) and a user can do
nothing about them.
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
    """A module that stands for the one of its name, which it imports when it is first used.

    ``importlib.util.LazyLoader`` does not fit.  Every further import of its module reads
    ``__spec__``, which loads the module.  It also fills a module of its own, so the program would
    hold SciPy twice once the stand-in has left ``sys.modules``.
    """

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:  # used while Chainer is imported
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def _stand_ins() -> dict[str, types.ModuleType]:
    """Return a check that reports nothing, and stand-ins for parts of SciPy if it is installed."""
    check = types.ModuleType(_CHECK)
    check.check = lambda: None  # type: ignore[attr-defined]
    modules = {_CHECK: check}
    if sys.modules.get("scipy", True) and importlib.util.find_spec("scipy"):
        modules.update((name, _Later(name)) for name in _SCIPY if name not in sys.modules)
    return modules


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


class _NumpyWith(types.ModuleType):
    """NumPy with more names than it has, for a function of Chainer that reads them."""

    def __init__(self, **names: Any) -> None:
        super().__init__("numpy")
        vars(self).update(names)

    def __getattr__(self, name: str) -> Any:
        return getattr(numpy, name)


def _seeing(function: Any, name: str, numpy_with: Any) -> Any:
    """Return a function that sees another module under a global name.

    The other functions of its module still see NumPy, which they compare array modules with.
    """
    own = {**function.__globals__, name: numpy_with}
    return types.FunctionType(function.__code__, own, function.__name__, function.__defaults__)


def _wrapped(dtype: Any, value: Any) -> Any:
    """Return a number in a dtype; an integer that does not fit wraps around."""
    dtype = numpy.dtype(dtype)
    if dtype.kind in "iu" and type(value) is int:
        size = 2 ** (8 * dtype.itemsize)
        low = -size // 2 if dtype.kind == "i" else 0
        return (value - low) % size + low
    return value


def _fetch_setup(*arguments: Any) -> None:
    """Begin a worker process of MultiprocessIterator; finding this function imports Chainer."""
    _original_fetch_setup(*arguments)


_original_fetch_setup: Any = None


def _patch_functions(chainer: Any) -> None:
    """Repair the functions of Chainer that fail with a current NumPy."""
    global _original_fetch_setup
    _patch_old_names()
    _patch_log_prob(chainer)
    _patch_padding()
    iterator: Any = importlib.import_module("chainer.iterators.multiprocess_iterator")
    _original_fetch_setup = iterator._fetch_setup
    iterator._fetch_setup = _fetch_setup


def _patch_old_names() -> None:
    """Give functions the names that NumPy had."""
    resize: Any = importlib.import_module("chainer.functions.array.resize_images")
    resize.compute_indices_and_weights = _seeing(
        resize.compute_indices_and_weights, "numpy", _NumpyWith(float=float)
    )
    as_strided: Any = importlib.import_module("chainer.functions.array.as_strided")
    strided = as_strided.AsStridedGrad
    strided.forward = _seeing(strided.forward, "np", _NumpyWith(sctypes=_SCTYPES))


def _patch_log_prob(chainer: Any) -> None:
    """Index with a tuple, where a list is an array of indices now."""

    def log_prob(self: Any, x: Any) -> Any:
        grid = numpy.meshgrid(*(range(i) for i in self.batch_shape), indexing="ij")
        x = x.array if isinstance(x, chainer.Variable) else x
        index = (*grid, x.astype(numpy.int32))
        return self.log_p[index]

    categorical: Any = importlib.import_module("chainer.distributions.categorical")
    categorical.Categorical.log_prob = log_prob


def _patch_padding() -> None:
    """Wrap numbers that do not fit a dtype around, as they used to be."""
    pad_sequence: Any = importlib.import_module("chainer.functions.array.pad_sequence")
    pad = pad_sequence.PadSequence
    pad_forward = pad.forward

    def forward(self: Any, xs: Any) -> Any:
        self.padding = _wrapped(xs[0].dtype, self.padding)
        return pad_forward(self, xs)

    pad.forward = forward

    convert: Any = importlib.import_module("chainer.dataset.convert")
    concatenate = convert._concat_arrays_with_padding
    convert._concat_arrays_with_padding = lambda arrays, padding: concatenate(
        arrays, _wrapped(arrays[0].dtype, padding)
    )

    math: Any = importlib.import_module("chainer.functions.math.basic_math")
    preprocess = math._preprocess_const
    math._preprocess_const = lambda x, value: preprocess(x, _wrapped(x.dtype, value))


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
        _patch_functions(chainer)
    return chainer


chainer = import_chainer()
