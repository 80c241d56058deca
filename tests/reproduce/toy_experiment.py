"""A third experiment in one file, as a user would add it: half of the units of a small network."""

import dataclasses

import numpy

import chainer_sno
from chainer_sno import extensions, links
from reproduce import experiments
from reproduce.experiments.base import PROPOSED, Experiment, Method
from reproduce.settings import Settings, option
from reproduce.training import Training


@dataclasses.dataclass(frozen=True, init=False)
class ToySelection(Settings):
    """One training of the experiment."""

    method: str = option("sno", "how units are chosen", choices=("sno", "whole"))
    dataset: str = option("mnist", "the data set", choices=("mnist",))
    width: int = option(6, "units of the hidden layer", least=2)

    experiment = "toy-selection"
    LENGTH = {True: (2, 100), False: (4, 200)}

    @classmethod
    def defaults(cls, values):
        """Return the defaults that depend on other settings."""
        return {**super().defaults(values), "epsilon0": 0.5}

    @classmethod
    def count_bits(cls, values):
        """Return the number of bits d of a structure."""
        return values["width"]


class ToyTraining(Training):
    """A training of the experiment."""

    def make_iterators(self, train, test):
        """Return iterators over the pixels."""
        size, seed = self.settings.batch_size, self.settings.seed
        return (
            chainer_sno.ArrayIterator(train, size, seed=seed, divisor=255.0),
            chainer_sno.ArrayIterator(
                test, len(test[0]), repeat=False, shuffle=False, divisor=255.0
            ),
        )

    def make_link(self, initialW):
        """Return the masked network, or the whole one."""
        kind = links.MaskedMLP if self.settings.method == "sno" else links.MLP
        return kind(784, (self.settings.width,), 10, initialW=initialW)

    def make_evaluator(self, iterator):
        """Return the evaluation at the mode, or of the whole network."""
        if self.bernoulli is None:
            return extensions.ErrorEvaluator(iterator, self.link)
        return extensions.StructureEvaluator(iterator, self.link, self.bernoulli)

    def structure_result(self):
        """Return what the result says of the structure."""
        mode = numpy.ones(self.settings.width, bool)
        if self.bernoulli is not None:
            mode = self.bernoulli.mode()
        rate = float(mode.mean())
        return {"kept": [int(mode.sum())], "usage_rate": rate, "weight_ratio": rate, "weights": 1}


class ToyExperiment(Experiment):
    """The experiment."""

    name = ToySelection.experiment
    settings = ToySelection
    title = "Toy selection"
    selected = "kept"
    part = "layer"
    penalties = ("2^-1", "-2^0")
    methods = {"sno": PROPOSED, "whole": Method("the whole network")}
    result_properties = {"kept": {"type": "array"}}
    result_required = ("kept",)
    training = ToyTraining

    def grid(self, values):
        """Return what varies within each method."""
        return {**super().grid(values), "whole": [{}]}

    def quick(self, seed):
        """Return the settings of a quick run."""
        small = {"examples": 400, "test_examples": 100}
        return [ToySelection(epsilon0=each, seed=seed, **small) for each in (0.5, -1.0)]

    def structure(self, settings, bits):
        """Return what a result says of a structure."""
        return {"kept": [int(bits.sum())]}


experiments.register(ToyExperiment())
