"""The fast path on a CPU: the numbers of the reference, in less time.

It needs numba, which the rest of the library does not; so nothing here is imported by
``import chainer_sno``.  The tests compare it with the reference,
:class:`chainer_sno.StructureUpdater` with Chainer's links and optimizers.
"""

from chainer_sno.accelerated import warn_of_former_name
from chainer_sno.extensions import Synchronise

try:
    from chainer_sno.fast.engine import Engine
    from chainer_sno.fast.updaters import FastStructureUpdater, FastUpdater
except ModuleNotFoundError as error:
    if error.name != "numba":
        raise
    raise ImportError(
        "the fast path needs the package numba: pip install numba, or chainer_sno[fast]"
    ) from error


def __getattr__(name: str) -> object:
    """Return the class of a former name."""
    if name == "FastStandardUpdater":
        warn_of_former_name(name, "FastUpdater")
        return FastUpdater
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["Engine", "FastUpdater", "FastStructureUpdater", "Synchronise"]
