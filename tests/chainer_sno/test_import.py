import ast
import collections
import graphlib
import os
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

import chainer_sno
from chainer_sno import chainer

ALONE = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("helper", {path!r})
sentinel = sys.modules["chainer"] = object()
helper = importlib.util.module_from_spec(spec)
spec.loader.exec_module(helper)
assert helper.chainer is sentinel
assert "chainer._environment_check" not in sys.modules
"""


def python(code, *options):
    return subprocess.run(
        [sys.executable, *options, "-c", code], capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("before", ["", "import sys; sys.modules['cupy'] = None; "])
def test_import_is_silent_with_and_without_cupy(before):
    found = python(before + "import chainer_sno", "-W", "error")
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


def test_patches_are_undone():
    found = python(
        "import sys, numpy; had = 'sctypes' in vars(numpy); import chainer_sno, chainer; "
        "assert ('sctypes' in vars(numpy)) == had; "
        "assert 'chainer._environment_check' not in sys.modules"
    )
    assert (found.returncode, found.stderr) == (0, "")


SCIPY = """
import sys, chainer_sno, chainer, numpy
parts = "io", "linalg", "sparse", "special"
# Nothing within them is there either.
assert not [name for name in sys.modules if name.startswith(tuple("scipy." + p for p in parts))]
x = numpy.array([0.3])
found = chainer.functions.erfinv(x).array
sparse = chainer.utils.CooMatrix(x, numpy.array([0]), numpy.array([0]), (1, 1))
product = chainer.functions.sparse_matmul(sparse, numpy.ones((1, 1))).array
loc, scale = numpy.zeros(1, "f"), numpy.eye(1, dtype="f")
density = chainer.distributions.MultivariateNormal(loc=loc, scale_tril=scale).log_prob(loc).array
import scipy.special, scipy.stats
assert found == scipy.special.erfinv(x)
assert product == x
assert abs(density - scipy.stats.norm.logpdf(0)) < 1e-6
assert all(type(sys.modules["scipy." + name]) is type(sys) for name in parts[1:])
"""
WITHOUT_SCIPY = """
import sys
sys.modules["scipy"] = None
import chainer_sno, chainer, numpy
try:
    chainer.functions.erfinv(numpy.array([0.3]))
except ImportError as error:
    assert "SciPy" in str(error), error
else:
    raise AssertionError("there is no SciPy")
"""
WITHIN = """
import sys
from chainer_sno._import_chainer import _other_modules
with _other_modules():
    import scipy.special, scipy.sparse.linalg
    from scipy.special import erfinv
    assert type(scipy.special) is type(scipy.sparse) is type(sys)
"""


@pytest.mark.parametrize("code", [SCIPY, WITHOUT_SCIPY, WITHIN], ids=["used", "absent", "at once"])
def test_scipy_is_imported_when_it_is_used(code):
    pytest.importorskip("scipy")
    found = python(code)
    assert (found.returncode, found.stderr) == (0, "")


def test_imported_chainer_is_left_alone():
    import chainer_sno._import_chainer as helper

    found = python(ALONE.format(path=helper.__file__))
    assert (found.returncode, found.stderr) == (0, "")


def test_a_missing_chainer_is_named():
    code = "import sys; sys.modules['chainer'] = None\ntry:\n    import chainer_sno\n"
    code += "except Exception as error:\n    print(type(error).__name__)"
    # A None in sys.modules is somebody's decision too: it is returned, and the first use fails.
    assert "Error" in python(code).stdout
    code = (
        "import sys, importlib.abc\n"
        "class Absent(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'chainer':\n"
        "            raise ModuleNotFoundError('No module named chainer', name='chainer')\n"
        "sys.meta_path.insert(0, Absent())\n"
        "import chainer_sno\n"
    )
    found = python(code)
    assert found.returncode == 1
    assert "pip install --no-build-isolation chainer==7.8.1" in found.stderr


def test_chainer_trains_on_this_numpy():
    """A plain Chainer model trains."""
    model = chainer.links.Linear(3, 2)
    optimizer = chainer.optimizers.NesterovAG(0.1).setup(model)
    x = numpy.eye(3, dtype="f")
    t = numpy.array([0, 1, 0], dtype="i")

    def loss():
        return chainer.functions.softmax_cross_entropy(model(x), t)

    first = float(loss().array)
    for _ in range(20):
        optimizer.update(loss)
    assert float(loss().array) < first / 2


def sums_of_squares(function, x):
    """Return a function's outputs and the gradient of half the sum of their squares."""
    x = chainer.Variable(x)
    y = function(x)
    y.grad = y.array.copy()
    y.backward()
    return y.array, x.grad


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("align_corners", [True, False])
def test_resize_images(mode, align_corners):
    """Of twice the size, or of the same; the adjoint has the same inner product."""
    functions = chainer.functions
    x = numpy.arange(16, dtype="f").reshape(1, 1, 4, 4)

    def double(x):
        return functions.resize_images(x, (8, 8), mode=mode, align_corners=align_corners)

    y, gx = sums_of_squares(double, x)
    assert y.shape == (1, 1, 8, 8)
    assert float((gx * x).sum()) == pytest.approx(float((y * y).sum()))
    if mode == "nearest":
        numpy.testing.assert_array_equal(y[0, 0], numpy.kron(x[0, 0], numpy.ones((2, 2))))
    elif align_corners:
        numpy.testing.assert_allclose(y[0, 0, 0], numpy.linspace(0, 3, 8), 1e-6)
        numpy.testing.assert_allclose(y[0, 0, :, 7], numpy.linspace(3, 15, 8), 1e-6)
    else:
        numpy.testing.assert_allclose(y[0, 0, 0], [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3])


@pytest.mark.parametrize("kind", ["e", "f", "d"])
def test_the_way_back_through_as_strided(kind):
    """Windows of three: a number is in as many as there are windows over it."""
    x = numpy.arange(1, 6).astype(kind)
    windows, gx = sums_of_squares(lambda x: chainer.functions.as_strided(x, (3, 3), (1, 1), 0), x)
    numpy.testing.assert_array_equal(windows, [[1, 2, 3], [2, 3, 4], [3, 4, 5]])
    numpy.testing.assert_array_equal(gx, x * [1, 2, 3, 2, 1])
    assert gx.dtype == kind


def test_as_strided_of_integers_has_no_way_back():
    x = chainer.Variable(numpy.arange(5))
    y = chainer.functions.as_strided(x, (3, 3), (1, 1), 0)
    y.grad = y.array
    with pytest.raises(TypeError, match="Only float is supported"):
        y.backward()


@pytest.mark.parametrize("wrap", [numpy.asarray, chainer.Variable])
@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
def test_log_prob_of_categorical(wrap, shape, rng):
    p = rng.random((*shape, 4))
    p /= p.sum(axis=-1, keepdims=True)
    x = rng.integers(0, 4, shape)
    found = chainer.distributions.Categorical(p=p).log_prob(wrap(numpy.asarray(x))).array
    expected = numpy.log(numpy.take_along_axis(p, numpy.asarray(x)[..., None], -1))[..., 0]
    numpy.testing.assert_allclose(found, expected)


def test_divergence_of_categoricals(rng):
    p, q = rng.dirichlet(numpy.ones(4), (2, 3))
    p, q = p[None], q[None]
    kind = chainer.distributions.Categorical
    found = chainer.kl_divergence(kind(p=p), kind(p=q)).array
    numpy.testing.assert_allclose(found, (p * numpy.log(p / q)).sum(axis=-1))


INTEGERS = ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8"]


@pytest.mark.parametrize("kind", INTEGERS)
@pytest.mark.parametrize("padding", [-1, 0, 7, 300, -(2**40)])
def test_padding_that_does_not_fit_wraps_around(kind, padding):
    xs = [numpy.array([1, 2, 3], kind), numpy.array([4], kind)]
    filled = numpy.array([padding], "i8").astype(kind)[0]
    expected = [[1, 2, 3], [4, filled, filled]]
    for found in (
        chainer.functions.pad_sequence(xs, padding=padding).array,
        chainer.dataset.concat_examples(xs, padding=padding),
    ):
        numpy.testing.assert_array_equal(found, expected)
        assert found.dtype == kind


def test_padding_of_floats():
    xs = [numpy.array([1, 2], "f"), numpy.array([3], "f")]
    for padding in (-1, 0.5, numpy.inf):
        found = chainer.functions.pad_sequence(xs, 3, padding).array
        numpy.testing.assert_array_equal(found, [[1, 2, padding], [3, padding, padding]])
    tuples = chainer.dataset.concat_examples([(x, 1) for x in xs], padding=(-1, None))
    numpy.testing.assert_array_equal(tuples[0], [[1, 2], [3, -1]])


@pytest.mark.parametrize("kind", INTEGERS)
@pytest.mark.parametrize("number", [-1, 1, 300, -300, 2**40])
def test_arithmetic_with_a_number_that_does_not_fit_wraps_around(kind, number):
    x = numpy.array([1, 2, 100], kind)
    v, constant = chainer.Variable(x), numpy.array([number], "i8").astype(kind)
    for found, expected in (
        (v + number, x + constant),
        (number + v, x + constant),
        (v - number, x - constant),
        (number - v, constant - x),
        (v * number, x * constant),
    ):
        numpy.testing.assert_array_equal(found.array, expected)
        assert found.dtype == kind


def test_arithmetic_with_floats_is_as_before():
    v = chainer.Variable(numpy.array([1, 2], "f"))
    for number in (0.1, 3, -1, numpy.float64(0.1)):
        found = (v * number + number).array
        expected = v.array * numpy.float32(number) + numpy.float32(number)
        numpy.testing.assert_array_equal(found, expected)
        assert found.dtype == numpy.float32


WORKERS = """
import multiprocessing
{imports}

def main():
    {late}
    import chainer
    import numpy
    multiprocessing.set_start_method({method!r})
    dataset = chainer.datasets.TupleDataset(numpy.arange(6.0), numpy.arange(6))
    iterator = chainer.iterators.MultiprocessIterator(
        dataset, 4, repeat=False, shuffle=False, n_processes=1)
    print([int(t) for batch in iterator for _, t in batch])
    iterator.finalize()

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize("place", ["imports", "late"])
def test_multiprocess_iterator(method, place, tmp_path):
    """Of a script that imports us at its top, or where no worker sees it."""
    places = {"imports": "", "late": "pass", place: "import chainer_sno"}
    script = tmp_path / "script.py"
    script.write_text(WORKERS.format(method=method, **places))
    found = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert (found.returncode, found.stdout) == (0, "[0, 1, 2, 3, 4, 5]\n"), found.stderr


def imports(text):
    """Yield the names that a module imports from chainer_sno when it is imported itself."""
    todo = [ast.parse(text)]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "chainer_sno":
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        if not isinstance(node, ast.FunctionDef):
            todo += ast.iter_child_nodes(node)


def imported_parts():
    """Return which parts of the library import which: its folders, and the modules beside them."""
    root = Path(chainer_sno.__file__).parent
    found = collections.defaultdict(set)
    for path in root.rglob("*.py"):
        part = path.relative_to(root).with_suffix("").parts[0]
        names = imports(path.read_text())
        found[part] |= {name.split(".")[1] for name in names} - {part}
    found.pop("__init__")
    return found


def test_no_parts_import_each_other():
    """Also not by a detour: graphlib names the circle."""
    assert list(graphlib.TopologicalSorter(imported_parts()).static_order())


def test_the_kernels_know_nothing_of_a_training():
    parts = imported_parts()
    assert parts["cuda"] == {"_import_chainer"}
    assert {"cuda", "protocols", "updater"} <= parts["graph"]
