"""What the rules of the claims share: the evidence, comparisons and tests."""

import collections
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from reproduce import experiments, statistics
from reproduce._types import Record
from reproduce.experiments import from_dict
from reproduce.groups import before_last_tenth, by_computer, first_of_last, has_moved

HOLDS, PARTLY, FAILS = "holds", "holds in part", "does not hold"
UNKNOWN = "not enough runs"
#: Every outcome, in the order in which they are counted.
OUTCOMES = (HOLDS, PARTLY, FAILS, UNKNOWN)
#: What stands beside a p-value over several settings.
DEPENDENT = (
    "the p-value treats runs as independent, but runs of one seed share initial weights, data "
    "order and random numbers"
)
#: Level of the tests.
LEVEL = 0.05
#: "Almost the same time" and "not significantly greater": the most that the ratio may be.
SAME_TIME = 1.05
#: Three trials against three are the fewest whose rank test can reach the level, one-sided.
TRIALS = 3
#: One trial of each setting would be runs of one seed, which share weights and random numbers.
CHANCE_TRIALS = 2
#: Four against four are the fewest that can reach it two-sided.
TWO_SIDED_TRIALS = 4


@dataclasses.dataclass(frozen=True)
class Finding:
    """The verdict on a claim.

    Attributes:
        id (str): of the claim in ``results/published.json``.
        section (str): of the paper.
        text (str): the claim.
        rule (str): how it is computed.
        needs (str): the runs that it needs.
        outcome (str): one of :data:`OUTCOMES`.
        effect (str): the size of the effect, in words; empty where there are not enough runs.
        runs (int): how many records the rule looked at.
        details (list of str): the numbers, a line each.
    """

    id: str
    section: str
    text: str
    rule: str
    needs: str
    outcome: str
    effect: str
    runs: int
    details: list[str]


@dataclasses.dataclass
class Judged:
    """What a rule says: the outcome, the lines, the size of the effect, and the records used."""

    outcome: str
    details: list[str]
    effect: str = ""
    runs: int = 0


#: Takes the evidence and the claim in ``results/published.json``.
Judge: TypeAlias = Callable[["Evidence", Record], Judged]
#: The records of ours and of theirs, by ``ours against theirs``.
Pairs: TypeAlias = dict[str, tuple[list[Record], list[Record]]]
#: Of each claim its rule: a function, the runs that it needs, and a sentence.
RULES: dict[str, tuple[Judge, str, str]] = {}


def rule(claim: str, needs: str, sentence: str) -> Callable[[Judge], Judge]:
    """Register a function of the evidence and the claim, which returns what it judged."""

    def register(function: Judge) -> Judge:
        RULES[claim] = function, needs, sentence
        return function

    return register


class Evidence:
    """Records at the paper's schedule, by what they vary.

    Args:
        records (list of dict): of any experiments and schedules.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        self.groups: dict[tuple[str, str, str], list[Record]] = collections.defaultdict(list)
        for record in records:
            settings = from_dict(record["settings"])
            if settings.is_paper_schedule:
                value = settings.setting.rpartition("=")[2]
                self.groups[settings.experiment, settings.method, value].append(record)

    def runs(self, experiment: str, method: str, value: object = "") -> list[Record]:
        """Return the records of a method and of what the paper varies within it.

        Args:
            experiment (str): its name.
            method (str): ``sno`` or a baseline.
            value (object): the penalty as a text, or the value of a baseline.
        """
        value = str(value).removesuffix(".0")
        return self.groups.get((experiment, method, value), [])


def trials_of(records: Sequence[Record]) -> str:
    """Return how many trials there are, in words."""
    return f"{len(records)} trial" + "s" * (len(records) != 1)


def errors_of(records: Iterable[Record]) -> list[float]:
    """Return the test errors in percent."""
    return [statistics.in_percent(record["result"]["test_error"]) for record in records]


def usage_of(records: Iterable[Record]) -> float:
    """Return the median usage rate in percent."""
    rates = [record["result"]["usage_rate"] for record in records]
    return statistics.in_percent(statistics.median(rates))


def missing_from(groups: Mapping[str, Sequence[Record]], trials: int) -> list[str]:
    """Return a line for each named group of records with fewer trials than needed."""
    return [
        f"{name}: {len(records)} of {trials} trials"
        for name, records in groups.items()
        if len(records) < trials
    ]


def compared_line(name: str, compared: Mapping[str, Any]) -> str:
    """Return a line on a difference of medians."""
    ours, theirs = compared["medians"]
    text = f"{name}: median {ours:.2f}% against {theirs:.2f}%"
    text += f", difference {compared['difference']:+.2f} points"
    if compared["interval"]:
        low, high = compared["interval"]
        text += f" (95% interval {low:+.2f} to {high:+.2f})"
    p = "" if compared["p"] is None else f", p = {compared['p']:.3g}"
    return f"{text}{p}, {compared['trials'][0]} and {compared['trials'][1]} trials"


def count_runs(groups: Mapping[str, Sequence[Record]]) -> int:
    """Return how many records there are in groups, each counted once."""
    return len({record["name"] for records in groups.values() for record in records})


def effect_of(differences: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the differences of medians in words."""
    points = [one["difference"] for one in differences.values()]
    if not points:
        return ""
    return f"{_range(points, '+.2f')} points"


def _range(values: Sequence[float], form: str) -> str:
    """Return the least and the greatest value as text, once where both read the same."""
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"


def groups_of(pairs: Pairs) -> dict[str, list[Record]]:
    """Return the groups of records by name; a pair's name is ``ours against theirs``."""
    groups: dict[str, list[Record]] = {}
    for name, both in pairs.items():
        groups.update(zip(name.split(" against "), both))
    return groups


def differences_of(pairs: Pairs, alternative: str) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return the differences of test errors of the pairs that have records, and lines on them."""
    differences = {
        name: statistics.difference(errors_of(ours), errors_of(theirs), alternative)
        for name, (ours, theirs) in pairs.items()
        if ours and theirs
    }
    return differences, [compared_line(name, one) for name, one in differences.items()]


def side_by_side(pairs: Pairs, alternative: str) -> Judged:
    """Compare test errors in pairs of groups.

    Args:
        pairs (dict): by name, the records of ours and of theirs.
        alternative (str): ``less`` where ours are said to be lower, else ``greater``.

    Returns:
        Judged: of all comparisons together.
    """
    differences, details = differences_of(pairs, alternative)
    runs = count_runs(groups_of(pairs))
    missing = missing_from(groups_of(pairs), TRIALS)
    if missing:
        return Judged(UNKNOWN, details + missing, runs=runs)
    sign = -1 if alternative == "less" else 1
    directed = all(sign * one["difference"] > 0 for one in differences.values())
    p = statistics.combined([one["p"] for one in differences.values()])
    if len(differences) > 1:
        details.append(f"all comparisons together: p = {p:.3g}; {DEPENDENT}")
    outcome = HOLDS if directed and p <= LEVEL else FAILS
    return Judged(outcome, details, effect_of(differences), runs)


def no_difference(pairs: Pairs) -> Judged:
    """Judge that no two-sided rank test of pairs of groups is significant."""
    differences, details = differences_of(pairs, "two-sided")
    runs, missing = count_runs(groups_of(pairs)), missing_from(groups_of(pairs), TWO_SIDED_TRIALS)
    if missing:
        return Judged(UNKNOWN, details + missing, runs=runs)
    outcome = HOLDS if all(one["p"] > LEVEL for one in differences.values()) else FAILS
    return Judged(outcome, details, effect_of(differences), runs)


def sizes_of(record: Record) -> list[int]:
    """Return the units of each layer, or the connections of each block."""
    settings = from_dict(record["settings"])
    return experiments.of(settings).sizes(record["result"])


def told_of(name: str, record: Record) -> str:
    """Return a line that names a run and what it selected."""
    counts = "/".join(map(str, sizes_of(record)))
    return f"{name}, seed {record['settings']['seed']}: {counts}"


def by_chance(
    find: Callable[[str, str], list[Record]],
    labels: Iterable[str],
    good: Callable[..., bool],
    words: str,
) -> Judged:
    """Judge in how many runs something is so that happens in a third of them by chance.

    Args:
        find (callable): of the evidence, returns the records of a method and its penalty.
        labels (sequence of str): the penalties, each of which needs :data:`CHANCE_TRIALS` runs.
        good (callable): takes the counts of a run's layers or blocks; whether it is so.
        words (str): what is so.

    Returns:
        Judged: over all runs; too few where a majority is not significant.
    """
    groups = {f"epsilon0 = {label}": find("sno", label) for label in labels}
    trials = [
        (told_of(name, record), good(*sizes_of(record)))
        for name, records in groups.items()
        for record in records
    ]
    missing = missing_from(groups, CHANCE_TRIALS)
    if missing:
        return Judged(UNKNOWN, [name for name, _ in trials] + missing, runs=len(trials))
    count = sum(ok for _, ok in trials)
    p = statistics.sign_test(count, len(trials), 1 / 3)
    details = [f"{name}: {'yes' if ok else 'no'}" for name, ok in trials]
    told = f"{count} of {len(trials)} runs"
    details.append(f"{words} in {told}, by chance p = {p:.3g}; {DEPENDENT}")
    if count <= len(trials) / 2:
        return Judged(FAILS, details, told, len(trials))
    if p > LEVEL:
        details.append("more runs could make this significant")
        return Judged(UNKNOWN, details, runs=len(trials))
    return Judged(HOLDS, details, told, len(trials))


def seconds_of(records: Iterable[Record]) -> float:
    """Return the median seconds of the trainings."""
    return statistics.median([record["times"]["seconds"] for record in records])


def _moved_in_last(record: Record) -> bool:
    """Return whether a training went on on another machine in its last tenth."""
    begun = record["computers"][-1]["iterations"][0] if has_moved(record) else 0
    return begun > before_last_tenth(record) + 1


def _last_epochs(record: Record, cpu: bool) -> list[float]:
    """Return the seconds of each epoch in the last tenth; those of the CPU may be unknown."""
    first, times = first_of_last(record), record["times"]
    if cpu:
        return [*times.get("epoch_cpu_seconds", [None] * len(times["epoch_seconds"]))][first:]
    ends = [0.0, *times["epoch_seconds"]][first:]
    return [end - begin for begin, end in itertools.pairwise(ends)]


def last_seconds_of(records: Iterable[Record], cpu: bool) -> float:
    """Return the median seconds of an iteration in the last tenth of each training.

    It is that of the median epoch there: what else a machine does now and then does not count.

    Args:
        records (list of dict): of the trainings.
        cpu (bool): whether in CPU seconds, known for each epoch; otherwise by the clock.
    """
    seconds = []
    for record in records:
        settings = from_dict(record["settings"])
        epoch = statistics.median(_last_epochs(record, cpu))
        seconds.append(epoch * settings.epochs / settings.iterations())
    return statistics.median(seconds)


def _compare_whole(ours: Sequence[Record], theirs: Sequence[Record]) -> tuple[float, str]:
    """Return the ratio of the seconds of whole trainings, and a line that says so."""
    mine, other = seconds_of(ours), seconds_of(theirs)
    ratio = mine / other
    hours = f"{mine / 3600:.2f} h against {other / 3600:.2f} h"
    return ratio, f"whole trainings {hours}, ratio {ratio:.2f}"


def _compare_last(ours: Sequence[Record], theirs: Sequence[Record]) -> tuple[float, str]:
    """Return the ratio of the seconds of an iteration at the end, and a line that says so.

    The line also has the whole trainings, where each of them stayed on one machine.
    """
    records = [*ours, *theirs]
    cpu = not any(None in _last_epochs(record, True) for record in records)
    mine, other = last_seconds_of(ours, cpu), last_seconds_of(theirs, cpu)
    ratio = mine / other
    whole = "" if any(map(has_moved, records)) else f"{_compare_whole(ours, theirs)[1]}; "
    ms = f"{1e3 * mine:.3g} ms against {1e3 * other:.3g} ms{' of CPU time' * cpu}"
    return ratio, f"{whole}an iteration at the end {ms}, ratio {ratio:.2f}"


def compare_times(pairs: Pairs, at_the_end: bool = False) -> Judged:
    """Compare median seconds of trainings on each kind of machine that has both.

    A training that has moved between machines has the time of none and does not count, unless it
    is judged at the end and was on one machine then.

    Args:
        pairs (dict): by name, the records of ours and of theirs.
        at_the_end (bool): judge an iteration of the last tenth, where the structure is what it
            ends as, in CPU seconds where they are known; otherwise whole trainings.
    """
    moved = _moved_in_last if at_the_end else has_moved
    compare = _compare_last if at_the_end else _compare_whole
    usable: Pairs = {}
    details, ratios = [], []
    for name, pair in pairs.items():
        ours, theirs = (
            by_computer([record for record in records if not moved(record)], at_the_end)
            for records in pair
        )
        both = [where for where in ours if where in theirs]
        usable[name] = (
            [record for where in both for record in ours[where]],
            [record for where in both for record in theirs[where]],
        )
        for where in both:
            ratio, line = compare(ours[where], theirs[where])
            ratios.append(ratio)
            details.append(f"{name}: {line}, on {where}")
    groups = groups_of(usable)
    missing = [
        f"{name}: no training of each on one kind of machine"
        for name, both in usable.items()
        if not all(both)
    ]
    if missing:
        return Judged(UNKNOWN, details + missing, runs=count_runs(groups))
    outcome = HOLDS if max(ratios) <= SAME_TIME else FAILS
    what = "an iteration at the end takes " * at_the_end
    effect = f"{what}{_range(ratios, '.2f')} times as long"
    return Judged(outcome, details, effect, count_runs(groups))
