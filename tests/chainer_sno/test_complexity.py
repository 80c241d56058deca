import numpy
import pytest

from chainer_sno import complexity


def test_usage_rate_is_weighted_by_the_costs():
    structure = numpy.array([True, False, True])
    assert complexity.usage_rate(structure, numpy.array([1.0, 2.0, 3.0])) == 4 / 6
    assert complexity.usage_rate(~structure, numpy.ones(3)) == 1 / 3


def test_fully_connected_counts():
    assert complexity.fully_connected_weights((784, 784, 784, 784, 10)) == 3 * 784**2 + 7840
    assert complexity.fully_connected_flops((3, 2, 1)) == 16
    assert complexity.fully_connected_weight_ratio((4, 1, 2), (4, 2, 2)) == 0.5


@pytest.mark.parametrize("costs", [[], [[1.0]], [1, -1], [0, 0], [numpy.inf, 1]])
def test_bad_costs_are_named(costs):
    with pytest.raises(ValueError, match="costs must"):
        complexity.check_costs(costs)


@pytest.mark.parametrize("rate", [0.158, 0.241, 0.423, 0.675, 0.803, 1.0])
def test_random_structures_meet_their_usage_rate(rate, rng):
    costs = rng.integers(100, 50000, 273).astype("d")
    structures = [complexity.random_structure(costs, rate, rng) for _ in range(3)]
    for structure in structures:
        assert abs((structure * costs).sum() / costs.sum() - rate) <= 0.005
    assert rate == 1 or not numpy.array_equal(*structures[:2])


def test_a_random_structure_must_be_accepted(rng):
    costs = numpy.ones(10)
    found = complexity.random_structure(costs, 0.5, rng, accept=lambda m: not m[:4].any())
    assert found.sum() == 5
    assert not found[:4].any()


def test_a_usage_rate_that_cannot_be_met_is_named(rng):
    with pytest.raises(ValueError, match="no structure in 50 has the usage rate 0.3"):
        complexity.random_structure([1.0, 1.0], 0.3, rng, attempts=50)
    with pytest.raises(ValueError, match="must lie in"):
        complexity.random_structure([1.0, 1.0], 0.0, rng)
