"""The records beside the published numbers: tables, and what each schedule is."""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tabulate

from reproduce import ROOT, ReproduceError, experiments, groups, schemas, statistics
from reproduce._types import Cells, Record
from reproduce.experiments import from_dict
from reproduce.settings import SECOND_RESULT, Settings, format_epsilon0, fraction_of_paper
from reproduce.statistics import in_percent

# A header is no wider than its text.
tabulate.MIN_PADDING = 0

#: A usage rate agrees with the published one when it is off by at most this part of it.
TOLERANCE = 1 / 5
#: Two published counts whose difference is at most this part of the full network are not ordered.
SAME_COUNT = 1 / 20
#: The second result of a training, where it has one.
_REESTIMATED = f"{SECOND_RESULT}_test_error"
#: What its column is called.
REESTIMATED = "re-estimated %"


def published() -> dict[str, Any]:
    """Return the published numbers and claims, usage rates as fractions.

    Returns:
        dict: tables under the names of the experiments; see ``results/published.json``.

    Raises:
        ReproduceError: the file is damaged.
    """
    path = ROOT / "results" / "published.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ReproduceError(f"{str(path)!r} cannot be read ({error}): restore the file") from error
    schemas.check(content, schemas.PUBLISHED, path.name)
    return content


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in text, first column left, the others right.

    Args:
        header (list of str): names of the columns.
        rows (list of list of str): the cells.

    Returns:
        str: lines, one for the header, a rule, and one a row.
    """
    table = tabulate.tabulate(
        rows,
        header,
        "simple",
        colalign=["left", *["right"] * (len(header) - 1)],
        # The cells are texts already, such as 1.50 or two spaces and a name.
        disable_numparse=True,
        preserve_whitespace=True,
    )
    return "\n".join(line.rstrip() for line in table.split("\n"))


@dataclasses.dataclass(frozen=True)
class Row:
    """The trials of one setting at one schedule; of every quantity the 25%, 50%, 75% quantiles.

    Attributes:
        experiment (str): its name.
        method (str): ``sno`` or a baseline.
        label (str): says the setting, in ASCII.
        seeds (list of int): of the trials.
        selected (list of list of float): units of each layer or connections of each block.
        usage_rate (list of float): fractions (reading R1).
        weight_ratio (list of float): fractions of the full network's weights.
        test_error (list of float): fractions.
        reestimated (list of float): the test error with batch statistics estimated anew, fractions;
            None where a trial does not have it.
        seconds (dict): of the whole training, by what :func:`reproduce.groups.computer` says, since
            those of two kinds of machine do not compare.
        published (dict): ``usage_rate`` and ``selected``, None where the paper prints none.
        sides (dict): of each layer (block) and of the usage rate of which the paper does not select
            everything, how many trials have less than the published median, as much and more;
            empty where the paper prints none.
        runs (list of str): the names of the runs.
    """

    experiment: str
    method: str
    label: str
    seeds: list[int]
    selected: list[list[float]]
    usage_rate: list[float]
    weight_ratio: list[float]
    test_error: list[float]
    reestimated: list[float] | None
    seconds: dict[str, list[float]]
    published: dict[str, Any] | None
    sides: dict[str, list[int]]
    runs: list[str]

    @property
    def difference(self) -> float | None:
        """The median usage rate less the published one, a fraction; None without one."""
        if self.published is None:
            return None
        return self.usage_rate[1] - self.published["usage_rate"]

    def as_dict(self) -> dict[str, Any]:
        """Return the row, the difference and the verdict as values of JSON."""
        values = {**dataclasses.asdict(self), "difference": self.difference}
        return {**values, "verdict": verdict(self)}


def label(settings: Settings) -> str:
    """Return how tables name a setting, in ASCII.

    Args:
        settings (Settings): of a run.

    Returns:
        str: such as ``epsilon0 = 2^-7``, ``fixed 205 a layer`` or ``dropout``.
    """
    return experiments.of(settings).place_and_label(settings)[1]


def published_row(settings: Settings) -> dict[str, Any] | None:
    """Return the published numbers of a setting.

    Args:
        settings (Settings): of a run, at any schedule.

    Returns:
        dict: ``usage_rate`` and ``selected``; None where the paper prints none.
    """
    if settings.epsilon0 is None or not experiments.of(settings).table:
        return None
    row: dict[str, Any] | None = published()[settings.experiment]["rows"].get(
        format_epsilon0(settings.epsilon0)
    )
    return row


def rows(experiment: str, records: Sequence[Record]) -> list[Row]:
    """Return the rows of a table.

    Args:
        experiment (str): its name.
        records (list of dict): of it, all at one schedule.

    Returns:
        list of Row: the penalties in the paper's order, then the baselines.
    """
    kind = experiments.get(experiment)
    trials: dict[tuple[Any, str], list[tuple[Settings, Record]]] = {}
    for record in records:
        settings = from_dict(record["settings"])
        trials.setdefault(kind.place_and_label(settings), []).append((settings, record))
    table_rows = []
    for (_, name_of), members in sorted(trials.items(), key=lambda entry: entry[0]):
        settings = members[0][0]
        results = [record["result"] for _, record in members]
        machines = groups.by_computer([record for _, record in members])
        known = published_row(settings)

        def over(key: str, results: list[dict[str, Any]] = results) -> list[float]:
            return statistics.quartiles([result[key] for result in results])

        table_rows.append(
            Row(
                experiment,
                settings.method,
                name_of,
                sorted(settings.seed for settings, _ in members),
                [statistics.quartiles(part) for part in zip(*map(kind.sizes, results))],
                over("usage_rate"),
                over("weight_ratio"),
                over("test_error"),
                over(_REESTIMATED) if all(_REESTIMATED in result for result in results) else None,
                {
                    where: statistics.quartiles([record["times"]["seconds"] for record in on_it])
                    for where, on_it in machines.items()
                },
                known,
                _sides(experiment, results, known) if known else {},
                sorted(record["name"] for _, record in members),
            )
        )
    return table_rows


def _sides(
    experiment: str, results: Sequence[dict[str, Any]], paper: dict[str, Any]
) -> dict[str, list[int]]:
    """Return how many results have less than the paper prints, as much and more, by quantity."""
    table = published()[experiment]
    parts = zip(*map(experiments.get(experiment).sizes, results))
    # To the digits that are printed: those that the paper rounded away are on no side.
    rates = [round(result["usage_rate"], 3) for result in results]
    quantities = [
        *zip(table["groups"], parts, paper["selected"], table["full"]),
        ("usage rate", rates, paper["usage_rate"], 1),
    ]
    return {
        quantity: [
            sum(value < median for value in values),
            sum(value == median for value in values),
            sum(value > median for value in values),
        ]
        for quantity, values, median, full in quantities
        if median < full  # no trial can have more than everything
    }


#: Columns of :func:`sides`.
SIDES = "", "less", "as much", "more", "p"


def sides(rows: Iterable[Row]) -> dict[str, dict[str, Any]]:
    """Return on which side of the paper's medians the trials lie, over all settings of a table.

    A difference too small for a verdict shows here when it is the same at every setting.  Where
    the paper selects everything, no trial can have more: such settings are left out.

    Args:
        rows (list of Row): at the paper's schedule.

    Returns:
        dict: of each layer (block) and of the usage rate the trials with ``less``, ``as much`` and
        ``more``, and ``p`` of :func:`reproduce.statistics.sides_test`; empty without such a row.
    """
    counted: dict[str, list[list[int]]] = {}
    for row in rows:
        for quantity, counts in row.sides.items():
            counted.setdefault(quantity, []).append(counts)
    return {
        quantity: {
            **dict(zip(SIDES[1:], map(sum, zip(*counts)))),
            "p": statistics.sides_test(
                [more + equal / 2 for _, equal, more in counts],
                [sum(of_setting) for of_setting in counts],
                published()["trials"],
            ),
        }
        for quantity, counts in counted.items()
    }


def sides_cells(counted: Mapping[str, Mapping[str, Any]]) -> Cells:
    """Return the cells of a table of :func:`sides`, beneath the names of ``SIDES``."""
    return [
        [quantity, *(str(row[side]) for side in SIDES[1:-1]), f"{row['p']:.2g}"]
        for quantity, row in counted.items()
    ]


def sides_legend() -> str:
    """Return what a table of :func:`sides` shows, as sentences."""
    return (
        "The number of trials with less than the paper's median, as much, and more, over the\n"
        "settings that remove anything. p is the probability of a split at least this uneven if\n"
        "both came from one distribution."
    )


def verdict(row: Row) -> str:
    """Say how a row stands beside the published one.

    Args:
        row (Row): at the paper's schedule.

    Returns:
        str: ``agrees``: the median usage rate is off by at most a fifth of the published one and
        no two layers (blocks) stand in the other order; else what differs; empty where the paper
        prints no row.
    """
    if row.published is None or row.difference is None:
        return ""
    parts = []
    if abs(row.difference) > TOLERANCE * row.published["usage_rate"]:
        parts.append("usage rate differs")
    full = published()[row.experiment]["full"]
    counts = list(zip(row.published["selected"], (part[1] for part in row.selected), full))
    for i, (theirs, ours, size) in enumerate(counts):
        for other_theirs, other_ours, _ in counts[i + 1 :]:
            gap = theirs - other_theirs
            if abs(gap) > SAME_COUNT * size and gap * (ours - other_ours) < 0:
                parts.append("order differs")
    return ", ".join(dict.fromkeys(parts)) or "agrees"


def counts(parts: Iterable[float]) -> str:
    """Return the median counts of layers or blocks as text, ``340/141/126``."""
    # A median of an even number of trials may lie halfway between two counts.
    return "/".join(f"{part:g}" for part in parts)


def _spread(quartiles: Iterable[float], digits: int = 1) -> str:
    """Return a median in percent, with its quartiles where they are others."""
    low, middle, high = (f"{in_percent(value):.{digits}f}" for value in quartiles)
    return middle if low == middle == high else f"{middle} [{low}, {high}]"


def table(experiment: str, records: Sequence[Record]) -> str:
    """Return Table 1 or 2 with our medians beside the paper's.

    Args:
        experiment (str): its name.
        records (list of dict): of it, all at one schedule.

    Returns:
        str: the table; a dash where the paper prints nothing.
    """
    header, cells = columns(experiment, rows(experiment, records), spread=False)
    return format_table(header, cells)


def has_second_result(rows: Iterable[Row]) -> bool:
    """Return whether any row has test errors with batch statistics estimated anew.

    Args:
        rows (list of Row): of a table.
    """
    return any(row.reestimated is not None for row in rows)


def columns(
    experiment: str, rows: Iterable[Row], spread: bool = True, compared: bool = True
) -> tuple[list[str], Cells]:
    """Return the header and the cells of a table of rows.

    Args:
        experiment (str): its name.
        rows (list of Row): the rows.
        spread (bool): with quartiles, differences, verdicts and times, for the paper's schedule.
        compared (bool): with the columns of the paper.

    Returns:
        tuple: a list of names, and a list of text cells for each row.
    """
    kind = experiments.get(experiment)
    compared = compared and bool(kind.table)
    header = ["", "trials", f"{kind.selected} {kind.parts}".strip()]
    header += ["paper"] * compared
    header += ["usage %"]
    header += ["paper"] * compared
    header += ["off by", "verdict"] * (spread and compared)
    rows = list(rows)
    header += ["weights %", "test error %"]
    again = has_second_result(rows)
    header += [REESTIMATED] * again
    header += ["hours"] * spread
    cells = []
    for row in rows:
        paper = row.published

        def show(quartiles: list[float], digits: int = 1) -> str:
            return _spread(quartiles if spread else quartiles[1:2] * 3, digits)

        line = [row.label, str(len(row.seeds)), counts(part[1] for part in row.selected)]
        line += [counts(paper["selected"]) if paper else "-"] * compared
        line += [show(row.usage_rate)]
        line += [f"{in_percent(paper['usage_rate']):.1f}" if paper else "-"] * compared
        if spread and compared:
            off_by = row.difference
            line += ["-" if off_by is None else f"{in_percent(off_by):+.1f}", verdict(row) or "-"]
        line += [f"{in_percent(row.weight_ratio[1]):.1f}", show(row.test_error, 2)]
        line += ["-" if row.reestimated is None else show(row.reestimated, 2)] * again
        line += [
            "; ".join(f"{median / 3600:.2f}" for _, median, _ in row.seconds.values())
        ] * spread
        cells.append(line)
    return header, cells


def describe_schedule(record: Record) -> str:
    """Return a sentence on a record's schedule.

    Args:
        record (dict): of a run.

    Returns:
        str: names the epochs, the fraction of the full length and eta_theta.
    """
    settings = from_dict(record["settings"])
    fraction = fraction_of_paper(settings)
    text = f"{settings.method}: {settings.epochs} epoch{'s' * (settings.epochs != 1)}"
    if settings.examples:
        text += f" of {settings.examples} examples"
    if fraction != 1:
        text += f", {fraction} {'of' if fraction < 1 else 'times'} the full length"
    else:
        text += ", the full length"
    if settings.eta_factor is not None:
        text += f", eta_theta = {settings.eta_factor:g}/d"
    if settings.test_examples:
        text += f"; evaluated on the first {settings.test_examples} test examples"
    return text


def schedules(experiment: str, records: Iterable[Record]) -> list[groups.Group]:
    """Return the groups of records of an experiment, each at one schedule.

    Args:
        experiment (str): its name.
        records (list of dict): of any experiments.

    Returns:
        list of reproduce.groups.Group: the paper's schedule first.
    """
    own = [record for record in records if record["settings"]["experiment"] == experiment]
    return groups.by_schedule(own)


def descriptions(records: Iterable[Record]) -> list[str]:
    """Return a sentence on the schedule of each method of records."""
    return sorted({describe_schedule(record) for record in records}, reverse=True)


def comparison(records: Sequence[Record]) -> dict[str, list[dict[str, Any]]]:
    """Compare records with the tables of the paper.

    Args:
        records (list of dict): of both experiments.

    Returns:
        dict: values of JSON, the schedules of each experiment with their rows.
    """
    compared: dict[str, list[dict[str, Any]]] = {}
    for experiment in experiments.all_experiments():
        compared[experiment] = []
        for schedule in schedules(experiment, records):
            table_rows = rows(experiment, schedule.records)
            compared[experiment].append(
                {
                    "paper_schedule": schedule.is_paper,
                    "title": f"{schedule.title}: {schedule.schedule}",
                    "schedules": descriptions(schedule.records),
                    "rows": [row.as_dict() for row in table_rows],
                    "sides": sides(table_rows) if schedule.is_paper else {},
                }
            )
    return compared


def text(records: Sequence[Record]) -> str:
    """Return the comparison of records with the tables of the paper as text.

    Args:
        records (list of dict): of both experiments.

    Returns:
        str: a table for each experiment and schedule.
    """
    parts = []
    for experiment, kind in experiments.all_experiments().items():
        number = kind.table
        own = schedules(experiment, records)
        if number and not any(schedule.is_paper for schedule in own):
            parts.append(f"{kind.heading()}, beside {number}: no record at the paper's schedule")
        for schedule in own:
            of_schedule = rows(experiment, schedule.records)
            header, cells = columns(experiment, of_schedule, compared=schedule.is_paper)
            title = f"{schedule.title}, {schedule.schedule}"
            if schedule.is_paper and number:
                title += f", beside {number} (whose medians are of {published()['trials']} trials)"
            else:
                title += "; not compared with the paper"
            described = [f"  {description}" for description in descriptions(schedule.records)]
            parts.append("\n".join([title, *described, format_table(header, cells)]))
            on_sides = sides(of_schedule) if schedule.is_paper else {}
            if on_sides:
                parts.append(f"{sides_legend()}\n{format_table(SIDES, sides_cells(on_sides))}")
    parts.append(legend())
    return "\n\n".join(parts)


def legend() -> str:
    """Return what the tables show, in a few sentences."""
    return (
        "Each number is the median over the trials, with the 25% and 75% quantiles in brackets "
        "where\nthey differ. A row agrees if its usage rate differs by at most "
        f"{TOLERANCE:.0%} from the published one\nand the published order of layers or blocks is "
        "kept. Runs at other schedules have tables of\ntheir own and are never compared with the "
        "paper."
    )
