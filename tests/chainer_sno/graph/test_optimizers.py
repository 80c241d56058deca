"""MomentumSGD and SGD on the captured paths against Chainer's own, and which optimizer trains."""

import io

import pytest

from chainer_sno import ArrayIterator, StructureUpdater, chainer, links, pass_arrays
from chainer_sno.uniforms import generator
from tests.chainer_sno.graph import test_updaters
from tests.chainer_sno.graph.test_updaters import (
    TO_CPU,
    bernoulli_of,
    captured,
    compare,
    image_arrays,
    image_iterator,
    initialW,
    loss_of,
    run_beside,
    unit_arrays,
    unit_iterator,
)
from tests.chainer_sno.snapshots import assert_same, check_refused, content_of
from tests.conftest import make_structures

#: The second has layers that the kernels read by fours.
WIDTHS = [(10, (9, 7), 4), (12, (16, 8), 4)]
SHAPE = 8, 8
KINDS = {
    "NesterovAG": lambda: chainer.optimizers.NesterovAG(0.05, 0.8),
    "MomentumSGD": lambda: chainer.optimizers.MomentumSGD(0.05, 0.8),
    "SGD": lambda: chainer.optimizers.SGD(0.2),
}
OTHERS = ["MomentumSGD", "SGD"]


def with_decay(kind):
    """Return what sets up an optimizer of the kind with WeightDecay."""

    def make(link):
        optimizer = KINDS[kind]().setup(link)
        optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(1e-2))
        return optimizer

    return make


def masked(widths=WIDTHS[0]):
    return links.MaskedMLP(*widths, initialW=initialW())


def units(platform, kind, samples=2, widths=WIDTHS[0]):
    iterator = unit_iterator(platform, size=widths[0])
    return captured(platform, masked(widths), iterator, samples, make_optimizer=with_decay(kind))


def dense_net():
    return test_updaters.dense_net(size=(8, 3, 2, 4, 5))


def images(network):
    return TO_CPU(network.x).reshape(3, -1, *SHAPE).transpose(1, 0, 2, 3)


def connections(platform, kind, link, samples=2):
    iterator = image_iterator(SHAPE, platform[1])
    return captured(platform, link, iterator, samples, make_optimizer=with_decay(kind))


def standard(iterator, link, kind):
    """Return Chainer's own updater of a network of fixed structure."""
    return chainer.training.updaters.StandardUpdater(
        iterator, with_decay(kind)(link), pass_arrays, loss_func=loss_of(link)
    )


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("samples", [1, 2, 4])
@pytest.mark.parametrize("widths", WIDTHS)
def test_masked_mlp(platform, dtype, kind, samples, widths):
    found = units(platform, kind, samples, widths)
    link = masked(widths)
    expected = StructureUpdater(
        ArrayIterator(unit_arrays(size=widths[0]), 8, seed=5, divisor=255),
        with_decay(kind)(link),
        bernoulli_of(link),
        samples,
        converter=pass_arrays,
    )
    run_beside(found, expected, 10, lambda network: TO_CPU(network.x), dtype, later_lr=0.02)


@pytest.mark.parametrize("kind", OTHERS)
def test_mlp(platform, dtype, kind):
    def make():
        return links.MLP(*WIDTHS[0], initialW=initialW())

    iterator = unit_iterator(platform, size=10)
    found = captured(platform, make(), iterator, make_optimizer=with_decay(kind))
    iterator = ArrayIterator(unit_arrays(size=10), 8, seed=5, divisor=255)
    expected = standard(iterator, make(), kind)
    for i in range(10):
        for updater in (found, expected):
            if i == 5:
                updater.get_optimizer("main").lr = 0.02
            updater.update()
    compare(found, expected, dtype)


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("samples", [1, 2, 4])
def test_dense_net(platform, dtype, kind, samples):
    found = connections(platform, kind, dense_net(), samples)
    link = dense_net()
    expected = StructureUpdater(
        image_iterator(SHAPE),
        with_decay(kind)(link),
        bernoulli_of(link),
        samples,
        converter=pass_arrays,
    )
    run_beside(found, expected, 2, images, dtype, later_lr=0.02)


@pytest.mark.parametrize("kind", OTHERS)
def test_fixed_dense_net(platform, dtype, kind):
    structure = make_structures("random", 1, len(dense_net().costs), generator((6,)))[0]
    found = connections(platform, kind, links.FixedStructure(dense_net(), structure))
    expected = standard(image_iterator(SHAPE), links.FixedStructure(dense_net(), structure), kind)
    t = image_arrays(SHAPE)[1][found.get_iterator("main").order(0)]
    for i in range(3):
        found.update()
        x = images(found.captured.network)
        optimizer = expected.get_optimizer("main")
        optimizer.update(loss_of(optimizer.target), x, t[3 * i : 3 * i + 3])
    compare(found, expected, dtype)


def snapshot_of(updater):
    file = io.BytesIO()
    chainer.serializers.save_npz(file, updater)
    file.seek(0)
    return file


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("make", [units, lambda *two: connections(*two, dense_net())])
def test_a_resumed_training_goes_on_to_the_bit(platform, kind, make):
    whole, resumed = make(platform, kind), make(platform, kind)
    for _ in range(3):
        whole.update()
    resumed.update()
    chainer.serializers.load_npz(snapshot_of(whole), resumed)
    for updater in (whole, resumed):
        for _ in range(2):
            updater.update()
    expected = content_of(whole)
    assert expected["captured/rule"] == kind
    # SGD has no velocities, and none are made up.
    assert any(name.endswith("/v") for name in expected) == (kind != "SGD")
    assert_same(content_of(resumed), expected)


@pytest.mark.parametrize("saved", KINDS)
@pytest.mark.parametrize("loading", KINDS)
def test_a_snapshot_of_another_optimizer_is_refused(platform, saved, loading):
    first, second = units(platform, saved), units(platform, loading)
    first.update()
    if saved == loading:
        chainer.serializers.load_npz(snapshot_of(first), second)
    else:
        message = f"has the optimizer {saved}, here {loading}"
        check_refused(second, content_of(first), message)


def test_a_snapshot_of_the_reference_is_refused_before_anything_is_loaded(platform):
    link = masked()
    first = StructureUpdater(
        unit_iterator((None, chainer.get_device("@numpy")), size=WIDTHS[0][0]),
        with_decay("NesterovAG")(link),
        bernoulli_of(link),
    )
    second = units(platform, "NesterovAG")
    first.update()
    check_refused(second, content_of(first), "was not saved by a graph updater")


@pytest.mark.parametrize("loading", ["NesterovAG", "MomentumSGD"])
def test_an_older_snapshot_is_nesterovs(platform, loading):
    first, second = units(platform, "NesterovAG"), units(platform, loading)
    older = content_of(first)
    del older["captured/rule"]
    if loading == "NesterovAG":
        chainer.serializers.NpzDeserializer(older).load(second)
    else:
        check_refused(second, older, "has the optimizer NesterovAG, here MomentumSGD")


@pytest.mark.parametrize("kind", ["Adam", "RMSprop"])
@pytest.mark.parametrize("make", [units, lambda *two: connections(*two, dense_net())])
def test_other_optimizers_are_refused_by_name(platform, kind, make, monkeypatch):
    monkeypatch.setitem(KINDS, kind, getattr(chainer.optimizers, kind))
    with pytest.raises(ValueError, match=f"NesterovAG, MomentumSGD, SGD, not {kind}"):
        make(platform, kind)


def momentum(optimizer):
    optimizer.momentum = 0.5


def decay(optimizer):
    optimizer._hookable._pre_update_hooks["WeightDecay"].rate = 0.5


def own_rate(optimizer):
    optimizer.target.output.W.update_rule.hyperparam.lr = 0.5


def other_rule(optimizer):
    optimizer.target.output.W.update_rule = chainer.optimizers.adam.AdamRule()


@pytest.mark.parametrize(
    ("kind", "change", "named"),
    [
        ("MomentumSGD", momentum, r"\(0.5, 0.01\), and were \(0.8, 0.01\)"),
        ("MomentumSGD", own_rate, "W has rates of its own"),
        ("SGD", decay, r"\(0.0, 0.5\), and were \(0.0, 0.01\)"),
        ("SGD", own_rate, "W has rates of its own"),
        ("SGD", other_rule, "needs SGDRule, and W has the update rule"),
    ],
)
def test_what_is_changed_is_refused(platform, kind, change, named):
    updater = units(platform, kind)
    updater.update()
    change(updater.get_optimizer("main"))
    with pytest.raises(ValueError, match=named):
        updater.update()
