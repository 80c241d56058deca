"""What all figures share: size, colours, labels, and files of the same bytes."""

import functools
import io
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib.style
from matplotlib.figure import Figure
from PIL import Image

from chainer_sno.files import replacing
from reproduce import experiments
from reproduce._types import Record, StrPath
from reproduce.experiments.base import Experiment
from reproduce.settings import format_epsilon0

#: Inches; the width of a column of text, so that the letters are printed as large as they are.
WIDTH = 6.4
#: Dots in an inch of a PNG.
DPI = 200
#: The colours of Okabe and Ito, which the colour-blind tell apart; yellow is too light for a line.
BLUE, RED, GREEN, BLACK, PURPLE, SKY, ORANGE = COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#000000",
    "#CC79A7",
    "#56B4E9",
    "#E69F00",
)
YELLOW = "#F0E442"
#: Colour, marker and line of the proposed method and of the baselines; they differ in grey too.
_OF_METHODS = ((BLUE, "o", "-"), (RED, "s", "--"), (GREEN, "^", ":"), (BLACK, "D", "-."))
#: Lines and markers that tell the lines of one figure apart in grey.
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

P = ParamSpec("P")
T = TypeVar("T")
_STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "figure.titlesize": 9,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "grid.alpha": 0.3,
    "svg.hashsalt": "chainer_sno",
}


def printed(draw: Callable[P, T]) -> Callable[P, T]:
    """Make a function draw in this style, whatever the user's matplotlib is set to.

    Args:
        draw (callable): draws a figure, or saves one.

    Returns:
        callable: the same in this style.
    """

    @functools.wraps(draw)
    def in_style(*arguments: P.args, **options: P.kwargs) -> T:
        with matplotlib.style.context(["default", _STYLE]):
            return draw(*arguments, **options)

    return in_style


def new_figure(height: float) -> tuple[Figure, Any]:
    """Return a figure and its axes, one column of text wide and ``height`` inches high."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()


@printed
def save(figure: Figure, path: StrPath) -> list[Path]:
    """Save a figure as PNG and SVG, the same bytes from the same numbers.

    The PNG has at most 256 colours, a third of the bytes: git keeps a copy of a committed one for
    every record that changes it.

    Args:
        figure (matplotlib.figure.Figure): the figure.
        path (pathlib.Path): without an ending.

    Returns:
        list of pathlib.Path: the files.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    png, svg = (path.with_name(f"{path.name}.{ending}") for ending in ("png", "svg"))
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI)
    image = Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    with replacing(png) as file:
        image.save(file, "png", optimize=True, dpi=(DPI, DPI))
    with replacing(svg) as file:
        figure.savefig(file, format="svg", metadata={"Date": None})
    return [png, svg]


def wrap(title: str) -> str:
    """Return a title in lines that are no longer than a figure is wide."""
    lines = [textwrap.wrap(line, 80, break_on_hyphens=False) for line in title.splitlines()]
    return "\n".join(sum(lines, []))


def legend_below(figure: Figure, columns: int) -> None:
    """Put a legend below the axes, where it hides nothing."""
    figure.legend(loc="outside lower center", ncols=columns, frameon=False)


def format_math(epsilon0: float) -> str:
    """Return a penalty as it is printed in a figure, with a raised exponent."""
    text = format_epsilon0(epsilon0)
    power = re.fullmatch(r"(-?2)\^(-?\d+)", text)
    return f"${power[1]}^{{{power[2]}}}$" if power else text


def method_style(experiment: Experiment, method: str) -> tuple[str, str, str, str]:
    """Return the words, the colour, the marker and the line of a method.

    Args:
        experiment (Experiment): to which it belongs.
        method (str): such as ``sno``.
    """
    place = list(experiment.methods).index(method)
    return experiment.methods[method].words, *_OF_METHODS[place % len(_OF_METHODS)]


def label_of(record: Record) -> str:
    """Return the method and the setting of a record as a label in a figure."""
    settings = experiments.from_dict(record["settings"])
    if settings.epsilon0 is not None:
        return rf"$\epsilon_0$ = {format_math(settings.epsilon0)}"
    method = experiments.of(settings).methods[settings.method]
    for name, applies_to in settings.varied().items():
        if applies_to == settings.method:
            value = method.written(getattr(settings, name))
            return f"{method.words}, {method.short.format(value)}"
    return method.words
