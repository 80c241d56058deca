"""The two predictions of section 3, and the effect of the number of structures on the second.

The deterministic prediction is that of the most probable structure; the paper reports it.  The
stochastic one is the mean of the softmax outputs over K structures drawn from the distribution.
Both are made in evaluation mode.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy

from chainer_sno import batch_statistics
from chainer_sno._import_chainer import chainer
from chainer_sno._types import Array, DeviceSpec
from chainer_sno.bernoulli import Bernoulli
from chainer_sno.iterators import choose_converter, convert
from chainer_sno.uniforms import Stream, Uniforms

__all__ = [
    "SampleErrors",
    "deterministic",
    "error_against_samples",
    "log",
    "mean_probabilities",
    "measure",
    "predict",
    "structures_of",
]


def structures_of(bernoulli: Bernoulli, samples: int, uniforms: Uniforms | None = None) -> Array:
    """Draw structures for a prediction, from a stream that the training does not use.

    Args:
        bernoulli (chainer_sno.Bernoulli): the distribution.
        samples (int): how many.
        uniforms (chainer_sno.uniforms.Uniforms): the stream to continue; by default that of the
            distribution's seed from its beginning, which gives the same structures every time.

    Returns:
        array: bool of shape (samples, d), on the device of the distribution.
    """
    if uniforms is None:
        uniforms = Uniforms(len(bernoulli), bernoulli.uniforms.seed, Stream.EVALUATION)
    uniforms.to_device(bernoulli.device)
    return uniforms.take(samples) < bernoulli.theta


def deterministic(
    link: Any, bernoulli: Bernoulli, reestimate: Any = None
) -> Callable[[Array], Any]:
    """Return a function that computes the outputs at the most probable structure.

    Args:
        link (chainer.Link): a searchable link.
        bernoulli (chainer_sno.Bernoulli): the distribution.
        reestimate (int or tuple): with which mini-batches to estimate the statistics of batch
            normalisation anew, see :class:`chainer_sno.extensions.StructureEvaluator`.

    Returns:
        callable: from x to the outputs before the softmax, a variable of shape (N, classes).

    Raises:
        ValueError: there are no mini-batches to estimate with.
    """
    mode = bernoulli.mode()
    source = batch_statistics.source(link, reestimate)
    outputs = _at(link, mode)
    return outputs if source is None else batch_statistics.at_structure(link, outputs, mode, source)


def _at(link: Any, mode: Array) -> Callable[[Array], Any]:
    """Return what computes the outputs at a structure."""
    # Where there is a smaller network that computes the same, ask that.
    if hasattr(link, "compact") and getattr(link, "evaluate_compact", True):
        with contextlib.suppress(ValueError):
            network: Callable[[Array], Any] = link.compact(mode)
            return network
    return lambda x: link(x, mode[None])[0]


def mean_probabilities(
    link: Any, x: Array, structures: Array, at: Sequence[int] = (), chunk: int | None = None
) -> Iterator[tuple[int, Array]]:
    """Yield the mean of the softmax outputs over the first structures, as they are computed.

    Args:
        link (chainer.Link): a searchable link.
        x (array): a mini-batch.
        structures (array): bool of shape (K, d).
        at (sequence of int): after how many structures to yield; after all of them by default.
        chunk (int): structures computed at once; all by default.

    Yields:
        tuple: how many structures, and the mean, an array of shape (N, classes).
    """
    wanted = {*at} or {len(structures)}
    total: Any = 0
    chunk = chunk or len(structures)
    for start in range(0, len(structures), chunk):
        for k, y in enumerate(link(x, structures[start : start + chunk]), start + 1):
            total = total + chainer.functions.softmax(y).array
            if k in wanted:
                yield k, total / k


def predict(
    link: Any, bernoulli: Bernoulli, x: Array, samples: int = 0, reestimate: Any = None
) -> Array:
    """Return the probabilities of the classes.

    Args:
        link (chainer.Link): a searchable link.
        bernoulli (chainer_sno.Bernoulli): the distribution.
        x (array): a mini-batch, on the device of the link.
        samples (int): K, structures of the stochastic prediction; 0 for the deterministic one.
        reestimate (int or tuple): of the deterministic one, with which mini-batches to estimate
            the statistics of batch normalisation anew, see
            :class:`chainer_sno.extensions.StructureEvaluator`.

    Returns:
        array: shape (N, classes), the rows add up to one.

    Raises:
        ValueError: ``samples`` is negative, or there are no mini-batches to estimate with.
    """
    if samples < 0:
        raise ValueError(f"samples must be at least 0, not {samples}")
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        if not samples:
            outputs = deterministic(link, bernoulli, reestimate)
            probabilities: Array = chainer.functions.softmax(outputs(x)).array
            return probabilities
        ((_, mean),) = mean_probabilities(link, x, structures_of(bernoulli, samples))
        return mean


def measure(
    predict_logs: Callable[[Array], Mapping[Any, Array]],
    iterator: Any,
    converter: Callable[..., Any] | None = None,
    device: DeviceSpec = None,
) -> dict[Any, tuple[float, float]]:
    """Return loss and error of predictions on a whole data set, by counting examples.

    Args:
        predict_logs (callable): from x to log-probabilities by name, arrays of shape (N, classes).
        iterator (chainer_sno.ArrayIterator): the data, with ``repeat=False``.
        converter (callable): makes arrays of a mini-batch; by default what the iterator needs.
        device (device specifier): where to send the mini-batches.

    Returns:
        dict: by name, the mean cross entropy and the fraction of examples classified wrongly, of
        the examples whose class is not -1, which Chainer's functions ignore.

    Raises:
        ValueError: the iterator repeats the data for ever, or no example has a class.
    """
    if getattr(iterator, "repeat", getattr(iterator, "_repeat", False)):
        raise ValueError("the iterator of an evaluation must not repeat: make it with repeat=False")
    converter = converter or choose_converter(iterator)
    iterator.reset()
    loss: dict[Any, Any] = {}
    wrong: dict[Any, Any] = {}
    examples = 0
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        for batch in iterator:
            x, t = convert(converter, batch, device)
            counted = t != -1
            examples += int(counted.sum())
            for name, log_p in predict_logs(x).items():
                xp = chainer.backend.get_array_module(log_p)
                picked = log_p[xp.arange(len(t)), t][counted].sum(dtype="d")
                loss[name] = loss.get(name, 0) - picked
                wrong[name] = wrong.get(name, 0) + (log_p.argmax(axis=1) != t)[counted].sum()
    if not examples:
        raise ValueError(
            "the iterator gave no example to evaluate: every label is -1, which is ignored, or "
            "there is none"
        )
    return {n: (float(loss[n]) / examples, float(wrong[n]) / examples) for n in loss}


@dataclasses.dataclass(frozen=True)
class SampleErrors:
    """The stochastic prediction by its number of structures, beside the deterministic one.

    Attributes:
        samples (tuple of int): K.
        errors (tuple of float): the fraction of examples classified wrongly, for each K.
        losses (tuple of float): the mean cross entropy, for each K.
        deterministic_error (float): at the most probable structure.
        deterministic_loss (float): the same.
    """

    samples: tuple[int, ...]
    errors: tuple[float, ...]
    losses: tuple[float, ...]
    deterministic_error: float
    deterministic_loss: float

    def __str__(self) -> str:
        rows = [("structures", "error", "loss")]
        for k, error, loss in zip(self.samples, self.errors, self.losses):
            rows.append((str(k), f"{error:.2%}", f"{loss:.4f}"))
        rows.append(
            ("the mode", f"{self.deterministic_error:.2%}", f"{self.deterministic_loss:.4f}")
        )
        return "\n".join(f"{a:>10}  {b:>7}  {c:>7}" for a, b, c in rows)


def error_against_samples(
    link: Any,
    bernoulli: Bernoulli,
    iterator: Any,
    ks: Sequence[int] = (1, 2, 5, 10, 20, 50),
    converter: Callable[..., Any] | None = None,
    device: DeviceSpec = None,
    chunk: int = 10,
    reestimate: Any = None,
) -> SampleErrors:
    """Return the error of the stochastic prediction against its number of structures.

    One pass over the data gives all of them: the structures of a smaller number are the first of
    those of a larger one, and the same for every mini-batch.

    Args:
        link (chainer.Link): a searchable link.
        bernoulli (chainer_sno.Bernoulli): the distribution.
        iterator (chainer_sno.ArrayIterator): the data, with ``repeat=False``.
        ks (sequence of int): the numbers of structures.
        converter (callable): makes arrays of a mini-batch; by default what the iterator needs.
        device (device specifier): where to send the mini-batches.
        chunk (int): structures computed at once, a matter of memory.
        reestimate (int or tuple): for the deterministic prediction, see :func:`predict`.

    Returns:
        SampleErrors: in the order of K.

    Raises:
        ValueError: a number of structures is less than one, or there is none.
    """
    wanted = sorted({*ks})
    if not wanted or wanted[0] < 1:
        raise ValueError(f"ks must be numbers of structures, each at least 1, not {list(ks)}")
    structures = structures_of(bernoulli, wanted[-1])
    mode = deterministic(link, bernoulli, reestimate)

    def predict_logs(x: Array) -> dict[int, Array]:
        # 0 for the mode; the log of a probability that underflowed is -inf, and so is its loss.
        logs = {0: chainer.functions.log_softmax(mode(x)).array}
        for k, mean in mean_probabilities(link, x, structures, wanted, chunk):
            logs[k] = log(mean)
        return logs

    measured = measure(predict_logs, iterator, converter, device)
    loss, error = measured.pop(0)
    return SampleErrors(
        samples=tuple(wanted),
        errors=tuple(measured[k][1] for k in wanted),
        losses=tuple(measured[k][0] for k in wanted),
        deterministic_error=error,
        deterministic_loss=loss,
    )


def log(p: Array) -> Array:
    """Return the logarithm of probabilities."""
    xp = chainer.backend.get_array_module(p)
    with numpy.errstate(divide="ignore"):
        logs: Array = xp.log(p)
        return logs
