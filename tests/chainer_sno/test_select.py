"""Plain networks made searchable, by the layers that are named."""

import numpy
import pytest

import chainer_sno
from chainer_sno import chainer, compact, complexity, links, profile, testing
from chainer_sno.links import select
from tests.chainer_sno.networks import NETWORKS, SHAPE

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
