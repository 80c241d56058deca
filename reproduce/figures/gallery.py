"""Every figure that records allow, in files with captions."""

import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from reproduce import ReproduceError, experiments, figures
from reproduce._types import Record, StrPath
from reproduce.compare import descriptions
from reproduce.figures.errors import error_over_epochs, usage_rate_against_error
from reproduce.figures.over_training import (
    has_structure_columns,
    has_theta_histogram,
    structure_over_training,
    theta_histogram,
    title_of,
)
from reproduce.figures.style import save
from reproduce.files import make_writable
from reproduce.groups import (
    Group,
    by_computer,
    by_schedule,
    by_setting,
    computer,
    count_trials,
    safe_name,
    was_drawn_again,
)


class Drawn(NamedTuple):
    """A figure in files.

    Attributes:
        name (str): of the files, without an ending.
        caption (str): what is shown: trials, schedule, medians or single runs, machine.
        files (list of pathlib.Path): the PNG and the SVG.
        group (str): the records that it shows, see :attr:`reproduce.groups.Group.slug`.
    """

    name: str
    caption: str
    files: list[Path]
    group: str


class _Planned(NamedTuple):
    """A figure that is not yet drawn: the name of its files, what draws it, and its caption."""

    name: str
    draw: Callable[[], Figure]
    caption: str


def draw_all(
    records: Iterable[Record],
    directory: StrPath,
    every_record: bool = False,
    names: Collection[str] | None = None,
) -> list[Drawn]:
    """Draw every figure that records allow.

    The error over the epochs is drawn for each experiment and schedule, and Figure 1 for those with
    records of several settings; theta's histogram, the size of the structure over training and
    Figure 2 for the lowest seed of each setting.

    Args:
        records (list of dict): of runs, any, in any order.
        directory (str or pathlib.Path): gets the files.
        every_record (bool): draw what is of one record for every record.
        names (collection of str): draw only the figures of these names, by default all.

    Returns:
        list of Drawn: by experiment and schedule, the paper's first, in the order of
        :func:`reproduce.groups.by_schedule`.

    Raises:
        ReproduceError: two records of one name differ, or the directory cannot be written.
    """
    directory = make_writable(directory)
    drawn = []
    seen: set[str] = set()
    for group in by_schedule(_checked(records)):
        planned = [*_of_group(group)]
        for trials in by_setting(group.records).values():
            for record in trials if every_record else trials[:1]:
                # A baseline may stand in several groups, but is drawn once.
                if record["name"] not in seen:
                    seen.add(record["name"])
                    planned += _of_record(record, _title(group))
        for name, draw, caption in planned:
            if names is None or name in names:
                drawn.append(Drawn(name, caption, save(draw(), directory / name), group.slug))
    return drawn


def _checked(records: Iterable[Record]) -> list[Record]:
    """Return records in the order of their names, each once.

    Raises:
        ReproduceError: two records of one name differ.
    """
    by_name: dict[str, Record] = {}
    for record in records:
        if by_name.setdefault(record["name"], record) != record:
            raise ReproduceError(
                f"there are two different records of {record['name']!r}: leave one of them out"
            )
    return [by_name[name] for name in sorted(by_name)]


def _title(group: Group) -> str:
    """Return the title of the figures of a group."""
    return f"{group.title}: {group.schedule}"


def _caption(*sentences: str) -> str:
    return " ".join(f"{sentence}." for sentence in sentences)


def _of_group(group: Group) -> Iterator[_Planned]:
    """Yield what is drawn of all records of a group together."""
    kind = experiments.of(group.settings)
    title = _title(group)
    part = f"1{kind.figure}" if kind.figure else "1"
    number = f"Figure 1({kind.figure})" if kind.figure else "Figure 1"
    if not (group.is_paper and kind.figure):
        number = f"As {number}"
    shown = quartiles = "Single runs, 1 trial of each setting"
    trials = count_trials(group.records)
    if trials != "1 trial":
        quartiles = f"Medians with 25% and 75% quantiles of {trials} of each setting"
        shown = f"Medians of {trials} of each setting; the bands reach from the least "
        shown += "error to the greatest"
    where = f"Computed on {'; '.join(by_computer(group.records))}"
    if not group.is_paper:
        where = f"{'; '.join(descriptions(group.records))}. {where}"
    told = f"{number}, usage rate of the structure against the test error of the last epoch"
    # The figure compares settings.
    if len(by_setting(group.records)) > 1:
        yield _Planned(
            f"{group.slug}-figure-{part}",
            functools.partial(usage_rate_against_error, group.records, title),
            _caption(told, title, quartiles, *_redrawn(group.records), where),
        )
    yield _Planned(
        f"{group.slug}-error-over-epochs",
        functools.partial(error_over_epochs, group.records, title),
        _caption("Test error over the epochs of the training", title, shown, where),
    )


def _redrawn(records: Sequence[Record]) -> Iterator[str]:
    """Yield how many random structures were drawn again, if any was (reading R19)."""
    dead = sum(map(was_drawn_again, records))
    if dead:
        drawn = sum("dead_draws" in record["result"] for record in records)
        yield (
            f"Of {drawn} random structures {dead} had no path at first and "
            f"{'was' if dead == 1 else 'were'} drawn again (reading R19)"
        )


def _of_record(record: Record, title: str) -> Iterator[_Planned]:
    """Yield what is drawn of one record."""
    settings = experiments.from_dict(record["settings"])
    kind = experiments.of(settings)
    words = f"{settings.method} {settings.setting}".strip()
    told = title, f"A single run, {words}, seed {settings.seed}", f"Computed on {computer(record)}"
    name = safe_name(record["name"])
    if has_structure_columns(record):
        what = f"{kind.selected.capitalize()} of each {kind.part} with theta >= 0.5 over training"
        draw = functools.partial(structure_over_training, record)
        yield _Planned(f"{name}-structure", draw, _caption(what, *told))
    if has_theta_histogram(record):
        draw = functools.partial(theta_histogram, record)
        yield _Planned(f"{name}-theta", draw, _caption("Histogram of theta over training", *told))
    for ending, draw_own, sentence in kind.draw(record, title_of(record), figures):
        yield _Planned(f"{name}-{ending}", draw_own, _caption(sentence, *told))
