"""What ``python -m reproduce regress`` does: hold cases against baselines, or write new ones."""

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reproduce import ReproduceError
from reproduce._types import Cells
from reproduce.files import make_writable
from reproduce.regress import baselines, cases, printing, runs, traces


def regress(
    directory: str | Path = baselines.BASELINES,
    names: Sequence[str] | None = None,
    traces: bool = False,
    update: bool = False,
    jobs: int = 2,
    data_dir: str | Path | None = None,
) -> int:
    """Train the cases again and compare them with their baselines, or write new baselines.

    Args:
        directory (str or pathlib.Path): of the baselines.
        names (sequence of str): of the cases; all by default.
        traces (bool): leave out the short runs.
        update (bool): write the baselines.
        jobs (int): short runs at a time.
        data_dir (str or pathlib.Path): where the data lies, the cache by default.

    Returns:
        int: 0, or 1 where a case has drifted.

    Raises:
        ReproduceError: a name is unknown, a baseline is missing or unusable, or the data cannot be
            fetched.
    """
    trace_names, run_names = _select(names, with_runs=not traces)
    if update:
        make_writable(directory, "--baselines")  # before the trainings, which take minutes
        if trace_names:
            _update_traces(trace_names, directory)
        if run_names:
            _update_runs(run_names, directory, jobs, data_dir)
        return 0
    # All of them before the first training.
    stored = {
        name: baselines.read(name, directory, data_dir) for name in [*trace_names, *run_names]
    }
    drift: dict[str, Cells] = {}
    if trace_names:
        drift |= _hold_traces({name: stored[name] for name in trace_names})
    if run_names:
        drift |= _hold_runs({name: stored[name] for name in run_names}, jobs, data_dir)
    if drift:
        printing.print_drift(drift)
    return 1 if drift else 0


def _select(names: Sequence[str] | None, with_runs: bool) -> tuple[list[str], list[str]]:
    """Return the names of the selected traces and of the selected short runs.

    Raises:
        ReproduceError: a name is unknown, or nothing is selected.
    """
    known = [*cases.TRACES, *cases.RUNS]
    for name in names or ():
        if name not in known:
            raise ReproduceError(
                f"--cases: there is no case {name!r}: give some of {', '.join(known)}"
            )
    trace_names = [name for name in cases.TRACES if names is None or name in names]
    run_names = [name for name in cases.RUNS if with_runs and (names is None or name in names)]
    if not trace_names and not run_names:
        raise ReproduceError(
            f"--traces selects the traces only, and none of the --cases {','.join(names or ())} is "
            f"one: leave --traces out, or give some of {', '.join(cases.TRACES)}"
        )
    return trace_names, run_names


def _hold_traces(stored: Mapping[str, dict[str, Any]]) -> dict[str, Cells]:
    """Train traces, print the results, and return the drift of those that have drifted."""
    drift, table = {}, []
    for name, baseline in stored.items():
        expected = baseline["numbers"]
        rows = baselines.changed_settings(cases.TRACES[name], baseline)
        try:
            largest, beyond = traces.hold(traces.trace(cases.TRACES[name])[0], expected)
        except ReproduceError as error:
            largest, beyond = math.inf, [printing.failure(error)]
        rows += beyond
        count = sum(array.size for array in expected.values())
        table.append(printing.trace_row(name, count, largest, held=not rows))
        if rows:
            drift[name] = rows
    printing.print_traces(table)
    return drift


def _update_traces(names: Sequence[str], directory: str | Path) -> None:
    """Train traces, write their numbers as baselines, and print the differences."""
    table = []
    for name in names:
        case = cases.TRACES[name]
        numbers, gap = traces.trace(case)
        if gap < traces.MARGIN and not case.ties:
            raise ReproduceError(
                f"two structures of {name} have losses so close ({gap:.1e}) that roundings could "
                "rank them: give the case another seed"
            )
        try:
            old = baselines.read(name, directory)["numbers"]
            table.append(printing.new_trace_row(name, *traces.hold(numbers, old)))
        except ReproduceError:
            table.append([name, "no baseline", "-"])
        more = {
            "tolerance": traces.TOLERANCE,
            "closest_losses": None if gap == math.inf else gap,
        }
        baselines.write(name, case, numbers, directory, **more)
    printing.print_new_traces(table)


def _hold_runs(
    stored: Mapping[str, dict[str, Any]], jobs: int, data_dir: str | Path | None
) -> dict[str, Cells]:
    """Train short runs, print the results, and return the drift of those that have drifted."""
    measured, failures = runs.train(list(stored), runs.AGAIN, jobs, data_dir)
    drift = {name: [printing.failure(why)] for name, why in failures.items()}
    table = []
    for name, baseline in stored.items():
        rows = baselines.changed_settings(cases.RUNS[name], baseline)
        for what, values in baseline["numbers"].items():
            low, high = runs.band(values)
            mine = [seed.get(what, math.nan) for seed in measured[name]]
            held = bool(mine) and low <= statistics.fmean(mine) <= high
            cells = printing.run_cells(mine, values, (low, high))
            table.append([name, what, *cells, printing.state(held)])
            if not held:
                rows.append([what, *cells])
        if rows:
            drift.setdefault(name, []).extend(rows)
    printing.print_runs(table)
    return drift


def _update_runs(
    names: Sequence[str], directory: str | Path, jobs: int, data_dir: str | Path | None
) -> None:
    """Train all seeds of short runs, write them as baselines, and print the old and the new."""
    measured, failures = runs.train(names, runs.SEEDS, jobs, data_dir)
    for name, why in failures.items():
        raise ReproduceError(f"{name} failed: {why}")
    table = []
    for name in names:
        numbers = {what: [seed[what] for seed in measured[name]] for what in measured[name][0]}
        try:
            old = baselines.read(name, directory)["numbers"]
        except ReproduceError as error:
            old = {}
            print(f"{name}: {str(error).split(':')[0]}")
        for what, values in numbers.items():
            cells = printing.new_run_cells(old.get(what), values, runs.band(values))
            table.append([name, what, *cells])
        more = {"seeds": runs.SEEDS, "width": runs.WIDTH}
        baselines.write(name, cases.RUNS[name], numbers, directory, **more)
    printing.print_new_runs(table)
