"""The report: complete, the same from the same records, and readable in a browser."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from reproduce import ROOT, claims, cli, experiments, figures, record, report
from reproduce.figures import gallery
from reproduce.report import findings, results
from reproduce.report.markup import Markdown, ReStructuredText
from tests.reproduce import synthetic, test_compare

#: The pages in Markdown.
PAGES = ("README.md", "FINDINGS.md", "REPORT.md")


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

    names = ("usage_rate_against_error", "error_over_epochs")
    for name in (*names, "structure_over_training", "theta_histogram"):
        monkeypatch.setattr(gallery, name, lambda *_: None)
    monkeypatch.setattr(figures, "densenet", lambda *_: None)
    monkeypatch.setattr(gallery, "save", synthetic.empty_files)


def test_it_is_the_same_from_the_same_records(records, written, tmp_path, undrawn):
    """The pages; that figures are the same bytes, their own tests see."""
    _, refused = record.read_all(written.parent)
    report.write(records[::-1], refused, tmp_path)
    for page in PAGES:
        assert (written / page).read_bytes() == (tmp_path / page).read_bytes(), page
    drawn = {path.name for path in (written / "figures").iterdir()}
    assert {path.name for path in (tmp_path / "figures").iterdir()} == drawn


def test_the_appendix_says_everything(written):
    text = (written / "REPORT.md").read_text()
    for line in (
        "from 7 records, 5 of them at the paper's schedule",
        "| epsilon0 = 2^-7 | 3 | 341/141/126 | 340/141/126 |",
        "| epsilon0 = 2^-7 | 1 | 391/392/393 |",
        "p is the probability of a split at least this uneven",
        "| 1st layer | 0 | 2 | 2 | 0.68 |",
        "| 2nd layer | 0 | 4 | 0 | 1 |",
        "short run, 1/125 of the full length",
        "No record at the paper's schedule: nothing is compared with the paper's Table 2.",
        "### unit-beats-fixed: not enough runs",
        "| fixed 205 a layer | 0.34 | 1 run of full length |",
        "broken.json",
    ):
        assert line in text, line
    shown = re.findall(r"!\[[^]]+\]\((figures/[^)]+\.png)\)", text)
    assert shown == ["figures/unit-selection-paper-figure-1a.png"]
    assert (written / "report.html").read_text().count("<img src=") >= 5
    for name in (written / "figures").glob("*.png"):
        assert name.stat().st_size > 1000
    runs = text[text.index("## All runs") :]
    assert sum(line.startswith("| Unit selection on MNIST |") for line in runs.splitlines()) == 6
    assert "| 1/125 of the full length | 125/d |" in runs


def test_the_table_of_runs_names_what_was_changed():
    changed = synthetic.unit(gradients="sum", eta_factor=2.0, dataset="fashion-mnist")
    said = report.content([changed], [], [], [], [])
    row = dict(zip(said["run_columns"], said["runs"][0]))
    assert row["schedule"] == ("full length, gradients=sum", 1.0)


def test_tables_are_whole(written):
    for name in ("README", "FINDINGS", "REPORT"):
        text = (written / f"{name}.md").read_text()
        blocks = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
        assert blocks, name
        for block in blocks:
            counts = {line.replace("\\|", "").count("|") for line in block.splitlines()}
            assert len(counts) == 1, block


def test_the_contents_lead_to_the_headings(written):
    text = (written / "REPORT.md").read_text()
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert len(set(headings)) == len(headings) > 8
    assert re.findall(r"^- \[(.+)\]\(#.+\)$", text, re.MULTILINE) == headings
    links = re.findall(r"\]\(#(.+)\)", text)
    assert links == [report.slug(heading) for heading in headings]
    # As GitHub makes them.
    assert "unit-selection-on-mnist-section-41-the-papers-schedule" in links


def test_every_figure_and_caption_stands_once_below_its_own_table(written):
    html = (written / "report.html").read_text()
    parts = re.split(r"<h2>", html)
    for part in parts:
        heading = part.partition("</h2>")[0]
        for caption in re.findall(r"<figcaption>(.*?)</figcaption>", part, re.DOTALL):
            schedule = heading.rpartition(": ")[2].replace("\n", " ")
            assert schedule in caption, (heading, caption)
    text = (written / "REPORT.md").read_text()
    section = text.index("## Unit selection on MNIST (section 4.1): the paper's schedule")
    picture = text.index("![")
    assert section < picture < text.index("## Unit selection on MNIST: a short run")
    captions = re.findall(r"^\*(Figure .*)\*$", text, re.MULTILINE)
    assert len(captions) == 1
    assert text.count(captions[0]) == 1


def test_headings_name_the_data_set(tmp_path, undrawn, capsys):
    """Two experiments on two data sets never have the same heading."""
    trials = [
        synthetic.unit(epsilon0="2^-7"),
        synthetic.unit(epsilon0="2^-7", dataset="fashion-mnist"),
    ]
    test_compare.write(trials, tmp_path)
    assert cli.main(["compare", "--runs", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    report.write(trials, [], tmp_path / "out")
    for text in (printed, *((tmp_path / "out" / name).read_text() for name in PAGES)):
        assert "Unit selection on MNIST" in text or "unit selection on MNIST" in text
    for text in (printed, (tmp_path / "out" / "REPORT.md").read_text()):
        assert "Unit selection on Fashion-MNIST" in text
    for name in ("README.md", "FINDINGS.md"):
        headings = re.findall(r"^#+ .*$", (tmp_path / "out" / name).read_text(), re.MULTILINE)
        assert len(headings) > 3
        assert all("MNIST" in heading or "CIFAR-10" in heading for heading in headings)


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
        "epsilon0 = 2^-4|0|dead|57/39/67|0/0/0|11/9/12|0/0/0|0/0/0|0/0/0",
        "epsilon0 = 2^-4|1|7|25/25/25|25/25/25|13/13/13|12/12/12|12/12/12|12/12/12",
        "random at 100.0%|0|40|91/91/91|91/91/91|13/13/13|12/12/12|1/1/1|0/0/0",
    ]
    text, html = ((tmp_path / name).read_text() for name in ("REPORT.md", "report.html"))
    for row in rows:
        cells = row.split("|")
        assert f"| {' | '.join(cells)} |" in text
        assert "".join(f"<td>{cell}</td>" for cell in cells) in html
    report.write([synthetic.unit(epsilon0="2^-7")], [], tmp_path)
    assert "on a path" not in (tmp_path / "REPORT.md").read_text()


def test_table_2_has_the_error_with_statistics_estimated_anew(tmp_path, undrawn):
    trials = [synthetic.connection(epsilon0="2^-4", seed=seed) for seed in range(3)]
    trials += [
        synthetic.connection(method="random", usage_rate=0.423),
        synthetic.unit(epsilon0=0.0),
    ]
    page = write_beside(trials, tmp_path)["README.md"]
    assert "re-estimated" not in page
    assert "estimated anew" not in page
    for trial, error in zip(trials, (0.07, 0.09, 0.08)):
        trial["result"]["reestimated_augmented_test_error"] = error
    pages = write_beside(trials, tmp_path)
    assert pages["README.md"].count("| test error % | re-estimated % |") == 1
    assert pages["README.md"].count("statistics estimated anew") == 1
    assert re.search(r"\| epsilon0 = 2\^-4 \|.*\| 8.00 \[7.50, 8.50\] \|\n", pages["README.md"])
    assert re.search(r"\| random at 42.3% \|.*\| 10.00 \| - \|\n", pages["README.md"])
    assert "| re-estimated % | hours |" in pages["REPORT.md"]


def test_short_runs_are_told_until_each_setting_has_a_run_of_full_length():
    short, _ = record.read_all(ROOT / "results" / "pilot")
    trials = [trial for trial in whole() if trial["settings"]["seed"] == 0]
    assert findings.content(trials, (), short)["pilot"] == []
    missing = [trial for trial in trials if trial["settings"].get("epsilon0") != 0.25]
    (told,) = findings.content(missing, (), short)["pilot"]
    assert told["subject"] == "connection selection on CIFAR-10"


def test_without_records_it_says_so(tmp_path):
    report.write([], [], tmp_path)
    text = (tmp_path / "REPORT.md").read_text()
    assert "from 0 records" in text
    assert "No record tells what a training at the paper's settings takes." in text
    assert "none of the 14 settings has a finished run" in (tmp_path / "README.md").read_text()


def test_a_directory_that_cannot_be_written_is_named(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    out = str(tmp_path / "file" / "out")
    assert cli.main(["report", "--runs", str(tmp_path), "--out", out]) == 2
    assert "cannot" in capsys.readouterr().err


def test_a_page_that_is_not_its_own_is_not_written_over(tmp_path, undrawn, capsys):
    (tmp_path / "README.md").write_text("# Mine\n")
    (tmp_path / "runs").mkdir()
    test_compare.write([synthetic.unit(epsilon0="2^-7")], tmp_path / "runs")
    arguments = ["report", "--runs", str(tmp_path / "runs"), "--out"]
    assert cli.main([*arguments, str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "README.md' was not written by `report`" in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.glob("*.*")] == ["README.md"]
    # Its own pages are.
    for _ in range(2):
        assert cli.main([*arguments, str(tmp_path / "out")]) == 0


@pytest.fixture(scope="module")
def committed():
    """The committed records."""
    found, refused = record.read_all(ROOT / "results" / "runs")
    assert not refused
    return found


def write_beside(records, directory):
    """Write the report of records beside the committed unfinished runs and pilot."""
    beside = ROOT / "results"
    report.write(records, [], directory, beside / "progress", beside / "pilot")
    return {name: (directory / name).read_text() for name in PAGES}


def test_the_committed_pages_follow_from_the_committed_records(committed, tmp_path, undrawn):
    for name, text in write_beside(committed, tmp_path).items():
        assert text == (ROOT / "results" / name).read_text(), f"{name}: run `make report`"
    assert (ROOT / "results" / "README.md").read_text().count("\n") <= 120
    # The tables grow with the records; what there is to read does not.
    prose = re.sub(
        r"^\|.*$", "", (ROOT / "results" / "FINDINGS.md").read_text(), flags=re.MULTILINE
    )
    assert words(prose) <= 750


def words(text):
    """Return how many words there are in a text, numbers among them."""
    return len(re.findall(r"\S*\w\S*", text))


def tracked(*under):
    """Return the paths of a folder that git tracks."""
    found = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *under],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in found.stdout.split("\0") if name and (ROOT / name).exists()]


def ignored(path):
    command = ["git", "check-ignore", "--quiet", "--no-index", path]
    return subprocess.run(command, cwd=ROOT).returncode == 0


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the repository")
def test_the_repository_is_light():
    files = tracked("results")
    assert len(files) > 50
    runs = [path for path in files if path.parent.name == "runs"]
    assert max(path.stat().st_size for path in runs) <= 165_000
    assert sum(path.stat().st_size for path in files if path not in runs) <= 2_500_000
    pictures = {path for path in files if path.suffix in (".png", ".svg", ".html", ".pdf")}
    pages = [path for path in tracked() if path.suffix in (".md", ".rst", ".py")]
    shown = {
        (page.parent / address).resolve()
        for page in pages
        for address in re.findall(r"[\w./-]+\.png", page.read_text())
    }
    assert pictures <= shown, "a picture that no committed page shows"


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the repository")
def test_of_all_figures_git_takes_those_of_the_results_page(tmp_path, undrawn):
    trials = [synthetic.unit(epsilon0="2^-7"), synthetic.connection(epsilon0="2^-4")]
    trials += [synthetic.connection(epsilon0="2^-2"), synthetic.unit(epsilon0="0", epochs=4)]
    # A figure of one method compares nothing.
    assert list(results.figure_names(trials).values()) == ["Figure 2"]
    trials += [synthetic.unit(method="fixed"), synthetic.connection(method="random")]
    shown = set(results.figure_names(trials))
    assert len(shown) == 3
    drawn = [Path(file) for each in figures.draw_all(trials, tmp_path) for file in each.files]
    taken = {file.name for file in drawn if not ignored(f"results/figures/{file.name}")}
    assert taken == {f"{name}.png" for name in shown}
    text = write_beside(trials, tmp_path / "out")["README.md"]
    assert set(re.findall(r"\(figures/(.+)\.png\)", text)) == shown
    assert "## Figure 2: connection selection on CIFAR-10" in text
    assert ignored("results/report.html")


def test_a_new_record_changes_no_file_that_is_written_by_hand(committed, tmp_path, undrawn):
    """Every number of the pages comes from records: the templates have none."""
    before = write_beside(committed, tmp_path / "before")
    new = synthetic.unit(0.0142, (598, 351, 370), epsilon0="2^-8", seed=4)
    new["versions"]["commit"] = "0123456789abcdef"
    after = write_beside([*committed, new], tmp_path / "after")
    for name in PAGES:
        assert before[name] != after[name], name
    assert "| epsilon0 = 2^-8 | 5 | 56.0 |" in after["README.md"]
    assert "below in 20 trials, equal in 1, above in 0" in after["FINDINGS.md"]
    written = {path.relative_to(tmp_path / "after") for path in (tmp_path / "after").glob("*")}
    assert {str(path) for path in written} == {*PAGES, "report.html", "figures"}
    for path in sorted((ROOT / "reproduce" / "report" / "templates").glob("*.jinja")):
        if path.name != "report.html.jinja":  # its style has numbers
            text = path.read_text().replace("25% and 75% quantiles", "")
            typed = re.findall(r"\d+\.\d\d|\d%", text)
            assert not typed, (path.name, typed)


def said(text, finding):
    """Return the verdict that the findings state on a claim; None where they state none."""
    for outcome in (claims.PARTLY, claims.HOLDS, claims.FAILS):
        if f"`{finding.id}` {outcome}:" in " ".join(text.split()):
            return outcome
    return None


def whole(shift=0.0):
    """Return five trials of every setting of both experiments, with orderly results."""
    found = []
    for kind in experiments.all_experiments().values():
        make = {"unit-selection": synthetic.unit, "connection-selection": synthetic.connection}
        full = {"unit-selection": 784, "connection-selection": 91}[kind.name]
        for method, settings in kind.grid({}).items():
            for place, values in enumerate(settings):
                for seed in range(5):
                    error = 0.02 + 0.001 * place + 0.0001 * seed + shift * (method == "sno")
                    part = max(3, full - 9 * place - seed)
                    sizes = {
                        "unit-selection": {"units": (full, part, part - 1)},
                        "connection-selection": {"connections": (full, part - 2, part)},
                    }[kind.name]
                    found.append(
                        make[kind.name](error, **sizes, method=method, seed=seed, **values)
                    )
    return found


@pytest.mark.parametrize("shift", [0.0, -0.01, 0.01])
def test_the_findings_state_the_computed_verdicts_and_no_others(shift, tmp_path, undrawn):
    records = whole(shift)
    text = write_beside(records, tmp_path)["FINDINGS.md"]
    judged = claims.findings(records)
    assert {finding.outcome for finding in judged} >= {claims.HOLDS, claims.FAILS}
    for finding in judged:
        expected = None if finding.outcome == claims.UNKNOWN else finding.outcome
        assert said(text, finding) == expected, finding.id
    beats = next(finding for finding in judged if finding.id == "unit-beats-fixed")
    assert ("Selected structures beat" in text) == (beats.outcome == claims.HOLDS)
    # With everything reproduced, the pages still are short, and name nothing as missing.
    assert words(text) <= 900
    page = (tmp_path / "README.md").read_text()
    assert page.count("\n") <= 120
    # The committed unfinished runs of section 4.2 are among the records here.
    assert "Connection selection on CIFAR-10: nothing is missing." in page


def test_the_committed_findings_say_of_each_claim_what_the_records_say(committed):
    text = (ROOT / "results" / "FINDINGS.md").read_text()
    for finding in claims.findings(committed):
        expected = None if finding.outcome == claims.UNKNOWN else finding.outcome
        assert said(text, finding) == expected, finding.id


def test_both_markups_say_the_same():
    markdown, rst = Markdown(), ReStructuredText()
    assert markdown.table(["a", "b"], [["1", "2"]]) == "| a | b |\n|---|---|\n| 1 | 2 |"
    assert rst.table(["a", ""], [["1", "2"]]).splitlines()[2:] == [
        "",
        "   * - a",
        "     -",
        "   * - 1",
        "     - 2",
    ]
    assert rst.heading(2, "ab") == "ab\n--"
    assert rst.escape("M* x_y|`") == r"M\* x\_y\|\`"
    assert markdown.link("the findings", "FINDINGS") == "[the findings](FINDINGS.md)"
    assert rst.link("the findings", "FINDINGS") == ":doc:`the findings <findings>`"


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
