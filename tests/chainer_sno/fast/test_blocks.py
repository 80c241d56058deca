"""One convolution and its gradients: rounding errors beside those of a direct convolution."""

import numpy
import pytest

from chainer_sno import chainer
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
