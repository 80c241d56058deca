"""The main job at a hundredth of its size, and the sweep below it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reproduce import ROOT, quick, sweep
from reproduce.settings import UNIT_EPSILON0, UnitSelection, format_epsilon0


def small_runs(seed=0):
    runs = [UnitSelection(epsilon0=e, epochs=1, units=8, layers=3, seed=seed) for e in (0.5, -1)]
    return [*runs, UnitSelection(method="fixed", width=4, epochs=2, units=8, seed=seed)]


def test_the_main_job_is_section_4_1():
    runs = sweep.quick_settings()
    assert [format_epsilon0(run.epsilon0) for run in runs[:7]] == list(UNIT_EPSILON0)
    assert {run.eta_factor * run.epochs for run in runs[:7]} == {500}
    assert [run.width for run in runs[7:]] == [205, 784]
    assert len({run.iterations(60000) for run in runs}) == 1


def test_quick_prints_the_table_and_draws_the_figure(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sweep, "quick_settings", small_runs)
    assert quick.unit_selection(tmp_path, tmp_path / "figures") == 0
    printed = capsys.readouterr().out
    for text in ("SHORT RUN", "epsilon0 = 2^-1", "fixed 4 a layer", "eta_theta = 500/d", "paper"):
        assert text in printed
    assert "python -m reproduce run unit-selection --epsilon0 2^-7" in printed
    assert sorted(path.suffix for path in (tmp_path / "figures").iterdir()) == [".png", ".svg"]
    # A second call trains nothing and prints the same table.
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    assert len(before) == 3
    assert quick.unit_selection(tmp_path, tmp_path / "figures") == 0
    again = capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    assert again.split("trainings;")[0] == printed.split("trainings;")[0]


def test_a_failed_run_is_named_and_the_others_go_on(tmp_path, monkeypatch, capsys):
    good, _, fixed = small_runs()
    bad = UnitSelection(method="fixed", width=4, epochs=2, units=8, lr=1e30)
    monkeypatch.setattr(sweep, "quick_settings", lambda seed: [bad, good, fixed])
    assert quick.unit_selection(tmp_path, tmp_path) == 1
    captured = capsys.readouterr()
    assert "lr=1e+30" in captured.err
    assert "lower the learning rate" in captured.err
    assert len(list(tmp_path.glob("*.json"))) == 2
    assert "epsilon0 = 2^-1" in captured.out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_every_training_with_a_snapshot(tmp_path, number):
    code = "import sys; from reproduce.cli import main; sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "quick", "unit-selection", "--out", str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # As in a terminal's background: only the sweep itself gets the signal.
        preexec_fn=os.setsid,
    )
    for _ in range(400):
        time.sleep(0.05)
        if len(list(tmp_path.glob("*/lock"))) == 2:
            break
    time.sleep(3)
    process.send_signal(number)
    assert process.wait(timeout=20) == 130
    assert len(list(tmp_path.glob("*/snapshot_iter_*.npz"))) == 2
    assert not list(tmp_path.rglob("*.unfinished"))


def test_progress_is_read_from_files(tmp_path):
    from reproduce.run import progress

    run = small_runs()[0]
    assert progress(tmp_path, run, 1875) == 0
    directory = tmp_path / run.name
    directory.mkdir()
    log = Path(directory / "log")
    log.write_text("[")
    assert progress(tmp_path, run, 1875) == 0
    log.write_text(json.dumps([{"iteration": 10}, {"iteration": 20}]))
    assert progress(tmp_path, run, 1875) == 20
    (tmp_path / f"{run.name}.json").write_text("{}")
    assert progress(tmp_path, run, 1875) == 1875
