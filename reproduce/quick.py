"""The main job: section 4.1 as a short run, on the desk in minutes."""

import sys
import time
from pathlib import Path

from reproduce import compare, record, sweep

_EXPLANATION = """\
This is a SHORT RUN, one trial of each setting, and no reproduction of Table 1:
  {schedules}.
One step of equation (7) moves a bit by at most eta_theta, and the penalty acts with a time
constant of d/epsilon0 iterations at eta_theta = 1/d: 150,000 at 2^-6 and 1,200,000 at 2^-9.  A
short run with the paper's eta_theta would leave every theta near 0.5, and M* an arbitrary half of
the units.  So eta_theta is raised by the factor by which the schedule is shortened; the noise of
theta grows with it, and usage rates drift towards one half.  The order of the rates is the
paper's, the values are not.
The paper's schedule for one setting, resumed when interrupted:
  python -m reproduce run unit-selection --epsilon0 2^-7"""


def unit_selection(out, figures, jobs=2, seed=0, device=-1, data_dir=None):
    """Train the main job's runs that are not finished and print them beside Table 1.

    Args:
        out (str or pathlib.Path): gets the records.
        figures (str or pathlib.Path): gets the figure of usage rate against test error.
        jobs (int): processes at a time.
        seed (int): of every run.
        device (int): -1 for the CPU, else a GPU.
        data_dir (str or pathlib.Path): where the data lies, the cache by default.

    Returns:
        int: 0, or 1 when a run failed; the others are printed all the same.

    Raises:
        ReproduceError: the data is not to be had, or ``out`` cannot be written.
    """
    runs = sweep.quick_settings(seed)
    begun = time.perf_counter()
    failures = sweep.run_all(runs, out, jobs, data_dir, (device,))
    seconds = time.perf_counter() - begun
    paths = [Path(out) / f"{run.name}.json" for run in runs]
    records = [record.read(path) for path in paths if path.exists()]
    if records:
        print()
        print("Unit selection on MNIST, a short run, beside Table 1 (its medians of five trials)")
        print(compare.unit_selection_table(records))
        schedules = sorted({compare.describe_schedule(found) for found in records}, reverse=True)
        print()
        print(_EXPLANATION.format(schedules=";\n  ".join(schedules)))
        from reproduce import figures as drawing

        title = f"Unit selection on MNIST, quick schedule (a short run), seed {seed}"
        figure = drawing.usage_rate_against_error(records, title)
        written = drawing.save(figure, Path(figures) / "unit-selection-quick")
        print(f"\nFigure 1(a) of this short run: {', '.join(map(str, written))}")
        print(f"{len(records)} trainings; this call took {seconds:.0f} s.")
    return report_failures(failures)


def report_failures(failures):
    """Print which runs failed.

    Args:
        failures (dict): why, by the name of the run.

    Returns:
        int: the exit code, 1 where there are any.
    """
    for name, reason in failures.items():
        print(f"reproduce: {name} failed: {reason}", file=sys.stderr)
    return 1 if failures else 0
