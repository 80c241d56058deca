"""The example runs as it is given, goes on after an interruption, and costs what it says."""

import importlib.util
import subprocess
import sys

import numpy
import pytest

from chainer_sno import StructureUpdater, complexity, profile
from reproduce import ROOT

PATH = ROOT / "examples" / "fashion_mnist_channels.py"


@pytest.fixture
def example(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    spec = importlib.util.spec_from_file_location("fashion_mnist_channels", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_command_runs(tmp_path):
    command = [sys.executable, str(PATH), "--quick"]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert "SearchableConvNet is searchable" in done.stdout
    assert "test error" in done.stdout
    (figure,) = tmp_path.rglob("*.png")
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_it_goes_on_after_an_interruption(example, tmp_path, monkeypatch, capsys):
    def run(name):
        found = example.main(["--quick", "--out", str(tmp_path / name)])
        return {key: value for key, value in found.items() if key != "elapsed_time"}

    whole = run("whole")
    kind, update, done = example.Snapshot, StructureUpdater.update_core, []

    def interrupted(self):
        if len(done) == 13:
            raise KeyboardInterrupt
        done.append(self.iteration)
        update(self)

    monkeypatch.setattr(example, "Snapshot", lambda out, identity, *_, **__: kind(out, identity, 5))
    with monkeypatch.context() as patch:
        patch.setattr(StructureUpdater, "update_core", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run("interrupted")
    monkeypatch.setattr(
        StructureUpdater, "update_core", lambda self: (done.append(self.iteration), update(self))
    )
    assert run("interrupted") == whole
    assert done == [*range(13), *range(10, 20)], "it began again at the last snapshot"
    capsys.readouterr()


def test_a_channel_costs_what_goes_with_it(example):
    link = example.SearchableConvNet((3, 4, 5))
    x = numpy.zeros((1, 1, 28, 28), "f")
    full = numpy.ones(12, dtype=bool)

    def measured(structure):
        network = link.compact(structure)
        return network.weights(), profile.count(network, x.shape[1:])["flops"]

    weights, flops = (complexity.costs(link, criterion, x) for criterion in ("weights", "flops"))
    numpy.testing.assert_array_equal(flops, link.costs)
    assert measured(full)[0] == link.weights()
    for bit in range(12):
        without = full.copy()
        without[bit] = False
        lost = numpy.subtract(measured(full), measured(without))
        numpy.testing.assert_array_equal(lost, [weights[bit], flops[bit]])
        assert link.weight_ratio(without) == measured(without)[0] / link.weights()
