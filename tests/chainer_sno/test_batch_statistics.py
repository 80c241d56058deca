"""Statistics of batch normalisation at the most probable structure."""

import numpy
import pytest

import chainer_sno
from chainer_sno import batch_statistics, chainer, compact, extensions, prediction
from chainer_sno.links import FixedStructure, select
from tests.chainer_sno.networks import SHAPE, ResNet

F, L = chainer.functions, chainer.links
LAYERS = ["conv1", "res2/0/conv1", "res2/0/conv3", "res2/1/conv2"]


@pytest.fixture
def data(rng):
    x = rng.standard_normal((40, *SHAPE)).astype("f") + 1
    return x, rng.integers(0, 4, 40).astype("i")


@pytest.fixture
def setup(data):
    """A link that has been trained, at a structure that was rarely drawn."""
    numpy.random.seed(0)
    link = select(ResNet(), LAYERS, SHAPE, reestimate=4)
    bernoulli = chainer_sno.Bernoulli(link.costs, eta=0.1)
    iterator = chainer_sno.ArrayIterator(data, 8)
    optimizer = chainer.optimizers.SGD(0.05).setup(link)
    updater = chainer_sno.StructureUpdater(iterator, optimizer, bernoulli)
    for _ in range(4):
        updater.update()
    bernoulli.theta[...] = numpy.where(numpy.arange(link.d) % 3 > 0, 0.9, 0.1)
    return link, bernoulli, iterator, updater


def by_hand(link, structure, batches):
    """Return a compact network with the means of the statistics of mini-batches."""
    network = link.compact(structure)
    norms = [child for child in network.links() if isinstance(child, L.BatchNormalization)]
    seen = []
    with chainer.using_config("train", True), chainer.no_backprop_mode():
        for x in batches:
            for norm in norms:
                norm.decay = 0
            network(x)
            seen.append([(norm.avg_mean.copy(), norm.avg_var.copy()) for norm in norms])
    for k, norm in enumerate(norms):
        norm.avg_mean[...] = numpy.mean([each[k][0] for each in seen], axis=0)
        norm.avg_var[...] = numpy.mean([each[k][1] for each in seen], axis=0)
    return network


def state(link, iterator):
    arrays = {name: p.array.copy() for name, p in link.namedparams()}
    for name, child in link.namedlinks():
        if isinstance(child, L.BatchNormalization):
            arrays[name] = numpy.stack([child.avg_mean, child.avg_var])
    return arrays, iterator.position, numpy.random.get_state()[1].copy()


def assert_undisturbed(before, link, iterator):
    arrays, position, random = state(link, iterator)
    assert position == before[1]
    numpy.testing.assert_array_equal(random, before[2])
    for name, array in before[0].items():
        numpy.testing.assert_array_equal(arrays[name], array)


def outputs(network, x):
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        return network(x).array


def test_compact_estimates_them_by_default(setup, data):
    link, bernoulli, iterator, _ = setup
    before = state(link, iterator)
    small = compact(link, bernoulli.mode())
    assert_undisturbed(before, link, iterator)
    fresh = chainer_sno.ArrayIterator(data, 8)
    expected = by_hand(link, bernoulli.mode(), [next(fresh)[0] for _ in range(4)])
    numpy.testing.assert_allclose(
        outputs(small, data[0]), outputs(expected, data[0]), rtol=1e-4, atol=1e-5
    )
    running = compact(link, bernoulli.mode(), reestimate=0)
    assert abs(outputs(running, data[0]) - outputs(small, data[0])).max() > 0.05
    given = compact(link, bernoulli.mode(), reestimate=(fresh, 4))
    numpy.testing.assert_array_equal(outputs(given, data[0]), outputs(small, data[0]))
    norms = [child for child in small.links() if isinstance(child, L.BatchNormalization)]
    assert {norm.decay for norm in norms} == {0.9}


def test_an_evaluation_estimates_them_by_default(setup, data):
    link, bernoulli, iterator, _ = setup
    held = chainer_sno.ArrayIterator(data, 16, repeat=False, shuffle=False)
    before = state(link, iterator)

    def evaluated(**arguments):
        return extensions.StructureEvaluator(held, link, bernoulli, **arguments)()

    found = evaluated()
    assert_undisturbed(before, link, iterator)
    small = compact(link, bernoulli.mode())
    x, t = data
    assert found["main/error"] == (outputs(small, x).argmax(axis=1) != t).mean()
    assert found == evaluated(reestimate=4) == evaluated(reestimate=(iterator, 4))
    assert found["main/loss"] != evaluated(reestimate=0)["main/loss"]
    p = prediction.predict(link, bernoulli, x)
    numpy.testing.assert_allclose(p, F.softmax(outputs(small, x)).array, rtol=1e-4, atol=1e-6)
    errors = prediction.error_against_samples(link, bernoulli, held, (1,))
    assert errors.deterministic_error == found["main/error"]


def test_a_link_without_compact_is_estimated_on_a_copy(setup, data, monkeypatch):
    link, bernoulli, iterator, _ = setup
    held = chainer_sno.ArrayIterator(data, 16, repeat=False, shuffle=False)
    expected = extensions.StructureEvaluator(held, link, bernoulli)()
    monkeypatch.setattr(link, "evaluate_compact", False, raising=False)
    before = state(link, iterator)
    found = extensions.StructureEvaluator(held, link, bernoulli)()
    assert_undisturbed(before, link, iterator)
    assert found["main/loss"] == pytest.approx(expected["main/loss"], rel=1e-4)
    assert found["main/error"] == expected["main/error"]


def test_it_works_with_chainers_iterator(setup, data):
    link, bernoulli, _, _ = setup
    examples = chainer.datasets.TupleDataset(*data)
    iterator = chainer.iterators.SerialIterator(examples, 8)
    next(iterator)
    numpy.random.seed(1)
    before = numpy.random.get_state()[1].copy()
    first, second = (compact(link, bernoulli.mode(), reestimate=(iterator, 3)) for _ in range(2))
    numpy.testing.assert_array_equal(numpy.random.get_state()[1], before)
    assert iterator.current_position == 8
    numpy.testing.assert_array_equal(outputs(first, data[0]), outputs(second, data[0]))
    order = numpy.random.default_rng(0).permutation(40)[:24].reshape(3, 8)
    expected = by_hand(link, bernoulli.mode(), [data[0][rows] for rows in order])
    numpy.testing.assert_allclose(
        outputs(first, data[0]), outputs(expected, data[0]), rtol=1e-4, atol=1e-5
    )


def test_random_numbers_of_an_augmentation_do_not_move(setup, data):
    class Augmented(chainer_sno.ArrayIterator):
        def __init__(self, *arguments):
            self.rng = numpy.random.default_rng(0)
            super().__init__(*arguments)

        def __next__(self):
            x, t = super().__next__()
            return x + self.rng.standard_normal(x.shape).astype("f"), t

    iterator = Augmented(data, 8)
    list(batch_statistics.training_batches(iterator, 2))
    assert iterator.rng.standard_normal() == numpy.random.default_rng(0).standard_normal()
    assert len(list(batch_statistics.training_batches(iterator, 50))) == 5, "one pass at the most"


def test_without_mini_batches_nothing_is_quietly_wrong(data):
    link = select(ResNet(), LAYERS, SHAPE)
    assert link.reestimate == 50
    bernoulli = chainer_sno.Bernoulli(link.costs)
    held = chainer_sno.ArrayIterator(data, 16, repeat=False)
    message = r"give reestimate=\(training iterator, 50\), or reestimate=0"
    with pytest.raises(ValueError, match=message):
        compact(link, bernoulli.mode())
    with pytest.raises(ValueError, match=message):
        extensions.StructureEvaluator(held, link, bernoulli)()
    compact(link, bernoulli.mode(), reestimate=0)
    extensions.StructureEvaluator(held, link, bernoulli, reestimate=0)()
    for wrong in (-1, 2.5, "x", True, (held,), (held, None), (held, True)):
        with pytest.raises(ValueError, match="reestimate must be"):
            compact(link, bernoulli.mode(), reestimate=wrong)
        with pytest.raises(ValueError, match="reestimate must be"):
            extensions.StructureEvaluator(held, link, bernoulli, reestimate=wrong)
    with pytest.raises(TypeError, match="a list_iterator does not say what its data are"):
        compact(link, bernoulli.mode(), reestimate=(iter([]), 3))


def test_a_fixed_structure_has_the_statistics_of_its_own(data):
    link = select(ResNet(), LAYERS, SHAPE)
    fixed = FixedStructure(link, numpy.arange(link.d) % 2 == 0)
    with chainer.using_config("train", True):
        fixed(data[0][:8])
    with chainer.using_config("train", False):
        expected = fixed(data[0]).array
        found = compact(fixed)(data[0]).array
    numpy.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * abs(expected).max())


def test_networks_without_batch_normalisation_need_none(data):
    class Plain(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.hidden = L.Linear(6, 5)
                self.output = L.Linear(5, 3)

        def forward(self, x):
            return self.output(F.relu(self.hidden(x)))

    link = select(Plain(), ["hidden"], (6,))
    assert link.reestimate == 0
    compact(link, numpy.ones(5, dtype=bool))
    compact(link, numpy.ones(5, dtype=bool), reestimate=7)
