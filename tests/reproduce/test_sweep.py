"""Sweeps that nothing can lose: killed, stopped, run twice, on a cluster, with failures."""

import http.server
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from reproduce import ROOT, ReproduceError, cli, experiments, marks, status, sweep
from reproduce.experiments.connection_selection import (
    CONNECTION_EPSILON0,
    CONNECTION_USAGE_RATES,
    ConnectionSelection,
)
from reproduce.experiments.unit_selection import UNIT_EPSILON0, UNIT_WIDTHS, UnitSelection
from reproduce.settings import format_epsilon0
from tests.waiting import wait_until

#: Eight runs of seconds: two trials of two penalties' worth and two methods.
UNITS = experiments.get("unit-selection")
SMALL = {"units": 8, "layers": 1}
OPTIONS = ["--schedule=quick", "--epochs=1", "--units=8", "--layers=1"]
#: A sweep of two runs.
TWO = ["--methods=dropout", "--trials=2"]
#: One of more runs than are trained at a time, each long enough to be hit.
THREE = ["--methods=dropout", "--trials=3", "--epochs=2"]


@pytest.mark.parametrize("jobs", [1, 1000])
def test_more_threads_than_cores_are_told(jobs, tmp_path, monkeypatch, capsys):
    given = []
    monkeypatch.setattr(sweep, "_on_this_machine", lambda *values: given.append(values) or {})
    monkeypatch.setattr(sweep.data, "load", lambda *_: None)
    runs = [ConnectionSelection(seed=seed) for seed in range(2)]
    sweep.run_all(runs, tmp_path, jobs=jobs, threads=2 if jobs > 1 else 1)
    told = capsys.readouterr().err
    assert (told == "") == (jobs == 1)
    if jobs > 1:
        assert "1000 jobs of 2 threads are more than the" in told
        assert given[0][-1] == 2


def test_threads_are_for_connection_selection(tmp_path):
    with pytest.raises(ReproduceError, match="--threads must be 1 for unit selection, not 2"):
        sweep.run_all(small_runs(), tmp_path, threads=2)
    with pytest.raises(ReproduceError, match="at least 1"):
        sweep.run_all(small_runs(), tmp_path, threads=0)


def test_threads_reach_the_training(tmp_path):
    found = sweep.command(ConnectionSelection(), tmp_path, threads=3)
    assert "--threads=3" in found


def small_runs(trials=1):
    runs = [
        UnitSelection(epsilon0=epsilon0, epochs=1, seed=seed, **SMALL)
        for seed in range(trials)
        for epsilon0 in (0.5, 0.0)
    ]
    return [*runs, UnitSelection(method="fixed", width=4, epochs=2, **SMALL)]


def the_records(out):
    found = {}
    for path in out.glob("*.json"):
        content = json.loads(path.read_text())
        del content["times"]
        found[path.name] = content
    return found


#: What the test has started.
started = []


@pytest.fixture(autouse=True)
def nothing_goes_on():
    """Leave nothing running when a test fails."""
    yield
    while started:
        process = started.pop()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def arguments(out, *options):
    return ["sweep", "unit-selection", f"--out={out}", *OPTIONS, "--trials=1", *options]


def start(out, *options, limit=None):
    process = subprocess.Popen(
        [sys.executable, "-m", "reproduce", *arguments(out, *options)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=limit,
    )
    started.append(process)
    return process


def children(process):
    try:
        with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
            return [int(pid) for pid in file.read().split()]
    except FileNotFoundError:
        return []


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The records of a sweep of three runs that nobody disturbed, and the seconds it took."""
    out = tmp_path_factory.mktemp("undisturbed")
    begun = time.perf_counter()
    process = start(out, *THREE)
    _, stderr = process.communicate(timeout=600)
    assert process.returncode == 0, stderr
    found = the_records(out)
    assert len(found) == 3
    return found, time.perf_counter() - begun


def test_the_grid_is_section_4_1_a_trial_after_the_other():
    runs = sweep.grid(UNITS, "paper", range(5))
    assert len(runs) == 5 * (7 + 6 + 1)
    assert all(run.is_paper_schedule for run in runs)
    assert [run.seed for run in runs] == sorted(run.seed for run in runs)
    first = runs[:14]
    assert [format_epsilon0(run.epsilon0) for run in first[:7]] == list(UNIT_EPSILON0)
    assert [run.width for run in first[7:13]] == list(UNIT_WIDTHS)
    assert first[13].method == "dropout"
    assert len({run.name for run in runs}) == len(runs)


def test_a_run_that_is_named_twice_is_there_once():
    epsilon0 = {"epsilon0": [2.0**-7, 0.0078125, 0.0, -0.0]}
    runs = sweep.grid(UNITS, "paper", [1, 1], ("sno",), epsilon0)
    assert [format_epsilon0(run.epsilon0) for run in runs] == ["2^-7", "0"]
    small = sweep.grid(UNITS, "quick", range(1), ("fixed",), units=4)
    assert len({run.name for run in small}) == len(small) < 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--methods=sno", "--width=4"), "--width applies to fixed, which --methods leaves out"),
        (("--methods=fixed", "--samples=3"), "--samples applies to sno, which --methods leaves"),
        (("--methods=dropout", "--eta-factor=2"), "--eta-factor applies to sno"),
        (("--dry-run", "--threads=2"), "--threads must be 1 for unit selection"),
        (("--seeds=1", "--trials=2"), "--seeds and --trials contradict each other"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, message, capsys):
    assert cli.main(["sweep", "unit-selection", *options]) == 2
    assert message in capsys.readouterr().err


def test_a_dry_run_lists_the_runs_and_what_they_cost(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    arguments = ["--epsilon0=2^-7,-2^-3", "--methods=sno", "--seeds=0,3", f"--out={tmp_path}"]
    assert cli.main(["sweep", "unit-selection", "--dry-run", *arguments]) == 0
    printed = capsys.readouterr().out
    assert printed.count("unit-selection_sno_epsilon0=2^-7_seed") == 2
    assert printed.count("unit-selection_sno_epsilon0=-2^-3_seed") == 2
    assert "4 runs, about " in printed
    assert not list(tmp_path.iterdir())
    assert cli.main(["sweep", "unit-selection", "--dry-run", "--units=9", *arguments]) == 0
    assert "4 runs of unknown cost" in capsys.readouterr().out


def test_the_grid_of_section_4_2():
    runs = sweep.grid(experiments.get("connection-selection"), "paper", range(2))
    assert len(runs) == 2 * (8 + 6)
    assert all(run.is_paper_schedule for run in runs)
    assert [format_epsilon0(run.epsilon0) for run in runs[:8]] == list(CONNECTION_EPSILON0)
    assert [run.usage_rate for run in runs[8:14]] == list(CONNECTION_USAGE_RATES)
    assert len({run.name for run in runs}) == len(runs)


def test_killed_six_times_it_ends_with_the_same_bits(undisturbed, tmp_path):
    """Every kill takes the sweep itself or one of its trainings, at a random moment."""
    expected, seconds = undisturbed
    dice = random.SystemRandom()
    told = []
    for _ in range(6):
        process = start(tmp_path, *THREE)
        # While it starts, while the trainings start and while they train, on any machine.
        time.sleep(dice.uniform(0.05, 0.5) * seconds)
        targets = [process.pid, *children(process)]
        target = dice.choice(targets)
        told.append("the sweep" if target == process.pid else "a training")
        try:
            os.kill(target, signal.SIGKILL)
        except ProcessLookupError:
            told[-1] += ", which had ended"
        if target == process.pid:
            process.communicate()
            continue
        # The others go on, and the sweep ends with the list; but not to the end of our patience.
        time.sleep(dice.uniform(0, 0.5))
        process.kill()
        process.communicate()
    print("killed:", ", ".join(told))
    process = start(tmp_path, *THREE)
    _, stderr = process.communicate(timeout=600)
    assert process.returncode == 0, stderr
    assert the_records(tmp_path) == expected
    assert not list(tmp_path.rglob("*.unfinished"))


def test_a_killed_training_is_listed_and_taken_again(tmp_path):
    process = start(tmp_path, *TWO, "--jobs=1")
    wait_until(lambda: list(tmp_path.glob("*/progress.json")))
    (child,) = children(process)
    os.kill(child, signal.SIGKILL)
    _, stderr = process.communicate(timeout=600)
    assert process.returncode == 1
    assert "killed by SIGKILL" in stderr
    assert len(the_records(tmp_path)) == 1
    assert cli.main(arguments(tmp_path, *TWO, "--jobs=1")) == 0
    assert len(the_records(tmp_path)) == 2


def test_a_signal_without_a_name_is_told_by_its_number(tmp_path, monkeypatch):
    number = signal.SIGRTMIN + 1
    monkeypatch.setattr(sweep, "command", lambda *_: ["sh", "-c", f"kill -{number:d} $$"])
    job = sweep._Process(small_runs()[0], tmp_path, None, -1)
    job.process.wait()
    assert job.failure() == f"it was killed by signal {number:d}"


def test_a_full_disk_loses_no_record(tmp_path):
    """The limit on the size of a file stands in for a full disk: writing more fails."""
    finished = small_runs()[:1]
    assert sweep.run_all(finished, tmp_path) == {}
    before = the_records(tmp_path)

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    process = start(tmp_path, *TWO, limit=limit)
    _, stderr = process.communicate(timeout=600)
    assert process.returncode == 1
    assert stderr.count("failed: cannot write into") >= 2
    assert the_records(tmp_path) == before
    assert not list(tmp_path.rglob("*.unfinished"))
    # What the message says: the same command.
    assert "give the same command" in stderr
    assert cli.main(arguments(tmp_path, *TWO)) == 0
    assert len(the_records(tmp_path)) == 3


def test_devices_are_shared_out(tmp_path, monkeypatch):
    given = []

    class Process:
        def __init__(self, run, out, data_dir, device, threads):
            self.run, self.device = run, device
            given.append(device)

        def has_ended(self):
            return True

        def failure(self):
            return None

    monkeypatch.setattr(sweep, "_Process", Process)
    monkeypatch.setattr(sweep, "POLL", 0)
    runs = sweep.grid(UNITS, "quick", range(1), ("sno",))
    assert sweep.run_all(runs, tmp_path, jobs=4, devices=(0, 1)) == {}
    assert given[:4] == [0, 1, 0, 1]
    assert given.count(0) >= 3
    assert given.count(1) >= 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_every_training_within_five_seconds(tmp_path, number):
    process = start(tmp_path, "--epochs=100", "--methods=sno")
    wait_until(lambda: len(list(tmp_path.glob("*/progress.json"))) == 2)
    process.send_signal(number)
    begun = time.perf_counter()
    _, stderr = process.communicate(timeout=100)
    assert time.perf_counter() - begun < 5
    assert process.returncode == 130
    assert "the same command goes on" in stderr
    assert len(list(tmp_path.glob("*/snapshot_iter_*.npz"))) == 2
    states = [status.state(tmp_path, run) for run in status.known_runs(tmp_path)]
    assert [found.kind for found in states] == ["interrupted"] * 2 + ["waiting"] * 5


def test_two_sweeps_of_one_folder_train_every_run_once(undisturbed, tmp_path):
    processes = [start(tmp_path, *THREE) for _ in range(2)]
    for process in processes:
        _, stderr = process.communicate(timeout=600)
        assert process.returncode == 0, stderr
    assert the_records(tmp_path) == undisturbed[0]


def test_a_failed_run_is_left_until_asked_for(tmp_path, capsys):
    good = small_runs()[0]
    bad = UnitSelection(method="fixed", width=4, epochs=2, lr=1e30, weight_decay=0.0, **SMALL)
    failures = sweep.run_all([bad, good], tmp_path)
    assert list(failures) == [bad.name]
    assert "give a smaller --lr" in failures[bad.name]
    assert len(the_records(tmp_path)) == 1
    (failed,) = tmp_path.glob("*/failed.json")
    before = failed.stat().st_mtime_ns
    again = sweep.run_all([bad, good], tmp_path)
    assert "--retry-failed takes it again" in again[bad.name]
    assert failed.stat().st_mtime_ns == before
    again = sweep.run_all([bad, good], tmp_path, retry_failed=True)
    assert again == failures
    assert failed.stat().st_mtime_ns > before
    printed = "\n".join(status.lines([status.state(tmp_path, r) for r in (bad, good)]))
    assert f"failed       {bad.name}: the training has diverged: the loss of iter" in printed
    assert "1 finished, 1 failed" in printed


def test_status_tells_the_truth_while_and_after(tmp_path):
    def say():
        command = [sys.executable, "-m", "reproduce", "status", f"--out={tmp_path}"]
        return subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.splitlines()

    def both_train():
        files = [json.loads(path.read_text()) for path in tmp_path.glob("*/progress.json")]
        return [file["iteration"] > 0 for file in files] == [True, True]

    process = start(tmp_path, "--epochs=200", "--methods=sno")
    wait_until(both_train)
    first, second, whole = say()
    assert first.startswith("running")
    assert "left" in first
    assert "epsilon0=2^-6" in first
    assert "epsilon0=2^-7" in second
    assert whole.startswith("7 runs: 2 running, 5 waiting; ")
    assert "left" in whole
    process.kill()
    process.communicate()
    directories = [path for path in tmp_path.iterdir() if path.is_dir()]
    wait_until(lambda: not any(marks.is_locked(path) for path in directories))
    first, second, whole = say()
    assert first.startswith("interrupted")
    assert whole.startswith("7 runs: 2 interrupted, 5 waiting; ")


def test_status_does_without_chainer():
    """It is asked again and again, and Chainer takes longer to import than it does to answer."""
    program = (
        "import sys\n"
        "from reproduce import cli\n"
        "code = cli.main(['status', '--out', sys.argv[1]])\n"
        "sys.exit(code or 'chainer' in sys.modules)"
    )
    command = [sys.executable, "-c", program, "results/runs"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert " finished" in result.stdout


def test_status_of_files_that_are_no_runs(tmp_path):
    (tmp_path / "foreign.json").write_text('{"settings": {"experiment": "other"}}')
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "list.json").write_text("[1]")
    directory = tmp_path / small_runs()[0].name
    directory.mkdir()
    (directory / "progress.json").write_text('{"iter')
    assert status.known_runs(tmp_path) == []
    assert status.state(tmp_path, small_runs()[0]).kind == "waiting"
    assert status.lines([])[-1].startswith("0 runs")


def test_time_left_is_guessed_from_the_others(tmp_path):
    runs = [UnitSelection(seed=seed) for seed in range(4)]
    states = [status.State(run, "waiting", 0, 1000) for run in runs]
    assert status.seconds_left(states, 2) is None
    states[0] = status.State(runs[0], "finished", 1000, 1000, 0.1)
    assert status.seconds_left(states, 2) == pytest.approx(150)
    states[1] = status.State(runs[1], "running", 500, 1000, 0.2, 100.0)
    assert status.seconds_left(states, 2) == pytest.approx((100 + 2 * 150) / 2)
    states[2] = status.State(runs[2], "failed", 500, 1000, reason="x")
    assert status.seconds_left(states, 2) == pytest.approx(150)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "?"), (8.9, "8 s"), (430, "7 min"), (18400, "5 h 06 min"), (273600, "3 d 4 h")],
)
def test_durations(seconds, text):
    assert status.duration(seconds) == text


def test_a_cluster_whose_workers_are_killed_trains_everything(undisturbed, tmp_path):
    distributed = pytest.importorskip("distributed")
    runs = sweep.grid(UNITS, "quick", range(3), ("dropout",), epochs=2, units=8, layers=1)
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        killer = subprocess.Popen(
            [sys.executable, "-c", KILLER, str(tmp_path), *map(str, worker_pids(client))]
        )
        failures = sweep.run_all(runs, tmp_path, scheduler=cluster.scheduler_address)
        killer.wait(timeout=300)
    assert failures == {}
    assert the_records(tmp_path) == undisturbed[0]


def test_a_signal_stops_what_a_cluster_trains(tmp_path):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
    ) as cluster:
        process = start(
            tmp_path, "--methods=sno", "--epochs=100", f"--scheduler={cluster.scheduler_address}"
        )
        wait_until(lambda: len(list(tmp_path.glob("*/progress.json"))) == 2)
        process.send_signal(signal.SIGTERM)
        begun = time.perf_counter()
        process.communicate(timeout=100)
        # The workers look for the wish every half a second, and the client takes its leave of them.
        assert time.perf_counter() - begun < 10
        assert process.returncode == 130
        states = [status.state(tmp_path, run) for run in status.known_runs(tmp_path)]
        kinds = [found.kind for found in states]
        assert "running" not in kinds
        assert len(list(tmp_path.glob("*/snapshot_iter_*.npz"))) == 2


#: Kill the workers one after the other, each once trainings have begun.
KILLER = """
import os, pathlib, signal, sys, time
out, pids = pathlib.Path(sys.argv[1]), sys.argv[2:]
for n, pid in enumerate(pids):
    while len(list(out.glob("*/lock"))) < 2 + n:
        time.sleep(0.05)
    time.sleep(0.7)
    os.kill(int(pid), signal.SIGKILL)
"""


def worker_pids(client):
    return client.run(os.getpid).values()


def test_no_scheduler_is_one_line(tmp_path, capsys, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(sweep, "ANSWER", 1)
    arguments = ["sweep", "unit-selection", f"--out={tmp_path}", "--scheduler=tcp://127.0.0.1:9"]
    assert cli.main(arguments) == 2
    assert "no scheduler answers at 'tcp://127.0.0.1:9'" in capsys.readouterr().err


def test_the_port_of_another_service_is_one_line(tmp_path, capsys, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(sweep, "ANSWER", 1)
    silent = socket.create_server(("127.0.0.1", 0))
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    try:
        for port in (silent.getsockname()[1], web.server_address[1]):
            address = f"tcp://127.0.0.1:{port}"
            arguments = ["sweep", "unit-selection", f"--out={tmp_path}", f"--scheduler={address}"]
            assert cli.main(arguments) == 2
            last = capsys.readouterr().err.splitlines()[-1]
            assert last.startswith(f"reproduce: no scheduler answers at {address!r}")
    finally:
        silent.close()
        web.shutdown()
        web.server_close()


def test_a_scheduler_that_is_lost_stops_the_trainings(tmp_path, monkeypatch):
    dask, distributed = map(pytest.importorskip, ("dask", "distributed"))
    # A client looks for its scheduler again for half a minute.
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT", "5s")
    cluster = distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, dashboard_address=None, silence_logs=50
    )
    # This process's part of the cluster looks for it too, when it closes.
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}), cluster:
        process = start(
            tmp_path, "--methods=sno", "--epochs=100", f"--scheduler={cluster.scheduler_address}"
        )
        wait_until(lambda: len(list(tmp_path.glob("*/progress.json"))) == 2)
        cluster.sync(cluster.scheduler.close)
        _, stderr = process.communicate(timeout=100)
    assert process.returncode == 2
    (line,) = (line for line in stderr.splitlines() if line.startswith("reproduce: "))
    assert "is lost; the trainings are stopped: start it" in line
    assert "Traceback" not in stderr
    states = [status.state(tmp_path, run) for run in status.known_runs(tmp_path)]
    assert "running" not in [found.kind for found in states]
    assert len(list(tmp_path.glob("*/snapshot_iter_*.npz"))) == 2
    assert not list(tmp_path.glob(".stop-*"))
    # The same command takes up what was stopped, and asks for no --retry-failed.
    assert all(found.again for found in states if found.kind == "failed")
