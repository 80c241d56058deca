"""Unit selection, section 4.1: units of a fully connected network."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy

from reproduce import ReproduceError, experiments
from reproduce._types import Array
from reproduce.datasets import DATASETS
from reproduce.experiments.base import PROPOSED, Experiment, Method
from reproduce.settings import Settings, option, parse_epsilon0

#: The penalties of section 4.1, in the order of its list.
UNIT_EPSILON0 = ("2^-6", "2^-7", "2^-8", "2^-9", "0", "-2^-3", "-2^0")
#: The widths of fixed structures with Table 1's usage rates (reading R13).
UNIT_WIDTHS = (52, 205, 453, 609, 735, 784)


@dataclasses.dataclass(frozen=True, init=False)
class UnitSelection(Settings):
    """One training of section 4.1; the methods other than ``sno`` are its baselines.

    ``fixed`` has the same number of units in every layer.  ``inputs=mean-image`` subtracts the mean
    training image from the pixels in [0, 1]; ``inputs=standardised`` subtracts one mean of all
    pixels and divides by one standard deviation.
    """

    method: str = option("sno", "how units are chosen", choices=("sno", "fixed", "dropout"))
    dataset: str = option("mnist", "the data set", choices=("mnist", "fashion-mnist"))
    width: int | None = option(
        None, "units in each hidden layer", type=int, least=1, method="fixed", varied=True
    )
    units: int = option(784, "units in each hidden layer of the full network", least=2, size=True)
    layers: int = option(3, "hidden layers", least=1, size=True)
    dropout_ratio: float | None = option(
        None, "fraction of units that is dropped", type=float, least=0, below=1, method="dropout"
    )
    inputs: str | None = option(
        None,
        "what the network sees of the pixels",
        choices=("unit-interval", "mean-image", "standardised"),
        reading=True,
    )
    criterion: str | None = option(
        None, "what the costs c count", choices=("units", "weights", "flops"), reading=True
    )

    experiment = "unit-selection"
    LENGTH = {True: (500, 32), False: (1000, 64)}

    @classmethod
    def defaults(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the defaults that depend on other settings."""
        found = {"epsilon0": 2.0**-7, "width": values["units"], "dropout_ratio": 0.5}
        return {**super().defaults(values), **found}

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> None:
        """Check what the range of one setting cannot say."""
        super().check(values)
        if values["width"] is not None and values["width"] > values["units"]:
            raise ReproduceError(
                f"--width must be at most the {values['units']} units of a layer of the full "
                f"network, not {values['width']}"
            )

    @classmethod
    def count_bits(cls, values: Mapping[str, Any]) -> int:
        """Return the number of bits d of a structure: one for each hidden unit."""
        return values["units"] * values["layers"]

    @classmethod
    def count_weights(cls, values: Mapping[str, Any]) -> int:
        """Return the number of weights of the hidden layers."""
        width = values["width"] or values["units"]
        (inputs,) = DATASETS[values["dataset"]].shape
        return inputs * width + (values["layers"] - 1) * width**2

    @property
    def widths(self) -> tuple[int, ...]:
        """Units per layer of the network that is built, inputs and outputs left out."""
        return (self.width or self.units,) * self.layers


class _UnitSelection(Experiment):
    name = UnitSelection.experiment
    settings = UnitSelection
    title = "Unit selection"
    section = "4.1"
    table = "Table 1"
    figure = "a"
    selected = "units"
    part = "layer"
    parts = "1st/2nd/3rd"
    penalties = UNIT_EPSILON0
    methods = {
        "sno": PROPOSED,
        "fixed": Method(
            "fixed structure", "fixed {} a layer", "{} units", beside="units per layer"
        ),
        "dropout": Method("Dropout"),
    }
    result_properties = {"units": {"type": "array", "items": {"type": "integer", "minimum": 0}}}
    result_required = ("units",)
    quick_explanation = """\
This is a SHORT RUN, one trial of each setting, and no reproduction of {table}:
  {schedules}.
One step of equation (7) moves a bit by at most eta_theta, and the penalty acts with a time
constant of d/epsilon0 iterations at eta_theta = 1/d: 150,000 at 2^-6 and 1,200,000 at 2^-9.  A
short run with the paper's eta_theta would leave every theta near 0.5, and M* an arbitrary half of
the units.  So eta_theta is raised by the factor by which the schedule is shortened; the noise of
theta grows with it, and usage rates drift towards one half.  The order of the rates is the
paper's, the values are not.
The paper's schedule for one setting, resumed when interrupted:
  python -m reproduce run unit-selection --epsilon0 2^-7"""

    @property
    def training(self) -> Any:
        """The training; imports Chainer."""
        from reproduce.experiments.unit_training import UnitTraining

        return UnitTraining

    def grid(self, values: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
        """Return what varies within each method; widths keep their usage rates."""
        units = values.get("units") or UnitSelection().units
        widths = [max(1, round(width * units / UnitSelection().units)) for width in UNIT_WIDTHS]
        fixed = [{"width": width} for width in widths]
        return {**super().grid(values), "fixed": fixed, "dropout": [{}]}

    def quick(self, seed: int) -> Sequence[Settings]:
        """Return the seven penalties of section 4.1 and two fixed structures, at 1/125."""
        at = UnitSelection.at
        fixed = [at("quick", method="fixed", width=width, seed=seed) for width in (784, 205)]
        return fixed + [
            at("quick", epsilon0=parse_epsilon0(text), seed=seed)
            for text in reversed(UNIT_EPSILON0)
        ]

    def structure(self, settings: Any, bits: Array) -> dict[str, Any]:
        """Return the units of each layer."""
        return {"units": [int(part.sum()) for part in numpy.split(bits, settings.layers)]}

    def input_words(self, settings: Any) -> str:
        """Return what an exported network takes, in words."""
        if settings.inputs is not None:
            raise ReproduceError(
                f"{settings.name!r} cannot be exported: it was trained with --inputs "
                f"{settings.inputs}, and a file of the network does not say how to prepare the "
                "inputs"
            )
        return "the pixels of an image, row by row, from 0 to 1"


EXPERIMENT = experiments.register(_UnitSelection())
