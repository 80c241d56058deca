"""Updaters of Chainer's trainer that train with the engine."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy

from chainer_sno import links
from chainer_sno._import_chainer import chainer
from chainer_sno._types import Array
from chainer_sno.bernoulli import Bernoulli
from chainer_sno.fast.engine import Engine
from chainer_sno.iterators import choose_converter, convert
from chainer_sno.nesterov import parameter_decay, velocity, weight_decay
from chainer_sno.updater import StructureUpdater, check_samples
from chainer_sno.utility import ranking_utility


class _Binding:
    """An engine and the network and optimizer that it stands for.

    The engine holds the parameters and their velocities while it trains; :meth:`synchronise` writes
    them into the network and the optimizer.  What somebody changes in either between two steps is
    respected or refused, as far as it can be seen: rates, hooks and frozen parameters always,
    weights when the network was synchronised.

    Args:
        layers (list of chainer.links.Linear): of the network, inputs first.
        optimizer (chainer.optimizers.NesterovAG): set up, with no hook but WeightDecay.

    Raises:
        ValueError: the optimizer or a layer is another, or the network is not on the CPU.
    """

    def __init__(self, layers: Sequence[Any], optimizer: Any) -> None:
        if optimizer.target.xp is not numpy:
            raise ValueError("the fast path is for the CPU: use the plain updater on a GPU")
        for layer in layers:
            if type(layer) is not chainer.links.Linear or layer.b is None:
                raise ValueError(f"the fast path is for Linear with a bias, not for {layer!r}")
        self.layers = layers
        self.optimizer = optimizer
        self._weights = [layer.W for layer in layers]
        self._biases = [layer.b for layer in layers]
        self._build()

    def _build(self) -> None:
        """Make the engine from the network and the optimizer as they are."""
        self._rates = self._current_rates()
        momentum, decay, bias_decay = self._rates
        self.engine = Engine(
            [W.array for W in self._weights],
            [b.array for b in self._biases],
            self.optimizer.lr,
            momentum,
            decay,
            ([velocity(W) for W in self._weights], [velocity(b) for b in self._biases]),
            bias_decay,
        )
        self._synchronised = True
        self._remember()

    def _current_rates(self) -> tuple[float, float, float]:
        """Return the momentum and the decays of weights and biases, as they are now.

        Raises:
            ValueError: the engine cannot do what the optimizer would.
        """
        optimizer, both = self.optimizer, weight_decay(self.optimizer)
        own: list[float] = []
        for parameters in (self._weights, self._biases):
            found = {parameter_decay(parameter, optimizer) for parameter in parameters}
            if len(found) > 1:
                raise ValueError(
                    "the fast path has one weight decay for all weights and one for all biases, "
                    f"not {sorted(found)}"
                )
            own += found
        return optimizer.momentum, both + own[0], both + own[1]

    def _remember(self) -> None:
        """Keep what the network has, to see whether somebody changes it."""
        self._known = [p.array.copy() for p in (*self._weights, *self._biases)]

    def _is_as_known(self) -> bool:
        parameters = (*self._weights, *self._biases)
        return all(numpy.array_equal(p.array, k) for p, k in zip(parameters, self._known))

    def step(
        self, x: Array, t: Array, structures: Array | None = None, dropout: Array | None = None
    ) -> Array:
        """Do one iteration at the optimizer's learning rate."""
        rates = self._current_rates()
        if self._synchronised and not self._is_as_known():
            self._build()  # weights were loaded, or set
        elif rates != self._rates:
            self.synchronise()
            self._build()
        self.engine.lr = self.optimizer.lr
        losses = self.engine.step(x, t, structures, dropout)
        self.optimizer.t += 1
        self._synchronised = False
        return losses

    def synchronise(self) -> None:
        """Write the parameters and velocities into the network and the optimizer.

        Raises:
            ValueError: somebody has changed the network's parameters while the engine trained.
        """
        if self._synchronised:
            return
        if not self._is_as_known():
            raise ValueError(
                "the network's parameters were changed while the fast path was training it: call "
                "synchronise() before, or what was changed would be lost"
            )
        found = self.engine.parameters()
        for k, layer in enumerate(self.layers):
            for parameter, kind in ((layer.W, "weight"), (layer.b, "bias")):
                values = found["weights" if kind == "weight" else "biases"]
                parameter.array[...] = values[k]
                velocity(parameter)[...] = found[f"{kind}_velocities"][k]
                parameter.update_rule.t = self.optimizer.t
        self._synchronised = True
        self._remember()

    def serialize(self, serializer: Any) -> None:
        """Save or load the engine, to the bit; the network follows from it."""
        serializer = serializer["engine"]
        state = {name: serializer(name, value) for name, value in self.engine.state().items()}
        self.optimizer.t = int(serializer("t", self.optimizer.t))
        self.optimizer.lr = float(serializer("optimizer_lr", self.optimizer.lr))
        if not isinstance(serializer, chainer.Serializer):
            self.engine.set_state(state)
            self._synchronised = False
            self._remember()
            self.synchronise()


def _check_forward(link: Any, kind: Any) -> None:
    """Check that a subclass computes what its base class computes.

    Raises:
        ValueError: it has a forward pass of its own.
    """
    for name in ("forward", "__call__"):
        if getattr(type(link), name) is not getattr(kind, name):
            raise ValueError(
                f"the fast path computes what {kind.__name__} does, and {type(link).__name__} has "
                f"its own {name}: use the plain updater"
            )


class FastStructureUpdater(StructureUpdater):
    r"""Algorithm 1 for the masked fully connected network on a CPU.

    It takes the arguments of :class:`chainer_sno.StructureUpdater` and gives its numbers, up to
    rounding; the random numbers are the same.  It computes the softmax cross entropy.  While it
    trains, the parameters live in the engine: extend the trainer with :class:`Synchronise`, or call
    :meth:`synchronise`, before the network is looked at.

    Raises:
        ValueError: the link is not a :class:`chainer_sno.links.MaskedMLP` with ReLU whose inputs
            are not under selection, the optimizer is not NesterovAG with no hook but WeightDecay,
            the loss is another, or the link is on a GPU.
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
        if not isinstance(link, links.MaskedMLP):
            raise ValueError("the fast path is for a MaskedMLP")
        _check_forward(link, links.MaskedMLP)
        for layer in link.hidden:
            _check_forward(layer, links.MaskedLinear)
        if self.loss_func is not chainer.functions.softmax_cross_entropy:
            raise ValueError("the fast path is for the softmax cross entropy")
        self._binding = _Binding(link.fast_layers(), optimizer)

    def step(self, x: Array, t: Array, structures: Array) -> Array:
        """Update the weights and theta, both from the same losses (reading R9).

        The engine needs the structures, not theta, so the order of the two does not matter.
        """
        losses = self._binding.step(x, t, structures)
        self.bernoulli.update(structures, ranking_utility(losses))
        return losses

    def synchronise(self) -> None:
        """Write the parameters into the network and the optimizer."""
        self._binding.synchronise()

    def serialize(self, serializer: Any) -> None:
        """Save or load everything that the training needs to continue."""
        check_samples(serializer, self.samples)
        self.get_iterator("main").serialize(serializer["iterator:main"])
        self.bernoulli.serialize(serializer["bernoulli"])
        self.iteration = int(serializer("iteration", self.iteration))
        self._binding.serialize(serializer)


class FastStandardUpdater(chainer.training.updaters.StandardUpdater):
    """Train a plain fully connected network, with or without Dropout, on a CPU.

    It gives the numbers of Chainer's StandardUpdater with the softmax cross entropy, up to
    rounding, and reports ``loss`` for the optimizer's target.  See :class:`FastStructureUpdater`
    for where the parameters are.

    Args:
        iterator (chainer.dataset.Iterator): mini-batches; the examples are pairs (x, t).
        optimizer (chainer.optimizers.NesterovAG): its target is a :class:`chainer_sno.links.MLP`.
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
        if not isinstance(link, links.MLP):
            raise ValueError("the fast path is for an MLP")
        _check_forward(link, links.MLP)
        self._binding = _Binding(link.fast_layers(), optimizer)

    def update_core(self) -> None:
        """Do one iteration."""
        iterator = self.get_iterator("main")
        link = self.get_optimizer("main").target
        x, t = convert(self.converter, iterator.next(), self.input_device)
        dropout = link.dropout_factors(len(x), x.dtype) if link.dropout_ratio else None
        (loss,) = self._binding.step(x, t, None, dropout)
        chainer.report({"loss": loss}, link)
        if self.auto_new_epoch and iterator.is_new_epoch:
            self.get_optimizer("main").new_epoch(auto=True)

    def synchronise(self) -> None:
        """Write the parameters into the network and the optimizer."""
        self._binding.synchronise()

    def serialize(self, serializer: Any) -> None:
        """Save or load everything that the training needs to continue."""
        self.get_iterator("main").serialize(serializer["iterator:main"])
        self.get_optimizer("main").target.uniforms.serialize(serializer["uniforms"])
        self.iteration = int(serializer("iteration", self.iteration))
        self._binding.serialize(serializer)
