"""The code blocks of the pages and of the README, and how each is to be run.

A block is ``.. code-block:: LANGUAGE`` in reStructuredText and a fence in Markdown.  The ``python``
blocks of a page run in order in one namespace, ``bash`` blocks in a shell each, in a directory that
has the repository's files.  An ``output`` block is what the block before it printed; numbers aside,
it must be that.

A comment in front of a block says how it is run where that is not as written::

    .. check: long (REASON); short: 500 => 2; short: a => b
    <!-- check: never (REASON) -->

``long``: as written by ``make docs-check`` only.  ``never``: as written by nobody.  ``short``: what
to replace for a short variant.  That is what ``make test`` runs of a long ``python`` block, and
what ``make docs-check`` runs of a block that never runs as written.  A block of which nothing is
run is still compiled.
"""

import dataclasses
import os
import re
import shlex
import subprocess
import sys
import textwrap
from itertools import pairwise

from reproduce import ROOT, cli

LANGUAGES = ("python", "bash", "output")
_COMMENT = re.compile(r"(?:\.\.|<!--) check: (.+?)(?: -->)?", re.DOTALL)
_MARK = re.compile(r"(long|never) \((.+?)\)((?:; short: .+? => [^;]+)*)", re.DOTALL)


@dataclasses.dataclass
class Block:
    """A code block.

    Attributes:
        path (pathlib.Path): of the page.
        line (int): where its code begins, from 1 on.
        language (str): of LANGUAGES.
        code (str): as written.
        when (str): ``quick``, ``long`` or ``never``, as written.
        reason (str): why not quick.
        short (list of tuple): what to replace by what for the short variant.
        output (Block): what it must print; None for anything.
    """

    path: object
    line: int
    language: str
    code: str
    when: str = "quick"
    reason: str = ""
    short: tuple = ()
    output: object = None

    def __str__(self):
        return f"{self.path.relative_to(ROOT)}:{self.line}"

    def short_code(self):
        """Return the short variant; None where there is none.

        Raises:
            ValueError: the block lacks a text that is to be replaced.
        """
        code = self.code
        for old, new in self.short:
            if old not in code:
                raise ValueError(f"{self} has no {old!r} to be replaced")
            code = code.replace(old, new)
        return code if self.short else None

    def quick_code(self):
        """Return what ``make test`` runs; None for nothing."""
        if self.when == "quick":
            return self.code
        # A shell command takes seconds to start, however short.
        return self.short_code() if self.language == "python" else None

    def long_code(self):
        """Return what ``make docs-check`` runs; None for nothing."""
        return self.short_code() if self.when == "never" else self.code

    def compile(self):
        """Raise an error if the code is not of its language, or a command is none of ours."""
        if self.language == "python":
            compile(self.code, str(self), "exec")
        elif self.language == "bash":
            subprocess.run(["bash", "-n"], input=self.code, text=True, check=True)
            targets = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
            calls = []
            for command in commands(self.code):
                if command[:1] == ["make"]:
                    assert command[1] in targets[1].split(), f"{self}: no target {command[1]}"
                for i, pair in enumerate(pairwise(command), 2):
                    if pair == ("-m", "reproduce"):
                        calls.append(command[i:])
            _parse(calls, dict(re.findall(r"^export (\w+)=(\S+)$", self.code, re.MULTILINE)))

    def check_output(self, printed):
        """Raise AssertionError if what it printed, numbers aside, is not what the page says."""
        if self.output is not None:
            expected, found = masked(self.output.code), masked(printed)
            assert found == expected, f"{self.output}:\n{found}\nis printed, not\n{expected}"


def _parse(calls, environment):
    """Raise an error if the command line does not take one of the calls.

    Args:
        calls (list of list of str): the arguments of ``python -m reproduce``.
        environment (dict): variables that the script sets.  They may name experiments, which a
            process registers once and for all, so another process parses.
    """
    if not environment:
        for call in calls:
            cli.parse(call)
        return
    code = f"from reproduce import cli\nfor call in {calls!r}:\n    cli.parse(call)\n"
    command, variables = [sys.executable, "-c", code], {**os.environ, **environment}
    found = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


def masked(text):
    """Return a text without the numbers in it, the widths of columns, and control sequences."""
    text = re.sub(r"\d+(\.\d+)?(e[+-]\d+)?", "0", text.replace("\033[J", ""))
    return [" ".join(line.split()) for line in text.strip().splitlines()]


def commands(code):
    """Yield the words of each command of a shell script, those before an operator."""
    for line in code.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        command = []
        for word in [*lexer, ";"]:
            if set(word) <= set("();<>|&"):
                if command:
                    yield command
                command = []
            else:
                command.append(word)


def paths():
    """Return the README and the pages, in the order in which a reader meets them."""
    folders = ["tutorial", "how-to", "explanation", "reference"]
    found = [path for folder in folders for path in sorted((ROOT / "docs" / folder).glob("*.rst"))]
    return [ROOT / "README.md", ROOT / "docs" / "index.rst", *found]


def read(path):
    """Return the blocks of a page that are run or compiled.

    Raises:
        ValueError: a comment about a block is not understood, or there is no block behind it.
    """
    lines = path.read_text().splitlines()
    blocks, mark, i = [], None, 0
    while i < len(lines):
        if re.match(r"(\.\.|<!--) check:", lines[i]):
            end = next(k for k in range(i, len(lines)) if not lines[k + 1].strip())
            comment = " ".join(line.strip() for line in lines[i : end + 1])
            found = _MARK.fullmatch(_COMMENT.fullmatch(comment)[1])
            if found is None or mark is not None:
                raise ValueError(f"{path}:{i + 1}: not understood: {comment}")
            short = re.findall(r"; short: (.+?) => ([^;]+)", found[3])
            mark = {"when": found[1], "reason": found[2], "short": short}
            i = end
        start = re.fullmatch(r"\.\. code-block:: (\w+)|```(\w+)", lines[i])
        if start and (start[1] or start[2]) in LANGUAGES:
            begin = i + 1 if start[2] else i + 2
            end = begin
            if start[2]:
                end = lines.index("```", begin)
            else:
                while end < len(lines) and (not lines[end] or lines[end].startswith("   ")):
                    end += 1
            code = textwrap.dedent("\n".join(lines[begin:end])).rstrip() + "\n"
            block = Block(path, begin + 1, start[1] or start[2], code)
            if block.language == "output":
                blocks[-1].output = block
            else:
                blocks.append(dataclasses.replace(block, **mark or {}))
                mark = None
            i = end - 1
        i += 1
    if mark is not None:
        raise ValueError(f"{path}: no block behind the last comment")
    return blocks
