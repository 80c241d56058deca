import itertools

import numpy
import pytest
import scipy.stats

from reproduce import statistics


def test_quartiles_are_numpys():
    assert statistics.quartiles([3, 1, 2, 4, 5]) == [2, 3, 4]
    assert statistics.quartiles([0.5]) == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("alternative", ["less", "greater", "two-sided"])
def test_rank_tests_are_exact_with_ties(alternative):
    ours, theirs = [1.0, 2.0, 2.0, 3.0], [2.0, 3.0, 4.0, 4.0]
    pooled = numpy.array(ours + theirs)

    def u(chosen):
        a, b = pooled[list(chosen)], numpy.delete(pooled, list(chosen))
        return sum((x > y) + 0.5 * (x == y) for x in a for y in b)

    observed = u(range(4))
    every = numpy.array([u(chosen) for chosen in itertools.combinations(range(8), 4)])
    less, greater = (every <= observed).mean(), (every >= observed).mean()
    expected = {"less": less, "greater": greater, "two-sided": min(1, 2 * min(less, greater))}
    assert statistics.rank_test(ours, theirs, alternative) == pytest.approx(expected[alternative])


def test_many_trials_take_the_approximation():
    rng = numpy.random.default_rng(0)
    ours, theirs = rng.normal(0, 1, 40), rng.normal(1, 1, 40)
    expected = scipy.stats.mannwhitneyu(ours, theirs, alternative="less", method="asymptotic")
    assert statistics.rank_test(ours, theirs, "less") == expected.pvalue < 0.01


def test_a_difference_of_medians_has_an_interval_and_is_the_same_each_time():
    ours, theirs = [1.0, 1.1, 1.2, 1.3, 1.4], [2.0, 2.1, 2.2, 2.3, 2.4]
    found = statistics.difference(ours, theirs)
    assert found["difference"] == pytest.approx(-1.0)
    low, high = found["interval"]
    assert -1.4 <= low < -1.0 < high <= -0.6
    assert found["p"] == pytest.approx(1 / 252)
    assert found == statistics.difference(ours, theirs)


def test_the_interval_covers_the_difference_as_often_as_it_says():
    rng = numpy.random.default_rng(0)
    covered = 0
    for _ in range(60):
        low, high = statistics.difference(rng.normal(1, 1, 20), rng.normal(0, 1, 20))["interval"]
        covered += low <= 1 <= high
    assert 52 <= covered


def test_a_single_trial_has_no_interval():
    found = statistics.difference([1.0], [2.0, 3.0])
    assert (found["difference"], found["interval"], found["p"]) == (-1.5, None, None)
    assert found["trials"] == [1, 2]


@pytest.mark.parametrize(
    ("ours", "theirs", "points"),
    [([205], [105], 1), ([297, 307], [296, 308], 0)],
)
def test_a_difference_is_free_of_rounding(ours, theirs, points):
    """Errors of 10,000 images in percent: one point is one point, and equal medians are equal."""
    ours, theirs = ([100 * (wrong / 10_000) for wrong in each] for each in (ours, theirs))
    assert statistics.difference(ours, theirs)["difference"] == points


def test_tests_together():
    assert statistics.combined([0.05, 0.05]) < 0.05
    assert statistics.combined([0.05, 0.95]) == pytest.approx(0.5)
    assert 0.9 < statistics.combined([0.5, 1.0]) <= 1
    assert statistics.sign_test(3, 3, 1 / 3) == pytest.approx(1 / 27)
    tau, p = statistics.falling([1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1])
    assert (tau, p) == (pytest.approx(-1), pytest.approx(1 / 720))
    assert statistics.falling([1, 2, 3, 4], [1, 2, 3, 4])[1] == pytest.approx(1)
    assert statistics.falling([1, 2, 3, 4], [2, 2, 2, 2]) == (0, 1)


def test_sides_are_counted_over_every_order():
    """Two settings, three and one trial of ours beside five and five: all orders, one by one."""
    counts = []
    for mine in (3, 1):
        orders = itertools.combinations(range(mine + 5), 5)
        # Above the third of the published five, less the two published ones that are so too.
        counts.append([mine + 5 - 1 - theirs[2] - 2 for theirs in orders])
    every = numpy.array([sum(pair) for pair in itertools.product(*counts)])
    for first, second in ((0, 0), (1, 0), (3, 1), (2, 0.5)):
        expected = (abs(every - 2) >= abs(first + second - 2)).mean()
        assert statistics.sides_test([first, second], [3, 1], 5) == pytest.approx(expected)
    assert statistics.sides_test([0] * 5, [3] * 5, 5) == pytest.approx(2 * (10 / 56) ** 5)
    assert statistics.sides_test([1.5], [3], 5) == 1


def test_a_median_of_two_has_the_same_digits_in_every_text():
    """Half of the last digit, of 10,000 examples, whichever way it was computed."""
    for count in range(10000):
        errors = [count / 10000, (count + 1) / 10000]
        _, in_table, _ = statistics.quartiles(errors)
        in_claim = statistics.median([statistics.in_percent(error) for error in errors])
        assert f"{statistics.in_percent(in_table):.2f}" == f"{in_claim:.2f}", count
