"""The training of section 4.2: connections of a DenseNet."""

from collections.abc import Callable
from typing import Any

import numpy

import chainer_sno
from chainer_sno import batch_statistics, chainer, complexity, extensions, links
from chainer_sno.uniforms import Stream, generator
from reproduce import ReproduceError, structures
from reproduce._types import Array
from reproduce.augmentation import ImageIterator, Standardise, channel_statistics
from reproduce.experiments.connection_selection import ConnectionSelection
from reproduce.settings import SECOND_RESULT
from reproduce.training import CAPTURED, WINOGRAD, Training, costs_of

#: Test images classified at once: five blocks of 16, which divide 10,000.
TEST_BATCH = 80
#: The same beside a captured training, whose evaluation launches as many kernels for few images as
#: for many, and would take longer than the training.
TEST_BATCH_CAPTURED = 500
#: How often a training estimates batch statistics anew, at most.  Each time takes about a tenth of
#: an epoch of random selection, and the result is the last one.
ESTIMATES = 30


def make_network(
    settings: ConnectionSelection, kind: Any = links.DenseNet, initialW: Any = None
) -> Any:
    """Return the DenseNet of settings, with all its connections under selection.

    Args:
        settings (reproduce.experiments.connection_selection.ConnectionSelection): of a run.
        kind (type): a searchable DenseNet.
        initialW (initializer): of the weights.

    Returns:
        chainer.Link: on the CPU.
    """
    return kind(
        settings.depth,
        settings.growth_rate,
        settings.BLOCKS,
        classes=settings.data.classes,
        in_channels=settings.data.shape[0],
        initialW=initialW,
    )


def _reference(settings: ConnectionSelection) -> Any:
    """Return the whole DenseNet of settings, which needs no compiler to be compacted."""
    return make_network(settings, links.PlainDenseNet)


class _Reestimating:
    """An evaluation that is done once more with statistics estimated anew.

    It reports ``validation/main/reestimated_augmented_loss`` and
    ``validation/main/reestimated_augmented_error`` beside the others.

    Args:
        batches (callable): returns the mini-batches for the estimate, x each.
        forward (callable): computes the outputs of a mini-batch at what is evaluated.
        due (callable): takes the trainer; whether to do it now.
    """

    def __init__(
        self,
        *arguments: Any,
        batches: Callable[[], list[Any]],
        forward: Callable[[Any], Any],
        due: Callable[[Any], bool],
    ) -> None:
        super().__init__(*arguments)
        self.batches = batches
        self.forward = forward
        self.due = due
        self.twice = True

    def __call__(self, trainer: Any = None) -> Any:
        """Evaluate, once or twice."""
        self.twice = trainer is None or self.due(trainer)
        return super().__call__(trainer)  # type: ignore[misc]

    def evaluate(self) -> dict[str, Any]:
        """Return the observation of one pass over the data, or of two."""
        found = super().evaluate()  # type: ignore[misc]
        batches = self.batches() if self.twice else []
        if batches:
            link = self.get_target("main")  # type: ignore[attr-defined]
            with extensions.reestimated_statistics(link, self.forward, batches):
                again = super().evaluate()  # type: ignore[misc]
            for key, value in again.items():
                observer, name = key.rsplit("/", 1)
                if name in ("loss", "error"):
                    found[f"{observer}/{SECOND_RESULT}_{name}"] = value
        return found


class _StructureEvaluator(_Reestimating, extensions.StructureEvaluator):
    """At the mode of the distribution."""


class _ErrorEvaluator(_Reestimating, extensions.ErrorEvaluator):
    """Of a fixed structure."""


class ConnectionTraining(Training):
    """A training of section 4.2: the proposed method, or a random structure."""

    CPU_PATH = WINOGRAD

    def make_iterators(
        self, train: tuple[Array, Array], test: tuple[Array, Array]
    ) -> tuple[Any, Any]:
        """Return iterators that standardise, and augment the training images."""
        images = chainer.backends.cuda.to_cpu(train[0])
        device = chainer.backend.get_device_from_array(train[0])
        standardise = Standardise(*(device.send(a) for a in channel_statistics(images)))
        self._train, self._standardise = train, standardise
        most = TEST_BATCH_CAPTURED if self.path == CAPTURED else TEST_BATCH
        test_batch = min(most, len(test[0]))
        return (
            self._training_images(),
            ImageIterator(
                test, test_batch, standardise, augment=False, repeat=False, shuffle=False
            ),
        )

    def make_link(self, initialW: Any) -> Any:
        """Return the DenseNet, at a random structure for ``random``."""
        settings = self.settings
        kind = links.PlainDenseNet if self.is_plain(self.path) else links.DenseNet
        network = make_network(settings, kind, initialW)
        if not self.is_plain(self.path):
            network.threads = self.threads
        if settings.method == "sno":
            return network
        structure = self._random_structure(costs_of(settings, network))
        return links.FixedStructure(network, structure)

    def _random_structure(self, costs: Array) -> Array:
        """Return a random structure with a path from the images to the classifier.

        The paper does not say what became of those without one, most of them at its smallest usage
        rate.  They can only guess, so they are drawn again, in favour of the baseline; the record
        says how many were.
        """
        settings = self.settings
        self.dead_draws = 0

        def alive(structure: Array) -> bool:
            found = structures.depth(structure, settings.BLOCKS, settings.block_layers) is not None
            self.dead_draws += not found
            return found

        rng = generator((settings.seed, Stream.FIXED_STRUCTURE, 0))
        try:
            return complexity.random_structure(costs, settings.usage_rate, rng, accept=alive)
        except ValueError as error:
            raise ReproduceError(f"--usage-rate: {error}") from error

    def _batches(self) -> list[Any]:
        """Return the first mini-batches of the training, for an estimate anew.

        They are augmented, as those that the network is trained with: the statistics of images that
        are not augmented are others.  The iterator has random numbers of its own, so the batches
        are the same every time and the training's do not move.
        """
        iterator, batches = self._training_images(), self.settings.reestimate
        return list(batch_statistics.training_batches(iterator, batches))

    def _training_images(self) -> Any:
        """Return an iterator over training images at its beginning: shuffled and augmented."""
        settings = self.settings
        return ImageIterator(
            self._train, settings.batch_size, self._standardise, seed=settings.seed
        )

    def make_evaluator(self, iterator: Any) -> Any:
        """Return the evaluation at the mode, or of the random structure."""
        bernoulli = self.bernoulli
        again: dict[str, Any] = {"batches": self._batches, "due": self._is_estimated}
        if bernoulli is None:
            return _ErrorEvaluator(iterator, self.link, forward=self.link, **again)
        return _StructureEvaluator(
            iterator,
            self.link,
            bernoulli,
            self.settings.stochastic_samples,
            forward=lambda x: self.link(x, bernoulli.mode()[None]),
            **again,
        )

    def _is_estimated(self, trainer: Any) -> bool:
        """Return whether this epoch is one of those with statistics estimated anew: the last is."""
        iteration = trainer.updater.iteration
        often = -(-self.settings.epochs // ESTIMATES)
        return iteration == self.iterations or self.epoch_of(iteration) % often == 0

    def structure_result(self) -> dict[str, Any]:
        """Return the connections per block, the usage rate, the weight ratio and the depth."""
        if self.bernoulli is None:
            network = self.link.link
            structure = chainer.backends.cuda.to_cpu(self.link.structure)
        else:
            network = self.link
            structure = chainer.backends.cuda.to_cpu(self.bernoulli.mode())
        costs = network.costs
        settings = self.settings
        depth = structures.depth(structure, settings.BLOCKS, settings.block_layers)
        found = {
            "connections": [int(structure[group].sum()) for group in network.groups.values()],
            "usage_rate": complexity.usage_rate(structure, costs_of(settings, network)),
            "weight_ratio": network.weight_ratio(structure),
            "weights": int((structure * costs).sum()),
            "depth": depth,
            # No path from the images to the classifier: the outputs do not depend on the images.
            "dead": depth is None,
            "structure": "".join("01"[bit] for bit in structure.astype(int)),
        }
        if self.bernoulli is None:
            found["dead_draws"] = self.dead_draws
        return found

    @classmethod
    def trained(cls, settings: Any) -> Any:
        """Return the network whose weights a run leaves, with weights at random."""
        network = _reference(settings)
        if settings.method == "sno":
            return network
        return links.FixedStructure(network, numpy.zeros(settings.bits))

    @classmethod
    def of_result(cls, settings: Any, result: dict[str, Any]) -> Any:
        """Return a plain network of the structure in a result, with weights at random."""
        structure = numpy.array(list(result["structure"])) == "1"
        return chainer_sno.compact(_reference(settings), structure)

    @classmethod
    def full(cls, settings: Any) -> Any:
        """Return a plain network of everything under selection, with weights at random."""
        return chainer_sno.compact(_reference(settings), numpy.ones(settings.bits))
