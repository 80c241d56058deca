"""Records of finished runs: small JSON files that describe one training completely."""

import json
import math
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
import threadpoolctl

import chainer_sno
from chainer_sno import chainer
from chainer_sno.files import write_bytes
from reproduce import ROOT, ReproduceError, schemas
from reproduce._types import Record, StrPath
from reproduce.experiments import from_dict
from reproduce.settings import Settings

#: The version of the form of a record; a change that readers must know raises it.
SCHEMA = 1
#: Columns of the log that are fractions although their names begin as those of counts.
FRACTIONS = ("structure/usage_rate", "structure/weight_ratio")
#: The entry of the log with the CPU seconds of an epoch, see :class:`reproduce.run.CPUTime`.
CPU_SECONDS = "cpu_seconds"


def _git_commit() -> str | None:
    """Return the commit of the checkout, with a plus where files differ from it, or None."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != ROOT.resolve():
            return None  # a copy without its history, inside of another repository
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def versions() -> dict[str, str | None]:
    """Return the versions of the software that computes the numbers."""
    known = {
        "python": platform.python_version(),
        "chainer_sno": chainer_sno.__version__,
        "commit": _git_commit(),
        "chainer": chainer.__version__,
        "numpy": numpy.__version__,
    }
    if "numba" in sys.modules:
        known["numba"] = sys.modules["numba"].__version__
    if chainer.backends.cuda.available:
        known["cupy"] = chainer.backends.cuda.cupy.__version__
    return known


def machine(device: Any) -> dict[str, Any]:
    """Return the machine that computes the numbers.

    Args:
        device (chainer.backend.Device): where the training runs.

    Returns:
        dict: processor, cores, operating system, BLAS, and the GPU where there is one.
    """
    processor = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    description = {
        "processor": models[0] if models else processor,
        "cores": len(models) or None,
        "system": platform.system(),
        # The kernels are read from here again, by reproduce.groups.computer.
        "blas": [
            f"{pool['internal_api']} {pool['version']} {pool.get('architecture', '')}".strip()
            + f", {pool['num_threads']} thread{'s' if pool['num_threads'] > 1 else ''}"
            for pool in threadpoolctl.threadpool_info()
            if pool["user_api"] == "blas" and "numpy" in pool["filepath"]
        ],
        "device": str(device),
    }
    if device.xp is not numpy:
        properties = device.xp.cuda.runtime.getDeviceProperties(device.device.id)
        description["gpu"] = properties["name"].decode()
    return description


def is_in_some_epochs(name: str) -> bool:
    """Return whether an entry of the log is measured in some epochs only, and None in others."""
    return "/reestimated_" in name


def columns(log: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return a log of LogReport, a list of dictionaries, as a dictionary of columns."""
    names = sorted({name for entry in log for name in entry} - {"elapsed_time", CPU_SECONDS})

    def kind(name: str) -> type[int] | type[float]:
        counts = name.startswith(("structure/", "theta/bin_")) and name not in FRACTIONS
        return int if counts or name in ("epoch", "iteration") else float

    def value(name: str, entry: Mapping[str, Any]) -> int | float | None:
        if is_in_some_epochs(name) and name not in entry:
            return None
        return kind(name)(entry[name])

    return {name: [value(name, entry) for entry in log] for name in names}


def make(
    settings: Settings,
    log: Sequence[Mapping[str, Any]],
    result: dict[str, Any],
    times: Mapping[str, Any],
    device: Any,
    path: str,
    computers: Sequence[dict[str, Any]] = (),
) -> Record:
    """Return the record of a finished run.

    Everything but ``times`` is the same, bit by bit, for the same settings, machine and versions,
    whether the run was interrupted or not.

    Args:
        settings (Settings): of the run.
        log (list of dict): of LogReport, an entry an epoch.
        result (dict): the numbers at the end.
        times (dict): seconds and dates.
        device (chainer.backend.Device): where it ran.
        path (str): the code that trained: ``fast``, ``winograd``, ``captured`` or ``plain``.
        computers (sequence of dict): the machines that trained it, one after the other, see
            :class:`reproduce.run.Computers`.

    Returns:
        dict: the record.
    """
    return {
        "schema": SCHEMA,
        "name": settings.name,
        "schedule": "paper" if settings.is_paper_schedule else "not the paper's",
        "changes": settings.changes(),
        "settings": settings.as_dict(),
        "result": result,
        "versions": {**versions(), "path": path},
        "machine": machine(device),
        "computers": list(computers),
        "times": {**times, **_epoch_times(log)},
        "log": columns(log),
    }


def _epoch_times(log: Sequence[Mapping[str, Any]]) -> dict[str, list[float | None]]:
    """Return when each epoch ended, and its CPU seconds where any are known."""
    times = {"epoch_seconds": [round(entry["elapsed_time"], 2) for entry in log]}
    cpu = [entry.get(CPU_SECONDS) for entry in log]
    if any(seconds is not None for seconds in cpu):
        times["epoch_cpu_seconds"] = [None if each is None else round(each, 2) for each in cpu]
    return times


def write(path: Path, record: Record) -> None:
    """Write a record in one step, a line for each setting, result and column of its log."""

    def compact(value: object) -> str:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)

    parts = []
    for name, value in record.items():
        if isinstance(value, dict):
            lines = [f"  {compact(key)}: {compact(entry)}" for key, entry in value.items()]
            parts.append(f"{compact(name)}: {{\n" + ",\n".join(lines) + "\n }")
        else:
            parts.append(f"{compact(name)}: {compact(value)}")
    write_bytes(path, ("{\n " + ",\n ".join(parts) + "\n}\n").encode())


def read(path: StrPath) -> Record:
    """Read a record.

    Args:
        path (pathlib.Path): the file.

    Returns:
        dict: the record.

    Raises:
        ReproduceError: it is damaged, foreign or of another schema; the message names it.
    """
    name = str(path)
    wanted = "give the JSON file of a finished run"
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ReproduceError(
            f"the record {name!r} cannot be read ({error.strerror or error}): {wanted}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ReproduceError(f"{name!r} is not a record of a run ({error}): {wanted}") from error
    if not isinstance(record, dict) or "schema" not in record:
        raise ReproduceError(f"{name!r} is not a record of a run (no schema): {wanted}")
    schema = record["schema"]
    if schema != SCHEMA:
        raise ReproduceError(
            f"{name!r} is a record of schema {schema!r}, and this version reads schema {SCHEMA}: "
            "read it with the version that wrote it"
        )
    schemas.check(record, schemas.RECORD, name)
    try:
        settings = from_dict(record["settings"])
    except ReproduceError as error:
        raise ReproduceError(f"the settings of {name!r} are not valid ({error})") from error
    schemas.check_result(record["result"], settings, name)
    if settings.name != record["name"]:
        raise ReproduceError(
            f"{name!r} has the name {record['name']!r}, and its settings are those of "
            f"{settings.name!r}: restore the file"
        )
    _check_numbers(record, settings, name)
    return record


def _is_finite(value: object) -> bool:
    """Return whether a value is a number that a float can hold."""
    try:
        return isinstance(value, int | float) and math.isfinite(value)
    except OverflowError:  # a whole number with hundreds of digits
        return False


def _check_numbers(record: Record, settings: Settings, name: str) -> None:
    """Check what a schema cannot: that the log and the structure fit the settings."""
    of_times = ("epoch_seconds", "epoch_cpu_seconds")
    columns = dict(record["log"])
    columns.update((name, record["times"][name]) for name in of_times if name in record["times"])
    if {len(column) for column in columns.values()} != {settings.epochs}:
        raise ReproduceError(
            f"{name!r} has {settings.epochs} epochs, and a column of its log has another number of "
            "entries: restore the file"
        )
    numbers = [
        number
        for name, column in columns.items()
        for number in column
        # Those of an epoch may be unknown.
        if number is not None or not (name == "epoch_cpu_seconds" or is_in_some_epochs(name))
    ]
    if not all(map(_is_finite, numbers)):
        raise ReproduceError(
            f"the log of {name!r} has an entry that is not a finite number: restore the file"
        )
    result = record["result"]
    if len(result.get("structure", "0" * settings.bits)) != settings.bits:
        raise ReproduceError(
            f"the structure of {name!r} has {len(result['structure'])} bits, and its settings have "
            f"{settings.bits}: restore the file"
        )
    for key, value in {**result, **record["times"]}.items():
        if isinstance(value, int | float) and not _is_finite(value):
            raise ReproduceError(
                f"the {key} of {name!r} is {value}, which is not a finite number: restore the file"
            )
    if result["iterations"] != settings.iterations():
        raise ReproduceError(
            f"the result of {name!r} has {result['iterations']} iterations, and its settings have "
            f"{settings.iterations()}: restore the file"
        )
    last = record["log"]["validation/main/error"][-1]
    if not math.isclose(result["test_error"], last, rel_tol=1e-9):
        raise ReproduceError(
            f"the test error of {name!r} is {result['test_error']}, and that of its last epoch is "
            f"{last}: restore the file"
        )


def read_all(directory: StrPath) -> tuple[list[Record], list[str]]:
    """Read the records of a directory, each run once: a copy of a file is no further trial.

    Args:
        directory (pathlib.Path): holds JSON files.

    Returns:
        tuple: the records in the order of their files, and a message for each other file.
    """
    records: dict[Path, Record] = {}
    refused = []
    for path in sorted(Path(directory).glob("*.json")):
        try:
            records[path] = read(path)
        except ReproduceError as error:
            refused.append(str(error))
    # Of several files of a run, the one with the run's name.
    kept: dict[str, Path] = {}
    for path in sorted(records, key=lambda path: path.stem != records[path]["name"]):
        first = kept.setdefault(records[path]["name"], path)
        if first != path:
            refused.append(f"{str(path)!r} is of the same run as {str(first)!r}, which counts once")
    return [found for path, found in records.items() if path in kept.values()], refused
