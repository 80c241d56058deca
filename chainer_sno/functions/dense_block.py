"""A dense block whose connections are under selection, in operations on arrays.

It serves CuPy, and NumPy if numba is not installed.  With numba,
:mod:`~chainer_sno.functions.dense_net` computes the same in less time.
"""

import dataclasses
import functools
import typing

import numpy

from chainer_sno._import_chainer import chainer
from chainer_sno.functions import dense_arrays

# The approximate columns of a chunk on a CPU: its intermediate results should fit into the cache of
# a core.
CHUNK = 512


@functools.lru_cache(maxsize=64)
def _inside(height, width, columns, dtype):
    """Return 1 where the pixel at each of the nine offsets is in the image, else 0.

    The shape is (9, height * width + columns): whatever pixel a chunk begins with, what it needs
    is a slice.
    """
    inside = numpy.ones((9, height, width), dtype)
    for k in range(9):
        for axis, offset in enumerate((k // 3 - 1, k % 3 - 1)):
            if offset:
                numpy.moveaxis(inside[k], axis, 0)[0 if offset < 0 else -1] = 0
    repeats = -(-columns // (height * width)) + 1
    return numpy.tile(inside.reshape(9, -1), repeats)[:, : height * width + columns].copy()


def _matmul(a, b, out):
    if isinstance(a, numpy.ndarray):
        return numpy.matmul(a, b, out=out)
    out[...] = a @ b  # CuPy writes products to contiguous arrays only
    return out


@dataclasses.dataclass
class _Pass:
    """One structure's pass through the block; channels are those of all its feature maps."""

    rows: list[typing.Any]  # of arrays: the active input channels of each consumer
    live: list[bool]  # of bool: whether the exit depends on the consumer
    features: typing.Any  # (channels, P)
    mean: typing.Any  # (channels,), as are the next two; of this mini-batch, unless evaluating
    var: typing.Any
    inv_std: typing.Any
    pooled: typing.Any = None  # (active channels, columns): what the exit's weights multiply


class DenseBlockFunction(chainer.FunctionNode):
    """A dense block and its exit, for all structures.

    Feature maps are kept channel-major, (channels, P) with P = N * H * W columns, in one buffer
    a structure, so that concatenation is free and the statistics of a feature map, which all its
    consumers share, are computed once.  A 3x3 convolution is one product of its weights,
    (growth rate * 9, active channels), with the activations, followed by nine shifted additions.
    Activations are computed again on the way back instead of being kept.

    Inputs are the feature maps, shape (lambda, channels, N, H, W) or (1, ...) where the
    structures share them, then gamma of each consumer, beta of each consumer, the weights of the
    layers and those of the transition if there is one.

    Args:
        bits (numpy.ndarray): the block's bits, bool, shape (lambda, bits).
        block (DenseBlock): for its shape and, in evaluation mode, its running statistics.

    Attributes:
        statistics (list): mean and variance of the feature maps per structure, arrays of shape
            (channels,), of the last forward pass in training mode.
    """

    def __init__(self, bits, block):
        super().__init__()
        self.bits, self.block = bits, block
        self.train = chainer.config.train
        self.has_transition = hasattr(block, "transition")

    def forward(self, inputs):
        """Return the exit's output.

        For a transition of shape (lambda, channels, N, H / 2, W / 2), otherwise the mean over
        the pixels, (lambda, channels, N).
        """
        self._prepare(*inputs)
        self.saved, self.statistics, outputs = [], [], []
        x, xp, previous = inputs[0], self.xp, None
        for s, bits in enumerate(self.bits):
            own = self._start(bits, x[min(s, len(x) - 1)], previous if len(x) == 1 else None)
            for i in range(len(self.block.convs)):
                # In training mode, other consumers' running statistics see dead features too.
                if own.live[i] or self.train:
                    self._layer(i, own)
                    self._moments(own, *self._output_of(i))
            outputs.append(self._exit(own))
            self.statistics.append((own.mean, own.var))
            if chainer.config.enable_backprop:
                self.saved.append(own)
            previous = own
        return (xp.stack(outputs),)

    def backward(self, indexes, grad_outputs):
        """Return the gradients of the feature maps and of the parameters."""
        if chainer.config.enable_backprop:
            raise RuntimeError("the fast DenseNet has no second derivative: use PlainDenseNet")
        gys, xp, dtype = grad_outputs[0].array, self.xp, self.dtype
        self.ggammas = [xp.zeros_like(gamma) for gamma in self.gammas]
        self.gbetas = [xp.zeros_like(beta) for beta in self.betas]
        self.gweights = [xp.zeros_like(W) for W in self.weights]
        x_shape = self.inputs[0].shape
        gx = xp.zeros((x_shape[0], self.widths[0], self.size), dtype)
        # Gradients of the feature maps, all but what flows through the batch statistics.  That
        # is linear in the sums over the consumers of gamma * ggamma and of gamma * gbeta, and
        # they are known when the last consumer is through.
        gfeatures = xp.empty((self.channels, self.size), dtype)
        # With room for the shifts, which look beyond both ends and multiply by 0.
        gy = xp.zeros((self.widths[-1], self.size + 2 * self.reach), dtype)
        for s, own in enumerate(self.saved):
            gfeatures[...] = 0
            through = xp.zeros((2, self.channels), dtype)
            self._exit_back(own, gys[s], gfeatures, through)
            for i in reversed(range(len(self.block.convs))):
                if own.live[i] and len(own.rows[i]):
                    first, last = self._output_of(i)
                    self._complete(own, gfeatures, through, first, last, gy, self.reach)
                    self._layer_back(i, own, gy, gfeatures, through)
            first_rows = gfeatures[: self.widths[0]]
            self._complete(own, gfeatures, through, 0, self.widths[0], first_rows, 0)
            gx[min(s, len(gx) - 1)] += first_rows
        shapes = [node.shape for node in self.inputs[-len(self.weights) :]]
        gweights = [
            xp.ascontiguousarray(gW.reshape(shape[0], -1, shape[1]).swapaxes(1, 2)).reshape(shape)
            for gW, shape in zip(self.gweights, shapes)
        ]
        grads = [gx.reshape(x_shape), *self.ggammas, *self.gbetas, *gweights]
        return tuple(chainer.as_variable(grads[i]) for i in indexes)

    def _prepare(self, x, *parameters):
        """Note the sizes, sort the parameters, and choose the chunks."""
        self.xp = xp = chainer.backend.get_array_module(x)
        self.dtype = x.dtype
        self.images, self.height, self.width = x.shape[2:]
        self.pixels = self.height * self.width
        self.size = self.images * self.pixels
        self.reach = self.width + 1  # of a convolution, in columns
        self.widths = self.block.widths
        self.channels = sum(self.widths)
        consumers = len(self.widths)
        self.gammas, self.betas = parameters[:consumers], parameters[consumers : 2 * consumers]
        # (outputs * offsets, inputs): a row for each output channel and, in it, each offset.
        self.weights = [
            xp.ascontiguousarray(W.reshape(*W.shape[:2], -1).swapaxes(1, 2)).reshape(-1, W.shape[1])
            for W in parameters[2 * consumers :]
        ]
        self.chunk = self.size
        if xp is numpy:
            # Pairs of rows, for the sake of pooling.
            self.chunk = min(self.size, max(1, CHUNK // (2 * self.width)) * 2 * self.width)
        # Of the means over images: an image at a time, or all of them where a call costs more.
        self.image_chunk = self.pixels if xp is numpy else self.size
        self.inside = xp.asarray(_inside(self.height, self.width, self.chunk, x.dtype))
        # What is made of a chunk: products or gradients of shifts, and activations.
        columns = max(self.chunk, self.pixels)
        self.z = xp.empty((9 * self.widths[-1], columns + 3 * self.reach), x.dtype)
        self.a, self.ga = (xp.empty(self.channels * columns, x.dtype) for _ in range(2))

    def _chunks(self, columns=None):
        """Yield the first column and the number of columns of every chunk."""
        columns = columns or self.chunk
        for start in range(0, self.size, columns):
            yield start, min(columns, self.size - start)

    def _output_of(self, i):
        """Return where the outputs of layer i begin and end among the feature maps."""
        first = self.widths[0] + i * self.widths[-1]
        return first, first + self.widths[-1]

    def _start(self, bits, x, previous):
        """Return the pass of a structure with the block's input in its place."""
        xp = self.xp
        rows = [
            xp.asarray(numpy.flatnonzero(bits[own].repeat(widths)))
            for own, widths in self.block.consumers()
        ]
        features = xp.empty((self.channels, self.size), self.dtype)
        statistics = [xp.empty(self.channels, self.dtype) for _ in range(3)]
        own = _Pass(rows, self.block.live(bits), features, *statistics)
        features[: self.widths[0]] = x.reshape(-1, self.size)
        if previous is None:
            self._moments(own, 0, self.widths[0])
        else:  # the same input
            for name in ("mean", "var", "inv_std"):
                getattr(own, name)[...] = getattr(previous, name)
        return own

    def _moments(self, own, first, last):
        """Compute the statistics of some feature maps."""
        if self.train:
            dense_arrays.moments(own.features, first, last, own.mean, own.var)
            eps = self.block.norms[0].eps
            own.inv_std[first:last] = (own.var[first:last] + eps) ** -0.5

    def _normalisation(self, consumer, own):
        """Return the normalisation of the inputs of a consumer, and 1 / std."""
        gamma, mean, inv_std = self.gammas[consumer], own.mean, own.inv_std
        if not self.train:
            norm = self.block.norms[consumer]
            mean, inv_std = norm.avg_mean, (norm.avg_var + norm.eps) ** -0.5
        inv_std = inv_std[: len(gamma)]
        return (own.rows[consumer], mean, gamma * inv_std, self.betas[consumer]), inv_std

    def _layer(self, i, own):
        """Write the outputs of layer i to the feature maps."""
        first, last = self._output_of(i)
        rows, z, reach = own.rows[i], self.z, self.reach
        if not len(rows):
            own.features[first:last] = 0
            return
        normalisation, _ = self._normalisation(i, own)
        W = self.weights[i][:, rows]
        # Outputs lag behind the products by the reach of the convolution: the last columns of
        # the products, twice the reach, stay in front of the next ones.
        z[...] = 0
        done = 0
        for start, n in self._chunks():
            a = self.a[: len(rows) * n].reshape(-1, n)
            dense_arrays.activate(own.features, start, *normalisation, a)
            _matmul(W, a, z[:, 2 * reach : 2 * reach + n])
            stop = start + n if start + n == self.size else start + n - reach
            geometry = (done - start + 2 * reach, self.width, self.inside, done % self.pixels)
            dense_arrays.fold(z, *geometry, own.features, first, last, done, stop)
            if stop < self.size:
                z[:, : 2 * reach] = z[:, n : n + 2 * reach]
            done = stop

    def _layer_back(self, i, own, gy, gfeatures, through):
        """Add the gradients of layer i, given that of its outputs."""
        xp, rows = self.xp, own.rows[i]
        normalisation, inv_std = self._normalisation(i, own)
        W = self.weights[i][:, rows]
        gW, product, sums = xp.zeros_like(W), xp.empty_like(W), xp.zeros((2, len(rows)))
        z = self.z.reshape(-1)
        for start, n in self._chunks():
            gz = z[: len(W) * n].reshape(-1, n)
            a, ga = (array[: len(rows) * n].reshape(-1, n) for array in (self.a, self.ga))
            geometry = (start + self.reach, self.width, self.inside, start % self.pixels)
            dense_arrays.unfold(gy, *geometry, gz)
            dense_arrays.activate(own.features, start, *normalisation, a)
            gW += _matmul(gz, a.T, product)
            _matmul(W.T, gz, ga)
            dense_arrays.deactivate(own.features, start, *normalisation, ga, gfeatures, sums)
        self.gweights[i][:, rows] += gW
        self._add_normalisation(i, rows, inv_std, sums, through)

    def _exit(self, own):
        """Return the output of the exit.

        A 1x1 convolution and the averages over squares may change places, and in this order the
        product is a quarter as large.
        """
        xp, rows = self.xp, own.rows[-1]
        normalisation, _ = self._normalisation(-1, own)
        columns = self.size // 4 if self.has_transition else self.images
        own.pooled = xp.empty((len(rows), columns), self.dtype)
        for start, n in self._chunks(None if self.has_transition else self.image_chunk):
            a = self.a[: len(rows) * n].reshape(-1, n)
            dense_arrays.activate(own.features, start, *normalisation, a)
            if self.has_transition:
                dense_arrays.pool(a, self.width, own.pooled, start // 4)
            else:
                first, images = start // self.pixels, n // self.pixels
                means = a.reshape(len(rows), images, self.pixels).mean(axis=2)
                own.pooled[:, first : first + images] = means
        if self.has_transition:
            y = self.weights[-1][:, rows] @ own.pooled
            return y.reshape(-1, self.images, self.height // 2, self.width // 2)
        y = xp.zeros((self.channels, self.images), self.dtype)
        y[rows] = own.pooled
        return y

    def _exit_back(self, own, gy, gfeatures, through):
        """Add the gradients of the exit, given that of its outputs."""
        rows = own.rows[-1]
        normalisation, inv_std = self._normalisation(-1, own)
        if self.has_transition:
            gy = gy.reshape(len(gy), -1)
            gpooled = self.weights[-1][:, rows].T @ gy
            self.gweights[-1][:, rows] += gy @ own.pooled.T
        else:
            gpooled = gy[rows] / self.pixels
        sums = self.xp.zeros((2, len(rows)))
        for start, n in self._chunks(None if self.has_transition else self.image_chunk):
            ga = self.ga[: len(rows) * n].reshape(-1, n)
            if self.has_transition:
                dense_arrays.unpool(gpooled, start // 4, self.width, ga)
            else:
                first, images = start // self.pixels, n // self.pixels
                own_gradients = gpooled[:, first : first + images, None]
                ga.reshape(len(rows), images, self.pixels)[...] = own_gradients
            dense_arrays.deactivate(own.features, start, *normalisation, ga, gfeatures, sums)
        self._add_normalisation(-1, rows, inv_std, sums, through)

    def _add_normalisation(self, consumer, rows, inv_std, sums, through):
        """Add the gradients of gamma and beta of one structure."""
        ggamma, gbeta = sums[1] * inv_std[rows], sums[0]
        self.ggammas[consumer][rows] += ggamma
        self.gbetas[consumer][rows] += gbeta
        gamma = self.gammas[consumer][rows]
        through[0, rows] += gamma * ggamma
        through[1, rows] += gamma * gbeta

    def _complete(self, own, gfeatures, through, first, last, out, shift):
        """Write gradients of feature maps, complete, to columns from shift on of out."""
        if not self.train:
            out[:, shift : shift + self.size] = gfeatures[first:last]
            return
        offset = through[1] * own.inv_std / self.size
        slope = through[0] * own.inv_std**2 / self.size
        statistics = (own.mean, slope, offset)
        dense_arrays.subtract_statistics(
            own.features, gfeatures, first, last, *statistics, out, shift
        )
