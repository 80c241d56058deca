"""The page that leads from the paper to the code: what it names exists, and nothing is left out."""

import ast
import re
import sys

import pytest

from reproduce import ROOT, compare

sys.path.insert(0, str(ROOT / "docs" / "_extensions"))
paper = pytest.importorskip("paper")

PAGE = (ROOT / "docs/explanation/paper-to-code.rst").read_text()


def names(path):
    """Return the names that a file defines, members of classes with their class."""
    tree = ast.parse(path.read_text())
    found = set()
    for node in tree.body:
        if isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
            if isinstance(node, ast.ClassDef):
                members = (each for each in node.body if isinstance(each, ast.FunctionDef))
                found |= {f"{node.name}.{member.name}" for member in members}
    return found


def test_every_function_and_test_that_is_named_exists():
    named = re.findall(r"``([\w/]+\.py)(?:: |::)([\w.]+)``", PAGE)
    assert len(named) > 40
    for path, name in named:
        assert name in names(ROOT / path), f"{path}: {name}"


def test_every_default_is_the_papers():
    rows = paper.settings()
    assert len(rows) > 20
    for quantity, published, default, _, _ in rows:
        assert published == default, quantity


def test_a_default_that_is_not_the_papers_is_a_warning(monkeypatch):
    row = ("eta", 1, 2, "--eta-factor", "section 4")
    monkeypatch.setattr(paper, "settings", lambda: [row])
    told = []
    monkeypatch.setattr(paper._log, "warning", lambda *words, **_: told.append(words))
    directive = paper.PaperSettings.__new__(paper.PaperSettings)
    monkeypatch.setattr(paper.PaperSettings, "get_location", lambda self: "here")
    directive.rows()
    assert told == [("%s is %s in the paper, and %s here", "eta", 1, 2)]


def test_equations_and_lines_are_marked_at_the_code():
    marks = " ".join(mark for mark, _, _ in paper.lines())
    for line in (1, 4, 5, 6, 7, 8, 9):
        assert re.search(rf"\bline {line}\b", marks), line
    assert "eq. (6)" in marks
    assert "eq. (7)" in marks
    for _, place, code in paper.lines():
        path, _, number = place.partition(":")
        assert code in (ROOT / path).read_text().splitlines()[int(number) - 1]
        assert code
        assert not code.startswith("#")


def test_every_reading_and_every_claim_is_there():
    readings = (ROOT / "docs/explanation/readings.rst").read_text()
    told = set(re.findall(r"^(R\d+),", readings, re.MULTILINE))
    assert len(told) == 19
    assert told <= set(re.findall(r"R\d+", PAGE))
    claims = [claim["id"] for claim in compare.published()["claims"]]
    assert [row[0] for row in paper.judges()] == claims
