"""Figures from records."""

from pathlib import Path

import matplotlib
import numpy

from reproduce.files import replacing

matplotlib.use("agg")
from matplotlib import pyplot

#: Colours that the colour-blind tell apart (Okabe and Ito), and markers that print in grey.
STYLES = {
    "sno": ("proposed method", "#0072B2", "o"),
    "fixed": ("fixed structure", "#D55E00", "s"),
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
                setting = record["settings"].get("epsilon0", record["settings"].get("width"))
                result = record["result"]
                groups.setdefault(setting, []).append(
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
