import json

from reproduce import ROOT, compare
from reproduce.settings import UNIT_EPSILON0, ConnectionSelection, UnitSelection, parse_epsilon0


def make_record(error=0.02, units=(10, 8, 6), **values):
    settings = UnitSelection(**values)
    result = {
        "test_error": error,
        "units": list(units),
        "usage_rate": sum(units) / 2352,
        "weight_ratio": 0.1,
    }
    return {"settings": settings.as_dict(), "result": result}


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


def test_the_package_does_not_need_what_lies_beside_it():
    for path in (ROOT / "results").glob("*.json"):
        json.loads(path.read_text())
    names = ("shared",)
    for folder in ("chainer_sno", "reproduce"):
        for path in (ROOT / folder).rglob("*.py"):
            assert not any(f"../{name}" in path.read_text() for name in names), path


def test_the_table_shows_medians_beside_the_paper():
    records = [
        make_record(error, units, epsilon0=2.0**-7, seed=seed)
        for seed, (error, units) in enumerate(
            [(0.01, (340, 100, 50)), (0.03, (350, 141, 60)), (0.02, (330, 200, 10))]
        )
    ]
    records += [make_record(method="fixed", width=205), make_record(epsilon0=-1.0)]
    header, _, first, second, third = compare.table("unit-selection", records).splitlines()
    assert "units 1st/2nd/3rd" in header
    assert first.split() == ["epsilon0", "=", "2^-7", "3", "340/141/50", "340/141/126"] + [
        "23.0", "26.1", "10.0", "2.00"
    ]  # fmt: skip
    assert second.split()[2:6] == ["-2^0", "1", "10/8/6", "-"]
    assert third.split()[:4] == ["fixed", "205", "a", "layer"]


def test_table_2_shows_connections_by_block():
    def record(**values):
        settings = ConnectionSelection(**values)
        result = {"test_error": 0.1, "connections": [57, 39, 67], "usage_rate": 0.42}
        return {"settings": settings.as_dict(), "result": {**result, "weight_ratio": 0.42}}

    records = [record(epsilon0=2.0**-4), record(method="random", usage_rate=0.423)]
    header, _, first, second = compare.table("connection-selection", records).splitlines()
    assert "connections by block" in header
    assert first.split()[2:7] == ["2^-4", "1", "57/39/67", "57/39/67", "42.0"]
    assert first.split()[7] == "42.3"
    assert second.startswith("random at 42.3%")


def test_rows_follow_the_papers_order():
    records = [make_record(epsilon0=parse_epsilon0(text)) for text in reversed(UNIT_EPSILON0)] + [
        make_record(method="dropout"),
        make_record(method="fixed", width=52),
    ]
    lines = compare.table("unit-selection", records).splitlines()[2:]
    labels = [line.split()[2] for line in lines[: len(UNIT_EPSILON0)]]
    assert tuple(labels) == UNIT_EPSILON0
    assert lines[-2].startswith("fixed 52")
    assert lines[-1].startswith("dropout")


def test_a_schedule_is_described():
    text = compare.describe_schedule(make_record(epochs=5))
    assert text == "sno: 5 epochs, 1/100 of the paper's iterations, eta_theta = 100/d"
    text = compare.describe_schedule(make_record(method="fixed", epochs=10))
    assert text == "fixed: 10 epochs, 1/100 of the paper's iterations"
