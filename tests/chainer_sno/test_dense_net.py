"""The fast DenseNet against the plain one, finite differences and a physically deleted network."""

import concurrent.futures
import contextlib
import copy
import gc
import io
import multiprocessing
import signal
import subprocess
import sys
import time

import numpy
import pytest

from chainer_sno import chainer, links
from chainer_sno import fast as engine
from chainer_sno.functions import dense_block, dense_net
from chainer_sno.links import DenseNet, PlainDenseNet

from chainer import gradient_check  # isort: skip
from chainer.link_hooks import TimerHook  # isort: skip

F = chainer.functions
TOLERANCE = {"float64": 1e-11, "float32": 1e-4}
SMALL = {"depth": 13, "growth_rate": 3, "first_channels": 4, "classes": 5}


@pytest.fixture(params=["compiled", "arrays"])
def path(request, monkeypatch):
    """Compute by each of the ways of a CPU, with numba and without."""
    if request.param == "arrays":
        monkeypatch.setattr(dense_net, "engine", lambda: None)
        monkeypatch.setattr(links.dense_net, "engine", lambda: None)
    return request.param


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
    if kind in ("same", "alike"):
        structures = numpy.repeat(rng.random((1, d)) < 0.5, lam, axis=0)
        if kind == "alike":  # all layers before the bit are in common
            structures[range(lam), rng.integers(d, size=lam)] ^= True
        return structures
    return rng.random((lam, d)) < {"empty": 0.0, "sparse": 0.2, "random": 0.5, "full": 1.0}[kind]


def assert_close(actual, desired, what, scale=0.0):
    """Compare relative to the largest entry, or to a scale below which there is only rounding."""
    assert actual.dtype == desired.dtype, what
    assert actual.shape == desired.shape, what
    assert numpy.isfinite(actual).all(), what
    error, scale = abs(actual - desired).max(), max(abs(desired).max(), scale)
    assert error <= TOLERANCE[desired.dtype.name] * scale, (what, error, scale)


def outputs_and_gradients(network, x, structures, weights):
    x = chainer.Variable(x)
    network.cleargrads()
    y = network(x, structures)
    F.sum(y * weights).backward()
    return {"y": y.array, "x": x.grad, **{name: p.grad for name, p in network.namedparams()}}


def apply_function(network, x, structures):
    """Return the compiled function of all blocks after a forward pass, and its output."""
    function = dense_net.DenseNetFunction(structures, network, network.threads)
    parameters = [network.stem.W]
    for block in network.blocks:
        parameters += network._parameters(block)
    (y,) = function.apply((x, *parameters))
    return function, y.array


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


def deviation(found, exact, names):
    """Return the root mean square of what some arrays together differ from exact ones."""
    squares = sum(((found[name] - exact[name]) ** 2).sum() for name in names)
    return (squares / sum(exact[name].size for name in names)) ** 0.5


def assert_same(plain, quick, x, structures, rng):
    """Compare outputs, all gradients and the running statistics.

    In float64 to rounding.  In float32 the fast network may be off by four times what the plain
    one is, of those parameters together that are of one kind: some of them vanish by invariance (a
    shift before batch normalisation changes nothing), and then they are rounding alone.
    """
    weights = rng.standard_normal((len(structures), len(x), plain.classes)).astype(x.dtype)
    desired = outputs_and_gradients(plain, x, structures, weights)
    actual = outputs_and_gradients(quick, x, structures, weights)
    assert actual.keys() == desired.keys()
    if x.dtype == numpy.float64:
        scale = max(abs(gradient).max() for gradient in desired.values())
        assert_close(actual.pop("y"), desired.pop("y"), "y")
        for name in desired:
            assert_close(actual[name], desired[name], name, scale)
    else:
        exact = outputs_and_gradients(
            in_double(plain), x.astype("d"), structures, weights.astype("d")
        )
        kinds = {}
        for name in desired:
            assert actual[name].dtype == numpy.float32
            kind = name.rsplit("/", 1)[-1] if "/blocks/" in name else name
            kinds.setdefault(kind, []).append(name)
        rounding = 1e-7 * max(abs(value).max() for value in exact.values())
        for kind, names in kinds.items():
            own, plain_one = (deviation(found, exact, names) for found in (actual, desired))
            assert own <= 4 * plain_one + rounding, (kind, own, plain_one)
    actual = persistents(quick)
    for name, value in persistents(plain).items():
        assert_close(actual[name], value, name)


@pytest.mark.parametrize("lam", [1, 2, 4])
@pytest.mark.parametrize("kind", ["empty", "single", "sparse", "random", "full", "same", "alike"])
def test_equals_plain(kind, lam, dtype, path, rng):
    plain, quick = make_pair(rng, **SMALL)
    for _ in range(2):
        x = rng.standard_normal((4, 3, 8, 8)).astype(dtype)
        structures = make_structures(kind, lam, len(plain.costs), rng)
        assert_same(plain, quick, x, structures, rng)


def leads_nowhere(block, bits):
    """Return, for every layer of a block, whether no path of connections leads to the exit."""
    taken = [numpy.flatnonzero(bits[own]) - 1 for own, _ in block.consumers()]
    reached, further = set(), [len(block.convs)]
    while further:
        consumer = further.pop()
        reached.add(consumer)
        further += [layer for layer in taken[consumer] if layer >= 0]
    return [layer not in reached for layer in range(len(block.convs))]


@pytest.mark.parametrize("kind", ["empty", "single", "sparse", "random", "full"])
def test_a_fixed_structure_does_without_layers_that_lead_nowhere(kind, dtype, path, rng):
    x, dead = rng.standard_normal((4, 3, 8, 8)).astype(dtype), 0
    for network in make_pair(rng, **SMALL):
        structures = make_structures(kind, 1, len(network.costs), rng)
        weights = rng.standard_normal((1, 4, 5)).astype(dtype)
        fixed, whole = links.FixedStructure(network, structures[0]), copy.deepcopy(network)
        expected = outputs_and_gradients(whole, x, structures, weights)
        fixed.cleargrads()
        y = fixed(x)
        F.sum(y * weights[0]).backward()
        numpy.testing.assert_array_equal(y.array, expected["y"][0])
        for name, parameter in network.namedparams():
            numpy.testing.assert_array_equal(parameter.grad, expected[name], name)
        for block, other, group in zip(network.blocks, whole.blocks, network.groups.values()):
            nowhere = [False, *leads_nowhere(block, structures[0][group])]
            dead += sum(nowhere)
            maps = numpy.repeat(nowhere, block.widths)
            for norm, reference in zip(block.norms, other.norms):
                own = maps[: len(norm.avg_mean)]
                mean = numpy.where(own, 0, reference.avg_mean)
                var = numpy.where(own, dtype.type(norm.decay), reference.avg_var)
                numpy.testing.assert_array_equal(norm.avg_mean, mean)
                numpy.testing.assert_array_equal(norm.avg_var, var)
    assert (dead > 0) == (kind != "full")


def test_a_fixed_structure_drops_nothing_that_a_forward_pass_of_ones_own_may_read(rng):
    class Supervised(PlainDenseNet):
        """It adds the mean of every layer to the outputs."""

        def forward(self, x, structures):
            y, h = super().forward(x, structures), self.stem(x)
            block = self.blocks[0]
            for i, (own, widths) in enumerate(list(block.consumers())[:-1]):
                mask = structures[0][own].repeat(widths).astype(h.dtype)
                a = F.relu(block.norms[i](h)) * mask[None, :, None, None]
                h = F.concat([h, block.convs[i](a)])
            return y + F.mean(h)

    network = Supervised(**SMALL)
    structure = make_structures("sparse", 1, len(network.costs), rng)[0]
    assert (network.without_dead_layers(structure) != structure).any()
    x = rng.standard_normal((4, 3, 8, 8)).astype("f")
    fixed = links.FixedStructure(network, structure)
    assert not fixed.drops_dead_layers
    expected = copy.deepcopy(network)(x, structure[None])[0].array
    numpy.testing.assert_array_equal(fixed(x).array, expected)


def test_the_structure_without_dead_layers(rng):
    network = PlainDenseNet(**SMALL)
    for kind in ("empty", "single", "sparse", "random", "full"):
        for structure in make_structures(kind, 20, len(network.costs), rng):
            given = structure.copy()
            found = network.without_dead_layers(structure)
            assert found.dtype == bool
            numpy.testing.assert_array_equal(structure, given)
            for block, group in zip(network.blocks, network.groups.values()):
                nowhere = [*leads_nowhere(block, given[group]), False]
                for (own, _), dead in zip(block.consumers(), nowhere):
                    expected = given[group][own] & (not dead)
                    numpy.testing.assert_array_equal(found[group][own], expected)
            numbers = network.without_dead_layers(structure.astype("f"))
            numpy.testing.assert_array_equal(numbers, found)


# Chainer warns of the single pixel that is left of the smallest image.
@pytest.mark.filterwarnings("ignore:A batch with no more than one sample")
@pytest.mark.parametrize("chunk", [1, 24, 64, 100, 10**6])
def test_chunks_and_image_sizes(chunk, path, rng, monkeypatch):
    monkeypatch.setattr(dense_block, "CHUNK", chunk)
    with chainer.using_config("dtype", numpy.float64):
        plain, quick = make_pair(rng, **SMALL)
        for n, height, width in [(3, 12, 8), (2, 4, 20), (5, 16, 16), (1, 4, 4)]:
            x = rng.standard_normal((n, 3, height, width))
            structures = make_structures("random", 2, len(plain.costs), rng)
            assert_same(plain, quick, x, structures, rng)


@pytest.mark.parametrize("kind", ["empty", "single", "random", "full"])
def test_all_columns_at_once_as_on_a_gpu(kind, dtype, rng, monkeypatch):
    """Which has no use for the caches that the chunks are for, and pays for each call."""
    monkeypatch.setattr(links.dense_net, "engine", lambda: None)
    prepare, chunks = dense_block.DenseBlockFunction._prepare, []

    def whole(self, *inputs):
        prepare(self, *inputs)
        self.image_chunk = self.chunk = self.size
        self.inside = dense_block._inside(self.height, self.width, self.chunk, self.dtype)
        self.z = numpy.empty((len(self.z), self.size + 3 * self.reach), self.dtype)
        self.a, self.ga = (numpy.empty(self.channels * self.size, self.dtype) for _ in range(2))
        chunks.append(list(self._chunks(self.image_chunk)))

    monkeypatch.setattr(dense_block.DenseBlockFunction, "_prepare", whole)
    plain, quick = make_pair(rng, **SMALL)
    x = rng.standard_normal((4, 3, 8, 8)).astype(dtype)
    assert_same(plain, quick, x, make_structures(kind, 2, len(plain.costs), rng), rng)
    assert chunks[0] == [(0, 4 * 64)]


@pytest.mark.parametrize(
    "arguments",
    [
        {"depth": 5, "blocks": 1, "in_channels": 1, "first_channels": 1, "growth_rate": 1},
        {"depth": 8, "blocks": 2, "in_channels": 2, "growth_rate": 5},
        {"depth": 8, "blocks": 4},
    ],
)
def test_other_shapes(arguments, dtype, path, rng):
    plain, quick = make_pair(rng, **arguments)
    x = rng.standard_normal((3, plain.in_channels, 16, 16)).astype(dtype)
    assert_same(plain, quick, x, make_structures("random", 2, len(plain.costs), rng), rng)


@pytest.mark.filterwarnings("ignore:A batch with no more than one sample")
@pytest.mark.parametrize("n", [1, 16, 32, 48, 50, 64])
@pytest.mark.parametrize("side", [8, 10, 12, 16, 32])
def test_mini_batches_and_sides(n, side, rng):
    """Sides that are no multiple of a tile's, and mini-batches that are none of a block's."""
    arguments = {"depth": 6, "blocks": 2, "growth_rate": 3, "first_channels": 5, "classes": 4}
    with chainer.using_config("dtype", numpy.float64):
        plain, quick = make_pair(rng, **arguments)
        quick.threads = 2 if n == 50 else 1
        for kind, lam in [("random", 2), ("single", 4), ("alike", 2)]:
            x = rng.standard_normal((n, 3, side, side))
            structures = make_structures(kind, lam, len(plain.costs), rng)
            assert_same(plain, quick, x, structures, rng)


@pytest.mark.parametrize("side", [5, 7, 9])
def test_odd_sides(side, rng):
    with chainer.using_config("dtype", numpy.float64):
        plain, quick = make_pair(rng, depth=7, blocks=1, growth_rate=13, first_channels=3)
        x = rng.standard_normal((5, 3, side, side + 2))
        assert_same(plain, quick, x, make_structures("random", 2, len(plain.costs), rng), rng)


@pytest.mark.parametrize("kind", ["random", "alike"])
@pytest.mark.parametrize(("lam", "n"), [(1, 64), (2, 32), (4, 20)])
def test_any_number_of_threads_gives_the_same_bits(lam, n, kind, dtype, rng):
    _, quick = make_pair(rng, depth=13, growth_rate=12)
    x = rng.standard_normal((n, 3, 16, 16)).astype(dtype)
    structures = make_structures(kind, lam, len(quick.costs), rng)
    weights = rng.standard_normal((lam, n, 10)).astype(dtype)

    def evaluate():
        with chainer.using_config("train", False), chainer.no_backprop_mode():
            return quick(x, structures).array

    expected, evaluated = outputs_and_gradients(quick, x, structures, weights), evaluate()
    statistics = copy.deepcopy(persistents(quick))
    for threads in (2, 3, 5, 8):
        for name, value in persistents(quick).items():
            value[...] = 0 if name.endswith("mean") else 1
        quick.threads = threads
        found = outputs_and_gradients(quick, x, structures, weights)
        for name, value in persistents(quick).items():
            numpy.testing.assert_array_equal(value, statistics[name], f"{name}, {threads} threads")
        numpy.testing.assert_array_equal(evaluate(), evaluated, f"{threads} threads")
        for name, value in expected.items():
            numpy.testing.assert_array_equal(found[name], value, f"{name}, {threads} threads")


@pytest.mark.parametrize("what", ["gamma", "beta", "features", "weights"])
@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-3])
def test_vanishing_parameters(what, size, path, rng):
    """The gradient of gamma must not be found by a division by gamma where gamma is tiny."""
    with chainer.using_config("dtype", numpy.float64):
        plain, quick = make_pair(rng, **SMALL)
        for block in plain.blocks:
            for norm in block.norms:
                if what in ("gamma", "beta"):
                    getattr(norm, what).array[::2] *= size
            if what == "weights":
                block.convs[0].W.array[...] *= size
        quick.copyparams(plain)
        x = rng.standard_normal((4, 3, 8, 8))
        if what == "features":
            x[...] = size
        structures = make_structures("full", 2, len(plain.costs), rng)
        structures[1] = make_structures("random", 1, len(plain.costs), rng)
        if what == "features":
            # Rounding alone decides on which side of 0 a constant lies.
            for network in (plain, quick):
                gradients = outputs_and_gradients(network, x, structures, numpy.ones((2, 4, 5)))
                assert all(numpy.isfinite(value).all() for value in gradients.values())
        else:
            assert_same(plain, quick, x, structures, rng)


def test_what_is_no_number_stays_so(path, rng):
    _, quick = make_pair(rng, **SMALL)
    quick.blocks[0].convs[1].W.array[0, 0, 0, 0] = numpy.nan
    x = rng.standard_normal((4, 3, 8, 8), dtype="f")
    for train in (True, False):
        with chainer.using_config("train", train):
            y = quick(x, numpy.ones((1, len(quick.costs)), bool)).array
        assert numpy.isnan(y).all()


def test_gradients_are_added_up_and_do_not_change_afterwards(rng):
    _, quick = make_pair(rng, **SMALL)
    structures = make_structures("random", 2, len(quick.costs), rng)
    x = rng.standard_normal((2, 4, 3, 8, 8)).astype("f")
    weights = rng.standard_normal((2, 4, 5)).astype("f")
    each = [outputs_and_gradients(quick, part, structures, weights) for part in x]
    kept = [{name: value.copy() for name, value in found.items()} for found in each]
    quick.cleargrads()
    # Both forward passes before the first backward pass.
    losses = [F.sum(quick(part, structures) * weights) for part in x]
    for loss in losses:
        loss.backward()
    for name, parameter in quick.namedparams():
        numpy.testing.assert_array_equal(parameter.grad, kept[0][name] + kept[1][name], name)
    for before, after in zip(kept, each):
        for name, value in before.items():
            numpy.testing.assert_array_equal(after[name], value, name)


@pytest.mark.parametrize("change", ["norm", "gamma", "bias", "stride", "kernel", "class"])
def test_links_that_were_changed_are_refused(change, rng):
    _, quick = make_pair(rng, **SMALL)
    block = quick.blocks[1]
    with block.convs.init_scope():
        if change == "norm":
            block.norms._children[0] = chainer.links.GroupNormalization(2, 16)
        elif change == "gamma":
            block.norms._children[0] = chainer.links.BatchNormalization(13, use_gamma=False)
        elif change == "bias":
            block.convs._children[0] = chainer.links.Convolution2D(13, 3, 3, pad=1)
        elif change == "stride":
            block.convs[0].stride = 2, 2
        elif change == "kernel":
            block.convs[0].pad = 0, 0
        else:
            block.convs._children[0] = links.compact_dense_net.Convolution3x3(13, 3, None)
    x = rng.standard_normal((4, 3, 8, 8), dtype="f")
    with pytest.raises(ValueError, match="use PlainDenseNet"):
        quick(x, numpy.ones((1, len(quick.costs)), bool))


def test_each_normalisation_has_its_own_eps_and_decay(rng):
    with chainer.using_config("dtype", numpy.float64):
        plain, quick = make_pair(rng, **SMALL)
        for network in (plain, quick):
            for i, link in enumerate(network.links()):
                if isinstance(link, chainer.links.BatchNormalization):
                    link.eps, link.decay = 1e-3 * (i + 1), 1 / (i + 2)
        x = rng.standard_normal((4, 3, 8, 8))
        assert_same(plain, quick, x, make_structures("random", 2, len(plain.costs), rng), rng)


@pytest.mark.parametrize("which", ["x", "parameters"])
def test_mixed_dtypes_are_refused(which, rng):
    _, quick = make_pair(rng, **SMALL)
    x = rng.standard_normal((4, 3, 8, 8), dtype="f" if which == "parameters" else "d")
    if which == "parameters":
        quick.blocks[0].norms[0].gamma.array = quick.blocks[0].norms[0].gamma.array.astype("d")
    with pytest.raises(chainer.utils.type_check.InvalidType):
        quick(x, numpy.ones((1, len(quick.costs)), bool))


def test_arrays_that_are_not_contiguous(rng):
    _, quick = make_pair(rng, **SMALL)
    structures = make_structures("random", 2, len(quick.costs), rng)
    x = rng.standard_normal((4, 8, 8, 3)).astype("f").transpose(0, 3, 1, 2)
    expected = quick(numpy.ascontiguousarray(x), structures).array
    conv = quick.blocks[0].convs[2].W
    conv.array = numpy.asfortranarray(conv.array)
    numpy.testing.assert_array_equal(quick(x, structures).array, expected)


@pytest.mark.parametrize("kind", ["sparse", "random", "full"])
def test_full_size(kind, dtype, rng):
    plain, quick = make_pair(rng)
    x = rng.standard_normal((1, 3, 32, 32)).astype(dtype)
    assert_same(plain, quick, x, make_structures(kind, 1, 273, rng), rng)


@pytest.mark.parametrize("kind", ["empty", "single", "random", "full"])
def test_evaluation_mode(kind, dtype, path, rng):
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


def test_gradients_against_finite_differences(path, rng):
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


def test_dead_network_gives_the_bias(path, rng):
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


def test_no_second_derivative(path, rng):
    network = DenseNet(**SMALL)
    x = chainer.Variable(rng.standard_normal((2, 3, 8, 8), dtype="f"))
    y = network(x, numpy.ones((1, len(network.costs)), dtype=bool))
    with pytest.raises(RuntimeError, match="PlainDenseNet"):
        chainer.grad([F.sum(y)], [x], enable_double_backprop=True)


def call(network, n=64):
    x = numpy.random.default_rng(0).standard_normal((n, 3, 8, 8)).astype("f")
    return network(x, numpy.ones((1, len(network.costs)), bool)).array


def test_a_fork_has_threads_of_its_own(rng):
    _, quick = make_pair(rng, **SMALL)
    quick.threads = 2
    expected = call(quick)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=lambda: queue.put(call(quick)))
    process.start()
    found = queue.get(timeout=60)
    process.join(60)
    assert process.exitcode == 0
    numpy.testing.assert_array_equal(found, expected)


def test_an_interrupt_leaves_no_thread_waiting(rng):
    _, quick = make_pair(rng, depth=13, growth_rate=12)
    quick.threads = 2
    expected = call(quick, 256)
    begun = time.perf_counter()
    call(quick, 256)
    seconds = time.perf_counter() - begun
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        for part in (0.3, 0.6, 0.8):
            signal.setitimer(signal.ITIMER_REAL, part * seconds)
            with contextlib.suppress(KeyboardInterrupt):
                call(quick, 256)
                time.sleep(seconds)
            numpy.testing.assert_array_equal(call(quick, 256), expected)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_two_callers_with_several_threads_each(rng):
    networks = [make_pair(rng, **SMALL)[1] for _ in range(2)]
    for network in networks:
        network.threads = 3
    expected = [call(network) for network in networks]

    def work(number):
        return [call(networks[number]) for _ in range(20)]

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for number, found in enumerate(pool.map(work, range(2))):
            for y in found:
                numpy.testing.assert_array_equal(y, expected[number])


def test_a_workspace_is_taken_while_the_collector_gives_one_back(rng):
    _, quick = make_pair(rng, **SMALL)
    before = gc.get_threshold()
    try:
        for threshold in range(1, 60):
            gc.set_threshold(threshold, 2, 2)
            y = quick(rng.standard_normal((2, 3, 8, 8), dtype="f"), numpy.ones((1, 30), bool))
            y.itself = y
    finally:
        gc.set_threshold(*before)


def test_an_output_that_lives_until_python_ends():
    program = (
        "import numpy, chainer_sno\n"
        "network = chainer_sno.links.DenseNet(depth=13, growth_rate=3)\n"
        "y = network(numpy.zeros((2, 3, 8, 8), 'f'), numpy.ones((1, 30), bool))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_workspace_is_given_back_once(rng):
    _, quick = make_pair(rng, **SMALL)
    x, structures = rng.standard_normal((2, 3, 8, 8), dtype="f"), numpy.ones((1, 30), bool)
    for backprop in (False, True):
        with chainer.using_config("enable_backprop", backprop):
            outputs = [quick(x, structures) for _ in range(2)]
        del outputs
        kept = [id(workspace) for _, workspace in engine.dense_net._kept]
        assert len(set(kept)) == len(kept) >= 1


def test_an_empty_mini_batch(path, rng):
    plain, quick = make_pair(rng, **SMALL)
    with chainer.using_config("train", False):
        x, structures = numpy.zeros((0, 3, 8, 8), "f"), numpy.ones((2, 30), bool)
        assert quick(x, structures).shape == plain(x, structures).shape == (2, 0, 5)


def test_a_second_forward_pass_of_forget_moves_no_statistics(path, rng):
    plain, quick = make_pair(rng, **SMALL)
    x = chainer.Variable(rng.standard_normal((4, 3, 8, 8), dtype="f"))
    for network in (plain, quick):
        y = F.forget(lambda x, n=network: F.stack(list(n(x, numpy.ones((1, 30), bool)))), x)
        F.sum(y).backward()
    for name, value in persistents(plain).items():
        assert_close(persistents(quick)[name], value, name)


def test_link_hooks_are_refused(rng):
    _, quick = make_pair(rng, **SMALL)
    quick.blocks[0].convs[0].add_hook(TimerHook())
    with pytest.raises(ValueError, match="link hooks"):
        call(quick)
    _, quick = make_pair(rng, **SMALL)
    quick.threads = 0
    with pytest.raises(ValueError, match="at least 1"):
        call(quick)


@pytest.mark.parametrize(
    ("n", "threads", "used"), [(32, 3, 2), (32, 7, 6), (32, 99, 8), (50, 3, 3)]
)
def test_no_thread_is_without_work(n, threads, used, rng):
    """One that waits for the others keeps a core busy."""
    _, quick = make_pair(rng, **SMALL)
    quick.threads = threads
    x = rng.standard_normal((n, 3, 16, 16), dtype="f")
    function, _ = apply_function(quick, x, numpy.ones((1, 30), bool))
    assert len(function._passes.workspace.threads) == used


def test_gradients_in_evaluation_mode_after_a_training_pass(path, rng):
    """Both passes work in the same arrays."""
    with chainer.using_config("dtype", numpy.float64):
        plain, quick = make_pair(rng, **SMALL)
        x = rng.standard_normal((4, 3, 8, 8))
        structures = make_structures("full", 2, 30, rng)
        for train in (True, False, True, False):
            with chainer.using_config("train", train):
                assert_same(plain, quick, x, structures, rng)
