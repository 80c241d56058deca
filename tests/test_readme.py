"""The README's map names every module; tests/docs runs its code blocks."""

import pytest

from reproduce import ROOT

README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("package", ["chainer_sno", "reproduce"])
def test_the_map_names_every_module(package):
    for path in (ROOT / package).glob("*.py"):
        if not path.name.startswith("__"):
            assert f"{path.name} " in README, path
