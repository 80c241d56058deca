"""The training of section 4.2 on a few images: path, resume, evaluation, dead networks."""

import numpy
import pytest

from chainer_sno import chainer, complexity, links
from reproduce import ReproduceError, record, snapshot, structures
from reproduce.experiments import connection_training
from reproduce.experiments.connection_selection import ConnectionSelection
from reproduce.experiments.connection_training import ConnectionTraining
from reproduce.run import get_device

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
        saver.interval, "iteration"
    )
    first.trainer.run()
    second = build(dataset, tmp_path, **values)
    assert snapshot.resume(second.trainer, tmp_path, identity)
    assert second.trainer.updater.iteration == saver.interval < second.iterations
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


def built_weights(structure, depth=40, growth=12, channels=16):
    """Build the network of a structure, layer by layer, and count its weights (without biases)."""
    bits, layers, weights = iter(structure), (depth - 4) // 3, 0
    for block in range(3):
        widths = [channels]
        for layer in range(layers + 1):
            kept = sum(width for width, bit in zip(widths, bits, strict=False) if bit)
            channels = sum(widths)
            if not kept:
                widths.append(growth)
                continue
            if layer < layers:
                link = chainer.links.Convolution2D(kept, growth, 3, pad=1, nobias=True)
                widths.append(growth)
            elif block < 2:
                link = chainer.links.Convolution2D(kept, channels, 1, nobias=True)
            else:
                link = chainer.links.Linear(kept, 10, nobias=True)
            weights += link.W.size
    assert next(bits, None) is None
    return weights


@pytest.mark.parametrize("rate", [0.158, 0.241, 0.423, 0.675, 0.803, 1.0])
def test_usage_rates_are_those_of_a_network_that_is_built(dataset, tmp_path, rate):
    values = {"method": "random", "usage_rate": rate, "depth": 40, "growth_rate": 12}
    training = build(dataset, tmp_path, **values)
    result = training.structure_result()
    full = built_weights(numpy.ones(273, bool))
    assert full == 1_001_184
    weights = built_weights(training.link.structure)
    assert result["weights"] == weights
    assert result["usage_rate"] == weights / full
    assert abs(weights / full - rate) <= 0.005


def test_random_structures_without_a_path_are_drawn_again(dataset, tmp_path):
    # Of seeds 0 to 3 at Table 2's smallest rate, some draw dead structures first.
    values = {"method": "random", "usage_rate": 0.158, "depth": 40, "growth_rate": 12}
    draws = []
    for seed in range(4):
        training = build(dataset, tmp_path, seed=seed, **values)
        result = training.structure_result()
        assert not result["dead"]
        assert abs(result["usage_rate"] - 0.158) <= 0.005
        draws.append(result["dead_draws"])
    assert max(draws) > 0
    with pytest.raises(ReproduceError, match="--usage-rate: none of .* give another usage rate"):
        build(dataset, tmp_path, method="random", usage_rate=0.0123)


@pytest.mark.parametrize(("rate", "share"), [(0.158, 0.88), (0.241, 0.47), (0.423, 0.02)])
def test_how_many_random_structures_have_no_path(rate, share, rng):
    """The shares of reading R19."""
    costs, draws = links.DenseNet().costs, 300
    bits = (complexity.random_structure(costs, rate, rng) for _ in range(draws))
    dead = sum(structures.depth(each, 3, 12) is None for each in bits)
    assert dead / draws == pytest.approx(share, abs=0.08)


def test_the_result_says_what_the_structure_is(dataset, tmp_path):
    training = build(dataset, tmp_path, epsilon0=-1.0, eta_factor=3.0, epochs=20)
    training.trainer.run()
    result = training.result()
    assert result["connections"] == [3, 3, 3]
    assert (result["usage_rate"], result["depth"], result["dead"]) == (1.0, 7, False)
    assert result["structure"] == "1" * 9
    assert result["weights"] == training.link.costs.sum()
    assert 0 <= result["reestimated_augmented_test_error"] <= 1


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


@pytest.mark.parametrize("method", [{"epsilon0": 0.0}, {"method": "random", "usage_rate": 0.6}])
def test_statistics_are_estimated_anew_in_some_epochs_and_the_last(
    method, dataset, tmp_path, monkeypatch
):
    monkeypatch.setattr(connection_training, "ESTIMATES", 3)
    training = build(dataset, tmp_path, epochs=7, reestimate=2, **method)
    training.trainer.run()
    log = record.columns(training.log.log)
    errors = log["validation/main/reestimated_augmented_error"]
    assert [error is not None for error in errors] == [epoch in (3, 6, 7) for epoch in range(1, 8)]
    assert training.result()["reestimated_augmented_test_error"] == errors[-1]
    monkeypatch.undo()
    often = build(dataset, tmp_path, epochs=7, reestimate=2, **method)
    often.trainer.run()
    every = record.columns(often.log.log)
    assert every.keys() == log.keys()
    for name, column in log.items():
        pairs = zip(column, every[name], strict=True)
        assert all(one == other for one, other in pairs if one is not None), name


def test_statistics_are_estimated_from_the_first_batches_of_the_training(dataset, tmp_path):
    """They are augmented, as all images that the network is trained with."""
    training = build(dataset, tmp_path, epsilon0=0.0, reestimate=2)
    iterator = training.trainer.updater.get_iterator("main")
    first = [next(iterator)[0] for _ in range(3)]
    place, uniforms = iterator.position, iterator.augmentation.position
    for _ in range(2):
        batches = training._batches()
        assert len(batches) == 2
        for batch, expected in zip(batches, first):
            numpy.testing.assert_array_equal(batch, expected)
    assert (iterator.position, iterator.augmentation.position) == (place, uniforms)


def test_statistics_estimated_anew_are_a_second_result(dataset, tmp_path):
    training = build(dataset, tmp_path, epsilon0=0.0, reestimate=2)
    training.trainer.run()
    before = {name: array.copy() for name, array in parameters(training).items()}
    result = training.result()
    assert 0 <= result["reestimated_augmented_test_error"] <= 1
    plain = build(dataset, tmp_path, epsilon0=0.0, reestimate=0)
    assert training.settings.name == plain.settings.name
    plain.trainer.run()
    assert "reestimated_augmented_test_error" not in plain.result()
    assert plain.result()["test_error"] == result["test_error"], "it is no second result only"
    for name, array in parameters(plain).items():
        numpy.testing.assert_array_equal(array, before[name], name)
