"""The files and tests that the pages for contributors name are there."""

import re

import pytest

from reproduce import ROOT

PAGES = ("CONTRIBUTING.md", "docs/how-to/extend.rst", "docs/explanation/paper-to-code.rst")


@pytest.fixture(scope="module")
def defined():
    """The names of all tests, by file."""
    return {
        str(path.relative_to(ROOT)): set(re.findall(r"^def (test_\w+)", path.read_text(), re.M))
        for path in (ROOT / "tests").rglob("test_*.py")
    }


@pytest.mark.parametrize("page", PAGES)
def test_the_files_are_there(page):
    named = set(
        re.findall(
            r"`((?:chainer_sno|reproduce|tests|docs|results)/[\w./-]*)", (ROOT / page).read_text()
        )
    )
    assert named
    for path in named:
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", PAGES)
def test_the_tests_are_there(page, defined):
    words = (ROOT / page).read_text()
    everywhere = set().union(*defined.values())
    for name in re.findall(r"`(test_\w+)`", words):
        assert name in everywhere, name
    # "``test_a`` and ``test_b`` in ``tests/file.py``"
    pattern = r"((?:``test_\w+``(?:,? and |, | for the \w+ and )?)+) in ``(tests/[\w/]+\.py)``"
    for names, path in re.findall(pattern, words):
        for name in re.findall(r"test_\w+", names):
            assert name in defined[path], f"{path}: {name}"


def test_the_targets_are_there():
    words = (ROOT / "CONTRIBUTING.md").read_text()
    targets = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.M)[1].split()
    for target in re.findall(r"make ([\w-]+)", words):
        assert target in targets


def test_the_recipes_cover_every_kind():
    found = re.findall(r"^(An? .+)\n-+$", (ROOT / "docs/how-to/extend.rst").read_text(), re.M)
    kinds = ["An experiment", "A data set", "A setting", "An optimizer", "A claim", "A figure"]
    assert found == [*kinds, "A searchable link"]
