"""Time one case in a process of its own: ``python -m benchmarks.worker CASE``; prints a JSON line.

A case trains a network of the paper on random images and prints the median time of an iteration,
everything in it included (the mini-batch, the structures, the update of theta, the weights and the
report), and the peak memory of the process.  On a GPU, with ``--device 0``, iterations are timed
together, for the host does not wait for each of them: the median over ten parts of the iterations.
"""

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy
import threadpoolctl

import chainer_sno
from chainer_sno import chainer, complexity, extensions, links
from chainer_sno._types import Array
from chainer_sno.fast import FastStructureUpdater, FastUpdater
from chainer_sno.graph.updaters import GraphStructureUpdater, GraphUpdater
from reproduce import data
from reproduce.augmentation import ImageIterator, Standardise, channel_statistics
from reproduce.experiments.connection_training import TEST_BATCH
from reproduce.run import get_device
from reproduce.structures import depth

WIDTHS = (784, (784, 784, 784), 10)
D = 2352
#: Units selected in each layer; the theta of the others is 1/d, that of these 1 - 1/d (Table 1).
CONVERGED = {"converged 340/141/126": (340, 141, 126), "converged 92/31/24": (92, 31, 24)}


#: The state of a training that has converged at this usage rate (Table 2): theta is 1/d or 1 - 1/d.
CONVERGED_DENSENET, CONVERGED_RATE = "DenseNet, converged at 15.8% usage", 0.158
#: Cases of section 4.2 and their theta; at its ends theta is clamped to 1/d and 1 - 1/d.
CONNECTIONS = {
    "DenseNet, theta = 0.5": 0.5,
    "DenseNet, theta = 0.16": 0.16,
    "DenseNet, theta = 1": 1.0,
    "stock Chainer, DenseNet": 0.5,
    "DenseNet, theta = 0.5, two threads": 0.5,
    CONVERGED_DENSENET: None,
}
#: An evaluation of section 4.2, of so many test images at a structure of this usage rate.
EVALUATION, TEST_IMAGES, USAGE = "DenseNet, evaluation at 40% usage", 1000, 0.4
#: The time of the first call of the DenseNet in a process, whether it has to compile or not.
FIRST_CALL = "DenseNet, first call"


#: On a GPU, what the fast path is compared with: Chainer's optimizer and CuPy's functions.
EAGER = "eager, "
#: Parts into which the iterations on a GPU are cut.
PARTS = 10

#: A training as it is, on the real images.
MNIST = "theta = 0.5, MNIST"


class StockUpdater(chainer_sno.StructureUpdater):
    """Algorithm 1 as one writes it with Chainer's own functions: a forward pass a structure."""

    def step(self, x: Array, t: Array, structures: Array) -> Array:
        """Update theta and the weights."""
        functions = chainer.functions
        optimizer = self.get_optimizer("main")
        link = optimizer.target
        link.cleargrads()
        losses = []
        for m in structures.astype("f"):
            h, start = x, 0
            for layer in link.hidden:
                h = functions.relu(layer.linear(h))
                mask = m[None, start : start + h.shape[1]]
                h = h * functions.broadcast_to(chainer.as_variable(mask), h.shape)
                start += h.shape[1]
            losses.append(functions.softmax_cross_entropy(link.output(h), t))
        ranked = link.xp.stack([loss.array for loss in losses]).astype("d")
        self.bernoulli.update(structures, chainer_sno.ranking_utility(ranked))
        (sum(losses) / len(losses)).backward()
        optimizer.update()
        return ranked


def structure_updater(
    kind: Any, batch: Any, theta: Any, link: Any = None, epsilon0: float = 2.0**-7, lr: float = 0.01
) -> Any:
    """Return an updater of the proposed method at a given theta, on the device of the data."""
    link = link or links.MaskedMLP(*WIDTHS)
    bernoulli = chainer_sno.Bernoulli(link.costs, epsilon0, initial_theta=theta)
    device = chainer.backend.get_device_from_array(batch.arrays[0])
    bernoulli.to_device(device)
    optimizer = _optimizer(link, lr, device)
    if kind is GraphStructureUpdater:
        return kind(batch, optimizer, bernoulli)
    return kind(batch, optimizer, bernoulli, converter=chainer_sno.pass_arrays)


def _optimizer(link: Any, lr: float = 0.01, device: Any = None) -> Any:
    if device is not None:
        link.to_device(device)
    ours = type(link) is links.DenseNet
    kind = chainer_sno.NesterovAG if ours else chainer.optimizers.NesterovAG
    optimizer = kind(lr, 0.9).setup(link)
    optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(1e-4))
    return optimizer


def _iterator(batch_size: int, device: Any) -> chainer_sno.ArrayIterator:
    rng = numpy.random.default_rng(0)
    # No pixel is zero in a whole mini-batch, as none is in the peers' data: ours leaves such out.
    x = rng.integers(0, 256, (60000, 784), dtype=numpy.uint8)
    t = rng.integers(0, 10, 60000).astype("i")
    return chainer_sno.ArrayIterator((device.send(x), device.send(t)), batch_size, divisor=255)


def products(batch_size: int, device: Any) -> Callable[[], None]:
    """Return a function that does the matrix products of an iteration of the fixed network.

    In the orientation that was faster on a CPU, into arrays that are there: the floor.
    """
    xp = device.xp
    rng = numpy.random.default_rng(0)
    widths = (784, 784, 784, 784, 10)
    W = [device.send(rng.random((b, a), dtype="f")) for a, b in zip(widths, widths[1:])]
    h = [device.send(rng.random((a, batch_size), dtype="f")) for a in widths]
    out = [xp.empty_like(a) for a in h]
    gradients = [xp.empty_like(a) for a in W]

    def step() -> None:
        for k, weights in enumerate(W):
            xp.dot(weights, h[k], out=out[k + 1])
        for k in reversed(range(len(W))):
            xp.dot(h[k + 1], h[k].T, out=gradients[k])
            if k:
                xp.dot(W[k].T, h[k + 1], out=out[k])

    return step


def traffic(device: Any) -> Callable[[], None]:
    """Return a function that moves the bytes that an iteration at least has to move.

    Weights and velocities of section 4.1 are read and written once: two copies of so many numbers.
    """
    xp = device.xp
    weights = sum(a * b for a, b in zip((784,) * 4, (784, 784, 784, 10)))
    source, target = (xp.zeros(2 * weights, "f") for _ in range(2))

    def step() -> None:
        target[...] = source

    return step


def make_connection(case: str, device: Any, captured: bool) -> Callable[[], object]:
    """Return a function that does one iteration of a case of section 4.2."""
    network = links.PlainDenseNet() if case == "stock Chainer, DenseNet" else links.DenseNet()
    theta: Any = CONNECTIONS[case.removeprefix(EAGER)]
    rng = numpy.random.default_rng(0)
    if case == CONVERGED_DENSENET:
        d = len(network.costs)
        layers = len(network.blocks[0].convs)
        on = complexity.random_structure(
            network.costs,
            CONVERGED_RATE,
            numpy.random.default_rng(0),
            accept=lambda s: depth(s, len(network.blocks), layers) is not None,
        )
        theta = numpy.where(on, 1 - 1 / d, 1 / d)
    images = rng.integers(0, 256, (50000, 3, 32, 32), dtype=numpy.uint8)
    labels = rng.integers(0, 10, 50000).astype("i")
    standardise = Standardise(*(device.send(a) for a in channel_statistics(images)))
    iterator = ImageIterator((device.send(images), device.send(labels)), 32, standardise)
    captured = captured and case.startswith("DenseNet")
    kind = GraphStructureUpdater if captured else chainer_sno.StructureUpdater
    if case.endswith("two threads"):
        network.threads = 2
    return structure_updater(kind, iterator, theta, network, 2.0**-4, 0.1).update


def evaluation() -> Callable[[], object]:
    """Return a function that classifies test images at a structure, as a training does."""
    network = links.DenseNet()
    rng = numpy.random.default_rng(0)
    images = rng.integers(0, 256, (TEST_IMAGES, 3, 32, 32), dtype=numpy.uint8)
    labels = rng.integers(0, 10, TEST_IMAGES).astype("i")
    structure = complexity.random_structure(network.costs, USAGE, rng)
    bernoulli = chainer_sno.Bernoulli(network.costs, initial_theta=structure.astype("d"))
    batch = ImageIterator(
        (images, labels),
        TEST_BATCH,
        Standardise(*channel_statistics(images)),
        augment=False,
        repeat=False,
        shuffle=False,
    )
    return extensions.StructureEvaluator(batch, network, bernoulli)


def first_call() -> Callable[[], None]:
    """Return a function that does the first iterations of a DenseNet, forward and backward."""
    network = links.DenseNet()
    rng = numpy.random.default_rng(0)
    x = rng.standard_normal((32, 3, 32, 32), dtype="f")
    structures = rng.random((2, len(network.costs))) < 0.16

    def step() -> None:
        chainer.functions.sum(network(x, structures)).backward()

    return step


def make(case: str, device: Any = None, captured: bool = False) -> Callable[[], object]:
    """Return a function that does one iteration of a case.

    Args:
        case (str): what.
        device (chainer.backend.Device): where; the CPU by default.
        captured (bool): the fast path is that of a GPU.
    """
    device = device or chainer.get_device("@numpy")
    if case.removeprefix(EAGER) in CONNECTIONS:
        return make_connection(case, device, captured)
    if case == EVALUATION:
        return evaluation()
    if case == FIRST_CALL:
        return first_call()
    if case == "products, batch 64":
        return products(64, device)
    if case == "weights and velocities, read and written":
        return traffic(device)
    if case in ("fixed, batch 64", "dropout, batch 64"):
        link = links.MLP(*WIDTHS, dropout_ratio=0.5 if case.startswith("dropout") else 0.0)
        iterator = _iterator(64, device)
        if captured:
            return GraphUpdater(iterator, _optimizer(link, device=device)).update
        return FastUpdater(iterator, _optimizer(link), chainer_sno.pass_arrays).update
    kinds = {
        "stock Chainer": StockUpdater,
        "plain link": chainer_sno.StructureUpdater,
    }
    fast = GraphStructureUpdater if captured else FastStructureUpdater
    theta: float | Array = 0.5
    iterator = _iterator(32, device)
    if case == MNIST:
        iterator = chainer_sno.ArrayIterator(data.load("mnist")[0], 32, divisor=255)
    elif case in CONVERGED:
        on = [numpy.arange(784) < units for units in CONVERGED[case]]
        theta = numpy.where(numpy.concatenate(on), 1 - 1 / D, 1 / D)
    elif case == "everything on":
        theta = 1.0
    return structure_updater(kinds.get(case, fast), iterator, theta).update


def times_of(step: Callable[[], object], iterations: int) -> list[float]:
    """Return the seconds of each of some iterations on a CPU."""
    times = []
    for _ in range(iterations):
        begun = time.perf_counter()
        step()
        times.append(time.perf_counter() - begun)
    return times


def times_on_a_gpu(
    step: Callable[[], object], iterations: int, wait: Callable[[], object]
) -> list[float]:
    """Return the mean seconds of an iteration in each of some parts of the iterations."""
    times = []
    for _ in range(PARTS):
        count = max(1, iterations // PARTS)
        wait()
        begun = time.perf_counter()
        for _ in range(count):
            step()
        wait()
        times.append((time.perf_counter() - begun) / count)
    return times


def main() -> None:
    """Time a case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case")
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--warmup", type=int, default=20, help="iterations before the timed ones")
    parser.add_argument("--start", type=float, default=0.0, help="when to begin, in Unix time")
    parser.add_argument("--device", type=int, default=-1, help="a GPU, or -1 for the CPU")
    arguments = parser.parse_args()
    threadpoolctl.threadpool_limits(1, user_api="blas")
    device = get_device(arguments.device)
    device.use()
    gpu = arguments.device >= 0
    step = make(arguments.case, device, gpu)
    for _ in range(arguments.warmup):
        step()
    time.sleep(max(0.0, arguments.start - time.time()))
    if gpu:
        wait = device.xp.cuda.Device().synchronize
        times = times_on_a_gpu(step, arguments.iterations, wait)
        peak = device.xp.get_default_memory_pool().total_bytes() / 2**20
    else:
        times = times_of(step, arguments.iterations)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    line = {"case": arguments.case, "ms": 1e3 * statistics.median(times), "peak_mb": peak}
    print(json.dumps(line))


if __name__ == "__main__":
    main()
