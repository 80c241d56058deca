"""The kernels of the DenseNet add in the order that is written here, to the bit.

The same sums in NumPy, one addition after the other, without a tile's loads, its shared memory or
its threads: how a kernel fetches its operands may change, and none of its bits may.  On the host
alone, for a GPU fuses multiplications and additions.
"""

import collections

import numpy
import pytest

from chainer_sno import chainer
from chainer_sno.graph import dense
from chainer_sno.graph.dense import _CHUNK, _READ, _SLICES, _STRIP, _STRIPS
from chainer_sno.links import PlainDenseNet
from tests.chainer_sno.cuda.conftest import needs_compiler
from tests.chainer_sno.cuda.emulator import Emulator
from tests.chainer_sno.graph.test_updaters import captured, image_iterator, initialW


class Seen:
    """What a consumer sees of the feature maps of one structure; see ``Inputs`` of dense.cuh."""

    def __init__(self, g, s, features, mean=None, inv_std=None, gamma=None, beta=None):
        images, height, width = g[:3]
        self.maps = features.reshape(-1, images * height, width)
        self.gamma = gamma
        if gamma is not None:
            self.maps = features[s].reshape(-1, images * height, width)
            self.mean, self.beta = mean[s], beta
            # Beyond the channels below the consumer there is no gamma.
            self.scale = gamma * inv_std[s, : gamma.size]

    def centred(self, channel):
        return self.maps[channel] - self.mean[channel]

    def positive(self, channel):
        return self.centred(channel) * self.scale[channel] + self.beta[channel] > 0

    def __call__(self, channel):
        if self.gamma is None:
            return self.maps[channel]
        value = self.centred(channel) * self.scale[channel] + self.beta[channel]
        return numpy.where(value > 0, value, value.dtype.type(0))


def bordered(maps, images):
    """Return maps (rows of all images, width) with a border of zeros around each image."""
    rows, width = maps.shape
    maps = maps.reshape(images, rows // images, width)
    return numpy.pad(maps, ((0, 0), (1, 1), (1, 1)))


def shifted(padded, dy, dx):
    """Return the pixels that lie dy - 1 below and dx - 1 to the right of each pixel, flat."""
    height, width = padded.shape[1] - 2, padded.shape[2] - 2
    return padded[:, dy : dy + height, dx : dx + width].reshape(-1)


def convolution(g, see, own, W, splits):
    """Return the parts of a convolution of the channels ``own``: (splits, out, P)."""
    share = -(-len(own) // (splits * _READ)) * _READ
    found = numpy.zeros((splits, len(W), g[0] * g[1] * g[2]), W.dtype)
    for split in range(splits):
        for channel in own[split * share : (split + 1) * share]:
            padded = bordered(see(channel), g[0])
            for dy in range(3):
                for dx in range(3):
                    value = shifted(padded, dy, dx)
                    found[split] += W[:, channel, dy, dx, None] * value
    return found


def tiles_of(g):
    """Yield the rows, of all images, of each tile."""
    rows = _STRIPS // -(-g[2] // _STRIP)
    for first in range(0, g[0] * g[1], rows):
        yield range(first, min(first + rows, g[0] * g[1]))


def weight_gradient(g, see, own, gy, slabs):
    """Return the parts of a convolution's gradient: (slabs, channels, out, 9)."""
    images, height, width = g[:3]
    maps = gy.reshape(len(gy), images * height, width)
    padded = {channel: bordered(see(channel), images) for channel in own}
    found = numpy.zeros((slabs, g[3], len(gy), 9), gy.dtype)
    for slab in range(slabs):
        sums = numpy.zeros((_SLICES, len(own), len(gy), 3, 3), gy.dtype)
        for tile in list(tiles_of(g))[slab::slabs]:
            for number, row in enumerate(tile):
                image, y = divmod(row, height)
                near = [padded[channel][image, y : y + 3] for channel in own]
                for x in range(width) if own else ():
                    values = numpy.array([rows[:, x : x + 3] for rows in near])
                    gradient = maps[:, row, x]
                    sums[number % _SLICES] += gradient[None, :, None, None] * values[:, None, :, :]
        total = numpy.zeros(sums.shape[1:], gy.dtype)
        for part in sums:
            total += part
        found[slab, own] = total.reshape(len(own), len(gy), 9)
    return found


def block_sum(values):
    """Return the sum over the threads of a block, the last axis, as ``block_sum`` adds."""
    values = values.reshape(-1, 32)
    for distance in (16, 8, 4, 2, 1):
        values = values[:, :distance] + values[:, distance : 2 * distance]
    total = values.dtype.type(0)
    for value in values[:, 0]:
        total += value
    return total


def deactivation(see, channel, gradient, gmap):
    """Add to the gradient of a feature map; return what goes into the two sums, (rows, width)."""
    gradient = gradient.reshape(gmap.shape)
    on, zero = see.positive(channel), gradient.dtype.type(0)
    numpy.copyto(gmap, gmap + see.scale[channel] * gradient, where=on)
    return (
        numpy.where(on, gradient, zero),
        numpy.where(on, gradient * see.centred(channel), zero),
    )


def tile_sums(g, values):
    """Return the sums of each tile: a thread a strip of four pixels, then over the threads."""
    strips = -(-g[2] // _STRIP)
    values = numpy.pad(values, ((0, 0), (0, strips * _STRIP - g[2])))
    found = []
    for tile in tiles_of(g):
        threads = numpy.zeros(_STRIPS, values.dtype)
        own = values[tile.start : tile.stop].reshape(-1, _STRIP)
        for p in range(_STRIP):
            threads[: len(own)] += own[:, p]
        found.append(block_sum(threads))
    return found


def chunk_sums(values, chunks):
    """Return the sums of each chunk of columns: a thread every 256th, then over the threads."""
    values = numpy.pad(values.reshape(-1), (0, chunks * _CHUNK - values.size))
    found = []
    for own in values.reshape(chunks, _CHUNK // 256, 256):
        threads = numpy.zeros(256, values.dtype)
        for row in own:
            threads += row
        found.append(block_sum(threads))
    return found


class Checked(Emulator):
    """The kernels on the host, whose results are held against those of this file."""

    def __init__(self, names, dtype, definitions):
        super().__init__(names, dtype, definitions)
        self.growth, self.first = definitions["GROWTH"], definitions["STEM"]
        self.checked = collections.Counter()

    def launch(self, name, grid, block, arguments):
        check = getattr(self, f"check_{name}", None)
        if check is None:
            super().launch(name, grid, block, arguments)
            return
        compare = check(tuple(map(int, grid)), *arguments)
        super().launch(name, grid, block, arguments)
        compare()
        self.checked[name] += 1

    def check_layer(self, grid, g, consumer, rows, counts, features, *rest):
        *normalised, W, parts = rest
        splits, samples, size = grid[1], grid[2], W.shape[0]
        expected = []
        for s in range(samples):
            see = Seen(g, s, features, *normalised)
            own = rows[s, consumer, : counts[s, consumer]].tolist()
            expected.append(convolution(g, see, own, W, splits))
        shape = splits, samples, size, g[0] * g[1] * g[2]

        def compare():
            found = parts[: numpy.prod(shape)].reshape(shape)
            numpy.testing.assert_array_equal(found, numpy.stack(expected, axis=1))

        return compare

    def check_stem(self, grid, g, channels, own, x, W, parts):
        expected = convolution(g, Seen(g, 0, x), own.tolist(), W, 1)

        def compare():
            found = parts[: expected.size].reshape(expected.shape)
            numpy.testing.assert_array_equal(found, expected)

        return compare

    def check_finish(self, grid, g, first, splits, shared, parts, features, partial):
        chunks, count, samples = grid
        columns = features.shape[2]
        parts = parts[: splits * (1 if shared else samples) * count * columns]
        value = numpy.zeros((samples, count, columns), parts.dtype)
        for part in parts.reshape(splits, -1, count, columns):
            value += part
        real = parts.dtype.type

        def compare():
            own = slice(first, first + count)
            numpy.testing.assert_array_equal(features[:, own], value)
            for s in range(samples):
                for o in range(count):
                    sums = chunk_sums(value[s, o], chunks)
                    for chunk, total in enumerate(sums):
                        inside = value[s, o, chunk * _CHUNK : (chunk + 1) * _CHUNK]
                        mean = total / real(len(inside))
                        (squares,) = chunk_sums((inside - mean) ** 2, 1)
                        found = partial[s, first + o, chunk]
                        numpy.testing.assert_array_equal(found, [mean, squares])

        return compare

    def check_layer_weights(self, grid, g, consumer, rows, counts, live, features, *rest):
        *normalised, gy, parts = rest
        W = self.growth, int(g[6] + consumer * self.growth)
        slabs, samples = grid[1:]
        size = slabs * samples * W[0] * W[1] * 9
        expected = parts[:size].reshape(slabs, samples, W[1], W[0], 9).copy()
        # Of the buffer, which is larger for the input of a block, the front is filled.
        columns = g[0] * g[1] * g[2]
        gy = gy.reshape(-1)[: samples * W[0] * columns].reshape(samples, W[0], columns)
        for s in range(samples):
            own = rows[s, consumer, : counts[s, consumer]].tolist()
            if live[s, consumer]:
                see = Seen(g, s, features, *normalised)
                found = weight_gradient(g, see, own, gy[s], slabs)
                expected[:, s, own] = found[:, own]

        def compare():
            found = parts[:size].reshape(expected.shape)
            numpy.testing.assert_array_equal(found, expected)

        return compare

    def check_stem_weights(self, grid, g, channels, own, x, gy, parts):
        slabs, size = grid[1], self.first
        columns = g[0] * g[1] * g[2]
        gy = gy.reshape(-1)[: size * columns].reshape(size, columns)
        found = weight_gradient(g, Seen(g, 0, x), own.tolist(), gy, slabs)
        expected = found[:, :channels]

        def compare():
            found = parts[: expected.size].reshape(expected.shape)
            numpy.testing.assert_array_equal(found, expected)

        return compare

    def check_layer_back(self, grid, g, consumer, rows, counts, live, features, *rest):
        *normalised, W, gy, gfeatures, sums = rest
        samples, columns = grid[2], g[0] * g[1] * g[2]
        gy = gy.reshape(-1)[: samples * len(W) * columns].reshape(samples, len(W), -1, g[2])
        gexpected = gfeatures.copy()
        table = sums.reshape(-1)[: samples * g[3] * grid[0] * 2].reshape(samples, g[3], -1, 2)
        expected = table.copy()
        for s in range(samples):
            if not live[s, consumer]:
                continue
            see = Seen(g, s, features, *normalised)
            for channel in rows[s, consumer, : counts[s, consumer]].tolist():
                gradient = numpy.zeros(columns, W.dtype)
                for o in range(len(W)):
                    padded = bordered(gy[s, o], g[0])
                    for dy in range(3):
                        for dx in range(3):
                            value = shifted(padded, 2 - dy, 2 - dx)
                            gradient += W[o, channel, dy, dx] * value
                gmap = gexpected[s, channel].reshape(-1, g[2])
                for i, values in enumerate(deactivation(see, channel, gradient, gmap)):
                    expected[s, channel, :, i] = tile_sums(g, values)

        def compare():
            numpy.testing.assert_array_equal(gfeatures, gexpected)
            numpy.testing.assert_array_equal(table, expected)

        return compare

    def check_exit_back(self, grid, g, squares, rows, counts, features, *rest):
        *normalised, gpooled, gfeatures, sums = rest
        chunks, samples, consumer = grid[0], grid[2], int(g[7]) - 1
        images, height, width = map(int, g[:3])
        gexpected = gfeatures.copy()
        table = sums.reshape(-1)[: samples * g[3] * chunks * 2].reshape(samples, g[3], -1, 2)
        expected = table.copy()
        for s in range(samples):
            see = Seen(g, s, features, *normalised)
            for k, channel in enumerate(rows[s, consumer, : counts[s, consumer]].tolist()):
                if squares:
                    own = gpooled[s, k].reshape(images, height // 2, width // 2) / 4
                    own = own.repeat(2, axis=1).repeat(2, axis=2)
                else:
                    own = gpooled[s, k] / (height * width)
                    own = own.repeat(height * width)
                gmap = gexpected[s, channel].reshape(-1, width)
                for i, values in enumerate(deactivation(see, channel, own, gmap)):
                    expected[s, channel, :, i] = chunk_sums(values, chunks)

        def compare():
            numpy.testing.assert_array_equal(gfeatures, gexpected)
            numpy.testing.assert_array_equal(table, expected)

        return compare


@needs_compiler
@pytest.mark.parametrize(
    ("shape", "samples", "theta", "blocks"),
    [
        ((12, 6), 2, 0.5, 264),
        ((20, 36), 1, 0.7, 264),
        # Several tiles in each slab of the gradient of the weights.
        ((20, 36), 2, 0.5, 4),
        ((8, 8), 2, 1.0, 4),
    ],
)
def test_sums_are_in_their_order(dtype, shape, samples, theta, blocks, monkeypatch):
    """Of every kernel of the DenseNet that reads or writes whole feature maps."""
    monkeypatch.setattr(dense, "_BLOCKS", blocks)
    link = PlainDenseNet(10, 7, 2, 16, 5, initialW=initialW())
    rng = numpy.random.default_rng(4)
    for part in link.links():
        if isinstance(part, chainer.links.BatchNormalization):
            part.gamma.array[...] = rng.uniform(0.5, 1.5, part.gamma.shape)
            part.beta.array[...] = rng.normal(0, 0.3, part.beta.shape)
    device = chainer.get_device("@numpy")
    found = captured((Checked, device), link, image_iterator(shape), samples, theta)
    found.update()
    layers = sum(len(block.convs) for block in link.blocks)
    assert found.captured.kernels.checked == {
        "stem": 1,
        "finish": 1 + layers + 1,
        "layer": layers,
        "exit_back": 2,
        "layer_weights": layers,
        "layer_back": layers,
        "stem_weights": 1,
    }
    grids = {launch.name: [] for launch in found.captured.program.launches}
    for launch in found.captured.program.launches:
        grids[launch.name].append(launch.grid)
    tiles = len(list(tiles_of((3, *shape))))
    # Sums over channels are split where the tiles are fewer than the blocks that are wanted.
    assert (max(grid[1] for grid in grids["layer"]) > 1) == (tiles * samples < blocks)
    assert (grids["stem_weights"][0][1] < tiles) == (blocks < tiles)
