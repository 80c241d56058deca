"""Figures from records."""

from pathlib import Path

import matplotlib
import numpy

from reproduce import structures
from reproduce.files import replacing

matplotlib.use("agg")
from matplotlib import pyplot

#: Colours that the colour-blind tell apart (Okabe and Ito), and markers that print in grey.
STYLES = {
    "sno": ("proposed method", "#0072B2", "o"),
    "fixed": ("fixed structure", "#D55E00", "s"),
    "random": ("random selection", "#D55E00", "s"),
    "dropout": ("Dropout", "#009E73", "^"),
}


def save(figure, path):
    """Save a figure as PNG and SVG, the same bytes from the same numbers.

    Args:
        figure (matplotlib.figure.Figure): the figure.
        path (pathlib.Path): without an ending.

    Returns:
        list of pathlib.Path: the files.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    written = []
    with matplotlib.rc_context({"svg.hashsalt": "chainer_sno"}):
        for ending, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
            target = path.with_name(f"{path.name}.{ending}")
            with replacing(target) as file:
                figure.savefig(file, format=ending, dpi=150, metadata=metadata)
            written.append(target)
    pyplot.close(figure)
    return written


def usage_rate_against_error(records, title):
    """Draw Figure 1: the usage rate against the test error, medians and quartiles over trials.

    Args:
        records (list of dict): of one experiment, all at one schedule.
        title (str): says what the runs are.

    Returns:
        matplotlib.figure.Figure: the figure.
    """
    figure, axes = pyplot.subplots(figsize=(6.4, 4.4), layout="constrained")
    for method, (label, colour, marker) in STYLES.items():
        groups = {}
        for record in records:
            if record["settings"]["method"] == method:
                settings = record["settings"]
                setting = [settings.get(name) for name in ("epsilon0", "width", "usage_rate")]
                result = record["result"]
                groups.setdefault(tuple(setting), []).append(
                    (100 * result["usage_rate"], 100 * result["test_error"])
                )
        if not groups:
            continue
        # An array of shape (quartile, setting, what), in the order of the median usage rate.
        quartiles = numpy.array(
            [numpy.quantile(found, (0.25, 0.5, 0.75), axis=0) for found in groups.values()]
        ).transpose(1, 0, 2)
        low, median, high = quartiles[:, numpy.argsort(quartiles[1, :, 0], kind="stable")]
        axes.errorbar(
            *median.T,
            xerr=numpy.abs([median[:, 0] - low[:, 0], high[:, 0] - median[:, 0]]),
            yerr=numpy.abs([median[:, 1] - low[:, 1], high[:, 1] - median[:, 1]]),
            label=label,
            color=colour,
            marker=marker,
            capsize=3,
            linewidth=1.2,
        )
    axes.set_xlabel("usage rate of M*, sum of c m / sum of c [%]")
    axes.set_ylabel("test error [%]")
    axes.set_xlim(0, 103)
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def densenet(structure, blocks, layers, title):
    """Draw Figure 2: an obtained DenseNet, cells of the same depth in the same column.

    A row is a block, from its input on the left to its exit on the right.  The numbers in the
    cells are the depths of the layers in the full network.  Layers that are on no path from the
    images to the classifier are left out; the title counts them.

    Args:
        structure (array): bits in the order of the DenseNet link, shape (d,).
        blocks (int): blocks of the network.
        layers (int): layers of a block.
        title (str): says which run it is.

    Returns:
        matplotlib.figure.Figure: the figure.
    """
    matrices = structures.block_matrices(structure, blocks, layers)
    placed = [_place_cells(matrix) for matrix in matrices]
    curves = [_connections(matrix, cells) for matrix, cells in zip(matrices, placed)]
    columns = max(max(x for x, _ in cells.values()) for cells in placed)
    # Above and below the middle: the cells, the bends of the connections, and some air.
    heights = [
        2
        * max([0.6, *(abs(y) + 0.4 for _, y in cells.values()), *(abs(h) + 0.2 for *_, h in found)])
        for cells, found in zip(placed, curves)
    ]
    figure = pyplot.figure(figsize=(max(6.0, columns + 1.4), sum(heights) + 0.45 * blocks + 0.6))
    rows = figure.subplots(blocks, 1, height_ratios=heights, squeeze=False)
    figure.subplots_adjust(0.01, 0.01, 0.99, 1 - 0.8 / figure.get_figheight(), hspace=0.12)
    left_out = 0
    for block, (axes, cells, found, height) in enumerate(zip(rows[:, 0], placed, curves, heights)):
        first = 2 + block * (layers + 1)
        names = {0: f"Trans{block}" if block else "Conv"}
        names.update({i: str(first + i - 1) for i in range(1, layers + 1)})
        names[layers + 1] = f"Trans{block + 1}" if block + 1 < blocks else "Class"
        left_out += layers + 2 - len(cells)
        _draw_block(axes, cells, found, names)
        axes.set_xlim(-0.7, columns + 0.7)
        axes.set_ylim(-height / 2, height / 2)
        axes.set_aspect("equal", anchor="W")
        count = int(matrices[block].sum())
        full = layers * (layers + 1) // 2 + layers + 1
        title_of = f"block {block + 1}: {count} of {full} connections"
        axes.set_title(title_of, fontsize=9, loc="left", pad=1)
        axes.set_axis_off()
    depth = structures.depth(structure, blocks, layers)
    told = "dead, no path to the classifier" if depth is None else f"depth {depth}"
    unused = f", {left_out} layers on no path left out" if left_out else ""
    figure.suptitle(f"{title}: {told}{unused}", fontsize=11)
    return figure


def _place_cells(matrix):
    """Return the places of the cells of a block: x is the depth, y spreads those of a column."""
    exit_ = len(matrix)
    depths = structures.positions(matrix)
    columns = {}
    for layer, use in enumerate(structures.useful(matrix), 1):
        if use:
            columns.setdefault(depths[layer - 1], []).append(layer)
    cells = {0: (0, 0.0)}
    for column, layers in columns.items():
        for i, layer in enumerate(layers):
            cells[layer] = column, 0.8 * ((len(layers) - 1) / 2 - i)
    cells[exit_] = (depths[-1] or 0) + 1, 0.0
    return cells


def _connections(matrix, cells):
    """Return the connections between cells: source, consumer, bend, and how far that reaches.

    A connection that skips columns is bent around the cells between, upwards from a cell in the
    upper half and downwards from one in the lower, even and odd spans on either side in between.
    """
    found = []
    for consumer in range(1, len(matrix) + 1):
        for source in numpy.flatnonzero(matrix[consumer - 1]).tolist():
            if consumer in cells and source in cells:
                (x0, y0), (x1, y1) = cells[source], cells[consumer]
                span = x1 - x0
                side = (y0 + y1) or (1 if span % 2 else -1)
                bend = 0.0 if span <= 1 else (0.15 + 0.25 / span) * (1 if side > 0 else -1)
                # A quadratic curve reaches half way to its control point.
                found.append((source, consumer, bend, (y0 + y1) / 2 + bend * span / 2))
    return found


def _draw_block(axes, cells, connections, names):
    """Draw the cells of a block and the connections between them."""
    for source, consumer, bend, _ in connections:
        axes.annotate(
            "",
            cells[consumer],
            cells[source],
            arrowprops={
                "arrowstyle": "-|>",
                "color": "#0072B2",
                "alpha": 0.5,
                "linewidth": 0.9,
                "shrinkA": 11,
                "shrinkB": 11,
                "connectionstyle": f"arc3,rad={-bend}",
            },
        )
    for cell, place in cells.items():
        end = cell in (0, max(names))
        axes.text(
            *place,
            names[cell],
            ha="center",
            va="center",
            fontsize=8 if end else 9,
            bbox={
                "boxstyle": "round,pad=0.35",
                "facecolor": "#F0E442" if end else "white",
                "edgecolor": "black",
                "linewidth": 0.8,
            },
        )
