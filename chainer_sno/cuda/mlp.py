"""Fully connected networks as programs of kernels: section 4.1 on a GPU."""

from typing import Any

from chainer_sno._types import Array
from chainer_sno.cuda.kernels import MAX_CLASSES, blocks_for
from chainer_sno.nesterov import DeviceRates, velocity


class MLPNetwork:
    r"""A fully connected network with ReLU: its losses, their gradients and the optimizer's step.

    Only pre-activations are kept; whoever needs activations computes them while it reads.  The
    step of the optimizer is part of the product that computes a layer's gradient, so that no
    gradient is stored.

    Args:
        kernels (chainer_sno.cuda.kernels.Kernels): with those of ``mlp.cu``.
        layers (list of chainer.links.Linear): inputs first; their arrays are updated in place.
        optimizer (chainer.optimizers.NesterovAG): with no hook but WeightDecay.
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
        self.samples, self.dropout = samples, dropout
        self.layers, self.batch_size = layers, batch_size
        self.rates = DeviceRates(optimizer, xp, dtype)
        # Pairs (out, in).
        self.shapes = [layer.W.shape for layer in layers]
        if self.shapes[-1][0] > MAX_CLASSES:
            raise ValueError(f"the GPU's kernels take at most {MAX_CLASSES} classes")
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
        # The first layer's does not depend on the structure.
        rows = [batch_size] + [self.rows] * (len(layers) - 1)
        self._z = [xp.zeros((n, out), dtype) for n, (out, _) in zip(rows, self.shapes)]
        self._dz = [xp.zeros((self.rows, out), dtype) for out, _ in self.shapes]

    def _activations(self, k: Any) -> Any:
        """Return what the kernels take to read the inputs of layer k."""
        if k == 0:
            return self.x, self.batch_size, None, 1, 0
        mask = self.structures
        if mask is not None:
            # Rows begin a stride apart, so this shifts the column.
            first = sum(out for out, _ in self.shapes[: k - 1])
            mask = mask.reshape(-1)[first:]
        return self._z[k - 1], len(self._z[k - 1]), mask, self._repeat, self._stride

    def add_losses(self, program: Any, t: Array) -> None:
        """Add the kernels from x to the losses of all rows."""
        last = len(self.layers) - 1
        for k, (layer, (out, size)) in enumerate(zip(self.layers, self.shapes)):
            parameters = layer.W.array, layer.b.array
            if k < last:
                rows = len(self._z[k])
                grid = blocks_for(out, 32), blocks_for(rows, 16)
                program.add(
                    "forward",
                    grid,
                    (128,),
                    rows,
                    out,
                    size,
                    *self._activations(k),
                    int(k > 0),
                    *parameters,
                    self._z[k],
                )
        program.add(
            "classify",
            (self.rows,),
            (128,),
            self.batch_size,
            out,
            size,
            *self._activations(last),
            int(last > 0),
            *parameters,
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
                below, *activations = self._activations(k)
                program.add(
                    "backward",
                    (blocks_for(size, 32), blocks_for(self.rows, 16)),
                    (128,),
                    self.rows,
                    out,
                    size,
                    self._dz[k],
                    layer.W.array,
                    below,
                    *activations,
                    self._dz[k - 1],
                )
            program.add(
                "update",
                (blocks_for(size + 1, 64), blocks_for(out, 64)),
                (256,),
                self.rows,
                out,
                size,
                self._dz[k],
                *self._activations(k),
                int(k > 0),
                *self.rates.arguments,
                layer.W.array,
                velocity(layer.W),
                layer.b.array,
                velocity(layer.b),
            )
