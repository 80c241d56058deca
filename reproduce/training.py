"""One training, built from its settings: network, data, updater, evaluation, reports."""

import math
import os
import signal
import sys

import numpy

import chainer_sno
from chainer_sno import StructureUpdater, complexity, extensions, fast, links
from chainer_sno._import_chainer import chainer
from chainer_sno.uniforms import Stream, generator
from reproduce import ReproduceError
from reproduce.files import write_npz

CLASSES = 10
INPUTS = 784
#: Test images classified at once.
TEST_BATCH = 1000


def path_of(device, plain=False):
    """Return which code trains: ``fast`` on a CPU unless plain is wished for, else ``plain``."""
    return "plain" if plain or device.xp is not numpy else "fast"


@chainer.dataset.converter()
def to_unit_interval(batch, device=None):
    """Convert a mini-batch of bytes: pixels to [0, 1], on the device where they are."""
    x, t = batch
    return x.astype(numpy.float32) / numpy.float32(255), t


class StopTrigger(chainer.training.triggers.IntervalTrigger):
    """Stop after so many iterations, when a signal asks for it, or with the parent process.

    Args:
        iterations (int): of the whole training.

    Attributes:
        signal (int): the signal that asked, SIGTERM when the parent ended; None without one.
        parent (int): the process without which the training is not wanted; None for none.
    """

    def __init__(self, iterations):
        super().__init__(iterations, "iteration")
        self.signal = None
        self.parent = None

    def __call__(self, trainer):
        """Return whether to stop."""
        if self.parent is not None and os.getppid() != self.parent:
            self.signal = self.signal or signal.SIGTERM
        return self.signal is not None or super().__call__(trainer)

    def on_signal(self, number, frame):
        """Remember a signal; the iteration in hand is finished first."""
        self.signal = number


class _Plain:
    """A stream without the control sequence that Chainer's PrintReport begins its lines with."""

    def __init__(self, stream):
        self.stream = stream

    def write(self, text):
        self.stream.write(text.replace("\033[J", ""))

    def flush(self):
        self.stream.flush()


def _fail_without_a_number(trainer):
    """End a training whose loss is not a number: it cannot recover."""
    loss = float(trainer.observation.get("main/loss", 0))
    if not math.isfinite(loss):
        raise ReproduceError(
            f"the loss of iteration {trainer.updater.iteration} is {loss}: lower the learning rate"
        )


class Training:
    """A training as its settings say, not yet begun.

    Args:
        settings (reproduce.settings.Settings): what to train.
        dataset (tuple): (train images, train labels), (test images, test labels) of
            :func:`reproduce.data.load`.
        device (chainer.backend.Device): where.
        directory (pathlib.Path): of the run, for what extensions write.
        plain (bool): train with the plain links and Chainer's optimizer on a CPU too, instead of
            the fast path; a GPU always does.

    Attributes:
        link (chainer.Link): the network.
        bernoulli (chainer_sno.Bernoulli): the distribution, None for a fixed structure.
        trainer (chainer.training.Trainer): with evaluation, reports, log and learning rate.
        iterations (int): of the whole training.
    """

    def __init__(self, settings, dataset, device, directory, plain=False):
        self.settings = settings
        self.path = path_of(device, plain)
        (x, t), (x_test, t_test) = dataset
        self.iterations = settings.iterations(len(x))
        if self.iterations < 1:
            raise ReproduceError(f"batch size {settings.batch_size} is more than the data")
        initialW = chainer.initializers.HeNormal(
            rng=generator(numpy, (settings.seed, Stream.WEIGHTS, 0))
        )
        x, t, x_test, t_test = (device.send(array) for array in (x, t, x_test, t_test))
        iterator = chainer_sno.ArrayIterator((x, t), settings.batch_size, seed=settings.seed)
        test_batch = min(TEST_BATCH, len(x_test))
        test_iterator = chainer_sno.ArrayIterator(
            (x_test, t_test), test_batch, repeat=False, shuffle=False
        )
        self.bernoulli = None
        try:
            updater, evaluator = self._build(iterator, test_iterator, initialW, device)
        except ValueError as error:
            raise ReproduceError(
                f"{error}: lower the learning rate or the weight decay, or train with --plain"
            ) from error
        self.stop_trigger = StopTrigger(self.iterations)
        self.trainer = chainer.training.Trainer(updater, self.stop_trigger, str(directory))
        every_epoch = extensions.EpochTrigger(len(x), settings.batch_size)
        self._extend(evaluator, every_epoch, len(x))

    def _build(self, iterator, test_iterator, initialW, device):
        """Build network, distribution and optimizer; return the updater and the evaluator."""
        settings = self.settings
        if settings.method == "sno":
            self.link = links.MaskedMLP(INPUTS, settings.widths, CLASSES, initialW=initialW)
            d = len(self.link.costs)
            self.bernoulli = chainer_sno.Bernoulli(
                self.link.costs, settings.epsilon0, settings.eta_factor / d, seed=settings.seed
            )
        else:
            self.link = links.MLP(
                INPUTS,
                settings.widths,
                CLASSES,
                settings.dropout_ratio or 0.0,
                settings.seed,
                initialW=initialW,
            )
        self.link.to_device(device)
        optimizer = chainer.optimizers.NesterovAG(settings.lr, settings.momentum).setup(self.link)
        optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(settings.weight_decay))
        if self.bernoulli is not None:
            self.bernoulli.to_device(device)
            kind = fast.FastStructureUpdater if self.path == "fast" else StructureUpdater
            updater = kind(
                iterator, optimizer, self.bernoulli, settings.samples, converter=to_unit_interval
            )
            evaluator = extensions.StructureEvaluator(
                test_iterator,
                self.link,
                self.bernoulli,
                settings.stochastic_samples,
                to_unit_interval,
            )
        else:
            if self.path == "fast":
                updater = fast.FastStandardUpdater(iterator, optimizer, to_unit_interval)
            else:
                updater = chainer.training.updaters.StandardUpdater(
                    iterator, optimizer, to_unit_interval, loss_func=self._loss
                )
            evaluator = extensions.ErrorEvaluator(test_iterator, self.link, to_unit_interval)
        return updater, evaluator

    def _loss(self, x, t):
        loss = chainer.functions.softmax_cross_entropy(self.link(x), t)
        chainer.report({"loss": loss.array.astype("d")}, self.link)
        return loss

    def _extend(self, evaluator, every_epoch, examples):
        def number_epochs(entry):
            # Chainer's epoch is still the one before where the last mini-batch crosses into it.
            entry["epoch"] = round(entry["iteration"] * self.settings.batch_size / examples)

        trainer = self.trainer
        if self.path == "fast":
            trainer.extend(fast.Synchronise(), trigger=every_epoch)
        trainer.extend(evaluator, name="validation", trigger=every_epoch)
        if self.bernoulli is not None:
            trainer.extend(extensions.ThetaReport(self.bernoulli), trigger=every_epoch)
            trainer.extend(
                extensions.StructureReport(self.link, self.bernoulli), trigger=every_epoch
            )
        # In front of the schedule, to report the rate that the epoch was trained with.
        trainer.extend(chainer.training.extensions.observe_lr(), trigger=every_epoch)
        trainer.extend(extensions.StepSchedule(self.iterations, self.settings.lr))
        # The log is in the snapshots and in the record; a file of it would only be in the way.
        self.log = chainer.training.extensions.LogReport(
            trigger=every_epoch, postprocess=number_epochs, log_name=None
        )
        trainer.extend(self.log)
        trainer.extend(_fail_without_a_number, name="finite", trigger=every_epoch)

    def show(self, stream=sys.stdout):
        """Print a line an epoch and, on a terminal, a progress bar with the time left.

        Args:
            stream (file): where to print.
        """
        entries = ["epoch", "main/loss", "validation/main/error"]
        if self.bernoulli is not None:
            entries += ["structure/usage_rate", "structure/weight_ratio", "theta/mean"]
        terminal = stream.isatty()
        self.trainer.extend(
            chainer.training.extensions.PrintReport(
                [*entries, "elapsed_time"], out=stream if terminal else _Plain(stream)
            )
        )
        if terminal:
            self.trainer.extend(
                chainer.training.extensions.ProgressBar(
                    (self.iterations, "iteration"), update_interval=100, out=stream
                )
            )

    def result(self):
        """Return the numbers at the end of the training (reading R11: the last epoch's).

        Returns:
            dict: the test error as a fraction, and the size of the structure: units per layer,
            usage rate and weight ratio as fractions of the full network.
        """
        last = self.log.log[-1]
        settings = self.settings
        full = (INPUTS, *(settings.units,) * settings.layers, CLASSES)
        if self.bernoulli is not None:
            mode = chainer.backends.cuda.to_cpu(self.bernoulli.mode())
            widths = self.link.kept_widths(mode)
        else:
            widths = self.link.widths
        found = {
            "test_error": last["validation/main/error"],
            "test_loss": last["validation/main/loss"],
            "units": list(widths[1:-1]),
            "usage_rate": sum(widths[1:-1]) / sum(full[1:-1]),
            "weight_ratio": complexity.fully_connected_weight_ratio(widths, full),
            "weights": complexity.fully_connected_weights(widths),
            "iterations": self.trainer.updater.iteration,
        }
        if "validation/main/stochastic_error" in last:
            found["stochastic_test_error"] = last["validation/main/stochastic_error"]
        return found

    def save(self, path):
        """Save the trained network and its distribution in one step."""
        if self.path == "fast":
            self.trainer.updater.synchronise()
        content = chainer.serializers.DictionarySerializer()
        self.link.serialize(content["link"])
        if self.bernoulli is not None:
            self.bernoulli.serialize(content["bernoulli"])
        write_npz(path, content.target)
