"""The fixed trainings that have baselines: the traces and the short runs."""

import dataclasses
from typing import Any

from reproduce.experiments.connection_selection import ConnectionSelection
from reproduce.experiments.unit_selection import UnitSelection
from reproduce.settings import Settings


@dataclasses.dataclass(frozen=True)
class Case:
    """A training that has a baseline.

    Attributes:
        settings (Settings): what to train.
        plain (bool): without the fast path; of a trace.
        ties (bool): different structures may have equal losses.  They are equal to the bit on
            every machine only if a layer is empty, because the rest is then made of exact zeros.
    """

    settings: Settings
    plain: bool = False
    ties: bool = False


def _units(**values: Any) -> UnitSelection:
    """Return settings of a trace of unit selection: 48 iterations, eight epochs.

    With this eta_theta, bits are at the ends of theta's range from the middle on.  With this decay,
    the effect of decayed biases shows.
    """
    common: dict[str, Any] = {
        "epochs": 8,
        "examples": 60,
        "test_examples": 40,
        "batch_size": 10,
        "lr": 0.05,
    }
    common |= {"weight_decay": 0.05, "units": 24, "layers": 2}
    if values.get("method", "sno") == "sno":
        common |= {"epsilon0": 0.125, "eta_factor": 8}
    return UnitSelection(**common | values)


def _connections(**values: Any) -> ConnectionSelection:
    """Return settings of a trace of connection selection: 24 iterations, four epochs.

    There are enough connections that almost every structure has a path.  After a layer without
    inputs, a batch normalisation would divide rounding errors by almost zero.
    """
    common: dict[str, Any] = {"epochs": 4, "examples": 60, "test_examples": 20, "batch_size": 10}
    common |= {"weight_decay": 0.01, "depth": 16, "growth_rate": 3, "reestimate": 0}
    if values.get("method", "sno") == "sno":
        common |= {"epsilon0": -1.0, "eta_factor": 12}
    return ConnectionSelection(**common | values)


#: The traces by name; those named for the paper have its networks, penalties and mini-batches.
TRACES = {
    "units": Case(_units()),
    "units-plain": Case(_units(epsilon0=-0.125, samples=4), plain=True),
    # A layer of three units is often empty, and such structures are equal.
    "units-ties": Case(
        _units(units=3, layers=3, epsilon0=-0.125, samples=5, eta_factor=2), ties=True
    ),
    "units-fixed": Case(_units(method="fixed", width=16)),
    "units-dropout": Case(_units(method="dropout")),
    "units-dropout-plain": Case(_units(method="dropout", seed=1), plain=True),
    "units-paper": Case(
        UnitSelection(epochs=4, examples=96, test_examples=40, epsilon0=2.0**-6, eta_factor=200)
    ),
    "connections": Case(_connections()),
    "connections-plain": Case(
        _connections(epsilon0=0.25, samples=4, eta_factor=6, epochs=2, seed=5), plain=True
    ),
    "connections-random": Case(_connections(method="random", usage_rate=0.675)),
    "connections-paper": Case(
        ConnectionSelection(
            epochs=2, examples=32, test_examples=10, epsilon0=2.0**-4, eta_factor=50, reestimate=0
        )
    ),
}
_SHORT_DENSENET: dict[str, Any] = {
    "depth": 16,
    "growth_rate": 4,
    "epochs": 1,
    "batch_size": 32,
    "examples": 6400,
    "test_examples": 1000,
    "reestimate": 0,
}
#: The short runs by name.  Penalties are such that seeds end near each other.
RUNS = {
    "run-units": Case(
        UnitSelection(epsilon0=2.0**-5, units=128, epochs=5, examples=12800, eta_factor=8)
    ),
    "run-units-fixed": Case(
        UnitSelection(method="fixed", width=41, units=128, epochs=10, examples=12800)
    ),
    "run-units-dropout": Case(
        UnitSelection(method="dropout", units=128, epochs=10, examples=12800)
    ),
    "run-connections": Case(ConnectionSelection(epsilon0=-1.0, eta_factor=4, **_SHORT_DENSENET)),
    "run-connections-random": Case(
        ConnectionSelection(method="random", usage_rate=0.803, **_SHORT_DENSENET)
    ),
}
