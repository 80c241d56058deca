import json
import os
import subprocess
import sys

import pytest

from reproduce import ROOT, ReproduceError, cli, compare, experiments, record, schemas, statistics
from reproduce.experiments.connection_selection import CONNECTION_EPSILON0
from reproduce.experiments.unit_selection import UNIT_EPSILON0
from reproduce.figures import style
from reproduce.settings import parse_epsilon0
from tests.reproduce import synthetic


def test_published_numbers_fit_the_readings():
    """R1: the printed usage rates are the fractions of units, to within half a point."""
    tables = compare.published()
    for label, row in tables["unit-selection"]["rows"].items():
        assert label in UNIT_EPSILON0
        assert abs(sum(row["selected"]) / 2352 - row["usage_rate"]) < 0.006
    assert tables["unit-selection"]["rows"]["2^-7"] == {
        "usage_rate": 0.261,
        "selected": [340, 141, 126],
    }
    assert tables["connection-selection"]["rows"]["2^-4"]["selected"] == [57, 39, 67]


def test_the_settings_are_the_published_ones():
    """Every hyperparameter that the paper prints is the default of its experiment."""
    found = compare.published()["settings"]
    for name, experiment in experiments.all_experiments().items():
        kind = experiment.settings
        paper = found[name]
        for method in kind.methods():
            settings = kind(method=method)
            length = paper["sno" if method == "sno" else "others"]
            assert (settings.epochs, settings.batch_size) == (
                length["epochs"],
                length["batch_size"],
            )
            assert settings.lr == paper["lr"]
            assert settings.bits == paper["bits"]
            assert settings.momentum == found["momentum"]
            assert settings.weight_decay == found["weight_decay"]
        assert kind().samples == found["samples"]
        assert kind().eta_factor == found["eta_factor"]
    assert tuple(found["unit-selection"]["epsilon0"]) == UNIT_EPSILON0
    assert tuple(found["connection-selection"]["epsilon0"]) == CONNECTION_EPSILON0


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("trials",), "five"),
        (("claims",), []),
        (("unit-selection", "rows", "2^-6", "usage_rate"), 6.6),
        (("connection-selection", "full"), [91, 91]),
        (("settings", "unit-selection", "sno"), {"epochs": 500}),
    ],
)
def test_a_damaged_published_file_is_named(place, value):
    found = compare.published()
    part = found
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    with pytest.raises(
        ReproduceError, match="'published.json' does not have the expected form at " + place[0]
    ):
        schemas.check(found, schemas.PUBLISHED, "published.json")


def test_the_package_does_not_need_what_lies_beside_it():
    for path in (ROOT / "results").glob("*.json"):
        json.loads(path.read_text())
    names = ("shared",)
    for folder in ("chainer_sno", "reproduce"):
        for path in (ROOT / folder).rglob("*.py"):
            assert not any(f"../{name}" in path.read_text() for name in names), path


def test_the_table_shows_medians_beside_the_paper():
    records = [
        synthetic.unit(error, units, epsilon0=2.0**-7, seed=seed)
        for seed, (error, units) in enumerate(
            [(0.01, (340, 100, 50)), (0.03, (350, 141, 60)), (0.02, (330, 200, 10))]
        )
    ]
    records += [synthetic.unit(method="fixed", width=205), synthetic.unit(epsilon0=-1.0)]
    header, _, first, second, third = compare.table("unit-selection", records).splitlines()
    assert "units 1st/2nd/3rd" in header
    assert first.split() == ["epsilon0", "=", "2^-7", "3", "340/141/50", "340/141/126"] + [
        "23.0", "26.1", "10.0", "2.00"
    ]  # fmt: skip
    assert second.split()[2:6] == ["-2^0", "1", "10/8/6", "-"]
    assert third.split()[:4] == ["fixed", "205", "a", "layer"]


def test_a_median_halfway_between_two_counts_is_shown_as_it_is():
    records = [
        synthetic.unit(units=units, epsilon0="2^-6", seed=seed)
        for seed, units in enumerate([(103, 28, 15), (103, 17, 35)])
    ]
    _, _, line = compare.table("unit-selection", records).splitlines()
    assert line.split()[4] == "103/22.5/25"


def test_table_2_shows_connections_by_block():
    records = [
        synthetic.connection(epsilon0="2^-4"),
        synthetic.connection(method="random", usage_rate=0.423),
    ]
    header, _, first, second = compare.table("connection-selection", records).splitlines()
    assert "connections by block" in header
    assert first.split()[2:7] == ["2^-4", "1", "57/39/67", "57/39/67", "59.7"]
    assert first.split()[7] == "42.3"
    assert second.startswith("random at 42.3%")


def test_a_row_holds_quartiles_and_the_difference():
    records = [
        synthetic.unit(error, units, 3600.0, epsilon0="2^-7", seed=seed)
        for seed, (error, units) in enumerate(
            [(0.01, (340, 141, 126)), (0.03, (340, 141, 173)), (0.02, (387, 141, 126))]
        )
    ]
    (row,) = compare.rows("unit-selection", records)
    assert (row.seeds, row.label) == ([0, 1, 2], "epsilon0 = 2^-7")
    assert row.test_error == pytest.approx([0.015, 0.02, 0.025])
    assert row.usage_rate[1] == 654 / 2352
    assert row.difference == pytest.approx(654 / 2352 - 0.261)
    assert row.selected[2] == [126, 126, 149.5]
    _, ((*_, off, verdict, weights, error, hours),) = compare.columns("unit-selection", [row])
    assert (off, verdict, weights) == ("+1.7", "agrees", "10.0")
    assert (error, hours) == ("2.00 [1.50, 2.50]", "1.00")


def test_the_second_result_stands_beside_the_first():
    """It is shown where every trial of a setting has it."""
    records = [synthetic.connection(epsilon0="2^-4", seed=seed) for seed in range(3)]
    (row,) = compare.rows("connection-selection", records)
    assert row.reestimated is None
    assert compare.REESTIMATED not in compare.columns("connection-selection", [row])[0]
    for trial, error in zip(records, (0.07, 0.09, 0.08)):
        trial["result"]["reestimated_augmented_test_error"] = error
    records += [
        synthetic.connection(method="random", usage_rate=0.423, seed=seed) for seed in (0, 1)
    ]
    records[-1]["result"]["reestimated_augmented_test_error"] = 0.2
    rows = compare.rows("connection-selection", records)
    assert rows[0].reestimated == pytest.approx([0.075, 0.08, 0.085])
    header, cells = compare.columns("connection-selection", rows)
    place = header.index(compare.REESTIMATED)
    assert header[place - 1] == "test error %"
    assert [line[place] for line in cells] == ["8.00 [7.50, 8.50]", "-"]
    first, second = compare.table("connection-selection", records).splitlines()[2:]
    assert (first.split()[-1], second.split()[-1]) == ("8.00", "-")


def test_hours_of_two_kinds_of_machine_stand_one_by_one():
    records = [
        synthetic.unit(seconds=3600.0 * hours, epsilon0="2^-7", seed=seed, processor=processor)
        for seed, (hours, processor) in enumerate([(5, "B"), (1, "A"), (3, "A")])
    ]
    (row,) = compare.rows("unit-selection", records)
    assert {where: median / 3600 for where, (_, median, _) in row.seconds.items()} == {
        "A (fast path)": 2,
        "B (fast path)": 5,
    }
    _, ((*_, hours),) = compare.columns("unit-selection", [row])
    assert hours == "2.00; 5.00"


@pytest.mark.parametrize(
    ("units", "verdict"),
    [
        ((340, 141, 126), "agrees"),
        ((400, 170, 160), "agrees"),
        ((450, 180, 150), "usage rate differs"),
        ((200, 300, 110), "order differs"),
        # The second and the third are published so near each other that their order may be any.
        ((340, 120, 140), "agrees"),
        ((100, 200, 100), "usage rate differs, order differs"),
    ],
)
def test_a_row_has_a_verdict(units, verdict):
    (row,) = compare.rows("unit-selection", [synthetic.unit(units=units, epsilon0="2^-7")])
    assert compare.verdict(row) == verdict


def test_trials_are_counted_on_either_side_of_the_papers_medians(tmp_path, capsys):
    units = {
        "2^-6": [(90, 31, 25), (93, 30, 31), (95, 29, 32)],
        "2^-7": [(341, 140, 126), (342, 141, 127)],
        "-2^-3": [(784, 784, 784)],
        "-2^0": [(784, 784, 784)],
    }
    records = [
        synthetic.unit(units=trial, epsilon0=label, seed=seed)
        for label, trials in units.items()
        for seed, trial in enumerate(trials)
    ]
    records.append(synthetic.unit(method="fixed", width=52))
    found = compare.sides(compare.rows("unit-selection", records))
    assert {quantity: list(row.values())[:3] for quantity, row in found.items()} == {
        "1st layer": [1, 0, 4],
        "2nd layer": [3, 2, 0],
        "3rd layer": [0, 1, 4],
        # 6.2, 6.5 and 6.6% beside 6.6%, and 25.8 and 25.9% beside 26.1%, as the paper rounds.
        "usage rate": [4, 1, 0],
    }
    assert found["2nd layer"]["p"] == statistics.sides_test([0.5, 0.5], [3, 2], 5)
    write(records, tmp_path)
    assert cli.main(["compare", "--runs", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"2nd layer      3        2     0  {found['2nd layer']['p']:.2g}" in lines
    assert cli.main(["compare", "--runs", str(tmp_path), "--json"]) == 0
    (schedule,) = json.loads(capsys.readouterr().out)["experiments"]["unit-selection"]
    assert schedule["sides"] == found


def test_a_short_run_is_on_no_side(tmp_path, capsys):
    write([synthetic.unit(epsilon0="2^-7", epochs=4)], tmp_path)
    assert cli.main(["compare", "--runs", str(tmp_path)]) == 0
    assert "On which side" not in capsys.readouterr().out
    assert compare.sides([]) == {}


def test_what_the_paper_does_not_print_has_no_verdict():
    found = compare.rows("unit-selection", [synthetic.unit(epsilon0="-2^0")])
    assert (found[0].published, found[0].difference, compare.verdict(found[0])) == (None, None, "")


def test_schedules_stand_apart():
    records = [
        synthetic.unit(epsilon0="2^-7"),
        synthetic.unit(method="fixed", width=205),
        synthetic.unit(epsilon0="2^-7", epochs=4),
        synthetic.unit(method="fixed", width=205, epochs=8),
        synthetic.unit(epsilon0="2^-7", epochs=4, eta_factor=3.0),
        synthetic.unit(epsilon0="2^-7", epochs=50),
        synthetic.unit(epsilon0="2^-7", epochs=50, momentum=0.8),
        synthetic.unit(epsilon0="2^-7", eta_factor=3.0),
        synthetic.connection(epsilon0="2^-4"),
    ]
    paper, *others = compare.schedules("unit-selection", records)
    assert paper.is_paper
    assert paper.records == records[:2]
    assert not any(schedule.is_paper for schedule in others)
    assert [schedule.records for schedule in others] == [
        [records[7]],
        [records[5]],
        [records[6]],
        [records[2], records[3]],
        # Another eta_theta stands apart, with the same baselines beside it.
        [records[4], records[3]],
    ]
    titles = [schedule.schedule for schedule in others]
    assert titles == [
        "a full-length run with a changed setting, eta_factor=3.0",
        "a short run, 1/10 of the full length",
        "a short run, 1/10 of the full length, momentum=0.8",
        "a short run, 1/125 of the full length",
        "a short run, 1/125 of the full length, eta_factor=3.0",
    ]
    labels = [row.label for row in compare.rows("unit-selection", others[3].records)]
    assert labels == ["epsilon0 = 2^-7", "fixed 205 a layer"]


def write(records, directory):
    for found in records:
        (directory / f"{found['name']}.json").write_text(json.dumps(found))


def test_only_the_papers_schedule_is_compared_with_the_paper(tmp_path, capsys):
    records = [synthetic.unit(epsilon0="2^-7", units=(340, 141, 126))]
    records += [synthetic.unit(epsilon0="2^-7", units=(392, 391, 390), epochs=4)]
    write(records, tmp_path)
    assert cli.main(["compare", "--runs", str(tmp_path)]) == 0
    first, sides, second, third, *_ = capsys.readouterr().out.split("\n\n")
    assert "Unit selection on MNIST, the paper's schedule, beside Table 1" in first
    assert "340/141/126  340/141/126" in first
    assert "agrees" in first
    assert "1st layer" in sides
    assert "a short run, 1/125 of the full length; not compared with the paper" in second
    assert "392/391/390" in second
    assert "340/141/126" not in second
    told = "Connection selection on CIFAR-10, beside Table 2: no record at the paper's schedule"
    assert told in third


def test_compare_for_machines(tmp_path, capsys):
    write([synthetic.unit(epsilon0="2^-7", units=(340, 141, 126))], tmp_path)
    (tmp_path / "old.json").write_text('{"schema": 0}')
    assert cli.main(["compare", "--runs", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (schedule,) = found["experiments"]["unit-selection"]
    (row,) = schedule["rows"]
    assert (row["verdict"], row["published"]["usage_rate"]) == ("agrees", 0.261)
    assert len(found["claims"]) == 18
    assert "old.json" in found["left_out"][0]


def test_records_that_are_none_are_named_and_left_out(tmp_path, capsys):
    good = synthetic.unit(epsilon0="2^-7")
    broken = {
        "foreign": {"some": "thing"},
        "older": {**good, "schema": 0},
        "list": [1, 2],
        "renamed": {**good, "name": "another"},
        "no_result": {**good, "result": {}},
        "text": {**good, "result": {**good["result"], "test_error": "small"}},
        "method": {**good, "settings": {**good["settings"], "method": "magic"}},
        "type": {**good, "settings": {**good["settings"], "epochs": "many"}},
        "log": {**good, "log": {"epoch": 3}},
        "short_log": {**good, "log": {name: column[:3] for name, column in good["log"].items()}},
        "no_machine": {**good, "machine": None},
    }
    for name, content in broken.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    (tmp_path / "cut.json").write_text(json.dumps(good)[:200])
    (tmp_path / "binary.json").write_bytes(bytes(range(256)))
    write([good], tmp_path)
    assert cli.main(["compare", "--runs", str(tmp_path)]) == 0
    output, errors = capsys.readouterr()
    assert "epsilon0 = 2^-7" in output
    lines = errors.splitlines()
    assert len(lines) == len(broken) + 2
    for name in (*broken, "cut", "binary"):
        assert any(f"{name}.json" in line for line in lines), name


def test_a_directory_that_is_not_there_is_named(tmp_path, capsys):
    assert cli.main(["compare", "--runs", str(tmp_path / "none")]) == 2
    assert "--runs: there is no directory" in capsys.readouterr().err


def test_rows_follow_the_papers_order():
    records = [
        synthetic.unit(epsilon0=parse_epsilon0(text)) for text in reversed(UNIT_EPSILON0)
    ] + [
        synthetic.unit(method="dropout"),
        synthetic.unit(method="fixed", width=52),
    ]
    lines = compare.table("unit-selection", records).splitlines()[2:]
    labels = [line.split()[2] for line in lines[: len(UNIT_EPSILON0)]]
    assert tuple(labels) == UNIT_EPSILON0
    assert lines[-2].startswith("fixed 52")
    assert lines[-1].startswith("dropout")


def test_a_schedule_is_described():
    text = compare.describe_schedule(synthetic.unit(epochs=5))
    assert text == "sno: 5 epochs, 1/100 of the full length, eta_theta = 100/d"
    text = compare.describe_schedule(synthetic.unit(method="fixed", epochs=10))
    assert text == "fixed: 10 epochs, 1/100 of the full length"
    text = compare.describe_schedule(synthetic.unit(method="fixed"))
    assert text == "fixed: 1000 epochs, the full length"
    text = compare.describe_schedule(synthetic.unit(method="fixed", epochs=2000))
    assert text == "fixed: 2000 epochs, 2 times the full length"


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("settings", {"dataset": None}),
        ("settings", {"units": None}),
        ("settings", {"seed": 10**400}),
        ("log", {"epoch": [10**400] * 500}),
        ("result", {"test_loss": 10**400}),
    ],
)
def test_a_record_with_values_that_there_are_not_is_left_out(part, change, tmp_path):
    found = synthetic.unit(epsilon0="2^-7")
    found[part].update(change)
    (tmp_path / "damaged.json").write_text(json.dumps(found))
    (tmp_path / "deep.json").write_text(100_000 * "[")
    records, lines = record.read_all(tmp_path)
    assert (records, len(lines)) == ([], 2)
    assert not any("\n" in line for line in lines)


def test_records_are_in_utf_8_in_any_locale(tmp_path):
    found = synthetic.unit(epsilon0="2^-7", processor="Prozessör ε")
    record.write(tmp_path / "found.json", found)
    read = f"from reproduce import record; print(ascii(record.read('{tmp_path}/found.json')))"
    locale = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    told = subprocess.run(
        [sys.executable, "-c", read],
        cwd=ROOT,
        env={**os.environ, **locale},
        capture_output=True,
        text=True,
    )
    assert told.stdout == f"{ascii(found)}\n", told.stderr


def test_no_two_usage_rates_have_one_label():
    rates = (0.423, 0.4231, 0.42305, 1.0)
    trials = [synthetic.connection(method="random", usage_rate=rate) for rate in rates]
    labels = [row.label for row in compare.rows("connection-selection", trials)]
    expected = ["42.3%", "42.305%", "42.31%", "100.0%"]
    assert labels == [f"random at {rate}" for rate in expected]
    titles = [style.label_of(trial) for trial in trials]
    assert titles == [
        f"random selection, {rate}" for rate in ("42.3%", "42.31%", "42.305%", "100.0%")
    ]


def test_a_copy_of_a_record_is_no_further_trial(tmp_path):
    trials = [synthetic.unit(epsilon0="2^-7", seed=seed) for seed in range(2)]
    names = [trial["name"] for trial in trials]
    for file, trial in zip((names[0], f"a copy of {names[0]}", names[1]), (*trials[:1], *trials)):
        record.write(tmp_path / f"{file}.json", trial)
    found, refused = record.read_all(tmp_path)
    assert found == trials
    (line,) = refused
    assert f"a copy of {names[0]}.json' is of the same run as" in line
