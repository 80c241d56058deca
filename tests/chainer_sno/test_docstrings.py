"""The examples in docstrings run, and the names that a user meets first have one."""

import doctest
import importlib
import pkgutil

import numpy
import pytest

import chainer_sno

#: The names that a user meets first.
FIRST = (
    "ArrayIterator",
    "Bernoulli",
    "NesterovAG",
    "StructureSummary",
    "StructureUpdater",
    "compact",
    "describe",
    "make_updater",
    "ranking_utility",
    "save_compact",
)


def examples():
    """Return every docstring of the library with an example, a DocTest each."""
    found = {}
    for info in pkgutil.walk_packages(chainer_sno.__path__, "chainer_sno."):
        if "._" in info.name:
            continue
        module = importlib.import_module(info.name)
        for test in doctest.DocTestFinder(exclude_empty=True).find(module):
            if test.examples:
                found[test.name] = test
    return found


EXAMPLES = examples()


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_the_example_runs(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    numpy.random.seed(0)
    # Names must come from the example itself, as they do where a user pastes it.
    test = EXAMPLES[name]
    test.globs = {"__name__": "__main__"}
    result = doctest.DocTestRunner(verbose=False).run(test)
    assert result.failed == 0, capsys.readouterr().out
    assert result.attempted


@pytest.mark.parametrize("name", FIRST)
def test_what_a_user_meets_first_has_an_example_and_points_on(name):
    thing = getattr(chainer_sno, name)
    assert f"{thing.__module__}.{name}" in EXAMPLES
    assert "See Also:" in thing.__doc__
