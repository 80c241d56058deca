import numpy
import pytest

from chainer_sno import ArrayIterator, Bernoulli, chainer, extensions, links, prediction
from chainer_sno.uniforms import Stream, Uniforms


class Setup:
    """A network with a distribution that has not decided, and 30 examples in batches of 8."""

    def __init__(self, rng):
        self.x = rng.normal(size=(30, 6)).astype("f")
        self.t = rng.integers(0, 3, 30).astype("i")
        self.link = links.MaskedMLP(6, (5, 4), 3)
        self.bernoulli = Bernoulli(self.link.costs, seed=7)
        self.bernoulli.theta[...] = numpy.linspace(0.2, 0.8, 9)

    def iterator(self):
        return ArrayIterator((self.x, self.t), 8, repeat=False, shuffle=False)

    def directly(self, k):
        """The mean of the softmax outputs over the first k structures, one at a time."""
        uniforms = Uniforms(9, 7, Stream.EVALUATION).take(20)
        outputs = [
            chainer.functions.softmax(self.link(self.x, (u < self.bernoulli.theta)[None])[0]).array
            for u in uniforms[:k]
        ]
        return numpy.mean(outputs, axis=0)


@pytest.fixture
def setup(rng):
    return Setup(rng)


def test_the_stochastic_prediction_is_the_mean_of_the_softmax(setup):
    position = setup.bernoulli.uniforms.position
    for k in (1, 3, 20):
        p = prediction.predict(setup.link, setup.bernoulli, setup.x, k)
        numpy.testing.assert_allclose(p, setup.directly(k), rtol=1e-5)
    assert setup.bernoulli.uniforms.position == position, "the training's stream was disturbed"


def test_the_deterministic_prediction_is_at_the_mode(setup):
    p = prediction.predict(setup.link, setup.bernoulli, setup.x)
    y = setup.link(setup.x, setup.bernoulli.mode()[None])[0]
    numpy.testing.assert_allclose(p, chainer.functions.softmax(y).array, rtol=1e-5)
    setup.bernoulli.theta[...] = 0.2  # nothing is left, so there is no compact network
    p = prediction.predict(setup.link, setup.bernoulli, setup.x)
    numpy.testing.assert_allclose(p, p[:1].repeat(30, axis=0))
    with pytest.raises(ValueError, match="samples must be at least 0"):
        prediction.predict(setup.link, setup.bernoulli, setup.x, -1)


@pytest.mark.parametrize("chunk", [1, 3, 20])
def test_one_pass_gives_the_error_of_every_number_of_structures(setup, chunk):
    ks = (5, 1, 2, 20)
    found = prediction.error_against_samples(
        setup.link, setup.bernoulli, setup.iterator(), ks, chunk=chunk
    )
    assert found.samples == (1, 2, 5, 20)
    for k, error, loss in zip(found.samples, found.errors, found.losses):
        p = setup.directly(k)
        assert error == (p.argmax(axis=1) != setup.t).mean()
        assert loss == pytest.approx(-numpy.log(p[numpy.arange(30), setup.t]).mean(), rel=1e-5)
    p = prediction.predict(setup.link, setup.bernoulli, setup.x)
    assert found.deterministic_error == (p.argmax(axis=1) != setup.t).mean()
    lines = str(found).splitlines()
    assert [line.split()[0] for line in lines] == ["structures", "1", "2", "5", "20", "the"]
    assert f"{found.errors[2]:.2%}" in lines[3]


def test_it_is_what_the_evaluator_reports(setup):
    evaluator = extensions.StructureEvaluator(setup.iterator(), setup.link, setup.bernoulli, 12)
    reported = evaluator()
    found = prediction.error_against_samples(setup.link, setup.bernoulli, setup.iterator(), (12,))
    assert reported["main/stochastic_error"] == found.errors[0]
    assert reported["main/stochastic_loss"] == pytest.approx(found.losses[0], rel=1e-6)
    assert reported["main/error"] == found.deterministic_error


@pytest.mark.parametrize("ks", [(), (0, 1), (-2,)])
def test_numbers_of_structures_are_checked(setup, ks):
    with pytest.raises(ValueError, match="numbers of structures, each at least 1"):
        prediction.error_against_samples(setup.link, setup.bernoulli, setup.iterator(), ks)


def test_examples_without_a_class_are_left_out(rng):
    log_p = numpy.log(rng.dirichlet([1, 1, 1], size=6))
    t = numpy.array([0, 1, 2, -1, -1, -1], "i")
    iterator = ArrayIterator((log_p, t), 4, repeat=False, shuffle=False)
    ((loss, error),) = prediction.measure(lambda x: {"": x}, iterator).values()
    functions = chainer.functions
    assert loss == pytest.approx(float(functions.softmax_cross_entropy(log_p, t).array))
    assert error == pytest.approx(1 - float(functions.accuracy(log_p, t, ignore_label=-1).array))
    empty = ArrayIterator((log_p, numpy.full(6, -1, "i")), 4, repeat=False)
    with pytest.raises(ValueError, match="no example to evaluate"):
        prediction.measure(lambda x: {"": x}, empty)


@pytest.mark.parametrize("kind", ["ours", "Chainer's"])
def test_an_iterator_that_repeats_is_refused(kind):
    x, t = numpy.zeros((4, 3)), numpy.zeros(4, "i")
    if kind == "ours":
        iterator = ArrayIterator((x, t), 2)
    else:
        iterator = chainer.iterators.SerialIterator(list(zip(x, t)), 2)
    with pytest.raises(ValueError, match="repeat=False"):
        prediction.measure(lambda x: {"": x}, iterator, chainer.dataset.concat_examples)
