"""Chainer's NesterovAG with WeightDecay in one pass, also for code that does the step itself."""

import functools
from collections.abc import Callable
from typing import Any

import numpy

from chainer_sno._import_chainer import chainer
from chainer_sno._types import Array


@functools.lru_cache(maxsize=1)
def _steps() -> Callable[..., None] | None:
    """Return the compiled steps, or None where numba is not installed."""
    try:
        from chainer_sno.fast.steps import nesterov_steps
    except ImportError:
        return None
    steps: Callable[..., None] = nesterov_steps
    return steps


class NesterovAG(chainer.optimizers.NesterovAG):
    """Chainer's NesterovAG with the same numbers, to the bit, in a fraction of the time on a CPU.

    Chainer passes over a parameter eight times, and ten times with WeightDecay.  Here one compiled
    call passes once over all parameters.  All other features of Chainer's optimizers work as usual:
    other hooks, rates of single parameters, frozen parameters, loss scaling, a GPU.  Chainer's code
    handles the cases that the pass does not cover.

    Args:
        lr (float): the learning rate.
        momentum (float): of the velocities.

    Example:
        >>> import chainer_sno, chainer
        >>> network = chainer_sno.links.MaskedMLP(8, (16,), 2)
        >>> optimizer = chainer_sno.NesterovAG(lr=0.01, momentum=0.9).setup(network)
        >>> optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(1e-4))

    See Also:
        :class:`chainer_sno.extensions.StepSchedule`: the paper's learning rates.
    """

    def update(self, lossfun: Any = None, *args: Any, **kwds: Any) -> None:
        """Update the parameters, as Chainer's optimizers do.

        Args:
            lossfun (callable): returns a loss, whose gradients are computed first; without it they
                are there.
            *args: of ``lossfun``.
            **kwds: of ``lossfun``.
        """
        if lossfun is not None:
            loss = lossfun(*args, **kwds)
            if getattr(self, "_use_cleargrads", True):
                self.target.cleargrads()
            else:
                self.target.zerograds()
            loss.backward(loss_scale=self._loss_scale)
            del loss
        decay, steps = self._single_decay(), _steps()
        if decay is None or steps is None or self._loss_scale is not None:
            super().update()
            return
        parameters = list(self.target.params())
        if any(parameter.grad is None for parameter in parameters):
            self.reallocate_cleared_grads()
        self.check_nan_in_grads()
        addresses = [[_address(p.array), _address(p.grad)] for p in parameters]
        if not self.is_safe_to_update() or _have_doubles(addresses):
            super().update()
            return
        self.t += 1
        common = self.hyperparam.lr, self.hyperparam.momentum
        alike: dict[Any, list[Any]] = {}
        rest = []
        for parameter, places in zip(parameters, addresses):
            rates = self._rates(parameter.update_rule, common)
            if _is_supported(parameter, rates):
                places.append(_address(velocity(parameter)))
                alike.setdefault((parameter.dtype, *rates), []).append((parameter, places))
            else:
                rest.append(parameter)
        for (dtype, *rates), members in alike.items():
            _update(steps, members, dtype, rates, *decay)
        for parameter in rest:
            for hook in self._hookable._pre_update_hooks.values():
                hook(parameter.update_rule, parameter)
            parameter.update()
        self.update_loss_scale()

    def _rates(self, rule: Any, common: tuple[Any, Any]) -> tuple[Any, Any]:
        """Return learning rate and momentum of an update rule: mostly those that all have."""
        if not isinstance(rule, chainer.optimizers.nesterov_ag.NesterovAGRule):
            return None, None
        rates = rule.hyperparam
        if len(vars(rates)) == 1 and rates.parent is self.hyperparam:  # it has none of its own
            return common
        return rates.lr, rates.momentum

    def _single_decay(self) -> tuple[bool, float] | None:
        """Return whether there is WeightDecay, and its rate; None where there are other hooks."""
        hookable = self._hookable
        hooks = list(hookable._pre_update_hooks.values())
        if hookable._post_update_hooks or len(hooks) > 1:
            return None
        if not hooks:
            return False, 0.0
        (hook,) = hooks
        if type(hook) is not chainer.optimizer_hooks.WeightDecay or not hook.call_for_each_param:
            return None
        return (True, hook.rate) if type(hook.rate) is float else None


def _address(array: Any) -> int | None:
    """Return where the memory of a NumPy array begins; None of anything else."""
    return array.ctypes.data if isinstance(array, numpy.ndarray) else None


def _have_doubles(addresses: list[list[int | None]]) -> bool:
    """Return whether parameters are there twice, or share their arrays or their gradients.

    Chainer calls all hooks before the first update, and then the order tells.
    """
    known = [place for places in addresses for place in places if place is not None]
    return len(set(known)) < len(known)


def _is_supported(parameter: Any, rates: tuple[Any, Any]) -> bool:
    """Return whether the compiled pass does what Chainer's rule does for a parameter."""
    rule, array = parameter.update_rule, parameter.array
    if type(rule) is not chainer.optimizers.nesterov_ag.NesterovAGRule or not rule.enabled:
        return False
    hooks = rule._hookable
    if hooks._pre_update_hooks or hooks._post_update_hooks or parameter._loss_scale is not None:
        return False
    if not isinstance(array, numpy.ndarray) or array.dtype not in (numpy.float32, numpy.float64):
        return False
    gradient, v = parameter.grad, velocity(parameter)
    return (
        # Another type, such as numpy.float64, would make Chainer compute in another dtype.
        all(type(rate) is float for rate in rates)
        and all(isinstance(a, numpy.ndarray) for a in (gradient, v))
        and array.dtype == gradient.dtype == v.dtype
        and array.shape == gradient.shape == v.shape
        # Contiguous, aligned and writeable: the pass gets addresses and checks nothing.
        and all(a.flags.carray for a in (array, gradient, v))
    )


def _update(
    steps: Callable[..., None],
    members: list[Any],
    dtype: Any,
    rates: list[float],
    decays: bool,
    decay: float,
) -> None:
    """Do the compiled pass over parameters of one dtype and with the same rates.

    Each member is a parameter, and where its array, its gradient and its velocity begin.
    """
    lr, momentum = rates
    factors = decay, lr, momentum, momentum * momentum, (1 + momentum) * lr
    addresses = numpy.array([places for _, places in members], numpy.int64)
    sizes = numpy.array([parameter.size for parameter, _ in members], numpy.int64)
    steps(addresses, sizes, decays, *map(dtype.type, factors))
    for parameter, _ in members:
        parameter.update_rule.t += 1


def weight_decay(optimizer: Any, kinds: tuple[Any, ...]) -> float:
    """Return the weight decay of an optimizer whose step the project's own code can do.

    Args:
        optimizer (chainer.Optimizer): set up.
        kinds (tuple of type): the optimizers that the code knows.

    Returns:
        float: the sum of the rates of its WeightDecay hooks.

    Raises:
        ValueError: it is of another kind, or has another hook.
    """
    hookable = optimizer._hookable
    hooks = [*hookable._pre_update_hooks.values(), *hookable._post_update_hooks.values()]
    decays = [hook for hook in hooks if isinstance(hook, chainer.optimizer_hooks.WeightDecay)]
    if not isinstance(optimizer, kinds) or len(decays) < len(hooks):
        names = " or ".join(kind.__name__ for kind in kinds)
        raise ValueError(
            f"the fast path needs the optimizer {names} with no hook other than WeightDecay, not "
            f"{type(optimizer).__name__} with {len(hooks) - len(decays)} others: use the backend "
            "'reference'"
        )
    return sum(hook.rate for hook in decays)


def parameter_decay(parameter: Any, optimizer: Any, kind: Any) -> float:
    """Return the weight decay that one parameter has beside the optimizer's.

    Args:
        parameter (chainer.Parameter): of the optimizer's target.
        optimizer (chainer.Optimizer): set up.
        kind (type): of its update rule.

    Returns:
        float: the sum of the rates of the WeightDecay hooks of its update rule.

    Raises:
        ValueError: the parameter is frozen, or its rule has another hook, kind or rate of its own.
    """
    rule, name = parameter.update_rule, parameter.name
    if type(rule) is not kind:
        raise ValueError(
            f"the fast path needs {kind.__name__}, and {name} has the update rule {rule!r}: use "
            "the backend 'reference'"
        )
    if not rule.enabled:
        raise ValueError(
            f"the fast path trains every parameter, and {name} is frozen (disable_update): use the "
            "backend 'reference'"
        )
    own = vars(rule.hyperparam)
    if own.keys() & {"lr", "momentum"} or rule.hyperparam.parent is not optimizer.hyperparam:
        raise ValueError(
            f"the fast path uses the optimizer's rates, and {name} has rates of its own: use the "
            "backend 'reference'"
        )
    decay = 0.0
    hookable = rule._hookable
    for hooks in (hookable._pre_update_hooks, hookable._post_update_hooks):
        for hook in (hooks or {}).values():
            if type(hook) is not chainer.optimizer_hooks.WeightDecay:
                raise ValueError(
                    f"the fast path supports the hook WeightDecay only, and {name} has {hook!r}: "
                    "use the backend 'reference'"
                )
            decay += hook.rate
    return decay


def velocity(parameter: Any) -> Array:
    """Return the velocity of a parameter, made where there is none yet.

    Args:
        parameter (chainer.Parameter): of the target of an optimizer that keeps velocities.

    Returns:
        array: v, which the optimizer's snapshot saves.
    """
    rule = parameter.update_rule
    if rule.state is None:
        rule._init_states(parameter)
    return rule.state["v"]
