"""The ranking utility of section 3."""

import functools

import numpy

from chainer_sno._import_chainer import chainer
from chainer_sno._types import Array


@functools.lru_cache(maxsize=64)
def cumulative_utilities(samples: int) -> Array:
    """Return the sums of the utilities of the best 0, 1, ..., samples ranks.

    Args:
        samples (int): lambda.

    Returns:
        numpy.ndarray: float64, shape (lambda + 1,); do not write to it.
    """
    # Section 3, gradient approximation: u = 1 for the best ceil(lambda / 4), -1 for the worst
    count = -(-samples // 4)
    utilities = numpy.zeros(samples)
    utilities[:count] += 1
    # With one sample the best is the worst as well: there is nothing to compare, and it gets 0.
    utilities[samples - count :] -= 1
    return numpy.concatenate(([0.0], numpy.cumsum(utilities)))


def ranking_utility(losses: Array) -> Array:
    r"""Turn losses into utilities, invariant to order-preserving transformations.

    With :math:`\lambda` losses the best :math:`\lceil\lambda/4\rceil` get +1, the worst
    :math:`\lceil\lambda/4\rceil` get -1 and the others 0.  Equal losses share the mean of the
    utilities of their ranks (reading R5), so a set of equal losses exerts no selection.  A loss
    that is not a number ranks with the infinite ones, last.

    Args:
        losses (array): shape (lambda,), of any real dtype, NumPy or CuPy.

    Returns:
        array: float64 of shape (lambda,), on the device of ``losses``.

    Raises:
        ValueError: ``losses`` is empty or not one-dimensional.

    Example:
        >>> import chainer_sno, numpy
        >>> chainer_sno.ranking_utility(numpy.array([0.3, 0.9])).tolist()
        [1.0, -1.0]
        >>> chainer_sno.ranking_utility(numpy.array([0.5, 0.2, 0.8, 0.4])).tolist()
        [0.0, 1.0, -1.0, 0.0]
        >>> chainer_sno.ranking_utility(numpy.array([0.7, 0.7])).tolist()  # a tie: no selection
        [0.0, 0.0]

    See Also:
        :meth:`chainer_sno.Bernoulli.update`: takes the utilities.
    """
    if losses.ndim != 1 or losses.size == 0:
        raise ValueError(f"losses must have the shape (lambda,), lambda >= 1, not {losses.shape}")
    xp = chainer.backend.get_array_module(losses)
    cumulative = xp.asarray(cumulative_utilities(losses.size))
    losses = xp.where(xp.isnan(losses), xp.inf, losses)
    better = (losses[None, :] < losses[:, None]).sum(axis=1)
    equal = (losses[None, :] == losses[:, None]).sum(axis=1)
    return (cumulative[better + equal] - cumulative[better]) / equal
