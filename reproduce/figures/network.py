"""Figure 2: an obtained DenseNet, drawn."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path

from reproduce import structures
from reproduce._types import Array
from reproduce.figures.style import BLUE, RED, WIDTH, YELLOW, printed, wrap

#: Inches: between columns at the most, between the cells of a column, and half of the boxes of a
#: layer and of an end, which is written upwards.
_COLUMN, _ROW = 0.75, 0.3
_HALF_CELL = numpy.array([0.11, 0.1])
_HALF_END = numpy.array([0.1, 0.24])
#: Inches: beside the columns, around a block, for a block's title, for a line of the figure's.
_SIDE, _AIR, _BLOCK_TITLE, _LINE = 0.3, 0.06, 0.24, 0.15
#: How far a connection may be bent away from the straight line, as a fraction of its length.  The
#: gap between two layers of a column is narrow, so the steps are small.
_BENDS = tuple(round(0.03 * i, 2) for i in range(21))
#: Inches: how far it may be bent at the most, so that the figure fits a page.
_HIGHEST = 1.2
#: What a bent connection costs, one through a cell, and one beside another.
_COST_OF_BEND, _COST_OF_CELL, _COST_OF_CURVE = 8, 10, 0.08
#: Inches: curves closer than this are hard to tell apart.
_CLOSE = 0.05
#: Source and consumer of a connection, and the corners of its curve.
Connection: TypeAlias = tuple[int, int, Array]


@printed
def densenet(structure: Sequence[Any], blocks: int, layers: int, title: str) -> Figure:
    """Draw Figure 2: an obtained DenseNet, cells of the same depth in the same column.

    A row is a block, from its input on the left to its exit on the right.  The numbers in the
    cells are the depths of the layers in the full network.  A longest path, which makes the depth,
    is drawn thick.  Layers that are on no path from the images to the classifier are left out; the
    title counts them.

    Args:
        structure (array): bits in the order of the DenseNet link, shape (d,).
        blocks (int): blocks of the network.
        layers (int): layers of a block.
        title (str): says which run it is.

    Returns:
        matplotlib.figure.Figure: the figure.
    """
    matrices = structures.block_matrices(structure, blocks, layers)
    on_grid = [_place_cells(matrix) for matrix in matrices]
    columns = max(x for cells in on_grid for x, _ in cells.values())
    step = min(_COLUMN, (WIDTH - 2 * _SIDE) / columns)
    placed = [
        {cell: numpy.array([x * step, y * _ROW]) for cell, (x, y) in cells.items()}
        for cells in on_grid
    ]
    routed = [_route(matrix, cells) for matrix, cells in zip(matrices, placed)]
    reach = [_reach(cells, connections) for cells, connections in zip(placed, routed)]
    left_out = sum(layers + 2 - len(cells) for cells in placed)
    told = _told(structures.depth(structure, blocks, layers), left_out)
    title = wrap(f"{title}\n{told}")
    title_height = _LINE * (title.count("\n") + 1) + _AIR
    height = title_height + sum(top - bottom + _BLOCK_TITLE for bottom, top in reach)
    figure = Figure(figsize=(WIDTH, height))
    y = height - title_height
    for block, (matrix, cells, connections) in enumerate(zip(matrices, placed, routed)):
        bottom, top = reach[block]
        y -= _BLOCK_TITLE + top - bottom
        # Data in inches, so that curves are drawn as they were routed.
        axes = figure.add_axes((0, y / height, 1, (top - bottom) / height))
        axes.set_xlim(-_SIDE, WIDTH - _SIDE)
        axes.set_ylim(bottom, top)
        axes.set_axis_off()
        path = structures.longest_path(matrix) or []
        _draw_block(axes, cells, connections, _names(block, blocks, layers), path)
        axes.set_title(_counted(block, matrix, connections), loc="left", x=0.02, pad=2, fontsize=8)
    figure.suptitle(title, y=1 - _AIR / height)
    return figure


def _told(depth: int | None, left_out: int) -> str:
    """Return what the title says of a structure: its depth, and how many layers are left out."""
    told = "dead, no path to the classifier"
    if depth is not None:
        told = f"depth {depth}, a longest path thick"
    if left_out:
        told += f", {left_out} layer{'s' * (left_out > 1)} on no path left out"
    return told


def _counted(block: int, matrix: Array, connections: Sequence[Connection]) -> str:
    """Return the title of a block: how many connections it has."""
    consumers = len(matrix)
    count, full = int(matrix.sum()), consumers * (consumers + 1) // 2
    counted = f"block {block + 1}: {count} of {full} connections"
    if len(connections) < count:
        counted += f", {len(connections)} of them on a path"
    return counted


def _names(block: int, blocks: int, layers: int) -> dict[int, str]:
    """Return what is written into the cells of a block."""
    first = 2 + block * (layers + 1)
    names = {0: f"Trans{block}" if block else "Conv"}
    names.update({i: str(first + i - 1) for i in range(1, layers + 1)})
    names[layers + 1] = f"Trans{block + 1}" if block + 1 < blocks else "Class"
    return names


def _reach(cells: Mapping[int, Array], connections: Iterable[Connection]) -> tuple[float, float]:
    """Return what lies below and above the middle of a block, in inches."""
    ends = [
        place[1] + side * _half(cell, cells)[1] for cell, place in cells.items() for side in (-1, 1)
    ]
    for *_, corners in connections:
        ends += _points(corners, numpy.linspace(0, 1, 41))[:, 1].tolist()
    return min(ends) - _AIR, max(ends) + _AIR


def _place_cells(matrix: Array) -> dict[int, tuple[int, float]]:
    """Return the places of the cells of a block: x is the depth, y spreads those of a column."""
    exit_ = len(matrix)
    depths = structures.positions(matrix)
    columns: dict[Any, list[int]] = {}
    for layer, use in enumerate(structures.useful(matrix), 1):
        if use:
            columns.setdefault(depths[layer - 1], []).append(layer)
    cells = {0: (0, 0.0)}
    for column, layers in columns.items():
        for i, layer in enumerate(layers):
            cells[layer] = column, (len(layers) - 1) / 2 - i
    cells[exit_] = (depths[-1] or 0) + 1, 0.0
    return cells


def _half(cell: int, cells: Mapping[int, Any]) -> Array:
    """Return half the width and height of the box of a cell."""
    return _HALF_END if cell in (0, max(cells)) else _HALF_CELL


def _points(corners: Array, t: Any) -> Array:
    """Return points of the quadratic curve with these three corners, of shape (len(t), 2)."""
    return _weighted([(1 - t) ** 2, 2 * t * (1 - t), t**2], corners)


def _weighted(weights: Sequence[Any], corners: Array) -> Array:
    """Return sums of three corners with weights, of the shape of a weight and a corner.

    No product of matrices: the kernels of a BLAS differ between processors in the last bit, and
    with them the bytes of a file.
    """
    return sum(numpy.multiply.outer(w, corner) for w, corner in zip(weights, corners))


def _outside(source: int, consumer: int, corners: Array, cells: Mapping[int, Array]) -> Array:
    """Return the corners of the part of a curve that lies outside the boxes at its ends."""
    t = numpy.linspace(0, 1, 201)
    free = numpy.ones(len(t), dtype=bool)
    for cell in (source, consumer):
        apart = numpy.abs(_points(corners, t) - cells[cell])
        free &= (apart > _half(cell, cells)).any(axis=1)
    first, last = t[free][[0, -1]]
    middle = [(1 - first) * (1 - last), first + last - 2 * first * last, first * last]
    return numpy.array(
        [_points(corners, first), _weighted(middle, corners), _points(corners, last)]
    )


def _route(matrix: Array, cells: Mapping[int, Array]) -> list[Connection]:
    """Return the connections between cells: source, consumer, and the corners of their curve.

    Short connections come first.  Each takes the bend with which it runs through no other cell and
    beside no other curve, as far as there is one.
    """
    pairs = [(j, i + 1) for i, j in numpy.argwhere(structures.used(matrix)).tolist()]
    pairs.sort(key=lambda pair: (cells[pair[1]][0] - cells[pair[0]][0], pair))
    t = numpy.linspace(0, 1, 81)
    grid = numpy.arange(0, cells[max(cells)][0], 0.08)
    heights: list[Array] = []
    found: list[Connection] = []
    for source, consumer in pairs:
        start, end = cells[source], cells[consumer]
        length = end[0] - start[0]
        best: tuple[Any, ...] = (numpy.inf,)
        bends = [side * bend for bend in _BENDS for side in (1, -1) if bend * length <= _HIGHEST]
        for bend in bends:
            corners = numpy.array([start, (start + end) / 2 + (0, 2 * bend * length), end])
            curve = _points(corners, t)
            along, up = curve.T
            height = numpy.interp(grid, along, up, numpy.nan, numpy.nan)
            cost = _COST_OF_BEND * abs(bend) * length**0.5
            for cell, place in cells.items():
                if cell not in (source, consumer):
                    near = numpy.abs(curve - place) < _half(cell, cells) + _AIR / 2
                    cost += _COST_OF_CELL * near.all(axis=1).any()
            if heights:
                apart = numpy.nan_to_num(numpy.abs(heights - height), nan=numpy.inf)
                cost += _COST_OF_CURVE * numpy.exp(-((apart / _CLOSE) ** 2)).sum()
            if cost < best[0]:
                best = cost, height, corners
        _, height, corners = best
        heights.append(height)
        found.append((source, consumer, _outside(source, consumer, corners, cells)))
    return found


def _draw_block(
    axes: Any,
    cells: Mapping[int, Array],
    connections: Iterable[Connection],
    names: Mapping[int, str],
    path: Sequence[int],
) -> None:
    """Draw the cells of a block and the connections between them."""
    longest = set(zip(path, path[1:]))
    for source, consumer, corners in connections:
        thick = (source, consumer) in longest
        axes.add_patch(
            FancyArrowPatch(
                path=Path(corners, [Path.MOVETO, Path.CURVE3, Path.CURVE3]),
                arrowstyle="-|>,head_length=3,head_width=1.2",
                mutation_scale=1,
                color=RED if thick else BLUE,
                alpha=1.0 if thick else 0.7,
                linewidth=1.5 if thick else 0.6,
                zorder=2 if thick else 1,
            )
        )
    for cell, place in cells.items():
        end = cell in (0, max(names))
        half = _half(cell, cells)
        (left, bottom), (width, height) = place - half + 0.01, 2 * half - 0.02
        box = FancyBboxPatch(
            (left, bottom),
            width,
            height,
            boxstyle="round,pad=0,rounding_size=0.04",
            facecolor=YELLOW if end else "white",
            edgecolor="black",
            linewidth=0.6,
            zorder=3,
        )
        axes.add_patch(box)
        axes.text(
            *place,
            names[cell],
            ha="center",
            va="center",
            fontsize=7,
            rotation=90 if end else 0,
            zorder=4,
        )
