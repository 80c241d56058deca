"""Every figure that records allow, in files with captions."""

import functools
from typing import NamedTuple

from reproduce import ReproduceError, experiments
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
    by_computer,
    by_schedule,
    by_setting,
    computer,
    count_trials,
    safe_name,
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
    files: list
    group: str


def draw_all(records, directory, every_record=False, names=None):
    """Draw every figure that records allow.

    Figure 1 and the error over the epochs are drawn for each experiment and schedule; theta's
    histogram, the size of the structure over training and Figure 2 for the lowest seed of each
    setting.

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
    by_name = {}
    for record in records:
        if by_name.setdefault(record["name"], record) != record:
            raise ReproduceError(
                f"there are two different records of {record['name']!r}: leave one of them out"
            )
    directory = make_writable(directory)
    drawn, seen = [], set()

    def add(name, draw, *sentences):
        if names is not None and name not in names:
            return
        caption = " ".join(f"{sentence}." for sentence in sentences)
        # The group is the one in hand.
        drawn.append(Drawn(name, caption, save(draw(), directory / name), group.slug))

    for group in by_schedule(sorted(by_name.values(), key=lambda record: record["name"])):
        kind = experiments.of(group.settings)
        title = f"{group.title}: {group.schedule}"
        part = f"1{kind.figure}" if kind.figure else "1"
        number = f"Figure 1({kind.figure})" if kind.figure else "Figure 1"
        if not (group.is_paper and kind.figure):
            number = f"As {number}"
        trials = count_trials(group.records)
        several = trials != "1 trial"
        where = f"Computed on {'; '.join(by_computer(group.records))}"
        if not group.is_paper:
            where = f"{'; '.join(descriptions(group.records))}. {where}"
        add(
            f"{group.slug}-figure-{part}",
            lambda group=group, title=title: usage_rate_against_error(group.records, title),
            f"{number}, usage rate of the structure against the test error of the last epoch",
            title,
            f"Medians with 25% and 75% quantiles of {trials} of each setting"
            if several
            else "Single runs, 1 trial of each setting",
            where,
        )
        add(
            f"{group.slug}-error-over-epochs",
            lambda group=group, title=title: error_over_epochs(group.records, title),
            "Test error over the epochs of the training",
            title,
            f"Medians of {trials} of each setting; the bands reach from the least "
            "error to the greatest"
            if several
            else "Single runs, 1 trial of each setting",
            where,
        )
        for setting in by_setting(group.records).values():
            for record in setting if every_record else setting[:1]:
                # A baseline may stand in several groups, but is drawn once.
                if record["name"] not in seen:
                    seen.add(record["name"])
                    _draw_record(record, title, add)
    return drawn


def _draw_record(record, title, add):
    """Draw what is of one record."""
    settings = experiments.from_dict(record["settings"])
    words = f"{settings.method} {settings.setting}".strip()
    sentences = (
        title,
        f"A single run, {words}, seed {settings.seed}",
        f"Computed on {computer(record)}",
    )
    name = safe_name(record["name"])
    if has_structure_columns(record):
        kind = experiments.of(settings)
        what = f"{kind.selected.capitalize()} of each {kind.part}"
        draw = functools.partial(structure_over_training, record)
        add(f"{name}-structure", draw, f"{what} with theta >= 0.5 over training", *sentences)
    if has_theta_histogram(record):
        draw = functools.partial(theta_histogram, record)
        add(f"{name}-theta", draw, "Histogram of theta over training", *sentences)
    for ending, draw, sentence in experiments.of(settings).draw(record, title_of(record)):
        add(f"{name}-{ending}", draw, sentence, *sentences)
