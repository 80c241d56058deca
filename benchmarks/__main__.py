"""Time every case in turn, several rounds, and print ratios: ``python -m benchmarks``.

Each case is a process pinned to one core with one thread.  A round times every case once, so that a
ratio is taken between neighbours in time; the medians over the rounds are printed, a JSON line each
and a table.  With ``--peers PYTHON``, an environment with torch and jax, those are timed as well.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from reproduce.compare import format_table

HERE = Path(__file__).parent
JAX, TORCH = "JAX", "PyTorch"
PRODUCTS, FIXED = "products, batch 64", "fixed, batch 64"
#: The cases in the order of a round.
OURS = (
    "theta = 0.5",
    "everything on",
    "converged 340/141/126",
    "converged 92/31/24",
    FIXED,
    "dropout, batch 64",
    PRODUCTS,
    "plain link",
    "stock Chainer",
)
PEERS = {JAX: "jax_unit_selection.py", TORCH: "torch_unit_selection.py"}
#: What must hold: a case's time over another's is at most this.
FIGURES = (
    ("theta = 0.5", JAX, 0.85),
    ("converged 340/141/126", JAX, 0.35),
    ("converged 92/31/24", JAX, 0.20),
    (FIXED, PRODUCTS, 1.45),
    ("theta = 0.5", FIXED, 1.05),
    ("everything on", FIXED, 1.05),
)
#: Two processes on two cores do at least this many times the work of one.
THROUGHPUT = 1.9


def start(command, core):
    """Start a command on one core, with one thread."""
    threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return subprocess.Popen(
        command,
        cwd=HERE.parent,
        env={**os.environ, **threads},
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )


def finish(process):
    """Return the milliseconds an iteration that a command printed."""
    output, _ = process.communicate()
    if process.returncode:
        sys.exit(f"benchmarks: {' '.join(process.args)} ended with {process.returncode}")
    return json.loads(output.splitlines()[-1])["ms"]


def command_of(case, iterations, peers=None):
    """Return the command that times a case."""
    if case in PEERS:
        script = str(HERE / "peers" / PEERS[case])
        return [peers, script, f"--iterations={iterations}"]
    # The sparse cases are short: more iterations cost nothing.
    count = 5 * iterations if case.startswith("converged") else iterations
    return [sys.executable, "-m", "benchmarks.worker", case, f"--iterations={count}"]


def throughput(cores, iterations, rounds):
    """Return how many times the work of one process two do, the median over the rounds."""
    case = command_of("theta = 0.5", iterations)
    found = []
    for _ in range(rounds):
        alone = finish(start(case, cores[-1]))
        both = [start([*case, f"--start={time.time() + 8}"], core) for core in cores[-2:]]
        found.append(sum(alone / finish(process) for process in both))
    return statistics.median(found)


def main():
    """Time, print, and with ``--check`` say which figures were missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", help="the Python of an environment with torch and jax")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--check", action="store_true", help="exit with 1 when a figure is missed")
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    cases = [*OURS, *(PEERS if arguments.peers else ())]
    rounds = [
        {
            case: finish(start(command_of(case, arguments.iterations, arguments.peers), cores[-1]))
            for case in cases
        }
        for _ in range(arguments.rounds)
    ]

    def ratio(case, other):
        return statistics.median(found[case] / found[other] for found in rounds)

    others = [PRODUCTS, "stock Chainer", *(PEERS if arguments.peers else ())]
    rows = []
    for case in cases:
        line = {"case": case, "ms": statistics.median(found[case] for found in rounds)}
        line.update({f"over {other}": ratio(case, other) for other in others})
        print(json.dumps({name: v if name == "case" else round(v, 4) for name, v in line.items()}))
        rows.append([case, f"{line['ms']:.2f}", *(f"{line[f'over {o}']:.3f}" for o in others)])
    print()
    print(format_table(["one iteration", "ms", *(f"/ {other}" for other in others)], rows))
    print(f"\nmedians of {arguments.rounds} rounds; one core, one thread, float32, random images")
    missed = []
    for case, other, limit in FIGURES:
        if other in cases:
            found = ratio(case, other)
            said = "holds" if found <= limit else "MISSED"
            print(f"{case} / {other}: {found:.3f}, at most {limit}: {said}")
            missed += [case] if found > limit else []
    if len(cores) > 1:
        found = throughput(cores, 2 * arguments.iterations, arguments.rounds)
        said = "holds" if found >= THROUGHPUT else "MISSED"
        print(f"two processes / one: {found:.2f} times the work, at least {THROUGHPUT}: {said}")
        missed += ["throughput"] if found < THROUGHPUT else []
    return 1 if missed and arguments.check else 0


sys.exit(main())
