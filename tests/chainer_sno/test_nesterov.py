"""NesterovAG in one pass against Chainer's own, to the bit, whatever else the optimizer has."""

import io

import numpy
import pytest

import chainer_sno
from chainer_sno import chainer, nesterov


class Network(chainer.Chain):
    def __init__(self, rng, dtype):
        super().__init__()
        with self.init_scope():
            self.W = chainer.Parameter(rng.standard_normal((7, 5, 3)).astype(dtype))
            self.b = chainer.Parameter(rng.standard_normal(11).astype(dtype))
            self.unused = chainer.Parameter(rng.standard_normal((2, 2)).astype(dtype))


def pair(dtype, decay=1e-4):
    found = []
    for kind in (chainer.optimizers.NesterovAG, chainer_sno.NesterovAG):
        optimizer = kind(0.1, 0.9).setup(Network(numpy.random.default_rng(0), dtype))
        if decay is not None:
            optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(decay))
        found.append(optimizer)
    return found


def step(optimizers, rng, iterations=3):
    for i in range(iterations):
        gradients = [rng.standard_normal((7, 5, 3)), rng.standard_normal(11)]
        for optimizer in optimizers:
            network = optimizer.target
            network.cleargrads()
            for parameter, gradient in zip((network.W, network.b), gradients):
                parameter.grad = gradient.astype(parameter.dtype)
            if i == 1:
                optimizer.lr /= 10
            optimizer.update()


def assert_same_bits(optimizers):
    chainers, ours = optimizers
    assert chainers.t == ours.t
    for (name, a), (_, b) in zip(chainers.target.namedparams(), ours.target.namedparams()):
        numpy.testing.assert_array_equal(a.array, b.array, name)
        numpy.testing.assert_array_equal(a.grad, b.grad, name)
        assert a.update_rule.t == b.update_rule.t
        states = a.update_rule.state or {}, b.update_rule.state or {}
        assert states[0].keys() == states[1].keys()
        for key, value in states[0].items():
            numpy.testing.assert_array_equal(value, states[1][key])


@pytest.mark.parametrize("decay", [1e-4, 0.3, None])
def test_same_bits(decay, dtype, rng):
    optimizers = pair(dtype, decay)
    step(optimizers, rng)
    assert_same_bits(optimizers)


@pytest.mark.parametrize("decay", [0.3, None])
def test_is_the_equation(decay):
    """v <- mu v - lr g, W <- W + mu^2 v - (1 + mu) lr g, g with the decay's lambda W (R6, R14)."""
    optimizer = pair("d", decay)[1]
    W, g = optimizer.target.W, numpy.random.default_rng(1).standard_normal((7, 5, 3))
    expected, v = W.array.copy(), 0
    for _ in range(3):
        optimizer.target.cleargrads()
        W.grad = g.copy()
        optimizer.update()
        total = g + (decay or 0) * expected
        v = 0.9 * v - 0.1 * total
        expected = expected + 0.81 * v - 1.9 * 0.1 * total
    numpy.testing.assert_allclose(W.array, expected, 1e-12)
    numpy.testing.assert_allclose(W.update_rule.state["v"], v, 1e-12)


def test_the_pass_is_taken(dtype, rng, monkeypatch):
    def other(self, parameter):
        raise AssertionError("Chainer's rule did it")

    optimizers = pair(dtype)
    monkeypatch.setattr(chainer.optimizers.nesterov_ag.NesterovAGRule, "update", other)
    step(optimizers[1:], rng)


def clip(optimizer):
    optimizer.add_hook(chainer.optimizer_hooks.GradientClipping(0.5))


def two_decays(optimizer):
    optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(0.01), "other")


def after(optimizer):
    optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(0.01), "post", timing="post")


def own_rate(optimizer):
    optimizer.target.W.update_rule.hyperparam.lr = 0.7


def own_hook(optimizer):
    optimizer.target.W.update_rule.add_hook(
        chainer.optimizer_hooks.GradientNoise(0.0, lambda *_: 0)
    )


def frozen(optimizer):
    optimizer.target.W.update_rule.enabled = False


def disabled(optimizer):
    optimizer.target.disable_update()


def scalar_rate(optimizer):
    optimizer.lr = numpy.float64(0.1)


def strided(optimizer):
    optimizer.target.W.array = numpy.asfortranarray(optimizer.target.W.array)


def strided_velocity(optimizer):
    state = optimizer.target.W.update_rule.state
    state["v"] = numpy.asfortranarray(state["v"])


def two_rates(optimizer):
    optimizer.target.W.update_rule.hyperparam.momentum = 0.5


def other_rule(optimizer):
    optimizer.target.W.update_rule = chainer.optimizers.sgd.SGDRule(lr=0.1)


def scalar_decay(optimizer):
    optimizer.remove_hook("WeightDecay")
    optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(numpy.float64(0.01)))


def twice(optimizer):
    network = optimizer.target
    network.b.array = network.W.array.reshape(-1)[:11]


def unsafe(optimizer):
    optimizer.is_safe_to_update = lambda: False


def infinite(optimizer):
    optimizer.remove_hook("WeightDecay")
    optimizer.target.W.array[0] = numpy.inf


@pytest.mark.parametrize(
    "change",
    [
        scalar_decay,
        twice,
        unsafe,
        infinite,
        clip,
        two_decays,
        after,
        own_rate,
        own_hook,
        frozen,
        disabled,
        scalar_rate,
        strided,
        strided_velocity,
        two_rates,
        other_rule,
    ],
)
def test_same_bits_whatever_was_changed(change, dtype, rng):
    optimizers = pair(dtype)
    step(optimizers, rng, 1)
    for optimizer in optimizers:
        change(optimizer)
    step(optimizers, rng)
    assert_same_bits(optimizers)


@pytest.mark.parametrize("name", ["array", "grad", "velocity"])
def test_an_array_that_is_not_to_be_written_to_is_refused(name, dtype, rng):
    """The compiled pass gets addresses, so it must not be given such an array."""
    for optimizer in pair(dtype):
        step([optimizer], rng, 1)
        W = optimizer.target.W
        W.grad = numpy.ones_like(W.array)
        array = W.update_rule.state["v"] if name == "velocity" else getattr(W, name)
        before = array.copy()
        array.flags.writeable = False
        with pytest.raises(ValueError, match="read-only"):
            optimizer.update()
        numpy.testing.assert_array_equal(array, before)


def test_a_loss_function_and_loss_scaling(rng):
    optimizers = pair("f")
    x = rng.standard_normal(11).astype("f")
    for scale in (None, 8.0):
        for optimizer in optimizers:
            if scale is not None:
                optimizer.loss_scaling(scale=scale)
            network = optimizer.target
            for _ in range(2):
                optimizer.update(
                    lambda x, network=network: chainer.functions.sum(network.b**2 * x), x
                )
        assert_same_bits(optimizers)


def test_without_numba(rng, monkeypatch):
    monkeypatch.setattr(nesterov, "_steps", lambda: None)
    optimizers = pair("f")
    step(optimizers, rng)
    assert_same_bits(optimizers)


def test_snapshots_are_exchanged(rng):
    optimizers = pair("f")
    step(optimizers[:1], rng)
    source, target = optimizers
    for thing, other in ((source, target), (source.target, target.target)):
        file = io.BytesIO()
        chainer.serializers.save_npz(file, thing)
        file.seek(0)
        chainer.serializers.load_npz(file, other)
    target.lr = source.lr
    step(optimizers, rng)
    assert_same_bits(optimizers)


@pytest.mark.gpu
def test_gpu(rng):
    optimizers = pair("f")
    for optimizer in optimizers:
        optimizer.target.to_gpu()
        optimizer.target.cleargrads()
        optimizer.update(lambda t=optimizer.target: chainer.functions.sum(t.W**2))
    for a, b in zip(optimizers[0].target.params(), optimizers[1].target.params()):
        numpy.testing.assert_array_equal(a.array.get(), b.array.get())


def test_half_precision_with_updates_in_float32(rng):
    optimizers = pair("e")
    for optimizer in optimizers:
        optimizer.use_fp32_update()
        optimizer.setup(optimizer.target)
        optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(0.01))
    step(optimizers, rng)
    assert_same_bits(optimizers)


def test_one_link_under_two_names(rng):
    optimizers = []
    for kind in (chainer.optimizers.NesterovAG, chainer_sno.NesterovAG):
        network = chainer.Chain()
        with network.init_scope():
            network.a = chainer.links.Linear(4, 4, initialW=numpy.eye(4, dtype="f"))
            network.b = network.a
        optimizers.append(kind(0.1).setup(network))
        optimizers[-1].add_hook(chainer.optimizer_hooks.WeightDecay(0.1))
    for optimizer in optimizers:
        network = optimizer.target
        ones = numpy.ones((2, 4), "f")
        optimizer.update(lambda x, n=network: chainer.functions.sum(n.b(n.a(x)) ** 2), ones)
    assert_same_bits(optimizers)
