"""A session on a GPU stops in time and goes on; here with commands that need none."""

import contextlib
import json
import tarfile
import textwrap
import time
import types

import numpy
import pytest

from benchmarks import gpu_session
from benchmarks.gpu_session import DONE, FAILED, STOPPED, Piece, Session
from reproduce import ReproduceError, data, record
from reproduce.experiments.unit_selection import UnitSelection
from tests.conftest import _has_gpu

RUN = UnitSelection(epsilon0=0.0)
#: Goes on where it was stopped: the first time it waits for the signal, the second it ends.
TRAINING = """
    import pathlib, signal, sys, time
    runs = pathlib.Path({runs!r})
    directory = runs / {name!r}
    directory.mkdir(parents=True, exist_ok=True)
    mark = directory / "snapshot_iter_000000007.npz"

    def stop(number, frame):
        mark.write_text("here")
        sys.exit(143)

    signal.signal(signal.SIGTERM, stop)
    print("training", flush=True)
    if not mark.exists():
        time.sleep(60)
    (runs / {record!r}).write_text("{{}}")
"""


def python(text):
    return ["-c", textwrap.dedent(text)]


@pytest.fixture
def soon(monkeypatch):
    """Times of tests."""
    monkeypatch.setattr(gpu_session, "STOPPING", 1)
    monkeypatch.setattr(gpu_session, "WORTH_IT", 0.1)


@pytest.fixture
def session(tmp_path, soon):
    def make(commit="one", again=()):
        said = []
        found = Session(tmp_path, commit, again, said.append)
        found.said = said
        return found

    (tmp_path / "runs").mkdir()
    return make


def training(tmp_path):
    runs = tmp_path / "runs"
    text = TRAINING.format(runs=str(runs), name=RUN.name, record=f"{RUN.name}.json")
    return Piece("training", python(text), 1000, [RUN])


def test_pieces_end_or_fail_once(session, tmp_path):
    pieces = [
        Piece("well", python("print('well')"), 0),
        Piece("badly", python("import sys; print('no'); sys.exit(3)"), 0),
    ]
    first = session()
    assert not first.run(pieces, 60)
    assert (tmp_path / "well.txt").read_text() == "well\n"
    assert (tmp_path / "badly.txt").read_text() == "no\n"
    known = json.loads((tmp_path / "session.json").read_text())
    assert known["well"]["outcome"] == DONE
    assert known["badly"]["outcome"] == FAILED
    assert known["badly"]["code"] == 3
    assert known["badly"]["commit"] == "one"
    # The same commit: nothing is run, and what failed has still failed.
    again = session()
    assert not again.run(pieces, 60)
    assert not again.said
    assert session().run(pieces[:1], 60)
    # Another commit, or the user's word.
    for arguments, names in ((("two",), "well badly"), (("two", ["badly"]), "badly")):
        other = session(*arguments)
        other.run(pieces, 60)
        assert [line.split(":")[0] for line in other.said[::2]] == names.split()


def test_a_training_is_stopped_in_time_and_goes_on(session, tmp_path):
    piece = training(tmp_path)
    first = session()
    begun = time.monotonic()
    assert not first.run([piece, Piece("late", python("print()"), 50)], 3)
    assert time.monotonic() - begun < 5
    assert first.known["training"]["outcome"] == STOPPED
    assert "late: left for the next call" in first.said[-1]
    assert session().outcome(piece) is None
    assert session().run([piece], 30)
    assert (tmp_path / "training.txt").read_text() == "training\ntraining\n"
    assert session().outcome(piece) == DONE


def test_what_cannot_go_on_is_ended_with_all_that_it_started(session, tmp_path):
    text = """
        import subprocess, sys, time
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3); print('alive')"])
        time.sleep(60)
    """
    found = session()
    assert not found.run([Piece("endless", python(text), 0)], 2)
    assert found.known["endless"]["outcome"] == STOPPED
    assert session().outcome(Piece("endless", [], 0)) is None
    time.sleep(2.5)
    assert (tmp_path / "endless.txt").read_text() == ""


def test_a_training_that_fails_is_taken_again(session, tmp_path):
    piece = Piece("training", python("import sys; sys.exit(2)"), 0, [RUN])
    found = session()
    assert not found.run([piece], 60)
    assert found.known["training"]["outcome"] == FAILED
    assert session().outcome(piece) is None


def test_what_is_packed_goes_on_elsewhere(session, tmp_path):
    piece = training(tmp_path)
    session().run([Piece("well", python("print('well')"), 0), piece], 3)
    finished = tmp_path / "runs" / "finished"
    finished.mkdir()
    (finished / "snapshot_iter_000000001.npz").write_text("old")
    (tmp_path / "runs" / "finished.json").write_text("{}")
    archives = gpu_session.pack(tmp_path)
    assert [path.name for path in archives] == ["results.tar.gz", "unfinished-1.tar.gz"]
    other = tmp_path / "other"
    for path in archives:
        with tarfile.open(path) as archive:
            archive.extractall(other, filter="data")
    names = {str(path.relative_to(other)) for path in other.rglob("*") if path.is_file()}
    assert names == {
        "session.json",
        "well.txt",
        "training.txt",
        "runs/finished.json",
        f"runs/{RUN.name}/snapshot_iter_000000007.npz",
    }
    moved = Session(other, "one")
    assert moved.outcome(Piece("well", [], 0)) == DONE
    # Packed again, the archives hold no archives.
    assert [path.name for path in gpu_session.pack(tmp_path)] == [p.name for p in archives]


def test_the_dry_run_lists_what_is_left(tmp_path, capsys):
    out = tmp_path / "out"
    assert gpu_session.main(["--out", str(out), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert not out.exists()
    assert "goes on, 0 of 70     1.6 h" in said
    assert "python -m pytest -m gpu" in said
    order = [line.split()[2] for line in said.splitlines() if line.startswith("section-4.2")]
    assert order[:6] == [f"epsilon0={text}" for text in gpu_session.PENALTIES]
    (out / "runs").mkdir(parents=True)
    run = UnitSelection(method="dropout", seed=3)
    (out / "runs" / f"{run.name}.json").write_text('{"times": {"seconds": 60}}')
    arguments = ["--out", str(out), "--dry-run", "--only", "section-4.1,tests"]
    assert gpu_session.main(arguments) == 0
    said = capsys.readouterr().out
    assert "goes on, 1 of 70" in said
    assert "section-4.2-" not in said


@pytest.mark.parametrize(
    ("again", "left"),
    [("", 0), ("tests", 1), ("benchmark", 2), ("benchmark-unit-selection,launches", 2)],
)
def test_again_takes_names_and_their_beginnings(again, left, tmp_path, capsys):
    names = "tests", "launches", "benchmark-unit-selection", "benchmark-connection-selection"
    done = {"outcome": DONE, "commit": record.versions()["commit"]}
    (tmp_path / "session.json").write_text(json.dumps(dict.fromkeys(names, done)))
    arguments = ["--dry-run", "--only", ",".join(names), "--again", again]
    assert gpu_session.main(["--out", str(tmp_path), *arguments]) == 0
    assert capsys.readouterr().out.count("to be run") == left


def test_the_time_that_is_left_knows_how_far_a_training_is(tmp_path):
    assert gpu_session.seconds_of(tmp_path, [RUN]) == pytest.approx(937500 * 0.0865e-3)
    (tmp_path / RUN.name).mkdir()
    progress = {"iteration": 937400, "seconds_per_iteration": 0.5}
    (tmp_path / RUN.name / "progress.json").write_text(json.dumps(progress))
    assert gpu_session.seconds_of(tmp_path, [RUN]) == pytest.approx(50)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--minutes", "0"], "--minutes must be positive"),
        (["--jobs", "0"], "--jobs must be at least 1"),
        (["--device", "-1"], "--device must name a GPU"),
        (["--only", "nothing"], "'nothing' is none of the pieces"),
        (["--again", "test,nothing"], "'nothing' is none of the pieces"),
    ],
)
def test_bad_input_is_refused(arguments, message, tmp_path):
    with pytest.raises(SystemExit, match=message):
        gpu_session.main(["--out", str(tmp_path / "out"), *arguments])
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(_has_gpu(), reason="there is a GPU")
def test_without_a_gpu_one_line_says_so(tmp_path):
    with pytest.raises(SystemExit) as caught:
        gpu_session.main(["--out", str(tmp_path / "out")])
    message = str(caught.value)
    assert message.startswith("benchmarks: a session needs a GPU, and device 0 cannot be used")
    assert "--dry-run" in message
    assert "\n" not in message
    assert not (tmp_path / "out").exists()


class FakeDevice:
    """Says of itself what CuPy says of a GPU."""

    xp = types.SimpleNamespace(
        cuda=types.SimpleNamespace(
            runtime=types.SimpleNamespace(
                getDeviceProperties=lambda number: {
                    "name": b"Fake GPU",
                    "major": 9,
                    "minor": 0,
                    "multiProcessorCount": 132,
                    "totalGlobalMem": 2**37,
                },
                driverGetVersion=lambda: 12080,
                runtimeGetVersion=lambda: 12090,
            ),
            nvrtc=types.SimpleNamespace(getVersion=lambda: (12, 9)),
        )
    )
    device = types.SimpleNamespace(id=0)

    def __str__(self):
        return "@cupy:0"


def test_a_session_notes_its_environment_and_ends(tmp_path, soon, monkeypatch, capsys):
    out = tmp_path / "out"
    monkeypatch.setattr(gpu_session, "get_device", lambda number: FakeDevice())
    loaded = []
    monkeypatch.setattr(data, "load", lambda *arguments: loaded.append(arguments))
    monkeypatch.setattr(
        gpu_session,
        "pieces_of",
        lambda out, *rest: [Piece("tests", python("print('well')"), 0), training(out)],
    )
    arguments = ["--out", str(out), "--minutes", "0.06", "--data-dir", "there", "--pack"]
    assert gpu_session.main(arguments) == 1
    assert "the same command goes on" in capsys.readouterr().out
    assert gpu_session.main([*arguments[:3], "1", *arguments[4:]]) == 0
    assert loaded == [("mnist", "there")] * 2
    (found,) = json.loads((out / "environment.json").read_text())
    assert found["gpu"] == "Fake GPU"
    assert found["compute_capability"] == "9.0"
    assert found["nvrtc"] == "12.9"
    assert found["driver"] == 12080
    assert found["numpy"] == numpy.__version__
    assert (out / "packed" / "results.tar.gz").exists()


def test_no_two_sessions_share_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_session, "get_device", lambda number: FakeDevice())

    @contextlib.contextmanager
    def held(directory, wait, warn):
        raise ReproduceError("another process is training out")
        yield

    monkeypatch.setattr(gpu_session.marks, "locked", held)
    with pytest.raises(SystemExit, match="another process"):
        gpu_session.main(["--out", str(tmp_path / "out")])
