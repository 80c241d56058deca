"""Passes over the parameters and over mini-batches, compiled."""

from chainer_sno.fast.vectors import array_at, compiled


@compiled
def nesterov_step(parameter, gradient, velocity, decays, decay, lr, momentum, square, rate):
    """Add the weight decay to the gradient, if any, and take one step of NesterovAG.

    Each number is rounded where Chainer's array operations round it.  All arrays are flat and of
    one dtype, and so are the factors: ``square`` is the square of the momentum and ``rate``
    (1 + momentum) lr.
    """
    for i in range(len(parameter)):
        g = gradient[i]
        if decays:  # 0 times an infinite parameter is no number
            g = g + decay * parameter[i]
        v = velocity[i] * momentum
        v = v - lr * g
        p = parameter[i] + square * v
        gradient[i], velocity[i], parameter[i] = g, v, p - rate * g


@compiled
def nesterov_steps(addresses, sizes, decays, decay, lr, momentum, square, rate):
    """Take the steps of several parameters of one dtype, see :func:`nesterov_step`.

    Args:
        addresses (array): int64, shape (n, 3): where the memory of each parameter, of its gradient
            and of its velocity begins.
        sizes (array): int64, shape (n,): numbers of each parameter.
        decays (bool): whether there is a weight decay.
        decay, lr, momentum, square, rate (scalar): of the parameters' dtype.
    """
    for k in range(len(sizes)):
        parameter = array_at(addresses[k, 0], sizes[k], decay)
        gradient = array_at(addresses[k, 1], sizes[k], decay)
        velocity = array_at(addresses[k, 2], sizes[k], decay)
        nesterov_step(parameter, gradient, velocity, decays, decay, lr, momentum, square, rate)


@compiled
def crop_and_flip(images, mean, std, places, flips, padding, out):
    """Standardise bytes, pad them with zeros, and cut out windows, some of them flipped.

    Args:
        images (array): uint8, shape (N, channels, H, W).
        mean, std (array): of each channel, of the dtype of ``out``.
        places (array): int64, shape (N, 2): row and column of each window in the padded image.
        flips (array): bool, shape (N,): whether columns are read from the end.
        padding (int): pixels on each side.
        out (array): gets the windows, shape (N, channels, H, W).
    """
    n, channels, height, width = images.shape
    for i in range(n):
        for c in range(channels):
            for y in range(height):
                row = y + places[i, 0] - padding
                for x in range(width):
                    column = (width - 1 - x if flips[i] else x) + places[i, 1] - padding
                    if 0 <= row < height and 0 <= column < width:
                        value = out.dtype.type(images[i, c, row, column])
                        out[i, c, y, x] = (value - mean[c]) / std[c]
                    else:
                        out[i, c, y, x] = 0
