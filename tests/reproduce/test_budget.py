import json

import pytest

from reproduce import budget, experiments, sweep
from reproduce.experiments.connection_selection import CONNECTION_EPSILON0, CONNECTION_USAGE_RATES
from tests.reproduce import synthetic


def by_label(records):
    machines, found = budget.estimates(records)
    return machines["unit-selection"], {(each.experiment, each.label): each for each in found}


def test_every_setting_of_the_paper_has_a_line():
    _, found = by_label([synthetic.unit(epsilon0="2^-7")])
    sections = [experiment for experiment, _ in found]
    assert sections.count("unit-selection") == 7 + 6 + 1
    both = len(CONNECTION_EPSILON0) + len(CONNECTION_USAGE_RATES)
    assert sections.count("connection-selection") == both


def test_hours_are_those_of_records_at_the_papers_schedule():
    records = [
        synthetic.unit(seconds=7200.0 + 3600 * seed, epsilon0="2^-7", seed=seed)
        for seed in range(3)
    ]
    # A shorter run of the setting does not count beside them, nor does another processor.
    records += [synthetic.unit(seconds=9e9, epsilon0="2^-7", epochs=4)]
    records += [synthetic.unit(seconds=9e9, epsilon0="2^-7", seed=9, processor="Z")]
    machine, found = by_label(records)
    assert machine == "A processor (fast path)"
    estimate = found["unit-selection", "epsilon0 = 2^-7"]
    assert estimate.hours == pytest.approx(3)
    assert estimate.source == "3 runs of full length"


def test_another_machine_helps_out_and_is_named():
    records = [synthetic.unit(epsilon0="2^-7", seed=seed) for seed in range(3)]
    records += [synthetic.unit(seconds=7200.0, epsilon0="2^-8", processor="Z")]
    # Neither a short run on the processor of the most records nor a third processor is mixed in.
    records += [synthetic.unit(seconds=9e9, epsilon0="2^-8", epochs=4)]
    records += [synthetic.unit(seconds=9e9, epsilon0="2^-8", seed=1, processor="Y")]
    records += [synthetic.unit(seconds=360.0, epsilon0="2^-6", epochs=4, processor="Z")]
    machine, found = by_label(records)
    assert machine == "A processor (fast path)"
    estimate = found["unit-selection", "epsilon0 = 2^-8"]
    assert (estimate.hours, estimate.source) == (
        2,
        "1 run of full length, on Z (fast path)",
    )
    estimate = found["unit-selection", "epsilon0 = 2^-6"]
    assert estimate.hours == pytest.approx(12.5)
    assert estimate.source == "extrapolated from shorter runs, on Z (fast path)"


def test_shorter_runs_are_extrapolated():
    # 4 epochs of 500 take 0.1 hours.
    records = [synthetic.unit(seconds=360.0, epsilon0="2^-6", epochs=4)]
    # Another mini-batch takes another time.
    records += [synthetic.unit(seconds=1.0, epsilon0="2^-8", epochs=4, batch_size=8)]
    _, found = by_label(records)
    estimate = found["unit-selection", "epsilon0 = 2^-6"]
    assert estimate.hours == pytest.approx(12.5)
    assert "extrapolated" in estimate.source
    missing = found["unit-selection", "epsilon0 = 2^-8"]
    assert (missing.hours, missing.source) == (None, "no record")


def test_the_total_names_what_it_lacks():
    records = [synthetic.unit(seconds=3600.0, epsilon0="2^-6")]
    records += [synthetic.unit(seconds=7200.0, method="fixed", width=205)]
    _, found = budget.estimates(records)
    hours, missing = budget.total([c for c in found if c.experiment == "unit-selection"], 5)
    assert hours == pytest.approx(15)
    assert len(missing) == 12
    assert "dropout" in missing


def test_without_records_there_is_no_machine():
    nowhere = dict.fromkeys(experiments.all_experiments())
    assert budget.estimates([]) == (nowhere, [])


def test_each_experiment_has_the_machine_of_its_own_records():
    records = [synthetic.unit(epsilon0="2^-7", seed=seed) for seed in range(3)]
    records.append(synthetic.connection(epsilon0="2^-4", seconds=3600.0, processor="Z"))
    machines, found = budget.estimates(records)
    assert machines["unit-selection"] == "A processor (fast path)"
    assert machines["connection-selection"].startswith("Z (")
    (known,) = (e for e in found if e.experiment == "connection-selection" and e.hours)
    assert (known.hours, known.source) == (1, "1 run of full length")


def test_records_of_changed_settings_choose_no_machine(tmp_path):
    records = [synthetic.unit(epsilon0="2^-7")]
    records += [
        synthetic.unit(epsilon0="2^-7", seed=seed, gradients="sum", processor="Z")
        for seed in range(3)
    ]
    machine, found = by_label(records)
    assert machine == "A processor (fast path)"
    assert found["unit-selection", "epsilon0 = 2^-7"].source == "1 run of full length"
    machine, found = by_label(records[1:])
    assert machine is None
    assert not any(each.hours for each in found.values())
    for number, record in enumerate(records):
        (tmp_path / f"{number}.json").write_text(json.dumps(record))
    known = {"epsilon0": [2**-7]}
    runs = sweep.grid(experiments.get("unit-selection"), "paper", range(1), ["sno"], known)
    text = budget.of_runs(runs, tmp_path / "none", tmp_path)
    assert text.endswith("on A processor (fast path).")


def test_what_is_finished_costs_nothing_on_no_machine(tmp_path):
    runs = sweep.grid(experiments.get("unit-selection"), "paper", range(2), ["dropout"])

    def last_line():
        return budget.of_runs(runs, tmp_path, tmp_path / "none").splitlines()[-1]

    unknown = "of unknown cost: no record tells what one of them takes."
    assert last_line() == f"2 runs {unknown}"
    (tmp_path / f"{runs[0].name}.json").touch()
    assert last_line() == f"2 runs, 1 of them finished, the others {unknown}"
    (tmp_path / f"{runs[1].name}.json").touch()
    assert last_line() == "2 runs, all finished."
