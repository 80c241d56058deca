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
    paper = compare.published()["settings"]
    kinds = {name: each.settings for name, each in experiments.all_experiments().items()}
    rows = []

    def common(quantity, value, attribute, option, place):
        # One row for both sections: they have to agree.
        defaults = {
            getattr(kinds[name](), attribute) for name in ("unit-selection", "connection-selection")
        }
        rows.append((quantity, value, *defaults, option, place))

    common(
        ":math:`\\lambda`, structures of an iteration",
        paper["samples"],
        "samples",
        "--samples",
        "section 4",
    )
    common(
        ":math:`\\eta_\\theta` times *d*",
        paper["eta_factor"],
        "eta_factor",
        "--eta-factor",
        "section 4",
    )
    rows.append(
        (
            ":math:`\\theta^{(0)}`",
            0.5,
            _default(chainer_sno.Bernoulli, "initial_theta"),
            "Bernoulli(initial_theta=)",
            "section 4",
        )
    )
    common("Nesterov's momentum", paper["momentum"], "momentum", "--momentum", "section 4")
    common("weight decay", paper["weight_decay"], "weight_decay", "--weight-decay", "section 4")
    rows.append(
        (
            "the learning rate is divided by",
            10,
            _default(extensions.StepSchedule, "divisor"),
            "StepSchedule(divisor=)",
            "section 4",
        )
    )
    rows.append(
        (
            "at these parts of the epochs",
            (0.5, 0.75),
            _default(extensions.StepSchedule, "milestones"),
            "StepSchedule(milestones=)",
            "section 4",
        )
    )
    for name, kind in kinds.items():
        experiment = experiments.get(name)
        if not experiment.section:
            continue
        place, own = f"section {experiment.section}", paper[name]
        sno, other = kind(), kind(method=kind.methods()[1])

        def add(quantity, value, default, option, place=place):
            rows.append(
                (f"{place.removeprefix('section ')}: {quantity}", value, default, option, place)
            )

        add("*d*, bits of a structure", own["bits"], sno.bits, "")
        add(
            ":math:`\\epsilon_0`",
            ", ".join(own["epsilon0"]),
            ", ".join(experiment.penalties),
            "--epsilon0",
        )
        if name == "unit-selection":
            full = compare.published()[name]["full"]
            add("hidden layers", len(full), sno.layers, "--layers")
            add("units in each hidden layer", full[0], sno.units, "--units")
            add("dropout rate", 0.5, kind(method="dropout").dropout_ratio, "--dropout-ratio")
        if name == "connection-selection":
            add("depth of the DenseNet", 40, sno.depth, "--depth")
            add("layers in a block", 12, sno.block_layers, "")
        add("learning rate of the weights", own["lr"], sno.lr, "--lr")
        add(
            ":math:`\\bar N`, mini-batch, proposed method",
            own["sno"]["batch_size"],
            sno.batch_size,
            "--batch-size",
        )
        add("epochs, proposed method", own["sno"]["epochs"], sno.epochs, "--epochs")
        add(
            "mini-batch, other methods",
            own["others"]["batch_size"],
            other.batch_size,
            "--batch-size",
        )
        add("epochs, other methods", own["others"]["epochs"], other.epochs, "--epochs")
    return rows


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
