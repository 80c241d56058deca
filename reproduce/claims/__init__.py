"""The claims of the paper, each computed from records by a rule that is named beside it.

Only records at the paper's schedule count.  A claim *holds*, *holds in part*, *does not hold*, or
there are *not enough runs* to say: a rule states how many trials of which settings it needs.  Where
a rule compares test errors, every compared median must lie on the side that the paper says, and the
rank tests of all comparisons together must be significant at 5%.

Seeds are not independent over settings: runs of one seed share the initial weights, the order of
the data and the random numbers.  Tests that combine settings take them as independent, and say so.
"""

import collections
from collections.abc import Iterable, Sequence

from reproduce import compare
from reproduce._types import Record
from reproduce.claims import connection_selection, unit_selection  # noqa: F401 - they register rules
from reproduce.claims.rules import (
    FAILS,
    HOLDS,
    LEVEL,
    OUTCOMES,
    PARTLY,
    RULES,
    UNKNOWN,
    Evidence,
    Finding,
)

__all__ = [
    "FAILS",
    "HOLDS",
    "LEVEL",
    "OUTCOMES",
    "PARTLY",
    "RULES",
    "UNKNOWN",
    "VERDICTS",
    "Finding",
    "findings",
    "tally",
    "text",
]

#: The words that count each verdict, for one claim and for several.
VERDICTS = {
    HOLDS: ("holds", "hold"),
    PARTLY: ("holds in part", "hold in part"),
    FAILS: ("fails", "fail"),
    UNKNOWN: ("is undecided", "are undecided"),
}


def findings(records: Iterable[Record]) -> list[Finding]:
    """Compute every claim.

    Args:
        records (list of dict): of both experiments and any schedule; those that are not at the
            paper's do not count.

    Returns:
        list of Finding: in the paper's order.
    """
    evidence = Evidence(records)
    judgements = []
    for claim in compare.published()["claims"]:
        judge, needs, sentence = RULES[claim["id"]]
        judged = judge(evidence, claim)
        told = claim["id"], claim["section"], claim["text"], sentence, needs
        judgements.append(
            Finding(*told, judged.outcome, judged.effect, judged.runs, judged.details)
        )
    return judgements


def tally(findings: Iterable[Finding]) -> str:
    """Return how many findings have each verdict, in words: ``7 hold, 1 holds in part, ...``.

    Args:
        findings (list of Finding): of :func:`findings`.
    """
    counts = collections.Counter(finding.outcome for finding in findings)
    return ", ".join(
        f"{counts[outcome]} {words[counts[outcome] != 1]}" for outcome, words in VERDICTS.items()
    )


def text(findings: Sequence[Finding]) -> str:
    """Return findings as text.

    Args:
        findings (list of Finding): of :func:`findings`.

    Returns:
        str: a paragraph for each claim.
    """
    parts = [
        f"The paper's {len(findings)} claims, from records at its schedule: {tally(findings)}."
    ]
    for finding in findings:
        effect = f", {finding.effect}" if finding.effect else ""
        lines = [
            f"{finding.id} (section {finding.section}): {finding.outcome.upper()}{effect}, "
            f"n = {finding.runs}"
        ]
        lines += [f"  {finding.text}", f"  Rule: {finding.rule} Needs {finding.needs}."]
        lines += [f"    {detail}" for detail in finding.details]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)
