"""One convolution and its gradients: rounding errors beside those of a direct convolution."""

import numpy
import pytest

from chainer_sno import chainer
from chainer_sno.fast import blocks
from chainer_sno.fast.winograd import LANES, POSITIONS, TILE
from chainer_sno.links import DenseNet
from tests.chainer_sno.test_dense_net import apply_function

F = chainer.functions


@pytest.fixture(params=[16, 40, 160])
def single_layer(request, rng):
    """A network of one layer of so many input channels, whose parts are those of a convolution.

    Only the layer's output reaches the exit.
    """
    network = DenseNet(5, 12, 1, request.param, 10, request.param)
    network.stem.W.array[...] = 0
    for channel in range(request.param):
        network.stem.W.array[channel, channel, 1, 1] = 1
    # Far from where a ReLU has its edge, which a rounding may be on either side of.
    for norm in network.blocks[0].norms:
        norm.beta.array[...] = 8
    x = rng.standard_normal((32, request.param, 16, 16), dtype="f")
    structure = numpy.array([[True, False, True]])
    return network, x, structure


def in_double(network):
    for parameter in network.params():
        parameter.array = parameter.array.astype("d")


def features_of(network, x, structure):
    """Return the compiled feature maps of the layer, before the exit."""
    function, _ = apply_function(network, x, structure)
    plan = function._plans[0]
    maps = function._passes.workspace.x[0]
    size = plan.blocks * plan.shape.channels * plan.plane
    planes = maps[:size].reshape(plan.blocks, plan.shape.channels, 16, 16, 16)
    return planes[:, -15:-3].transpose(0, 4, 1, 2, 3).reshape(32, 12, 16, 16)


def test_the_output_of_a_convolution_in_float32(single_layer):
    network, x, structure = single_layer
    found = features_of(network, x, structure)
    norm, W = network.blocks[0].norms[0], network.blocks[0].convs[0].W.array
    a = F.relu(F.batch_normalization(x, norm.gamma.array, norm.beta.array)).array
    direct = F.convolution_2d(a, W, pad=1).array
    exact_input = F.relu(
        F.batch_normalization(
            x.astype("d"), norm.gamma.array.astype("d"), norm.beta.array.astype("d")
        )
    ).array
    exact = F.convolution_2d(exact_input, W.astype("d"), pad=1).array
    own, other = (abs(y - exact).max() / abs(exact).max() for y in (found, direct))
    assert own <= 4 * other
    assert own < 5e-6


def test_the_gradients_of_a_convolution_in_float32(single_layer, rng):
    network, x, structure = single_layer
    weights = rng.standard_normal((1, 32, 10))

    def gradients(link, x, weights):
        x = chainer.Variable(x)
        link.cleargrads()
        F.sum(link(x, structure) * weights).backward()
        return {"x": x.grad, "W": link.blocks[0].convs[0].W.grad}

    found = gradients(network, x, weights.astype("f"))
    plain = chainer_plain(network)
    direct = gradients(plain, x, weights.astype("f"))
    in_double(plain)
    exact = gradients(plain, x.astype("d"), weights)
    for name, value in exact.items():
        own, other = (((gradient[name] - value) ** 2).mean() ** 0.5 for gradient in (found, direct))
        assert own <= 4 * other, name


def chainer_plain(network):
    """Return the plain network of the same weights."""
    from chainer_sno.links import PlainDenseNet

    channels = network.stem.out_channels
    plain = PlainDenseNet(5, 12, 1, channels, 10, channels)
    plain.copyparams(network)
    return plain


@pytest.mark.parametrize("border", [0, 1])
@pytest.mark.parametrize("size", [(32, 32), (16, 16), (8, 8), (12, 20), (5, 70)])
@pytest.mark.parametrize("count", [1, 5, 12, 16, 40])
def test_what_a_product_asks_for_is_what_the_next_step_reads(size, border, count, rng):
    """Each strip of rows of the planes is asked for, and little else."""
    height, width = size
    shape = blocks.Shape(40, 50, height, width, 12, 2)
    wide = blocks.rounded(width, TILE)
    plane, steps = blocks.rounded(height, TILE) * wide * LANES, int(rng.integers(1, 6))
    most, row_tiles = max(1, blocks.TILES * TILE // wide), blocks.rounded(height, TILE) // TILE
    end = 2 * row_tiles
    rows = rng.permutation(50)
    for g in range(0, end, most):
        strip = blocks._strip(shape, 50, 1, g, most, end, border)
        ahead = numpy.full(POSITIONS, -1)
        part = blocks._look_ahead(ahead, rows, 3, count, plane, strip, steps)
        starts = (ahead[:, None] + numpy.arange(steps) * part * LANES)[..., None]
        asked = set((starts + numpy.arange(part) * LANES).ravel().tolist())
        block, y = 1 + g // row_tiles, g % row_tiles
        below = min(y + most, row_tiles)
        pixels = numpy.arange((y * TILE - border) * wide, (below * TILE + border) * wide) * LANES
        # At most as many planes as there are positions.
        planes = block * 50 + rows[3 : 3 + min(count, POSITIONS)]
        wanted = set((planes[:, None] * plane + pixels).ravel().tolist())
        assert wanted <= asked
        assert len(asked) <= len(wanted) + count * POSITIONS * steps
    assert blocks._strip(shape, 50, 1, end, most, end, border) == (0, 0)
