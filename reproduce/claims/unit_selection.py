"""The claims of section 4.1."""

import functools
from collections.abc import Iterable

from reproduce import compare, statistics
from reproduce._types import Record
from reproduce.claims.rules import (
    CHANCE_TRIALS,
    FAILS,
    HOLDS,
    LEVEL,
    PARTLY,
    TRIALS,
    UNKNOWN,
    Evidence,
    Judged,
    Pairs,
    by_chance,
    compare_times,
    count_runs,
    errors_of,
    missing_from,
    rule,
    side_by_side,
    trials_of,
)
from reproduce.experiments.unit_selection import UNIT_EPSILON0, UNIT_WIDTHS
from reproduce.settings import parse_epsilon0


def records_of(evidence: Evidence, method: str, value: object = "") -> list[Record]:
    """Return the records of a method and its value in this experiment."""
    return evidence.runs("unit-selection", method, value)


def _unit_settings(least: float) -> list[tuple[str, int]]:
    """Return the penalties whose published usage rate reaches a least one, with R13's widths."""
    rows = compare.published()["unit-selection"]["rows"]
    rates = [rows[label]["usage_rate"] if label in rows else 1.0 for label in UNIT_EPSILON0]
    widths = [UNIT_WIDTHS[min(i, len(UNIT_WIDTHS) - 1)] for i in range(len(UNIT_EPSILON0))]
    return [
        (label, width) for label, width, rate in zip(UNIT_EPSILON0, widths, rates) if rate >= least
    ]


def _unit_pairs(evidence: Evidence, settings: Iterable[tuple[str, int]]) -> Pairs:
    """Return the groups of penalties beside those of fixed structures, by their names."""
    return {
        f"epsilon0 = {label} against fixed {width}": (
            records_of(evidence, "sno", label),
            records_of(evidence, "fixed", width),
        )
        for label, width in settings
    }


def _original_pairs(evidence: Evidence, labels: Iterable[str]) -> Pairs:
    """Return the groups of penalties beside that of the full network."""
    return _unit_pairs(evidence, [(label, UNIT_WIDTHS[-1]) for label in labels])


@rule(
    "unit-beats-fixed",
    f"{TRIALS} trials of each",
    "Every penalty whose published usage rate is 25% or more, against the fixed structure of "
    "that usage rate: lower median test errors, one-sided rank tests combined (Stouffer).",
)
def _unit_beats_fixed(evidence: Evidence, claim: Record) -> Judged:
    return side_by_side(_unit_pairs(evidence, _unit_settings(claim["usage_rate"])), "less")


@rule(
    "unit-fixed-degrades",
    "1 trial of each of the six widths",
    "Kendall's tau of the test error over the width of the fixed structures is negative, "
    "one-sided, and the widest structure's median is below the narrowest's. The claim holds in "
    "part if the trend is not significant without one of the widths.",
)
def _unit_fixed_degrades(evidence: Evidence, claim: Record) -> Judged:
    groups = {f"fixed {width}": records_of(evidence, "fixed", width) for width in UNIT_WIDTHS}
    details = [
        f"{name}: median {statistics.median(errors_of(records)):.2f}%, {trials_of(records)}"
        for name, records in groups.items()
        if records
    ]
    missing = missing_from(groups, 1)
    if missing:
        return Judged(UNKNOWN, details + missing, runs=count_runs(groups))

    def trend(left_out: int | None = None) -> tuple[float, float, int]:
        points = [
            (width, error)
            for width, records in zip(UNIT_WIDTHS, groups.values())
            for error in errors_of(records)
            if width != left_out
        ]
        return *statistics.falling(*zip(*points)), len(points)

    tau, p, count = trend()
    details.append(f"Kendall's tau {tau:.2f}, p = {p:.3g}, over {count} runs")
    narrowest, *_, widest = map(errors_of, groups.values())
    if not (p <= LEVEL and statistics.difference(narrowest, widest)["difference"] > 0):
        return Judged(FAILS, details, f"tau {tau:.2f}", count)
    carried = []
    for width in UNIT_WIDTHS:
        other, p, rest = trend(width)
        if p > LEVEL:
            carried.append(width)
            line = f"without fixed {width}: Kendall's tau {other:.2f}, p = {p:.3g}, {rest} runs"
            details.append(line)
    if not carried:
        return Judged(HOLDS, details, f"tau {tau:.2f}", count)
    names = " and ".join(f"fixed {width}" for width in carried)
    details.append(f"the trend is significant only with {names}")
    return Judged(PARTLY, details, f"tau {tau:.2f}, only with {names}", count)


@rule(
    "unit-degrades-at-6",
    f"{TRIALS} trials of each",
    "2^-6, whose published usage rate is 6.6%, against every penalty of a greater usage rate: "
    "higher median test errors, one-sided rank tests combined (Stouffer).",
)
def _unit_degrades_at_6(evidence: Evidence, claim: Record) -> Judged:
    smallest = UNIT_EPSILON0[0]
    pairs = {
        f"epsilon0 = {smallest} against epsilon0 = {label}": (
            records_of(evidence, "sno", smallest),
            records_of(evidence, "sno", label),
        )
        for label in UNIT_EPSILON0[1:]
    }
    return side_by_side(pairs, "greater")


@rule(
    "unit-beats-original",
    f"{TRIALS} trials of each",
    "Every penalty whose published usage rate is 25% or more, against the full network (fixed "
    "784): lower median test errors, one-sided rank tests combined (Stouffer).",
)
def _unit_beats_original(evidence: Evidence, claim: Record) -> Judged:
    labels = [label for label, _ in _unit_settings(claim["usage_rate"])]
    return side_by_side(_original_pairs(evidence, labels), "less")


@rule(
    "unit-negative-epsilon",
    f"{TRIALS} trials of each",
    "Every run with a negative penalty ends with all units selected; and lower median test "
    "errors than the full network (fixed 784), one-sided rank tests combined (Stouffer).",
)
def _unit_negative_epsilon(evidence: Evidence, claim: Record) -> Judged:
    labels = [label for label in UNIT_EPSILON0 if label.startswith("-")]
    found = side_by_side(_original_pairs(evidence, labels), "less")
    runs = [record for label in labels for record in records_of(evidence, "sno", label)]
    whole = [record["result"]["usage_rate"] == 1 for record in runs]
    if runs:
        found.details.insert(0, f"every unit selected in {sum(whole)} of {len(runs)} runs")
    if not all(whole):
        found.outcome = FAILS
    return found


@rule(
    "unit-dropout-improves",
    f"{TRIALS} trials of each",
    "Dropout against the full network (fixed 784): a lower median test error, one-sided rank test.",
)
def _unit_dropout_improves(evidence: Evidence, claim: Record) -> Judged:
    pair = records_of(evidence, "dropout"), records_of(evidence, "fixed", UNIT_WIDTHS[-1])
    return side_by_side({f"Dropout against fixed {UNIT_WIDTHS[-1]}": pair}, "less")


@rule(
    "unit-later-layers-first",
    f"{CHANCE_TRIALS} trials of each",
    "In the runs with penalties of 2^-6 to 0 (some units removed): the first hidden layer "
    "keeps the most units, in more than half of them and significantly more often than the "
    "third expected by chance (binomial test).",
)
def _unit_later_layers_first(evidence: Evidence, claim: Record) -> Judged:
    labels = [label for label in UNIT_EPSILON0 if parse_epsilon0(label) >= 0]
    return by_chance(
        functools.partial(records_of, evidence),
        labels,
        lambda first, *others: first > max(others),
        "the first layer keeps the most",
    )


@rule(
    "unit-time-as-fixed",
    "1 trial of each",
    "Every penalty against the full network (fixed 784), on each kind of machine that has both: "
    "the median time of a whole training, evaluation included, is at most 1.05 times as long. The "
    "ratio to the fixed structure of equal size is reported as well: it is trained at that size "
    "from the beginning.",
)
def _unit_time_as_fixed(evidence: Evidence, claim: Record) -> Judged:
    judged = compare_times(_original_pairs(evidence, UNIT_EPSILON0))
    if not judged.effect:
        return judged
    judged.effect += " as the full network"
    of_equal_size = compare_times(_unit_pairs(evidence, _unit_settings(0)[:4]))
    judged.details += [f"beside the rule: {line}" for line in of_equal_size.details]
    if of_equal_size.effect:
        judged.effect += f", {of_equal_size.effect} as a fixed structure of equal size"
    return judged
