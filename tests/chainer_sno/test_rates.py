import math

import numpy
import pytest

from chainer_sno import Bernoulli, suggest_eta
from chainer_sno.rates import LARGEST


def test_the_papers_own_rate_comes_out():
    found = suggest_eta(937_500, 2**-6)
    assert found.eta == pytest.approx(1 / 2352, rel=0.05)
    assert found.time_constants == pytest.approx(6)
    assert found.by_chance < 1e-20


def test_a_bit_that_does_nothing_gets_there():
    # Equation (7) without any selection: utilities of zero.
    found = suggest_eta(500, 0.5)
    bernoulli = Bernoulli(numpy.ones(1000), 0.5, eta=found.eta)
    structures = numpy.zeros((2, 1000), dtype=bool)
    for _ in range(500):
        bernoulli.update(structures, numpy.zeros(2))
    expected = 1 / (1 + math.exp(found.time_constants))
    assert bernoulli.theta[0] == pytest.approx(expected, rel=0.05)


def test_what_to_expect_is_said():
    good, noisy, short = (suggest_eta(n, 0.05) for n in (100_000, 1_500, 200))
    assert good.eta == pytest.approx(6 / (0.05 * 100_000))
    assert str(good).startswith("eta = 0.0012: 6.0 time constants of the penalty in 100,000 iter")
    assert len(str(good).splitlines()) == 1
    assert noisy.by_chance == pytest.approx(1 / (1 + math.exp(2 * 0.05 / noisy.eta)))
    assert "chance has much to say" in str(noisy)
    assert short.eta == LARGEST
    assert short.time_constants == pytest.approx(1)
    assert "too short for the penalty" in str(short)
    assert suggest_eta(1000, -0.25).eta == suggest_eta(1000, 0.25).eta
    assert suggest_eta(10**9, 1.0).by_chance == pytest.approx(0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0.1), "iterations must be at least 1, not 0"),
        ((10, 0), "epsilon0 must be finite and not 0"),
        ((10, math.nan), "epsilon0 must be finite"),
        ((10, 0.1, 0), "time_constants must be positive"),
        ((10, 0.1, math.inf), "time_constants must be positive"),
    ],
)
def test_other_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        suggest_eta(*arguments)
