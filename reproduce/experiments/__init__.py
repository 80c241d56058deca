"""The experiments, one module each; whatever differs between them is in their modules.

An experiment is an instance of a subclass of :class:`reproduce.experiments.base.Experiment`.  Those
of the paper are registered here.  Another one can live in any module that calls :func:`register`.
The commands find it when the environment variable ``CHAINER_SNO_EXPERIMENTS`` names the module;
trainings are processes of their own, and they inherit the variable.
"""

import importlib
import os
from collections.abc import Mapping
from typing import Any

from reproduce import ReproduceError
from reproduce.experiments.base import Experiment
from reproduce.settings import Settings

#: The modules of the paper's experiments, in the order of its sections.
_MODULES = ("reproduce.experiments.unit_selection", "reproduce.experiments.connection_selection")
#: The environment variable that names further modules, with commas between them.
VARIABLE = "CHAINER_SNO_EXPERIMENTS"

_registry: dict[str, Experiment] = {}


def register(experiment: Experiment) -> Experiment:
    """Make an experiment known to every command.

    Args:
        experiment (Experiment): the experiment.

    Returns:
        Experiment: the same.

    Raises:
        TypeError: it is no experiment, or its settings have no methods.
        ValueError: there is another experiment of this name.
    """
    if not isinstance(experiment, Experiment):
        raise TypeError(f"an experiment is an instance of Experiment, not {experiment!r}")
    if not experiment.name or not experiment.settings.methods():
        raise TypeError(f"{type(experiment).__name__} needs a name, and settings with methods")
    name = experiment.name
    if type(_registry.setdefault(name, experiment)) is not type(experiment):
        raise ValueError(f"there are two experiments of the name {name!r}")
    return _registry[name]


def unregister(name: str) -> None:
    """Forget an experiment, for tests of :func:`register`."""
    _registry.pop(name, None)


def all_experiments() -> dict[str, Experiment]:
    """Return every experiment by its name, the paper's first.

    Raises:
        ReproduceError: a module that the environment variable names cannot be imported.
    """
    own = [importlib.import_module(module).EXPERIMENT for module in _MODULES]
    for module in filter(None, map(str.strip, os.environ.get(VARIABLE, "").split(","))):
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:  # a module may raise anything
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise ReproduceError(
                f"{VARIABLE} names the module {module!r}, which cannot be imported ({reason}): "
                "correct the variable or unset it"
            ) from error
        if not any(type(each).__module__ == module for each in _registry.values()):
            raise ReproduceError(
                f"{VARIABLE} names the module {module!r}, which registers no experiment of its "
                "own: correct the variable or unset it"
            )
    # Whoever imported one of the modules before changes nothing of the order.
    return {experiment.name: experiment for experiment in own} | _registry


def get(name: str) -> Experiment:
    """Return an experiment.

    Args:
        name (str): such as ``unit-selection``.

    Raises:
        ReproduceError: there is no such experiment.
    """
    found = all_experiments()
    if name not in found:
        raise ReproduceError(f"experiment {name!r} is unknown: give one of {', '.join(found)}")
    return found[name]


def of(settings: Settings) -> Experiment:
    """Return the experiment to which settings belong."""
    return get(settings.experiment)


def from_dict(values: Mapping[str, Any]) -> Settings:
    """Return the settings that :meth:`reproduce.settings.Settings.as_dict` returned.

    Raises:
        ReproduceError: they are those of no experiment here.
    """
    try:
        experiment = get(values["experiment"])
    except (KeyError, TypeError) as error:
        known = " or ".join(all_experiments())
        raise ReproduceError(f"these are not the settings of a training of {known}") from error
    try:
        return experiment.settings.from_dict(values)
    except (TypeError, AttributeError, LookupError, ArithmeticError) as error:
        reason = " ".join(str(error).split())
        raise ReproduceError(f"a setting has no value that it can have ({reason})") from error
