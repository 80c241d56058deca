"""Many trainings on one machine, one process each."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time

import tqdm

from reproduce import ROOT, ReproduceError, data, settings
from reproduce.files import make_writable
from reproduce.run import progress

#: Seconds between looks at the processes.
POLL = 0.5


def quick_settings(seed=0):
    """Return the main job: the seven penalties of section 4.1 and two fixed structures.

    The quick schedule raises eta_theta by the factor by which it shortens the training.

    Args:
        seed (int): of every run.

    Returns:
        list of UnitSelection: nine trainings.
    """
    at = settings.UnitSelection.at
    runs = [
        at("quick", method="sno", epsilon0=settings.parse_epsilon0(text), seed=seed)
        for text in settings.UNIT_EPSILON0
    ]
    runs += [at("quick", method="fixed", width=width, seed=seed) for width in (205, 784)]
    return runs


class _Process:
    """A training in a process of its own."""

    def __init__(self, run, out, data_dir, device):
        self.run = run
        self.errors = tempfile.TemporaryFile()
        command = [sys.executable, "-m", "reproduce", "run", *run.as_arguments(), "--quiet"]
        command += [f"--out={out}", f"--device={device}"]
        if data_dir is not None:
            command.append(f"--data-dir={data_dir}")
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self.errors,
            env=_environment(),
        )

    def finished(self):
        """Return whether the process has ended."""
        return self.process.poll() is not None

    def failure(self):
        """Return what a process that ended without success said last, None after a success."""
        with self.errors as file:
            file.seek(0)
            lines = file.read().decode(errors="replace").strip().splitlines()
        if self.process.returncode == 0:
            return None
        said = lines[-1] if lines else "it said nothing"
        return f"{self.run.name} ended with {self.process.returncode}: {said}"


def _environment():
    """Return this process's environment, in which ``reproduce`` is found from any directory."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}


@contextlib.contextmanager
def _stopping(running):
    """Hand a signal on to the trainings, which then save a snapshot and stop."""

    def stop(number, frame):
        for job in running:
            with contextlib.suppress(ProcessLookupError):
                job.process.send_signal(signal.SIGTERM)
        raise KeyboardInterrupt

    previous = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        for job in running:
            job.process.wait()


def run_all(runs, out, jobs=2, data_dir=None, device=-1):
    """Train every run that is not finished, several at a time.

    Args:
        runs (list of UnitSelection): what to train, in this order.
        out (str or pathlib.Path): gets the records and the directories of the runs.
        jobs (int): processes at a time, of one BLAS thread each.
        data_dir (str or pathlib.Path): where the data lies, the cache by default.
        device (int): -1 for the CPU, else a GPU.

    Returns:
        list of str: a line for each run that failed; the others were trained all the same.

    Raises:
        ReproduceError: the data is not to be had, or ``out`` cannot be written.
    """
    if jobs < 1:
        raise ReproduceError(f"--jobs must be at least 1, not {jobs}")
    make_writable(out)
    examples = {
        name: len(data.load(name, data_dir)[0][0]) for name in {run.dataset for run in runs}
    }
    total = {run: run.iterations(examples[run.dataset]) for run in runs}
    waiting = list(runs)
    running, failures = [], []
    with (
        tqdm.tqdm(total=sum(total.values()), unit="it", unit_scale=True, mininterval=1) as bar,
        _stopping(running),
    ):
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(_Process(waiting.pop(0), out, data_dir, device))
            time.sleep(POLL)
            for job in [job for job in running if job.finished()]:
                running.remove(job)
                failure = job.failure()
                if failure:
                    failures.append(failure)
                    bar.write(failure, file=sys.stderr)
            names = ", ".join(f"{job.run.method} {job.run.setting}" for job in running)
            bar.set_postfix_str(names, refresh=False)
            bar.update(sum(progress(out, run, total[run]) for run in runs) - bar.n)
    return failures
