import io

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
    ranking_utility,
)


def make_updater(rng, samples=2, epsilon0=0.1, converter=pass_arrays):
    x = rng.normal(size=(40, 6)).astype(chainer.config.dtype)
    t = rng.integers(0, 3, 40).astype("i")
    initialW = chainer.initializers.HeNormal(rng=numpy.random.default_rng(0))
    link = links.MaskedMLP(6, (5, 4), 3, initialW=initialW)
    optimizer = chainer.optimizers.NesterovAG(0.1, 0.9).setup(link)
    optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(1e-2))
    iterator = ArrayIterator((x, t), 8, seed=1)
    return StructureUpdater(
        iterator, optimizer, Bernoulli(link.costs, epsilon0, seed=2), samples, converter=converter
    )


@pytest.mark.parametrize("threads", [0, 2])
def test_threads_that_a_link_does_not_have_are_refused(threads, rng):
    updater = make_updater(rng)
    optimizer = updater.get_optimizer("main")
    with pytest.raises(ValueError, match="at least 1" if threads < 1 else "one thread"):
        StructureUpdater(
            updater.get_iterator("main"), optimizer, updater.bernoulli, threads=threads
        )


def test_threads_of_a_link_that_has_some(rng):
    link = links.DenseNet(7, 2, classes=3)
    optimizer = chainer.optimizers.NesterovAG(0.1).setup(link)
    iterator = ArrayIterator((numpy.zeros((4, 3, 8, 8), "f"), numpy.zeros(4, "i")), 2)
    StructureUpdater(iterator, optimizer, Bernoulli(link.costs), threads=3)
    assert link.threads == 3
    StructureUpdater(iterator, optimizer, Bernoulli(link.costs))
    assert link.threads == 3


def arrays_of(updater):
    link = updater.get_optimizer("main").target
    return {
        "theta": updater.bernoulli.theta.copy(),
        **{name: parameter.array.copy() for name, parameter in link.namedparams()},
    }


def algorithm_1(updater, iterations):
    """Algorithm 1 with one forward pass a structure and Nesterov's rule written out (R14)."""
    optimizer = updater.get_optimizer("main")
    link, bernoulli = optimizer.target, updater.bernoulli
    velocity = {name: 0 for name, _ in link.namedparams()}
    iterator = updater.get_iterator("main")
    functions = chainer.functions
    for _ in range(iterations):
        x, t = next(iterator)
        structures = bernoulli.sample(updater.samples)
        gradients = dict.fromkeys(velocity, 0)
        losses = []
        for m in structures:
            link.cleargrads()
            loss = functions.softmax_cross_entropy(link(x, m[None])[0], t)
            loss.backward()
            losses.append(float(loss.array))
            for name, parameter in link.namedparams():
                gradients[name] = gradients[name] + parameter.grad / len(structures)
        bernoulli.update(structures, ranking_utility(numpy.array(losses)))
        for name, parameter in link.namedparams():
            g = gradients[name] + 1e-2 * parameter.array
            velocity[name] = 0.9 * velocity[name] - 0.1 * g
            parameter.array += 0.81 * velocity[name] - 1.9 * 0.1 * g


@pytest.mark.parametrize("samples", [1, 2, 4])
def test_is_algorithm_1(samples, dtype):
    fast = make_updater(numpy.random.default_rng(5), samples)
    plain = make_updater(numpy.random.default_rng(5), samples)
    start = arrays_of(fast)
    for _ in range(30):
        fast.update()
    algorithm_1(plain, 30)
    expected = arrays_of(plain)
    for name, array in arrays_of(fast).items():
        assert not numpy.array_equal(array, start[name]), f"{name} was not trained"
        numpy.testing.assert_allclose(
            array, expected[name], rtol=1e-9 if dtype == "float64" else 1e-3, atol=1e-5
        )
        if dtype == "float64":
            numpy.testing.assert_allclose(array, expected[name], rtol=1e-9)


def test_theta_and_weights_see_the_same_losses(rng):
    """R9: the gradient is that of the weights before the step, theta's ranking as well."""
    updater = make_updater(rng)
    x, t = next(updater.get_iterator("main"))
    link = updater.get_optimizer("main").target
    structures = updater.bernoulli.sample(2)
    y = link(x, structures)
    before = [float(chainer.functions.softmax_cross_entropy(y_i, t).array) for y_i in y]
    numpy.testing.assert_allclose(updater.step(x, t, structures), before, rtol=1e-6)


def test_goes_on_from_a_snapshot_with_the_same_bits():
    whole = make_updater(numpy.random.default_rng(5))
    for _ in range(23):
        whole.update()
    first = make_updater(numpy.random.default_rng(5))
    for _ in range(9):
        first.update()
    file = io.BytesIO()
    chainer.serializers.save_npz(file, first)
    file.seek(0)
    second = make_updater(numpy.random.default_rng(5))
    chainer.serializers.load_npz(file, second)
    assert second.iteration == 9
    for _ in range(14):
        second.update()
    expected = arrays_of(whole)
    for name, array in arrays_of(second).items():
        numpy.testing.assert_array_equal(array, expected[name])


class OwnModel(chainer.Chain):
    """A model of a user: a sum of scalar branches, each of which may be absent."""

    costs = numpy.array([1.0, 2.0, 3.0])

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.branches = chainer.links.Linear(2, 3)
            self.bias = chainer.Parameter(0, (1,))

    def forward(self, x, structures):
        branches = self.branches(x)
        return [
            chainer.functions.sum(branches * m.astype("f"), axis=1, keepdims=True)
            + chainer.functions.broadcast_to(self.bias, (len(x), 1))
            for m in structures
        ]


def test_any_searchable_link_any_loss_and_stock_iterators(rng, tmp_path):
    """The contract is enough: a list of outputs, a regression, Chainer's SerialIterator."""
    x = rng.normal(size=(64, 2)).astype("f")
    t = x @ numpy.array([[1.0], [-2.0]], dtype="f")
    numpy.random.seed(0)  # Chainer's initializers draw from it
    model = OwnModel()
    dataset = chainer.datasets.TupleDataset(x, t)
    iterator = chainer.iterators.SerialIterator(dataset, 16, shuffle=False)
    updater = StructureUpdater(
        iterator,
        chainer.optimizers.SGD(0.05).setup(model),
        Bernoulli(model.costs, 2.0**-4, eta=0.05),
        loss_func=chainer.functions.mean_squared_error,
    )
    trainer = chainer.training.Trainer(updater, (100, "epoch"), str(tmp_path))
    trainer.run()
    theta = updater.bernoulli.theta
    structure = updater.bernoulli.mode()
    loss = chainer.functions.mean_squared_error(model(x, structure[None])[0], t)
    assert float(loss.array) < 0.2 * float((t**2).mean())
    assert theta.max() > 0.6, "a branch is worth having"


def test_reports_the_mean_loss(rng):
    updater = make_updater(rng)
    observation = {}
    reporter = chainer.Reporter()
    reporter.add_observer("main", updater.get_optimizer("main").target)
    with reporter.scope(observation):
        updater.update()
    assert set(observation) == {"main/loss"}
    assert 0 < observation["main/loss"] < 10


def test_reports_the_mean_loss_of_the_structures(rng):
    updater = make_updater(rng, samples=3)
    found, step = [], updater.step
    updater.step = lambda *arguments: found.append(step(*arguments)) or found[-1]
    observation = {}
    reporter = chainer.Reporter()
    reporter.add_observer("main", updater.get_optimizer("main").target)
    with reporter.scope(observation):
        updater.update()
    assert len({*found[0]}) == 3
    assert observation["main/loss"] == numpy.mean(found[0])


def test_bad_arguments_are_named(rng):
    with pytest.raises(ValueError, match="samples must be at least 1"):
        make_updater(rng, samples=0)
    updater = make_updater(rng)
    with pytest.raises(ValueError, match="the link has 9 bits and the distribution has 4"):
        StructureUpdater(
            updater.get_iterator("main"), updater.get_optimizer("main"), Bernoulli(numpy.ones(4))
        )


def test_the_converter_follows_from_the_iterator(rng):
    updater = make_updater(rng, converter=None)
    expected = make_updater(numpy.random.default_rng(20190907))
    examples = chainer.datasets.TupleDataset(*updater.get_iterator("main").arrays)
    optimizer = updater.get_optimizer("main")
    serial = StructureUpdater(
        chainer.iterators.SerialIterator(examples, 8), optimizer, updater.bernoulli
    )
    assert serial.converter is chainer.dataset.concat_examples
    updater.update()
    expected.update()
    for name, array in arrays_of(updater).items():
        numpy.testing.assert_array_equal(array, arrays_of(expected)[name])
    serial.update()


@pytest.mark.parametrize("name", ["concat_examples", "pass_arrays"])
def test_the_wrong_converter_is_named(name, rng):
    updater = make_updater(rng)
    iterator, converter = updater.get_iterator("main"), chainer.dataset.concat_examples
    if name == "pass_arrays":
        examples = chainer.datasets.TupleDataset(*iterator.arrays)
        iterator, converter = chainer.iterators.SerialIterator(examples, 8), pass_arrays
    optimizer = updater.get_optimizer("main")
    wrong = StructureUpdater(iterator, optimizer, updater.bernoulli, converter=converter)
    with pytest.raises(ValueError, match=f"the converter {name} does not make .*leave it out"):
        wrong.update()


def test_examples_that_are_no_pairs_are_named(rng):
    updater = make_updater(rng)
    examples = chainer.datasets.TupleDataset(numpy.zeros((8, 6), "f"))
    iterator = chainer.iterators.SerialIterator(examples, 2)
    wrong = StructureUpdater(iterator, updater.get_optimizer("main"), updater.bernoulli)
    with pytest.raises(
        ValueError, match="a mini-batch that is a list of 2 .*it returned a tuple of"
    ):
        wrong.update()


def test_what_is_not_searchable_is_refused_with_what_to_do(rng):
    updater = make_updater(rng)
    iterator, bernoulli = updater.get_iterator("main"), updater.bernoulli
    plain = links.MLP(6, (5,), 3)
    for target, message in [
        (chainer.links.Classifier(plain), "a Classifier computes a loss, .*loss_func"),
        (plain, "MLP has no costs, .*links.select"),
    ]:
        optimizer = chainer.optimizers.SGD().setup(target)
        with pytest.raises(TypeError, match=message):
            StructureUpdater(iterator, optimizer, bernoulli)
        with pytest.raises(TypeError, match=message):
            extensions.StructureEvaluator(iterator, target, bernoulli)
    with pytest.raises(TypeError, match=r"call optimizer\.setup"):
        StructureUpdater(iterator, chainer.optimizers.SGD(), bernoulli)
