from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reproduce import ReproduceError, cli
from reproduce.experiments.connection_selection import ConnectionSelection
from reproduce.experiments.unit_selection import UNIT_EPSILON0, UnitSelection
from reproduce.settings import format_epsilon0, fraction_of_paper, parse_epsilon0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2^-7", 0.0078125),
        ("2**-7", 0.0078125),
        ("0.0078125", 0.0078125),
        ("-2^-3", -0.125),
        ("-2^0", -1.0),
        ("0", 0.0),
        (" 2^3 ", 8.0),
        ("1e-3", 0.001),
    ],
)
def test_epsilon0_is_parsed(text, value):
    assert parse_epsilon0(text) == value


@pytest.mark.parametrize("text", ["", "nan", "inf", "2^", "3^-2", "2^-7x", "two", "2^99999", "--1"])
def test_bad_epsilon0_is_named(text):
    with pytest.raises(ReproduceError, match="is not a finite number"):
        parse_epsilon0(text)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_epsilon0_is_formatted_so_that_it_parses(value):
    assert parse_epsilon0(format_epsilon0(value)) == value


def test_the_papers_penalties_are_formatted_as_the_paper_does():
    assert tuple(format_epsilon0(parse_epsilon0(text)) for text in UNIT_EPSILON0) == UNIT_EPSILON0


def test_defaults_are_the_papers():
    """Section 4, common settings, and section 4.1."""
    sno = UnitSelection()
    assert (sno.epochs, sno.batch_size, sno.lr) == (500, 32, 0.01)
    assert (sno.samples, sno.eta_factor) == (2, 1)
    assert (sno.momentum, sno.weight_decay) == (0.9, 1e-4)
    assert sno.widths == (784, 784, 784)
    fixed = UnitSelection(method="fixed")
    assert (fixed.epochs, fixed.batch_size, fixed.widths) == (1000, 64, (784, 784, 784))
    dropout = UnitSelection(method="dropout")
    assert (dropout.epochs, dropout.batch_size, dropout.dropout_ratio) == (1000, 64, 0.5)
    for settings in (sno, fixed, dropout):
        assert settings.iterations() == 937500
        assert settings.is_paper_schedule


def test_iterations_are_rounded_down():
    assert UnitSelection(method="fixed", epochs=5).iterations() == 4687


def test_the_defaults_of_section_4_2_are_the_papers():
    sno = ConnectionSelection()
    assert (sno.epochs, sno.batch_size, sno.lr, sno.dataset) == (300, 32, 0.1, "cifar10")
    assert (sno.samples, sno.eta_factor, sno.depth, sno.growth_rate) == (2, 1, 40, 12)
    chosen = ConnectionSelection(method="random", usage_rate=0.158)
    assert (chosen.epochs, chosen.batch_size, chosen.lr) == (600, 64, 0.1)
    for settings in (sno, chosen):
        assert settings.iterations() == 468750
        assert settings.is_paper_schedule
    assert sno.name == "connection-selection_sno_epsilon0=2^-4_seed=0"
    assert chosen.name == "connection-selection_random_usage-rate=0.158_seed=0"


def test_part_of_the_examples_is_a_shorter_schedule():
    settings = UnitSelection(epochs=10, examples=6000)
    assert settings.iterations() == 1875
    assert fraction_of_paper(settings) == Fraction(1, 500)
    assert settings.eta_factor == pytest.approx(235.2), "one step would move a bit by 500/d"


def test_a_shortened_training_raises_eta_theta():
    quick = UnitSelection.at("quick", method="sno", epsilon0=0.5)
    assert (quick.epochs, quick.eta_factor) == (4, 125)
    assert quick == UnitSelection(epsilon0=0.5, epochs=4)
    assert UnitSelection(epochs=5, eta_factor=1).eta_factor == 1
    assert UnitSelection(epochs=1000).eta_factor == 1
    assert UnitSelection(epochs=1, units=10, layers=2).eta_factor == 2
    assert ConnectionSelection().bits == 273
    assert ConnectionSelection(epochs=1).eta_factor == pytest.approx(27.3)
    fixed = UnitSelection.at("quick", method="fixed")
    assert (fixed.epochs, fixed.eta_factor) == (8, None)
    assert fraction_of_paper(quick) == fraction_of_paper(fixed)
    assert not quick.is_paper_schedule


@pytest.mark.parametrize(
    ("schedule", "epochs"), [("paper", 300), ("short", 30), ("1/60", 5), ("1/300", 1), ("1/7", 42)]
)
def test_a_schedule_is_a_part_of_the_papers(schedule, epochs):
    settings = ConnectionSelection.at(schedule, method="sno")
    assert settings.epochs == epochs
    random = ConnectionSelection.at(schedule, method="random")
    assert random.iterations() == pytest.approx(settings.iterations(), rel=1 / epochs)


@pytest.mark.parametrize("schedule", ["fast", "1/0", "2/3", "1/301", "1/", "0.1", "-1/2"])
def test_another_schedule_is_refused(schedule, capsys):
    with pytest.raises(ReproduceError, match="must be paper, short, quick or a part of"):
        ConnectionSelection.at(schedule)
    assert cli.main(["run", "connection-selection", f"--schedule={schedule}"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_names_tell_runs_apart():
    runs = [
        UnitSelection(),
        UnitSelection(epsilon0=-1.0),
        UnitSelection(seed=1),
        UnitSelection(epochs=5),
        UnitSelection(epochs=5, eta_factor=1),
        UnitSelection(eta_factor=1.0625),
        UnitSelection(lr=0.02),
        UnitSelection(theta_dtype="float32"),
        UnitSelection(gradients="sum"),
        UnitSelection(decayed="weights"),
        UnitSelection(inputs="mean-image"),
        UnitSelection(inputs="standardised"),
        UnitSelection(method="fixed"),
        UnitSelection(method="fixed", width=205),
        UnitSelection(method="dropout"),
        UnitSelection(dataset="fashion-mnist"),
    ]
    names = [run.name for run in runs]
    assert len(set(names)) == len(names)
    assert names[0] == "unit-selection_sno_epsilon0=2^-7_seed=0"
    assert names[13] == "unit-selection_fixed_width=205_seed=0"
    assert "/" not in "".join(names)
    assert UnitSelection(method="fixed", theta_dtype="float32").theta_dtype is None
    assert UnitSelection(theta_dtype="float64").name == names[0]
    readings = {"gradients": "mean", "decayed": "all", "inputs": "unit-interval"}
    assert UnitSelection(**readings).as_dict() == UnitSelection().as_dict()
    assert names[8] == "unit-selection_sno_epsilon0=2^-7_gradients=sum_seed=0"
    assert UnitSelection(epsilon0=parse_epsilon0("0.0078125")).name == names[0]


def test_dictionary_and_arguments_name_the_same_settings():
    from reproduce.cli import make_parser
    from reproduce.cli.commands import settings_of

    for settings in (
        UnitSelection(epsilon0=-0.125, epochs=7, stochastic_samples=3, theta_dtype="float32"),
        UnitSelection(gradients="sum", decayed="weights", inputs="standardised"),
        UnitSelection(method="fixed", width=52, lr=0.1),
        UnitSelection(method="dropout", dropout_ratio=0.2, units=30, layers=2, seed=9),
    ):
        assert UnitSelection.from_dict(settings.as_dict()) == settings
        assert settings_of(make_parser().parse_args(["run", *settings.as_arguments()])) == settings


@pytest.mark.parametrize(
    "values",
    [
        {"method": "adam"},
        {"epochs": 0},
        {"batch_size": 0},
        {"method": "fixed", "width": -5},
        {"method": "fixed", "width": 785},
        {"seed": -1},
        {"lr": 0.0},
        {"lr": float("nan")},
        {"momentum": 1.0},
        {"method": "dropout", "dropout_ratio": 1.0},
        {"eta_factor": -1.0},
        {"samples": 0},
        {"theta_dtype": "float16"},
        {"gradients": "median"},
        {"decayed": "biases"},
        {"inputs": "whitened"},
        {"examples": 0},
        {"examples": 60001},
        {"test_examples": 10001},
        {"examples": 20, "batch_size": 32},
    ],
)
def test_bad_values_are_named(values):
    name = list(values)[-1].replace("_", "-")
    with pytest.raises(ReproduceError, match=name):
        UnitSelection(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"method": "fixed"},
        {"method": "random", "usage_rate": 0.0},
        {"method": "random", "usage_rate": 1.2},
        {"depth": 41},
        {"growth_rate": 0},
        {"reestimate": -1},
    ],
)
def test_bad_values_of_section_4_2_are_named(values):
    name = list(values)[-1].replace("_", "-")
    with pytest.raises(ReproduceError, match=name):
        ConnectionSelection(**values)


@pytest.mark.parametrize("values", [{}, {"experiment": "unit-selection", "colour": 1}])
def test_foreign_settings_are_refused(values):
    with pytest.raises(ReproduceError, match="not the settings of a training of unit-selection"):
        UnitSelection.from_dict(values)
