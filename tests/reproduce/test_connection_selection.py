"""The training of section 4.2 on a few images: path, resume, evaluation, dead networks."""

import numpy
import pytest

from chainer_sno import complexity
from chainer_sno._import_chainer import chainer
from reproduce import snapshot
from reproduce.connection_selection import ConnectionTraining
from reproduce.run import get_device
from reproduce.settings import ConnectionSelection

SMALL = {"depth": 7, "growth_rate": 2}


@pytest.fixture(scope="module")
def dataset():
    rng = numpy.random.default_rng(3)
    images = rng.integers(0, 256, (104, 3, 32, 32), dtype=numpy.uint8)
    labels = rng.integers(0, 10, 104).astype("i")
    # A label that the image tells: the brightness of its first channel.
    images[:, 0] = (images[:, 0] // 8) + 20 * labels[:, None, None].astype(numpy.uint8)
    return (images[:64], labels[:64]), (images[64:], labels[64:])


def build(dataset, directory, plain=False, **values):
    settings = ConnectionSelection(**{"epochs": 3, **SMALL, **values})
    return ConnectionTraining(settings, dataset, get_device(-1), directory, plain)


def parameters(training):
    found = {name: p.array for name, p in training.link.namedparams()}
    for name, link in training.link.namedlinks():
        if isinstance(link, chainer.links.BatchNormalization):
            found[name + "/mean"], found[name + "/var"] = link.avg_mean, link.avg_var
    if training.bernoulli is not None:
        found["theta"] = training.bernoulli.theta
    return found


@pytest.mark.parametrize("values", [{"epsilon0": 0.1}, {"method": "random", "usage_rate": 0.6}])
def test_fast_and_plain_train_the_same(dataset, tmp_path, values):
    fast = build(dataset, tmp_path, **values)
    plain = build(dataset, tmp_path, plain=True, **values)
    assert type(fast.link) is not type(plain.link) or values.get("method") == "random"
    for training in (fast, plain):
        training.trainer.run()
    expected = parameters(plain)
    for name, array in parameters(fast).items():
        scale = max(1e-3, abs(expected[name]).max())
        numpy.testing.assert_allclose(array / scale, expected[name] / scale, atol=2e-3)
    assert fast.result()["structure"] == plain.result()["structure"]


@pytest.mark.parametrize("values", [{"epsilon0": 0.1}, {"method": "random", "usage_rate": 0.6}])
def test_goes_on_from_a_snapshot_augmentation_included(dataset, tmp_path, values):
    whole = build(dataset, tmp_path / "whole", **values)
    whole.trainer.run()
    identity = whole.settings.as_dict()
    first = build(dataset, tmp_path, **values)
    saver = snapshot.Snapshot(tmp_path, identity, 4 if "epsilon0" in values else 2)
    first.trainer.extend(saver)
    first.trainer.stop_trigger = chainer.training.triggers.IntervalTrigger(
        saver.trigger.period, "iteration"
    )
    first.trainer.run()
    second = build(dataset, tmp_path, **values)
    assert snapshot.resume(second.trainer, tmp_path, identity)
    assert second.trainer.updater.iteration == saver.trigger.period < second.iterations
    second.trainer.run()
    expected = parameters(whole)
    for name, array in parameters(second).items():
        numpy.testing.assert_array_equal(array, expected[name], name)
    assert second.result() == whole.result()

    def log(training):
        return [
            {name: value for name, value in entry.items() if name != "elapsed_time"}
            for entry in training.log.log
        ]

    assert log(second) == log(whole)


def test_the_random_structure_meets_its_usage_rate(dataset, tmp_path):
    values = {"method": "random", "usage_rate": 0.423, "depth": 40, "growth_rate": 12}
    training = build(dataset, tmp_path, **values)
    structure = training.link.structure
    costs = training.link.link.costs
    assert abs(complexity.usage_rate(structure, costs) - 0.423) <= 0.005
    other = build(dataset, tmp_path, seed=1, **values).link.structure
    assert not numpy.array_equal(structure, other)


def test_the_result_says_what_the_structure_is(dataset, tmp_path):
    training = build(dataset, tmp_path, epsilon0=-1.0, eta_factor=3.0, epochs=20)
    training.trainer.run()
    result = training.result()
    assert result["connections"] == [3, 3, 3]
    assert (result["usage_rate"], result["depth"], result["dead"]) == (1.0, 7, False)
    assert result["structure"] == "1" * 9
    assert result["weights"] == training.link.costs.sum()
    assert "reestimated_test_error" not in result


def test_a_dead_network_trains_on_and_says_so(dataset, tmp_path):
    training = build(dataset, tmp_path, epsilon0=0.5, eta_factor=3.0, epochs=20)
    # A penalty alone: with every connection absent there is no path to choose.
    training.bernoulli.theta[...] = 1 / 9
    training.trainer.run()
    result = training.result()
    assert result["dead"]
    assert result["depth"] is None
    assert numpy.isfinite(result["test_loss"])
    for name, array in parameters(training).items():
        assert numpy.isfinite(array).all(), name


def test_statistics_estimated_anew_are_a_second_result(dataset, tmp_path):
    training = build(dataset, tmp_path, epsilon0=0.0, reestimate=2)
    training.trainer.run()
    before = {name: array.copy() for name, array in parameters(training).items()}
    result = training.result()
    assert 0 <= result["reestimated_test_error"] <= 1
    plain = build(dataset, tmp_path, epsilon0=0.0)
    plain.trainer.run()
    assert plain.result()["test_error"] == result["test_error"], "it is no second result only"
    for name, array in parameters(plain).items():
        numpy.testing.assert_array_equal(array, before[name], name)
