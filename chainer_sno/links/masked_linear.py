"""One fully connected layer with units under selection."""

from collections.abc import Callable
from typing import Any

from chainer_sno._import_chainer import chainer
from chainer_sno._types import Array
from chainer_sno.functions import mask_units


class MaskedLinear(chainer.Chain):
    r"""A fully connected layer whose unit i outputs :math:`m_i F(X_i)` (section 4.1).

    Args:
        in_size (int): units of the layer before.
        out_size (int): units of this layer; as many bits.
        activation (callable): F, from a variable to a variable of the same shape.
        initialW (initializer): that of the weights; Chainer's HeNormal (reading R15) by default.
            The biases start at zero.
    """

    def __init__(
        self,
        in_size: int,
        out_size: int,
        activation: Callable[[Any], Any] = chainer.functions.relu,
        initialW: Any = None,
    ) -> None:
        super().__init__()
        self.activation = activation
        with self.init_scope():
            self.linear = chainer.links.Linear(
                in_size, out_size, initialW=initialW or chainer.initializers.HeNormal()
            )

    def forward(self, x: Any, structures: Array) -> Any:
        """Apply the layer to every structure.

        Args:
            x (chainer.Variable or array): shape (lambda, N, in_size), or (1, N, in_size) where
                the structures share the input; then the product is computed once.
            structures (array): bits of this layer's units, shape (lambda, out_size).

        Returns:
            chainer.Variable: shape (lambda, N, out_size).
        """
        h = self.activation(self.linear(x, n_batch_axes=2))
        return mask_units(h, structures)
