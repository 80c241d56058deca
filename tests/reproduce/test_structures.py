import itertools

import numpy
import pytest

from reproduce import structures


def longest_by_search(matrix):
    """The most layers on a path from the block's input to its exit, trying every path."""
    layers = len(matrix) - 1
    best = None
    for count in range(layers + 1):
        for path in itertools.combinations(range(1, layers + 1), count):
            nodes = [0, *path, layers + 1]
            if all(matrix[b - 1, a] for a, b in zip(nodes, nodes[1:])):
                best = count
    return best


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
        expected = longest_by_search(matrix)
        assert structures.positions(matrix)[-1] == expected
        path = structures.longest_path(matrix)
        if expected is None:
            assert path is None
        else:
            assert (path[0], path[-1], len(path)) == (0, 6, expected + 2)
            assert all(matrix[b - 1, a] for a, b in zip(path, path[1:]))
        # A layer is of use exactly when the longest path changes for some choice without it.
        for layer, found in enumerate(structures.useful(matrix)):
            on_path = any(
                all(matrix[b - 1, a] for a, b in zip(nodes, nodes[1:]))
                for count in range(5)
                for others in itertools.combinations(set(range(1, 6)) - {layer + 1}, count)
                for nodes in [[0, *sorted([*others, layer + 1]), 6]]
            )
            assert found == on_path
