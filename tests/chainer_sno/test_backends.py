"""make_updater chooses the code that trains, and says why it does not choose another."""

import importlib.util

import numpy
import pytest

import chainer_sno
from chainer_sno import chainer, links

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


def test_the_reference_gives_the_numbers_of_the_fast_path():
    found = {}
    for backend in ("reference", "auto"):
        iterator, optimizer, bernoulli = masked(initialW=chainer.initializers.Constant(0.1))
        updater = chainer_sno.make_updater(
            iterator, optimizer, bernoulli, backend=backend, converter=chainer_sno.pass_arrays
        )
        for _ in range(8):
            updater.update()
        found[backend] = next(iter(optimizer.target.params())).array.copy(), bernoulli.theta.copy()
    for reference, auto in zip(*found.values()):
        numpy.testing.assert_allclose(auto, reference, rtol=1e-4, atol=1e-6)


def test_a_network_of_fixed_structure():
    link = links.MLP(8, (5, 4), 3)
    iterator, optimizer = parts(link)
    updater = chainer_sno.make_updater(iterator, optimizer, converter=chainer_sno.pass_arrays)
    updater.update()
    assert updater.backend in chainer_sno.backends.BACKENDS


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
    from chainer_sno.cuda import updaters

    with pytest.warns(DeprecationWarning, match="FastStandardUpdater is called FastUpdater now"):
        assert fast.FastStandardUpdater is fast.FastUpdater
    with pytest.warns(DeprecationWarning, match="CapturedUpdater is called GraphUpdater now"):
        assert updaters.CapturedUpdater is updaters.GraphUpdater
    with pytest.warns(DeprecationWarning, match="is called GraphStructureUpdater now"):
        assert updaters.CapturedStructureUpdater is updaters.GraphStructureUpdater
    with pytest.raises(AttributeError, match="SlowUpdater"):
        _ = fast.SlowUpdater
