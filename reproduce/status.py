"""The state of the runs of a directory, from files alone."""

import contextlib
import hashlib
import json
import os
import statistics
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reproduce import ReproduceError, marks
from reproduce._types import StrPath
from reproduce.experiments import from_dict
from reproduce.files import make_writable, remove_unfinished, write_json
from reproduce.settings import Settings

#: The directory of the plans in an output directory, apart from the records.
PLANS = ".plans"
#: If the lock of a run says nothing, the run counts as running while its progress is at most so
#: old, in seconds.
RECENT = 120


@dataclass
class State:
    """The state of a run.

    Attributes:
        settings (Settings): of the run.
        kind (str): ``finished``, ``running``, ``interrupted``, ``failed`` or ``waiting``.
        iteration (int): iterations done.
        iterations (int): of the whole training.
        rate (float): seconds an iteration; None if unknown.
        seconds_left (float): of a running one; None if unknown.
        reason (str): of a failure.
        again (bool): whether a failed run is repeated without ``--retry-failed``.
    """

    settings: Settings
    kind: str
    iteration: int
    iterations: int
    rate: float | None = None
    seconds_left: float | None = None
    reason: str = ""
    again: bool = False


def _content(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file of a run, a dictionary.

    Raises:
        FileNotFoundError: there is no such file.
        OSError, ValueError, RecursionError: it cannot be read, or is damaged.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"a {type(content).__name__} is in it, not an object")
    return content


def _read(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file, an empty dictionary where it cannot be read."""
    try:
        return _content(path)
    except (OSError, ValueError, RecursionError):
        return {}


def _part(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return an object in a file, an empty dictionary where it is something else."""
    part = content.get(name)
    return part if isinstance(part, dict) else {}


def _number(content: Mapping[str, Any], name: str, otherwise: float | None = None) -> Any:
    """Return a number in a file that is finite and not negative; ``otherwise`` without one."""
    number = content.get(name)
    if isinstance(number, bool) or not isinstance(number, int | float):
        return otherwise
    return number if 0 <= number <= sys.float_info.max else otherwise


def state(out: StrPath, settings: Settings) -> State:
    """Return the state of a run.

    Args:
        out (pathlib.Path): the output directory.
        settings (Settings): of the run.

    Returns:
        State: from the record, the lock, and the files about progress and failure.
    """
    out = Path(out)
    iterations = settings.iterations()
    path = out / f"{settings.name}.json"
    record = _read(path)
    if record:
        seconds = _number(_part(record, "times"), "seconds")
        done = _number(_part(record, "result"), "iterations") or iterations
        return State(settings, "finished", done, done, seconds and seconds / done)
    directory = out / settings.name
    progress = _read(directory / marks.PROGRESS)
    iteration = min(_number(progress, "iteration", 0), iterations)
    rate = _number(progress, "seconds_per_iteration")
    updated = _number(progress, "updated", 0)
    running = marks.is_locked(directory)
    if running is None:  # another user's lock, or a file system without locks
        running = iteration < iterations and time.time() - updated < RECENT
    if running:
        left = None
        if rate is not None and updated:
            left = max(0.0, (iterations - iteration) * rate - max(0.0, time.time() - updated))
        return State(settings, "running", iteration, iterations, rate, left)
    if os.path.exists(path):
        reason = f"its record {str(path)!r} is another user's and may not be read"
        if os.access(path, os.R_OK):
            reason = (
                f"its record {str(path)!r} is damaged: delete it, and the same command trains the "
                "run"
            )
        return State(settings, "failed", iteration, iterations, rate, reason=reason, again=True)
    failed = _read(directory / marks.FAILED)
    if failed:
        return State(
            settings,
            "failed",
            iteration,
            iterations,
            rate,
            reason=str(failed.get("reason", "for no known reason")),
            again=failed.get("again") is True,
        )
    kind = "interrupted" if progress else "waiting"
    return State(settings, kind, iteration, iterations, rate)


def write_plan(out: StrPath, runs: Iterable[Settings]) -> None:
    """Write the list of the runs of a sweep, for ``status``.

    Args:
        out (pathlib.Path): the output directory.
        runs (list of Settings): in their order.
    """
    plan = [run.as_dict() for run in runs]
    digest = hashlib.sha256(json.dumps(plan).encode()).hexdigest()[:12]
    path = Path(out) / PLANS / f"{digest}.json"
    if _read(path).get("runs") == plan:
        return  # also another user's, which cannot be replaced
    try:
        make_writable(path.parent)
        remove_unfinished(path.parent, path.name)
        # Where the same sweep begins at this moment, it removes this file and writes the same.
        with contextlib.suppress(FileNotFoundError):
            write_json(path, {"runs": plan})
    except (OSError, ReproduceError) as error:
        refused = error.__cause__ or error
        reason = getattr(refused, "strerror", None) or refused
        print(
            f"reproduce: {str(path)!r}, the plan of this sweep, is not written ({reason}): status "
            "will not know of the runs that have not begun",
            file=sys.stderr,
        )


def _settings(values: Any) -> Settings:
    """Return the settings in a file.

    Raises:
        ValueError: they are missing, or a value has the wrong type.
    """
    try:
        run = from_dict(values or {})
        if not (run.name and run.iterations() >= 1):
            raise ValueError("a training without iterations")
    except (ReproduceError, TypeError, AttributeError, LookupError, ArithmeticError) as error:
        raise ValueError(str(error)) from error
    return run


def damaged(out: StrPath) -> list[str]:
    """Return a line for each file of runs that cannot be read.

    Args:
        out (pathlib.Path): the output directory.

    Returns:
        list of str: the file and what is wrong with it.
    """
    out = Path(out)
    paths = [*(out / PLANS).glob("*.json"), *out.glob("*.json")]
    paths += [path for name in (marks.PROGRESS, marks.FAILED) for path in out.glob(f"*/{name}")]
    told = []
    for path in sorted(paths):
        try:
            _check(path, _content(path))
        except FileNotFoundError:
            continue  # deleted meanwhile, as by a run that ends
        except (OSError, ValueError, RecursionError) as error:
            reason = " ".join(str(getattr(error, "strerror", None) or error).split())
            told.append(f"{str(path)!r} is damaged or no file of a run ({reason})")
    return told


def _check(path: Path, content: Mapping[str, Any]) -> None:
    """Check what is read from a file in the directory of the runs.

    Raises:
        ValueError: it has another form; the message says where.
    """
    numbers = {}
    if path.parent.name == PLANS:
        if not isinstance(content.get("runs"), list):
            raise ValueError("it holds no list of runs")
        for values in content["runs"]:
            _settings(values)
        return
    _settings(content.get("settings"))
    if path.name == marks.PROGRESS:
        numbers = {"iteration": content, "iterations": content, "updated": content}
        if content.get("seconds_per_iteration") is not None:
            numbers["seconds_per_iteration"] = content
    elif path.name != marks.FAILED:
        times, result = _part(content, "times"), _part(content, "result")
        numbers = {"seconds": times, "iterations": result}
    for name, part in numbers.items():
        if _number(part, name) is None:
            raise ValueError(f"its {name} is no number")


def known_runs(out: StrPath) -> list[Settings]:
    """Return the runs that plans, records and directories name.

    Args:
        out (pathlib.Path): the output directory.

    Returns:
        list of Settings: each once, in the order of the plans.

    Raises:
        ReproduceError: there is no such directory.
    """
    out = Path(out)
    if not out.is_dir():
        raise ReproduceError(
            f"there is no directory {str(out)!r}: give the directory of the runs as --out"
        )
    listed = []
    for path in sorted((out / PLANS).glob("*.json")):
        runs = _read(path).get("runs")
        listed += runs if isinstance(runs, list) else []
    listed += [_read(path).get("settings") for path in sorted(out.glob("*.json"))]
    for name in (marks.PROGRESS, marks.FAILED):
        listed += [_read(path).get("settings") for path in sorted(out.glob(f"*/{name}"))]
    runs = {}
    for settings in listed:
        with contextlib.suppress(ValueError):
            run = _settings(settings)
            runs.setdefault(run.name, run)
    return list(runs.values())


def duration(seconds: float | None) -> str:
    """Return a time in words: ``3 d 4 h``, ``5 h 06 min``, ``7 min`` or ``8 s``."""
    if seconds is None:
        return "?"
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min" if minutes else f"{seconds} s"


def seconds_left(states: Sequence[State], jobs: int) -> float | None:
    """Return the seconds until all runs are finished, estimated from the rates of the others.

    A run that has not begun is assumed to be as fast as those of its method, or else as all.

    Args:
        states (list of State): of all runs.
        jobs (int): runs at a time.

    Returns:
        float: seconds; None if unknown.
    """
    rates: dict[str, list[float]] = {}
    for state in states:
        if state.rate:
            rates.setdefault(state.settings.method, []).append(state.rate)
    every = [rate for some in rates.values() for rate in some]
    if not every:
        return None
    total = 0.0
    longest = 0.0
    for state in states:
        if state.kind == "finished" or (state.kind == "failed" and not state.again):
            continue
        guess = statistics.median(rates.get(state.settings.method, every))
        seconds = state.seconds_left
        if seconds is None:
            seconds = (state.iterations - state.iteration) * (state.rate or guess)
        total += seconds
        longest = max(longest, seconds)
    return max(longest, total / max(1, jobs))


def lines(states: Sequence[State], jobs: int | None = None) -> list[str]:
    """Return the lines about the state of the runs: the running ones, the failures, the total.

    Args:
        states (list of State): of all runs.
        jobs (int): runs at a time; by default as many as are running.

    Returns:
        list of str: a line for each running and each failed run, and one for all runs.
    """
    by_kind: dict[str, list[State]] = {}
    for state in states:
        by_kind.setdefault(state.kind, []).append(state)
    running = by_kind.get("running", [])
    written = []
    for state in running:
        fraction = state.iteration / state.iterations
        written.append(
            f"running      {fraction:6.1%}  {duration(state.seconds_left):>10} left  "
            f"{state.settings.name}"
        )
    for state in by_kind.get("interrupted", []):
        fraction = state.iteration / state.iterations
        written.append(f"interrupted  {fraction:6.1%}  {'':>10}       {state.settings.name}")
    written += [f"failed       {f.settings.name}: {f.reason}" for f in by_kind.get("failed", [])]
    counts = ", ".join(
        f"{len(by_kind[kind])} {kind}"
        for kind in ("finished", "running", "interrupted", "waiting", "failed")
        if kind in by_kind
    )
    total = sum(state.iterations for state in states)
    done = sum(state.iteration for state in states)
    whole = f"{len(states)} runs: {counts}; {done / max(1, total):.1%} of all iterations"
    if len(by_kind.get("finished", [])) < len(states):
        left = seconds_left(states, jobs or len(running) or 1)
        at = "" if jobs or running else " once they run one at a time"
        whole += f", {duration(left)} left{at}"
    return [*written, whole]
