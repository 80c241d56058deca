"""Experiments: the registry, a third one in one file, and the names of runs."""

import json

import pytest

from reproduce import ReproduceError, cli, experiments, groups, record
from reproduce.experiments.base import Experiment
from reproduce.experiments.connection_selection import ConnectionSelection
from reproduce.experiments.unit_selection import UnitSelection
from reproduce.figures import gallery
from tests.reproduce import synthetic

SMALL = ("--examples=400", "--test-examples=100", "--epochs=2")


@pytest.fixture
def toy(monkeypatch):
    """The toy experiment, known to this process and to those that it starts."""
    monkeypatch.setenv(experiments.VARIABLE, "tests.reproduce.toy_experiment")
    from tests.reproduce import toy_experiment

    yield experiments.register(toy_experiment.ToyExperiment())
    experiments.unregister("toy-selection")


def test_the_papers_experiments_come_first(toy):
    names = list(experiments.all_experiments())
    assert names[:2] == ["unit-selection", "connection-selection"]
    assert names[2:] == ["toy-selection"]


def test_the_schedule_of_a_third_experiment_is_not_called_the_papers(toy):
    found = {
        name: groups.Group(experiments.get(name).settings(), {}, []).schedule
        for name in ("unit-selection", "toy-selection")
    }
    assert found == {
        "unit-selection": "the paper's schedule",
        "toy-selection": "the full schedule",
    }


def test_a_third_experiment_goes_through_every_command(toy, tmp_path, capsys, monkeypatch):
    runs = tmp_path / "runs"
    where = (f"--out={runs}",)

    def call(*arguments):
        assert cli.main(list(arguments)) == 0
        return capsys.readouterr().out

    printed = call("run", "toy-selection", "--epsilon0=2^-1", *SMALL, "--seed=7", *where)
    assert "kept" in printed
    assert "usage rate" in printed
    call("sweep", "toy-selection", "--trials=1", "--methods=whole", *SMALL, *where)
    found, refused = record.read_all(runs)
    assert not refused
    assert len(found) == 2
    assert "2 runs: 2 finished" in call("status", *where)
    compared = call("compare", f"--runs={runs}")
    assert "Toy selection on MNIST, " in compared
    assert "whole" in compared
    with monkeypatch.context() as undrawn:  # the figures are drawn below
        undrawn.setattr(gallery, "save", synthetic.empty_files)
        call("report", f"--runs={runs}", f"--out={tmp_path / 'report'}")
    report = (tmp_path / "report" / "REPORT.md").read_text()
    assert "## Toy selection on MNIST: " in report
    assert "of the full length" in report
    assert "0 of them at the paper's schedule" in report
    drawn = call("figures", f"--runs={runs}", f"--out={tmp_path / 'figures'}")
    assert "Kept of each layer" in drawn
    call("quick", "toy-selection", *where, f"--figures={tmp_path / 'quick'}")
    path = runs / f"{found[0]['name']}.json"
    assert cli.main(["export", str(path), "--format=onnx"]) == 2  # it does not define what it needs
    assert "define input_words in its class" in capsys.readouterr().err


def test_without_its_module_a_record_of_it_is_refused(toy, monkeypatch):
    values = experiments.get("toy-selection").settings().as_dict()
    assert experiments.from_dict(values).as_dict() == values
    experiments.unregister("toy-selection")
    monkeypatch.delenv(experiments.VARIABLE)
    with pytest.raises(ReproduceError, match="toy-selection"):
        experiments.from_dict(values)


def test_two_experiments_of_one_name_are_refused():
    class Other(Experiment):
        name = "unit-selection"
        settings = UnitSelection

    with pytest.raises(ValueError, match="two experiments of the name 'unit-selection'"):
        experiments.register(Other())


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("nowhere.to.be.found", None, "ModuleNotFoundError"),
        ("./file.py", None, "TypeError"),
        ("os", None, "registers no experiment of its own"),
        ("odd_experiment_a", "1 +", "SyntaxError"),
        ("odd_experiment_b", "raise SystemExit(3)", "SystemExit: 3"),
        (
            "odd_experiment_c",
            "from reproduce import experiments\nexperiments.register(5)",
            "an experiment is an instance of Experiment, not 5",
        ),
        (
            "odd_experiment_d",
            "from reproduce.experiments import base, register\n"
            "class Odd(base.Experiment): pass\nregister(Odd())",
            "needs a name, and settings with methods",
        ),
    ],
)
def test_a_module_of_no_use_is_named(name, text, reason, tmp_path, monkeypatch, capsys):
    if text is not None:
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(experiments.VARIABLE, name)
    for arguments in (["status"], ["--help"]):
        assert cli.main(arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"reproduce: CHAINER_SNO_EXPERIMENTS names the module {name!r}")
        assert reason in error
        assert error.count("\n") == 1


def test_the_names_of_runs_do_not_change():
    """Records and snapshots are found by these names, and trainings of days go on from them."""
    names = [
        (UnitSelection(), "unit-selection_sno_epsilon0=2^-7_seed=0"),
        (UnitSelection(epsilon0=-1.0, seed=4), "unit-selection_sno_epsilon0=-2^0_seed=4"),
        (UnitSelection(epsilon0=0.3), "unit-selection_sno_epsilon0=0.3_seed=0"),
        (UnitSelection(method="fixed", width=205), "unit-selection_fixed_width=205_seed=0"),
        (UnitSelection(method="dropout"), "unit-selection_dropout_seed=0"),
        (
            UnitSelection(epsilon0=2.0**-8, theta_dtype="float32"),
            "unit-selection_sno_epsilon0=2^-8_theta_dtype=float32_seed=0",
        ),
        (
            UnitSelection(epsilon0=2.0**-6, gradients="sum", inputs="mean-image"),
            "unit-selection_sno_epsilon0=2^-6_gradients=sum_inputs=mean-image_seed=0",
        ),
        (
            UnitSelection(dataset="fashion-mnist", epochs=50),
            "unit-selection_sno_epsilon0=2^-7_dataset=fashion-mnist_epochs=50_eta_factor=10_seed=0",
        ),
        (
            UnitSelection(criterion="weights"),
            "unit-selection_sno_epsilon0=2^-7_criterion=weights_seed=0",
        ),
        (
            ConnectionSelection(epsilon0=0.25, reestimate=0),
            "connection-selection_sno_epsilon0=2^-2_seed=0",
        ),
        (
            ConnectionSelection(method="random", usage_rate=0.158),
            "connection-selection_random_usage-rate=0.158_seed=0",
        ),
        (
            ConnectionSelection(method="random", usage_rate=1.0, epochs=10),
            "connection-selection_random_usage-rate=1_epochs=10_seed=0",
        ),
        (
            ConnectionSelection(dataset="cifar100"),
            "connection-selection_sno_epsilon0=2^-4_dataset=cifar100_seed=0",
        ),
    ]
    for settings, name in names:
        assert settings.name == name
        assert experiments.from_dict(json.loads(json.dumps(settings.as_dict()))) == settings
