"""Updaters of Chainer's trainer that train with the engine."""

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from chainer_sno._import_chainer import chainer
from chainer_sno._types import Array
from chainer_sno.accelerated import (
    Accelerated,
    check_dropout,
    check_fully_connected,
    check_hooks,
    check_loss,
    check_outputs,
    layers_of,
)
from chainer_sno.bernoulli import Bernoulli
from chainer_sno.fast.engine import Engine
from chainer_sno.iterators import check_dtypes, choose_converter, convert
from chainer_sno.nesterov import parameter_decay, velocity, weight_decay
from chainer_sno.rules import known_rule, serialize_rule
from chainer_sno.updater import StructureUpdater, check_samples, of_this_kind
from chainer_sno.utility import ranking_utility


class _Held:
    """A mixin of parameters whose newest values may be in an engine: a reader gets those.

    Everything that reads a parameter, such as a serializer, ``copy`` or ``to_gpu``, reads
    ``_data``.  An array that was taken out of the parameter before is out of reach: it gets the
    newest values when the parameter is read the next time.

    Attributes:
        holder (_Binding): that has the newest values, None where the parameter has them.  Copies
            that share the array share it.
    """

    _shared_holder: list[Any]

    @property
    def holder(self) -> Any:
        return self._shared_holder[0]

    @property
    def _data(self) -> Any:
        if self.holder is not None:
            self.holder.synchronise()
        return vars(self)["_data"]

    @_data.setter
    def _data(self, value: Any) -> None:
        if self.holder is not None:
            self.holder.synchronise()
        vars(self)["_data"] = value

    # Properties that do not depend on the values do not ask the engine for them.
    shape = property(lambda self: stored(self).shape)
    dtype = property(lambda self: stored(self).dtype)
    size = property(lambda self: stored(self).size)
    ndim = property(lambda self: stored(self).ndim)

    def __copy__(self) -> Any:
        """Return a parameter that shares the array, and so the holder."""
        copied = super().__copy__()  # type: ignore[misc]
        copied.__class__ = type(self)
        return copied


class _HeldState(dict[str, Any]):
    """The state of an update rule, the velocity, whose newest values may be in an engine too.

    Attributes:
        holder (_Binding): that has the newest values, None where the state has them.
    """

    holder: Any = None

    def _up_to_date(self) -> None:
        if self.holder is not None:
            self.holder.synchronise()

    def __getitem__(self, key: str) -> Any:
        self._up_to_date()
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        """Return an array."""
        self._up_to_date()
        return super().get(key, default)

    def items(self) -> Any:
        """Return the names and the arrays."""
        self._up_to_date()
        return super().items()

    def values(self) -> Any:
        """Return the arrays."""
        self._up_to_date()
        return super().values()

    def copy(self) -> dict[str, Any]:
        """Return an ordinary dictionary."""
        return dict(self.items())

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Copy and pickle it as an ordinary dictionary."""
        return dict, (self.copy(),)

    __copy__ = copy


@functools.cache
def _held(kind: Any) -> Any:
    """Return the class of parameters of a class whose values may be in an engine."""
    return type(kind.__name__, (_Held, kind), {"__module__": kind.__module__})


def stored(parameter: Any) -> Array:
    """Return the array of a parameter as it is, even if an engine holds newer values."""
    array: Array = vars(parameter)["_data"][0]
    return array


class _Binding:
    """An engine, with the network and the optimizer that it replaces.

    The engine holds the parameters and their velocities while it trains.  A reader, such as a
    serializer, gets the newest values, because reading calls :meth:`synchronise`.  A change of the
    network or the optimizer between two steps is either respected or refused.

    Args:
        find_layers (callable): returns the layers of the network as they are; it raises ValueError
            where they do not compute its outputs.
        optimizer (chainer.Optimizer): NesterovAG, MomentumSGD or SGD, set up, with no hook but
            WeightDecay.

    Raises:
        ValueError: the optimizer or a layer is another, or the network is not on the CPU.
    """

    def __init__(self, find_layers: Callable[[], Sequence[Any]], optimizer: Any) -> None:
        if optimizer.target.xp is not numpy:
            raise ValueError(
                "this fast path runs on the CPU only: use the backend 'graph' on a GPU"
            )
        self.rule = known_rule(optimizer)
        self._find_layers = find_layers
        find_layers()
        self.layers = layers_of(optimizer.target)
        check_hooks(optimizer.target)
        check_outputs(optimizer.target, self.layers)
        self.optimizer = optimizer
        self.target = optimizer.target
        self._weights = [layer.W for layer in self.layers]
        self._biases = [layer.b for layer in self.layers]
        self._build()

    @property
    def _parameters(self) -> list[Any]:
        return [*self._weights, *self._biases]

    def _hold(self, holder: Any) -> None:
        """Set whether the engine or the network has the newest values."""
        for parameter in self._parameters:
            parameter._shared_holder[0] = parameter.update_rule.state.holder = holder

    def _is_held(self) -> bool:
        return any(parameter.holder is self for parameter in self._parameters)

    def _build(self, rates: tuple[float, ...] | None = None, lr: float | None = None) -> None:
        """Make the engine from the current network and optimizer; a snapshot has its own rates."""
        self._rates = self._current_rates() if rates is None else rates
        momentum, decay, bias_decay = self._rates
        velocities = None
        if self.rule.has_momentum:
            velocities = [velocity(W) for W in self._weights], [velocity(b) for b in self._biases]
        self.engine = Engine(
            [W.array for W in self._weights],
            [b.array for b in self._biases],
            self.optimizer.lr if lr is None else lr,
            momentum,
            decay,
            velocities,
            bias_decay,
            self.rule,
        )
        self._remember()

    def _current_rates(self) -> tuple[float, ...]:
        """Return the current momentum and decays of weights and biases.

        Raises:
            ValueError: the engine cannot do what the optimizer would.
        """
        optimizer, both = self.optimizer, weight_decay(self.optimizer, (self.rule.optimizer,))
        own: list[float] = []
        for parameters in (self._weights, self._biases):
            decays = {
                parameter_decay(parameter, optimizer, self.rule.update_rule)
                for parameter in parameters
            }
            if len(decays) > 1:
                raise ValueError(
                    "the fast path has one weight decay for all weights and one for all biases, "
                    f"not several: {sorted(decays)}; use the backend 'reference'"
                )
            own += decays
        momentum = optimizer.momentum if self.rule.has_momentum else 0.0
        return momentum, both + own[0], both + own[1]

    def _check_network(self) -> None:
        """Check that the network is the one from which the engine was made.

        Raises:
            ValueError: the optimizer has another target, or the network other layers or hooks, or
                it is no longer on the CPU.
        """
        if self.optimizer.target is not self.target:
            raise ValueError("the optimizer has another target now: make a new updater")
        layers = [*self._find_layers()]
        parameters = [layer.W for layer in layers], [layer.b for layer in layers]
        same = [
            len(a) == len(b) and all(x is y for x, y in zip(a, b))
            for a, b in zip((layers, *parameters), (self.layers, self._weights, self._biases))
        ]
        if not all(same):
            raise ValueError("the network has other layers now: make a new updater")
        if self.target.xp is not numpy:
            raise ValueError("the network is no longer on the CPU: make a new updater")
        check_hooks(self.target)

    def _remember(self) -> None:
        """Keep the state of the network, to notice a change."""
        for parameter in self._parameters:
            if not isinstance(parameter, _Held):
                parameter._shared_holder = [None]
                parameter.__class__ = _held(type(parameter))  # type: ignore[arg-type]
            rule = parameter.update_rule
            if not isinstance(rule.state, _HeldState):
                rule._state = _HeldState(rule.state or {})
        self._known = [[array.copy() for array in pair] for pair in self._stored()]

    def _stored(self) -> Any:
        """Yield the state of the network: the values and the velocity of each parameter."""
        for parameter in self._parameters:
            state = parameter.update_rule.state
            if self.rule.has_momentum:
                yield stored(parameter), dict.__getitem__(state, "v")
            else:
                yield (stored(parameter),)

    def _is_as_known(self) -> bool:
        """Return whether the state of the network is unchanged."""
        if not all(isinstance(p.update_rule.state, _HeldState) for p in self._parameters):
            return False
        return all(
            numpy.array_equal(array, known, equal_nan=True)
            for pair, known_pair in zip(self._stored(), self._known)
            for array, known in zip(pair, known_pair)
        )

    def step(
        self, x: Array, t: Array, structures: Array | None = None, dropout: Array | None = None
    ) -> Array:
        """Do one iteration at the optimizer's learning rate.

        Raises:
            ValueError: the network does not take the dtypes of x and t, or something has changed
                that the engine cannot respect.
        """
        check_dtypes(x.dtype, t.dtype, self.engine.dtype)
        self._check_network()
        rates = self._current_rates()
        if not self._is_held():
            for parameter in self._parameters:
                if parameter.holder is not None:  # another updater of the same network
                    parameter.holder.synchronise()
            if not self._is_as_known():
                self._build()  # weights were loaded, or set
        elif not all(isinstance(p.update_rule.state, _HeldState) for p in self._parameters):
            raise ValueError(
                "the optimizer was set up anew while the fast path was training: make a new updater"
            )
        if rates != self._rates:
            self.synchronise()
            self._build()
        self.engine.lr = self.optimizer.lr
        losses = self.engine.step(x, t, structures, dropout)
        self.optimizer.t += 1
        self._hold(self)
        for parameter in self._parameters:
            parameter.update_rule.t = self.optimizer.t
        return losses

    def synchronise(self) -> None:
        """Write the parameters and velocities into the network and the optimizer.

        Raises:
            ValueError: the network's parameters were changed, through an array taken before, while
                the engine trained.
        """
        if not self._is_held():
            return
        if not self._is_as_known():
            raise ValueError(
                "the network's parameters were changed while the fast path was training it: read "
                "them anew (parameter.array) before changing them, or what was changed is lost"
            )
        self._hold(None)
        arrays = self.engine.parameters()
        for k, layer in enumerate(self.layers):
            for parameter, kind in ((layer.W, "weight"), (layer.b, "bias")):
                values = arrays["weights" if kind == "weight" else "biases"]
                stored(parameter)[...] = values[k]
                if self.rule.has_momentum:
                    velocity(parameter)[...] = arrays[f"{kind}_velocities"][k]
        self._remember()

    def check_saved(self, serializer: Any) -> None:
        """Check that a snapshot is of such an engine, before anything of it is loaded.

        Args:
            serializer (chainer.Deserializer): that of the updater.

        Raises:
            ValueError: the snapshot is of an updater of another kind, of another optimizer or of a
                network of other widths.
        """
        serializer = serializer["engine"]
        with of_this_kind("fast updater"):
            for name, value in self.engine.state().items():
                serializer(name, value)
        serialize_rule(serializer, self.rule)

    def serialize(self, serializer: Any, epoch: int) -> None:
        """Save or load the engine, to the bit; the network follows from it.

        The rates of the optimizer are not loaded, as Chainer's optimizers do not load them: they
        are those of the constructor or of an extension.

        Args:
            serializer (chainer.AbstractSerializer): that of the updater.
            epoch (int): of the optimizer, where a snapshot is older than its saving.
        """
        serializer = serializer["engine"]
        loads = not isinstance(serializer, chainer.Serializer)
        if loads:
            self.synchronise()
        state = {name: serializer(name, value) for name, value in self.engine.state().items()}
        self.optimizer.t = int(serializer("t", self.optimizer.t))
        serializer("optimizer_lr", self.optimizer.lr)
        serialize_rule(serializer, self.rule)
        rates = self._rates
        # Older snapshots do not have them.
        with contextlib.suppress(KeyError):
            rates = tuple(serializer("rates", numpy.array(rates)).tolist())
        if not loads:
            serializer("epoch", self.optimizer.epoch)
            return
        saved = None
        with contextlib.suppress(KeyError):
            saved = serializer("epoch", None)
        self.optimizer.epoch = epoch if saved is None else int(saved)
        if rates != self._rates:  # the weights are stored in the terms of these
            self._build(rates, float(state["lr"]))
        self.engine.set_state(state)
        self._remember()
        self._hold(self)
        for parameter in self._parameters:
            parameter.update_rule.t = self.optimizer.t
        self.synchronise()


class FastStructureUpdater(Accelerated, StructureUpdater):
    r"""Algorithm 1 for the masked fully connected network on a CPU.

    It takes the arguments of :class:`chainer_sno.StructureUpdater` and gives its numbers, up to
    rounding; the random numbers are the same.  It computes the softmax cross entropy.  While it
    trains, the parameters live in the engine, and a reader of the network or the optimizer gets
    them from there.  Only an array that was taken out of a parameter before is out of reach:
    :meth:`synchronise`, which :class:`Synchronise` calls, brings it up to date.

    Parameters get no gradients, and the loss no computational graph: extensions that need them,
    such as DumpGraph, are refused before the first iteration.

    Raises:
        ValueError: the link is no searchable :class:`chainer_sno.protocols.FullyConnected`, such
            as a :class:`chainer_sno.links.MaskedMLP` with ReLU whose inputs are not under
            selection; the optimizer is not one of NesterovAG, MomentumSGD and SGD with no hook but
            WeightDecay; the loss is another; or the link is on a GPU.
    """

    def __init__(
        self,
        iterator: Any,
        optimizer: Any,
        bernoulli: Bernoulli,
        samples: int = 2,
        **kwargs: Any,
    ) -> None:
        super().__init__(iterator, optimizer, bernoulli, samples, **kwargs)
        link = optimizer.target
        check_fully_connected(link, structured=True)

        def find_layers() -> Sequence[Any]:
            check_loss(self.loss_func)
            check_dropout(link)
            layers: Sequence[Any] = link.fast_layers()
            return layers

        self._binding = _Binding(find_layers, optimizer)

    def update_core(self) -> None:
        """Do one iteration of Algorithm 1."""
        self.check_trainer()
        super().update_core()

    def step(self, x: Array, t: Array, structures: Array) -> Array:
        """Update the weights and theta, both from the same losses (reading R9).

        The engine needs only the structures, so the order of the two updates does not matter.
        """
        losses = self._binding.step(x, t, structures)
        self.bernoulli.update(structures, ranking_utility(losses))
        return losses

    def synchronise(self) -> None:
        """Write the parameters into the network and the optimizer."""
        self._binding.synchronise()

    def serialize(self, serializer: Any) -> None:
        """Save or load everything that the training needs to continue.

        Raises:
            ValueError: the snapshot is of another number of structures, of another distribution,
                optimizer or network, or of an updater of another kind; nothing is loaded then.
        """
        check_samples(serializer, self.samples)
        if not isinstance(serializer, chainer.Serializer):
            with of_this_kind("fast updater"):
                self.bernoulli.check_saved(serializer["bernoulli"])
            self._binding.check_saved(serializer)
        self.get_iterator("main").serialize(serializer["iterator:main"])
        self.bernoulli.serialize(serializer["bernoulli"])
        self.iteration = int(serializer("iteration", self.iteration))
        self._binding.serialize(serializer, self.get_iterator("main").epoch)


class FastUpdater(Accelerated, chainer.training.updaters.StandardUpdater):
    """Train a plain fully connected network, with or without Dropout, on a CPU.

    It gives the numbers of Chainer's StandardUpdater with the softmax cross entropy, up to
    rounding, and reports ``loss`` for the optimizer's target.  See :class:`FastStructureUpdater`
    for where the parameters are.

    Args:
        iterator (chainer.dataset.Iterator): mini-batches; the examples are pairs (x, t).
        optimizer (chainer.Optimizer): as there; its target is a :class:`chainer_sno.links.MLP`, or
            another :class:`chainer_sno.protocols.FullyConnected` of fixed structure.
        converter (callable): makes arrays of a mini-batch, as in Chainer's StandardUpdater; by
            default what the iterator needs, see :func:`chainer_sno.iterators.choose_converter`.

    Raises:
        ValueError: the link or the optimizer is another, or the link is on a GPU.
    """

    iteration: int

    def __init__(
        self,
        iterator: Any,
        optimizer: Any,
        converter: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__(iterator, optimizer, converter or choose_converter(iterator))
        link = optimizer.target
        check_fully_connected(link, structured=False)
        self._binding = _Binding(link.fast_layers, optimizer)

    def update_core(self) -> None:
        """Do one iteration."""
        self.check_trainer()
        iterator = self.get_iterator("main")
        link = self.get_optimizer("main").target
        x, t = convert(self.converter, iterator.next(), self.input_device)
        # A network of somebody else may have no Dropout.
        drops = getattr(link, "dropout_ratio", 0)
        dropout = link.dropout_factors(len(x), x.dtype) if drops else None
        (loss,) = self._binding.step(x, t, None, dropout)
        chainer.report({"loss": loss}, link)
        if self.auto_new_epoch and iterator.is_new_epoch:
            self.get_optimizer("main").new_epoch(auto=True)

    def synchronise(self) -> None:
        """Write the parameters into the network and the optimizer."""
        self._binding.synchronise()

    def serialize(self, serializer: Any) -> None:
        """Save or load everything that the training needs to continue.

        Raises:
            ValueError: the snapshot is of other random numbers of Dropout, of another optimizer or
                network, or of an updater of another kind; nothing is loaded then.
        """
        uniforms = getattr(self.get_optimizer("main").target, "uniforms", None)
        if not isinstance(serializer, chainer.Serializer):
            self._binding.check_saved(serializer)
            if uniforms is not None:
                with of_this_kind("fast updater"):
                    uniforms.check_saved(serializer["uniforms"])
        self.get_iterator("main").serialize(serializer["iterator:main"])
        if uniforms is not None:
            uniforms.serialize(serializer["uniforms"])
        self.iteration = int(serializer("iteration", self.iteration))
        self._binding.serialize(serializer, self.get_iterator("main").epoch)
