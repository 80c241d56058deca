"""Channels of a small convolutional network under selection, on Fashion-MNIST.

A worked example from outside the paper: a network of one's own, made searchable.  Its 120
convolution channels are the bits of the structure, and a channel costs the floating-point
operations that go into it and out of it.

    python examples/fashion_mnist_channels.py           # some minutes on one core
    python examples/fashion_mnist_channels.py --quick   # seconds, made-up images: does it run?

Given again after an interruption, the command goes on from its last snapshot.
"""

import argparse
import os
import sys
from pathlib import Path

import numpy
import threadpoolctl

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
# The figure is only saved; the backend of a notebook that starts this may be missing here.
os.environ["MPLBACKEND"] = "agg"

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import chainer_sno
from chainer_sno._import_chainer import chainer
from reproduce import data
from reproduce.files import make_writable
from reproduce.settings import format_epsilon0, parse_epsilon0
from reproduce.snapshot import Snapshot, resume

F, L = chainer.functions, chainer.links

CLASSES = 10
#: Kernel size, stride and pixels of the output of each convolution, for images of 28 x 28.
LAYERS = ((5, 2, 14 * 14), (3, 2, 7 * 7), (3, 1, 7 * 7))
#: Pixels of the last feature maps.
PIXELS = LAYERS[-1][-1]


class ConvNet(chainer.Chain):
    """Three convolutions with ReLU and a linear layer: the network without any selection.

    Args:
        channels (sequence of int): outputs of each convolution.
    """

    def __init__(self, channels):
        super().__init__()
        self.channels = tuple(channels)
        initialW = chainer.initializers.HeNormal()
        inputs = (1, *self.channels)
        with self.init_scope():
            self.convs = chainer.ChainList(
                *(
                    L.Convolution2D(a, b, size, stride, size // 2, initialW=initialW)
                    for a, b, (size, stride, _) in zip(inputs, self.channels, LAYERS)
                )
            )
            self.output = L.Linear(PIXELS * self.channels[-1], CLASSES, initialW=initialW)

    def forward(self, x):
        """Return the outputs, shape (N, classes), of images of shape (N, 1, 28, 28)."""
        for conv in self.convs:
            x = F.relu(conv(x))
        return self.output(x)

    def weights(self):
        """Return the number of weights, biases left out."""
        return sum(conv.W.size for conv in self.convs) + self.output.W.size


class SearchableConvNet(ConvNet):
    """The same with its channels under selection: what the contract asks for, and its options."""

    criterion = "flops"

    def __init__(self, channels):
        super().__init__(channels)
        ends = numpy.cumsum(self.channels)
        self.groups = {
            f"conv_{i}": slice(int(end - n), int(end))
            for i, (n, end) in enumerate(zip(self.channels, ends), 1)
        }
        self.costs = self.costs_of("flops")

    def forward(self, x, structures):
        """Return the outputs of every structure, shape (lambda, N, classes).

        Before the first mask the structures do not differ, and the convolution is done once.
        """
        samples, n = len(structures), len(x)
        h = chainer.as_variable(x)
        for conv, group in zip(self.convs, self.groups.values()):
            h = F.relu(conv(h))
            h = F.reshape(h, (-1, n, *h.shape[1:]))
            # Behind the bias and the ReLU: an absent channel is zero, and nothing of it is left.
            h = h * structures[:, None, group, None, None].astype(h.dtype)
            h = F.reshape(h, (samples * n, *h.shape[2:]))
        return F.reshape(self.output(h), (samples, n, CLASSES))

    def costs_of(self, criterion, x_shape=None):
        """Return what each channel costs: the weights into it and out of it, or their FLOPs."""
        inputs = (1, *self.channels)
        into = [
            a * size**2 * chainer_sno.complexity.per_weight(criterion, pixels)
            for a, (size, _, pixels) in zip(inputs, LAYERS)
        ]
        out_of = [
            b * size**2 * chainer_sno.complexity.per_weight(criterion, pixels)
            for b, (size, _, pixels) in zip(self.channels[1:], LAYERS[1:])
        ]
        out_of.append(PIXELS * CLASSES * chainer_sno.complexity.per_weight(criterion))
        return numpy.repeat(numpy.add(into, out_of), self.channels)

    def kept(self, structure):
        """Return the indices of the channels that a structure keeps, of each convolution."""
        structure = chainer.backends.cuda.to_cpu(structure)
        return [numpy.flatnonzero(structure[group]) for group in self.groups.values()]

    def weight_ratio(self, structure):
        """Return the fraction of the weights that a structure keeps."""
        widths = [1, *map(len, self.kept(structure))]
        kept = sum(a * b * size**2 for a, b, (size, _, _) in zip(widths, widths[1:], LAYERS))
        return (kept + widths[-1] * PIXELS * CLASSES) / self.weights()

    def compact(self, structure):
        """Return the network without the channels that are off."""
        kept = self.kept(structure)
        if not all(map(len, kept)):
            raise ValueError("a convolution keeps no channel")
        network = ConvNet([len(channels) for channels in kept])
        columns = [numpy.arange(1), *kept]
        for own, whole, rows, inputs in zip(network.convs, self.convs, kept, columns):
            own.W.array = whole.W.array[numpy.ix_(rows, inputs)]
            own.b.array = whole.b.array[rows]
        W = self.output.W.array.reshape(CLASSES, -1, PIXELS)[:, kept[-1]]
        network.output.W.array = W.reshape(CLASSES, -1)
        network.output.b.array = self.output.b.array.copy()
        return network


def made_up_images():
    """Return images of two rectangles, one at a place that tells the class, for a quick run."""
    rng = numpy.random.default_rng(0)
    parts = []
    for n in (640, 200):
        t = rng.integers(0, CLASSES, n).astype("i")
        x = rng.integers(0, 60, (n, 28, 28), dtype=numpy.uint8)
        for image, label in zip(x, t):
            row, column = divmod(int(label), 5)
            image[14 * row : 14 * row + 10, 5 * column : 5 * column + 5] += 150
        parts.append((x.reshape(n, -1), t))
    return tuple(parts)


def draw(link, bernoulli, log, path):
    """Draw theta by layer, and the size beside the error over the epochs."""
    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    above, below = figure.subfigures(2, 1)
    chainer_sno.plots.theta_by_group(link, bernoulli, above)
    axes = below.subplots()
    epochs = [entry["epoch"] for entry in log]
    for entry, words, style in (
        ("structure/usage_rate", f"usage rate, in {bernoulli.criterion}", "C0-o"),
        ("structure/weight_ratio", "weights", "C2-s"),
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
    below.legend(loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=150, metadata={"Software": None})


# A core is enough for products of this size, and the sums are the same however many there are.
@threadpoolctl.threadpool_limits.wrap(limits=1, user_api="blas")
def main(arguments=None):
    """Train, print the result and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--epsilon0", type=parse_epsilon0, default="2^-5", help="the penalty (2^-5)")
    add("--criterion", choices=chainer_sno.complexity.CRITERIA, default="flops")
    add("--epochs", type=int, default=8)
    add("--seed", type=int, default=0)
    folder = {"type": os.path.expanduser}
    add("--out", **folder, help="gets snapshots and the figure (runs/fashion-mnist-channels_...)")
    add("--data-dir", **folder, help="where Fashion-MNIST lies, by default the cache directory")
    add("--quick", action="store_true", help="one short epoch of a smaller network")
    options = parser.parse_args(arguments)
    channels = (6, 8, 8) if options.quick else (24, 48, 48)
    epochs = 1 if options.quick else options.epochs
    name = (
        f"fashion-mnist-channels_{options.criterion}_{format_epsilon0(options.epsilon0)}"
        f"_epochs={epochs}_seed={options.seed}"
    )
    out = make_writable(options.out or Path("runs", name + "_quick" * options.quick))

    train, test = (
        (x.reshape(-1, 1, 28, 28), t)
        for x, t in (
            made_up_images() if options.quick else data.load("fashion-mnist", options.data_dir)
        )
    )
    with chainer.using_config("dtype", numpy.float32):
        numpy.random.seed(options.seed)  # the initial weights
        link = SearchableConvNet(channels)
    # Before hours of training: does the link keep the contract?
    print(chainer_sno.testing.check_searchable(link, train[0][:4].astype("f") / 255))

    optimizer = chainer.optimizers.NesterovAG(lr=0.01, momentum=0.9).setup(link)
    optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(1e-4))
    costs = chainer_sno.complexity.costs(link, options.criterion)
    bernoulli = chainer_sno.Bernoulli(
        costs, options.epsilon0, seed=options.seed, criterion=options.criterion
    )
    batch_size = 32
    iterator = chainer_sno.ArrayIterator(train, batch_size, seed=options.seed, divisor=255)
    updater = chainer_sno.StructureUpdater(
        iterator, optimizer, bernoulli, converter=chainer_sno.pass_arrays
    )
    iterations = epochs * len(train[0]) // batch_size
    trainer = chainer.training.Trainer(updater, (iterations, "iteration"), str(out))
    every = chainer_sno.extensions.EpochTrigger(len(train[0]), batch_size)
    test_iterator = chainer_sno.ArrayIterator(test, 200, repeat=False, shuffle=False, divisor=255)
    trainer.extend(
        chainer_sno.extensions.StructureEvaluator(test_iterator, link, bernoulli),
        name="validation",
        trigger=every,
    )
    trainer.extend(chainer_sno.extensions.StructureReport(link, bernoulli), trigger=every)
    trainer.extend(chainer_sno.extensions.ThetaReport(bernoulli), trigger=every)
    trainer.extend(chainer_sno.extensions.StepSchedule(iterations))
    log = chainer.training.extensions.LogReport(
        trigger=every,
        log_name=None,
        postprocess=lambda e: e.update(epoch=round(e["iteration"] * batch_size / len(train[0]))),
    )
    trainer.extend(log)
    columns = ["epoch", "main/loss", "validation/main/error", "structure/usage_rate"]
    columns += [f"structure/{group}" for group in link.groups]
    trainer.extend(
        chainer.training.extensions.PrintReport([*columns, "theta/converged", "elapsed_time"])
    )
    identity = {"epsilon0": options.epsilon0, "criterion": options.criterion, "epochs": epochs}
    identity.update(seed=options.seed, channels=list(channels), quick=options.quick)
    trainer.extend(Snapshot(out, identity, 60, seconds=True))
    resume(trainer, out, identity)
    trainer.run()

    last = log.log[-1]
    print(chainer_sno.StructureSummary(link, bernoulli))
    small = chainer_sno.compact(link, bernoulli.mode())
    print(
        f"compact network: {'-'.join(map(str, small.channels))} channels, {small.weights()} weights"
    )
    print(f"test error {last['validation/main/error']:.2%} at the most probable structure")
    draw(link, bernoulli, log.log, out / "fashion-mnist-channels.png")
    print(f"figure: {out / 'fashion-mnist-channels.png'}")
    return last


if __name__ == "__main__":
    main()
