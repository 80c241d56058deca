"""The claims of the paper, each computed from records by a rule that is named beside it.

Only records at the paper's schedule count.  A claim *holds*, *holds in part*, *does not hold*, or
there are *not enough runs* to say: a rule states how many trials of which settings it needs.  Where
a rule compares test errors, every compared median must lie on the side that the paper says, and the
rank tests of all comparisons together must be significant at 5%.

Seeds are not independent over settings: runs of one seed share the initial weights, the order of
the data and the random numbers.  Tests that combine settings take them as independent, and say so.
"""

import collections
import dataclasses

import numpy

from reproduce import compare, statistics, structures
from reproduce.experiments import from_dict
from reproduce.experiments.connection_selection import CONNECTION_EPSILON0, CONNECTION_USAGE_RATES
from reproduce.experiments.unit_selection import UNIT_EPSILON0, UNIT_WIDTHS
from reproduce.groups import by_computer
from reproduce.settings import parse_epsilon0

HOLDS, PARTLY, FAILS = "holds", "holds in part", "does not hold"
UNKNOWN = "not enough runs"
#: Every outcome, in the order in which they are counted.
OUTCOMES = (HOLDS, PARTLY, FAILS, UNKNOWN)
#: What stands beside a p-value over several settings.
_DEPENDENT = (
    "the p-value treats runs as independent, but runs of one seed share initial weights, data "
    "order and random numbers"
)
#: Level of the tests.
LEVEL = 0.05
#: "Almost the same time" and "not significantly greater": the most that the ratio may be.
SAME_TIME = 1.05
#: The test error in percent of a network that can only guess among ten classes.
GUESSING = 90.0
#: Three trials against three are the fewest whose rank test can reach the level, one-sided.
TRIALS = 3
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
    details: list


@dataclasses.dataclass
class _Judged:
    """What a rule says: the outcome, the lines, the size of the effect, and the records used."""

    outcome: str
    details: list
    effect: str = ""
    runs: int = 0


#: Of each claim its rule: a function, the runs that it needs, and a sentence.
_RULES = {}


def _rule(claim, needs, sentence):
    """Register a function of the evidence and the claim, which returns what it judged."""

    def register(function):
        _RULES[claim] = function, needs, sentence
        return function

    return register


class Evidence:
    """Records at the paper's schedule, by what they vary.

    Args:
        records (list of dict): of any experiments and schedules.
    """

    def __init__(self, records):
        self.groups = collections.defaultdict(list)
        for record in records:
            settings = from_dict(record["settings"])
            if settings.is_paper_schedule:
                value = settings.setting.rpartition("=")[2]
                self.groups[settings.experiment, settings.method, value].append(record)

    def unit(self, method, value=""):
        """Return the records of section 4.1 of a method and its penalty or width."""
        return self.groups.get(("unit-selection", method, str(value)), [])

    def connection(self, method, value=""):
        """Return the records of section 4.2 of a method and its penalty or usage rate."""
        value = str(value).removesuffix(".0")
        return self.groups.get(("connection-selection", method, value), [])


def _trials(records):
    return f"{len(records)} trial" + "s" * (len(records) != 1)


def _errors(records):
    """Return the test errors in percent."""
    return [100 * record["result"]["test_error"] for record in records]


def _usage(records):
    """Return the median usage rate in percent."""
    return 100 * statistics.median([record["result"]["usage_rate"] for record in records])


def _missing(groups, trials):
    """Return a line for each named group of records with fewer trials than needed."""
    return [
        f"{name}: {len(records)} of {trials} trials"
        for name, records in groups.items()
        if len(records) < trials
    ]


def _compared(name, found):
    """Return a line on a difference of medians."""
    ours, theirs = found["medians"]
    text = f"{name}: median {ours:.2f}% against {theirs:.2f}%"
    text += f", difference {found['difference']:+.2f} points"
    if found["interval"]:
        low, high = found["interval"]
        text += f" (95% interval {low:+.2f} to {high:+.2f})"
    p = "" if found["p"] is None else f", p = {found['p']:.3g}"
    return f"{text}{p}, {found['trials'][0]} and {found['trials'][1]} trials"


def _count(groups):
    """Return how many records there are in groups, each counted once."""
    return len({record["name"] for records in groups.values() for record in records})


def _effect(found):
    """Return the differences of medians in words."""
    points = [one["difference"] for one in found.values()]
    if not points:
        return ""
    return f"{_range(points, '+.2f')} points"


def _range(values, form):
    """Return the least and the greatest value as text, once where both read the same."""
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"


def _groups(pairs):
    """Return the groups of records by name; a pair's name is ``ours against theirs``."""
    groups = {}
    for name, both in pairs.items():
        groups.update(zip(name.split(" against "), both))
    return groups


def _differences(pairs, alternative):
    """Return the differences of test errors of the pairs that have records, and lines on them."""
    found = {
        name: statistics.difference(_errors(ours), _errors(theirs), alternative)
        for name, (ours, theirs) in pairs.items()
        if ours and theirs
    }
    return found, [_compared(name, one) for name, one in found.items()]


def _side_by_side(pairs, alternative):
    """Compare test errors in pairs of groups.

    Args:
        pairs (dict): by name, the records of ours and of theirs.
        alternative (str): ``less`` where ours are said to be lower, else ``greater``.

    Returns:
        _Judged: of all comparisons together.
    """
    found, details = _differences(pairs, alternative)
    runs = _count(_groups(pairs))
    missing = _missing(_groups(pairs), TRIALS)
    if missing:
        return _Judged(UNKNOWN, details + missing, runs=runs)
    sign = -1 if alternative == "less" else 1
    directed = all(sign * one["difference"] > 0 for one in found.values())
    p = statistics.combined([one["p"] for one in found.values()])
    if len(found) > 1:
        details.append(f"all comparisons together: p = {p:.3g}; {_DEPENDENT}")
    outcome = HOLDS if directed and p <= LEVEL else FAILS
    return _Judged(outcome, details, _effect(found), runs)


def _no_difference(pairs):
    """Judge that no two-sided rank test of pairs of groups is significant."""
    found, details = _differences(pairs, "two-sided")
    runs, missing = _count(_groups(pairs)), _missing(_groups(pairs), TWO_SIDED_TRIALS)
    if missing:
        return _Judged(UNKNOWN, details + missing, runs=runs)
    outcome = HOLDS if all(one["p"] > LEVEL for one in found.values()) else FAILS
    return _Judged(outcome, details, _effect(found), runs)


def _unit_settings(least):
    """Return the penalties whose published usage rate reaches a least one, with R13's widths."""
    rows = compare.published()["unit-selection"]["rows"]
    rates = [rows[label]["usage_rate"] if label in rows else 1.0 for label in UNIT_EPSILON0]
    widths = [UNIT_WIDTHS[min(i, len(UNIT_WIDTHS) - 1)] for i in range(len(UNIT_EPSILON0))]
    return [
        (label, width) for label, width, rate in zip(UNIT_EPSILON0, widths, rates) if rate >= least
    ]


def _unit_pairs(evidence, settings):
    """Return the groups of penalties beside those of fixed structures, by their names."""
    return {
        f"epsilon0 = {label} against fixed {width}": (
            evidence.unit("sno", label),
            evidence.unit("fixed", width),
        )
        for label, width in settings
    }


def _original_pairs(evidence, labels):
    """Return the groups of penalties beside that of the full network."""
    return _unit_pairs(evidence, [(label, UNIT_WIDTHS[-1]) for label in labels])


@_rule(
    "unit-beats-fixed",
    f"{TRIALS} trials of each",
    "Every penalty whose published usage rate is 25% or more, against the fixed structure of "
    "that usage rate: lower median test errors, one-sided rank tests combined (Stouffer).",
)
def _unit_beats_fixed(evidence, claim):
    return _side_by_side(_unit_pairs(evidence, _unit_settings(claim["usage_rate"])), "less")


@_rule(
    "unit-fixed-degrades",
    "1 trial of each of the six widths",
    "Kendall's tau of the test error over the width of the fixed structures is negative, "
    "one-sided, and the widest structure's median is below the narrowest's. The claim holds in "
    "part if the trend is not significant without one of the widths.",
)
def _unit_fixed_degrades(evidence, claim):
    groups = {f"fixed {width}": evidence.unit("fixed", width) for width in UNIT_WIDTHS}
    details = [
        f"{name}: median {statistics.median(_errors(records)):.2f}%, {_trials(records)}"
        for name, records in groups.items()
        if records
    ]
    missing = _missing(groups, 1)
    if missing:
        return _Judged(UNKNOWN, details + missing, runs=_count(groups))

    def trend(left_out=None):
        points = [
            (width, error)
            for width, records in zip(UNIT_WIDTHS, groups.values())
            for error in _errors(records)
            if width != left_out
        ]
        return *statistics.falling(*zip(*points)), len(points)

    tau, p, count = trend()
    details.append(f"Kendall's tau {tau:.2f}, p = {p:.3g}, over {count} runs")
    medians = [statistics.median(_errors(records)) for records in groups.values()]
    if not (p <= LEVEL and medians[0] > medians[-1]):
        return _Judged(FAILS, details, f"tau {tau:.2f}", count)
    carried = []
    for width in UNIT_WIDTHS:
        other, p, rest = trend(width)
        if p > LEVEL:
            carried.append(width)
            line = f"without fixed {width}: Kendall's tau {other:.2f}, p = {p:.3g}, {rest} runs"
            details.append(line)
    if not carried:
        return _Judged(HOLDS, details, f"tau {tau:.2f}", count)
    names = " and ".join(f"fixed {width}" for width in carried)
    details.append(f"the trend is significant only with {names}")
    return _Judged(PARTLY, details, f"tau {tau:.2f}, only with {names}", count)


@_rule(
    "unit-degrades-at-6",
    f"{TRIALS} trials of each",
    "2^-6, whose published usage rate is 6.6%, against every penalty of a greater usage rate: "
    "higher median test errors, one-sided rank tests combined (Stouffer).",
)
def _unit_degrades_at_6(evidence, claim):
    smallest = UNIT_EPSILON0[0]
    pairs = {
        f"epsilon0 = {smallest} against epsilon0 = {label}": (
            evidence.unit("sno", smallest),
            evidence.unit("sno", label),
        )
        for label in UNIT_EPSILON0[1:]
    }
    return _side_by_side(pairs, "greater")


@_rule(
    "unit-beats-original",
    f"{TRIALS} trials of each",
    "Every penalty whose published usage rate is 25% or more, against the full network (fixed "
    "784): lower median test errors, one-sided rank tests combined (Stouffer).",
)
def _unit_beats_original(evidence, claim):
    labels = [label for label, _ in _unit_settings(claim["usage_rate"])]
    return _side_by_side(_original_pairs(evidence, labels), "less")


@_rule(
    "unit-negative-epsilon",
    f"{TRIALS} trials of each",
    "Every run with a negative penalty ends with all units selected; and lower median test "
    "errors than the full network (fixed 784), one-sided rank tests combined (Stouffer).",
)
def _unit_negative_epsilon(evidence, claim):
    labels = [label for label in UNIT_EPSILON0 if label.startswith("-")]
    found = _side_by_side(_original_pairs(evidence, labels), "less")
    runs = [record for label in labels for record in evidence.unit("sno", label)]
    whole = [record["result"]["usage_rate"] == 1 for record in runs]
    if runs:
        found.details.insert(0, f"every unit selected in {sum(whole)} of {len(runs)} runs")
    if not all(whole):
        found.outcome = FAILS
    return found


@_rule(
    "unit-dropout-improves",
    f"{TRIALS} trials of each",
    "Dropout against the full network (fixed 784): a lower median test error, one-sided rank test.",
)
def _unit_dropout_improves(evidence, claim):
    pair = evidence.unit("dropout"), evidence.unit("fixed", UNIT_WIDTHS[-1])
    return _side_by_side({f"Dropout against fixed {UNIT_WIDTHS[-1]}": pair}, "less")


def _counts(record):
    result = record["result"]
    return result.get("units") or result["connections"]


def _told(name, record):
    counts = "/".join(map(str, _counts(record)))
    return f"{name}, seed {record['settings']['seed']}: {counts}"


def _by_chance(find, labels, good, words):
    """Judge in how many runs something is so that happens in a third of them by chance.

    Args:
        find (callable): of the evidence, returns the records of a method and its penalty.
        labels (sequence of str): the penalties, each of which needs a run.
        good (callable): takes the counts of a run's layers or blocks; whether it is so.
        words (str): what is so.

    Returns:
        _Judged: over all runs.
    """
    groups = {f"epsilon0 = {label}": find("sno", label) for label in labels}
    found = [
        (_told(name, record), good(*_counts(record)))
        for name, records in groups.items()
        for record in records
    ]
    missing = _missing(groups, 1)
    if missing:
        return _Judged(UNKNOWN, [name for name, _ in found] + missing, runs=len(found))
    count = sum(ok for _, ok in found)
    p = statistics.sign_test(count, len(found), 1 / 3)
    details = [f"{name}: {'yes' if ok else 'no'}" for name, ok in found]
    told = f"{count} of {len(found)} runs"
    details.append(f"{words} in {told}, by chance p = {p:.3g}; {_DEPENDENT}")
    outcome = HOLDS if p <= LEVEL and count > len(found) / 2 else FAILS
    return _Judged(outcome, details, told, len(found))


@_rule(
    "unit-later-layers-first",
    "1 trial of each",
    "In the runs with penalties of 2^-6 to 0 (some units removed): the first hidden layer "
    "keeps the most units, in more than half of them and significantly more often than the "
    "third expected by chance (binomial test).",
)
def _unit_later_layers_first(evidence, claim):
    labels = [label for label in UNIT_EPSILON0 if parse_epsilon0(label) >= 0]
    return _by_chance(
        evidence.unit,
        labels,
        lambda first, *others: first > max(others),
        "the first layer keeps the most",
    )


def _seconds(records):
    return statistics.median([record["times"]["seconds"] for record in records])


def _last_seconds(records):
    """Return the median seconds of an iteration in the last tenth of each training."""
    found = []
    for record in records:
        settings = from_dict(record["settings"])
        # Seconds from the beginning to the end of each epoch.
        ends = [0.0, *record["times"]["epoch_seconds"]]
        first = settings.epochs * 9 // 10
        epochs = (settings.epochs - first) / settings.epochs
        found.append((ends[-1] - ends[first]) / (epochs * settings.iterations()))
    return statistics.median(found)


def _time(pairs, at_the_end=False):
    """Compare median seconds of trainings on each kind of machine that has both.

    Args:
        pairs (dict): by name, the records of ours and of theirs.
        at_the_end (bool): judge an iteration of the last tenth, where the structure is what it
            ends as; otherwise whole trainings.
    """
    usable, details, ratios = {}, [], []
    for name, (ours, theirs) in pairs.items():
        ours, theirs = by_computer(ours), by_computer(theirs)
        both = [where for where in ours if where in theirs]
        usable[name] = [[r for where in both for r in side[where]] for side in (ours, theirs)]
        for where in both:
            mine, other = _seconds(ours[where]), _seconds(theirs[where])
            ratio = mine / other
            hours = f"{mine / 3600:.2f} h against {other / 3600:.2f} h"
            line = f"{name}: whole trainings {hours}, ratio {ratio:.2f}"
            if at_the_end:
                mine, other = _last_seconds(ours[where]), _last_seconds(theirs[where])
                ratio = mine / other
                line += f"; an iteration at the end {1e3 * mine:.3g} ms against {1e3 * other:.3g} "
                line += f"ms, ratio {ratio:.2f}"
            ratios.append(ratio)
            details.append(f"{line}, on {where}")
    groups = _groups(usable)
    missing = _missing(groups, 1)
    if missing:
        return _Judged(UNKNOWN, details + missing, runs=_count(groups))
    outcome = HOLDS if max(ratios) <= SAME_TIME else FAILS
    effect = f"ratio {_range(ratios, '.2f')}"
    return _Judged(outcome, details, effect, _count(groups))


@_rule(
    "unit-time-as-fixed",
    "1 trial of each",
    "Every penalty against the full network (fixed 784), on each kind of machine that has both: "
    "the median time of a whole training, evaluation included, is at most 1.05 times as long.",
)
def _unit_time_as_fixed(evidence, claim):
    return _time(_original_pairs(evidence, UNIT_EPSILON0))


def _connection_pairs(evidence, wanted):
    """Return pairs of the penalties whose published usage rate is wanted and random structures."""
    rows = compare.published()["connection-selection"]["rows"]
    found = {}
    for label in CONNECTION_EPSILON0:
        if label in rows and wanted(rows[label]["usage_rate"]):
            rate = min(CONNECTION_USAGE_RATES, key=lambda r: abs(r - rows[label]["usage_rate"]))
            name = f"epsilon0 = {label} against random at {rate:.1%}"
            found[name] = evidence.connection("sno", label), evidence.connection("random", rate)
    return found


@_rule(
    "conn-beats-random",
    f"{TRIALS} trials of each",
    "Every penalty whose published usage rate is 15% to 40% (42.3% counted in), against "
    "random structures of that usage rate: lower median test errors, one-sided rank tests "
    "combined (Stouffer).",
)
def _conn_beats_random(evidence, claim):
    low, high = claim["usage_rate"]
    pairs = _connection_pairs(evidence, lambda rate: low <= rate <= high + 0.025)
    found = _side_by_side(pairs, "less")
    found.details += _literally(pairs, "less")
    return found


def _literally(pairs, alternative):
    """Return lines on the same comparisons where dead structures are not drawn again (R19).

    The first structure that such a run drew could only guess.
    """
    if not any(_dead(record) for _, theirs in pairs.values() for record in theirs):
        return []
    lines = ["without drawing dead structures again (reading R19):"]
    for name, (ours, theirs) in pairs.items():
        if ours and theirs:
            errors = [
                GUESSING if _dead(record) else error
                for record, error in zip(theirs, _errors(theirs))
            ]
            found = statistics.difference(_errors(ours), errors, alternative)
            lines.append(f"  {_compared(name, found)}")
    return lines


def _dead(record):
    """Return whether the first structure that a random run drew had no path."""
    return record["result"].get("dead_draws", 0) > 0


@_rule(
    "conn-ties-random",
    f"{TWO_SIDED_TRIALS} trials of each",
    "Every penalty whose published usage rate is over 60%, against random structures of that "
    "usage rate: no two-sided rank test of test errors is significant. That is no proof that "
    "they are equal.",
)
def _conn_ties_random(evidence, claim):
    pairs = _connection_pairs(evidence, lambda rate: rate > claim["usage_rate"])
    return _no_difference(pairs)


def _against_whole(evidence, rates):
    """Return pairs of random structures of some usage rates and the full network."""
    whole = evidence.connection("random", 1.0)
    return {
        f"random at {rate:.1%} against random at 100.0%": (
            evidence.connection("random", rate),
            whole,
        )
        for rate in rates
    }


@_rule(
    "conn-few-removed",
    f"{TWO_SIDED_TRIALS} trials of each",
    "Random structures of usage rates over 60% against the full network (random at 100%): no "
    "two-sided rank test of test errors is significant. That is no proof that they are equal.",
)
def _conn_few_removed(evidence, claim):
    least = claim["usage_rate"]
    pairs = _against_whole(evidence, [r for r in CONNECTION_USAGE_RATES if least < r < 1])
    return _no_difference(pairs)


@_rule(
    "conn-random-degrades",
    f"{TRIALS} trials of each",
    "Random structures of usage rates under 40% against the full network (random at 100%): higher "
    "median test errors, one-sided rank tests combined (Stouffer).",
)
def _conn_random_degrades(evidence, claim):
    rates = [rate for rate in CONNECTION_USAGE_RATES if rate < claim["usage_rate"]]
    pairs = _against_whole(evidence, rates)
    found = _side_by_side(pairs, "greater")
    for name, (ours, _) in pairs.items():
        dead = sum(map(_dead, ours))
        if dead:
            found.details.append(
                f"{name}: {dead} of {len(ours)} first draws had no path and were drawn again (R19)"
            )
    return found


@_rule(
    "conn-epsilon-no-effect",
    f"{TWO_SIDED_TRIALS} trials of each",
    "The penalties 2^-6 and 2^-5 against 0: no two-sided rank test of test errors is significant. "
    "That is no proof that they are equal.",
)
def _conn_epsilon_no_effect(evidence, claim):
    pairs = {
        f"epsilon0 = {label} against epsilon0 = 0": (
            evidence.connection("sno", label),
            evidence.connection("sno", "0"),
        )
        for label in ("2^-6", "2^-5")
    }
    return _no_difference(pairs)


@_rule(
    "conn-within-1-at-40",
    f"{TRIALS} trials of each",
    "2^-4, whose published usage rate is 42.3%, against the full network (random at 100%): "
    "the median test error is higher by at most one point.",
)
def _conn_within_1_at_40(evidence, claim):
    ours, theirs = evidence.connection("sno", "2^-4"), evidence.connection("random", 1.0)
    pairs = {"epsilon0 = 2^-4 against random at 100.0%": (ours, theirs)}
    found, details = _differences(pairs, "two-sided")
    if ours:
        details.append(f"usage rate {_usage(ours):.1f}%")
    runs, missing = _count(_groups(pairs)), _missing(_groups(pairs), TRIALS)
    if missing:
        return _Judged(UNKNOWN, details + missing, runs=runs)
    (one,) = found.values()
    outcome = HOLDS if one["difference"] <= claim["points"] else FAILS
    return _Judged(outcome, details, _effect(found), runs)


@_rule(
    "conn-early-blocks-first",
    "1 trial of each",
    "In the runs with penalties of 0, 2^-6 and 2^-5: the third block keeps the most "
    "connections, in more than half of them and significantly more often than the third "
    "expected by chance (binomial test).",
)
def _conn_early_blocks_first(evidence, claim):
    return _by_chance(
        evidence.connection,
        ("0", "2^-6", "2^-5"),
        lambda first, second, third: third > max(first, second),
        "the third block keeps the most",
    )


@_rule(
    "conn-second-block",
    "1 trial of each",
    "In the runs with penalties of 2^-4, 2^-3 and 2^-2: the second block keeps the fewest "
    "connections, in more than half of them and significantly more often than the third "
    "expected by chance (binomial test).",
)
def _conn_second_block(evidence, claim):
    return _by_chance(
        evidence.connection,
        ("2^-4", "2^-3", "2^-2"),
        lambda first, second, third: second < min(first, third),
        "the second block keeps the fewest",
    )


@_rule(
    "conn-wide-second-block",
    f"{TRIALS} trials",
    "In the runs at 2^-4: the second block has the fewest connections and the most layers of "
    "equal depth, in more than half of them. The depth is reported but not tested, since the paper "
    "prints that of a single run.",
)
def _conn_wide_second_block(evidence, claim):
    records = evidence.connection("sno", "2^-4")
    found, details = [], []
    for record in records:
        settings, result = from_dict(record["settings"]), record["result"]
        bits = [int(bit) for bit in result["structure"]]
        matrices = structures.block_matrices(bits, settings.BLOCKS, settings.block_layers)
        widths = [structures.width(matrix) for matrix in matrices]
        sparse = _counts(record)[1] < min(_counts(record)[0], _counts(record)[2])
        found.append(sparse and widths[1] > max(widths[0], widths[2]))
        details.append(
            f"{_told('epsilon0 = 2^-4', record)} connections, {'/'.join(map(str, widths))} layers "
            f"side by side, depth {result['depth']} (published {claim['depth']})"
        )
    missing = _missing({"epsilon0 = 2^-4": records}, TRIALS)
    if missing:
        return _Judged(UNKNOWN, details + missing, runs=len(records))
    outcome = HOLDS if numpy.mean(found) > 0.5 else FAILS
    return _Judged(outcome, details, f"{sum(found)} of {len(found)} runs", len(records))


@_rule(
    "conn-time-as-random",
    "1 trial of each",
    "Every penalty with a published usage rate, against random structures of that usage rate "
    "on each kind of machine that has both: the median time of an iteration in the last tenth of "
    "the training, when the structure is almost final, is at most 1.05 times as long. The ratio "
    "of whole trainings is reported as well: absent connections cost nothing here, unlike in a "
    "masked network, so a training that begins with half of the connections takes longer.",
)
def _conn_time_as_random(evidence, claim):
    return _time(_connection_pairs(evidence, lambda rate: True), at_the_end=True)


def findings(records):
    """Compute every claim.

    Args:
        records (list of dict): of both experiments and any schedule; those that are not at the
            paper's do not count.

    Returns:
        list of Finding: in the paper's order.
    """
    evidence = Evidence(records)
    found = []
    for claim in compare.published()["claims"]:
        rule, needs, sentence = _RULES[claim["id"]]
        judged = rule(evidence, claim)
        told = claim["id"], claim["section"], claim["text"], sentence, needs
        found.append(Finding(*told, judged.outcome, judged.effect, judged.runs, judged.details))
    return found


def text(found):
    """Return findings as text.

    Args:
        found (list of Finding): of :func:`findings`.

    Returns:
        str: a paragraph for each claim.
    """
    counts = collections.Counter(finding.outcome for finding in found)
    words = {HOLDS: "hold", PARTLY: "hold in part", FAILS: "fail", UNKNOWN: "undecided"}
    told = ", ".join(f"{counts[name]} {words[name]}" for name in OUTCOMES)
    parts = [f"The paper's {len(found)} claims, from records at its schedule: {told}."]
    for finding in found:
        effect = f", {finding.effect}" if finding.effect else ""
        lines = [
            f"{finding.id} (section {finding.section}): {finding.outcome.upper()}{effect}, "
            f"n = {finding.runs}"
        ]
        lines += [f"  {finding.text}", f"  Rule: {finding.rule} Needs {finding.needs}."]
        lines += [f"    {detail}" for detail in finding.details]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)
