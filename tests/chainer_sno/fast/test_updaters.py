"""The fast updaters against the plain ones: the stock link, NesterovAG and WeightDecay."""

import copy
import io
import pickle

import numpy
import pytest

from chainer_sno import (
    ArrayIterator,
    Bernoulli,
    StructureUpdater,
    chainer,
    compact,
    links,
    pass_arrays,
)
from chainer_sno.fast import FastStructureUpdater, FastUpdater, Synchronise
from chainer_sno.uniforms import generator
from tests.chainer_sno.snapshots import check_refused, content_of

WIDTHS = (30, (25, 20, 15), 4)


#: Makes the optimizer of the updaters; tests may set another.
OPTIMIZER = {0: lambda: chainer.optimizers.NesterovAG(0.05, 0.9)}


def optimizer_of(link):
    optimizer = OPTIMIZER[0]().setup(link)
    optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(1e-3))
    return optimizer


def data(dtype):
    rng = numpy.random.default_rng(8)
    x = rng.normal(size=(200, 30)).astype(dtype) * (rng.random((200, 30)) < 0.7)
    return x.astype(dtype), rng.integers(0, 4, 200).astype("i")


def structure_updater(kind, samples=2, theta=0.5, dtype=None, **kwargs):
    arrays = data(dtype or chainer.config.dtype)
    initialW = chainer.initializers.HeNormal(rng=generator((3,)))
    link = links.MaskedMLP(*WIDTHS, initialW=initialW)
    bernoulli = Bernoulli(link.costs, 0.1, eta=0.05, initial_theta=theta, seed=4)
    return kind(
        ArrayIterator(arrays, 16, seed=5),
        optimizer_of(link),
        bernoulli,
        samples,
        converter=pass_arrays,
        **kwargs,
    )


def standard_updater(kind, ratio):
    initialW = chainer.initializers.HeNormal(rng=generator((3,)))
    link = links.MLP(*WIDTHS, dropout_ratio=ratio, seed=4, initialW=initialW)
    iterator = ArrayIterator(data(chainer.config.dtype), 16, seed=5)
    if kind is FastUpdater:
        return kind(iterator, optimizer_of(link), pass_arrays)
    return chainer.training.updaters.StandardUpdater(
        iterator,
        optimizer_of(link),
        pass_arrays,
        loss_func=lambda x, t: chainer.functions.softmax_cross_entropy(link(x), t),
    )


def compare(fast, plain, dtype):
    """Weights, biases and velocities, relative to the largest weight of the layer."""
    fast.synchronise()
    optimizers = fast.get_optimizer("main"), plain.get_optimizer("main")
    assert optimizers[0].t == optimizers[1].t
    mine, theirs = (dict(optimizer.target.namedparams()) for optimizer in optimizers)
    assert mine.keys() == theirs.keys()
    tolerance = 1e-10 if dtype == "float64" else 1e-4
    for name, parameter in mine.items():
        expected = theirs[name]
        layer = theirs[name.rsplit("/", 1)[0] + "/W"].array
        scale = abs(layer).max()
        assert scale > 0
        pairs = [(parameter.array, expected.array)]
        if expected.update_rule.state:  # SGD has none
            pairs.append((parameter.update_rule.state["v"], expected.update_rule.state["v"]))
        for a, b in pairs:
            numpy.testing.assert_allclose(a / scale, b / scale, rtol=0, atol=tolerance)


# Random structures, and the extremes: theta at its ends draws (nearly) nothing and everything.
@pytest.mark.parametrize("theta", [0.5, 0.0, 1.0, "mixed"])
@pytest.mark.parametrize("samples", [1, 2, 4])
def test_100_iterations_agree(theta, samples, dtype):
    if theta == "mixed":
        theta = numpy.arange(60) % 3 / 2
    fast = structure_updater(FastStructureUpdater, samples, theta)
    plain = structure_updater(StructureUpdater, samples, theta)
    for i in range(100):
        if i in (50, 75):
            for updater in (fast, plain):
                updater.get_optimizer("main").lr /= 10
        fast.update()
        plain.update()
        if dtype == "float64":
            numpy.testing.assert_array_equal(fast.bernoulli.theta, plain.bernoulli.theta)
        else:
            # A near-tie may rank the other way round in float32; follow the plain one from there.
            fast.bernoulli.theta[...] = plain.bernoulli.theta
    compare(fast, plain, dtype)


@pytest.fixture(params=["MomentumSGD", "SGD"])
def other_optimizer(request, monkeypatch):
    """The updaters have another optimizer whose step is a linear map."""
    kinds = {
        "MomentumSGD": lambda: chainer.optimizers.MomentumSGD(0.05, 0.8),
        "SGD": lambda: chainer.optimizers.SGD(0.2),
    }
    monkeypatch.setitem(OPTIMIZER, 0, kinds[request.param])
    return request.param


@pytest.mark.parametrize("theta", [0.5, "mixed"])
@pytest.mark.parametrize("samples", [1, 2, 4])
def test_other_optimizers_agree(other_optimizer, theta, samples, dtype):
    if theta == "mixed":
        theta = numpy.arange(60) % 3 / 2
    fast = structure_updater(FastStructureUpdater, samples, theta)
    plain = structure_updater(StructureUpdater, samples, theta)
    for i in range(40):
        if i == 20:
            for updater in (fast, plain):
                updater.get_optimizer("main").lr /= 10
        fast.update()
        plain.update()
        fast.bernoulli.theta[...] = plain.bernoulli.theta
    compare(fast, plain, dtype)


def test_weights_at_rest_decay_as_with_other_optimizers(other_optimizer, dtype):
    """Units that are off move by decay and momentum alone, over several foldings of the powers."""
    fast = structure_updater(FastStructureUpdater, 2, 0.5)
    plain = structure_updater(StructureUpdater, 2, 0.5)
    for structures in (numpy.ones((2, 60), bool), numpy.zeros((2, 60), bool)):
        for _ in range(70):
            x, t = next(fast.get_iterator("main"))
            fast.step(x, t, structures)
            plain.step(x, t, structures)
    compare(fast, plain, dtype)


@pytest.mark.parametrize("ratio", [0.0, 0.5])
def test_fixed_structures_with_other_optimizers_agree(other_optimizer, ratio, dtype):
    fast = standard_updater(FastUpdater, ratio)
    plain = standard_updater(chainer.training.updaters.StandardUpdater, ratio)
    for _ in range(30):
        fast.update()
        plain.update()
    compare(fast, plain, dtype)


def test_other_optimizers_go_on_from_a_snapshot_with_the_same_bits(other_optimizer):
    whole, first, second = (structure_updater(FastStructureUpdater) for _ in range(3))
    for _ in range(60):
        whole.update()
    for _ in range(25):
        first.update()
    file = io.BytesIO()
    chainer.serializers.save_npz(file, first)
    file.seek(0)
    chainer.serializers.load_npz(file, second)
    for _ in range(35):
        second.update()
    expected = dict(whole.get_optimizer("main").target.namedparams())
    for name, parameter in second.get_optimizer("main").target.namedparams():
        numpy.testing.assert_array_equal(parameter.array, expected[name].array)


@pytest.mark.parametrize("kind", ["NesterovAG", "MomentumSGD"])
def test_other_rates_after_a_snapshot_are_those_of_the_reference(kind, monkeypatch):
    """The engine stores the weights in the terms of its rates, the network does not."""
    network, trained = {}, {}
    with chainer.using_config("dtype", numpy.dtype("d")):
        for updater in (FastStructureUpdater, StructureUpdater):
            for momentum, decay in ((0.9, 1e-3), (0.6, 2e-3)):
                make = getattr(chainer.optimizers, kind)
                monkeypatch.setitem(OPTIMIZER, 0, lambda: make(0.05, momentum))  # noqa: B023
                made = structure_updater(updater)
                made.get_optimizer("main")._hookable._pre_update_hooks["WeightDecay"].rate = decay
                if momentum == 0.9:
                    for _ in range(5):
                        made.update()
                    file = io.BytesIO()
                    chainer.serializers.save_npz(file, made)
                    file.seek(0)
                    network[updater] = made.get_optimizer("main").target
            chainer.serializers.load_npz(file, made)
            loaded = dict(made.get_optimizer("main").target.namedparams())
            for name, parameter in network[updater].namedparams():
                numpy.testing.assert_allclose(loaded[name].array, parameter.array, 1e-12)
            for _ in range(5):
                made.update()
            trained[updater] = made
    compare(*trained.values(), "float64")


@pytest.mark.parametrize("older", [False, True], ids=["", "older"])
def test_a_snapshot_of_another_optimizer_is_refused(older, monkeypatch):
    """Also one that is older and does not say which optimizer it had."""
    first = structure_updater(FastStructureUpdater)
    first.update()
    saved = content_of(first)
    if older:
        del saved["engine/rule"]
    monkeypatch.setitem(OPTIMIZER, 0, lambda: chainer.optimizers.MomentumSGD(0.05, 0.9))
    second = structure_updater(FastStructureUpdater)
    check_refused(second, saved, "has the optimizer NesterovAG, here MomentumSGD")


def test_adam_is_refused_by_name(monkeypatch):
    monkeypatch.setitem(OPTIMIZER, 0, chainer.optimizers.Adam)
    with pytest.raises(ValueError, match="one of the optimizers NesterovAG, MomentumSGD, SGD, not"):
        structure_updater(FastStructureUpdater)


@pytest.mark.parametrize("kind", ["empty", "full"])
@pytest.mark.parametrize("samples", [1, 2, 4])
def test_given_extreme_structures_agree(kind, samples, dtype):
    fast = structure_updater(FastStructureUpdater, samples)
    plain = structure_updater(StructureUpdater, samples)
    structures = numpy.full((samples, 60), kind == "full")
    for _ in range(60):
        x, t = next(fast.get_iterator("main"))
        losses = fast.step(x, t, structures)
        expected = plain.step(x, t, structures)
        numpy.testing.assert_allclose(losses, expected, rtol=1e-10 if dtype == "float64" else 1e-4)
        fast.bernoulli.theta[...] = plain.bernoulli.theta
    compare(fast, plain, dtype)


@pytest.mark.parametrize("ratio", [0.0, 0.5])
def test_fixed_structures_and_dropout_agree(ratio, dtype):
    fast = standard_updater(FastUpdater, ratio)
    plain = standard_updater(chainer.training.updaters.StandardUpdater, ratio)
    for _ in range(200):
        fast.update()
        plain.update()
    compare(fast, plain, dtype)


@pytest.mark.parametrize("stop", [1, 130, 263])
@pytest.mark.parametrize("make", [structure_updater, standard_updater])
def test_goes_on_from_a_snapshot_with_the_same_bits(make, stop):
    def start():
        if make is structure_updater:
            return make(FastStructureUpdater)
        return make(FastUpdater, 0.5)

    whole, first, second = start(), start(), start()
    for _ in range(300):
        whole.update()
    for _ in range(stop):
        first.update()
    file = io.BytesIO()
    chainer.serializers.save_npz(file, first)
    file.seek(0)
    chainer.serializers.load_npz(file, second)
    assert second.iteration == stop
    for _ in range(300 - stop):
        second.update()
    for updater in (whole, second):
        updater.synchronise()
    expected = dict(whole.get_optimizer("main").target.namedparams())
    for name, parameter in second.get_optimizer("main").target.namedparams():
        numpy.testing.assert_array_equal(parameter.array, expected[name].array)


def test_synchronise_comes_before_the_evaluation(tmp_path):
    updater = structure_updater(FastStructureUpdater)
    trainer = chainer.training.Trainer(updater, (30, "iteration"), str(tmp_path))
    link = updater.get_optimizer("main").target
    seen = []

    @chainer.training.make_extension((10, "iteration"), priority=chainer.training.PRIORITY_WRITER)
    def look(trainer):
        engine = updater._binding.engine
        expected = engine.parameters()["weights"][0]
        seen.append(numpy.array_equal(link.hidden[0].linear.W.array, expected))

    trainer.extend(look)
    trainer.extend(Synchronise(), trigger=(10, "iteration"))
    trainer.run()
    assert seen == [True, True, True]


def test_what_it_is_not_for_is_named():
    def make(link, optimizer=None, kind=FastStructureUpdater, **kwargs):
        iterator = ArrayIterator(data("f"), 16)
        optimizer = (optimizer or chainer.optimizers.NesterovAG()).setup(link)
        if kind is FastUpdater:
            return kind(iterator, optimizer)
        return kind(iterator, optimizer, Bernoulli(link.costs), **kwargs)

    functions = chainer.functions
    with pytest.raises(ValueError, match="the selection of inputs"):
        make(links.MaskedMLP(*WIDTHS, select_inputs=True))
    with pytest.raises(ValueError, match="ReLU"):
        make(links.MaskedMLP(*WIDTHS, activation=functions.tanh))
    with pytest.raises(ValueError, match="cross entropy"):
        make(links.MaskedMLP(*WIDTHS), loss_func=functions.mean_squared_error)
    with pytest.raises(ValueError, match="NesterovAG"):
        make(links.MaskedMLP(*WIDTHS), chainer.optimizers.Adam())
    with pytest.raises(ValueError, match="trains an MLP"):
        make(links.MaskedMLP(*WIDTHS), kind=FastUpdater)
    hooked = chainer.optimizers.NesterovAG()
    link = links.MLP(*WIDTHS)
    hooked.setup(link).add_hook(chainer.optimizer_hooks.GradientClipping(1))
    with pytest.raises(ValueError, match="no hook other than WeightDecay"):
        FastUpdater(ArrayIterator(data("f"), 16), hooked)


def both(**kwargs):
    return [structure_updater(kind, **kwargs) for kind in (FastStructureUpdater, StructureUpdater)]


def train(updaters, iterations=5):
    for updater in updaters:
        for _ in range(iterations):
            updater.update()


def target(updater):
    return updater.get_optimizer("main").target


def rebound_hook(updater, rate=0.02):
    optimizer = updater.get_optimizer("main")
    optimizer.remove_hook("WeightDecay")
    optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(rate))


def momentum(updater):
    updater.get_optimizer("main").momentum = 0.5


def only_weights_decay(updater):
    updater.get_optimizer("main").remove_hook("WeightDecay")
    for name, parameter in target(updater).namedparams():
        if name.endswith("/W"):
            parameter.update_rule.add_hook(chainer.optimizer_hooks.WeightDecay(0.01))


def other_weights(updater):
    if hasattr(updater, "synchronise"):
        updater.synchronise()
    for parameter in target(updater).params():
        parameter.array *= 0.5


@pytest.mark.parametrize("change", [rebound_hook, momentum, only_weights_decay, other_weights])
@pytest.mark.parametrize("before", [0, 5])
def test_what_is_changed_between_steps_is_respected(change, before, dtype):
    updaters = both()
    train(updaters, before)
    for updater in updaters:
        change(updater)
    train(updaters)
    compare(*updaters, dtype.name)


def freeze(updater):
    target(updater).hidden[0].disable_update()


def clip(updater):
    updater.get_optimizer("main").add_hook(chainer.optimizer_hooks.GradientClipping(1.0))


def noisy_rule(updater):
    hook = chainer.optimizer_hooks.GradientNoise(0.1)
    target(updater).output.W.update_rule.add_hook(hook)


def own_rate(updater):
    target(updater).output.W.update_rule.hyperparam.lr = 0.5


def other_loss(updater):
    updater.loss_func = chainer.functions.mean_squared_error


def other_activation(updater):
    target(updater).hidden[1].activation = chainer.functions.tanh


def other_layer(updater):
    link = target(updater)
    del link.output
    with link.init_scope():
        link.output = chainer.links.Linear(15, 4)


def other_parameter(updater):
    layer = target(updater).output
    del layer.W
    with layer.init_scope():
        layer.W = chainer.Parameter(0.1, (4, 15))


def other_target(updater):
    updater.get_optimizer("main").target = links.MaskedMLP(*WIDTHS)


def link_hook(updater):
    from chainer.link_hooks import WeightStandardization

    target(updater).output.add_hook(WeightStandardization())


def instance_forward(updater):
    target(updater).hidden[0].forward = lambda x, structures: x


def uneven_decay(updater):
    rule = target(updater).output.W.update_rule
    rule.add_hook(chainer.optimizer_hooks.WeightDecay(0.5))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (freeze, "frozen"),
        (clip, "hook"),
        (noisy_rule, "hook"),
        (own_rate, "rates of its own"),
        (uneven_decay, "one weight decay for all weights"),
        (other_loss, "softmax cross entropy"),
        (other_activation, "ReLU"),
        (other_layer, "other layers"),
        (other_parameter, "other layers"),
        (other_target, "another target"),
        (link_hook, "output has WeightStandardization"),
        (instance_forward, "its own forward"),
    ],
)
@pytest.mark.parametrize("before", [0, 5])
def test_what_cannot_be_respected_is_refused_at_the_next_step(change, named, before):
    updater = structure_updater(FastStructureUpdater)
    train([updater], before)
    change(updater)
    with pytest.raises(ValueError, match=named):
        updater.update()


def test_weights_loaded_after_construction_are_trained(dtype, tmp_path):
    updaters = both()
    for parameter in target(updaters[0]).params():
        parameter.array += 0.1
    chainer.serializers.save_npz(tmp_path / "network.npz", target(updaters[0]))
    updaters = both()
    for updater in updaters:
        chainer.serializers.load_npz(tmp_path / "network.npz", target(updater))
    train(updaters)
    compare(*updaters, dtype.name)


def test_weights_changed_by_an_array_taken_before_are_not_lost_without_a_word():
    updater = structure_updater(FastStructureUpdater)
    array = target(updater).output.W.array
    train([updater])
    array[...] = 0
    with pytest.raises(ValueError, match="what was changed is lost"):
        updater.synchronise()


def load_npz_of(thing):
    file = io.BytesIO()
    chainer.serializers.save_npz(file, thing)
    file.seek(0)
    with numpy.load(file) as content:
        return {name: content[name] for name in content.files}


def other_link(link):
    found = links.MaskedMLP(*WIDTHS)
    found.copyparams(link)
    return found


def through_pickle(link):
    return pickle.loads(pickle.dumps(link))


def moved(link):
    return link.to_device("@numpy")


def as_it_is(link):
    return link


READERS = [
    as_it_is,
    copy.copy,
    copy.deepcopy,
    lambda link: link.copy(),
    lambda link: link.copy("copy"),
    lambda link: link.copy("share"),
    other_link,
    through_pickle,
    moved,
]


@pytest.mark.parametrize("read", READERS)
def test_who_reads_the_network_gets_what_was_trained(read, dtype):
    """Nobody has called synchronise()."""
    fast, plain = both()
    train([fast, plain])
    expected = load_npz_of(target(plain))
    found = load_npz_of(read(target(fast)))
    assert found.keys() == expected.keys()
    tolerance = 1e-10 if dtype == "float64" else 1e-4
    for name, array in expected.items():
        numpy.testing.assert_allclose(found[name], array, rtol=0, atol=tolerance)
    compare(fast, plain, dtype.name)


def test_who_reads_the_optimizer_gets_what_was_trained(dtype):
    fast, plain = both()
    for read in (as_it_is, copy.deepcopy, copy.copy):
        train([fast, plain])
        found = load_npz_of(read(fast.get_optimizer("main")))
        expected = load_npz_of(plain.get_optimizer("main"))
        assert found.keys() == expected.keys()
        for name, array in expected.items():
            numpy.testing.assert_allclose(found[name], array, 1e-3, 1e-5, err_msg=name)


def test_a_compact_network_of_a_fast_training_is_the_trained_one(dtype):
    fast, plain = both()
    train([fast, plain])
    x = data(dtype)[0]
    structure = numpy.arange(60) % 3 > 0
    found, expected = (compact(target(updater), structure)(x).array for updater in (fast, plain))
    numpy.testing.assert_allclose(found, expected, 1e-3, 1e-4)


def test_a_shared_copy_stays_the_trained_network():
    fast, _ = both()
    shared = target(fast).copy("share")
    train([fast])
    after = shared.output.W.array.copy()
    train([fast])
    assert abs(shared.output.W.array - after).max() > 0
    numpy.testing.assert_array_equal(shared.output.W.array, target(fast).output.W.array)


def test_reading_does_not_change_the_bits():
    quiet, read = (structure_updater(FastStructureUpdater) for _ in range(2))
    for _ in range(20):
        train([quiet, read], 1)
        assert target(read).output.W.array.shape == (4, 15)
    for a, b in zip(target(quiet).params(), target(read).params()):
        numpy.testing.assert_array_equal(a.array, b.array)


def test_shapes_and_dtypes_are_read_without_the_values(monkeypatch):
    updater = structure_updater(FastStructureUpdater)
    train([updater])
    monkeypatch.setattr(updater._binding, "synchronise", None)
    W = target(updater).output.W
    assert (W.shape, W.dtype, W.size, W.ndim) == ((4, 15), numpy.float32, 60, 2)


def test_two_updaters_of_one_network_take_turns(dtype):
    fast, plain = both()
    link = target(fast)
    beside = FastStructureUpdater(
        fast.get_iterator("main"),
        fast.get_optimizer("main"),
        fast.bernoulli,
        2,
        converter=pass_arrays,
    )
    own = StructureUpdater(
        fast.get_iterator("main"),
        fast.get_optimizer("main"),
        fast.bernoulli,
        2,
        converter=pass_arrays,
    )
    for updater in (fast, beside, own, fast, own, beside):
        train([updater], 3)
    train([plain], 18)
    assert target(beside) is link
    compare(fast, plain, dtype.name)


def test_velocities_loaded_after_construction_are_used(dtype):
    updaters = both()
    train(updaters)
    saved = io.BytesIO()
    chainer.serializers.save_npz(saved, updaters[1].get_optimizer("main"))
    updaters = both()
    train(updaters, 2)
    for updater in updaters:
        saved.seek(0)
        chainer.serializers.load_npz(saved, updater.get_optimizer("main"))
    train(updaters)
    compare(*updaters, dtype.name)


class OwnForward(links.MaskedMLP):
    def forward(self, x, structures):
        return super().forward(2 * x, structures)


class OwnMLP(links.MLP):
    def forward(self, x):
        return super().forward(2 * x)


class OwnLayer(links.MaskedLinear):
    def forward(self, x, structures):
        return 2 * super().forward(x, structures)


def test_a_forward_pass_of_ones_own_is_refused():
    iterator = ArrayIterator(data("f"), 16)
    link = OwnForward(*WIDTHS)
    bernoulli = Bernoulli(link.costs)
    with pytest.raises(ValueError, match="OwnForward has its own forward"):
        FastStructureUpdater(iterator, optimizer_of(link), bernoulli)
    with pytest.raises(ValueError, match="OwnMLP has its own forward"):
        FastUpdater(iterator, optimizer_of(OwnMLP(*WIDTHS)))
    link = links.MaskedMLP(*WIDTHS)
    link.hidden[0].__class__ = OwnLayer
    with pytest.raises(ValueError, match="OwnLayer has its own forward"):
        FastStructureUpdater(iterator, optimizer_of(link), bernoulli)


@pytest.mark.parametrize("ignored", [3, 199])
def test_examples_without_a_class_are_ignored(ignored, dtype):
    updaters = both()
    for updater in updaters:
        updater.get_iterator("main").arrays[1][:ignored] = -1
    train(updaters, 30)
    compare(*updaters, dtype.name)


def every_unit_on(updater):
    if hasattr(updater, "bernoulli"):
        updater.bernoulli.theta[...] = 1
    return updater


NETWORKS = {
    "units": lambda: every_unit_on(structure_updater(FastStructureUpdater)),
    "fixed": lambda: standard_updater(FastUpdater, 0.0),
    "dense": lambda: every_unit_on(dense_updater()),
}


def dense_updater():
    link = links.DenseNet(7, 2, classes=3)
    rng = numpy.random.default_rng(2)
    arrays = rng.normal(size=(8, 3, 8, 8)).astype("f"), rng.integers(0, 3, 8).astype("i")
    return StructureUpdater(
        ArrayIterator(arrays, 8), optimizer_of(link), Bernoulli(link.costs), converter=pass_arrays
    )


@pytest.mark.parametrize("network", NETWORKS)
def test_what_is_no_number_is_not_lost(network):
    """With any one parameter that is NaN, the loss of the next iteration is NaN."""
    for k, (name, _) in enumerate(target(NETWORKS[network]()).namedparams()):
        updater = NETWORKS[network]()
        parameter = list(target(updater).params())[k]
        parameter.array.reshape(-1)[-1] = numpy.nan
        observation = {}
        reporter = chainer.Reporter()
        reporter.add_observer("main", target(updater))
        with reporter.scope(observation):
            updater.update()
        assert numpy.isnan(observation["main/loss"]), name
        assert numpy.isnan(parameter.array).any(), name


def test_what_is_no_number_survives_a_change_of_the_learning_rate():
    updater = structure_updater(FastStructureUpdater)
    for layer in updater._binding.layers:
        layer.W.array[0, 0] = numpy.nan
    updater.bernoulli.theta[...] = 0  # no gradient reaches most weights
    train([updater], 1)
    updater.get_optimizer("main").lr = 0.01
    train([updater], 1)
    for layer in updater._binding.layers:
        assert numpy.isnan(layer.W.array[0, 0])
        assert numpy.isnan(layer.W.update_rule.state["v"][0, 0])
