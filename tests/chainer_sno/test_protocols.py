"""Networks that are not of the library: the protocols are all that the backends need."""

import importlib.util

import numpy
import pytest

import chainer_sno
from chainer_sno import chainer, links, protocols, testing, uniforms
from chainer_sno.graph.updaters import GraphStructureUpdater, GraphUpdater
from tests.chainer_sno.cuda.emulator import COMPILER, Emulator
from tests.chainer_sno.networks import raise_the_flag

F, L = chainer.functions, chainer.links
needs_numba = pytest.mark.skipif(
    importlib.util.find_spec("numba") is None, reason="the fast path needs numba"
)
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler")


class Own(chainer.Chain):
    """A searchable network of two hidden layers that shares no code with the library's."""

    sizes = 8, 5, 4, 3

    def __init__(self):
        super().__init__()
        rng = numpy.random.default_rng(1)
        with self.init_scope():
            self.a, self.b, self.c = (
                L.Linear(n, m, initialW=rng.normal(0, 0.5, (m, n)))
                for n, m in zip(self.sizes, self.sizes[1:])
            )
        self.costs = numpy.arange(1.0, 10.0)

    def forward(self, x, structures):
        outputs = []
        for bits in structures.astype(x.dtype):
            h = F.relu(self.a(x)) * bits[:5]
            h = F.relu(self.b(h)) * bits[5:]
            outputs.append(self.c(h))
        return outputs

    def fast_layers(self):
        return [self.a, self.b, self.c]


class OwnFixed(Own):
    """The same network without structures."""

    def __init__(self):
        super().__init__()
        del self.costs

    def forward(self, x):
        return self.c(F.relu(self.b(F.relu(self.a(x)))))


class OwnDense(chainer.Chain):
    """A network around a DenseNet, which computes what that does."""

    def __init__(self):
        super().__init__()
        rng = numpy.random.RandomState(2)
        with self.init_scope():
            initialW = chainer.initializers.HeNormal(rng=rng)
            self.net = links.PlainDenseNet(7, 2, 3, 4, 3, initialW=initialW)
        self.costs = self.net.costs

    def forward(self, x, structures):
        return self.net(x, structures)

    def dense_parts(self):
        return self.net.dense_parts()


def train(link, backend, samples=2, x_shape=(8,), iterations=6):
    """Return the updater after some iterations in float64; ``graph`` runs on the host."""
    rng = numpy.random.default_rng(0)
    arrays = rng.random((40, *x_shape)), rng.integers(0, 3, 40).astype("i")
    iterator = chainer_sno.ArrayIterator(arrays, 10, seed=1)
    optimizer = chainer.optimizers.NesterovAG(0.1).setup(link)
    optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(1e-3))
    bernoulli = None
    if hasattr(link, "costs"):
        bernoulli = chainer_sno.Bernoulli(link.costs, 0.25, eta=0.1, seed=3)
    if backend != "graph":
        found = chainer_sno.make_updater(iterator, optimizer, bernoulli, samples, backend)
    elif bernoulli is None:
        found = GraphUpdater(iterator, optimizer, Emulator)
    else:
        found = GraphStructureUpdater(iterator, optimizer, bernoulli, samples, Emulator)
    assert isinstance(found, protocols.Updater)
    for _ in range(iterations):
        found.update()
    found.synchronise()
    return found


@pytest.fixture(autouse=True)
def _double():
    with chainer.using_config("dtype", numpy.dtype("d")):
        yield


CASES = [
    pytest.param("fast", Own, (8,), marks=needs_numba, id="fast-own"),
    pytest.param("fast", OwnFixed, (8,), marks=needs_numba, id="fast-own-fixed"),
    pytest.param("graph", OwnFixed, (8,), marks=needs_compiler, id="graph-own-fixed"),
]


@pytest.mark.parametrize(("backend", "kind", "x_shape"), CASES)
@pytest.mark.parametrize("samples", [1, 2, 4])
def test_a_network_of_ones_own_has_a_fast_path(backend, kind, x_shape, samples):
    if samples != 2 and kind is OwnFixed:
        pytest.skip("a fixed network has no samples")
    found, expected = (train(kind(), name, samples, x_shape) for name in (backend, "reference"))
    for (name, a), (_, b) in zip(
        *(u.get_optimizer("main").target.namedparams() for u in (found, expected))
    ):
        numpy.testing.assert_allclose(a.array, b.array, 1e-10, 1e-10, name)
    if samples > 1 and kind is not OwnFixed:
        numpy.testing.assert_allclose(found.bernoulli.theta, expected.bernoulli.theta, 1e-12)
        assert (found.bernoulli.theta != 0.5).any()


@needs_compiler
@pytest.mark.parametrize(("kind", "x_shape"), [(Own, (8,)), (OwnDense, (3, 8, 8))])
def test_the_graph_of_a_network_of_ones_own(kind, x_shape):
    """The structures of the two backends differ, so the reference is given those of the graph."""
    found = train(kind(), "graph", x_shape=x_shape, iterations=0)
    expected = train(kind(), "reference", x_shape=x_shape, iterations=0)
    iterator = expected.get_iterator("main")
    for _ in range(4):
        x, t = iterator.next()
        found.update()
        structures = found.captured.network.structures.astype(bool)
        losses = expected.step(x, t, structures)
        numpy.testing.assert_allclose(found.captured.losses, losses, 1e-9)
    assert structures.any()
    numpy.testing.assert_allclose(found.bernoulli.theta, expected.bernoulli.theta, 1e-12)


def test_the_librarys_networks_keep_the_protocols():
    masked, plain = links.MaskedMLP(8, (5,), 3), links.MLP(8, (5,), 3)
    dense = links.DenseNet(7, 2)
    fixed = links.FixedStructure(dense, numpy.ones(len(dense.costs)))
    for link, searchable, layers, parts in (
        (masked, True, True, False),
        (plain, False, True, False),
        (dense, True, False, True),
        (fixed, False, False, True),
    ):
        assert isinstance(link, protocols.SearchableLink) == searchable
        assert isinstance(link, protocols.FullyConnected) == layers
        assert isinstance(link, protocols.DenselyConnected) == parts


class TooFewBits(Own):
    def __init__(self):
        super().__init__()
        self.costs = numpy.ones(8)


class OtherOrder(Own):
    def forward(self, x, structures):
        return super().forward(x, structures[:, ::-1])


class NoBias(Own):
    def fast_layers(self):
        return [self.a, L.Linear(5, 4, nobias=True), self.c]


class NoFit(Own):
    def fast_layers(self):
        return [self.a, self.c]


class Refuses(Own):
    def fast_layers(self):
        raise ValueError("there is no fast path today")


class Shared(OwnFixed):
    """The second layer is there twice."""

    sizes = 8, 5, 5, 3

    def forward(self, x):
        h = F.relu(self.b(F.relu(self.a(x))))
        return self.c(F.relu(self.b(h)))

    def fast_layers(self):
        return [self.a, self.b, self.b, self.c]


class Tied(Shared):
    """Two layers have one matrix."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.again = L.Linear(5, 5)
            self.again.W = self.b.W

    def fast_layers(self):
        return [self.a, self.b, self.again, self.c]


class Beside(OwnFixed):
    """Weight decay moves a layer that the outputs do not need."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.aside = L.Linear(2, 2)


class OtherDtypes(OwnFixed):
    def __init__(self):
        super().__init__()
        for parameter in self.b.params():
            parameter.array = parameter.array.astype("f")

    def forward(self, x):
        h = self.b(F.cast(F.relu(self.a(x)), "f"))
        return self.c(F.cast(F.relu(h), "d"))


class OwnLayer(OwnFixed):
    def __init__(self):
        super().__init__()
        self.b.forward = lambda x: 2 * L.Linear.forward(self.b, x)


class OwnDropout(OwnFixed):
    dropout_ratio = 0.5

    def forward(self, x):
        h = F.dropout(F.relu(self.a(x)), self.dropout_ratio)
        return self.c(F.dropout(F.relu(self.b(h)), self.dropout_ratio))


class OtherColumns(OwnDropout):
    dropout_factors = links.MLP.dropout_factors
    uniforms = uniforms.Uniforms(8)


class DropsBoth(Own):
    """Units are dropped beside the structures."""

    dropout_ratio = 0.5

    def forward(self, x, structures):
        return [F.dropout(y, self.dropout_ratio) for y in super().forward(x, structures)]


class OwnFactors(links.MLP):
    def __init__(self):
        super().__init__(8, (5, 4), 3, 0.5)

    def dropout_factors(self, samples, dtype):
        return numpy.ones((samples, 9), dtype)


class Tanh(Own):
    def forward(self, x, structures):
        h = F.tanh(self.a(x))
        return [self.c(F.relu(self.b(h * bits[:5])) * bits[5:]) for bits in structures.astype("d")]


class OwnScale(OwnFixed):
    def forward(self, x):
        return super().forward(1.001 * x)


class NeedsImages(OwnFixed):
    def forward(self, x):
        return super().forward(x[:, :, 0, 0])


class NoLayers(OwnFixed):
    def fast_layers(self):
        return []


REFUSED = [
    (TooFewBits, "a bit for each of the 9 hidden units, and TooFewBits has 8"),
    (NoFit, "the layers of NoFit do not fit together"),
    (NoBias, "supports Linear with a bias, not one without"),
    (Refuses, "no fast path today"),
    (Shared, "layers of Shared share parameters"),
    (Tied, "layers of Tied share parameters"),
    (Beside, "leave out parameters of Beside, /aside/W, /aside/b"),
    (OtherDtypes, "layers of OtherDtypes have float32 and float64"),
    (OwnLayer, "Linear has its own forward"),
    (OwnDropout, "dropout_ratio 0.5 and no dropout_factors and no uniforms"),
    (OtherColumns, "each of the 9 hidden units, and the uniforms of OtherColumns have 8 columns"),
    (DropsBoth, "no Dropout beside structures, and DropsBoth has the dropout_ratio 0.5"),
    (OwnFactors, "OwnFactors has its own dropout_factors"),
    (NoLayers, "fast_layers of NoLayers returns no layer"),
    (Tanh, "the parts that Tanh states for the fast path do not compute its outputs"),
    (OtherOrder, "the parts that OtherOrder states for the fast path do not compute its outputs"),
    (OwnScale, "the parts that OwnScale states for the fast path do not compute its outputs"),
    (NeedsImages, "calls NeedsImages with a few random examples .* raised IndexError"),
]


@pytest.mark.parametrize(("kind", "message"), REFUSED)
@pytest.mark.parametrize(
    "backend",
    [pytest.param("fast", marks=needs_numba), pytest.param("graph", marks=needs_compiler)],
)
def test_layers_that_cannot_be_are_refused(backend, kind, message):
    with pytest.raises(ValueError, match=message):
        train(kind(), backend)
    if backend == "fast":
        assert train(kind(), "auto", iterations=0).backend == "reference"


@needs_numba
def test_flags_of_floating_point_errors_do_not_refuse_the_fast_path():
    class Flags(OwnFixed):
        def forward(self, x):
            raise_the_flag()
            return super().forward(x)

    assert train(Flags(), "fast").backend == "fast"


@needs_numba
def test_a_layer_without_weights_trains_with_the_reference():
    class Lazy(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.a, self.b = L.Linear(None, 5), L.Linear(5, 3)

        def forward(self, x):
            return self.b(F.relu(self.a(x)))

        def fast_layers(self):
            return self.a, self.b

    link = Lazy()
    updater = train(link, "auto", iterations=1)
    assert updater.backend == "reference"
    assert "a layer of Lazy has no weights before its first call" in updater.refused["fast"]
    assert train(link, "auto", iterations=1).backend == "fast"


@needs_compiler
def test_a_structure_is_no_business_of_a_fully_connected_network():
    """An attribute of this name says something to the graph of a DenseNet alone."""
    link, expected = OwnFixed(), OwnFixed()
    link.structure = numpy.zeros(9, bool)
    for each, backend in ((link, "graph"), (expected, "reference")):
        train(each, backend)
    numpy.testing.assert_allclose(link.a.W.array, expected.a.W.array, 1e-10)


class DenseBeside(OwnDense):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.aside = L.Linear(2, 2)


class DenseBits(OwnDense):
    def __init__(self):
        super().__init__()
        self.costs = self.costs[1:]


class DenseScale(OwnDense):
    def forward(self, x, structures):
        return self.net(1.001 * x, structures)


class DenseFixed(OwnDense):
    def __init__(self):
        super().__init__()
        del self.costs


@needs_compiler
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (DenseBeside, "leave out parameters of DenseBeside, /aside/W, /aside/b"),
        (DenseBits, r"each of the \d+ connections, and DenseBits has \d+ costs"),
        (DenseScale, "the parts that DenseScale states for the fast path do not compute its"),
        (DenseFixed, r"the structure of DenseFixed has the shape \(0,\)"),
    ],
)
def test_parts_that_cannot_be_are_refused(kind, message):
    with pytest.raises(ValueError, match=message):
        train(kind(), "graph", x_shape=(3, 8, 8))


@pytest.mark.parametrize(
    ("kind", "message"),
    [(OtherOrder, "a bit for each hidden unit in their order"), (NoFit, "do not fit together")],
)
def test_check_searchable_compares_the_layers(kind, message):
    x = numpy.random.default_rng(0).random((4, 8))
    report = testing.check_searchable(kind(), x, raise_error=False)
    (finding,) = report.findings
    assert finding.check == "fast_layers"
    assert message in finding.message
    assert "fast_layers" in testing.check_searchable(Own(), x).passed
    (finding,) = testing.check_searchable(DropsBoth(), x, raise_error=False).findings
    assert "dropout" in finding.message
    report = testing.check_searchable(Refuses(), x)
    assert any("no fast path today" in note for note in report.notes)


def test_the_choice_is_logged(caplog):
    with caplog.at_level("INFO", "chainer_sno.backends"):
        updater = train(Refuses(), "auto", iterations=0)
    (record,) = caplog.records
    assert "Refuses with NesterovAG trains with the backend reference" in record.message
    assert all(reason in record.message for reason in updater.refused.values())


def test_the_reference_runs_none_of_the_kernels():
    """Neither the distribution nor its random numbers know of any, on whatever device."""
    for module in ("bernoulli", "uniforms", "updater", "functions", "links"):
        found = importlib.import_module(f"chainer_sno.{module}")
        text = str(vars(found))
        assert "chainer_sno.cuda" not in text, module
