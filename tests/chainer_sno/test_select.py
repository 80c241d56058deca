"""Plain networks made searchable, by the layers that are named."""

import numpy
import pytest

import chainer_sno
from chainer_sno import chainer, compact, complexity, links, profile, testing
from chainer_sno.links import select
from tests.chainer_sno.networks import MLP, NETWORKS, SHAPE, raise_the_flag

F, L = chainer.functions, chainer.links


def make(name, rng=None, **arguments):
    """Return a selected network; with rng as after a training."""
    kind, layers = NETWORKS[name]
    link = select(kind(), layers, SHAPE, **arguments)
    if rng is not None:
        for parameter in link.params():
            noise = 0.3 * rng.standard_normal(parameter.shape)
            parameter.array += noise.astype(parameter.dtype)
        for child in link.links():
            if isinstance(child, L.BatchNormalization):
                child.avg_mean[...] = rng.standard_normal(child.avg_mean.shape)
                child.avg_var[...] = rng.uniform(0.3, 2, child.avg_var.shape)
    return link


def examples(rng, n=3):
    return rng.standard_normal((n, *SHAPE)).astype(chainer.get_dtype())


def outputs_at(link, structure, x):
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        return link(x, structure[None])[0].array


def evaluate(network, x):
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        return network(x).array


@pytest.mark.parametrize("name", NETWORKS)
def test_it_keeps_the_contract(name, rng):
    numpy.random.seed(0)
    report = testing.check_searchable(make(name), examples(rng, 2), bits=2)
    assert {"groups", "costs_of", "gradients", "bits", "weight_ratio", "compact"} <= {
        *report.passed
    }
    norms = any(isinstance(link, L.BatchNormalization) for link in make(name).links())
    assert norms == any("batch normalisation" in note for note in report.notes)


@pytest.mark.parametrize("name", NETWORKS)
def test_it_trains_and_compacts(name, rng):
    numpy.random.seed(0)
    link = make(name, rng)
    x, t = examples(rng, 8), rng.integers(0, 4, 8).astype("i")
    before = {path: p.array.copy() for path, p in link.namedparams()}
    optimizer = chainer.optimizers.NesterovAG(lr=0.01).setup(link)
    bernoulli = chainer_sno.Bernoulli(link.costs, epsilon0=0.1, eta=0.1)
    updater = chainer_sno.StructureUpdater(
        chainer_sno.ArrayIterator((x, t), 4), optimizer, bernoulli
    )
    updater.update()
    assert all((p.array != before[path]).any() for path, p in link.namedparams() if p.ndim > 1)
    for p in (0.3, 0.6, 1.0):
        structure = rng.random(link.d) < p
        for group in link.groups.values():
            structure[group.start] = True  # some path remains
        small = compact(link, structure, reestimate=0)
        expected = outputs_at(link, structure, x)
        scale = abs(expected).max()
        numpy.testing.assert_allclose(evaluate(small, x), expected, rtol=0, atol=1e-5 * scale)
        assert type(small) is type(link.network)
        assert all(parameter.update_rule is None for parameter in small.params())
        full = structure.all()
        assert (small.count_params() < link.count_params()) == (not full)


@pytest.mark.parametrize("name", NETWORKS)
def test_costs_and_what_remains_are_counted_on_the_smaller_network(name, rng):
    link = make(name, rng)
    full = numpy.ones(link.d, dtype=bool)
    whole = profile.count(link.compact(full), SHAPE)
    costs = {what: complexity.costs(link, what) for what in ("weights", "flops")}
    numpy.testing.assert_array_equal(link.costs, costs["flops"])
    assert link.weight_ratio(full) == 1
    for bit in range(0, link.d, 3):
        without = full.copy()
        without[bit] = False
        left = profile.count(link.compact(without), SHAPE)
        for what, c in costs.items():
            assert link.remaining(without)[what] == (left[what], whole[what])
            assert c[bit] == whole[what] - left[what]
        assert link.weight_ratio(without) == left["weights"] / whole["weights"]
    half = rng.random(link.d) < 0.7
    for group in link.groups.values():
        half[group.start] = True
    left = profile.count(link.compact(half), SHAPE)
    assert link.remaining(half) == {what: (left[what], whole[what]) for what in costs}


def test_flops_follow_the_size_of_the_image(rng):
    link = make("allconv")
    x = numpy.zeros((1, 3, 20, 24), "f")
    full = numpy.ones(link.d, dtype=bool)
    without = full.copy()
    without[7] = False
    counts = [profile.count(link.compact(s), x.shape[1:])["flops"] for s in (full, without)]
    assert complexity.costs(link, "flops", x)[7] == counts[0] - counts[1]
    assert link.remaining(without, x.shape[1:])["flops"] == (counts[1], counts[0])
    numpy.testing.assert_array_equal(
        complexity.costs(link, "weights", x), complexity.costs(link, "weights")
    )


def test_ties_have_names(rng):
    assert list(make("resnet").groups) == [
        "conv1",
        "res2/0/conv1",
        "res2/0/conv2",
        "res2/0/conv3+res2/0/conv4+res2/1/conv3",
        "res2/1/conv2",
    ]
    # One bit for the same place of both groups.
    resnext = make("resnext")
    assert resnext.groups["res2/0/conv1"] == slice(5, 7)
    assert list(make("mobilenet").groups) == ["conv1+dw2", "pw2+dw3", "pw3"]
    assert list(make("se").groups) == ["conv1+up", "down", "conv2"]


class Wide(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.a = L.Linear(6, 5)
            self.b = L.Linear(6, 4)
            self.out = L.Linear(9, 3)

    def forward(self, x):
        return self.out(F.concat([F.sigmoid(self.a(x)), F.softplus(self.b(x))]))


def test_a_layer_that_keeps_nothing_gives_nothing(rng):
    link = select(Wide(), ["a", "b"], (6,))
    link.network.b.b.array[...] = 1
    x = rng.standard_normal((4, 6)).astype("f")
    structure = numpy.arange(9) < 5
    small = link.compact(structure)
    numpy.testing.assert_allclose(
        evaluate(small, x), outputs_at(link, structure, x), rtol=0, atol=1e-6
    )
    assert small.b.W.shape == (1, 6)
    assert (small.out.W.array[:, 5] == 0).all()
    with pytest.raises(ValueError, match="do not depend on x: a, b keep no channel"):
        link.compact(numpy.zeros(9, dtype=bool))


def test_the_network_stays_as_it_is(rng):
    network = NETWORKS["vgg"][0]()
    x = examples(rng)
    expected = evaluate(network, x)  # makes the parameters
    names = [name for name, _ in network.namedparams()]
    state = numpy.random.get_state()[1].copy()
    link = select(network, NETWORKS["vgg"][1], SHAPE)
    numpy.testing.assert_array_equal(numpy.random.get_state()[1], state)
    numpy.testing.assert_array_equal(evaluate(network, x), expected)
    assert [name for name, _ in network.namedparams()] == names
    assert [name for name, _ in link.namedparams()] == ["/network" + name for name in names]
    full = numpy.ones(link.d, dtype=bool)
    numpy.testing.assert_array_equal(outputs_at(link, full, x), expected)
    with pytest.raises(Exception, match="must have the shape"):
        link(x, full[None, 1:])
    assert all("forward" not in vars(child) for child in link.links())


def test_a_forward_pass_that_fails_leaves_no_mask(rng):
    link = make("lenet")
    with pytest.raises(Exception):  # noqa: B017, PT011  (Chainer's own)
        link(numpy.zeros((2, 4, 16, 16), "f"), numpy.ones((1, link.d), dtype=bool))
    assert all("forward" not in vars(child) for child in link.links())


class Listed(chainer.Chain):
    """A network with a second list of its layers, which is no link."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.first = L.Linear(5, 6)
            self.second = L.Linear(6, 3)
        self.order = [self.first, F.relu, self.second]

    def forward(self, x):
        for layer in self.order:
            x = layer(x)
        return x


def test_copies_share_nothing(rng):
    link = select(Listed(), ["first"], (5,))
    x = rng.standard_normal((3, 5)).astype("f")
    testing.check_searchable(link, x)
    copy = link.copy("copy")
    assert copy.network.order[0] is copy.network.first
    full = numpy.ones(6, dtype=bool)
    before = outputs_at(link, full, x)
    copy.network.first.W.array[...] = 0
    numpy.testing.assert_array_equal(outputs_at(link, full, x), before)
    assert not numpy.array_equal(outputs_at(copy, full, x), before)
    structure = numpy.arange(6) % 2 == 0
    numpy.testing.assert_allclose(
        evaluate(link.compact(structure), x), outputs_at(link, structure, x), rtol=0, atol=1e-6
    )


def test_a_snapshot_goes_into_another_one(rng, tmp_path):
    link, x = make("resnet", rng), examples(rng)
    chainer.serializers.save_npz(tmp_path / "x.npz", link)
    other = make("resnet")
    chainer.serializers.load_npz(tmp_path / "x.npz", other)
    structure = rng.random(link.d) < 0.6
    numpy.testing.assert_array_equal(
        outputs_at(other, structure, x), outputs_at(link, structure, x)
    )


class Trouble(chainer.Chain):
    """Two layers with something between them that cannot be followed, or at the end."""

    def __init__(self, between, after=lambda y: y):
        super().__init__()
        self.between = between
        self.after = after
        with self.init_scope():
            self.conv1 = L.Convolution2D(3, 4, 3, pad=1)
            self.conv2 = L.Convolution2D(4, 4, 3, pad=1)
            self.extra = chainer.Parameter(1.0, (4, 1, 1))
            self.norm = L.LayerNormalization(4 * 16)
            self.fc = L.Linear(None, 2)

    def forward(self, x):
        return self.after(self.fc(F.relu(self.conv2(self.between(self, F.relu(self.conv1(x)), x)))))


def rows(self, h, x):
    return F.reshape(self.norm(F.reshape(h, (len(h), -1))), h.shape)


REFUSED = {
    "LocalResponseNormalization": lambda self, h, x: F.local_response_normalization(h),
    "Softmax": lambda self, h, x: F.softmax(h),
    "MatMul": lambda self, h, x: F.matmul(h, h),
    "in norm": rows,
    "parameter that belongs to no layer": lambda self, h, x: h * self.extra,
    "meet what is always there": lambda self, h, x: h * F.broadcast_to(self.extra, h.shape),
    "they meet": lambda self, h, x: h + F.concat([x, x[:, :1]]),
    "states a number of channels": lambda self, h, x: F.reshape(
        F.reshape(h, (len(h), 2, 2, 4, 4)), (len(h), 4, 4, 4)
    ),
    "no layer takes them": lambda self, h, x: F.concat([h[:, :2], h[:, :2]]),
    "no layer .* outputs of Trouble come from": lambda self, h, x: chainer.Variable(h.array),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_followed_is_refused_by_name(what):
    with pytest.raises(ValueError, match=what) as error:
        select(Trouble(REFUSED[what]), ["conv1"], (3, 4, 4))
    assert "\n" not in str(error.value)
    assert "by hand" in str(error.value) or "give some of conv2, fc" in str(error.value)
    # The layer behind it is another matter.
    if what != "states a number of channels":
        select(Trouble(REFUSED[what]), ["conv2"], (3, 4, 4))


def swapped(self, h, x):
    a, b = F.split_axis(h, [h.shape[1] // 2], 1)
    return F.concat((b, a))


def rolled(self, h, x):
    return F.concat((h[:, 1:], h[:, :1]))


def shuffled(self, h, x):
    n, c, *size = h.shape
    return F.reshape(F.swapaxes(F.reshape(h, (n, 2, c // 2, *size)), 1, 2), h.shape)


def shuffled_back(self, h, x):
    n, c, *size = h.shape
    return F.reshape(F.swapaxes(F.reshape(h, (n, c // 2, 2, *size)), 1, 2), h.shape)


def one_by_one(self, h, x):
    # A list of the places, so that the number of channels is never stated.
    order = numpy.roll(numpy.arange(h.shape[1]), 1)
    return h[:, order]


def stacked_again(self, h, x):
    channels = F.separate(h, axis=1)
    return F.stack([*channels[1:], channels[0]], axis=1)


def halves_swapped_at_a_border(self, h, x):
    both = F.concat((h, x))
    a, b = F.split_axis(both, [h.shape[1]], 1)
    return a + F.mean(b)


def to_space(self, h, x):
    return F.space2depth(F.depth2space(h, 2), 2)


BY_PLACE = {
    swapped: "SplitAxis, which takes some by their places",
    rolled: "GetItem, which takes some by their places",
    shuffled: "Reshape, which divides them among several axes",
    shuffled_back: "Reshape, which divides them among several axes",
    one_by_one: "GetItem, which takes some by their places",
    stacked_again: "Separate, which takes some by their places",
    halves_swapped_at_a_border: "SplitAxis, which takes some by their places",
    to_space: "Depth2Space, which divides them among several axes",
}


@pytest.mark.parametrize("between", BY_PLACE)
def test_what_depends_on_the_number_of_channels_is_refused_by_name(between):
    with pytest.raises(ValueError, match=f"channels of conv1 .*{BY_PLACE[between]}"):
        select(Trouble(between), ["conv1"], (3, 4, 4))
    select(Trouble(between), ["conv2"], (3, 4, 4))


@pytest.mark.parametrize("between", [swapped, rolled, shuffled, shuffled_back, one_by_one])
def test_smaller_networks_are_compared_at_structures_without_symmetry(between, monkeypatch):
    monkeypatch.setattr(links.channels.Channels, "counted", lambda self: {})
    with pytest.raises(ValueError, match=r"computes something else|cannot be called"):
        select(Trouble(between), ["conv1"], (3, 4, 4))


def branching(limit):
    return lambda self, h, x: F.tanh(h) if h.shape[1] > limit else h


@pytest.mark.parametrize(
    "between",
    [branching(3), branching(2), branching(1), lambda self, h, x: h * (4.0 / h.shape[1])],
)
def test_code_that_asks_for_the_number_of_channels_is_refused(between):
    with pytest.raises(ValueError, match=r"keeps . of 4 of conv1.*h\.shape\[1\]"):
        select(Trouble(between), ["conv1"], (3, 4, 4))


def test_a_part_that_is_dropped_is_refused_by_name():
    with pytest.raises(ValueError, match="no layer takes them, and .* GetItem"):
        select(Trouble(lambda self, h, x: F.concat([h[:, :2]] * 2)), ["conv1"], (3, 4, 4))


def test_a_link_that_is_no_child_is_refused_by_name():
    norm = L.BatchNormalization(4)
    with pytest.raises(ValueError, match="into a BatchNormalization that is no child"):
        select(Trouble(lambda self, h, x: norm(h)), ["conv1"], (3, 4, 4))
    select(Trouble(lambda self, h, x: norm(h)), ["conv2"], (3, 4, 4))


def test_structures_to_check_differ_and_keep_something_of_each_group():
    link = make("lenet")
    structures = link._structures_to_check()
    assert len({structure.tobytes() for structure in structures}) == len(structures) == 8
    for path, group in link.groups.items():
        parts = [structure[group] for structure in structures]
        n = len(parts[0])
        assert all(part.any() for part in parts), path
        numpy.testing.assert_array_equal(parts[1], numpy.arange(n) < n // 2)
        numpy.testing.assert_array_equal(parts[2], numpy.arange(n) >= n - n // 2)
        assert parts[3].sum() == n - 1
        assert parts[4].sum() == 1


class Moved(chainer.Chain):
    """What moves channels and does not depend on their number: it stays possible."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.conv1 = L.Convolution2D(3, 8, 3, pad=1)
            self.conv2 = L.Convolution2D(8, 6, 3, pad=1, groups=2)
            self.conv3 = L.Convolution2D(6, 6, 3, pad=1)
            self.fc = L.Linear(None, 4)

    def forward(self, x):
        h = F.relu(self.conv1(x))[:, ::-1, 1:]
        h = F.relu(self.conv2(F.flip(h, 1)))
        # The shuffle of a ShuffleNet, behind a grouped convolution.
        n, c, *size = h.shape
        h = F.reshape(F.swapaxes(F.reshape(h, (n, 2, c // 2, *size)), 1, 2), h.shape)
        h = F.relu(self.conv3(h))
        h = h[..., : h.shape[1], 1:, 1]
        return self.fc(F.reshape(h, (n, -1)))


def test_what_moves_all_channels_is_followed(rng):
    link = select(Moved(), ["conv1", "conv2", "conv3"], (3, 5, 4))
    assert link.groups == {"conv1": slice(0, 4), "conv2": slice(4, 7), "conv3": slice(7, 13)}
    x = rng.standard_normal((3, 3, 5, 4)).astype("f")
    for _ in range(10):
        structure = rng.random(link.d) < 0.5
        for group in link.groups.values():
            structure[group.start] = True
        numpy.testing.assert_allclose(
            evaluate(link.compact(structure), x), outputs_at(link, structure, x), rtol=0, atol=1e-5
        )


@pytest.mark.parametrize(
    ("changed", "kind", "message"),
    [
        ({"reestimate": True}, TypeError, "whole number of training mini-batches.*True"),
        ({"reestimate": 1.5}, TypeError, "whole number .* not 1.5"),
        ({"reestimate": "x"}, TypeError, "whole number .* not 'x'"),
        ({"reestimate": None}, TypeError, "whole number .* not None"),
        ({"reestimate": -1}, ValueError, "at least 0, not -1"),
        ({"x_shape": 3}, TypeError, "shape of one example.* not 3"),
        ({"x_shape": "345"}, TypeError, "shape of one example.* not '345'"),
        ({"x_shape": (3, 4.0, 4)}, TypeError, "whole numbers"),
        ({"x_shape": (3, True, 4)}, TypeError, "whole numbers"),
        ({"x_shape": None}, TypeError, "not None"),
        ({"x_shape": (3, 0, 4)}, ValueError, "at least 1"),
        ({"x_shape": (3, -4, 4)}, ValueError, "at least 1"),
        ({"layers": [1]}, TypeError, "paths of layers.* int"),
        ({"layers": None}, TypeError, "paths of layers.* NoneType"),
        ({"layers": 3}, TypeError, "paths of layers.* int"),
    ],
)
def test_arguments_of_another_kind_are_refused_at_once(changed, kind, message):
    arguments = {"layers": ["conv1"], "x_shape": (3, 4, 4), "reestimate": 0, **changed}
    with pytest.raises(kind, match=message) as error:
        select(Trouble(lambda self, h, x: 1 / 0), **arguments)
    assert "\n" not in str(error.value)


def test_flags_of_floating_point_errors_are_no_failure(rng):
    class Flags(MLP):
        def forward(self, x):
            raise_the_flag()
            return super().forward(x)

    with pytest.raises(RuntimeWarning, match="invalid value"):
        Flags()(examples(rng))
    link = select(Flags(), ["l1", "l2"], SHAPE)
    assert "compact" in testing.check_searchable(link, examples(rng, 2), bits=2).passed


def test_reestimate_may_be_a_number_of_numpy():
    link = make("resnet", reestimate=numpy.int64(3))
    assert link.reestimate == 3
    assert type(link.reestimate) is int


def test_theta_is_no_structure(rng):
    link, x = make("mlp"), examples(rng)
    full = numpy.ones((1, link.d))
    numpy.testing.assert_array_equal(
        link(x, full.astype("i"))[0].shape, link(x, full.astype(bool))[0].shape
    )
    for number in (0.5, 2, -1, numpy.nan):
        with pytest.raises(Exception, match="must consist of 0 and 1"):
            link(x, full * number)


def test_what_is_no_network_of_layers_is_refused():
    plain = lambda self, h, x: h  # noqa: E731
    good = Trouble(plain)
    select(good, ["conv1", "conv2"], (3, 4, 4))
    for layers, message in [
        (["conv3"], "'conv3' is no layer .* give some of conv1, conv2, fc"),
        (["norm"], "is no layer"),
        (["conv1", "/conv1"], "named twice"),
        ([], "name one layer"),
        (["fc"], "channels of fc cannot be selected: they are the network's outputs"),
    ]:
        with pytest.raises(ValueError, match=message):
            select(good, layers, (3, 4, 4))
    with pytest.raises(TypeError, match="give its predictor"):
        select(L.Classifier(good), ["predictor/conv1"], (3, 4, 4))
    with pytest.raises(TypeError, match="searchable already"):
        select(links.MaskedMLP(3, (2,), 2), ["hidden"], (3,))
    with pytest.raises(TypeError, match=r"no chainer\.Link"):
        select(lambda x: x, ["a"], (3,))
    with pytest.raises(ValueError, match="cannot be called with a mini-batch of shape"):
        select(Trouble(plain), ["conv1"], (5, 4, 4))
    with pytest.raises(ValueError, match="returns a tuple"):
        select(Trouble(plain, lambda y: (y, y)), ["conv1"], (3, 4, 4))
    with pytest.raises(ValueError, match="must be one of units, weights, flops"):
        select(good, ["conv1"], (3, 4, 4), criterion="rows")


def test_a_layer_that_is_called_twice_is_cut_once(rng):
    class Recurrent(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.first = L.Linear(5, 6)
                self.again = L.Linear(6, 6)
                self.out = L.Linear(6, 2)

        def forward(self, x):
            h = F.tanh(self.first(x))
            for _ in range(2):
                h = F.tanh(self.again(h))
            return self.out(h)

    link = select(Recurrent(), ["first"], (5,))
    assert list(link.groups) == ["first+again"]
    x = rng.standard_normal((3, 5)).astype("f")
    testing.check_searchable(link, x)
    small = link.compact(numpy.arange(6) < 4)
    assert small.again.W.shape == (4, 4)
    assert link.remaining(numpy.ones(6, dtype=bool))["flops"][1] == 2 * (30 + 2 * 36 + 12)


def test_batch_statistics_are_those_of_one_structure(rng):
    link, x = make("resnet", rng), examples(rng, 6)
    again = link.copy("copy")
    structures = rng.random((2, link.d)) < 0.6
    with chainer.using_config("train", True):
        link(x, structures)
        for structure in structures:
            again(x, structure[None])
    for norm, other in zip(link.links(), again.links()):
        if isinstance(norm, L.BatchNormalization):
            numpy.testing.assert_array_equal(norm.avg_mean, other.avg_mean)
            numpy.testing.assert_array_equal(norm.avg_var, other.avg_var)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["vgg", "resnext", "mobilenet"])
def test_on_a_gpu_it_computes_the_same(name, rng):
    link, x = make(name, rng), examples(rng)
    structures = rng.random((2, link.d)) < 0.7
    expected = [outputs_at(link, structure, x) for structure in structures]
    small = link.compact(structures[0])
    link.to_device("@cupy:0")
    cupy = chainer.backends.cuda.cupy
    for structure, y in zip(structures, expected):
        found = outputs_at(link, cupy.asarray(structure), cupy.asarray(x))
        numpy.testing.assert_allclose(found.get(), y, rtol=0, atol=1e-3 * abs(y).max())
    again = link.compact(cupy.asarray(structures[0]))
    assert again.device == link.device
    for (path, p), (_, q) in zip(sorted(small.namedparams()), sorted(again.namedparams())):
        numpy.testing.assert_array_equal(p.array, q.array.get(), path)
