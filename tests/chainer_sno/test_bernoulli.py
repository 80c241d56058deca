import io

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chainer_sno import Bernoulli, chainer, ranking_utility


def equation_7(theta, structures, losses, c, epsilon0, eta):
    """Equation (7), the clamp and the utilities, bit by bit from the paper's text."""
    d, samples = len(theta), len(structures)
    count = -(-samples // 4)
    ranked = sorted(losses)
    epsilon = epsilon0 / max(c)
    updated = []
    for i in range(d):
        step = 0.0
        for loss, structure in zip(losses, structures):
            ranks = [r for r, other in enumerate(ranked) if other == loss]
            utility = sum((r < count) - (r >= samples - count) for r in ranks) / len(ranks)
            step += utility / samples * (float(structure[i]) - theta[i])
        step -= epsilon * c[i] * theta[i] * (1 - theta[i])
        updated.append(min(max(theta[i] + eta * step, 1 / d), 1 - 1 / d))
    return numpy.array(updated)


@pytest.mark.parametrize("samples", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("epsilon0", [2.0**-4, 0.0, -1.0])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("eta", [None, 0.3])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_update_is_equation_7(samples, epsilon0, ties, eta, dtype, rng):
    d = 12
    c = rng.integers(0, 50, d) + rng.random(d)
    bernoulli = Bernoulli(c, epsilon0, eta, rng.random(d), dtype=dtype)
    expected = bernoulli.theta.astype("d")
    rtol = 1e-13 if dtype == "float64" else 1e-5
    for _ in range(50):
        structures = bernoulli.sample(samples)
        losses = rng.integers(0, 3, samples) if ties else rng.random(samples)
        expected = equation_7(expected, structures, losses, c, epsilon0, eta or 1 / d)
        bernoulli.update(structures, ranking_utility(losses))
        assert bernoulli.theta.dtype == dtype
        numpy.testing.assert_allclose(bernoulli.theta, expected, rtol=rtol, atol=rtol / 100)


@pytest.mark.parametrize("on", [False, True])
def test_float32_loses_the_penalty_near_1_and_not_near_0(on):
    """What the two dtypes differ in: the penalty's step is below half the spacing of float32."""
    d, steps = 2352, 1000
    moved = {}
    for dtype in (numpy.float64, numpy.float32):
        bernoulli = Bernoulli(
            numpy.ones(d), 2.0**-8, initial_theta=0.99 if on else 0.01, dtype=dtype
        )
        start = bernoulli.theta.copy()
        structures = numpy.full((2, d), on)
        for _ in range(steps):
            bernoulli.update(structures, ranking_utility(numpy.array([0.1, 0.2])))
        moved[dtype] = float((start - bernoulli.theta.astype("d")).mean())
    expected = steps / d * 2.0**-8 * 0.99 * 0.01
    assert moved[numpy.float64] == pytest.approx(expected, rel=0.01)
    assert moved[numpy.float32] == (0 if on else pytest.approx(expected, rel=0.02))


@settings(max_examples=60)
@given(
    st.integers(2, 20),
    st.integers(1, 8),
    st.floats(-2, 2),
    st.floats(1e-3, 10),
    st.integers(0, 2**32 - 1),
)
def test_theta_never_leaves_its_range(d, samples, epsilon0, eta, seed):
    rng = numpy.random.default_rng(seed)
    bernoulli = Bernoulli(rng.random(d) + 0.01, epsilon0, eta, rng.random(d), seed)
    for _ in range(20):
        structures = bernoulli.sample(samples)
        bernoulli.update(structures, ranking_utility(rng.random(samples)))
        assert (bernoulli.theta >= 1 / d).all()
        assert (bernoulli.theta <= 1 - 1 / d).all()


@settings(max_examples=60)
@given(st.lists(st.floats(-3, 3, width=16), min_size=1, max_size=8), st.integers(0, 2**32 - 1))
def test_order_preserving_transformations_change_nothing(losses, seed):
    losses = numpy.array(losses)
    found = []
    for transformed in (losses, numpy.exp(2 * losses)):
        bernoulli = Bernoulli(numpy.ones(9), 0.5, seed=seed)
        bernoulli.update(bernoulli.sample(len(losses)), ranking_utility(transformed))
        found.append(bernoulli.theta)
    numpy.testing.assert_array_equal(*found)


@settings(max_examples=60)
@given(st.integers(1, 8), st.floats(-1, 1), st.integers(0, 2**32 - 1))
def test_a_dead_tie_moves_theta_by_the_penalty_alone(samples, epsilon0, seed):
    rng = numpy.random.default_rng(seed)
    c = rng.random(7) + 0.1
    theta = rng.uniform(1 / 7, 6 / 7, 7)
    bernoulli = Bernoulli(c, epsilon0, initial_theta=theta)
    bernoulli.update(bernoulli.sample(samples), ranking_utility(numpy.full(samples, 2.3)))
    penalty = epsilon0 / c.max() * c * theta * (1 - theta)
    numpy.testing.assert_allclose(
        bernoulli.theta, (theta - penalty / 7).clip(1 / 7, 6 / 7), rtol=1e-14
    )


def test_sample_follows_theta():
    theta = numpy.array([0.05, 0.3, 0.5, 0.95] * 25)
    bernoulli = Bernoulli(numpy.ones(100), initial_theta=theta)
    structures = bernoulli.sample(20000)
    assert structures.dtype == bool
    assert structures.shape == (20000, 100)
    # Five standard deviations of a mean of 20,000 draws.
    tolerance = 5 * numpy.sqrt(theta * (1 - theta) / 20000)
    assert (abs(structures.mean(axis=0) - theta) < tolerance).all()
    # Neighbouring bits and neighbouring draws are independent.
    centred = structures - theta
    assert abs((centred[:, 1:] * centred[:, :-1]).mean()) < 5 * 0.25 / numpy.sqrt(20000 * 99)
    assert abs((centred[1:] * centred[:-1]).mean()) < 5 * 0.25 / numpy.sqrt(20000 * 99)


def test_mode_and_usage_rate():
    bernoulli = Bernoulli([1, 2, 3, 4], initial_theta=[0.5, 0.49, 0.9, 0.3])
    assert bernoulli.mode().tolist() == [True, False, True, False]
    assert bernoulli.usage_rate() == 0.4


def test_initial_theta_is_clamped():
    theta = Bernoulli(numpy.ones(4), initial_theta=[0, 0.3, 0.7, 1]).theta
    assert theta.tolist() == [0.25, 0.3, 0.7, 0.75]


def test_sample_is_on_below_theta():
    """At theta it is off: a uniform number of [0, 1) is below theta with its probability."""
    bernoulli = Bernoulli(numpy.ones(4), initial_theta=[0.25, 0.5, 0.7, 0.75])
    drawn = numpy.array([[0.25, 0.4, 0.6, 0.8], [0.2, 0.5, 0.75, 0.7]])
    bernoulli.uniforms.take = lambda samples: drawn[:samples]
    expected = [[False, True, True, False], [True, False, False, True]]
    assert bernoulli.sample(2).tolist() == expected


def test_utilities_need_not_add_up_to_zero():
    bernoulli = Bernoulli(numpy.ones(4), eta=0.1)
    bernoulli.update(numpy.array([[True, True, False, False]]), numpy.array([1.0]))
    numpy.testing.assert_allclose(bernoulli.theta, [0.55, 0.55, 0.45, 0.45], 1e-14)


def test_theta_stops_at_both_ends():
    bernoulli = Bernoulli(numpy.ones(4), eta=10.0)
    structures = numpy.array([[True, True, False, False], [False, False, True, True]])
    bernoulli.update(structures, numpy.array([1.0, -1.0]))
    assert bernoulli.theta.tolist() == [0.75, 0.75, 0.25, 0.25]


def test_defaults_are_the_papers():
    bernoulli = Bernoulli(numpy.ones(2352))
    assert bernoulli.eta == 1 / 2352
    assert (bernoulli.theta == 0.5).all()
    assert bernoulli.theta.dtype == numpy.float64


def save(target):
    file = io.BytesIO()
    chainer.serializers.save_npz(file, target)
    file.seek(0)
    return file


def test_a_loaded_distribution_draws_what_the_saved_one_would():
    def step(bernoulli):
        structures = bernoulli.sample(2)
        bernoulli.update(structures, numpy.array([1.0, -1.0]))
        return structures

    saved = Bernoulli(numpy.arange(1, 8), 0.1, seed=3)
    for _ in range(5):
        step(saved)
    file = save(saved)
    loaded = Bernoulli(numpy.arange(1, 8), 0.1, seed=3)
    chainer.serializers.load_npz(file, loaded)
    for _ in range(5):
        numpy.testing.assert_array_equal(step(loaded), step(saved))
        numpy.testing.assert_array_equal(loaded.theta, saved.theta)


def test_a_snapshot_of_another_seed_is_refused():
    file = save(Bernoulli(numpy.ones(4), seed=1))
    with pytest.raises(ValueError, match="saved random numbers have the seed"):
        chainer.serializers.load_npz(file, Bernoulli(numpy.ones(4), seed=2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"costs": [1]}, "at least 2 entries"),
        ({"costs": [[1, 2]]}, "shape"),
        ({"costs": [0, 0]}, "positive"),
        ({"costs": [1, -1]}, "not negative"),
        ({"costs": [1, numpy.nan]}, "finite"),
        ({"costs": [1, 1], "epsilon0": numpy.inf}, "epsilon0"),
        ({"costs": [1, 1], "eta": 0}, "eta"),
        ({"costs": [1, 1], "initial_theta": 1.5}, "initial_theta"),
        ({"costs": [1, 1], "dtype": numpy.float16}, "float32 or float64, not float16"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Bernoulli(**arguments)


def test_update_refuses_other_shapes():
    bernoulli = Bernoulli(numpy.ones(4))
    with pytest.raises(ValueError, match="structures must have the shape"):
        bernoulli.update(numpy.ones((2, 3)), numpy.ones(2))
    with pytest.raises(ValueError, match="one for each structure"):
        bernoulli.update(numpy.ones((2, 4)), numpy.ones(3))


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "rtol"), [("float64", 1e-12), ("float32", 1e-5)])
def test_gpu_takes_the_same_step_and_resumes(dtype, rtol):
    cupy = chainer.backends.cuda.cupy
    cpu = Bernoulli(numpy.arange(1, 2353), 0.1, seed=3, dtype=dtype)
    gpu = Bernoulli(numpy.arange(1, 2353), 0.1, seed=3, dtype=dtype)
    gpu.to_device("@cupy:0")
    for _ in range(300):
        structures = gpu.sample(2)
        assert isinstance(structures, cupy.ndarray)
        gpu.update(structures, ranking_utility(cupy.array([0.1, 0.2])))
        cpu.update(structures.get(), ranking_utility(numpy.array([0.1, 0.2])))
    numpy.testing.assert_allclose(gpu.theta.get(), cpu.theta, rtol=rtol)
    loaded = Bernoulli(numpy.arange(1, 2353), 0.1, seed=3, dtype=dtype)
    loaded.to_device("@cupy:0")
    chainer.serializers.load_npz(save(gpu), loaded)
    numpy.testing.assert_array_equal(loaded.sample(2).get(), gpu.sample(2).get())


def saved(bernoulli):
    file = io.BytesIO()
    chainer.serializers.save_npz(file, bernoulli)
    file.seek(0)
    return file


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"epsilon0": -0.5}, "epsilon0 = 0.5"),
        ({"epsilon0": 0.0}, "epsilon0 = 0.5"),
        ({"eta": 0.1}, "eta = 0.2"),
        ({"costs": [1, 1, 1, 2]}, "costs with the sum"),
        ({"costs": [1, 1, 1]}, "has 4 costs"),
        ({"dtype": "float32"}, "float64"),
        ({"seed": 1}, "seed"),
    ],
)
def test_a_snapshot_of_another_distribution_is_refused(other, named):
    arguments = {"costs": [1, 1, 1, 1], "epsilon0": 0.5, "eta": 0.2, "seed": 0}
    file = saved(Bernoulli(**arguments))
    target = Bernoulli(**arguments | other)
    before = target.theta.copy()
    with pytest.raises(ValueError, match=named):
        chainer.serializers.load_npz(file, target)
    numpy.testing.assert_array_equal(target.theta, before)
    chainer.serializers.load_npz(saved(Bernoulli(**arguments)), Bernoulli(**arguments))


@pytest.mark.parametrize("epsilon0", [0.5, 0.0, -0.25])
def test_a_snapshot_that_is_older_than_the_check(epsilon0):
    bernoulli = Bernoulli([1, 3, 2], epsilon0, seed=3)
    bernoulli.theta[...] = 0.2, 0.4, 0.9
    with numpy.load(saved(bernoulli)) as content:
        old = {name: content[name] for name in content.files if name != "settings"}
    assert "_penalty" in old
    file = io.BytesIO()
    numpy.savez(file, **old)
    file.seek(0)
    again = Bernoulli([1, 3, 2], epsilon0, seed=3)
    chainer.serializers.load_npz(file, again)
    numpy.testing.assert_array_equal(again.theta, bernoulli.theta)
    file.seek(0)
    with pytest.raises(ValueError, match="epsilon0"):
        chainer.serializers.load_npz(file, Bernoulli([1, 3, 2], epsilon0 + 0.5, seed=3))


def test_the_penalty_follows_epsilon0():
    bernoulli = Bernoulli([1, 4], 0.5)
    numpy.testing.assert_array_equal(bernoulli.penalty, [0.125, 0.5])
    bernoulli.epsilon0 = -1.0
    numpy.testing.assert_array_equal(bernoulli.penalty, [-0.25, -1])


@pytest.mark.parametrize("utilities", [[1, numpy.nan], [numpy.inf, -1]])
def test_utilities_that_are_no_numbers_are_refused(utilities):
    bernoulli = Bernoulli([1, 1])
    with pytest.raises(ValueError, match="must be finite"):
        bernoulli.update(numpy.ones((2, 2), bool), numpy.array(utilities))
    with pytest.raises(ValueError, match="lambda >= 1"):
        bernoulli.update(numpy.ones((0, 2), bool), numpy.zeros(0))
    numpy.testing.assert_array_equal(bernoulli.theta, 0.5)
