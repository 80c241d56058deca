"""Tables that set the paper beside the code, made anew at every build so that they cannot drift.

``.. paper-lines::`` lists the comments that name an equation or a line of Algorithm 1, with the
code.  ``.. paper-settings::`` lists the hyperparameters: the paper's from
``results/published.json``, and the defaults of the code.  A default that differs is a warning.
``.. paper-claims::`` lists the claims with the functions and the rules that judge them.
"""

import inspect
import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

import chainer_sno
from chainer_sno import extensions
from reproduce import claims, compare, experiments
from reproduce.settings import flag

_log = logging.getLogger(__name__)
ROOT = Path(__file__).resolve().parent.parent.parent
#: The files whose comments name equations.
FILES = ("updater", "bernoulli", "utility")
_MARK = re.compile(r"#\s*((?:eq\. \(\d\)|Algorithm 1, line|Section 3).*)")


def lines():
    """Return the marked lines of code: the mark, ``file:line``, and the code.

    A mark stands at the end of its line of code, or in the line before it.
    """
    found = []
    for name in FILES:
        path = ROOT / "chainer_sno" / f"{name}.py"
        source = path.read_text().splitlines()
        for number, line in enumerate(source, 1):
            mark = _MARK.search(line)
            if mark is None:
                continue
            code = line[: mark.start()].strip()
            if not code:
                number += 1
                code = source[number - 1].strip()
            found.append((mark[1].strip(), f"{path.relative_to(ROOT)}:{number}", code))
    return sorted(found, key=_order)


def _order(row):
    """Sort by Algorithm 1, then the equations, then section 3."""
    kind = ("Algorithm 1", "eq.", "Section 3").index(
        next(each for each in ("Algorithm 1", "eq.", "Section 3") if row[0].startswith(each))
    )
    number = re.search(r"\d+", row[0].removeprefix("Algorithm 1"))
    return kind, int(number[0]) if number else 0


def _default(function, name):
    """Return the default of an argument."""
    return inspect.signature(function).parameters[name].default


def settings():
    """Return the hyperparameters, a tuple each.

    Returns:
        list of tuple: the quantity, the paper's value, the code's default, the option of ``run``
        (or the argument of the library), and the place in the paper.
    """
    rows = _rows_of_both_sections()
    for name, experiment in experiments.all_experiments().items():
        if experiment.section:
            own = [*_rows_of_the_network(name), *_rows_of_the_training(name)]
            place = f"section {experiment.section}"
            rows += [(f"{experiment.section}: {row[0]}", *row[1:], place) for row in own]
    return rows


def _rows_of_both_sections():
    """Return the rows of what the two sections have in common."""
    published = compare.published()["settings"]
    names = ("unit-selection", "connection-selection")

    def shared(quantity, attribute):
        # One row for both sections: they have to agree.
        defaults = {getattr(experiments.get(name).settings(), attribute) for name in names}
        return (quantity, published[attribute], *defaults, flag(attribute))

    rows = [
        shared(":math:`\\lambda`, structures of an iteration", "samples"),
        shared(":math:`\\eta_\\theta` times *d*", "eta_factor"),
        (
            ":math:`\\theta^{(0)}`",
            0.5,
            _default(chainer_sno.Bernoulli, "initial_theta"),
            "Bernoulli(initial_theta=)",
        ),
        shared("Nesterov's momentum", "momentum"),
        shared("weight decay", "weight_decay"),
        (
            "the learning rate is divided by",
            10,
            _default(extensions.StepSchedule, "divisor"),
            "StepSchedule(divisor=)",
        ),
        (
            "at these parts of the epochs",
            (0.5, 0.75),
            _default(extensions.StepSchedule, "milestones"),
            "StepSchedule(milestones=)",
        ),
    ]
    return [(*row, "section 4") for row in rows]


def _rows_of_the_network(name):
    """Return the rows of the network and the penalties of an experiment, the place left out."""
    experiment = experiments.get(name)
    published, sno = compare.published()["settings"][name], experiment.settings()
    penalties = ", ".join(experiment.penalties)
    rows = [
        ("*d*, bits of a structure", published["bits"], sno.bits, ""),
        (":math:`\\epsilon_0`", ", ".join(published["epsilon0"]), penalties, "--epsilon0"),
    ]
    if name == "unit-selection":
        full = compare.published()[name]["full"]
        dropout = experiment.settings(method="dropout")
        rows += [
            ("hidden layers", len(full), sno.layers, "--layers"),
            ("units in each hidden layer", full[0], sno.units, "--units"),
            ("dropout rate", 0.5, dropout.dropout_ratio, "--dropout-ratio"),
        ]
    if name == "connection-selection":
        rows += [
            ("depth of the DenseNet", 40, sno.depth, "--depth"),
            ("layers in a block", 12, sno.block_layers, ""),
        ]
    return rows


def _rows_of_the_training(name):
    """Return the rows of an experiment's schedules, the place left out."""
    kind = experiments.get(name).settings
    published = compare.published()["settings"][name]
    sno, other = kind(), kind(method=kind.methods()[1])
    batch = ":math:`\\bar N`, mini-batch, proposed method"
    return [
        ("learning rate of the weights", published["lr"], sno.lr, "--lr"),
        (batch, published["sno"]["batch_size"], sno.batch_size, "--batch-size"),
        ("epochs, proposed method", published["sno"]["epochs"], sno.epochs, "--epochs"),
        (
            "mini-batch, other methods",
            published["others"]["batch_size"],
            other.batch_size,
            "--batch-size",
        ),
        ("epochs, other methods", published["others"]["epochs"], other.epochs, "--epochs"),
    ]


def judges():
    """Return the name, section, text, judging function and rule of each claim."""
    found = []
    for claim in compare.published()["claims"]:
        judge, needs, rule = claims.RULES[claim["id"]]
        judge = inspect.unwrap(judge)
        path = Path(inspect.getsourcefile(judge)).resolve().relative_to(ROOT)
        found.append(
            (
                claim["id"],
                claim["section"],
                claim["text"],
                f"{path}: {judge.__name__}",
                f"{rule} Needs {needs}.",
            )
        )
    return found


def _literal(text):
    return f"``{text}``" if text else ""


class _Table(SphinxDirective):
    """A table made of rows."""

    header: tuple = ()

    def rows(self):
        """Return the cells in reStructuredText."""
        raise NotImplementedError

    def run(self):
        """Return the table."""
        text = [".. list-table::", "   :header-rows: 1", ""]
        for row in [self.header, *self.rows()]:
            text += [
                f"   {'-' if i else '* -'} {cell}".replace("   -", "     -", 1)
                for i, cell in enumerate(row)
            ]
        return self.parse_text_to_nodes("\n".join([*text, ""]))


class PaperLines(_Table):
    """The marked lines of code."""

    header = ("in the paper", "line", "code")

    def rows(self):
        """Return the cells."""
        return [(mark, _literal(place), _literal(code)) for mark, place, code in lines()]


class PaperSettings(_Table):
    """The hyperparameters."""

    header = ("quantity", "paper", "default here", "option", "in the paper")

    def rows(self):
        """Return the cells; warn of a default that is not the paper's."""
        found = []
        for quantity, paper, default, option, place in settings():
            if paper != default:
                _log.warning(
                    "%s is %s in the paper, and %s here",
                    quantity,
                    paper,
                    default,
                    location=self.get_location(),
                )
            found.append((quantity, _text(paper), _text(default), _literal(option), place))
        return found


def _text(value):
    if isinstance(value, tuple):
        return ", ".join(map(_text, value))
    return (
        f"{value:g}"
        if isinstance(value, float)
        else f"{value:,}"
        if isinstance(value, int)
        else str(value)
    )


class PaperClaims(_Table):
    """The claims."""

    header = ("claim", "section", "text", "function", "rule")

    def rows(self):
        """Return the cells."""
        return [
            (_literal(name), section, text, _literal(place), rule.replace("*", r"\*"))
            for name, section, text, place, rule in judges()
        ]


def setup(app: Sphinx):
    """Add the directives."""
    app.add_directive("paper-lines", PaperLines)
    app.add_directive("paper-settings", PaperSettings)
    app.add_directive("paper-claims", PaperClaims)
    # The tables show files that Sphinx does not watch, so the page is always built anew.
    app.connect("env-get-outdated", lambda *_: ["explanation/paper-to-code"])
    return {"parallel_read_safe": True, "parallel_write_safe": True}
