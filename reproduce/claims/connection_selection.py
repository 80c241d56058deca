"""The claims of section 4.2."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import numpy

from reproduce import compare, statistics, structures
from reproduce._types import Record
from reproduce.claims.rules import (
    CHANCE_TRIALS,
    FAILS,
    HOLDS,
    TRIALS,
    TWO_SIDED_TRIALS,
    UNKNOWN,
    Evidence,
    Judged,
    Pairs,
    by_chance,
    compare_times,
    compared_line,
    count_runs,
    differences_of,
    effect_of,
    errors_of,
    groups_of,
    missing_from,
    no_difference,
    rule,
    side_by_side,
    sizes_of,
    told_of,
    usage_of,
)
from reproduce.experiments import from_dict
from reproduce.experiments.connection_selection import CONNECTION_EPSILON0, CONNECTION_USAGE_RATES
from reproduce.groups import was_drawn_again

#: The test error in percent of a network that can only guess among ten classes.
GUESSING = 90.0


def records_of(evidence: Evidence, method: str, value: object = "") -> list[Record]:
    """Return the records of a method and its value in this experiment."""
    return evidence.runs("connection-selection", method, value)


def _connection_pairs(evidence: Evidence, wanted: Callable[[float], bool]) -> Pairs:
    """Return pairs of the penalties whose published usage rate is wanted and random structures."""
    rows = compare.published()["connection-selection"]["rows"]
    pairs = {}
    for label in CONNECTION_EPSILON0:
        if label in rows and wanted(rows[label]["usage_rate"]):
            rate = min(CONNECTION_USAGE_RATES, key=lambda r: abs(r - rows[label]["usage_rate"]))
            name = f"epsilon0 = {label} against random at {rate:.1%}"
            pairs[name] = records_of(evidence, "sno", label), records_of(evidence, "random", rate)
    return pairs


@rule(
    "conn-beats-random",
    f"{TRIALS} trials of each",
    "Every penalty whose published usage rate is 15% to 40% (42.3% counted in), against "
    "random structures of that usage rate: lower median test errors, one-sided rank tests "
    "combined (Stouffer).",
)
def _conn_beats_random(evidence: Evidence, claim: Record) -> Judged:
    low, high = claim["usage_rate"]
    pairs = _connection_pairs(evidence, lambda rate: low <= rate <= high + 0.025)
    judged = side_by_side(pairs, "less")
    judged.details += _literally(pairs, "less")
    return judged


def _literally(pairs: Pairs, alternative: str) -> list[str]:
    """Return lines on the same comparisons where dead structures are not drawn again (R19).

    The first structure that such a run drew could only guess.
    """
    if not any(was_drawn_again(record) for _, theirs in pairs.values() for record in theirs):
        return []
    lines = []
    for name, (ours, theirs) in pairs.items():
        if ours and theirs:
            errors = [
                GUESSING if was_drawn_again(record) else error
                for record, error in zip(theirs, errors_of(theirs))
            ]
            compared = statistics.difference(errors_of(ours), errors, alternative)
            told = compared_line(name, compared)
            lines.append(f"without drawing dead structures again (reading R19), {told}")
    return lines


@rule(
    "conn-ties-random",
    f"{TWO_SIDED_TRIALS} trials of each",
    "Every penalty whose published usage rate is over 60%, against random structures of that "
    "usage rate: no two-sided rank test of test errors is significant. That is no proof that "
    "they are equal.",
)
def _conn_ties_random(evidence: Evidence, claim: Record) -> Judged:
    pairs = _connection_pairs(evidence, lambda rate: rate > claim["usage_rate"])
    return no_difference(pairs)


def _against_whole(evidence: Evidence, rates: Iterable[float]) -> Pairs:
    """Return pairs of random structures of some usage rates and the full network."""
    whole = records_of(evidence, "random", 1.0)
    return {
        f"random at {rate:.1%} against random at 100.0%": (
            records_of(evidence, "random", rate),
            whole,
        )
        for rate in rates
    }


@rule(
    "conn-few-removed",
    f"{TWO_SIDED_TRIALS} trials of each",
    "Random structures of usage rates over 60% against the full network (random at 100%): no "
    "two-sided rank test of test errors is significant. That is no proof that they are equal.",
)
def _conn_few_removed(evidence: Evidence, claim: Record) -> Judged:
    least = claim["usage_rate"]
    pairs = _against_whole(evidence, [r for r in CONNECTION_USAGE_RATES if least < r < 1])
    return no_difference(pairs)


@rule(
    "conn-random-degrades",
    f"{TRIALS} trials of each",
    "Random structures of usage rates under 40% against the full network (random at 100%): higher "
    "median test errors, one-sided rank tests combined (Stouffer).",
)
def _conn_random_degrades(evidence: Evidence, claim: Record) -> Judged:
    rates = [rate for rate in CONNECTION_USAGE_RATES if rate < claim["usage_rate"]]
    pairs = _against_whole(evidence, rates)
    judged = side_by_side(pairs, "greater")
    for name, (ours, _) in pairs.items():
        dead = sum(map(was_drawn_again, ours))
        if dead:
            judged.details.append(
                f"{name.split(' against ')[0]}: {dead} of {len(ours)} first draws had no path and "
                f"{'was' if dead == 1 else 'were'} drawn again (R19)"
            )
    return judged


@rule(
    "conn-epsilon-no-effect",
    f"{TWO_SIDED_TRIALS} trials of each",
    "The penalties 2^-6 and 2^-5 against 0: no two-sided rank test of test errors is significant. "
    "That is no proof that they are equal.",
)
def _conn_epsilon_no_effect(evidence: Evidence, claim: Record) -> Judged:
    pairs = {
        f"epsilon0 = {label} against epsilon0 = 0": (
            records_of(evidence, "sno", label),
            records_of(evidence, "sno", "0"),
        )
        for label in ("2^-6", "2^-5")
    }
    return no_difference(pairs)


@rule(
    "conn-within-1-at-40",
    f"{TRIALS} trials of each",
    "2^-4, whose published usage rate is 42.3%, against the full network (random at 100%): "
    "the median test error is higher by at most one point.",
)
def _conn_within_1_at_40(evidence: Evidence, claim: Record) -> Judged:
    ours, theirs = records_of(evidence, "sno", "2^-4"), records_of(evidence, "random", 1.0)
    pairs = {"epsilon0 = 2^-4 against random at 100.0%": (ours, theirs)}
    differences, details = differences_of(pairs, "two-sided")
    if ours:
        details.append(f"usage rate {usage_of(ours):.1f}%")
    runs, missing = count_runs(groups_of(pairs)), missing_from(groups_of(pairs), TRIALS)
    if missing:
        return Judged(UNKNOWN, details + missing, runs=runs)
    (one,) = differences.values()
    outcome = HOLDS if one["difference"] <= claim["points"] else FAILS
    return Judged(outcome, details, effect_of(differences), runs)


@rule(
    "conn-early-blocks-first",
    f"{CHANCE_TRIALS} trials of each",
    "In the runs with penalties of 0, 2^-6 and 2^-5: the third block keeps the most "
    "connections, in more than half of them and significantly more often than the third "
    "expected by chance (binomial test).",
)
def _conn_early_blocks_first(evidence: Evidence, claim: Record) -> Judged:
    return by_chance(
        functools.partial(records_of, evidence),
        ("0", "2^-6", "2^-5"),
        lambda first, second, third: third > max(first, second),
        "the third block keeps the most",
    )


@rule(
    "conn-second-block",
    f"{CHANCE_TRIALS} trials of each",
    "In the runs with penalties of 2^-4, 2^-3 and 2^-2: the second block keeps the fewest "
    "connections, in more than half of them and significantly more often than the third "
    "expected by chance (binomial test).",
)
def _conn_second_block(evidence: Evidence, claim: Record) -> Judged:
    return by_chance(
        functools.partial(records_of, evidence),
        ("2^-4", "2^-3", "2^-2"),
        lambda first, second, third: second < min(first, third),
        "the second block keeps the fewest",
    )


@rule(
    "conn-wide-second-block",
    f"{TRIALS} trials",
    "In the runs at 2^-4: the second block has the fewest connections and the most layers of "
    "equal depth, in more than half of them. The depth is reported but not tested, since the paper "
    "prints that of a single run.",
)
def _conn_wide_second_block(evidence: Evidence, claim: Record) -> Judged:
    records = records_of(evidence, "sno", "2^-4")
    wide, details = [], []
    for record in records:
        settings: Any = from_dict(record["settings"])
        result = record["result"]
        bits = [int(bit) for bit in result["structure"]]
        matrices = structures.block_matrices(bits, settings.BLOCKS, settings.block_layers)
        widths = [structures.width(matrix) for matrix in matrices]
        sparse = sizes_of(record)[1] < min(sizes_of(record)[0], sizes_of(record)[2])
        wide.append(sparse and widths[1] > max(widths[0], widths[2]))
        depth = "no depth, as it is dead" if result["depth"] is None else f"depth {result['depth']}"
        details.append(
            f"{told_of('epsilon0 = 2^-4', record)} connections, {'/'.join(map(str, widths))} "
            f"layers side by side, {depth} (published {claim['depth']})"
        )
    missing = missing_from({"epsilon0 = 2^-4": records}, TRIALS)
    if missing:
        return Judged(UNKNOWN, details + missing, runs=len(records))
    outcome = HOLDS if numpy.mean(wide) > 0.5 else FAILS
    return Judged(outcome, details, f"{sum(wide)} of {len(wide)} runs", len(records))


@rule(
    "conn-time-as-random",
    "1 trial of each",
    "Every penalty with a published usage rate, against random structures of that usage rate "
    "on each kind of machine that has both: an iteration in the median epoch of the last tenth of "
    "the training, when the structure is almost final, takes at most 1.05 times as long. It "
    "includes the evaluation, and is CPU time where every training has that. The ratio of whole "
    "trainings that stayed on one machine is reported as well: absent connections cost nothing "
    "here, unlike in a masked network, so a training that begins with half of them takes "
    "longer.",
)
def _conn_time_as_random(evidence: Evidence, claim: Record) -> Judged:
    return compare_times(_connection_pairs(evidence, lambda rate: True), at_the_end=True)
