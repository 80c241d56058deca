import subprocess
import sys

import numpy
import pytest
from matplotlib.figure import Figure

from chainer_sno import Bernoulli, chainer, links, plots


def test_theta_is_drawn_by_group(rng):
    network = links.MaskedMLP(6, (5, 7, 1), 3)
    bernoulli = Bernoulli(network.costs)
    bernoulli.theta[...] = rng.random(13).clip(1 / 13, 12 / 13)
    figure = plots.theta_by_group(network, bernoulli)
    assert isinstance(figure, Figure)
    assert len(figure.axes) == 3
    for axes, (name, group) in zip(figure.axes, network.groups.items()):
        theta = bernoulli.theta[group]
        on = int((theta >= 0.5).sum())
        assert axes.get_title() == f"{name.replace('_', ' ')}: {on} of {len(theta)}"
        (steps,) = axes.patches
        numpy.testing.assert_array_equal(steps.get_data().values, numpy.sort(theta)[::-1])
        area = axes.collections[0].get_paths()
        assert on == (max(p.vertices[:, 0].max() for p in area) if area else 0)
    title = f"usage rate {bernoulli.usage_rate():.1%}, in units"
    title += f"; {network.weight_ratio(bernoulli.mode()):.1%} of the weights remain"
    assert figure.get_suptitle() == title
    figure.canvas.draw()


@pytest.mark.parametrize(
    ("package", "statement"),
    [
        ("matplotlib", "chainer_sno.plots.theta_by_group(None, None)"),
        ("numba", "import chainer_sno.fast"),
    ],
)
def test_a_package_that_is_missing_is_named_with_its_extra(package, statement):
    code = f"import sys; sys.modules[{package!r}] = None; import chainer_sno; {statement}"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 1
    last = found.stderr.splitlines()[-1]
    extra = {"matplotlib": "plot", "numba": "fast"}[package]
    assert last.startswith("ImportError: ")
    assert last.endswith(f"pip install {package}, or chainer_sno[{extra}]")


@pytest.mark.parametrize("theta", [0.1, 0.9])
def test_a_link_without_groups_is_one_and_a_part_of_a_figure_will_do(theta):
    class Least(chainer.Link):
        costs = numpy.array([1.0, 3.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])

    bernoulli = Bernoulli(Least.costs, initial_theta=theta)
    figure = Figure(layout="constrained")
    part, _ = figure.subfigures(2, 1)
    assert plots.theta_by_group(Least(), bernoulli, part) is part
    (axes,) = part.axes
    assert axes.get_title() == f"bits: {10 * (theta > 0.5):.0f} of 10"
    figure.canvas.draw()


def test_matplotlib_is_imported_when_a_figure_is_drawn():
    code = "import chainer_sno, sys; chainer_sno.plots; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
