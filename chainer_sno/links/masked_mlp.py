"""The network of section 4.1: units of a fully connected network under selection."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy

from chainer_sno import complexity
from chainer_sno._import_chainer import chainer
from chainer_sno._types import Array
from chainer_sno.functions import mask_units
from chainer_sno.links.masked_linear import MaskedLinear
from chainer_sno.links.mlp import MLP, check_widths
from chainer_sno.protocols import check_forward


class MaskedMLP(chainer.Chain):
    """A fully connected network of any depth whose hidden units are under selection.

    The first layer does not depend on the structure unless the inputs are under selection, so it
    is computed once for all structures; the others see the structures stacked along the batch.

    Args:
        in_size (int): inputs.
        hidden_sizes (sequence of int): units of the hidden layers.
        out_size (int): outputs.
        select_inputs (bool): put the inputs under selection as well, in front of the hidden
            units; with costs of one that is feature selection (section 3).
        activation (callable): F of the hidden units.
        initialW (initializer): that of the weights, Chainer's HeNormal by default.

    Attributes:
        widths (tuple of int): units per layer, inputs first and outputs last.
        costs (numpy.ndarray): c, ones, shape (d,), float64.
        criterion (str): what the costs count, units.
        groups (dict): the slices of the bits of ``inputs``, ``hidden_1``, ``hidden_2``, ...

    Raises:
        ValueError: a width is not a positive integer, or there is no hidden layer.
    """

    criterion = "units"

    def __init__(
        self,
        in_size: int,
        hidden_sizes: Sequence[int],
        out_size: int,
        select_inputs: bool = False,
        activation: Callable[[Any], Any] = chainer.functions.relu,
        initialW: Any = None,
    ) -> None:
        super().__init__()
        self.widths = check_widths(in_size, hidden_sizes, out_size)
        self.select_inputs = select_inputs
        initialW = initialW or chainer.initializers.HeNormal()
        with self.init_scope():
            self.hidden = chainer.ChainList(
                *(
                    MaskedLinear(a, b, activation, initialW)
                    for a, b in zip(self.widths, self.widths[1:-1])
                )
            )
            self.output = chainer.links.Linear(*self.widths[-2:], initialW=initialW)
        selected = {f"hidden_{i}": width for i, width in enumerate(self.widths[1:-1], 1)}
        if select_inputs:
            selected = {"inputs": in_size, **selected}
        ends = numpy.cumsum(list(selected.values())).tolist()
        self.groups = {
            name: slice(end - width, end) for (name, width), end in zip(selected.items(), ends)
        }
        self.costs = numpy.ones(ends[-1])

    @property
    def printable_specs(self) -> Iterator[tuple[str, Any]]:
        """The constructor's arguments, for ``repr``; ``str`` is Chainer's tree of the links."""
        yield "in_size", self.widths[0]
        yield "hidden_sizes", self.widths[1:-1]
        yield "out_size", self.widths[-1]
        yield "select_inputs", self.select_inputs

    def __repr__(self) -> str:
        return str(chainer.Link.__str__(self))

    def forward(self, x: Any, structures: Array) -> Any:
        """Return the outputs of every structure, before the softmax.

        Args:
            x (chainer.Variable or array): shape (N, in_size).
            structures (array): bool of shape (lambda, d).

        Returns:
            chainer.Variable: shape (lambda, N, out_size).

        Raises:
            ValueError: ``structures`` does not have the shape (lambda, d).
        """
        if structures.ndim != 2 or structures.shape[1] != len(self.costs):
            raise ValueError(
                f"structures must have the shape (lambda, {len(self.costs)}), "
                f"not {structures.shape}"
            )
        h = chainer.functions.expand_dims(chainer.as_variable(x), 0)
        bits = [structures[:, group] for group in self.groups.values()]
        if self.select_inputs:
            h = mask_units(h, bits.pop(0))
        for layer, layer_bits in zip(self.hidden, bits):
            h = layer(h, layer_bits)
        return self.output(h, n_batch_axes=2)

    def fast_layers(self) -> Any:
        """Return the layers as the fast paths train them, inputs first.

        See :class:`chainer_sno.protocols.FullyConnected`.

        Returns:
            list of chainer.links.Linear: the hidden layers and the output.

        Raises:
            ValueError: the inputs are under selection, the activation is not ReLU, or a subclass
                has a forward pass of its own.
        """
        check_forward(self, MaskedMLP)
        for layer in self.hidden:
            check_forward(layer, MaskedLinear)
        if self.select_inputs:
            raise ValueError(
                "the fast path does not support the selection of inputs: use the backend "
                "'reference'"
            )
        if any(layer.activation is not chainer.functions.relu for layer in self.hidden):
            raise ValueError(
                "the fast path supports the activation ReLU only: use the backend 'reference'"
            )
        return [*(layer.linear for layer in self.hidden), self.output]

    def costs_of(self, criterion: str, x_shape: tuple[int, ...] | None = None) -> Array:
        """Return what each unit costs by a criterion.

        A unit costs the weights that lead into it plus those that lead out of it in the full
        network, biases left out, or the floating-point operations of those, two a weight.  An
        input has only weights that lead out of it.

        Args:
            criterion (str): ``"weights"`` or ``"flops"``, see :func:`chainer_sno.complexity.costs`.
            x_shape (tuple of int): of one example; not needed.

        Returns:
            numpy.ndarray: c, shape (d,), float64.

        Raises:
            ValueError: the criterion is another.
        """
        fans = [a + b for a, b in zip((0, *self.widths), self.widths[1:])]
        first = 0 if self.select_inputs else 1
        weights = numpy.repeat(fans[first:], self.widths[first:-1])
        return complexity.per_weight(criterion) * weights

    def kept_widths(self, structure: Array) -> tuple[int, ...]:
        """Return how many units of each layer a structure keeps.

        Args:
            structure (array): bits, shape (d,).

        Returns:
            tuple of int: inputs first and outputs last; layers without selection keep all.

        Raises:
            ValueError: see :func:`chainer_sno.complexity.check_structure`.
        """
        structure = complexity.check_structure(structure, len(self.costs))
        kept = [int(structure[group].sum()) for group in self.groups.values()]
        if not self.select_inputs:
            kept.insert(0, self.widths[0])
        return (*kept, self.widths[-1])

    def weight_ratio(self, structure: Array) -> float:
        """Return the fraction of the weights that a structure keeps.

        Args:
            structure (array): bits, shape (d,).

        Returns:
            float: between 0 and 1; biases are left out.
        """
        return complexity.fully_connected_weight_ratio(self.kept_widths(structure), self.widths)

    def compact(self, structure: Array) -> MLP:
        """Return the plain network that remains when the units of a structure are deleted.

        Args:
            structure (array): bits, shape (d,).

        Returns:
            chainer_sno.links.MLP: with the kept weights, on the device and of the dtype of this
            one.  It takes the same inputs, and leaves out those that are not selected.

        Raises:
            ValueError: a layer keeps no unit, so there is no such network: the outputs do not
                depend on the inputs; or this is no structure.
        """
        structure = chainer.backends.cuda.to_cpu(structure)
        structure = complexity.check_structure(structure, len(self.costs))
        kept = [numpy.flatnonzero(structure[group]) for group in self.groups.values()]
        if not self.select_inputs:
            kept.insert(0, numpy.arange(self.widths[0]))
        kept.append(numpy.arange(self.widths[-1]))
        if not all(len(units) for units in kept):
            raise ValueError(
                "this structure cannot be compacted: a layer keeps no unit, so the outputs do "
                "not depend on the inputs"
            )
        widths = [len(units) for units in kept]
        source = [layer.linear for layer in self.hidden] + [self.output]
        with chainer.using_config("dtype", self.output.W.dtype):
            network = MLP(
                widths[0],
                widths[1:-1],
                widths[-1],
                activation=self.hidden[0].activation,
                initialW=chainer.initializers.Zero(),
                inputs=kept[0] if self.select_inputs else None,
                columns=self.widths[0],
            )
        for layer, linear, columns, rows in zip(network.layers, source, kept, kept[1:]):
            W = chainer.backends.cuda.to_cpu(linear.W.array)
            layer.W.array[...] = W[numpy.ix_(rows, columns)]
            layer.b.array[...] = chainer.backends.cuda.to_cpu(linear.b.array)[rows]
        network.to_device(self.device)
        return network
