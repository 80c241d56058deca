"""Checks of the statements of a link: costs, groups, weight ratio, compact."""

from collections.abc import Iterator

import numpy

from chainer_sno import complexity
from chainer_sno._import_chainer import chainer
from chainer_sno.testing.subject import (
    Subject,
    difference,
    listed,
    parameters_of,
    tolerance_of,
)


def costs(subject: Subject) -> Iterator[str]:
    """The coefficients c: an array of shape (d,), finite, none negative, not all zero."""
    try:
        values = numpy.asarray(chainer.backends.cuda.to_cpu(subject.unchanged.costs), dtype="d")
    except AttributeError:
        yield "the link has no costs: set self.costs to the complexity coefficients, shape (d,)"
        return
    except (TypeError, ValueError) as error:
        yield f"costs are not an array of numbers ({error}): give one of shape (d,)"
        return
    if values.ndim != 1 or not values.size:
        yield f"costs have the shape {values.shape}: give one coefficient a bit, shape (d,)"
        return
    subject.d = len(values)
    if subject.d < 2:
        yield "there is one bit only: theta needs two at least for its range [1/d, 1 - 1/d]"
    if not numpy.isfinite(values).all():
        bad = numpy.flatnonzero(~numpy.isfinite(values))
        yield f"costs of {listed(bad)} are not finite: give every bit a number"
    elif (values < 0).any():
        bad = numpy.flatnonzero(values < 0)
        yield f"costs of {listed(bad)} are negative: a bit costs something or nothing"
    elif not values.any():
        yield "costs are all zero: one at least must be positive, or the penalty has no scale"


def costs_of(subject: Subject) -> Iterator[str]:
    """The coefficients by other criteria, where the link offers them."""
    for criterion in complexity.CRITERIA[1:]:  # units need no word of the link
        try:
            answer = subject.unchanged.costs_of(criterion, subject.x.shape[1:])
        except ValueError:
            continue  # it may decline
        except Exception as error:
            yield f"costs_of({criterion!r}, x_shape) raises {type(error).__name__}: {error}"
            continue
        try:
            values = complexity.check_costs(answer)
        except (TypeError, ValueError) as error:
            yield f"costs_of({criterion!r}, x_shape): {error}"
            continue
        if len(values) != subject.d:
            yield (
                f"costs_of({criterion!r}, x_shape) has {len(values)} entries: give one to each of "
                f"the {subject.d} bits"
            )


def groups(subject: Subject) -> Iterator[str]:
    """The names of the bits: slices that do not overlap and leave no bit out."""
    stated = getattr(subject.unchanged, "groups", {})
    if not isinstance(stated, dict) or not all(isinstance(s, slice) for s in stated.values()):
        yield "groups are no dictionary from names to slices: {'layer_1': slice(0, 16), ...}"
        return
    owner: dict[int, str] = {}
    for name, group in stated.items():
        end = subject.d if group.stop is None else group.stop
        if group.step not in (None, 1) or not 0 <= (group.start or 0) < end <= subject.d:
            yield (
                f"group {name!r} is {group}: it must be a slice of step 1 with at least one of the "
                f"{subject.d} bits and none beyond"
            )
            return
        for bit in range(group.start or 0, end):
            if bit in owner:
                yield f"groups {owner[bit]!r} and {name!r} overlap in bit {bit}"
                return
            owner[bit] = name
    left_out = numpy.setdiff1d(numpy.arange(subject.d), list(owner))
    if stated and left_out.size:
        yield f"{listed(left_out)} belong to no group: the slices must cover all {subject.d} bits"


def weight_ratio(subject: Subject) -> Iterator[str]:
    """The fraction of the weights: in [0, 1], 1 for all bits, never less with more of them."""
    ratio = subject.unchanged.weight_ratio
    # A chain of structures from nothing to everything, one more part of the bits on in each.
    order = subject.rng.permutation(subject.d)
    chain = [numpy.isin(numpy.arange(subject.d), order[:n]) for n in _counts(subject.d)]
    try:
        values = [float(ratio(structure)) for structure in chain]
    except Exception as error:
        yield f"weight_ratio(structure) raises {type(error).__name__}: {error}"
        return
    if not all(0 <= value <= 1 + 1e-9 for value in values):
        bad = next(value for value in values if not 0 <= value <= 1 + 1e-9)
        yield f"weight_ratio is {bad:.6g} for a structure: it must lie in [0, 1]"
        return
    if abs(values[-1] - 1) > 1e-6:
        yield f"weight_ratio is {values[-1]:.6g} with everything on: it must be 1"
        return
    for before, after in zip(values, values[1:]):
        if after < before - 1e-9:
            yield (
                f"weight_ratio falls from {before:.6g} to {after:.6g} when more bits are on: "
                "it must be monotone"
            )
            return
    if subject.gradients_good:
        yield from _weights_that_act(subject)


def _counts(d: int) -> list[int]:
    """Return some numbers of bits from none to all, all of them where there are few."""
    return sorted({round(float(n)) for n in numpy.linspace(0, d, min(d, 16) + 1)})


def _weights_that_act(subject: Subject) -> Iterator[str]:
    """No more weights may get a gradient than weight_ratio says remain."""
    total = sum(p.size for p in parameters_of(subject.double).values() if p.ndim >= 2)
    for structure in subject.structures(3):
        weights = subject.weights_of(subject.arrays(structure[None]))
        _, gradients = subject.gradients(structure[None], weights, False)
        matrices = [g for g in gradients.values() if g.ndim >= 2]
        zero = subject.tolerance * max((numpy.abs(g).max(initial=0) for g in matrices), default=0)
        acting = sum(int((numpy.abs(g) > zero).sum()) for g in matrices) / max(total, 1)
        stated = float(subject.unchanged.weight_ratio(structure))
        if acting > stated + 1e-6:
            yield (
                f"weight_ratio says that {stated:.1%} of the weights remain, but {acting:.1%} get "
                "a gradient: absent parts leak, or it does not count all weights"
            )
            return


def compact(subject: Subject) -> Iterator[str]:
    """The smaller network: it must compute what the structure does."""
    link = subject.noisy()
    for k, structure in enumerate((*subject.full(), *subject.structures(3))):
        words = "everything on" if k == 0 else f"{int(structure.sum())} of {subject.d} bits on"
        try:
            network = link.compact(structure)
        except ValueError as error:
            if k == 0:
                yield f"compact refuses the full structure: {error}"
            continue
        except Exception as error:
            yield f"compact raises {type(error).__name__} with {words}: {error}"
            return
        (expected,) = subject.call(link, subject.x, structure[None])
        try:
            with chainer.using_config("train", False), chainer.no_backprop_mode():
                found = chainer.as_variable(network(subject.x)).array
        except Exception as error:
            yield f"what compact returns raises {type(error).__name__} with {words}: {error}"
            return
        if found.shape != expected.shape:
            yield f"what compact returns has outputs of shape {found.shape}, not {expected.shape}"
            return
        gap = difference(found, expected.array)
        if not gap <= tolerance_of(link):
            yield (
                f"what compact returns differs by {gap:.2g} of the largest output with {words}: "
                "it must compute the same in evaluation mode"
            )
            return
