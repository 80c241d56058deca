"""Many runs: on this machine, one process each, or on a dask.distributed cluster.

Every training is a process of ``python -m reproduce run``, so a kill of one leaves the others, and
the directory of a run has everything that it needs to continue.  The lock of the run, not the
sweep, ensures that no two processes train the same run.

A pool of workers would not do for the processes of this machine.  When one worker of loky's dies,
the pool kills the others.  A local cluster of dask leaves them, but a task is no process that a
signal asks for a snapshot.
"""

import asyncio
import collections
import concurrent.futures
import contextlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Any, NoReturn

import rich.console
import rich.live
import rich.text

from reproduce import ROOT, Locked, ReproduceError, data, locks, marks, status
from reproduce._types import StrPath
from reproduce.experiments import from_dict
from reproduce.experiments.base import Experiment
from reproduce.files import check_name, make_writable
from reproduce.settings import Settings, flag
from reproduce.signals import listening

#: Seconds between looks at the processes.
POLL = 0.5
#: Seconds for which a run waits for a process that is about to end to release it.
WAIT = 60
#: How many workers of a cluster may die over a run.
ATTEMPTS = 20
#: Seconds for which a scheduler may take to answer.
ANSWER = 20


def grid(
    experiment: Experiment,
    schedule: str,
    seeds: Iterable[int],
    methods: Sequence[str] | None = None,
    varied: Mapping[str, Sequence[Any]] | None = None,
    **values: Any,
) -> list[Settings]:
    """Return the runs of an experiment, a complete trial before the next.

    Args:
        experiment (Experiment): the experiment.
        schedule (str): ``paper``, ``short``, ``quick``, or a part of the paper's such as ``1/60``.
        seeds (sequence of int): one of each trial.
        methods (sequence of str): of those of the experiment, by default all.
        varied (dict): the values of what the paper varies within a method, by its name, in the
            place of the grid's: ``{"epsilon0": [0.0078125]}``.
        **values: further settings of every run.

    Returns:
        list of Settings: in the order in which to train them.
    """
    kind = experiment.settings
    for name, value in values.items():
        if value is not None:
            kind.options()[name].check(flag(name), value)
    grid_of = experiment.grid(values)
    method_of = kind.varied()
    for name, chosen in (varied or {}).items():
        grid_of[method_of[name]] = [{name: value} for value in chosen]
    runs = [
        kind.at(schedule, method=method, seed=seed, **setting, **values)
        for seed in seeds
        for method in methods or kind.methods()
        for setting in grid_of[method]
    ]
    return list(dict.fromkeys(runs))  # two texts may name one value, and two widths one rounding


def command(
    run: Settings,
    out: StrPath,
    data_dir: StrPath | None = None,
    device: int = -1,
    wait: float = 1,
    threads: int = 1,
) -> list[str]:
    """Return the command that trains a run for this process and stops with it."""
    options = [f"--out={out}", f"--device={device}", f"--parent={os.getpid()}", f"--wait={wait}"]
    if threads != 1:
        options.append(f"--threads={threads}")
    if data_dir is not None:
        options.append(f"--data-dir={data_dir}")
    return [sys.executable, "-m", "reproduce", "run", *run.as_arguments(), "--quiet", *options]


def _temporary_file(directory: Path) -> IO[bytes]:
    """Return a file that is deleted when closed; in a directory only if no other place works."""
    try:
        return tempfile.TemporaryFile()
    except OSError:  # the system's directory is full, or not to be written into
        return tempfile.TemporaryFile(dir=directory)


class _Process:
    """A training in a process of its own, which ends when this one does."""

    def __init__(
        self,
        run: Settings,
        out: Path,
        data_dir: StrPath | None,
        device: int,
        wait: float = 1,
        threads: int = 1,
    ) -> None:
        self.run = run
        self.directory = out / run.name
        self.device = device
        self.errors = _temporary_file(out)
        # The package is found from any working directory, such as that of a cluster's worker.
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            command(run, out, data_dir, device, wait, threads),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self.errors,
            env={**os.environ, "PYTHONPATH": path},
        )

    def has_ended(self) -> bool:
        """Return whether the process has ended."""
        return self.process.poll() is not None

    def failure(self) -> str | None:
        """Return why a process that has ended did not finish its run; None if it did.

        Raises:
            Locked: another process trains the run.
        """
        with self.errors as file:
            file.seek(0)
            said = file.read().decode(errors="replace").strip().splitlines()
        code = self.process.returncode
        if code == 0:
            return None
        if code == Locked.exit_code:
            raise Locked(f"another process trains {self.run.name}")
        last = said[-1].removeprefix("reproduce: ") if said else "it said nothing"
        if code < 0:
            named = {each.value: each.name for each in signal.Signals}
            last = f"it was killed by {named.get(-code, f'signal {-code}')}"
        if not os.path.exists(self.directory / marks.FAILED):
            # The training could not write its failure itself.  Its settings are not at fault in a
            # kill, a signal or an error that the user can fix, such as a full disk, so the same
            # command repeats it.
            mendable = code == ReproduceError.exit_code
            marks.write_failure(
                self.directory, self.run, last, again=code < 0 or code > 128 or mendable
            )
        return last


@contextlib.contextmanager
def _stopping(running: Sequence[_Process]) -> Iterator[None]:
    """Pass SIGINT and SIGTERM on to the trainings, which then save a snapshot and stop."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    try:
        with listening(stop):
            yield
    finally:
        for job in running:
            job.process.send_signal(signal.SIGTERM)
        for job in running:
            job.process.wait()
            job.errors.close()


class _View:
    """A live view on a terminal; elsewhere a line whenever a run ends."""

    def __init__(self, out: Path, runs: Sequence[Settings], jobs: int | None) -> None:
        self.out = out
        self.runs = runs
        self.jobs = jobs
        self.told: set[str] = set()
        self.console = rich.console.Console(stderr=True, soft_wrap=True, highlight=False)
        self.is_live = self.console.is_terminal and not self.console.is_dumb_terminal
        self.live = rich.live.Live(console=self.console, auto_refresh=False, transient=True)

    def __enter__(self) -> "_View":
        if self.is_live:
            self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.is_live:
            self.live.stop()

    def refresh(self) -> None:
        """Show the state of the runs."""
        if self.is_live:
            states = [status.state(self.out, run) for run in self.runs]
            text = "\n".join(status.lines(states, self.jobs))
            self.live.update(rich.text.Text(text), refresh=True)

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self.console.print(rich.text.Text(text))

    def say_waiting(self, runs: Iterable[Settings]) -> None:
        """Print the runs that the sweep waits for, each of them once."""
        names = [run.name for run in runs if run.name not in self.told]
        if names:
            others = f" and {len(names) - 1} more" if len(names) > 1 else ""
            self.say(
                f"waiting for other processes, which train {names[0]}{others}: stop them, or stop "
                "this sweep, if that is not wanted"
            )
        self.told.update(names)


def _announce(view: _View, run: Settings, failure: str | None) -> None:
    """Print that a run has ended, and how many are finished."""
    finished = sum(os.path.exists(view.out / f"{other.name}.json") for other in view.runs)
    said = "is finished" if failure is None else f"failed: {failure}"
    view.say(f"{run.name} {said} ({finished} of {len(view.runs)} finished)")


def _to_train(
    out: Path, runs: Iterable[Settings], retry_failed: bool
) -> tuple[list[Settings], dict[str, str]]:
    """Return the runs to train and, by name, the reason why each of the others is not repeated."""
    waiting, failures = [], {}
    for run in runs:
        state = status.state(out, run)
        if state.kind == "failed" and not state.again and not retry_failed:
            failures[run.name] = f"{state.reason} (--retry-failed takes it again)"
        elif state.kind != "finished":
            waiting.append(run)
    return waiting, failures


def check_threads(runs: Iterable[Settings], threads: int) -> None:
    """Check that trainings can have so many threads each.

    Raises:
        ReproduceError: they cannot.
    """
    if threads < 1:
        raise ReproduceError(f"--threads must be at least 1, not {threads}")
    if threads > 1 and not all(run.THREADED for run in runs):
        raise ReproduceError(
            f"--threads must be 1 for unit selection, not {threads}: give more --jobs instead"
        )


def run_all(
    runs: Sequence[Settings],
    out: StrPath,
    jobs: int = 2,
    data_dir: StrPath | None = None,
    devices: Sequence[int] = (-1,),
    retry_failed: bool = False,
    scheduler: str | None = None,
    threads: int = 1,
) -> dict[str, str]:
    """Train every run that is not finished, several at a time.

    Finished runs are skipped, interrupted ones continue, and a failed run does not affect the
    others.  If another process trains a run, such as one of another sweep, this sweep waits for it.

    Args:
        runs (list of Settings): what to train, in this order.
        out (str or pathlib.Path): gets the records and the directories of the runs.
        jobs (int): processes at a time on this machine, of one BLAS thread each.
        data_dir (str or pathlib.Path): where the data lies, the cache by default.
        devices (sequence of int): -1 for the CPU, else GPUs, over which the processes are spread.
        retry_failed (bool): repeat the runs that failed before.
        scheduler (str): the address of a dask.distributed scheduler that trains the runs instead
            of this machine; ``out`` must be the same directory for all workers.
        threads (int): of each training, of connection selection on a CPU.

    Returns:
        dict: the reason of each failed run, by its name.

    Raises:
        ReproduceError: the data cannot be fetched, ``out`` cannot be written, or there is no such
            scheduler.
    """
    if jobs < 1:
        raise ReproduceError(f"--jobs must be at least 1, not {jobs}")
    check_threads(runs, threads)
    out = make_writable(out, "--out").resolve()
    status.write_plan(out, runs)
    waiting, failures = _to_train(out, runs, retry_failed)
    if not waiting:
        return failures
    check_name(out / f"{max((run.name for run in waiting), key=len)}.json")
    if locks.are_missing(out):
        _warn(locks.warning(out))
    if scheduler is not None:
        return {
            **failures,
            **_on_cluster(waiting, runs, out, data_dir, devices, scheduler, threads),
        }
    for run in waiting:
        run.check_memory()
    _warn_of_cores(jobs, threads)
    for dataset in {run.dataset for run in waiting}:
        data.load(dataset, data_dir)
    new_failures = _on_this_machine(waiting, runs, out, jobs, data_dir, devices, threads)
    return {**failures, **new_failures}


def _warn(text: str) -> None:
    """Print a line on stderr, apart from the result."""
    print(f"reproduce: {text}", file=sys.stderr)


def _warn_of_cores(jobs: int, threads: int) -> None:
    """Warn if more threads would compute at once than there are cores."""
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    if jobs * threads > cores:
        _warn(
            f"{jobs} jobs of {threads} thread{'s' * (threads > 1)} are more than the "
            f"{cores} core{'s' * (cores > 1)} of this machine: each will be slower"
        )


def _on_this_machine(
    waiting: list[Settings],
    runs: Sequence[Settings],
    out: Path,
    jobs: int,
    data_dir: StrPath | None,
    devices: Sequence[int],
    threads: int,
) -> dict[str, str]:
    """Train runs in processes; return the failures by name."""
    free = [devices[i % len(devices)] for i in range(jobs)]
    running: list[_Process] = []
    failures = {}
    with _View(out, runs, jobs) as view, _stopping(running):
        while waiting or running:
            # A run that another process trains is tried again when the others have begun.
            ready = [run for run in waiting if not marks.is_locked(out / run.name)]
            while ready and free:
                run = ready.pop(0)
                waiting.remove(run)
                if status.state(out, run).kind != "finished":
                    running.append(_Process(run, out, data_dir, free.pop(0), threads=threads))
            time.sleep(POLL)
            for job in [job for job in running if job.has_ended()]:
                running.remove(job)
                free.append(job.device)
                try:
                    failure = job.failure()
                except Locked:
                    waiting.append(job.run)
                    continue
                if failure is not None:
                    failures[job.run.name] = failure
                _announce(view, job.run, failure)
            if not running:
                view.say_waiting([run for run in waiting if marks.is_locked(out / run.name)])
            view.refresh()
    return failures


def train_on_worker(
    settings: dict[str, Any],
    out: str,
    data_dir: str | None,
    device: int,
    stop: str,
    threads: int = 1,
) -> str | None:
    """Train a run in a process of its own; this is what a worker of a cluster executes.

    The process ends with the worker.  If a dying process still holds the run, this one waits.

    Args:
        settings (dict): of the run.
        out (str): the output directory, the same for all workers.
        data_dir (str): where the data lies, the worker's cache by default.
        device (int): -1 for the CPU, else a GPU of the worker's machine.
        stop (str): when this file appears, stop with a snapshot.
        threads (int): of the training.

    Returns:
        str: why the run failed; None where it is finished.

    Raises:
        Locked: another process trains the run.
    """
    if os.path.exists(stop):
        return "the sweep was stopped"
    run = from_dict(settings)
    job = _Process(run, make_writable(out), data_dir, device, WAIT, threads)
    while not job.has_ended():
        if os.path.exists(stop):
            job.process.send_signal(signal.SIGTERM)
            job.process.wait()
        time.sleep(POLL)
    return job.failure()


def _ask(scheduler: str) -> None:
    """Ask a scheduler to identify itself; a client would wait for ever for another service.

    Raises:
        OSError, ValueError: it does not answer in time, or is something else.
    """
    import distributed

    async def identity() -> dict[str, Any]:
        arguments = distributed.security.Security().get_connection_args("client")
        remote = distributed.rpc(scheduler, timeout=ANSWER, connection_args=arguments)
        async with remote:
            return await remote.identity()

    async def in_time() -> dict[str, Any]:
        # Not wait_for, which would wait for the end of what does not listen.
        task = asyncio.ensure_future(identity())
        done, _ = await asyncio.wait([task], timeout=ANSWER)
        if not done:
            task.cancel()
            raise TimeoutError(f"nothing that it understands in {ANSWER} s")
        return task.result()

    kind = asyncio.run(in_time()).get("type")
    if kind != "Scheduler":
        raise ValueError(f"a {kind} answers there")


def _wait_until_released(out: Path, runs: Sequence[Settings]) -> bool:
    """Wait until no process trains any of some runs; return whether that came true."""
    until = time.monotonic() + WAIT
    while time.monotonic() < until:
        time.sleep(2 * POLL)  # for which a worker may take to see that it is to stop
        if not any(marks.is_locked(out / run.name) for run in runs):
            return True
    return False


def _connect(scheduler: str) -> Any:
    """Return a client of a scheduler.

    Raises:
        ReproduceError: dask is not installed, or no scheduler answers.
    """
    try:
        import distributed
    except ImportError as error:
        raise ReproduceError("--scheduler needs dask: pip install distributed") from error
    for handler in logging.getLogger("distributed").handlers:
        handler.setLevel(logging.CRITICAL)  # what it has to say, this sweep says in a line
    try:
        _ask(scheduler)
        return distributed.Client(scheduler, timeout=ANSWER)
    except (OSError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise ReproduceError(
            f"no scheduler answers at {scheduler!r} ({reason}): start one with dask scheduler, and "
            "give the address that it prints"
        ) from error


class _Tasks:
    """The runs that the workers of a cluster train, a task each.

    Args:
        client (distributed.Client): of the cluster.
        runs (sequence of Settings): all of the sweep, those that matter most first.
        out (pathlib.Path): the output directory, the same for all workers.
        data_dir (str or pathlib.Path): where the data lies, the workers' caches by default.
        stop (pathlib.Path): when this file appears, the workers stop.
        threads (int): of each training.

    Attributes:
        running (dict): the run and the device of each task that has not ended.
        failures (dict): why runs failed, by their names.
    """

    def __init__(
        self,
        client: Any,
        runs: Sequence[Settings],
        out: Path,
        data_dir: StrPath | None,
        stop: Path,
        threads: int,
    ) -> None:
        self.client = client
        self.runs = runs
        self.out = out
        self.data_dir = None if data_dir is None else str(data_dir)
        self.stop = stop
        self.threads = threads
        self.running: dict[Any, tuple[Settings, int]] = {}
        self.failures: dict[str, str] = {}
        self._deaths: collections.Counter[Settings] = collections.Counter()

    def submit(self, run: Settings, device: int) -> None:
        """Give a run to the cluster."""
        task = self.client.submit(
            train_on_worker,
            run.as_dict(),
            str(self.out),
            self.data_dir,
            device,
            str(self.stop),
            self.threads,
            pure=False,
            priority=-self.runs.index(run),
        )
        self.running[task] = run, device

    def collect(self, view: _View) -> None:
        """Take the tasks that have ended, and give those runs again that have not."""
        import distributed

        for task in [task for task in self.running if task.done()]:
            run, device = self.running.pop(task)
            try:
                failure = task.result()
            except Locked:
                view.say_waiting([run])
                self.submit(run, device)
                continue
            except distributed.scheduler.KilledWorker as error:
                self._deaths[run] += 1
                if self._deaths[run] < ATTEMPTS:
                    self.submit(run, device)
                    continue
                failure = f"given up after the death of {ATTEMPTS} workers: {error}"
                marks.write_failure(make_writable(self.out / run.name), run, failure, again=True)
            if failure is not None:
                self.failures[run.name] = failure
            _announce(view, run, failure)

    def wait(self) -> None:
        """Wait for the tasks, which have been told to stop, for a while."""
        import distributed

        with contextlib.suppress(OSError, concurrent.futures.CancelledError):
            distributed.wait(list(self.running), timeout=WAIT)


def _lost(scheduler: str, out: Path, runs: Sequence[Settings]) -> ReproduceError:
    """Return the error that says that a scheduler is lost, and what becomes of the trainings."""
    told = "trainings that go on end with their workers"
    if _wait_until_released(out, runs):
        told = "the trainings are stopped"
    return ReproduceError(
        f"the scheduler at {scheduler!r} is lost; {told}: start it and its workers again, "
        "and give the same command, which goes on from the snapshots"
    )


def _on_cluster(
    waiting: list[Settings],
    runs: Sequence[Settings],
    out: Path,
    data_dir: StrPath | None,
    devices: Sequence[int],
    scheduler: str,
    threads: int,
) -> dict[str, str]:
    """Train runs on a dask.distributed cluster; return the failures by name."""
    client = _connect(scheduler)
    # A directory is what this process and the workers share; a file in it reaches all of them.
    stop = out / f".stop-{uuid.uuid4().hex}"
    tasks = _Tasks(client, runs, out, data_dir, stop, threads)
    with client, _View(out, runs, None) as view, _stopping(()):
        for i, run in enumerate(waiting):
            tasks.submit(run, devices[i % len(devices)])
        if not client.scheduler_info()["workers"]:
            view.say(f"waiting for workers, of which {scheduler} has none: dask worker {scheduler}")
        try:
            while tasks.running:
                time.sleep(POLL)
                if client.status != "running":
                    raise concurrent.futures.CancelledError
                tasks.collect(view)
                view.refresh()
        except KeyboardInterrupt:
            stop.touch()
            tasks.wait()
            raise
        except (OSError, concurrent.futures.CancelledError) as error:
            # The workers cannot be reached either, but they look for the file.
            stop.touch()
            raise _lost(scheduler, out, waiting) from error
        finally:
            stop.unlink(missing_ok=True)
    return tasks.failures
