"""The captured iterations against the plain links, NesterovAG and WeightDecay."""

import io
import itertools

import numpy
import pytest

from chainer_sno import ArrayIterator, Bernoulli, StructureUpdater, chainer, links, pass_arrays
from chainer_sno.graph import updaters
from chainer_sno.graph.dense import definitions
from chainer_sno.graph.updaters import GraphStructureUpdater, GraphUpdater
from chainer_sno.uniforms import generator, philox_uniforms
from reproduce.augmentation import ImageIterator, Standardise, channel_statistics, crop_and_flip
from tests.chainer_sno.cuda.conftest import GPU, needs_compiler
from tests.chainer_sno.cuda.emulator import Backwards, Emulator, Late
from tests.chainer_sno.snapshots import assert_same, content_of
from tests.conftest import make_structures

WIDTHS = (30, (25, 20, 15), 4)
#: Multiples of four, which the kernels read by fours, and more than one tile of every kind.
BY_FOURS = (32, (136, 40, 16), 4)
#: Height and width of images; 6 columns end in the middle of a strip of four, and 3 in a half of
#: one, 36 need more than one tile.
IMAGES = [(8, 8), (12, 6), (20, 36)]
TO_CPU = chainer.backends.cuda.to_cpu


def optimizer_of(link):
    optimizer = chainer.optimizers.NesterovAG(0.05, 0.9).setup(link)
    optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(1e-3))
    return optimizer


def initialW():
    return chainer.initializers.HeNormal(rng=generator((3,)))


def unit_arrays(dtype=numpy.uint8, size=30):
    rng = numpy.random.default_rng(8)
    x = rng.integers(0, 256, (50, size)).astype(dtype)
    return x, rng.integers(0, 4, 50).astype("i")


def image_arrays(shape):
    rng = numpy.random.default_rng(8)
    x = rng.integers(0, 256, (10, 3, *shape), dtype=numpy.uint8)
    return x, rng.integers(0, 5, 10).astype("i")


def image_iterator(shape, device=None, batch_size=3, **options):
    arrays = image_arrays(shape)
    statistics = channel_statistics(arrays[0])
    if device is not None:
        arrays, statistics = (tuple(device.send(a) for a in part) for part in (arrays, statistics))
    return ImageIterator(arrays, batch_size, Standardise(*statistics), seed=5, **options)


def dense_net(kind=links.PlainDenseNet, size=(10, 4, 2, 6, 5)):
    network = kind(*size, initialW=initialW())
    rng = generator((4,))
    for link in network.links():
        if isinstance(link, chainer.links.BatchNormalization):
            link.gamma.array[...] = rng.uniform(0.5, 1.5, link.gamma.shape)
            link.beta.array[...] = rng.normal(0, 0.3, link.beta.shape)
    return network


def bernoulli_of(link, theta=0.5):
    return Bernoulli(link.costs, 0.5, eta=0.05, initial_theta=theta, seed=4)


def captured(platform, link, iterator, samples=2, theta=0.5, make_optimizer=optimizer_of):
    """Return an updater on the platform, its network and its distribution moved there."""
    kind, device = platform
    link.to_device(device)
    optimizer = make_optimizer(link)
    if not hasattr(link, "costs"):
        return GraphUpdater(iterator, optimizer, kind)
    bernoulli = bernoulli_of(link, theta)
    bernoulli.to_device(device)
    return GraphStructureUpdater(iterator, optimizer, bernoulli, samples, kind)


def send(platform, arrays):
    return tuple(platform[1].send(array) for array in arrays)


def unit_iterator(platform, batch_size=8, size=30):
    arrays = send(platform, unit_arrays(size=size))
    return ArrayIterator(arrays, batch_size, seed=5, divisor=255)


def compare(found, expected, dtype):
    """Parameters, velocities and running statistics; relative to the largest of each array."""
    tolerance = 1e-10 if dtype == numpy.float64 else 1e-4
    targets = [u.get_optimizer("main").target for u in (found, expected)]
    for (name, a), (_, b) in zip(*(target.namedparams() for target in targets)):
        states = [parameter.update_rule.state or {} for parameter in (a, b)]
        assert states[0].keys() == states[1].keys()
        pairs = [(states[0][key], states[1][key]) for key in states[0]]
        for x, y in [(a.array, b.array), *pairs]:
            x, y = TO_CPU(x), TO_CPU(y)
            assert abs(x - y).max() <= tolerance * max(abs(y).max(), 1e-3), name
    compare_statistics(*targets, tolerance)


def compare_statistics(found, expected, tolerance):
    """The running statistics of two networks."""
    for (name, a), (_, b) in zip(found.namedlinks(), expected.namedlinks()):
        if isinstance(a, chainer.links.BatchNormalization):
            for x, y in ((a.avg_mean, b.avg_mean), (a.avg_var, b.avg_var)):
                numpy.testing.assert_allclose(TO_CPU(x), TO_CPU(y), tolerance, tolerance, name)


def run_beside(found, expected, iterations, make_x, dtype, later_lr=None):
    """Train both on what the first one draws; the losses and theta agree all the time."""
    iterator = expected.get_iterator("main")
    network = found.captured.network
    for i in range(iterations):
        if later_lr is not None and i == iterations // 2:
            for updater in (found, expected):
                updater.get_optimizer("main").lr = later_lr
        found.captured.run()
        structures = TO_CPU(network.structures).astype(bool)
        order = numpy.concatenate([iterator.order(e) for e in range(3)])
        at = i * iterator.batch_size
        t = iterator.arrays[1][order[at : at + iterator.batch_size]]
        losses = expected.step(make_x(network), t, structures)
        numpy.testing.assert_allclose(
            TO_CPU(found.captured.losses), losses, 1e-9 if dtype == numpy.float64 else 1e-4
        )
        if dtype == numpy.float64:
            theta = TO_CPU(found.bernoulli.theta)
            numpy.testing.assert_array_equal(theta, expected.bernoulli.theta)
    compare(found, expected, dtype)


def set_theta(updater, kind):
    """Let nothing, or everything, be on in the next iteration."""
    if kind != "random":
        updater.bernoulli.theta[...] = 0 if kind == "empty" else 1


@pytest.mark.parametrize(
    ("widths", "batch_size", "samples", "kind"),
    [
        *((WIDTHS, 8, *case) for case in itertools.product([1, 2, 4], ["random", "empty", "full"])),
        (WIDTHS, 13, 4, "random"),
        (BY_FOURS, 12, 1, "random"),
        (BY_FOURS, 12, 4, "random"),
        (BY_FOURS, 8, 2, "empty"),
        (BY_FOURS, 8, 2, "full"),
    ],
)
def test_masked_mlp(platform, dtype, widths, batch_size, samples, kind):
    size = widths[0]
    found = captured(
        platform,
        links.MaskedMLP(*widths, initialW=initialW()),
        unit_iterator(platform, batch_size, size),
        samples,
    )
    link = links.MaskedMLP(*widths, initialW=initialW())
    iterator = ArrayIterator(unit_arrays(size=size), batch_size, seed=5, divisor=255)
    expected = StructureUpdater(
        iterator, optimizer_of(link), bernoulli_of(link), samples, converter=pass_arrays
    )
    for updater in (found, expected):
        set_theta(updater, kind)
    run_beside(found, expected, 10, lambda network: TO_CPU(network.x), dtype)


@pytest.mark.parametrize(
    ("shape", "samples", "kind"),
    [
        *((shape, 2, "random") for shape in IMAGES),
        ((8, 8), 1, "random"),
        ((12, 6), 4, "random"),
        ((8, 8), 2, "empty"),
        ((12, 6), 2, "full"),
    ],
)
def test_dense_net(platform, dtype, shape, samples, kind):
    found = captured(platform, dense_net(), image_iterator(shape, platform[1]), samples)
    link = dense_net()
    expected = StructureUpdater(
        image_iterator(shape),
        optimizer_of(link),
        bernoulli_of(link),
        samples,
        converter=pass_arrays,
    )
    for updater in (found, expected):
        set_theta(updater, kind)

    def images(network):
        return TO_CPU(network.x).reshape(3, -1, *shape).transpose(1, 0, 2, 3)

    run_beside(found, expected, 2, images, dtype)


def loss_of(link):
    return lambda x, t: chainer.functions.softmax_cross_entropy(link(x), t)


@pytest.mark.parametrize("ratio", [0.0, 0.5])
def test_mlp_and_its_dropout(platform, dtype, ratio, monkeypatch):
    def make():
        return links.MLP(*WIDTHS, dropout_ratio=ratio, seed=4, initialW=initialW())

    found = captured(platform, make(), unit_iterator(platform))
    link = make()
    # The reference drops what the kernels dropped.
    network = found.captured.network
    monkeypatch.setattr(link, "dropout_factors", lambda n, dtype: TO_CPU(network.structures))
    expected = chainer.training.updaters.StandardUpdater(
        ArrayIterator(unit_arrays(), 8, seed=5, divisor=255),
        optimizer_of(link),
        pass_arrays,
        loss_func=loss_of(link),
    )
    for _ in range(10):
        found.update()
        expected.update()
    compare(found, expected, dtype)
    if ratio:
        drawn = (
            philox_uniforms(numpy, found.get_optimizer("main").target.uniforms.key, 72, 8, 60)
            >= ratio
        )
        numpy.testing.assert_array_equal(TO_CPU(network.structures), 2.0 * drawn)


@pytest.mark.parametrize("kind", ["empty", "sparse", "random", "full"])
def test_fixed_dense_net(platform, dtype, kind):
    """With layers that lead nowhere, which neither of them computes."""
    rng, d = generator((6,)), len(dense_net().costs)
    structure = rng.random(d) < 0.3 if kind == "sparse" else make_structures(kind, 1, d, rng)[0]
    dead = structure != dense_net().without_dead_layers(structure)
    assert dead.any() == (kind in ("sparse", "random"))
    found = captured(
        platform, links.FixedStructure(dense_net(), structure), image_iterator((8, 8), platform[1])
    )
    link = links.FixedStructure(dense_net(), structure)
    optimizer = optimizer_of(link)
    for i in range(2):
        found.update()
        x = TO_CPU(found.captured.network.x).reshape(3, -1, 8, 8).transpose(1, 0, 2, 3)
        arrays = image_arrays((8, 8))
        order = found.get_iterator("main").order(0)
        optimizer.update(loss_of(link), x, arrays[1][order[i * 3 : i * 3 + 3]])
    target, tolerance = found.get_optimizer("main").target, 1e-10 if dtype == "float64" else 1e-4
    for (name, a), (_, b) in zip(target.namedparams(), link.namedparams()):
        numpy.testing.assert_allclose(TO_CPU(a.array), b.array, tolerance, tolerance, name)
    compare_statistics(target, link, tolerance)
    numpy.testing.assert_array_equal(TO_CPU(target.structure), structure)


@pytest.mark.parametrize("padded", [True, False])
def test_images_are_those_of_the_iterator(platform, dtype, padded):
    """Standardised, cropped and flipped as the plain code does with the same random numbers."""
    shape = 8, 6
    iterator = image_iterator(shape, platform[1], batch_size=5, augment=padded)
    network = dense_net()
    found = captured(platform, network, iterator)
    plain = image_iterator(shape, batch_size=5, augment=False)
    for i in range(3):
        found.captured.run()
        x, _ = plain.next()
        if padded:
            drawn = philox_uniforms(numpy, iterator.augmentation.key, 5 * i, 5, 3)
            x = crop_and_flip(x, (numpy.floor(drawn * 2**24) / 2**24).astype("f"))
        images = TO_CPU(found.captured.network.x).reshape(3, 5, *shape).transpose(1, 0, 2, 3)
        numpy.testing.assert_array_equal(images, x)


@pytest.mark.parametrize("data_dtype", [numpy.uint8, numpy.float64])
def test_mini_batches_are_those_of_the_iterator(platform, data_dtype):
    """Across the ends of epochs, of bytes and of numbers."""
    with chainer.using_config("dtype", numpy.dtype("d")):
        arrays = unit_arrays(data_dtype)
        link = links.MaskedMLP(*WIDTHS)
        iterator = ArrayIterator(send(platform, arrays), 8, seed=5, divisor=255)
        found = captured(platform, link, iterator)
        plain = ArrayIterator(arrays, 8, seed=5, divisor=255)
        for _ in range(20):
            found.captured.run()
            x, _ = plain.next()
            numpy.testing.assert_array_equal(TO_CPU(found.captured.network.x), x)
            assert (iterator.epoch, iterator.is_new_epoch) == (plain.epoch, plain.is_new_epoch)


def cases(platform):
    yield lambda: captured(
        platform, links.MaskedMLP(*WIDTHS, initialW=initialW()), unit_iterator(platform)
    )
    yield lambda: captured(
        platform,
        links.MLP(*WIDTHS, dropout_ratio=0.5, seed=4, initialW=initialW()),
        unit_iterator(platform),
    )
    yield lambda: captured(platform, dense_net(), image_iterator((8, 8), platform[1]))


@pytest.mark.parametrize("case", range(3))
def test_a_resumed_training_goes_on_to_the_bit(platform, case):
    """In the middle of an epoch, with a learning rate that has changed."""
    make = next(itertools.islice(cases(platform), case, None))
    whole = make()
    snapshot = None
    for i in range(9):
        if i == 4:
            whole.get_optimizer("main").lr = 0.01
            snapshot = io.BytesIO()
            chainer.serializers.save_npz(snapshot, whole)
        whole.update()
    resumed = make()
    resumed.update()
    snapshot.seek(0)
    chainer.serializers.load_npz(snapshot, resumed)
    resumed.get_optimizer("main").lr = 0.01
    for _ in range(5):
        resumed.update()
    assert_same(content_of(resumed), content_of(whole))
    assert whole.captured.take_loss() == resumed.captured.take_loss()


@needs_compiler
@pytest.mark.parametrize("case", range(3))
@pytest.mark.parametrize("other", [Backwards, Late])
def test_the_order_does_not_matter(case, other):
    """Of threads, where it would by a missing barrier, and of what is aside and what follows."""
    found = []
    for kind in (Emulator, other):
        updater = next(itertools.islice(cases((kind, chainer.get_device("@numpy"))), case, None))()
        for _ in range(3):
            updater.update()
        found.append(content_of(updater))
    assert_same(*found)


def test_the_learning_rate_may_change(platform, dtype):
    """At 0 there is only momentum: W moves by mu^2 v with v <- mu v."""
    found = next(cases(platform))()
    found.update()
    optimizer = found.get_optimizer("main")
    b = optimizer.target.output.b
    before, v = TO_CPU(b.array).copy(), TO_CPU(b.update_rule.state["v"]).copy()
    assert abs(v).min() > 0
    optimizer.lr = 0.0
    found.update()
    expected = before + optimizer.momentum**3 * v
    numpy.testing.assert_allclose(TO_CPU(b.array), expected, 1e-6)


def test_the_loss_is_reported_when_it_is_asked_for(platform):
    updater = next(cases(platform))()
    reporter = chainer.Reporter()
    target = updater.get_optimizer("main").target
    reporter.add_observer("main", target)
    losses = []
    for _ in range(3):
        updater.update()
        losses.append(TO_CPU(updater.captured.losses).mean())
    observation = {}
    with reporter.scope(observation):
        updater.synchronise()
    numpy.testing.assert_allclose(observation["main/loss"], numpy.mean(losses), 1e-12)
    assert numpy.isnan(updater.captured.take_loss())
    assert next(target.params()).update_rule.t == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"select_inputs": True}, "selection of inputs"),
        ({"activation": chainer.functions.tanh}, "ReLU"),
    ],
)
def test_what_the_kernels_cannot_do_is_refused(platform, change, message):
    with pytest.raises(ValueError, match=message):
        captured(platform, links.MaskedMLP(*WIDTHS, **change), unit_iterator(platform))


def test_too_many_structures_or_classes_are_refused(platform):
    with pytest.raises(ValueError, match="256 structures"):
        captured(platform, links.MaskedMLP(*WIDTHS), unit_iterator(platform), samples=257)
    with pytest.raises(ValueError, match="1024 classes"):
        captured(platform, links.MaskedMLP(30, (5,), 1025), unit_iterator(platform))


def test_examples_that_do_not_fit_are_refused(platform):
    arrays = send(platform, unit_arrays())
    with pytest.raises(ValueError, match="do not fit"):
        captured(platform, links.MaskedMLP(31, (5,), 4), ArrayIterator(arrays, 8))
    for labels in (arrays[1].astype("u4"), arrays[1][:, None]):
        with pytest.raises(ValueError, match="signed integers"):
            captured(platform, links.MaskedMLP(30, (5,), 4), ArrayIterator((arrays[0], labels), 8))
    for label in (-2, 4):
        labels = arrays[1].copy()
        labels[3] = label
        with pytest.raises(ValueError, match=r"class numbers must lie in 0\.\.3, or be -1"):
            captured(platform, links.MaskedMLP(30, (5,), 4), ArrayIterator((arrays[0], labels), 8))


@pytest.mark.parametrize(
    ("dtype", "divisor", "message"),
    [
        ("u1", None, "takes examples of float32, not of uint8: convert .* a divisor, 255 for"),
        ("i4", None, "examples of int32 .* do not fit"),
        ("i4", 255, "examples of int32 .* do not fit"),
        ("f8", None, "examples of float64 .* do not fit"),
    ],
)
@pytest.mark.parametrize("make", [lambda: links.MLP(*WIDTHS), lambda: links.MaskedMLP(*WIDTHS)])
def test_dtypes_that_the_kernels_do_not_know_are_refused(platform, make, dtype, divisor, message):
    iterator = ArrayIterator(send(platform, unit_arrays(dtype)), 8, divisor=divisor)
    with pytest.raises(ValueError, match=message):
        captured(platform, make(), iterator)


def test_bytes_that_become_another_dtype_than_the_networks_are_refused(platform):
    """As in the reference, what is divided has the dtype of the configuration."""
    link = links.MaskedMLP(*WIDTHS)
    with (
        chainer.using_config("dtype", numpy.dtype("d")),
        pytest.raises(ValueError, match="a network of float32 takes .* not of float64"),
    ):
        captured(platform, link, unit_iterator(platform))


@pytest.mark.parametrize(("dtype", "divisor"), [("u1", None), ("f4", None), ("u1", 255)])
def test_images_are_bytes_and_standardised(platform, dtype, divisor):
    iterator = image_iterator((8, 8), platform[1], divisor=divisor)
    images, labels = iterator.arrays
    iterator.arrays = images.astype(dtype), labels
    if (dtype, divisor) == ("u1", None):
        captured(platform, dense_net(), iterator)
        return
    with pytest.raises(ValueError, match="standardise images of uint8 without a divisor"):
        captured(platform, dense_net(), iterator)


def test_data_on_a_cpu_are_refused_for_a_network_on_a_gpu(monkeypatch):
    link = links.MLP(*WIDTHS)
    iterator = ArrayIterator(unit_arrays("f"), 8)
    monkeypatch.setattr(links.MLP, "xp", None)  # no array module of a CPU
    with pytest.raises(ValueError, match="needs the network and the data on a GPU"):
        GraphUpdater(iterator, optimizer_of(link))


class Shifted(ArrayIterator):
    """Makes mini-batches of its own."""

    def __next__(self):
        x, t = super().__next__()
        return x + 1, t

    next = __next__


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda *arrays: ArrayIterator(arrays, 8, repeat=False), "an iterator that repeats"),
        (lambda *arrays: Shifted(arrays, 8), "Shifted has its own __next__ and no add_batch"),
        (
            lambda *arrays: chainer.iterators.SerialIterator([*zip(*arrays)], 8),
            "an ArrayIterator, not a SerialIterator",
        ),
    ],
)
def test_iterators_that_the_kernels_do_not_know_are_refused(platform, make, message):
    with pytest.raises(ValueError, match=message):
        captured(platform, links.MLP(*WIDTHS), make(*send(platform, unit_arrays())))


def test_images_too_wide_for_the_kernels_are_refused():
    with pytest.raises(ValueError, match="256 pixels in width"):
        definitions(links.PlainDenseNet(), (32, 512), "f")
    with pytest.raises(ValueError, match="shared memory"):
        definitions(links.PlainDenseNet(growth_rate=64), (32, 32), "f")


def test_images_that_are_augmented_do_not_fit_a_fully_connected_network(platform):
    iterator = image_iterator((8, 8), platform[1])
    with pytest.raises(ValueError, match="do not fit a network"):
        captured(platform, links.MaskedMLP(3 * 8 * 8, (5,), 5), iterator)


def test_other_networks_are_refused(platform):
    class Other(chainer.Chain):
        costs = numpy.ones(3)

    with pytest.raises(ValueError, match="MaskedMLP or a DenseNet"):
        captured(platform, Other(), unit_iterator(platform))
    with pytest.raises(ValueError, match="MLP or a fixed DenseNet"):
        updaters.GraphUpdater(unit_iterator(platform), optimizer_of(chainer.Chain()))


@pytest.mark.parametrize("platform", [GPU], indirect=True)
def test_the_papers_networks_train(platform):
    """At full size the losses stay numbers."""
    rng = numpy.random.default_rng(0)
    arrays = rng.integers(0, 256, (500, 784), dtype="u1"), rng.integers(0, 10, 500).astype("i")
    link = links.MaskedMLP(784, (784,) * 3, 10)
    iterator = ArrayIterator(send(platform, arrays), 32, seed=5, divisor=255)
    found = captured(platform, link, iterator)
    images = rng.integers(0, 256, (200, 3, 32, 32), dtype="u1"), arrays[1][:200]
    standardise = Standardise(*(platform[1].send(a) for a in channel_statistics(images[0])))
    dense = captured(
        platform, links.DenseNet(), ImageIterator(send(platform, images), 32, standardise)
    )
    for updater in (found, dense):
        for _ in range(30):
            updater.update()
        assert numpy.isfinite(updater.captured.take_loss())


@pytest.mark.parametrize("ignored", [(), (0, 3, 4), "all"])
@pytest.mark.parametrize("label_dtype", ["i", "q"])
def test_examples_without_a_class_are_left_out(platform, dtype, ignored, label_dtype):
    """Some or all of an epoch's, of a MaskedMLP; mini-batches have different numbers of them."""

    def arrays():
        x, t = unit_arrays()
        t = t.astype(label_dtype)
        t[list(range(50) if ignored == "all" else ignored)] = -1
        return x, t

    found = captured(
        platform,
        links.MaskedMLP(*WIDTHS, initialW=initialW()),
        ArrayIterator(send(platform, arrays()), 8, seed=5, divisor=255),
    )
    link = links.MaskedMLP(*WIDTHS, initialW=initialW())
    expected = StructureUpdater(
        ArrayIterator(arrays(), 8, seed=5, divisor=255),
        optimizer_of(link),
        bernoulli_of(link),
        converter=pass_arrays,
    )
    run_beside(found, expected, 10, lambda network: TO_CPU(network.x), dtype)


def test_images_without_a_class_are_left_out(platform, dtype):
    arrays = image_arrays((8, 8))
    arrays[1][:4] = -1
    statistics = channel_statistics(arrays[0])

    def iterator(send):
        standardise = Standardise(*(send(a) for a in statistics))
        return ImageIterator(tuple(send(a) for a in arrays), 3, standardise, seed=5)

    found = captured(platform, dense_net(), iterator(platform[1].send))
    link = dense_net()
    expected = StructureUpdater(
        iterator(lambda a: a), optimizer_of(link), bernoulli_of(link), converter=pass_arrays
    )

    def images(network):
        return TO_CPU(network.x).reshape(3, -1, 8, 8).transpose(1, 0, 2, 3)

    run_beside(found, expected, 3, images, dtype)


@pytest.mark.parametrize("case", range(3))
def test_what_is_no_number_is_not_lost(platform, case):
    """With any one parameter that is NaN, every unit and connection on, the loss is NaN."""
    make = next(itertools.islice(cases(platform), case, None))
    total = len(list(target_of(make()).params()))
    for k in range(0, total, 1 if case < 2 else 5):
        updater = make()
        set_theta_of(updater)
        parameter = list(target_of(updater).params())[k]
        parameter.array.reshape(-1)[-1:] = numpy.nan
        updater.update()
        assert numpy.isnan(updater.captured.take_loss()), parameter.name
        # What was trained shows it, too.
        assert numpy.isnan(TO_CPU(parameter.array)).any()


def set_theta_of(updater):
    if hasattr(updater, "bernoulli"):
        updater.bernoulli.theta[...] = 1
    else:  # nothing is dropped
        updater.get_optimizer("main").target.dropout_ratio = 0.5
        updater.captured.program.launches = [
            launch for launch in updater.captured.program.launches if launch.name != "drop"
        ]
        updater.captured.network.structures[...] = 1


def target_of(updater):
    return updater.get_optimizer("main").target


def norm_of(updater):
    return target_of(updater).blocks[1].norms[0]


def set_of(find, name, value):
    def change(updater):
        setattr(find(updater), name, value)

    return change


def itself(updater):
    return updater


def distribution(updater):
    return updater.bernoulli


def data_iterator(updater):
    return updater.get_iterator("main")


def replaced_array(updater):
    parameter = next(target_of(updater).params())
    parameter.array = parameter.array.copy()


def replaced_velocity(updater):
    rule = next(target_of(updater).params()).update_rule
    rule.state["v"] = rule.state["v"].copy()


def replaced_theta(updater):
    updater.bernoulli.theta = updater.bernoulli.theta.copy()


def replaced_average(updater):
    norm_of(updater).avg_mean = norm_of(updater).avg_mean.copy()


def own_forward(updater):
    target_of(updater).forward = lambda x, structures: x


def link_hook(updater):
    from chainer.link_hooks import WeightStandardization

    layer = target_of(updater).output
    layer.add_hook(WeightStandardization())


UNITS, DROPOUT, CONNECTIONS = range(3)


@pytest.mark.parametrize(
    ("case", "change", "named"),
    [
        (DROPOUT, set_of(target_of, "dropout_ratio", 0.2), "dropout_ratio is 0.2 now and 0.5"),
        (DROPOUT, set_of(target_of, "dropout_ratio", 0.0), "dropout_ratio is 0.0 now"),
        (CONNECTIONS, set_of(norm_of, "decay", 0.5), "/blocks/1/norms/0: decay is 0.5 now and 0.9"),
        (CONNECTIONS, set_of(norm_of, "eps", 0.5), "eps is 0.5 now"),
        (CONNECTIONS, replaced_average, "avg_mean was replaced"),
        (UNITS, set_of(distribution, "eta", 0.3), "eta is 0.3 now"),
        (UNITS, set_of(distribution, "epsilon0", 0.3), "epsilon0 is 0.3 now"),
        (UNITS, replaced_theta, "theta was replaced"),
        (UNITS, replaced_array, "array was replaced"),
        (UNITS, replaced_velocity, "the velocity was replaced"),
        (UNITS, set_of(itself, "samples", 3), "samples is 3 now"),
        (UNITS, set_of(itself, "loss_func", chainer.functions.hinge), "softmax cross entropy"),
        (UNITS, set_of(data_iterator, "batch_size", 4), "batch_size is 4 now"),
        (UNITS, set_of(data_iterator, "divisor", 1), "divisor is 1 now"),
        (UNITS, set_of(data_iterator, "arrays", ()), "arrays was replaced"),
        (UNITS, own_forward, "its own forward"),
        (UNITS, link_hook, "WeightStandardization"),
    ],
)
@pytest.mark.parametrize("before", [0, 2])
def test_what_is_captured_and_changed_is_refused_by_name(platform, case, change, named, before):
    updater = next(itertools.islice(cases(platform), case, None))()
    for _ in range(before):
        updater.update()
    change(updater)
    with pytest.raises(ValueError, match=named):
        updater.update()
    assert updater.iteration == before


def test_batch_normalisations_that_differ_are_refused(platform):
    link = dense_net()
    link.blocks[0].norms[1].decay = 0.5
    with pytest.raises(ValueError, match="one decay and one eps"):
        captured(platform, link, image_iterator((8, 8), platform[1]))


class OwnForward(links.MaskedMLP):
    def forward(self, x, structures):
        return super().forward(2 * x, structures)


def test_a_forward_pass_of_ones_own_is_refused(platform):
    with pytest.raises(ValueError, match="OwnForward has its own forward"):
        captured(platform, OwnForward(*WIDTHS), unit_iterator(platform))


def test_positions_that_somebody_moved_are_respected(platform):
    """Mini-batches taken and structures drawn between two iterations, or before the first."""
    with chainer.using_config("dtype", numpy.dtype("d")):
        iterator = unit_iterator(platform)
        iterator.next()
        found = captured(platform, links.MaskedMLP(*WIDTHS), iterator)
        plain = ArrayIterator(unit_arrays(), 8, seed=5, divisor=255)
        plain.next()
        for step in range(3):
            found.captured.run()
            x, _ = plain.next()
            numpy.testing.assert_array_equal(TO_CPU(found.captured.network.x), x)
            drawn = philox_uniforms(numpy, found.bernoulli.uniforms.key, 3 * step, 2, 60) < 0.5
            numpy.testing.assert_array_equal(TO_CPU(found.captured.network.structures), drawn)
            iterator.next()
            plain.next()
            found.bernoulli.theta[...] = 0.5
            found.bernoulli.uniforms.position += 1


def test_a_fixed_structure_may_change(platform):
    structure = make_structures("random", 1, len(dense_net().costs), generator((6,)))[0]
    link = links.FixedStructure(dense_net(), structure)
    found = captured(platform, link, image_iterator((8, 8), platform[1]))
    found.update()
    link.structure[...] = True
    found.update()
    assert TO_CPU(found.captured.network.structures).all()
