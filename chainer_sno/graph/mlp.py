"""Fully connected networks as programs of kernels: section 4.1 on a GPU."""

from typing import Any

import numpy

from chainer_sno._types import Array
from chainer_sno.cuda.kernels import MAX_CLASSES, blocks_for
from chainer_sno.graph.optimizer import DeviceRates

# The tile of a product, and by dtype the warps of a block, both of which mlp.cu explains.  Shared
# memory has 48 KiB for what the warps of a block add up.
_ROWS, _COLUMNS = 32, 16
_WARPS = {"float32": 16, "float64": 8}


def definitions(dtype: Any) -> dict[str, int]:
    """Return what ``mlp.cu`` must know when it is compiled.

    Args:
        dtype (numpy.dtype): of the network.

    Returns:
        dict: names and values.
    """
    return {"WARPS": _WARPS[numpy.dtype(dtype).name], "ROWS": _ROWS, "COLUMNS": _COLUMNS}


class MLPNetwork:
    r"""A fully connected network with ReLU: its losses, their gradients and the optimizer's step.

    The step of the optimizer is part of the product that computes a layer's gradient, so that no
    gradient is stored.

    Args:
        kernels (chainer_sno.cuda.kernels.Kernels): with those of ``optimizer`` and ``mlp``.
        layers (list of chainer.links.Linear): inputs first; their arrays are updated in place.
        optimizer (chainer.Optimizer): NesterovAG, MomentumSGD or SGD, with no hook but WeightDecay.
        batch_size (int): N.
        samples (int): :math:`\lambda`; 1 for a network without selection.
        selected (bool): the hidden units are under selection.
        dropout (tuple): of a network without selection, the ratio and the random numbers of
            Dropout on the hidden units; None for none.

    Raises:
        ValueError: the network is larger than the kernels have room for, or the optimizer is
            another.
    """

    def __init__(
        self,
        kernels: Any,
        layers: Any,
        optimizer: Any,
        batch_size: int,
        samples: int = 1,
        selected: bool = True,
        dropout: Any = None,
    ) -> None:
        xp, dtype = kernels.xp, kernels.dtype
        self._warps = _WARPS[dtype.name]
        self.samples, self.dropout = samples, dropout
        self.layers, self.batch_size = layers, batch_size
        self.rates = DeviceRates(optimizer, xp, dtype)
        # Pairs (out, in).
        self.shapes = [layer.W.shape for layer in layers]
        if self.shapes[-1][0] > MAX_CLASSES:
            raise ValueError(
                f"the GPU's kernels support at most {MAX_CLASSES} classes: use the "
                "backend 'reference'"
            )
        self.classes = self.shapes[-1][0]
        self.rows = samples * batch_size
        hidden = sum(out for out, _ in self.shapes[:-1])
        self.x = xp.zeros((batch_size, self.shapes[0][1]), dtype)
        self.row_losses = xp.zeros((samples, batch_size))
        # Factors of the hidden units: a row a structure, or with Dropout a row an example.
        self.structures, self._repeat = None, 1
        if selected:
            self.structures, self._repeat = xp.zeros((samples, hidden), dtype), batch_size
        elif dropout is not None:
            self.structures = xp.zeros((batch_size, hidden), dtype)
        self._stride = hidden
        self._h = [xp.zeros((self.rows, out), dtype) for out, _ in self.shapes[:-1]]
        self._dz = [xp.zeros((self.rows, out), dtype) for out, _ in self.shapes]

    def _inputs(self, k: Any) -> Any:
        """Return the inputs of layer k and their number of rows; all structures share x."""
        return (self._h[k - 1], self.rows) if k else (self.x, self.batch_size)

    def _factors(self, k: Any) -> Any:
        """Return what the kernels take to read the factors of the units of layer k."""
        factors = self.structures
        if factors is not None:
            # Rows begin a stride apart, so this shifts the column.
            factors = factors.reshape(-1)[sum(out for out, _ in self.shapes[:k]) :]
        return factors, self._repeat, self._stride

    def add_losses(self, program: Any, t: Array) -> None:
        """Add the kernels from x to the losses of all rows."""
        *hidden, last = range(len(self.layers))
        for k in hidden:
            layer, (out, size) = self.layers[k], self.shapes[k]
            below, rows = self._inputs(k)
            program.add(
                "forward",
                (blocks_for(out, _COLUMNS), blocks_for(rows, _ROWS)),
                (self._warps * 32,),
                rows,
                self.rows // rows,
                out,
                size,
                below,
                layer.W.array,
                layer.b.array,
                *self._factors(k),
                self._h[k],
            )
        layer, (out, size) = self.layers[last], self.shapes[last]
        below, rows = self._inputs(last)
        program.add(
            "classify",
            (self.rows,),
            (32 * min(out, 32),),
            self.batch_size,
            rows,
            out,
            size,
            below,
            layer.W.array,
            layer.b.array,
            t,
            1 / self.rows,
            self.row_losses,
            self._dz[last],
        )

    def add_update(self, program: Any) -> None:
        """Add the kernels from the losses to the new parameters."""
        for k in reversed(range(len(self.layers))):
            layer, (out, size) = self.layers[k], self.shapes[k]
            if k:  # before the step, which changes the weights
                program.add(
                    "backward",
                    (blocks_for(size, _COLUMNS), blocks_for(self.rows, _ROWS)),
                    (self._warps * 32,),
                    self.rows,
                    out,
                    size,
                    self._dz[k],
                    layer.W.array,
                    self._h[k - 1],
                    *self._factors(k - 1),
                    self._dz[k - 1],
                )
            below, period = self._inputs(k)
            program.add(
                "update",
                (blocks_for(size, _ROWS) + 1, blocks_for(out, self._warps * _COLUMNS)),
                (self._warps * 32,),
                self.rows,
                period,
                out,
                size,
                self._dz[k],
                below,
                *self.rates.arguments,
                layer.W.array,
                self.rates.velocity(layer.W),
                layer.b.array,
                self.rates.velocity(layer.b),
                aside=k > 0,
            )
