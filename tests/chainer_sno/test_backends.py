"""make_updater chooses the code that trains, and says why it does not choose another."""

import importlib.util

import numpy
import pytest

import chainer_sno
from chainer_sno import chainer, links
from tests.chainer_sno.snapshots import assert_same, check_refused, content_of

needs_numba = pytest.mark.skipif(
    importlib.util.find_spec("numba") is None, reason="the fast path needs numba"
)


def parts(link, optimizer=None):
    """Return an iterator, an optimizer and a distribution for a network of eight inputs."""
    rng = numpy.random.default_rng(0)
    data = rng.random((40, 8), numpy.float32), rng.integers(0, 3, 40).astype("i")
    iterator = chainer_sno.ArrayIterator(data, 10)
    optimizer = (optimizer or chainer_sno.NesterovAG(0.1)).setup(link)
    return iterator, optimizer


def masked(optimizer=None, **options):
    link = links.MaskedMLP(8, (5, 4), 3, **options)
    return *parts(link, optimizer), chainer_sno.Bernoulli(link.costs, 0.1, 0.1)


@needs_numba
def test_auto_takes_the_fast_path_where_it_can():
    updater = chainer_sno.make_updater(*masked(), converter=chainer_sno.pass_arrays)
    assert (updater.backend, updater.refused) == ("fast", {"graph": "the network is on a CPU"})
    assert "FastStructureUpdater" in repr(updater)
    updater.update()


@needs_numba
@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (lambda: masked(chainer.optimizers.Adam()), "NesterovAG"),
        (lambda: masked(activation=chainer.functions.tanh), "ReLU"),
    ],
    ids=["Adam", "tanh"],
)
def test_auto_says_why_it_takes_the_reference(arguments, reason):
    updater = chainer_sno.make_updater(*arguments(), converter=chainer_sno.pass_arrays)
    assert updater.backend == "reference"
    assert reason in updater.refused["fast"]
    updater.update()
    with pytest.raises(ValueError, match=f"backend 'fast' cannot train this: .*{reason}"):
        chainer_sno.make_updater(*arguments(), backend="fast")


@needs_numba
def test_the_reference_gives_the_numbers_of_the_fast_path():
    found = {}
    for backend in ("reference", "fast"):
        iterator, optimizer, bernoulli = masked(
            initialW=chainer.initializers.HeNormal(rng=numpy.random.RandomState(4))
        )
        updater = chainer_sno.make_updater(iterator, optimizer, bernoulli, backend=backend)
        for _ in range(20):
            updater.update()
        arrays = [parameter.array.copy() for parameter in optimizer.target.params()]
        found[backend] = [*arrays, bernoulli.theta.copy()]
    assert len(found["fast"]) == 7
    for reference, fast in zip(*found.values()):
        numpy.testing.assert_allclose(fast, reference, rtol=1e-3, atol=1e-5)


def fixed(optimizer=None, ratio=0.0):
    link = links.MLP(8, (5, 4), 3, dropout_ratio=ratio, seed=3)
    for n, parameter in enumerate(link.params()):
        parameter.array[...] = numpy.random.default_rng(n).normal(0, 0.5, parameter.shape)
    return parts(link, optimizer)


@pytest.mark.parametrize("backend", ["reference", "auto"])
@pytest.mark.parametrize("options", [{}, {"loss_func": chainer.functions.softmax_cross_entropy}])
def test_a_network_of_fixed_structure_learns(backend, options):
    iterator, optimizer = fixed()
    before = [parameter.array.copy() for parameter in optimizer.target.params()]
    updater = chainer_sno.make_updater(iterator, optimizer, backend=backend, **options)
    reporter, losses = chainer.Reporter(), []
    reporter.add_observer("main", optimizer.target)
    for _ in range(40):
        observed = {}
        with reporter.scope(observed):
            updater.update()
        losses.append(float(observed["main/loss"]))
    assert losses[-1] < losses[0]
    for parameter, old in zip(optimizer.target.params(), before):
        assert (parameter.array != old).any()


def test_another_optimizer_trains_a_fixed_network_with_the_reference():
    updater = chainer_sno.make_updater(*fixed(chainer.optimizers.Adam()))
    assert updater.backend == "reference"
    updater.update()


@needs_numba
@pytest.mark.parametrize("ratio", [0.0, 0.5])
def test_fixed_networks_are_the_same_on_both_backends(ratio):
    found = []
    for backend in ("reference", "fast"):
        iterator, optimizer = fixed(ratio=ratio)
        updater = chainer_sno.make_updater(iterator, optimizer, backend=backend)
        for _ in range(20):
            updater.update()
        found.append([parameter.array.copy() for parameter in optimizer.target.params()])
    for reference, fast in zip(*found):
        numpy.testing.assert_allclose(fast, reference, rtol=1e-3, atol=1e-5)


@needs_numba
def test_images_are_for_the_reference():
    rng = numpy.random.default_rng(0)
    x, t = rng.random((40, 2, 2, 2), numpy.float32), rng.integers(0, 3, 40).astype("i")
    link = links.MaskedMLP(8, (5, 4), 3)
    bernoulli = chainer_sno.Bernoulli(link.costs)
    for iterator in (
        chainer_sno.ArrayIterator((x, t), 10),
        chainer.iterators.SerialIterator(chainer.datasets.TupleDataset(x, t), 10),
    ):
        optimizer = chainer_sno.NesterovAG(0.1).setup(link)
        updater = chainer_sno.make_updater(iterator, optimizer, bernoulli)
        assert updater.backend == "reference"
        assert "examples of one axis, and these have 3" in updater.refused["fast"]
        updater.update()


@needs_numba
@pytest.mark.parametrize("make", [masked, lambda: fixed()])
def test_a_fast_path_may_be_told_where_the_network_is(make):
    assert chainer_sno.make_updater(*make(), device="@numpy").backend == "fast"


@needs_numba
def test_another_loss_is_for_the_reference():
    loss = chainer.functions.hinge
    updater = chainer_sno.make_updater(*masked(), loss_func=loss)
    assert updater.backend == "reference"
    assert updater.refused["fast"] == "it computes the softmax cross entropy only"


@needs_numba
@pytest.mark.parametrize(("first", "second"), [("fast", "reference"), ("reference", "fast")])
def test_a_snapshot_of_another_backend_is_refused_before_anything_is_loaded(first, second):
    saved, other = (chainer_sno.make_updater(*masked(), backend=each) for each in (first, second))
    fixed_network = chainer_sno.make_updater(*fixed(), backend=first)
    for each in (saved, fixed_network):
        each.update()
        check_refused(other, content_of(each), "the snapshot was not saved by a")


@needs_numba
@pytest.mark.parametrize("backend", ["fast", "reference"])
@pytest.mark.parametrize(
    ("changed", "message"),
    [({"eta": 0.5}, "epsilon0 = 0.1 and eta = 0.5"), ({"seed": 9}, "the seed, stream and size")],
)
def test_a_snapshot_of_another_distribution_is_refused_first(backend, changed, message):
    iterator, optimizer, bernoulli = masked()
    other = chainer_sno.make_updater(iterator, optimizer, bernoulli, backend=backend)
    iterator, optimizer, bernoulli = masked()
    settings = {"epsilon0": bernoulli.epsilon0, "eta": bernoulli.eta, **changed}
    bernoulli = chainer_sno.Bernoulli(bernoulli.costs, **settings)
    saved = chainer_sno.make_updater(iterator, optimizer, bernoulli, backend=backend)
    saved.update()
    check_refused(other, content_of(saved), message)


@needs_numba
def test_a_snapshot_with_other_random_numbers_of_dropout_is_refused_first():
    saved, other = (chainer_sno.make_updater(*fixed(ratio=0.5), backend="fast") for _ in range(2))
    saved.get_optimizer("main").target.uniforms.seed = 9
    saved.update()
    check_refused(other, content_of(saved), "the seed, stream and size")


@needs_numba
@pytest.mark.parametrize(
    ("x_dtype", "t_dtype", "message"),
    [
        ("u1", "i4", "takes examples of float32, not of uint8: convert .* a divisor, 255 for"),
        ("f8", "i4", "takes examples of float32, not of float64"),
        ("f4", "u1", "classes must be signed integers, not uint8"),
        ("f4", "f4", "classes must be signed integers, not float32"),
    ],
)
@pytest.mark.parametrize("make", ["masked", "fixed"])
def test_dtypes_that_the_reference_refuses_are_refused_by_name(make, x_dtype, t_dtype, message):
    for backend in ("reference", "fast"):
        iterator, *others = {"masked": masked, "fixed": fixed}[make]()
        x, t = iterator.arrays
        iterator.arrays = x.astype(x_dtype), t.astype(t_dtype)
        updater = chainer_sno.make_updater(iterator, *others, backend=backend)
        with pytest.raises(Exception) as caught:  # noqa: PT011  (Chainer's are of several kinds)
            updater.update()
    assert caught.type is ValueError
    caught.match(message)
    assert "\n" not in str(caught.value)


@needs_numba
@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_bytes_with_a_divisor_are_examples_of_the_networks_dtype(backend):
    x, t = masked()[0].arrays
    x = (256 * x).astype("u1")
    found = []
    for arrays, divisor in (((x, t), 255), ((x.astype("f") / numpy.float32(255), t), None)):
        initialW = chainer.initializers.HeNormal(rng=chainer_sno.uniforms.generator((3,)))
        iterator, optimizer, bernoulli = masked(initialW=initialW)
        iterator.arrays, iterator.divisor = arrays, divisor
        updater = chainer_sno.make_updater(iterator, optimizer, bernoulli, backend=backend)
        for _ in range(3):
            updater.update()
        found.append(content_of(updater))
    assert_same(*found)


def test_a_graph_needs_a_gpu():
    with pytest.raises(ValueError, match="backend 'graph' cannot train this: .* on a GPU"):
        chainer_sno.make_updater(*masked(), backend="graph")


def test_another_backend_is_refused():
    with pytest.raises(ValueError, match="'numba' is unknown: give auto, graph, fast, reference"):
        chainer_sno.make_updater(*masked(), backend="numba")


def test_a_wrong_argument_is_the_references_to_refuse():
    with pytest.raises(ValueError, match="samples must be at least 1, not 0"):
        chainer_sno.make_updater(*masked(), samples=0)


@needs_numba
def test_former_names_warn():
    from chainer_sno import fast
    from chainer_sno.cuda import updaters as former
    from chainer_sno.graph import updaters

    with pytest.warns(DeprecationWarning, match="FastStandardUpdater is called FastUpdater now"):
        assert fast.FastStandardUpdater is fast.FastUpdater
    for name, now in (
        ("GraphUpdater", "GraphUpdater"),
        ("GraphStructureUpdater", "GraphStructureUpdater"),
        ("CapturedUpdater", "GraphUpdater"),
        ("CapturedStructureUpdater", "GraphStructureUpdater"),
    ):
        message = f"cuda.updaters.{name} is called chainer_sno.graph.updaters.{now} now"
        with pytest.warns(DeprecationWarning, match=message):
            assert getattr(former, name) is getattr(updaters, now)
    with pytest.raises(AttributeError, match="Kernels"):
        _ = former.Kernels
    with pytest.raises(AttributeError, match="SlowUpdater"):
        _ = fast.SlowUpdater
