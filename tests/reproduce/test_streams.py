"""What is printed may go nowhere; files are written all the same."""

import io
import subprocess
import sys

import numpy
import pytest

from reproduce import ROOT, streams
from reproduce.experiments.unit_selection import UnitSelection
from reproduce.experiments.unit_training import UnitTraining
from reproduce.run import get_device

#: Training's work and words, as short as they can be, and then what its file holds.
PROGRAM = """
import sys
from pathlib import Path
from reproduce import cli, streams

def work(arguments):
    print("a word" * 2000, flush=True)
    Path(sys.argv[1]).write_text("kept")
    print("another")

parsed = type("Parsed", (), {"call": work})
cli.parse = lambda arguments: parsed
sys.exit(cli.main([]))
"""


def shell(command, tmp_path):
    arguments = ["bash", "-c", command, sys.executable, PROGRAM, str(tmp_path / "file")]
    return subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=100)


@pytest.mark.parametrize(
    ("to", "code", "told"),
    [
        (">/dev/full", 2, "reproduce: what is printed is lost (No space left on device)"),
        (">&-", 0, ""),
        ("2>&-", 0, ""),
        ("<&- >&- 2>&-", 0, ""),
        (">/dev/full 2>/dev/full", 2, ""),
    ],
)
def test_files_are_written_whatever_becomes_of_what_is_printed(to, code, told, tmp_path):
    result = shell(f'"$0" -c "$1" "$2" {to}', tmp_path)
    assert result.returncode == code
    assert (tmp_path / "file").read_text() == "kept"
    assert result.stderr.startswith(told)
    assert result.stderr.count("\n") == bool(told)


def test_a_reader_that_ends_early(tmp_path):
    result = shell('"$0" -c "$1" "$2" | true; echo ${PIPESTATUS[0]}', tmp_path)
    assert (result.stdout, result.stderr) == ("141\n", "")


def test_help_that_cannot_be_printed():
    command = ["bash", "-c", '"$0" -m reproduce --help >/dev/full', sys.executable]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1


def test_a_file_does_not_get_the_number_of_a_closed_stream(tmp_path):
    """The words would otherwise be written into it."""
    program = (
        "import sys, os\n"
        "from reproduce import streams\n"
        "with streams.checked():\n"
        "    with open(sys.argv[1], 'w') as file:\n"
        "        print(file.fileno() > 2, file=file)\n"
    )
    path = tmp_path / "file"
    command = ["bash", "-c", '"$0" -c "$1" "$2" >&- <&-', sys.executable, program, str(path)]
    subprocess.run(command, cwd=ROOT, check=True)
    assert path.read_text() == "True\n"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("term", "live"), [("xterm", True), ("dumb", False), (None, False)])
def test_control_sequences_are_for_terminals_that_know_them(term, live, monkeypatch, tmp_path, rng):
    monkeypatch.delenv("TERM", raising=False)
    if term is not None:
        monkeypatch.setenv("TERM", term)
    stream = Terminal()
    assert streams.is_live(stream) == live
    assert not streams.is_live(io.StringIO())
    images = rng.integers(0, 256, (64, 784), dtype=numpy.uint8)
    part = images, rng.integers(0, 10, 64).astype("i")
    settings = UnitSelection(epochs=1, units=8, layers=1, examples=64)
    training = UnitTraining(settings, (part, part), get_device(-1), tmp_path, plain=True)
    training.show(stream)
    training.trainer.run()
    assert "epoch" in stream.getvalue()
    assert ("\033" in stream.getvalue()) == live


def test_a_letter_that_the_locale_lacks():
    program = "from reproduce import streams\nwith streams.checked(): print('\\u03b8')"
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stdout) == (0, "\\u03b8\n")
