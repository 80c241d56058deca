"""Trained networks of records, exported; and the committed ones, which give the recorded errors."""

import errno
import json
import shutil
import sys

import numpy
import onnxruntime
import pytest

import chainer_sno
from chainer_sno import chainer, extensions, links
from chainer_sno.files import read_npz, write_npz
from chainer_sno.saving import load_arrays
from reproduce import ROOT, ReproduceError, cli, data, export, record, run
from reproduce.experiments.connection_selection import ConnectionSelection
from reproduce.experiments.unit_selection import UnitSelection
from reproduce.experiments.unit_training import TEST_BATCH
from tests.reproduce.synthetic import noise

UNITS = {"units": 9, "layers": 2, "examples": 640, "test_examples": 100, "epochs": 1}
CONNECTIONS = {"depth": 10, "growth_rate": 2, "examples": 64, "test_examples": 10, "epochs": 1}
SETTINGS = {
    "sno": UnitSelection(**UNITS),
    "fixed": UnitSelection(method="fixed", width=5, **UNITS),
    "dropout": UnitSelection(method="dropout", **UNITS),
    "connections": ConnectionSelection(epsilon0=-1.0, **CONNECTIONS),
    "random": ConnectionSelection(method="random", usage_rate=0.6, **CONNECTIONS),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The records of short runs on noise, by the method, in the directory where the runs are."""
    out = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load", noise)
        for settings in SETTINGS.values():
            run.run(settings, out, run.Options(quiet=True, plain=True))
    return {name: out / f"{settings.name}.json" for name, settings in SETTINGS.items()}


@pytest.fixture
def copied(runs, tmp_path):
    """Copy a run; return its record's path and that of its weights."""

    def copy(name):
        path = runs[name]
        shutil.copytree(path.parent / SETTINGS[name].name, tmp_path / SETTINGS[name].name)
        shutil.copy(path, tmp_path)
        return tmp_path / path.name, tmp_path / SETTINGS[name].name / "model.npz"

    return copy


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Time each forward pass once."""
    monkeypatch.setattr(chainer_sno.profile.milliseconds, "__defaults__", (0.0, 1))
    monkeypatch.setattr(chainer_sno.describe, "__defaults__", ((1, 64), 0.0))


def trained_link(name, model):
    """Return the network as it was trained, and the structure at which it is evaluated."""
    arrays = read_npz(model)
    own = {key[5:]: array for key, array in arrays.items() if key.startswith("link/")}
    settings = SETTINGS[name]
    if name == "sno":
        link = links.MaskedMLP(784, (9, 9), 10)
    elif name in ("fixed", "dropout"):
        link = links.MLP(784, settings.widths, 10, settings.dropout_ratio or 0.0)
    else:
        link = links.PlainDenseNet(10, 2)
        if name == "random":
            link = links.FixedStructure(link, numpy.zeros(len(link.costs)))
    load_arrays(link, own)
    return link, arrays["bernoulli/theta"] >= 0.5 if "bernoulli/theta" in arrays else None


@pytest.mark.parametrize("name", SETTINGS)
def test_every_kind_of_record_is_exported(name, runs, tmp_path, monkeypatch, capsys, rng):
    monkeypatch.chdir(tmp_path)
    path, settings = runs[name], SETTINGS[name]
    assert cli.main(["export", str(path), "--format", "chainer"]) == 0
    printed = capsys.readouterr().out
    out = tmp_path / "x.onnx"
    assert cli.main(["export", str(path), "--format", "onnx", "--out", str(out)]) == 0
    result = record.read(path)["result"]
    network = chainer_sno.load_compact(f"{settings.name}.npz")
    link, structure = trained_link(name, path.parent / settings.name / "model.npz")
    shape = (784,) if "units" in result else (3, 32, 32)
    x = rng.uniform(size=(4, *shape)).astype("f")
    with chainer.using_config("train", False):
        expected = (link(x) if structure is None else link(x, structure[None])[0]).array
        found = network(x).array
    (other,) = onnxruntime.InferenceSession(out).run(None, {"x": x})
    for y in (found, other):
        numpy.testing.assert_allclose(y, expected, rtol=0, atol=1e-5 * abs(expected).max())
    if "units" in result:
        assert network.widths == (784, *result["units"], 10)
    counts = chainer_sno.profile.count(network, shape)
    assert f"{counts['weights']:,} " in printed
    assert f"{counts['flops']:,} " in printed
    full = 784 * 9 + 81 + 90 if "units" in result else 432 + link_costs(link)
    assert f"{full:,} " in printed
    assert f"test error {result['test_error']:.2%}" in printed
    assert "ms for 64 samples" in printed
    assert "this machine" in printed


def link_costs(link):
    return int(getattr(link, "link", link).costs.sum())


def failure(capsys, *arguments):
    """Return the one line of a command that fails."""
    assert cli.main(["export", *map(str, arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("reproduce: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_no_weights_and_no_record_are_named(copied, capsys, tmp_path):
    path, model = copied("sno")
    model.unlink()
    error = failure(capsys, path, "--format", "onnx")
    assert "the weights of unit-selection_sno" in error
    assert str(model) in error
    assert "results/networks" in error
    assert "there is no file" in failure(capsys, tmp_path / "none.json", "--format", "onnx")
    path.write_text("{}")
    assert "is not a record" in failure(capsys, path, "--format", "onnx")


def test_committed_networks_stand_in_for_a_run(copied, capsys, tmp_path, monkeypatch):
    path, model = copied("connections")
    monkeypatch.setattr(export, "NETWORKS", tmp_path / "networks")
    export.NETWORKS.mkdir()
    kept = export.NETWORKS / f"{path.stem}.npz"
    assert cli.main(["export", str(path), "--format", "chainer", "--out", str(kept)]) == 0
    model.unlink()
    out = tmp_path / "out.npz"
    assert cli.main(["export", str(path), "--format", "chainer", "--out", str(out)]) == 0
    assert out.read_bytes() == kept.read_bytes()
    chainer_sno.save_compact(kept, links.MLP(784, (5, 5), 10))
    error = failure(capsys, path, "--format", "onnx")
    assert f"{str(kept)!r} is damaged or belongs to another run (its structure is not" in error
    kept.write_bytes(out.read_bytes()[:-9])
    assert f"{str(kept)!r} is damaged or" in failure(capsys, path, "--format", "onnx")


@pytest.mark.parametrize("name", ["sno", "connections", "random", "fixed"])
def test_damaged_weights_are_named(name, copied, capsys):
    path, model = copied(name)
    arrays, whole = read_npz(model), model.read_bytes()
    model.write_bytes(whole[: len(whole) // 2])
    assert "model.npz' is damaged or" in failure(capsys, path, "--format", "onnx")
    weights = next(key for key in arrays if key.endswith("W"))
    write_npz(model, {**arrays, weights: arrays[weights][:1]})
    assert f"{weights[5:]} is float32 of shape" in failure(capsys, path, "--format", "onnx")
    structure = {"random": "link/structure", "fixed": ""}.get(name, "bernoulli/theta")
    if structure:
        write_npz(model, {**arrays, structure: 1 - arrays[structure]})
        assert "damaged or belongs to another run" in failure(capsys, path, "--format", "onnx")


def test_weights_that_the_system_refuses_to_read_are_not_called_damaged(
    copied, capsys, monkeypatch
):
    path, model = copied("fixed")

    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(export, "read_npz", refuse)
    error = failure(capsys, path, "--format", "onnx")
    assert f"{str(model)!r} cannot be read (Permission denied): make it readable" in error


def test_a_dead_network_is_named(copied, capsys):
    for name, changes in (
        ("connections", {"dead": True, "depth": None}),
        ("sno", {"units": [0, 3]}),
    ):
        path, _ = copied(name)
        found = json.loads(path.read_text())
        found["result"].update(changes)
        record.write(path, found)
        error = failure(capsys, path, "--format", "onnx")
        assert "no path leads through its structure" in error


def test_where_nothing_can_be_written_it_says_so(runs, capsys, monkeypatch, tmp_path):
    out = tmp_path / "nowhere" / "x.npz"
    error = failure(capsys, runs["sno"], "--format", "chainer", "--out", out)
    assert f"--out: there is no directory {str(out.parent)!r}" in error
    monkeypatch.setitem(sys.modules, "onnx", None)
    out = tmp_path / "x.onnx"
    error = failure(capsys, runs["sno"], "--format", "onnx", "--out", out)
    assert "pip install onnx" in error
    assert not out.exists()


COMMITTED = sorted((ROOT / "results" / "networks").glob("*.npz"))


def test_there_are_committed_networks():
    assert len(COMMITTED) >= 2


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_a_committed_network_makes_the_recorded_errors(path):
    found = record.read(ROOT / "results" / "runs" / f"{path.stem}.json")
    assert found["settings"]["experiment"] == "unit-selection"
    _, test = data.load(found["settings"]["dataset"])
    iterator = chainer_sno.ArrayIterator(test, TEST_BATCH, repeat=False, shuffle=False, divisor=255)
    network = chainer_sno.load_compact(path)
    observed = extensions.ErrorEvaluator(iterator, network)()
    assert observed["main/error"] == found["result"]["test_error"]
    assert observed["main/loss"] == pytest.approx(found["result"]["test_loss"], rel=1e-5)
    assert network.widths == (784, *found["result"]["units"], 10)
    with pytest.raises(ReproduceError, match="the weights of .* are neither in"):
        export.trained_network({**found, "name": "another"}, path.parent)
    again = export.trained_network(found, ROOT / "results" / "runs")
    assert again.geometry == network.geometry
