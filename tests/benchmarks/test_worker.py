"""What is compared with does the same work."""

import numpy
import pytest

import benchmarks.__main__ as main
from benchmarks import worker
from chainer_sno import StructureUpdater
from chainer_sno.graph import updaters
from tests.chainer_sno.cuda.conftest import needs_compiler
from tests.chainer_sno.cuda.emulator import Emulator
from tests.chainer_sno.fast.test_updaters import compare, structure_updater


def test_stock_chainer_gives_the_same_numbers():
    with worker.chainer.using_config("dtype", numpy.float32):
        stock = structure_updater(worker.StockUpdater)
        plain = structure_updater(StructureUpdater)
        for _ in range(30):
            stock.update()
            plain.update()
            stock.bernoulli.theta[...] = plain.bernoulli.theta
    stock.synchronise = lambda: None
    compare(stock, plain, "float32")


@pytest.mark.parametrize("case", ["converged 92/31/24", "fixed, batch 64", "products, batch 64"])
def test_cases_run(case, monkeypatch):
    def small(batch_size, device):
        rng = numpy.random.default_rng(0)
        x = rng.integers(0, 256, (100, 784), dtype=numpy.uint8)
        return worker.chainer_sno.ArrayIterator((x, numpy.zeros(100, "i")), batch_size, divisor=255)

    monkeypatch.setattr(worker, "_iterator", small)
    step = worker.make(case)
    step()


def test_the_converged_theta_is_that_of_table_1(monkeypatch):
    found = {}

    class Updater:
        update = None

        def __init__(self, kind, batch, theta):
            found["theta"] = theta

    monkeypatch.setattr(worker, "structure_updater", Updater)
    monkeypatch.setattr(worker, "_iterator", lambda batch_size, device: None)
    worker.make("converged 340/141/126")
    theta = found["theta"]
    assert [(theta[i : i + 784] > 0.5).sum() for i in (0, 784, 1568)] == [340, 141, 126]
    assert set(theta) == {1 / 2352, 1 - 1 / 2352}


@needs_compiler
def test_a_case_runs_captured(monkeypatch):
    monkeypatch.setattr(worker, "WIDTHS", (784, (20, 20, 20), 10))
    monkeypatch.setattr(updaters, "Kernels", Emulator)
    step = worker.make("theta = 0.5", captured=True)
    times = worker.times_on_a_gpu(step, 20, lambda: None)
    assert len(times) == worker.PARTS
    updater = step.__self__
    assert updater.iteration == 20
    assert 2 < updater.captured.take_loss() < 3  # of ten classes at random: log 10


@pytest.mark.parametrize("device", [-1, 0])
def test_commands(device):
    suite = (main.GPU_SUITES if device >= 0 else main.SUITES)["connection-selection"]
    for case in (*suite.cases, *suite.peers):
        command = main.command_of(suite, case, "python", device)
        assert (f"--device={device}" in command) == (case in suite.cases)
        assert ("--device=cuda" in command) == (case in suite.peers and device >= 0)
