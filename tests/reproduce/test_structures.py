import itertools

import numpy
import pytest

from reproduce import structures


def every_path(matrix):
    """Every path from the block's input to its exit, both included, the shortest first."""
    layers = len(matrix) - 1
    for count in range(layers + 1):
        for path in itertools.combinations(range(1, layers + 1), count):
            nodes = [0, *path, layers + 1]
            if all(matrix[b - 1, a] for a, b in zip(nodes, nodes[1:])):
                yield nodes


def test_depth_of_the_full_and_of_the_dead_network():
    assert structures.depth(numpy.ones(273), 3, 12) == 40
    assert structures.depth(numpy.zeros(273), 3, 12) is None
    # Only the exits' connections to the blocks' inputs: first convolution, transitions, classifier.
    structure = numpy.zeros((3, 91))
    structure[:, 78] = 1
    assert structures.depth(structure.ravel(), 3, 12) == 4


def test_matrices_are_in_the_order_of_the_bits():
    bits = numpy.zeros(2 * 6)
    bits[[0, 2, 8, 11]] = 1
    first, second = structures.block_matrices(bits, 2, 2)
    assert numpy.argwhere(first).tolist() == [[0, 0], [1, 1]]
    assert numpy.argwhere(second).tolist() == [[1, 1], [2, 2]]


@pytest.mark.parametrize("density", [0.2, 0.4, 0.7])
def test_depth_and_use_by_trying_every_path(density, rng):
    for _ in range(30):
        bits = rng.random(21) < density
        (matrix,) = structures.block_matrices(bits, 1, 5)
        paths = list(every_path(matrix))
        expected = len(paths[-1]) - 2 if paths else None
        assert structures.positions(matrix)[-1] == expected
        path = structures.longest_path(matrix)
        if expected is None:
            assert path is None
        else:
            assert path in paths
            assert len(path) == expected + 2
        on_path = {node for nodes in paths for node in nodes}
        assert structures.useful(matrix) == [layer in on_path for layer in range(1, 6)]
        direct = [layer for layer in range(1, 6) if [0, layer, 6] in paths]
        alone = [each for each in direct if sum(each in nodes for nodes in paths) == 1]
        assert structures.direct(matrix) == len(alone)
        used = numpy.zeros_like(matrix)
        for nodes in paths:
            used[[consumer - 1 for consumer in nodes[1:]], nodes[:-1]] = True
        assert (structures.used(matrix) == used).all()
