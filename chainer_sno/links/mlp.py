"""A plain fully connected network: the fixed structures and the Dropout of section 4.1."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy

from chainer_sno._import_chainer import chainer
from chainer_sno._types import Array, ArrayLike
from chainer_sno.protocols import check_forward
from chainer_sno.uniforms import Stream, Uniforms

#: Activations that have a name in files.
ACTIVATIONS = {
    name: getattr(chainer.functions, name)
    for name in ("relu", "tanh", "sigmoid", "elu", "leaky_relu", "softplus")
}


def check_widths(in_size: int, hidden_sizes: Sequence[int], out_size: int) -> tuple[int, ...]:
    """Return the widths of all layers.

    Args:
        in_size (int): inputs.
        hidden_sizes (sequence of int): units of the hidden layers, at least one layer.
        out_size (int): outputs.

    Returns:
        tuple of int: the widths, inputs first.

    Raises:
        ValueError: no hidden layer, or a width that is not a positive integer.
    """
    widths = (in_size, *hidden_sizes, out_size)
    if len(widths) < 3:
        raise ValueError("hidden_sizes needs at least one layer")
    for width in widths:
        if not (isinstance(width, (int, numpy.integer)) and width > 0):
            raise ValueError(f"a layer's width must be a positive integer, not {width!r}")
    return tuple(int(width) for width in widths)


class MLP(chainer.Chain):
    """A fully connected network with, as an option, Dropout on the hidden layers.

    Args:
        in_size (int): inputs.
        hidden_sizes (sequence of int): units of the hidden layers.
        out_size (int): outputs.
        dropout_ratio (float): the probability with which a hidden unit is dropped while
            training, 0 for none; the others are scaled by 1/(1 - ratio).
        seed (int): the seed of the dropped units, which a snapshot keeps in step.
        activation (callable or str): of the hidden units; a name is a key of ``ACTIVATIONS``.
        initialW (initializer): that of the weights, Chainer's HeNormal by default.
        inputs (array): the columns of x that the network looks at, in_size of them; by default
            x has just those.
        columns (int): columns of x; by default it ends with the last that the network looks at.

    Raises:
        ValueError: a width is not positive, the ratio not in [0, 1), the activation has a name
            that is none, or the inputs are not in_size of the columns.
    """

    #: The columns of x that the network looks at; None for all.
    inputs: Array | None = None

    def __init__(
        self,
        in_size: int,
        hidden_sizes: Sequence[int],
        out_size: int,
        dropout_ratio: float = 0.0,
        seed: int = 0,
        activation: Callable[[Any], Any] = chainer.functions.relu,
        initialW: Any = None,
        inputs: ArrayLike | None = None,
        columns: int | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= dropout_ratio < 1:
            raise ValueError(f"dropout_ratio must lie in [0, 1), not {dropout_ratio}")
        self.widths = check_widths(in_size, hidden_sizes, out_size)
        self.dropout_ratio = dropout_ratio
        if isinstance(activation, str):
            if activation not in ACTIVATIONS:
                raise ValueError(
                    f"activation must be one of {', '.join(ACTIVATIONS)} or a function, not "
                    f"{activation!r}"
                )
            activation = ACTIVATIONS[activation]
        self.activation = activation
        self.columns = in_size if columns is None else columns
        if inputs is not None:
            inputs = numpy.asarray(inputs)
            if columns is None:
                self.columns = int(inputs.max(initial=-1)) + 1
            if inputs.shape != (in_size,) or not ((inputs >= 0) & (inputs < self.columns)).all():
                raise ValueError(
                    f"inputs must be the numbers of {in_size} of the {self.columns} columns"
                )
            self.add_persistent("inputs", inputs)
        self.uniforms = Uniforms(sum(self.widths[1:-1]), seed, Stream.DROPOUT, numpy.float32)
        initialW = initialW or chainer.initializers.HeNormal()
        with self.init_scope():
            self.layers = chainer.ChainList(
                *(
                    chainer.links.Linear(a, b, initialW=initialW)
                    for a, b in zip(self.widths, self.widths[1:])
                )
            )

    @property
    def geometry(self) -> Any:
        """The arguments of the constructor, but for ``initialW``, such as JSON can hold.

        Raises:
            ValueError: the activation has no name.
        """
        names = [name for name, function in ACTIVATIONS.items() if function is self.activation]
        if not names:
            raise ValueError(
                f"the activation {self.activation!r} cannot be saved: give one of "
                f"{', '.join(ACTIVATIONS)} by its name"
            )
        inputs = self.inputs
        return {
            "in_size": self.widths[0],
            "hidden_sizes": list(self.widths[1:-1]),
            "out_size": self.widths[-1],
            "dropout_ratio": self.dropout_ratio,
            "seed": self.uniforms.seed,
            "activation": names[0],
            "inputs": None if inputs is None else chainer.backends.cuda.to_cpu(inputs).tolist(),
            "columns": self.columns,
        }

    def device_resident_accept(self, visitor: Any) -> None:
        """Move the random numbers with the parameters."""
        super().device_resident_accept(visitor)
        self.uniforms.device_resident_accept(visitor)

    def dropout_factors(self, samples: int, dtype: numpy.dtype[Any]) -> Array:
        """Draw which hidden units are dropped.

        Args:
            samples (int): N.
            dtype (numpy.dtype): of the factors.

        Returns:
            array: 0 for a dropped unit and 1/(1 - ratio) for another, shape (N, hidden units).
        """
        kept = self.uniforms.take(samples) >= self.dropout_ratio
        return kept.astype(dtype) * dtype.type(1 / (1 - self.dropout_ratio))

    def fast_layers(self) -> Any:
        """Return the layers as the fast paths train them, inputs first.

        See :class:`chainer_sno.protocols.FullyConnected`.

        Returns:
            list of chainer.links.Linear: the hidden layers and the output.

        Raises:
            ValueError: the network looks at some inputs only, the activation is not ReLU, or a
                subclass has a forward pass or factors of Dropout of its own.
        """
        check_forward(self, MLP, "dropout_factors")
        if self.inputs is not None:
            raise ValueError(
                "the fast path needs an MLP that takes all inputs: use the backend 'reference'"
            )
        if self.activation is not chainer.functions.relu:
            raise ValueError(
                "the fast path supports the activation ReLU only: use the backend 'reference'"
            )
        return [*self.layers]

    def forward(self, x: Any) -> Any:
        """Return the outputs before the softmax.

        Args:
            x (chainer.Variable or array): shape (N, in_size), or of all inputs.

        Returns:
            chainer.Variable: shape (N, out_size).
        """
        *hidden, last = self.layers
        if self.inputs is not None:
            x = x[:, self.inputs]
        dropout = self.dropout_ratio > 0 and chainer.config.train
        if dropout:
            factors = self.dropout_factors(len(x), x.dtype)
        start = 0
        for layer in hidden:
            x = self.activation(layer(x))
            if dropout:
                x = x * factors[:, start : start + x.shape[1]]
                start += x.shape[1]
        return last(x)

    def serialize(self, serializer: Any) -> None:
        """Save or load the parameters and the state of the random numbers."""
        super().serialize(serializer)
        self.uniforms.serialize(serializer["uniforms"])
