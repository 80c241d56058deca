"""Compact networks against the searchable ones that they come from."""

import numpy
import pytest

from chainer_sno import ArrayIterator, Bernoulli, chainer, compact, extensions, links
from chainer_sno.links.compact_dense_net import Convolution3x3
from tests.chainer_sno.test_dense_net import SMALL

F = chainer.functions
TOLERANCE = {"float64": 1e-12, "float32": 1e-5}


@pytest.fixture(autouse=True)
def evaluating():
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        yield


def make_dense_net(rng, kind=links.PlainDenseNet, **arguments):
    """Return a DenseNet as after a training: BN of every consumer has numbers of its own."""
    network = kind(**{**SMALL, **arguments})
    for link in network.links():
        if isinstance(link, chainer.links.BatchNormalization):
            for parameter in link.params():
                parameter.array += 0.5 * rng.standard_normal(parameter.shape)
            link.avg_mean[...] = rng.standard_normal(link.avg_mean.shape)
            link.avg_var[...] = rng.uniform(0.3, 2, link.avg_var.shape)
    network.classifier.b.array[...] = rng.standard_normal(network.classes)
    return network


def assert_same(found, expected):
    """Compare outputs relative to the largest."""
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    scale = abs(expected).max()
    numpy.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE[found.dtype.name] * scale)


def structure_of(*blocks):
    """Return bits from a list for each consumer of each block of the inputs that it takes."""
    return numpy.array(
        [
            source in taken
            for block in blocks
            for i, taken in enumerate(block)
            for source in range(i + 1)
        ]
    )


@pytest.mark.parametrize("kind", [links.PlainDenseNet, links.DenseNet])
def test_a_compact_dense_net_computes_the_same_at_random_structures(kind, dtype, rng):
    network = make_dense_net(rng, kind)
    x = rng.standard_normal((3, 3, 8, 12)).astype(dtype)
    constants = {"layer": 0, "transition": 0, "exit": 0, "only": 0}
    alive = 0
    while alive < 40:
        structure = rng.random(len(network.costs)) < rng.choice([0.25, 0.4, 0.6, 0.8])
        try:
            small = compact(network, structure)
        except ValueError:
            continue
        alive += 1
        assert_same(small(x).array, network(x, structure[None]).array[0])
        assert small.count_params() < network.count_params() or structure.all()
        *first, last = small.geometry["inputs"]
        constants["layer"] += any("ones" in taken for block in first for taken in block[:-1])
        constants["transition"] += any("ones" in block[-1] for block in first)
        constants["exit"] += "ones" in last[-1]
        constants["only"] += any(taken == ["ones"] for block in first for taken in block)
    assert min(constants.values()) > 0, constants


def test_a_compact_dense_net_with_everything_is_the_whole_one(dtype, rng):
    network = make_dense_net(rng)
    structure = numpy.ones(len(network.costs), dtype=bool)
    small = compact(network, structure)
    for shape in [(2, 3, 8, 8), (1, 3, 4, 16)]:
        x = rng.standard_normal(shape).astype(dtype)
        assert_same(small(x).array, network(x, structure[None]).array[0])
    assert small.count_params() == network.count_params()
    assert small.geometry == {
        "inputs": [[[0], [0, 1], [0, 1, 2], [0, 1, 2, 3]]] * 3,
        "channels": [4, 13, 22],
        "growth_rate": 3,
        "classes": 5,
        "in_channels": 3,
    }


def test_what_leads_nowhere_is_gone_and_constants_stay(dtype, rng):
    network = make_dense_net(rng)
    structure = structure_of(
        # Layer 1 has no input; 2 takes it and 0; 3 leads nowhere.
        [[], [0, 1], [0, 1, 2], [2]],
        # Layers 1 and 2 depend on no image, and the transition takes both of them.
        [[], [1], [0], [0, 1, 2]],
        # The block's input and the zeros of layer 3 go to the classifier; 1 and 2 lead nowhere.
        [[0], [0, 1], [], [0, 3]],
    )
    small = compact(network, structure)
    assert small.geometry["inputs"] == [
        [[0, "ones"], [1]],
        [["ones"], [0, 1, "ones"]],
        [[0, "ones"]],
    ]
    shapes = [p.shape for name, p in sorted(small.namedparams()) if name.endswith("W")]
    assert sorted(shapes) == sorted(
        # In block 1 layer 2 and a transition of 13, in block 2 layer 2 and a transition of 22.
        [(4, 3, 3, 3), (3, 5, 3, 3), (13, 3, 1, 1), (3, 1, 3, 3), (22, 16, 1, 1), (5, 22)]
    )
    x = rng.standard_normal((2, 3, 8, 8)).astype(dtype)
    assert_same(small(x).array, network(x, structure[None]).array[0])


@pytest.mark.parametrize(
    "block",
    [
        [[], [], [], []],  # nothing at all
        [[0], [1], [2], []],  # no way into the exit
        [[], [1], [2], [1, 2, 3]],  # no way from the input
        [[0], [0, 1], [], [3]],
    ],
)
@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_dead_dense_net_is_refused_with_one_line(block, position, rng):
    network = make_dense_net(rng)
    blocks = [[[0], [1], [2], [3]]] * 3
    compact(network, structure_of(*blocks))
    blocks[position] = block
    with pytest.raises(ValueError, match=r"no path leads through every block, .*images$"):
        compact(network, structure_of(*blocks))
    x = rng.standard_normal((2, 3, 8, 8)).astype("f")
    y = network(x, structure_of(*blocks)[None]).array[0]
    numpy.testing.assert_array_equal(y[0], y[1], "it was not dead")


def test_structures_and_images_of_other_sizes_are_refused(rng):
    network = make_dense_net(rng)
    with pytest.raises(ValueError, match=r"shape \(30,\), one entry for each bit"):
        compact(network, numpy.ones(29, dtype=bool))
    small = compact(network, numpy.ones(30, dtype=bool))
    with pytest.raises(ValueError, match="multiples of 4"):
        small(numpy.zeros((1, 3, 8, 6), "f"))


@pytest.mark.parametrize(
    ("inputs", "channels"),
    [
        ([[[0], [0, 1]]], [4, 5]),
        ([], []),
        ([[]], [4]),
        ([[[0], []]], [4]),
        ([[[0], ["ones"]]], [4]),
        ([[[], [0]]], [4]),
        ([[[0, 0], [0]]], [4]),
        ([[[1], [0]]], [4]),
        ([[["ones", 0], [0]]], [4]),
        ([[[0], [1, 0]]], [4]),
        ([[[0], ["twos", 0]]], [4]),
    ],
)
def test_a_geometry_that_is_none_is_refused(inputs, channels):
    with pytest.raises(ValueError, match="takes|inputs of a consumer must be"):
        links.CompactDenseNet(inputs, channels, growth_rate=3, classes=5)


def test_a_compact_dense_net_can_be_trained_on(rng):
    network = compact(make_dense_net(rng), structure_of(*[[[], [0, 1], [0], [0, 1, 2, 3]]] * 3))
    optimizer = chainer.optimizers.SGD(0.05).setup(network)
    x = rng.standard_normal((8, 3, 8, 8)).astype("f")
    t = rng.integers(0, 5, 8).astype("i")
    with chainer.using_config("train", True), chainer.force_backprop_mode():
        losses = []
        for _ in range(5):
            loss = F.softmax_cross_entropy(network(x), t)
            losses.append(float(loss.array))
            network.cleargrads()
            loss.backward()
            assert all(parameter.grad is not None for parameter in network.params())
            optimizer.update()
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("shape", [(2, 4, 5, 7), (1, 1, 1, 1), (3, 2, 2, 1)])
def test_the_convolution_is_chainers(shape, rng):
    with chainer.using_config("dtype", numpy.float64), chainer.force_backprop_mode():
        link = Convolution3x3(shape[1], 3, None)
        x = chainer.Parameter(rng.standard_normal(shape))
        gy = rng.standard_normal((shape[0], 3, *shape[2:]))
        found = []
        for y in (link(x), F.convolution_2d(x, link.W, pad=1)):
            link.cleargrads()
            x.cleargrad()
            F.sum(y * gy).backward()
            found.append((y.array, x.grad, link.W.grad))
    for mine, chainers in zip(*found):
        numpy.testing.assert_allclose(mine, chainers, rtol=0, atol=1e-13)


@pytest.mark.parametrize("select_inputs", [False, True])
def test_a_compact_mlp_computes_the_same(select_inputs, dtype, rng):
    link = links.MaskedMLP(9, (8, 7, 6), 4, select_inputs)
    for parameter in link.params():
        parameter.array[...] = rng.standard_normal(parameter.shape)
    x = rng.standard_normal((5, 9)).astype(dtype)
    rates = [0.5] * 20 + [1.0]
    for rate in rates:
        structure = rng.random(len(link.costs)) < rate
        structure[[group.start for group in link.groups.values()]] = True
        small = compact(link, structure)
        assert_same(small(x).array, link(x, structure[None]).array[0])
        assert small.columns == 9


@pytest.mark.parametrize("kind", [links.PlainDenseNet, links.DenseNet])
def test_a_fixed_structure_is_compacted_at_its_own(kind, rng):
    network = make_dense_net(rng, kind)
    structure = structure_of(*[[[0], [0, 1], [0], [1, 3]]] * 3)
    fixed = links.FixedStructure(network, structure)
    x = rng.standard_normal((2, 3, 8, 8)).astype("f")
    assert_same(compact(fixed)(x).array, fixed(x).array)
    mlp = links.FixedStructure(links.MaskedMLP(3, (4,), 2), [True, False, True, False])
    assert compact(mlp).widths == (3, 2, 2)


def test_what_cannot_be_compacted_is_refused(rng):
    class Searchable(chainer.Link):
        costs = numpy.ones(3)

    for link in (chainer.links.Linear(2, 3), links.FixedStructure(Searchable(), [1, 0, 1])):
        with pytest.raises(TypeError, match="cannot be compacted"):
            compact(link)


def evaluate(link, x):
    iterator = ArrayIterator((x, numpy.zeros(len(x), "i")), len(x), repeat=False, shuffle=False)
    return extensions.StructureEvaluator(iterator, link, Bernoulli(link.costs))()


def test_an_evaluation_asks_the_compact_network_unless_the_link_says_no(rng, monkeypatch):
    asked = []
    for kind in (links.MaskedMLP, links.PlainDenseNet):
        original = kind.compact
        monkeypatch.setattr(
            kind, "compact", lambda self, m, f=original: asked.append(self) or f(self, m)
        )
    mlp = links.MaskedMLP(6, (5, 4), 3)
    evaluate(mlp, rng.standard_normal((4, 6)).astype("f"))
    assert asked == [mlp]
    # The evaluations of a DenseNet are in records, to the last bit.
    for kind in (links.DenseNet, links.PlainDenseNet):
        evaluate(make_dense_net(rng, kind), rng.standard_normal((4, 3, 8, 8)).astype("f"))
    assert asked == [mlp]


@pytest.mark.gpu
def test_gpu_computes_the_same(rng):
    network = make_dense_net(rng)
    structure = structure_of(*[[[], [0, 1], [0], [0, 1, 2, 3]]] * 3)
    x = rng.standard_normal((2, 3, 8, 8)).astype("f")
    expected = compact(network, structure)(x).array
    network.to_device("@cupy:0")
    xp = network.xp
    small = compact(network, xp.asarray(structure))
    assert small.device == network.device
    assert_same(small(xp.asarray(x)).array.get(), expected)
