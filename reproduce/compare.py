"""The records beside the published numbers."""

import json
import statistics

from reproduce import ROOT
from reproduce.settings import (
    CONNECTION_EPSILON0,
    UNIT_EPSILON0,
    format_epsilon0,
    fraction_of_paper,
    from_dict,
)


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


#: Of each experiment: what a structure selects, the parts of the network, the order of penalties,
#: and the setting of its baseline with the words for it.
_TABLES = {
    "unit-selection": ("units", "1st/2nd/3rd", UNIT_EPSILON0, "width", "fixed {} a layer"),
    "connection-selection": (
        "connections",
        "by block",
        CONNECTION_EPSILON0,
        "usage_rate",
        "random at {:.1%}",
    ),
}


def table(experiment, records):
    """Return Table 1 or 2 with our medians beside the paper's.

    Args:
        experiment (str): ``unit-selection`` or ``connection-selection``.
        records (list of dict): of it, all at one schedule.

    Returns:
        str: the table; a dash where the paper prints nothing.
    """
    selected, parts, order, baseline, words = _TABLES[experiment]
    paper_rows = published()[experiment]["rows"]
    header = ["", "trials", f"{selected} {parts}", "paper", "usage %", "paper"]
    header += ["weights %", "test error %"]
    groups = {}
    for record in records:
        settings = record["settings"]
        if settings["method"] == "sno":
            label = format_epsilon0(settings["epsilon0"])
            known = order.index(label) if label in order else len(order)
            key = (0, known, -settings["epsilon0"])
            name, paper = f"epsilon0 = {label}", paper_rows.get(label)
        elif baseline in settings:
            key, paper = (1, settings[baseline]), None
            name = words.format(settings[baseline])
        else:
            key, name, paper = (2,), settings["method"], None
        groups.setdefault((key, name), (paper, []))[1].append(record["result"])
    rows = []
    for (_, name), (paper, results) in sorted(groups.items(), key=lambda group: group[0]):

        def median(value, results=results):
            return statistics.median(value(result) for result in results)

        counts = [
            round(median(lambda result, i=i: result[selected][i]))
            for i in range(len(results[0][selected]))
        ]
        rows.append(
            [
                name,
                str(len(results)),
                "/".join(map(str, counts)),
                "/".join(map(str, paper["selected"])) if paper else "-",
                f"{100 * median(lambda result: result['usage_rate']):.1f}",
                f"{100 * paper['usage_rate']:.1f}" if paper else "-",
                f"{100 * median(lambda result: result['weight_ratio']):.1f}",
                f"{100 * median(lambda result: result['test_error']):.2f}",
            ]
        )
    return format_table(header, rows)


def describe_schedule(record):
    """Return a sentence on how a record's schedule differs from the paper's.

    Args:
        record (dict): of a run.

    Returns:
        str: names the epochs, the fraction of the paper's iterations and eta_theta.
    """
    settings = from_dict(record["settings"])
    fraction = fraction_of_paper(settings)
    text = f"{settings.method}: {settings.epochs} epochs"
    if settings.examples:
        text += f" of {settings.examples} examples"
    text += f", {fraction} of the paper's iterations"
    if settings.eta_factor is not None:
        text += f", eta_theta = {settings.eta_factor:g}/d"
    if settings.test_examples:
        text += f"; evaluated on the first {settings.test_examples} test examples"
    return text
