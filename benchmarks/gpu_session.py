"""What is to be run on a GPU, in pieces that fit a short loan.

``python -m benchmarks.gpu_session --out FOLDER`` works for ``--minutes`` and stops; the same
command, given again, continues.  In their order, the pieces are the tests marked ``gpu``, each
launch of section 4.2 timed beside its prediction, the benchmark of both experiments (with PyTorch
where it is installed), the 14 settings of section 4.1 at the paper's schedule, trial by trial, and
section 4.2 at the paper's schedule, a training at a time.

Everything goes into the folder: ``session.json``, how each piece stands; ``environment.json``, the
devices, drivers and versions; the output of each piece; and ``runs``, the records, with a snapshot
of whatever is unfinished.  A piece that ended is not run again at the same commit, unless
``--again`` names it or its beginning.  ``--dry-run`` lists the pieces and needs no GPU.  ``--pack``
puts what is to be kept into a few archives in ``FOLDER/packed``, to be unpacked into another
folder.
"""

import argparse
import contextlib
import dataclasses
import importlib.util
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import gpu_model
from reproduce import (
    ROOT,
    ReproduceError,
    data,
    experiments,
    marks,
    record,
    snapshot,
    status,
    sweep,
)
from reproduce.compare import format_table
from reproduce.experiments.connection_selection import ConnectionSelection
from reproduce.experiments.unit_selection import UnitSelection
from reproduce.files import make_writable, write_json
from reproduce.run import get_device
from reproduce.settings import parse_epsilon0
from reproduce.signals import listening

#: Seconds, before the end of a call, that a piece has to save a snapshot and stop.
STOPPING = 25
#: Seconds that a training must have to be begun.
WORTH_IT = 60
#: Milliseconds of an iteration of each section: measured once, on an H200, and predicted by
#: :mod:`benchmarks.gpu_model` at theta = 0.5.  Evaluations come on top of them.
MILLISECONDS = {UnitSelection: 0.0865, ConnectionSelection: 3.5}
#: The penalties of section 4.2 in the order in which to train them: those first that tell most.
PENALTIES = ("-2^0", "-2^-3", "0", "2^-6", "2^-5", "2^-4")
#: What a call may end with for a piece.
DONE, FAILED, STOPPED = "done", "failed", "stopped"


@dataclasses.dataclass
class Piece:
    """A command of this repository.

    Attributes:
        name (str): of the piece, and of the file with its output.
        command (list of str): after the interpreter.
        seconds (float): expected; a guess where nothing is measured.
        runs (list of reproduce.settings.Settings): what it trains; such a piece may stop at any
            time and go on, and is done when all of them have a record.
    """

    name: str
    command: list[str]
    seconds: float
    runs: list[Any] = dataclasses.field(default_factory=list)


def seconds_of(out: Path, runs: Iterable[Any]) -> float:
    """Return the least seconds that trainings take on, from where they stand."""
    total = 0.0
    for run in runs:
        found = status.state(out, run)
        if found.kind != "finished":
            rate = found.rate or MILLISECONDS[type(run)] / 1e3
            total += (found.iterations - found.iteration) * rate
    return total


def pieces_of(
    out: Path,
    device: int,
    trials: int,
    jobs: int,
    rounds: int,
    data_dir: str | None = None,
    peers: str | None = None,
) -> list[Piece]:
    """Return the pieces in their order.

    Args:
        out (pathlib.Path): the folder of the session.
        device (int): the GPU.
        trials (int): seeds of section 4.1.
        jobs (int): trainings of section 4.1 at a time.
        rounds (int): of the benchmark.
        data_dir (str): where the data sets lie.
        peers (str): a Python with PyTorch; None leaves the peers out.

    Returns:
        list of Piece: in their order.
    """
    runs = out / "runs"
    where = [f"--out={runs.resolve()}"]
    if data_dir is not None:
        where.append(f"--data-dir={Path(data_dir).resolve()}")
    benchmark = ["-m", "benchmarks", f"--device={device}", f"--rounds={rounds}"]
    benchmark += [f"--peers={peers}"] if peers else []
    of_peers = 100 if peers else 0
    tests = ["-m", "pytest", "-m", "gpu", "-n", "4", f"--junitxml={out.resolve() / 'tests.xml'}"]
    found = [
        Piece("tests", tests, 180),
        Piece("launches", ["-m", "benchmarks.gpu_model", f"--measure={device}"], 30),
        *(
            Piece(f"benchmark-{suite}", [*benchmark, suite], rounds * (seconds + of_peers))
            for suite, seconds in (("unit-selection", 100), ("connection-selection", 130))
        ),
    ]
    grid = sweep.grid(experiments.get("unit-selection"), "paper", range(trials))
    training = ["-m", "reproduce"]
    sweeping = [*training, "sweep", "unit-selection", f"--devices={device}", f"--jobs={jobs}"]
    sweeping += [f"--trials={trials}", *where]
    found.append(Piece("section-4.1", sweeping, seconds_of(runs, grid), grid))
    penalties = [ConnectionSelection(epsilon0=parse_epsilon0(text)) for text in PENALTIES]
    rates = sweep.grid(experiments.get("connection-selection"), "paper", range(1), ("random",))
    for number, run in enumerate([*penalties, *rates], start=1):
        command = [*training, "run", *run.as_arguments(), "--quiet", f"--device={device}", *where]
        found.append(Piece(f"section-4.2-{number:02d}", command, seconds_of(runs, [run]), [run]))
    return found


def environment(device: Any) -> dict[str, Any]:
    """Return what the numbers of a session depend on.

    Args:
        device (chainer.backend.Device): the GPU.
    """
    found = {**record.versions(), **record.machine(device)}
    runtime = device.xp.cuda.runtime
    properties = runtime.getDeviceProperties(device.device.id)
    major, minor = properties["major"], properties["minor"]
    found["compute_capability"] = f"{major}.{minor}"
    found["multiprocessors"] = properties["multiProcessorCount"]
    found["memory_mb"] = properties["totalGlobalMem"] // 2**20
    found["driver"] = runtime.driverGetVersion()
    found["cuda_runtime"] = runtime.runtimeGetVersion()
    found["nvrtc"] = ".".join(map(str, device.xp.cuda.nvrtc.getVersion()))
    found["torch"] = importlib.util.find_spec("torch") is not None
    query = "--query-gpu=driver_version,clocks.max.sm,clocks.max.mem,power.limit"
    try:
        command = ["nvidia-smi", query, "--format=csv,noheader", f"--id={device.device.id}"]
        said = subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip()
        found["nvidia_smi"] = said
    except (OSError, subprocess.TimeoutExpired):
        found["nvidia_smi"] = None
    return found


def add_environment(path: Path, found: Any) -> None:
    """Add an environment to a file, where it is not there already."""
    known = read(path, [])
    if found not in known:
        write_json(path, [*known, found])


def read(path: Path, default: Any) -> Any:
    """Return the content of a JSON file, the default where there is none."""
    return json.loads(path.read_text()) if path.exists() else default


class Session:
    """The pieces of a folder, worked through until the time is over.

    Args:
        out (pathlib.Path): the folder.
        commit (str): of the checkout; pieces that ended at another one are run again.
        again (sequence of str): names of pieces to run again.
        say (callable): takes a line for the user.
        clock (callable): returns seconds.
    """

    def __init__(
        self,
        out: Path,
        commit: str | None,
        again: Sequence[str] = (),
        say: Callable[[str], object] = print,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.out, self.commit, self.say, self.clock = out, commit, say, clock
        self.path = out / "session.json"
        self.known = read(self.path, {})
        for name in again:
            self.known.pop(name, None)
        self.stopped = False

    def outcome(self, piece: Piece) -> str | None:
        """Return how a piece has ended, None where it has to run or to go on."""
        if piece.runs:
            runs = self.out / "runs"
            finished = all((runs / f"{run.name}.json").exists() for run in piece.runs)
            return DONE if finished else None
        found = self.known.get(piece.name, {})
        ended = found.get("outcome") in (DONE, FAILED) and found.get("commit") == self.commit
        return found["outcome"] if ended else None

    def run(self, pieces: Sequence[Piece], seconds: float) -> bool:
        """Work through the pieces for so many seconds.

        Args:
            pieces (list of Piece): in their order.
            seconds (float): of this call.

        Returns:
            bool: all pieces are done, and none has failed.
        """
        deadline = self.clock() + seconds
        failed = False
        for piece in pieces:
            outcome = self.outcome(piece)
            if outcome is not None:
                failed |= outcome == FAILED
                continue
            left = deadline - self.clock()
            # A piece that cannot stop and go on is not begun where it would not end; a training
            # is, while it can get somewhere.
            if left < STOPPING + (WORTH_IT if piece.runs else piece.seconds):
                self.say(f"{piece.name}: left for the next call, {left:.0f} s are left of this one")
                failed = True
                continue
            outcome = self._run_one(piece, deadline - STOPPING)
            failed |= outcome != DONE
            if self.stopped:
                break
        return not failed

    def _run_one(self, piece: Piece, deadline: float) -> str:
        begun, started = self.clock(), marks.now()
        self.say(f"{piece.name}: {_text(piece)}")
        with (
            open(self.out / f"{piece.name}.txt", "a" if piece.runs else "w") as output,
            listening(self._stop),
        ):
            process = subprocess.Popen(
                [sys.executable, *piece.command],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            code = self._wait(process, deadline, piece)
        if code is None:
            outcome = STOPPED
        else:
            outcome = DONE if code == 0 else FAILED
        if piece.runs:  # which may have ended just when it was told to stop
            outcome = self.outcome(piece) or outcome
        self.known[piece.name] = {
            "outcome": outcome,
            "code": code,
            "commit": self.commit,
            "started": started,
            "seconds": round(self.clock() - begun, 1),
            "command": piece.command,
        }
        write_json(self.path, self.known)
        self.say(f"{piece.name}: {outcome} after {self.clock() - begun:.0f} s")
        return outcome

    def _stop(self, number: int, frame: Any) -> None:
        self.stopped = True

    def _wait(self, process: subprocess.Popen[bytes], deadline: float, piece: Piece) -> int | None:
        """Return the exit code; None where the process was told to stop."""

        def end(number: int) -> None:
            # A sweep sees to the end of its trainings; what tests and benchmarks have started is
            # ended with them.
            if piece.runs and number == signal.SIGTERM:
                process.send_signal(number)
            else:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)

        while process.poll() is None:
            if self.stopped or self.clock() >= deadline:
                end(signal.SIGTERM)
                try:
                    process.wait(STOPPING)
                except subprocess.TimeoutExpired:
                    end(signal.SIGKILL)
                    process.wait()
                return None
            time.sleep(0.1)
        return process.returncode


def pack(out: Path) -> list[Path]:
    """Put what is to be kept into archives: all small files, and a snapshot of each unfinished run.

    Args:
        out (pathlib.Path): the folder of a session.

    Returns:
        list of pathlib.Path: the archives, each to be unpacked in the folder of a session.
    """
    packed = out / "packed"
    shutil.rmtree(packed, ignore_errors=True)
    packed.mkdir()
    runs = out / "runs"
    files = [path for path in out.iterdir() if path.is_file()]
    files += [path for path in runs.glob("*.json") if path.is_file()]
    archives = [packed / "results.tar.gz"]
    with tarfile.open(archives[0], "w:gz") as archive:
        for path in sorted(files):
            archive.add(path, path.relative_to(out))
    directories = [path for path in sorted(runs.glob("*")) if path.is_dir()]
    for directory in directories:
        newest = snapshot.snapshots(directory)[:1]
        if not newest or (runs / f"{directory.name}.json").exists():
            continue
        archives.append(packed / f"unfinished-{len(archives)}.tar.gz")
        with tarfile.open(archives[-1], "w:gz") as archive:
            for path in (*newest, directory / marks.PROGRESS):
                if path.exists():
                    archive.add(path, path.relative_to(out))
    return archives


def _text(piece: Piece) -> str:
    """Return the command of a piece as a text."""
    return shlex.join(["python", *map(str, piece.command)])


def _time(seconds: float) -> str:
    """Return a time as a text."""
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def list_pieces(session: Session, pieces: Sequence[Piece]) -> None:
    """Print the pieces, how they stand and what they take."""
    rows = []
    for piece in pieces:
        outcome = session.outcome(piece)
        text = outcome or ("goes on" if piece.runs else "to be run")
        if piece.runs:
            finished = sum(
                (session.out / "runs" / f"{run.name}.json").exists() for run in piece.runs
            )
            text += f", {finished} of {len(piece.runs)}"
        name = piece.name
        if len(piece.runs) == 1:
            name += f" {piece.runs[0].method} {piece.runs[0].setting}"
        left = "" if outcome else _time(piece.seconds)
        rows.append([name, text, left])
    session.say(format_table(["piece", "state", "expected"], rows))
    session.say("")
    for piece in pieces:
        if not session.outcome(piece):
            session.say(f"{piece.name}: {_text(piece)}")
    session.say(
        "\nexpected: of trainings the iterations that are left, without evaluations: section 4.1 "
        f"at {MILLISECONDS[UnitSelection]} ms, measured once on an H200; section 4.2 at "
        f"{MILLISECONDS[ConnectionSelection]} ms, predicted by python -m benchmarks.gpu_model "
        f"({gpu_model.MEASURED} ms were measured before).  Of the other pieces a guess."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Work for some minutes; exit with 0 when everything is done."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--out",
        required=True,
        help="the folder of the session; the same command continues it",
    )
    add("--minutes", type=float, default=9.0, help="of this call (9)")
    add("--device", type=int, default=0, help="the GPU (0)")
    add("--only", help="pieces, with commas between them; section-4.2 for all of its own (all)")
    add("--again", default="", help="ended pieces to run again, named as for --only")
    add("--trials", type=int, default=5, help="seeds of section 4.1, from 0 on (5)")
    add("--jobs", type=int, default=2, help="trainings of section 4.1 at a time (2)")
    add("--rounds", type=int, default=1, help="of the benchmark (1)")
    add("--data-dir", help="where the data lies, by default the cache directory")
    add("--peers", help="a Python with PyTorch (this one, if it has it)")
    add("--dry-run", action="store_true", help="list the pieces; needs no GPU")
    add("--pack", action="store_true", help="at the end, archives of what is to be kept")
    given = parser.parse_args(arguments)
    try:
        return _main(given)
    except ReproduceError as error:
        sys.exit(f"benchmarks: {error}")


def _main(given: argparse.Namespace) -> int:
    """Work as the options of a command line say; return the exit code."""
    begun = time.monotonic()
    _check(given)
    out = Path(given.out)
    pieces, again = _pieces(given)
    commit = record.versions()["commit"]
    if given.dry_run:
        list_pieces(Session(out, commit, again), pieces)
        return 0
    try:
        device = get_device(given.device)
    except ReproduceError as error:
        reason = str(error).partition(": give --device -1")[0]
        raise ReproduceError(
            f"a session needs a GPU, and {reason}: --dry-run lists the pieces without one"
        ) from error
    out = make_writable(out)
    with marks.locked(out, 0, lambda text: print(f"benchmarks: {text}", file=sys.stderr)):
        make_writable(out / "runs")
        add_environment(out / "environment.json", environment(device))
        session = Session(out, commit, again)
        todo = [piece for piece in pieces if session.outcome(piece) is None]
        for dataset in sorted({run.dataset for piece in todo for run in piece.runs}):
            data.load(dataset, given.data_dir)
        complete = session.run(pieces, 60 * given.minutes - (time.monotonic() - begun))
        if given.pack:
            for path in pack(out):
                print(f"{path}: {path.stat().st_size / 2**20:.1f} MB")
    if not complete:
        print("not everything is done: the same command goes on; --dry-run shows what is left")
    return 0 if complete else 1


def _check(given: argparse.Namespace) -> None:
    """Check the numbers among the options.

    Raises:
        ReproduceError: one is out of range.
    """
    for name in ("trials", "jobs", "rounds"):
        if getattr(given, name) < 1:
            raise ReproduceError(f"--{name} must be at least 1, not {getattr(given, name)}")
    if not given.minutes > 0:
        raise ReproduceError(f"--minutes must be positive, not {given.minutes:g}")
    if given.device < 0:
        raise ReproduceError(f"--device must name a GPU, such as 0, not {given.device}")


def _pieces(given: argparse.Namespace) -> tuple[list[Piece], list[str]]:
    """Return the pieces that the options select, and the names of those to be run again.

    Raises:
        ReproduceError: an option names no piece.
    """
    peers = given.peers
    if peers is None and importlib.util.find_spec("torch") is not None:
        peers = sys.executable
    pieces = pieces_of(
        Path(given.out),
        given.device,
        given.trials,
        given.jobs,
        given.rounds,
        given.data_dir,
        peers,
    )
    names = [piece.name for piece in pieces]
    repeated, wanted = (
        tuple(name for name in (listed or "").split(",") if name)
        for listed in (given.again, given.only)
    )
    for name in (*repeated, *wanted):
        if not any(piece.startswith(name) for piece in names):
            raise ReproduceError(f"{name!r} is none of the pieces {', '.join(names)}")
    again = [name for name in names if name.startswith(repeated)] if repeated else []
    return [p for p in pieces if not wanted or p.name.startswith(wanted)], again


if __name__ == "__main__":
    sys.exit(main())
