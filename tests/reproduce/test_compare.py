import copy
import json
from pathlib import Path

import numpy
import pytest

from reproduce import ROOT, compare, figures
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


@pytest.mark.parametrize("trials", [1, 3])
def test_figure_1_is_the_same_bytes_from_the_same_records(tmp_path, trials):
    records = [
        make_record(0.02 + seed / 1000, (n, n, n), epsilon0=epsilon0, seed=seed)
        for seed in range(trials)
        for epsilon0, n in ((0.5, 50), (0.25, 300), (0.0, 700))
    ]
    records += [make_record(0.03, (100, 100, 100), method="fixed", width=100)]
    written = []
    for name in ("a", "b"):
        figure = figures.usage_rate_against_error(copy.deepcopy(records), "a title")
        (axes,) = figure.axes
        assert "usage rate" in axes.get_xlabel()
        assert "[%]" in axes.get_ylabel()
        labels = [text.get_text() for text in axes.get_legend().get_texts()]
        assert labels == ["proposed method", "fixed structure"]
        line = axes.containers[0].lines[0]
        assert line.get_xdata() == pytest.approx([100 * n / 784 for n in (50, 300, 700)])
        written.append(figures.save(figure, tmp_path / name / "figure"))
    for first, second in zip(*written):
        assert Path(first).read_bytes() == Path(second).read_bytes()
    assert [Path(path).suffix for path in written[0]] == [".png", ".svg"]


def test_figure_2_has_a_cell_for_every_layer_on_a_path(tmp_path):
    structure = numpy.zeros((3, 91))
    structure[:, 78] = 1  # every exit takes its block's input
    structure[1, [0, 79]] = 1  # layer 15 of block 2 is on a path
    structure[2, 0] = 1  # layer 28 leads nowhere
    figure = figures.densenet(structure.ravel(), 3, 12, "a title")
    texts = [[text.get_text() for text in axes.texts if text.get_text()] for axes in figure.axes]
    assert texts == [["Conv", "Trans1"], ["Trans1", "15", "Trans2"], ["Trans2", "Class"]]
    assert "depth 5, 35 layers on no path left out" in figure.get_suptitle()
    arrows = [len(axes.texts) - len(found) for axes, found in zip(figure.axes, texts)]
    assert arrows == [1, 3, 1]
    for name in ("a", "b"):
        figures.save(figures.densenet(numpy.ones(273), 3, 12, "full"), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    dead = figures.densenet(numpy.zeros(273), 3, 12, "empty")
    assert "dead" in dead.get_suptitle()
