import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy
import pytest
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.text import Text
from matplotlib.transforms import Affine2D

from chainer_sno import complexity
from chainer_sno.links import DenseNet
from reproduce import ROOT, ReproduceError, cli, compare, figures, structures
from reproduce.experiments import from_dict
from reproduce.experiments.connection_selection import ConnectionSelection
from reproduce.experiments.unit_selection import UNIT_EPSILON0, UnitSelection
from reproduce.figures import gallery, network
from reproduce.record import read
from reproduce.settings import parse_epsilon0
from tests.reproduce import synthetic


def make_record(kind=UnitSelection, histogram=True, processor="A", path="fast", **values):
    """Return a record as a run leaves it, its numbers drawn at random from its settings."""
    settings = kind(**values)
    rng = numpy.random.default_rng(list(settings.name.encode()))
    epochs, groups = settings.epochs, settings.bits // 3
    error = rng.uniform(0.01, 0.9, epochs).tolist()
    log = {"epoch": list(range(1, epochs + 1)), "validation/main/error": error}
    name = {UnitSelection: "hidden", ConnectionSelection: "block"}[kind]
    counts = rng.integers(1, groups, (3, epochs))
    result = {"test_error": error[-1], "usage_rate": rng.uniform(0.1, 0.9), "weight_ratio": 0.5}
    if settings.method == "sno":
        for i, column in enumerate(counts.tolist(), 1):
            log[f"structure/{name}_{i}"] = column
        log["structure/usage_rate"] = log["structure/weight_ratio"] = error
        log["theta/mean"] = rng.uniform(0, 1, epochs).tolist()
        if histogram:
            for i, column in enumerate(rng.integers(0, 9, (20, epochs)).tolist()):
                log[f"theta/bin_{i:02}"] = column
    last = counts[:, -1].tolist()
    if kind is UnitSelection:
        result["units"] = last
    else:
        result["connections"] = last
        result["structure"] = "".join(map(str, rng.integers(0, 2, settings.bits)))
        result["depth"] = None
    seconds = rng.uniform(1, 2, epochs).cumsum().round(2).tolist()
    return synthetic.whole(settings, result, log, seconds, processor, path)


def make_records():
    """Return records of both experiments, at the paper's schedule and at a short one."""
    short = {"epochs": 5, "seed": 3}
    small = {"kind": ConnectionSelection, "depth": 10, "growth_rate": 2}
    return [
        make_record(epsilon0=2.0**-7),
        make_record(epsilon0=2.0**-7, seed=1),
        make_record(epsilon0=0.0, histogram=False),
        make_record(method="fixed", width=205),
        make_record(method="dropout"),
        make_record(epsilon0=2.0**-7, **short),
        make_record(method="fixed", width=205, epochs=10, seed=3),
        make_record(epsilon0=2.0**-4, epochs=3, **small),
        make_record(method="random", usage_rate=0.423, epochs=6, **small),
    ]


def write_records(directory, records):
    directory.mkdir(exist_ok=True)
    for record in records:
        (directory / f"{record['name']}.json").write_text(json.dumps(record))


def titles(figure):
    return "\n".join(axes.get_title() for axes in figure.axes)


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_no_figure_is_computed_by_a_blas():
    """Its kernels differ between processors in the last bit, and with them the bytes of a file."""
    products = {"dot", "matmul", "einsum", "tensordot", "inner", "vdot", "linalg"}
    for path in (ROOT / "reproduce" / "figures").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            assert not isinstance(node, ast.MatMult), path.name
            assert not (isinstance(node, ast.Attribute) and node.attr in products), path.name


def test_the_curves_of_figure_2_are_the_sums_that_they_say():
    corners = numpy.array([[0.0, 1.0], [2.0, 5.0], [4.0, 3.0]])
    found = network._points(corners, numpy.array([0.0, 0.25, 1.0]))
    assert found.tolist() == [[0, 1], [1.0, 2.625], [4, 3]]


def test_the_users_own_style_changes_nothing(tmp_path):
    records = make_records()[:2]
    written = []
    for width, name in ((1, "a"), (5, "b")):
        own = {"axes.linewidth": width, "font.size": 8 * width, "svg.hashsalt": str(width)}
        with matplotlib.rc_context(own):
            figure = figures.usage_rate_against_error(records, "a title")
            written.append([path.read_bytes() for path in figures.save(figure, tmp_path / name)])
    assert written[0] == written[1]


def test_all_axes_are_labelled_with_their_units():
    records = make_records()[:5]
    drawn = [
        figures.usage_rate_against_error(records, "a title"),
        figures.error_over_epochs(records, "a title"),
        figures.structure_over_training(records[0]),
        figures.theta_histogram(records[0]),
    ]
    labels = [(figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) for figure in drawn]
    assert [re.sub(r"\$.*\$", "...", label) for pair in labels for label in pair] == [
        "usage rate of the structure, ... [%]",
        "test error [%]",
        "epoch",
        "test error [%]",
        "epoch",
        "units of each layer with ...",
        "epoch",
        "..., the probability that a bit is on",
    ]
    assert "bits" in drawn[3].axes[1].get_ylabel()
    # Inches: a column of text, so that letters of 7 points and more are printed as large.
    for figure in drawn:
        assert figure.get_figwidth() == 6.4
        figure.draw_without_rendering()
        for text in figure.findobj(Text):
            assert not text.get_text() or text.get_fontsize() >= 7


def test_figure_1_shows_medians_and_quartiles():
    trials = [make_record(epsilon0=2.0**-7, seed=seed, epochs=5) for seed in range(4)]
    records = [*trials, make_record(epsilon0=-1.0, epochs=5)]
    figure = figures.usage_rate_against_error(records, "a title")
    (axes,) = figure.axes
    names = ("usage_rate", "test_error")
    several = 100 * numpy.array([[record["result"][name] for name in names] for record in trials])
    single = [100 * records[-1]["result"][name] for name in names]
    points = sorted([numpy.median(several, axis=0).tolist(), single])
    assert axes.lines[0].get_xydata() == pytest.approx(numpy.array(points))
    # The one trial has no bars.
    (bars,) = axes.containers
    _, _, (across, along) = bars
    low, high = numpy.quantile(several, (0.25, 0.75), axis=0)
    ((start, end),) = across.get_segments()
    assert (start[0], end[0]) == pytest.approx((low[0], high[0]))
    ((start, end),) = along.get_segments()
    assert (start[1], end[1]) == pytest.approx((low[1], high[1]))
    assert legend(figure) == [r"proposed method, labelled with $\epsilon_0$ (1 to 4 trials)"]


def test_figure_1_with_one_trial_of_each_method():
    records = [
        make_record(epsilon0=2.0**-7),
        make_record(method="fixed", width=52),
        make_record(method="dropout"),
    ]
    figure = figures.usage_rate_against_error(records, "a title")
    (axes,) = figure.axes
    assert [len(line.get_xdata()) for line in axes.lines] == [1, 1, 1]
    assert not axes.containers
    assert [note.get_text() for note in axes.texts] == ["$2^{-7}$", "52"]
    assert [text.rsplit(" (")[1] for text in legend(figure)] == ["1 trial)"] * 3
    assert legend(figure)[2] == "Dropout (1 trial)"


def test_notes_of_figure_1_do_not_overlap():
    records = [make_record(epsilon0=parse_epsilon0(text), epochs=5) for text in UNIT_EPSILON0]
    records.append(make_record(method="fixed", epochs=10))
    # Close to one another, as at the right end of the paper's figure.
    for i, record in enumerate(records):
        record["result"].update(usage_rate=1 - 0.01 * i, test_error=0.016 + 0.0001 * (i % 3))
    figure = figures.usage_rate_against_error(records, "a title")
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert len(axes.texts) == 8
    boxes = [Text.get_window_extent(note) for note in axes.texts]
    for i, box in enumerate(boxes):
        assert not box.count_overlaps(boxes[:i])
        assert axes.get_window_extent().count_overlaps([box])


def test_the_error_over_the_epochs_is_that_of_the_log():
    trials = [make_record(epsilon0=2.0**-7, seed=seed, epochs=5) for seed in range(3)]
    fixed = make_record(method="fixed", width=205, epochs=10)
    figure = figures.error_over_epochs([fixed, *trials], "a title")
    (axes,) = figure.axes
    assert axes.get_yscale() == "log"
    errors = 100 * numpy.array([record["log"]["validation/main/error"] for record in trials])
    line, other = axes.lines
    assert line.get_xdata().tolist() == [1, 2, 3, 4, 5]
    assert line.get_ydata() == pytest.approx(numpy.median(errors, axis=0))
    assert other.get_xdata().tolist() == list(range(1, 11))
    assert other.get_ydata() / 100 == pytest.approx(fixed["log"]["validation/main/error"])
    # A band for the setting with several trials only.
    (band,) = axes.collections
    corners = band.get_paths()[0].vertices
    assert corners[:, 1].min() == pytest.approx(errors.min())
    assert corners[:, 1].max() == pytest.approx(errors.max())
    assert legend(figure) == [
        r"$\epsilon_0$ = $2^{-7}$ (3 trials)",
        "fixed structure, 205 units (1 trial)",
    ]


def test_a_long_title_is_not_cut_off():
    machines = ["AMD EPYC", "Intel(R) Xeon(R) Processor"]
    records = [make_record(epsilon0=0.5, epochs=5, processor=machine) for machine in machines]
    figure = figures.error_over_epochs(records, "Unit selection on MNIST: the paper's schedule")
    figure.draw_without_rendering()
    (axes,) = figure.axes
    box = axes.title.get_window_extent()
    assert figure.bbox.x0 <= box.x0
    assert box.x1 <= figure.bbox.x1


def test_theta_histogram_shows_the_counts_of_the_log():
    record = make_record(epsilon0=2.0**-7, epochs=6, seed=1)
    figure = figures.theta_histogram(record)
    axes = figure.axes[0]
    (image,) = axes.images
    for i in range(20):
        counts = record["log"][f"theta/bin_{i:02}"]
        assert image.get_array()[i].filled(0).tolist() == counts
        assert image.get_array()[i].mask.tolist() == [n == 0 for n in counts]
    assert image.get_extent() == [0.5, 6.5, 0, 1]
    assert image.origin == "lower"
    assert axes.lines[0].get_ydata().tolist() == record["log"]["theta/mean"]
    assert "2^{-7}" in titles(figure)
    assert "a short run, 3/250 of the full length" in titles(figure)


def test_what_a_record_does_not_have_is_not_drawn(undrawn, tmp_path):
    old = make_record(epsilon0=2.0**-7, epochs=5, histogram=False)
    fixed = make_record(method="fixed", epochs=10)
    assert not figures.has_theta_histogram(old)
    assert figures.has_structure_columns(old)
    assert not figures.has_structure_columns(fixed)
    with pytest.raises(ReproduceError, match=re.escape(old["name"])):
        figures.theta_histogram(old)
    with pytest.raises(ReproduceError, match=re.escape(fixed["name"])):
        figures.structure_over_training(fixed)
    names = [name for name, *_ in figures.draw_all([old, fixed], tmp_path)]
    assert [name.split("seed-0-")[-1] for name in names[2:]] == ["structure"]


def test_structure_over_training_shows_the_log_beside_the_paper():
    record = make_record(epsilon0=2.0**-7)
    figure = figures.structure_over_training(record)
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.lines}
    paper = compare.published()["unit-selection"]["rows"]["2^-7"]["selected"]
    for i, median in enumerate(paper, 1):
        counts = record["log"][f"structure/hidden_{i}"]
        label = f"layer {i}: {counts[-1]} at the end (paper: {median})"
        assert lines[label].get_ydata().tolist() == counts
        assert lines[label].get_xdata().tolist() == record["log"]["epoch"]
    assert lines["full network: 784"].get_ydata()[0] == 784
    markers = [line.get_ydata() for line in axes.lines if line.get_marker() == "<"]
    assert [y[0] for y in markers if len(y)] == paper
    # Colours alone would not do in grey.
    styles = {lines[label].get_linestyle() for label in lines if "at the end" in label}
    assert len(styles) == 3


def test_structure_over_training_of_a_short_run_has_no_paper():
    values = {"kind": ConnectionSelection, "epsilon0": 2.0**-4, "epochs": 1}
    figure = figures.structure_over_training(make_record(**values))
    assert not any("paper" in text for text in legend(figure))
    assert "full network: 91" in legend(figure)
    assert figure.axes[0].get_ylabel().startswith("connections of each block")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """What is drawn of all records, whose order does not matter."""
    return figures.draw_all(reversed(make_records()), tmp_path_factory.mktemp("figures") / "all")


@pytest.fixture
def undrawn(monkeypatch):
    """Empty files for figures, where names and captions alone matter."""
    monkeypatch.setattr(gallery, "save", synthetic.empty_files)


def test_the_same_bytes_from_the_same_records_in_separate_processes(drawn, tmp_path):
    """Another process, which hashes texts in another way, draws all but one schedule once more."""
    records = [record for record in make_records() if record["settings"]["seed"] != 3]
    write_records(tmp_path / "runs", records)
    command = [sys.executable, "-m", "reproduce", "figures", "--runs", tmp_path / "runs"]
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
    out = tmp_path / "out"
    subprocess.run([*command, "--out", out], check=True, env=environment, cwd=tmp_path)
    here = {path.name: path.read_bytes() for each in drawn for path in each.files}
    contents = {path.name: path.read_bytes() for path in out.iterdir()}
    assert contents == {name: here[name] for name in contents}
    for ending in ("png", "svg"):
        for kind in ("figure-1a", "figure-1b", "figure-2", "over-epochs", "structure", "theta"):
            assert any(name.endswith(f"{kind}.{ending}") for name in contents), (kind, ending)


def test_short_and_paper_runs_are_never_in_one_figure(drawn):
    records = make_records()
    for draw in (figures.usage_rate_against_error, figures.error_over_epochs):
        with pytest.raises(ReproduceError, match="runs of one schedule, and these are of 3"):
            draw(records, "a title")
    captions = {name: caption for name, caption, *_ in drawn}
    shared = [name for name in captions if "figure-1" in name]
    assert shared == [
        "unit-selection-paper-figure-1a",
        "unit-selection-epochs-1-of-100-figure-1a",
        "connection-selection-epochs-1-of-100-depth-10-growth_rate-2-figure-1b",
    ]
    first, second, third = (captions[name] for name in shared)
    assert first.startswith("Figure 1(a), ")
    assert "the paper's schedule. Medians with 25% and 75% quantiles of 1 to 2 trials" in first
    assert "Computed on A (fast path)." in first
    assert second.startswith("As Figure 1(a), ")
    assert "a short run, 1/100 of the full length. Single runs, 1 trial" in second
    assert "eta_theta = 100/d" in second
    assert "Connection selection on CIFAR-10: a short run" in third


def test_draw_all_draws_the_lowest_seed_of_each_setting(drawn, undrawn, tmp_path):
    names = [name for name, *_ in drawn]
    assert len(set(names)) == len(names)
    for name, caption, files, _ in drawn:
        assert re.fullmatch(r"[A-Za-z0-9._-]+", name)
        assert caption.endswith(".")
        assert [path.name for path in files] == [f"{name}.{ending}" for ending in ("png", "svg")]
        assert all(path.parent.name == "all" and path.stat().st_size for path in files)
    assert "unit-selection_sno_epsilon0-2to-7_seed-0-theta" in names
    assert "unit-selection_sno_epsilon0-2to-7_seed-1-theta" not in names
    assert sum(name.endswith("figure-2") for name in names) == 2
    every = [name for name, *_ in figures.draw_all(make_records()[:2], tmp_path, True)]
    assert [name for name in every if name.endswith("theta")] == [
        f"unit-selection_sno_epsilon0-2to-7_seed-{seed}-theta" for seed in (0, 1)
    ]
    assert figures.draw_all([], tmp_path) == []


def test_two_records_of_one_name_must_be_the_same(undrawn, tmp_path):
    record = make_record(epsilon0=2.0**-7, epochs=5)
    (drawn, *_) = figures.draw_all([record, dict(record)], tmp_path)
    assert "1 trial" in drawn.caption
    other = make_record(epsilon0=2.0**-7, epochs=5, processor="B")
    with pytest.raises(ReproduceError, match="two different records"):
        figures.draw_all([record, other], tmp_path)


@pytest.mark.parametrize(
    ("part", "name", "value", "message"),
    [
        ("result", "test_error", None, "at result/test_error"),
        ("result", "structure", "0101", "has 4 bits, and its settings have 273"),
        ("result", "test_error", float("nan"), "is nan"),
        ("result", "test_error", 0.25, "last epoch"),
        ("result", "iterations", 7, "iterations"),
        ("times", "seconds", float("inf"), "is inf"),
        ("log", "validation/main/error", [0.5], "has 2 epochs, and a column of its log"),
        ("log", "validation/main/error", [0.5, "half"], "not a finite number"),
        ("log", "validation/main/error", [0.5, float("nan")], "not a finite number"),
        ("log", "epoch", None, "at log/epoch"),
        ("times", "epoch_seconds", None, "at times/epoch_seconds"),
        ("machine", "processor", "", "at machine/processor"),
    ],
)
def test_a_record_that_cannot_be_drawn_is_named(part, name, value, message, tmp_path):
    record = make_record(ConnectionSelection, epochs=2)
    write_records(tmp_path, [record])
    (path,) = tmp_path.iterdir()
    assert read(path) == record
    for change in ("changed", "missing"):
        if change == "changed":
            record[part][name] = value
        else:
            del record[part][name]
        write_records(tmp_path, [record])
        with pytest.raises(ReproduceError, match=message if change == "changed" else ".") as caught:
            read(path)
        assert record["name"] in str(caught.value)


@pytest.mark.parametrize("seconds", [[1.0], ["a", 1.0], [float("nan"), 1.0], 1.0])
def test_cpu_times_are_numbers_or_unknown(seconds, tmp_path):
    record = make_record(ConnectionSelection, epochs=2)
    record["times"]["epoch_cpu_seconds"] = [None, 1.0]
    write_records(tmp_path, [record])
    (path,) = tmp_path.iterdir()
    assert read(path) == record
    record["times"]["epoch_cpu_seconds"] = seconds
    write_records(tmp_path, [record])
    with pytest.raises(ReproduceError, match="epoch_cpu_seconds|has 2 epochs|not a finite number"):
        read(path)


def shapes(axes):
    arrows = [patch for patch in axes.patches if isinstance(patch, FancyArrowPatch)]
    boxes = [patch for patch in axes.patches if isinstance(patch, FancyBboxPatch)]
    return arrows, boxes


@pytest.mark.parametrize(
    ("draws", "told"),
    [
        ((0, 0), ""),
        (
            (0, 2),
            " Of 2 random structures 1 had no path at first and was drawn again (reading R19).",
        ),
        (
            (1, 3),
            " Of 2 random structures 2 had no path at first and were drawn again (reading R19).",
        ),
    ],
)
def test_figure_1b_says_how_many_structures_were_drawn_again(draws, told, tmp_path, undrawn):
    runs = [synthetic.connection(epsilon0="2^-4")]
    for seed, count in enumerate(draws):
        runs.append(synthetic.connection(method="random", usage_rate=0.158, seed=seed))
        runs[-1]["result"]["dead_draws"] = count
    (figure,) = (f for f in figures.draw_all(runs, tmp_path) if f.name.endswith("figure-1b"))
    assert ("R19" in figure.caption) == bool(told)
    assert f" of each setting.{told} Computed on " in figure.caption


def test_figure_2_has_a_cell_for_every_layer_on_a_path():
    structure = numpy.zeros((3, 91))
    structure[:, 78] = 1  # every exit takes its block's input
    structure[1, [0, 79]] = 1  # layer 15 of block 2 is on a path
    structure[2, 0] = 1  # layer 28 leads nowhere
    figure = figures.densenet(structure.ravel(), 3, 12, "a title")
    texts = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert texts == [["Conv", "Trans1"], ["Trans1", "15", "Trans2"], ["Trans2", "Class"]]
    assert figure.get_suptitle().startswith("a title\ndepth 5, ")
    assert "35 layers on no path left out" in figure.get_suptitle()
    found = [shapes(axes) for axes in figure.axes]
    assert [len(arrows) for arrows, _ in found] == [1, 3, 1]
    assert [len(boxes) for _, boxes in found] == [2, 3, 2]
    # The longest path is thick: two connections of block 2, and the only one of the others.
    widths = [max(arrow.get_linewidth() for arrow in arrows) for arrows, _ in found]
    thick = [
        sum(arrow.get_linewidth() == width for arrow in arrows)
        for width, (arrows, _) in zip(widths, found)
    ]
    assert thick == [1, 2, 1]
    assert "block 3: 2 of 91 connections, 1 of them on a path" in figure.axes[2].get_title("left")


def test_figure_2_of_the_dead_network():
    assert "dead, no path" in figures.densenet(numpy.zeros(273), 3, 12, "").get_suptitle()


@pytest.mark.parametrize("rate", [0.158, 0.423, 0.803, 1.0, "wide"])
def test_figure_2_can_be_read_in_print(rate, rng):
    costs = DenseNet(40, 12, 3, classes=10).costs
    structure = complexity.random_structure(
        costs,
        0.423 if rate == "wide" else rate,
        rng,
        accept=lambda bits: structures.depth(bits, 3, 12) is not None,
    )
    if rate == "wide":  # four paths of two layers, and straight on
        block = numpy.zeros((13, 13), bool)
        block[:8:2, 0] = block[-1] = True
        block[range(1, 9, 2), range(1, 9, 2)] = True
        structure[91:182] = block[numpy.tril_indices(13)]
    figure = figures.densenet(structure, 3, 12, "a title")
    width, height = figure.get_size_inches()
    assert width == 6.4
    assert height < 9
    hidden = drawn = 0
    for axes in figure.axes:
        arrows, boxes = shapes(axes)
        places = [box.get_bbox() for box in boxes]
        for i, place in enumerate(places):
            assert not place.count_overlaps(places[:i])
            # In columns by depth, within the page.
            assert axes.get_xlim()[0] <= place.x0
            assert place.x1 <= axes.get_xlim()[1]
        for arrow in arrows:
            # A curve ends at the boxes that it connects and runs through no other.
            # Flattened in steps of a unit, so for hundredths of an inch; and a straight line has
            # its ends only.
            fine = arrow.get_path().transformed(Affine2D().scale(100))
            curve = numpy.concatenate(fine.to_polygons(closed_only=False)) / 100
            curve = matplotlib.path.Path(curve).interpolated(50).vertices
            assert (axes.get_ylim()[0] < curve[:, 1]).all()
            assert (axes.get_ylim()[1] > curve[:, 1]).all()
            drawn += 1
            hidden += any(
                ((curve > place.min) & (curve < place.max)).all(axis=1).any() for place in places
            )
    assert hidden <= 0.01 * drawn


def test_columns_of_figure_2_are_depths(rng):
    structure = rng.random(273) < 0.4
    figure = figures.densenet(structure, 3, 12, "a title")
    for block, matrix in enumerate(structures.block_matrices(structure, 3, 12)):
        depths = structures.positions(matrix)
        cells = {text.get_text(): text.get_position()[0] for text in figure.axes[block].texts}
        first = 2 + 13 * block
        columns = {x: depths[int(name) - first] for name, x in cells.items() if name.isdigit()}
        assert sorted(columns.values()) == [columns[x] for x in sorted(columns)]
        for name, x in cells.items():
            if name.isdigit():
                assert columns[x] == depths[int(name) - first]


def run_cli(*arguments):
    return cli.main(["figures", *map(str, arguments)])


def test_the_command_draws_a_directory_and_names_what_it_leaves_out(tmp_path, capsys):
    runs, out = tmp_path / "runs", tmp_path / "out"
    records = make_records()[-2:]
    write_records(runs, records)
    (runs / "damaged.json").write_text("{")
    (runs / "foreign.json").write_text('{"schema": 1, "cooks": 7}')
    lame = make_record(epsilon0=0.5, epochs=5)
    del lame["log"]["validation/main/error"]
    write_records(runs, [lame])
    assert run_cli("--runs", runs, "--out", out) == 0
    captured = capsys.readouterr()
    for name in ("damaged.json", "foreign.json", lame["name"]):
        assert sum(name in line for line in captured.err.splitlines()) == 1
    printed = set(re.findall(r"\S+\.(?:png|svg)", captured.out))
    assert printed == {str(path) for path in out.iterdir()}
    assert sum(path.endswith("figure-2.png") for path in printed) == 2


def test_the_command_draws_named_records(undrawn, tmp_path, capsys):
    record = make_records()[-1]
    write_records(tmp_path / "runs", make_records())
    path = tmp_path / "runs" / f"{record['name']}.json"
    assert run_cli(path, "--out", tmp_path / "out") == 0
    endings = {path.name.removesuffix(".png")[-9:] for path in (tmp_path / "out").glob("*.png")}
    # Figure 1 compares settings, and here is one.
    assert endings == {"er-epochs", "-figure-2"}
    assert from_dict(record["settings"]).setting in capsys.readouterr().out
    names = [drawn.name for drawn in figures.draw_all(make_records()[-2:], tmp_path / "both")]
    assert sum(name.endswith("figure-1b") for name in names) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--runs", "nowhere"), "--runs: there is no directory 'nowhere'"),
        (("nowhere.json",), "there is no file 'nowhere.json'"),
        (("lame.json",), "at result: 'test_error' is a required"),
        (("good.json", "--out", "/dev/null/x"), "'/dev/null/x' lies below the file"),
        (("--colour",), "unrecognized arguments: --colour"),
    ],
)
def test_bad_input_gets_one_line_and_exit_code_2(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record = make_record(epsilon0=0.5, epochs=5)
    Path("good.json").write_text(json.dumps(record))
    del record["result"]["test_error"]
    Path("lame.json").write_text(json.dumps(record))
    assert run_cli(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("reproduce: ")
    assert message in error
    assert error.count("\n") == 1
