"""Updaters of Chainer's trainer whose iteration is one launch of a CUDA graph."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy

from chainer_sno._import_chainer import chainer
from chainer_sno.accelerated import (
    Accelerated,
    check_complete,
    check_fully_connected,
    check_hooks,
    check_loss,
    check_outputs,
    compare_outputs,
    layers_of,
)
from chainer_sno.cuda.kernels import Kernels
from chainer_sno.graph import dense, mlp
from chainer_sno.graph.iteration import Iteration
from chainer_sno.graph.optimizer import step_definitions
from chainer_sno.protocols import DenselyConnected
from chainer_sno.rules import serialize_rule
from chainer_sno.updater import StructureUpdater, of_this_kind


def _mlp(
    layers: Any, optimizer: Any, iterator: Any, make_kernels: Any, samples: int = 1, **options: Any
) -> Any:
    check_hooks(optimizer.target)
    check_outputs(optimizer.target, layers)
    dtype = layers[0].W.dtype
    defined = {**step_definitions(optimizer), **mlp.definitions(dtype)}
    kernels = make_kernels(("method", "optimizer", "mlp"), dtype, defined)
    network = mlp.MLPNetwork(kernels, layers, optimizer, iterator.batch_size, samples, **options)
    return kernels, network


def _dense(link: Any, optimizer: Any, iterator: Any, make_kernels: Any, samples: int = 1) -> Any:
    target = optimizer.target
    check_complete(target, link.params())
    costs = getattr(target, "costs", link.costs)
    if len(costs) != len(link.costs):
        raise ValueError(
            f"the GPU's fast path needs a bit for each of the {len(link.costs)} connections, and "
            f"{type(target).__name__} has {len(costs)} costs: use the backend 'reference'"
        )
    shape = iterator.arrays[0].shape[2:]
    link.check(iterator.arrays[0], link.costs[None])
    if target is not link:
        check_hooks(target)
        _check_dense_outputs(target, link, shape)
    dtype = link.stem.W.dtype
    defined = {**step_definitions(optimizer), **dense.definitions(link, shape, dtype)}
    kernels = make_kernels(("method", "optimizer", "dense"), dtype, defined)
    drop_dead = getattr(target, "drops_dead_layers", False)
    network = dense.DenseNetwork(
        kernels, link, optimizer, iterator.batch_size, shape, samples, drop_dead
    )
    return kernels, network


def _check_dense_outputs(target: Any, link: Any, shape: tuple[int, ...]) -> None:
    """Check that a network computes what the DenseNet within it does, on two random images.

    Raises:
        ValueError: it does not.
    """
    rng, dtype, send = numpy.random.default_rng(0), link.stem.W.dtype, link.device.send
    x = send(rng.standard_normal((2, link.in_channels, *shape)).astype(dtype))
    if hasattr(target, "costs"):
        structures = send(numpy.array([rng.random(len(link.costs)) < 0.9]))
        compare_outputs(target, lambda: list(target(x, structures)), lambda: [*link(x, structures)])
    else:
        structures = target.structure[None]
        compare_outputs(target, lambda: [target(x)], lambda: [link(x, structures)[0]])


def _is_dense(link: Any, structured: bool) -> bool:
    """Return whether a network is a DenseNet, with structures or without.

    Raises:
        ValueError: it is neither this nor fully connected.
    """
    if isinstance(link, DenselyConnected) and hasattr(link, "costs") == structured:
        return True
    kinds = "a MaskedMLP or a DenseNet" if structured else "an MLP or a fixed DenseNet"
    try:
        check_fully_connected(link, structured)
    except ValueError as error:
        raise ValueError(
            f"the GPU's fast path trains {kinds}, or a link like one of them that has fast_layers "
            f"or dense_parts, not {type(link).__name__}: use the backend 'reference'"
        ) from error
    return False


def _check_iterator(iterator: Any) -> None:
    """Check that kernels can cut the mini-batches of an iterator, one of which is never shorter.

    Raises:
        ValueError: they cannot.
    """
    if not hasattr(iterator, "add_batch"):
        raise ValueError(
            f"the GPU's fast path needs an ArrayIterator, not a {type(iterator).__name__}: use the "
            "backend 'reference'"
        )
    if not iterator.repeat:
        raise ValueError(
            "the GPU's fast path needs an iterator that repeats: use the backend 'reference'"
        )


class _Watched:
    """Something that is part of a captured iteration, and that somebody could replace or change.

    Args:
        name (str): what it is.
        find (callable): returns it as it is now: an object, or a number.
    """

    def __init__(self, name: str, find: Callable[[], Any]) -> None:
        self.name, self.find = name, find
        self.captured = find()

    def check(self) -> None:
        """Check that it is what it was.

        Raises:
            ValueError: it is another.
        """
        found, captured = self.find(), self.captured
        if found is captured:
            return
        if not isinstance(found, (int, float)) or not isinstance(captured, (int, float)):
            raise ValueError(
                f"{self.name} was replaced, and the captured iteration has the former one: make a "
                "new updater"
            )
        if found != captured:
            raise ValueError(
                f"{self.name} is {found} now and {captured} in the captured iteration: make a new "
                "updater after changing it"
            )


def _watched(owner: Any, prefix: str, *names: str) -> Iterator[_Watched]:
    for name in names:
        yield _Watched(f"{prefix}{name}", lambda name=name: getattr(owner, name))  # type: ignore[misc]


def _watched_network(optimizer: Any) -> Iterator[_Watched]:
    """Yield what an iteration has of a network and its optimizer."""
    yield from _watched(optimizer, "the optimizer's ", "target")
    target = optimizer.target
    # Dropout, and the link of a fixed structure.
    names = "dropout_ratio", "uniforms", "link"
    yield from _watched(target, "/: ", *(name for name in names if hasattr(target, name)))
    for name, link in target.namedlinks():
        if isinstance(link, chainer.links.BatchNormalization):
            yield from _watched(link, f"{name}: ", "decay", "eps", "avg_mean", "avg_var")
    for name, parameter in target.namedparams():
        rule = parameter.update_rule
        yield from _watched(parameter, f"{name}: ", "array")
        yield _Watched(f"{name}: the velocity", lambda rule=rule: (rule.state or {}).get("v"))  # type: ignore[misc]


class _Captured(Accelerated):
    """What the two updaters share: they run an iteration, and look at it when they are asked to."""

    captured: Iteration
    auto_new_epoch: bool
    get_iterator: Callable[[str], Any]
    _watched: list[_Watched]
    _parameters: list[Any]
    _find_parts: Callable[[], Any]

    def _find(self, link: Any, structured: bool) -> bool:
        """Keep how a network states its parts; return whether it is a DenseNet.

        Raises:
            ValueError: the kernels do not know it, it computes something else, or the iterator's
                mini-batches are not theirs to cut.
        """
        is_dense = _is_dense(link, structured)
        self._find_parts = link.dense_parts if is_dense else link.fast_layers
        self._find_parts()
        _check_iterator(self.get_iterator("main"))
        return is_dense

    def _watch(self) -> None:
        """Keep what the iteration was captured with."""
        optimizer, iterator = self.get_optimizer("main"), self.get_iterator("main")
        names = "arrays", "batch_size", "divisor", "repeat", "seed", "shuffle"
        self._watched = [
            *_watched_network(optimizer),
            *_watched(iterator, "the iterator's ", *names),
        ]
        self._parameters = [*optimizer.target.params()]

    def _check(self) -> None:
        """Check that all that is captured is as it was.

        Raises:
            ValueError: something was replaced or changed.
        """
        self.check_trainer()
        for watched in self._watched:
            watched.check()
        # This raises where the network computes something else now.
        self._find_parts()
        target = self.get_optimizer("main").target
        check_hooks(target)
        parameters = [*target.params()]
        if len(parameters) != len(self._parameters) or any(
            a is not b for a, b in zip(parameters, self._parameters)
        ):
            raise ValueError("the network has other parameters now: make a new updater")

    def update_core(self) -> None:
        """Do one iteration; nothing waits for it."""
        self._check()
        optimizer = self.get_optimizer("main")
        self.captured.run()
        optimizer.t += 1
        for parameter in self._parameters:
            parameter.update_rule.t = optimizer.t
        if self.auto_new_epoch and self.get_iterator("main").is_new_epoch:
            optimizer.new_epoch(auto=True)

    def synchronise(self) -> None:
        """Wait for the device, and report ``loss``, the mean since the last time."""
        chainer.report({"loss": self.captured.take_loss()}, self.get_optimizer("main").target)

    def serialize(self, serializer: Any) -> None:
        """Save or load everything that the training needs to continue.

        Raises:
            ValueError: the snapshot has another optimizer, or is of an updater of another kind;
                nothing is loaded then.
        """
        captured = serializer["captured"]
        if not isinstance(serializer, chainer.Serializer):
            with of_this_kind("graph updater"):
                captured("progress", None)
        serialize_rule(captured, self.captured.network.rates.rule)
        super().serialize(serializer)  # type: ignore[misc]
        self.captured.serialize(captured)


def _check_device(link: Any, iterator: Any, make_kernels: Any) -> None:
    """Check that a network and its data are where kernels can reach them.

    The tests' kernels run on a CPU.

    Raises:
        ValueError: one of them is on a CPU.
    """
    on_cpu = link.xp is numpy or any(isinstance(each, numpy.ndarray) for each in iterator.arrays)
    if on_cpu and getattr(make_kernels, "xp", None) is not numpy:
        raise ValueError(
            "the GPU's fast path needs the network and the data on a GPU: move them with "
            "to_device, or use the backend 'reference'"
        )


class GraphStructureUpdater(_Captured, StructureUpdater):
    r"""Algorithm 1 on a GPU, an iteration at a launch.

    The data, the parameters and the structures stay on the device, where structures are drawn,
    mini-batches cut, :math:`\theta` moved and the optimizer's step done; the host waits once an
    epoch, when the losses are asked for.  Extend the trainer with
    :class:`chainer_sno.extensions.Synchronise`, which reports them.

    The arithmetic is that of :class:`chainer_sno.StructureUpdater` with the softmax cross entropy,
    Chainer's NesterovAG, MomentumSGD or SGD and WeightDecay, up to rounding.

    Args:
        iterator (chainer_sno.ArrayIterator): over examples and their classes on the device.
        optimizer (chainer.Optimizer): NesterovAG, MomentumSGD or SGD, set up, with no hook but
            WeightDecay; its target is a :class:`chainer_sno.links.MaskedMLP` with ReLU whose inputs
            are not under selection, a :class:`chainer_sno.links.PlainDenseNet`, or another
            searchable link that is :class:`chainer_sno.protocols.FullyConnected` or
            :class:`chainer_sno.protocols.DenselyConnected`; on the device.
        bernoulli (chainer_sno.Bernoulli): the distribution, which is moved to the device.
        samples (int): :math:`\lambda`, at most 256.
        make_kernels (callable): makes what launches the kernels;
            :class:`chainer_sno.cuda.kernels.Kernels` by default.

    Raises:
        ValueError: an argument is not as above, or too large for the kernels.
    """

    def __init__(
        self,
        iterator: Any,
        optimizer: Any,
        bernoulli: Any,
        samples: int = 2,
        make_kernels: Any = None,
    ) -> None:
        super().__init__(iterator, optimizer, bernoulli, samples)
        link = optimizer.target
        arguments = optimizer, iterator, make_kernels or Kernels, samples
        is_dense = self._find(link, structured=True)
        check_loss(self.loss_func)
        _check_device(link, iterator, arguments[2])
        bernoulli.to_device(link.device)
        if is_dense:
            kernels, network = _dense(link.dense_parts(), *arguments)
        else:
            kernels, network = _mlp(layers_of(link), *arguments)
        self.captured = Iteration(kernels, iterator, network, bernoulli)
        self._watch()
        self._watched += [
            *_watched(bernoulli, "the distribution's ", "theta", "epsilon0", "eta", "uniforms"),
            *_watched(self, "the updater's ", "samples", "bernoulli"),
        ]

    def _check(self) -> None:
        super()._check()
        check_loss(self.loss_func)


class GraphUpdater(_Captured, chainer.training.updaters.StandardUpdater):
    """The training of a network of fixed structure on a GPU, an iteration at a launch.

    See :class:`GraphStructureUpdater`.

    Args:
        iterator (chainer_sno.ArrayIterator): over examples and their classes on the device.
        optimizer (chainer.Optimizer): as there; its target is a :class:`chainer_sno.links.MLP` with
            ReLU, with or without Dropout, a :class:`chainer_sno.links.FixedStructure` of a
            DenseNet, or another link of fixed structure that keeps one of those protocols; on the
            device.
        make_kernels (callable): makes what launches the kernels;
            :class:`chainer_sno.cuda.kernels.Kernels` by default.

    Raises:
        ValueError: an argument is not as above, or too large for the kernels.
    """

    def __init__(self, iterator: Any, optimizer: Any, make_kernels: Any = None) -> None:
        super().__init__(iterator, optimizer)
        link = optimizer.target
        arguments = optimizer, iterator, make_kernels or Kernels
        is_dense = self._is_dense = self._find(link, structured=False)
        _check_device(link, iterator, arguments[2])
        if is_dense:
            parts = link.dense_parts()
            bits = numpy.shape(getattr(link, "structure", ()))
            if bits != (len(parts.costs),):
                raise ValueError(
                    f"a fixed DenseNet has {len(parts.costs)} connections, and the structure of "
                    f"{type(link).__name__} has the shape {bits}: use the backend 'reference'"
                )
            kernels, network = _dense(parts, *arguments)
        else:
            layers, drops = layers_of(link), getattr(link, "dropout_ratio", 0)
            dropout = (drops, link.uniforms) if drops else None
            kernels, network = _mlp(layers, *arguments, selected=False, dropout=dropout)
        self.captured = Iteration(kernels, iterator, network)
        self._watch()

    def update_core(self) -> None:
        """Do one iteration; nothing waits for it."""
        if self._is_dense:
            self.captured.network.structures[...] = self.get_optimizer("main").target.structure
        super().update_core()
