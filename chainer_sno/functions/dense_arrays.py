"""The operations of :mod:`~chainer_sno.functions.dense_block` on chunks of feature maps.

Maps and their gradients have the shape (channels, N * H * W).
"""

SHIFTS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]


def moments(x, first, last, mean, var):
    """Mean and variance of rows."""
    mean[first:last] = x[first:last].mean(axis=1)
    var[first:last] = x[first:last].var(axis=1)


def _normalise(x, start, n, rows, mean, scale, beta):
    centred = x[rows, start : start + n] - mean[rows, None]
    return centred, centred * scale[rows, None] + beta[rows, None]


def activate(x, start, rows, mean, scale, beta, out):
    """BN and ReLU."""
    out[...] = _normalise(x, start, out.shape[1], rows, mean, scale, beta)[1].clip(0, None)


def deactivate(x, start, rows, mean, scale, beta, grad, gx, sums):
    """The way back through BN and ReLU, statistics aside."""
    n = grad.shape[1]
    centred, value = _normalise(x, start, n, rows, mean, scale, beta)
    g = grad * (value > 0)
    sums[0] += g.sum(axis=1)
    sums[1] += (g * centred).sum(axis=1)
    gx[rows, start : start + n] += scale[rows, None] * g


def subtract_statistics(x, gx, first, last, mean, slope, offset, out, shift):
    """The part of the gradient that flows through the batch statistics."""
    own = slice(first, last)
    centred = x[own] - mean[own, None]
    out[:, shift : shift + x.shape[1]] = gx[own] - slope[own, None] * centred - offset[own, None]


def fold(z, column, width, inside, phase, x, first, last, start, stop):
    """Nine shifted additions."""
    out, n = x[first:last, start:stop], stop - start
    out[...] = 0
    for k, (dy, dx) in enumerate(SHIFTS):
        begin = column + dy * width + dx
        out += inside[k, phase : phase + n] * z[k::9, begin : begin + n]


def unfold(gy, column, width, inside, phase, out):
    """The transposed of the nine shifted additions."""
    n = out.shape[1]
    rows = out.reshape(gy.shape[0], 9, n)
    for k, (dy, dx) in enumerate(SHIFTS):
        begin = column - dy * width - dx
        rows[:, k] = inside[8 - k, phase : phase + n] * gy[:, begin : begin + n]


def pool(a, width, out, start):
    """Means of 2x2 squares."""
    height, n = a.shape[1] // (2 * width), a.shape[1] // 4
    squares = a.reshape(len(a), height, 2, width // 2, 2)
    out[:, start : start + n] = squares.mean(axis=(2, 4)).reshape(len(a), n)


def unpool(grad, start, width, out):
    """The transposed of the means of 2x2 squares."""
    height, n = out.shape[1] // (2 * width), out.shape[1] // 4
    squares = grad[:, start : start + n].reshape(len(out), height, 1, width // 2, 1)
    out.reshape(len(out), height, 2, width // 2, 2)[...] = squares / 4
