"""The main jobs: sections 4.1 and 4.2 as short runs, on the desk in minutes."""

import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from reproduce import compare, experiments, record, sweep
from reproduce._types import Record, StrPath
from reproduce.experiments import from_dict
from reproduce.experiments.base import Experiment
from reproduce.files import make_writable


def run(
    experiment: str,
    out: StrPath,
    figures: StrPath,
    jobs: int = 2,
    seed: int = 0,
    device: int = -1,
    data_dir: StrPath | None = None,
) -> int:
    """Train a main job's runs that are not finished and print them beside the paper's table.

    Args:
        experiment (str): its name.
        out (str or pathlib.Path): gets the records.
        figures (str or pathlib.Path): gets the figures.
        jobs (int): processes at a time.
        seed (int): of every run.
        device (int): -1 for the CPU, else a GPU.
        data_dir (str or pathlib.Path): where the data lies, the cache by default.

    Returns:
        int: 0, or 1 when a run failed; the others are printed all the same.

    Raises:
        ReproduceError: the data cannot be loaded, or a directory cannot be written.
    """
    import reproduce.figures  # noqa: F401  (matplotlib is missed before the trainings, not after)

    kind = experiments.get(experiment)
    runs = kind.quick(seed)
    # Before the trainings, which take minutes.
    make_writable(figures, "--out" if figures == out else "--figures")
    begun = time.perf_counter()
    failures = sweep.run_all(runs, out, jobs, data_dir, (device,))
    seconds = time.perf_counter() - begun
    paths = [Path(out) / f"{run.name}.json" for run in runs]
    records = [record.read(path) for path in paths if path.exists()]
    if records:
        title = f"{kind.title} on {runs[0].data.title}"
        # The explanation ends with a command, which is to work as it stands.
        options = "" if data_dir is None else f" --data-dir {shlex.quote(str(data_dir))}"
        beside = f", beside {kind.table} (its medians of five trials)" * bool(kind.table)
        print(f"\n{title}, a short run{beside}")
        print(compare.table(experiment, records))
        schedules = compare.descriptions(records)
        print()
        told = {"table": kind.table, "schedules": ";\n  ".join(schedules)}
        print(kind.quick_explanation.format(**told) + options)
        for name, written in _draw(kind, records, Path(figures), title, seed):
            print(f"{name} of this short run: {', '.join(map(str, written))}")
        print(f"{len(records)} trainings; this call took {seconds:.0f} s.")
    return report_failures(failures)


def _draw(
    experiment: Experiment, records: Sequence[Record], directory: Path, title: str, seed: int
) -> Iterator[tuple[str, list[Path]]]:
    """Draw the figures; yield the name and the files of each."""
    from reproduce import figures

    figure = figures.usage_rate_against_error(
        records, f"{title}, quick schedule (a short run), seed {seed}"
    )
    path = directory / f"{experiment.name}-quick"
    number = f"1({experiment.figure})" if experiment.figure else "1"
    yield f"\nFigure {number}", figures.save(figure, path)
    for found in records:
        settings = from_dict(found["settings"])
        name = f"{settings.method}, {settings.setting} (a short run)"
        for ending, draw, _ in experiment.draw(found, name, figures):
            path = directory / f"{experiment.name}-quick-{settings.method}-{settings.setting}"
            words = ending.replace("-", " ").capitalize()
            yield f"{words} at {settings.setting}", figures.save(draw(), path)


def report_failures(failures: Mapping[str, str]) -> int:
    """Print which runs failed.

    Args:
        failures (dict): why, by the name of the run.

    Returns:
        int: the exit code, 1 where there are any.
    """
    for name, reason in failures.items():
        print(f"reproduce: {name} failed: {reason}", file=sys.stderr)
    return 1 if failures else 0
