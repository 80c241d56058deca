"""The cost of a structure: complexity coefficients, usage rate, weight ratio, FLOPs.

The paper takes c to be ones for units and the number of weights for connections, and leaves other
criteria to future work.  :func:`costs` offers three for any link that states them.  A vector of
your own, such as measured seconds, goes to :class:`chainer_sno.Bernoulli` directly.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy

from chainer_sno._import_chainer import chainer
from chainer_sno._types import Array, ArrayLike

#: The criteria of :func:`costs` for the links of this library.
CRITERIA = ("units", "weights", "flops")

__all__ = [
    "check_costs",
    "check_structure",
    "costs",
    "criterion_of",
    "fully_connected_flops",
    "fully_connected_weight_ratio",
    "fully_connected_weights",
    "per_weight",
    "random_structure",
    "usage_rate",
]


def costs(link: Any, criterion: str = "units", x: Array | None = None) -> Array:
    """Return the complexity coefficients of a searchable link by a criterion.

    =============  ================================================================================
    ``"units"``    every bit costs 1; any link has this criterion
    ``"weights"``  the weights that disappear if only this bit is off, without biases; for a unit,
                   its fan-in plus its fan-out in the full network
    ``"flops"``    the floating-point operations of those weights for one example: two for each use
                   of a weight, so a convolution's count once a pixel of its output
    =============  ================================================================================

    A weight between two units disappears with either unit, so the coefficients of units add up to
    more than the weights of the network.  Connections have weights of their own, so their
    coefficients add up to the weights exactly.

    A link states the costs of its bits with ``link.costs_of(criterion, x_shape)``, an array of
    shape (d,); ``x_shape`` is the shape of one example, or None.  The method raises ValueError for
    an unknown criterion, and it may know others than these.

    Args:
        link (chainer.Link): a searchable link.
        criterion (str): one of the above, or another that the link knows.
        x (array): a mini-batch that it takes, for the shape of an example; FLOPs of convolutions
            need it.

    Returns:
        numpy.ndarray: c, shape (d,), float64.

    Raises:
        TypeError: the link has no ``costs_of``.
        ValueError: the link does not know the criterion, or needs ``x`` for it; or its answer is
            not a vector of costs.
    """
    d = len(link.costs)
    if criterion == "units":
        return numpy.ones(d)
    if not hasattr(link, "costs_of"):
        raise TypeError(
            f"{type(link).__name__} does not say what its bits cost in {criterion}: give it a "
            "method costs_of(criterion, x_shape), or give costs of your own to Bernoulli"
        )
    costs = check_costs(link.costs_of(criterion, None if x is None else x.shape[1:]))
    if len(costs) != d:
        raise ValueError(
            f"costs_of returned {len(costs)} costs, and the link has {d} bits: return one cost a "
            "bit"
        )
    return costs


def per_weight(criterion: str, pixels: int = 1) -> float:
    """Return the cost of one weight, for a link's ``costs_of``.

    Args:
        criterion (str): ``"weights"`` or ``"flops"``.
        pixels (int): how often the weight is used for one example: once in a fully connected
            layer, once a pixel of the output in a convolution.

    Returns:
        float: 1 in weights; in FLOPs two for each use, a multiplication and an addition.

    Raises:
        ValueError: the criterion is another.
    """
    if criterion not in CRITERIA[1:]:
        raise ValueError(f"criterion must be one of {', '.join(CRITERIA)}, not {criterion!r}")
    return 2.0 * pixels if criterion == "flops" else 1.0


def criterion_of(link: Any, bernoulli: Any) -> str:
    """Return what the costs of a distribution count, in a word, for reports.

    Args:
        link (chainer.Link): a searchable link, which may state the criterion of its costs as
            ``criterion``.
        bernoulli (chainer_sno.Bernoulli): the distribution.

    Returns:
        str: the criterion that the distribution was given, else the link's, where the costs are
        the link's, else ``"own costs"``.
    """
    if bernoulli.criterion:
        return str(bernoulli.criterion)
    mine, its = (chainer.backends.cuda.to_cpu(owner.costs) for owner in (bernoulli, link))
    if numpy.array_equal(mine, its):
        return str(getattr(link, "criterion", "costs of the link"))
    return "own costs"


def check_costs(costs: ArrayLike) -> Array:
    """Return complexity coefficients as a float64 array on the CPU.

    Args:
        costs (array): c, shape (d,).

    Returns:
        numpy.ndarray: a copy, shape (d,), float64.

    Raises:
        ValueError: not one-dimensional, empty, negative, not finite, or all zero.
    """
    on_cpu = chainer.backends.cuda.to_cpu(costs) if hasattr(costs, "get") else costs
    values = numpy.array(on_cpu, dtype=numpy.float64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"costs must have the shape (d,), d >= 1, not {values.shape}")
    if not (numpy.isfinite(values).all() and (values >= 0).all() and values.max() > 0):
        raise ValueError(
            "costs must be finite numbers that are not negative, and at least one must be positive"
        )
    return values


def check_structure(structure: Any, bits: int) -> Array:
    """Return a structure as an array of booleans, on its device.

    Args:
        structure (array): shape (d,), bool, or numbers that are all 0 or 1.
        bits (int): d.

    Returns:
        array: bool of shape (d,).

    Raises:
        ValueError: the shape is another, or a number is neither 0 nor 1: theta is no structure.
    """
    if not hasattr(structure, "dtype"):
        structure = numpy.asarray(structure)
    if structure.shape != (bits,):
        raise ValueError(
            f"the structure must have the shape ({bits},), one entry for each bit of the link, not "
            f"{structure.shape}"
        )
    booleans = structure.astype(bool)
    if structure.dtype != bool and not (structure == booleans).all():
        raise ValueError(
            "the structure must consist of 0 and 1, and this one has other numbers: use mode() "
            "of the distribution instead of theta"
        )
    return booleans


def usage_rate(structure: Array, costs: Array) -> float:
    r"""Return :math:`\sum c_i m_i / \sum c_i`, the usage rate of the tables (reading R1).

    In unit selection, where every c is 1, it is the fraction of units; the fraction of weights
    is :func:`fully_connected_weight_ratio`.

    Args:
        structure (array): m, shape (d,).
        costs (array): c, shape (d,).

    Returns:
        float: between 0 and 1.

    Raises:
        ValueError: see :func:`check_structure`.
    """
    structure = check_structure(structure, len(costs))
    return float((structure * costs).sum() / costs.sum())


#: How many structures :func:`random_structure` draws at a time.
_DRAWN_TOGETHER = 256


def random_structure(
    costs: ArrayLike,
    rate: float,
    rng: numpy.random.Generator,
    tolerance: float = 0.005,
    attempts: int = 1_000_000,
    accept: Callable[[Array], bool] = lambda structure: True,
) -> Array:
    """Draw structures until one meets a usage rate: the random selection of section 4.2 (R12).

    Args:
        costs (array): c, shape (d,).
        rate (float): the usage rate, in (0, 1]; also the probability of each bit.
        rng (numpy.random.Generator): source of the bits.
        tolerance (float): how far from ``rate`` the usage rate may be.
        attempts (int): the largest number of structures to draw.
        accept (callable): takes a structure that meets the rate and returns whether to accept it;
            by default all are accepted.

    Returns:
        numpy.ndarray: bool of shape (d,).

    Raises:
        ValueError: no structure drawn met the rate, or it is not in (0, 1].
    """
    costs = check_costs(costs)
    if not 0 < rate <= 1:
        raise ValueError(f"the usage rate must lie in (0, 1], not {rate}")
    # Many at a time are the same bits as one after the other, at a fraction of the time.
    for begun in range(0, attempts, _DRAWN_TOGETHER):
        before = rng.bit_generator.state
        structures = rng.random((min(_DRAWN_TOGETHER, attempts - begun), len(costs))) < rate
        rates = (structures * costs).sum(axis=1) / costs.sum()
        for i in numpy.flatnonzero(abs(rates - rate) <= tolerance):
            if accept(structures[i]):
                # Later draws were not requested: the caller's stream continues after this one.
                rng.bit_generator.state = before
                rng.random((i + 1, len(costs)))
                return structures[i]
    raise ValueError(
        f"none of {attempts} random structures has a usage rate of {rate} +- {tolerance} and is "
        "accepted: give another usage rate or a greater tolerance"
    )


def fully_connected_weights(widths: Sequence[int]) -> int:
    """Return the number of weights, biases left out, of a fully connected network.

    Args:
        widths (sequence of int): units per layer, inputs first and outputs last.

    Returns:
        int: the sum of the products of neighbouring widths.
    """
    return sum(int(a) * int(b) for a, b in zip(widths, widths[1:]))


def fully_connected_weight_ratio(widths: Sequence[int], full_widths: Sequence[int]) -> float:
    """Return the weights that remain as a fraction of those of the full network.

    Args:
        widths (sequence of int): units per layer that are on, inputs first and outputs last.
        full_widths (sequence of int): the same of the full network.

    Returns:
        float: between 0 and 1.
    """
    return fully_connected_weights(widths) / fully_connected_weights(full_widths)


def fully_connected_flops(widths: Sequence[int]) -> int:
    """Return the floating-point operations of one forward pass of one sample.

    A weight costs a multiplication and an addition; biases and activations are left out.

    Args:
        widths (sequence of int): units per layer, inputs first and outputs last.

    Returns:
        int: twice the number of weights.
    """
    return 2 * fully_connected_weights(widths)
