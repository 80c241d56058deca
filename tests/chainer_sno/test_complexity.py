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
