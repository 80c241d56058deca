"""The main jobs: sections 4.1 and 4.2 as short runs, on the desk in minutes."""

import shlex
import sys
import time
from pathlib import Path

from reproduce import compare, record, sweep
from reproduce.files import make_writable
from reproduce.settings import from_dict

_EXPLANATION_UNITS = """\
This is a SHORT RUN, one trial of each setting, and no reproduction of {table}:
  {schedules}.
One step of equation (7) moves a bit by at most eta_theta, and the penalty acts with a time
constant of d/epsilon0 iterations at eta_theta = 1/d: 150,000 at 2^-6 and 1,200,000 at 2^-9.  A
short run with the paper's eta_theta would leave every theta near 0.5, and M* an arbitrary half of
the units.  So eta_theta is raised by the factor by which the schedule is shortened; the noise of
theta grows with it, and usage rates drift towards one half.  The order of the rates is the
paper's, the values are not.
The paper's schedule for one setting, resumed when interrupted:
  python -m reproduce run unit-selection --epsilon0 2^-7"""

_EXPLANATION_CONNECTIONS = """\
This is a SHORT RUN, one trial of each setting, and no reproduction of {table}:
  {schedules}.
In so few iterations neither the weights nor theta come near their ends: it shows that everything
works, and nothing of the method.  The paper's schedule for one setting, resumed when interrupted:
  python -m reproduce run connection-selection --epsilon0 2^-4"""


#: Of each experiment: the words for it, the figure's number, and the command for the paper's run.
_WORDS = {
    "unit-selection": ("Unit selection on MNIST", "Table 1", "1(a)", _EXPLANATION_UNITS),
    "connection-selection": (
        "Connection selection on CIFAR-10",
        "Table 2",
        "1(b)",
        _EXPLANATION_CONNECTIONS,
    ),
}


def run(experiment, out, figures, jobs=2, seed=0, device=-1, data_dir=None):
    """Train a main job's runs that are not finished and print them beside the paper's table.

    Args:
        experiment (str): ``unit-selection`` or ``connection-selection``.
        out (str or pathlib.Path): gets the records.
        figures (str or pathlib.Path): gets the figures.
        jobs (int): processes at a time.
        seed (int): of every run.
        device (int): -1 for the CPU, else a GPU.
        data_dir (str or pathlib.Path): where the data lies, the cache by default.

    Returns:
        int: 0, or 1 when a run failed; the others are printed all the same.

    Raises:
        ReproduceError: the data is not to be had, or ``out`` cannot be written.
    """
    import reproduce.figures  # noqa: F401  (matplotlib is missed before the trainings, not after)

    runs = sweep.quick_settings(experiment, seed)
    make_writable(figures, "--out" if figures == out else "--figures")
    begun = time.perf_counter()
    failures = sweep.run_all(runs, out, jobs, data_dir, (device,))
    seconds = time.perf_counter() - begun
    paths = [Path(out) / f"{run.name}.json" for run in runs]
    records = [record.read(path) for path in paths if path.exists()]
    if records:
        title, table, number, explanation = _WORDS[experiment]
        # They end with a command, which is to work as it stands.
        options = "" if data_dir is None else f" --data-dir {shlex.quote(str(data_dir))}"
        print(f"\n{title}, a short run, beside {table} (its medians of five trials)")
        print(compare.table(experiment, records))
        schedules = compare.descriptions(records)
        print()
        print(explanation.format(table=table, schedules=";\n  ".join(schedules)) + options)
        for name, written in _draw(experiment, records, Path(figures), title, seed, number):
            print(f"{name} of this short run: {', '.join(map(str, written))}")
        print(f"{len(records)} trainings; this call took {seconds:.0f} s.")
    return report_failures(failures)


def _draw(experiment, records, directory, title, seed, number):
    """Draw the figures; yield the name and the files of each."""
    from reproduce import figures

    figure = figures.usage_rate_against_error(
        records, f"{title}, quick schedule (a short run), seed {seed}"
    )
    path = directory / f"{experiment}-quick"
    yield f"\nFigure {number}", figures.save(figure, path)
    for found in records:
        if "structure" in found["result"]:
            settings = from_dict(found["settings"])
            structure = [int(bit) for bit in found["result"]["structure"]]
            name = f"{settings.method}, {settings.setting} (a short run)"
            figure = figures.densenet(structure, settings.BLOCKS, settings.block_layers, name)
            path = directory / f"{experiment}-quick-{settings.method}-{settings.setting}"
            yield f"Figure 2 at {settings.setting}", figures.save(figure, path)


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
