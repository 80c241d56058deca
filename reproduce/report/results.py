"""What the results page says: the scope, the paper's tables, and what is missing."""

import collections
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from reproduce import claims, compare, experiments, sweep
from reproduce._types import Cells, Record
from reproduce.claims.rules import Finding
from reproduce.experiments import from_dict
from reproduce.experiments.base import Experiment
from reproduce.groups import commits as commits_of
from reproduce.groups import computer, safe_name, versions_of
from reproduce.statistics import in_percent


def at_paper(records: Iterable[Record], experiment: str | None = None) -> list[Record]:
    """Return the records of the paper's experiments at its schedule, of one if it is named."""
    kinds = experiments.all_experiments()
    return [
        record
        for record in records
        if from_dict(record["settings"]).is_paper_schedule
        and kinds[record["settings"]["experiment"]].section
        and experiment in (None, record["settings"]["experiment"])
    ]


def published_experiments() -> dict[str, Experiment]:
    """Return the experiments of which the paper prints a table, by name."""
    return {name: kind for name, kind in experiments.all_experiments().items() if kind.table}


def figure_names(records: Sequence[Record]) -> dict[str, str]:
    """Return the figures of the results page: those of the paper.

    Args:
        records (list of dict): of any experiments and schedules.

    Returns:
        dict: from the name of a figure's files to its number in the paper, such as ``Figure
        1(a)``; an experiment without records of two methods at the paper's schedule has none.
    """
    names = {}
    for name, kind in published_experiments().items():
        own = at_paper(records, name)
        # The figure compares the proposed method with others.
        if len({record["settings"]["method"] for record in own}) > 1 and kind.figure:
            names[f"{name}-paper-figure-1{kind.figure}"] = f"Figure 1({kind.figure})"
        for number, penalty in kind.networks.items():
            drawn = [r for r in own if from_dict(r["settings"]).setting == f"epsilon0={penalty}"]
            if drawn:
                first = min(drawn, key=lambda record: record["settings"]["seed"])
                names[f"{safe_name(first['name'])}-figure-{number}"] = f"Figure {number}"
    return names


def span(numbers: Sequence[int]) -> str:
    """Return the least and the greatest of whole numbers: ``3 to 5``; ``none`` without any."""
    if not numbers:
        return "none"
    least, most = min(numbers), max(numbers)
    return str(most) if least == most else f"{least} to {most}"


def _percent(rate: float, digits: int = 1) -> str:
    return f"{in_percent(rate):.{digits}f}"


def _error(quartiles: Iterable[float] | None, trials: int) -> str:
    """Return a median test error in percent, with its quartiles where there are several trials."""
    if quartiles is None:
        return "-"
    low, middle, high = (_percent(value, 2) for value in quartiles)
    return f"{middle} [{low}, {high}]" if trials > 1 else middle


def _rows(rows: Sequence[compare.Row]) -> Cells:
    """Return the cells of Table 1 or 2: ours beside the paper's."""
    again = compare.has_second_result(rows)
    cells = []
    for row in rows:
        paper, trials = row.published, len(row.seeds)
        cells.append(
            [
                row.label,
                str(trials),
                _percent(row.usage_rate[1]),
                _percent(paper["usage_rate"]) if paper else "-",
                compare.counts(part[1] for part in row.selected),
                compare.counts(paper["selected"]) if paper else "-",
                _error(row.test_error, trials),
                *[_error(row.reestimated, trials)] * again,
            ]
        )
    return cells


def settings_of(kind: Experiment) -> list[str]:
    """Return the labels of the settings that the paper compares in an experiment, in order."""
    return [compare.label(settings) for settings in sweep.grid(kind, "paper", range(1))]


def _unfinished(entries: Iterable[Record]) -> list[str]:
    """Return a line for each unfinished run: its setting and how far it is."""
    lines = []
    for entry in entries:
        settings = from_dict(entry["settings"])
        done, whole = entry["iteration"], entry["iterations"]
        told = [compare.label(settings), *settings.changed, f"seed {settings.seed}"]
        words = ", ".join(told)
        lines.append(f"{words}: iteration {done:,} of {whole:,} ({100 * done // whole}%)")
    return lines


def subject(kind: Experiment) -> str:
    """Return an experiment and its data set within a heading: ``unit selection on MNIST``."""
    return kind.heading()[0].lower() + kind.heading()[1:]


def section(
    name: str,
    kind: Experiment,
    records: Sequence[Record],
    findings: Sequence[Finding],
    unfinished: Sequence[Record],
    trials: int,
) -> dict[str, Any]:
    """Return what the page says of an experiment.

    Args:
        name (str): of the experiment.
        kind (Experiment): the experiment.
        records (list of dict): of any experiments and schedules.
        findings (list of Finding): on all claims.
        unfinished (list of dict): see :mod:`reproduce.progress`.
        trials (int): the paper's, of each setting.

    Returns:
        dict: for the templates.
    """
    own = at_paper(records, name)
    rows = compare.rows(name, own)
    counted = {row.label: len(row.seeds) for row in rows}
    wanted = settings_of(kind)
    judged = [finding for finding in findings if finding.section == kind.section]
    under_way = [entry for entry in unfinished if entry["settings"]["experiment"] == name]
    seconds = sum(record["times"]["seconds"] for record in own)
    return {
        "name": name,
        "title": kind.heading(),
        "subject": subject(kind),
        "section": kind.section,
        "table": kind.table,
        "selected": kind.selected,
        "part": kind.part,
        "parts": f"{kind.selected} by {kind.part}",
        "rows": _rows(rows),
        "second": [compare.REESTIMATED] * compare.has_second_result(rows),
        "claims": judged,
        "tally": claims.tally(judged),
        "runs": len(own),
        "trials": span([counted[label] for label in wanted if label in counted]),
        "settings": len(wanted),
        "known": sum(label in counted for label in wanted),
        "hours_of_training": f"{seconds / 3600:.1f}",
        "fewer": [
            f"{label} ({counted[label]})" for label in wanted if 0 < counted.get(label, 0) < trials
        ],
        "none": [label for label in wanted if label not in counted],
        "undecided": [f.id for f in judged if f.outcome == claims.UNKNOWN],
        "unfinished": _unfinished(under_way),
    }


def scope(records: Sequence[Record]) -> dict[str, Any]:
    """Return on what and with what the records were computed, in lines.

    Args:
        records (list of dict): at the paper's schedule.

    Returns:
        dict: the commits, the software and the machines.
    """
    ordered = sorted(records, key=lambda record: record["times"]["finished"])
    commits = list(dict.fromkeys(c[:8] for record in ordered for c in commits_of(record)))
    names = ("python", "chainer", "numpy", "numba", "cupy")
    versions = {
        ", ".join(f"{name} {used[name]}" for name in names if name in used)
        for record in records
        for used in versions_of(record)
    }
    machines = collections.Counter(map(computer, records))
    return {
        "commits": commits,
        "versions": sorted(versions),
        "machines": [f"{where}: {count}" for where, count in sorted(machines.items())],
        "dates": [ordered[0]["times"]["finished"][:10], ordered[-1]["times"]["finished"][:10]]
        if ordered
        else [],
    }


def content(
    records: Sequence[Record],
    findings: Sequence[Finding],
    drawn: Iterable[Mapping[str, Any]],
    unfinished: Sequence[Record] = (),
) -> dict[str, Any]:
    """Return what the results page says.

    Args:
        records (list of dict): of any experiments and schedules.
        findings (list of Finding): on all claims.
        drawn (list): name and caption of each figure, as :func:`reproduce.report.write` has them.
        unfinished (list of dict): see :mod:`reproduce.progress`.

    Returns:
        dict: for the templates.
    """
    trials = compare.published()["trials"]
    numbers = figure_names(records)
    captions = {figure["name"]: figure["caption"] for figure in drawn}
    sections = []
    for name, kind in published_experiments().items():
        part = section(name, kind, records, findings, unfinished, trials)
        part["figures"] = [
            (number, file, captions[file])
            for file, number in numbers.items()
            if file in captions and re.match(rf"{name}[-_]", file)
        ]
        sections.append(part)
    data = [kind.settings().data.title for kind in published_experiments().values()]
    return {
        "sections": sections,
        "trials": trials,
        "data": " and ".join(data),
        "scope": scope(at_paper(records)),
        "count": len(records),
        "at_paper": len(at_paper(records)),
        "unfinished": len(unfinished),
        "source": compare.published()["source"],
    }
