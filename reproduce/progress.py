"""How far runs that have not ended are: what their snapshots hold, as small JSON files.

A run at the paper's settings that is under way is what the paper's run was at the same iteration,
so its state is evidence before its end.  A file of ``results/progress`` says it of one run, and is
written over by the next state; when the run ends, its record takes the file's place.
"""

import datetime
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy

from chainer_sno import complexity
from chainer_sno.files import DAMAGE, write_bytes
from reproduce import ROOT, ReproduceError, compare, experiments, schemas, snapshot
from reproduce._types import Cells, Record, StrPath
from reproduce.experiments import from_dict
from reproduce.files import make_writable
from reproduce.settings import SECOND_RESULT, Settings
from reproduce.statistics import in_percent

#: Where the files of this repository's runs are.
PROGRESS = ROOT / "results" / "progress"
#: Parts of [0, 1] in the histogram of theta.
BINS = 20
#: Where a snapshot has what is read here.
_THETA, _COSTS = "updater/bernoulli/theta", "updater/bernoulli/costs"
_LOG, _ITERATION = "extensions/LogReport/_log", "updater/iteration"
_COMPUTERS = "extensions/computers/noted"
#: An entry of the log, and what a file of progress calls it.
_REESTIMATED = f"validation/main/{SECOND_RESULT}_error"
_AGAIN = f"{SECOND_RESULT}_test_error"


def _newest(directory: Path) -> tuple[Settings, str, dict[str, Any]] | None:
    """Return settings, path and content of the newest whole snapshot; None without one."""
    for path in snapshot.snapshots(directory):
        try:
            identity, content = snapshot.read(path)
        except DAMAGE:
            continue
        code = identity.pop("path")
        return from_dict(identity), code, content
    return None


def state(directory: Path) -> Record | None:
    """Return how a run stands.

    Args:
        directory (pathlib.Path): of the run.

    Returns:
        dict: what a file of ``results/progress`` holds; None where there is no whole snapshot.

    Raises:
        ReproduceError: the run is of no experiment here, or of one that does not say what a
            structure selects.
    """
    newest = _newest(directory)
    if newest is None:
        return None
    settings, path, content = newest
    log = json.loads(str(content[_LOG])) if _LOG in content else []
    last = log[-1] if log else {}
    iteration = int(content[_ITERATION])
    result: Record = {
        "unfinished": True,
        "name": settings.name,
        "settings": settings.as_dict(),
        "path": path,
        "iteration": iteration,
        "iterations": settings.iterations(),
        "written": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
    if _THETA in content:
        theta = content[_THETA]
        bits = theta >= 0.5
        histogram, _ = numpy.histogram(theta, BINS, (0, 1))
        result |= {
            "usage_rate": complexity.usage_rate(bits, content[_COSTS]),
            **experiments.of(settings).structure(settings, bits),
            "theta_histogram": histogram.tolist(),
        }
    if last:
        result["last_epoch"] = {
            "epoch": last["epoch"],
            "test_error": last["validation/main/error"],
            "training_loss": last["main/loss"],
        }
        again = [entry for entry in log if _REESTIMATED in entry]
        if again:
            result["last_epoch"][_AGAIN] = again[-1][_REESTIMATED]
            result["last_epoch"]["reestimated_epoch"] = again[-1]["epoch"]
    if _COMPUTERS in content:
        result["computers"] = json.loads(str(content[_COMPUTERS]))[0]
    return result


def write(out: StrPath, directory: StrPath = PROGRESS) -> list[Path]:
    """Write a file for each run of a directory that has not ended, and remove those that have.

    Args:
        out (str or pathlib.Path): the directory of the runs.
        directory (str or pathlib.Path): gets the files.

    Returns:
        list of pathlib.Path: the files written.  A run whose state cannot be told is named on
        stderr and left out.
    """
    out, directory = Path(out), make_writable(directory, "--to")
    written = []
    for run in sorted(path for path in out.glob("*/") if path.is_dir()):
        target = directory / f"{run.name}.json"
        if (out / f"{run.name}.json").exists():
            target.unlink(missing_ok=True)
            continue
        try:
            progress = state(run)
        except ReproduceError as error:
            print(f"reproduce: left out: {str(run)!r} ({error})", file=sys.stderr)
            continue
        if progress is not None:
            lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in progress.items()]
            write_bytes(target, ("{\n" + ",\n".join(lines) + "\n}\n").encode())
            written.append(target)
    return written


def read_all(directory: StrPath = PROGRESS) -> list[Record]:
    """Return what the files of a directory say, in the order of their names.

    Raises:
        ReproduceError: a file has another form.
    """
    contents = []
    for path in sorted(Path(directory).glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise ReproduceError(
                f"{str(path)!r} cannot be read ({error}): write it anew with python -m reproduce "
                "progress"
            ) from error
        schemas.check(content, schemas.PROGRESS, str(path))
        settings = from_dict(content["settings"])
        schemas.check_result(content, settings, str(path), partial=True)
        expected = {
            "name": settings.name,
            "iterations": settings.iterations(),
            "bits": settings.bits,
            "theta": settings.bits,
        }
        found = {
            **content,
            "bits": len(content.get("structure", "0" * settings.bits)),
            "theta": sum(content.get("theta_histogram", [settings.bits])),
        }
        for key, value in expected.items():
            if found[key] != value:
                raise ReproduceError(
                    f"{str(path)!r} does not fit its settings ({key} is {found[key]}, not {value}):"
                    " write it anew with python -m reproduce progress"
                )
        contents.append(content)
    return contents


def structures(entries: Iterable[Record]) -> list[tuple[str, Sequence[str], Cells]]:
    """Return the tables of the structures at M*, those of the experiments that have one.

    Args:
        entries (list of dict): of :func:`read_all`.

    Returns:
        list of tuple: of each experiment a legend, a list of texts and a list of lists of texts.
    """
    of_each: dict[str, list[Record]] = {}
    for entry in entries:
        if "structure" in entry:
            own = of_each.setdefault(entry["settings"]["experiment"], [])
            own.append({"settings": entry["settings"], "result": entry})
    tables = []
    for name, own in of_each.items():
        kind = experiments.get(name)
        header, cells = kind.structure_table(own)
        if cells:
            tables.append((kind.structure_legend, header, cells))
    return tables


def rows(entries: Iterable[Record]) -> tuple[list[str], Cells]:
    """Return the table of unfinished runs: a header and a row each.

    Args:
        entries (list of dict): of :func:`read_all`.

    Returns:
        tuple: a list of texts and a list of lists of texts.
    """
    header = ["experiment", "run", "iteration", "of", "usage %", "selected"]
    header += ["the paper at the end", "depth", "theta near 0 or 1 %", "epoch"]
    header += ["test error %", compare.REESTIMATED, "not the paper's"]
    table = []
    for entry in entries:
        settings = from_dict(entry["settings"])
        setting = f"{settings.method} {settings.setting}, seed {settings.seed}"
        title = f"{experiments.of(settings).title} on {settings.data.title}"
        cells = [title, setting, f"{entry['iteration']:,}", f"{entry['iterations']:,}"]
        selected = entry.get(experiments.of(settings).selected)
        histogram = entry.get("theta_histogram")
        if selected and histogram:
            cells += [f"{in_percent(entry['usage_rate']):.1f}", "/".join(map(str, selected))]
            published = None if settings.changed else compare.published_row(settings)
            cells.append(compare.counts(published["selected"]) if published else "-")
            depth = entry.get("depth", "-")
            cells.append("none" if depth is None else str(depth))
            ends = histogram[0] + histogram[-1]
            cells.append(f"{in_percent(ends / sum(histogram)):.0f}")
        else:
            cells += ["-"] * 5
        last = entry.get("last_epoch", {})
        cells.append(str(last.get("epoch", "-")))
        for name in ("test_error", _AGAIN):
            cells.append(f"{in_percent(last[name]):.2f}" if name in last else "-")
        if _AGAIN in last and last.get("reestimated_epoch", last["epoch"]) != last["epoch"]:
            cells[-1] += f" (epoch {last['reestimated_epoch']})"
        cells.append(", ".join(settings.changed) or "-")
        table.append(cells)
    return header, table
