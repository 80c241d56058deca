"""What the paper's experiments cost on a machine, from the times in records."""

import collections
import dataclasses

from reproduce import compare, statistics, sweep
from reproduce.settings import EXPERIMENTS, from_dict


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one training of a setting takes.

    Attributes:
        experiment (str): its name.
        label (str): of the setting, as in the tables.
        hours (float): of one training at the paper's schedule; None where no record helps.
        source (str): from which records.
    """

    experiment: str
    label: str
    hours: float | None
    source: str


def costs(records):
    """Return what every setting of the paper takes on the processor of the most records.

    Args:
        records (list of dict): of both experiments and any schedule.

    Returns:
        tuple: the processor, None without records, and a list of Cost.  Without a record of a
        setting at the paper's schedule its hours are those of the paper's iterations at the seconds
        an iteration of shorter runs of the setting, whose structures are less converged.
    """
    counted = collections.Counter(record["machine"]["processor"] for record in records)
    if not counted:
        return None, []
    processor = max(sorted(counted), key=counted.get)
    rates = collections.defaultdict(list)
    for record in records:
        if record["machine"]["processor"] == processor:
            settings = from_dict(record["settings"])
            if _same_iteration(settings):
                rate = record["times"]["seconds"] / record["result"]["iterations"]
                key = settings.experiment, settings.method, settings.setting
                rates[key].append((settings.is_paper_schedule, rate))
    found = []
    for experiment, kind in EXPERIMENTS.items():
        for settings in sweep.grid(kind, "paper", kind.METHODS, trials=1):
            rate, source = _rate(rates, (experiment, settings.method, settings.setting))
            hours = rate and rate * settings.iterations() / 3600
            found.append(Cost(experiment, compare.label(settings), hours, source))
    return processor, found


def _same_iteration(settings):
    """Return whether an iteration does what one of the paper's does, in a run of any length."""
    return set(settings.changes()) <= {"epochs", "eta_factor", "examples", "test_examples"}


def _rate(rates, key):
    """Return seconds an iteration of a setting, evaluation included, and where they are from."""
    at_paper = [rate for is_paper, rate in rates[key] if is_paper]
    if at_paper:
        source = f"{len(at_paper)} run{'s' * (len(at_paper) > 1)} at the paper's schedule"
        return statistics.median(at_paper), source
    if rates[key]:
        return statistics.median([rate for _, rate in rates[key]]), "extrapolated from shorter runs"
    return None, "no record"


def total(found, trials):
    """Return the hours of several trials of every setting whose hours are known, on one core.

    Args:
        found (list of Cost): of one experiment.
        trials (int): of each setting.

    Returns:
        tuple: the hours, and the labels of the settings without any.
    """
    known = [cost.hours for cost in found if cost.hours is not None]
    return trials * sum(known), [cost.label for cost in found if cost.hours is None]
