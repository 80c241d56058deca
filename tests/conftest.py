"""Shared fixtures; tests marked gpu are skipped where there is no GPU."""

import numpy
import pytest
import threadpoolctl

import chainer_sno  # noqa: F401  (imports Chainer)
from chainer_sno import chainer


def _has_gpu():
    if not chainer.backends.cuda.available:
        return False
    try:
        return chainer.backends.cuda.cupy.cuda.runtime.getDeviceCount() > 0
    except Exception:
        return False


#: Files that take long, the longest first.  But before all the two that compile the loops of either
#: network: where several processes need them at once, each compiles them, for half a minute; and
#: what is killed at a random moment of its time is to be killed in its training.
LONG = ("test_dense_net", "test_engine", "test_sweep", "test_run", "test_regress_mutants")
LONG += ("test_figures", "test_updaters", "test_quick", "test_report", "test_reference")
LONG += ("test_claims", "test_select", "test_experiments", "test_bits", "test_optimizers")


def pytest_collection_modifyitems(items):
    # Where files are shared out, a long one that begins last is waited for.
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONG)))
    if _has_gpu():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a GPU and CuPy"))


@pytest.fixture(scope="session", autouse=True)
def _one_thread_of_blas():
    """As in a training: the tests run in several processes, whose threads would wait for cores."""
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        yield


@pytest.fixture
def rng():
    return numpy.random.default_rng(20190907)


@pytest.fixture(params=["float64", "float32"])
def dtype(request):
    """The dtype of the links that the test makes."""
    with chainer.using_config("dtype", numpy.dtype(request.param)):
        yield numpy.dtype(request.param)


def make_structures(kind, samples, d, rng):
    """Return structures at random or at an extreme, bool of shape (samples, d)."""
    if kind == "empty":
        return numpy.zeros((samples, d), dtype=bool)
    if kind == "full":
        return numpy.ones((samples, d), dtype=bool)
    return rng.random((samples, d)) < 0.5
