"""The numbers and the conditions behind the sentences of the findings."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy

from reproduce import compare, experiments, progress, statistics
from reproduce._types import Record
from reproduce.claims import LEVEL
from reproduce.claims.connection_selection import GUESSING
from reproduce.claims.rules import Finding
from reproduce.experiments import from_dict
from reproduce.experiments.base import Experiment
from reproduce.groups import by_schedule, by_setting
from reproduce.report import results
from reproduce.statistics import in_percent

#: A layer whose median changes by more than this part of itself is still changing, if that is
#: more than :data:`FEW` units or connections.
MOVING = 1 / 20
FEW = 2
#: Points of a training, as parts of its epochs: the drops of the learning rate, and the end.
POINTS = (0.5, 0.75, 1.0)
#: A network with a greater error, a fraction, only guesses; near :data:`GUESSING` percent.
GUESSES = 0.95 * GUESSING / 100
#: The least part of the epochs that counts as much of a training.
MUCH = 0.1
#: A network with a smaller error, a fraction, has learnt the classes.
LEARNT = 0.1
#: The columns of a log that count the theta in the outer bins of its histogram.
_ENDS = ("theta/bin_00", f"theta/bin_{progress.BINS - 1}")


def agreement(rows: Iterable[compare.Row]) -> dict[str, Any] | None:
    """Return how the rows of a table agree with the published ones.

    Args:
        rows (list of Row): at the paper's schedule.

    Returns:
        dict: ``agreeing`` and ``published``, counts of rows; ``others``, what differs, by label;
        ``largest``, the row whose usage rate differs most; None without a published row.
    """
    known = [row for row in rows if row.published]
    if not known:
        return None
    verdicts = {row.label: compare.verdict(row) for row in known}
    return {
        "agreeing": sum(verdict == "agrees" for verdict in verdicts.values()),
        "published": len(known),
        "others": {label: told for label, told in verdicts.items() if told != "agrees"},
        "largest": max(known, key=lambda row: abs(row.difference or 0)),
    }


def split(rows: Iterable[compare.Row]) -> list[dict[str, Any]] | None:
    """Return the quantities of which the trials lie on one side of the paper's medians.

    Args:
        rows (list of Row): at the paper's schedule.

    Returns:
        list of dict: ``quantity``, ``less``, ``as much``, ``more`` and ``p``, those significant;
        None where no number of trials on one side would be, as there are too few.
    """
    rows = list(rows)
    counted = compare.sides(rows)
    trials = [[sum(counts) for counts in row.sides.values()] for row in rows if row.sides]
    published = compare.published()["trials"]
    # The least p that there can be: all trials above.
    if all(statistics.sides_test(each, each, published) > LEVEL for each in zip(*trials)):
        return None
    return [
        {"quantity": quantity, **sides}
        for quantity, sides in counted.items()
        if sides["p"] <= LEVEL
    ]


def _columns(experiment: Experiment, record: Record) -> list[list[int]]:
    """Return the columns of a log that hold the size of each layer or block, those that exist."""
    count = len(experiment.sizes(record["result"]))
    name = {"layer": "hidden", "block": "block"}.get(experiment.part, experiment.part)
    columns = [record["log"].get(f"structure/{name}_{i}") for i in range(1, count + 1)]
    return [column for column in columns if column is not None]


def drift(name: str, records: Iterable[Record]) -> list[dict[str, Any]]:
    """Return the size of the structures at :data:`POINTS` of the training.

    Args:
        name (str): of an experiment.
        records (list of dict): of it, at the paper's schedule.

    Returns:
        list of dict: of each penalty that removes something its ``label``, the median ``sizes``
        at each point, and ``moving``, whether one of them changes by more than :data:`MOVING`
        and :data:`FEW` after the last drop of the learning rate.
    """
    kind = experiments.get(name)
    drifts = []
    for (method, _), trials in by_setting(records).items():
        if method != "sno" or all(r["result"]["usage_rate"] == 1 for r in trials):
            continue
        columns = [_columns(kind, record) for record in trials]
        if any(len(each) < len(kind.sizes(r["result"])) for each, r in zip(columns, trials)):
            continue
        epochs = [max(1, round(point * len(columns[0][0]))) for point in POINTS]
        # Of shape (trial, layer, point).
        sizes = numpy.array([[[c[e - 1] for e in epochs] for c in each] for each in columns])
        medians = numpy.median(sizes, axis=0)
        before, after = medians[:, -2], medians[:, -1]
        drifts.append(
            {
                "label": compare.label(from_dict(trials[0]["settings"])),
                "epochs": epochs,
                "sizes": [compare.counts(medians[:, i]) for i in range(len(POINTS))],
                "moving": bool((abs(after - before) > numpy.maximum(MOVING * before, FEW)).any()),
            }
        )
    return drifts


def disputed(name: str, records: Iterable[Record]) -> list[str]:
    """Return the penalties whose trials disagree on which of the last two parts keeps more."""
    kind = experiments.get(name)
    labels = []
    for trials in by_setting(records).values():
        sizes = [kind.sizes(record["result"])[-2:] for record in trials]
        if {-1, 1} <= {(second > third) - (second < third) for second, third in sizes}:
            labels.append(compare.label(from_dict(trials[0]["settings"])))
    return labels


def guessing(name: str, records: Iterable[Record]) -> dict[str, Any] | None:
    """Return how long the network at M* only guesses, at the penalty that keeps the least.

    Args:
        name (str): of an experiment.
        records (list of dict): of it, at the paper's schedule.

    Returns:
        dict: ``label``; ``epochs``, of the training; ``guess``, in how many epochs of it, and
        ``learnt``, the epoch from which the error stays below :data:`LEARNT`, the least and the
        greatest over the trials; None where a trial does not guess for :data:`MUCH` of its
        epochs, or never learns.
    """
    own = [record for record in records if record["settings"]["method"] == "sno"]
    if not own:
        return None
    least = min(by_setting(own).values(), key=lambda trials: trials[0]["result"]["usage_rate"])
    guess, learnt = [], []
    for record in least:
        errors = numpy.array(record["log"]["validation/main/error"])
        guess.append(int((errors > GUESSES).sum()))
        above = numpy.flatnonzero(errors >= LEARNT)
        learnt.append(int(above[-1]) + 2 if len(above) else 1)
    epochs = len(least[0]["log"]["epoch"])
    if min(guess) < MUCH * epochs or max(learnt) > epochs:
        return None
    return {
        "label": compare.label(from_dict(least[0]["settings"])),
        "epochs": epochs,
        "guess": results.span(guess),
        "learnt": results.span(learnt),
    }


def _span(values: Sequence[float], digits: int = 1) -> str:
    """Return the least and the greatest of fractions, in percent."""
    low, high = (f"{in_percent(value):.{digits}f}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def _nearer(row: compare.Row, usual: compare.Row | None) -> dict[str, bool]:
    """Return of each part and of the usage rate, by name, whether a row is nearer to the paper.

    Args:
        row (Row): of trials with a changed setting.
        usual (Row): of those at the paper's schedule.

    Returns:
        dict: whether the median differs less from the published one; empty where nothing is
        published, or there are no trials to compare with.
    """
    if row.published is None or usual is None:
        return {}
    names = [*compare.published()[row.experiment]["groups"], "usage rate"]
    paper = [*row.published["selected"], row.published["usage_rate"]]
    own, others = (
        [*(part[1] for part in each.selected), each.usage_rate[1]] for each in (row, usual)
    )
    return {name: abs(a - p) < abs(b - p) for name, a, b, p in zip(names, own, others, paper)}


def changed(records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """Return the runs of full length with a changed setting, beside the paper's trials.

    Args:
        records (list of dict): of any experiments and schedules.

    Returns:
        dict: from the title of an experiment to ``rows``, lists of cells: the change, the setting,
        n, the usage rate, the sizes, the test error, and in which of usage rate and sizes the
        medians are nearer to the published ones than those of the paper's schedule, of which the
        range of the trials stands in brackets; and ``better``, the changes that are nearer in all
        of them, each with the settings of which that is so.
    """
    tables: dict[str, dict[str, Any]] = {}
    usual: dict[str, dict[str, compare.Row]] = {}
    for group in by_schedule(records):
        if group.is_paper or group.fraction != 1:
            continue
        name = group.settings.experiment
        trials: dict[str, list[Any]] = {}
        at_paper = results.at_paper(records, name)
        for record in at_paper:
            label = compare.label(from_dict(record["settings"]))
            trials.setdefault(label, []).append(record["result"])
        if name not in usual:
            usual[name] = {row.label: row for row in compare.rows(name, at_paper)}
        # Of other data nothing is published.
        known = {} if "dataset" in group.changes else usual[name]
        found = tables.setdefault(group.title, {"rows": [], "better": []})
        compared: dict[str, bool] = {}
        change = ", ".join(f"{key}={value}" for key, value in group.changes.items())
        for row in compare.rows(name, group.records):
            beside = trials.get(row.label, [])

            def cell(
                key: str, digits: int, row: compare.Row = row, beside: list[Any] = beside
            ) -> str:
                middle = f"{in_percent(getattr(row, key)[1]):.{digits}f}"
                return middle + (
                    f" [{_span([result[key] for result in beside], digits)}]" if beside else ""
                )

            nearer = _nearer(row, known.get(row.label))
            chosen = "-"
            if nearer:
                compared[row.label] = all(nearer.values())
                chosen = ", ".join(quantity for quantity, is_so in nearer.items() if is_so) or "-"
                chosen = "all" if compared[row.label] else chosen
            found["rows"].append(
                [
                    change,
                    row.label,
                    str(len(row.seeds)),
                    cell("usage_rate", 1),
                    compare.counts(part[1] for part in row.selected),
                    cell("test_error", 2),
                    chosen,
                ]
            )
        if compared and all(compared.values()):
            found["better"].append(f"{change} ({', '.join(compared)})")
    return tables


def pilot(records: Sequence[Record], known: Collection[str]) -> list[dict[str, Any]]:
    """Return the short runs of the proposed method, in the schedule that most short runs have.

    Args:
        records (list of dict): of ``results/pilot``.
        known (collection of str): the experiments of which no short run is shown.

    Returns:
        list of dict: of each experiment its ``subject``, the ``schedule`` in words, the ``rows`` of
        a table, and ``factors``: in runs that differ in eta_theta only, which part of theta is
        decided at the end.
    """
    sections = []
    for name, kind in results.published_experiments().items():
        groups = compare.schedules(name, records)
        if not groups or name in known:
            continue
        largest = max(groups, key=lambda group: len(group.records))
        rows = [
            [
                row.label.removeprefix("epsilon0 = "),
                f"{in_percent(row.usage_rate[1]):.1f}",
                compare.counts(part[1] for part in row.selected),
                f"{in_percent(row.test_error[1]):.2f}",
            ]
            for row in compare.rows(name, largest.records)
            if row.method == "sno"
        ]
        sections.append(
            {
                "subject": results.subject(kind),
                "selected": f"{kind.selected} by {kind.part}",
                "schedule": str(largest.fraction),
                "eta": f"{largest.settings.eta_factor:g}/d" if largest.settings.eta_factor else "",
                "rows": rows,
                "factors": _factors(records, name),
            }
        )
    return sections


def _factors(records: Iterable[Record], name: str) -> list[tuple[str, str]]:
    """Return pairs of eta_theta and the part of theta decided, where only eta_theta differs."""
    runs: dict[tuple[str, int], list[Any]] = {}
    for record in records:
        settings = from_dict(record["settings"])
        if settings.experiment == name and settings.method == "sno":
            decided = sum(record["log"].get(column, [0])[-1] for column in _ENDS) / settings.bits
            key = settings.setting, settings.epochs
            runs.setdefault(key, []).append((settings.eta_factor, decided))
    several: list[Any] = max(runs.values(), key=len, default=[])
    if len(several) < 2:
        return []
    return [(f"{factor:g}/d", f"{decided:.0%}") for factor, decided in sorted(several)]


def content(
    records: Sequence[Record], findings: Iterable[Finding], short: Sequence[Record] = ()
) -> dict[str, Any]:
    """Return what the findings say beside the results page.

    Args:
        records (list of dict): of any experiments and schedules.
        findings (list of Finding): on all claims.
        short (list of dict): the records of ``results/pilot``.

    Returns:
        dict: for the templates.
    """
    parts, complete = {}, []
    for name, kind in results.published_experiments().items():
        own = results.at_paper(records, name)
        rows = compare.rows(name, own)
        if {row.label for row in rows}.issuperset(results.settings_of(kind)):
            complete.append(name)
        best = min(rows, key=lambda row: row.test_error[1], default=None)
        parts[name] = {
            "agreement": agreement(rows),
            "split": split(rows),
            "drift": drift(name, own),
            "disputed": disputed(name, own),
            "guessing": guessing(name, own),
            "best": best,
            "medians": {row.label: f"{in_percent(row.test_error[1]):.2f}%" for row in rows},
        }
    return {
        "parts": parts,
        "verdicts": {finding.id: finding for finding in findings},
        "changed": changed(records),
        "pilot": pilot(short, complete),
        "end": f"{1 / progress.BINS:g}",
    }
