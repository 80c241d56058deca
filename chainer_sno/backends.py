"""One function that chooses the code that trains: the reference or a suitable fast path."""

import importlib
import logging
from collections.abc import Callable
from typing import Any

import numpy

from chainer_sno._import_chainer import chainer
from chainer_sno.bernoulli import Bernoulli
from chainer_sno.iterators import ArrayIterator, choose_converter, pass_arrays
from chainer_sno.updater import StructureUpdater

__all__ = ["BACKENDS", "make_updater"]

_logger = logging.getLogger(__name__)
softmax_cross_entropy = chainer.functions.softmax_cross_entropy
#: The backends in the order in which ``auto`` asks them.
BACKENDS = ("graph", "fast", "reference")
#: Where the updaters of a backend are: the module, the updater of a distribution over structures
#: and the one of a fixed network.
_UPDATERS = {
    "graph": ("chainer_sno.graph.updaters", "GraphStructureUpdater", "GraphUpdater"),
    "fast": ("chainer_sno.fast.updaters", "FastStructureUpdater", "FastUpdater"),
}


def _reference(structured: bool) -> Callable[..., Any]:
    return StructureUpdater if structured else _fixed_reference


def _kind(backend: str, structured: bool) -> Callable[..., Any]:
    """Return the class of the updaters of a backend.

    Raises:
        ImportError: a package that the backend needs is missing.
    """
    if backend == "reference":
        return _reference(structured)
    module, of_structures, of_fixed = _UPDATERS[backend]
    updater: Callable[..., Any] = getattr(
        importlib.import_module(module), of_structures if structured else of_fixed
    )
    return updater


def make_updater(
    iterator: Any,
    optimizer: Any,
    bernoulli: Bernoulli | None = None,
    samples: int = 2,
    backend: str = "auto",
    **options: Any,
) -> Any:
    """Return the fastest updater that computes the numbers of the reference for a network.

    ==============  ===============================================================================
    ``reference``   Chainer's own code: :class:`chainer_sno.StructureUpdater`, or Chainer's
                    StandardUpdater for a network of fixed structure; any link, optimizer and device
    ``fast``        compiled for the CPU: :class:`chainer_sno.links.MaskedMLP` or
                    :class:`~chainer_sno.links.MLP` with NesterovAG,
                    MomentumSGD or SGD; needs numba
    ``graph``       an iteration is one launch of a CUDA graph: the same links and DenseNets
                    with the same optimizers on a GPU, data on the GPU
    ``auto``        the first of ``graph``, ``fast`` and ``reference`` that can serve the network,
                    the optimizer and the device
    ==============  ===============================================================================

    On a CPU a :class:`chainer_sno.links.DenseNet` has a fast engine of its own, which any updater
    uses.  Adam trains with the reference: its step on a weight without a gradient is no linear
    map, see :mod:`chainer_sno.rules`.

    The attribute ``backend`` of the updater names the backend, and so do its ``repr`` and a line
    of the logger ``chainer_sno.backends`` at the level INFO.  ``refused`` is a dictionary with the
    reasons why the earlier backends could not be used.

    What the backends need of a network is stated in :mod:`chainer_sno.protocols`, so a network
    that is not of this library can have a fast path, too.

    Args:
        iterator (chainer.dataset.Iterator): mini-batches of pairs (x, t).
        optimizer (chainer.Optimizer): set up with the network.
        bernoulli (chainer_sno.Bernoulli): the distribution; None for a network of fixed structure.
        samples (int): lambda, the structures of an iteration; ignored without a distribution.
        backend (str): one of the above.
        **options: further arguments of the reference's updater: ``converter``, ``loss_func`` and
            ``device``.  ``loss_func`` takes the outputs of the network and t, also for a network
            of fixed structure; it is the softmax cross entropy by default, which is the only one
            that ``fast`` and ``graph`` compute.  They train the network where it is: move it to
            ``device`` before, or the reference moves it.

    Returns:
        chainer.training.updaters.StandardUpdater: the updater.

    Raises:
        ValueError: there is no such backend, or the one that is asked for cannot serve the network,
            the optimizer or the device; the message says why.

    Example:
        >>> import chainer_sno, chainer, numpy
        >>> x = numpy.random.default_rng(0).standard_normal((64, 8)).astype("f")
        >>> network = chainer_sno.links.MaskedMLP(8, (16,), 2)
        >>> updater = chainer_sno.make_updater(
        ...     chainer_sno.ArrayIterator((x, (x[:, 0] > 0).astype("i")), 32),
        ...     chainer.optimizers.Adam().setup(network),
        ...     chainer_sno.Bernoulli(network.costs, epsilon0=2**-6),
        ...     converter=chainer_sno.pass_arrays,
        ... )
        >>> updater.backend  # Adam has no faster path
        'reference'
        >>> list(updater.refused)
        ['graph', 'fast']

    See Also:
        :class:`chainer_sno.StructureUpdater`: the reference.

        :mod:`chainer_sno.fast`: the updaters for a CPU.
    """
    if backend != "auto" and backend not in BACKENDS:
        raise ValueError(f"backend {backend!r} is unknown: give auto, {', '.join(BACKENDS)}")
    arguments = [iterator, optimizer]
    if bernoulli is not None:
        arguments += [bernoulli, samples]
    refused: dict[str, str] = {}
    for name in BACKENDS if backend == "auto" else (backend,):
        try:
            if backend == "auto" and name == "graph" and optimizer.target.xp is numpy:
                raise _Unavailable("the network is on a CPU")
            updater = _make(name, bernoulli is not None, arguments, options)
        except _Unavailable as error:
            if backend != "auto":
                raise ValueError(f"backend {name!r} cannot train this: {error}") from error
            refused[name] = str(error)
            continue
        updater.backend, updater.refused = name, refused
        reasons = "".join(f"; not {other}: {reason}" for other, reason in refused.items())
        _logger.info("%s trains with the backend %s%s", _name_of(optimizer), name, reasons)
        return updater
    raise AssertionError("the reference refuses nothing by name")


def _name_of(optimizer: Any) -> str:
    return f"{type(optimizer.target).__name__} with {type(optimizer).__name__}"


class _Unavailable(Exception):
    """A backend cannot serve a training."""


class _ReferenceUpdater(chainer.training.updaters.StandardUpdater):
    """Chainer's updater, with what all updaters of :func:`make_updater` have."""

    def synchronise(self) -> None:
        """Do nothing: the parameters are in the network at all times."""


def _fixed_reference(
    iterator: Any,
    optimizer: Any,
    converter: Callable[..., Any] | None = None,
    device: Any = None,
    loss_func: Callable[..., Any] = softmax_cross_entropy,
) -> Any:
    """Return Chainer's StandardUpdater for a network that computes outputs, not a loss."""
    link = optimizer.target

    def loss_of(x: Any, t: Any) -> Any:
        loss = loss_func(link(x), t)
        # A variable where an extension such as DumpGraph asks for the graph, as elsewhere.
        keeps = chainer.config.keep_graph_on_report
        chainer.report({"loss": loss if keeps else loss.array.astype("d")}, link)
        return loss

    return _ReferenceUpdater(
        iterator, optimizer, converter or choose_converter(iterator), device, loss_of
    )


def _axes_of_an_example(iterator: Any) -> int | None:
    """Return how many axes an example has, None where that is not known without a mini-batch."""
    try:
        if isinstance(iterator, ArrayIterator):
            return int(iterator.arrays[0].ndim) - 1
        return int(numpy.ndim(iterator.dataset[0][0]))
    except (AttributeError, IndexError, KeyError, TypeError):
        return None


def _without_defaults(options: dict[str, Any], link: Any, converter: bool) -> dict[str, Any]:
    """Return options without those that a backend has anyway for a network."""
    known = {"loss_func": softmax_cross_entropy, "device": None}
    if converter:
        known["converter"] = pass_arrays
    options = {k: v for k, v in options.items() if k not in known or known[k] is not v}
    if "device" in options and chainer.get_device(options["device"]) == link.device:
        del options["device"]
    return options


def _make(name: str, structured: bool, arguments: list[Any], options: dict[str, Any]) -> Any:
    """Return the updater of a backend.

    Raises:
        _Unavailable: the backend cannot serve the training; the message says why.
    """
    if name == "reference":
        return _reference(structured)(*arguments, **options)
    # The graph reads the arrays of the iterator itself.
    options = _without_defaults(options, arguments[1].target, converter=name == "graph")
    if name == "fast":
        axes = _axes_of_an_example(arguments[0])
        if axes not in (None, 1):
            raise _Unavailable(f"it takes examples of one axis, and these have {axes}")
    if "device" in options:
        raise _Unavailable("it trains the network where it is: move it with to_device before")
    if options.get("loss_func") is not None:
        raise _Unavailable("it computes the softmax cross entropy only")
    try:
        return _kind(name, structured)(*arguments, **options)
    except ImportError as error:
        missing = f"{error.name} is not installed" if error.name else str(error)
        raise _Unavailable(missing) from error
    except (TypeError, ValueError) as error:
        raise _Unavailable(str(error)) from error
