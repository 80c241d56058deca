"""The distribution over structures and its update, equation (7)."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy

from chainer_sno import complexity
from chainer_sno._import_chainer import chainer
from chainer_sno._types import Array, ArrayLike
from chainer_sno.uniforms import Uniforms


class Bernoulli(chainer.Link):
    r"""Independent Bernoulli distributions over the d bits of a structure.

    It is a :class:`chainer.Link` without parameters to be trained by backpropagation:
    ``to_device`` moves it, and a serializer saves :math:`\theta` and the state of the random
    numbers.

    Args:
        costs (array): c, the complexity coefficients, shape (d,), none negative, one positive.
            A searchable link states them as its ``costs``; for others by criterion see
            :func:`chainer_sno.complexity.costs`.
        epsilon0 (float): :math:`\epsilon_0`; the penalty coefficient is
            :math:`\epsilon = \epsilon_0/\max(c)`.  Negative values favour large structures.
        eta (float): :math:`\eta_\theta`, the learning rate of :math:`\theta`; 1/d by default.
        initial_theta (float or array): :math:`\theta^{(0)}`, clamped to [1/d, 1 - 1/d].
        seed (int): the seed of the structures.
        criterion (str): what the costs count, such as ``"flops"``, for reports; needed only where
            they are not those of the link.
        dtype (numpy.dtype): of :math:`\theta` and of the arithmetic of equation (7); float64 by
            default, for any dtype of the network.  One step of the penalty moves a bit by
            :math:`\epsilon\theta(1-\theta)/d`, at :math:`2^{-9}` and d = 2352 at most 2e-7.
            float32 rounds this to a multiple of 6e-8, and to zero near 1; it is there to study
            this effect.

    Attributes:
        theta (array): :math:`\theta`, shape (d,).
        costs (array): c, shape (d,), float64.
        criterion (str): what the costs count, None if it was not given.

    Raises:
        ValueError: a shape or a value is not as above, d < 2 (the range of
            :math:`\theta`, [1/d, 1 - 1/d], would be empty), or the dtype is another.

    Example:
        >>> import chainer_sno, numpy
        >>> bernoulli = chainer_sno.Bernoulli(numpy.ones(4), epsilon0=0.5, seed=1)
        >>> structures = bernoulli.sample(2)
        >>> structures.astype(int).tolist()
        [[1, 0, 0, 1], [0, 1, 1, 1]]
        >>> losses = numpy.array([0.3, 0.9])  # the first structure wins
        >>> bernoulli.update(structures, chainer_sno.ranking_utility(losses))
        >>> bernoulli.theta.tolist()  # 0.5, +- eta / 2 where they differ, less the penalty's part
        [0.59375, 0.34375, 0.34375, 0.46875]
        >>> bernoulli.usage_rate()
        0.25

    See Also:
        :func:`chainer_sno.ranking_utility`: the utilities of :meth:`update`.

        :class:`chainer_sno.StructureUpdater`: trains it together with the weights.

        :func:`chainer_sno.complexity.costs`: other complexity coefficients.
    """

    theta: Array
    costs: Array

    def __init__(
        self,
        costs: ArrayLike,
        epsilon0: float = 0.0,
        eta: float | None = None,
        initial_theta: ArrayLike = 0.5,
        seed: int = 0,
        criterion: str | None = None,
        dtype: Any = numpy.float64,
    ) -> None:
        super().__init__()
        dtype = numpy.dtype(dtype)
        if dtype not in (numpy.float32, numpy.float64):
            raise ValueError(f"dtype must be float32 or float64, not {dtype}")
        c = complexity.check_costs(costs)
        d = len(c)
        if d < 2:
            raise ValueError(
                "costs must have at least 2 entries, for the range [1/d, 1 - 1/d] of theta, not "
                f"{d}"
            )
        if not numpy.isfinite(epsilon0):
            raise ValueError(f"epsilon0 must be finite, not {epsilon0}")
        if eta is not None and not (numpy.isfinite(eta) and eta > 0):
            raise ValueError(f"eta must be positive and finite, not {eta}")
        theta = numpy.broadcast_to(numpy.asarray(initial_theta, dtype=numpy.float64), (d,))
        if not ((theta >= 0) & (theta <= 1)).all():
            raise ValueError(f"initial_theta must lie in [0, 1], not {initial_theta!r}")
        self.epsilon0 = float(epsilon0)
        self.eta = 1.0 / d if eta is None else float(eta)
        # Algorithm 1, line 1: theta(0)
        self.add_persistent("theta", theta.clip(1.0 / d, 1.0 - 1.0 / d).astype(dtype))
        self.add_persistent("costs", c)
        self._largest = float(c.max())
        self._kept_penalty: tuple[Any, Any] = (None, None)
        self.criterion = criterion
        self.uniforms = Uniforms(d, seed)

    @property
    def printable_specs(self) -> Iterator[tuple[str, Any]]:
        """The entries that ``str`` shows, as for Chainer's links."""
        yield "d", len(self)
        yield "epsilon0", self.epsilon0
        yield "eta", f"{self.eta:.6g}"
        yield "seed", self.uniforms.seed
        if self.criterion:
            yield "criterion", repr(self.criterion)

    def __repr__(self) -> str:
        theta, on = self.theta, int(self.mode().sum())
        return f"<{self}: {on} bits on, theta {theta.min():.3g} to {theta.max():.3g}>"

    def device_resident_accept(self, visitor: Any) -> None:
        """Move the random numbers with the arrays."""
        super().device_resident_accept(visitor)
        self._kept_penalty = (None, None)
        self.uniforms.device_resident_accept(visitor)

    def __len__(self) -> int:
        """Return d."""
        return len(self.theta)

    def sample(self, samples: int) -> Array:
        r"""Draw structures :math:`M_1, \dots, M_\lambda \sim p(M|\theta)` on the device.

        Args:
            samples (int): :math:`\lambda`.

        Returns:
            array: bool of shape (lambda, d).
        """
        return self.uniforms.take(samples) < self.theta  # Algorithm 1, line 5

    def update(self, structures: Array, utilities: Array) -> None:
        r"""Take one step of equation (7) and clamp :math:`\theta` to [1/d, 1 - 1/d].

        .. math::
            \theta \leftarrow \theta + \eta_\theta \left[ \frac1\lambda
            \sum_{i=1}^\lambda u_i (M_i - \theta) - \epsilon c\,\theta (1-\theta) \right]

        Args:
            structures (array): :math:`M_i`, shape (lambda, d), bool or 0 and 1.
            utilities (array): :math:`u_i`, shape (lambda,), larger is better; those of
                :func:`~chainer_sno.ranking_utility`.

        Raises:
            ValueError: a shape is not as above, or a utility is not finite.
        """
        d = len(self)
        if structures.ndim != 2 or structures.shape[1] != d or not len(structures):
            raise ValueError(
                f"structures must have the shape (lambda, {d}), lambda >= 1, not {structures.shape}"
            )
        if utilities.shape != structures.shape[:1]:
            raise ValueError(
                f"utilities must have the shape ({len(structures)},), one for each structure, not "
                f"{utilities.shape}"
            )
        xp, theta = self.xp, self.theta
        if not xp.isfinite(utilities).all():
            raise ValueError(f"utilities must be finite, not {utilities}")
        utilities = utilities.astype(theta.dtype)
        # eq. (7): the sum over the structures, from their ranking
        selection = (utilities[:, None] * (structures - theta)).sum(axis=0) / len(structures)
        # eq. (7): the penalty, and the step
        step = self.eta * (selection - self.penalty * theta * (1 - theta))
        xp.clip(theta + step, 1.0 / d, 1.0 - 1.0 / d, out=theta)  # Algorithm 1, line 8

    @property
    def penalty(self) -> Any:
        r""":math:`\epsilon c`, shape (d,), of the dtype of theta and on its device.

        It follows from ``epsilon0`` and the costs as they are.
        """
        epsilon0, kept = self._kept_penalty
        if epsilon0 != self.epsilon0:
            # Section 3, implementation remark: epsilon = epsilon_0 / max(c)
            kept = (self.epsilon0 / self._largest * self.costs).astype(self.theta.dtype)
            self._kept_penalty = self.epsilon0, kept
        return kept

    def mode(self) -> Array:
        r"""Return :math:`M^*`, the most probable structure: bit i is on where theta is >= 0.5.

        Returns:
            array: bool of shape (d,).
        """
        return self.theta >= 0.5  # Section 3, prediction: m_i = 1 if theta_i >= 0.5

    def usage_rate(self) -> float:
        """Return the usage rate of the mode (reading R1).

        Returns:
            float: between 0 and 1.
        """
        return complexity.usage_rate(self.mode(), self.costs)

    def serialize(self, serializer: Any) -> None:
        """Save or load theta, the costs and the state of the random numbers.

        Raises:
            ValueError: see :meth:`check_saved`; nothing is loaded then.
        """
        if isinstance(serializer, chainer.Serializer):
            serializer("settings", numpy.array([self.epsilon0, self.eta]))
            serializer("_penalty", self.penalty)
        else:
            self.check_saved(serializer)
        super().serialize(serializer)
        self.uniforms.serialize(serializer["uniforms"])

    def check_saved(self, serializer: Any) -> None:
        """Check that a saved distribution has the settings and the random numbers of this one.

        Args:
            serializer (chainer.Deserializer): of the snapshot.

        Raises:
            ValueError: the distribution that was saved has another epsilon0, eta, costs, dtype or
                seed.
        """

        def saved(name: str) -> Any:
            # Older snapshots lack some of the entries.
            with contextlib.suppress(KeyError):
                value = serializer(name, None)
                return None if value is None else numpy.asarray(value)
            return None

        to_cpu = chainer.backends.cuda.to_cpu
        theta, costs, penalty = saved("theta"), saved("costs"), saved("_penalty")
        if theta is not None and theta.dtype != self.theta.dtype:
            raise ValueError(
                f"the saved theta is {theta.dtype} and this one is {self.theta.dtype}: make the "
                "distribution with the same dtype"
            )
        if costs is not None and not numpy.array_equal(costs, to_cpu(self.costs)):
            raise ValueError(
                f"the saved distribution has {len(costs)} costs with the sum {costs.sum():g}, and "
                f"this one has {len(self)} with the sum {float(self.costs.sum()):g}: make it with "
                "the same"
            )
        settings = saved("settings")
        if settings is None and penalty is not None:
            epsilon0 = float(penalty.max() if penalty.max() > 0 else penalty.min())
            settings = numpy.array([epsilon0, self.eta])
        if settings is not None:
            mine = numpy.array([self.epsilon0, self.eta])
            # The penalty of an older snapshot is rounded to the dtype of theta.
            close = numpy.isclose(settings, mine, rtol=1e-6, atol=0)
            if not close.all():
                raise ValueError(
                    f"the saved distribution has epsilon0 = {settings[0]:g} and eta = "
                    f"{settings[1]:g}, and this one has {mine[0]:g} and {mine[1]:g}: make it "
                    "with the same"
                )
        self.uniforms.check_saved(serializer["uniforms"])
