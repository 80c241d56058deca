"""The tables that regress prints."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from reproduce import compare
from reproduce._types import Cells
from reproduce.regress import runs, traces

#: Rows of a table about one case; a fault that moves one number moves most of them.
ROWS = 5


def state(held: bool) -> str:
    """Return the word for whether a number is what the baseline says."""
    return "held" if held else "DRIFTED"


def failure(why: object) -> list[str]:
    """Return the row of :func:`print_drift` for a training that failed."""
    return ["training", f"failed: {why}", "a result", ""]


def trace_row(name: str, count: int, largest: float, held: bool) -> list[str]:
    """Return a row of :func:`print_traces`.

    Args:
        name (str): of the case.
        count (int): of its numbers.
        largest (float): their largest deviation in units of the tolerance.
        held (bool): whether everything is what the baseline says.
    """
    deviation = f"{largest * traces.TOLERANCE:.1e}"
    return [name, str(count), deviation, f"{traces.TOLERANCE:.0e}", state(held)]


def print_traces(table: Cells) -> None:
    """Print the deviation of traces, a row of :func:`trace_row` each."""
    print("Traces, each number against the baseline's:")
    header = ["case", "numbers", "largest deviation", "tolerance", ""]
    print(compare.format_table(header, table))


def new_trace_row(name: str, largest: float, rows: Cells) -> list[str]:
    """Return a row of :func:`print_new_traces`.

    Args:
        name (str): of the case.
        largest (float): the largest deviation from the old baseline in units of the tolerance.
        rows (list of list of str): what is beyond it.
    """
    return [name, f"{largest * traces.TOLERANCE:.1e}", rows[0][0] if rows else "nothing"]


def print_new_traces(table: Cells) -> None:
    """Print how far old baselines are from new ones, a row of :func:`new_trace_row` each."""
    print("Traces, written; the old baseline differed by:")
    header = ["case", "largest deviation", "beyond the tolerance first"]
    print(compare.format_table(header, table))


def _span(ends: tuple[float, float]) -> str:
    """Return the text of a band."""
    low, high = ends
    return f"{low:.4g} .. {high:.4g}"


def run_cells(mine: Sequence[float], values: Any, ends: tuple[float, float]) -> list[str]:
    """Return what :func:`print_runs` says of one quantity: found, expected and the band.

    Args:
        mine (sequence of float): of each seed that was trained again.
        values (numpy.ndarray): of each seed of the baseline.
        ends (tuple): of the band.
    """
    return [" ".join(f"{value:.4g}" for value in mine), f"{values.mean():.4g}", _span(ends)]


def print_runs(table: Cells) -> None:
    """Print the quantities of short runs: case, quantity, :func:`run_cells`, :func:`state`."""
    print(f"\nShort runs, the mean of {runs.AGAIN} seeds against the band of {runs.SEEDS}:")
    print(compare.format_table(["case", "", "found", "expected", "band", ""], table))


def new_run_cells(
    old: Sequence[float] | None, new: Sequence[float], ends: tuple[float, float]
) -> list[str]:
    """Return what :func:`print_new_runs` says of one quantity: old, new and the new band.

    Args:
        old (sequence of float): of each seed of the old baseline; None without one.
        new (sequence of float): of each seed of the new one.
        ends (tuple): of the new band.
    """
    before, now = (
        "-"
        if values is None
        else f"{statistics.fmean(values):.4g} +- {statistics.stdev(values):.2g}"
        for values in (old, new)
    )
    return [before, now, _span(ends)]


def print_new_runs(table: Cells) -> None:
    """Print the quantities of new baselines: case, quantity and :func:`new_run_cells`."""
    print("\nShort runs, written; mean and standard deviation over the seeds:")
    print(compare.format_table(["case", "", "old", "new", "new band"], table))


def print_drift(drift: Mapping[str, Cells]) -> None:
    """Print a table of what has drifted.

    Args:
        drift (dict): rows by the name of the case: what, found, expected, tolerance.
    """
    table = []
    for name, rows in drift.items():
        table += [[name, *row] for row in rows[:ROWS]]
        if len(rows) > ROWS:
            table.append([name, f"and {len(rows) - ROWS} more", "", "", ""])
    print("\nWhat has drifted:")
    print(compare.format_table(["case", "what", "found", "expected", "tolerance"], table))
