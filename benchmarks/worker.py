"""Time one case in a process of its own: ``python -m benchmarks.worker CASE``; prints a JSON line.

A case trains a network of the paper on random images and prints the median time of an iteration,
everything in it included (the mini-batch, the structures, the update of theta, the weights and the
report), and the peak memory of the process.
"""

import argparse
import json
import resource
import statistics
import time

import numpy
import threadpoolctl

import chainer_sno
from chainer_sno import links
from chainer_sno._import_chainer import chainer
from chainer_sno.fast import FastStandardUpdater, FastStructureUpdater
from reproduce import data
from reproduce.augmentation import ImageIterator, Standardise, channel_statistics

WIDTHS = (784, (784, 784, 784), 10)
D = 2352
#: Units selected in each layer; the theta of the others is 1/d, that of these 1 - 1/d (Table 1).
CONVERGED = {"converged 340/141/126": (340, 141, 126), "converged 92/31/24": (92, 31, 24)}


#: Cases of section 4.2 and their theta; at its ends theta is clamped to 1/d and 1 - 1/d.
CONNECTIONS = {
    "DenseNet, theta = 0.5": 0.5,
    "DenseNet, theta = 0.16": 0.16,
    "DenseNet, theta = 1": 1.0,
    "stock Chainer, DenseNet": 0.5,
}


#: A training as it is, on the real images.
MNIST = "theta = 0.5, MNIST"


class StockUpdater(chainer_sno.StructureUpdater):
    """Algorithm 1 as one writes it with Chainer's own functions: a forward pass a structure."""

    def step(self, x, t, structures):
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
        ranked = numpy.array([float(loss.array) for loss in losses])
        self.bernoulli.update(structures, chainer_sno.ranking_utility(ranked))
        (sum(losses) / len(losses)).backward()
        optimizer.update()
        return ranked


def structure_updater(kind, batch, theta):
    """Return an updater of the proposed method at a given theta."""
    link = links.MaskedMLP(*WIDTHS)
    bernoulli = chainer_sno.Bernoulli(link.costs, 2.0**-7, initial_theta=theta)
    return kind(batch, _optimizer(link), bernoulli, converter=chainer_sno.pass_arrays)


def _optimizer(link, lr=0.01):
    optimizer = chainer.optimizers.NesterovAG(lr, 0.9).setup(link)
    optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(1e-4))
    return optimizer


def _iterator(batch_size):
    rng = numpy.random.default_rng(0)
    # No pixel is zero in a whole mini-batch, as none is in the peers' data: ours leaves such out.
    x = rng.integers(0, 256, (60000, 784), dtype=numpy.uint8)
    t = rng.integers(0, 10, 60000).astype("i")
    return chainer_sno.ArrayIterator((x, t), batch_size, divisor=255)


def products(batch_size):
    """Return a function that does the matrix products of an iteration of the fixed network.

    In the orientation that was faster, into arrays that are there: the floor.
    """
    rng = numpy.random.default_rng(0)
    widths = (784, 784, 784, 784, 10)
    W = [rng.random((b, a), dtype="f") for a, b in zip(widths, widths[1:])]
    h = [rng.random((a, batch_size), dtype="f") for a in widths]
    out = [numpy.empty_like(a) for a in h]
    gradients = [numpy.empty_like(a) for a in W]

    def step():
        for k, weights in enumerate(W):
            numpy.dot(weights, h[k], out=out[k + 1])
        for k in reversed(range(len(W))):
            numpy.dot(h[k + 1], h[k].T, out=gradients[k])
            if k:
                numpy.dot(W[k].T, h[k + 1], out=out[k])

    return step


def make_connection(case):
    """Return a function that does one iteration of a case of section 4.2."""
    network = links.PlainDenseNet() if case == "stock Chainer, DenseNet" else links.DenseNet()
    theta = CONNECTIONS[case]
    rng = numpy.random.default_rng(0)
    images = rng.integers(0, 256, (50000, 3, 32, 32), dtype=numpy.uint8)
    labels = rng.integers(0, 10, 50000).astype("i")
    standardise = Standardise(*channel_statistics(images))
    bernoulli = chainer_sno.Bernoulli(network.costs, 2.0**-4, initial_theta=theta)
    return chainer_sno.StructureUpdater(
        ImageIterator((images, labels), 32, standardise),
        _optimizer(network, 0.1),
        bernoulli,
        converter=chainer_sno.pass_arrays,
    ).update


def make(case):
    """Return a function that does one iteration of a case."""
    if case in CONNECTIONS:
        return make_connection(case)
    if case == "products, batch 64":
        return products(64)
    if case in ("fixed, batch 64", "dropout, batch 64"):
        link = links.MLP(*WIDTHS, dropout_ratio=0.5 if case.startswith("dropout") else 0.0)
        return FastStandardUpdater(_iterator(64), _optimizer(link), chainer_sno.pass_arrays).update
    kinds = {
        "stock Chainer": StockUpdater,
        "plain link": chainer_sno.StructureUpdater,
    }
    theta, iterator = 0.5, _iterator(32)
    if case == MNIST:
        iterator = chainer_sno.ArrayIterator(data.load("mnist")[0], 32, divisor=255)
    elif case in CONVERGED:
        on = [numpy.arange(784) < units for units in CONVERGED[case]]
        theta = numpy.where(numpy.concatenate(on), 1 - 1 / D, 1 / D)
    elif case == "everything on":
        theta = 1.0
    return structure_updater(kinds.get(case, FastStructureUpdater), iterator, theta).update


def main():
    """Time a case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case")
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--warmup", type=int, default=20, help="iterations before the timed ones")
    parser.add_argument("--start", type=float, default=0.0, help="when to begin, in Unix time")
    arguments = parser.parse_args()
    threadpoolctl.threadpool_limits(1, user_api="blas")
    step = make(arguments.case)
    for _ in range(arguments.warmup):
        step()
    time.sleep(max(0.0, arguments.start - time.time()))
    times = []
    for _ in range(arguments.iterations):
        begun = time.perf_counter()
        step()
        times.append(time.perf_counter() - begun)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    line = {"case": arguments.case, "ms": 1e3 * statistics.median(times), "peak_mb": peak}
    print(json.dumps(line))


if __name__ == "__main__":
    main()
