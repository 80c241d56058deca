"""Every figure that records allow, in files with captions."""

from typing import NamedTuple

from reproduce import ReproduceError, experiments
from reproduce.compare import descriptions
from reproduce.figures.errors import error_against_seconds, usage_rate_against_error
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
        experiment (str): what was run.
    """

    name: str
    caption: str
    files: list
    experiment: str


def draw_all(records, directory, every_record=False):
    """Draw every figure that records allow.

    Figure 1 and the error against seconds are drawn for each experiment and schedule; theta's
    histogram, the size of the structure over training and Figure 2 for the lowest seed of each
    setting.

    Args:
        records (list of dict): of runs, any, in any order.
        directory (str or pathlib.Path): gets the files.
        every_record (bool): draw what is of one record for every record.

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

    def add(name, figure, *sentences):
        caption = " ".join(f"{sentence}." for sentence in sentences)
        # The experiment is that of the group in hand.
        drawn.append(Drawn(name, caption, save(figure, directory / name), experiment))

    for group in by_schedule(sorted(by_name.values(), key=lambda record: record["name"])):
        experiment = group.settings.experiment
        kind = experiments.get(experiment)
        title = f"{group.title}: {group.schedule}"
        part = f"1{kind.figure}" if kind.figure else "1"
        number = f"Figure 1({kind.figure})" if kind.figure else "Figure 1"
        if not (group.is_paper and kind.figure):
            number = f"As {number}"
        trials = count_trials(group.records)
        several = trials != "1 trial"
        where = f"Computed on {' and '.join(by_computer(group.records))}"
        if not group.is_paper:
            where = f"{'; '.join(descriptions(group.records))}. {where}"
        add(
            f"{group.slug}-figure-{part}",
            usage_rate_against_error(group.records, title),
            f"{number}, usage rate of the structure against the test error of the last epoch",
            title,
            f"Medians with 25% and 75% quantiles of {trials} of each setting"
            if several
            else "Single runs, 1 trial of each setting",
            where,
        )
        add(
            f"{group.slug}-error-against-seconds",
            error_against_seconds(group.records, title),
            "Test error against the seconds of the training",
            title,
            f"Medians of {trials} of each setting at equal epochs; the bands reach from the least "
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
        figure = structure_over_training(record)
        what = f"{kind.selected.capitalize()} of each {kind.part}"
        add(f"{name}-structure", figure, f"{what} with theta >= 0.5 over training", *sentences)
    if has_theta_histogram(record):
        figure = theta_histogram(record)
        add(f"{name}-theta", figure, "Histogram of theta over training", *sentences)
    for ending, figure, sentence in experiments.of(settings).draw(record, title_of(record)):
        add(f"{name}-{ending}", figure, sentence, *sentences)
