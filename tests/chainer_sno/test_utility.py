import itertools
import math

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainer_sno import ranking_utility


def by_definition(losses):
    """The mean of the utilities over all rankings that the ties allow."""
    samples = len(losses)
    count = math.ceil(samples / 4)
    rankings = [
        order
        for order in itertools.permutations(range(samples))
        if all(losses[a] <= losses[b] for a, b in zip(order, order[1:]))
    ]
    utilities = numpy.zeros(samples)
    for order in rankings:
        for rank, i in enumerate(order):
            utilities[i] += (rank < count) - (rank >= samples - count)
    return utilities / len(rankings)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=7))
def test_is_the_mean_over_the_rankings(losses):
    found = ranking_utility(numpy.array(losses, dtype="f"))
    numpy.testing.assert_allclose(found, by_definition(losses), atol=1e-12)


KNOWN = [
    ([3.0], [0]),
    ([0.2, 0.1], [-1, 1]),
    ([0.1, 0.1], [0, 0]),
    ([1, 2, 3], [1, 0, -1]),
    ([1, 1, 3], [0.5, 0.5, -1]),
    ([1, 2, 3, 4, 5], [1, 1, 0, -1, -1]),
    ([4, 3, 2, 1, 8, 7, 6, 5], [0, 0, 1, 1, -1, -1, 0, 0]),
    ([numpy.nan, 1], [-1, 1]),
    ([numpy.inf, numpy.nan], [0, 0]),
]


@pytest.mark.parametrize(("losses", "expected"), KNOWN)
def test_known_values(losses, expected):
    numpy.testing.assert_array_equal(ranking_utility(numpy.array(losses)), expected)


@given(st.lists(st.floats(-5, 5, width=16), min_size=1, max_size=9))
def test_order_preserving_transformations_change_nothing(losses):
    losses = numpy.array(losses)
    numpy.testing.assert_array_equal(
        ranking_utility(losses), ranking_utility(numpy.exp(losses) * 3 + 1)
    )


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=9))
def test_sums_to_zero(losses):
    assert abs(ranking_utility(numpy.array(losses)).sum()) < 1e-12


@pytest.mark.parametrize("shape", [(0,), (2, 2), ()])
def test_refuses_another_shape(shape):
    with pytest.raises(ValueError, match="losses must have the shape"):
        ranking_utility(numpy.zeros(shape))
