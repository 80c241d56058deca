"""Extensions of Chainer's trainer: evaluation, reports of the structure, learning rate.

What they report reaches LogReport, PrintReport and PlotReport under the names in their
docstrings.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy

from chainer_sno import batch_statistics, prediction
from chainer_sno._import_chainer import chainer
from chainer_sno._types import Array, DeviceSpec
from chainer_sno.bernoulli import Bernoulli
from chainer_sno.iterators import choose_converter
from chainer_sno.summary import StructureSummary
from chainer_sno.uniforms import Stream, Uniforms
from chainer_sno.updater import check_target

__all__ = [
    "EpochTrigger",
    "ErrorEvaluator",
    "StepSchedule",
    "StructureEvaluator",
    "StructureReport",
    "Synchronise",
    "ThetaReport",
    "reestimated_statistics",
]


class ErrorEvaluator(chainer.training.extensions.Evaluator):
    """Report the loss and the error of a classifier on a whole data set.

    Chainer's Evaluator takes the mean over mini-batches, which is wrong where the last one is
    smaller; this one counts examples.  It reports ``validation/main/loss``, the mean cross
    entropy, and ``validation/main/error``, the fraction of examples classified wrongly.

    Args:
        iterator (chainer_sno.ArrayIterator): the data, with ``repeat=False``.
        target (chainer.Link): from x to outputs of shape (N, classes).
        converter (callable): makes arrays of a mini-batch; by default what the iterator needs.
        device (device specifier): where to send the mini-batches.
    """

    def __init__(
        self,
        iterator: Any,
        target: Any,
        converter: Callable[..., Any] | None = None,
        device: DeviceSpec = None,
    ) -> None:
        converter = converter or choose_converter(iterator)
        super().__init__(iterator, target, converter, device)

    def predictors(self) -> dict[str, Callable[[Array], Array]]:
        """Return the functions to evaluate, a dictionary by the suffix of their names.

        Returns:
            dict: a function from x to the log-probabilities, shape (N, classes), an array.
        """
        link = self.get_target("main")
        return {"": lambda x: chainer.functions.log_softmax(link(x)).array}

    def evaluate(self) -> dict[str, float]:
        """Return the observation of one pass over the data."""
        link = self.get_target("main")
        predictors = self.predictors()
        measured = prediction.measure(
            lambda x: {name: predict(x) for name, predict in predictors.items()},
            self.get_iterator("main"),
            self.converter,
            self.device,
        )
        observation: dict[str, float] = {}
        with chainer.reporter.report_scope(observation):
            for name, (loss, error) in measured.items():
                chainer.report({name + "loss": loss, name + "error": error}, link)
        return observation


class StructureEvaluator(ErrorEvaluator):
    """Report the loss and the error at the most probable structure (section 3, prediction).

    The deterministic prediction, at the mode of the distribution, is the one that the paper
    reports; its names are those of :class:`ErrorEvaluator`.  The stochastic one, the mean of the
    softmax outputs over sampled structures, is reported as ``validation/main/stochastic_loss``
    and ``validation/main/stochastic_error``, a probability that underflows counted as the smallest
    positive number.  Its structures come from a stream of their own and do not disturb the
    training.

    Args:
        iterator (chainer_sno.ArrayIterator): the data, with ``repeat=False``.
        target (chainer.Link): a searchable link.
        bernoulli (chainer_sno.Bernoulli): the distribution.
        samples (int): structures of the stochastic prediction; 0 leaves it out.
        converter (callable): makes arrays of a mini-batch; by default what the iterator needs.
        device (device specifier): where to send the mini-batches.
        reestimate (int or tuple): how many training mini-batches estimate the statistics of batch
            normalisation at the most probable structure, for the deterministic prediction: of the
            iterator that the updater trains the link with, or a pair of an iterator and how many.
            Neither the iterator nor the link moves.  0 is for the running statistics, which
            average over the structures that were sampled; the default is ``target.reestimate``
            where there is one, as of :func:`chainer_sno.links.select`, and else 0, with which the
            paper's numbers are computed (reading R7).

    Raises:
        TypeError: the target is no searchable link.
        ValueError: ``reestimate`` is something else.
    """

    def __init__(
        self,
        iterator: Any,
        target: Any,
        bernoulli: Bernoulli,
        samples: int = 0,
        converter: Callable[..., Any] | None = None,
        device: DeviceSpec = None,
        reestimate: Any = None,
    ) -> None:
        check_target(target["main"] if isinstance(target, dict) else target)
        batch_statistics.check(reestimate)
        converter = converter or choose_converter(iterator)
        super().__init__(iterator, target, converter, device)
        self.bernoulli = bernoulli
        self.samples = samples
        self.reestimate = reestimate
        self.uniforms = Uniforms(len(bernoulli), bernoulli.uniforms.seed, Stream.EVALUATION)

    def predictors(self) -> dict[str, Callable[[Array], Array]]:
        """Return the deterministic and, with samples, the stochastic prediction."""
        link = self.get_target("main")
        outputs = prediction.deterministic(link, self.bernoulli, self.reestimate)
        predictors: dict[str, Callable[[Array], Array]] = {
            "": lambda x: chainer.functions.log_softmax(outputs(x)).array
        }
        if self.samples:
            structures = prediction.structures_of(self.bernoulli, self.samples, self.uniforms)

            def stochastic(x: Array) -> Array:
                ((_, mean),) = prediction.mean_probabilities(link, x, structures)
                # The loss of one that underflowed would be infinite, and with it the mean, which no
                # file of JSON can hold.
                least = float(numpy.log(float(numpy.finfo(mean.dtype).smallest_subnormal)))
                return prediction.log(mean).clip(least)

            predictors["stochastic_"] = stochastic
        return predictors

    def serialize(self, serializer: Any) -> None:
        """Save or load the state of the random numbers."""
        self.uniforms.serialize(serializer["uniforms"])


@contextlib.contextmanager
def reestimated_statistics(
    link: Any, forward: Callable[[Array], Any], batches: Iterable[Array]
) -> Iterator[None]:
    """Give batch normalisations the statistics of some mini-batches while the block runs.

    The running statistics of a searchable link mix those of the structures that were drawn last;
    these are the means over the mini-batches at what ``forward`` computes, such as the mode.

    Args:
        link (chainer.Link): the batch normalisations below it are the ones.
        forward (callable): computes outputs of a mini-batch x.
        batches (iterable of array): the mini-batches, x each.
    """
    with batch_statistics.kept(link):
        batch_statistics.estimate(link, forward, batches)
        yield


class ThetaReport(chainer.training.Extension):
    r"""Report the state of the distribution.

    It reports ``theta/mean``, ``theta/min``, ``theta/max``, ``theta/converged`` (the fraction of
    bits within 5% of 0 or 1) and ``theta/entropy`` (the mean over the bits, in bits).  With bins it
    reports a histogram as well: ``theta/bin_00`` is how many bits have theta in the first of equal
    parts of [0, 1], ``theta/bin_01`` in the second, and so on.

    Args:
        bernoulli (chainer_sno.Bernoulli): the distribution.
        bins (int): parts of the histogram, none by default.
    """

    trigger = 1, "epoch"
    priority = chainer.training.PRIORITY_WRITER

    def __init__(self, bernoulli: Bernoulli, bins: int = 0) -> None:
        self.bernoulli = bernoulli
        self.bins = bins

    def __call__(self, trainer: Any) -> None:
        """Report the statistics of theta."""
        theta = chainer.backends.cuda.to_cpu(self.bernoulli.theta).astype("d")
        entropy = -(theta * numpy.log2(theta) + (1 - theta) * numpy.log2(1 - theta))
        chainer.report(
            {
                "theta/mean": float(theta.mean()),
                "theta/min": float(theta.min()),
                "theta/max": float(theta.max()),
                "theta/converged": float((numpy.minimum(theta, 1 - theta) < 0.05).mean()),
                "theta/entropy": float(entropy.mean()),
            }
        )
        if self.bins:
            counts, _ = numpy.histogram(theta, self.bins, (0, 1))
            chainer.report({f"theta/bin_{i:02}": int(n) for i, n in enumerate(counts)})


class StructureReport(chainer.training.Extension):
    """Report the size of the most probable structure.

    It reports ``structure/usage_rate`` (reading R1) and, where the link states them,
    ``structure/weight_ratio`` and ``structure/flops_ratio`` (the fractions of the weights and of
    the floating-point operations that remain) and ``structure/NAME``, the bits that are on in each
    of its groups, such as the units of ``hidden_1``.

    Args:
        link (chainer.Link): a searchable link.
        bernoulli (chainer_sno.Bernoulli): the distribution.
    """

    trigger = 1, "epoch"
    priority = chainer.training.PRIORITY_WRITER

    def __init__(self, link: Any, bernoulli: Bernoulli) -> None:
        self.link = link
        self.bernoulli = bernoulli

    def __call__(self, trainer: Any) -> None:
        """Report the mode's size."""
        summary = StructureSummary(self.link, self.bernoulli)
        report: dict[str, float] = {"structure/usage_rate": summary.usage_rate}
        if summary.weight_ratio is not None:
            report["structure/weight_ratio"] = summary.weight_ratio
        if "flops" in summary.remaining:
            left, whole = summary.remaining["flops"]
            report["structure/flops_ratio"] = left / max(whole, 1)
        report.update({f"structure/{name}": on for name, (on, _) in summary.groups.items()})
        chainer.report(report)

    def __repr__(self) -> str:
        summary = StructureSummary(self.link, self.bernoulli)
        return f"<StructureReport of {summary.link}, in {summary.criterion}>"


class StepSchedule(chainer.training.Extension):
    """Divide the learning rate by ten at 1/2 and at 3/4 of the training (section 4).

    The rate is a function of the iteration, so a resumed training continues with the right one.

    Args:
        iterations (int): those of the whole training.
        initial_lr (float): the rate at the start; that of the optimizer by default.
        divisor (float): by which the rate is divided at each milestone.
        milestones (sequence of float): fractions of the training.
        optimizer (chainer.Optimizer): the updater's ``main`` optimizer by default.
    """

    trigger = 1, "iteration"
    priority = chainer.training.PRIORITY_WRITER

    def __init__(
        self,
        iterations: int,
        initial_lr: float | None = None,
        divisor: float = 10,
        milestones: Sequence[float] = (0.5, 0.75),
        optimizer: Any = None,
    ) -> None:
        self.initial_lr = initial_lr
        self.divisor = divisor
        # The iterations after which the rate falls, rounded down like the iterations (R10).
        self.milestones = [int(iterations * fraction) for fraction in milestones]
        self.optimizer = optimizer
        self._updater = None

    def learning_rate(self, iteration: int) -> float:
        """Return the rate with which the iteration after ``iteration`` finished ones is done."""
        assert self.initial_lr is not None, "initialize() sets it"
        return self.initial_lr / self.divisor ** sum(iteration >= m for m in self.milestones)

    def initialize(self, trainer: Any) -> None:
        """Set the rate of the first iteration, or of the first after a resume."""
        if self.optimizer is None:
            self.optimizer = trainer.updater.get_optimizer("main")
        if self.initial_lr is None:
            self.initial_lr = self.optimizer.lr
        self._updater = trainer.updater
        self.optimizer.lr = self.learning_rate(trainer.updater.iteration)

    def __call__(self, trainer: Any) -> None:
        """Set the rate of the next iteration where it changes."""
        if trainer.updater.iteration in self.milestones:
            self.optimizer.lr = self.learning_rate(trainer.updater.iteration)

    def serialize(self, serializer: Any) -> None:
        """Save or load the initial rate, since the optimizer's has changed by then."""
        if self.initial_lr is not None or not isinstance(serializer, chainer.Serializer):
            self.initial_lr = float(serializer("initial_lr", self.initial_lr or 0.0))
        if self._updater is not None and not isinstance(serializer, chainer.Serializer):
            # A snapshot that is loaded by itself (autoload) comes after `initialize`.
            self.optimizer.lr = self.learning_rate(self._updater.iteration)


class EpochTrigger:
    """Fire at the last whole iteration of every epoch, iteration ``e * n / N`` rounded down (R10).

    Chainer's ``(1, "epoch")`` fires at the first iteration at or after the end of an epoch.  Where
    an epoch does not divide into mini-batches, that of the last epoch would come after the end.

    Args:
        examples (int): n, examples an epoch.
        batch_size (int): N, examples a mini-batch.
        epochs (int): fire at every so many epochs.
    """

    def __init__(self, examples: int, batch_size: int, epochs: int = 1) -> None:
        self.examples = examples
        self.batch_size = batch_size
        self.epochs = epochs

    def __call__(self, trainer: Any) -> bool:
        """Return whether the iteration just finished is the last whole one of an epoch."""
        # Iteration i is floor(e n / N) for some e exactly where [i N, (i + 1) N) holds an e n.
        start = trainer.updater.iteration * self.batch_size
        period = self.epochs * self.examples
        return start > 0 and -start % period < self.batch_size


class Synchronise(chainer.training.Extension):
    """Synchronise an updater of the fast paths before the extensions that read the network.

    Extend the trainer with it at the trigger of the evaluation.  On a CPU the engine's parameters
    are written into the network; on a GPU the mean loss since the last time is reported.  With the
    backend ``reference`` there is nothing to do.
    """

    trigger = 1, "epoch"
    # Before evaluators and all other extensions that report values.
    priority = chainer.training.PRIORITY_WRITER + 100

    def __call__(self, trainer: Any) -> None:
        """Synchronise the updater's network."""
        if hasattr(trainer.updater, "synchronise"):
            trainer.updater.synchronise()
