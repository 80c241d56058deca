r"""Short trainings compared with their earlier numbers, so that no change goes unnoticed.

A case is a fixed training with a baseline, one file of ``results/regression/``.  There are two
kinds.

A *trace* is some iterations on generated images, in float64.  Its numbers are the losses of every
iteration, of each structure where there are some, :math:`\theta` after every iteration, and all
parameters, statistics and results at the end.  Each must agree with the baseline to within
:data:`TOLERANCE`.  The smallest change of the method exceeds it, while another BLAS, which adds in
another order, stays hundreds of times below.  Only one thing could make a rounding large: two
structures whose losses lie so close that the rounding decides which ranks first.  So a baseline is
written only if the losses of every iteration differ by at least :data:`MARGIN`.

A *short run* is a training on the real data, in float32 like all runs.  Its test error and its
structure must lie in the bands of the baseline.  In float32 roundings decide rankings, so a seed on
another machine gives a result that another seed could have given here, and a band is computed from
:data:`SEEDS` seeds.  The mean of :data:`AGAIN` seeds may differ from their mean by at most
:data:`WIDTH` standard errors of the difference; a normal quantity exceeds this with a probability
of 9e-5.
"""

import dataclasses
import json
import math
import shlex
import statistics
import tempfile
from pathlib import Path

import numpy
import threadpoolctl

from chainer_sno import chainer
from reproduce import ROOT, ReproduceError, compare, experiments, record, sweep
from reproduce.experiments.connection_selection import ConnectionSelection
from reproduce.experiments.unit_selection import UnitSelection
from reproduce.files import make_writable
from reproduce.run import get_device

#: The version of the form of a baseline.
SCHEMA = 1
#: Where the baselines are.
BASELINES = ROOT / "results" / "regression"
#: The most by which a number of a trace may differ: relative if it is above one, else absolute.
TOLERANCE = 1e-9
#: The least difference between the losses of different structures, as a fraction.
MARGIN = 1e-6
#: The seeds that give the band of a short run, from 0 on.
SEEDS = 12
#: The seeds that are trained again.
AGAIN = 2
#: Half the width of a band, in standard errors of the difference of the two means.
WIDTH = 6
#: The quantities of a trace that have a row for every iteration.
SERIES = ("losses", "theta")
#: Rows of a table about one case; a fault that moves one number moves most of them.
ROWS = 5


@dataclasses.dataclass(frozen=True)
class Case:
    """A training that has a baseline.

    Attributes:
        settings (Settings): what to train.
        plain (bool): without the fast path; of a trace.
        ties (bool): different structures may have equal losses.  They are equal to the bit on
            every machine only if a layer is empty, because the rest is then made of exact zeros.
    """

    settings: object
    plain: bool = False
    ties: bool = False


def _units(**values):
    """Return settings of a trace of unit selection: 48 iterations, eight epochs.

    With this eta_theta, bits are at the ends of theta's range from the middle on.  With this decay,
    the effect of decayed biases shows.
    """
    common = {"epochs": 8, "examples": 60, "test_examples": 40, "batch_size": 10, "lr": 0.05}
    common |= {"weight_decay": 0.05, "units": 24, "layers": 2}
    if values.get("method", "sno") == "sno":
        common |= {"epsilon0": 0.125, "eta_factor": 8}
    return UnitSelection(**common | values)


def _connections(**values):
    """Return settings of a trace of connection selection: 24 iterations, four epochs.

    There are enough connections that almost every structure has a path.  After a layer without
    inputs, a batch normalisation would divide rounding errors by almost zero.
    """
    common = {"epochs": 4, "examples": 60, "test_examples": 20, "batch_size": 10}
    common |= {"weight_decay": 0.01, "depth": 16, "growth_rate": 3, "reestimate": 0}
    if values.get("method", "sno") == "sno":
        common |= {"epsilon0": -1.0, "eta_factor": 12}
    return ConnectionSelection(**common | values)


#: The traces by name; those named for the paper have its networks, penalties and mini-batches.
TRACES = {
    "units": Case(_units()),
    "units-plain": Case(_units(epsilon0=-0.125, samples=4), plain=True),
    # A layer of three units is often empty, and such structures are equal.
    "units-ties": Case(
        _units(units=3, layers=3, epsilon0=-0.125, samples=5, eta_factor=2), ties=True
    ),
    "units-fixed": Case(_units(method="fixed", width=16)),
    "units-dropout": Case(_units(method="dropout")),
    "units-dropout-plain": Case(_units(method="dropout", seed=1), plain=True),
    "units-paper": Case(
        UnitSelection(epochs=4, examples=96, test_examples=40, epsilon0=2.0**-6, eta_factor=200)
    ),
    "connections": Case(_connections()),
    "connections-plain": Case(
        _connections(epsilon0=0.25, samples=4, eta_factor=6, epochs=2, seed=5), plain=True
    ),
    "connections-random": Case(_connections(method="random", usage_rate=0.675)),
    "connections-paper": Case(
        ConnectionSelection(
            epochs=2, examples=32, test_examples=10, epsilon0=2.0**-4, eta_factor=50, reestimate=0
        )
    ),
}
_SHORT_DENSENET = {
    "depth": 16,
    "growth_rate": 4,
    "epochs": 1,
    "batch_size": 32,
    "examples": 6400,
    "test_examples": 1000,
    "reestimate": 0,
}
#: The short runs by name.  Penalties are such that seeds end near each other.
RUNS = {
    "run-units": Case(
        UnitSelection(epsilon0=2.0**-5, units=128, epochs=5, examples=12800, eta_factor=8)
    ),
    "run-units-fixed": Case(
        UnitSelection(method="fixed", width=41, units=128, epochs=10, examples=12800)
    ),
    "run-units-dropout": Case(
        UnitSelection(method="dropout", units=128, epochs=10, examples=12800)
    ),
    "run-connections": Case(ConnectionSelection(epsilon0=-1.0, eta_factor=4, **_SHORT_DENSENET)),
    "run-connections-random": Case(
        ConnectionSelection(method="random", usage_rate=0.803, **_SHORT_DENSENET)
    ),
}


def fingerprint(array):
    """Return two numbers that change whenever an element of an array does: its norm, and its sum.

    The sum is that of the elements times the cosines of their places, of which no two are alike, so
    that an exchange of elements shows as well.

    Args:
        array (numpy.ndarray): of numbers.

    Returns:
        list of float: norm and sum.
    """
    flat = numpy.asarray(array, dtype=numpy.float64).ravel()
    return [float(numpy.linalg.norm(flat)), float(flat @ numpy.cos(numpy.arange(len(flat))))]


def generated_data(settings):
    """Return images that can be learnt and need no file: a pattern for each class, with noise.

    Args:
        settings (Settings): of a trace; their images are of its experiment's kind and number.

    Returns:
        tuple: as :func:`reproduce.data.load` returns it.
    """
    rng = numpy.random.default_rng(20190907)
    # Images of colours are small ones here.
    shape = settings.data.shape if len(settings.data.shape) == 1 else (3, 8, 8)
    classes = settings.data.classes
    patterns = rng.integers(0, 128, (classes, *shape))

    def part(count):
        labels = rng.integers(0, classes, count).astype(numpy.int32)
        images = (patterns[labels] + rng.integers(0, 128, (count, *shape))).astype(numpy.uint8)
        if len(shape) == 1:
            # MNIST's upper rows are dark, which the fast path leaves out.
            images[:, : shape[0] // 4] = 0
        return images, labels

    return part(settings.examples), part(settings.test_examples)


def trace(case):
    """Train a case and return its numbers.

    Args:
        case (Case): one of :data:`TRACES`.

    Returns:
        tuple: the numbers, nested lists by name: ``losses`` (iterations, structures), ``theta``,
        the fingerprint after every iteration, the fingerprint of every array of the network and
        the distribution at the end, and what a record would call the result; and how close the
        losses of an iteration come, see :func:`closest`.

    Raises:
        ReproduceError: the training failed.
    """
    losses, theta, gaps = [], [], [math.inf]
    with (
        threadpoolctl.threadpool_limits(1, user_api="blas"),
        chainer.using_config("dtype", numpy.dtype("float64")),
        tempfile.TemporaryDirectory() as directory,
    ):
        data = generated_data(case.settings)
        training = experiments.of(case.settings).training(
            case.settings, data, get_device(-1), directory, case.plain
        )
        updater = training.trainer.updater
        if training.bernoulli is not None:
            # The updater reports their mean only.
            step = updater.step

            def listening(x, t, structures):
                found = step(x, t, structures)
                losses.append(found.tolist())
                gaps.append(closest(found, structures))
                theta.append(fingerprint(training.bernoulli.theta))
                return found

            updater.step = listening
        else:
            training.trainer.extend(
                lambda trainer: losses.append([float(trainer.observation["main/loss"])]),
                name="losses",
                trigger=(1, "iteration"),
            )
        training.trainer.run(show_loop_exception_msg=False)
        numbers = {"losses": losses}
        if theta:
            numbers["theta"] = theta
        for name, array in training.arrays().items():
            if name != "bernoulli/settings":  # which are no result
                numbers[f"final {name}"] = fingerprint(array)
        for name, value in training.result().items():
            if not isinstance(value, str) and value is not None:
                numbers[f"result {name}"] = value
    return numbers, min(gaps)


def closest(losses, structures):
    """Return how close the losses of two structures of an iteration come.

    Equal structures count for nothing: whichever ranks first, theta moves alike.

    Args:
        losses (array): shape (lambda,).
        structures (array): bool of shape (lambda, d).

    Returns:
        float: the smallest difference as a fraction of the loss; infinite where there are no two.
    """
    order = numpy.argsort(losses)
    losses, structures = losses[order], structures[order]
    differ = (structures[1:] != structures[:-1]).any(axis=1)
    return float((numpy.diff(losses) / losses[1:])[differ].min(initial=math.inf))


def measures(result, experiment):
    """Return the quantities that have a band: the test error and the structure.

    Args:
        result (dict): of the record of a run.
        experiment (Experiment): of the run.

    Returns:
        dict: numbers by name.
    """
    found = {name: result[name] for name in ("test_error", "usage_rate", "weight_ratio")}
    sizes = experiment.sizes(result)
    return found | {f"{experiment.selected} {i}": count for i, count in enumerate(sizes, 1)}


def band(values):
    """Return where the mean of :data:`AGAIN` seeds may lie.

    Args:
        values (sequence of float): of each seed of the baseline.

    Returns:
        tuple: the ends, a rounding further out: what is the same for all seeds has no width.
    """
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    half = WIDTH * deviation * math.sqrt(1 / AGAIN + 1 / len(values)) + 1e-9 * max(1, abs(mean))
    return mean - half, mean + half


def read(name, directory, data_dir=None):
    """Read a baseline.

    Args:
        name (str): of the case.
        directory (pathlib.Path): of the baselines.
        data_dir (str or pathlib.Path): where the data lies, for the command in a message.

    Returns:
        dict: the baseline, its numbers as arrays of float64.

    Raises:
        ReproduceError: it is missing, damaged or of another schema; the message names the file and
            the command that writes it again.
    """
    path = Path(directory) / f"{name}.json"
    mend = f"python -m reproduce regress --update --cases {name}"
    if Path(directory) != BASELINES:
        mend += f" --baselines {shlex.quote(str(directory))}"
    if data_dir is not None and name in RUNS:
        mend += f" --data-dir {shlex.quote(str(data_dir))}"
    try:
        content = json.loads(path.read_text())
        if content["schema"] != SCHEMA:
            raise ReproduceError(
                f"the baseline {str(path)!r} has schema {content['schema']!r}, not {SCHEMA}: "
                f"write it anew with {mend}"
            )
        if content["case"] != name:
            raise ReproduceError(
                f"{str(path)!r} is the baseline of {content['case']!r}, not of {name!r}: write "
                f"it anew with {mend}"
            )
        content["settings"].keys()
        numbers = content["numbers"]
        numbers = {key: numpy.asarray(value, dtype="d") for key, value in numbers.items()}
        if not all(numpy.isfinite(array).all() for array in numbers.values()):
            raise ValueError("a number is not finite")
        if name in TRACES and "losses" not in numbers:
            raise ValueError("it holds no losses")
        if name in RUNS and {array.shape for array in numbers.values()} != {(SEEDS,)}:
            raise ValueError(f"it does not hold {SEEDS} seeds")
    except FileNotFoundError as error:
        raise ReproduceError(f"there is no baseline {str(path)!r}: write it with {mend}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReproduceError(
            f"the baseline {str(path)!r} is damaged ({error!r}): write it anew with {mend}"
        ) from error
    return {**content, "numbers": numbers}


def write(name, case, numbers, directory, **more):
    """Write a baseline in one step.

    Args:
        name (str): of the case.
        case (Case): the case.
        numbers (dict): of it.
        directory (pathlib.Path): of the baselines.
        **more: what else the file should say.
    """
    content = {
        "schema": SCHEMA,
        "case": name,
        **more,
        "settings": case.settings.as_dict(),
        "plain": case.plain,
        "versions": record.versions(),
        "machine": record.machine(get_device(-1)),
        "numbers": numbers,
    }
    record.write(make_writable(directory) / f"{name}.json", content)


def hold(found, expected):
    """Compare the numbers of a trace with a baseline.

    Args:
        found (dict): numbers by name.
        expected (dict): arrays by name, float64.  Names that only ``found`` has are ignored: the
            effect of a new parameter shows in the others.

    Returns:
        tuple: the largest deviation in units of :data:`TOLERANCE`, and a row of a table for every
        name with a number beyond it: where the first is, found, expected and tolerance.
    """
    largest, rows = 0.0, []
    for name, old in expected.items():
        new = numpy.asarray(found.get(name, []), dtype="d")
        if new.shape != old.shape:
            largest = math.inf
            rows.append([name, f"shape {new.shape}", f"shape {old.shape}", "equal"])
            continue
        limit = TOLERANCE * numpy.maximum(1, abs(old))
        apart = abs(new - old) / limit
        apart = numpy.where(numpy.isnan(apart), math.inf, apart)
        largest = max(largest, float(apart.max(initial=0)))
        for place in map(tuple, numpy.argwhere(apart > 1)[:1]):
            where = f"{name}, iteration {place[0] + 1}" if name in SERIES else name
            rows.append([where, f"{new[place]:.13g}", f"{old[place]:.13g}", f"{limit[place]:.1g}"])
    return largest, rows


def _changed_settings(case, baseline):
    """Return rows of a table about the settings that differ between a baseline and its case."""
    mine = {**case.settings.as_dict(), "plain": case.plain}
    return [
        [f"setting {name}", str(mine.get(name)), str(value), "equal"]
        for name, value in baseline["settings"].items()
        if mine.get(name) != value
    ]


def _print_drift(drift):
    """Print a table of what has drifted.

    Args:
        drift (dict): rows by the name of the case: what, found, expected, tolerance.
    """
    table = []
    for name, rows in drift.items():
        table += [[name, *row] for row in rows[:ROWS]]
        if len(rows) > ROWS:
            table.append([name, f"and {len(rows) - ROWS} more", "", "", ""])
    print("\nWhat has drifted:")
    print(compare.format_table(["case", "what", "found", "expected", "tolerance"], table))


def _hold_traces(baselines):
    """Train traces, print the results, and return the drift of those that have drifted."""
    drift, table = {}, []
    for name, baseline in baselines.items():
        expected = baseline["numbers"]
        rows = _changed_settings(TRACES[name], baseline)
        try:
            largest, found = hold(trace(TRACES[name])[0], expected)
        except ReproduceError as error:
            largest, found = math.inf, [["training", f"failed: {error}", "a result", ""]]
        rows += found
        numbers = sum(array.size for array in expected.values())
        deviation = f"{largest * TOLERANCE:.1e}"
        state = "DRIFTED" if rows else "held"
        table.append([name, str(numbers), deviation, f"{TOLERANCE:.0e}", state])
        if rows:
            drift[name] = rows
    print("Traces, each number against the baseline's:")
    header = ["case", "numbers", "largest deviation", "tolerance", ""]
    print(compare.format_table(header, table))
    return drift


def _update_traces(names, directory):
    """Train traces, write their numbers as baselines, and print the differences."""
    table = []
    for name in names:
        numbers, gap = trace(TRACES[name])
        if gap < MARGIN and not TRACES[name].ties:
            raise ReproduceError(
                f"two structures of {name} have losses so close ({gap:.1e}) that roundings could "
                "rank them: give the case another seed"
            )
        try:
            largest, rows = hold(numbers, read(name, directory)["numbers"])
            what = rows[0][0] if rows else "nothing"
            table.append([name, f"{largest * TOLERANCE:.1e}", what])
        except ReproduceError:
            table.append([name, "no baseline", "-"])
        gap = None if gap == math.inf else gap
        write(name, TRACES[name], numbers, directory, tolerance=TOLERANCE, closest_losses=gap)
    print("Traces, written; the old baseline differed by:")
    print(compare.format_table(["case", "largest deviation", "beyond the tolerance first"], table))


def _train(names, seeds, jobs, data_dir):
    """Train short runs.

    Args:
        names (sequence of str): of :data:`RUNS`.
        seeds (int): how many of each, from 0 on.
        jobs (int): processes at a time.
        data_dir (str or pathlib.Path): where the data lies, the cache by default.

    Returns:
        tuple: the measures by the name of the case, a list with an entry a seed, and why trainings
        failed, by the same names.
    """
    runs = [
        (name, dataclasses.replace(RUNS[name].settings, seed=seed))
        for seed in range(seeds)
        for name in names
    ]
    found, failures = {name: [] for name in names}, {}
    with tempfile.TemporaryDirectory() as out:
        failed = sweep.run_all([settings for _, settings in runs], out, jobs, data_dir)
        for name, settings in runs:
            if settings.name in failed:
                failures[name] = failed[settings.name]
            else:
                path = Path(out) / f"{settings.name}.json"
                found[name].append(measures(record.read(path)["result"], experiments.of(settings)))
    return found, failures


def _hold_runs(baselines, jobs, data_dir):
    """Train short runs, print the results, and return the drift of those that have drifted."""
    found, failures = _train(list(baselines), AGAIN, jobs, data_dir)
    drift = {
        name: [["training", f"failed: {why}", "a result", ""]] for name, why in failures.items()
    }
    table = []
    for name, baseline in baselines.items():
        rows = _changed_settings(RUNS[name], baseline)
        for what, values in baseline["numbers"].items():
            low, high = band(values)
            mine = [seed.get(what, math.nan) for seed in found[name]]
            held = bool(mine) and low <= statistics.fmean(mine) <= high
            text = [" ".join(f"{value:.4g}" for value in mine), f"{values.mean():.4g}"]
            text.append(f"{low:.4g} .. {high:.4g}")
            table.append([name, what, *text, "held" if held else "DRIFTED"])
            if not held:
                rows.append([what, *text])
        if rows:
            drift.setdefault(name, []).extend(rows)
    print(f"\nShort runs, the mean of {AGAIN} seeds against the band of {SEEDS}:")
    print(compare.format_table(["case", "", "found", "expected", "band", ""], table))
    return drift


def _update_runs(names, directory, jobs, data_dir):
    """Train all seeds of short runs, write them as baselines, and print the old and the new."""
    found, failures = _train(names, SEEDS, jobs, data_dir)
    for name, why in failures.items():
        raise ReproduceError(f"{name} failed: {why}")
    table = []
    for name in names:
        numbers = {what: [seed[what] for seed in found[name]] for what in found[name][0]}
        try:
            old = read(name, directory)["numbers"]
        except ReproduceError as error:
            old = {}
            print(f"{name}: {str(error).split(':')[0]}")
        for what, values in numbers.items():
            before, now = (
                f"{statistics.fmean(of):.4g} +- {statistics.stdev(of):.2g}"
                if of is not None
                else "-"
                for of in (old.get(what), values)
            )
            low, high = band(values)
            table.append([name, what, before, now, f"{low:.4g} .. {high:.4g}"])
        write(name, RUNS[name], numbers, directory, seeds=SEEDS, width=WIDTH)
    print("\nShort runs, written; mean and standard deviation over the seeds:")
    print(compare.format_table(["case", "", "old", "new", "new band"], table))


def _select(names, cases):
    """Return the named cases; all cases if no name is given."""
    return [name for name in cases if names is None or name in names]


def regress(directory=BASELINES, names=None, traces=False, update=False, jobs=2, data_dir=None):
    """Train the cases again and compare them with their baselines, or write new baselines.

    Args:
        directory (str or pathlib.Path): of the baselines.
        names (sequence of str): of the cases; all by default.
        traces (bool): leave out the short runs.
        update (bool): write the baselines.
        jobs (int): short runs at a time.
        data_dir (str or pathlib.Path): where the data lies, the cache by default.

    Returns:
        int: 0, or 1 where a case has drifted.

    Raises:
        ReproduceError: a name is unknown, a baseline is missing or unusable, or the data cannot be
            fetched.
    """
    for name in names or ():
        if name not in (*TRACES, *RUNS):
            raise ReproduceError(
                f"--cases: there is no case {name!r}: give some of {', '.join([*TRACES, *RUNS])}"
            )
    trace_names, run_names = _select(names, TRACES), [] if traces else _select(names, RUNS)
    if not trace_names and not run_names:
        raise ReproduceError(
            f"--traces selects the traces only, and none of the --cases {','.join(names)} is one: "
            f"leave --traces out, or give some of {', '.join(TRACES)}"
        )
    if update:
        make_writable(directory, "--baselines")  # before the trainings, which take minutes
        if trace_names:
            _update_traces(trace_names, directory)
        if run_names:
            _update_runs(run_names, directory, jobs, data_dir)
        return 0
    # All of them before the first training.
    baselines = {name: read(name, directory, data_dir) for name in [*trace_names, *run_names]}
    drift = {}
    if trace_names:
        drift |= _hold_traces({name: baselines[name] for name in trace_names})
    if run_names:
        drift |= _hold_runs({name: baselines[name] for name in run_names}, jobs, data_dir)
    if drift:
        _print_drift(drift)
    return 1 if drift else 0
