"""The structure of a DenseNet as a graph: its paths and its depth."""

from collections.abc import Iterable
from typing import Any

import numpy

from reproduce._types import Array


def block_matrices(structure: Iterable[Any], blocks: int, layers: int) -> list[Array]:
    """Return the connections of each block as a matrix.

    Args:
        structure (array): bits in the order of :class:`chainer_sno.links.DenseNet`, shape (d,).
        blocks (int): blocks of the network.
        layers (int): layers of a block.

    Returns:
        list of numpy.ndarray: bool of shape (layers + 1, layers + 1) each; entry (i, j) is whether
        consumer i (the layers, then the exit) takes input j (the block's input, then the layers).
    """
    bits = iter(numpy.asarray(structure, dtype=bool).tolist())
    matrices = []
    for _ in range(blocks):
        matrix = numpy.zeros((layers + 1, layers + 1), dtype=bool)
        for consumer in range(layers + 1):
            for source in range(consumer + 1):
                matrix[consumer, source] = next(bits)
        matrices.append(matrix)
    return matrices


def positions(matrix: Array) -> list[int | None]:
    """Return the depth of each layer of a block and of its exit.

    Args:
        matrix (numpy.ndarray): of :func:`block_matrices`.

    Returns:
        list: for each consumer the layers on the longest path from the block's input through it,
        itself counted; the exit's is that of the path that ends there.  None where no path leads
        from the input.
    """
    exit_ = len(matrix) - 1
    depths: list[int | None] = [0]
    for consumer, row in enumerate(matrix):
        inputs = (depths[source] for source in numpy.flatnonzero(row))
        reached = [depth for depth in inputs if depth is not None]
        depths.append(max(reached) + (consumer < exit_) if reached else None)
    return depths[1:]


def longest_path(matrix: Array) -> list[int] | None:
    """Return a longest path of a block, the first of several.

    Args:
        matrix (numpy.ndarray): of :func:`block_matrices`.

    Returns:
        list of int: the layers on it, from 1, between the block's input, 0, and its exit, the
        number of layers + 1, both included; None where no path leads from the input to the exit.
    """
    depths = [0, *positions(matrix)]
    if depths[-1] is None:
        return None
    path = [len(matrix)]
    while path[0]:
        sources = numpy.flatnonzero(matrix[path[0] - 1]).tolist()
        path.insert(0, max(sources, key=lambda i: -1 if depths[i] is None else depths[i]))
    return path


def useful(matrix: Array) -> list[bool]:
    """Return which layers of a block lie on a path from its input to its exit.

    Args:
        matrix (numpy.ndarray): of :func:`block_matrices`.

    Returns:
        list of bool: one for each layer.
    """
    layers = len(matrix) - 1
    forward = positions(matrix)
    wanted = [False] * layers + [True]
    for consumer in reversed(range(layers + 1)):
        if wanted[consumer]:
            for source in numpy.flatnonzero(matrix[consumer]):
                if source:
                    wanted[source - 1] = True
    return [wanted[i] and forward[i] is not None for i in range(layers)]


def used(matrix: Array) -> Array:
    """Return which connections of a block lie on a path from its input to its exit.

    Args:
        matrix (numpy.ndarray): of :func:`block_matrices`.

    Returns:
        numpy.ndarray: bool, as ``matrix``, with the others left out.
    """
    on_path = numpy.array([True, *useful(matrix), True])
    return matrix & on_path[1:, None] & on_path[:-1]


def width(matrix: Array) -> int:
    """Return the largest number of useful layers of a block at the same depth.

    Args:
        matrix (numpy.ndarray): of :func:`block_matrices`.

    Returns:
        int: 0 where no layer is on a path.
    """
    depths = [depth for depth, use in zip(positions(matrix), useful(matrix)) if use]
    return max(map(depths.count, depths), default=0)


def direct(matrix: Array) -> int:
    """Return how many useful layers of a block stand alone between its input and its exit.

    Such a layer takes no other layer's output, and no other layer takes its output: in a block of
    these alone, the paper's wide structure (section 4.2), all layers are parallel.

    Args:
        matrix (numpy.ndarray): of :func:`block_matrices`.

    Returns:
        int: a number of layers.
    """
    on_path = used(matrix)
    inner = on_path[:-1, 1:]
    alone = on_path[:-1, 0] & on_path[-1, 1:] & ~inner.any(axis=0) & ~inner.any(axis=1)
    return int(alone.sum())


def depth(structure: Iterable[Any], blocks: int, layers: int) -> int | None:
    """Return the depth of the network: the weight layers on its longest path.

    As a full DenseNet of depth 40 has 1 + 3 * 12 + 2 + 1: the first convolution, the layers, the
    transitions and the classifier.

    Args:
        structure (array): bits, shape (d,).
        blocks (int): blocks of the network.
        layers (int): layers of a block.

    Returns:
        int: the depth; None where no path leads from the images to the classifier, and the
        network is dead.
    """
    exits = [positions(matrix)[-1] for matrix in block_matrices(structure, blocks, layers)]
    whole = blocks + 1
    for layers_on_path in exits:
        if layers_on_path is None:
            return None
        whole += layers_on_path
    return whole
