"""Chainer's NesterovAG with WeightDecay, for code that does its step itself."""

from typing import Any

from chainer_sno._import_chainer import chainer
from chainer_sno._types import Array


def weight_decay(optimizer: Any) -> float:
    """Return the weight decay of an optimizer whose step the project's own code can do.

    Args:
        optimizer (chainer.Optimizer): set up.

    Returns:
        float: the sum of the rates of its WeightDecay hooks.

    Raises:
        ValueError: it is not NesterovAG, or has another hook.
    """
    hookable = optimizer._hookable
    hooks = [*hookable._pre_update_hooks.values(), *hookable._post_update_hooks.values()]
    decays = [hook for hook in hooks if isinstance(hook, chainer.optimizer_hooks.WeightDecay)]
    if not isinstance(optimizer, chainer.optimizers.NesterovAG) or len(decays) < len(hooks):
        raise ValueError("the fast path is for NesterovAG with no hook but WeightDecay")
    return sum(hook.rate for hook in decays)


def velocity(parameter: Any) -> Array:
    """Return the velocity of a parameter, made where there is none yet.

    Args:
        parameter (chainer.Parameter): of the target of NesterovAG.

    Returns:
        array: v, which the optimizer's snapshot saves.
    """
    rule = parameter.update_rule
    rule._init_states(parameter)
    return rule.state["v"]


class DeviceRates:
    """The rates of an optimizer where kernels find them.

    Args:
        optimizer (chainer.optimizers.NesterovAG): set up, with no hook but WeightDecay.
        xp (module): of the arrays.
        dtype (numpy.dtype): of the network.

    Attributes:
        arguments (tuple): the learning rate, an array of one number, which may change between
            iterations; the momentum; and the weight decay.

    Raises:
        ValueError: see :func:`weight_decay`.
    """

    def __init__(self, optimizer: Any, xp: Any, dtype: Any) -> None:
        self.optimizer = optimizer
        self._lr = xp.full(1, optimizer.lr, dtype)
        self._known = optimizer.lr
        self.arguments = self._lr, optimizer.momentum, weight_decay(optimizer)

    def refresh(self) -> None:
        """Bring the learning rate to the device if it has changed."""
        if self.optimizer.lr != self._known:
            self._lr.fill(self.optimizer.lr)
            self._known = self.optimizer.lr


class FlatParameters:
    """All parameters of a network in one array, and so their gradients and velocities.

    The parameters and the optimizer's velocities become views, so that Chainer's links and
    serializers go on to work.

    Args:
        parameters (sequence of chainer.Parameter): initialised, of one dtype, on one device, of
            the target of NesterovAG.
        xp (module): of the arrays.

    Attributes:
        array (array): the parameters, shape (size,).
        velocity (array): v of the optimizer, the same shape.
        gradient (array): for whoever computes it, the same shape.
    """

    def __init__(self, parameters: Any, xp: Any) -> None:
        sizes = [parameter.size for parameter in parameters]
        dtype = parameters[0].dtype
        self.array, self.velocity, self.gradient = (xp.zeros(sum(sizes), dtype) for _ in range(3))
        self._gradients = {}
        start = 0
        for parameter, size in zip(parameters, sizes):
            own = slice(start, start + size)
            start += size
            for flat, value in (
                (self.array, parameter.array),
                (self.velocity, velocity(parameter)),
            ):
                flat[own] = value.reshape(-1)
            shape = parameter.shape
            parameter.array = self.array[own].reshape(shape)
            parameter.update_rule.state["v"] = self.velocity[own].reshape(shape)
            self._gradients[id(parameter)] = self.gradient[own].reshape(shape)

    def gradient_of(self, parameter: Any) -> Array:
        """Return where the gradient of a parameter belongs, an array of its shape."""
        return self._gradients[id(parameter)]
