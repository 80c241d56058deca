"""Snapshots of an earlier version continue to the end that this version reached.

The files in ``snapshots`` were written by commit 5f3bd36, which is older than the registry of
experiments, :func:`chainer_sno.make_updater` and the declared settings.  Each was taken after four
iterations in float64 on generated images.  ``expected.json`` has the record's result, the losses
and a fingerprint of every array at the end, as that commit computed them.
"""

import json
import shutil
from pathlib import Path

import numpy
import pytest

from chainer_sno import chainer
from reproduce import data, experiments, run
from reproduce.regress.traces import fingerprint, generated_data

HERE = Path(__file__).parent / "snapshots"
EXPECTED = json.loads((HERE / "expected.json").read_text())


@pytest.mark.parametrize("name", EXPECTED)
def test_an_old_snapshot_continues_to_the_same_numbers(name, tmp_path, monkeypatch):
    expected = EXPECTED[name]
    settings = experiments.from_dict(expected["settings"])
    monkeypatch.setattr(data, "load", lambda *_: generated_data(settings))
    directory = tmp_path / settings.name
    directory.mkdir()
    shutil.copy(HERE / f"{name}.npz", directory / "snapshot_iter_000000004.npz")
    said = []
    with chainer.using_config("dtype", numpy.dtype("float64")):
        options = run.Options(quiet=True, plain=expected["plain"], say=said.append)
        record = run.run(settings, tmp_path, options)
    assert said[0] == f"{settings.name}: going on at iteration 4"
    # Another processor adds in another order, hence no equality to the bit.
    close = {"rel": 1e-9, "abs": 1e-9}
    assert record["log"]["main/loss"] == pytest.approx(expected["loss"], **close)
    result = record["result"]
    assert result.keys() >= expected["result"].keys()
    for key, value in expected["result"].items():
        assert result[key] == (pytest.approx(value, **close) if type(value) is float else value)
    with numpy.load(directory / "model.npz") as model:
        for key, value in expected["arrays"].items():
            assert fingerprint(model[key]) == pytest.approx(value, **close), key
