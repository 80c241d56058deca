"""The fast DenseNet against the plain one, finite differences and a physically deleted network."""

import copy
import io

import numpy
import pytest

from chainer_sno._import_chainer import chainer
from chainer_sno.functions import dense_arrays, dense_block
from chainer_sno.links import DenseNet, PlainDenseNet

from chainer import gradient_check  # isort: skip

F = chainer.functions
TOLERANCE = {"float64": 1e-9, "float32": 1e-4}
SMALL = {"depth": 13, "growth_rate": 3, "first_channels": 4, "classes": 5}


def make_pair(rng, **arguments):
    """Return a plain and a fast network of the same weights.

    Gamma and beta are at random in float64.  In float32 no input of a ReLU comes near 0, where
    rounding alone decides whether a gradient passes: plain float32 gradients are off by up to
    10% of the largest entry there.
    """
    numpy.random.seed(1)
    plain, quick = PlainDenseNet(**arguments), DenseNet(**arguments)
    for name, parameter in plain.namedparams():
        noise = rng.standard_normal(parameter.shape)
        if parameter.dtype == numpy.float32 and name.endswith("gamma"):
            parameter.array[...] = 0.1
        elif parameter.dtype == numpy.float32 and name.endswith("beta"):
            parameter.array[...] = numpy.where(noise > -0.5, 1, -1)
        elif not name.endswith("W"):
            parameter.array += 0.3 * noise
    quick.copyparams(plain)
    return plain, quick


def make_structures(kind, lam, d, rng):
    if kind == "single":
        structures = numpy.zeros((lam, d), dtype=bool)
        structures[range(lam), rng.integers(d, size=lam)] = True
        return structures
    return rng.random((lam, d)) < {"empty": 0.0, "sparse": 0.2, "random": 0.5, "full": 1.0}[kind]


def assert_close(actual, desired, what, scale=0.0, rounding=0.0):
    """Compare relative to the largest entry, or to a scale below which there is only rounding."""
    assert actual.dtype == desired.dtype, what
    assert actual.shape == desired.shape, what
    assert numpy.isfinite(actual).all(), what
    error, scale = abs(actual - desired).max(), max(abs(desired).max(), scale)
    assert error <= TOLERANCE[desired.dtype.name] * scale + rounding, (what, error, scale)


def outputs_and_gradients(network, x, structures, weights):
    x = chainer.Variable(x)
    network.cleargrads()
    y = network(x, structures)
    F.sum(y * weights).backward()
    return {"y": y.array, "x": x.grad, **{name: p.grad for name, p in network.namedparams()}}


def persistents(network):
    return {
        f"{path}/{name}": getattr(link, name)
        for path, link in network.namedlinks()
        for name in ("avg_mean", "avg_var")
        if hasattr(link, name)
    }


def in_double(network):
    """Return a copy of a network that computes in float64."""
    network = copy.deepcopy(network)
    for parameter in network.params():
        parameter.array = parameter.array.astype(numpy.float64)
    for link in network.links():
        if isinstance(link, chainer.links.BatchNormalization):
            link.avg_mean = link.avg_mean.astype(numpy.float64)
            link.avg_var = link.avg_var.astype(numpy.float64)
    return network


def assert_same(plain, quick, x, structures, rng):
    """Compare outputs, all gradients and the running statistics.

    A gradient may vanish by invariance (a shift before batch normalisation changes nothing), and
    then it is rounding alone: what plain float32 loses against float64 is granted twice.
    """
    weights = rng.standard_normal((len(structures), len(x), plain.classes)).astype(x.dtype)
    exact = outputs_and_gradients(
        in_double(plain), x.astype(numpy.float64), structures, weights.astype(numpy.float64)
    )
    desired = outputs_and_gradients(plain, x, structures, weights)
    actual = outputs_and_gradients(quick, x, structures, weights)
    assert actual.keys() == desired.keys()
    assert_close(actual.pop("y"), desired.pop("y"), "y")
    scale = 0.01 * max(abs(gradient).max() for gradient in desired.values())
    for name in desired:
        rounding = 2 * abs(desired[name] - exact[name]).max()
        assert rounding <= scale, name
        assert_close(actual[name], desired[name], name, scale, rounding)
    actual = persistents(quick)
    for name, value in persistents(plain).items():
        assert_close(actual[name], value, name)


@pytest.mark.parametrize("lam", [1, 2, 4])
@pytest.mark.parametrize("kind", ["empty", "single", "sparse", "random", "full"])
def test_equals_plain(kind, lam, dtype, rng):
    plain, quick = make_pair(rng, **SMALL)
    for _ in range(2):
        x = rng.standard_normal((4, 3, 8, 8)).astype(dtype)
        structures = make_structures(kind, lam, len(plain.costs), rng)
        assert_same(plain, quick, x, structures, rng)


# Chainer warns of the single pixel that is left of the smallest image.
@pytest.mark.filterwarnings("ignore:A batch with no more than one sample")
@pytest.mark.parametrize("kernels", ["numba", "arrays"])
@pytest.mark.parametrize("chunk", [1, 24, 64, 100, 10**6])
def test_chunks_and_image_sizes(chunk, kernels, rng, monkeypatch):
    monkeypatch.setattr(dense_block, "CHUNK", chunk)
    if kernels == "arrays":
        monkeypatch.setattr(dense_block, "_compiled", lambda: dense_arrays)
    with chainer.using_config("dtype", numpy.float64):
        plain, quick = make_pair(rng, **SMALL)
        for n, height, width in [(3, 12, 8), (2, 4, 20), (5, 16, 16), (1, 4, 4)]:
            x = rng.standard_normal((n, 3, height, width))
            structures = make_structures("random", 2, len(plain.costs), rng)
            assert_same(plain, quick, x, structures, rng)


@pytest.mark.parametrize(
    "arguments",
    [
        {"depth": 5, "blocks": 1, "in_channels": 1, "first_channels": 1, "growth_rate": 1},
        {"depth": 8, "blocks": 2, "in_channels": 2, "growth_rate": 5},
        {"depth": 8, "blocks": 4},
    ],
)
def test_other_shapes(arguments, dtype, rng):
    plain, quick = make_pair(rng, **arguments)
    x = rng.standard_normal((3, plain.in_channels, 16, 16)).astype(dtype)
    assert_same(plain, quick, x, make_structures("random", 2, len(plain.costs), rng), rng)


@pytest.mark.parametrize("kind", ["sparse", "random", "full"])
def test_full_size(kind, dtype, rng):
    plain, quick = make_pair(rng)
    x = rng.standard_normal((2, 3, 32, 32)).astype(dtype)
    assert_same(plain, quick, x, make_structures(kind, 1, 273, rng), rng)


@pytest.mark.parametrize("kind", ["empty", "single", "random", "full"])
def test_evaluation_mode(kind, dtype, rng):
    plain, quick = make_pair(rng, **SMALL)
    x = rng.standard_normal((4, 3, 8, 8)).astype(dtype)
    plain(x, make_structures("random", 2, len(plain.costs), rng))
    quick.copyparams(plain)  # copies persistent values as well
    before = {name: value.copy() for name, value in persistents(quick).items()}
    structures = make_structures(kind, 2, len(plain.costs), rng)
    with chainer.using_config("train", False):
        if dtype == numpy.float64:  # running statistics bring inputs of ReLU near 0
            assert_same(plain, quick, x, structures, rng)
        with chainer.no_backprop_mode():
            assert_close(quick(x, structures).array, plain(x, structures).array, "y")
    for name, value in persistents(quick).items():
        numpy.testing.assert_array_equal(value, before[name])


def test_gradients_against_finite_differences(rng):
    with chainer.using_config("dtype", numpy.float64):
        network = make_pair(rng, depth=8, growth_rate=2, blocks=2, first_channels=3, classes=3)[1]
    structures = make_structures("random", 2, len(network.costs), rng)
    structures[0] = True
    gradient_check.check_backward(
        lambda x, *_: network(x, structures),
        rng.standard_normal((3, 3, 4, 4)),
        rng.standard_normal((2, 3, 3)),
        params=list(network.params()),
        eps=1e-6,
        rtol=1e-5,
        atol=1e-7,
        dtype=numpy.float64,
    )


def deleted_network(network, x, structure):
    """Compute the outputs from the weights that remain when absent connections are cut out."""
    h = network.stem(x)
    for block, group in zip(network.blocks, network.groups.values()):
        features, bits = [h], structure[group]
        for i, (own, widths) in enumerate(block.consumers()):
            kept = numpy.flatnonzero(bits[own].repeat(widths))
            chosen = [feature for feature, bit in zip(features, bits[own]) if bit]
            is_layer = i < len(block.convs)
            if not chosen:
                n, _, height, width = h.shape
                channels = network.growth_rate if is_layer else sum(block.widths)
                features.append(numpy.zeros((n, channels, height, width), h.dtype))
                continue
            gamma, beta = block.norms[i].gamma.array[kept], block.norms[i].beta.array[kept]
            a = F.relu(F.batch_normalization(F.concat(chosen), gamma, beta))
            if is_layer:
                features.append(F.convolution_2d(a, block.convs[i].W.array[:, kept], pad=1))
            elif hasattr(block, "transition"):
                features.append(F.convolution_2d(a, block.transition.W.array[:, kept]))
            else:
                W, b = network.classifier.W.array[:, kept], network.classifier.b.array
                return F.linear(F.mean(a, axis=(2, 3)), W, b)
        h = F.average_pooling_2d(features[-1], 2)
    return F.broadcast_to(network.classifier.b, (len(x), network.classes))


@pytest.mark.parametrize("kind", ["empty", "sparse", "random"])
def test_equals_physically_deleted_network(kind, dtype, rng):
    _, quick = make_pair(rng, **SMALL)
    x = rng.standard_normal((4, 3, 8, 8)).astype(dtype)
    structures = make_structures(kind, 2, len(quick.costs), rng)
    desired = numpy.stack([deleted_network(quick, x, one).array for one in structures])
    assert_close(quick(x, structures).array, desired, "y")


def test_dead_network_gives_the_bias(rng):
    _, quick = make_pair(rng, **SMALL)
    x = rng.standard_normal((4, 3, 8, 8), dtype="f")
    y = quick(x, numpy.zeros((2, len(quick.costs)), dtype=bool)).array
    desired = numpy.broadcast_to(quick.classifier.b.array, y.shape)
    numpy.testing.assert_array_equal(y, desired)


@pytest.mark.parametrize("network_class", [DenseNet, PlainDenseNet])
def test_sizes(network_class):
    network = network_class()
    costs = network.costs
    assert network.count_params() == 1_019_722
    assert costs.shape == (273,)
    assert costs.dtype == numpy.float64
    assert [costs[group].sum() for group in network.groups.values()] == [131872, 385312, 484000]
    assert list(network.groups) == ["block_1", "block_2", "block_3"]
    assert costs.max() == 48640
    # The block's input into its first two layers, the first layer's output into the second.
    assert costs[:3].tolist() == [9 * 16 * 12, 9 * 16 * 12, 9 * 12 * 12]
    assert costs[78] == 16 * 160
    assert costs[-1] == 12 * 10
    assert network.weight_ratio(numpy.ones(273, dtype=bool)) == 1
    assert network.weight_ratio(numpy.zeros(273, dtype=bool)) == 432 / (432 + 1001184)


def test_initialisation():
    network = DenseNet()
    for name, parameter in network.namedparams():
        if name.endswith("W"):
            fan_in = parameter.array[0].size
            if parameter.size > 5000:
                assert abs(parameter.array.std() * (fan_in / 2) ** 0.5 - 1) < 0.05
        else:
            assert (parameter.array == (1 if name.endswith("gamma") else 0)).all()


def test_snapshots_are_exchanged(rng):
    plain, quick = PlainDenseNet(**SMALL), DenseNet(**SMALL)
    x = rng.standard_normal((4, 3, 8, 8), dtype="f")
    structures = make_structures("random", 2, len(plain.costs), rng)
    quick(x, structures)
    for source, target in ((quick, plain), (plain, quick)):
        file = io.BytesIO()
        chainer.serializers.save_npz(file, source)
        file.seek(0)
        chainer.serializers.load_npz(file, target)
    with chainer.using_config("train", False):
        assert_close(quick(x, structures).array, plain(x, structures).array, "y")


@pytest.mark.parametrize(
    "arguments",
    [
        {"depth": 41},
        {"depth": 4},
        {"depth": 40.0},
        {"growth_rate": 0},
        {"blocks": -1},
        {"first_channels": True},
        {"classes": "10"},
        {"in_channels": 0},
    ],
)
def test_bad_arguments(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        DenseNet(**arguments)


@pytest.mark.parametrize(
    ("x_shape", "structures_shape"),
    [
        ((2, 3, 6, 8), (1, 30)),
        ((2, 1, 8, 8), (1, 30)),
        ((2, 3, 8), (1, 30)),
        ((2, 3, 8, 8), (1, 29)),
        ((2, 3, 8, 8), (30,)),
        ((2, 3, 8, 8), (0, 30)),
    ],
)
def test_bad_shapes(x_shape, structures_shape):
    for network in (DenseNet(**SMALL), PlainDenseNet(**SMALL)):
        assert len(network.costs) == 30
        with pytest.raises(ValueError, match="must have the shape"):
            network(numpy.zeros(x_shape, "f"), numpy.ones(structures_shape, bool))


def test_no_second_derivative(rng):
    network = DenseNet(**SMALL)
    x = chainer.Variable(rng.standard_normal((2, 3, 8, 8), dtype="f"))
    y = network(x, numpy.ones((1, len(network.costs)), dtype=bool))
    with pytest.raises(RuntimeError, match="PlainDenseNet"):
        chainer.grad([F.sum(y)], [x], enable_double_backprop=True)
