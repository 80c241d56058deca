"""Connection selection, section 4.2: connections of a DenseNet."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy

from reproduce import ReproduceError, experiments, structures
from reproduce._types import Array, Cells, Record
from reproduce.experiments.base import PROPOSED, Experiment, Method
from reproduce.settings import Settings, option

#: The penalties of section 4.2, in the order of its list.
CONNECTION_EPSILON0 = ("2^-2", "2^-3", "2^-4", "2^-5", "2^-6", "0", "-2^-3", "-2^0")
#: The usage rates of the random structures: Table 2's.
CONNECTION_USAGE_RATES = (0.158, 0.241, 0.423, 0.675, 0.803, 1.0)
#: Columns of the table about structures.
_STRUCTURE_COLUMNS = (
    "",
    "seed",
    "depth",
    "connections by block",
    "on a path",
    "from the block's input",
    "layers on a path",
    "of equal depth",
    "between input and exit alone",
)


def format_rate(rate: float) -> str:
    """Return a usage rate in percent: with one decimal if that is exact, else with up to twelve."""
    return f"{rate:.1%}" if rate == round(rate, 3) else f"{100 * rate:.12g}%"


@dataclasses.dataclass(frozen=True, init=False)
class ConnectionSelection(Settings):
    """One training of section 4.2; ``random`` trains a structure drawn at random as it is.

    A random structure meets ``usage_rate`` to within 0.5 percentage points (reading R12).
    """

    method: str = option("sno", "how connections are chosen", choices=("sno", "random"))
    dataset: str = option("cifar10", "the data set", choices=("cifar10", "cifar100"))
    lr: float = option(0.1, "initial learning rate of the weights", above=0)
    usage_rate: float | None = option(
        None, "of the structure", type=float, above=0, most=1, method="random", varied=True
    )
    depth: int = option(40, "of the DenseNet: 4 + a multiple of 3", least=7, size=True)
    growth_rate: int = option(12, "output channels of a layer", least=1, size=True)
    reestimate: int = option(
        100,
        "augmented training mini-batches for batch statistics estimated anew, as a second result; "
        "0 for none",
        least=0,
        measured=True,
    )
    criterion: str | None = option(
        None, "what the costs c count", choices=("weights", "flops"), reading=True
    )

    experiment = "connection-selection"
    THREADED = True
    LENGTH = {True: (300, 32), False: (600, 64)}
    #: Dense blocks of the network.
    BLOCKS = 3

    @classmethod
    def defaults(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the defaults that depend on other settings."""
        return {**super().defaults(values), "epsilon0": 2.0**-4, "usage_rate": 0.423}

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> None:
        """Check what the range of one setting cannot say."""
        if values["depth"] % 3 != 1:
            raise ReproduceError(
                f"--depth must be 4 plus a multiple of 3, the number of blocks, such as 7, 10 or "
                f"40, not {values['depth']}"
            )
        super().check(values)

    @classmethod
    def count_bits(cls, values: Mapping[str, Any]) -> int:
        """Return the number of bits d of a structure: 1 + 2 + ... for the consumers of a block."""
        consumers = cls._block_layers(values["depth"]) + 1
        return cls.BLOCKS * consumers * (consumers + 1) // 2

    @classmethod
    def count_weights(cls, values: Mapping[str, Any]) -> int:
        """Return the number of weights of the blocks, the first inputs of a layer left out."""
        layers = cls._block_layers(values["depth"])
        return cls.BLOCKS * 9 * values["growth_rate"] ** 2 * layers * (layers - 1) // 2

    @classmethod
    def _block_layers(cls, depth: int) -> int:
        return (depth - 4) // cls.BLOCKS

    @property
    def block_layers(self) -> int:
        """The layers of a block; the other four are the first, the transitions and the last."""
        return self._block_layers(self.depth)


class _ConnectionSelection(Experiment):
    name = ConnectionSelection.experiment
    settings = ConnectionSelection
    title = "Connection selection"
    section = "4.2"
    table = "Table 2"
    figure = "b"
    networks = {"2": "2^-4"}
    selected = "connections"
    part = "block"
    parts = "by block"
    penalties = CONNECTION_EPSILON0
    methods = {
        "sno": PROPOSED,
        "random": Method("random selection", "random at {}", "{}", written=format_rate),
    }
    result_properties = {
        "connections": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        "structure": {"type": "string", "pattern": "^[01]+$"},
        "depth": {"type": ["integer", "null"]},
    }
    result_required = ("connections", "structure", "depth")
    structure_legend = (
        "A connection from a block's input brings all channels of that input; any other connection "
        "brings as many channels as the growth rate.  A path leads from a block's input to its "
        "exit.  Layers of equal depth are parallel, and those between input and exit alone have no "
        "other connection on a path: a block of these is as wide as its layers allow."
    )
    quick_explanation = """\
This is a SHORT RUN, one trial of each setting, and no reproduction of {table}:
  {schedules}.
In so few iterations neither the weights nor theta come near their ends: it shows that everything
works, and nothing of the method.  The paper's schedule for one setting, resumed when interrupted:
  python -m reproduce run connection-selection --epsilon0 2^-4"""

    @property
    def training(self) -> Any:
        """The training; imports Chainer."""
        from reproduce.experiments.connection_training import ConnectionTraining

        return ConnectionTraining

    def grid(self, values: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
        """Return what varies within each method."""
        rates = [{"usage_rate": rate} for rate in CONNECTION_USAGE_RATES]
        return {**super().grid(values), "random": rates}

    def quick(self, seed: int) -> Sequence[Settings]:
        """Return two penalties and a random structure, for a few hundred iterations."""
        common = {"examples": 6400, "test_examples": 1000, "seed": seed}
        return [
            ConnectionSelection(method="random", usage_rate=0.423, epochs=2, **common),
            *(ConnectionSelection(epsilon0=each, epochs=1, **common) for each in (2.0**-5, 0.25)),
        ]

    def structure(self, settings: Any, bits: Array) -> dict[str, Any]:
        """Return the connections of each block, the bits, and the depth."""
        return {
            "connections": [int(part.sum()) for part in numpy.split(bits, settings.BLOCKS)],
            "structure": "".join("01"[int(bit)] for bit in bits),
            "depth": structures.depth(bits, settings.BLOCKS, settings.block_layers),
        }

    def draw(
        self, record: Record, title: str, figures: Any
    ) -> list[tuple[str, Callable[[], Any], str]]:
        """Return Figure 2, the network obtained."""
        settings: Any = experiments.from_dict(record["settings"])
        bits = [int(bit) for bit in record["result"]["structure"]]
        draw = functools.partial(
            figures.densenet, bits, settings.BLOCKS, settings.block_layers, title
        )
        told = "the network obtained" if settings.method == "sno" else "the random structure"
        legend = "a number is a layer's place in the whole network, a column its depth in this one"
        return [("figure-2", draw, f"As Figure 2, {told}; {legend}")]

    def structure_table(self, records: Iterable[Record]) -> tuple[Sequence[str], Cells]:
        """Return the depth, and of each block its connections and what its layers form."""
        rows = []
        for record in records:
            settings: Any = experiments.from_dict(record["settings"])
            result = record["result"]
            bits = [bit == "1" for bit in result["structure"]]
            matrices = structures.block_matrices(bits, settings.BLOCKS, settings.block_layers)
            counts = [
                [int(matrix.sum()) for matrix in matrices],
                [int(structures.used(matrix).sum()) for matrix in matrices],
                [int(matrix[:, 0].sum()) for matrix in matrices],
                [sum(structures.useful(matrix)) for matrix in matrices],
                [structures.width(matrix) for matrix in matrices],
                [structures.direct(matrix) for matrix in matrices],
            ]
            cells = ["/".join(map(str, blocks)) for blocks in counts]
            depth = "dead" if result["depth"] is None else str(result["depth"])
            _, label = self.place_and_label(settings)
            rows.append([label, str(settings.seed), depth, *cells])
        return _STRUCTURE_COLUMNS, rows

    def input_words(self, settings: Any) -> str:
        """Return what an exported network takes, in words."""
        return "images less the training set's mean of each channel, over its standard deviation"


EXPERIMENT = experiments.register(_ConnectionSelection())
