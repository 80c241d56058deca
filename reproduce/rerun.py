"""A record trained again from its own settings, to see that it gives the same bits."""

import shutil
from collections.abc import Mapping, Sequence
from os.path import commonprefix
from pathlib import Path
from typing import Any, TypeAlias

from reproduce import Interrupted, ReproduceError, experiments, record, run
from reproduce._types import Record, StrPath
from reproduce.compare import format_table
from reproduce.experiments import from_dict
from reproduce.groups import as_begun, has_moved

#: In the directory of the runs, what is trained again, apart from the runs themselves.
DIRECTORY = "rerun"
#: Characters of a value in a table.
WIDTH = 24
#: The training loss, of which the size of a difference is told.
LOSS = "main/loss"
#: Other kernels change the training loss of the first epoch by at most this part of it.  Measured
#: with one OpenBLAS, the kernels Haswell for SkylakeX, in section 4.1: 1e-8 with 52 units a layer,
#: 4e-4 with 205, and 3e-4 at 2^-6.
ROUNDING = 0.01
#: Of the machine and the versions, what leaves the rounding as it is.
_SAME_ROUNDING = ("commit", "processor", "cores", "system", "device", "chainer_sno", "python")

#: Name, value in the record and value here of what differs.
Rows: TypeAlias = list[tuple[str, Any, Any]]


class Judge:
    """Holds the epochs of a training against those of a record.

    Args:
        log (dict): of the record, a column of numbers by name.
        epochs (int): how many to hold.

    Attributes:
        held (int): the epochs held so far, all but the last with the same numbers.
        rows (list): of the last of them, the name of every number that is another, the record's
            and the one found here.  What only the new log has is not looked at, nor what only
            one of them measured in this epoch.
    """

    def __init__(self, log: Mapping[str, Sequence[Any]], epochs: int) -> None:
        self.log = log
        self.epochs = epochs
        self.held = 0
        self.rows: Rows = []

    def __call__(self, log: Sequence[Mapping[str, Any]]) -> bool:
        """Hold the epochs that are new in a log of LogReport; return whether that is enough."""
        for entry in log[self.held : self.epochs]:
            new = {name: column[0] for name, column in record.columns([entry]).items()}
            old = {name: column[self.held] for name, column in self.log.items()}
            # Older programs measured in every epoch what is measured in some now.
            for name in filter(record.is_in_some_epochs, self.log):
                if old[name] is None or name not in new:
                    del old[name]
            self.held += 1
            self.rows = _differences(old, new)
            if self.rows:
                break
        return bool(self.rows) or self.held == self.epochs


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Rows:
    """Return the name, the old and the new value of what is not the same to the bit."""
    return [(name, value, new.get(name)) for name, value in old.items() if new.get(name) != value]


def _cells(name: str, old: object, new: object) -> list[str]:
    """Return a row of a table; long values are shown from where they begin to differ."""
    old, new = str(old), str(new)
    first = len(commonprefix([old, new])) if max(len(old), len(new)) > WIDTH else 0

    def clip(text: str) -> str:
        start = "..." if first else ""
        return f"{start}{text[first : first + WIDTH]}{'...' * (len(text) > first + WIDTH)}"

    return [name, clip(old), clip(new)]


def _print_table(title: str, rows: Rows) -> None:
    """Print what differs, the record's value beside the one found here, and how far it is off."""
    print(title)
    cells = [_cells(*row) for row in rows]
    sizes = [_relative(old, new) for _, old, new in rows]
    if any(size is not None for size in sizes):
        header = ["", "record", "here", "relative"]
        for row, size in zip(cells, sizes):
            row.append("" if size is None else f"{size:.1e}")
        print(format_table(header, cells))
    else:
        print(format_table(["", "record", "here"], cells))


def _relative(old: Any, new: Any) -> float | None:
    """Return the difference of two numbers as a part of the old one; None of anything else."""
    if not all(isinstance(value, int | float) for value in (old, new)) or old == 0:
        return None
    return abs(new - old) / abs(old)


def _other_rounding(old: Record, now: Record) -> list[str]:
    """Return the names of what differs in two machines and versions and changes the rounding."""
    rows = [row for part in now for row in _differences(old[part], now[part])]
    return [name for name, *_ in rows if name not in _SAME_ROUNDING]


def explain(rows: Rows, rounding: Sequence[str]) -> str:
    """Return sentences that say whether a difference in an epoch is more than rounding.

    Args:
        rows (list): name, old and new value of what differs in the first epoch that differs.
        rounding (list of str): what rounds differently here: kernels, libraries, the path.

    Returns:
        str: the size of the difference, and what it means.
    """
    if not rounding:
        return (
            "The kernels and the libraries are the record's, so this is not rounding: the code or "
            "the data gives other numbers."
        )
    losses = {name: (old, new) for name, old, new in rows}.get(LOSS, (1, 1))
    size = _relative(*losses)
    if size is None:
        return f"The training loss ({LOSS}) cannot be compared, so the difference has no size."
    told = f"The training loss ({LOSS}) differs by {size:.1e} of the record's value.  "
    told += f"The record was made with other kernels or libraries ({', '.join(rounding)}).  "
    if size > ROUNDING:
        return told + (
            f"That changes the loss of the first epoch that differs by {ROUNDING:.0%} at most, so "
            "this is more than rounding."
        )
    return told + (
        f"Training amplifies rounding, up to {ROUNDING:.0%} of the loss in the first epoch that "
        "differs, so this is only rounding.  The structure and the error at M* may differ more."
    )


def suggest(path: StrPath, now: Record, where: Any) -> Path | None:
    """Return the quickest record beside another that this machine repeats to the bit.

    Args:
        path (str or pathlib.Path): of a record, in a directory of records.
        now (dict): the ``versions`` and the ``machine`` of a record that is made here.
        where (chainer.backend.Device): on which it trains.

    Returns:
        pathlib.Path: of a record made with the kernels, the libraries and the path of this machine;
        None where there is none.
    """
    found = []
    for each in record.read_all(Path(path).parent)[0]:
        kind = experiments.of(from_dict(each["settings"])).training
        code = kind.path_of(where, kind.is_plain(each["versions"]["path"]))
        here = {**now, "versions": {**now["versions"], "path": code}}
        same_device = ("gpu" in each["machine"]) == ("gpu" in now["machine"])
        if same_device and not has_moved(each) and not _other_rounding(each, here):
            seconds = each["times"]["seconds"] / from_dict(each["settings"]).epochs
            found.append((seconds, each["name"]))
    return Path(path).parent / f"{min(found)[1]}.json" if found else None


def rerun(
    path: StrPath,
    epochs: int | None = None,
    out: StrPath = "runs",
    device: int | None = None,
    data_dir: StrPath | None = None,
    quiet: bool = False,
) -> int:
    """Train a record's settings again, hold every epoch against it, and print the outcome.

    The first epochs of a training at the paper's schedule are the same whether it is trained to
    its end or not, so that a few of them tell within minutes what the whole would within hours.
    The training stops at the first epoch that differs.  What was interrupted goes on where it
    stopped; after an outcome the same command trains anew, with the code as it then is.

    Args:
        path (str or pathlib.Path): of the record.
        epochs (int): how many of its epochs to train; all, and then the result, by default.
        out (str or pathlib.Path): its directory ``rerun`` gets the training; what was trained to
            its end stays there, with its new record.
        device (int): a GPU, or -1 for the CPU; by default the kind that the record names.
        data_dir (str or pathlib.Path): where the data lies, the cache by default.
        quiet (bool): print no line an epoch.

    Returns:
        int: 0 where all is the same to the bit, 1 where it is not.

    Raises:
        ReproduceError: this is no record, or the training is not to be had as it was.
        Locked: another process trains the same record.
        Interrupted: SIGINT or SIGTERM; a snapshot was saved.
    """
    old = record.read(path)
    settings = from_dict(old["settings"])
    if epochs is not None and not 1 <= epochs <= settings.epochs:
        raise ReproduceError(
            f"--epochs must be between 1 and the record's {settings.epochs}, not {epochs}"
        )
    device = _device(path, old, device)
    out = Path(out) / DIRECTORY
    again, directory = out / f"{settings.name}.json", out / settings.name
    if again.resolve() == Path(path).resolve():
        raise ReproduceError(
            f"the new record would be written over {str(path)!r}: give another --out"
        )
    judge = Judge(old["log"], epochs or settings.epochs)
    print(f"{settings.name} again, {judge.epochs} of {settings.epochs} epochs.", flush=True)
    run.use_one_thread()
    rounding = _print_changes(path, old, run.get_device(device))
    if again.exists():  # and judged: this is another call
        again.unlink()
        shutil.rmtree(directory, ignore_errors=True)
    kind = experiments.of(from_dict(old["settings"])).training
    plain = kind.is_plain(old["versions"]["path"])
    result: Rows = []
    try:
        options = run.Options(device, data_dir, quiet=quiet, plain=plain, watch=judge)
        new = run.run(settings, out, options)
        # Older programs estimated the second result otherwise, under another name.
        was = {
            name: value
            for name, value in old["result"].items()
            if name in new["result"] or not name.startswith("reestimated_")
        }
        result = _differences(was, new["result"])
    except Interrupted as interrupted:
        if interrupted.signal is not None:
            raise
        shutil.rmtree(directory)
    if judge.rows:
        if has_moved(old) and old["log"]["iteration"][judge.held - 1] > _moved_at(old):
            rounding = [*rounding, "another machine in the meantime"]
        _print_table(f"Epoch {judge.held} is not the record's:", judge.rows)
        print(explain(judge.rows, rounding))
        print(_tell_commit(old), end="")
    elif result:
        _print_table("The result is not the record's:", result)
    else:
        whole = " and the result" if judge.held == settings.epochs else ""
        count = f"{judge.held} epoch{'s' if judge.held > 1 else ''}"
        print(f"The same bits: {len(old['log'])} numbers in each of {count}{whole}.")
    return int(bool(judge.rows or result))


def _tell_commit(old: Record) -> str:
    """Return a line on the commit that a record began at, if that is not the one here.

    Code that adds in another order gives other bits, too.
    """
    entries = [*old.get("computers", ())]
    first = (entries[0].get("versions") if entries else None) or [old["versions"]]
    begun = (first[0] or {}).get("commit")
    here = record.versions()["commit"]
    if not begun:
        return "The record does not say at which commit it began.\n"
    if begun == here:
        return ""
    return f"The record began at commit {begun}: check it out to train with the code of then.\n"


def _moved_at(old: Record) -> int:
    """Return the last iteration of a record on the machine that it began on."""
    iteration: int = old["computers"][0]["iterations"][1]
    return iteration


def _device(path: StrPath, old: Record, device: int | None) -> int:
    """Return the device for a record: the first of its kind if none is named.

    Raises:
        ReproduceError: the named one is of another kind.
    """
    gpu = "gpu" in old["machine"]
    if device is None:
        return 0 if gpu else -1
    if gpu != (device >= 0):
        raise ReproduceError(
            f"{str(path)!r} was trained on a {'GPU' if gpu else 'CPU'}, and another kind of device "
            f"gives other bits: give --device {0 if gpu else -1}, not {device}"
        )
    return device


def _print_changes(path: StrPath, old: Record, where: Any) -> list[str]:
    """Print what is not as it was when a record was made, and which record to take instead.

    Args:
        path (str or pathlib.Path): of the record.
        old (dict): the record.
        where (chainer.backend.Device): on which it is trained again.

    Returns:
        list of str: what rounds differently here.
    """
    kind = experiments.of(from_dict(old["settings"])).training
    code = old["versions"]["path"]
    now = {
        "versions": {**record.versions(), "path": kind.path_of(where, kind.is_plain(code))},
        "machine": record.machine(where),
    }
    begun = as_begun(old)
    changed = [row for part in now for row in _differences(begun[part], now[part])]
    if changed:
        _print_table("What is not as it was, and may change bits:", changed)
    if now["versions"]["path"] != code:
        print(
            f"The path {code!r} trained the record, and {now['versions']['path']!r} trains here: "
            "the same bits cannot be expected."
        )
    if has_moved(old):
        print(
            f"The record went on on another machine after iteration {_moved_at(old):,}: from there "
            "on, the same bits cannot be expected."
        )
    rounding = _other_rounding(begun, now)
    if rounding:
        better = suggest(path, now, where)
        here = "with this machine's kernels and libraries"
        told = f"No record in {str(Path(path).parent)!r} was made {here}."
        if better:
            told = f"To repeat bits, take a record that was made {here}: {str(better)!r}."
        print(told, flush=True)
    return rounding
