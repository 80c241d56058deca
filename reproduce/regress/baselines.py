"""The files of ``results/regression/``: a baseline for each case."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy

from reproduce import ROOT, ReproduceError, record
from reproduce.files import make_writable
from reproduce.regress import cases, runs
from reproduce.regress.cases import Case
from reproduce.run import get_device

#: The version of the form of a baseline.
SCHEMA = 1
#: Where the baselines are.
BASELINES = ROOT / "results" / "regression"


def read(name: str, directory: str | Path, data_dir: str | Path | None = None) -> dict[str, Any]:
    """Read a baseline.

    Args:
        name (str): of the case.
        directory (str or pathlib.Path): of the baselines.
        data_dir (str or pathlib.Path): where the data lies, for the command in a message.

    Returns:
        dict: the baseline, its numbers as arrays of float64.

    Raises:
        ReproduceError: it is missing, damaged or of another schema; the message names the file and
            the command that writes it again.
    """
    path = Path(directory) / f"{name}.json"
    mend = _update_command(name, directory, data_dir)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise ReproduceError(
                f"the baseline {str(path)!r} has schema {content['schema']!r}, not {SCHEMA}: "
                f"write it anew with {mend}"
            )
        if content["case"] != name:
            raise ReproduceError(
                f"{str(path)!r} is the baseline of {content['case']!r}, not of {name!r}: write "
                f"it anew with {mend}"
            )
        content["settings"].keys()
        numbers = _arrays(name, content["numbers"])
    except FileNotFoundError as error:
        raise ReproduceError(f"there is no baseline {str(path)!r}: write it with {mend}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReproduceError(
            f"the baseline {str(path)!r} is damaged ({error!r}): write it anew with {mend}"
        ) from error
    return {**content, "numbers": numbers}


def _update_command(name: str, directory: str | Path, data_dir: str | Path | None) -> str:
    """Return the command that writes a baseline again."""
    command = f"python -m reproduce regress --update --cases {name}"
    if Path(directory) != BASELINES:
        command += f" --baselines {shlex.quote(str(directory))}"
    if data_dir is not None and name in cases.RUNS:
        command += f" --data-dir {shlex.quote(str(data_dir))}"
    return command


def _arrays(name: str, numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers of a baseline as arrays of float64.

    Raises:
        ValueError: one is not finite or no number, or some are missing.
    """
    arrays = {key: numpy.asarray(value, dtype="d") for key, value in numbers.items()}
    if not all(numpy.isfinite(array).all() for array in arrays.values()):
        raise ValueError("a number is not finite")
    if name in cases.TRACES and "losses" not in arrays:
        raise ValueError("it holds no losses")
    if name in cases.RUNS and {array.shape for array in arrays.values()} != {(runs.SEEDS,)}:
        raise ValueError(f"it does not hold {runs.SEEDS} seeds")
    return arrays


def write(
    name: str, case: Case, numbers: Mapping[str, Any], directory: str | Path, **more: Any
) -> None:
    """Write a baseline in one step.

    Args:
        name (str): of the case.
        case (Case): the case.
        numbers (dict): of it.
        directory (str or pathlib.Path): of the baselines.
        **more: what else the file should say.
    """
    content = {
        "schema": SCHEMA,
        "case": name,
        **more,
        "settings": case.settings.as_dict(),
        "plain": case.plain,
        "versions": record.versions(),
        "machine": record.machine(get_device(-1)),
        "numbers": numbers,
    }
    record.write(make_writable(directory) / f"{name}.json", content)


def changed_settings(case: Case, baseline: Mapping[str, Any]) -> list[list[str]]:
    """Return rows of a table about the settings that differ between a baseline and its case.

    Args:
        case (Case): as it is now.
        baseline (dict): of :func:`read`.

    Returns:
        list of list of str: of each setting its name, the case's value, the baseline's, and the
        tolerance in words.
    """
    mine = {**case.settings.as_dict(), "plain": case.plain}
    return [
        [f"setting {name}", str(mine.get(name)), str(value), "equal"]
        for name, value in baseline["settings"].items()
        if mine.get(name) != value
    ]
