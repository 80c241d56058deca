"""The command line: ``python -m reproduce ...``."""

import argparse
import dataclasses
import json
import os
import signal
import sys
from pathlib import Path

from reproduce import Interrupted, ReproduceError, streams
from reproduce.settings import (
    DECAYED,
    EXPERIMENTS,
    GRADIENTS,
    INPUTS,
    THETA_DTYPES,
    ConnectionSelection,
    UnitSelection,
    fraction_of_paper,
    parse_epsilon0,
)

#: The data sets of unit selection: grey images of 28 x 28.
GREY = ("mnist", "fashion-mnist")
#: What a schedule is, for the help.
SCHEDULE = "paper, short (1/10 of the epochs), quick (1/125), or another part: 1/60"
#: Where the committed records lie.
RUNS = "results/runs"


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message):
        raise ReproduceError(f"{message} (see {self.prog} --help)")


def _negative_values(arguments):
    """Join ``--epsilon0 -2^-3`` to ``--epsilon0=-2^-3``, which argparse takes for an option."""
    joined = []
    for argument in arguments:
        if joined and joined[-1] == "--epsilon0" and not argument.startswith("--"):
            joined[-1] += "=" + argument
        else:
            joined.append(argument)
    return joined


def _experiments(commands, name, **texts):
    """Add a command that takes an experiment; return what its parsers are added to."""
    return commands.add_parser(name, **texts).add_subparsers(
        dest="experiment", required=True, parser_class=_Parser
    )


def _add_data(commands):
    parser = commands.add_parser("data", help="fetch, verify and cache a data set")
    parser.add_argument("dataset", choices=(*GREY, "cifar10", "cifar100"))
    parser.add_argument("--data-dir", help="where to keep it, by default the cache directory")
    parser.add_argument("--from", dest="source", help="a directory that holds the original files")
    parser.set_defaults(call=_data)


def _data(arguments):
    from reproduce import data

    data.fetch(arguments.dataset, arguments.data_dir, arguments.source)


def _add_run(commands):
    kinds = _experiments(
        commands, "run", help="one training", description="One training with the paper's settings."
    )
    unit = kinds.add_parser("unit-selection", help="section 4.1")
    _add_common_settings(unit.add_argument, UnitSelection, "500 for sno, 1000 for the others")
    add = unit.add_argument
    add("--width", type=int, help="units in each hidden layer, of fixed (784)")
    add("--units", type=int, help="units in each hidden layer of the full network (784)")
    add("--layers", type=int, help="hidden layers (3)")
    add("--dropout-ratio", type=float, help="of dropout (0.5)")
    add("--inputs", choices=INPUTS, help="what the network sees (unit-interval)")
    add("--dataset", choices=GREY, default="mnist")
    connection = kinds.add_parser("connection-selection", help="section 4.2")
    add = connection.add_argument
    _add_common_settings(add, ConnectionSelection, "300 for sno, 600 for random")
    add("--usage-rate", type=float, help="of random (0.423)")
    add("--depth", type=int, help="of the DenseNet (40)")
    add("--growth-rate", type=int, help="output channels of a layer (12)")
    add("--reestimate", type=int, help="mini-batches for statistics anew, as a second result (100)")
    add("--dataset", choices=("cifar10",), default="cifar10")
    for parser in (unit, connection):
        _add_where(parser.add_argument, "runs")
        add = parser.add_argument
        add("--snapshot-interval", type=int, help="iterations between snapshots (a minute)")
        add("--quiet", action="store_true", help="no line an epoch")
        add("--plain", action="store_true", help="train without the fast paths")
        add("--threads", type=int, default=1, help="of one training of connection selection (1)")
        add("--parent", type=int, help="stop when this process is no longer the parent")
        add("--wait", type=float, default=1.0, help="seconds to wait for another's run (1)")
        parser.set_defaults(call=_run)


def _add_common_settings(add, kind, epochs):
    """Add the options that every experiment has."""
    add("--method", choices=kind.METHODS, default="sno")
    add("--epsilon0", help=f"of sno: 2^-7, -2^-3, 0, 0.0078125, ... ({kind().setting})")
    add("--schedule", default="paper", help=f"the defaults of what follows: {SCHEDULE}")
    add("--epochs", type=int, help=epochs)
    add("--batch-size", type=int, help="32 for sno, 64 for the others")
    add("--eta-factor", type=float, help="eta_theta times d, of sno (1, raised as epochs fall)")
    add("--samples", type=int, help="lambda, of sno (2)")
    add("--theta-dtype", choices=THETA_DTYPES, help="of theta, of sno (float64)")
    add("--gradients", choices=GRADIENTS, help="of the structures, of sno (mean)")
    add("--decayed", choices=DECAYED, help="what has weight decay (all)")
    add("--stochastic-samples", type=int, help="structures of the stochastic prediction (0)")
    add("--lr", type=float, help=f"initial learning rate ({kind.lr})")
    add("--momentum", type=float, help="of Nesterov's momentum (0.9)")
    add("--weight-decay", type=float, help="on every parameter (0.0001)")
    add("--examples", type=int, help="train on the first so many (all)")
    add("--test-examples", type=int, help="evaluate on the first so many (all)")
    add("--seed", type=int, default=0)


def _add_where(add, out):
    """Add the options that say where a training runs and writes."""
    add("--device", type=int, default=-1, help="-1 for the CPU, else a GPU")
    add("--data-dir", help="where the data lies, by default the cache directory")
    add("--out", default=out, help=f"gets the records and the snapshots ({out})")


def _add_quick(commands):
    kinds = _experiments(
        commands,
        "quick",
        help="a main job: a short run of an experiment, beside the paper's numbers",
    )
    unit = kinds.add_parser(
        "unit-selection",
        help="section 4.1",
        description="Train the seven penalties of section 4.1 and two fixed structures at the "
        "quick schedule, and print the table beside Table 1.",
    )
    connection = kinds.add_parser(
        "connection-selection",
        help="section 4.2",
        description="Train two penalties of section 4.2 and a random structure for a few hundred "
        "iterations, print the table beside Table 2, and draw Figure 2.",
    )
    for parser in (unit, connection):
        add = parser.add_argument
        _add_where(add, "runs/quick")
        add("--figures", help="gets the figures, by default the directory of the records")
        add("--jobs", type=int, default=2, help="trainings at a time (2)")
        add("--seed", type=int, default=0)
        parser.set_defaults(call=_quick)


def _add_sweep(commands):
    kinds = _experiments(
        commands,
        "sweep",
        help="all runs of an experiment",
        description="Train one run for each method, setting and seed, a complete trial before the "
        "next.  Finished runs are skipped and interrupted ones go on.",
    )
    unit = kinds.add_parser("unit-selection", help="section 4.1")
    connection = kinds.add_parser("connection-selection", help="section 4.2")
    for parser, kind in ((unit, UnitSelection), (connection, ConnectionSelection)):
        add = parser.add_argument
        methods = ",".join(kind.METHODS)
        add("--schedule", default="paper", help=SCHEDULE)
        add("--methods", default=methods, help=f"of {methods} (all)")
        add("--trials", type=int, default=5, help="seeds, from 0 on (5)")
        add("--jobs", type=int, default=2, help="trainings at a time (2)")
        add("--threads", type=int, default=1, help="of each, of connection selection (1)")
        add("--out", default="runs", help="gets the records and the snapshots (runs)")
        add("--data-dir", help="where the data lies, by default the cache directory")
        add("--devices", default="-1", help="-1 for the CPU, or GPUs: 0,1 (-1)")
        add("--scheduler", help="a dask.distributed scheduler, tcp://..., that trains instead")
        add("--retry-failed", action="store_true", help="take runs that failed before again")
        # For trainings smaller or shorter than the paper's.
        add("--epochs", type=int, help="of every run, in the place of the schedule's")
        add("--eta-factor", type=float, help="eta_theta times d of sno (1, raised as epochs fall)")
        add("--examples", type=int, help="train on the first so many (all)")
        add("--test-examples", type=int, help="evaluate on the first so many (all)")
        parser.set_defaults(call=_sweep)
    unit.add_argument("--units", type=int, help="units in each hidden layer (784)")
    unit.add_argument("--layers", type=int, help="hidden layers (3)")
    unit.add_argument("--dataset", choices=GREY, default="mnist")
    connection.add_argument("--depth", type=int, help="of the DenseNet (40)")


def _sweep(arguments):
    kind = EXPERIMENTS[arguments.experiment]
    methods = arguments.methods.split(",")
    for method in methods:
        if method not in kind.METHODS:
            raise ReproduceError(f"method {method!r} is none of {', '.join(kind.METHODS)}")
    try:
        devices = tuple(int(number) for number in arguments.devices.split(","))
    except ValueError as error:
        raise ReproduceError(
            f"--devices {arguments.devices!r} are not numbers: give some such as 0,1, or -1"
        ) from error
    if arguments.trials < 1:
        raise ReproduceError(f"--trials must be at least 1, not {arguments.trials}")
    from reproduce import quick, run, status, sweep

    if arguments.scheduler is None:
        for device in devices:
            run.get_device(device)
    varied = {"method", "seed", *kind.VARIED}
    names = [field.name for field in dataclasses.fields(kind) if field.name not in varied]
    values = {name: getattr(arguments, name, None) for name in names}
    runs = sweep.grid(kind, arguments.schedule, methods, arguments.trials, **values)
    failures = sweep.run_all(
        runs,
        arguments.out,
        arguments.jobs,
        arguments.data_dir,
        devices,
        arguments.retry_failed,
        arguments.scheduler,
        arguments.threads,
    )
    states = [status.state(arguments.out, run) for run in runs]
    print(status.lines(states, arguments.jobs)[-1])
    return quick.report_failures(failures)


def _add_status(commands):
    parser = commands.add_parser("status", help="how the runs of a directory stand")
    parser.add_argument("--out", default="runs", help="the directory of the runs (runs)")
    parser.set_defaults(call=_status)


def _status(arguments):
    from reproduce import status

    states = [status.state(arguments.out, run) for run in status.known_runs(arguments.out)]
    print("\n".join(status.lines(states)))
    for line in status.damaged(arguments.out):
        print(f"reproduce: left out: {line}", file=sys.stderr)


def _add_progress(commands):
    parser = commands.add_parser(
        "progress",
        help="how far unfinished runs are, as files for the report",
        description="Write a small JSON file for each run that has not ended, from its newest "
        "snapshot: iteration, usage, what is selected, the histogram of theta, both errors.",
    )
    add = parser.add_argument
    add("--out", default="runs", help="the directory of the runs (runs)")
    add("--to", default="results/progress", help="gets the files (results/progress)")
    parser.set_defaults(call=_progress)


def _progress(arguments):
    from reproduce import progress
    from reproduce.compare import format_table

    if not Path(arguments.out).is_dir():
        raise ReproduceError(f"{arguments.out!r} is no directory: --out names that of the runs")
    written = progress.write(arguments.out, arguments.to)
    if not written:
        print(f"{arguments.out!r} has no unfinished run with a snapshot.")
        return
    print(format_table(*progress.rows(progress.read_all(arguments.to))))


def _add_runs(add):
    """Add the option that names the directory of the records."""
    add("--runs", default=RUNS, help=f"the directory of the records ({RUNS})")


def _add_compare(commands):
    parser = commands.add_parser(
        "compare",
        help="the records beside the paper's tables and claims",
        description="Print the records beside the paper's tables, and which of its claims hold. "
        "Only records at the paper's schedule are compared with it.",
    )
    _add_runs(parser.add_argument)
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a claim fails")
    parser.set_defaults(call=_compare)


def _compare(arguments):
    from reproduce import claims, compare

    records, refused = _read_records(arguments.runs)
    findings = claims.findings(records)
    if arguments.json:
        found = {
            "experiments": compare.comparison(records),
            "claims": [dataclasses.asdict(finding) for finding in findings],
            "left_out": refused,
        }
        print(json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False))
    else:
        print(f"{compare.text(records)}\n\n{claims.text(findings)}")
    fails = any(finding.outcome == claims.FAILS for finding in findings)
    return int(fails and arguments.strict)


def _read_records(directory):
    """Return the records of a directory and what was left out, told on stderr as well.

    Raises:
        ReproduceError: there is no such directory.
    """
    from reproduce import record

    if not Path(directory).is_dir():
        raise ReproduceError(f"{directory!r} is no directory: --runs names that of the records")
    records, refused = record.read_all(directory)
    for message in refused:
        print(f"reproduce: left out: {message}", file=sys.stderr)
    return records, refused


def _add_report(commands):
    parser = commands.add_parser(
        "report",
        help="REPORT.md and report.html from the records",
        description="Write the tables, claims, figures, costs and runs as REPORT.md and as one "
        "page for a browser, and draw the figures.",
    )
    _add_runs(parser.add_argument)
    parser.add_argument("--out", default="results", help="gets the report and figures (results)")
    parser.set_defaults(call=_report)


def _report(arguments):
    from reproduce import report

    records, refused = _read_records(arguments.runs)
    progress = Path(arguments.runs).parent / "progress"
    print("\n".join(map(str, report.write(records, refused, arguments.out, progress))))


def _add_figures(commands):
    parser = commands.add_parser(
        "figures",
        help="every figure that records allow",
        description="Draw the figures of the paper and three that it lacks, as PNG and SVG, from "
        "the records of a directory, or from those that are named.",
    )
    add = parser.add_argument
    add("records", nargs="*", metavar="RECORD", help="files, in the place of a directory's")
    _add_runs(add)
    add("--out", default="results/figures", help="gets the figures (results/figures)")
    parser.set_defaults(call=_figures)


def _figures(arguments):
    from reproduce import figures, record

    if arguments.records:
        records = [record.read(path) for path in arguments.records]
    else:
        records, _ = _read_records(arguments.runs)
        if not records:
            raise ReproduceError(
                f"{arguments.runs!r} holds no record of a finished run: name another with --runs"
            )
    for drawn in figures.draw_all(records, arguments.out, every_record=bool(arguments.records)):
        print(f"{', '.join(map(str, drawn.files))}\n  {drawn.caption}")


def _add_export(commands):
    parser = commands.add_parser(
        "export",
        help="the trained network of a record, without what its structure leaves out",
        description="Write the trained network of a record as a small plain one, and print what it "
        "costs beside the full network.  The weights are those that the run has left beside its "
        "record, or else those in results/networks.",
    )
    add = parser.add_argument
    add("record", metavar="RECORD", help="the record of a finished run, a JSON file")
    add("--format", choices=("chainer", "onnx"), required=True, help="of the file")
    add("--out", metavar="FILE", help="gets the network (the record's name, .npz or .onnx, here)")
    parser.set_defaults(call=_export)


def _export(arguments):
    from reproduce import export

    export.export(arguments.record, arguments.format, arguments.out)


def _add_rerun(commands):
    parser = commands.add_parser(
        "rerun",
        help="a record trained again, to see that it gives the same bits",
        description="Train the settings of a record again and hold every epoch against it, up to "
        "the first that differs.  The exit code is 1 where one does.  Only the same versions on "
        "the same machine give the same bits; what is not as it was is told.",
    )
    add = parser.add_argument
    add("record", metavar="RECORD", help="the record of a finished run, a JSON file")
    add("--epochs", type=int, help="the first so many of its epochs only (all, and the result)")
    add("--device", type=int, help="a GPU, or -1 for the CPU (what the record names)")
    add("--data-dir", help="where the data lies, by default the cache directory")
    add("--out", default="runs", help="its directory rerun gets the training (runs)")
    add("--quiet", action="store_true", help="no line an epoch")
    parser.set_defaults(call=_rerun)


def _rerun(arguments):
    from reproduce import rerun

    return rerun.rerun(
        arguments.record,
        arguments.epochs,
        arguments.out,
        arguments.device,
        arguments.data_dir,
        arguments.quiet,
    )


def _add_regress(commands):
    parser = commands.add_parser(
        "regress",
        help="short trainings held against what they gave before",
        description="Train fixed short cases of both experiments and hold them against the "
        "baselines: the first iterations to rounding, structure and error after a short run to a "
        "band.  The exit code is 1 where something has drifted.",
    )
    add = parser.add_argument
    add("--traces", action="store_true", help="the first iterations only: seconds, and no data")
    add("--cases", help="of these names only, with commas between them (all)")
    add("--update", action="store_true", help="write the baselines and show what differs")
    add("--baselines", help="their directory (results/regression)")
    add("--jobs", type=int, default=2, help="short runs at a time (2)")
    add("--data-dir", help="where the data lies, by default the cache directory")
    parser.set_defaults(call=_regress)


def _regress(arguments):
    from reproduce import regress

    return regress.regress(
        arguments.baselines or regress.BASELINES,
        arguments.cases.split(",") if arguments.cases else None,
        arguments.traces,
        arguments.update,
        arguments.jobs,
        arguments.data_dir,
    )


def _quick(arguments):
    from reproduce import quick

    return quick.run(
        arguments.experiment,
        arguments.out,
        arguments.figures or arguments.out,
        arguments.jobs,
        arguments.seed,
        arguments.device,
        arguments.data_dir,
    )


def _settings(arguments):
    kind = EXPERIMENTS[arguments.experiment]
    values = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(kind)}
    if values["epsilon0"] is not None:
        values["epsilon0"] = parse_epsilon0(values["epsilon0"])
    settings = kind.at(arguments.schedule, **values)
    # What does not apply to the method is left out, with a word about it.
    for name, method in {**settings.VARIED, **settings.APPLIES_TO}.items():
        if values[name] is not None and values["method"] != method:
            print(
                f"reproduce: --{name.replace('_', '-')} applies to --method {method} and is "
                f"left out with {values['method']}",
                file=sys.stderr,
            )
    fraction = fraction_of_paper(settings)
    if fraction < 1:
        line = f"This is a short run: {float(fraction):.2g} of the paper's iterations"
        if settings.eta_factor and values["eta_factor"] is None:
            line += (
                f"; so eta_theta is {settings.eta_factor:g}/d, without which theta stays near 0.5 "
                "and M* is arbitrary (--eta-factor 1 for the paper's 1/d)"
            )
        print(line + ".")
    changes = settings.changes()
    if changes:
        # A mistyped option would otherwise train for hours what no table is compared with.
        paper = settings.paper
        told = []
        for name, value in changes.items():
            # Of what applies, the numbers of examples alone have no value in the paper's: all.
            published = getattr(paper, name)
            told.append(f"{name}={value} ({'all' if published is None else published})")
        print(f"Not the paper's settings, which stand in brackets: {', '.join(told)}.")
    return settings


def _run(arguments):
    settings = _settings(arguments)
    from reproduce import run

    found = run.run(
        settings,
        arguments.out,
        arguments.device,
        arguments.data_dir,
        arguments.snapshot_interval,
        arguments.quiet,
        arguments.plain,
        arguments.parent,
        arguments.wait,
        threads=arguments.threads,
    )
    result = found["result"]
    name = "units" if "units" in result else "connections"
    print(
        f"test error {result['test_error']:.2%}, {name} {'/'.join(map(str, result[name]))}, "
        f"usage rate {result['usage_rate']:.1%}, weights {result['weight_ratio']:.1%}"
    )


def make_parser():
    """Return the parser of the command line, whose errors are one line each."""
    parser = _Parser(prog="python -m reproduce", description="The experiments of the paper.")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    _add_data(commands)
    _add_run(commands)
    _add_quick(commands)
    _add_sweep(commands)
    _add_status(commands)
    _add_progress(commands)
    _add_compare(commands)
    _add_report(commands)
    _add_figures(commands)
    _add_export(commands)
    _add_rerun(commands)
    _add_regress(commands)
    return parser


def parse(arguments):
    """Return the values of a command line.

    Args:
        arguments (list of str): of the command line.

    Raises:
        ReproduceError: there is no such command or option, or a value is not as it should be.
    """
    return _expanded(make_parser().parse_args(_negative_values(arguments)))


#: The options and arguments that name files and directories.
_PATHS = ("baselines", "data_dir", "figures", "out", "record", "records", "runs", "source", "to")


def _expanded(parsed):
    """Write out the home directory, which no shell does in ``--out=~/runs``.

    Raises:
        ReproduceError: there is no such home directory.
    """

    def expand(path):
        found = os.path.expanduser(path)
        if found.startswith("~"):
            raise ReproduceError(
                f"{path!r} names a home directory that is not known: write it out, or ./{path} for "
                "a name that begins like this"
            )
        return found

    for name in _PATHS:
        value = getattr(parsed, name, None)
        if isinstance(value, str):
            setattr(parsed, name, expand(value))
        elif isinstance(value, list):
            setattr(parsed, name, [expand(path) for path in value])
    return parsed


def main(arguments=None):
    """Run a command.

    Args:
        arguments (list of str): of the command line.

    Returns:
        int: the exit code: 0, 1 where a command says so, 2 for what the user can mend, and 128
        plus the signal's number after a signal.
    """
    try:
        with streams.checked() as printed:
            code = _call(arguments)
    except SystemExit:  # of --help
        if printed.failed:
            return ReproduceError.exit_code
        raise
    return code or (ReproduceError.exit_code if printed.failed else 0)


def _call(arguments):
    """Run a command; return its exit code."""
    try:
        parsed = parse(sys.argv[1:] if arguments is None else arguments)
        code = parsed.call(parsed) or 0
        sys.stdout.flush()
        return code
    except ReproduceError as error:
        print(f"reproduce: {error}", file=sys.stderr)
        return error.exit_code
    except Interrupted as error:
        print(f"reproduce: {error}", file=sys.stderr)
        return 128 + error.signal
    except KeyboardInterrupt:
        print("reproduce: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read what is printed has ended, as ``head`` does; what is still to be written when
        # the interpreter ends goes nowhere.
        streams.to_nowhere(sys.stdout)
        return 128 + signal.SIGPIPE
    except OSError as error:
        named = f"{str(error.filename)!r}: " if error.filename is not None else ""
        print(f"reproduce: {named}{error.strerror or error}", file=sys.stderr)
        return ReproduceError.exit_code
