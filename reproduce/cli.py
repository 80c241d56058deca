"""The command line: ``python -m reproduce ...``."""

import argparse
import dataclasses
import json
import os
import signal
import sys
from pathlib import Path

from reproduce import Interrupted, ReproduceError, experiments
from reproduce.datasets import DATASETS
from reproduce.settings import flag, fraction_of_paper, parse_epsilon0

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
    parser.add_argument("dataset", choices=tuple(DATASETS))
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
    for name, experiment in experiments.all_experiments().items():
        parser = kinds.add_parser(name, help=experiment.help)
        add = parser.add_argument
        add("--schedule", default="paper", help=f"the defaults of what follows: {SCHEDULE}")
        for setting in experiment.settings.options():
            _add_setting(add, experiment.settings, setting)
        _add_where(add, "runs")
        add("--snapshot-interval", type=int, help="iterations between snapshots (a minute)")
        add("--quiet", action="store_true", help="no line an epoch")
        add("--plain", action="store_true", help="train without the fast paths")
        add("--threads", type=int, default=1, help="of one training of connection selection (1)")
        add("--parent", type=int, help="stop when this process is no longer the parent")
        add("--wait", type=float, default=1.0, help="seconds to wait for another's run (1)")
        parser.set_defaults(call=_run)


def _add_setting(add, kind, name, several=False):
    """Add the option of a setting.

    Args:
        add (callable): a parser's ``add_argument``.
        kind (type): of the settings.
        name (str): of the setting.
        several (bool): take several values with commas between them.
    """
    option = kind.options()[name]
    words = option.help + f", of {option.method}" * bool(option.method)
    if several:
        parse = _several(option.type)
        words += ", or several with commas between them"
    else:
        words += f" ({_default(kind, name)})"
        # The text of a penalty is parsed later, so that its message is the one of every command.
        parse = str if option.type is parse_epsilon0 else option.type
    choices = None if several else option.choices or None
    add(flag(name), type=parse, choices=choices, help=words.replace("%", "%%"))


def _several(parse):
    """Return a function that parses values with commas between them."""

    def values(text):
        return [parse(part) for part in text.split(",")]

    values.__name__ = f"list of {getattr(parse, '__name__', 'value')}"
    return values


def _default(kind, name):
    """Return the default of a setting in words; it may depend on the method."""
    option = kind.options()[name]
    if option.default or option.reading:
        return option.default or option.choices[0]
    methods = [method for method in kind.methods() if option.method in (None, method)]
    found = {}
    for method in methods:
        value = getattr(kind(method=method), name)
        found.setdefault("none" if value is None else option.text(value), []).append(method)
    if len(found) == 1 or name == "method":
        return next(iter(found))
    return ", ".join(f"{text} for {' and '.join(of)}" for text, of in found.items())


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
    for name, experiment in experiments.all_experiments().items():
        parser = kinds.add_parser(
            name,
            help=experiment.help,
            description="Train some settings of the experiment as a short run, print the table "
            "beside the paper's, and draw the figures.",
        )
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
        help="many runs of an experiment",
        description="Train one run for each method, setting and seed, a complete trial before the "
        "next.  Finished runs are skipped and interrupted ones go on.",
    )
    for name, experiment in experiments.all_experiments().items():
        kind = experiment.settings
        parser = kinds.add_parser(name, help=experiment.help)
        add = parser.add_argument
        methods = ",".join(kind.methods())
        add("--schedule", default="paper", help=SCHEDULE)
        add("--methods", default=methods, help=f"of {methods} (all)")
        add("--trials", type=int, help="seeds, from 0 on (5)")
        add("--seeds", type=_several(int), help="the seeds themselves, with commas between them")
        add("--jobs", type=int, default=2, help="trainings at a time (2)")
        add("--threads", type=int, default=1, help="of each, of connection selection (1)")
        add("--out", default="runs", help="gets the records and the snapshots (runs)")
        add("--data-dir", help="where the data lies, by default the cache directory")
        add("--devices", default="-1", help="-1 for the CPU, or GPUs: 0,1 (-1)")
        add("--scheduler", help="a dask.distributed scheduler, tcp://..., that trains instead")
        add("--retry-failed", action="store_true", help="take runs that failed before again")
        add("--dry-run", action="store_true", help="print the runs and what they cost; train none")
        for setting in kind.options():
            if setting not in ("method", "seed"):
                _add_setting(add, kind, setting, several=setting in kind.varied())
        parser.set_defaults(call=_sweep)


def _sweep(arguments):
    experiment = experiments.get(arguments.experiment)
    kind = experiment.settings
    methods = arguments.methods.split(",")
    for method in methods:
        kind.options()["method"].check("--methods", method)
    try:
        devices = tuple(int(number) for number in arguments.devices.split(","))
    except ValueError as error:
        raise ReproduceError(
            f"--devices {arguments.devices!r} are not numbers: give some such as 0,1, or -1"
        ) from error
    if arguments.seeds is not None and arguments.trials is not None:
        raise ReproduceError("--seeds and --trials contradict each other: give one of them")
    trials = 5 if arguments.trials is None else arguments.trials
    if trials < 1:
        raise ReproduceError(f"--trials must be at least 1, not {trials}")
    values = {
        name: value
        for name in kind.options()
        if name not in ("method", "seed") and (value := getattr(arguments, name)) is not None
    }
    varied = {name: values.pop(name) for name in kind.varied() if name in values}
    for name in varied:
        if kind.varied()[name] not in methods:
            raise ReproduceError(
                f"{flag(name)} applies to {kind.varied()[name]}, which --methods leaves out"
            )
    seeds = range(trials) if arguments.seeds is None else arguments.seeds
    from reproduce import quick, run, status, sweep

    runs = sweep.grid(experiment, arguments.schedule, seeds, methods, varied, **values)
    if arguments.dry_run:
        from reproduce import costs

        print(costs.estimate(runs, arguments.out, RUNS))
        return 0
    if arguments.scheduler is None:
        for device in devices:
            run.get_device(device)
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
        help="the results page, findings and tables from the records",
        description="Write README.md (the results page), FINDINGS.md (their interpretation), "
        "REPORT.md (all tables) and report.html (one page for a browser, with all figures) from "
        "the records, and draw the figures.",
    )
    _add_runs(parser.add_argument)
    parser.add_argument("--out", default="results", help="gets the pages and figures (results)")
    parser.set_defaults(call=_report)


def _report(arguments):
    from reproduce import report

    records, refused = _read_records(arguments.runs)
    beside = Path(arguments.runs).parent
    written = report.write(records, refused, arguments.out, beside / "progress", beside / "pilot")
    print("\n".join(map(str, written)))


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
        description="Train the settings of a record again and compare every epoch, up to the first "
        "that differs.  The exit code is 1 if one does.  Only the same versions and the same BLAS "
        "kernels give the same bits: the command prints what differs, names a record that this "
        "machine can repeat, and says how large a difference is and whether it is only rounding.",
    )
    add = parser.add_argument
    add("record", metavar="RECORD", help="the record of a finished run, a JSON file")
    add("--epochs", type=int, help="compare the first epochs only (all, and the result)")
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
    kind = experiments.get(arguments.experiment).settings
    options = kind.options()
    values = {name: getattr(arguments, name) for name in options}
    if values["epsilon0"] is not None:
        values["epsilon0"] = parse_epsilon0(values["epsilon0"])
    settings = kind.at(arguments.schedule, **values)
    # What does not apply to the method is left out, with a word about it.
    for name, option in options.items():
        if values[name] is not None and option.method not in (None, settings.method):
            print(
                f"reproduce: {flag(name)} applies to --method {option.method} and is "
                f"left out with {settings.method}",
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

    options = run.Options(
        device=arguments.device,
        data_dir=arguments.data_dir,
        interval=arguments.snapshot_interval,
        quiet=arguments.quiet,
        plain=arguments.plain,
        parent=arguments.parent,
        wait=arguments.wait,
        threads=arguments.threads,
    )
    found = run.run(settings, arguments.out, options)
    result = found["result"]
    experiment = experiments.of(settings)
    sizes = "/".join(map(str, experiment.sizes(result)))
    print(
        f"test error {result['test_error']:.2%}, {experiment.selected} {sizes}, "
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
    return make_parser().parse_args(_negative_values(arguments))


def main(arguments=None):
    """Run a command.

    Args:
        arguments (list of str): of the command line.

    Returns:
        int: the exit code: 0, 1 where a command says so, 2 for what the user can mend, and 128
        plus the signal's number after a signal.
    """
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
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
