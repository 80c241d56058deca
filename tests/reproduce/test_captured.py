"""The trainings as a GPU runs them, with the kernels on the host where there is no GPU."""

import dataclasses

import numpy
import pytest

from chainer_sno import chainer
from chainer_sno.graph import updaters
from reproduce import ReproduceError, training
from reproduce.experiments import connection_training
from reproduce.experiments.connection_selection import ConnectionSelection
from reproduce.experiments.connection_training import ConnectionTraining
from reproduce.experiments.unit_selection import UnitSelection
from reproduce.experiments.unit_training import UnitTraining
from tests.chainer_sno.cuda.conftest import needs_compiler
from tests.chainer_sno.cuda.emulator import Emulator

UNITS = UnitSelection(units=9, layers=2, epochs=2, epsilon0=0.5, eta_factor=30, examples=96)
DENSE = ConnectionSelection(
    depth=7, growth_rate=3, epochs=2, examples=96, test_examples=20, epsilon0=0.5, eta_factor=3
)
CASES = {
    "sno": UNITS,
    "fixed": dataclasses.replace(UNITS, method="fixed", width=7, epsilon0=None, eta_factor=None),
    "connections": DENSE,
}


def dataset(settings):
    rng = numpy.random.default_rng(1)
    shape = (784,) if isinstance(settings, UnitSelection) else (3, 8, 8)
    return tuple(
        (rng.integers(0, 256, (n, *shape), dtype="u1"), rng.integers(0, 10, n).astype("i"))
        for n in (96, 20)
    )


def make(settings, directory, plain=False):
    kind = UnitTraining if isinstance(settings, UnitSelection) else ConnectionTraining
    device = chainer.get_device("@numpy")
    return kind(settings, dataset(settings), device, directory, plain)


@pytest.fixture
def on_the_host(monkeypatch):
    monkeypatch.setattr(training.Training, "CPU_PATH", "captured")
    monkeypatch.setattr(ConnectionTraining, "CPU_PATH", "captured")
    monkeypatch.setattr(updaters, "Kernels", Emulator)


@needs_compiler
@pytest.mark.parametrize("case", CASES)
def test_a_training_reports_what_the_plain_path_reports(case, on_the_host, tmp_path):
    """The random numbers of the structures differ; the first epoch of a fixed network does not."""
    captured = make(CASES[case], tmp_path)
    captured.trainer.run()
    plain = make(CASES[case], tmp_path, plain=True)
    plain.trainer.run()
    assert captured.path == "captured"
    found, expected = captured.log.log, plain.log.log
    assert [set(entry) for entry in found] == [set(entry) for entry in expected]
    assert [entry["iteration"] for entry in found] == [entry["iteration"] for entry in expected]
    assert [entry["lr"] for entry in found] == [entry["lr"] for entry in expected]
    assert captured.result().keys() == plain.result().keys()
    if case == "fixed":
        for name in ("main/loss", "validation/main/loss", "validation/main/error"):
            numpy.testing.assert_allclose(
                [entry[name] for entry in found], [entry[name] for entry in expected], rtol=1e-4
            )


@needs_compiler
def test_an_evaluation_has_large_batches_and_the_same_result(on_the_host, tmp_path, monkeypatch):
    found = []
    for size in (500, 7):
        monkeypatch.setattr(connection_training, "TEST_BATCH_CAPTURED", size)
        built = make(DENSE, tmp_path)
        built.trainer.run()
        evaluator = built.trainer.get_extension("validation")
        assert evaluator.get_iterator("main").batch_size == min(size, 20)
        found.append([entry["validation/main/loss"] for entry in built.log.log])
    numpy.testing.assert_allclose(*found, rtol=1e-5)
    plain = make(DENSE, tmp_path, plain=True)
    assert plain.trainer.get_extension("validation").get_iterator("main").batch_size == 20
    monkeypatch.setattr(connection_training, "TEST_BATCH", 9)
    plain = make(DENSE, tmp_path, plain=True)
    assert plain.trainer.get_extension("validation").get_iterator("main").batch_size == 9


@needs_compiler
@pytest.mark.parametrize("case", CASES)
def test_a_resumed_training_ends_with_the_same_bits(case, on_the_host, tmp_path):
    whole = make(CASES[case], tmp_path)
    whole.trainer.run()
    first = make(CASES[case], tmp_path)
    first.trainer.extend(
        lambda trainer: first.stop_trigger.on_signal(15, None), "stop", (4, "iteration")
    )
    first.trainer.run()
    chainer.serializers.save_npz(tmp_path / "snapshot.npz", first.trainer)
    second = make(CASES[case], tmp_path)
    chainer.serializers.load_npz(tmp_path / "snapshot.npz", second.trainer)
    second.trainer.run()
    expected, found = whole.arrays(), second.arrays()
    assert expected.keys() == found.keys()
    for name in expected:
        numpy.testing.assert_array_equal(found[name], expected[name], name)
    for a, b in zip(whole.log.log, second.log.log):
        assert {k: v for k, v in a.items() if k != "elapsed_time"} == {
            k: v for k, v in b.items() if k != "elapsed_time"
        }


@needs_compiler
def test_theta_in_float32_is_for_the_plain_path(on_the_host, tmp_path):
    settings = dataclasses.replace(UNITS, theta_dtype="float32")
    with pytest.raises(
        ReproduceError, match="theta in float64, not float32: use the backend 'reference'"
    ):
        make(settings, tmp_path)
    assert make(settings, tmp_path, plain=True).bernoulli.theta.dtype == numpy.float32
