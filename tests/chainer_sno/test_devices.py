"""The plain code on every device against the same on a CPU: one code for NumPy and CuPy.

Without a GPU the CPU is held against itself, so that what a GPU is asked to do is known to run.
"""

import numpy
import pytest

from chainer_sno import (
    ArrayIterator,
    Bernoulli,
    StructureUpdater,
    chainer,
    compact,
    extensions,
    links,
    pass_arrays,
    ranking_utility,
)
from chainer_sno.uniforms import Stream, Uniforms, generator
from reproduce.augmentation import ImageIterator, Standardise, channel_statistics, crop_and_flip
from tests.conftest import make_structures

to_cpu = chainer.backends.cuda.to_cpu


@pytest.fixture(params=["@numpy", pytest.param("@cupy:0", marks=pytest.mark.gpu)])
def device(request):
    device = chainer.get_device(request.param)
    device.use()
    return device


def initialW():
    return chainer.initializers.HeNormal(rng=generator((3,)))


LINKS = {
    "MaskedMLP": (lambda: links.MaskedMLP(20, (15, 12), 4, initialW=initialW()), (20,)),
    "MaskedMLP, inputs": (
        lambda: links.MaskedMLP(20, (15,), 4, select_inputs=True, initialW=initialW()),
        (20,),
    ),
    "PlainDenseNet": (lambda: links.PlainDenseNet(10, 4, 2, 6, 4, initialW=initialW()), (3, 8, 8)),
    "DenseNet": (lambda: links.DenseNet(10, 4, 2, 6, 4, initialW=initialW()), (3, 8, 8)),
}


def inputs_of(shape, dtype):
    rng = numpy.random.default_rng(7)
    return rng.normal(size=(6, *shape)).astype(dtype), rng.integers(0, 4, 6).astype("i")


def close(found, expected, dtype):
    tolerance = 1e-10 if dtype == numpy.float64 else 2e-4
    numpy.testing.assert_allclose(to_cpu(found), to_cpu(expected), tolerance, tolerance)


@pytest.mark.parametrize(
    ("samples", "kind"), [(1, "random"), (4, "random"), (2, "empty"), (2, "full")]
)
@pytest.mark.parametrize("name", LINKS)
def test_outputs_and_gradients_of_links(device, name, kind, samples, dtype, rng):
    make, shape = LINKS[name]
    x, t = inputs_of(shape, dtype)
    found, expected = make(), make()
    found.to_device(device)
    structures = make_structures(kind, samples, len(expected.costs), rng)
    results = []
    for link, send in ((found, device.send), (expected, numpy.asarray)):
        link.cleargrads()
        outputs = link(send(x), send(structures))
        loss = sum(chainer.functions.softmax_cross_entropy(y, send(t)) for y in outputs)
        loss.backward()
        results.append([y.array for y in outputs])
    for a, b in zip(*results):
        close(a, b, dtype)
    for (_, a), (_, b) in zip(found.namedparams(), expected.namedparams()):
        if b.grad is not None:
            close(a.grad, b.grad, dtype)
    with chainer.using_config("train", False):
        for a, b in zip(found(device.send(x), device.send(structures)), expected(x, structures)):
            close(a.array, b.array, dtype)


def test_a_compact_network_is_on_the_device_of_the_link(device):
    link = LINKS["MaskedMLP"][0]()
    link.to_device(device)
    x, _ = inputs_of((20,), "f")
    structure = numpy.arange(27) % 2 == 0
    network = compact(link, device.send(structure))
    assert network.device == device
    expected = link(device.send(x), device.send(structure[None]))[0]
    close(network(device.send(x)).array, expected.array, "f")


@pytest.mark.parametrize("losses", [[1.0], [2, 1], [1, 1], [3, 1, 2, 1], [numpy.nan, 1, 2, 3]])
def test_the_ranking(device, losses):
    losses = numpy.array(losses)
    numpy.testing.assert_array_equal(
        to_cpu(ranking_utility(device.send(losses))), ranking_utility(losses)
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_random_numbers_resume(device, dtype):
    whole, parts = (Uniforms(9, 3, Stream.DROPOUT, dtype) for _ in range(2))
    for stream in (whole, parts):
        stream.to_device(device)
    expected = to_cpu(whole.take(10))
    first = to_cpu(parts.take(4))
    resumed = Uniforms(9, 3, Stream.DROPOUT, dtype)
    resumed.to_device(device)
    resumed.position = parts.position
    numpy.testing.assert_array_equal(numpy.concatenate((first, to_cpu(resumed.take(6)))), expected)
    assert expected.dtype == dtype
    assert expected.min() >= 0
    assert expected.max() < 1


def test_mini_batches_and_crops(device, rng):
    images = rng.integers(0, 256, (20, 3, 8, 6), dtype=numpy.uint8)
    arrays = images, rng.integers(0, 4, 20).astype("i")
    statistics = channel_statistics(images)
    there = ImageIterator(
        tuple(device.send(a) for a in arrays),
        6,
        Standardise(*(device.send(a) for a in statistics)),
        augment=False,
        seed=2,
    )
    here = ImageIterator(arrays, 6, Standardise(*statistics), augment=False, seed=2)
    uniforms = rng.random((6, 3)).astype("f")
    for _ in range(5):
        (x, t), (y, u) = there.next(), here.next()
        close(x, y, numpy.float32)
        numpy.testing.assert_array_equal(to_cpu(t), u)
        close(crop_and_flip(x, device.send(uniforms)), crop_and_flip(y, uniforms), numpy.float32)


@pytest.mark.parametrize("name", LINKS)
def test_a_training_runs_and_is_evaluated(device, name, monkeypatch):
    """With the structures of the CPU, whose random numbers are others."""
    make, shape = LINKS[name]
    arrays = inputs_of(shape, "f")
    updaters = []
    for where in (device, chainer.get_device("@numpy")):
        link = make()
        link.to_device(where)
        optimizer = chainer.optimizers.NesterovAG(0.05).setup(link)
        optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(1e-3))
        bernoulli = Bernoulli(link.costs, 1.0, eta=0.05)
        bernoulli.to_device(where)
        iterator = ArrayIterator(tuple(where.send(a) for a in arrays), 3, seed=2)
        updaters.append(StructureUpdater(iterator, optimizer, bernoulli, converter=pass_arrays))
    found, expected = updaters
    drawn = make_structures("random", 20, len(expected.bernoulli), generator((5,)))
    for updater in updaters:
        send = updater.bernoulli.device.send
        rows = iter(drawn)
        monkeypatch.setattr(
            updater.bernoulli,
            "sample",
            lambda n, send=send, rows=rows: send(numpy.array([next(rows) for _ in range(n)])),
        )
        for _ in range(5):
            updater.update()
    for (_, a), (_, b) in zip(
        *(u.get_optimizer("main").target.namedparams() for u in (found, expected))
    ):
        close(a.array, b.array, numpy.float32)
    close(found.bernoulli.theta, expected.bernoulli.theta, numpy.float32)
    results = []
    for updater in updaters:
        send = updater.bernoulli.device.send
        iterator = ArrayIterator(tuple(send(a) for a in arrays), 4, repeat=False, shuffle=False)
        target = updater.get_optimizer("main").target
        evaluator = extensions.StructureEvaluator(iterator, target, updater.bernoulli)
        results.append(evaluator())
    assert results[0].keys() == results[1].keys()
    for key, value in results[1].items():
        numpy.testing.assert_allclose(results[0][key], value, 1e-3)


def test_dropout_trains(device):
    link = links.MLP(20, (15,), 4, dropout_ratio=0.5, initialW=initialW())
    link.to_device(device)
    x, t = inputs_of((20,), "f")
    optimizer = chainer.optimizers.NesterovAG(0.05).setup(link)
    iterator = ArrayIterator((device.send(x), device.send(t)), 3)
    updater = chainer.training.updaters.StandardUpdater(
        iterator,
        optimizer,
        pass_arrays,
        loss_func=lambda x, t: chainer.functions.softmax_cross_entropy(link(x), t),
    )
    for _ in range(4):
        updater.update()
    assert all(numpy.isfinite(to_cpu(p.array)).all() for p in link.params())
    assert link.uniforms.position == 12
