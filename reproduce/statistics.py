"""Medians, quartiles and significance tests."""

import math
from collections.abc import Sequence
from typing import Any

import numpy
import scipy  # loads scipy.stats when it is first used, which takes a second

from reproduce._types import Array

#: Resamples of the bootstrap.
RESAMPLES = 9999
#: Decimals of a difference or a percentage.  Beyond them is rounding, with which 2.05 less 1.05 is
#: more than one.
DECIMALS = 9
#: Up to this number, all permutations are enumerated.
PERMUTATIONS = 10000


def quartiles(values: Sequence[float]) -> list[float]:
    """Return the 25%, 50% and 75% quantiles, those of the paper's figures.

    Args:
        values (sequence of float): over trials, at least one.

    Returns:
        list of float: the three.
    """
    return numpy.quantile(numpy.asarray(values, float), (0.25, 0.5, 0.75)).tolist()


def median(values: Sequence[float]) -> float:
    """Return the median of at least one value, free of rounding beyond :data:`DECIMALS`."""
    return round(float(numpy.median(values)), DECIMALS)


def in_percent(fraction: float) -> float:
    """Return a fraction in percent, free of rounding beyond :data:`DECIMALS`.

    The median of two trials may be an exact half of the last digit shown; this and :func:`median`
    give it the same digits in every text.
    """
    return round(100 * fraction, DECIMALS)


def rank_test(
    ours: Sequence[float] | Array, theirs: Sequence[float] | Array, alternative: str
) -> float:
    """Return the p-value of the Mann-Whitney test, exact where that is feasible, ties included.

    Args:
        ours (sequence of float): over trials, at least two.
        theirs (sequence of float): the same.
        alternative (str): ``less``, ours are smaller; ``greater``; or ``two-sided``.

    Returns:
        float: p.
    """
    method = "asymptotic"
    if math.comb(len(ours) + len(theirs), len(ours)) <= PERMUTATIONS:
        method = scipy.stats.PermutationMethod(n_resamples=PERMUTATIONS)
    found = scipy.stats.mannwhitneyu(ours, theirs, alternative=alternative, method=method)
    return float(found.pvalue)


def difference(
    ours: Sequence[float], theirs: Sequence[float], alternative: str = "less"
) -> dict[str, Any]:
    """Compare the medians of two groups of trials.

    Args:
        ours (sequence of float): at least one value.
        theirs (sequence of float): at least one value.
        alternative (str): of :func:`rank_test`.

    Returns:
        dict: ``medians`` of both, their ``difference``, the 95% ``interval`` of the difference (a
        bootstrap over trials; None with one or two on a side), ``p`` of the rank test (None with
        a single trial on a side), and ``trials`` of both.
    """
    first, second = numpy.asarray(ours, float), numpy.asarray(theirs, float)

    def of_medians(a: Array, b: Array, axis: int = -1) -> Any:
        return numpy.median(a, axis=axis) - numpy.median(b, axis=axis)

    interval = None
    fewest = min(len(ours), len(theirs))
    if fewest > 2:  # the medians of two trials take four values
        found = scipy.stats.bootstrap(
            (first, second),
            of_medians,
            n_resamples=RESAMPLES,
            vectorized=True,
            method="percentile",  # the corrections of the others need more than a few trials
            random_state=numpy.random.default_rng(0),
        )
        interval = [float(found.confidence_interval.low), float(found.confidence_interval.high)]
    return {
        "medians": [median(ours), median(theirs)],
        "difference": round(float(of_medians(first, second)), DECIMALS),
        "interval": interval,
        "p": rank_test(ours, theirs, alternative) if fewest > 1 else None,
        "trials": [len(ours), len(theirs)],
    }


def combined(p_values: Sequence[float]) -> float:
    """Return the p-value of several independent tests together (Stouffer's method)."""
    # A p of 1 has no finite score; it is as little evidence as there is.
    clipped = numpy.clip(p_values, 1e-12, 1 - 1e-12)
    return float(scipy.stats.combine_pvalues(clipped, method="stouffer").pvalue)


def sign_test(successes: int, trials: int, chance: float) -> float:
    """Return the probability of so many successes or more by chance (binomial test)."""
    return float(scipy.stats.binomtest(successes, trials, chance, alternative="greater").pvalue)


def sides_test(above: Sequence[float], trials: Sequence[int], published: int) -> float:
    """Return the p-value of so many trials lying above published medians.

    If all trials of a setting, ours and the published ones, are of one distribution, then every
    order of them is as likely as another; how many of ours lie above the median of the others
    follows from counting the orders.  Settings are independent, and their counts add up.

    Args:
        above (sequence of float): of each setting, how many of our trials lie above the published
            median; one that equals it counts half.
        trials (sequence of int): of each setting, ours.
        published (int): the trials of a published median, an odd number.

    Returns:
        float: p, two-sided and exact but for trials that equal a median, which make it too large.
    """
    half = published // 2
    chances = numpy.ones(1)
    for count in trials:
        orders = [
            math.comb(k + half, half) * math.comb(count - k + half, half) for k in range(count + 1)
        ]
        chances = numpy.convolve(chances, numpy.divide(orders, math.comb(count + published, count)))
    expected = sum(trials) / 2
    as_far = abs(numpy.arange(len(chances)) - expected) >= abs(sum(above) - expected)
    return float(min(1, chances[as_far].sum()))


def falling(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Return Kendall's tau of y over x, and the p-value of its being negative.

    Where all y are equal, there is no trend: 0 and 1.
    """
    if min(y) == max(y):
        return 0.0, 1.0
    found = scipy.stats.kendalltau(x, y, alternative="less")
    return float(found.statistic), float(found.pvalue)
