"""The test error against the usage rate (Figure 1) and over the epochs."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy
from matplotlib import ticker
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from reproduce import ReproduceError, experiments
from reproduce._types import Array, Record
from reproduce.experiments.base import Experiment
from reproduce.figures.style import (
    COLOURS,
    MARKERS,
    format_math,
    label_of,
    legend_below,
    method_style,
    new_figure,
    printed,
    wrap,
)
from reproduce.groups import by_schedule, by_setting, count_trials

#: Points: the size of such a note, how far it may be from its point, and where it may stand.
_NOTE_SIZE = 7
_NOTE_DISTANCES = (5, 9, 14, 20)
_NOTE_DIRECTIONS = ((1, 1), (0, 1), (1, 0), (0, -1), (-1, 0), (-1, -1), (1, -1), (-1, 1))
#: The text of a note, the place of its point in the data, and their colour.
Note: TypeAlias = tuple[str, Array, str]
#: Markers on each line of the error over the epochs, about.
_MARKERS_A_LINE = 8


def _check_one_schedule(records: Iterable[Record]) -> None:
    """See that the records may share a figure.

    Raises:
        ReproduceError: there is none, or they are of several experiments or schedules.
    """
    found = by_schedule(records)
    if len(found) != 1:
        names = "; ".join(f"{group.title}, {group.schedule}" for group in found)
        raise ReproduceError(
            f"a figure shows runs of one schedule, and these are of {len(found)}: {names or 'none'}"
        )


def _note(record: Record) -> str:
    """Return the note beside a point: the value that the paper varies within the method."""
    settings = experiments.from_dict(record["settings"])
    if settings.epsilon0 is not None:
        return format_math(settings.epsilon0)
    return settings.setting.partition("=")[2]


def _quartiles(trials: Iterable[Record]) -> Array:
    """Return usage rate and test error in percent, of shape (quartile, what)."""
    results = [record["result"] for record in trials]
    numbers = [[100 * result[name] for name in ("usage_rate", "test_error")] for result in results]
    return numpy.quantile(numbers, (0.25, 0.5, 0.75), axis=0)


@printed
def usage_rate_against_error(records: Sequence[Record], title: str) -> Figure:
    """Draw Figure 1: the usage rate against the test error, medians and quartiles over trials.

    Beside each point stands its penalty, or the units a layer of a fixed structure.

    Args:
        records (list of dict): of one experiment, all at one schedule.
        title (str): says what the runs are.

    Returns:
        matplotlib.figure.Figure: the figure.

    Raises:
        ReproduceError: the records are of several schedules.
    """
    _check_one_schedule(records)
    figure, axes = new_figure(4.2)
    experiment = experiments.get(records[0]["settings"]["experiment"])
    methods: dict[str, list[list[Record]]] = {}
    for (method, _), trials in by_setting(records).items():
        methods.setdefault(method, []).append(trials)
    notes: list[Note] = []
    for method, settings in methods.items():
        notes += _draw_method(axes, experiment, method, settings)
    axes.set_xlabel(r"usage rate of the structure, $\sum c_i m_i\,/\,\sum c_i$ [%]")
    axes.set_ylabel("test error [%]")
    axes.set_xlim(0, 104)
    axes.margins(y=0.12)
    axes.set_title(wrap(title))
    axes.grid()
    legend_below(figure, 2)
    _note_points(figure, axes, notes)
    return figure


def _draw_method(
    axes: Any, experiment: Experiment, method: str, settings: Sequence[list[Record]]
) -> list[Note]:
    """Draw the line of a method, a point and its bars for each setting.

    Args:
        axes (matplotlib.axes.Axes): to draw in.
        experiment (Experiment): of the method.
        method (str): such as ``sno``.
        settings (list of list of dict): the trials of each setting.

    Returns:
        list of tuple: the notes beside the points.
    """
    words, colour, marker, line = method_style(experiment, method)
    beside = experiment.methods[method].beside
    words += f", labelled with {beside}" * bool(beside)
    # An array of shape (setting, quartile, what), in the order of the median usage rate.
    quartiles = numpy.array([_quartiles(trials) for trials in settings])
    order = numpy.argsort(quartiles[:, 1, 0], kind="stable")
    low, median, high = quartiles[order].transpose(1, 0, 2)
    axes.plot(
        *median.T,
        label=f"{words} ({count_trials(sum(settings, []))})",
        color=colour,
        marker=marker,
        linestyle=line,
        linewidth=1.2,
        markersize=5,
        zorder=3,
        markeredgecolor="white",
        markeredgewidth=0.5,
    )
    # One trial has no spread, and gets no bars.
    several = [len(settings[i]) > 1 for i in order]
    if any(several):
        axes.errorbar(
            *median[several].T,
            xerr=[(median - low)[several, 0], (high - median)[several, 0]],
            yerr=[(median - low)[several, 1], (high - median)[several, 1]],
            fmt="none",
            ecolor=colour,
            elinewidth=0.9,
            capsize=2.5,
        )
    if not beside:
        return []
    return [(_note(settings[i][0]), place, colour) for i, place in zip(order, median)]


def _note_points(figure: Figure, axes: Any, notes: Sequence[Note]) -> None:
    """Write a note beside each point, where it hides the least.

    The best of all places is taken, so a figure is the same whenever it is drawn.  adjustText
    pushes the notes apart step by step, and leaves some on points and bars.

    Args:
        figure (matplotlib.figure.Figure): the figure, complete but for the notes.
        axes (matplotlib.axes.Axes): of the points.
        notes (list of tuple): text, place in the data, and colour.
    """
    figure.draw_without_rendering()  # the layout, and with it the places in pixels
    inside = axes.get_window_extent()
    occupied = [
        numpy.concatenate(
            [numpy.linspace(start, end, 60) for start, end in zip(corners, corners[1:])]
        )
        for line in axes.lines
        for corners in [axes.transData.transform(line.get_xydata())]
        if len(corners) > 1
    ]
    points = [axes.transData.transform(place)[None] for _, place, _ in notes]
    pixels = figure.dpi / 72
    for text, place, colour in notes:
        measured = figure.text(0, 0, text, fontsize=_NOTE_SIZE)
        size = numpy.array(measured.get_window_extent().size)
        measured.remove()
        best: tuple[Any, ...] = (numpy.inf,)
        for distance in _NOTE_DISTANCES:
            for direction in numpy.array(_NOTE_DIRECTIONS):
                nearest = axes.transData.transform(place) + distance * pixels * direction
                corner = nearest - size * (1 - direction) / 2
                box = Bbox([corner, corner + size])
                cost = distance + sum(_inside(box.padded(1), line) for line in occupied)
                cost += 100 * sum(_inside(box.padded(2), point) for point in points)
                cost += 1000 * (not _within(box, inside))
                if cost < best[0]:
                    best = cost, distance, direction, box
        _, distance, (x, y), box = best
        note = axes.annotate(
            text,
            place,
            (distance * x, distance * y),
            textcoords="offset points",
            ha=("right", "center", "left")[x + 1],
            va=("top", "center", "bottom")[y + 1],
            fontsize=_NOTE_SIZE,
            color=colour,
            # A distant note is tied to its point.
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.4, "shrinkB": 3}
            if distance > 9
            else None,
        )
        note.set_in_layout(False)
        # The next notes keep away from it.
        across, along = numpy.linspace(box.min, box.max, 7).T
        points.append(numpy.stack(numpy.meshgrid(across, along), axis=-1).reshape(-1, 2))


def _inside(box: Bbox, points: Array) -> int:
    """Return how many points lie in a box."""
    low, high = numpy.array(box.min), numpy.array(box.max)
    return int(((points >= low) & (points <= high)).all(axis=1).sum())


def _within(box: Bbox, outer: Bbox) -> bool:
    """Return whether a box lies within another."""
    return box.x0 >= outer.x0 and box.x1 <= outer.x1 and box.y0 >= outer.y0 and box.y1 <= outer.y1


@printed
def error_over_epochs(records: Sequence[Record], title: str) -> Figure:
    """Draw the test error over the epochs of the training, a line for each setting.

    A line is the median of the trials, the band their least and greatest error.

    Args:
        records (list of dict): of one experiment, all at one schedule.
        title (str): says what the runs are.

    Returns:
        matplotlib.figure.Figure: the figure.

    Raises:
        ReproduceError: the records are of several schedules.
    """
    _check_one_schedule(records)
    experiment = experiments.get(records[0]["settings"]["experiment"])
    settings = by_setting(records)
    counts = {len(trials) for trials in settings.values()}
    figure, axes = new_figure(4.0 + 0.1 * len(settings))
    for i, ((method, _), trials) in enumerate(settings.items()):
        epochs = trials[0]["log"]["epoch"]
        errors = 100 * numpy.array([record["log"]["validation/main/error"] for record in trials])
        step = -(-len(epochs) // _MARKERS_A_LINE)
        label = label_of(trials[0])
        if len(counts) > 1:
            label += f" ({count_trials(trials)})"
        axes.plot(
            epochs,
            numpy.median(errors, axis=0),
            label=label,
            color=COLOURS[i % len(COLOURS)],
            linestyle=method_style(experiment, method)[3],
            marker=MARKERS[i % len(MARKERS)],
            # A few markers a line, not where those of its neighbours are.
            markevery=(i % step, step),
            markersize=3.5,
            linewidth=0.9,
        )
        if len(trials) > 1:
            band = errors.min(axis=0), errors.max(axis=0)
            axes.fill_between(epochs, *band, color=COLOURS[i % len(COLOURS)], alpha=0.15, lw=0)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())
    axes.set_xlim(left=0)
    axes.set_xlabel("epoch")
    axes.set_ylabel("test error [%]")
    told = count_trials(records)
    if max(counts) > 1:
        told = f"medians of {told}, bands from the least error to the greatest"
    axes.set_title(wrap(f"{title}\n{told}"))
    axes.grid(which="both")
    legend_below(figure, 3)
    return figure
