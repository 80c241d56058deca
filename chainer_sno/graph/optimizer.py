"""The step of an optimizer on a GPU: what its kernels are compiled with, and what they read."""

from typing import Any

from chainer_sno._types import Array
from chainer_sno.nesterov import parameter_decay, velocity, weight_decay
from chainer_sno.rules import known_rule


def step_definitions(optimizer: Any) -> dict[str, int]:
    """Return what the source of ``optimizer`` must know when it is compiled.

    Args:
        optimizer (chainer.Optimizer): NesterovAG, MomentumSGD or SGD.

    Returns:
        dict: names and values.

    Raises:
        ValueError: the optimizer is another.
    """
    rule = known_rule(optimizer)
    return {"NESTEROV": int(rule.nesterov), "VELOCITIES": int(rule.has_momentum)}


class DeviceRates:
    """The rates of an optimizer where kernels find them.

    Args:
        optimizer (chainer.Optimizer): NesterovAG, MomentumSGD or SGD, set up, with no hook but
            WeightDecay.
        xp (module): of the arrays.
        dtype (numpy.dtype): of the network.

    Attributes:
        rule (chainer_sno.rules.Rule): of the optimizer.
        arguments (tuple): the learning rate, an array of one number, which may change between
            iterations; the momentum, 0 where there is none; and the weight decay.

    Raises:
        ValueError: see :func:`chainer_sno.rules.known_rule` and
            :func:`chainer_sno.nesterov.weight_decay`.
    """

    def __init__(self, optimizer: Any, xp: Any, dtype: Any) -> None:
        self.optimizer = optimizer
        self.rule = known_rule(optimizer)
        self._lr = xp.full(1, optimizer.lr, dtype)
        self._known = optimizer.lr
        self._captured = self._constants()
        self.arguments = self._lr, *self._captured

    def _constants(self) -> tuple[float, float]:
        """Return the momentum and the weight decay, which are the same for every parameter.

        Raises:
            ValueError: see :func:`chainer_sno.nesterov.parameter_decay`; or a parameter has a decay
                of its own.
        """
        optimizer, rule = self.optimizer, self.rule
        decay = weight_decay(optimizer, (rule.optimizer,))
        for parameter in optimizer.target.params():
            if parameter_decay(parameter, optimizer, rule.update_rule):
                raise ValueError(
                    f"a captured iteration has one weight decay for all parameters, and "
                    f"{parameter.name} has a hook of its own: use the backend 'reference'"
                )
        return (optimizer.momentum if rule.has_momentum else 0.0), decay

    def refresh(self) -> None:
        """Bring the learning rate to the device if it has changed.

        Raises:
            ValueError: something has changed that the captured iteration contains.
        """
        found = self._constants()
        if found != self._captured:
            raise ValueError(
                f"momentum and weight decay are {found}, and were {self._captured} when the "
                "iteration was captured: make a new updater after changing them"
            )
        if self.optimizer.lr != self._known:
            self._lr.fill(self.optimizer.lr)
            self._known = self.optimizer.lr

    def velocity(self, parameter: Any) -> Array | None:
        """Return the velocity of a parameter, made where there is none yet.

        Args:
            parameter (chainer.Parameter): of the optimizer's target.

        Returns:
            array: v, which the optimizer's snapshot saves; None where the rule has no momentum.
        """
        return velocity(parameter) if self.rule.has_momentum else None


class FlatParameters:
    """All parameters of a network in one array, and so their gradients and velocities.

    The parameters and the optimizer's velocities become views, so that Chainer's links and
    serializers go on to work.

    Args:
        parameters (sequence of chainer.Parameter): initialised, of one dtype, on one device, of
            the target of the optimizer.
        rates (DeviceRates): of the optimizer.
        xp (module): of the arrays.

    Attributes:
        array (array): the parameters, shape (size,).
        velocity (array): v of the optimizer, the same shape; None where the rule has no momentum.
        gradient (array): for whoever computes it, the same shape.
    """

    def __init__(self, parameters: Any, rates: DeviceRates, xp: Any) -> None:
        size = sum(parameter.size for parameter in parameters)
        dtype = parameters[0].dtype
        self.array, self.gradient = xp.zeros(size, dtype), xp.zeros(size, dtype)
        self.velocity = xp.zeros(size, dtype) if rates.rule.has_momentum else None
        self._gradients = {}
        start = 0
        for parameter in parameters:
            own, shape = slice(start, start + parameter.size), parameter.shape
            start += parameter.size
            self.array[own] = parameter.array.reshape(-1)
            if self.velocity is not None:
                self.velocity[own] = velocity(parameter).reshape(-1)
                parameter.update_rule.state["v"] = self.velocity[own].reshape(shape)
            parameter.array = self.array[own].reshape(shape)
            self._gradients[id(parameter)] = self.gradient[own].reshape(shape)

    def gradient_of(self, parameter: Any) -> Array:
        """Return where the gradient of a parameter belongs, an array of its shape."""
        return self._gradients[id(parameter)]
