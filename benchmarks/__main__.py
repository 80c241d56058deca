"""Time every case in turn, several rounds, and print ratios: ``python -m benchmarks``.

Each case is a process pinned to one core with one thread.  A round times every case once, so that a
ratio is taken between neighbours in time; the medians over the rounds are printed, a JSON line each
and a table.  With ``--peers PYTHON``, an environment with torch and jax, those are timed as well.
``--device 0`` times the GPU's side instead.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from reproduce import ReproduceError
from reproduce.compare import format_table
from reproduce.run import get_device

HERE = Path(__file__).parent
#: What two processes train side by side.
SIDE_BY_SIDE = "theta = 0.5, MNIST"
#: Two processes on two cores do at least this many times the work of one.
THROUGHPUT = 1.9
#: The memory that a training of the DenseNet may take, in MB.
MEMORY = 600
#: What is timed in a process that has to compile, and in one that finds what was compiled.
FIRST_CALL = "DenseNet, first call"
#: The most seconds of either.
FIRST = (15, 1)
#: What each round measured, by case: ``ms``, and ``peak_mb`` where it is known.
Rounds = Sequence[dict[str, dict[str, Any]]]


@dataclasses.dataclass(frozen=True)
class Suite:
    """The cases of an experiment.

    Attributes:
        cases (tuple of str): of the worker, in the order of a round.
        peers (dict): scripts and their options, by the name of the case.
        others (tuple of str): what the cases are set in relation to.
        figures (tuple): of a case, another, and the most that their ratio may be; with None for the
            other, the most milliseconds.
        once (tuple of str): cases that are timed in the first round only, for they take long.
        rounds (int): how many.
        iterations (int): timed in each process.
        warmup (int): iterations before them.
    """

    cases: tuple[str, ...]
    peers: dict[str, tuple[str, ...]]
    others: tuple[str, ...]
    figures: tuple[tuple[str, str | None, float], ...]
    once: tuple[str, ...] = ()
    rounds: int = 5
    iterations: int = 200
    warmup: int = 20


UNITS = Suite(
    cases=(
        "theta = 0.5",
        "everything on",
        "converged 340/141/126",
        "converged 92/31/24",
        "fixed, batch 64",
        "dropout, batch 64",
        "products, batch 64",
        "plain link",
        "stock Chainer",
    ),
    peers={"JAX": ("jax_unit_selection.py",), "PyTorch": ("torch_unit_selection.py",)},
    others=("products, batch 64", "stock Chainer", "JAX", "PyTorch"),
    figures=(
        ("theta = 0.5", "JAX", 0.85),
        ("converged 340/141/126", "JAX", 0.35),
        ("converged 92/31/24", "JAX", 0.20),
        ("fixed, batch 64", "products, batch 64", 1.45),
        ("theta = 0.5", "fixed, batch 64", 1.05),
        ("everything on", "fixed, batch 64", 1.05),
    ),
)
CONNECTIONS = Suite(
    cases=(
        "DenseNet, theta = 0.5",
        "DenseNet, theta = 0.16",
        "DenseNet, theta = 1",
        "DenseNet, converged at 15.8% usage",
        "DenseNet, theta = 0.5, two threads",
        "DenseNet, evaluation at 40% usage",
        "stock Chainer, DenseNet",
    ),
    peers={
        "PyTorch": ("torch_connection_selection.py",),
        "PyTorch, evaluation at 40% usage": ("torch_connection_selection.py", "--evaluate"),
    },
    others=(
        "DenseNet, theta = 0.5",
        "stock Chainer, DenseNet",
        "PyTorch",
        "PyTorch, evaluation at 40% usage",
    ),
    figures=(
        ("DenseNet, theta = 0.5", "PyTorch", 0.100),
        ("DenseNet, theta = 0.16", "PyTorch", 0.038),
        ("DenseNet, theta = 1", "PyTorch", 0.200),
        ("DenseNet, evaluation at 40% usage", "PyTorch, evaluation at 40% usage", 0.30),
        ("DenseNet, theta = 0.5, two threads", "DenseNet, theta = 0.5", 0.58),
        ("DenseNet, theta = 0.5", "stock Chainer, DenseNet", 1 / 60),
    ),
    once=("stock Chainer, DenseNet",),
    rounds=3,
    iterations=5,
    warmup=1,
)
SUITES = {"unit-selection": UNITS, "connection-selection": CONNECTIONS}


def _gpu_peers(script: str) -> dict[str, tuple[str, ...]]:
    options = script, "--device=cuda"
    return {"PyTorch": options, "PyTorch, compiled": (*options, "--compile")}


#: The same on a GPU; what is in a graph is that of :mod:`chainer_sno.cuda`.
GPU_SUITES = {
    "unit-selection": Suite(
        cases=(
            "theta = 0.5",
            "converged 92/31/24",
            "fixed, batch 64",
            "dropout, batch 64",
            "products, batch 64",
            "weights and velocities, read and written",
            "plain link",
            "stock Chainer",
        ),
        peers=_gpu_peers("torch_unit_selection.py"),
        others=("products, batch 64", "stock Chainer", "PyTorch", "PyTorch, compiled"),
        figures=(("theta = 0.5", None, 0.25), ("theta = 0.5", "PyTorch", 1 / 3)),
        rounds=3,
        iterations=1000,
        warmup=50,
    ),
    "connection-selection": Suite(
        cases=(
            "DenseNet, theta = 0.5",
            "DenseNet, theta = 0.16",
            "DenseNet, theta = 1",
            "eager, DenseNet, theta = 0.5",
            "stock Chainer, DenseNet",
        ),
        peers=_gpu_peers("torch_connection_selection.py"),
        others=("stock Chainer, DenseNet", "PyTorch", "PyTorch, compiled"),
        figures=(
            ("DenseNet, theta = 0.5", None, 10.0),
            ("DenseNet, theta = 0.5", "PyTorch", 1 / 3),
        ),
        rounds=2,
        iterations=50,
        warmup=5,
    ),
}


def start(command: Sequence[str], *cores: int, **variables: str) -> subprocess.Popen[str]:
    """Start a command on some cores, with one thread of BLAS, and more environment variables."""
    threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return subprocess.Popen(
        command,
        cwd=HERE.parent,
        env={**os.environ, **threads, **variables},
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Return what a command printed: milliseconds an iteration, and peak memory in MB."""
    output, _ = process.communicate()
    if process.returncode:
        command = " ".join(process.args)  # type: ignore[arg-type]
        sys.exit(f"benchmarks: {command} ended with {process.returncode}")
    return json.loads(output.splitlines()[-1])


def command_of(suite: Suite, case: str, peers: str | None = None, device: int = -1) -> list[str]:
    """Return the command that times a case."""
    if peers and case in suite.peers:
        script, *options = suite.peers[case]
        path = str(HERE / "peers" / script)
        return [peers, path, f"--iterations={suite.iterations}", *options]
    # The sparse cases are short: more iterations cost nothing.  Structures drawn at random differ
    # in what they cost, so a few of them would say little.
    many = "converged" in case or "DenseNet, theta" in case
    count = 5 * suite.iterations if many else suite.iterations
    count, warmup = (1, 0) if case in suite.once else (count, suite.warmup)
    worker = [sys.executable, "-m", "benchmarks.worker", case]
    return [*worker, f"--iterations={count}", f"--warmup={warmup}", f"--device={device}"]


def throughput(cores: Sequence[int], suite: Suite) -> float:
    """Return how many times the work of one process two do, the median over the rounds.

    The processes train on the real MNIST.  Each is set in relation to one alone on its core, one
    core before and the other after, for the machine's speed drifts.
    """
    command = command_of(dataclasses.replace(suite, iterations=3 * suite.iterations), SIDE_BY_SIDE)
    first, second = cores[-2:]
    found = []
    for _ in range(suite.rounds):
        before = finish(start(command, second))["ms"]
        together = [*command, f"--start={time.time() + 6}"]
        ours, others = (start(together, core) for core in (first, second))
        ours, others = finish(ours)["ms"], finish(others)["ms"]
        after = finish(start(command, first))["ms"]
        found.append(before / others + after / ours)
    return statistics.median(found)


def first_calls(cores: Sequence[int]) -> list[float]:
    """Return the seconds of the first call where it compiles, and in the next process."""
    command = [sys.executable, "-m", "benchmarks.worker", FIRST_CALL]
    command += ["--iterations=1", "--warmup=0"]
    with tempfile.TemporaryDirectory() as directory:
        found = [
            finish(start(command, cores[-1], NUMBA_CACHE_DIR=directory))["ms"] / 1e3 for _ in FIRST
        ]
    return found


def run(suite: Suite, cores: Sequence[int], peers: str | None, device: int = -1) -> list[str]:
    """Time a suite and print it.

    Args:
        suite (Suite): what to time.
        cores (list of int): those of this process; the last one is used.
        peers (str): the Python of an environment with the peers; None leaves them out.
        device (int): a GPU, or -1 for the CPU.

    Returns:
        list of str: the figures that were missed.
    """
    cases = [*suite.cases, *(suite.peers if peers else ())]
    rounds: list[dict[str, dict[str, Any]]] = []
    for number in range(suite.rounds):
        rounds.append(dict(rounds[0]) if rounds else {})
        for case in cases:
            if number == 0 or case not in suite.once:
                used = cores[-2:] if case.endswith("two threads") else cores[-1:]
                rounds[-1][case] = finish(start(command_of(suite, case, peers, device), *used))
    print_times(suite, cases, rounds)
    place = f"GPU {device}" if device >= 0 else "one core, one thread"
    print(f"\nmedians of {suite.rounds} rounds; {place}, float32, random images")
    if suite.once:
        print(f"timed once, one iteration: {', '.join(suite.once)}")
    missed = []
    for text, found, limit, holds in figures_of(suite, cases, rounds, cores, device):
        print(f"{text}: {found:.3f}, {limit}: {'holds' if holds else 'MISSED'}")
        if not holds:
            missed.append(text)
    print()
    return missed


def milliseconds(rounds: Rounds, case: str) -> float:
    """Return the median milliseconds of a case over the rounds."""
    return statistics.median(times[case]["ms"] for times in rounds)


def ratio(rounds: Rounds, case: str, other: str) -> float:
    """Return the median ratio of the times of two cases, taken within each round."""
    return statistics.median(times[case]["ms"] / times[other]["ms"] for times in rounds)


def print_times(suite: Suite, cases: Sequence[str], rounds: Rounds) -> None:
    """Print the times of cases and their ratios to others, a JSON line each and a table."""
    others = [other for other in suite.others if other in cases]
    rows = []
    for case in cases:
        ms = milliseconds(rounds, case)
        peak = max(times[case].get("peak_mb", 0) for times in rounds)
        ratios = {other: ratio(rounds, case, other) for other in others}
        line = {"case": case, "ms": round(ms, 4), "peak_mb": round(peak)}
        print(json.dumps({**line, **{f"over {o}": round(r, 4) for o, r in ratios.items()}}))
        rows.append([case, f"{ms:.2f}", *(f"{r:.3f}" for r in ratios.values())])
    print()
    print(format_table(["one iteration", "ms", *(f"/ {other}" for other in others)], rows))


def figures_of(
    suite: Suite, cases: Sequence[str], rounds: Rounds, cores: Sequence[int], device: int
) -> Iterator[tuple[str, float, str, bool]]:
    """Yield the figures that a suite has to reach: text, number, limit in words, whether it holds.

    Those of whole processes are measured as they are yielded.
    """
    for case, other, limit in suite.figures:
        if other is None:
            ms = milliseconds(rounds, case)
            yield f"{case}, ms", ms, f"at most {limit}", ms <= limit
        elif other in cases:
            found = ratio(rounds, case, other)
            yield f"{case} / {other}", found, f"at most {limit:.3g}", found <= limit
    if device >= 0:
        return
    if CONNECTIONS.cases == suite.cases:
        peak = max(rounds[0][case]["peak_mb"] for case in cases if "theta" in case)
        yield "peak memory in MB, CIFAR included", peak, f"at most {MEMORY}", peak <= MEMORY
        for text, seconds, limit in zip(("compiling", "compiled"), first_calls(cores), FIRST):
            yield f"first call in s, {text}", seconds, f"at most {limit}", seconds <= limit
    elif len(cores) > 1:
        found = throughput(cores, suite)
        text = "work of two processes / of one"
        yield text, found, f"at least {THROUGHPUT}", found >= THROUGHPUT


def main() -> int:
    """Time, print, and with ``--check`` say by the exit code whether a figure was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suites", nargs="*", help=f"of {', '.join(SUITES)} (all)")
    parser.add_argument(
        "--peers",
        type=os.path.expanduser,
        help="the Python of an environment with torch and jax",
    )
    parser.add_argument("--rounds", type=int, help="how often each case is timed (5 and 3)")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a figure is missed")
    parser.add_argument("--device", type=int, default=-1, help="a GPU (the CPU)")
    arguments = parser.parse_args()
    suites = SUITES if arguments.device < 0 else GPU_SUITES
    if arguments.device >= 0:
        try:
            get_device(arguments.device)
        except ReproduceError as error:
            sys.exit(f"benchmarks: {error}")
    cores = sorted(os.sched_getaffinity(0))
    missed = []
    for name in arguments.suites or suites:
        if name not in suites:
            sys.exit(f"benchmarks: {name!r} is none of {', '.join(suites)}")
        suite = suites[name]
        suite = dataclasses.replace(suite, rounds=arguments.rounds) if arguments.rounds else suite
        missed += run(suite, cores, arguments.peers, arguments.device)
    return 1 if missed and arguments.check else 0


if __name__ == "__main__":
    sys.exit(main())
