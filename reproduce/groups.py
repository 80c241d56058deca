"""Records put together: those of one schedule, in it of one setting; those of one machine."""

import dataclasses
import re
from collections.abc import Collection, Iterable
from fractions import Fraction
from typing import Any

from reproduce import experiments
from reproduce._types import Record
from reproduce.experiments import from_dict
from reproduce.settings import Settings, fraction_of_paper

#: Matches what :func:`reproduce.record.machine` says of a BLAS: library, version and kernels, such
#: as ``openblas 0.3.31 Haswell, 1 thread``.
_KERNELS = re.compile(r"\S+ \S+ ([^\s,]+),").match


@dataclasses.dataclass(frozen=True)
class Group:
    """The records of one experiment at one schedule.

    Attributes:
        settings (Settings): of one of the records.
        changes (dict): what differs from the paper's settings, but for the length of the training
            and what follows from it.
        records (list of dict): the records.
    """

    settings: Settings
    changes: dict[str, Any]
    records: list[Record]

    @property
    def fraction(self) -> Fraction:
        """The length as a fraction of the full one, which is the paper's."""
        return fraction_of_paper(self.settings)

    @property
    def is_paper(self) -> bool:
        """Whether this is the paper's schedule."""
        return self.settings.is_paper_schedule

    @property
    def title(self) -> str:
        """What is trained: ``Unit selection on MNIST``."""
        return f"{experiments.of(self.settings).title} on {self.settings.data.title}"

    @property
    def schedule(self) -> str:
        """The schedule in words, which are true of any experiment; a short run says how short."""
        if self.is_paper:
            is_published = experiments.of(self.settings).section
            return "the paper's schedule" if is_published else "the full schedule"
        told = [f"{name}={value}" for name, value in self.changes.items() if name != "dataset"]
        if self.fraction < 1:
            told.insert(0, f"a short run, {self.fraction} of the full length")
        elif self.fraction == 1:
            told.insert(0, "a full-length run with a changed setting")
        else:
            told.insert(0, f"a run of {self.fraction} times the full length")
        return ", ".join(told)

    @property
    def slug(self) -> str:
        """The experiment and the schedule as a part of file names, no two groups the same."""
        if self.is_paper:
            return f"{self.settings.experiment}-paper"
        epochs, batch_size = _length(self.settings)
        parts = [self.settings.experiment, f"epochs={_of(epochs)}"]
        parts += [f"batch={_of(batch_size)}"] * (batch_size != 1)
        return safe_name("-".join([*parts, *(f"{k}={v}" for k, v in self.changes.items())]))


def _of(fraction: Fraction) -> str:
    """Return a fraction as a part of a file name, ``1-of-125``."""
    return f"{fraction.numerator}-of-{fraction.denominator}"


def safe_name(name: str) -> str:
    """Return a name with letters, digits, dots, dashes and underscores only.

    Args:
        name (str): of a run, say.

    Returns:
        str: different for the names of different runs; ``2^-7`` becomes ``2to-7``.
    """
    return re.sub(r"[^A-Za-z0-9._-]", "_", name.replace("^", "to").replace("=", "-"))


def _length(settings: Settings) -> tuple[Fraction, Fraction]:
    """Return epochs and batch size as fractions of the paper's for the method."""
    epochs, batch_size = settings.LENGTH[settings.method == "sno"]
    return Fraction(settings.epochs, epochs), Fraction(settings.batch_size, batch_size)


def _changes(settings: Settings) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what differs from the paper for any method, and what does for this method only.

    The length is left out, which differs between the methods, and eta_theta where it is what
    follows from the length.
    """
    changes = settings.changes()
    for name in ("epochs", "batch_size", "eta_factor"):
        changes.pop(name, None)
    if settings.eta_factor != dataclasses.replace(settings, eta_factor=None).eta_factor:
        changes["eta_factor"] = settings.eta_factor
    shared: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for name, value in sorted(changes.items()):
        (own if settings.options()[name].method else shared)[name] = value
    return shared, own


def by_schedule(records: Iterable[Record]) -> list[Group]:
    """Return the records in groups that a table or a figure may show together.

    Sno and its baselines belong together when they have the same fraction of the paper's epochs
    and batch size and the same other changes.  A change that only one method knows, such as
    another eta_theta, makes a group of its own, with the short baselines beside it too; what is at
    the paper's schedule stands beside nothing else.

    Args:
        records (list of dict): of runs, any.

    Returns:
        list of Group: by experiment, the paper's schedule first, then the longer before the
        shorter; the records of each in the order of :func:`by_setting`.
    """
    families: dict[Any, list[tuple[Settings, dict[str, Any], Record]]] = {}
    for record in records:
        settings = from_dict(record["settings"])
        shared, own = _changes(settings)
        key = settings.experiment, _length(settings), tuple(shared.items())
        families.setdefault(key, []).append((settings, own, record))
    groups = []
    for (_, length, shared_items), family in families.items():
        candidates = []
        for own_items in sorted({tuple(own.items()) for _, own, _ in family}):
            members = [member for member in family if member[1] == dict(own_items)]
            if own_items and (shared_items or length != (1, 1)):
                methods = {settings.method for settings, *_ in members}
                members += [
                    member for member in family if not member[1] and member[0].method not in methods
                ]
            candidates.append((own_items, members))
        for own_items, members in candidates:
            # A group without a change of its own may stand beside each of the others already.
            if not any(members is not other and _within(members, other) for _, other in candidates):
                settings = members[0][0]
                ordered = by_setting([record for *_, record in members]).values()
                changes = dict(sorted((*shared_items, *own_items)))
                groups.append(Group(settings, changes, [r for rs in ordered for r in rs]))

    def order(group: Group) -> tuple[int, bool, Fraction, str]:
        experiment = list(experiments.all_experiments()).index(group.settings.experiment)
        return experiment, not group.is_paper, -group.fraction, group.slug

    return sorted(groups, key=order)


def _within(members: Iterable[object], others: Collection[object]) -> bool:
    """Return whether all members are among others."""
    return all(any(member is other for other in others) for member in members)


def by_setting(records: Iterable[Record]) -> dict[tuple[str, str], list[Record]]:
    """Return the trials of each setting.

    Args:
        records (list of dict): of runs of one experiment.

    Returns:
        dict: from (method, setting) to a list of records in the order of their seeds; sno comes
        first, from the largest penalty down, then the baselines from the smallest up.
    """
    by_method: dict[str, list[tuple[Settings, Record]]] = {}
    for record in records:
        settings = from_dict(record["settings"])
        by_method.setdefault(settings.method, []).append((settings, record))
    groups: dict[tuple[str, str], list[Record]] = {}
    for method in next(iter(by_method.values()))[0][0].methods() if by_method else ():

        def order(entry: tuple[Settings, Record]) -> tuple[float, list[Any], int]:
            settings, _ = entry
            varied = {name: getattr(settings, name) for name in settings.varied()}
            epsilon0 = varied.pop("epsilon0")
            return (
                0 if epsilon0 is None else -epsilon0,
                [value or 0 for value in varied.values()],
                settings.seed,
            )

        for settings, record in sorted(by_method.get(method, ()), key=order):
            groups.setdefault((method, settings.setting), []).append(record)
    return groups


def count_trials(records: Iterable[Record]) -> str:
    """Return how many trials there are of each setting, in words.

    Args:
        records (list of dict): of one experiment.

    Returns:
        str: ``1 trial``, ``5 trials`` or ``1 to 5 trials``.
    """
    counts = {len(trials) for trials in by_setting(records).values()}
    least, most = min(counts), max(counts)
    number = str(most) if least == most else f"{least} to {most}"
    return f"{number} trial{'s' if most > 1 else ''}"


def has_moved(record: Record) -> bool:
    """Return whether a training went on on another machine; its times then compare with none.

    Args:
        record (dict): of a run.
    """
    return len({str(entry["machine"]) for entry in record.get("computers", ())}) > 1


def _noted(record: Record, what: str) -> list[Any]:
    """Return what the entries of a record's machines have, such as all their ``versions``."""
    return [each for entry in record.get("computers", ()) for each in entry.get(what, ())]


def first_of_last(record: Record) -> int:
    """Return which epoch, from 0, is the first in the last tenth of a training.

    Args:
        record (dict): of a run.
    """
    return from_dict(record["settings"]).epochs * 9 // 10


def before_last_tenth(record: Record) -> int:
    """Return the last iteration before the last tenth of a training.

    Args:
        record (dict): of a run.
    """
    done: int = [0, *record["log"]["iteration"]][first_of_last(record)]
    return done


def threads_of(record: Record, after: int = 0) -> list[int]:
    """Return the numbers of threads that a training had, ascending.

    Args:
        record (dict): of a run.
        after (int): leave out the iterations up to this one, where the record tells them apart;
            older records name the numbers of all sessions.
    """
    numbers = {number for number, last in _noted(record, "threads") if last > after}
    if numbers and None not in numbers:
        return sorted(numbers)
    noted: list[int] = record["times"].get("threads", [1])
    return noted


def was_drawn_again(record: Record) -> bool:
    """Return whether the first structure that a random run drew had no path (reading R19).

    Args:
        record (dict): of a run.
    """
    draws: int = record["result"].get("dead_draws", 0)
    return draws > 0


def as_begun(record: Record) -> Record:
    """Return the machine and the versions of a training's first iterations.

    Args:
        record (dict): of a run.

    Returns:
        dict: ``machine`` and ``versions`` as a record has them.  Where nothing tells with what it
        began, they are those of its end.
    """
    versions = _noted(record, "versions")
    first = record["computers"][0]["machine"] if has_moved(record) else None
    return {
        "machine": first or record["machine"],
        "versions": {**record["versions"], **((versions[0] or {}) if len(versions) > 1 else {})},
    }


def versions_of(record: Record) -> list[Record]:
    """Return the versions of the software that a training used, in their order.

    Args:
        record (dict): of a run; older ones have those of the last session only.
    """
    return [*filter(None, _noted(record, "versions")), record["versions"]]


def machines_of(record: Record) -> list[Record]:
    """Return the machines that a training was on and that are known, in their order.

    Args:
        record (dict): of a run; older ones have that of the last session only.
    """
    known = [each["machine"] for each in record.get("computers", ()) if each["machine"] is not None]
    return [*known, record["machine"]]


def commits(record: Record) -> list[str]:
    """Return the commits of this repository that a training ran at, each once, in their order.

    Args:
        record (dict): of a run; older ones name the last commit only.
    """
    found = [version.get("commit") for version in versions_of(record)]
    return list(dict.fromkeys(commit for commit in found if commit))


def _name_of(machine: Record) -> str:
    """Return what computes on a machine: the GPU, or the processor and its kernels."""
    gpu: str | None = machine.get("gpu")
    if gpu is not None:
        return gpu
    # A virtual machine may call processors of any generation by one name; the kernels that BLAS
    # chose say which instructions it has.
    kernels = sorted({match[1] for blas in machine.get("blas", ()) if (match := _KERNELS(blas))})
    return ", ".join([machine["processor"], *(f"{name} kernels" for name in kernels)])


def computer(record: Record, at_the_end: bool = False) -> str:
    """Return on what a record was computed: the GPU or the processor, and which code.

    Times of two records compare only where this is the same and neither has moved.

    Args:
        record (dict): of a run.
        at_the_end (bool): what its last tenth was on, whatever it was on before.

    Returns:
        str: such as ``AMD EPYC, SkylakeX kernels (fast path)``; with the number of threads where
        it is not one, and with every machine that the training was on.
    """
    where = _name_of(record["machine"])
    if has_moved(record) and not at_the_end:
        names = list(dict.fromkeys(map(_name_of, machines_of(record))))
        where = " and ".join(names) if len(names) > 1 else f"{where} and other machines"
    threads = threads_of(record, before_last_tenth(record) if at_the_end else 0)
    with_threads = f", {'/'.join(map(str, threads))} threads" * (threads != [1])
    path = f"{record['versions']['path']} path{with_threads}"
    return f"{where} ({path})"


def by_computer(records: Iterable[Record], at_the_end: bool = False) -> dict[str, list[Record]]:
    """Return the records of each kind of machine.

    Args:
        records (list of dict): of runs.
        at_the_end (bool): see :func:`computer`.

    Returns:
        dict: lists of records by what :func:`computer` says, in the order of the alphabet.
    """
    by_machine: dict[str, list[Record]] = {}
    for record in records:
        by_machine.setdefault(computer(record, at_the_end), []).append(record)
    return dict(sorted(by_machine.items()))
