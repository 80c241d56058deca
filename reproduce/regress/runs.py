"""Short runs: trainings on the real data, and the bands that their results must lie in."""

import dataclasses
import math
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reproduce import experiments, record, sweep
from reproduce.experiments.base import Experiment
from reproduce.regress import cases

#: The seeds that give the band of a short run, from 0 on.
SEEDS = 12
#: The seeds that are trained again.
AGAIN = 2
#: Half the width of a band, in standard errors of the difference of the two means.
WIDTH = 6


def measures(result: dict[str, Any], experiment: Experiment) -> dict[str, float]:
    """Return the quantities that have a band: the test error and the structure.

    Args:
        result (dict): of the record of a run.
        experiment (Experiment): of the run.

    Returns:
        dict: numbers by name.
    """
    shares = {name: result[name] for name in ("test_error", "usage_rate", "weight_ratio")}
    sizes = experiment.sizes(result)
    return shares | {f"{experiment.selected} {i}": count for i, count in enumerate(sizes, 1)}


def band(values: Sequence[float]) -> tuple[float, float]:
    """Return where the mean of :data:`AGAIN` seeds may lie.

    Args:
        values (sequence of float): of each seed of the baseline.

    Returns:
        tuple: the ends, a rounding further out: what is the same for all seeds has no width.
    """
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    half = WIDTH * deviation * math.sqrt(1 / AGAIN + 1 / len(values)) + 1e-9 * max(1, abs(mean))
    return mean - half, mean + half


def train(
    names: Sequence[str], seeds: int, jobs: int, data_dir: str | Path | None
) -> tuple[dict[str, list[dict[str, float]]], dict[str, str]]:
    """Train short runs.

    Args:
        names (sequence of str): of :data:`reproduce.regress.cases.RUNS`.
        seeds (int): how many of each, from 0 on.
        jobs (int): processes at a time.
        data_dir (str or pathlib.Path): where the data lies, the cache by default.

    Returns:
        tuple: the measures by the name of the case, a list with an entry a seed, and why trainings
        failed, by the same names.
    """
    trainings = [
        (name, dataclasses.replace(cases.RUNS[name].settings, seed=seed))
        for seed in range(seeds)
        for name in names
    ]
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    failures = {}
    with tempfile.TemporaryDirectory() as out:
        failed = sweep.run_all([settings for _, settings in trainings], out, jobs, data_dir)
        for name, settings in trainings:
            if settings.name in failed:
                failures[name] = failed[settings.name]
            else:
                result = record.read(Path(out) / f"{settings.name}.json")["result"]
                measured[name].append(measures(result, experiments.of(settings)))
    return measured, failures
