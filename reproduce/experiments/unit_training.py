"""The training of section 4.1: units of a fully connected network."""

from collections.abc import Sequence
from typing import Any

import numpy

import chainer_sno
from chainer_sno import chainer, extensions, links
from chainer_sno.complexity import fully_connected_weight_ratio, fully_connected_weights
from reproduce._types import Array, Data
from reproduce.experiments.unit_selection import UnitSelection
from reproduce.training import Training, costs_of

#: Test images classified at once.
TEST_BATCH = 1000


def make_link(settings: UnitSelection, initialW: Any = None) -> Any:
    """Return the masked network of settings, or a plain one of the fixed widths.

    Args:
        settings (reproduce.experiments.unit_selection.UnitSelection): of a run.
        initialW (initializer): of the weights.

    Returns:
        chainer.Link: on the CPU.
    """
    (inputs,), classes = settings.data.shape, settings.data.classes
    if settings.method == "sno":
        return links.MaskedMLP(inputs, settings.widths, classes, initialW=initialW)
    return links.MLP(
        inputs,
        settings.widths,
        classes,
        settings.dropout_ratio or 0.0,
        settings.seed,
        initialW=initialW,
    )


def _full_widths(settings: UnitSelection) -> tuple[int, ...]:
    """Return the units of every layer of the full network, inputs and outputs included."""
    (inputs,) = settings.data.shape
    return (inputs, *(settings.units,) * settings.layers, settings.data.classes)


def _centred(train: tuple[Array, Array], test: tuple[Array, Array], inputs: str) -> Data:
    """Return the data with pixels in [0, 1] centred by the training set, of Chainer's dtype."""
    dtype = chainer.get_dtype()
    images = train[0].astype(dtype) / dtype.type(255)
    if inputs == "mean-image":
        mean, std = images.mean(axis=0, dtype="d"), 1.0
    else:
        mean, std = images.mean(dtype="d"), images.std(dtype="d")

    def centre(part: tuple[Array, Array]) -> tuple[Array, Array]:
        x = part[0].astype(dtype) / dtype.type(255)
        return ((x - mean) / std).astype(dtype), part[1]

    return centre(train), centre(test)


class UnitTraining(Training):
    """A training of section 4.1: the proposed method, a fixed structure, or Dropout."""

    def make_iterators(
        self, train: tuple[Array, Array], test: tuple[Array, Array]
    ) -> tuple[Any, Any]:
        """Return iterators over the pixels: bytes as numbers in [0, 1], or what settings say."""
        settings = self.settings
        test_batch = min(TEST_BATCH, len(test[0]))
        common: dict[str, Any] = {"divisor": 255.0}
        if settings.inputs is not None:
            train, test = _centred(train, test, settings.inputs)
            common = {"divisor": None}
        return (
            chainer_sno.ArrayIterator(train, settings.batch_size, seed=settings.seed, **common),
            chainer_sno.ArrayIterator(test, test_batch, repeat=False, shuffle=False, **common),
        )

    def make_link(self, initialW: Any) -> Any:
        """Return the masked network, or a plain one of the fixed widths."""
        return make_link(self.settings, initialW)

    def make_evaluator(self, iterator: Any) -> Any:
        """Return the evaluation at the mode, or of the fixed network."""
        if self.bernoulli is None:
            return extensions.ErrorEvaluator(iterator, self.link)
        samples = self.settings.stochastic_samples
        return extensions.StructureEvaluator(iterator, self.link, self.bernoulli, samples)

    def structure_result(self) -> dict[str, Any]:
        """Return the units per layer, the usage rate and the weight ratio."""
        settings = self.settings
        full = _full_widths(settings)
        widths = self.link.widths
        usage_rate = sum(widths[1:-1]) / sum(full[1:-1])
        if self.bernoulli is not None:
            mode = chainer.backends.cuda.to_cpu(self.bernoulli.mode())
            widths = self.link.kept_widths(mode)
            usage_rate = self.bernoulli.usage_rate()
        elif settings.criterion is not None:
            usage_rate = self._usage_rate_of(widths[1:-1])
        return {
            "units": list(widths[1:-1]),
            "usage_rate": usage_rate,
            "weight_ratio": fully_connected_weight_ratio(widths, full),
            "weights": fully_connected_weights(widths),
        }

    def _usage_rate_of(self, widths: Sequence[int]) -> float:
        """Return the usage rate of a fixed structure by the criterion of the settings."""
        full = _full_widths(self.settings)
        searchable = links.MaskedMLP(full[0], full[1:-1], full[-1])
        costs = costs_of(self.settings, searchable)
        layers = numpy.split(costs, self.settings.layers)
        return float(sum(c[:n].sum() for c, n in zip(layers, widths)) / costs.sum())

    @classmethod
    def trained(cls, settings: Any) -> Any:
        """Return the network whose weights a run leaves, with weights at random."""
        return make_link(settings)

    @classmethod
    def of_result(cls, settings: Any, result: dict[str, Any]) -> Any:
        """Return a plain network of the structure in a result, with weights at random."""
        if settings.method == "sno":
            full = _full_widths(settings)
            return links.MLP(full[0], result["units"], full[-1])
        return make_link(settings)

    @classmethod
    def full(cls, settings: Any) -> Any:
        """Return a plain network of everything under selection, with weights at random."""
        inputs, *widths, classes = _full_widths(settings)
        return links.MLP(inputs, widths, classes)
