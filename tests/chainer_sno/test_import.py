import subprocess
import sys

import numpy
import pytest

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
assert not [name for name in parts if "scipy." + name in sys.modules]
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
    """The import is enough: a plain Chainer model trains without a patch."""
    from chainer_sno._import_chainer import chainer

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
