"""Readings of section 4.1 that may be varied: gradients, weight decay and inputs."""

import numpy
import pytest

from chainer_sno import chainer
from reproduce import ReproduceError, data, export, run
from reproduce.experiments.unit_selection import UnitSelection
from reproduce.experiments.unit_training import UnitTraining
from reproduce.run import get_device
from tests.reproduce.synthetic import noise

SMALL = {"units": 9, "layers": 2, "epochs": 2, "examples": 640, "test_examples": 100}


@pytest.fixture(scope="module")
def dataset():
    return noise("mnist", None, print)


def trained(dataset, tmp_path, plain=False, **values):
    settings = UnitSelection(**SMALL | {"eta_factor": 20.0} | values)
    training = UnitTraining(settings, dataset, get_device(-1), tmp_path, plain)
    training.trainer.run()
    return training


def columns(training):
    return [
        {k: v for k, v in e.items() if k not in ("elapsed_time", "lr")} for e in training.log.log
    ]


@pytest.mark.parametrize("samples", [2, 4])
def test_summed_gradients_are_another_rate_and_decay(samples, dataset, tmp_path):
    summed = trained(dataset, tmp_path, gradients="sum", samples=samples)
    rates = {"lr": 0.01 * samples, "weight_decay": 1e-4 / samples}
    other = trained(dataset, tmp_path, samples=samples, **rates)
    assert columns(summed) == columns(other)


def test_summed_gradients_are_the_sum_of_equation_6(dataset, tmp_path):
    """Of the plain path, beside an optimizer that is given the sum."""
    with chainer.using_config("dtype", numpy.float64):
        summed = trained(dataset, tmp_path, plain=True, gradients="sum")
        other = UnitTraining(
            UnitSelection(**SMALL, eta_factor=20.0), dataset, get_device(-1), tmp_path, True
        )
        optimizer = other.trainer.updater.get_optimizer("main")

        class Double:
            name, timing, call_for_each_param = "Double", "pre", True

            def __call__(self, rule, parameter):
                parameter.grad *= 2

        decay = optimizer._hookable._pre_update_hooks["WeightDecay"]
        optimizer.remove_hook("WeightDecay")
        optimizer.add_hook(Double())
        optimizer.add_hook(decay)
        other.trainer.run()
    found, expected = summed.arrays(), other.arrays()
    for name, value in expected.items():
        numpy.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("plain", [False, True])
def test_biases_without_decay(plain, dataset, tmp_path):
    values = {"weight_decay": 0.01, "plain": plain}
    both = [trained(dataset, tmp_path, decayed=decayed, **values) for decayed in ("weights", None)]
    biases = [abs(training.arrays()["link/hidden/0/linear/b"]).sum() for training in both]
    assert biases[0] > biases[1]


@pytest.mark.parametrize("decayed", ["weights", None])
def test_both_paths_agree_about_the_decay(decayed, dataset, tmp_path):
    with chainer.using_config("dtype", numpy.float64):
        found, expected = (
            trained(dataset, tmp_path, plain, decayed=decayed, weight_decay=0.01).arrays()
            for plain in (False, True)
        )
    for name, value in expected.items():
        numpy.testing.assert_allclose(found[name], value, rtol=1e-7, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("inputs", ["mean-image", "standardised"])
def test_inputs_are_centred_by_the_training_set(inputs, dataset, tmp_path):
    training = trained(dataset, tmp_path, inputs=inputs)
    iterator = training.trainer.updater.get_iterator("main")
    x = iterator.arrays[0]
    pixels = dataset[0][0][:640] / 255
    assert x.dtype == numpy.float32
    if inputs == "mean-image":
        expected = pixels - pixels.mean(axis=0)
    else:
        expected = (pixels - pixels.mean()) / pixels.std()
    numpy.testing.assert_allclose(x, expected, atol=1e-5)
    test = training.trainer.get_extension("validation").get_iterator("main").arrays[0]
    again = dataset[1][0][:100] / 255
    if inputs == "mean-image":
        again = again - pixels.mean(axis=0)
    else:
        again = (again - pixels.mean()) / pixels.std()
    numpy.testing.assert_allclose(test, again, atol=1e-5)


def test_a_network_of_centred_inputs_is_not_exported(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "load", noise)
    settings = UnitSelection(**SMALL | {"inputs": "mean-image"})
    run.run(settings, tmp_path, run.Options(quiet=True))
    with pytest.raises(ReproduceError, match="mean-image"):
        export.export(tmp_path / f"{settings.name}.json", "chainer", tmp_path / "network.npz")
