"""The graph of the layers that several structures have in common."""

import gc

import numpy
import pytest

from chainer_sno import chainer
from chainer_sno.fast import dense_net
from chainer_sno.functions.dense_net import DenseNetFunction
from chainer_sno.links import DenseNet
from tests.chainer_sno.test_dense_net import SMALL, apply_function, make_structures


def graphs_of(network, structures):
    return DenseNetFunction(structures, network)._graphs(structures, True)


def consumers_of(graph):
    """Return the number and the maps of each consumer."""
    maps = numpy.split(graph.rows[:-1], graph.ends[:-1])
    return [(number, *own) for number, own in zip(graph.numbers.tolist(), map(list, maps))]


def test_equal_structures_are_computed_once():
    network = DenseNet(**SMALL)
    structure = numpy.random.default_rng(0).random((1, len(network.costs))) < 0.5
    alone = graphs_of(network, structure)
    for graph, expected in zip(graphs_of(network, structure.repeat(3, axis=0)), alone):
        assert consumers_of(graph) == consumers_of(expected)
        assert (graph.inputs, graph.exits) == (1, [0, 0, 0])
        numpy.testing.assert_array_equal(graph.maps, expected.maps.repeat(3, axis=0))


def test_the_layers_behind_a_difference_are_computed_twice():
    network = DenseNet(depth=10, blocks=2, growth_rate=3, first_channels=4, classes=5)
    structures = numpy.ones((2, len(network.costs)), bool)
    # The bits of a block of three layers: one for layer 0, two for layer 1, then three and four.
    structures[1, 1] = False  # layer 1 of block 1 does not take the block's input
    first, second = graphs_of(network, structures)
    # Maps: 4 of the input, 3 of each layer of the first structure, then two layers of the second.
    start, own, other = list(range(7)), list(range(7, 10)), list(range(13, 16))
    assert [(number, [*maps]) for number, *maps in consumers_of(first)] == [
        (0, start[:4]),
        (1, start),
        (2, start + own),
        (1, start[4:]),
        (2, start + other),
        (3, [*start, *own, *range(10, 13)]),
        (3, [*start, *other, *range(16, 19)]),
    ]
    assert first.exits == [0, 1]
    assert second.inputs == 2
    assert len(second.numbers) == 8  # nothing of block 2 is common


def test_a_common_layer_is_needed_if_any_structure_uses_it():
    """A layer that one structure uses needs a gradient, whether or not another one uses it."""
    network = DenseNet(depth=7, blocks=1, growth_rate=3, first_channels=4, classes=5)
    structures = numpy.zeros((2, len(network.costs)), bool)
    structures[:, [0, 6]] = True  # layer 0 takes the input, and so does the exit
    structures[1, 7] = True  # the exit takes layer 0
    (graph,) = graphs_of(network, structures)
    assert [number for number, *_ in consumers_of(graph)] == [0, 1, 2, 3, 3]
    assert graph.needed.tolist() == [1, 0, 0, 1, 1]
    (graph,) = DenseNetFunction(structures, network)._graphs(structures[:1], False)
    assert graph.computed.tolist() == [0, 0, 0, 1]


def test_what_is_in_memory_from_before_does_not_matter(rng):
    """Layers that lead nowhere in one structure or in all have no gradient, not an old one."""
    network = DenseNet(**SMALL)
    x = rng.standard_normal((4, 3, 8, 8), dtype="f")

    def gradients(structures):
        network.cleargrads()
        y = network(x, structures)
        chainer.functions.sum(y * y).backward()
        return [parameter.grad for parameter in network.params()]

    for kind in ("sparse", "alike", "single"):
        structures = make_structures(kind, 3, len(network.costs), rng)
        expected = gradients(structures)
        gc.collect()
        workspace = dense_net._kept[-1][1]
        for array in (workspace.gx, *workspace.gin, workspace.y, *workspace.pooled):
            array[...] = numpy.nan
        for found, before in zip(gradients(structures), expected):
            numpy.testing.assert_array_equal(found, before)


@pytest.mark.parametrize("kind", ["random", "alike", "same"])
@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("backprop", [False, True])
def test_a_structure_has_the_outputs_that_it_has_alone(backprop, train, kind, dtype, rng):
    """To the bit.  Without a backward pass, a group of the structures is computed at a time."""
    with chainer.using_config("dtype", dtype):
        network = DenseNet(**SMALL)
    x = rng.standard_normal((20, 3, 8, 8)).astype(dtype)
    lam = 2 * dense_net.TOGETHER + 3
    structures = make_structures(kind, lam, len(network.costs), rng)

    def call(structures):
        function, y = apply_function(network, x, structures)
        return y, [numpy.array(statistics) for statistics in function.statistics]

    with chainer.using_config("train", train), chainer.using_config("enable_backprop", backprop):
        y, statistics = call(structures)
        for s in range(lam):
            own, expected = call(structures[s : s + 1])
            numpy.testing.assert_array_equal(y[s], own[0])
            if train:
                for found, alone in zip(statistics, expected):
                    numpy.testing.assert_array_equal(found[s], alone[0])
