"""The pages build without a warning, and the reference has all that is public."""

import argparse
import importlib
import importlib.metadata
import inspect
import pkgutil
import re
import subprocess
import sys
import zlib

import pytest

import chainer_sno
from reproduce import ROOT, cli


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The directory of the built pages.

    In the plainest theme: for every page, that of the project arranges the names of all pages anew,
    which takes a quarter of the time.
    """
    out = tmp_path_factory.mktemp("pages")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    command += ["-D", "html_theme=basic"]
    found = subprocess.run(
        [*command, "-d", out / "doctrees", ROOT / "docs", out / "html"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (found.returncode, found.stderr) == (0, "")
    return out / "html"


@pytest.fixture(scope="module")
def documented(pages):
    """The names of Python objects in the reference; those of aliases are left out."""
    *_, content = (pages / "objects.inv").read_bytes().split(b"\n", 4)
    lines = zlib.decompress(content).decode().splitlines()
    # A name, what it is, a priority, and where it is, $ for the name; an alias is elsewhere.
    return {
        name
        for name, kind, _, uri, *_ in (line.split() for line in lines)
        if kind.startswith("py:") and uri.endswith(("#$", f"#module-{name}", "#module-$"))
    }


def modules():
    """Yield the names and the modules of the library that have no underscore in front."""
    yield "chainer_sno", chainer_sno
    for found in pkgutil.walk_packages(chainer_sno.__path__, "chainer_sno."):
        if "._" not in found.name:
            yield found.name, importlib.import_module(found.name)


def test_the_reference_has_what_interfaces_list(documented):
    listed = {f"{name}.{own}" for name, m in modules() for own in getattr(m, "__all__", ())}
    assert {"chainer_sno.Bernoulli", "chainer_sno.links", "chainer_sno.fast.Engine"} <= listed
    assert listed - documented == set()


def test_the_theme_is_installed():
    text = (ROOT / "docs/conf.py").read_text()
    (theme,) = re.findall('^html_theme = "(.+)"$', text, re.MULTILINE)
    assert importlib.metadata.entry_points(group="sphinx.html_themes", name=theme)


def test_the_results_are_a_page(pages):
    page = (pages / "results" / "index.html").read_text()
    shown = re.findall(r'<img[^>]* src="([^"]+)"', page)
    assert [path.rpartition("/")[2] for path in shown if "figure-1a" in path]
    for path in shown:
        assert (pages / "results" / path).resolve().stat().st_size > 1000
    written = (ROOT / "results" / "README.md").read_text()
    headings = re.findall(r"^## (.+)$", written, re.MULTILINE)
    assert len(headings) > 5
    for heading in headings:
        assert f"<h2>{heading.replace(chr(39), '’')}<" in page.replace("'", "’"), heading
    # Every row of a table is there.
    rows = [line for line in written.splitlines() if line.startswith("| ")]
    assert page.count("<tr") == len(rows)
    assert "findings.html" in page


def test_what_is_public_lists_what_is_public():
    """A module that the interface names says itself what belongs to it, and it all exists."""
    for name in chainer_sno.__all__:
        if inspect.ismodule(getattr(chainer_sno, name)):
            assert hasattr(getattr(chainer_sno, name), "__all__"), name
    for name, module in modules():
        listed = getattr(module, "__all__", None)
        if listed is None:
            continue
        assert [own for own in listed if not hasattr(module, own)] == [], name
        own = {
            own
            for own, value in vars(module).items()
            if own[0] != "_" and callable(value) and value.__module__ == name
        }
        assert own - set(listed) == set(), f"{name}.__all__ lacks them"


def test_the_reference_has_every_function_and_class(documented):
    """What no interface lists is in the reference too, under the module that defines it."""
    found = dict(modules())
    of_pages = {
        id(getattr(found[module], own, None))
        for module, _, own in (name.rpartition(".") for name in documented)
        if module in found
    }
    for name, module in found.items():
        for own, value in vars(module).items():
            if own[0] != "_" and callable(value) and getattr(value, "__module__", 0) == name:
                assert id(value) in of_pages, f"{name}.{own}"


def test_every_public_function_and_class_has_a_docstring():
    for name, module in modules():
        assert module.__doc__, name
        for own, value in vars(module).items():
            if own[0] == "_" or not callable(value) or getattr(value, "__module__", 0) != name:
                continue
            assert value.__doc__, f"{name}.{own}"
            members = vars(value).items() if inspect.isclass(value) else ()
            for member, function in members:
                if member[0] != "_" and inspect.isfunction(function):
                    assert function.__doc__, f"{name}.{own}.{member}"


def test_formulas_are_drawn(pages):
    text = (pages / "explanation" / "equations.html").read_text()
    assert re.search(r"<mfrac>\s*<mn>1</mn>\s*<mn>2</mn>\s*</mfrac>", text)
    for number in "4567":
        assert f'<span class="eqno">({number})</span><math' in text
    assert "\\frac" not in text
    assert "https://cdn" not in text


def commands(parser):
    """Yield the parsers of the commands under a parser, and of those that take an experiment."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield command
                yield from commands(command)


def test_every_option_of_every_command_is_there(pages):
    text = (pages / "reference" / "command-line.html").read_text()
    found = list(commands(cli.make_parser()))
    assert {"regress", "unit-selection"} <= {command.prog.split()[-1] for command in found}
    for command in found:
        name = command.prog.replace(" -", "-").replace(" ", "-")
        assert f'id="{name}"' in text
        options = {option for action in command._actions for option in action.option_strings}
        _, _, section = text.partition(f'id="{name}-named-arguments"')
        shown = set(re.findall(r"<kbd>(--[^<]+)</kbd>", section.partition("</section>")[0]))
        assert shown == options - {"-h", "--help"}, command.prog
