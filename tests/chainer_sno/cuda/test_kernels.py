import re
import types

import numpy
import pytest

from benchmarks.nvrtc import OF_CUPY, compile_kernels, is_there
from chainer_sno import Bernoulli, chainer, ranking_utility
from chainer_sno.cuda.kernels import Kernels, Launch, Program, signatures, source
from chainer_sno.graph import dense, mlp
from chainer_sno.graph.optimizer import step_definitions
from chainer_sno.links import PlainDenseNet
from chainer_sno.uniforms import Stream, Uniforms, philox_uniforms
from chainer_sno.utility import cumulative_utilities
from tests.chainer_sno.cuda.emulator import Emulator
from tests.conftest import make_structures

KEY = 123456789, 4294967295


def set_structures(kernels, row):
    """Return the struct Progress of a training that has taken so many rows of structures."""
    return kernels.xp.asarray(numpy.array([0, row, 0, 0, 0, 0]))


@pytest.mark.parametrize("first", [0, 2**32 - 2])
def test_random_numbers_are_those_of_philox(platform, first):
    """A bit is on where its number lies below theta, so theta may tell one number from the next."""
    make, device = platform
    kernels = make(("method",), "float64")
    for row, expected in enumerate(philox_uniforms(numpy, KEY, first, 5, 7), first):
        for theta, bit in ((expected, 0), (numpy.nextafter(expected, 1), 1)):
            out = kernels.xp.full((1, 7), 2.0)
            progress = set_structures(kernels, row)
            kernels.each("sample", 7, *KEY, progress, device.send(theta), 1, 7, out)
            assert chainer.backends.cuda.to_cpu(out).tolist() == [[bit] * 7]


@pytest.mark.parametrize(
    ("architecture", "dtype", "optimizer"),
    [("sm_70", "float32", "NesterovAG"), ("sm_90", "float64", "SGD")],  # the oldest and the newest
)
def test_every_kernel_compiles_for_the_gpus(architecture, dtype, optimizer):
    if not is_there():
        pytest.skip("needs NVRTC")
    values = {
        **step_definitions(getattr(chainer.optimizers, optimizer)()),
        **mlp.definitions(dtype),
        **dense.definitions(PlainDenseNet(), (32, 32), dtype),
    }
    kernels = Kernels(("method", "optimizer", "mlp", "dense"), dtype, values)
    options = *kernels.options, *OF_CUPY, f"--gpu-architecture={architecture}"
    code, log = compile_kernels(kernels.source, (*options, "--ptxas-options=-v"))
    assert code, log
    # NVRTC warns of the age of sm_70, of nothing else.
    assert all("deprecated" in line for line in log.splitlines() if "warning" in line), log
    assert all(name.encode() in code for name in kernels.signatures)
    # What a thread adds up stays in registers: nothing is put into slow local memory.
    frames = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill", log)
    assert len(frames) >= len(kernels.signatures)
    assert set(frames) == {("0", "0")}
    assert len(kernels.signatures) == kernels.source.count("__global__")


def test_a_source_that_is_wrong_does_not_compile():
    if not is_there():
        pytest.skip("needs NVRTC")
    text = source("method").replace("*loss", "*missing", 1)
    code, log = compile_kernels(
        text, ["--gpu-architecture=sm_90", *Kernels(("method",), "f").options]
    )
    assert not code
    assert '"loss" is undefined' in log


def test_signatures():
    found = signatures(source("method"))["sample"]
    assert found[0] == ("word", False)
    assert found[3] == ("double", True)
    assert found[4] == ("int", False)
    assert found[6] == ("real", True)


@pytest.mark.parametrize(
    "arguments",
    [
        (1, 2, None, numpy.zeros(7), 5, 7),
        (1, 2, None, numpy.zeros(7, "f"), 5, 7, numpy.zeros(35)),
        (1, 2, None, numpy.zeros(7), 5, 7, numpy.zeros((35, 2))[:, 0]),
    ],
)
def test_arguments_are_checked_against_the_source(arguments):
    with pytest.raises(TypeError, match="sample"):
        Kernels(("method",), "float64").cast("sample", arguments)


def test_other_dtypes_are_refused():
    with pytest.raises(TypeError, match="float16"):
        Kernels(("method",), "float16")


def test_numbers_are_cast_as_the_source_says():
    kernels = Kernels(("method",), "float64")
    found = kernels.cast("sample", (1, 2, None, None, 5, 7, None))
    assert [value.dtype.str[1:] for value in found] == ["u4", "u4", "u8", "u8", "i4", "i4", "u8"]


def select(kernels, device, row_losses, structures, bernoulli):
    """Do the end of an iteration, and return the struct Progress and the mean losses."""
    (samples, n), d = row_losses.shape, len(bernoulli)
    progress, means = kernels.xp.zeros(6, "i8"), kernels.xp.zeros(samples)
    kernels.each(
        "selection",
        d,
        progress,
        device.send(row_losses),
        device.send(numpy.zeros(n, "i")),
        samples,
        n,
        device.send(structures.astype("d")),
        d,
        bernoulli.penalty,
        bernoulli.eta,
        device.send(cumulative_utilities(samples)),
        samples,
        5,
        7,
        means,
        bernoulli.theta,
    )
    return progress, means


@pytest.mark.parametrize("samples", [1, 2, 4])
@pytest.mark.parametrize("kind", ["random", "empty", "full"])
def test_equation_7_to_the_bit(platform, samples, kind, rng):
    make, device = platform
    costs = rng.random(300) + 0.1
    expected = Bernoulli(costs, 3.0, eta=0.1, initial_theta=rng.random(300))
    found = Bernoulli(costs, 3.0, eta=0.1, initial_theta=expected.theta)
    found.to_device(device)
    kernels = make(("method",), "float64")
    for _ in range(5):
        structures = make_structures(kind, samples, 300, rng)
        losses = rng.integers(0, 3, samples).astype("d")
        expected.update(structures, ranking_utility(losses))
        select(kernels, device, losses[:, None], structures, found)
    numpy.testing.assert_array_equal(chainer.backends.cuda.to_cpu(found.theta), expected.theta)
    assert (expected.theta == 1 / 300).any() or kind != "empty"


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["random", "empty", "full"])
def test_bernoulli_on_a_gpu_is_that_on_a_cpu(kind, rng):
    expected = Bernoulli(numpy.ones(300), 3.0, eta=0.1)
    found = Bernoulli(numpy.ones(300), 3.0, eta=0.1)
    found.to_device("@cupy:0")
    for _ in range(5):
        structures = make_structures(kind, 4, 300, rng)
        losses = rng.integers(0, 3, 4).astype("d")
        expected.update(structures, ranking_utility(losses))
        on_device = found.device.send(structures), ranking_utility(found.device.send(losses))
        found.update(*on_device)
    numpy.testing.assert_allclose(found.theta.get(), expected.theta, rtol=1e-12)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_uniforms_on_a_gpu_are_those_of_philox(dtype):
    stream = Uniforms(7, 3, Stream.DROPOUT, dtype)
    stream.to_device("@cupy:0")
    found = numpy.concatenate([stream.take(n).get() for n in (2, 3)])
    expected = philox_uniforms(numpy, stream.key, 0, 5, 7)
    if dtype == "float32":
        expected = (numpy.floor(expected * 2**24) / 2**24).astype("f")
    numpy.testing.assert_array_equal(found, expected)


LOSSES = [
    [0.5],
    [0.5, 0.25],
    [0.5, 0.5],
    [3, 1, 2, 1],
    [numpy.nan, 1, numpy.inf, 2],
    [numpy.nan] * 4,
]


@pytest.mark.parametrize("losses", LOSSES)
def test_the_ranking_and_the_end_of_an_iteration(platform, losses, rng):
    make, device = platform
    samples, n, d = len(losses), 3, 50
    structures = make_structures("random", samples, d, rng)
    expected = Bernoulli(numpy.ones(d), 1.0, eta=0.1)
    found = Bernoulli(numpy.ones(d), 1.0, eta=0.1)
    found.to_device(device)
    expected.update(structures, ranking_utility(numpy.array(losses, "d")))
    kernels = make(("method",), "float64")
    row_losses = numpy.repeat(numpy.array(losses, "d")[:, None], n, 1)
    progress, means = select(kernels, device, row_losses, structures, found)
    numpy.testing.assert_array_equal(chainer.backends.cuda.to_cpu(found.theta), expected.theta)
    numpy.testing.assert_allclose(chainer.backends.cuda.to_cpu(means), losses)
    progress = chainer.backends.cuda.to_cpu(progress)
    assert progress[[0, 1, 2, 3, 5]].tolist() == [n, samples, 5, 7, 1]
    numpy.testing.assert_allclose(progress.view("d")[4], numpy.mean(losses))


def test_structures_follow_theta(platform):
    make, device = platform
    bernoulli = Bernoulli(numpy.ones(8), initial_theta=numpy.linspace(0, 1, 8))
    bernoulli.to_device(device)
    kernels = make(("method",), "float32")
    samples = 5000
    out = kernels.xp.zeros((samples, 8), "f")
    progress = kernels.xp.zeros(6, "i8")
    kernels.each("sample", out.size, *KEY, progress, bernoulli.theta, samples, 8, out)
    found = chainer.backends.cuda.to_cpu(out)
    assert set(found.ravel().tolist()) == {0, 1}
    theta = chainer.backends.cuda.to_cpu(bernoulli.theta)
    expected = philox_uniforms(numpy, KEY, 0, samples, 8) < theta
    numpy.testing.assert_array_equal(found, expected)
    assert abs(found.mean(axis=0) - theta).max() < 5 * 0.5 / samples**0.5


class CapturedStream:
    """What CuPy's streams do in a capture, noted; one whose side is not joined cannot end."""

    def __init__(self, notes):
        self.notes = notes

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def begin_capture(self):
        self.notes.append("begin")

    def end_capture(self):
        self.notes.append("end")
        if "aside" in self.notes and "joined" not in self.notes:
            raise RuntimeError("unjoined work")
        return types.SimpleNamespace(launch="the graph")

    def record(self):
        return "event"

    def wait_event(self, event):
        self.notes.append("joined" if "aside" in self.notes else "forked")


@pytest.mark.parametrize("wrong", [None, "last", "aside"])
def test_an_error_in_a_capture_is_not_hidden_by_its_end(wrong):
    notes = []

    class Fake(Kernels):
        xp = types.SimpleNamespace(
            cuda=types.SimpleNamespace(Stream=lambda non_blocking: CapturedStream(notes))
        )

        def launch(self, name, *rest):
            notes.append(name)
            if name == wrong:
                raise ValueError(f"no such launch: {name}")

    launches = [
        Launch("first", (1,), (1,), (), False),
        Launch("aside", (1,), (1,), (), True),
        Launch("last", (1,), (1,), (), False),
    ]
    kernels = Fake(("method",), "float32")
    if wrong is None:
        assert kernels.capture(launches) == "the graph"
        assert notes == ["begin", "first", "forked", "aside", "last", "joined", "end"]
    else:
        with pytest.raises(ValueError, match=f"no such launch: {wrong}"):
            kernels.capture(launches)
        assert notes[-1] == "end"


def test_a_program_is_captured_after_its_first_run(monkeypatch):
    """What is captured is run as a whole; the first run, which loads the kernels, is not."""
    runs = []
    monkeypatch.setattr(Emulator, "launch", lambda self, name, *_: runs.append(name))
    monkeypatch.setattr(Emulator, "capture", lambda self, function: lambda: runs.append("graph"))
    program = Program(Emulator(("method",), "float64"))
    for _ in range(2):
        program.each("sample", 1, 1, 2, None, numpy.zeros(1), 1, 1, numpy.zeros(1))
    for _ in range(3):
        program()
    assert runs == ["sample", "sample", "graph", "graph"]
