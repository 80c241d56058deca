"""Engine against a naive NumPy oracle."""

from itertools import pairwise

import numpy
import pytest

from chainer_sno.fast.engine import Engine

LR, MOMENTUM, DECAY = 0.01, 0.9, 1e-4


class Oracle:
    """Plain forward and backward passes per structure, plain Nesterov with weight decay."""

    def __init__(self, weights, biases, velocities=None):
        self.params = [p.copy() for pair in zip(weights, biases, strict=True) for p in pair]
        self.velocities = [numpy.zeros_like(p) for p in self.params]
        if velocities is not None:
            flat = [v for pair in zip(*velocities, strict=True) for v in pair]
            self.velocities = [v.astype(p.dtype) for v, p in zip(flat, self.params, strict=True)]

    def step(self, x, t, lr, structures=None, dropout=None):
        depth = len(self.params) // 2
        sizes = [len(b) for b in self.params[1:-1:2]]
        ends = numpy.cumsum(sizes)[:-1]
        structures = numpy.ones((1, sum(sizes)), bool) if structures is None else structures
        lam, n = len(structures), len(x)
        factors = numpy.ones((n, sum(sizes)), x.dtype) if dropout is None else dropout
        gradients, losses = [numpy.zeros_like(p) for p in self.params], []
        for structure in structures:
            masks = numpy.split(structure * factors, ends, axis=1)
            hs, zs = [x], []
            for k in range(depth):
                z = hs[-1] @ self.params[2 * k].T + self.params[2 * k + 1]
                zs.append(z)
                if k < depth - 1:
                    hs.append(numpy.maximum(z, 0) * masks[k])
            z = zs[-1] - zs[-1].max(1, keepdims=True)
            log_p = z - numpy.log(numpy.exp(z).sum(1, keepdims=True))
            losses.append(-log_p[numpy.arange(n), t].mean(dtype=numpy.float64))
            dz = numpy.exp(log_p)
            dz[numpy.arange(n), t] -= 1
            dz /= n * lam
            for k in range(depth - 1, -1, -1):
                gradients[2 * k] += dz.T @ hs[k]
                gradients[2 * k + 1] += dz.sum(0)
                if k:
                    dz = (dz @ self.params[2 * k]) * masks[k - 1] * (zs[k - 1] > 0)
        for p, v, g in zip(self.params, self.velocities, gradients, strict=True):
            g = g + DECAY * p
            v *= MOMENTUM
            v -= lr * g
            p += MOMENTUM**2 * v - (1 + MOMENTUM) * lr * g
        return numpy.array(losses)


def network(sizes, dtype, seed=0):
    rng = numpy.random.default_rng(seed)
    weights = [
        (rng.standard_normal((o, i)) * (2 / i) ** 0.5).astype(dtype) for i, o in pairwise(sizes)
    ]
    biases = [0.1 * rng.standard_normal(o).astype(dtype) for o in sizes[1:]]
    return weights, biases


def batches(sizes, dtype, lam, count, seed=1, n=16, regimes=True):
    """Yields x, t, structures, of every regime in stretches so that the paths switch both ways."""
    rng = numpy.random.default_rng(seed)
    d = sum(sizes[1:-1])
    for i in range(count):
        x = rng.random((n, sizes[0])).astype(dtype)
        x *= rng.random(sizes[0]) < rng.choice([0.3, 1.0])
        t = rng.integers(0, sizes[-1], n, dtype=numpy.int32)
        regime = (i // 7) % 6 if regimes else 0
        if regime == 0:
            theta = rng.uniform(0.02, 0.98, d)
        elif regime == 1:
            theta = numpy.ones(d)
        elif regime == 2:
            theta = numpy.full(d, rng.choice([0.02, 0.2, 0.5]))
        elif regime == 3:
            theta = numpy.full(d, 0.98)
        elif regime == 4:  # structures alike
            theta = numpy.where(numpy.arange(d) % 7 < 3, 0.98, 0.02)
        else:
            theta = (
                numpy.zeros(d)
                if i % 7 < 2
                else numpy.repeat(rng.random(len(sizes) - 2), sizes[1:-1])
            )
        yield x, t, rng.random((lam, d)) < theta


def assert_agrees(engine, oracle, tolerance):
    got = engine.parameters()
    names = ["weights", "biases"], ["weight_velocities", "bias_velocities"]
    for (weight, bias), wanted in zip(names, [oracle.params, oracle.velocities], strict=True):
        for k in range(len(wanted) // 2):
            for mine, theirs in [
                (got[weight][k], wanted[2 * k]),
                (got[bias][k], wanted[2 * k + 1]),
            ]:
                scale = (
                    numpy.abs(theirs).max()
                    if weight == "weights"
                    else numpy.abs(wanted[2 * k]).max()
                )
                scale = max(scale, numpy.abs(wanted[2 * k]).max())
                assert mine.shape == theirs.shape
                numpy.testing.assert_allclose(mine / scale, theirs / scale, rtol=0, atol=tolerance)


SIZES = [
    [60, 50, 40, 30, 10],
    [31, 64, 10],
    [20, 1, 7, 3],
    [100, 200, 150, 10],
    [40, 90, 90, 5],
    [12, 4],
]


@pytest.mark.parametrize(("dtype", "tolerance"), [("f8", 1e-10), ("f4", 1e-4)])
@pytest.mark.parametrize("lam", [1, 2, 4])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_agrees_with_oracle(sizes, lam, dtype, tolerance):
    weights, biases = network(sizes, dtype)
    engine = Engine(weights, biases, LR, MOMENTUM, DECAY)
    # float32 as well is held against a float64 oracle: the engine must not be worse than rounding.
    oracle = Oracle([w.astype("f8") for w in weights], [b.astype("f8") for b in biases])
    for i, (x, t, structures) in enumerate(batches(sizes, dtype, lam, 200)):
        if i in (90, 150):
            engine.lr /= 10
        losses = engine.step(x, t, structures)
        wanted = oracle.step(x.astype("f8"), t, engine.lr, structures)
        assert losses.shape == (lam,)
        numpy.testing.assert_allclose(losses, wanted, rtol=tolerance, atol=tolerance / 10)
    assert_agrees(engine, oracle, tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [("f8", 1e-10), ("f4", 1e-4)])
@pytest.mark.parametrize("rate", [None, 0.5])
def test_fixed_network(dtype, tolerance, rate):
    sizes = SIZES[0]
    weights, biases = network(sizes, dtype)
    velocities = [0.01 * w for w in weights], [0.01 * b for b in biases]
    engine = Engine(weights, biases, LR, MOMENTUM, DECAY, velocities)
    oracle = Oracle(weights, biases, velocities)
    rng = numpy.random.default_rng(3)
    for x, t, _ in batches(sizes, dtype, 1, 200, n=64):
        dropout = None
        if rate is not None:
            dropout = ((rng.random((64, 120)) >= rate) / (1 - rate)).astype(dtype)
        losses = engine.step(x, t, None, dropout)
        wanted = oracle.step(x, t, LR, None, dropout)
        numpy.testing.assert_allclose(losses, wanted, rtol=tolerance)
    assert_agrees(engine, oracle, tolerance)


def test_dropout_with_structures():
    sizes = SIZES[0]
    weights, biases = network(sizes, "f8")
    engine, oracle = Engine(weights, biases, LR), Oracle(weights, biases)
    rng = numpy.random.default_rng(3)
    for x, t, structures in batches(sizes, "f8", 2, 200):
        dropout = 2.0 * (rng.random((16, 120)) < 0.5)
        losses = engine.step(x, t, structures, dropout)
        numpy.testing.assert_allclose(
            losses, oracle.step(x, t, LR, structures, dropout), rtol=1e-10
        )
    assert_agrees(engine, oracle, 1e-10)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("stop", [3, 9, 150, 262, 263, 295])
def test_resumes_to_the_bit(dtype, stop):
    sizes = SIZES[0]
    engine = Engine(*network(sizes, dtype), LR)
    resumed, losses, resumed_losses = None, [], []
    for i, (x, t, structures) in enumerate(batches(sizes, dtype, 2, 320)):
        if i in (160, 300):
            engine.lr *= 0.1
            if resumed:
                resumed.lr *= 0.1
        if i == stop:
            saved = engine.state()
            engine.parameters()  # must not disturb the run
            resumed = Engine(*network(sizes, dtype, seed=5), 0.5)
            resumed.step(x, t, structures)
            resumed.set_state(saved)
        losses.append(engine.step(x, t, structures))
        if resumed:
            resumed_losses.append(resumed.step(x, t, structures))
    assert numpy.array_equal(losses[stop:], resumed_losses)
    first, second = engine.state(), resumed.state()
    assert first.keys() == second.keys()
    for key in first:
        assert numpy.array_equal(first[key], second[key]), key


def test_paths_are_all_taken():
    """The runs above are only worth something if the paths switch in them."""
    sizes = [100, 200, 150, 120, 10]
    engine = Engine(*network(sizes, "f8"), LR)
    chosen, choose = set(), engine._choose

    def record(k, *args):
        chosen.add((k, mode := choose(k, *args)))
        return mode

    engine._choose = record
    for x, t, structures in batches(sizes, "f8", 2, 100):
        engine.step(x, t, structures)
    assert {(0, 1), (0, 2)} | {(k, mode) for k in (1, 2) for mode in (0, 1, 2)} <= chosen


@pytest.mark.parametrize("k", range(1, 4))
@pytest.mark.parametrize("mode", [0, 1, 2])
def test_every_path_gives_the_same(k, mode, monkeypatch):
    """Forced: layer k one way, the others another, at every mixture."""
    sizes = SIZES[0]
    weights, biases = network(sizes, "f8")
    for other in (0, 1, 2):
        engine, oracle = Engine(weights, biases, LR), Oracle(weights, biases)
        first = 1 + (mode + other) % 2
        modes = [first] + [mode if layer == k else other for layer in (1, 2, 3)]
        monkeypatch.setattr(engine, "_choose", lambda layer, *args, modes=modes: modes[layer])
        for x, t, structures in batches(sizes, "f8", 2, 60):
            losses = engine.step(x, t, structures)
            numpy.testing.assert_allclose(losses, oracle.step(x, t, LR, structures), rtol=1e-10)
        assert_agrees(engine, oracle, 1e-10)


def test_batches_and_structures_of_changing_size():
    """Also arrays that are strided, read-only or of another type."""
    sizes = [40, 90, 90, 5]
    weights, biases = network(sizes, "f8")
    engine, oracle = Engine(weights, biases, LR), Oracle(weights, biases)
    rng = numpy.random.default_rng(7)
    for i in range(120):
        n, lam = rng.integers(1, 40), rng.integers(1, 9)
        x, t = rng.random((40, n)).T, rng.integers(0, 5, n)
        x.flags.writeable = False
        structures = rng.random((lam, 360))[:, ::2] < rng.random()
        if i % 3 == 0:
            structures = structures.astype(numpy.float32)
        losses = engine.step(x, t, structures)
        wanted = oracle.step(numpy.ascontiguousarray(x), t, LR, structures.astype(bool))
        numpy.testing.assert_allclose(losses, wanted, rtol=1e-10)
    assert_agrees(engine, oracle, 1e-10)


def test_same_bits_twice():
    runs = []
    for _ in range(2):
        engine = Engine(*network(SIZES[0], "f4"), LR)
        for x, t, structures in batches(SIZES[0], "f4", 2, 60):
            engine.step(x, t, structures)
        runs.append(engine.state())
    for key in runs[0]:
        assert numpy.array_equal(runs[0][key], runs[1][key])


def test_untouched_weights_age_exactly():
    """A thousand iterations with everything off: only momentum and decay move the weights."""
    weights, biases = network(SIZES[0], "f4")
    velocities = [0.01 * w for w in weights], [0.01 * b for b in biases]
    engine = Engine(weights, biases, 0.05, velocities=velocities)
    wide = [w.astype("f8") for w in weights], [b.astype("f8") for b in biases]
    oracle = Oracle(*wide, velocities)
    x, t = numpy.ones((4, 60), "f4"), numpy.zeros(4, numpy.int32)
    off = numpy.zeros((2, 120), bool)
    for _ in range(1000):
        engine.step(x, t, off)
        oracle.step(x.astype("f8"), t, 0.05, off)
    for got, wanted in zip(engine.parameters()["weights"], oracle.params[::2], strict=True):
        numpy.testing.assert_allclose(got, wanted, rtol=3e-7)


def test_rejects_what_it_cannot_do():
    weights, biases = network([3, 2], "f4")
    with pytest.raises(ValueError, match="momentum"):
        Engine(weights, biases, LR, momentum=0.0)
    with pytest.raises(TypeError):
        Engine([w.astype("f2") for w in weights], biases, LR)
    engine = Engine(weights, biases, LR)
    before = engine.state()
    x = numpy.ones((4, 3))
    for bad in [
        (x, [0, 1, 2, 0]),
        (x, [0, 1]),
        (x[:, :2], [0] * 4),
        (x, [0] * 4, numpy.ones((2, 5))),
    ]:
        with pytest.raises(ValueError, match="must have|does not have"):
            engine.step(*bad)
    for key, value in engine.state().items():
        assert key == "fresh" or numpy.array_equal(value, before[key])
