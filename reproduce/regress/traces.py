"""The numbers of a trace, and how far they lie from those of a baseline."""

import math
import tempfile
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy
import threadpoolctl

from chainer_sno import chainer
from reproduce import experiments
from reproduce.regress.cases import Case
from reproduce.run import get_device
from reproduce.settings import Settings
from reproduce.training import Training

#: The most by which a number of a trace may differ: relative if it is above one, else absolute.
TOLERANCE = 1e-9
#: The least difference between the losses of different structures, as a fraction.
MARGIN = 1e-6
#: The quantities of a trace that have a row for every iteration.
SERIES = ("losses", "theta")
#: The images and the labels of a part of the data.
Part: TypeAlias = tuple[Any, Any]


def fingerprint(array: Any) -> list[float]:
    """Return two numbers that change whenever an element of an array does: its norm, and its sum.

    The sum is that of the elements times the cosines of their places, of which no two are alike, so
    that an exchange of elements shows as well.

    Args:
        array (numpy.ndarray): of numbers.

    Returns:
        list of float: norm and sum.
    """
    flat = numpy.asarray(array, dtype=numpy.float64).ravel()
    return [float(numpy.linalg.norm(flat)), float(flat @ numpy.cos(numpy.arange(len(flat))))]


def generated_data(settings: Settings) -> tuple[Part, Part]:
    """Return images that can be learnt and need no file: a pattern for each class, with noise.

    Args:
        settings (Settings): of a trace; their images are of its experiment's kind and number.

    Returns:
        tuple: as :func:`reproduce.data.load` returns it.
    """
    rng = numpy.random.default_rng(20190907)
    # Images of colours are small ones here.
    shape = settings.data.shape if len(settings.data.shape) == 1 else (3, 8, 8)
    classes = settings.data.classes
    patterns = rng.integers(0, 128, (classes, *shape))

    def part(count: int | None) -> Part:
        assert count is not None, "a trace says how many images it has"
        labels = rng.integers(0, classes, count).astype(numpy.int32)
        images = (patterns[labels] + rng.integers(0, 128, (count, *shape))).astype(numpy.uint8)
        if len(shape) == 1:
            # MNIST's upper rows are dark, which the fast path leaves out.
            images[:, : shape[0] // 4] = 0
        return images, labels

    return part(settings.examples), part(settings.test_examples)


def trace(case: Case) -> tuple[dict[str, Any], float]:
    """Train a case and return its numbers.

    Args:
        case (Case): one of :data:`reproduce.regress.cases.TRACES`.

    Returns:
        tuple: the numbers, nested lists by name: ``losses`` (iterations, structures), ``theta``,
        the fingerprint after every iteration, the fingerprint of every array of the network and
        the distribution at the end, and what a record would call the result; and how close the
        losses of an iteration come, see :func:`closest`.

    Raises:
        ReproduceError: the training failed.
    """
    with (
        threadpoolctl.threadpool_limits(1, user_api="blas"),
        chainer.using_config("dtype", numpy.dtype("float64")),
        tempfile.TemporaryDirectory() as directory,
    ):
        data = generated_data(case.settings)
        training = experiments.of(case.settings).training(
            case.settings, data, get_device(-1), directory, case.plain
        )
        numbers: dict[str, Any] = {"losses": []}
        gaps = [math.inf]
        if training.bernoulli is None:
            _follow_losses(training, numbers["losses"])
        else:
            numbers["theta"] = []
            _follow_structures(training, numbers["losses"], numbers["theta"], gaps)
        training.trainer.run(show_loop_exception_msg=False)
        numbers |= _numbers_at_the_end(training)
    return numbers, min(gaps)


def _follow_losses(training: Training, losses: list[list[float]]) -> None:
    """Let a training append the loss of every iteration to a list."""
    training.trainer.extend(
        lambda trainer: losses.append([float(trainer.observation["main/loss"])]),
        name="losses",
        trigger=(1, "iteration"),
    )


def _follow_structures(
    training: Training,
    losses: list[list[float]],
    theta: list[list[float]],
    gaps: list[float],
) -> None:
    """Let a training append to lists what every iteration gives for its structures.

    Args:
        training (Training): with a distribution.
        losses (list): gets the loss of each structure.
        theta (list): gets the fingerprint of theta.
        gaps (list): gets what :func:`closest` says.
    """
    updater, bernoulli = training.trainer.updater, training.bernoulli
    assert bernoulli is not None, "there are structures to follow"
    step = updater.step  # whose losses of each structure the updater does not report

    def following(x: Any, t: Any, structures: Any) -> Any:
        of_structures = step(x, t, structures)
        losses.append(of_structures.tolist())
        gaps.append(closest(of_structures, structures))
        theta.append(fingerprint(bernoulli.theta))
        return of_structures

    updater.step = following


def _numbers_at_the_end(training: Training) -> dict[str, Any]:
    """Return the fingerprints of all arrays of a training, and the numbers of its result."""
    numbers: dict[str, Any] = {
        f"final {name}": fingerprint(array)
        for name, array in sorted(training.arrays().items())
        if name != "bernoulli/settings"  # which are no result
    }
    for name, value in training.result().items():
        if not isinstance(value, str) and value is not None:
            numbers[f"result {name}"] = value
    return numbers


def closest(losses: Any, structures: Any) -> float:
    """Return how close the losses of two structures of an iteration come.

    Equal structures count for nothing: whichever ranks first, theta moves alike.

    Args:
        losses (array): shape (lambda,).
        structures (array): bool of shape (lambda, d).

    Returns:
        float: the smallest difference as a fraction of the loss; infinite where there are no two.
    """
    order = numpy.argsort(losses)
    losses, structures = losses[order], structures[order]
    differ = (structures[1:] != structures[:-1]).any(axis=1)
    return float((numpy.diff(losses) / losses[1:])[differ].min(initial=math.inf))


def hold(numbers: Mapping[str, Any], expected: Mapping[str, Any]) -> tuple[float, list[list[str]]]:
    """Compare the numbers of a trace with a baseline.

    Args:
        numbers (dict): numbers by name.
        expected (dict): arrays by name, float64.  Names that only ``numbers`` has are ignored: the
            effect of a new parameter shows in the others.

    Returns:
        tuple: the largest deviation in units of :data:`TOLERANCE`, and a row of a table for every
        name with a number beyond it: where the first is, its value, the expected one and the
        tolerance.
    """
    largest, rows = 0.0, []
    for name, old in expected.items():
        new = numpy.asarray(numbers.get(name, []), dtype="d")
        if new.shape != old.shape:
            largest = math.inf
            rows.append([name, f"shape {new.shape}", f"shape {old.shape}", "equal"])
            continue
        limit = TOLERANCE * numpy.maximum(1, abs(old))
        apart = abs(new - old) / limit
        apart = numpy.where(numpy.isnan(apart), math.inf, apart)
        largest = max(largest, float(apart.max(initial=0)))
        for place in map(tuple, numpy.argwhere(apart > 1)[:1]):
            where = f"{name}, iteration {place[0] + 1}" if name in SERIES else name
            rows.append([where, f"{new[place]:.13g}", f"{old[place]:.13g}", f"{limit[place]:.1g}"])
    return largest, rows
