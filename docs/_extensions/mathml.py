"""Formulas as MathML, which browsers draw themselves: the pages need no script from elsewhere."""

import html
import re

from docutils import nodes
from docutils.utils.math import MathError, latex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

_log = logging.getLogger(__name__)
_TAG = re.compile(r"\\tag\{(.*?)\}")
#: What the converter does not know, or takes for something else, and what looks the same.
_REPLACE = {
    r"\\frac(\d)(\d)": r"\\frac{\1}{\2}",
    r"\\dots": r"\\ldots",
    r"\\bar\b": r"\\overline",
    r"\\[bB]ig+[lr]?(?=[\[({)\]}])": "",
}


def convert(node, as_block=False):
    """Return the MathML of a node with TeX in it; TeX and a warning where that fails."""
    code = node.astext()
    for old, new in _REPLACE.items():
        code = re.sub(old, new, code)
    try:
        return latex2mathml.tex2mathml(_TAG.sub("", code).strip(), as_block=as_block)
    except MathError as error:
        _log.warning("no formula: %s", error, location=node)
        return f"<code>{html.escape(code)}</code>"


def visit_inline(translator, node):
    """Write a formula inside a line."""
    translator.body.append(convert(node))
    raise nodes.SkipNode


def visit_block(translator, node):
    r"""Write a formula with a line of its own, and its ``\tag`` beside it."""
    tag = _TAG.search(node.astext())
    number = f'<span class="eqno">({tag[1]})</span>' if tag else ""
    translator.body.append(f'<div class="math">{number}{convert(node, as_block=True)}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx):
    """Add the renderer, which ``html_math_renderer`` chooses by its name."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
