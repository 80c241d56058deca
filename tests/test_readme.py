"""README.md says what the records say, and the map of the files names every file."""

import json
import re

import pytest

from reproduce import ROOT, ReproduceError, compare, readme, record
from reproduce.settings import SCHEDULES
from tests.reproduce import synthetic

README = readme.PATH.read_text()


@pytest.fixture(scope="module")
def records():
    found, refused = record.read_all(ROOT / readme.RUNS)
    assert not refused
    return found


def entries():
    """Return the paths in the map of the files."""
    text = (ROOT / "docs/explanation/file-map.rst").read_text()
    tree = text.partition(".. code-block:: text\n\n")[2]
    folders, found = [], set()
    for line in tree.splitlines():
        indent, name = re.match(r"   ( *)(\S+)", line).groups()
        depth = len(indent) // 2
        folders[depth:] = [name.strip("/")]
        found.add("/".join(folders[: depth + 1]))
    return found


def test_the_map_names_every_file():
    files = {
        str(path.relative_to(ROOT))
        for package in ("chainer_sno", "reproduce")
        for ending in ("py", "cu", "cuh")
        for path in (ROOT / package).rglob(f"*.{ending}")
        if not path.name.startswith("__")
    }
    assert files - entries() == set()
    assert {path for path in entries() if not (ROOT / path).exists()} == set()


def test_the_parts_are_those_of_the_records(records):
    """Where this fails, a record is new: ``make report`` writes the parts."""
    assert readme.fill(README, readme.parts(records)) == README


def test_the_figures_table_has_the_medians(records):
    # Counted here in another way than by reproduce.compare.
    cells = re.findall(r"<tr><td>(.+?)</td></tr>", README)
    rows = {cells[0]: cells[1:] for cells in (row.split("</td><td>") for row in cells)}
    assert list(rows) == list(readme.SETTINGS.values())
    chosen = [
        each for each in records if each["name"].startswith("unit-selection_sno_epsilon0=2^-7_seed")
    ]
    errors = sorted(each["result"]["test_error"] for each in chosen)
    rates = sorted(each["result"]["usage_rate"] for each in chosen)
    assert len(chosen) % 2 == 1
    middle = len(chosen) // 2
    usage, paper, error, trials = rows["ε₀ = 2⁻⁷"]
    assert usage == f"{100 * rates[middle]:.1f}%"
    assert error == f"{100 * errors[middle]:.2f}%"
    published = compare.published()["unit-selection"]["rows"]["2^-7"]["usage_rate"]
    assert paper == f"{100 * published:.1f}%"
    assert trials == str(len(chosen))
    assert 0.2 < rates[middle] < 0.3, "the README says a quarter of the units"


def test_the_status_counts_the_records(records):
    chosen = [
        each
        for each in records
        if each["schedule"] == "paper"
        and not each["changes"]
        and each["settings"]["experiment"] == "unit-selection"
    ]
    row = next(line for line in README.splitlines() if line.startswith("| 4.1"))
    hours = sum(each["times"]["seconds"] for each in chosen) / 3600
    assert f"| {len(chosen)} trainings, " in row
    assert f"| {hours:.0f} |" in row


def test_what_was_not_run_is_said_until_it_is_run(records):
    units = [each for each in records if each["settings"]["experiment"] == "unit-selection"]
    parts = readme.parts(units)
    assert "**Section 4.2 has not been run" in parts["status"]
    assert "**No record was made on a GPU.**" in parts["status"]
    # One run of it decides about nothing.
    first = synthetic.connection(method="random", usage_rate=0.158, seconds=3600.0)
    status = readme.parts([*units, first])["status"]
    assert "has not been run" not in status
    assert "**Too few runs of section 4.2 have finished**: nothing here confirms" in status
    (row,) = (line for line in status.splitlines() if line.startswith("| 4.2"))
    assert "| 1 of 14 settings | 1 training, 1 a setting |" in row
    assert "Section 4.1" not in status
    at_paper = next(each for each in records if each["schedule"] == "paper")
    made_up = json.loads(json.dumps(at_paper))
    made_up["machine"]["gpu"] = "some GPU"
    assert "GPU" not in readme.parts([*records, made_up])["status"]
    empty = readme.parts([])["status"]
    assert "**Section 4.1 has not been run" in empty


def test_a_page_without_the_parts_is_refused():
    with pytest.raises(ReproduceError, match="README.md has the parts none"):
        readme.fill("no part", {"figure": "", "status": ""})


def test_the_record_to_verify_is_there():
    (path,) = re.findall(r'rerun "(.+?)"', README)
    assert (ROOT / path).exists()


def benchmarks(file):
    """Return the rows of a benchmark's output by their case, the last of a case."""
    lines = (ROOT / "results/benchmarks" / file).read_text().splitlines()
    rows = [json.loads(line) for line in lines if line.startswith("{")]
    return {(row["case"], "DenseNet" in "".join(row)): row for row in rows}


def test_the_ratios_are_those_of_the_benchmarks():
    text = " ".join(re.search(r"\*\*Speed\.\*\*.+?\n\n", README, re.DOTALL)[0].split())
    units = benchmarks("emerald-rapids.txt")
    half = units["theta = 0.5", False]
    small = units["converged 92/31/24", False]
    zen4 = benchmarks("zen4-densenet.txt")
    connections = zen4["DenseNet, theta = 0.5", True]
    converged = zen4["DenseNet, converged at 15.8% usage", True]
    told = [float(number) for number in re.findall(r"\b0\.\d\d\b", text)]
    expected = [
        half["over stock Chainer"],
        half["over PyTorch"],
        half["over JAX"],
        small["over JAX"],
        connections["over PyTorch"],
        converged["over PyTorch"],
    ]
    assert told == [round(ratio, 2) for ratio in expected]


def test_the_short_run_is_as_short_as_the_page_says():
    assert f"1/{SCHEDULES['quick']} of the paper's schedule" in README


def test_it_is_short_and_so_is_its_example():
    assert len(README.splitlines()) <= 120
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(example.splitlines()) <= 25
    assert "reproduce" not in example, "the wheel has the library alone"


def test_its_links_lead_to_files():
    for path in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / path).exists(), path
