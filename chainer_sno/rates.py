r"""The learning rate of :math:`\theta` for a training of a given length."""

import dataclasses
import math

__all__ = ["RateSuggestion", "suggest_eta"]

#: Above this rate a single comparison moves a bit too far to mean anything.
LARGEST = 0.1
#: Where fewer of the bits that do nothing may be kept by chance, a search is called certain.
CERTAIN = 0.05


@dataclasses.dataclass(frozen=True)
class RateSuggestion:
    r"""A learning rate of :math:`\theta`, and what can be expected of it.

    Attributes:
        eta (float): :math:`\eta_\theta`.
        epsilon0 (float): :math:`\epsilon_0`.
        iterations (int): of the training.
        time_constants (float): how many times :math:`1/(\eta_\theta |\epsilon_0|)`, in which the
            penalty acts, the training holds.
        by_chance (float): the probability that a bit with the largest cost that does nothing for
            the loss reaches the wrong end first, :math:`1/(1 + e^{2|\epsilon_0|/\eta_\theta})`.
    """

    eta: float
    epsilon0: float
    iterations: int

    @property
    def time_constants(self) -> float:
        """Time constants of the penalty in the training."""
        return self.eta * abs(self.epsilon0) * self.iterations

    @property
    def by_chance(self) -> float:
        """The probability of the wrong end."""
        return 1 / (1 + math.exp(min(2 * abs(self.epsilon0) / self.eta, 700)))

    def __str__(self) -> str:
        lines = [
            f"eta = {self.eta:.3g}: {self.time_constants:.1f} time constants of the penalty in "
            f"{self.iterations:,} iterations, and {self.by_chance:.1%} of the bits that do nothing "
            "go the wrong way"
        ]
        if self.time_constants < 3:
            lines.append("too short for the penalty: train longer, or raise epsilon0")
        elif self.by_chance > CERTAIN:
            lines.append("chance has much to say: train longer, or raise epsilon0")
        return "\n".join(lines)


def suggest_eta(iterations: int, epsilon0: float, time_constants: float = 6.0) -> RateSuggestion:
    r"""Suggest the learning rate of :math:`\theta` for a number of iterations.

    A bit that does nothing for the loss and costs the most goes as :math:`1/(1 + e^{t/\tau})` with
    :math:`\tau = 1/(\eta_\theta\epsilon_0)`, so after six :math:`\tau` it stands at 0.0025.  The
    rate is the smallest with which the training holds so many of them, for a larger one is less
    certain: such a bit reaches the wrong end first with the probability
    :math:`1/(1 + e^{2\epsilon_0/\eta_\theta})`.  In section 4.1 at :math:`\epsilon_0 = 2^{-6}` it
    gives about the paper's 1/d.

    Args:
        iterations (int): of the training, 1 at least.
        epsilon0 (float): :math:`\epsilon_0`, not zero.
        time_constants (float): how many the training shall hold.

    Returns:
        RateSuggestion: the rate, at most 0.1, and what to expect of it; ``print`` it.

    Raises:
        ValueError: an argument is not as above.

    Example:
        >>> import chainer_sno, numpy
        >>> suggestion = chainer_sno.suggest_eta(iterations=20_000, epsilon0=0.1)
        >>> bernoulli = chainer_sno.Bernoulli(numpy.ones(96), 0.1, eta=suggestion.eta)
        >>> 0 < bernoulli.eta <= 0.1
        True
    """
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, not {iterations}")
    if not (math.isfinite(epsilon0) and epsilon0):
        raise ValueError(
            f"epsilon0 must be finite and not 0, where there is no penalty to wait for, not "
            f"{epsilon0}: leave eta out then, which gives 1/d"
        )
    if not (math.isfinite(time_constants) and time_constants > 0):
        raise ValueError(f"time_constants must be positive and finite, not {time_constants}")
    eta = min(LARGEST, time_constants / (abs(epsilon0) * iterations))
    return RateSuggestion(eta, float(epsilon0), int(iterations))
