"""What snapshots say of runs that have not ended."""

import json

import numpy
import pytest

from chainer_sno import files
from reproduce import (
    Interrupted,
    ReproduceError,
    cli,
    data,
    experiments,
    progress,
    report,
    run,
    snapshot,
)
from reproduce.experiments import connection_training
from reproduce.experiments.connection_selection import ConnectionSelection
from reproduce.experiments.unit_selection import UnitSelection
from tests.reproduce import synthetic
from tests.reproduce.synthetic import noise

SMALL = {"depth": 10, "growth_rate": 2, "examples": 64, "test_examples": 20, "epochs": 4}
RUNS = {
    "connections": ConnectionSelection(epsilon0=0.25, eta_factor=3.0, reestimate=1, **SMALL),
    "random": ConnectionSelection(method="random", usage_rate=0.6, **{**SMALL, "batch_size": 32}),
    "units": UnitSelection(units=6, layers=2, epochs=4, examples=640, test_examples=20),
}
#: A state of a run at the paper's settings.
STATE = {
    "unfinished": True,
    "name": ConnectionSelection(epsilon0=0.25).name,
    "settings": ConnectionSelection(epsilon0=0.25).as_dict(),
    "path": "winograd",
    "iteration": 1000,
    "iterations": 468_750,
    "written": "2026-11-29",
    "usage_rate": 0.2,
    "theta_histogram": [200, *[0] * 18, 73],
}


def interrupt(settings, out, epochs=2):
    """Train until some of the four epochs are over."""
    with pytest.raises(Interrupted):
        run.run(settings, out, run.Options(quiet=True, watch=lambda log: len(log) == epochs))


@pytest.fixture
def out(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "load", noise)
    for settings in RUNS.values():
        interrupt(settings, tmp_path / "runs")
    return tmp_path / "runs"


def test_what_is_written(out, tmp_path):
    target = tmp_path / "progress"
    written = progress.write(out, target)
    assert [path.stem for path in written] == sorted(s.name for s in RUNS.values())
    found = {entry["name"]: entry for entry in progress.read_all(target)}
    for settings in RUNS.values():
        entry = found[settings.name]
        assert entry["unfinished"] is True
        assert entry["iteration"] == entry["iterations"] / 2 == settings.iterations() / 2
        assert entry["last_epoch"]["epoch"] == 2
        assert entry["computers"][0]["iterations"] == [1, entry["iteration"]]
    settings = RUNS["connections"]
    entry = found[settings.name]
    _, content = snapshot.read(snapshot.snapshots(out / settings.name)[0])
    theta = content["updater/bernoulli/theta"]
    bits, costs = theta >= 0.5, content["updater/bernoulli/costs"]
    assert entry["structure"] == "".join("01"[bit] for bit in bits.astype(int))
    assert entry["connections"] == [int(bits[i : i + 6].sum()) for i in (0, 6, 12)]
    assert entry["usage_rate"] == pytest.approx((bits * costs).sum() / costs.sum())
    assert sum(entry["theta_histogram"]) == len(theta)
    assert entry["theta_histogram"][0] == (theta < 0.05).sum()
    assert 0 <= entry["last_epoch"]["reestimated_augmented_test_error"] <= 1
    units = found[RUNS["units"].name]
    assert len(units["units"]) == 2
    assert "connections" not in units
    assert "theta_histogram" not in found[RUNS["random"].name]


def test_the_epoch_of_statistics_estimated_anew_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "load", noise)
    monkeypatch.setattr(connection_training, "ESTIMATES", 2)
    interrupt(RUNS["random"], tmp_path / "runs", 3)
    (path,) = progress.write(tmp_path / "runs", tmp_path / "progress")
    (entry,) = progress.read_all(tmp_path / "progress")
    last = entry["last_epoch"]
    assert (last["epoch"], last["reestimated_epoch"]) == (3, 2)
    header, (row,) = progress.rows([entry])
    again = f"{100 * last['reestimated_augmented_test_error']:.2f}"
    assert row[header.index("re-estimated %")] == f"{again} (epoch 2)"
    # Older files do not say in which epoch it was: it was the last.
    del last["reestimated_epoch"]
    assert progress.rows([entry])[1][0][header.index("re-estimated %")] == again
    # Still older ones have an estimate from images that are not augmented, which is not shown.
    last |= {"reestimated_test_error": last.pop("reestimated_augmented_test_error")}
    last["reestimated_epoch"] = 2
    assert progress.rows([entry])[1][0][header.index("re-estimated %")] == "-"


def test_a_run_that_ends_takes_its_file_with_it(out, tmp_path):
    target = tmp_path / "progress"
    progress.write(out, target)
    settings = RUNS["units"]
    run.run(settings, out, run.Options(quiet=True))
    assert settings.name not in [path.stem for path in progress.write(out, target)]
    assert not (target / f"{settings.name}.json").exists()


def test_damaged_snapshots_are_passed_over(out, tmp_path):
    for path in snapshot.snapshots(out / RUNS["units"].name):
        path.write_bytes(b"no snapshot")
    assert len(progress.write(out, tmp_path / "progress")) == 2


def test_what_cannot_be_told_is_named_and_left_out(out, tmp_path, monkeypatch, capsys):
    (out / "elsewhere").mkdir()
    identity = json.dumps({"experiment": "elsewhere", "path": "fast"})
    files.write_npz(out / "elsewhere" / "snapshot_iter_000000001.npz", {"identity": identity})
    monkeypatch.delattr(type(experiments.get("unit-selection")), "structure")
    assert len(progress.write(out, tmp_path / "progress")) == 2
    unknown, silent = capsys.readouterr().err.splitlines()
    assert "elsewhere' (experiment 'elsewhere' is unknown: give one of" in unknown
    assert "unit-selection does not say what a structure selects: define structure" in silent


def test_the_report_shows_them_apart(out, tmp_path):
    progress.write(out, tmp_path / "progress")
    report.write([], [], tmp_path, tmp_path / "progress")
    text = (tmp_path / "REPORT.md").read_text()
    assert "## Unfinished runs" in text
    assert "| Connection selection on CIFAR-10 | sno epsilon0=2^-2, seed 0 | 4 | 8 |" in text
    assert "Unfinished runs" in (tmp_path / "report.html").read_text()
    report.write([], [], tmp_path, tmp_path / "nowhere")
    assert "Unfinished" not in (tmp_path / "REPORT.md").read_text()


def test_the_command(out, tmp_path, capsys):
    target = tmp_path / "progress"
    assert cli.main(["progress", f"--out={out}", f"--to={target}"]) == 0
    assert "random usage-rate=0.6, seed 0" in capsys.readouterr().out
    assert cli.main(["progress", f"--out={tmp_path / 'none'}", f"--to={target}"]) == 2
    assert "--out: there is no directory" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert cli.main(["progress", f"--out={tmp_path / 'empty'}", f"--to={target}"]) == 2
    assert "holds no runs: give the directory" in capsys.readouterr().err


@pytest.mark.parametrize("change", [{"unfinished": False}, {"usage_rate": 2}, {"iteration": "5"}])
def test_a_file_of_another_form_is_refused(change, out, tmp_path):
    target = tmp_path / "progress"
    path = progress.write(out, target)[0]
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ReproduceError, match="does not have the expected form"):
        progress.read_all(target)
    path.write_text("{")
    with pytest.raises(ReproduceError, match="cannot be read"):
        progress.read_all(target)


def test_a_structure_without_a_path_has_no_depth():
    bits = numpy.zeros(18, bool)
    found = experiments.of(RUNS["connections"]).structure(RUNS["connections"], bits)
    assert found["depth"] is None
    assert progress.rows(
        [
            {"settings": RUNS["connections"].as_dict(), "iteration": 1, **found}
            | {"iterations": 2, "usage_rate": 0.0, "theta_histogram": [3, *[0] * 18, 1]}
        ]
    )[1][0][6:9] == ["-", "none", "100"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "another"}, "name is another, not connection-selection_sno"),
        ({"iterations": 7}, "iterations is 7, not 468750"),
        ({"structure": "01"}, "bits is 2, not 273"),
        ({"theta_histogram": [0, 0]}, "theta is 0, not 273"),
    ],
)
def test_a_state_that_does_not_fit_its_settings_is_refused(change, message, tmp_path):
    (tmp_path / "state.json").write_text(json.dumps({**STATE, **change}))
    with pytest.raises(ReproduceError, match=message):
        progress.read_all(tmp_path)


def test_the_report_does_not_call_a_finished_run_unfinished(tmp_path, monkeypatch):
    monkeypatch.setattr(report.figures, "draw_all", lambda *_: [])
    (tmp_path / "state.json").write_text(json.dumps(STATE))
    other = ConnectionSelection(epsilon0=0.25, seed=1)
    state = {**STATE, "name": other.name, "settings": other.as_dict()}
    (tmp_path / "other.json").write_text(json.dumps(state))
    report.write([synthetic.connection(epsilon0="2^-2")], [], tmp_path, tmp_path)
    text = (tmp_path / "REPORT.md").read_text()
    _, _, unfinished = text.partition("## Unfinished runs\n")
    assert "seed 1 |" in unfinished
    assert "seed 0 |" not in unfinished


def test_the_structure_stands_beside_the_papers(tmp_path):
    """Only where all settings are the paper's; the layers of the second block are parallel."""
    settings = ConnectionSelection(epsilon0=0.25)
    trial = synthetic.connection(wide=(1,), epsilon0="2^-2")["result"]
    state = {"iteration": 60_000, "iterations": 468_750, "usage_rate": 0.2, "epoch": 3}
    state["theta_histogram"] = [3, *[0] * 18, 1]
    state |= {key: trial[key] for key in ("connections", "structure", "depth")}
    changed = ConnectionSelection(epsilon0=0.25, lr=0.05)
    entries = [{"settings": each.as_dict(), **state} for each in (settings, changed)]
    header, table = progress.rows(entries)
    place = header.index("the paper at the end")
    assert [row[place] for row in table] == ["36/6/20", "-"]
    ((legend, header, table),) = progress.structures(entries)
    assert "as wide as its layers allow" in legend
    assert [row[-2:] for row in table] == [["0/12/0", "0/12/0"]] * 2
    assert progress.structures([{"settings": UnitSelection().as_dict()}]) == []


def test_what_is_not_the_papers_is_named(out, tmp_path):
    progress.write(out, tmp_path / "progress")
    header, table = progress.rows(progress.read_all(tmp_path / "progress"))
    changed = dict(
        zip((row[1] for row in table), (row[header.index("not the paper's")] for row in table))
    )
    assert "depth=10" in changed["sno epsilon0=2^-2, seed 0"]
