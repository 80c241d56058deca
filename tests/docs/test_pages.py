"""The code blocks of the pages and of the README run: the quick ones here, see blocks.py."""

import os
import subprocess
import sys

import pytest

import tests.docs.__main__ as docs_check
from reproduce import ROOT, ReproduceError, data
from tests.docs import blocks

PATHS = blocks.paths()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A working directory with the files of the repository, where the blocks of a page run."""
    for path in ROOT.iterdir():
        if path.name[0] != "." and path.name not in ("runs", "result"):
            (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    # `python` is this one.
    monkeypatch.setenv("PATH", f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


@pytest.fixture
def images(rng, monkeypatch):
    """Random images in the place of the data sets: what is learnt does not matter here."""
    parts = tuple(
        (rng.integers(0, 256, (n, 784), dtype="B"), rng.integers(0, 10, n, dtype="i"))
        for n in (128, 500)
    )
    monkeypatch.setattr(data, "load", lambda name: parts)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: str(path.relative_to(ROOT)))
@pytest.mark.filterwarnings("ignore:Matplotlib is building the font cache")
def test_the_blocks_run(path, checkout, images, capsys):
    names = {"__name__": "__main__"}
    as_written = True  # so far
    for block in blocks.read(path):
        block.compile()
        code = block.quick_code()
        if block.language == "python":
            as_written = as_written and code == block.code
        if code is None:
            continue
        if block.language == "python":
            exec(compile(code, str(block), "exec"), names)
            printed = capsys.readouterr().out
        else:
            run = subprocess.run(["bash", "-ec", code], capture_output=True, text=True, timeout=120)
            assert run.returncode == 0, f"{block}: {run.stderr}"
            printed = run.stdout
        if as_written:
            block.check_output(printed)


def test_every_page_is_looked_at():
    tracked = subprocess.run(
        ["git", "ls-files", "docs/*.rst"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    assert {ROOT / name for name in tracked} <= set(PATHS)
    assert sum(len(blocks.read(path)) for path in PATHS) > 20


PAGE = """\
.. check: long (a minute); short: 3 => 1;
   short: x => y

.. code-block:: python

   x = 3

   print(x)

.. code-block:: output

   3.5e-7

Text.

.. check: never (needs a GPU)

.. code-block:: bash

   timeout 9 python -m reproduce run unit-selection --epsilon0 -2^-3 \\
       --epochs 2 || make test
   FOO=1 python -m reproduce status | tail -1
"""


def page(tmp_path, text, monkeypatch, name="page.rst"):
    monkeypatch.setattr(blocks, "ROOT", tmp_path)
    path = tmp_path / name
    path.write_text(text)
    (tmp_path / "Makefile").write_text(".PHONY: test\n")
    return path


def test_blocks_are_found(tmp_path, monkeypatch):
    first, second = blocks.read(page(tmp_path, PAGE, monkeypatch))
    assert (str(first), first.code) == ("page.rst:6", "x = 3\n\nprint(x)\n")
    assert (first.when, first.reason) == ("long", "a minute")
    assert first.quick_code() == "y = 1\n\nprint(y)\n"
    assert first.long_code() == first.code
    assert (second.when, second.quick_code(), second.long_code()) == ("never", None, None)
    first.check_output("\033[J 12 ")
    with pytest.raises(AssertionError, match=r"page\.rst:12"):
        first.check_output("x")
    with pytest.raises(AssertionError, match=r"page\.rst:12"):
        first.check_output("1\n2")
    status = ["FOO=1", "python", "-m", "reproduce", "status"]
    assert list(blocks.commands(second.code))[1:] == [["make", "test"], status, ["tail", "-1"]]
    second.compile()


def test_fences_are_found(tmp_path, monkeypatch):
    text = "<!-- check: never (hours); short: a => b -->\n\n```bash\na\n```\n"
    text += "\n```python\nx = 1\n```\n"
    first, second = blocks.read(page(tmp_path, text, monkeypatch, "page.md"))
    assert (first.language, first.code, first.quick_code(), first.long_code()) == (
        "bash",
        "a\n",
        None,
        "b\n",
    )
    assert (second.language, second.quick_code()) == ("python", "x = 1\n")


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("x = 3", "x = = 3", SyntaxError),
        ("|| make test", "|| (make test", subprocess.CalledProcessError),
        ("make test", "make tests", AssertionError),
        ("--epochs", "--epoch-count", ReproduceError),
    ],
)
def test_what_is_not_run_is_compiled(tmp_path, monkeypatch, old, new, error):
    first, second = blocks.read(page(tmp_path, PAGE.replace(old, new), monkeypatch))
    wrong = first if error is SyntaxError else second
    with pytest.raises(error):
        wrong.compile()


def test_a_variant_of_nothing_is_an_error(tmp_path, monkeypatch):
    (block, _) = blocks.read(page(tmp_path, PAGE.replace("x = 3", "x = 2"), monkeypatch))
    with pytest.raises(ValueError, match="has no '3' to be replaced"):
        block.quick_code()


@pytest.mark.parametrize("text", [".. check: sometimes (why)\n\n", ".. check: long (why)\n\n"])
def test_a_comment_that_says_nothing_is_an_error(tmp_path, monkeypatch, text):
    with pytest.raises(ValueError, match=r"not understood|no block"):
        blocks.read(page(tmp_path, text, monkeypatch))


def test_the_long_check_fails_with_a_block(tmp_path, monkeypatch, capsys):
    text = ".. code-block:: python\n\n   x = 1\n   print(x)\n\n.. code-block:: output\n\n   1\n"
    text += "\n.. code-block:: bash\n\n   echo $0 && false\n"
    path = page(tmp_path, text, monkeypatch)
    assert docs_check.run([path], tmp_path, sys.executable) == ["page.rst:12"]
    text = text.replace("false", "true").replace("x = 1", "x = y")
    page(tmp_path, text, monkeypatch)
    assert docs_check.run([path], tmp_path, sys.executable) == ["page.rst:3"]
    page(tmp_path, text.replace("x = y", "x = 2"), monkeypatch)
    assert docs_check.run([path], tmp_path, sys.executable) == []
    page(tmp_path, text.replace("x = y", "x = 'a'"), monkeypatch)
    assert docs_check.run([path], tmp_path, sys.executable) == ["page.rst:3"]
