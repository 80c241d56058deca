"""The result of the checks of a link, as one readable object."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a link.

    Attributes:
        check (str): the name of the check.
        message (str): one line: what is wrong, and what to do.
    """

    check: str
    message: str

    def __str__(self) -> str:
        return f"{self.check}: {self.message}"


@dataclasses.dataclass(frozen=True)
class Report:
    """The result of :func:`~chainer_sno.testing.check_searchable`.

    Attributes:
        link (str): the name of the link's class.
        findings (tuple of Finding): what is wrong; empty for a good link.
        passed (tuple of str): the checks that found nothing.
        notes (tuple of str): what could not be checked, or only in part, and why.
    """

    link: str
    findings: tuple[Finding, ...] = ()
    passed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def __repr__(self) -> str:
        return f"<Report of {self.link}: {len(self.findings)} findings, {len(self.passed)} passed>"

    def __str__(self) -> str:
        if self.ok:
            lines = [f"{self.link} is searchable"]
        else:
            lines = [f"{self.link} is not searchable"]
        lines += [f"  wrong: {finding}" for finding in self.findings]
        lines += [f"  good: {', '.join(self.passed)}"] if self.passed else []
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)


class NotSearchable(AssertionError):
    """A link breaks the contract; the message lists every finding.

    Attributes:
        report (Report): the findings.
    """

    def __init__(self, report: Report) -> None:
        super().__init__(str(report))
        self.report = report
