"""The loops of the engine over memory, compiled by numba; one thread, and no reordering of sums.

Weights are kept in two arrays, S and F, see :class:`chainer_sno.fast.Engine`; activations are
unit-major, (units, samples).  Index arrays are unsigned, which spares a test for negative ones.
"""

import math

import numpy

from chainer_sno.fast.vectors import compiled

# Fast-mode values below this are set to zero when folding: they are far below rounding, and the
# products `fast * F` of anything smaller would be denormal numbers, which are slow.
NEGLIGIBLE = 1e-25
#: The class of examples that a loss leaves out, Chainer's ``ignore_label``.
IGNORED = -1


@compiled
def index(structures, offsets, ids, positions, counts, union, union_counts):
    """Lists the active units of every layer: per structure and of all structures together.

    structures (lam, d) bool; offsets (layers + 1,) where layers begin in d.  Results, in place,
    counted inside a layer: ids (lam, d) the active units, positions (lam, d) their places in the
    union, counts (lam, layers), union (d,) units active anywhere, union_counts (layers,).
    """
    lam = structures.shape[0]
    for layer in range(len(offsets) - 1):
        first, last = offsets[layer], offsets[layer + 1]
        total = 0
        for i in range(lam):
            counts[i, layer] = 0
        for unit in range(first, last):
            seen = False
            for i in range(lam):
                if structures[i, unit]:
                    place = first + counts[i, layer]
                    ids[i, place] = unit - first
                    positions[i, place] = total
                    counts[i, layer] += 1
                    seen = True
            if seen:
                union[first + total] = unit - first
                total += 1
        union_counts[layer] = total


@compiled
def nonzero_columns(x, columns):
    """Lists in columns (n,) those of x (N, n) that are not zero throughout; returns how many."""
    n_samples, n = x.shape
    flags = numpy.zeros(n, numpy.bool_)
    for sample in range(n_samples):
        row = x[sample]
        for j in range(n):
            flags[j] |= row[j] != 0
    count = 0
    for j in range(n):
        if flags[j]:
            columns[count] = j
            count += 1
    return count


@compiled
def take_columns(x, columns, out):
    """Copy some columns of x (N, n): out (N, columns)."""
    for sample in range(x.shape[0]):
        row = x[sample]
        for j in range(len(columns)):
            out[sample, j] = row[columns[j]]


@compiled
def combine(S, F, slow, fast, out):
    """Out = slow * S + fast * F, all flat."""
    for i in range(len(S)):
        out[i] = slow * S[i] + fast * F[i]


@compiled
def gather(S, F, slow, fast, rows, columns, out):
    """The weights of some rows and columns: out (rows, columns)."""
    for i in range(len(rows)):
        s, f, o = S[rows[i]], F[rows[i]], out[i]
        for j in range(len(columns)):
            c = columns[j]
            o[j] = slow * s[c] + fast * f[c]


@compiled
def gather_rows(S, F, slow, fast, rows, out):
    """The weights of some rows, all columns: out (rows, columns)."""
    for i in range(len(rows)):
        s, f, o = S[rows[i]], F[rows[i]], out[i]
        for j in range(len(s)):
            o[j] = slow * s[j] + fast * f[j]


@compiled
def scatter(S, F, a, b, rows, columns, gradient):
    """Adds a gradient (rows, columns) to both modes."""
    for i in range(len(rows)):
        s, f, g = S[rows[i]], F[rows[i]], gradient[i]
        for j in range(len(columns)):
            c = columns[j]
            s[c] += a * g[j]
            f[c] += b * g[j]


@compiled
def scatter_rows(S, F, a, b, rows, gradient):
    """Add a gradient of some rows, all columns, to both modes."""
    for i in range(len(rows)):
        s, f, g = S[rows[i]], F[rows[i]], gradient[i]
        for j in range(len(s)):
            s[j] += a * g[j]
            f[j] += b * g[j]


@compiled
def update_dense(S, F, a, b, slow, fast, gradient, W):
    """Adds a gradient to every weight and writes the weights that result, in one pass; all flat."""
    for i in range(len(S)):
        g = gradient[i]
        s = S[i] + a * g
        f = F[i] + b * g
        S[i] = s
        F[i] = f
        W[i] = slow * s + fast * f


@compiled
def rebase(S, F, ss, sf, fs, ff):
    """S, F = ss * S + sf * F, fs * S + ff * F in float64, flat, in place."""
    for i in range(len(S)):
        s, f = numpy.float64(S[i]), numpy.float64(F[i])
        new = fs * s + ff * f
        S[i] = ss * s + sf * f
        F[i] = 0.0 if abs(new) < NEGLIGIBLE else new


@compiled
def update_bias(b, v, gradient, momentum, lr, decay):
    """Chainer's NesterovAG with weight decay, on the few parameters that are kept as they are."""
    square, rate = momentum * momentum, (1 + momentum) * lr
    for i in range(len(b)):
        g = gradient[i] + decay * b[i]
        v[i] = momentum * v[i] - lr * g
        b[i] += square * v[i] - rate * g
        gradient[i] = 0


@compiled
def update_bias_with_momentum(b, v, gradient, momentum, lr, decay):
    """Chainer's MomentumSGD with weight decay; SGD where the momentum is 0."""
    for i in range(len(b)):
        g = gradient[i] + decay * b[i]
        v[i] = momentum * v[i] - lr * g
        b[i] += v[i]
        gradient[i] = 0


@compiled
def activate(z, z_rows, z_start, bias, units, h, h_rows, h_start, n):
    """H = relu(z + bias) of one structure's units, rows renumbered from z's to h's.

    z and h are unit-major; n columns from z_start and h_start on are this structure's.
    """
    for k in range(len(units)):
        add = bias[units[k]]
        source = z[z_rows[k], z_start : z_start + n]
        target = h[h_rows[k], h_start : h_start + n]
        for j in range(n):
            value = source[j] + add
            target[j] = 0 if value <= 0 else value


@compiled
def activate_dropout(z, z_rows, z_start, bias, units, h, h_rows, h_start, n, dropout):
    """As `activate`, times dropout (units of the layer, n)."""
    for k in range(len(units)):
        add = bias[units[k]]
        source = z[z_rows[k], z_start : z_start + n]
        target = h[h_rows[k], h_start : h_start + n]
        factor = dropout[units[k]]
        for j in range(n):
            value = source[j] + add
            target[j] = (0 if value <= 0 else value) * factor[j]


@compiled
def deactivate(z, z_rows, z_start, bias, units, dh, h_rows, h_start, n, dz):
    """Dz += dh where z + bias > 0: the way back through `activate`; dz has z's rows."""
    for k in range(len(units)):
        add = bias[units[k]]
        source = z[z_rows[k], z_start : z_start + n]
        above = dh[h_rows[k], h_start : h_start + n]
        target = dz[z_rows[k], z_start : z_start + n]
        for j in range(n):
            target[j] += 0 if source[j] + add <= 0 else above[j]


@compiled
def deactivate_dropout(z, z_rows, z_start, bias, units, dh, h_rows, h_start, n, dz, dropout):
    """As `deactivate`, times dropout (units of the layer, n)."""
    for k in range(len(units)):
        add = bias[units[k]]
        source = z[z_rows[k], z_start : z_start + n]
        above = dh[h_rows[k], h_start : h_start + n]
        target = dz[z_rows[k], z_start : z_start + n]
        factor = dropout[units[k]]
        for j in range(n):
            target[j] += 0 if source[j] + add <= 0 else above[j] * factor[j]


@compiled
def softmax_cross_entropy(z, start, bias, t, scale):
    """Mean loss of the samples t (N,) in columns start.. of z (classes, ..).

    z becomes scale times the gradient of N times that mean.  Samples of the class -1 are ignored,
    as Chainer's function does, and the mean is over the others.
    """
    total, count = 0.0, 0
    for sample in range(len(t)):
        if not -1 <= t[sample] < z.shape[0]:
            raise ValueError(
                "t holds a class that the network does not have: its outputs give the classes"
            )
        count += t[sample] != IGNORED
    if count < len(t):
        scale *= z.dtype.type(len(t) / max(count, 1))
    for sample in range(len(t)):
        column = start + sample
        if t[sample] == IGNORED:
            for k in range(z.shape[0]):
                z[k, column] = 0
            continue
        top = z[0, column] + bias[0]
        for k in range(z.shape[0]):
            value = z[k, column] + bias[k]
            z[k, column] = value
            top = value if value > top else top
        target = z[t[sample], column] - top
        norm = 0.0
        for k in range(z.shape[0]):
            e = math.exp(z[k, column] - top)
            z[k, column] = e
            norm += e
        total += math.log(norm) - target
        factor = scale / norm
        for k in range(z.shape[0]):
            z[k, column] *= factor
        z[t[sample], column] -= scale
    return total / max(count, 1)


@compiled
def add_at(total, rows, values):
    """total[rows] += values, rows all different."""
    for k in range(len(rows)):
        total[rows[k]] += values[k]
