"""A dense block of all structures, forward and backward, each in one compiled call.

Several threads may share a call: each is a *member* of a team and works on its own *units*, which
are some blocks of 16 images, always the same ones together.  Where there are at least twice as
many members as units, several members do a *part* of a unit's work each: some rows of pixels
forward, some maps backward.  Members that are left over have no unit.  Members wait for each other
at a :func:`barrier` before a step that needs all images, or what other parts have written.  Sums
over the images are kept for each unit and added in the order of the units, so the numbers do not
depend on the team.

A *consumer* is a layer or an exit, with the maps that it takes.  Structures in which these are the
same have the consumer in common, see :class:`chainer_sno.fast.dense_net.BlockGraph`.  A *map* is a
channel of one of the structures, as it lies in memory; a *channel* is one of the network's, which
parameters belong to.

Notation: a *plane* is a map of a block of images, ``row`` numbers a row of pixels; a consumer takes
``c`` maps, those of ``rows``, and ``channels`` says which channels they are.
"""

import os
from typing import NamedTuple

import numba
import numpy
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from chainer_sno.fast import maps
from chainer_sno.fast import winograd as wino
from chainer_sno.fast.vectors import array_at, compiled
from chainer_sno.fast.winograd import BACK, FLIPPED, LANES, PAIR, POSITIONS, TILE

#: Channels that are transformed before their products are added up, which stay in L2.
CHANNELS = 16
#: The same where the gradient of the weights is computed.
WEIGHT_CHANNELS = 12
#: Tiles that are worked on at a time, at least, where a row of tiles has fewer.
TILES = 8
#: A normalisation whose gamma is below this fraction of its beta needs the direct sum for the
#: gradient of gamma: the other one divides by gamma.
SMALL_GAMMA = 1 / 4
_FIRST = numpy.zeros(1, numpy.int64)
#: What a layer's convolution is told of its inputs.
LINEAR, ACTIVATE = 0, 1


class Shape(NamedTuple):
    """The sizes of the maps of a block.

    Attributes:
        images (int): N.
        channels (int): planes of a block of images in memory, those behind the last map included.
        height (int): of an image, in pixels.
        width (int): the same.
        growth (int): channels that a layer makes.
        unit (int): blocks of images of a unit.
    """

    images: int
    channels: int
    height: int
    width: int
    growth: int
    unit: int


class Member(NamedTuple):
    """A thread of a team.

    Attributes:
        number (int): which one, from 0 on.
        size (int): of the team.
    """

    number: int
    size: int


@compiled
def rounded(n, multiple):
    """Return the multiple at or above n."""
    return (n + multiple - 1) // multiple * multiple


@intrinsic
def _arrive(typingctx, counter):
    """Add one to counter[0], visibly to all threads; return what it was."""

    def generate(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.atomic_rmw("add", data, ir.IntType(64)(1), "seq_cst")

    return types.int64(counter), generate


@intrinsic
def _arrived(typingctx, counter):
    """Return counter[0] as other threads have made it."""

    def generate(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.load_atomic(data, "acquire", 8, typ=ir.IntType(64))

    return types.int64(counter), generate


_let_others_run = types.ExternalFunction(
    "SwitchToThread" if os.name == "nt" else "sched_yield", types.int32()
)


@compiled
def barrier(counter, member):
    """Wait until all members of the team are here; counter is int64 of shape (1,), 0 at first."""
    if member.size == 1:
        return
    target = (_arrive(counter) // member.size + 1) * member.size
    looks = 0
    while _arrived(counter) < target:
        looks += 1
        if looks % 256 == 0:
            _let_others_run()


@compiled
def _share(member, units):
    """Return the member's first unit, the step to its next one, its part of them and the parts."""
    if member.size <= units:
        return member.number, member.size, 0, 1
    parts, part = member.size // units, member.number // units
    if part >= parts:  # one too many: there is no unit for it
        return units, 1, 0, 1
    return member.number % units, units, part, parts


@compiled
def _part_of(n, multiple, part, parts):
    """Return where a part of n begins and ends, both of them multiples, or n."""
    size = rounded((n + parts - 1) // parts, multiple)
    return min(part * size, n), min((part + 1) * size, n)


@compiled
def _clear_half(V, v_position, place, channels):
    """Zero the second tile of a pair, which is none."""
    for p in range(POSITIONS):
        for k in range(channels):
            start = p * v_position + place + k * PAIR + LANES
            V[start : start + LANES] = 0


@compiled
def _transform_inputs(
    x, first_block, shape, rows, r0, k0, kc, c, normal, mode, g, count, S, V, v_pair, bits, masked
):
    """Transform ``count`` rows of tiles, from g on, of some channels; return the positions' step.

    The bits that say where the inputs are positive go to ``bits``, planes of the blocks of the
    unit by the c channels, where ``masked`` is set.
    """
    height, width = rounded(shape.height, TILE), rounded(shape.width, TILE)
    row, tiles = width * LANES, width // TILE
    row_tiles = height // TILE
    v_position = (count * tiles + 1) // 2 * v_pair + LANES
    s_row = (width + 2) * LANES
    for i in range(count):
        b, y = (g + i) // row_tiles, (g + i) % row_tiles * TILE
        place = ((first_block + b) * shape.channels * height + y - 1) * row
        above, below = 1 if y == 0 else 0, shape.height - y + 1
        for k in range(kc):
            j = k0 + k
            ix = rows[r0 + j] * height * row + place
            following = rows[r0 + min(j + 1, c - 1)] * height * row + place
            wino.transform_columns(
                x, ix, following, row, shape.width, above, below, normal[0, j], normal[1, j], mode,
                masked, S, LANES, s_row, bits, ((b * c + j) * height + y) * row,
            )  # fmt: skip
            wino.transform_rows(S, s_row, tiles, i * tiles, V, k * PAIR, v_position, v_pair)
    if count * tiles % 2:
        _clear_half(V, v_position, count * tiles // 2 * v_pair, kc)
    return v_position


@compiled
def _strip(shape, planes, first_block, g, most, end, border):
    """Return where rows of tiles begin, from g on, in plane 0 of a block of images, and how long.

    They are at most ``most`` rows before ``end``, all of one block, with ``border`` rows of pixels
    above and below.  A block has ``planes`` planes.  The length is in pixels.
    """
    if g >= end:
        return 0, 0
    height, width = rounded(shape.height, TILE), rounded(shape.width, TILE)
    row_tiles = height // TILE
    b, y = first_block + g // row_tiles, g % row_tiles
    count = min(most, end - g, row_tiles - y)
    place = (b * planes * height + y * TILE - border) * width * LANES
    return place, (count * TILE + 2 * border) * width


@compiled
def _look_ahead(ahead, rows, r0, count, plane, strip, steps):
    """Divide a strip of each of ``count`` planes among the steps of a product, to come meanwhile.

    ahead gets where the first of each position's ``steps`` parts begins; return a part's pixels.
    """
    place, pixels = strip
    positions = max(1, POSITIONS // count)  # of a plane
    parts = positions * steps
    size = (pixels + parts - 1) // parts
    for p in range(POSITIONS):
        j = rows[r0 + min(p // positions, count - 1)]
        ahead[p] = j * plane + place + p % positions * steps * size * LANES
    return size


@compiled
def _look_ahead_to_inputs(
    k0, channels, ahead, shape, rows, r0, c, first_block, g, most, end, steps
):  # fmt: skip
    """Do :func:`_look_ahead` for what ``_transform_inputs`` reads after channels from k0 on."""
    k, height = k0 + channels, rounded(shape.height, TILE)
    if k >= c:
        k, g = 0, g + most
    return _look_ahead(
        ahead, rows, r0 + k, min(channels, c - k), height * rounded(shape.width, TILE) * LANES,
        _strip(shape, shape.channels, first_block, g, most, end, 1), steps,
    )  # fmt: skip


@compiled
def convolve(
    x, first_block, blocks, shape, rows, channels, r0, c, normal, mode, U, iu, y, y_channels, first,
    outputs, S, V, M, bits, part, parts,
):  # fmt: skip
    """Write the convolution of c maps of x, normalised and activated, to maps of y.

    Args:
        x, y (array): maps; ``outputs`` maps of y from ``first`` on, of ``y_channels``, get written.
        first_block (int): the first of ``blocks`` blocks of images.
        shape (Shape): of x.
        rows (array): the maps of x, int64, ``c`` of them from ``r0`` on.
        channels (array): which channels they are, int64, likewise.
        normal (array): scale and shift of each of the c maps, shape (2 or more, c or more).
        mode (int): ``ACTIVATE``, or ``LINEAR`` for inputs as they are.
        U (array): transformed kernels (channels, POSITIONS, outputs rounded up), from ``iu`` on.
        S, V, M (array): room for transformed inputs and products.
        bits (array): not used.
        part, parts (int): which of so many parts of the rows of pixels to write.
    """
    height, width = rounded(shape.height, TILE), rounded(shape.width, TILE)
    row, tiles, row_tiles = width * LANES, width // TILE, height // TILE
    padded = rounded(outputs, 4)
    step, v_pair, m_pair = POSITIONS * padded, CHANNELS * PAIR, padded * PAIR
    begin, end = _part_of(blocks * row_tiles, 1, part, parts)
    at_once = max(1, TILES // tiles)
    ahead, targets = numpy.empty(POSITIONS, numpy.int64), numpy.empty(POSITIONS, numpy.int64)
    own = numpy.empty(outputs, numpy.int64)
    for o in range(outputs):
        own[o] = first + o
    for g in range(begin, end, at_once):
        count = min(at_once, end - g)
        pairs = (count * tiles + 1) // 2
        m_position = pairs * m_pair + LANES
        for k0 in range(0, c, CHANNELS):
            kc = min(CHANNELS, c - k0)
            pixels = _look_ahead_to_inputs(
                k0, CHANNELS, ahead, shape, rows, r0, c, first_block, g, at_once, end, pairs
            )  # fmt: skip
            written = 0
            if k0 + CHANNELS >= c:
                written = _look_ahead(
                    targets, own, 0, outputs, height * row,
                    _strip(shape, y_channels, first_block, g, at_once, end, 0), pairs,
                )  # fmt: skip
            v_position = _transform_inputs(
                x, first_block, shape, rows, r0, k0, kc, c, normal, mode, g, count, S, V, v_pair,
                bits, numpy.int64(0),
            )  # fmt: skip
            wino.multiply(
                V, v_position, v_pair, U, padded, channels, r0 + k0, step, kc, M, 0, m_position,
                m_pair, PAIR, 0, iu, POSITIONS, pairs, padded, k0, x, ahead, pixels,
                y, targets, written,
            )  # fmt: skip
        for i in range(count):
            b, ty = first_block + (g + i) // row_tiles, (g + i) % row_tiles * TILE
            for o in range(outputs):
                iy = ((b * y_channels + first + o) * height + ty) * row
                for tx in range(tiles):
                    t = i * tiles + tx
                    im = (t >> 1) * m_pair + o * PAIR + (t & 1) * LANES
                    wino.transform_output(M, im, m_position, y, iy + tx * TILE * LANES, row)


@compiled
def gradient_of_weights(
    x, gy, gy_planes, first, first_block, blocks, shape, rows, r0, c, normal, mode, outputs, G, ig,
    S, D, V, bits,
):  # fmt: skip
    """Add the gradient of the transformed kernels to G, and note where the inputs are positive.

    Args:
        gy (array): gradients of the outputs, planes (blocks, ``gy_planes``), of which ``outputs``
            from ``first`` on are taken.
        G (array): (channels / 4, POSITIONS, outputs / 4, 4 outputs, 4 channels), from ``ig`` on.
        bits (array): uint8, a bit a number, planes (blocks, c).

    The other arguments are those of :func:`convolve`.
    """
    height, width = rounded(shape.height, TILE), rounded(shape.width, TILE)
    row, tiles, row_tiles = width * LANES, width // TILE, height // TILE
    padded = rounded(outputs, 4)
    d_pair, v_pair = padded * PAIR, WEIGHT_CHANNELS * PAIR
    at_once, total = max(1, TILES // tiles), blocks * row_tiles
    ahead = numpy.empty(POSITIONS, numpy.int64)
    if width > shape.width:  # no other code writes the bits beyond the image
        bits[: blocks * c * height * row // 8] = 0
    for g in range(0, total, at_once):
        count = min(at_once, total - g)
        pairs = (count * tiles + 1) // 2
        d_position = pairs * d_pair + LANES
        if padded > outputs:
            D[: POSITIONS * d_position] = 0
        for i in range(count):
            b, ty = (g + i) // row_tiles, (g + i) % row_tiles * TILE
            for o in range(outputs):
                source = ((b * gy_planes + first + o) * height + ty) * row
                for tx in range(tiles):
                    t = i * tiles + tx
                    i_d = (t >> 1) * d_pair + o * PAIR + (t & 1) * LANES
                    wino.transform_gradient(gy, source + tx * TILE * LANES, row, D, i_d, d_position)
        if count * tiles % 2:
            _clear_half(D, d_position, count * tiles // 2 * d_pair, outputs)
        for k0 in range(0, c, WEIGHT_CHANNELS):
            kc = min(WEIGHT_CHANNELS, c - k0)
            pixels = _look_ahead_to_inputs(
                k0, WEIGHT_CHANNELS, ahead, shape, rows, r0, c, first_block, g, at_once, total,
                (kc + 3) // 4,
            )  # fmt: skip
            v_position = _transform_inputs(
                x, first_block, shape, rows, r0, k0, kc, c, normal, mode, g, count, S, V, v_pair,
                bits, numpy.int64(1),
            )  # fmt: skip
            wino.multiply_transposed(
                D, 0, d_position, d_pair, V, 0, v_position, v_pair, pairs, G,
                ig + k0 * POSITIONS * padded, POSITIONS, kc, padded, x, ahead, pixels,
            )  # fmt: skip


@compiled
def gradient_of_maps(
    x, gy, first_block, blocks, shape, rows, channels, r0, c, normal, fresh, direct, U, iu, outputs,
    gx, sums, S, E, M, bits,
):  # fmt: skip
    """Add the gradient of the inputs to gx, all but what flows through the batch statistics.

    Args:
        fresh (array): uint8, of each of the c maps: gx has no gradient of it yet.
        direct (array): uint8, the same: sum up g (x - mean) as well.
        gx (array): gradients of the maps, as x.
        sums (array): (c, 2, LANES): of g, and of g (x - mean) where ``direct``.

    The other arguments are those of :func:`convolve` and :func:`gradient_of_weights`.
    """
    height, width = rounded(shape.height, TILE), rounded(shape.width, TILE)
    row, tiles, row_tiles = width * LANES, width // TILE, height // TILE
    plane, padded = height * row, rounded(outputs, 4)
    e_pair, s_row = outputs * PAIR, (width + 2) * LANES
    at_once, total = max(1, TILES // tiles), blocks * row_tiles
    nothing = x.dtype.type(0)
    places = FLIPPED * padded
    ahead = numpy.empty(POSITIONS, numpy.int64)
    for g in range(0, total, at_once):
        count = min(at_once, total - g)
        pairs = (count * tiles + 1) // 2
        e_position = pairs * e_pair + LANES
        for i in range(count):
            b, ty = (g + i) // row_tiles, (g + i) % row_tiles * TILE
            above, below = 1 if ty == 0 else 0, height - ty + 1
            for o in range(outputs):
                source = ((b * outputs + o) * height + ty - 1) * row
                wino.transform_columns(
                    gy, source, source + plane, row, width, above, below, nothing, nothing, LINEAR,
                    0, S, LANES, s_row, bits, 0,
                )  # fmt: skip
                wino.transform_rows(S, s_row, tiles, i * tiles, E, o * PAIR, e_position, e_pair)
        for q in range(0, c, BACK):
            for p in range(BACK * TILE):
                own = rows[r0 + min(q + p // TILE, c - 1)]
                ahead[p] = (first_block * shape.channels + own) * plane + p % TILE * row
            for t in range(pairs):
                i, tx = 2 * t // tiles, 2 * t % tiles
                b, ty = (g + i) // row_tiles, (g + i) % row_tiles * TILE
                wino.multiply_back(
                    E, t * e_pair, e_position, U, iu, places, POSITIONS, channels, r0 + q,
                    c - 1 - q, POSITIONS * padded, outputs, M, gx, ahead,
                    b * shape.channels * plane + ty * row + tx * TILE * LANES, 2 * TILE,
                )  # fmt: skip
                for tile in range(2 * t, min(2 * t + 2, count * tiles)):
                    i, tx = tile // tiles, tile % tiles
                    b, ty = (g + i) // row_tiles, (g + i) % row_tiles * TILE
                    inside = ty * row + tx * TILE * LANES
                    for k in range(min(BACK, c - q)):
                        j = q + k
                        ix = ((first_block + b) * shape.channels + rows[r0 + j]) * plane + inside
                        wino.transform_back(
                            M, k * PAIR + tile % 2 * LANES, bits, (b * c + j) * plane + inside, x,
                            gx, ix, row, normal[0, j], normal[2, j], fresh[j], direct[j], sums,
                            j * PAIR,
                        )  # fmt: skip


@compiled
def _valid(shape, block):
    """Return how many images of a block of images there are."""
    return min(LANES, shape.images - block * LANES)


@compiled
def _units(shape):
    """Return the blocks of images and the units."""
    blocks = (shape.images + LANES - 1) // LANES
    return blocks, (blocks + shape.unit - 1) // shape.unit


@compiled
def moments(x, shape, first, count, mean, var, parts, own, counter, member):
    """Compute the statistics of maps ``first`` and following.

    Args:
        x (array): the maps.
        mean, var (array): of this member, shape (maps,).
        parts (array): float64, shape (2, units, count or more), of the team.
        own (array): of 16 numbers, of this member.
    """
    height, width = rounded(shape.height, TILE), rounded(shape.width, TILE)
    row = width * LANES
    blocks, units = _units(shape)
    size = shape.images * shape.height * shape.width
    first_unit, step, part, several = _share(member, units)
    for second in range(2):
        for u in range(first_unit, units, step):
            for k in range(part, count, several):
                total = 0.0
                for b in range(u * shape.unit, min((u + 1) * shape.unit, blocks)):
                    ix = (b * shape.channels + first + k) * height * row
                    if second:
                        centre = mean[first + k]
                        maps.sum_squares(x, ix, row, shape.height, shape.width, centre, own)
                    else:
                        maps.sum_plane(x, ix, row, shape.height, shape.width, own)
                    for lane in range(_valid(shape, b)):
                        total += own[lane]
                parts[second, u, k] = total
        barrier(counter, member)
        target = var if second else mean
        for k in range(count):
            total = 0.0
            for u in range(units):
                total += parts[second, u, k]
            target[first + k] = total / size


@compiled
def _normalise(
    rows, channels, r0, c, start, gamma, beta, eps, mean, var, by_map, normal
):  # fmt: skip
    """Write scale, shift, mean and 1 / standard deviation of each of c maps to normal.

    The statistics stand by map; otherwise, running ones, behind those of other consumers.
    """
    for i in range(c):
        own = start + channels[r0 + i]
        j = rows[r0 + i] if by_map else own
        inverse = 1 / (numba.float64(var[j]) + eps) ** 0.5
        scale = gamma[own] * inverse
        normal[0, i] = scale
        normal[1, i] = beta[own] - scale * mean[j]
        normal[2, i] = mean[j]
        normal[3, i] = inverse


@compiled
def block_forward(
    shape, training, x, rows, channels, ends, numbers, computed, U, u_starts, gamma, beta, eps,
    starts, running_mean, running_var, mean, var, parts, normal, own, S, V, M, bits, width,
    has_transition, T, outputs, pooled, y, y_channels, counter, member,
):  # fmt: skip
    """Compute a block of all structures, given the maps of its inputs.

    Args:
        shape (Shape): of x.
        training (bool): use the statistics of the mini-batch, which go to ``mean`` and ``var``;
            otherwise the running ones.
        x (array): the maps; those of the inputs are there, the layers' get written behind them.
        rows (array): int64, the maps that the consumers take, one consumer after the other.
        channels (array): int64, which channels they are.
        ends (array): int64, where those of each consumer end; the layers come before the exits.
        numbers (array): int64, which layer of the block each consumer is; the exits have the last.
        computed (array): uint8, of each consumer that is a layer, whether anybody needs it.
        U (array): the layers' transformed kernels, from ``u_starts`` on.
        gamma, beta, running_mean, running_var (array): of the layers and the exit, one after the
            other, from ``starts`` on.
        eps (array): float64, of each of them.
        mean, var, normal, own, S, V, M, bits (array): of this member; ``mean`` and ``var``, of each
            map, hold those of the inputs where it is training and they are known.
        parts (array): of the team, see :func:`moments`.
        width (int): maps of the inputs; negative if their statistics are known.
        has_transition (bool): or an exit's output is the mean over the pixels.
        T (array): weights of the transition, (channels, outputs rounded up).
        outputs (int): of the transition; without one, the channels of the block.
        pooled (array): what T multiplies, for each exit, see ``_transition``.
        y (array): gets the exits' outputs: maps of the next block, of ``y_channels`` planes; or
            planes of one pixel, (exits, blocks, outputs, LANES).
        counter (array): of the team's :func:`barrier`.
        member (Member): which thread this is.
    """
    last = len(starts) - 2
    most = starts[last + 1] - starts[last]
    # numba would compile a function once more for an argument that is written out.
    mode, zero = numpy.int64(ACTIVATE), numpy.int64(0)
    blocks, units = _units(shape)
    height, padded_width = rounded(shape.height, TILE), rounded(shape.width, TILE)
    plane = height * padded_width * LANES
    means, variances = (mean, var) if training else (running_mean, running_var)
    first_unit, step, part, several = _share(member, units)
    barrier(counter, member)  # units of the block before were others
    if training and width > 0:
        moments(x, shape, zero, width, mean, var, parts, own, counter, member)
    width = abs(width)
    exits = 0
    for i in range(len(ends)):
        number, r0 = numbers[i], ends[i - 1] if i else 0
        c, first = ends[i] - r0, width + i * shape.growth
        if number < last and not computed[i]:
            continue
        _normalise(
            rows, channels, r0, c, starts[number], gamma, beta, eps[number], means, variances,
            training, normal,
        )  # fmt: skip
        for u in range(first_unit, units, step):
            b0, count = u * shape.unit, min(shape.unit, blocks - u * shape.unit)
            if number == last:
                for b in range(b0, b0 + count):
                    if has_transition:
                        _transition(
                            x, b, shape, rows, channels, r0, c, normal, T, outputs, pooled, exits,
                            most, y, y_channels, part, several,
                        )  # fmt: skip
                        continue
                    if part:
                        continue
                    iy = (exits * blocks + b) * outputs * LANES
                    y[iy : iy + outputs * LANES] = 0
                    for k in range(c):
                        maps.mean_plane(
                            x, (b * shape.channels + rows[r0 + k]) * plane, padded_width * LANES,
                            shape.height, shape.width,
                            x.dtype.type(1 / (shape.height * shape.width)), normal[0, k],
                            normal[1, k], y, iy + channels[r0 + k] * LANES,
                        )  # fmt: skip
            elif c:
                convolve(
                    x, b0, count, shape, rows, channels, r0, c, normal, mode, U, u_starts[number],
                    x, shape.channels, first, shape.growth, S, V, M, bits, part, several,
                )  # fmt: skip
            elif part == 0:
                for b in range(b0, b0 + count):
                    start = (b * shape.channels + first) * plane
                    x[start : start + shape.growth * plane] = 0
        if number == last:
            exits += 1
        elif training and c:
            if member.size > units:
                barrier(counter, member)  # another part has written what is added up
            moments(x, shape, first, shape.growth, mean, var, parts, own, counter, member)
        else:
            if training:
                mean[first : first + shape.growth] = 0
                var[first : first + shape.growth] = 0
            if member.size > units:
                barrier(counter, member)


@compiled
def _start_of_pooled(shape, number, b, pairs, c, most):
    """Return where a block of images begins in what T of exit ``number`` multiplies."""
    blocks, _ = _units(shape)
    return (number * blocks * most + b * c) * pairs * PAIR


@compiled
def _transition(
    x, b, shape, rows, channels, r0, c, normal, T, outputs, pooled, number, most, y, y_channels,
    part, parts,
):  # fmt: skip
    """Normalise, activate, average over squares and multiply by T, of one block of images.

    The averages and the product may change places, and in this order the product is a quarter as
    large.  pooled is (blocks, pairs of pixels, c, PAIR) for each exit, c at ``most``, and y gets
    the maps of exit ``number``.  Of the rows, one part of several is written.
    """
    height, width = rounded(shape.height, TILE), rounded(shape.width, TILE)
    half_height, half_width = shape.height // 2, shape.width // 2
    next_height, next_width = rounded(half_height, TILE), rounded(half_width, TILE)
    row, pair, pairs = width * LANES, c * PAIR, next_height * next_width // 2
    start = _start_of_pooled(shape, number, b, pairs, c, most)
    padded = rounded(outputs, 4)
    for yy in range(part, next_height, parts):
        place = start + yy * next_width // 2 * pair
        if yy >= half_height or next_width > half_width:
            pooled[place : place + next_width // 2 * pair] = 0
        if yy < half_height:
            for k in range(c):
                ix = ((b * shape.channels + rows[r0 + k]) * height + 2 * yy) * row
                maps.pool_row(
                    x, ix, row, half_width, normal[0, k], normal[1, k], pooled, place + k * PAIR,
                    pair,
                )  # fmt: skip
        target = ((b * y_channels + number * outputs) * pairs + yy * next_width // 2) * PAIR
        wino.multiply(
            pooled, 0, pair, T, 0, channels, r0, padded, c, y, target, 0, PAIR, pairs * PAIR, place,
            0, 1, next_width // 2, padded, 0, x, _FIRST, numpy.int64(0), y, _FIRST,
            numpy.int64(0),
        )  # fmt: skip


@compiled
def _complete(x, gx, b, shape, first, count, mean, slope, offset, seen, out, block, paired):
    """Write the complete gradients of some maps of a block of images to out.

    out is, from block ``block`` of images on, planes of ``count`` maps, or with ``paired`` rows of
    pairs of pixels of ``count`` maps.  Maps that are not ``seen`` have no gradient.
    """
    height, width = rounded(shape.height, TILE), rounded(shape.width, TILE)
    row, plane = width * LANES, height * width * LANES
    pair = count * PAIR if paired else PAIR
    start = block * count * plane
    if height > shape.height or width > shape.width:
        out[start : start + count * plane] = 0
    for k in range(count):
        own = first + k
        io = start + (k * PAIR if paired else k * plane)
        for y in range(shape.height):
            target = io + y * width // 2 * pair
            if seen[own]:
                maps.complete_row(
                    x, gx, (b * shape.channels + own) * plane + y * row, shape.width,
                    _valid(shape, b), mean[own], slope[own], offset[own], out, target,
                    pair,
                )  # fmt: skip
            else:
                for i in range(shape.width):
                    place = target + (i >> 1) * pair + (i & 1) * LANES
                    out[place : place + LANES] = 0


@compiled
def _add_normalisation(
    own, j, gamma, beta, total, product, dot, direct, inverse, ggamma, gbeta, through
):
    """Add the gradients of gamma[j] and beta[j], with which a consumer takes map ``own``.

    Where the activation a is positive it is gamma xhat + beta, so the sum of g a, which is ``dot``,
    is gamma times the gradient of gamma plus beta times that of beta.
    """
    if direct:
        gradient = product * inverse
    else:
        gradient = (dot - beta[j] * total) / gamma[j]
    ggamma[j] += gradient
    gbeta[j] += total
    through[0, own] += gamma[j] * gradient * inverse * inverse
    through[1, own] += gamma[j] * total * inverse


@compiled
def _sum_of(sums, units, step, place):
    """Return the sum over units and images, in their order."""
    total = 0.0
    for u in range(units):
        for lane in range(LANES):
            total += sums[u * step + place + lane]
    return total


@compiled
def _mark(rows, channels, r0, c, start, gamma, beta, is_exit, fresh, direct, seen):
    """Note which of the inputs of a consumer have no gradient yet, and which need a direct sum."""
    for k in range(c):
        own, j = rows[r0 + k], start + channels[r0 + k]
        fresh[k], seen[own] = 1 - seen[own], 1
        small = gamma[j] == 0 or abs(gamma[j]) <= SMALL_GAMMA * abs(beta[j])
        # The exit reads its inputs anyway.
        direct[k] = 1 if small or is_exit else 0


@compiled
def _add_units(G, G_step, units, first, last):
    """Add the gradients of all units to those of the first one."""
    for u in range(1, units):
        for j in range(first, last):
            G[j] += G[u * G_step + j]


@compiled
def _add_kernel(taps, group, k, growth, inputs, channel, W, start, gW):
    """Add the gradient of the kernel of one channel; return its product with the kernel."""
    dot = 0.0
    for o in range(growth):
        source = (o * inputs + channel) * 9
        place = o // 4 * 16 + o % 4 * 4 + k % 4
        for t in range(9):
            own = taps[t * group + place]
            gW[start + source + t] += own
            dot += own * W[source + t]
    return dot


@compiled
def block_backward(
    shape, training, x, rows, channels, ends, numbers, needed, U, u_starts, gamma, beta, eps,
    starts, running_mean, running_var, mean, var, normal, S, V, M, bits, inputs, has_transition, T,
    outputs, pooled, gout, gx, gy, G, sums, taps, fresh, direct, seen, slope, offset, through, W,
    gW, w_starts, gT, ggamma, gbeta, gin, paired, counter, member,
):  # fmt: skip
    """Add the gradients of a block of all structures, after :func:`block_forward`.

    Args:
        needed (array): uint8, of each consumer: an exit depends on it, and it has inputs.
        inputs (int): how many inputs of the block there are; structures may differ in them.
        gout (array): gradients of the exits' outputs, one exit after the other: (blocks, pairs of
            pixels, outputs, PAIR) of a transition, otherwise planes of one pixel.
        gx (array): room for gradients of the maps, as x.
        gy, V, M (array): room, of this member.
        G (array): room for gradients of transformed kernels, shape (units, size).
        sums (array): room, shape (units, size).
        taps (array): room for the kernels of four channels, of this member.
        fresh, direct (array): room, one for each of a consumer's maps, of this member.
        seen, slope, offset (array): room, one for each map, of this member.
        through (array): float64, of the team, shape (2, maps), zeros.
        W (array): int64, where in memory the kernels of each layer begin, (outputs, channels, 9).
        gW (array): gets their gradients, of all layers that are needed, from ``w_starts`` on.
        gT (array): the same of the transition, (outputs, channels).
        ggamma, gbeta (array): the same, as gamma and beta.
        gin (array): gets the gradients of the inputs, one after the other, see ``_complete``.
        paired (bool): in which form.

    The other arguments are those of :func:`block_forward`.
    """
    last = len(starts) - 2
    most, in_channels = starts[last + 1] - starts[last], starts[1]
    width = inputs * in_channels
    # numba would compile a function once more for an argument that is written out.
    mode, zero = numpy.int64(ACTIVATE), numpy.int64(0)
    blocks, units = _units(shape)
    size = shape.images * shape.height * shape.width
    height, padded_width = rounded(shape.height, TILE), rounded(shape.width, TILE)
    row, plane = padded_width * LANES, height * padded_width * LANES
    sums_step, G_step = sums.shape[1], G.shape[1]
    flat_sums, flat_G = sums.reshape(-1), G.reshape(-1)
    group = 4 * rounded(shape.growth, 4)
    seen[:] = 0
    # Running statistics are constants: nothing flows through them.
    slope[:] = 0
    offset[:] = 0
    means, variances = (mean, var) if training else (running_mean, running_var)
    first_unit, step, part, parts = _share(member, units)
    exits = 0
    for number in numbers:
        exits += number == last
    for i in range(len(ends) - 1, -1, -1):
        number, r0 = numbers[i], ends[i - 1] if i else 0
        c, first, start = ends[i] - r0, width + i * shape.growth, starts[number]
        is_exit = number == last
        if is_exit:
            exits -= 1
        elif not needed[i]:
            continue
        # Gradients of transformed kernels, or of the transition, of four channels.
        four = has_transition * 4 * rounded(outputs, 4) if is_exit else POSITIONS * group
        _normalise(
            rows, channels, r0, c, start, gamma, beta, eps[number], means, variances, training,
            normal,
        )  # fmt: skip
        _mark(rows, channels, r0, c, start, gamma, beta, is_exit, fresh, direct, seen)
        if training and not is_exit:
            for k in range(first, first + shape.growth):
                slope[k], offset[k] = through[0, k] / size, through[1, k] / size
        # The maps of this member's part: ``own`` of them from ``at`` on.
        at, end = _part_of(c, 4, part, parts)
        own, begin = end - at, r0 + at
        if parts > 1:
            _normalise(
                rows, channels, begin, own, start, gamma, beta, eps[number], means, variances,
                training, normal,
            )  # fmt: skip
        for u in range(first_unit, units, step):
            b0, count = u * shape.unit, min(shape.unit, blocks - u * shape.unit)
            s0, g0 = u * sums_step + at * PAIR, u * G_step + at // 4 * four
            flat_sums[s0 : s0 + own * PAIR] = 0
            flat_G[g0 : g0 + (own + 3) // 4 * four] = 0
            if own == 0:
                continue
            if not is_exit:
                for b in range(count):
                    _complete(
                        x, gx, b0 + b, shape, first, shape.growth, mean, slope, offset, seen, gy, b,
                        zero,
                    )  # fmt: skip
                gradient_of_weights(
                    x, gy, shape.growth, zero, b0, count, shape, rows, begin, own, normal, mode,
                    shape.growth, flat_G, g0, S, V, M, bits,
                )  # fmt: skip
                gradient_of_maps(
                    x, gy, b0, count, shape, rows, channels, begin, own, normal, fresh[at:],
                    direct[at:], U, u_starts[number], shape.growth, gx, flat_sums[s0:], S, V, M,
                    bits,
                )  # fmt: skip
                continue
            for b in range(b0, b0 + count):
                if has_transition:
                    _transition_back(
                        x, gx, gout, pooled, b, shape, rows, channels, r0, c, at, own, normal,
                        fresh[at:], T, outputs, exits, most, flat_G, g0, flat_sums, s0, M,
                    )  # fmt: skip
                    continue
                for k in range(own):
                    maps.mean_back(
                        gout, ((exits * blocks + b) * outputs + channels[begin + k]) * LANES, x, gx,
                        (b * shape.channels + rows[begin + k]) * plane, row, shape.height,
                        shape.width, x.dtype.type(1 / (shape.height * shape.width)), normal[0, k],
                        normal[1, k], normal[2, k], fresh[at + k], flat_sums, s0 + k * PAIR,
                    )  # fmt: skip
        barrier(counter, member)
        if parts > 1:
            _normalise(
                rows, channels, r0, c, start, gamma, beta, eps[number], means, variances, training,
                normal,
            )  # fmt: skip
        for q in range(member.number, (c + 3) // 4, member.size):
            _add_units(flat_G, G_step, units, q * four, (q + 1) * four)
            if not is_exit:
                wino.gradient_of_kernel(flat_G, q * four, group, group, taps)
            for k in range(4 * q, min(4 * q + 4, c)):
                channel, dot = channels[r0 + k], 0.0
                if not is_exit:
                    w0, w1 = w_starts[number], w_starts[number + 1]
                    dot = _add_kernel(
                        taps, group, k, shape.growth, starts[number + 1] - start, channel,
                        array_at(W[number], w1 - w0, x[0]), w0, gW,
                    )  # fmt: skip
                elif has_transition:
                    for o in range(outputs):
                        gT[o, channel] += flat_G[q * four + o // 4 * 16 + o % 4 * 4 + k % 4]
                total = _sum_of(flat_sums, units, sums_step, k * PAIR)
                product = _sum_of(flat_sums, units, sums_step, k * PAIR + LANES)
                _add_normalisation(
                    rows[r0 + k], start + channel, gamma, beta, total, product, dot, direct[k],
                    numba.float64(normal[3, k]), ggamma, gbeta, through,
                )  # fmt: skip
        barrier(counter, member)
    if training:
        for k in range(width):
            slope[k], offset[k] = through[0, k] / size, through[1, k] / size
    for i in range(inputs if part == 0 else 0):
        for u in range(first_unit, units, step):
            for b in range(u * shape.unit, min((u + 1) * shape.unit, blocks)):
                _complete(
                    x, gx, b, shape, i * in_channels, in_channels, mean, slope, offset, seen, gin,
                    i * blocks + b, numpy.int64(paired),
                )  # fmt: skip


@compiled
def _transition_back(
    x, gx, gout, pooled, b, shape, rows, channels, r0, c, at, own, normal, fresh, T, outputs,
    number, most, G, ig, sums, isum, M,
):  # fmt: skip
    """Go back through ``_transition`` to ``own`` of the c maps, from ``at`` on.

    G gets (own / 4, outputs / 4, 4 outputs, 4 channels).
    """
    height, width = rounded(shape.height, TILE), rounded(shape.width, TILE)
    half_height, half_width = shape.height // 2, shape.width // 2
    next_height, next_width = rounded(half_height, TILE), rounded(half_width, TILE)
    row, row_pairs = width * LANES, next_width // 2
    pairs, padded = next_height * row_pairs, rounded(outputs, 4)
    pair, g_pair = c * PAIR, outputs * PAIR
    at_once = max(1, TILES // row_pairs)
    blocks, _ = _units(shape)
    pooled_start = _start_of_pooled(shape, number, b, pairs, c, most)
    gout_start = (number * blocks + b) * pairs * g_pair
    for y0 in range(0, half_height, at_once):
        count = min(at_once, half_height - y0)
        v0 = pooled_start + y0 * row_pairs * pair + at * PAIR
        g0 = gout_start + y0 * row_pairs * g_pair
        wino.multiply_transposed(
            gout, g0, 0, g_pair, pooled, v0, 0, pair, count * row_pairs, G, ig, 1, own, padded,
            gx, _FIRST, numpy.int64(0),
        )  # fmt: skip
        for q in range(0, own, BACK):
            for t in range(count * row_pairs):
                pixels = min(2, half_width - t % row_pairs * 2)
                if pixels <= 0:
                    continue
                y = 2 * (y0 + t // row_pairs)
                for k in range(q, min(q + BACK, own)):
                    planes = b * shape.channels + rows[r0 + at + k]
                    for r in range(2):
                        place = (planes * height + y + r) * row + t % row_pairs * 4 * LANES
                        wino.bring(x, place, 4)
                        wino.bring(gx, place, 4)
                wino.multiply_back(
                    gout, g0 + t * g_pair, 0, T, 0, _FIRST, 1, channels, r0 + at + q, own - 1 - q,
                    padded, outputs, M, gx, _FIRST, 0, numpy.int64(0),
                )  # fmt: skip
                for k in range(q, min(q + BACK, own)):
                    planes = b * shape.channels + rows[r0 + at + k]
                    ix = (planes * height + y) * row + t % row_pairs * 4 * LANES
                    maps.pool_back(
                        M, (k - q) * PAIR, x, gx, ix, row, pixels, normal[0, k], normal[1, k],
                        normal[2, k], fresh[k], sums, isum + k * PAIR,
                    )  # fmt: skip
