"""The report: what the records say, as Markdown and as one page for a browser."""

import base64
import dataclasses
from pathlib import Path

import jinja2

from chainer_sno.files import write_bytes
from reproduce import claims, compare, costs, experiments, figures, progress
from reproduce.experiments import from_dict
from reproduce.groups import computer
from reproduce.settings import fraction_of_paper

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


def _title(experiment):
    """Return the heading of an experiment."""
    dataset = experiment.settings().data.title
    section = f" (section {experiment.section})" * bool(experiment.section)
    return f"{experiment.title} on {dataset}{section}"


def _shown():
    """Return the figures that the Markdown shows: those that compare the paper's settings."""
    return [
        f"{name}-paper-figure-1{each.figure}"
        for name, each in experiments.all_experiments().items()
        if each.figure
    ]


def content(records, refused, drawn, unfinished=()):
    """Return what the report says, as plain values.

    Args:
        records (list of dict): of both experiments and any schedule.
        refused (list of str): a line for each file that is no record.
        drawn (list): name, caption and files of each figure, see :func:`figures.draw_all`.
        unfinished (list of dict): how far other runs are, see :mod:`reproduce.progress`.

    Returns:
        dict: for the templates.
    """
    unfinished_columns, unfinished_rows = progress.rows(unfinished)
    published = compare.published()
    sections = []
    for experiment, kind in experiments.all_experiments().items():
        tables = []
        for schedule in compare.schedules(experiment, records):
            rows = compare.rows(experiment, schedule.records)
            header, cells = compare.columns(experiment, rows, compared=schedule.is_paper)
            tables.append(
                {
                    "is_paper": schedule.is_paper,
                    "title": schedule.schedule,
                    "schedules": compare.descriptions(schedule.records),
                    "several_machines": any(len(row.seconds) > 1 for row in rows),
                    "header": header,
                    "rows": cells,
                    "sides": compare.sides_cells(compare.sides(rows)) if schedule.is_paper else [],
                    "structures": kind.structure_table(schedule.records),
                }
            )
        sections.append(
            {
                "title": _title(kind),
                "published": published[experiment]["table"] if kind.table else "",
                "at_paper": any(table["is_paper"] for table in tables),
                "tables": tables,
                "figures": [figure for figure in drawn if figure["experiment"] == experiment],
            }
        )
    machine, estimated = costs.costs(records)
    return {
        "source": published["source"],
        "trials": published["trials"],
        "count": len(records),
        "at_paper": sum(from_dict(record["settings"]).is_paper_schedule for record in records),
        "sides_columns": compare.SIDES,
        "sides_legend": " ".join(compare.sides_legend().split()),
        "legend": " ".join(compare.legend().split()),
        "sections": sections,
        "claims": [dataclasses.asdict(finding) for finding in claims.findings(records)],
        "outcomes": claims.OUTCOMES,
        "machine": machine,
        "costs": _costs(estimated, published["trials"]),
        "run_columns": _RUN_COLUMNS,
        "runs": [_cells(record) for record in records],
        "machines": sorted({_machine(record) for record in records}),
        "versions": sorted({_versions(record) for record in records}),
        "refused": refused,
        "shown": _shown(),
        "unfinished_columns": unfinished_columns,
        "unfinished": unfinished_rows,
    }


def _costs(estimated, trials):
    """Return the lines on what the experiments take."""
    found = []
    for experiment, kind in experiments.all_experiments().items():
        own = [cost for cost in estimated if cost.experiment == experiment]
        hours, missing = costs.total(own, trials)
        found.append(
            {
                "title": _title(kind),
                "rows": [
                    [cost.label, "-" if cost.hours is None else f"{cost.hours:.2f}", cost.source]
                    for cost in own
                ],
                "total": f"{hours:.1f}",
                "known": len(own) - len(missing),
                "missing": missing,
            }
        )
    return found


def _cells(record):
    """Return the row of a run: pairs of a text and what the column is sorted by."""
    settings, result, times = from_dict(record["settings"]), record["result"], record["times"]
    selected = experiments.of(settings).sizes(result)
    seconds = times["seconds"] / result["iterations"]
    commit = record["versions"].get("commit") or "-"
    where = computer(record)
    eta = settings.eta_factor
    fraction = fraction_of_paper(settings)
    return [
        (settings.experiment, settings.experiment),
        (settings.method, settings.method),
        (settings.setting or "-", settings.setting),
        (str(settings.seed), settings.seed),
        (
            "paper" if settings.is_paper_schedule else f"{fraction}, not the paper's",
            float(fraction),
        ),
        (f"{eta:g}/d" if eta else "-", eta or 0),
        (f"{100 * result['usage_rate']:.1f}", result["usage_rate"]),
        (f"{100 * result['test_error']:.2f}", result["test_error"]),
        ("/".join(map(str, selected)), sum(selected)),
        (f"{times['seconds'] / 3600:.2f}", times["seconds"]),
        (f"{1000 * seconds:.3g}", seconds),
        (where, where),
        (times["finished"][:10], times["finished"]),
        (commit[:8], commit),
    ]


def _machine(record):
    found = record["machine"]
    parts = [found["processor"], f"{found['cores']} cores" if found.get("cores") else ""]
    parts += [found.get("system", ""), found.get("gpu", ""), *found.get("blas", ())]
    return ", ".join(part for part in parts if part)


def _versions(record):
    names = ("python", "chainer_sno", "chainer", "numpy", "numba", "cupy")
    found = record["versions"]
    return ", ".join(f"{name} {found[name]}" for name in names if name in found)


def _environment(escape):
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=escape,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["cell"] = lambda text: str(text).replace("|", "\\|")
    environment.filters["data_uri"] = _data_uri
    return environment


def _data_uri(path):
    """Return the content of an SVG file as an address, so that the page needs no other file."""
    return "data:image/svg+xml;base64," + base64.b64encode(Path(path).read_bytes()).decode()


def write(records, refused, directory, unfinished=None):
    """Write REPORT.md, report.html and the figures that they show.

    Args:
        records (list of dict): of both experiments and any schedule.
        refused (list of str): a line for each file that is no record.
        directory (str or pathlib.Path): gets the two, and the figures in ``figures``.
        unfinished (str or pathlib.Path): the files that say how far other runs are; none by
            default.

    Returns:
        list of pathlib.Path: the two files.
    """
    directory = Path(directory)
    records = sorted(records, key=lambda record: record["name"])
    drawn = []
    for figure in figures.draw_all(records, directory / "figures"):
        png, svg = figure.files
        name = png.relative_to(directory).as_posix()
        drawn.append({**figure._asdict(), "png": name, "svg": svg})
    others = progress.read_all(unfinished) if unfinished else []
    found = content(records, refused, drawn, others)
    written = []
    for name, template, escape in (
        ("REPORT.md", "report.md.jinja", False),
        ("report.html", "report.html.jinja", True),
    ):
        text = _environment(escape).get_template(template).render(found)
        write_bytes(directory / name, text.encode())
        written.append(directory / name)
    return written
