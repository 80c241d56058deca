"""The example runs as it is given, without the rest of the repository, and goes on."""

import gzip
import importlib.util
import os
import subprocess
import sys

import numpy
import pytest

from chainer_sno import StructureUpdater, chainer, load_compact
from reproduce import ROOT
from reproduce.data.idx import NAMES, to_idx

PATH = ROOT / "examples" / "fashion_mnist_channels.py"


@pytest.fixture
def example(monkeypatch):
    spec = importlib.util.spec_from_file_location("fashion_mnist_channels", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_command_runs_with_the_library_alone(tmp_path):
    # What the wheel holds, and the example beside it; the checkout is not in the path.
    (tmp_path / "chainer_sno").symlink_to(ROOT / "chainer_sno")
    script = tmp_path / "example.py"
    script.write_text(PATH.read_text())
    blocked = "import sys; sys.modules['reproduce'] = None; sys.argv = sys.argv[1:]; "
    command = [sys.executable, "-c", blocked + "import runpy; runpy.run_path('example.py', "]
    command[-1] += "run_name='__main__')"
    done = subprocess.run(
        [*command, "example.py", "--quick"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert "flops that remain" in done.stdout
    assert "test error" in done.stdout
    (figure,) = tmp_path.rglob("*.png")
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_it_goes_on_after_an_interruption(example, tmp_path, monkeypatch, capsys):
    def run(name):
        found = example.main(["--quick", "--out", str(tmp_path / name)])
        return {key: value for key, value in found.items() if key != "elapsed_time"}

    whole = run("whole")
    update, done = StructureUpdater.update_core, []

    def interrupted(self):
        if len(done) == 13:
            raise KeyboardInterrupt
        done.append(self.iteration)
        update(self)

    with monkeypatch.context() as patch:
        patch.setattr(StructureUpdater, "update_core", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run("interrupted")
    monkeypatch.setattr(
        StructureUpdater, "update_core", lambda self: (done.append(self.iteration), update(self))
    )
    assert run("interrupted") == whole
    assert done == [*range(13), *range(10, 20)], "it began again at the last snapshot"
    small = load_compact(tmp_path / "whole" / "small.npz", example.ConvNet((6, 8, 8)))
    (x, t) = example.made_up_images()[1]
    with chainer.using_config("train", False):
        y = small(x.astype("f") / 255).array
    assert (y.argmax(axis=1) != t).mean() == whole["validation/main/error"]
    capsys.readouterr()


@pytest.mark.parametrize("packed", [False, True])
def test_it_reads_the_files_of_the_data_set(example, packed, rng, tmp_path):
    arrays = {
        name: rng.integers(0, 10, shape, dtype=numpy.uint8)
        for name, shape in zip(NAMES, [(5, 28, 28), (5,), (3, 28, 28), (3,)])
    }
    for name, array in arrays.items():
        content = to_idx(array)
        ending = ".gz" if packed else ""
        path = tmp_path / (NAMES[name] + ending)
        path.write_bytes(gzip.compress(content) if packed else content)
    found = [array for part in example.read_images(tmp_path) for array in part]
    for array, expected in zip(found, arrays.values()):
        numpy.testing.assert_array_equal(array.reshape(expected.shape), expected)
    assert found[0].shape == (5, 1, 28, 28)
    assert found[1].dtype == numpy.int32
