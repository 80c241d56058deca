"""One run: a training that resumes where it stopped and leaves a record when it is finished.

A run owns the directory ``NAME`` in the output directory: ``lock``, held while it trains;
``progress.json``, rewritten every second; the snapshots; ``failed.json`` after a failure; and
``model.npz`` at its end, when ``NAME.json``, the record, is written beside the directory.
"""

import contextlib
import dataclasses
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import threadpoolctl

from chainer_sno import chainer
from reproduce import Interrupted, ReproduceError, data, experiments, marks, record, snapshot
from reproduce._types import Data, Record, Say, StrPath
from reproduce.files import check_name, make_writable, remove_unfinished, write_json
from reproduce.settings import Settings
from reproduce.signals import listening
from reproduce.training import Training

#: Seconds between snapshots if the user gives no interval.
SNAPSHOT_SECONDS = 60
#: Seconds between the marks of progress.
PROGRESS_SECONDS = 1


def get_device(number: int) -> Any:
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
        raise ReproduceError(
            f"there is no device {number}: give --device -1 for the CPU or 0 for the first GPU"
        )
    try:
        with warnings.catch_warnings():
            # Chainer warns that cuDNN is missing; nothing here uses it.
            warnings.simplefilter("ignore")
            device = chainer.get_device(f"@cupy:{number}")
            device.use()
            device.xp.zeros(1).sum().item()
    except Exception as error:
        reason = str(error).strip().splitlines()[-1]
        if not chainer.backends.cuda.available:
            # Chainer's last line begins with the address of its page on installing.
            reason = reason.partition("installation).")[2] or reason
            reason += ", see docs/how-to/gpu.rst"
        raise ReproduceError(
            f"device {number} cannot be used ({reason}): give --device -1 for the CPU"
        ) from error
    return device


def use_one_thread() -> None:
    """Give BLAS one thread in this process.

    Two processes of one thread do twice the work of one process of two, and the order of the sums,
    so every bit, does not depend on the number of cores.
    """
    threadpoolctl.threadpool_limits(1, user_api="blas")


class Progress(chainer.training.Extension):
    """Write the progress of the training, for ``status`` and for readers of the files.

    Args:
        path (pathlib.Path): the file.
        settings (reproduce.settings.Settings): of the run.
        iterations (int): of the whole training.
    """

    trigger = 1, "iteration"
    name = "progress"

    def __init__(self, path: Path, settings: Settings, iterations: int) -> None:
        self.path = path
        self.settings = settings.as_dict()
        self.iterations = iterations

    def initialize(self, trainer: Any) -> None:
        """Begin to measure; a resumed training begins again."""
        self.first = trainer.updater.iteration
        self.begun = time.perf_counter()
        self.written = -float(PROGRESS_SECONDS)
        self(trainer)

    def __call__(self, trainer: Any) -> None:
        """Write the file when it is time."""
        seconds = time.perf_counter() - self.begun
        if seconds - self.written < PROGRESS_SECONDS:
            return
        self.written = seconds
        iteration = trainer.updater.iteration
        done = iteration - self.first
        content = {
            "settings": self.settings,
            "iteration": iteration,
            "iterations": self.iterations,
            "seconds_per_iteration": seconds / done if done else None,
            "updated": time.time(),
        }
        with contextlib.suppress(OSError):  # a full disk is the snapshot's to report
            write_json(self.path, content, durable=False)


class Computers(chainer.training.Extension):
    """Keep the list of the machines that computed a training, in its snapshots and its record.

    Another processor or another version rounds differently, so the bits depend on where and with
    what each iteration was done.

    Args:
        device (chainer.backend.Device): where this process computes.
        threads (int): the threads that compute at once.

    Attributes:
        machines (list of dict): those that trained, in their order.  Of each ``machine``, as
            :func:`reproduce.record.machine` returns it, None for one that an older snapshot does
            not name, the first and the last of its ``iterations``; the ``versions`` that it had
            one after the other, as :func:`reproduce.record.versions` returns them; and its
            ``threads``, pairs of their number and the last iteration with so many.  None stands
            for what an older snapshot does not name.
        threads (list of int): the numbers of threads of the sessions.
    """

    name = "computers"

    def __init__(self, device: Any, threads: int) -> None:
        # At every iteration; one of Chainer's triggers would have a state of its own, which it
        # misses in snapshots that are older.
        self.trigger = lambda trainer: True
        self.own = record.machine(device)
        self.machines: list[dict[str, Any]] = []
        self.at_once = threads
        self.threads = [threads]

    def initialize(self, trainer: Any) -> None:
        """Begin a new entry if the machine is another one."""
        done = trainer.updater.iteration
        known = self.machines[-1]["iterations"][1] if self.machines else 0
        if done > known:
            self.machines.append({"machine": None, "iterations": [known + 1, done]})
        if not self.machines or self.machines[-1]["machine"] != self.own:
            self.machines.append({"machine": self.own, "iterations": [done + 1, done]})
        first, last = self.machines[-1]["iterations"]
        used = self.machines[-1].setdefault("versions", [None] if first <= last else [])
        now = record.versions()
        if not used or used[-1] != now:
            used.append(now)
        self.machines[-1].setdefault("threads", [[None, last]] if first <= last else [])

    def __call__(self, trainer: Any) -> None:
        """Count the iteration."""
        done = trainer.updater.iteration
        self.machines[-1]["iterations"][1] = done
        parts = self.machines[-1]["threads"]
        if not parts or parts[-1][0] != self.at_once:
            parts.append([self.at_once, done])
        parts[-1][1] = done

    def serialize(self, serializer: Any) -> None:
        """Save or load the list."""
        if isinstance(serializer, chainer.Serializer):
            serializer("noted", json.dumps([self.machines, self.threads]))
            return
        # Snapshots that are older have nothing of it.
        with contextlib.suppress(KeyError):
            self.machines, threads = json.loads(str(serializer("noted", None)))
            self.threads = sorted({*self.threads, *threads})


class CPUTime(chainer.training.Extension):
    """Report the CPU seconds of each epoch, of all threads, its evaluation included.

    Other work on the machine adds to the time on the wall, and to this hardly any.  The seconds
    since the last epoch are in the snapshot.  An epoch that a snapshot without them began has none.

    Args:
        every_epoch (callable): the trigger of the log.
    """

    name = "cpu_time"
    # After the evaluation, before the log.
    priority = chainer.training.PRIORITY_EDITOR

    def __init__(self, every_epoch: Any) -> None:
        self.trigger = every_epoch
        #: CPU seconds of this epoch in earlier processes, None where they are unknown.
        self.before: float | None = None

    def initialize(self, trainer: Any) -> None:
        """Begin to measure."""
        if not trainer.updater.iteration:
            self.before = 0.0
        self.begun = time.process_time()

    def __call__(self, trainer: Any) -> None:
        """Report the seconds since the last epoch."""
        now = time.process_time()
        if self.before is not None:
            chainer.report({record.CPU_SECONDS: self.before + now - self.begun})
        self.before, self.begun = 0.0, now

    def serialize(self, serializer: Any) -> None:
        """Save or load the seconds since the last epoch."""
        if isinstance(serializer, chainer.Serializer):
            before = numpy.nan if self.before is None else self.before
            serializer("seconds", before + time.process_time() - self.begun)
            return
        # Snapshots that are older have nothing of it.
        with contextlib.suppress(KeyError):
            seconds = float(serializer("seconds", None))
            self.before = None if numpy.isnan(seconds) else seconds


class Watch(chainer.training.Extension):
    """Pass the log to an observer after every epoch, who may end the training.

    Args:
        training (reproduce.training.Training): the training to observe and to stop.
        judge (callable): takes the log of LogReport, returns whether to stop.
    """

    name = "watch"

    def __init__(self, training: Training, judge: Callable[[list[Any]], bool]) -> None:
        self.trigger = training.every_epoch
        self.training = training
        self.judge = judge

    def initialize(self, trainer: Any) -> None:
        """Show the earlier log of a resumed training."""
        self(trainer)

    def __call__(self, trainer: Any) -> None:
        """Show the log."""
        self.training.stop_trigger.enough = self.judge(self.training.log.log)


def _warn(text: str) -> None:
    """Print a line on stderr, apart from the result."""
    print(f"reproduce: {text}", file=sys.stderr, flush=True)


def _finished(path: Path, directory: Path, say: Say) -> Record:
    """Return the record of a finished run, and delete its snapshots."""
    try:
        finished = record.read(path)
    except ReproduceError as error:
        if isinstance(error.__cause__, PermissionError):
            raise ReproduceError(
                f"the run is finished, but its record {str(path)!r} is another user's and may not "
                "be read: ask for the right to, or give another --out",
                again=True,
            ) from error
        raise ReproduceError(
            f"{error}: delete it, and the same command trains the run", again=True
        ) from error
    for old in [*snapshot.snapshots(directory), directory / marks.PROGRESS]:
        with contextlib.suppress(OSError):  # another user's, who shares the directory
            old.unlink(missing_ok=True)
    say(f"{finished['name']} is finished: {path}")
    return finished


@dataclasses.dataclass(frozen=True)
class Options:
    """Where and how a run is trained.  Settings say what is trained.

    Attributes:
        device (int): -1 for the CPU, else a GPU.
        data_dir (str or pathlib.Path): where the data lies, the cache by default.
        interval (int): iterations between snapshots; by default a snapshot is taken every minute.
        quiet (bool): print no line an epoch.
        plain (bool): train without the fast path.
        parent (int): stop, with a snapshot, when this process is no longer the parent.
        wait (float): how long to wait for another process to release the run, in seconds.
        threads (int): the threads that compute at once, in connection selection on a CPU; the
            numbers do not depend on it.
        say (callable): takes a line for the user.
        watch (callable): takes the log of LogReport after every epoch, returns whether to stop.
    """

    device: int = -1
    data_dir: StrPath | None = None
    interval: int | None = None
    quiet: bool = False
    plain: bool = False
    parent: int | None = None
    wait: float = 1.0
    threads: int = 1
    say: Say = print
    watch: Callable[[list[Any]], bool] | None = None


def run(settings: Settings, out: StrPath, options: Options = Options()) -> Record:
    """Train with the settings and write the record, or continue where an earlier call stopped.

    Args:
        settings (reproduce.settings.Settings): what to train.
        out (str or pathlib.Path): gets the record and the directory of the run.
        options (Options): where and how.

    Returns:
        dict: the record.

    Raises:
        ReproduceError: an error that the user can fix.
        Locked: another process trains this run.
        Interrupted: SIGINT or SIGTERM, or ``watch``, without a signal; a snapshot was saved.
    """
    say = options.say
    if options.interval is not None and options.interval < 1:
        raise ReproduceError(f"--snapshot-interval must be at least 1, not {options.interval}")
    path = Path(out) / f"{settings.name}.json"
    if os.path.exists(path):  # which, unlike Path.exists, says no of a name that is too long
        return _finished(path, path.with_name(settings.name), say)
    out = make_writable(out, "--out")
    check_name(path)
    settings.check_memory()
    use_one_thread()
    device = get_device(options.device)
    kind = experiments.of(settings).training
    kind.check_threads(settings, options.threads, kind.path_of(device, options.plain))
    dataset = data.load(settings.dataset, options.data_dir, say)
    directory = make_writable(out / settings.name)
    with marks.locked(directory, options.wait, _warn), chainer.using_device(device):
        if os.path.exists(path):
            return _finished(path, directory, say)
        remove_unfinished(directory)
        remove_unfinished(out, path.name)
        (directory / marks.FAILED).unlink(missing_ok=True)
        try:
            finished, training = _train(settings, options, dataset, device, directory)
            training.save(directory / "model.npz")
            record.write(path, finished)
        except BrokenPipeError:  # of what is printed, and no failure of the training
            raise
        except OSError as error:
            message = (
                f"cannot write into {str(out)!r} ({error.strerror or error}): what was written "
                "before is whole; correct it and give the same command"
            )
            marks.write_failure(directory, settings, message, again=True)
            raise ReproduceError(message, again=True) from error
        except MemoryError as error:
            reason = " ".join(str(error).split()) or "no reason was given"
            message = (
                f"the training of {settings.name} ran out of memory ({reason}): run fewer at a "
                "time, or give a smaller network or batch"
            )
            marks.write_failure(directory, settings, message, again=False)
            raise ReproduceError(message) from error
        except ReproduceError as error:
            marks.write_failure(directory, settings, str(error), error.again)
            raise
        return _finished(path, directory, say)


def _train(
    settings: Settings, options: Options, dataset: Data, device: Any, directory: Path
) -> tuple[Record, Training]:
    """Train to the end; return the record and the training."""
    started = marks.now()
    interval, threads = options.interval, options.threads
    training = experiments.of(settings).training(
        settings, dataset, device, directory, options.plain, threads
    )
    trainer = training.trainer
    training.stop_trigger.parent = options.parent
    if not options.quiet:
        training.show()
    identity = {**settings.as_dict(), "path": training.path}
    saver = snapshot.Snapshot(directory, identity, interval or SNAPSHOT_SECONDS, not interval)
    trainer.extend(saver)
    computers = Computers(device, threads)
    trainer.extend(computers)
    if device.xp is numpy:
        trainer.extend(CPUTime(training.every_epoch))
    trainer.extend(Progress(directory / marks.PROGRESS, settings, training.iterations))
    if options.watch is not None:
        trainer.extend(Watch(training, options.watch))
    if snapshot.resume(trainer, directory, identity, options.say):
        options.say(f"{settings.name}: going on at iteration {trainer.updater.iteration}")
    with listening(training.stop_trigger.on_signal):
        begun = time.perf_counter()
        trainer.run(show_loop_exception_msg=False)
        seconds = time.perf_counter() - begun
        if trainer.updater.iteration < training.iterations:
            # Before the first update the optimizer has no state, and Chainer cannot load such a
            # snapshot.
            if trainer.updater.iteration:
                saver(trainer)
            raise Interrupted(
                f"{settings.name} is stopped at iteration {trainer.updater.iteration} of "
                f"{training.iterations}: the same command goes on from there",
                training.stop_trigger.signal,
            )
    times = {
        "finished": marks.now(),
        "last_session_started": started,
        "last_session_seconds": round(seconds, 2),
        "seconds": round(trainer.elapsed_time, 2),
        "seconds_per_iteration": round(trainer.elapsed_time / training.iterations, 6),
        "threads": computers.threads,
    }
    log, result = training.log.log, training.result()
    finished = record.make(settings, log, result, times, device, training.path, computers.machines)
    return finished, training
