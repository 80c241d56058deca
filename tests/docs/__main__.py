"""Run every code block of the pages and of the README, the long ones too: ``make docs-check``.

The files that git knows are copied, ``make install`` makes an environment in the copy, and there
the blocks run, so nothing is left behind, and nothing that only this machine has is used.  With
arguments, only the pages whose paths are given.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from reproduce import ROOT
from tests.docs import blocks

# Runs the python blocks of a page, one namespace for all; the NUL says that one is done.
_INTERPRETER = """
import json, sys
names = {"__name__": "__main__"}
for line in sys.stdin:
    code, name = json.loads(line)
    exec(compile(code, name, "exec"), names)
    print(chr(0), flush=True)
"""


class _Python:
    """An interpreter that is fed block by block."""

    def __init__(self, python, directory, environment):
        self.process = subprocess.Popen(
            [python, "-c", _INTERPRETER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=directory,
            env=environment,
        )

    def run(self, code, name):
        """Return what a block printed.

        Raises:
            AssertionError: an error ended the interpreter, which has shown it.
        """
        self.process.stdin.write(json.dumps([code, name]) + "\n")
        self.process.stdin.flush()
        printed = ""
        for line in self.process.stdout:
            if line == "\0\n":
                return printed
            printed += line
            print(line, end="", flush=True)
        raise AssertionError(f"{name} failed with {self.process.wait()}")

    def close(self):
        """End the interpreter."""
        with self.process:
            self.process.stdin.close()


def run(paths, directory, python):
    """Run the blocks of pages; of each, up to the first that fails.

    Args:
        paths (list of pathlib.Path): the pages.
        directory (pathlib.Path): where to run them.
        python (str): the interpreter of the environment in which they run.

    Returns:
        list of str: the blocks that failed.
    """
    environment = {**os.environ, "PATH": f"{Path(python).parent}:{os.environ['PATH']}"}
    environment.pop("PYTHONPATH", None)
    failed = []
    for path in paths:
        with contextlib.closing(_Python(python, directory, environment)) as interpreter:
            for block in blocks.read(path):
                code = block.long_code()
                if code is None:
                    print(f"--- {block}: not run ({block.reason})")
                    continue
                print(f"--- {block}", flush=True)
                begun = time.perf_counter()
                try:
                    if block.language == "python":
                        printed = interpreter.run(code, str(block))
                    else:
                        printed = _shell(code, block, directory, environment)
                    if code == block.code:
                        block.check_output(printed)
                except AssertionError as error:
                    print(f"FAILED: {error}")
                    failed.append(str(block))
                    break
                print(f"--- {time.perf_counter() - begun:.0f} s", flush=True)
    return failed


def _shell(code, block, directory, environment):
    """Return what a script printed on stdout.

    Raises:
        AssertionError: a command failed.
    """
    command = ["bash", "-euo", "pipefail", "-c", code]
    found = subprocess.run(
        command, cwd=directory, env=environment, stdout=subprocess.PIPE, text=True
    )
    print(found.stdout, end="")
    assert found.returncode == 0, f"{block} failed with {found.returncode}"
    return found.stdout


def main():
    """Return the exit code."""
    paths = [Path(name).resolve() for name in sys.argv[1:]] or blocks.paths()
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run(
            f"git ls-files -z | xargs -0 cp --parents -t {directory}",
            shell=True,
            cwd=ROOT,
            check=True,
        )
        subprocess.run(["make", "install"], cwd=directory, check=True)
        failed = run(paths, Path(directory), f"{directory}/.venv/bin/python")
    print(f"failed: {', '.join(failed)}" if failed else "every block ran")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
