"""One training from the command line: killed, resumed, refused, and what it leaves behind."""

import contextlib
import dataclasses
import errno
import io
import json
import math
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import types

import numpy
import pytest

from chainer_sno import chainer, prediction
from reproduce import (
    ROOT,
    Interrupted,
    ReproduceError,
    cli,
    data,
    groups,
    record,
    run,
    snapshot,
    training,
)
from reproduce.experiments.unit_selection import UnitSelection
from reproduce.experiments.unit_training import UnitTraining
from reproduce.marks import is_locked
from reproduce.run import Computers, CPUTime, get_device
from tests.reproduce.synthetic import noise
from tests.reproduce.test_cli import unread
from tests.waiting import wait_until

#: A network small enough that an epoch of the real MNIST takes seconds.
SMALL = ("--units", "12", "--layers", "2", "--snapshot-interval", "100")
SMALL_DENSENET = ("--depth", "7", "--growth-rate", "3", "--examples", "1500", "--epochs", "2")
COMMANDS = {
    "plain": ("--plain", "--epochs", "1", "--examples", "20000"),
    "sno": ("--epsilon0", "-2^-3", "--epochs", "1", "--stochastic-samples", "3"),
    "fixed": ("--method", "fixed", "--width", "7", "--epochs", "2"),
    "dropout": ("--method", "dropout", "--epochs", "2"),
}
CONNECTIONS = ("connection-selection", *SMALL_DENSENET, "--test-examples", "200")
CONNECTIONS = (*CONNECTIONS, "--epsilon0", "2^-4", "--snapshot-interval", "8")


def command(out, *options):
    if options[:1] != CONNECTIONS[:1]:
        options = ("unit-selection", *SMALL, *options)
    return [sys.executable, "-m", "reproduce", "run", *options, f"--out={out}"]


def call(out, *options, timeout=300):
    return subprocess.run(
        command(out, *options), cwd=ROOT, capture_output=True, text=True, timeout=timeout
    )


def call_here(out, *options):
    """Run the command in this process, which has imported everything already."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        code = cli.main(command(out, *options)[3:])
    return types.SimpleNamespace(
        returncode=code, stdout=stdout.getvalue(), stderr=stderr.getvalue()
    )


def the_record(out):
    (path,) = out.glob("*.json")
    return path, json.loads(path.read_text())


def without_times(found):
    """Return a record without its seconds and its threads, which two runs need not share."""
    kept = {name: value for name, value in found.items() if name != "times"}
    computers = [{**entry, "threads": None} for entry in found["computers"]]
    return {**kept, "computers": computers}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The records and the networks of runs that nobody interrupted, by method."""
    found = {}
    for method, options in COMMANDS.items():
        out = tmp_path_factory.mktemp(method)
        begun = time.perf_counter()
        result = call(out, *options)
        assert result.returncode == 0, result.stderr
        path, content = the_record(out)
        found[method] = out, content, time.perf_counter() - begun
    return found


def networks(out):
    (path,) = out.glob("*/model.npz")
    with numpy.load(path) as file:
        return {name: file[name] for name in file.files}


@pytest.mark.parametrize("method", COMMANDS)
def test_killed_at_random_moments_it_ends_with_the_same_bits(method, undisturbed, tmp_path):
    whole, _, seconds = undisturbed[method]
    kill_and_compare(COMMANDS[method], whole, seconds, tmp_path)


def test_killed_with_augmented_images_it_ends_with_the_same_bits(tmp_path_factory, tmp_path):
    try:
        data.load("cifar10", data.cache_directory("cifar10"))
    except ReproduceError as error:
        pytest.skip(f"needs the real CIFAR-10: {error}")
    whole = tmp_path_factory.mktemp("connections")
    begun = time.perf_counter()
    result = call(whole, *CONNECTIONS)
    assert result.returncode == 0, result.stderr
    kill_and_compare(CONNECTIONS, whole, time.perf_counter() - begun, tmp_path, kills=2)


def kill_and_compare(options, whole, seconds, tmp_path, kills=3):
    """Kill a run at random moments, finish it, and hold it against one that nobody interrupted."""
    _, expected = the_record(whole)
    moments = [round(random.SystemRandom().uniform(0.2, seconds), 3) for _ in range(kills)]
    print(f"{expected['name']} is killed after {moments} s")
    for moment in moments:
        process = subprocess.Popen(
            command(tmp_path, *options),
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(moment)
        process.kill()
        process.wait()
    result = call(tmp_path, *options)
    assert result.returncode == 0, result.stderr
    path, found = the_record(tmp_path)
    assert without_times(found) == without_times(expected)
    weights = networks(whole)
    for name, array in networks(tmp_path).items():
        numpy.testing.assert_array_equal(array, weights[name], name)
    # Nothing is left but the record, the network and the lock.
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {path.name, "model.npz", "lock"}


def test_a_finished_run_says_so_and_does_nothing(undisturbed):
    out, expected, _ = undisturbed["sno"]
    path, _ = the_record(out)
    before = path.stat().st_mtime_ns, path.read_bytes()
    result = call_here(out, *COMMANDS["sno"])
    assert result.returncode == 0
    assert "is finished" in result.stdout
    assert (path.stat().st_mtime_ns, path.read_bytes()) == before


def test_the_record_says_everything(undisturbed):
    _, found, _ = undisturbed["sno"]
    assert found["settings"] == {
        "experiment": "unit-selection",
        "method": "sno",
        "epsilon0": -0.125,
        "dataset": "mnist",
        "epochs": 1,
        "batch_size": 32,
        "seed": 0,
        "units": 12,
        "layers": 2,
        "samples": 2,
        "eta_factor": pytest.approx(2.4),
        "stochastic_samples": 3,
        "lr": 0.01,
        "momentum": 0.9,
        "weight_decay": 0.0001,
    }
    assert found["schedule"] == "not the paper's"
    assert set(found["changes"]) == {
        "epochs",
        "units",
        "layers",
        "eta_factor",
        "stochastic_samples",
    }
    result = found["result"]
    log = found["log"]
    assert log["epoch"] == [1]
    assert log["iteration"] == [1875]
    assert result["iterations"] == 1875
    assert result["test_error"] == log["validation/main/error"][-1] < 0.9
    assert result["stochastic_test_error"] == log["validation/main/stochastic_error"][-1]
    assert result["usage_rate"] == sum(result["units"]) / 24 == log["structure/usage_rate"][-1]
    first, second = result["units"]
    assert result["weights"] == 784 * first + first * second + second * 10
    assert result["weight_ratio"] == log["structure/weight_ratio"][-1]
    assert found["versions"]["numpy"] == numpy.__version__
    assert found["machine"]["blas"][0].endswith("1 thread")
    assert found["times"]["seconds"] > 0
    assert {"finished", "epoch_seconds"} <= set(found["times"])
    (seconds,) = found["times"]["epoch_cpu_seconds"]
    assert seconds > 0
    assert "cpu_seconds" not in log


def test_the_record_of_a_fixed_structure_counts_its_units(undisturbed):
    _, found, _ = undisturbed["fixed"]
    assert found["result"]["units"] == [7, 7]
    assert found["result"]["usage_rate"] == 7 / 12
    assert found["result"]["iterations"] == 2 * 60000 // 64
    # Epoch 1 ends inside iteration 937.5: the last whole one counts.
    assert found["log"]["iteration"] == [937, 1875]
    assert found["log"]["epoch"] == [1, 2]
    # The rate at the epoch's end; it was divided by ten at one half and at three quarters.
    assert found["log"]["lr"] == [0.01, 0.0001]
    assert found["result"]["test_error"] < 0.3


def interrupted(out, *options, after=1):
    """Start a run and stop it with SIGTERM once it has so many snapshots."""
    process = subprocess.Popen(
        command(out, *options), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: len(list(out.glob("*/snapshot_iter_*.npz"))) >= after)
    process.send_signal(signal.SIGTERM)
    begun = time.perf_counter()
    stdout, stderr = process.communicate(timeout=60)
    return process.returncode, stderr, time.perf_counter() - begun


def test_a_signal_leaves_a_snapshot_and_stops_at_once(undisturbed, tmp_path):
    code, stderr, seconds = interrupted(tmp_path, *COMMANDS["sno"])
    assert code == 143
    assert "is stopped at iteration" in stderr
    assert stderr.count("\n") == 1
    assert seconds < 5
    result = call_here(tmp_path, *COMMANDS["sno"])
    assert "going on at iteration" in result.stdout
    assert without_times(the_record(tmp_path)[1]) == without_times(undisturbed["sno"][1])


@pytest.fixture(scope="module")
def interrupted_once(tmp_path_factory):
    """The output directory of a run that was stopped after two snapshots, to be copied."""
    out = tmp_path_factory.mktemp("interrupted")
    interrupted(out, *COMMANDS["sno"], after=2)
    return out


@pytest.fixture
def stopped(interrupted_once, tmp_path):
    """The output directory of a run that was stopped, the test's own."""
    return shutil.copytree(interrupted_once, tmp_path, dirs_exist_ok=True)


@pytest.mark.parametrize("damage", ["truncated", "one byte", "empty"])
def test_a_damaged_snapshot_falls_back_to_the_one_before(damage, undisturbed, stopped):
    (directory,) = (path for path in stopped.iterdir() if path.is_dir())
    newest, before = snapshot.snapshots(directory)
    content = bytearray(newest.read_bytes())
    if damage == "one byte":
        content[len(content) // 2] ^= 0x10
    newest.write_bytes(content[: {"truncated": len(content) // 3, "empty": 0}.get(damage)])
    result = call_here(stopped, *COMMANDS["sno"])
    assert result.returncode == 0, result.stderr
    assert f"{newest.name} is damaged" in result.stdout
    assert f"going back to {before.name}" in result.stdout
    assert without_times(the_record(stopped)[1]) == without_times(undisturbed["sno"][1])


def test_a_snapshot_that_the_system_refuses_to_read_stays(stopped, monkeypatch):
    """It may be whole, as another user's may be: to begin anew would delete a training of days."""
    before = sorted(stopped.glob("*/snapshot_iter_*.npz"))

    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(snapshot, "read_npz", refuse)
    result = call_here(stopped, *COMMANDS["sno"])
    assert result.returncode == 2
    assert "cannot be read (Permission denied): make it readable" in result.stderr
    assert sorted(stopped.glob("*/snapshot_iter_*.npz")) == before != []


def test_a_snapshot_of_another_configuration_is_refused(stopped):
    options = COMMANDS["sno"]
    (directory,) = (path for path in stopped.iterdir() if path.is_dir())
    other = directory.with_name(directory.name.replace("seed=0", "seed=1"))
    shutil.copytree(directory, other)
    result = call_here(stopped, *options, "--seed", "1")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "another configuration (seed is 0 there and 1 here)" in result.stderr
    assert snapshot.snapshots(other), "what was computed is lost"


@pytest.mark.parametrize("intervals", [(7, None), (None, 7), (7, 1000)])
def test_it_goes_on_with_another_interval_of_snapshots(intervals, tmp_path, monkeypatch, recwarn):
    monkeypatch.setattr(data, "load", noise)
    size = {"units": 6, "layers": 2, "examples": 640, "test_examples": 20, "epochs": 2}
    settings = UnitSelection(**size)
    before, after = (run.Options(interval=interval, quiet=True) for interval in intervals)
    whole = run.run(settings, tmp_path / "whole", before)
    halfway = dataclasses.replace(before, watch=lambda log: len(log) == 1)
    with pytest.raises(Interrupted):
        run.run(settings, tmp_path, halfway)
    (directory,) = (path for path in tmp_path.iterdir() if path.name == settings.name)
    names = [path.name for path in snapshot.snapshots(directory)]
    assert names == [f"snapshot_iter_{i:09d}.npz" for i in ((20, 14) if intervals[0] else (20,))]
    assert run.run(settings, tmp_path, after)["log"] == whole["log"]
    assert not recwarn.list


def test_a_copy_of_a_snapshot_is_not_the_newest(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "load", noise)
    size = {"units": 6, "layers": 2, "examples": 640, "test_examples": 20, "epochs": 2}
    settings = UnitSelection(**size)
    options = run.Options(interval=10, quiet=True, watch=lambda log: len(log) == 1)
    with pytest.raises(Interrupted):
        run.run(settings, tmp_path, options)
    first, *_ = reversed(snapshot.snapshots(tmp_path / settings.name))
    copy = shutil.copy(first, first.with_name("snapshot_iter_first.npz"))
    told = []
    run.run(settings, tmp_path, run.Options(quiet=True, say=told.append))
    assert told[0] == f"{settings.name}: going on at iteration 20"
    assert copy.exists()


@pytest.mark.parametrize("terminal", [False, True])
def test_a_quiet_run_goes_on_aloud_without_a_warning(
    terminal, tmp_path, monkeypatch, recwarn, capsys
):
    monkeypatch.setattr(data, "load", noise)
    monkeypatch.setattr(training, "is_live", lambda stream: terminal)
    size = {"units": 6, "layers": 2, "examples": 640, "test_examples": 20, "epochs": 2}
    settings = UnitSelection(**size)
    with pytest.raises(Interrupted):
        run.run(settings, tmp_path, run.Options(quiet=True, watch=lambda log: len(log) == 1))
    run.run(settings, tmp_path)
    assert capsys.readouterr().out.count("validation/main/error") == 1
    assert not recwarn.list


def test_the_log_counts_epochs_with_mini_batches_of_almost_an_epoch(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "load", noise)
    size = {"units": 6, "layers": 1, "examples": 64, "test_examples": 20, "batch_size": 60}
    found = run.run(UnitSelection(**size, epochs=16), tmp_path, run.Options(quiet=True))
    assert found["log"]["epoch"] == list(range(1, 17))
    assert found["log"]["iteration"] == [64 * epoch // 60 for epoch in range(1, 17)]


def test_the_plain_path_does_not_go_on_from_the_fast_one(stopped):
    result = call_here(stopped, *COMMANDS["sno"], "--plain")
    assert result.returncode == 2
    assert "another configuration (path is fast there and plain here)" in result.stderr


def test_it_stops_with_its_parent(tmp_path):
    code = (
        "import subprocess, os, sys, time\n"
        f"command = {command(tmp_path, *COMMANDS['plain'])!r} + [f'--parent={{os.getpid()}}']\n"
        "subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        "time.sleep(1000)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    try:
        wait_until(lambda: list(tmp_path.glob("*/snapshot_iter_*.npz")))
    finally:
        parent.kill()
        parent.wait()
    (directory,) = (path for path in tmp_path.iterdir() if path.is_dir())
    wait_until(lambda: not is_locked(directory), seconds=5)
    assert not list(tmp_path.glob("*.json"))


def test_a_full_disk_loses_nothing(stopped):
    """The limit on the size of a file stands in for a full disk: writing more fails."""
    (directory,) = (path for path in stopped.iterdir() if path.is_dir())
    before = {path: path.read_bytes() for path in snapshot.snapshots(directory)}
    assert before

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    result = subprocess.run(
        command(stopped, *COMMANDS["sno"]),
        cwd=ROOT,
        capture_output=True,
        text=True,
        preexec_fn=limit,
    )
    assert result.returncode == 2
    assert "cannot write into" in result.stderr
    assert result.stderr.count("\n") == 1
    for path, content in before.items():
        assert path.read_bytes() == content
    assert not list(directory.glob("*.unfinished"))
    result = call_here(stopped, *COMMANDS["sno"])
    assert result.returncode == 0, result.stderr


def test_a_reader_that_has_ended_is_no_failure(undisturbed, tmp_path):
    assert unread(command(tmp_path, *COMMANDS["fixed"])) == (128 + signal.SIGPIPE, b"")
    assert not list(tmp_path.glob("*/failed.json"))
    result = call_here(tmp_path, *COMMANDS["fixed"])
    assert result.returncode == 0, result.stderr
    assert without_times(the_record(tmp_path)[1]) == without_times(undisturbed["fixed"][1])


def test_two_processes_do_not_train_the_same_run(tmp_path):
    options = ("--plain", "--epochs", "40")
    process = subprocess.Popen(
        command(tmp_path, *options),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: list(tmp_path.glob("*/lock")))
        result = call(tmp_path, *options)
    finally:
        process.kill()
        process.wait()
    assert result.returncode == 75
    assert "another process is training" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_loss_that_is_not_a_number_ends_the_run(tmp_path):
    result = call(tmp_path, *COMMANDS["fixed"], "--lr", "1e30", "--weight-decay", "0")
    assert result.returncode == 2
    assert "give a smaller --lr" in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.glob("*.json"))
    (failed,) = tmp_path.glob("*/failed.json")
    assert "give a smaller --lr" in json.loads(failed.read_text())["reason"]


def test_a_measurement_that_is_not_a_number_ends_the_run_at_once(tmp_path, monkeypatch):
    """At the end of the training, its record could not be written."""
    monkeypatch.setattr(data, "load", noise)
    monkeypatch.setattr(prediction, "measure", lambda *_: {"": (math.inf, 0.9)})
    size = {"units": 6, "layers": 2, "examples": 640, "test_examples": 20, "epochs": 2}
    with pytest.raises(ReproduceError, match="validation/main/loss at iteration 20 is inf, which"):
        run.run(UnitSelection(**size), tmp_path, run.Options(quiet=True))


def test_a_learning_rate_that_the_fast_path_cannot_take_is_named(tmp_path):
    result = call_here(tmp_path, *COMMANDS["fixed"], "--lr", "1e30")
    assert result.returncode == 2
    assert (
        "lower the learning rate or the weight decay, or use the backend 'reference'"
        in result.stderr
    )
    assert result.stderr.count("\n") == 1


def test_a_damaged_or_foreign_record_is_refused(undisturbed, tmp_path):
    out, content, _ = undisturbed["sno"]
    path, _ = the_record(out)
    assert record.read(path) == content
    shutil.copy(path, tmp_path / "a.json")
    (tmp_path / "b.json").write_text(path.read_text()[:500])
    (tmp_path / "c.json").write_text('{"some": "thing"}')
    (tmp_path / "d.json").write_text(json.dumps({**content, "schema": 0}))
    (tmp_path / "e.json").write_text(json.dumps({**content, "name": "another"}))
    records, refused = record.read_all(tmp_path)
    assert records == [content]
    assert [message.split("'")[1][-6:] for message in refused] == [
        "b.json",
        "c.json",
        "d.json",
        "e.json",
    ]


THREADED = ("connection-selection", "--depth", "10", "--growth-rate", "4", "--examples", "320")
THREADED = (*THREADED, "--test-examples", "100", "--epochs", "2", "--epsilon0", "2^-4")


def test_any_number_of_threads_gives_the_same_record(tmp_path):
    found = {}
    for threads in (1, 2, 3):
        out = tmp_path / str(threads)
        result = call_here(out, *THREADED, f"--threads={threads}")
        assert result.returncode == 0, result.stderr
        found[threads] = the_record(out)[1]
        assert found[threads]["times"]["threads"] == [threads]
    assert without_times(found[1]) == without_times(found[2]) == without_times(found[3])


@pytest.mark.parametrize(
    "options", [("--threads=2",), (*THREADED, "--threads=2", "--plain"), (*THREADED, "--threads=0")]
)
def test_threads_that_there_are_not(options, tmp_path):
    result = call_here(tmp_path / "out", *options)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1 or "Not the paper" in result.stdout
    assert "--threads" in result.stderr.splitlines()[-1]


def test_the_record_lists_the_machines(tmp_path):
    """A training that went on elsewhere says which iterations it did where."""
    trainer = types.SimpleNamespace(updater=types.SimpleNamespace(iteration=0))
    computers = []
    for threads, until in ((1, 40), (2, 70), (1, 100)):
        computers.append(Computers(get_device(-1), threads))
        if len(computers) == 3:
            computers[-1].own = {"processor": "another"}
        if len(computers) > 1:
            file = io.BytesIO()
            chainer.serializers.save_npz(file, computers[-2])
            file.seek(0)
            chainer.serializers.load_npz(file, computers[-1])
        computers[-1].initialize(trainer)
        while trainer.updater.iteration < until:
            trainer.updater.iteration += 1
            computers[-1](trainer)
    here, there = computers[-1].machines
    assert here["machine"] == record.machine(get_device(-1))
    assert there["machine"] == {"processor": "another"}
    assert [each["iterations"] for each in (here, there)] == [[1, 70], [71, 100]]
    assert [each["versions"] for each in (here, there)] == [[record.versions()]] * 2
    assert computers[-1].threads == [1, 2]
    assert [each["threads"] for each in (here, there)] == [[[1, 40], [2, 70]], [[1, 100]]]


def test_a_snapshot_that_is_older_than_the_list_of_machines():
    trainer = types.SimpleNamespace(updater=types.SimpleNamespace(iteration=30))
    computers = Computers(get_device(-1), 1)
    file = io.BytesIO()
    numpy.savez(file, other=1)
    file.seek(0)
    chainer.serializers.load_npz(file, computers)
    computers.initialize(trainer)
    assert computers.machines[0] == {"machine": None, "iterations": [1, 30]}
    assert computers.machines[1]["iterations"] == [31, 30]
    assert computers.machines[1]["threads"] == []


def test_the_record_lists_the_versions_of_each_machine(monkeypatch):
    """Nothing is known of an older snapshot's; a session at the same versions adds none."""
    trainer = types.SimpleNamespace(updater=types.SimpleNamespace(iteration=40))
    computers = Computers(get_device(-1), 1)
    computers.machines = [{"machine": computers.own, "iterations": [1, 40]}]
    for commit in "aabab":
        monkeypatch.setattr(record, "versions", lambda commit=commit: {"commit": commit})
        computers.initialize(trainer)
    (entry,) = computers.machines
    monkeypatch.undo()
    trainer.updater.iteration += 1
    computers(trainer)
    # Nor is the number of threads known.
    assert entry["threads"] == [[None, 40], [1, 41]]
    assert entry["versions"] == [None, *({"commit": commit} for commit in "abab")]
    trained = {"versions": {"commit": "c"}, "computers": computers.machines}
    assert groups.commits(trained) == ["a", "b", "c"]
    assert groups.commits({"versions": {"commit": None}}) == []


def cpu_time_of(trainer, saved=None):
    """Return the extension of a new process, with what a snapshot of another holds."""
    cpu = CPUTime(lambda trainer: True)
    if saved is not None:
        chainer.serializers.load_npz(io.BytesIO(saved), cpu)
    cpu.initialize(trainer)
    return cpu


def saved_by(extension):
    file = io.BytesIO()
    chainer.serializers.save_npz(file, extension)
    return file.getvalue()


def reported_by(extension, trainer):
    with chainer.reporter.Reporter().scope(observed := {}):
        extension(trainer)
    return observed


def test_the_cpu_time_of_an_epoch_goes_on_in_another_process(monkeypatch):
    trainer = types.SimpleNamespace(updater=types.SimpleNamespace(iteration=0))
    clock = iter([5.0, 7.0, 100.0, 103.5, 104.0])
    monkeypatch.setattr("reproduce.run.time.process_time", lambda: next(clock))
    saved = saved_by(cpu_time_of(trainer))
    trainer.updater.iteration = 1
    cpu = cpu_time_of(trainer, saved)
    assert reported_by(cpu, trainer) == {"cpu_seconds": 2 + 3.5}
    assert reported_by(cpu, trainer) == {"cpu_seconds": 0.5}


def test_the_cpu_time_of_an_epoch_that_an_older_program_began_is_unknown():
    trainer = types.SimpleNamespace(updater=types.SimpleNamespace(iteration=3))
    file = io.BytesIO()
    numpy.savez(file, other=1)
    cpu = cpu_time_of(trainer, file.getvalue())
    # A second process does not know it either.
    cpu = cpu_time_of(trainer, saved_by(cpu))
    assert reported_by(cpu, trainer) == {}
    assert reported_by(cpu, trainer)["cpu_seconds"] >= 0


def test_the_versions_of_the_machine_are_those_of_the_record(undisturbed):
    found = undisturbed["sno"][1]
    (entry,) = found["computers"]
    expected = {name: value for name, value in found["versions"].items() if name != "path"}
    assert entry["versions"] == [expected]


def test_a_long_record_is_small(undisturbed, tmp_path):
    _, content, _ = undisturbed["sno"]
    columns = {name: column * 500 for name, column in content["log"].items()}
    times = {**content["times"], "epoch_seconds": [7.12] * 500}
    record.write(tmp_path / "x.json", {**content, "log": columns, "times": times})
    assert (tmp_path / "x.json").stat().st_size < 200_000


@pytest.mark.parametrize("plain", [False, True])
def test_same_seed_same_bits_and_another_seed_another_network(tmp_path, rng, plain):
    images = rng.integers(0, 256, (64, 784), dtype=numpy.uint8)
    labels = rng.integers(0, 10, 64).astype("i")
    dataset = (images, labels), (images[:10], labels[:10])

    def weights(seed):
        settings = UnitSelection(epochs=2, units=8, seed=seed)
        built = UnitTraining(settings, dataset, get_device(-1), tmp_path / "x", plain)
        built.trainer.run()
        return built.link.output.W.array, built.bernoulli.theta

    first, second, other = weights(0), weights(0), weights(1)
    for a, b, c in zip(first, second, other):
        numpy.testing.assert_array_equal(a, b)
        assert not numpy.array_equal(a, c)


@pytest.mark.gpu
def test_gpu_trains_and_resumes(tmp_path):
    out, other = tmp_path / "whole", tmp_path / "killed"
    assert call(out, *COMMANDS["sno"], "--device", "0").returncode == 0
    interrupted(other, *COMMANDS["sno"], "--device", "0")
    assert call(other, *COMMANDS["sno"], "--device", "0").returncode == 0
    assert without_times(the_record(out)[1]) == without_times(the_record(other)[1])


def test_a_copy_inside_of_another_repository_has_no_commit(tmp_path, monkeypatch):
    copy = tmp_path / "copy"
    copy.mkdir()
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.setattr(record, "ROOT", copy)
    assert record._git_commit() is None


def test_a_plain_training_stopped_before_its_first_iteration_can_be_started_again(
    tmp_path, monkeypatch
):
    """Its optimizer has no state yet, which Chainer could not load from a snapshot."""
    monkeypatch.setattr(data, "load", noise)
    settings = UnitSelection(units=4, layers=1, epochs=1, examples=64, test_examples=10)
    options = {"quiet": True, "plain": True, "say": lambda _: None}
    with pytest.raises(Interrupted, match="stopped at iteration 0 of 2"):
        run.run(settings, tmp_path, run.Options(**options, watch=lambda log: True))
    assert run.run(settings, tmp_path, run.Options(**options))["result"]["iterations"] == 2
