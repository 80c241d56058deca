"""How one training went: theta's histogram, and the size of the structure."""

from typing import Any

import numpy
from matplotlib import colors, patheffects, ticker
from matplotlib.figure import Figure

from reproduce import ReproduceError, experiments
from reproduce._types import Record
from reproduce.compare import published
from reproduce.figures.style import (
    BLACK,
    COLOURS,
    LINES,
    RED,
    label_of,
    legend_below,
    new_figure,
    printed,
    wrap,
)
from reproduce.groups import by_schedule
from reproduce.record import FRACTIONS
from reproduce.settings import format_epsilon0

_BIN = "theta/bin_"
_STRUCTURE = "structure/"


def _columns(record: Record, prefix: str) -> dict[str, list[Any]]:
    """Return the columns of the log whose names begin so."""
    log = record["log"]
    names = sorted(log, key=lambda name: (len(name), name))  # layer 10 behind layer 9
    return {name: log[name] for name in names if name.startswith(prefix)}


def has_theta_histogram(record: Record) -> bool:
    """Return whether a record's log has theta's histogram, which older ones lack."""
    return bool(_columns(record, _BIN))


def has_structure_columns(record: Record) -> bool:
    """Return whether a record's log has the size of the structure: baselines' have not."""
    return bool(_groups(record))


def _groups(record: Record) -> dict[str, list[int]]:
    """Return how many bits of each group were on, by the name of the column."""
    found = _columns(record, _STRUCTURE)
    return {name: counts for name, counts in found.items() if name not in FRACTIONS}


def title_of(record: Record) -> str:
    """Return the title of a figure of one record, in two lines."""
    (group,) = by_schedule([record])
    seed = record["settings"]["seed"]
    return f"{group.title}, {label_of(record)}, seed {seed}\n{group.schedule}"


@printed
def theta_histogram(record: Record) -> Figure:
    """Draw how many bits have which theta, over the epochs.

    Args:
        record (dict): of a run with a distribution.

    Returns:
        matplotlib.figure.Figure: the figure.

    Raises:
        ReproduceError: the record has no histogram.
    """
    columns = _columns(record, _BIN)
    if not columns:
        raise ReproduceError(
            f"the log of {record['name']!r} has no histogram of theta: only --method sno has one"
        )
    counts = numpy.ma.masked_equal(list(columns.values()), 0)
    epochs = record["log"]["epoch"]
    figure, axes = new_figure(3.6)
    # Most bits are in the first and the last bin; a logarithm shows those on their way too.
    image = axes.imshow(
        counts,
        cmap="cividis",
        norm=colors.LogNorm(1, experiments.from_dict(record["settings"]).bits),
        origin="lower",
        extent=(epochs[0] - 0.5, epochs[-1] + 0.5, 0, 1),
        aspect="auto",
        interpolation="none",
    )
    bar = figure.colorbar(image, label=f"bits in a bin of width {1 / len(counts):g}; white: none")
    bar.ax.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    outline = [patheffects.withStroke(linewidth=3, foreground="white")]
    axes.plot(
        epochs,
        record["log"]["theta/mean"],
        color=RED,
        linewidth=1.4,
        marker="o" if len(epochs) == 1 else None,
        path_effects=outline,
        label=r"mean $\theta$",
    )
    axes.axhline(0.5, color="white", linewidth=1.8)
    axes.axhline(0.5, color=BLACK, linestyle="--", linewidth=0.9, label="0.5: bits above are kept")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True, steps=(1, 2, 5, 10)))
    axes.set_ylabel(r"$\theta$, the probability that a bit is on")
    axes.set_title(wrap(title_of(record)))
    legend_below(figure, 2)
    return figure


@printed
def structure_over_training(record: Record) -> Figure:
    """Draw the units of each layer, or the connections of each block, over the epochs.

    The legend has the numbers at the end; at the paper's schedule its medians stand beside them
    and as markers at the right.

    Args:
        record (dict): of a run with a distribution.

    Returns:
        matplotlib.figure.Figure: the figure.

    Raises:
        ReproduceError: the record has no sizes of the structure.
    """
    groups = _groups(record)
    if not groups:
        raise ReproduceError(
            f"the log of {record['name']!r} has no structure: only --method sno has one"
        )
    settings = experiments.from_dict(record["settings"])
    kind = experiments.of(settings)
    tables = published()
    medians = {}
    if settings.is_paper_schedule and kind.table and settings.epsilon0 is not None:
        row = tables[settings.experiment]["rows"].get(format_epsilon0(settings.epsilon0))
        medians = dict(zip(groups, row["selected"])) if row else {}
    full = settings.bits // len(groups)
    epochs = record["log"]["epoch"]
    figure, axes = new_figure(3.8)
    for i, (name, counts) in enumerate(groups.items()):
        words = name.removeprefix(_STRUCTURE).replace("hidden_", "layer ").replace("_", " ")
        label = f"{words}: {counts[-1]} at the end"
        colour = COLOURS[i % len(COLOURS)]
        if name in medians:
            label += f" (paper: {medians[name]})"
            axes.plot(1.025 * epochs[-1], medians[name], "<", color=colour, markersize=5)
        axes.plot(
            epochs,
            counts,
            label=label,
            color=colour,
            linestyle=LINES[i % len(LINES)],
            linewidth=1.4,
            marker="o" if len(epochs) == 1 else None,
        )
    axes.axhline(full, color=BLACK, linewidth=0.6, label=f"full network: {full}")
    if medians:
        label = f"paper's medians of {tables['trials']} trials"
        axes.plot([], [], "<", color=BLACK, markersize=5, label=label)
    axes.set_xlim(0, 1.04 * epochs[-1])
    axes.set_ylim(0, 1.06 * full)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True, steps=(1, 2, 5, 10)))
    axes.set_ylabel(rf"{kind.selected} of each {kind.part} with $\theta \geq 0.5$")
    axes.set_title(wrap(title_of(record)))
    axes.grid()
    legend_below(figure, 2)
    return figure
