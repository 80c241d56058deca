import io
import json

import numpy
import pytest

from chainer_sno import (
    ArrayIterator,
    Bernoulli,
    StructureUpdater,
    chainer,
    extensions,
    links,
    pass_arrays,
)


class Setup:
    """A small training of 30 examples in mini-batches of 4."""

    def __init__(self, rng, out):
        self.x = rng.normal(size=(30, 6)).astype("f")
        self.t = rng.integers(0, 3, 30).astype("i")
        self.link = links.MaskedMLP(6, (5, 4), 3)
        optimizer = chainer.optimizers.NesterovAG(0.05).setup(self.link)
        self.bernoulli = Bernoulli(self.link.costs, eta=0.1)
        updater = StructureUpdater(
            ArrayIterator((self.x, self.t), 4), optimizer, self.bernoulli, converter=pass_arrays
        )
        self.trainer = chainer.training.Trainer(updater, (45, "iteration"), str(out))

    def evaluator(self, batch=8, samples=0):
        iterator = ArrayIterator((self.x, self.t), batch, repeat=False, shuffle=False)
        return extensions.StructureEvaluator(iterator, self.link, self.bernoulli, samples)


@pytest.fixture
def setup(rng, tmp_path):
    return Setup(rng, tmp_path)


@pytest.mark.parametrize("batch", [8, 30])
def test_evaluation_is_at_the_mode_and_counts_examples(setup, batch):
    setup.bernoulli.theta[...] = [0.5, 0.4, 0.8, 0.2, 0.9, 0.6, 0.1, 0.5, 0.3]
    found = setup.evaluator(batch)()
    y = setup.link(setup.x, setup.bernoulli.mode()[None])[0]
    loss = float(chainer.functions.softmax_cross_entropy(y, setup.t).array)
    error = (y.array.argmax(axis=1) != setup.t).mean()
    assert found == {
        "main/loss": pytest.approx(loss, rel=1e-5),
        "main/error": pytest.approx(error, rel=1e-12),
    }


def test_stochastic_prediction_is_the_mean_of_the_softmax(setup):
    setup.bernoulli.theta[...] = numpy.linspace(0.2, 0.8, 9)
    evaluator = setup.evaluator(samples=50)
    position = setup.bernoulli.uniforms.position
    found = evaluator()
    assert setup.bernoulli.uniforms.position == position, "the training's stream was disturbed"
    structures = extensions.Uniforms(9, 0, extensions.Stream.EVALUATION).take(50)
    structures = structures < setup.bernoulli.theta
    p = sum(chainer.functions.softmax(y).array for y in setup.link(setup.x, structures)) / 50
    error = (p.argmax(axis=1) != setup.t).mean()
    loss = -numpy.log(p[numpy.arange(30), setup.t]).mean()
    assert found["main/stochastic_error"] == pytest.approx(error)
    assert found["main/stochastic_loss"] == pytest.approx(loss, rel=1e-5)
    assert "main/error" in found


def test_a_probability_that_underflows_has_a_finite_loss(setup):
    with chainer.using_config("train", False):
        classifier = list(setup.link.links())[-1]
        classifier.W.array[...] = 0
        classifier.b.array[...] = [200, 0, 0]
        found = setup.evaluator(8, samples=2)()
    wrong = (setup.t != 0).mean()
    assert found["main/stochastic_error"] == pytest.approx(wrong)
    # The smallest positive number of float32 is 2^-149.
    assert found["main/stochastic_loss"] == pytest.approx(149 * numpy.log(2) * wrong)


def test_plain_networks_are_evaluated_too(setup):
    network = links.MLP(6, (5,), 3, dropout_ratio=0.5)
    iterator = ArrayIterator((setup.x, setup.t), 8, repeat=False, shuffle=False)
    found = extensions.ErrorEvaluator(iterator, network)()
    with chainer.using_config("train", False):
        y = network(setup.x).array
    assert found["main/error"] == pytest.approx((y.argmax(axis=1) != setup.t).mean())


def test_reports_reach_chainers_extensions(setup, tmp_path, capsys):
    stock = chainer.training.extensions
    trainer = setup.trainer
    every = extensions.EpochTrigger(30, 4)
    trainer.extend(setup.evaluator(), name="validation", trigger=every)
    trainer.extend(extensions.ThetaReport(setup.bernoulli, bins=4), trigger=every)
    trainer.extend(extensions.StructureReport(setup.link, setup.bernoulli), trigger=every)
    trainer.extend(stock.LogReport(trigger=every))
    names = ["validation/main/error", "theta/mean", "structure/usage_rate", "structure/hidden_1"]
    lines = io.StringIO()
    trainer.extend(stock.PrintReport(["epoch", *names], out=lines))
    trainer.extend(stock.ProgressBar(update_interval=10))
    trainer.extend(stock.PlotReport(names[2:3], trigger=every, filename="usage.png"))
    trainer.run()
    log = json.loads((tmp_path / "log").read_text())
    # Six epochs of 7.5 mini-batches, cut off at whole ones.
    assert [entry["iteration"] for entry in log] == [7, 15, 22, 30, 37, 45]
    last = log[-1]
    mode = setup.bernoulli.mode()
    theta = setup.bernoulli.theta
    assert last["theta/mean"] == theta.mean()
    assert last["theta/min"] == theta.min()
    assert last["theta/max"] == theta.max()
    assert last["theta/converged"] == (numpy.minimum(theta, 1 - theta) < 0.05).mean()
    entropy = -(theta * numpy.log2(theta) + (1 - theta) * numpy.log2(1 - theta)).mean()
    bins = numpy.minimum((theta * 4).astype(int), 3)
    assert [last[f"theta/bin_{i:02}"] for i in range(4)] == numpy.bincount(
        bins, minlength=4
    ).tolist()
    assert last["theta/entropy"] == pytest.approx(entropy)
    assert last["structure/usage_rate"] == mode.mean()
    assert last["structure/hidden_1"] == mode[:5].sum()
    assert last["structure/hidden_2"] == mode[5:].sum()
    assert last["structure/weight_ratio"] == setup.link.weight_ratio(mode)
    assert last["main/loss"] > 0
    assert all(name in lines.getvalue() for name in names)
    assert "iters/sec" in capsys.readouterr().out
    assert (tmp_path / "usage.png").stat().st_size > 0


@pytest.mark.parametrize(("iterations", "milestones"), [(40, (20, 30)), (45, (22, 33))])
def test_learning_rate_is_divided_at_one_half_and_three_quarters(setup, iterations, milestones):
    schedule = extensions.StepSchedule(iterations)
    setup.trainer.extend(schedule)
    used = []
    optimizer = setup.trainer.updater.get_optimizer("main")
    update = optimizer.update

    def record(*arguments):
        used.append(optimizer.lr)
        update(*arguments)

    optimizer.update = record
    setup.trainer.stop_trigger = chainer.training.triggers.IntervalTrigger(iterations, "iteration")
    setup.trainer.run()
    half, three_quarters = milestones
    expected = [0.05] * half + [0.05 / 10] * (three_quarters - half)
    assert used == expected + [0.05 / 100] * (iterations - three_quarters)


def test_a_snapshot_that_loads_itself_brings_its_rate(rng, tmp_path):
    used = []
    for iterations in (30, 45):
        trainer = Setup(rng, tmp_path).trainer
        trainer.stop_trigger = chainer.training.triggers.IntervalTrigger(iterations, "iteration")
        trainer.extend(extensions.StepSchedule(45))
        snapshot = chainer.training.extensions.snapshot(autoload=True)
        trainer.extend(snapshot, trigger=(25, "iteration"))
        trainer.extend(
            lambda trainer: used.append(trainer.updater.get_optimizer("main").lr),
            name="used",
            trigger=(1, "iteration"),
        )
        trainer.run()
    # Iterations 26 to 45; StepSchedule, ahead of what records, has set the rate of the next one.
    assert used[30:] == [0.05 / 10] * 7 + [0.05 / 100] * 13


def test_epoch_trigger_fires_at_the_rounded_down_iterations():
    class At:
        def __init__(self, iteration):
            self.updater = self
            self.iteration = iteration

    for examples, batch_size in [(60000, 32), (60000, 64), (10, 3), (7, 7), (50, 50)]:
        trigger = extensions.EpochTrigger(examples, batch_size)
        count = 4 * examples // batch_size
        fired = [i for i in range(count + 1) if trigger(At(i))]
        assert fired == [e * examples // batch_size for e in (1, 2, 3, 4)]


StepSchedule = extensions.StepSchedule


class _Rates:
    """Stands for a trainer: an updater and its optimizer's rate."""

    def __init__(self):
        self.updater, self.lr, self.iteration = self, 0.4, 0

    def get_optimizer(self, name):
        return self


def test_the_rates_of_the_schedule():
    """Iterations 1 to 4 of 9 have the whole rate, 5 and 6 a tenth, 7 to 9 a hundredth (R10)."""
    trainer, schedule, rates = _Rates(), StepSchedule(9), []
    schedule.initialize(trainer)
    for _ in range(9):
        rates.append(trainer.lr)
        trainer.iteration += 1
        schedule(trainer)
    numpy.testing.assert_allclose(rates, [0.4] * 4 + [0.04] * 2 + [0.004] * 3)
    assert [schedule.learning_rate(i) for i in range(9)] == rates
