"""The results page and the findings, written from the records before every build.

They state the same as ``results/README.md`` and ``results/FINDINGS.md``, from the same templates.
"""

from pathlib import Path

from sphinx.application import Sphinx

from reproduce import ROOT, figures, progress, record, report
from reproduce.files import make_writable
from reproduce.report import results
from reproduce.report.markup import ReStructuredText

_NAMES = {"README": "index", "FINDINGS": "findings"}
_CONTENTS = "\n.. toctree::\n   :hidden:\n\n   findings\n"


def write_pages(app):
    """Write the pages and their figures into ``results``; pages that have not changed are left."""
    directory = make_writable(Path(app.srcdir) / "results")
    records, refused = record.read_all(ROOT / "results" / "runs")
    short, _ = record.read_all(ROOT / "results" / "pilot")
    names = results.figure_names(records)
    drawn = [
        figure._asdict() for figure in figures.draw_all(records, directory / "figures", names=names)
    ]
    found = report.content(records, refused, drawn, progress.read_all(), short)
    for page, text in report.pages(found, ReStructuredText()).items():
        path = directory / f"{_NAMES[page]}.rst"
        if page == "README":
            text += _CONTENTS
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def setup(app: Sphinx):
    """Write the pages when a build begins."""
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
