"""The selection of units, section 4.1: unit i outputs m_i F(X_i)."""

from typing import Any

from chainer_sno._import_chainer import chainer
from chainer_sno._types import Array


class MaskUnits(chainer.FunctionNode):
    """Multiply the activations of each structure by its bits; linear in the activations."""

    def __init__(self, structures: Array) -> None:
        super().__init__()
        self.structures = structures

    def forward(self, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
        """Return the masked activations."""
        (h,) = inputs
        return (h * self.structures[:, None, :],)

    def backward(self, indexes: tuple[int, ...], grad_outputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Mask the gradient, and sum it over the structures where they shared the input."""
        (gy,) = grad_outputs
        gx = mask_units(gy, self.structures)
        if self.inputs[0].shape[0] < len(self.structures):
            gx = chainer.functions.sum(gx, axis=0, keepdims=True)
        return (gx,)


def mask_units(h: Any, structures: Array) -> Any:
    r"""Switch the units of a layer off where their bit is zero: :math:`m_i F(X_i)`.

    Args:
        h (chainer.Variable or array): activations, shape (lambda, N, units), or (1, N, units)
            where the structures share them.
        structures (array): bits of the layer's units, bool or 0 and 1, shape (lambda, units).

    Returns:
        chainer.Variable: shape (lambda, N, units), the dtype of ``h``.

    Raises:
        ValueError: a shape is not as above.
    """
    samples, units = structures.shape
    if h.ndim != 3 or h.shape[0] not in (1, samples) or h.shape[2] != units:
        raise ValueError(
            f"the activations of structures of shape {structures.shape} must have the shape "
            f"({samples}, N, {units}) or (1, N, {units}), not {h.shape}"
        )
    structures = structures.astype(h.dtype, copy=False)
    return MaskUnits(structures).apply((h,))[0]
