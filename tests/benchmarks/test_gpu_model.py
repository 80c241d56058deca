"""The model of a GPU's iteration counts what the kernels do, and says that it is a prediction."""

import json
import sys
from pathlib import Path

import numpy
import pytest

from benchmarks import gpu_model, nvrtc
from chainer_sno import chainer, complexity, links
from chainer_sno.cuda.kernels import Launch
from tests.chainer_sno.cuda.conftest import needs_compiler
from tests.chainer_sno.cuda.emulator import Emulator
from tests.chainer_sno.graph.test_updaters import captured, dense_net, image_iterator
from tests.conftest import _has_gpu

needs_nvrtc = pytest.mark.skipif(not nvrtc.is_there(), reason="needs NVRTC")
FORWARD = ("stem", "layer", "transition", "classify_pooled")


@pytest.fixture(scope="module")
def paper():
    """The updater of section 4.2, and what its kernels take."""
    updater = gpu_model.updater_at(0.5)
    return updater, gpu_model.compiled(updater.captured.kernels)


@pytest.mark.parametrize("usage", [0.0, 0.3, 1.0])
def test_flops_are_those_that_the_structures_cost(usage, rng):
    network = links.PlainDenseNet(10, 4, 2, 6, 5)
    updater = gpu_model.updater_at(0.5, 2, 3, network, (8, 8))
    structures = rng.random((2, len(network.costs))) < usage
    model = gpu_model.Model(updater, structures)
    works = list(model.works())
    assert len(works) == len(updater.captured.program.launches)
    x = numpy.zeros((1, 3, 8, 8), "f")
    costs = complexity.costs(network, "flops", x)
    found = sum(work.flops for launch, work in works if launch.name in FORWARD)
    # Transitions change places with the averages, and so have a quarter of the pixels.
    first = network.blocks[0]
    exits = numpy.zeros(len(costs))
    (*_, (bits, _)) = first.consumers()
    exits[bits] = 0.75 * costs[bits]
    expected = 3 * (structures @ (costs - exits)).sum() + 3 * 2 * 27 * 6 * 64
    numpy.testing.assert_allclose(found, expected)
    if usage:
        gradient = sum(work.flops for launch, work in works if launch.name == "layer_weights")
        back = sum(work.flops for launch, work in works if launch.name == "layer_back")
        assert gradient == back <= sum(w.flops for launch, w in works if launch.name == "layer")


@needs_compiler
def test_active_channels_are_those_of_the_kernels(dtype):
    device = chainer.get_device("@numpy")
    updater = captured((Emulator, device), dense_net(), image_iterator((8, 8)), 4)
    updater.update()
    network = updater.captured.network
    model = gpu_model.Model(updater, network.structures.astype(bool))
    assert 0 < network.structures.mean() < 1
    for block in network.blocks:
        numpy.testing.assert_array_equal(model.counts[id(block.geometry)], block.counts)
        numpy.testing.assert_array_equal(model.live[id(block.geometry)], block.live)


@pytest.mark.parametrize(
    ("threads", "registers", "shared", "expected"),
    [
        (64, 128, 0, 8),  # registers
        (64, 121, 0, 8),  # which are given in eights
        (192, 32, 26560, 8),  # shared memory
        (1024, 16, 0, 2),  # threads
        (32, 16, 0, 32),  # blocks
    ],
)
def test_blocks_of_a_multiprocessor(threads, registers, shared, expected):
    assert gpu_model.Device().blocks(threads, registers, shared) == expected


def test_a_launch_takes_the_longest_of_three_times():
    device = gpu_model.Device(sms=2, clock=1e9, bandwidth=1e9, lanes=64, latency=100, node=0)
    launch = Launch("any", (4,), (64,), (), False)
    taken = {"registers": 32, "shared": 0}

    def seconds(**values):
        work = {"flops": 0, "bytes": 0, "blocks": 4, "waits": 0, "instructions": 1e-9, **values}
        return gpu_model.predict(device, gpu_model.Work(**work), launch, taken)[0]

    assert seconds(bytes=5000) == pytest.approx(5e-6)
    assert seconds(flops=2 * 64 * 2 * 3000) == pytest.approx(3e-6)
    assert seconds(waits=10) == pytest.approx(1e-6)
    assert seconds(waits=10, bytes=5000) == pytest.approx(5e-6)
    # More blocks than fit wait for each other.
    assert seconds(waits=10, blocks=2 * 64) == pytest.approx(2e-6)
    assert seconds(instructions=8000) == pytest.approx(1e-6)


@needs_nvrtc
def test_the_measured_kernels_come_out_at_what_was_measured(capsys):
    gpu_model.main(["--before", "--summary"])
    said = capsys.readouterr().out
    (line,) = [line for line in said.splitlines() if line.startswith("mean of")]
    assert float(line.split()[4]) == pytest.approx(gpu_model.MEASURED, rel=0.02)
    assert "No device has confirmed" in said
    assert "measured, once" in said


@needs_nvrtc
def test_the_blocks_of_a_layer_run_at_once(paper):
    """What is loaded ahead takes registers; no launch waits for that, nor one of usual usage."""
    updater, resources = paper
    device = gpu_model.Device()
    for launch in updater.captured.program.launches:
        taken = resources[launch.name]
        assert taken["local"] == 0
        at_once = device.blocks(launch.block[0], taken["registers"], taken["shared"])
        blocks = numpy.prod(launch.grid) / device.sms
        if launch.name == "layer":
            assert at_once >= blocks
        if launch.name == "layer_weights":  # of which a block without active channels leaves
            assert at_once >= 0.75 * blocks
        if launch.name == "layer_back":  # as shared memory allows
            assert at_once == device.shared // (taken["shared"] + 1024)


@needs_nvrtc
def test_each_launch_is_printed(capsys, tmp_path):
    d = len(links.PlainDenseNet().costs)
    path = tmp_path / "structures.npy"
    numpy.save(path, numpy.ones((1, d)))
    gpu_model.main(["--json", "--structures", str(path)])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 336
    assert {row["kernel"] for row in rows if row["aside"]} == {"selection"}
    assert all(row["us"] >= 2 for row in rows)
    gpu_model.main([])
    said = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("layer_back ") for line in said) == 36 + 1


@needs_compiler
def test_each_launch_is_measured_but_what_is_aside(dtype):
    device = chainer.get_device("@numpy")
    updater = captured((Emulator, device), dense_net(), image_iterator((8, 8)))
    updater.update()
    network, launched = updater.captured.network, []

    def timed(launch):
        launched.append(launch.args[0])
        launch()
        return 1e-6

    before = network.structures.copy()
    structures, seconds = gpu_model.measure(
        updater.captured, timed, lambda: network.structures.astype(bool)
    )
    names = [launch.name for launch in updater.captured.program.launches]
    assert launched == [name for name in names if name != "selection"]
    assert [s is None for s in seconds] == [name == "selection" for name in names]
    numpy.testing.assert_array_equal(structures, before)


@needs_nvrtc
def test_what_was_measured_stands_beside_the_prediction(capsys, monkeypatch):
    d = len(links.PlainDenseNet().costs)
    measured = numpy.ones((2, d), bool), [1e-5] * 335 + [None], "a GPU"
    monkeypatch.setattr(gpu_model, "measure_on", lambda number: measured)
    gpu_model.main(["--measure", "0"])
    said = capsys.readouterr().out
    assert "3.35 ms measured (those of an iteration on a GPU)" in said
    assert "measured us" in said
    assert "measured ms" in said


@pytest.mark.skipif(_has_gpu(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_measured():
    with pytest.raises(SystemExit, match="device 0 cannot be used"):
        gpu_model.main(["--measure", "0"])


@pytest.mark.gpu
def test_launches_on_a_gpu_take_some_time():
    structures, seconds, _ = gpu_model.measure_on(0)
    assert structures.shape == (2, len(links.PlainDenseNet().costs))
    assert all(s is None or 1e-7 < s < 1e-2 for s in seconds)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--theta", "2"], r"\[0, 1\]"),
        (["--samples", "0"], "at least 1"),
        (["--sms", "0"], "positive"),
        (["--structures", "missing.npy"], "no structures"),
        (["--structures", "{wrong}"], "shape"),
    ],
)
def test_bad_input_is_refused(arguments, message, tmp_path):
    wrong = tmp_path / "wrong.npy"
    numpy.save(wrong, numpy.full(7, 2))
    with pytest.raises(SystemExit, match=message):
        gpu_model.main([text.format(wrong=wrong) for text in arguments])


@needs_nvrtc
def test_the_compiler_is_found_without_its_package(monkeypatch):
    """Where CuPy finds it, for one; and where it is nowhere, nothing says that it is."""
    pytest.importorskip("cuda.pathfinder")
    expected = nvrtc.path()
    monkeypatch.setattr(nvrtc.util, "find_spec", lambda name: None)
    nvrtc.path.cache_clear()
    try:
        found = nvrtc.path()
        assert nvrtc.is_there()
        assert Path(found).name.split(".so")[0] == Path(expected).name.split(".so")[0]
        code, log = nvrtc.compile_kernels("__global__ void k() {}", ["--gpu-architecture=sm_90"])
        assert code, log
        nvrtc.path.cache_clear()
        monkeypatch.setitem(sys.modules, "cuda", None)
        monkeypatch.setattr(nvrtc.ctypes.util, "find_library", lambda name: None)
        assert not nvrtc.is_there()
    finally:
        nvrtc.path.cache_clear()


def test_without_the_compiler_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(nvrtc, "is_there", lambda: False)
    with pytest.raises(SystemExit, match="pip install nvidia-cuda-nvrtc"):
        gpu_model.main([])
