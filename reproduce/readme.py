"""The parts of README.md that records decide: ``make report`` writes them.

A part stands between the lines ``<!-- from the records: NAME -->`` and ``<!-- end -->``.
"""

import collections
import html
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence

from chainer_sno.files import write_bytes
from reproduce import ROOT, ReproduceError, claims, compare, experiments, record, sweep
from reproduce._types import Record
from reproduce.claims.rules import Finding
from reproduce.experiments import from_dict
from reproduce.report import results
from reproduce.statistics import in_percent

#: The page.
PATH = ROOT / "README.md"
#: Where the committed records lie, as the page names them.
RUNS = "results/runs"
#: The settings beside Figure 1(a): their labels in the tables, and what the page calls them.
SETTINGS = {
    "epsilon0 = 2^-6": "ε₀ = 2⁻⁶",
    "epsilon0 = 2^-7": "ε₀ = 2⁻⁷",
    "epsilon0 = 2^-9": "ε₀ = 2⁻⁹",
    "fixed 784 a layer": "whole network, no selection",
}
_PART = re.compile(r"(<!-- from the records: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def parts(records: Iterable[Record]) -> dict[str, str]:
    """Return the parts of the page.

    Args:
        records (list of dict): of any experiments; those at the paper's schedule count.

    Returns:
        dict: texts by name.
    """
    at_paper = collections.defaultdict(list)
    for each in records:
        settings = from_dict(each["settings"])
        if settings.is_paper_schedule:
            at_paper[settings.experiment].append(each)
    return {"figure": _figure(at_paper["unit-selection"]), "status": _status(at_paper)}


def _figure(records: Sequence[Record]) -> str:
    """Return the table of HTML with Figure 1(a) beside some of its settings.

    A renderer of Markdown puts a picture beside a table in HTML alone.
    """
    rows = {row.label: row for row in compare.rows("unit-selection", records)}
    lines = ["<table><tr><td>"]
    lines.append(
        '<img src="results/figures/unit-selection-paper-figure-1a.png" width="420" '
        'alt="Usage rate against test error in unit selection, medians and quartiles">'
    )
    lines.append("</td><td><table>")
    cells = ("MNIST, medians", "units kept", "the paper", "test error", "trials")
    lines.append(_row("th", cells))
    for label, words in SETTINGS.items():
        row = rows.get(label)
        if row is None:
            continue
        paper = f"{in_percent(row.published['usage_rate']):.1f}%" if row.published else "–"
        usage, error = (in_percent(quartiles[1]) for quartiles in (row.usage_rate, row.test_error))
        lines.append(_row("td", (words, f"{usage:.1f}%", paper, f"{error:.2f}%", len(row.seeds))))
    return "\n".join([*lines, "</table></td></tr></table>", ""])


def _row(kind: str, cells: Iterable[object]) -> str:
    """Return a row of a table of HTML."""
    inner = "".join(f"<{kind}>{html.escape(str(cell))}</{kind}>" for cell in cells)
    return f"<tr>{inner}</tr>"


def _status(at_paper: Mapping[str, list[Record]]) -> str:
    """Return the table of what was run, a row for each section of the paper."""
    header = (
        "section",
        "run at the paper's schedule",
        "trials",
        "claims",
        "hours of training",
        "command",
    )
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    judged = claims.findings([each for some in at_paper.values() for each in some])
    for name, experiment in experiments.all_experiments().items():
        if not experiment.section:
            continue
        records = at_paper[name]
        settings = [each.setting or each.method for each in sweep.grid(experiment, "paper", [0])]
        trained = collections.Counter(
            found.setting or found.method
            for found in (from_dict(each["settings"]) for each in records)
        )
        counts = [trained[each] for each in settings]
        done = sum(count > 0 for count in counts)
        run = f"{done} of {len(settings)} settings" if done else "**nothing yet**"
        trials = "–"
        if done:
            plural = "s" * (len(records) != 1)
            each = results.span([count for count in counts if count])
            trials = f"{len(records)} training{plural}, {each} a setting"
        outcomes = collections.Counter(
            finding.outcome for finding in judged if finding.section == experiment.section
        )
        verdicts = ", ".join(
            f"{outcomes[outcome]} {words[outcomes[outcome] > 1]}"
            for outcome, words in claims.VERDICTS.items()
            if outcomes[outcome]
        )
        hours = f"{sum(each['times']['seconds'] for each in records) / 3600:.0f}" if done else "–"
        cells = (f"{experiment.section}, {experiment.title.lower()}", run, trials, verdicts, hours)
        lines.append(f"| {' | '.join(cells)} | `python -m reproduce sweep {name}` |")
    return "\n".join([*lines, "", *_gaps(at_paper, judged), ""])


def _gaps(at_paper: Mapping[str, list[Record]], judged: Iterable[Finding]) -> Iterator[str]:
    """Return a line for each thing that has not been run, so that no table hides it."""
    decided = {finding.section for finding in judged if finding.outcome != claims.UNKNOWN}
    for name, experiment in experiments.all_experiments().items():
        if experiment.section and experiment.section not in decided:
            words = f"Section {experiment.section} has not been run at the paper's schedule"
            if at_paper[name]:
                words = f"Too few runs of section {experiment.section} have finished"
            yield f"**{words}**: nothing here confirms or contradicts its claims."
    if not any("gpu" in each["machine"] for some in at_paper.values() for each in some):
        yield "**No record was made on a GPU.**"


def fill(text: str, parts: Mapping[str, str]) -> str:
    """Return the page with its parts replaced.

    Args:
        text (str): the page.
        parts (dict): texts by name, all of those that the page has.

    Raises:
        ReproduceError: the page lacks a part or has one too many.
    """
    names = [found[2] for found in _PART.finditer(text)]
    if sorted(names) != sorted(parts):
        raise ReproduceError(
            f"README.md has the parts {', '.join(names) or 'none'}, and the records give "
            f"{', '.join(parts)}: restore the lines '<!-- from the records: NAME -->'"
        )
    return _PART.sub(lambda found: found[1] + parts[found[2]] + found[3], text)


def main() -> int:
    """Write the parts into README.md."""
    try:
        records, _ = record.read_all(ROOT / RUNS)
        write_bytes(PATH, fill(PATH.read_text(encoding="utf-8"), parts(records)).encode())
    except ReproduceError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
