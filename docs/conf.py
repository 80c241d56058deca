"""How Sphinx builds the pages: ``make docs``."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# The checkout's packages, not installed ones, and the extension beside this file.
sys.path[:0] = [str(HERE.parent), str(HERE / "_extensions")]

import chainer_sno  # noqa: E402

project = "chainer_sno"
author = "The chainer_sno authors"
project_copyright = f"2026, {author}"
release = version = chainer_sno.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinxarg.ext",
    "mathml",
    "paper",
    "reference",
    "results",
]
html_math_renderer = "mathml"
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"chainer_sno {release}"

reference_package = "chainer_sno"
autosummary_generate = False
# The docstrings state the types, with shapes and devices; hints would say them twice.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
# Attributes in a list: some have a docstring of their own as well, as properties.
napoleon_use_ivar = True

nitpicky = True
nitpick_ignore_regex = [
    # Libraries with pages elsewhere; a build looks nothing up on the network.
    ("py:.*", r"(argparse|chainer|cupy|enum|matplotlib|numpy|onnx|pathlib)(\..*)?"),
    # Private base classes.
    ("py:class", r"chainer_sno\..*\._.*"),
    # The words that docstrings use for types.
    (
        "py:class",
        r"(array|array module|callable|collection|device specifier|file|function|initializer"
        r"|iterable|module|scalar|sequence|type)",
    ),
]
