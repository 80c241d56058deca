"""Checks of the computation of a link: outputs, batches of structures, gradients, devices."""

from collections.abc import Iterator
from typing import Any

import numpy

from chainer_sno._import_chainer import chainer
from chainer_sno._types import Array
from chainer_sno.accelerated import layers_of, outputs_of
from chainer_sno.testing.subject import (
    TOLERANCE,
    CallFailed,
    Subject,
    difference,
    parameters_of,
    tolerance_of,
)

#: The range around the number of costs in which another number of bits is searched.
NEAR = 32
#: Relative steps of the numerical gradients; one of them must agree, for a ReLU's edge may lie in
#: the way of the longer one.
STEPS = (1e-5, 1e-7)
#: The tolerance of the numerical gradient, in addition to the spread of its terms.
GRADIENT_TOLERANCE = 1e-4


def outputs(subject: Subject) -> Iterator[str]:
    """One output a structure, of the same shape with the mini-batch first, of finite numbers."""
    n = len(subject.x)
    for count in (1, 2, 3):
        structures = subject.structures(count)
        try:
            outputs = subject.call(subject.unchanged, subject.x, structures, backprop=True)
        except CallFailed as error:
            yield _why_it_fails(subject, error)
            return
        if len(outputs) != count:
            yield (
                f"{len(outputs)} outputs for {count} structures: return one variable whose first "
                "axis is lambda, or a sequence of lambda variables"
            )
            return
        if not all(isinstance(y, chainer.Variable) for y in outputs):
            yield (
                f"an output is a {type(outputs[0]).__name__}: return variables of Chainer, without "
                "which no gradient flows"
            )
            return
        shapes = {y.shape for y in outputs}
        if len(shapes) > 1 or min(shapes)[:1] != (n,):
            yield (
                f"the outputs of {count} structures have the shapes {sorted(shapes)}: give all the "
                f"same shape (N, ...) with the {n} examples first"
            )
            return
    extremes = numpy.concatenate((subject.full(), ~subject.full(), subject.structures(4)))
    for train, words in ((False, "evaluation"), (True, "training")):
        given = extremes.copy()
        outputs = subject.call(subject.unchanged, subject.x, given, train)
        if (given != extremes).any():
            yield "the link writes to the structures, which theta's update needs: copy them first"
            return
        for structure, y in zip(extremes, outputs):
            if not numpy.isfinite(y.array).all():
                yield (
                    f"the outputs are not finite with {int(structure.sum())} of {subject.d} bits "
                    f"on, in {words} mode: a layer without inputs should output zeros (reading R4)"
                )
                return


def _why_it_fails(subject: Subject, error: CallFailed) -> str:
    """Return the advice for a link that cannot be called with bool structures."""
    d, link = subject.d, subject.unchanged
    lengths = sorted(range(max(1, d - NEAR), d + NEAR + 1), key=lambda n: abs(n - d))
    for length in lengths:
        as_numbers = numpy.ones((2, length), dtype=subject.x.dtype)
        for structures in (as_numbers.astype(bool), as_numbers):
            try:
                subject.call(link, subject.x, structures)
            except CallFailed:
                continue
            if length != d:
                return (
                    f"costs have {d} entries, but the link takes structures of {length} bits "
                    f"({error}): give one cost a bit"
                )
            return (
                f"the link takes structures as {as_numbers.dtype}, but not as bool ({error}): "
                "cast them with structures.astype(h.dtype)"
            )
    return f"link(x, structures) raises with bool structures of shape (lambda, {d}): {error}"


def batching(subject: Subject) -> Iterator[str]:
    """Outputs of a structure are those alone and in a batch, whatever the others and the order."""
    structures = numpy.concatenate((subject.structures(3), subject.full()))
    orders = numpy.arange(4), numpy.array([2, 3, 0, 1])
    subject.random = {train: _varies(subject, structures, train) for train in (False, True)}
    if subject.random[False]:
        yield (
            "two calls in evaluation mode give different outputs: nothing random may happen unless "
            "chainer.config.train is set"
        )
        return
    if subject.random[True]:
        subject.notes.append(
            "training mode draws random numbers, so batches of structures are compared in "
            "evaluation mode alone"
        )
    for train in (False, True)[: 1 if subject.random[True] else 2]:
        alone = [subject.arrays(structure[None], train)[0] for structure in structures]
        for order in orders:
            together = subject.arrays(structures[order], train)
            for k, values in zip(order, together):
                gap = difference(values, alone[k])
                if not gap <= subject.tolerance * 10:
                    yield _why_batches_differ(train, gap)
                    return


def _varies(subject: Subject, structures: Array, train: bool) -> bool:
    """Return whether two equal calls give different outputs."""
    first, second = (subject.arrays(structures, train) for _ in range(2))
    return not numpy.array_equal(first, second, equal_nan=True)


def _why_batches_differ(train: bool, gap: float) -> str:
    words = f"a structure's outputs in a batch differ by {gap:.2g} of the largest from those alone"
    if train:
        return (
            f"{words}, in training mode only: batch statistics must be those of one structure "
            "(reading R7), so normalise the structures one by one"
        )
    return f"{words}: output i must be that of structure i, whatever the others are"


def gradients(subject: Subject) -> Iterator[str]:
    """The gradients that the link computes are those of its outputs, by central differences."""
    if not subject.differentiable:
        return
    # The edge of a ReLU may lie within the shortest step, so two of three draws decide.
    wrong: list[list[str]] = []
    for _ in range(3):
        wrong.append(_wrong_gradients(subject))
        if not wrong[0] or (len(wrong) == 2 and wrong[1]):
            break
        subject.redraw()
    if wrong[-1]:
        subject.gradients_good = False
        yield (
            f"the gradient of {', '.join(wrong[-1])} is not that of the outputs, by central "
            "differences in float64: look at the backward of your own functions, and for arrays "
            "where variables should be"
        )


def _wrong_gradients(subject: Subject) -> list[str]:
    """Return the names of the parameters whose gradient is wrong, at the parameters as they are."""
    half = subject.structures(1)
    structures = numpy.concatenate((subject.full(), half, ~half))  # each bit on, and off
    weights = subject.weights_of(subject.arrays(structures, subject.mode))
    _, gradient = subject.gradients(structures, weights, subject.mode)
    directions = {
        name: subject.rng.standard_normal(p.shape) * (numpy.abs(p.array).mean() if p.size else 0)
        for name, p in parameters_of(subject.double).items()
    }
    if _agrees(subject, structures, weights, gradient, directions):
        return []
    # The gradient is wrong somewhere: check one parameter at a time to name it.
    return [
        name
        for name, direction in directions.items()
        if not _agrees(subject, structures, weights, gradient, {name: direction})
    ]


def _agrees(
    subject: Subject,
    structures: Array,
    weights: Array,
    gradient: dict[str, Array],
    directions: dict[str, Array],
) -> bool:
    """Return whether the gradient along some directions at once is the numerical one."""
    parameters = parameters_of(subject.double)
    terms = [(gradient[name] * direction).ravel() for name, direction in directions.items()]
    analytic = float(sum(term.sum() for term in terms))
    spread = float(numpy.sqrt(sum((term**2).sum() for term in terms)))
    kept = {name: parameters[name].array.copy() for name in directions}

    def moved(step: float) -> float:
        for name, direction in directions.items():
            parameters[name].array[...] = kept[name] + step * direction
        return float((subject.arrays(structures, subject.mode) * weights).sum())

    try:
        for step in STEPS:
            above, below = moved(step), moved(-step)
            numerical = (above - below) / (2 * step)
            rounding = 1e-13 * max(abs(above), abs(below), 1.0) / step
            if abs(numerical - analytic) <= GRADIENT_TOLERANCE * spread + rounding:
                return True
        return False
    finally:
        moved(0.0)


def fast_layers(subject: Subject) -> Iterator[str]:
    """The layers that a link states for the fast paths compute its outputs."""
    link = subject.noisy()
    try:
        link.fast_layers()
    except ValueError as error:
        subject.notes.append(f"the fast paths do not train the link: {error}")
        return
    except Exception as error:
        yield f"fast_layers raises {type(error).__name__}: {error}"
        return
    try:
        layers = layers_of(link)
    except (TypeError, ValueError) as error:
        yield str(error)
        return
    if subject.random[True]:
        yield (
            "the link draws random numbers in training mode, and the fast paths draw none beside "
            "structures: let fast_layers raise ValueError, or leave it out"
        )
        return
    structures = numpy.concatenate((subject.structures(2), subject.full(), ~subject.full()))
    for train in (False, True):
        expected = subject.call(link, subject.x, structures, train)
        gap = max(
            difference(outputs_of(layers, subject.x, structure).array, y.array)
            for structure, y in zip(structures, expected)
        )
        if not gap <= subject.tolerance * 10:
            yield (
                f"the layers of fast_layers give outputs that differ by {gap:.2g} of the largest "
                f"from those of the link in {'training' if train else 'evaluation'} mode: they "
                "must compute all of it, with ReLU between them and a bit for each hidden unit in "
                "their order"
            )
            return


def device(subject: Subject) -> Iterator[str]:
    """On a GPU, with CuPy's structures, the outputs are those of the CPU."""
    structures = subject.structures(2)
    link = subject.noisy()
    expected = [y.array for y in subject.call(link, subject.x, structures)]
    gpu: Any = chainer.get_device("@cupy:0")
    link.to_device(gpu)
    with chainer.using_device(gpu):
        try:
            on_gpu = subject.call(link, gpu.send(subject.x), gpu.send(structures))
        except CallFailed as error:
            yield f"on a GPU with CuPy's arrays the link raises {error}: use link.xp, not numpy"
            return
    if not all(isinstance(y.array, gpu.xp.ndarray) for y in on_gpu):
        yield "on a GPU the outputs are not there: keep arrays on the device of the link"
        return
    # Products in TF32 would be less exact, but Chainer does not ask for them.
    limit = max(tolerance_of(link), TOLERANCE["float32"]) * 10
    gap = max(
        difference(chainer.backends.cuda.to_cpu(y.array), e) for y, e in zip(on_gpu, expected)
    )
    if not gap <= limit:
        yield f"the outputs on a GPU differ by {gap:.2g} of the largest from those on the CPU"
