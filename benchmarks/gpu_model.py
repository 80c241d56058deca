r"""Predict the time of an iteration of section 4.2 on a GPU: ``python -m benchmarks.gpu_model``.

Prints every launch of one iteration, which is what the updater would launch: its blocks, those of
them that have work at the structures, registers (as NVIDIA's compiler reports them; no GPU is
needed), bytes, FLOPs, and a predicted time.  **The times are a prediction, and no GPU has confirmed
them.**  One number is measured: 8.07 ms an iteration at theta = 0.5 on an H200, with kernels that
waited for one load after the other; ``--before`` models those.

The model.  A launch takes the largest of three times, and what a graph needs to begin a node:

- bytes that it must read or write once, over the bandwidth;
- FLOPs over the peak;
- the loads that a thread waits for one after the other, each a latency, as many times as the blocks
  of a multiprocessor follow each other, and the instructions that its schedulers issue.

How many loads follow each other is read off the source of the kernels and stands in this file.  The
latency is the one free number: it was chosen so that those kernels come out at 8.07 ms.
"""

import argparse
import collections
import contextlib
import dataclasses
import functools
import json
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy

import chainer_sno
from benchmarks import nvrtc
from chainer_sno import chainer, links
from chainer_sno._types import Array
from chainer_sno.cuda.kernels import _KERNEL, Kernels, Launch
from chainer_sno.graph import updaters
from chainer_sno.graph.iteration import Iteration
from reproduce import ReproduceError
from reproduce.augmentation import ImageIterator, Standardise, channel_statistics
from reproduce.compare import format_table
from reproduce.run import get_device

#: Measured, on an H200: milliseconds an iteration, with the kernels before (``--before``).
MEASURED, MEASURED_THETA = 8.07, 0.5
#: Registers of a thread of the kernels that were measured, where they have others now.
BEFORE = {"layer": 116, "layer_back": 86, "layer_weights": 73, "stem": 124, "stem_weights": 78}
#: Pairs of structures over which the time at a theta is averaged.
DRAWS = 20
#: Images of a mini-batch, and structures, of section 4.2.
IMAGES, SAMPLES = 32, 2
#: What is printed, a dictionary for each launch.
Rows = list[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Device:
    """A GPU; the defaults are an H200's.

    Attributes:
        name (str): of the GPU.
        sms (int): multiprocessors: NVIDIA's data sheet.
        clock (float): Hz: the boost clock, at which the data sheet's 67 TFLOP/s are meant.
        bandwidth (float): bytes a second: the data sheet's 4.8 TB/s.
        lanes (int): multiply-adds in float32 of a multiprocessor in a cycle; this, and the four
            numbers that follow, by the CUDA C++ Programming Guide, for compute capability 9.0.
        schedulers (int): instructions of warps that a multiprocessor issues in a cycle.
        registers (int): of a multiprocessor.
        shared (int): bytes of shared memory of a multiprocessor.
        threads (int): of a multiprocessor at a time.
        latency (float): cycles that a thread waits for a load; the free number of the model.
        node (float): seconds that a graph takes to begin a node that depends on the one before;
            about what is published for graphs of small kernels, not measured here.
    """

    name: str = "H200"
    sms: int = 132
    clock: float = 1.98e9
    bandwidth: float = 4.8e12
    lanes: int = 128
    schedulers: int = 4
    registers: int = 65536
    shared: int = 228 * 1024
    threads: int = 2048
    latency: float = 460.0
    node: float = 2e-6

    def blocks(self, threads: int, registers: int, shared: int) -> int:
        """Return how many blocks of a kernel a multiprocessor has at once.

        Args:
            threads (int): of a block.
            registers (int): of a thread; they are given to warps, in units of eight a thread.
            shared (int): bytes of a block, beside one kilobyte of the system's.
        """
        warps = -(-threads // 32)
        of_registers = self.registers // (-(-registers // 8) * 8 * 32 * warps)
        return min(32, self.threads // threads, of_registers, self.shared // (shared + 1024))


@dataclasses.dataclass(frozen=True)
class Work:
    """What a launch does at some structures.

    Attributes:
        flops (float): multiplications and additions that count: of active channels.
        bytes (float): that are read or written, each once.
        blocks (float): that do not leave at once.
        waits (float): loads that the longest thread waits for one after the other.
        instructions (float): of warps, over all blocks; where it is 0, the FLOPs over 32.
    """

    flops: float
    bytes: float
    blocks: float
    waits: float
    instructions: float = 0.0


class Listed(Kernels):
    """Kernels whose launches are listed and never run; arrays are NumPy's."""

    xp = numpy


def updater_at(
    theta: float,
    samples: int = SAMPLES,
    images: int = IMAGES,
    network: Any = None,
    shape: tuple[int, int] = (32, 32),
    device: Any = None,
    kind: Any = Listed,
) -> updaters.GraphStructureUpdater:
    r"""Return the captured updater of section 4.2, whose program is to be read.

    Args:
        theta (float): of every bit.
        samples (int): :math:`\lambda`.
        images (int): of a mini-batch.
        network (chainer_sno.links.PlainDenseNet): the paper's by default.
        shape (tuple of int): of an image.
        device (chainer.backend.Device): of its arrays; the host by default.
        kind (type): of its kernels; by default such as cannot run.

    Returns:
        chainer_sno.graph.updaters.GraphStructureUpdater: the updater.
    """
    device = device or chainer.get_device("@numpy")
    rng = numpy.random.default_rng(0)
    arrays = rng.integers(0, 256, (images, 3, *shape), dtype=numpy.uint8), numpy.zeros(images, "i")
    standardise = Standardise(*map(device.send, channel_statistics(arrays[0])))
    batch = ImageIterator(tuple(map(device.send, arrays)), images, standardise)
    network = network or links.DenseNet()
    network.to_device(device)
    bernoulli = chainer_sno.Bernoulli(network.costs, initial_theta=theta)
    bernoulli.to_device(device)
    optimizer = chainer.optimizers.NesterovAG(0.1, 0.9).setup(network)
    optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(1e-4))
    return updaters.GraphStructureUpdater(batch, optimizer, bernoulli, samples, kind)


class Model:
    """The work of each launch of a captured DenseNet at given structures.

    Args:
        updater (chainer_sno.graph.updaters.GraphStructureUpdater): of :func:`updater_at`.
        structures (numpy.ndarray): bool, shape (samples, d).
        before (bool): the loads are waited for as in the kernels that were measured.
    """

    def __init__(self, updater: Any, structures: Array, before: bool = False) -> None:
        self.program, self.network = updater.captured.program, updater.captured.network
        self.before = before
        self.kernels = self.program.kernels
        self.size = self.kernels.dtype.itemsize
        names = {
            name: [text.split()[-1].lstrip("*") for text in parameters.split(",")]
            for name, parameters in _KERNEL.findall(self.kernels.source)
        }
        self.parameters = names
        options = (re.fullmatch(r"-D(\w+)=(\d+)", option) for option in self.kernels.options)
        self.defined = {match[1]: int(match[2]) for match in options if match}
        self.counts, self.live = {}, {}
        for block in self.network.blocks:
            link, first = block.block, int(block.geometry[5])
            bits = structures[:, first:]
            counts = [
                [numpy.dot(own[part], widths) for part, widths in link.consumers()] for own in bits
            ]
            self.counts[id(block.geometry)] = numpy.array(counts)
            self.live[id(block.geometry)] = numpy.array([link.live(own) for own in bits])

    def works(self) -> Iterator[tuple[Launch, Work]]:
        """Yield each launch and its :class:`Work`."""
        for launch in self.program.launches:
            arguments = dict(zip(self.parameters[launch.name], launch.arguments))
            yield launch, getattr(self, f"_{launch.name}")(launch, arguments)

    # What several kernels share.

    def _geometry(self, a: Any) -> tuple[int, int, int, int]:
        g = a["geometry"]
        images, height, width, channels = map(int, g[:4])
        return images * height * width, channels, height, width

    def _tiles(self, a: Any) -> tuple[int, int]:
        """Return the tiles of a feature map and the rows of one."""
        columns, _, height, width = self._geometry(a)
        rows = self.defined["STRIPS"] // -(-width // self.defined["STRIP"])
        return -(-columns // (width * rows)), rows

    def _active(self, a: Any, live: bool = False) -> Any:
        """Return the active channels of a launch's consumer, by structure."""
        g = a["geometry"]
        consumer = int(a["consumer"]) if "consumer" in a else int(g[7]) - 1
        n = self.counts[id(g)][:, consumer]
        return n * self.live[id(g)][:, consumer] if live else n

    def _blocks(self, launch: Launch) -> int:
        return math.prod(int(size) for size in launch.grid)

    def _elementwise(
        self, launch: Launch, numbers: float, waits: float, flops: float = 1.0
    ) -> Work:
        """A thread an element, of which it reads or writes so many numbers."""
        blocks = self._blocks(launch)
        threads = blocks * launch.block[0]
        return Work(
            flops * threads, numbers * threads * self.size, blocks, waits, threads * 30 / 32
        )

    # The three kernels that hold most of the time, and the same for the first convolution.

    def _convolution(self, launch: Launch, a: Any, n: Any, out: int) -> Work:
        columns = self._geometry(a)[0]
        tiles, _ = self._tiles(a)
        splits, read, strip = int(launch.grid[1]), self.defined["READ"], self.defined["STRIP"]
        loads = -(-self.defined["TILE"] // self.defined["STRIPS"])
        rounds = max(-(-int(own) // (splits * read)) for own in n)
        # A wait an element and two for the weights of a channel; now the channels, their maps, and
        # their weights, a wait each.
        waits = 2 + rounds * (read * (loads + 3) if self.before else 3)
        each = 1.6 * 9 * out * strip + loads * (60 if self.before else 15) + 20
        instructions = n.sum() * tiles * (self.defined["STRIPS"] // 32) * each
        moved = n.sum() * (columns + 9 * out) + len(n) * splits * out * columns
        flops = 2 * 9 * out * columns * n.sum()
        return Work(flops, moved * self.size, self._blocks(launch), waits, instructions)

    def _layer(self, launch: Launch, a: Any) -> Work:
        return self._convolution(launch, a, self._active(a), self.defined["GROWTH"])

    def _stem(self, launch: Launch, a: Any) -> Work:
        return self._convolution(launch, a, numpy.array([int(a["channels"])]), self.defined["STEM"])

    def _weight_gradient(self, launch: Launch, a: Any, n: Any, out: int) -> Work:
        columns, _, _, width = self._geometry(a)
        tiles, rows = self._tiles(a)
        group, slices = self.defined["WEIGHT_GROUP"], self.defined["SLICES"]
        slabs, threads = int(launch.grid[1]), launch.block[0]
        groups = sum(-(-int(own) // group) for own in n)
        pixels = self.defined["STRIPS"] * self.defined["STRIP"]
        # A wait an element of the maps and of the gradients; now two for some maps, and one for
        # the gradients of a pixel.  At the end a barrier and a wait an output channel.
        of_maps = group * -(-self.defined["TILE"] // threads)
        of_gradients = -(-pixels * (out if self.before else 1) // threads)
        a_tile = of_maps + of_gradients
        if not self.before:
            a_tile = 2 * -(-group // self.defined["READ"]) + of_gradients
        waits = 3 + -(-tiles // slabs) * a_tile + out / 4
        each = 1.3 * -(-rows // slices) * width * out * 3 + of_maps * 15 + of_gradients * 40
        instructions = groups * tiles * threads / 32 * each
        moved = n.sum() * columns + (n > 0).sum() * out * columns + slabs * 9 * out * n.sum()
        flops = 2 * 9 * out * columns * n.sum()
        return Work(flops, moved * self.size, groups * slabs, waits, instructions)

    def _layer_weights(self, launch: Launch, a: Any) -> Work:
        return self._weight_gradient(launch, a, self._active(a, True), self.defined["GROWTH"])

    def _stem_weights(self, launch: Launch, a: Any) -> Work:
        return self._weight_gradient(
            launch, a, numpy.array([int(a["channels"])]), self.defined["STEM"]
        )

    def _layer_back(self, launch: Launch, a: Any) -> Work:
        columns = self._geometry(a)[0]
        tiles, _ = self._tiles(a)
        n, out, group = self._active(a, True), self.defined["GROWTH"], self.defined["GROUP"]
        strips, strip = self.defined["STRIPS"], self.defined["STRIP"]
        groups = sum(-(-int(own) // group) for own in n)
        loads = -(-self.defined["TILE"] // strips)
        # The gradients; the weights; for each channel at the end its number, its normalisation,
        # its strip, and the sums over the block, which take as long as a load.
        if self.before:
            waits = 3 + out * loads + 8 + group * (2 + 2 * strip + 1)
        else:
            waits = 3 + -(-out // self.defined["READ"]) + 4 + group * (2 + 1)
        each = 1.5 * out * 9 * group * strip + out * loads * 15 + group * 200
        instructions = groups * tiles * strips / 32 * each
        moved = n.sum() * (3 * columns + 9 * out) + (n > 0).sum() * out * columns
        flops = 2 * 9 * out * columns * n.sum()
        return Work(flops, moved * self.size, groups * tiles, waits, instructions)

    # What lies between them.

    def _finish(self, launch: Launch, a: Any) -> Work:
        columns = self._geometry(a)[0]
        count, samples, splits = int(launch.grid[1]), int(launch.grid[2]), int(a["splits"])
        each = self.defined["CHUNK"] // launch.block[0]
        maps = count * samples * columns
        read = splits * (count * columns if a["shared"] else maps)
        waits = 1 + splits * (each if self.before else 1) + 2
        return Work(
            maps * (splits + 4), (read + maps) * self.size, self._blocks(launch), waits, maps / 2
        )

    def _combine(self, launch: Launch, a: Any) -> Work:
        channels, chunks = int(a["count"]) * int(a["samples"]), int(a["chunks"])
        # A chunk is a load and a division in float64, which follow each other.
        moved = channels * (chunks * 16 + 3 * self.size)
        return Work(10 * channels * chunks, moved, self._blocks(launch), 3 + chunks)

    def _complete(self, launch: Launch, a: Any) -> Work:
        samples = int(a["samples"]) if a["summed"] else 1
        work = self._elementwise(launch, 2 * samples + 1, 1 + 2 * samples, 4 * samples)
        # Two divisions in float64 a structure.
        return dataclasses.replace(work, instructions=work.instructions * (1 + 2 * samples))

    def _normalisation_back(self, launch: Launch, a: Any) -> Work:
        n, tiles = self._active(a, True).sum(), int(a["tiles"])
        waits = 1 + 5 * int(a["samples"])
        return Work(2 * n * tiles, n * tiles * 16, self._blocks(launch), waits)

    def _exit_back(self, launch: Launch, a: Any) -> Work:
        columns = self._geometry(a)[0]
        n = self._active(a).sum()
        each = self.defined["CHUNK"] // launch.block[0]
        waits = 3 + (3 * each if self.before else 2) + 2
        return Work(
            6 * n * columns,
            (3 * columns + columns // 4) * n * self.size,
            n * int(launch.grid[0]),
            waits,
            n * columns,
        )

    def _pool(self, launch: Launch, a: Any) -> Work:
        columns, _, height, width = self._geometry(a)
        n = self._active(a).sum()
        pixels = 4 if a["squares"] else height * width
        moved = n * columns * (1 + 1 / pixels) * self.size
        return Work(4 * n * columns, moved, n * int(launch.grid[0]), 3 + pixels / 4)

    def _product(
        self, launch: Launch, m: Any, n: Any, k: Any, tile: int, step: int, waits: float
    ) -> Work:
        """A tiled matrix product, m x n x k, by structure where m or k are arrays."""
        m, k = numpy.broadcast_arrays(m, k)
        blocks = sum(-(-int(own) // tile) for own in m) * -(-int(n) // tile)
        longest = max(-(-int(own) // step) for own in k)
        flops = float((2 * m * n * k).sum())
        moved = float((m * k + n * k + m * n).sum())
        return Work(flops, moved * self.size, blocks, 2 + longest * waits, flops / 2 / 32 * 2.5)

    def _transition(self, launch: Launch, a: Any) -> Work:
        out, size = int(a["out"]), self._geometry(a)[0] // 4
        return self._product(launch, out, size, self._active(a), 64, 16, 3)

    def _transition_back(self, launch: Launch, a: Any) -> Work:
        out, size = int(a["out"]), self._geometry(a)[0] // 4
        return self._product(launch, self._active(a), size, out, 64, 16, 3)

    def _transition_weights(self, launch: Launch, a: Any) -> Work:
        out, size = int(a["out"]), self._geometry(a)[0] // 4
        slabs = int(launch.grid[2]) // int(a["samples"])
        share = -(-size // slabs)
        work = self._product(launch, self._active(a), out, share, 32, 32, 2)
        return Work(
            slabs * work.flops,
            slabs * work.bytes,
            slabs * work.blocks,
            work.waits,
            slabs * work.instructions,
        )

    def _sum_of_parts(self, launch: Launch, gradient: Any, parts: int) -> Work:
        waits = 3 + parts / 4
        numbers = gradient.size * (parts + 1)
        return Work(numbers, numbers * self.size, self._blocks(launch), waits)

    def _layer_sum(self, launch: Launch, a: Any) -> Work:
        return self._sum_of_parts(launch, a["gradient"], int(a["slabs"]) * int(a["samples"]))

    _transition_sum = _layer_sum

    def _stem_sum(self, launch: Launch, a: Any) -> Work:
        return self._sum_of_parts(launch, a["gradient"], int(a["slabs"]))

    def _classify_pooled(self, launch: Launch, a: Any) -> Work:
        n, classes = self._active(a), int(a["classes"])
        images = int(a["geometry"][0])
        rounds = -(-classes // (launch.block[0] // 32)) * max(-(-int(own) // 32) for own in n)
        flops = 2 * classes * images * n.sum()
        moved = (images + classes) * n.sum() * self.size
        return Work(flops, moved, self._blocks(launch), 3 + 2 * rounds + classes / 4)

    def _classifier_gradient(self, launch: Launch, a: Any) -> Work:
        images, classes = int(a["geometry"][0]), int(a["classes"])
        flops = 2 * classes * images * self._active(a).sum()
        waits = 2 + len(self._active(a)) * (images / 4 + 3)
        return Work(flops, a["pooled"].nbytes, self._blocks(launch), waits)

    def _classifier_back(self, launch: Launch, a: Any) -> Work:
        images, classes, n = int(a["geometry"][0]), int(a["classes"]), self._active(a).sum()
        moved = n * (images + classes) * self.size
        return Work(2 * classes * images * n, moved, n, 3 + classes / 4)

    def _connect(self, launch: Launch, a: Any) -> Work:
        # One thread finds, connection by connection, what the exit depends on.
        consumers = int(a["geometry"][7])
        return Work(0, a["rows"].nbytes, self._blocks(launch), 3 + consumers**2 / 2)

    def _drop_dead_layers(self, launch: Launch, a: Any) -> Work:
        # One thread does it, connection by connection.
        consumers = int(a["geometry"][7])
        return Work(0, a["structures"].nbytes, self._blocks(launch), 3 + consumers**2 / 2)

    def _running_statistics(self, launch: Launch, a: Any) -> Work:
        samples = int(a["samples"])
        return self._elementwise(launch, 2 * samples + 4, 2 + 2 * samples, 6 * samples)

    def _clear(self, launch: Launch, a: Any) -> Work:
        return Work(0, int(a["size"]) * 4, self._blocks(launch), 0)

    def _take_images(self, launch: Launch, a: Any) -> Work:
        return self._elementwise(launch, 1.25, 4, 2)

    def _sample(self, launch: Launch, a: Any) -> Work:
        return self._elementwise(launch, 1, 2, 0)

    def _selection(self, launch: Launch, a: Any) -> Work:
        return self._elementwise(launch, 4, 4 + int(a["n"]) / 4, 10)

    def _optimize(self, launch: Launch, a: Any) -> Work:
        return self._elementwise(launch, 5, 2, 8)


def predict(
    device: Device, work: Work, launch: Launch, resources: Mapping[str, Any]
) -> tuple[float, int]:
    """Return the predicted seconds of a launch, and the blocks that a multiprocessor has at once.

    Args:
        device (Device): the GPU.
        work (Work): of the launch.
        launch (chainer_sno.cuda.kernels.Launch): its configuration.
        resources (dict): of the kernel; see :func:`benchmarks.nvrtc.resources`.
    """
    threads = math.prod(launch.block)
    resident = device.blocks(threads, resources["registers"], resources["shared"])
    each = -(-work.blocks // device.sms)  # blocks of the busiest multiprocessor
    waves = max(1.0, each / resident)
    instructions = work.instructions or work.flops / 2 / 32
    issued = instructions / device.schedulers / device.sms
    if work.blocks:
        issued *= each * device.sms / work.blocks
    cycles = waves * work.waits * device.latency + issued
    peak = 2 * device.lanes * device.sms * device.clock
    longest = max(cycles / device.clock, work.bytes / device.bandwidth, work.flops / peak)
    return device.node + longest, resident


def rows_of(device: Device, model: Model, resources: Mapping[str, Any]) -> Rows:
    """Return, for each launch, a dictionary of what is printed."""
    rows = []
    for launch, work in model.works():
        seconds, resident = predict(device, work, launch, resources[launch.name])
        rows.append(
            {
                "kernel": launch.name,
                "grid": "x".join(str(int(size)) for size in launch.grid),
                "threads": math.prod(launch.block),
                "blocks": math.prod(int(size) for size in launch.grid),
                "busy": int(work.blocks),
                "registers": resources[launch.name]["registers"],
                "at once": resident,
                "waits": round(float(work.waits), 1),
                "bytes": int(work.bytes),
                "flops": int(work.flops),
                "us": round(1e6 * float(seconds), 2),
                "aside": launch.aside,
            }
        )
    return rows


@functools.lru_cache(maxsize=4)
def _log_of(source: str, options: tuple[str, ...]) -> str:
    """Return the compiler's log."""
    code, log = nvrtc.compile_kernels(source, options)
    if not code:
        sys.exit(f"benchmarks: the kernels do not compile: {log.strip().splitlines()[0]}")
    return log


def compiled(kernels: Kernels) -> dict[str, dict[str, int]]:
    """Return what the kernels take of a multiprocessor, compiled for sm_90.

    Raises:
        SystemExit: the compiler is not there, or refuses the source.
    """
    if not nvrtc.is_there():
        sys.exit(
            "benchmarks: registers are the compiler's to say, and it is not there: "
            "pip install nvidia-cuda-nvrtc-cu12 (no GPU is needed)"
        )
    options = *kernels.options, *nvrtc.OF_CUPY, "--gpu-architecture=sm_90"
    return nvrtc.resources(_log_of(kernels.source, (*options, "--ptxas-options=-v")))


def measure(
    captured: Iteration,
    timed: Callable[[Callable[[], object]], float],
    structures: Callable[[], Array],
) -> tuple[Array, list[float | None]]:
    """Return the seconds of each launch on a device, launched alone, and what they belong to.

    Args:
        captured (chainer_sno.graph.iteration.Iteration): of an updater that has trained on the
            device; afterwards its numbers are no training's.
        timed (callable): takes a function, returns its seconds.
        structures (callable): returns those of the last iteration, bool, on the host.

    Returns:
        tuple: the structures, and a list of seconds; None for what is aside, which moves on where
        the training stands.
    """
    found = structures()
    seconds = [
        None if launch.aside else timed(functools.partial(captured.kernels.launch, *launch[:4]))
        for launch in captured.program.launches
    ]
    return found, seconds


def measure_on(number: int) -> tuple[Array, list[float | None], str]:
    """Return :func:`measure` of the paper's training on a GPU, and the GPU's name.

    Raises:
        SystemExit: it is not there.
    """
    try:
        device = get_device(number)
    except ReproduceError as error:
        sys.exit(f"benchmarks: {error}")
    updater = updater_at(0.5, device=device, kind=Kernels)
    for _ in range(3):
        updater.update()
    cupy = device.xp
    first, last = cupy.cuda.Event(), cupy.cuda.Event()

    def timed(launch: Callable[[], object], times: int = 10) -> float:
        launch()
        first.record()
        for _ in range(times):
            launch()
        last.record()
        last.synchronize()
        return cupy.cuda.get_elapsed_time(first, last) / times / 1e3

    captured = updater.captured
    found = measure(captured, timed, lambda: captured.network.structures.get().astype(bool))
    properties = cupy.cuda.runtime.getDeviceProperties(number)
    return *found, properties["name"].decode()


def total_ms(rows: Rows) -> float:
    """Return the milliseconds of an iteration; what is aside runs beside the rest."""
    return sum(row["us"] for row in rows if not row["aside"]) / 1e3


def read_structures(path: str, d: int) -> Array:
    """Return structures from a file of NumPy's, bool of shape (samples, d).

    Raises:
        SystemExit: it holds none.
    """
    try:
        found = numpy.atleast_2d(numpy.load(path))
    except (OSError, ValueError) as error:
        sys.exit(f"benchmarks: {path} holds no structures ({error})")
    if found.ndim != 2 or found.shape[1] != d or not numpy.isin(found, (0, 1)).all():
        sys.exit(
            f"benchmarks: structures are zeros and ones of shape (samples, {d}), and {path} holds "
            f"{found.dtype} of shape {found.shape}"
        )
    return found.astype(bool)


def print_rows(rows: Rows, every: bool) -> None:
    """Print the launches, if ``every``, and what the kernels add up to."""
    if every:
        texts = [
            [
                row["kernel"] + (" (aside)" if row["aside"] else ""),
                row["grid"],
                *(str(row[name]) for name in ("threads", "busy", "registers", "at once", "waits")),
                f"{row['bytes'] / 1e6:.2f}",
                f"{row['flops'] / 1e6:.1f}",
                f"{row['us']:.1f}",
                *([f"{row['measured us']}"] if "measured us" in row else []),
            ]
            for row in rows
        ]
        heads = ["launch", "grid", "threads", "busy blocks", "registers", "blocks an SM"]
        heads += ["waits", "MB", "MFLOP", "predicted us"]
        print(format_table([*heads, *["measured us"] * ("measured us" in rows[0])], texts))
        print()
    kinds = collections.defaultdict(list)
    for row in rows:
        kinds[row["kernel"]].append(row)
    order = sorted(kinds, key=lambda name: -sum(row["us"] for row in kinds[name]))
    texts = []
    for name in order:
        own = kinds[name]
        sums = {key: sum(row[key] for row in own) for key in ("bytes", "flops", "us")}
        texts.append(
            [
                name,
                str(len(own)),
                str(own[0]["registers"]),
                f"{sums['bytes'] / 1e6:.1f}",
                f"{sums['flops'] / 1e9:.3f}",
                f"{sums['us'] / len(own):.1f}",
                f"{sums['us'] / 1e3:.3f}",
            ]
        )
        if "measured us" in own[0]:
            measured = [row["measured us"] or 0 for row in own]
            texts[-1].append(f"{sum(measured) / 1e3:.3f}")
    heads = ["kernel", "launches", "registers", "MB", "GFLOP", "predicted us each", "predicted ms"]
    print(format_table([*heads, *["measured ms"] * ("measured us" in rows[0])], texts))


def parse(arguments: Sequence[str] | None = None) -> tuple[argparse.Namespace, Device]:
    """Return the options of a command line, and the device that they describe.

    Raises:
        SystemExit: a number is out of range.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--theta", type=float, default=0.5, help="of every bit (0.5)")
    what.add_argument(
        "--measure", type=int, metavar="DEVICE", help="also time each launch alone, on this GPU"
    )
    what.add_argument("--structures", help="a .npy file of zeros and ones, (d,) or (samples, d)")
    parser.add_argument("--seed", type=int, default=0, help="of the structures drawn at theta")
    parser.add_argument("--samples", type=int, default=SAMPLES, help=f"lambda ({SAMPLES})")
    parser.add_argument("--before", action="store_true", help="the kernels that were measured")
    parser.add_argument("--summary", action="store_true", help="kernels alone, not each launch")
    parser.add_argument("--json", action="store_true", help="a JSON line a launch instead")
    numbers = parser.add_argument_group("the device, an H200 by default")
    numbers.add_argument("--sms", type=int, default=Device.sms)
    numbers.add_argument("--clock", type=float, default=Device.clock, help="Hz")
    numbers.add_argument("--bandwidth", type=float, default=Device.bandwidth, help="bytes/s")
    numbers.add_argument("--latency", type=float, default=Device.latency, help="cycles of a load")
    numbers.add_argument("--node", type=float, default=Device.node, help="s to begin a node")
    given = parser.parse_args(arguments)
    if not 0 <= given.theta <= 1:
        sys.exit(f"benchmarks: --theta must lie in [0, 1], not {given.theta}")
    if given.samples < 1:
        sys.exit(f"benchmarks: --samples must be at least 1, not {given.samples}")
    values = {
        name: getattr(given, name) for name in ("sms", "clock", "bandwidth", "latency", "node")
    }
    for name, value in values.items():
        if not value > 0:
            sys.exit(f"benchmarks: --{name} must be positive, not {value}")
    return given, Device(**values)


def draws_of(
    given: argparse.Namespace, d: int
) -> tuple[list[Array], str, list[float | None] | None]:
    """Return the structures whose times are predicted, and those measured where that is asked for.

    Args:
        given (argparse.Namespace): the options.
        d (int): bits of a structure.

    Returns:
        tuple: a list of structures, bool of shape (samples, d) each; where they are from, in words;
        and the seconds of each launch of the first, None unless they are measured.
    """
    if given.measure is not None:
        structures, seconds, where = measure_on(given.measure)
        return [structures], f"those of an iteration on {where}", seconds
    if given.structures is not None:
        return [read_structures(given.structures, d)], given.structures, None
    rng = numpy.random.default_rng(given.seed)
    draws = [rng.random((given.samples, d)) < given.theta for _ in range(DRAWS)]
    return draws, f"theta = {given.theta:g}, drawn with seed {given.seed}", None


def print_sums(predicted: Sequence[Rows], draws: Sequence[Array], where: str) -> None:
    """Print what the launches of the first draw add up to, and the mean over all draws.

    Args:
        predicted (list of list of dict): the rows of each draw.
        draws (list of array): the structures of each.
        where (str): where they are from.
    """
    rows = predicted[0]
    flops = sum(row["flops"] for row in rows)
    moved = sum(row["bytes"] for row in rows)
    print(
        f"\n{len(rows)} launches, {len(draws[0])} structures ({where}; "
        f"{100 * draws[0].mean():.1f}% of the bits are on), {IMAGES} images, float32: "
        f"{flops / 1e9:.2f} GFLOP, {moved / 1e6:.0f} MB, {total_ms(rows):.2f} ms predicted"
    )
    if len(predicted) > 1:
        totals = [total_ms(rows) for rows in predicted]
        print(
            f"mean of {len(predicted)} draws: {sum(totals) / len(totals):.2f} ms predicted, from "
            f"{min(totals):.2f} to {max(totals):.2f}"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the prediction."""
    given, device = parse(arguments)
    network = links.DenseNet()
    draws, where, seconds = draws_of(given, len(network.costs))
    updater = updater_at(0.5, len(draws[0]), network=network)
    resources = compiled(updater.captured.kernels)
    if given.before:
        for name, registers in BEFORE.items():
            resources[name]["registers"] = registers
    predicted = [rows_of(device, Model(updater, own, given.before), resources) for own in draws]
    rows = predicted[0]
    for row, taken in zip(rows, seconds or ()):
        row["measured us"] = None if taken is None else round(1e6 * taken, 2)
    if given.json:
        for row in rows:
            print(json.dumps(row))
        return
    print_rows(rows, not given.summary)
    print_sums(predicted, draws, where)
    if seconds is not None:
        print(
            f"each launch alone, again and again: {1e3 * sum(s or 0 for s in seconds):.2f} ms "
            f"measured ({where}); an iteration is to be timed as a whole: python -m benchmarks "
            f"connection-selection --device {given.measure}"
        )
    print(
        f"on {device.name}: {device.sms} SMs, {device.clock / 1e9:g} GHz, "
        f"{device.bandwidth / 1e12:g} TB/s, {device.latency:g} cycles a load.  "
        "No device has confirmed any of the predicted times.\n"
        f"measured, once, on an H200 at theta = {MEASURED_THETA:g}, with the kernels of --before: "
        f"{MEASURED} ms"
    )


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main()
