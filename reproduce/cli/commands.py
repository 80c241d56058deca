"""What each command does with the values of its options.

A command imports what it needs when it is called, so that ``status`` does not wait for Chainer.
"""

import dataclasses
import json
import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reproduce import ReproduceError, experiments
from reproduce._types import Record
from reproduce.settings import Settings, flag, fraction_of_paper, parse_epsilon0

#: Where the committed records lie.
RUNS = "results/runs"


def data(arguments: Namespace) -> None:
    """Fetch a data set."""
    from reproduce import data

    data.fetch(arguments.dataset, arguments.data_dir, arguments.source)


def sweep(arguments: Namespace) -> int:
    """Train many runs, or print the hours that they take."""
    experiment = experiments.get(arguments.experiment)
    methods = _methods(arguments, experiment.settings)
    devices = _devices(arguments)
    seeds = _seeds(arguments)
    varied, values = _values(arguments, experiment.settings, methods)
    from reproduce import quick, run, status, sweep

    runs = sweep.grid(experiment, arguments.schedule, seeds, methods, varied, **values)
    sweep.check_threads(runs, arguments.threads)
    if arguments.dry_run:
        from reproduce import budget

        print(budget.of_runs(runs, arguments.out, RUNS))
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


def _methods(arguments: Namespace, kind: type[Settings]) -> list[str]:
    """Return the methods of a sweep, each once.

    Raises:
        ReproduceError: the experiment has no such method.
    """
    methods = list(dict.fromkeys(arguments.methods))
    for method in methods:
        if method not in kind.methods():
            raise ReproduceError(
                f"--methods: there is no method {method!r}: give some of "
                f"{', '.join(kind.methods())}"
            )
    return methods


def _devices(arguments: Namespace) -> tuple[int, ...]:
    """Return the devices of a sweep.

    Raises:
        ReproduceError: one is no number, or less than -1.
    """
    try:
        devices = tuple(map(int, arguments.devices))
    except ValueError as error:
        raise ReproduceError(
            f"--devices: {','.join(arguments.devices)!r} is not a list of numbers: give -1 for the "
            "CPU, or GPUs such as 0,1"
        ) from error
    if min(devices) < -1:
        raise ReproduceError(
            f"--devices: there is no device {min(devices)}: give -1 for the CPU, or GPUs such as "
            "0,1"
        )
    return devices


def _seeds(arguments: Namespace) -> Sequence[int]:
    """Return the seeds of a sweep: those of five trials by default.

    Raises:
        ReproduceError: seeds and a number of trials are given.
    """
    if arguments.seeds is None:
        return range(5 if arguments.trials is None else arguments.trials)
    if arguments.trials is not None:
        raise ReproduceError("--seeds and --trials contradict each other: give one of them")
    return arguments.seeds


def _values(
    arguments: Namespace, kind: type[Settings], methods: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the given settings of a sweep: lists of what varies within a method, and the others.

    Raises:
        ReproduceError: one applies to a method that is left out.
    """
    values = {
        name: value
        for name in kind.options()
        if name not in ("method", "seed") and (value := getattr(arguments, name)) is not None
    }
    varied = {name: values.pop(name) for name in kind.varied() if name in values}
    for name in (*varied, *values):
        method = kind.options()[name].method
        if method is not None and method not in methods:
            raise ReproduceError(f"{flag(name)} applies to {method}, which --methods leaves out")
    return varied, values


def status(arguments: Namespace) -> None:
    """Print the state of the runs of a directory."""
    from reproduce import status

    _check_directory("--out", arguments.out, "of the runs")
    states = [status.state(arguments.out, run) for run in status.known_runs(arguments.out)]
    damaged = status.damaged(arguments.out)
    if not states and not damaged:
        raise ReproduceError(_no_runs(arguments.out))
    print("\n".join(status.lines(states)))
    for line in damaged:
        print(f"reproduce: left out: {line}", file=sys.stderr)


def _check_directory(option: str, directory: str, of: str) -> None:
    """Check that the directory of an option exists.

    Raises:
        ReproduceError: it does not.
    """
    if not os.path.isdir(directory):
        raise ReproduceError(
            f"{option}: there is no directory {directory!r}: give the directory {of}"
        )


def _no_runs(directory: str) -> str:
    return (
        f"--out: {directory!r} holds no runs: give the directory that their trainings had as --out"
    )


def progress(arguments: Namespace) -> None:
    """Write the progress of unfinished runs."""
    from reproduce import progress, status
    from reproduce.compare import format_table

    _check_directory("--out", arguments.out, "of the runs")
    if not status.known_runs(arguments.out):
        raise ReproduceError(_no_runs(arguments.out))
    written = progress.write(arguments.out, arguments.to)
    if not written:
        print(f"{arguments.out!r} has no unfinished run with a snapshot.")
        return
    print(format_table(*progress.rows(progress.read_all(arguments.to))))


def compare(arguments: Namespace) -> int:
    """Print the records beside the paper's tables and claims."""
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


def _read_records(directory: str) -> tuple[list[Record], list[str]]:
    """Return the records of a directory and the files that were left out; name these on stderr.

    Raises:
        ReproduceError: there is no such directory, or no record in it.
    """
    from reproduce import record

    _check_directory("--runs", directory, "of the records")
    records, refused = record.read_all(directory)
    for message in refused:
        print(f"reproduce: left out: {message}", file=sys.stderr)
    if not records:
        raise ReproduceError(
            f"--runs: {directory!r} holds no record of a finished run: give another directory"
        )
    return records, refused


def report(arguments: Namespace) -> None:
    """Write the report."""
    from reproduce import report

    records, refused = _read_records(arguments.runs)
    beside = Path(arguments.runs).parent
    written = report.write(records, refused, arguments.out, beside / "progress", beside / "pilot")
    print("\n".join(map(str, written)))


def figures(arguments: Namespace) -> None:
    """Draw the figures."""
    from reproduce import figures, record

    if arguments.records:
        records = [record.read(path) for path in arguments.records]
    else:
        records, _ = _read_records(arguments.runs)
    for drawn in figures.draw_all(records, arguments.out, every_record=bool(arguments.records)):
        print(f"{', '.join(map(str, drawn.files))}\n  {drawn.caption}")


def export(arguments: Namespace) -> None:
    """Write a trained network."""
    from reproduce import export

    export.export(arguments.record, arguments.format, arguments.out)


def rerun(arguments: Namespace) -> int:
    """Train a record again."""
    from reproduce import rerun

    return rerun.rerun(
        arguments.record,
        arguments.epochs,
        arguments.out,
        arguments.device,
        arguments.data_dir,
        arguments.quiet,
    )


def regress(arguments: Namespace) -> int:
    """Compare short trainings with their baselines."""
    from reproduce import regress

    return regress.regress(
        arguments.baselines or regress.BASELINES,
        arguments.cases,
        arguments.traces,
        arguments.update,
        arguments.jobs,
        arguments.data_dir,
    )


def quick(arguments: Namespace) -> int:
    """Train the short runs of an experiment."""
    from reproduce import quick, run

    run.get_device(arguments.device)
    return quick.run(
        arguments.experiment,
        arguments.out,
        arguments.figures or arguments.out,
        arguments.jobs,
        arguments.seed,
        arguments.device,
        arguments.data_dir,
    )


def settings_of(arguments: Namespace) -> Settings:
    """Return the settings of a command line, and print those that differ from the paper's."""
    kind = experiments.get(arguments.experiment).settings
    options = kind.options()
    values = {name: getattr(arguments, name) for name in options}
    if values["epsilon0"] is not None:
        values["epsilon0"] = parse_epsilon0(values["epsilon0"])
    settings = kind.at(arguments.schedule, **values)
    # Settings that do not apply to the method are left out, with a message.
    for name, option in options.items():
        if values[name] is not None and option.method not in (None, settings.method):
            print(
                f"reproduce: {flag(name)} applies to --method {option.method} and is "
                f"left out with {settings.method}",
                file=sys.stderr,
            )
    fraction = fraction_of_paper(settings)
    if fraction < 1:
        line = f"This is a short run: {float(fraction):.2g} of the full length"
        if (settings.eta_factor or 1) > 1 and values["eta_factor"] is None:
            line += (
                f"; so eta_theta is {settings.eta_factor:g}/d, without which theta stays near 0.5 "
                "and M* is arbitrary (--eta-factor 1 for the paper's 1/d)"
            )
        print(line + ".")
    changes = settings.changes()
    if changes:
        # Otherwise a mistyped option would train for hours, and no table would use the result.
        paper = settings.paper
        told = []
        for name, value in changes.items():
            published, option = getattr(paper, name), options[name]
            if published is None:
                published = option.choices[0] if option.reading else option.default
            told.append(f"{name}={value} ({published})")
        print(f"Not the paper's settings, which stand in brackets: {', '.join(told)}.")
    return settings


def run(arguments: Namespace) -> None:
    """Train one run and print its result."""
    settings = settings_of(arguments)
    if arguments.parent not in (None, os.getppid()):
        raise ReproduceError(
            f"--parent: process {arguments.parent} is not the parent of this process, which is "
            f"{os.getppid()}: leave the option out"
        )
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
