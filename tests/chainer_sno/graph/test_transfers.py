"""No code of the training loop moves data from the device to the host, or waits for it.

The loops are run on the host to find which functions they call; the text of each of these is then
searched for whatever would move data.
"""

import ast
import inspect
import sys
import textwrap
from pathlib import Path

import numpy
import pytest

import chainer_sno
import reproduce
from chainer_sno import ArrayIterator, StructureUpdater, chainer, links, pass_arrays
from tests.chainer_sno.cuda.conftest import needs_compiler
from tests.chainer_sno.cuda.emulator import Emulator
from tests.chainer_sno.graph import test_updaters

ROOTS = tuple(str(Path(package.__file__).parent) for package in (chainer_sno, reproduce))
#: Methods of arrays, and functions, that need a value on the host.
METHODS = {"get", "item", "tolist", "to_cpu", "asnumpy", "synchronize", "tobytes"}
FUNCTIONS = {"float", "int", "bool", "complex", "print", "repr", "sorted", "list"}
NUMPY = {"array", "asarray", "asanyarray", "ascontiguousarray", "flatnonzero"}


def transfers(text):
    """Return the calls in a function's text that would need a value on the host."""
    found = []
    for node in ast.walk(ast.parse(textwrap.dedent(text))):
        if not isinstance(node, ast.Call):
            continue
        call = node.func
        if isinstance(call, ast.Attribute):
            owner = call.value.id if isinstance(call.value, ast.Name) else None
            if call.attr in METHODS or (owner == "numpy" and call.attr in NUMPY):
                found.append(ast.unparse(node))
        elif isinstance(call, ast.Name) and call.id in FUNCTIONS and node.args:
            if not isinstance(node.args[0], ast.Constant):
                found.append(ast.unparse(node))
    return found


def functions_of(loop):
    """Return the functions of the project that a loop calls, their code."""
    seen = {}

    def profile(frame, event, argument):
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(ROOTS) and code.co_name[0] != "<":
            seen[code] = None

    sys.setprofile(profile)
    try:
        loop()
    finally:
        sys.setprofile(None)
    return list(seen)


def plain_units():
    link = links.MaskedMLP(*test_updaters.WIDTHS)
    return StructureUpdater(
        ArrayIterator(test_updaters.unit_arrays(), 8, divisor=255),
        test_updaters.optimizer_of(link),
        test_updaters.bernoulli_of(link),
        converter=pass_arrays,
    )


def plain_connections():
    link = test_updaters.dense_net()
    return StructureUpdater(
        test_updaters.image_iterator((8, 8)),
        test_updaters.optimizer_of(link),
        test_updaters.bernoulli_of(link),
        converter=pass_arrays,
    )


def plain_standard():
    link = links.MLP(*test_updaters.WIDTHS, dropout_ratio=0.5)
    return chainer.training.updaters.StandardUpdater(
        ArrayIterator(test_updaters.unit_arrays(), 8, divisor=255),
        test_updaters.optimizer_of(link),
        pass_arrays,
        loss_func=test_updaters.loss_of(link),
    )


PLAIN = [plain_units, plain_connections, plain_standard]


def check(updater, expected):
    updater.update()  # compiling, capturing and making states is no part of the loop
    functions = functions_of(lambda: [updater.update() for _ in range(10)])
    names = {code.co_name for code in functions}
    assert expected <= names, "the search has not seen the loop"
    for code in functions:
        found = transfers(inspect.getsource(code))
        assert not found, f"{code.co_name} of {code.co_filename} would wait for the device: {found}"
    return functions


@pytest.mark.parametrize("make", PLAIN)
def test_the_plain_loops_do_not_wait_for_the_device(make):
    check(make(), {"__next__", "forward"})


@needs_compiler
@pytest.mark.parametrize("case", range(3))
def test_the_captured_loops_do_not_wait_for_the_device(case, monkeypatch):
    platform = Emulator, chainer.get_device("@numpy")
    make = list(test_updaters.cases(platform))[case]
    functions = check(make(), {"update_core", "run", "__call__", "skip", "order"})
    # An iteration is the launch of a graph and numbers of the host.
    files = {Path(code.co_filename).name for code in functions}
    assert files <= {
        "accelerated.py",
        "protocols.py",
        "plain_dense_net.py",
        "updaters.py",
        "masked_mlp.py",
        "mlp.py",
        "iteration.py",
        "kernels.py",
        "nesterov.py",
        "optimizer.py",
        "iterators.py",
        "uniforms.py",
    }


@pytest.mark.parametrize(
    "line",
    [
        "loss = float(losses.mean())",
        "theta = self.theta.get()",
        "bits = chainer.backends.cuda.to_cpu(structures)",
        "rows = numpy.asarray(x)",
        "n = counts.sum().item()",
        "ids = numpy.flatnonzero(bits)",
        "print(losses)",
    ],
)
def test_the_search_finds_transfers(line):
    assert transfers(f"def f():\n    {line}\n")


def test_the_search_lets_the_device_be():
    assert not transfers(
        "def f(x):\n    return numpy.float64(1) + xp.asarray(x).sum(dtype=float)\n"
    )


def test_an_eager_dense_net_needs_the_structures_on_the_host():
    """The search sees it in real code: which connections are active decides what is launched."""
    assert transfers(inspect.getsource(links.DenseNet.forward))
    assert isinstance(links.DenseNet().costs, numpy.ndarray)
