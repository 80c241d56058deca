"""Figures of a distribution, for notebooks; they need matplotlib, imported when one is drawn."""

import importlib
from typing import TYPE_CHECKING, Any

import numpy

from chainer_sno._import_chainer import chainer
from chainer_sno.summary import StructureSummary

__all__ = [
    "theta_by_group",
]

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Panels beside one another.
COLUMNS = 4


def theta_by_group(link: Any, bernoulli: Any, figure: Any = None) -> "Figure":
    r"""Draw :math:`\theta` of each group, such as a layer, in the order of its size.

    Bits at or above one half, which the most probable structure keeps, are filled.  Where the line
    falls steeply, the distribution has decided; where it lies along one half, it has not.

    Args:
        link (chainer.Link): a searchable link; without ``groups`` all bits are one.
        bernoulli (chainer_sno.Bernoulli): the distribution.
        figure (matplotlib.figure.Figure): to draw into, or a part of one; by default a new one.

    Returns:
        matplotlib.figure.Figure: the figure, not known to pyplot.

    Raises:
        ImportError: matplotlib is not installed; the message says how to install it.
    """
    try:
        # Before what follows imports matplotlib.
        importlib.import_module("chainer_sno._import_matplotlib")
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise ImportError(
            "figures need the package matplotlib: pip install matplotlib, or chainer_sno[plot]"
        ) from error

    theta = chainer.backends.cuda.to_cpu(bernoulli.theta)
    groups = getattr(link, "groups", None) or {"bits": slice(0, len(theta))}
    rows = -(-len(groups) // COLUMNS)
    columns = -(-len(groups) // rows)
    if figure is None:
        figure = Figure(figsize=(2.2 * columns + 0.6, 2.2 * rows + 0.4), layout="constrained")
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for axes in panels.ravel()[len(groups) :]:
        axes.set_axis_off()
    for axes, (name, group) in zip(panels.ravel(), groups.items()):
        values = numpy.sort(theta[group])[::-1]
        on = int((values >= 0.5).sum())
        # A step a bit, from its edge to the next, so that one bit alone shows too.
        edges = numpy.arange(len(values) + 1)
        axes.fill_between(edges[: on + 1], [*values[:on], 0], step="post", alpha=0.35)
        axes.stairs(values, edges, color="black", linewidth=1.2, baseline=None)
        axes.axhline(0.5, color="grey", linestyle="--", linewidth=0.8)
        axes.set_xlim(0, len(values))
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.set_ylim(0, 1)
        axes.set_title(f"{name.replace('_', ' ')}: {on} of {len(values)}", fontsize="medium")
    figure.supxlabel(r"bits of a group, largest $\theta$ first")
    figure.supylabel(r"$\theta$")
    figure.suptitle(StructureSummary(link, bernoulli).words(), fontsize="medium")
    return figure
