"""Channels of a small convolutional network under selection, on Fashion-MNIST.

A worked example from outside the paper: a plain Chainer network, made searchable by naming its
layers.  Its channels are the bits of the structure, and a channel costs the floating-point
operations that go into it and out of it.

    python examples/fashion_mnist_channels.py           # a quarter of an hour on one core
    python examples/fashion_mnist_channels.py --quick   # seconds, made-up images: does it run?

It needs the package and its extra ``examples``, and nothing else of this repository.  Given again
after an interruption, the command goes on from its last snapshot.
"""

import argparse
import gzip
import os
from pathlib import Path

# The figure is only saved; the backend of a notebook that starts this may be missing here.
os.environ["MPLBACKEND"] = "agg"

import chainer_sno  # isort: skip  (before chainer)
import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import threadpoolctl
from chainer.training import extensions
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

CLASSES = 10
BATCH_SIZE = 32


class ConvNet(chainer.Chain):
    """Three convolutions with batch normalisation and ReLU, and a linear layer."""

    def __init__(self, channels):
        super().__init__()
        a, b, c = channels
        W = chainer.initializers.HeNormal()
        with self.init_scope():
            self.conv1 = L.Convolution2D(1, a, 5, 2, 2, nobias=True, initialW=W)
            self.bn1 = L.BatchNormalization(a)
            self.conv2 = L.Convolution2D(a, b, 3, 2, 1, nobias=True, initialW=W)
            self.bn2 = L.BatchNormalization(b)
            self.conv3 = L.Convolution2D(b, c, 3, 1, 1, nobias=True, initialW=W)
            self.bn3 = L.BatchNormalization(c)
            self.output = L.Linear(None, CLASSES, initialW=W)

    def forward(self, x):
        """Return the outputs, shape (N, classes), of images of shape (N, 1, 28, 28)."""
        h = F.relu(self.bn1(self.conv1(x)))
        h = F.relu(self.bn2(self.conv2(h)))
        h = F.relu(self.bn3(self.conv3(h)))
        return self.output(h)


def made_up_images():
    """Return images of two rectangles, one at a place that tells the class, for a quick run."""
    rng = numpy.random.default_rng(0)
    parts = []
    for n in (640, 200):
        t = rng.integers(0, CLASSES, n).astype("i")
        x = rng.integers(0, 60, (n, 1, 28, 28), dtype=numpy.uint8)
        for (image,), label in zip(x, t):
            row, column = divmod(int(label), 5)
            image[14 * row : 14 * row + 10, 5 * column : 5 * column + 5] += 150
        parts.append((x, t))
    return parts


def read_images(directory):
    """Return the images and classes of the four IDX files of a directory, gzipped or not.

    Without a directory, Chainer downloads them.
    """
    if directory is None:
        parts = chainer.datasets.get_fashion_mnist(ndim=3, scale=255, dtype=numpy.uint8)
        return [tuple(part._datasets) for part in parts]

    def read(name, skip):
        path = Path(directory, name)
        content = path.read_bytes() if path.exists() else Path(f"{path}.gz").read_bytes()
        content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
        return numpy.frombuffer(content, dtype=numpy.uint8, offset=skip)

    return [
        (
            read(f"{part}-images-idx3-ubyte", 16).reshape(-1, 1, 28, 28),
            read(f"{part}-labels-idx1-ubyte", 8).astype("i"),
        )
        for part in ("train", "t10k")
    ]


def draw(link, bernoulli, log, path):
    """Draw theta by layer, and the size beside the error over the epochs."""
    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    above, below = figure.subfigures(2, 1)
    chainer_sno.plots.theta_by_group(link, bernoulli, above)
    axes = below.subplots()
    epochs = [round(entry["iteration"] / log[0]["iteration"]) for entry in log]
    for entry, words, style in (
        ("structure/usage_rate", f"usage rate, in {bernoulli.criterion}", "C0-o"),
        ("structure/flops_ratio", "operations that remain", "C3-D"),
        ("structure/weight_ratio", "weights that remain", "C2-s"),
    ):
        axes.plot(epochs, [100 * e[entry] for e in log], style, markersize=4, label=words)
    axes.set_ylim(0, 100)
    axes.set_xlabel("epoch")
    axes.set_ylabel("% of the full network")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    errors = axes.twinx()
    values = [100 * e["validation/main/error"] for e in log]
    errors.plot(epochs, values, "C1--^", markersize=4, label="test error (right)")
    errors.set_ylabel("test error, %")
    errors.set_ylim(0, 1.1 * max(values))
    below.legend(loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(path, dpi=150, metadata={"Software": None})


# A core is enough for products of this size, and the sums are the same however many there are.
@threadpoolctl.threadpool_limits.wrap(limits=1, user_api="blas")
def main(arguments=None):
    """Train, print the result, draw the figure and write the small network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--epsilon0", type=float, default=2**-5, help="the penalty (2^-5 = 0.03125)")
    add("--criterion", choices=chainer_sno.complexity.CRITERIA, default="flops")
    add("--epochs", type=int, default=8)
    add("--seed", type=int, default=0)
    folder = {"type": os.path.expanduser}
    where = "gets snapshots, the figure and the small network (runs/fashion-mnist-...)"
    add("--out", **folder, help=where)
    where = "holds the four IDX files; by default Chainer downloads them"
    add("--data-dir", **folder, help=where)
    add("--quick", action="store_true", help="one short epoch of a smaller network")
    options = parser.parse_args(arguments)
    channels = (6, 8, 8) if options.quick else (16, 32, 32)
    epochs = 1 if options.quick else options.epochs
    train, test = made_up_images() if options.quick else read_images(options.data_dir)
    name = f"{options.criterion}_{options.epsilon0:g}_epochs={epochs}_seed={options.seed}"
    default = Path("runs", f"fashion-mnist-channels_{name}{'_quick' * options.quick}")
    out = Path(options.out or default)

    numpy.random.seed(options.seed)  # the initial weights
    link = chainer_sno.links.select(
        ConvNet(channels), ["conv1", "conv2", "conv3"], (1, 28, 28), options.criterion
    )
    print(repr(link), link.groups)

    iterations = epochs * len(train[0]) // BATCH_SIZE
    eta = None
    if options.epsilon0:
        suggested = chainer_sno.suggest_eta(iterations, options.epsilon0)
        print(suggested)
        eta = suggested.eta
    bernoulli = chainer_sno.Bernoulli(
        link.costs, options.epsilon0, eta, seed=options.seed, criterion=options.criterion
    )
    optimizer = chainer.optimizers.NesterovAG(lr=0.01, momentum=0.9).setup(link)
    optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(1e-4))
    iterator = chainer_sno.ArrayIterator(train, BATCH_SIZE, seed=options.seed, divisor=255)
    updater = chainer_sno.StructureUpdater(iterator, optimizer, bernoulli)
    trainer = chainer.training.Trainer(updater, (iterations, "iteration"), str(out))

    every = chainer_sno.extensions.EpochTrigger(len(train[0]), BATCH_SIZE)
    test_iterator = chainer_sno.ArrayIterator(test, 200, repeat=False, shuffle=False, divisor=255)
    trainer.extend(
        chainer_sno.extensions.StructureEvaluator(test_iterator, link, bernoulli),
        name="validation",
        trigger=every,
    )
    trainer.extend(chainer_sno.extensions.StructureReport(link, bernoulli), trigger=every)
    trainer.extend(chainer_sno.extensions.ThetaReport(bernoulli), trigger=every)
    trainer.extend(chainer_sno.extensions.StepSchedule(iterations))
    log = extensions.LogReport(trigger=every)
    trainer.extend(log)
    columns = ["iteration", "main/loss", "validation/main/error", "structure/flops_ratio"]
    columns += [f"structure/{group}" for group in link.groups]
    trainer.extend(extensions.PrintReport([*columns, "theta/converged", "elapsed_time"]))
    snapshot = extensions.snapshot(n_retains=1, autoload=True)
    trainer.extend(snapshot, trigger=(5 if options.quick else 500, "iteration"))
    trainer.run()

    print(chainer_sno.StructureSummary(link, bernoulli))
    # Without the channels that are off, and with batch statistics of what is left.
    small = chainer_sno.compact(link, bernoulli.mode())
    chainer_sno.save_compact(out / "small.npz", small)
    print(chainer_sno.describe(small, link.x_shape, batch_sizes=(1,)))
    last = log.log[-1]
    print(f"test error {last['validation/main/error']:.2%} at the most probable structure")
    draw(link, bernoulli, log.log, out / "fashion-mnist-channels.png")
    print(f"figure and small network: {out}")
    return last


if __name__ == "__main__":
    main()
