"""The report: complete, the same from the same records, and readable in a browser."""

import json
import re
import shutil

import pytest

from reproduce import ROOT, claims, cli, record, report
from reproduce.figures import gallery
from tests.reproduce import synthetic, test_compare


@pytest.fixture(scope="module")
def records():
    found = [
        synthetic.unit(
            0.016 + seed / 1000, (340 + seed, 141, 126), 3600.0, epsilon0="2^-7", seed=seed
        )
        for seed in range(3)
    ]
    found += [synthetic.unit(0.025, (92, 31, 24), epsilon0="2^-6")]
    found += [synthetic.unit(0.022, seconds=1234.0, method="fixed", width=205)]
    found += [synthetic.unit(0.05, (391, 392, 393), epsilon0="2^-7", epochs=4)]
    found += [synthetic.connection(0.3, epsilon0="2^-4", epochs=3)]
    return found


@pytest.fixture(scope="module")
def written(records, tmp_path_factory):
    directory = tmp_path_factory.mktemp("report")
    test_compare.write(records, directory)
    (directory / "broken.json").write_text("{")
    out = directory / "out"
    assert cli.main(["report", "--runs", str(directory), "--out", str(out)]) == 0
    return out


@pytest.fixture
def undrawn(monkeypatch):
    """Empty files for figures, where the words alone matter."""

    def save(_, path):
        files = [path.with_name(f"{path.name}.{ending}") for ending in ("png", "svg")]
        for file in files:
            file.touch()
        return files

    for name in ("usage_rate_against_error", "error_against_seconds", "densenet"):
        monkeypatch.setattr(gallery, name, lambda *_: None)
    for name in ("structure_over_training", "theta_histogram"):
        monkeypatch.setattr(gallery, name, lambda *_: None)
    monkeypatch.setattr(gallery, "save", save)


def test_it_is_the_same_from_the_same_records(records, written, tmp_path):
    _, refused = record.read_all(written.parent)
    report.write(records[::-1], refused, tmp_path)
    for path in sorted(written.rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / path.relative_to(written)).read_bytes(), path


def test_the_markdown_says_everything(records, written):
    text = (written / "REPORT.md").read_text()
    for line in (
        "What 7 records say, 5 of them at the paper's schedule",
        "| epsilon0 = 2^-7 | 3 | 341/141/126 | 340/141/126 |",
        "| epsilon0 = 2^-7 | 1 | 391/392/393 |",
        "On which side of the paper's median the trials lie",
        "| 1st layer | 0 | 2 | 2 | 0.68 |",
        "| 2nd layer | 0 | 4 | 0 | 1 |",
        "short run, 1/125 of the paper's iterations",
        "No record at the paper's schedule: nothing is compared with the paper's Table 2.",
        "- not enough runs: 18",
        "### unit-beats-fixed: not enough runs",
        "| fixed 205 a layer | 0.34 | 1 run at the paper's schedule |",
        "broken.json",
    ):
        assert line in text, line
    figures = re.findall(r"!\[[^]]+\]\((figures/[^)]+\.png)\)", text)
    assert figures == ["figures/unit-selection-paper-figure-1a.png"]
    assert (written / "report.html").read_text().count("<img src=") >= 5
    for name in (written / "figures").glob("*.png"):
        assert name.stat().st_size > 1000
    runs = text[text.index("## How each was run") :]
    assert sum(line.startswith("| unit-selection") for line in runs.splitlines()) == 6
    # Whole tables: every line of one has as many cells as its header.
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        counts = {line.replace("\\|", "").count("|") for line in block.splitlines()}
        assert len(counts) == 1, block


def test_the_page_needs_nothing_else(written):
    html = (written / "report.html").read_text()
    for address in re.findall(r'(?:src|href)="([^"]*)"', html):
        assert address.startswith("data:"), address[:80]
    assert "http" not in re.sub(r'data:[^"]*', "", html)


def test_texts_of_records_are_escaped(records, tmp_path, undrawn):
    evil = json.loads(json.dumps(records[0]))
    evil["machine"]["processor"] = "<script>alert(1)</script>|x"
    report.write([evil], ["<b>'a.json'</b>"], tmp_path)
    html = (tmp_path / "report.html").read_text()
    assert "<script>alert" not in html
    assert "<b>'a" not in html
    assert "</script>\\|x" in (tmp_path / "REPORT.md").read_text()


def test_what_is_left_of_each_densenet_is_told(tmp_path, undrawn):
    trials = [
        # The bits of the exits come last and are off, so no path leads through a block.
        synthetic.connection(connections=(57, 39, 67), epsilon0="2^-4", epochs=3),
        # Layers side by side: a block's input leads to each of the 12, and all 13 to the exit.
        synthetic.connection(wide=(0, 1, 2), epsilon0="2^-4", epochs=3, seed=1),
        synthetic.connection(connections=(91, 91, 91), method="random", usage_rate=1.0, epochs=6),
    ]
    report.write(trials, [], tmp_path)
    rows = [
        ("epsilon0 = 2^-4", "0", "dead", "57/39/67", "0/0/0", "11/9/12"),
        ("epsilon0 = 2^-4", "1", "7", "25/25/25", "25/25/25", "13/13/13"),
        ("random at 100.0%", "0", "40", "91/91/91", "91/91/91", "13/13/13"),
    ]
    text, html = ((tmp_path / name).read_text() for name in ("REPORT.md", "report.html"))
    for row in rows:
        assert f"| {' | '.join(row)} |" in text
        assert "".join(f"<td>{cell}</td>" for cell in row) in html
    report.write([synthetic.unit(epsilon0="2^-7")], [], tmp_path)
    assert "on a path" not in (tmp_path / "REPORT.md").read_text()


def test_without_records_it_says_so(tmp_path):
    report.write([], [], tmp_path)
    text = (tmp_path / "REPORT.md").read_text()
    assert "What 0 records say" in text
    assert "No record, no time." in text


def test_a_directory_that_cannot_be_written_is_named(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    out = str(tmp_path / "file" / "out")
    assert cli.main(["report", "--runs", str(tmp_path), "--out", out]) == 2
    assert "cannot" in capsys.readouterr().err


def test_the_committed_report_follows_from_the_committed_records(tmp_path, undrawn):
    records, refused = record.read_all(ROOT / "results" / "runs")
    assert not refused
    report.write(records, refused, tmp_path, ROOT / "results" / "progress")
    assert (tmp_path / "REPORT.md").read_text() == (ROOT / "results" / "REPORT.md").read_text()


def test_the_committed_findings_say_of_each_claim_what_the_records_say():
    records, _ = record.read_all(ROOT / "results" / "runs")
    text = " ".join((ROOT / "results" / "FINDINGS.md").read_text().split())
    for finding in claims.findings(records):
        for outcome in (claims.HOLDS, claims.PARTLY, claims.FAILS):
            # A claim that cannot be judged yet must not be said to be.
            said = re.search(rf"`{finding.id}` {outcome}(?! in part)", text) is not None
            assert said == (finding.outcome == outcome), (finding.id, finding.outcome)


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("needs Chromium")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=path)
        yield opened
        opened.close()


@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_is_readable_in_a_browser(browser, written, width):
    page = browser.new_page(viewport={"width": width, "height": 900})
    problems = []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("requestfailed", lambda request: problems.append(request.url[:80]))
    page.goto((written / "report.html").as_uri())
    images = page.eval_on_selector_all(
        "img", "found => found.map(i => [i.complete, i.naturalWidth, i.width, i.alt])"
    )
    assert len(images) >= 5
    for complete, natural, shown, name in images:
        assert complete, name
        assert natural > 0, name
        assert 300 <= shown <= width, name
    # Nothing but the tables in their own frames is wider than the window.
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    sizes = page.eval_on_selector_all(
        "p, li, td, th, figcaption",
        "found => found.map(e => parseFloat(getComputedStyle(e).fontSize))",
    )
    assert min(sizes) >= 13
    assert not problems
    page.close()


def test_the_table_of_runs_is_sorted_by_a_click(browser, written):
    page = browser.new_page()
    page.goto((written / "report.html").as_uri())

    def shown(column):
        return page.eval_on_selector_all(
            "table.runs tbody tr", f"rows => rows.map(row => row.cells[{column}].textContent)"
        )

    head = page.locator("table.runs th", has_text="test error %")
    column = head.evaluate("head => head.cellIndex")
    before = shown(column)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    errors = [float(text) for text in shown(column)]
    assert errors == sorted(errors)
    head.locator("button").click()
    assert [float(text) for text in shown(column)] == errors[::-1]
    assert before not in (errors, errors[::-1])
    method = page.locator("table.runs th", has_text="method")
    method.locator("button").click()
    names = shown(method.evaluate("head => head.cellIndex"))
    assert names == sorted(names)
    assert head.get_attribute("aria-sort") is None
    page.close()
