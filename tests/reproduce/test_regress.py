"""Baselines, traces and short runs of regress, and what it prints."""

import json
import re
import shutil

import numpy
import pytest

from reproduce import ReproduceError, cli, regress
from reproduce.experiments.unit_selection import UnitSelection
from reproduce.regress import baselines, cases, runs, traces


def test_the_baselines_are_those_of_the_cases():
    for name, case in {**cases.TRACES, **cases.RUNS}.items():
        content = baselines.read(name, baselines.BASELINES)
        assert content["settings"] == case.settings.as_dict(), name
        assert {"versions", "machine"} <= set(content)
    files = list(baselines.BASELINES.iterdir())
    assert {path.stem for path in files} == {*cases.TRACES, *cases.RUNS}
    assert sum(path.stat().st_size for path in files) < 200_000


@pytest.fixture
def baseline(tmp_path):
    """A copy of one baseline, and a function that changes it."""
    path = tmp_path / "units-fixed.json"
    shutil.copy(baselines.BASELINES / path.name, path)

    def change(function):
        content = json.loads(path.read_text())
        function(content)
        path.write_text(json.dumps(content))

    return path, change


def held_against(path, *options):
    """Hold the case of a baseline against it in this process; return the exit code."""
    return cli.main(
        ["regress", "--traces", "--cases", path.stem, "--baselines", str(path.parent), *options]
    )


def damage(content):
    content["numbers"]["losses"] = "many"


@pytest.mark.parametrize(
    ("do", "message"),
    [
        (lambda path, change: path.unlink(), "there is no baseline"),
        (lambda path, change: path.write_text(path.read_text()[:300]), "is damaged"),
        (lambda path, change: path.write_text("[]"), "is damaged"),
        (lambda path, change: change(damage), "is damaged"),
        (lambda path, change: change(lambda c: c["numbers"].pop("losses")), "is damaged"),
        (lambda path, change: change(lambda c: c.update(schema=0)), "has schema 0, not 1"),
        (
            lambda path, change: change(lambda c: c.update(case="units")),
            "is the baseline of 'units'",
        ),
    ],
)
def test_a_baseline_of_no_use_gets_one_line(do, message, baseline, capsys):
    path, change = baseline
    do(path, change)
    assert held_against(path) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert str(path) in captured.err
    assert "regress --update --cases units-fixed" in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--cases", "units,unicorns"), "there is no case 'unicorns': give some of units, "),
        (("--cases", "run-units", "--traces"), "none of the --cases"),
    ],
)
def test_unknown_cases_get_one_line(options, message, capsys):
    assert cli.main(["regress", *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_machine_does_not_matter_but_a_number_and_a_setting_do(baseline, capsys):
    path, change = baseline
    change(lambda content: content.update(machine={"processor": "abacus"}, versions={}))
    assert held_against(path) == 0
    change(lambda content: content["settings"].update(momentum=0.8))
    assert held_against(path) == 1
    assert re.search("setting momentum +0.9 +0.8 +equal", capsys.readouterr().out)

    def move(content):
        content["settings"]["momentum"] = 0.9
        content["numbers"]["losses"][4][0] += 1e-8

    change(move)
    assert held_against(path) == 1
    assert "losses, iteration 5" in capsys.readouterr().out


def test_update_writes_the_baseline_and_shows_the_difference(baseline, capsys):
    path, change = baseline
    before = json.loads(path.read_text())
    change(lambda content: content["numbers"]["losses"].reverse())
    assert held_against(path, "--update") == 0
    assert "losses, iteration 1" in capsys.readouterr().out
    after = json.loads(path.read_text())
    assert [*after] == [*before]
    assert after["settings"] == before["settings"]
    assert held_against(path) == 0
    assert held_against(path, "--update") == 0
    assert re.search(r"^units-fixed +\S+ +nothing$", capsys.readouterr().out, re.MULTILINE)
    path.unlink()
    assert held_against(path, "--update") == 0
    assert "no baseline" in capsys.readouterr().out
    assert held_against(path) == 0


def test_losses_that_roundings_could_rank_make_no_baseline(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(traces, "MARGIN", 1.0)
    path = tmp_path / "units.json"
    assert held_against(path, "--update") == 2
    assert "give the case another seed" in capsys.readouterr().err
    assert not path.exists()


def test_closest_looks_at_structures_that_differ():
    structures = numpy.array([[1, 0], [0, 1], [1, 0]], bool)
    losses = numpy.array([2.0, 1.0, 2.0])
    assert traces.closest(losses, structures) == 0.5
    assert traces.closest(losses, structures[[0, 1, 1]]) == 0
    assert traces.closest(losses, structures[[0, 0, 0]]) == numpy.inf


def test_a_fingerprint_sees_every_element(rng):
    array = rng.normal(size=(7, 5))
    for i in range(35):
        other = array.copy()
        other.flat[i] += 1e-6
        assert max(abs(numpy.subtract(traces.fingerprint(array), traces.fingerprint(other)))) > 1e-9
    assert traces.fingerprint(array)[1] != pytest.approx(traces.fingerprint(array[::-1])[1])


@pytest.mark.parametrize(
    ("value", "beyond"), [(1e-10, False), (2e-9, True), (numpy.nan, True), (numpy.inf, True)]
)
def test_hold_is_as_tolerant_as_it_says(value, beyond):
    expected = {"losses": numpy.array([[1.0], [0.5]])}
    largest, rows = traces.hold({"losses": [[1.0], [0.5 + value]]}, expected)
    assert (largest > 1) == beyond
    assert [row[0] for row in rows] == ["losses, iteration 2"] * beyond
    assert traces.hold({}, expected)[1]
    assert traces.hold({"losses": [[1.0]]}, expected)[1]


def test_a_band_is_as_wide_as_it_says(monkeypatch):
    monkeypatch.setattr(runs, "AGAIN", 3)
    half = runs.WIDTH * (2 / 3) ** 0.5
    assert runs.band([1.0, 2.0, 3.0]) == pytest.approx((2 - half, 2 + half))
    low, high = runs.band([41.0] * 12)
    assert low < 41 < high < 41.001


def test_short_runs_are_held_against_the_band_of_their_seeds(tmp_path, monkeypatch, capsys):
    settings = UnitSelection(
        epsilon0=-1.0, epochs=1, units=6, layers=2, examples=640, test_examples=200, eta_factor=2
    )
    monkeypatch.setattr(cases, "RUNS", {"small": cases.Case(settings)})
    monkeypatch.setattr(runs, "SEEDS", 3)
    options = ["regress", "--cases", "small", "--baselines", str(tmp_path)]
    assert cli.main([*options, "--update"]) == 0
    content = json.loads((tmp_path / "small.json").read_text())
    assert {"test_error", "usage_rate", "units 1", "units 2"} <= set(content["numbers"])
    capsys.readouterr()
    monkeypatch.setattr(runs, "AGAIN", 1)
    assert cli.main(options) == 0
    printed = capsys.readouterr().out
    first = content["numbers"]["test_error"][0]
    assert re.search(rf"^small +test_error +{first:.4g} .* held$", printed, re.MULTILINE)
    # The same seed gives the same bits, so there is no need to train again.
    found = {"small": [{name: values[0] for name, values in content["numbers"].items()}]}
    monkeypatch.setattr(runs, "train", lambda *arguments: (found, {}))
    found["small"][0]["usage_rate"] = -1
    assert cli.main(options) == 1
    assert "usage_rate" in capsys.readouterr().out.split("What has drifted:")[1]
    failed = {"small": "it was killed by SIGKILL"}
    monkeypatch.setattr(runs, "train", lambda *arguments: ({"small": []}, failed))
    assert cli.main(options) == 1
    assert "failed: it was killed" in capsys.readouterr().out
    with pytest.raises(ReproduceError, match="small failed: it was killed"):
        regress.regress(tmp_path, ["small"], update=True)
