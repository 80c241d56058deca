"""The report: what the records say, as Markdown and as one page for a browser.

``README.md`` is the results page, ``FINDINGS.md`` interprets it, and ``REPORT.md`` has every table.
``report.html`` holds all figures too.
"""

import base64
import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from chainer_sno.files import write_bytes
from reproduce import (
    ReproduceError,
    budget,
    claims,
    compare,
    experiments,
    figures,
    progress,
    record,
)
from reproduce._types import Record, StrPath
from reproduce.experiments import from_dict
from reproduce.experiments.base import Experiment
from reproduce.groups import commits as commits_of
from reproduce.groups import computer, machines_of, versions_of
from reproduce.report import findings, results
from reproduce.report.markup import Markdown, Markup
from reproduce.settings import fraction_of_paper
from reproduce.statistics import in_percent

#: The first line of a page that this module wrote, where a user could have one of the same name.
MARK = "<!-- Written by `python -m reproduce report`. Do not edit. -->"
#: The pages that begin with it.
PAGES = ("README", "FINDINGS")
_CONTENTS = "<!-- contents -->"
_TEMPLATES = Path(__file__).parent / "templates"
_RUN_COLUMNS = (
    "experiment",
    "method",
    "setting",
    "seed",
    "schedule",
    "eta_theta",
    "usage %",
    "test error %",
    "selected",
    "hours",
    "ms an iteration",
    "machine",
    "finished",
    "commit",
)


def _heading(kind: Experiment) -> str:
    """Return the heading of an experiment, with its section in the paper."""
    return kind.heading() + f" (section {kind.section})" * bool(kind.section)


def _sections(
    records: Sequence[Record], drawn: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return the tables of each experiment and schedule, and the figures that belong to each."""
    published = compare.published()
    sections: list[dict[str, Any]] = []
    for experiment, kind in experiments.all_experiments().items():
        schedules = compare.schedules(experiment, records)
        table = published[experiment]["table"] if kind.table else ""
        if table and not any(schedule.is_paper for schedule in schedules):
            title = f"{_heading(kind)}: the paper's schedule"
            sections.append({"title": title, "published": table, "rows": []})
        for schedule in schedules:
            rows = compare.rows(experiment, schedule.records)
            header, cells = compare.columns(experiment, rows, compared=schedule.is_paper)
            section = f" (section {kind.section})" if schedule.is_paper and table else ""
            sections.append(
                {
                    "title": f"{schedule.title}{section}: {schedule.schedule}",
                    "published": table if schedule.is_paper else "",
                    "schedules": compare.descriptions(schedule.records),
                    "several_machines": any(len(row.seconds) > 1 for row in rows),
                    "header": header,
                    "rows": cells,
                    "sides": compare.sides_cells(compare.sides(rows)) if schedule.is_paper else [],
                    "structures": (kind.structure_legend, *kind.structure_table(schedule.records)),
                    "figures": [figure for figure in drawn if figure["group"] == schedule.slug],
                }
            )
    return sections


def content(
    records: Sequence[Record],
    refused: Sequence[str],
    drawn: Sequence[Mapping[str, Any]],
    unfinished: Sequence[Record] = (),
    short: Sequence[Record] = (),
) -> dict[str, Any]:
    """Return what the pages say.

    Args:
        records (list of dict): of both experiments and any schedule.
        refused (list of str): a line for each file that is no record.
        drawn (list): name, caption and files of each figure, see :func:`figures.draw_all`.
        unfinished (list of dict): how far other runs are, see :mod:`reproduce.progress`.
        short (list of dict): the records of ``results/pilot``.

    Returns:
        dict: for the templates.
    """
    # A record that was copied here has not yet removed the file of its run.
    finished = {each["name"] for each in records}
    unfinished = [each for each in unfinished if each["name"] not in finished]
    unfinished_columns, unfinished_rows = progress.rows(unfinished)
    judged = claims.findings(records)
    machines, estimated = budget.estimates(records)
    trials = compare.published()["trials"]
    kinds = experiments.all_experiments().values()
    return {
        **results.content(records, judged, drawn, unfinished),
        **findings.content(records, judged, short),
        "sides_columns": compare.SIDES,
        "sides_legend": " ".join(compare.sides_legend().split()),
        "legend": " ".join(compare.legend().split()),
        "tables": _sections(records, drawn),
        "claims": [
            {
                **dataclasses.asdict(finding),
                "about": next(k.heading() for k in kinds if k.section == finding.section),
            }
            for finding in judged
        ],
        "outcomes": claims.OUTCOMES,
        "hours": _hours(machines, estimated, trials),
        "run_columns": _RUN_COLUMNS,
        "runs": [_cells(record) for record in records],
        "machines": sorted({_machine(each) for record in records for each in machines_of(record)}),
        "versions": sorted({_versions(each) for record in records for each in versions_of(record)}),
        "refused": refused,
        "shown": list(results.figure_names(records)),
        "unfinished_columns": unfinished_columns,
        "unfinished_rows": unfinished_rows,
        "unfinished_structures": progress.structures(unfinished),
        "moving_limit": f"{findings.MOVING:.0%}",
        "learnt": f"{findings.LEARNT:.0%}",
    }


def _hours(
    machines: Mapping[str, str | None], estimated: Sequence[budget.Estimate], trials: int
) -> list[dict[str, Any]]:
    """Return the lines on what the experiments take."""
    sections = []
    for experiment, kind in experiments.all_experiments().items():
        own = [each for each in estimated if each.experiment == experiment]
        hours, missing = budget.total(own, trials)
        sections.append(
            {
                "title": _heading(kind),
                "machine": machines[experiment],
                "rows": [
                    [each.label, "-" if each.hours is None else f"{each.hours:.2f}", each.source]
                    for each in own
                ],
                "total": f"{hours:.1f}",
                "known": len(own) - len(missing),
                "missing": missing,
            }
        )
    return sections


def _cells(record: Record) -> list[tuple[str, Any]]:
    """Return the row of a record: pairs of a text and what the column is sorted by."""
    settings, result, times = from_dict(record["settings"]), record["result"], record["times"]
    selected = experiments.of(settings).sizes(result)
    seconds = times["seconds"] / result["iterations"]
    commit = (record["versions"].get("commit") or "-")[:8]
    before = len(commits_of(record)) - 1
    commit += f" and {before} before" * (before > 0)
    where = computer(record)
    eta = settings.eta_factor
    fraction = fraction_of_paper(settings)
    length = "full length" if fraction == 1 else f"{fraction} of the full length"
    # Other columns of the table show the values of these settings.
    told = ("dataset=", "epochs=", "eta_factor=")
    schedule = ", ".join([length, *(c for c in settings.changed if not c.startswith(told))])
    if settings.is_paper_schedule:
        schedule = "paper" if experiments.of(settings).section else "full"
    title = f"{experiments.of(settings).title} on {settings.data.title}"
    return [
        (title, title),
        (settings.method, settings.method),
        (settings.setting or "-", settings.setting),
        (str(settings.seed), settings.seed),
        (schedule, float(fraction)),
        (f"{eta:g}/d" if eta else "-", eta or 0),
        (f"{in_percent(result['usage_rate']):.1f}", result["usage_rate"]),
        (f"{in_percent(result['test_error']):.2f}", result["test_error"]),
        ("/".join(map(str, selected)), sum(selected)),
        (f"{times['seconds'] / 3600:.2f}", times["seconds"]),
        (f"{1000 * seconds:.3g}", seconds),
        (where, where),
        (times["finished"][:10], times["finished"]),
        (commit, commit),
    ]


def _machine(machine: Record) -> str:
    parts = [machine["processor"], f"{machine['cores']} cores" if machine.get("cores") else ""]
    parts += [machine.get("system", ""), machine.get("gpu", ""), *machine.get("blas", ())]
    return ", ".join(part for part in parts if part)


def _versions(versions: Record) -> str:
    names = ("python", "chainer_sno", "chainer", "numpy", "numba", "cupy")
    return ", ".join(f"{name} {versions[name]}" for name in names if name in versions)


def slug(heading: str) -> str:
    """Return the address on a page that GitHub gives to a heading of Markdown."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _contents(text: str) -> str:
    """Return a table of contents of the headings of second level of a Markdown text."""
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    return "\n".join(f"- [{heading}](#{slug(heading)})" for heading in headings)


def _environment(markup: Markup | None = None) -> jinja2.Environment:
    """Return the environment of the templates: of a markup, or of HTML, which escapes texts."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=markup is None,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    if markup is not None:
        environment.globals["m"] = markup
        environment.filters["escaped"] = markup.escape
        environment.filters["penalty"] = lambda label: label.removeprefix("epsilon0 = ")
        environment.filters["epoch"] = lambda number: f"epoch {number}"
        environment.filters["escaped_row"] = lambda row: [markup.escape(cell) for cell in row]
    environment.filters["data_uri"] = _data_uri
    return environment


def _data_uri(path: StrPath) -> str:
    """Return the content of an SVG file as an address, so that the page needs no other file."""
    return "data:image/svg+xml;base64," + base64.b64encode(Path(path).read_bytes()).decode()


def pages(said: Mapping[str, Any], form: Markup) -> dict[str, str]:
    """Return the results page and the findings.

    Args:
        said (dict): of :func:`content`.
        form (Markdown or ReStructuredText): see :mod:`reproduce.report.markup`.

    Returns:
        dict: texts by the names of the pages in the repository, without an ending.
    """
    environment = _environment(form)
    names = {"README": "results.jinja", "FINDINGS": "findings.jinja"}
    return {
        page: _tidy(environment.get_template(template).render(said))
        for page, template in names.items()
    }


def _tidy(text: str) -> str:
    """Return a text with one empty line at most between two parts."""
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _check_replaceable(directory: Path) -> None:
    """See that no page in a directory is another's README.

    Raises:
        ReproduceError: there is a page of such a name that this command did not write.
    """
    for name in PAGES:
        path = directory / f"{name}.md"
        try:
            first = path.read_text(encoding="utf-8").partition("\n")[0] if path.exists() else MARK
        except (OSError, UnicodeDecodeError):
            first = ""
        if first != MARK:
            raise ReproduceError(
                f"{str(path)!r} was not written by `report`, which would write over it: give "
                "another --out"
            )


def write(
    records: Iterable[Record],
    refused: Sequence[str],
    directory: StrPath,
    unfinished: StrPath | None = None,
    pilot: StrPath | None = None,
) -> list[Path]:
    """Write README.md, FINDINGS.md, REPORT.md, report.html and the figures that they show.

    Args:
        records (list of dict): of both experiments and any schedule.
        refused (list of str): a line for each file that is no record.
        directory (str or pathlib.Path): gets the pages, and the figures in ``figures``.
        unfinished (str or pathlib.Path): the files that say how far other runs are; none by
            default.
        pilot (str or pathlib.Path): short runs that the findings show; none by default.

    Returns:
        list of pathlib.Path: the four files.

    Raises:
        ReproduceError: the directory cannot be written, or has pages that are not this command's.
    """
    directory = Path(directory)
    _check_replaceable(directory)
    records = sorted(records, key=lambda record: record["name"])
    drawn = []
    for figure in figures.draw_all(records, directory / "figures"):
        png, svg = figure.files
        name = png.relative_to(directory).as_posix()
        drawn.append({**figure._asdict(), "png": name, "svg": svg})
    others = progress.read_all(unfinished) if unfinished else []
    short = record.read_all(pilot)[0] if pilot else []
    said = content(records, refused, drawn, others, short)
    texts = {f"{name}.md": f"{MARK}\n\n{text}" for name, text in pages(said, Markdown()).items()}
    text = _environment(Markdown()).get_template("report.md.jinja").render(said)
    texts["REPORT.md"] = _tidy(text.replace(_CONTENTS, _contents(text)))
    texts["report.html"] = _environment().get_template("report.html.jinja").render(said)
    for name, text in texts.items():
        write_bytes(directory / name, text.encode())
    return [directory / name for name in texts]
