"""One training: built from its settings, resumed where it stopped, and recorded."""

import contextlib
import datetime
import fcntl
import json
import math
import signal
import sys
import time
import warnings
from pathlib import Path

import numpy
import threadpoolctl

import chainer_sno
from chainer_sno import complexity, extensions, links
from chainer_sno._import_chainer import chainer
from chainer_sno.uniforms import Stream, generator
from reproduce import Interrupted, ReproduceError, data, record, snapshot
from reproduce.files import make_writable, remove_unfinished, replacing

CLASSES = 10
INPUTS = 784
#: Test images classified at once.
TEST_BATCH = 1000


def get_device(number):
    """Return a device ready for use.

    Args:
        number (int): -1 for the CPU, else a GPU.

    Returns:
        chainer.backend.Device: the device.

    Raises:
        ReproduceError: it is not there.
    """
    if number == -1:
        return chainer.get_device("@numpy")
    if number < -1:
        raise ReproduceError(f"device {number} is not there: -1 is the CPU, 0 the first GPU")
    try:
        with warnings.catch_warnings():
            # Chainer warns that cuDNN is missing; nothing here uses it.
            warnings.simplefilter("ignore")
            device = chainer.get_device(f"@cupy:{number}")
            device.use()
            device.xp.zeros(1).sum().item()
    except Exception as error:
        reason = str(error).strip().splitlines()[-1]
        raise ReproduceError(
            f"device {number} is not there ({reason}): --device -1 is the CPU"
        ) from error
    return device


@chainer.dataset.converter()
def to_unit_interval(batch, device=None):
    """Convert a mini-batch of bytes: pixels to [0, 1], on the device where they are."""
    x, t = batch
    return x.astype(numpy.float32) / numpy.float32(255), t


class StopTrigger(chainer.training.triggers.IntervalTrigger):
    """Stop after so many iterations, or when a signal asked for it.

    Args:
        iterations (int): of the whole training.
    """

    def __init__(self, iterations):
        super().__init__(iterations, "iteration")
        self.signal = None

    def __call__(self, trainer):
        """Return whether to stop."""
        return self.signal is not None or super().__call__(trainer)

    def on_signal(self, number, frame):
        """Remember a signal; the iteration in hand is finished first."""
        self.signal = number

    @contextlib.contextmanager
    def listening(self):
        """Take SIGINT and SIGTERM as a wish to stop while the block runs."""
        previous = {s: signal.signal(s, self.on_signal) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


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
        settings (reproduce.settings.UnitSelection): what to train.
        dataset (tuple): (train images, train labels), (test images, test labels) of
            :func:`reproduce.data.load`.
        device (chainer.backend.Device): where.
        directory (pathlib.Path): of the run, for the trainer's log.

    Attributes:
        link (chainer.Link): the network.
        bernoulli (chainer_sno.Bernoulli): the distribution, None for a fixed structure.
        trainer (chainer.training.Trainer): with evaluation, reports, log and learning rate.
        iterations (int): of the whole training.
    """

    def __init__(self, settings, dataset, device, directory):
        self.settings = settings
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
                initialW,
            )
        self.link.to_device(device)
        optimizer = chainer.optimizers.NesterovAG(settings.lr, settings.momentum).setup(self.link)
        optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(settings.weight_decay))
        if self.bernoulli is not None:
            self.bernoulli.to_device(device)
            updater = chainer_sno.StructureUpdater(
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
            updater = chainer.training.updaters.StandardUpdater(
                iterator, optimizer, to_unit_interval, loss_func=self._loss
            )
            evaluator = extensions.ErrorEvaluator(test_iterator, self.link, to_unit_interval)
        self.stop_trigger = StopTrigger(self.iterations)
        self.trainer = chainer.training.Trainer(updater, self.stop_trigger, str(directory))
        every_epoch = extensions.EpochTrigger(len(x), settings.batch_size)
        self._extend(evaluator, every_epoch, len(x))

    def _loss(self, x, t):
        loss = chainer.functions.softmax_cross_entropy(self.link(x), t)
        chainer.report({"loss": loss.array.astype("d")}, self.link)
        return loss

    def _extend(self, evaluator, every_epoch, examples):
        def number_epochs(entry):
            # Chainer's epoch is still the one before where the last mini-batch crosses into it.
            entry["epoch"] = round(entry["iteration"] * self.settings.batch_size / examples)

        trainer = self.trainer
        trainer.extend(evaluator, name="validation", trigger=every_epoch)
        if self.bernoulli is not None:
            trainer.extend(extensions.ThetaReport(self.bernoulli), trigger=every_epoch)
            trainer.extend(
                extensions.StructureReport(self.link, self.bernoulli), trigger=every_epoch
            )
        # In front of the schedule, to report the rate that the epoch was trained with.
        trainer.extend(chainer.training.extensions.observe_lr(), trigger=every_epoch)
        trainer.extend(extensions.StepSchedule(self.iterations, self.settings.lr))
        self.log = chainer.training.extensions.LogReport(
            trigger=every_epoch, postprocess=number_epochs
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
        content = chainer.serializers.DictionarySerializer()
        self.link.serialize(content["link"])
        if self.bernoulli is not None:
            self.bernoulli.serialize(content["bernoulli"])
        with replacing(path) as file:
            numpy.savez(file, **content.target)


@contextlib.contextmanager
def _locked(directory):
    """Hold a lock on a run; the system drops it when the process ends, however it ends."""
    with open(directory / "lock", "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ReproduceError(
                f"another process is training {directory.name}: wait for it, or stop it"
            ) from error
        yield


def _now():
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def _finished(path, directory, say):
    """Return the record of a finished run, whose snapshots nobody needs any more."""
    found = record.read(path)
    for old in snapshot.snapshots(directory):
        old.unlink()
    say(f"{found['name']} is finished: {path}")
    return found


def run(settings, out, device=-1, data_dir=None, interval=None, quiet=False, say=print):
    """Train as the settings say and write the record, or go on where an earlier call stopped.

    Args:
        settings (reproduce.settings.UnitSelection): what to train.
        out (str or pathlib.Path): gets the record, ``NAME.json``, and the directory ``NAME``
            with the log, the snapshots while the training runs, and ``model.npz`` at its end.
        device (int): -1 for the CPU, else a GPU.
        data_dir (str or pathlib.Path): where the data lies, the cache by default.
        interval (int): iterations between snapshots; by default those of an epoch.
        quiet (bool): print no line an epoch.
        say (callable): takes a line for the user.

    Returns:
        dict: the record.

    Raises:
        ReproduceError: something that the user can mend.
        Interrupted: SIGINT or SIGTERM; a snapshot was saved.
    """
    if interval is not None and interval < 1:
        raise ReproduceError(f"--snapshot-interval must be at least 1, not {interval}")
    out = make_writable(out)
    path = out / f"{settings.name}.json"
    if path.exists():
        return _finished(path, out / settings.name, say)
    # One BLAS thread: two processes of one thread do twice the work of one process of two, and
    # the order of the sums, so every bit, does not depend on the number of cores.
    threadpoolctl.threadpool_limits(1, user_api="blas")
    device = get_device(device)
    dataset = data.load(settings.dataset, data_dir, say)
    directory = make_writable(out / settings.name)
    with _locked(directory), chainer.using_device(device):
        if path.exists():
            return _finished(path, directory, say)
        remove_unfinished(directory)
        started = _now()
        training = Training(settings, dataset, device, directory)
        trainer = training.trainer
        if not quiet:
            training.show()
        saver = snapshot.Snapshot(
            directory, settings, interval or settings.iterations(len(dataset[0][0])) or 1
        )
        if interval is None:
            saver.trigger = extensions.EpochTrigger(len(dataset[0][0]), settings.batch_size)
        trainer.extend(saver)
        if snapshot.resume(trainer, directory, settings, say):
            say(f"{settings.name}: going on at iteration {trainer.updater.iteration}")
        with training.stop_trigger.listening():
            begun = time.perf_counter()
            try:
                trainer.run(show_loop_exception_msg=False)
            except OSError as error:
                raise ReproduceError(
                    f"cannot write into {str(directory)!r} ({error.strerror or error}): the "
                    "snapshots before are whole; mend it and give the same command"
                ) from error
            seconds = time.perf_counter() - begun
            if trainer.updater.iteration < training.iterations:
                saver(trainer)
                raise Interrupted(
                    f"{settings.name} is stopped at iteration {trainer.updater.iteration} of "
                    f"{training.iterations}: the same command goes on from there",
                    training.stop_trigger.signal,
                )
        times = {
            "finished": _now(),
            "last_session_started": started,
            "last_session_seconds": round(seconds, 2),
            "seconds": round(trainer.elapsed_time, 2),
        }
        found = record.make(settings, training.log.log, training.result(), times, device)
        training.save(directory / "model.npz")
        record.write(path, found)
    return _finished(path, directory, say)


def progress(out, settings, iterations):
    """Return the iterations of a run that are done, as its files tell.

    Args:
        out (str or pathlib.Path): as given to :func:`run`.
        settings (reproduce.settings.UnitSelection): of the run.
        iterations (int): of the whole training.

    Returns:
        int: those of the last epoch in its log.
    """
    if (Path(out) / f"{settings.name}.json").exists():
        return iterations
    try:
        return json.loads((Path(out) / settings.name / "log").read_text())[-1]["iteration"]
    except (OSError, ValueError, LookupError):
        return 0
