"""The parser of the command line: commands, options and their help."""

import argparse
import re
from collections.abc import Callable, Iterable
from typing import Any, NoReturn, TypeAlias

from reproduce import ReproduceError, experiments
from reproduce.arguments import (
    address,
    directory,
    existing_directory,
    existing_file,
    names,
    new_file,
    number,
    whole,
)
from reproduce.cli import commands
from reproduce.cli.commands import RUNS
from reproduce.datasets import DATASETS
from reproduce.settings import Settings, flag, parse_epsilon0

#: What a schedule is, for the help.
SCHEDULE = "paper (the default), short (1/10 of the epochs), quick (1/125), or a fraction: 1/60"
#: Matches a value that begins as a negative number does.
_NEGATIVE = re.compile(r"-(\d|\.\d|inf|nan)", re.IGNORECASE)
#: The most processes at a time, threads of each, and seeds of a sweep.
MOST_JOBS, MOST_THREADS, MOST_TRIALS = 1024, 1024, 10000


#: The method ``add_argument`` of a parser.
Add: TypeAlias = Callable[..., Any]


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        # Without argparse's "argument " in front of the option, and on one line.
        message = " ".join(message.split()).removeprefix("argument ")
        raise ReproduceError(f"{message} (see {self.prog} --help)")


def negative_values(arguments: Iterable[str]) -> list[str]:
    """Join ``--epsilon0 -2^-3`` to ``--epsilon0=-2^-3``, which argparse takes for an option.

    ``--lr -1e-3`` and ``--devices -1,0`` as well: what begins with a minus and a number is a value.
    """
    joined: list[str] = []
    for argument in arguments:
        previous = joined[-1] if joined else ""
        value = _NEGATIVE.match(argument) or (
            previous == "--epsilon0" and not argument.startswith("--")
        )
        if previous.startswith("--") and "=" not in previous and value:
            joined[-1] += "=" + argument
        else:
            joined.append(argument)
    return joined


def _experiments(subparsers: Any, name: str, **texts: Any) -> Any:
    """Add a command that takes an experiment; return what its parsers are added to."""
    return subparsers.add_parser(name, **texts).add_subparsers(
        dest="experiment", required=True, parser_class=_Parser
    )


def _add_data(subparsers: Any) -> None:
    parser = subparsers.add_parser("data", help="fetch, verify and cache a data set")
    parser.add_argument("dataset", choices=tuple(DATASETS))
    parser.add_argument(
        "--data-dir", type=directory, help="where to keep it, by default the cache directory"
    )
    parser.add_argument(
        "--from",
        dest="source",
        type=existing_directory,
        help="a directory that holds the original files",
    )
    parser.set_defaults(call=commands.data)


def _add_run(subparsers: Any) -> None:
    kinds = _experiments(
        subparsers,
        "run",
        help="one training",
        description="One training with the paper's settings.",
    )
    for name, experiment in experiments.all_experiments().items():
        parser = kinds.add_parser(name, help=experiment.help)
        add = parser.add_argument
        add("--schedule", default="paper", help=f"sets the other defaults: {SCHEDULE}")
        for setting in experiment.settings.options():
            _add_setting(add, experiment.settings, setting)
        _add_where(add, "runs")
        add("--snapshot-interval", type=whole(1), help="iterations between snapshots (a minute)")
        add("--quiet", action="store_true", help="no line an epoch")
        add("--plain", action="store_true", help="train without the fast paths")
        _add_threads(add, "of one training")
        add("--parent", type=whole(1), help="stop when this process is no longer the parent")
        add("--wait", type=number(0), default=1.0, help="seconds to wait for another's run (1)")
        parser.set_defaults(call=commands.run)


def _add_setting(add: Add, kind: type[Settings], name: str, several: bool = False) -> None:
    """Add the option of a setting.

    Args:
        add (callable): a parser's ``add_argument``.
        kind (type): of the settings.
        name (str): of the setting.
        several (bool): take several values with commas between them.
    """
    option = kind.options()[name]
    # Limits are the settings' to check: their messages are those of every command.
    kinds = {int: whole(), float: number(), parse_epsilon0: parse_epsilon0}
    parse = kinds.get(option.type, option.type)
    words = option.help + f", of {option.method}" * bool(option.method)
    if several:
        parse = _several(parse)
        words += ", or several with commas between them"
    else:
        words += f" ({_default(kind, name)})"
        # The text of a penalty is parsed later, so that its message is the one of every command.
        parse = str if option.type is parse_epsilon0 else parse
    choices = None if several else option.choices or None
    add(flag(name), type=parse, choices=choices, help=words.replace("%", "%%"))


def _several(parse: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    """Return a function that parses values with commas between them."""

    def values(text: str) -> list[Any]:
        return [parse(part) for part in names(text)]

    values.__name__ = f"list of {getattr(parse, '__name__', 'value')}"
    return values


def _default(kind: type[Settings], name: str) -> str:
    """Return the default of a setting in words; it may depend on the method."""
    option = kind.options()[name]
    if option.default or option.reading:
        return option.default or option.choices[0]
    methods = [method for method in kind.methods() if option.method in (None, method)]
    found: dict[str, list[str]] = {}
    for method in methods:
        value = getattr(kind(method=method), name)
        found.setdefault("none" if value is None else option.text(value), []).append(method)
    if len(found) == 1 or name == "method":
        return next(iter(found))
    return ", ".join(f"{text} for {' and '.join(of)}" for text, of in found.items())


def _add_record(add: Add) -> None:
    """Add the argument that names one record."""
    add(
        "record",
        type=existing_file,
        metavar="RECORD",
        help="the record of a finished run, a JSON file",
    )


def _add_data_dir(add: Add) -> None:
    """Add the option that says where the data lies."""
    add("--data-dir", type=directory, help="where the data lies, by default the cache directory")


def _add_threads(add: Add, of: str) -> None:
    """Add the option that sets the threads of a training."""
    add(
        "--threads",
        type=whole(1, MOST_THREADS),
        default=1,
        help=f"{of} of connection selection (1)",
    )


def _add_where(add: Add, out: str) -> None:
    """Add the options that say where a training runs and writes."""
    add("--device", type=whole(-1), default=-1, help="-1 for the CPU, else a GPU")
    _add_data_dir(add)
    add("--out", type=directory, default=out, help=f"gets the records and the snapshots ({out})")


def _add_quick(subparsers: Any) -> None:
    kinds = _experiments(
        subparsers,
        "quick",
        help="a short run of an experiment, beside the paper's numbers",
    )
    for name, experiment in experiments.all_experiments().items():
        parser = kinds.add_parser(
            name,
            help=experiment.help,
            description="Train some settings of the experiment as a short run, print the table "
            "beside the paper's, and draw the figures.",
        )
        add = parser.add_argument
        _add_where(add, "runs/quick")
        add(
            "--figures",
            type=directory,
            help="gets the figures, by default the directory of the records",
        )
        add("--jobs", type=whole(1, MOST_JOBS), default=2, help="trainings at a time (2)")
        add("--seed", type=whole(), default=0)
        parser.set_defaults(call=commands.quick)


def _add_sweep(subparsers: Any) -> None:
    kinds = _experiments(
        subparsers,
        "sweep",
        help="many runs of an experiment",
        description="Train one run for each method, setting and seed, a complete trial before the "
        "next.  Finished runs are skipped and interrupted ones continue.",
    )
    for name, experiment in experiments.all_experiments().items():
        kind = experiment.settings
        parser = kinds.add_parser(name, help=experiment.help)
        add = parser.add_argument
        methods = ",".join(kind.methods())
        add("--schedule", default="paper", help=SCHEDULE)
        add("--methods", type=names, default=methods, help=f"of {methods} (all)")
        add("--trials", type=whole(1, MOST_TRIALS), help="seeds, from 0 on (5)")
        add(
            "--seeds",
            type=_several(whole(0)),
            help="the seeds, with commas between them",
        )
        add("--jobs", type=whole(1, MOST_JOBS), default=2, help="trainings at a time (2)")
        _add_threads(add, "of each,")
        add(
            "--out",
            type=directory,
            default="runs",
            help="gets the records and the snapshots (runs)",
        )
        _add_data_dir(add)
        add("--devices", type=names, default="-1", help="-1 for the CPU, or GPUs: 0,1 (-1)")
        add(
            "--scheduler",
            type=address,
            help="a dask.distributed scheduler, tcp://..., that trains instead",
        )
        add("--retry-failed", action="store_true", help="repeat runs that failed before")
        add("--dry-run", action="store_true", help="print the runs and their cost; train none")
        for setting in kind.options():
            if setting not in ("method", "seed"):
                _add_setting(add, kind, setting, several=setting in kind.varied())
        parser.set_defaults(call=commands.sweep)


def _add_status(subparsers: Any) -> None:
    parser = subparsers.add_parser("status", help="the state of the runs of a directory")
    parser.add_argument(
        "--out", type=directory, default="runs", help="the directory of the runs (runs)"
    )
    parser.set_defaults(call=commands.status)


def _add_progress(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "progress",
        help="the progress of unfinished runs, as files for the report",
        description="Write a small JSON file for each run that has not ended, from its newest "
        "snapshot: iteration, usage, selected parts, the histogram of theta, both errors.",
    )
    add = parser.add_argument
    add("--out", type=directory, default="runs", help="the directory of the runs (runs)")
    add(
        "--to", type=directory, default="results/progress", help="gets the files (results/progress)"
    )
    parser.set_defaults(call=commands.progress)


def _add_runs(add: Add) -> None:
    """Add the option that names the directory of the records."""
    add("--runs", type=directory, default=RUNS, help=f"the directory of the records ({RUNS})")


def _add_compare(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "compare",
        help="the records beside the paper's tables and claims",
        description="Print the records beside the paper's tables, and which of its claims hold. "
        "Only records at the paper's schedule are compared with it.",
    )
    _add_runs(parser.add_argument)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a claim fails")
    parser.set_defaults(call=commands.compare)


def _add_report(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "report",
        help="the results page, findings and tables from the records",
        description="Write README.md (the results page), FINDINGS.md (their interpretation), "
        "REPORT.md (all tables) and report.html (one page for a browser, with all figures) from "
        "the records, and draw the figures.",
    )
    _add_runs(parser.add_argument)
    parser.add_argument(
        "--out", type=directory, default="results", help="gets the pages and figures (results)"
    )
    parser.set_defaults(call=commands.report)


def _add_figures(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "figures",
        help="every figure that records allow",
        description="Draw the figures of the paper and three that it lacks, as PNG and SVG, from "
        "the records of a directory, or from those that are named.",
    )
    add = parser.add_argument
    add(
        "records",
        nargs="*",
        type=existing_file,
        metavar="RECORD",
        help="files, instead of those of a directory",
    )
    _add_runs(add)
    add(
        "--out",
        type=directory,
        default="results/figures",
        help="gets the figures (results/figures)",
    )
    parser.set_defaults(call=commands.figures)


def _add_export(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "export",
        help="the trained network of a record, with only the parts that its structure keeps",
        description="Write the trained network of a record as a small plain one, and print its "
        "cost and that of the full network.  The weights are those in the directory of the run, "
        "or else those in results/networks.",
    )
    add = parser.add_argument
    _add_record(add)
    add("--format", choices=("chainer", "onnx"), required=True, help="of the file")
    add(
        "--out",
        type=new_file,
        metavar="FILE",
        help="gets the network (the record's name, .npz or .onnx, here)",
    )
    parser.set_defaults(call=commands.export)


def _add_rerun(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "rerun",
        help="a record trained again, to see that it gives the same bits",
        description="Train the settings of a record again and compare every epoch, up to the first "
        "that differs.  The exit code is 1 if one does.  Only the same versions and the same BLAS "
        "kernels give the same bits: the command prints what differs, names a record that this "
        "machine can repeat, and says how large a difference is and whether it is only rounding.",
    )
    add = parser.add_argument
    _add_record(add)
    add("--epochs", type=whole(), help="compare the first epochs only (all, and the result)")
    add("--device", type=whole(-1), help="a GPU, or -1 for the CPU (what the record names)")
    _add_data_dir(add)
    add(
        "--out", type=directory, default="runs", help="its directory rerun gets the training (runs)"
    )
    add("--quiet", action="store_true", help="no line an epoch")
    parser.set_defaults(call=commands.rerun)


def _add_regress(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "regress",
        help="short trainings compared with committed baselines",
        description="Train fixed short cases of both experiments and compare them with the "
        "baselines: the first iterations to within rounding, structure and error after a short "
        "run to within a band.  The exit code is 1 if something has drifted.",
    )
    add = parser.add_argument
    add("--traces", action="store_true", help="the first iterations only: seconds, and no data")
    add("--cases", type=names, help="only these names, with commas between them (all)")
    add("--update", action="store_true", help="write the baselines and show what differs")
    add("--baselines", type=directory, help="their directory (results/regression)")
    add("--jobs", type=whole(1, MOST_JOBS), default=2, help="short runs at a time (2)")
    _add_data_dir(add)
    parser.set_defaults(call=commands.regress)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line, whose errors are one line each."""
    parser = _Parser(prog="python -m reproduce", description="The experiments of the paper.")
    subparsers = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    _add_data(subparsers)
    _add_run(subparsers)
    _add_quick(subparsers)
    _add_sweep(subparsers)
    _add_status(subparsers)
    _add_progress(subparsers)
    _add_compare(subparsers)
    _add_report(subparsers)
    _add_figures(subparsers)
    _add_export(subparsers)
    _add_rerun(subparsers)
    _add_regress(subparsers)
    return parser


def parse(arguments: Iterable[str]) -> argparse.Namespace:
    """Return the values of a command line.

    Args:
        arguments (list of str): of the command line.

    Raises:
        ReproduceError: there is no such command or option, or a value is not as it should be.
    """
    return make_parser().parse_args(negative_values(arguments))
