"""The version stands in one place of the code, and what repeats it for readers agrees with it."""

import re

import chainer_sno
from reproduce import ROOT


def test_the_citation_is_of_this_version_and_licence():
    # The lines at the top level that hold one word.
    lines = re.findall(r"^(\S+): (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    citation = dict(lines)
    assert citation["version"] == chainer_sno.__version__
    assert citation["license"] == "MIT"
    assert (ROOT / "LICENSE").read_text().startswith(f"{citation['license']} License\n")


def test_the_changelog_begins_with_this_version():
    first = re.search(r"^## (\S+?),? ", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first[1] == chainer_sno.__version__


def test_setup_reads_the_version():
    assert "__version__" in (ROOT / "setup.py").read_text()
    assert chainer_sno.__version__ not in (ROOT / "setup.py").read_text()
