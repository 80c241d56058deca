"""The criterion of the costs: in the distribution, in random structures and in usage rates."""

import numpy
import pytest

from chainer_sno import links
from reproduce.experiments.connection_selection import ConnectionSelection
from reproduce.experiments.connection_training import ConnectionTraining
from reproduce.experiments.unit_selection import UnitSelection
from reproduce.experiments.unit_training import UnitTraining
from reproduce.run import get_device
from tests.reproduce.synthetic import noise

UNITS = {"units": 6, "layers": 2, "epochs": 1, "examples": 640, "test_examples": 100}
CONNECTIONS = {"depth": 10, "growth_rate": 4, "epochs": 1, "examples": 64, "test_examples": 20}


def training(kind, settings, tmp_path):
    return kind(settings, noise(settings.dataset), get_device(-1), tmp_path)


def unit_costs(criterion):
    """Return what each of 6 + 6 units costs, counted by hand: fan-in plus fan-out."""
    weights = numpy.repeat([784.0 + 6, 6.0 + 10], 6)
    return weights if criterion == "weights" else 2 * weights


@pytest.mark.parametrize("criterion", ["weights", "flops"])
def test_units(criterion, tmp_path):
    made = training(UnitTraining, UnitSelection(criterion=criterion, **UNITS), tmp_path)
    costs = unit_costs(criterion)
    numpy.testing.assert_array_equal(made.bernoulli.costs, costs)
    made.bernoulli.theta[...] = numpy.tile([0.9, 0.9, 0.1, 0.9, 0.1, 0.1, 0.9], 2)[:12]
    rate = made.structure_result()["usage_rate"]
    assert rate == pytest.approx(costs[made.bernoulli.theta >= 0.5].sum() / costs.sum())
    assert rate != pytest.approx((made.bernoulli.theta >= 0.5).mean())


def test_fixed_units_and_dropout(tmp_path):
    # Of every layer the same part is kept; costs differ between layers only.
    fixed = UnitSelection(method="fixed", width=2, criterion="weights", **UNITS)
    assert training(UnitTraining, fixed, tmp_path).structure_result()["usage_rate"] == 1 / 3
    dropout = UnitSelection(method="dropout", criterion="weights", **UNITS)
    assert training(UnitTraining, dropout, tmp_path).structure_result()["usage_rate"] == 1.0


def flops(settings):
    network = links.PlainDenseNet(settings.depth, settings.growth_rate, settings.BLOCKS, classes=10)
    return network.costs_of("flops", (3, 32, 32)), network.costs


def test_connections(tmp_path):
    settings = ConnectionSelection(criterion="flops", **CONNECTIONS)
    made = training(ConnectionTraining, settings, tmp_path)
    costs, weights = flops(settings)
    assert not numpy.allclose(costs / costs.sum(), weights / weights.sum())
    numpy.testing.assert_array_equal(made.bernoulli.costs, costs)
    made.bernoulli.theta[...] = numpy.arange(settings.bits) % 3 / 2
    rate = made.structure_result()["usage_rate"]
    assert rate == pytest.approx(costs[made.bernoulli.theta >= 0.5].sum() / costs.sum())


def test_random_connections(tmp_path):
    """The drawn structure meets the rate in FLOPs, to within half a point (reading R12)."""
    settings = ConnectionSelection(
        method="random", usage_rate=0.675, criterion="flops", **CONNECTIONS
    )
    made = training(ConnectionTraining, settings, tmp_path)
    costs, weights = flops(settings)
    structure = made.link.structure.astype(bool)
    rate = costs[structure].sum() / costs.sum()
    assert abs(rate - 0.675) <= 0.005
    assert made.structure_result()["usage_rate"] == pytest.approx(rate)
    of_weights = ConnectionSelection(method="random", usage_rate=0.675, **CONNECTIONS)
    other = training(ConnectionTraining, of_weights, tmp_path).link.structure.astype(bool)
    assert abs(weights[other].sum() / weights.sum() - 0.675) <= 0.005
    assert (other != structure).any()
