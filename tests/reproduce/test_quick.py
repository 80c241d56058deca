"""The main job, at a hundredth of its size."""

from reproduce import experiments, quick
from reproduce.experiments.unit_selection import UNIT_EPSILON0, UnitSelection
from reproduce.settings import format_epsilon0


def small_runs(seed=0):
    runs = [UnitSelection(epsilon0=e, epochs=1, units=8, layers=3, seed=seed) for e in (0.5, -1)]
    return [*runs, UnitSelection(method="fixed", width=4, epochs=2, units=8, seed=seed)]


def test_the_main_job_is_section_4_1():
    runs = experiments.get("unit-selection").quick(0)
    penalties = [format_epsilon0(run.epsilon0) for run in runs[2:]]
    assert sorted(penalties) == sorted(UNIT_EPSILON0)
    assert {run.eta_factor * run.epochs for run in runs[2:]} == {500}
    assert {run.width for run in runs[:2]} == {205, 784}
    assert len({run.iterations() for run in runs}) == 1


def test_quick_prints_the_table_and_draws_the_figure(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(experiments.get("unit-selection"), "quick", small_runs)
    assert quick.run("unit-selection", tmp_path, tmp_path / "figures") == 0
    printed = capsys.readouterr().out
    for text in ("SHORT RUN", "epsilon0 = 2^-1", "fixed 4 a layer", "eta_theta = 2.4/d", "paper"):
        assert text in printed
    assert "python -m reproduce run unit-selection --epsilon0 2^-7" in printed
    assert sorted(path.suffix for path in (tmp_path / "figures").iterdir()) == [".png", ".svg"]
    # A second call trains nothing and prints the same table.
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    assert len(before) == 3
    assert quick.run("unit-selection", tmp_path, tmp_path / "figures") == 0
    again = capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    assert again.split("trainings;")[0] == printed.split("trainings;")[0]


def test_a_failed_run_is_named_and_the_others_go_on(tmp_path, monkeypatch, capsys):
    good, _, fixed = small_runs()
    bad = UnitSelection(method="fixed", width=4, epochs=2, units=8, lr=1e30, weight_decay=0.0)
    monkeypatch.setattr(experiments.get("unit-selection"), "quick", lambda seed: [bad, good, fixed])
    assert quick.run("unit-selection", tmp_path, tmp_path) == 1
    captured = capsys.readouterr()
    assert "lr=1e+30" in captured.err
    assert (
        "failed: the training has diverged: the loss of iteration 937 is nan: give a smaller --lr"
        in captured.err
    )
    assert len(list(tmp_path.glob("*.json"))) == 2
    assert "epsilon0 = 2^-1" in captured.out
