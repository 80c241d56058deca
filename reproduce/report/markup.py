"""One text as Markdown, for the repository, or as reStructuredText, for the documentation.

A template states its headings, tables and figures once, with the functions of ``m``, which is
either of the two classes here.
"""

import re
from collections.abc import Iterable, Sequence
from typing import TypeAlias


class Markdown:
    """Markdown as GitHub shows it."""

    #: The ending of a page and the directory of the figures, seen from the page.
    ending, figures = ".md", "figures"
    star = "*"

    def heading(self, level: int, text: str) -> str:
        """Return a heading; level 1 is the title of the page."""
        return f"{'#' * level} {text}"

    def escape(self, text: object) -> str:
        """Return a text in a form that can stand in a cell of a table."""
        return str(text).replace("|", "\\|")

    def code(self, text: str) -> str:
        """Return a text as code within a sentence."""
        return f"`{text}`"

    def link(self, text: str, page: str) -> str:
        """Return a link to another page of the report, named without its ending."""
        return f"[{text}]({page}{self.ending})"

    def table(self, header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
        """Return a table; the cells are marked up already."""
        lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
        return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])

    def figure(self, name: str, caption: str, alt: str) -> str:
        """Return a figure with its caption below it.

        Args:
            name (str): of the PNG file, without its ending.
            caption (str): what is shown.
            alt (str): a few words in the place of the picture.
        """
        return f"![{alt}]({self.figures}/{name}.png)\n\n*{caption}*"


class ReStructuredText:
    """The same, for Sphinx."""

    ending, figures = "", "figures"
    star = "\\*"

    def heading(self, level: int, text: str) -> str:
        """Return a heading; level 1 is the title of the page."""
        return f"{text}\n{'=-~'[level - 1] * len(text)}"

    def escape(self, text: object) -> str:
        """Return a text without anything that Sphinx would take for markup."""
        return re.sub(r"([\\*_`|])", r"\\\1", str(text))

    def code(self, text: str) -> str:
        """Return a text as code within a sentence."""
        return f"``{text}``"

    def link(self, text: str, page: str) -> str:
        """Return a link to another page; only the Markdown has the appendix."""
        if page == "REPORT":
            return self.code("results/REPORT.md")
        address = {"README": "index", "FINDINGS": "findings"}[page]
        return f":doc:`{text} <{address}>`"

    def table(self, header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
        """Return a table; the cells are marked up already."""
        lines = [".. list-table::", "   :header-rows: 1", ""]
        for row in [header, *rows]:
            for i, cell in enumerate(row):
                lines.append(f"{'     -' if i else '   * -'} {cell}".rstrip())
        return "\n".join(lines)

    def figure(self, name: str, caption: str, alt: str) -> str:
        """Return a figure with its caption below it."""
        address = f"{self.figures}/{name}.png"
        return f".. figure:: {address}\n   :alt: {alt}\n\n   {self.escape(caption)}"


#: Either of the two.
Markup: TypeAlias = Markdown | ReStructuredText
