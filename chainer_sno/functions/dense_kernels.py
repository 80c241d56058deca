"""The loops of the fast DenseNet over memory, compiled by numba.

Where there is no numba, :mod:`~chainer_sno.functions.dense_arrays` does the same.

Feature maps and their gradients are channel-major, (channels, N * H * W), and worked on in chunks
of columns, so that what is made of a chunk stays in the cache.  Only the order of sums is
left to the compiler, without which it could not vectorise them.
"""

from numba import njit

_compile = njit(cache=True, fastmath={"reassoc", "contract", "nsz"})


@_compile
def moments(x, first, last, mean, var):
    """Writes mean and variance of rows first..last of x (channels, P) to those of mean and var."""
    n = x.shape[1]
    for row in range(first, last):
        values = x[row]
        total = 0.0
        for j in range(n):
            total += values[j]
        centre = total / n
        total = 0.0
        for j in range(n):
            total += (values[j] - centre) ** 2
        mean[row], var[row] = centre, total / n


@_compile
def activate(x, start, rows, mean, scale, beta, out):
    """Out (rows, n) = relu(scale (x - mean) + beta) of some rows of x, columns from start on."""
    n = out.shape[1]
    zero = x.dtype.type(0)
    for i in range(len(rows)):
        row = rows[i]
        m, s, b = mean[row], scale[row], beta[row]
        source, target = x[row, start : start + n], out[i]
        for j in range(n):
            value = (source[j] - m) * s + b
            target[j] = value if value > zero else zero


@_compile
def deactivate(x, start, rows, mean, scale, beta, grad, gx, sums):
    """The way back through `activate`, all but what flows through the batch statistics.

    grad (rows, n) is the gradient of the activations.  Adds that of x to gx, and to sums
    (2, rows), float64, the sums of grad where the activation is positive and of the same times
    (x - mean).
    """
    n = grad.shape[1]
    zero = x.dtype.type(0)
    for i in range(len(rows)):
        row = rows[i]
        m, s, b = mean[row], scale[row], beta[row]
        source, above = x[row, start : start + n], grad[i]
        target = gx[row, start : start + n]
        total, product = zero, zero
        for j in range(n):
            centred = source[j] - m
            g = above[j] if centred * s + b > zero else zero
            total += g
            product += g * centred
            target[j] += s * g
        sums[0, i] += total
        sums[1, i] += product


@_compile
def subtract_statistics(x, gx, first, last, mean, slope, offset, out, shift):
    """Out = gx - slope (x - mean) - offset, rows first..last, columns of out from shift on."""
    n = x.shape[1]
    for row in range(first, last):
        m, a, b = mean[row], slope[row], offset[row]
        source, grad, target = x[row], gx[row], out[row - first, shift : shift + n]
        for j in range(n):
            target[j] = grad[j] - a * (source[j] - m) - b


@_compile
def fold(z, column, width, inside, phase, x, first, last, start, stop):
    """Adds up the nine products of a convolution, each shifted by its offset in the kernel.

    Writes columns start..stop of rows first..last of x.  z has a row for every channel and
    offset; column ``column`` is the pixel start of x.  inside (9, ..), from phase on, is 1 where
    the pixel at that offset lies in the same image: a flat shift runs over the ends of rows and
    of images, where the factor is 0.
    """
    n = stop - start
    above, below = inside[1, phase : phase + n], inside[7, phase : phase + n]
    left, right = inside[3, phase : phase + n], inside[5, phase : phase + n]
    up, down = column - width, column + width
    for channel in range(last - first):
        row = 9 * channel
        z0 = z[row, up - 1 : up - 1 + n]
        z1 = z[row + 1, up : up + n]
        z2 = z[row + 2, up + 1 : up + 1 + n]
        z3 = z[row + 3, column - 1 : column - 1 + n]
        z4 = z[row + 4, column : column + n]
        z5 = z[row + 5, column + 1 : column + 1 + n]
        z6 = z[row + 6, down - 1 : down - 1 + n]
        z7 = z[row + 7, down : down + n]
        z8 = z[row + 8, down + 1 : down + 1 + n]
        out = x[first + channel, start:stop]
        for j in range(n):
            a, b = above[j], below[j]
            out[j] = (
                (z4[j] + a * z1[j] + b * z7[j])
                + left[j] * (z3[j] + a * z0[j] + b * z6[j])
                + right[j] * (z5[j] + a * z2[j] + b * z8[j])
            )


@_compile
def unfold(gy, column, width, inside, phase, out):
    """The transposed of `fold`: gy (channels, ..) to out (channels * 9, n).

    Column 0 of out is the pixel in column ``column`` of gy.
    """
    n = out.shape[1]
    for channel in range(gy.shape[0]):
        for k in range(9):
            begin = column - (k // 3 - 1) * width - (k % 3 - 1)
            source = gy[channel, begin : begin + n]
            factor, target = inside[8 - k, phase : phase + n], out[9 * channel + k]
            for j in range(n):
                target[j] = factor[j] * source[j]


@_compile
def pool(a, width, out, start):
    """Means of 2x2 squares of a (channels, n): columns from start on of out (channels, P / 4)."""
    half = width // 2
    quarter = a.dtype.type(0.25)
    for row in range(a.shape[0]):
        for y in range(a.shape[1] // (2 * width)):
            upper = a[row, 2 * y * width : (2 * y + 1) * width]
            lower = a[row, (2 * y + 1) * width : (2 * y + 2) * width]
            target = out[row, start + y * half : start + (y + 1) * half]
            for j in range(half):
                top = upper[2 * j] + upper[2 * j + 1]
                target[j] = quarter * (top + lower[2 * j] + lower[2 * j + 1])


@_compile
def unpool(grad, start, width, out):
    """The transposed of `pool`: grad (channels, P / 4) from start on to out (channels, n)."""
    half = width // 2
    quarter = grad.dtype.type(0.25)
    for row in range(out.shape[0]):
        for y in range(out.shape[1] // (2 * width)):
            source = grad[row, start + y * half : start + (y + 1) * half]
            upper = out[row, 2 * y * width : (2 * y + 1) * width]
            lower = out[row, (2 * y + 1) * width : (2 * y + 2) * width]
            for j in range(half):
                value = quarter * source[j]
                upper[2 * j] = value
                upper[2 * j + 1] = value
                lower[2 * j] = value
                lower[2 * j + 1] = value
