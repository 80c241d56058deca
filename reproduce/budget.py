"""The hours that the paper's experiments take on a machine, from the times in records."""

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from reproduce import compare, experiments, record, statistics, sweep
from reproduce._types import Record, StrPath
from reproduce.experiments import from_dict
from reproduce.groups import computer
from reproduce.settings import Settings

#: Seconds of an iteration, in each record of a setting: by experiment, method and setting, and then
#: by whether the schedule is the paper's and by machine.
Rates: TypeAlias = dict[tuple[str, str, str], dict[tuple[bool, str], list[float]]]


@dataclasses.dataclass(frozen=True)
class Estimate:
    """The hours of one training of a setting.

    Attributes:
        experiment (str): its name.
        label (str): of the setting, as in the tables.
        hours (float): of one training at the paper's schedule; None without a suitable record.
        source (str): the records that the hours come from.
    """

    experiment: str
    label: str
    hours: float | None
    source: str


def estimates(records: Sequence[Record]) -> tuple[dict[str, str | None], list[Estimate]]:
    """Return the hours of every setting of the paper.

    They are those of the machine with the most records of the experiment whose iterations compute
    the same as at the paper's settings; no other record tells these hours.

    Args:
        records (list of dict): of both experiments and any schedule.

    Returns:
        tuple: from the name of each experiment to the machine, as
        :func:`reproduce.groups.computer` names it, None without such records; and a list of
        Estimate, empty without any record.  If a setting has no record at the paper's schedule on
        this machine, its hours come from another machine, which the source names.  If it has none
        at all, they are extrapolated from the seconds per iteration of shorter runs, whose
        structures are less converged.
    """
    kinds = experiments.all_experiments()
    machines = {name: _machine(records, name) for name in kinds}
    rates, estimated = _rates(records), []
    for name, experiment in kinds.items() if records else ():
        machine = machines[name]
        for settings in sweep.grid(experiment, "paper", range(1)):
            rate, source = _rate(rates[name, settings.method, settings.setting], machine)
            hours = rate and rate * settings.iterations() / 3600
            estimated.append(Estimate(name, compare.label(settings), hours, source))
    return machines, estimated


def _machine(records: Iterable[Record], *names: str) -> str | None:
    """Return the machine with the most records that tell the hours of some experiments, or None."""
    own = [
        each
        for each in records
        if each["settings"]["experiment"] in names and _same_iteration(from_dict(each["settings"]))
    ]
    counted = collections.Counter(map(computer, own))
    return max(sorted(counted), key=counted.__getitem__, default=None)


def _rates(records: Iterable[Record]) -> Rates:
    """Return the seconds of an iteration, by setting and then by schedule and machine."""
    rates: Rates = collections.defaultdict(lambda: collections.defaultdict(list))
    for each in records:
        settings = from_dict(each["settings"])
        if _same_iteration(settings):
            rate = each["times"]["seconds"] / each["result"]["iterations"]
            key = settings.experiment, settings.method, settings.setting
            rates[key][settings.is_paper_schedule, computer(each)].append(rate)
    return rates


def _same_iteration(settings: Settings) -> bool:
    """Return whether an iteration computes the same as at the paper's settings."""
    return set(settings.changes()) <= {"epochs", "eta_factor", "examples", "test_examples"}


def _rate(
    rates_of: Mapping[tuple[bool, str], list[float]] | None, machine: str | None
) -> tuple[float | None, str]:
    """Return seconds an iteration, evaluation included, and where they are from.

    Args:
        rates_of (dict): of a setting, the seconds of its records, by whether they are at the
            paper's schedule and the machine.
        machine (str): the preferred one.
    """
    if not rates_of:
        return None, "no record"
    # A median never mixes the times of two machines, so only the best evidence is used.
    is_paper, where = max(rates_of, key=lambda kind: (kind[0], kind[1] == machine, kind[1]))
    rates = rates_of[is_paper, where]
    runs = f"{len(rates)} run{'s' * (len(rates) > 1)} of full length"
    source = runs if is_paper else "extrapolated from shorter runs"
    return statistics.median(rates), source + f", on {where}" * (where != machine)


def total(estimates: Sequence[Estimate], trials: int) -> tuple[float, list[str]]:
    """Return the hours of several trials of every setting whose hours are known.

    Args:
        estimates (list of Estimate): of one experiment.
        trials (int): of each setting.

    Returns:
        tuple: the hours, and the labels of the settings without any.
    """
    known = [each.hours for each in estimates if each.hours is not None]
    return trials * sum(known), [each.label for each in estimates if each.hours is None]


def of_runs(runs: Sequence[Settings], out: StrPath, directory: StrPath) -> str:
    """Return the estimated hours of runs as text: a line for each, and their sum.

    The seconds per iteration come from records whose iterations compute the same, see
    :func:`estimates`.  They hold for one core of the machine that the line names.

    Args:
        runs (list of Settings): not yet trained.
        out (str or pathlib.Path): the directory of finished runs, which take no more time.
        directory (str or pathlib.Path): of the records.

    Returns:
        str: lines.
    """
    records = record.read_all(directory)[0] if Path(directory).is_dir() else []
    machine, rates = _machine(records, *{run.experiment for run in runs}), _rates(records)
    rows, hours, unknown, finished = [], 0.0, 0, 0
    for run in runs:
        if (Path(out) / f"{run.name}.json").exists():
            rows.append([run.name, f"{run.iterations():,}", "0.00", "finished"])
            finished += 1
            continue
        own = rates.get((run.experiment, run.method, run.setting)) if _same_iteration(run) else {}
        rate, source = _rate(own, machine)
        estimated = rate and rate * run.iterations() / 3600
        hours += estimated or 0
        unknown += estimated is None
        cell = "-" if estimated is None else f"{estimated:.2f}"
        rows.append([run.name, f"{run.iterations():,}", cell, source])
    lines = [compare.format_table(["run", "iterations", "hours", "from"], rows), ""]
    count = f"{len(runs)} run{'s' * (len(runs) != 1)}"
    if finished == len(runs):
        lines.append(f"{count}, all finished")
    elif unknown == len(runs) - finished:
        rest = f", {finished} of them finished, the others" * bool(finished)
        lines.append(f"{count}{rest} of unknown cost: no record tells what one of them takes")
    else:
        lines.append(f"{count}, about {hours:.1f} hours of training on {machine}")
        if unknown:
            lines[-1] += (
                f"; {unknown} of them are not in this sum, since no record tells their cost"
            )
    return "\n".join(lines) + "."
