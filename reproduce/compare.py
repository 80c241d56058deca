"""The records beside the published numbers."""

import json
import statistics

from reproduce import ROOT
from reproduce.settings import UNIT_EPSILON0, format_epsilon0, fraction_of_paper, from_dict


def published():
    """Return the published numbers, usage rates as fractions.

    Returns:
        dict: tables under the names of the experiments; see ``results/published.json``.
    """
    return json.loads((ROOT / "results" / "published.json").read_text())


def format_table(header, rows):
    """Return a table in text, first column left, the others right.

    Args:
        header (list of str): names of the columns.
        rows (list of list of str): the cells.

    Returns:
        str: lines, one for the header, a rule, and one a row.
    """
    widths = [max(len(line[i]) for line in [header, *rows]) for i in range(len(header))]

    def line(cells):
        first, *others = (
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(cells, widths))
        )
        return "  ".join([first, *others]).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *map(line, rows)])


def _percent(value):
    return f"{100 * value:.1f}"


def _median(records, value):
    return statistics.median(value(record["result"]) for record in records)


def unit_selection_table(records):
    """Return Table 1 with our medians beside the paper's.

    Args:
        records (list of dict): of unit selection, all at one schedule.

    Returns:
        str: the table; a dash where the paper prints nothing.
    """
    table = published()["unit-selection"]["rows"]
    header = ["", "trials", "units 1st/2nd/3rd", "paper", "usage %", "paper"]
    header += ["weights %", "test error %"]
    rows = []
    for label, found in _by_setting(records):
        paper = table.get(label) if found[0]["settings"]["method"] == "sno" else None
        units = [
            round(_median(found, lambda result, i=i: result["units"][i]))
            for i in range(len(found[0]["result"]["units"]))
        ]
        name = found[0]["settings"]["method"]
        rows.append(
            [
                f"epsilon0 = {label}" if name == "sno" else f"{name} {label}".strip(),
                str(len(found)),
                "/".join(map(str, units)),
                "/".join(map(str, paper["selected"])) if paper else "-",
                _percent(_median(found, lambda result: result["usage_rate"])),
                _percent(paper["usage_rate"]) if paper else "-",
                _percent(_median(found, lambda result: result["weight_ratio"])),
                f"{100 * _median(found, lambda result: result['test_error']):.2f}",
            ]
        )
    return format_table(header, rows)


def _by_setting(records):
    """Return pairs of a setting's label and its records: penalties, widths, then the others."""
    groups = {}
    for record in records:
        settings = record["settings"]
        if settings["method"] == "sno":
            label = format_epsilon0(settings["epsilon0"])
            known = UNIT_EPSILON0.index(label) if label in UNIT_EPSILON0 else len(UNIT_EPSILON0)
            order = (0, known, -settings["epsilon0"])
        elif settings["method"] == "fixed":
            label, order = f"{settings['width']} a layer", (1, settings["width"])
        else:
            label, order = "", (2,)
        groups.setdefault((order, label), []).append(record)
    return [(label, found) for (_, label), found in sorted(groups.items(), key=lambda g: g[0][0])]


def describe_schedule(record):
    """Return a sentence on how a record's schedule differs from the paper's.

    Args:
        record (dict): of a run.

    Returns:
        str: names the epochs, the fraction of the paper's iterations and eta_theta.
    """
    settings = from_dict(record["settings"])
    fraction = fraction_of_paper(settings)
    text = f"{settings.method}: {settings.epochs} epochs, {fraction} of the paper's iterations"
    if settings.eta_factor is not None:
        text += f", eta_theta = {settings.eta_factor:g}/d"
    return text
