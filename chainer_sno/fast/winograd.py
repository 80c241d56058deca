r"""The kernels of a 3x3 convolution and its gradients, as Winograd's algorithm F(4x4, 3x3).

A tile of 4x4 outputs Y comes from a tile of 6x6 inputs d and the kernel g,

.. math:: Y = A^T [(G g G^T) \odot (B^T d B)] A,

with 36 products in the place of 144.  The points of the interpolation are 0, ±√½, ±√2 and infinity:
as many operations as with the usual 0, ±1, ±2 and infinity, and less rounding error.

Maps have the shape (blocks of images, channels, H, W, 16).  A pixel is 16 images, one AVX-512
register of float32, so a shift by a pixel is a whole number of vectors, and every instruction does
the same work in all its lanes.  H and W are rounded up to multiples of 4, and the transforms treat
pixels beyond the image as zeros.  Transformed maps have the shape (36 positions, pairs of tiles,
channels, 32): what a product of one position reads is contiguous.

The gradient of the maps convolves with the flipped kernel.  Flipping turns a point into its
inverse, and with each point its inverse is one of the set.  So the transformed flipped kernel holds
the numbers of the transformed kernel at other positions (:data:`FLIPPED`), times factors that the
last transform contains (``_inputs_of``), and each kernel is transformed once.
"""

import numpy

from chainer_sno.fast.vectors import kernel

#: The side of a tile, and that of a transformed tile.
TILE, POINTS = 4, 6
#: Positions of a transformed tile.
POSITIONS = POINTS * POINTS
#: Images of a block, innermost in memory.
LANES = 16
#: Numbers of a channel in a pair of tiles, at one position.
PAIR = 2 * LANES
#: Bytes of a line of a cache.
LINE = 64
#: Channels whose gradients are computed at a time; the products of a pair of tiles stay in L1.
BACK = 6
#: The finite points: 0, ±_A, ±_B.
_A, _B = 0.5**0.5, 2**0.5


def _kernel_matrix():
    """Return G, shape (6, 3)."""
    points = [0, _A, -_A, _B, -_B]
    rows = []
    for p in points:
        others = numpy.prod([p - q for q in points if q != p])
        rows.append([1 / others, p / others, p * p / others])
    return numpy.array([*rows, [0, 0, 1]])


#: What transforms one side of a kernel, G of the algorithm.
KERNEL = _kernel_matrix()
_INVERSE = numpy.array([5, 3, 4, 1, 2, 0])
#: Where the transformed kernel has what the transformed flipped kernel has at each position.
FLIPPED = (_INVERSE[:, None] * POINTS + _INVERSE).ravel()


def _transformed(e, d):
    """Return B^T d of six vectors."""
    c, fma = e.constant, e.fma
    u, v = fma(c(-2), d[2], d[4]), fma(c(-2), d[1], d[3])
    p, q = fma(c(-0.5), d[2], d[4]), fma(c(-0.5), d[1], d[3])
    return [
        fma(c(-2.5), d[2], e.plus(d[0], d[4])),
        fma(c(_A), v, u),
        fma(c(-_A), v, u),
        fma(c(_B), q, p),
        fma(c(-_B), q, p),
        fma(c(-2.5), d[3], e.plus(d[1], d[5])),
    ]


def _outputs_of(e, m):
    """Return A^T m of six vectors."""
    c, fma = e.constant, e.fma
    s, d, p, q = e.plus(m[1], m[2]), e.minus(m[1], m[2]), e.plus(m[3], m[4]), e.minus(m[3], m[4])
    return [
        e.plus(e.plus(m[0], s), p),
        e.times(c(_A), fma(c(2), q, d)),
        fma(c(2), p, e.times(c(0.5), s)),
        fma(c(_A**3), fma(c(8), q, d), m[5]),
    ]


def _inputs_of(e, m):
    """Return what ``_outputs_of`` does, with the factors of the flipped kernel.

    They are -2 at the points ±√½ and -½ at ±√2.
    """
    c, fma = e.constant, e.fma
    s, d, p, q = e.plus(m[1], m[2]), e.minus(m[1], m[2]), e.plus(m[3], m[4]), e.minus(m[3], m[4])
    return [
        fma(c(-0.5), p, fma(c(-2), s, m[0])),
        e.times(c(-_A), fma(c(2), d, q)),
        e.minus(e.minus(e.zero, s), p),
        fma(c(-2 * _A**3), fma(c(2), q, d), m[5]),
    ]


def _adjoint(e, y):
    """Return A y of four vectors."""
    c, fma = e.constant, e.fma
    p, q = fma(c(0.5), y[2], y[0]), fma(c(0.5), y[3], y[1])
    f, g = fma(c(2), y[2], y[0]), fma(c(2), y[3], y[1])
    return [
        y[0],
        fma(c(_A), q, p),
        fma(c(-_A), q, p),
        fma(c(_B), g, f),
        fma(c(-_B), g, f),
        y[3],
    ]


def _weighted(e, terms):
    """Return a sum of numbers times vectors."""
    (first, vector), *others = terms
    total = vector if first == 1 else e.times(e.constant(first), vector)
    for factor, vector in others:
        total = e.fma(e.constant(factor), vector, total)
    return total


def _tree(e, values):
    """Return the sum of some vectors, neighbours first."""
    while len(values) > 1:
        values = [e.plus(*values[i : i + 2]) for i in range(0, len(values), 2)]
    return values[0]


def _both_sides(e, transform, rows):
    """Return a transform along the columns and then along the rows, of a list of rows."""
    columns = [transform(e, [row[i] for row in rows]) for i in range(len(rows[0]))]
    return [transform(e, [column[i] for column in columns]) for i in range(len(columns[0]))]


def each_vector(e, body, carried=()):
    """Emit a body for the vectors of a pixel, or of whatever has 16 numbers."""
    return e.loop(LANES // e.lanes, list(carried), lambda j, c: body(e.mul(j, e.lanes), c))


def with_sums(e, sums, isum, vector):
    """Emit a body for each vector of a pixel; add its sums to sums[isum] and the vector after it.

    They begin at zero: in float32, adding every pixel to a long sum would lose what a few added to
    each other first keep.
    """
    places = (sums, isum), (sums, isum, LANES)
    for value, place in zip(each_vector(e, vector, [e.zero, e.zero]), places):
        e.store(e.plus(e.load(*place), value), *place)


def _bring(e, x, start, pixels):
    """Emit what brings some pixels of x, from ``start`` on, to the second cache.

    A core can wait for a few dozen lines of memory at a time.  So the products of a step, which
    need none, ask for those of the next one.
    """

    def pixel(i, _):
        for first in range(0, LANES, LINE // e.scalar_bytes):
            e.prefetch(x, start, e.mul(i, LANES), first, cache=2)

    e.loop(pixels, [], pixel)


@kernel
def bring(e, x, ix, pixels):
    """Bring some pixels of x, from ix on, to the second cache."""
    _bring(e, x, ix, pixels)


@kernel
def transform_columns(
    e, x, ix, next_x, row, pixels, above, below, scale, shift, act, mask, S, i_s, s_row, bits, bit
):
    """Write B^T d along the columns of a row of tiles of one channel to S.

    ix is the pixel one row above the tiles, rows are ``row`` apart, and S gets six rows of
    ``pixels`` pixels, ``s_row`` apart.  Rows before ``above`` and from ``below`` on lie outside of
    the image.  With ``act``, the inputs are relu(scale x + shift).  With ``mask`` also, bits gets
    which of them are positive, a bit a number, from ``bit`` on and ``row`` bits a row.  next_x is
    what will be read next.
    """
    s, t = e.splat(scale), e.splat(shift)
    vectors = e.mul(pixels, LANES // e.lanes)

    def rows(choose_outside, act, mask):
        def vector(j, _):
            o = e.mul(j, e.lanes)
            d = []
            for r in range(POINTS):
                e.prefetch(x, next_x, o, e.mul(row, r))
                outside = choose_outside(r)
                if outside is True:
                    d.append(e.zero)
                    continue
                # Inside the image there is the row of the tile's first pixels, whatever r.
                offset = e.mul(row, r)
                if outside is not False:
                    offset = e.choose(outside, row, offset)
                value = e.load(x, ix, o, offset)
                if act:
                    value = e.relu(e.fma(s, value, t))
                if outside is not False:
                    value = e.choose(e.splat(outside), e.zero, value)
                if mask and 0 < r < POINTS - 1:
                    e.store_mask(e.positive(value), bits, bit, o, e.mul(row, r - 1))
                d.append(value)
            for r, value in enumerate(_transformed(e, d)):
                e.store(value, S, i_s, o, e.mul(s_row, r))

        return lambda: e.loop(vectors, [], vector) and None

    def places(act, mask):
        first, last = e.is_set(above), e.less(below, POINTS)

        def some_outside(r):
            if r == 1:
                return False
            return first if r == 0 else e.less(below, r + 1)

        inner = rows(lambda r: False, act, mask)
        upper = rows(lambda r: r == 0, act, mask)
        lower = rows(lambda r: r == POINTS - 1, act, mask)
        other = rows(some_outside, act, mask)
        exact = e.builder.icmp_signed("==", e.index(below), e.index(POINTS - 1))

        def with_last():
            lowest = e.builder.and_(exact, e.builder.not_(first))
            e.when(lowest, lower, other)

        e.when(last, with_last, lambda: e.when(first, upper, inner))

    e.when(
        e.is_set(act),
        lambda: e.when(e.is_set(mask), lambda: places(True, True), lambda: places(True, False)),
        lambda: places(False, False),
    )


@kernel
def transform_rows(e, S, s_row, tiles, first, V, iv, v_position, v_pair):
    """Write (B^T d) B of a row of tiles to V, tile ``first`` + t in half t mod 2 of its pair."""

    def tile(t, _):
        source = e.mul(t, TILE * LANES)
        t = e.add(t, first)
        pair, half = e.builder.ashr(t, e.index(1)), e.builder.and_(t, e.index(1))
        target = e.add(iv, e.mul(pair, v_pair), e.mul(half, LANES))

        def vector(o, _):
            for r in range(POINTS):
                place = e.add(source, o, e.mul(s_row, r))
                d = [e.load(S, place, q * LANES) for q in range(POINTS)]
                for q, value in enumerate(_transformed(e, d)):
                    e.store(value, V, target, o, e.mul(v_position, r * POINTS + q))

        each_vector(e, vector)

    e.loop(tiles, [], tile)


def _vectors_of_a_pair(e):
    """Return how many vectors a pair of tiles has, in parts of two."""
    return [(first, 2) for first in range(0, PAIR // e.lanes, 2)]


def _multiply_block(e, outputs, V, iv, U, iu, rows, ir, step, channels, M, im, m_row, accumulate):
    """Emit the products of some outputs with all channels, as many at a time as fit registers."""
    at_once = outputs if e.registers >= 32 or outputs <= 6 else 6
    for first in range(0, outputs, at_once):
        for start, vectors in _vectors_of_a_pair(e):
            places = [
                (e.add(im, e.mul(m_row, first + o)), (start + v) * e.lanes)
                for o in range(at_once)
                for v in range(vectors)
            ]
            keep = e.splat(e.is_set(accumulate))
            init = [e.choose(keep, e.load(M, *place), e.zero) for place in places]

            def channel(k, acc, first=first, start=start, vectors=vectors):
                u = e.add(iu, e.mul(e.scalar_at(rows, ir, k), step), first)
                v0 = e.add(iv, e.mul(k, PAIR), start * e.lanes)
                x = [e.load(V, v0, v * e.lanes) for v in range(vectors)]
                sums = []
                for o in range(at_once):
                    w = e.splat(e.scalar_at(U, u, o))
                    sums += [e.fma(w, x[v], acc[o * vectors + v]) for v in range(vectors)]
                return sums

            for value, place in zip(e.loop(channels, init, channel), places):
                e.store(value, M, *place)


@kernel
def multiply(
    e, V, v_position, v_pair, U, u_position, rows, ir, step, channels, M, im, m_position, m_pair,
    m_row, iv, iu, positions, pairs, outputs, accumulate, x, ahead, pixels, y, targets, written
):  # fmt: skip
    """M[o] (+)= sum over k < channels of U[step rows[ir + k] + o] V[k], PAIR numbers each.

    It does so for each position and each pair of tiles; V begins at iv, U at iu and M at im.  The
    outputs, a multiple of four, are ``m_row`` apart in M.  Meanwhile so many ``pixels`` of x for
    each pair come to the cache, from ``ahead`` of the position on, and so many ``written`` of y,
    from ``targets`` on.
    """

    def block(size, begin):
        def outer(i, _):
            o = e.add(begin, e.mul(i, size))

            def position(p, _):
                def pair(t, _):
                    source = e.add(iv, e.mul(p, v_position), e.mul(t, v_pair))
                    target = e.add(im, e.mul(p, m_position), e.mul(t, m_pair), e.mul(o, m_row))
                    weights = e.add(iu, e.mul(p, u_position), o)
                    start = e.add(e.scalar_at(ahead, p), e.mul(t, e.mul(pixels, LANES)))
                    _bring(e, x, start, pixels)
                    start = e.add(e.scalar_at(targets, p), e.mul(t, e.mul(written, LANES)))
                    _bring(e, y, start, written)
                    _multiply_block(
                        e, size, V, source, U, weights, rows, ir, step, channels, M, target, m_row,
                        accumulate,
                    )  # fmt: skip

                e.loop(pairs, [], pair)

            e.loop(positions, [], position)

        return outer

    blocks = e.builder.sdiv(outputs, e.index(12))
    e.loop(blocks, [], block(12, 0))
    done = e.mul(blocks, 12)
    e.loop(e.builder.sdiv(e.builder.sub(outputs, done), e.index(4)), [], block(4, done))


@kernel
def multiply_back(
    e, E, ie, e_position, U, iu, places, positions, rows, ir, last, step, outputs, M, x, ahead, ix,
    pixels
):  # fmt: skip
    """M[p, m] = sum over o < outputs of U[iu + places[p] + step rows[ir + m] + o] E[p, o].

    m is below BACK, and M is (positions, BACK, PAIR); behind channel ``last`` that one stands for
    the others.  Meanwhile ``pixels`` of TILE rows of x for each m come to the cache, from ix +
    ``ahead`` of the position on.
    """
    sources = []
    for m in range(BACK):
        k = e.choose(e.less(last, m), last, e.index(m))
        sources.append(e.at(U, iu, e.mul(e.scalar_at(rows, ir, k), step)))

    def position(p, _):
        now = e.choose(e.less(p, e.index(BACK * TILE)), pixels, e.index(0))
        _bring(e, x, e.add(ix, e.scalar_at(ahead, p)), now)
        e0, im = e.add(ie, e.mul(p, e_position)), e.mul(p, BACK * PAIR)
        place = e.scalar_at(places, p)
        for start, vectors in _vectors_of_a_pair(e):

            def output(o, acc, start=start, vectors=vectors):
                x = [e.load(E, e0, e.mul(o, PAIR), (start + v) * e.lanes) for v in range(vectors)]
                sums = []
                for m, source in enumerate(sources):
                    w = e.splat(e.scalar_at(source, place, o))
                    sums += [e.fma(w, x[v], acc[m * vectors + v]) for v in range(vectors)]
                return sums

            acc = e.loop(outputs, [e.zero] * (BACK * vectors), output)
            for i, value in enumerate(acc):
                e.store(value, M, im, i // vectors * PAIR + (start + i % vectors) * e.lanes)

    e.loop(positions, [], position)


@kernel
def multiply_transposed(
    e, D, i_d, d_position, d_pair, V, iv, v_position, v_pair, pairs, G, ig, positions, channels,
    outputs, x, ahead, pixels
):  # fmt: skip
    """G[4 o + c] += sum over pairs of tiles and PAIR numbers of D[o] V[c], o and c below 4.

    It does so for all channels and outputs, by fours: G is (channels / 4, positions, outputs / 4,
    4 outputs, 4 channels).  Meanwhile so many ``pixels`` of x for each four channels come to the
    cache, from ``ahead`` of the position on.
    """
    at_once = 4 if e.registers >= 32 else 2
    fours = e.builder.sdiv(outputs, e.index(4))

    def block(d0, v0, g0):
        products = []
        for first in range(0, 4, at_once):

            def pair(r, acc, first=first):
                d1 = e.add(d0, e.mul(r, d_pair), first * PAIR)
                v1 = e.add(v0, e.mul(r, v_pair))
                acc = list(acc)
                for j in range(0, PAIR, e.lanes):
                    x = [e.load(V, v1, c * PAIR + j) for c in range(4)]
                    for o in range(at_once):
                        d = e.load(D, d1, o * PAIR + j)
                        for c in range(4):
                            acc[4 * o + c] = e.fma(d, x[c], acc[4 * o + c])
                return acc

            products += e.loop(pairs, [e.zero] * (4 * at_once), pair)
        for start in range(0, 16, e.lanes):
            sums = e.sum_each(products[start : start + e.lanes])
            e.store(e.plus(e.load(G, g0, start), sums), G, g0, start)

    def position(p, _):
        def quad(q, _):
            start = e.add(e.scalar_at(ahead, p), e.mul(q, e.mul(pixels, LANES)))
            _bring(e, x, start, pixels)
            v0 = e.add(iv, e.mul(p, v_position), e.mul(q, 4 * PAIR))
            g0 = e.add(e.mul(q, positions), p)
            g0 = e.add(ig, e.mul(g0, e.mul(outputs, 4)))

            def four(o, _):
                d0 = e.add(i_d, e.mul(p, d_position), e.mul(o, 4 * PAIR))
                block(d0, v0, e.add(g0, e.mul(o, 16)))

            e.loop(fours, [], four)

        e.loop(e.builder.sdiv(e.add(channels, 3), e.index(4)), [], quad)

    e.loop(positions, [], position)


@kernel
def transform_output(e, M, im, m_position, y, iy, row):
    """Write A^T M A, a tile of outputs of one channel, to y; rows are ``row`` apart."""

    def vector(o, _):
        m = [
            [e.load(M, im, o, e.mul(m_position, r * POINTS + q)) for q in range(POINTS)]
            for r in range(POINTS)
        ]
        for r, values in enumerate(_both_sides(e, _outputs_of, m)):
            for q, value in enumerate(values):
                e.store(value, y, iy, o, e.mul(row, r), q * LANES)

    each_vector(e, vector)


@kernel
def transform_gradient(e, gy, ig, row, D, i_d, d_position):
    """Write A gy A^T of one tile of one channel to D."""

    def vector(o, _):
        y = [
            [e.load(gy, ig, o, e.mul(row, r), q * LANES) for q in range(TILE)] for r in range(TILE)
        ]
        for r, values in enumerate(_both_sides(e, _adjoint, y)):
            for q, value in enumerate(values):
                e.store(value, D, i_d, o, e.mul(d_position, r * POINTS + q))

    each_vector(e, vector)


@kernel
def transform_back(e, M, im, bits, bit, x, gx, ix, row, scale, mean, fresh, direct, sums, isum):
    """Add the gradient of a tile of one channel to gx, given the products M (36, BACK, PAIR).

    g is that of the activations where their bits are set, else 0.  gx gets scale g, as its first
    summand where ``fresh`` is set.  sums[isum] gets g; with ``direct`` the vector after it gets
    g (x - mean).
    """
    s, centre = e.splat(scale), e.splat(mean)
    m_position = BACK * PAIR

    def tile(fresh, direct):
        def vector(o, acc):
            m = [
                [e.load(M, im, o, (r * POINTS + q) * m_position) for q in range(POINTS)]
                for r in range(POINTS)
            ]
            totals, products = [], []
            for r, values in enumerate(_both_sides(e, _inputs_of, m)):
                total, product = None, None
                for q, value in enumerate(values):
                    pixel = e.add(o, e.mul(row, r), q * LANES)
                    on = e.load_mask(bits, bit, pixel)
                    g = e.choose(on, value, e.zero)
                    total = e.plus(total, g) if q else g
                    if direct:
                        centred = e.minus(e.load(x, ix, pixel), centre)
                        product = e.fma(g, centred, product) if q else e.times(g, centred)
                    if fresh:
                        e.store(e.times(s, g), gx, ix, pixel)
                    else:
                        e.store(e.fma(s, g, e.load(gx, ix, pixel)), gx, ix, pixel)
                totals.append(total)
                products.append(product)
            added = [e.plus(acc[0], _tree(e, totals)), acc[1]]
            if direct:
                added[1] = e.plus(acc[1], _tree(e, products))
            return added

        return lambda: with_sums(e, sums, isum, vector)

    e.when(
        e.is_set(direct),
        lambda: e.when(e.is_set(fresh), tile(True, True), tile(False, True)),
        lambda: e.when(e.is_set(fresh), tile(True, False), tile(False, False)),
    )


@kernel
def transform_kernel(e, taps, padded, U, iu, outputs):
    """Write G g G^T of one channel to U, (POSITIONS, outputs); taps is (9, padded).

    The last vector of a position reaches into the next position, whose first vector is written
    after it, and that of the last position into the next channel; behind the last channel there is
    room.
    """
    vectors = e.builder.sdiv(e.add(outputs, e.lanes - 1), e.index(e.lanes))

    def transformed(e, g):
        return [
            _weighted(e, [(value, g[i]) for i, value in enumerate(row) if value]) for row in KERNEL
        ]

    def vector(j, _):
        o = e.mul(e.builder.sub(e.builder.sub(vectors, e.index(1)), j), e.lanes)
        g = [[e.load(taps, o, e.mul(padded, 3 * y + x)) for x in range(3)] for y in range(3)]
        for r, values in enumerate(_both_sides(e, transformed, g)):
            for q, value in enumerate(values):
                e.store(value, U, iu, o, e.mul(outputs, r * POINTS + q))

    e.loop(vectors, [], vector)


@kernel
def gradient_of_kernel(e, G, ig, g_position, count, out):
    """Write G^T m G of ``count`` numbers at each position, to out, (9, count)."""

    def back(e, m):
        return [
            _weighted(e, [(row[i], m[p]) for p, row in enumerate(KERNEL) if row[i]])
            for i in range(3)
        ]

    def vector(j, _):
        o = e.mul(j, e.lanes)
        m = [
            [e.load(G, ig, o, e.mul(g_position, r * POINTS + q)) for q in range(POINTS)]
            for r in range(POINTS)
        ]
        for y, values in enumerate(_both_sides(e, back, m)):
            for x, value in enumerate(values):
                e.store(value, out, o, e.mul(count, 3 * y + x))

    e.loop(e.builder.sdiv(count, e.index(e.lanes)), [], vector)
