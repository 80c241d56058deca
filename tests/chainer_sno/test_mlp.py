import numpy
import pytest

from chainer_sno import chainer, links


def test_is_a_plain_network(dtype, rng):
    network = links.MLP(5, (4, 3), 2)
    x = rng.normal(size=(6, 5)).astype(dtype)
    h = x
    *hidden, last = network.layers
    for layer in hidden:
        h = numpy.maximum(h @ layer.W.array.T + layer.b.array, 0)
    y = network(x)
    assert y.dtype == dtype
    expected = h @ last.W.array.T + last.b.array
    numpy.testing.assert_allclose(y.array, expected, rtol=1e-4, atol=1e-5)


def test_dropout_drops_half_and_scales_the_rest():
    network = links.MLP(3, (1000,), 1, dropout_ratio=0.5)
    hidden, last = network.layers
    hidden.W.array[...] = 0
    hidden.b.array[...] = 1
    last.W.array[...] = 1
    x = numpy.ones((64, 3), dtype="f")
    kept = network(x).array.ravel() / 2
    # 64 sums of 1000 bits, of standard deviation 15.8; five standard deviations of their mean.
    assert abs(kept.mean() - 500) < 5 * 15.8 / 8
    assert 10 < kept.std() < 25
    assert not numpy.array_equal(network(x).array.ravel() / 2, kept)
    with chainer.using_config("train", False):
        numpy.testing.assert_array_equal(network(x).array, 1000)


def test_dropped_units_differ_between_layers_and_get_no_gradient(rng):
    network = links.MLP(3, (50, 50), 2, dropout_ratio=0.5)
    network.cleargrads()
    x = numpy.ones((1, 3), dtype="f")
    for layer in network.layers:
        layer.b.array[...] = 1
        layer.W.array[...] = abs(layer.W.array)
    chainer.functions.sum(network(x)).backward()
    first, second, _ = network.layers
    dropped = [layer.b.grad == 0 for layer in (first, second)]
    assert 5 < dropped[0].sum() < 45
    assert not numpy.array_equal(*dropped)


@pytest.mark.parametrize("ratio", [-0.1, 1.0, numpy.nan])
def test_bad_ratio_is_named(ratio):
    with pytest.raises(ValueError, match="dropout_ratio must lie in"):
        links.MLP(3, (2,), 1, dropout_ratio=ratio)
