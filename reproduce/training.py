"""One training, built from its settings: network, data, updater, evaluation, reports."""

import math
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import numpy

import chainer_sno
from chainer_sno import chainer, extensions, fast
from chainer_sno.files import write_npz
from chainer_sno.uniforms import Stream, generator
from reproduce import ReproduceError
from reproduce._types import Array, Data, StrPath
from reproduce.settings import SECOND_RESULT, THETA_DTYPES, Settings
from reproduce.streams import is_live

#: The names of the paths, as records have them: the reference, that of a GPU, and those of a CPU in
#: unit selection and in connection selection.
PLAIN, CAPTURED, FAST, WINOGRAD = "plain", "captured", "fast", "winograd"
#: The backend of :func:`chainer_sno.make_updater` for each path.  The engine of ``winograd`` is in
#: the network itself.
BACKENDS = {PLAIN: "reference", FAST: "fast", WINOGRAD: "reference", CAPTURED: "graph"}
#: Parts of [0, 1] in the histograms of theta in the log.
THETA_BINS = 20


class StopTrigger(chainer.training.triggers.IntervalTrigger):
    """Stop after a number of iterations, at a signal, or when the parent process ends.

    Args:
        iterations (int): of the whole training.

    Attributes:
        signal (int): the signal that asked, SIGTERM when the parent ended; None without one.
        parent (int): the process with which the training ends; None if there is none.
        enough (bool): whether an observer has ended the training.
    """

    def __init__(self, iterations: int) -> None:
        super().__init__(iterations, "iteration")
        self.signal: int | None = None
        self.parent: int | None = None
        self.enough = False

    def __call__(self, trainer: Any) -> bool:
        """Return whether to stop."""
        if self.parent is not None and os.getppid() != self.parent:
            self.signal = self.signal or signal.SIGTERM
        return self.enough or self.signal is not None or super().__call__(trainer)

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Remember a signal; the iteration in hand is finished first."""
        self.signal = number


class _WithoutControl:
    """A stream without the control sequence that Chainer's PrintReport begins its lines with."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> None:
        self.stream.write(text.replace("\033[J", ""))

    def flush(self) -> None:
        self.stream.flush()


def _fail_without_a_number(trainer: Any) -> None:
    """End a training with a value that is NaN or infinite, which no record can hold.

    A loss of the training does not recover either.
    """
    iteration = trainer.updater.iteration
    loss = float(trainer.observation.get("main/loss", 0))
    if not math.isfinite(loss):
        raise ReproduceError(
            f"the training has diverged: the loss of iteration {iteration} is {loss}: give a "
            "smaller --lr"
        )
    for name, value in trainer.get_extension("LogReport").log[-1].items():
        if not math.isfinite(value):
            raise ReproduceError(
                f"{name} at iteration {iteration} is {value}, which no record can hold: give a "
                "smaller --lr"
            )


def costs_of(settings: Settings, link: Any) -> Array:
    """Return the costs of the bits of a network by the criterion of settings.

    Args:
        settings (reproduce.settings.Settings): of a run.
        link (chainer.Link): the searchable network.

    Returns:
        numpy.ndarray: c, shape (d,).
    """
    criterion = getattr(settings, "criterion", None)
    return link.costs if criterion is None else link.costs_of(criterion, settings.data.shape)


def make_bernoulli(settings: Settings, link: Any) -> chainer_sno.Bernoulli:
    """Return the distribution of settings over the structures of a network.

    Args:
        settings (reproduce.settings.Settings): of a run of ``sno``.
        link (chainer.Link): the searchable network.

    Returns:
        chainer_sno.Bernoulli: on the CPU.
    """
    assert settings.epsilon0 is not None, "a run of sno has a penalty"
    assert settings.eta_factor is not None, "a run of sno has a learning rate of theta"
    costs = costs_of(settings, link)
    return chainer_sno.Bernoulli(
        costs,
        settings.epsilon0,
        settings.eta_factor / len(costs),
        seed=settings.seed,
        dtype=settings.theta_dtype or THETA_DTYPES[0],
        criterion=getattr(settings, "criterion", None),
    )


class Training:
    """A training with its settings, not yet begun; a subclass implements the experiment.

    Args:
        settings (reproduce.settings.Settings): what to train.
        dataset (tuple): (train images, train labels), (test images, test labels) of
            :func:`reproduce.data.load`.
        device (chainer.backend.Device): where.
        directory (pathlib.Path): of the run, for what extensions write.
        plain (bool): train with the reference's links and updater and Chainer's optimizer
            instead of the fast paths.
        threads (int): the threads that compute at once, in connection selection on a CPU.

    Attributes:
        path (str): the code that trains: ``plain``, ``captured`` on a GPU, or :attr:`CPU_PATH` on
            a CPU.
        link (chainer.Link): the network; the searchable one where there is a distribution.
        bernoulli (chainer_sno.Bernoulli): the distribution, None for a fixed structure.
        trainer (chainer.training.Trainer): with evaluation, reports, log and learning rate.
        iterations (int): of the whole training.
        examples (int): for training.
        every_epoch (chainer_sno.extensions.EpochTrigger): when it evaluates and logs.
        log (chainer.training.extensions.LogReport): an entry an epoch.
    """

    #: The name of the fast path on a CPU; a path with other bits has another name.
    CPU_PATH = FAST

    @classmethod
    def path_of(cls, device: Any, plain: bool = False) -> str:
        """Return which code trains on a device."""
        return PLAIN if plain else cls.CPU_PATH if device.xp is numpy else CAPTURED

    @staticmethod
    def is_plain(path: str) -> bool:
        """Return whether a path of a record is the reference."""
        return path == PLAIN

    @classmethod
    def check_threads(cls, settings: Settings, threads: int, path: str) -> None:
        """Check that a training can have so many threads.

        Raises:
            ReproduceError: it cannot.
        """
        if threads < 1:
            raise ReproduceError(f"--threads must be at least 1, not {threads}")
        if threads > 1 and not (settings.THREADED and path == cls.CPU_PATH):
            raise ReproduceError(
                f"--threads must be 1 here, not {threads}: only connection selection on a CPU "
                "without --plain has several; train several settings at a time instead"
            )

    def __init__(
        self,
        settings: Settings,
        dataset: Data,
        device: Any,
        directory: StrPath,
        plain: bool = False,
        threads: int = 1,
    ) -> None:
        self.settings: Any = settings  # of the experiment's own class
        self.path = self.path_of(device, plain)
        self.threads = threads
        self.check_threads(settings, threads, self.path)
        limits = settings.examples, settings.test_examples
        parts = [[array[:limit] for array in part] for part, limit in zip(dataset, limits)]
        self.examples = examples = len(parts[0][0])
        self.iterations = settings.iterations(examples)
        if self.iterations < 1 or settings.batch_size > examples:
            raise ReproduceError(
                f"--batch-size must be at most the {examples} training examples, not "
                f"{settings.batch_size}"
            )
        train, test = ((device.send(images), device.send(labels)) for images, labels in parts)
        iterator, test_iterator = self.make_iterators(train, test)
        initialW = chainer.initializers.HeNormal(rng=generator((settings.seed, Stream.WEIGHTS, 0)))
        self.link = self.make_link(initialW)
        self.link.to_device(device)
        self.bernoulli: chainer_sno.Bernoulli | None = None
        if settings.method == "sno":
            self.bernoulli = make_bernoulli(settings, self.link)
            self.bernoulli.to_device(device)
        stock = self.is_plain(self.path)
        kind = chainer.optimizers.NesterovAG if stock else chainer_sno.NesterovAG
        # The sum of the gradients is lambda times their mean.
        factor = settings.samples or 1 if settings.gradients == "sum" else 1
        self.lr = settings.lr * factor
        optimizer = kind(self.lr, settings.momentum).setup(self.link)
        self._add_decay(optimizer, settings.weight_decay / factor)
        try:
            updater = self.make_updater(iterator, optimizer)
        except ValueError as error:
            raise ReproduceError(
                f"{error} (--plain trains with the backend 'reference')"
            ) from error
        self.stop_trigger = StopTrigger(self.iterations)
        self.trainer = chainer.training.Trainer(updater, self.stop_trigger, str(directory))
        self.every_epoch = extensions.EpochTrigger(examples, settings.batch_size)
        self._extend(self.make_evaluator(test_iterator), self.every_epoch)

    def _add_decay(self, optimizer: Any, rate: float) -> None:
        """Add the weight decay of the settings to an optimizer."""
        decay = chainer.optimizer_hooks.WeightDecay(rate)
        if self.settings.decayed is None:
            optimizer.add_hook(decay)
            return
        for name, parameter in self.link.namedparams():
            if name.endswith("/W"):
                parameter.update_rule.add_hook(decay)

    def make_iterators(
        self, train: tuple[Array, Array], test: tuple[Array, Array]
    ) -> tuple[Any, Any]:
        """Return the iterator of the training and the one of the evaluation.

        Args:
            train (tuple of array): images and labels, on the device.
            test (tuple of array): the same.
        """
        raise NotImplementedError

    def make_link(self, initialW: Any) -> Any:
        """Return the network, on the CPU.

        Args:
            initialW (initializer): of the weights, with its own random numbers.
        """
        raise NotImplementedError

    def make_updater(self, iterator: Any, optimizer: Any) -> Any:
        """Return the updater of the path.

        Raises:
            ValueError: the path cannot do what the settings say.
        """
        return chainer_sno.make_updater(
            iterator,
            optimizer,
            self.bernoulli,
            self.settings.samples or 1,
            BACKENDS[self.path],
            converter=chainer_sno.pass_arrays,
        )

    def make_evaluator(self, iterator: Any) -> Any:
        """Return the extension that evaluates the network."""
        raise NotImplementedError

    def structure_result(self) -> dict[str, Any]:
        """Return the part of the result that describes the structure.

        Returns:
            dict: ``usage_rate`` and ``weight_ratio`` as fractions of the full network, ``weights``,
            and the experiment's own.
        """
        raise NotImplementedError

    @classmethod
    def trained(cls, settings: Any) -> Any:
        """Return the network whose weights a run leaves, with weights at random, on the CPU."""
        raise NotImplementedError

    @classmethod
    def of_result(cls, settings: Any, result: dict[str, Any]) -> Any:
        """Return a plain network of the structure in a result, with weights at random."""
        raise NotImplementedError

    @classmethod
    def full(cls, settings: Any) -> Any:
        """Return a plain network of everything under selection, with weights at random."""
        raise NotImplementedError

    def epoch_of(self, iteration: int) -> int:
        """Return the epoch that ends in or with an iteration.

        Chainer's epoch is still the one before where the last mini-batch crosses into it.  This is
        the e of EpochTrigger: the only one with e n in [i N, (i + 1) N).
        """
        return ((iteration + 1) * self.settings.batch_size - 1) // self.examples

    def _extend(self, evaluator: Any, every_epoch: Any) -> None:
        def number_epochs(entry: dict[str, Any]) -> None:
            entry["epoch"] = self.epoch_of(entry["iteration"])

        trainer = self.trainer
        if hasattr(trainer.updater, "synchronise"):
            trainer.extend(fast.Synchronise(), trigger=every_epoch)
        trainer.extend(evaluator, name="validation", trigger=every_epoch)
        if self.bernoulli is not None:
            trainer.extend(extensions.ThetaReport(self.bernoulli, THETA_BINS), trigger=every_epoch)
            trainer.extend(
                extensions.StructureReport(self.link, self.bernoulli), trigger=every_epoch
            )
        # Before the schedule, to report the rate with which the epoch was trained.
        trainer.extend(chainer.training.extensions.observe_lr(), trigger=every_epoch)
        trainer.extend(extensions.StepSchedule(self.iterations, self.lr))
        # The log is in the snapshots and in the record, so it needs no file of its own.
        self.log = chainer.training.extensions.LogReport(
            trigger=every_epoch, postprocess=number_epochs, log_name=None
        )
        trainer.extend(self.log)
        trainer.extend(_fail_without_a_number, name="finite", trigger=every_epoch)

    def show(self, stream: TextIO | None = None) -> None:
        """Print a line an epoch and, on a terminal, a progress bar with the time left.

        Args:
            stream (file): where to print, by default stdout.
        """
        stream = stream or sys.stdout
        entries = ["epoch", "main/loss", "validation/main/error"]
        if self.bernoulli is not None:
            entries += ["structure/usage_rate", "structure/weight_ratio", "theta/mean"]
        terminal = is_live(stream)
        # Not Chainer's triggers: they have a state, which the snapshot of a quiet training lacks.
        self.trainer.extend(
            chainer.training.extensions.PrintReport(
                [*entries, "elapsed_time"], out=stream if terminal else _WithoutControl(stream)
            ),
            trigger=self.every_epoch,
        )
        if terminal:
            self.trainer.extend(
                chainer.training.extensions.ProgressBar(
                    (self.iterations, "iteration"), update_interval=100, out=stream
                ),
                trigger=lambda trainer: True,
            )

    def result(self) -> dict[str, Any]:
        """Return the numbers at the end of the training (reading R11: the last epoch's).

        Returns:
            dict: the test error as a fraction, the test loss, the iterations, and what
            :meth:`structure_result` says.
        """
        last = self.log.log[-1]
        found = {
            "test_error": last["validation/main/error"],
            "test_loss": last["validation/main/loss"],
            **self.structure_result(),
            "iterations": self.trainer.updater.iteration,
        }
        for kind in ("stochastic", SECOND_RESULT):
            if f"validation/main/{kind}_error" in last:
                found[f"{kind}_test_error"] = last[f"validation/main/{kind}_error"]
        return found

    def arrays(self) -> dict[str, Array]:
        """Return the current network and its distribution, arrays by name."""
        if hasattr(self.trainer.updater, "synchronise"):
            self.trainer.updater.synchronise()
        content = chainer.serializers.DictionarySerializer()
        self.link.serialize(content["link"])
        if self.bernoulli is not None:
            self.bernoulli.serialize(content["bernoulli"])
        return content.target

    def save(self, path: Path) -> None:
        """Save the trained network and its distribution in one step."""
        write_npz(path, self.arrays())
