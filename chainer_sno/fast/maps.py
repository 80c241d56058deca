"""The kernels of batch normalisation, pooling and the gradients around them.

Maps are as in :mod:`~chainer_sno.fast.winograd`, planes of pixels of 16 images.  *Paired* rows have
their pixels two by two, 32 numbers each, ``pair`` apart: so a product reads what it needs
of all channels from one place.
"""

from chainer_sno.fast.vectors import kernel
from chainer_sno.fast.winograd import LANES, each_vector, with_sums


def _each_pixel(e, height, width, row, carried, body):
    """Emit a body for each pixel of a plane; carried sums are kept apart four times."""
    four = 4

    def in_row(y, acc):
        start = e.mul(y, row)

        def quad(i, acc):
            sums = []
            for k in range(four):
                place = e.add(start, e.mul(i, four * LANES), k * LANES)
                sums += body(place, acc[k * len(carried) : (k + 1) * len(carried)])
            return sums

        acc = e.loop(e.builder.sdiv(width, e.index(four)), acc, quad)
        done = e.mul(e.builder.sdiv(width, e.index(four)), four)

        def single(i, some):
            return body(e.add(start, e.mul(e.add(done, i), LANES)), some)

        rest = e.loop(e.builder.sub(width, done), acc[: len(carried)], single)
        return [*rest, *acc[len(carried) :]]

    acc = e.loop(height, list(carried) + [e.zero] * (3 * len(carried)), in_row)
    return [
        e.plus(e.plus(acc[i], acc[i + n]), e.plus(acc[i + 2 * n], acc[i + 3 * n]))
        for n in [len(carried)]
        for i in range(n)
    ]


def _in_pairs(e, i, pair):
    """Return where pixel i of a paired row is."""
    place = e.mul(e.builder.ashr(i, e.index(1)), pair)
    return e.add(place, e.mul(e.builder.and_(i, e.index(1)), LANES))


@kernel
def sum_plane(e, x, ix, row, height, width, out):
    """Write the sum of the pixels of a plane to out, of each of its 16 images."""

    def vector(o, _):
        total = _each_pixel(
            e,
            height,
            width,
            row,
            [e.zero],
            lambda place, acc: [e.plus(acc[0], e.load(x, ix, o, place))],
        )
        e.store(total[0], out, o)

    each_vector(e, vector)


@kernel
def sum_squares(e, x, ix, row, height, width, centre, out):
    """Write the sum of (x - centre)^2, as :func:`sum_plane` does."""
    c = e.splat(centre)

    def vector(o, _):
        def body(place, acc):
            centred = e.minus(e.load(x, ix, o, place), c)
            return [e.fma(centred, centred, acc[0])]

        e.store(_each_pixel(e, height, width, row, [e.zero], body)[0], out, o)

    each_vector(e, vector)


@kernel
def complete_row(e, x, gx, ix, pixels, images, mean, slope, offset, out, io, pair):
    """Write gx - slope (x - mean) - offset, the gradient with the part through the statistics.

    out is a paired row; from number ``images`` on, images are none, and get zeros.
    """
    m, a, b = e.splat(mean), e.splat(slope), e.splat(offset)

    def vector(o, _):
        there = e.below(o, images)

        def pixel(i, _):
            place = e.add(e.mul(i, LANES), o)
            centred = e.minus(e.load(x, ix, place), m)
            g = e.minus(e.load(gx, ix, place), e.fma(a, centred, b))
            e.store(e.choose(there, g, e.zero), out, io, o, _in_pairs(e, i, pair))

        e.loop(pixels, [], pixel)

    each_vector(e, vector)


@kernel
def pool_row(e, x, ix, row, pixels, scale, shift, out, io, pair):
    """Write the means over 2x2 pixels of relu(scale x + shift) to a paired row."""
    s, t, quarter = e.splat(scale), e.splat(shift), e.constant(0.25)

    def vector(o, _):
        def pixel(i, _):
            place = e.add(e.mul(i, 2 * LANES), o)
            a = [
                e.relu(e.fma(s, e.load(x, ix, place, e.mul(row, r), q * LANES), t))
                for r in range(2)
                for q in range(2)
            ]
            total = e.plus(e.plus(a[0], a[1]), e.plus(a[2], a[3]))
            e.store(e.times(quarter, total), out, io, o, _in_pairs(e, i, pair))

        e.loop(pixels, [], pixel)

    each_vector(e, vector)


def _through(e, z, x, gx, place, normalisation, fresh, acc):
    """Emit the way back through a normalisation and ReLU of one pixel; return the sums.

    z is the gradient of the activation, g the same where it is positive.  The sums are of g and of
    g (x - mean).
    """
    s, t, m = normalisation
    value = e.load(x, *place)
    g = e.choose(e.positive(e.fma(s, value, t)), z, e.zero)
    there = e.times(s, g) if fresh else e.fma(s, g, e.load(gx, *place))
    e.store(there, gx, *place)
    return [e.plus(acc[0], g), e.fma(g, e.minus(value, m), acc[1])]


@kernel
def pool_back(e, M, im, x, gx, ix, row, pixels, scale, shift, mean, fresh, sums, isum):
    """Go back through :func:`pool_row` for some pixels, up to two, of a pair M of one channel."""
    normalisation = [e.splat(value) for value in (scale, shift, mean)]

    def go(fresh):
        def vector(o, acc):
            def pixel(i, acc):
                z = e.times(e.constant(0.25), e.load(M, im, o, e.mul(i, LANES)))
                for r in range(2):
                    for q in range(2):
                        place = ix, o, e.mul(i, 2 * LANES), e.mul(row, r), q * LANES
                        acc = _through(e, z, x, gx, place, normalisation, fresh, acc)
                return acc

            return e.loop(pixels, acc, pixel)

        return lambda: with_sums(e, sums, isum, vector)

    e.when(e.is_set(fresh), go(True), go(False))


@kernel
def mean_plane(e, x, ix, row, height, width, factor, scale, shift, out, io):
    """Write factor times the sum of relu(scale x + shift) over a plane, of each image."""
    s, t, f = e.splat(scale), e.splat(shift), e.splat(factor)

    def vector(o, _):
        def body(place, acc):
            return [e.plus(acc[0], e.relu(e.fma(s, e.load(x, ix, o, place), t)))]

        total = _each_pixel(e, height, width, row, [e.zero], body)[0]
        e.store(e.times(f, total), out, io, o)

    each_vector(e, vector)


@kernel
def mean_back(
    e, g, ig, x, gx, ix, row, height, width, factor, scale, shift, mean, fresh, sums, isum
):
    """Go back through :func:`mean_plane`."""
    normalisation = [e.splat(value) for value in (scale, shift, mean)]
    f = e.splat(factor)

    def go(fresh):
        def vector(o, acc):
            z = e.times(f, e.load(g, ig, o))

            def each_row(y, acc):
                def pixel(i, acc):
                    place = ix, o, e.mul(y, row), e.mul(i, LANES)
                    return _through(e, z, x, gx, place, normalisation, fresh, acc)

                in_row = e.loop(width, [e.zero, e.zero], pixel)
                return [e.plus(*pair) for pair in zip(acc, in_row)]

            return e.loop(height, acc, each_row)

        return lambda: with_sums(e, sums, isum, vector)

    e.when(e.is_set(fresh), go(True), go(False))
