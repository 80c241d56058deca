"""What a structure costs: complexity coefficients, usage rate, weight ratio, FLOPs."""

import numpy

from chainer_sno._import_chainer import chainer

__all__ = [
    "check_costs",
    "fully_connected_flops",
    "fully_connected_weight_ratio",
    "fully_connected_weights",
    "random_structure",
    "usage_rate",
]


def check_costs(costs):
    """Return complexity coefficients as a float64 array on the CPU.

    Args:
        costs (array): c, shape (d,).

    Returns:
        numpy.ndarray: a copy, shape (d,), float64.

    Raises:
        ValueError: not one-dimensional, empty, negative, not finite, or all zero.
    """
    costs = chainer.backends.cuda.to_cpu(costs) if hasattr(costs, "get") else costs
    costs = numpy.array(costs, dtype=numpy.float64)
    if costs.ndim != 1 or costs.size == 0:
        raise ValueError(f"costs must have the shape (d,), d >= 1, not {costs.shape}")
    if not (numpy.isfinite(costs).all() and (costs >= 0).all() and costs.max() > 0):
        raise ValueError("costs must be finite, none negative and at least one positive")
    return costs


def usage_rate(structure, costs):
    r"""Return :math:`\sum c_i m_i / \sum c_i`, the usage rate of the tables (reading R1).

    In unit selection, where every c is 1, it is the fraction of units; the fraction of weights
    is :func:`fully_connected_weight_ratio`.

    Args:
        structure (array): m, shape (d,).
        costs (array): c, shape (d,).

    Returns:
        float: between 0 and 1.
    """
    return float((structure * costs).sum() / costs.sum())


def random_structure(
    costs, rate, rng, tolerance=0.005, attempts=1_000_000, accept=lambda structure: True
):
    """Draw structures until one meets a usage rate: the random selection of section 4.2 (R12).

    Args:
        costs (array): c, shape (d,).
        rate (float): the usage rate, in (0, 1]; also the probability of each bit.
        rng (numpy.random.Generator): source of the bits.
        tolerance (float): how far from ``rate`` the usage rate may be.
        attempts (int): structures drawn at the most.
        accept (callable): takes a structure that meets the rate and returns whether it will do;
            all do by default.

    Returns:
        numpy.ndarray: bool of shape (d,).

    Raises:
        ValueError: no structure drawn met the rate, or it is not in (0, 1].
    """
    costs = check_costs(costs)
    if not 0 < rate <= 1:
        raise ValueError(f"the usage rate must lie in (0, 1], not {rate}")
    for _ in range(attempts):
        structure = rng.random(len(costs)) < rate
        if abs(usage_rate(structure, costs) - rate) <= tolerance and accept(structure):
            return structure
    raise ValueError(
        f"no structure in {attempts} has the usage rate {rate} +- {tolerance} and will do"
    )


def fully_connected_weights(widths):
    """Return the number of weights, biases left out, of a fully connected network.

    Args:
        widths (sequence of int): units per layer, inputs first and outputs last.

    Returns:
        int: the sum of the products of neighbouring widths.
    """
    return sum(int(a) * int(b) for a, b in zip(widths, widths[1:]))


def fully_connected_weight_ratio(widths, full_widths):
    """Return the weights that remain as a fraction of those of the full network.

    Args:
        widths (sequence of int): units per layer that are on, inputs first and outputs last.
        full_widths (sequence of int): the same of the full network.

    Returns:
        float: between 0 and 1.
    """
    return fully_connected_weights(widths) / fully_connected_weights(full_widths)


def fully_connected_flops(widths):
    """Return the floating-point operations of one forward pass of one sample.

    A weight costs a multiplication and an addition; biases and activations are left out.

    Args:
        widths (sequence of int): units per layer, inputs first and outputs last.

    Returns:
        int: twice the number of weights.
    """
    return 2 * fully_connected_weights(widths)
