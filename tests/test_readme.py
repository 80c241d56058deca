"""The README's example runs, and its map names every module."""

import re

import numpy
import pytest

from reproduce import ROOT, data

README = (ROOT / "README.md").read_text()


def test_the_example_runs(tmp_path, monkeypatch, capsys, rng):
    code = re.search(r"## The library\n\n((?:    .*\n|\n)+)", README)[1].replace("\n    ", "\n")
    x = rng.integers(0, 256, (64, 784), dtype=numpy.uint8)
    t = rng.integers(0, 10, 64).astype("i")
    monkeypatch.setattr(data, "load", lambda name: ((x, t), (x, t)))
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code.strip().replace("500, ", "2, "), names)
    assert names["updater"].iteration == 4
    mode = names["bernoulli"].mode()
    x = x.astype("f") / 255
    y = names["small"](x).array
    numpy.testing.assert_allclose(y, names["network"](x, mode[None]).array[0], atol=1e-4)


@pytest.mark.parametrize("package", ["chainer_sno", "reproduce"])
def test_the_map_names_every_module(package):
    for path in (ROOT / package).glob("*.py"):
        if not path.name.startswith("__"):
            assert f"{path.name} " in README, path
