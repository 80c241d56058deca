"""Mutants of the method: each line of it, changed, must fail the checks of its own test file.

A mutant is a line of a module and what takes its place.  The module is executed anew from its
changed source, and the checks run on what it defines.  So a test file that would let a mistake in
the method pass is found.
"""

import contextlib
import ctypes
import inspect
import types
from unittest import mock

import numpy
import pytest

from chainer_sno import bernoulli, chainer, extensions, nesterov, updater, utility
from chainer_sno.fast import steps
from tests.chainer_sno import (
    test_bernoulli,
    test_extensions,
    test_nesterov,
    test_updater,
    test_utility,
)


def mutated(module, line, other):
    """Return a module made of a source in which one line is another."""
    source = inspect.getsource(module)
    assert not line or source.count(line) == 1, f"{line!r} is there {source.count(line)} times"
    found = types.ModuleType(module.__name__)
    found.__file__ = module.__file__
    exec(compile(source.replace(line, other), module.__file__, "exec"), vars(found))
    return found


def rng():
    return numpy.random.default_rng(20190907)


def check_bernoulli():
    """What tests/chainer_sno/test_bernoulli.py checks, in little."""
    for samples, epsilon0, eta in (
        (1, 2.0**-4, 0.3),
        (2, -1.0, None),
        (4, 0.0, 0.3),
        (8, 0.5, 0.3),
    ):
        test_bernoulli.test_update_is_equation_7(samples, epsilon0, True, eta, "float64", rng())
    test_bernoulli.test_initial_theta_is_clamped()
    test_bernoulli.test_mode_and_usage_rate()
    test_bernoulli.test_defaults_are_the_papers()
    test_bernoulli.test_the_penalty_follows_epsilon0()
    test_bernoulli.test_sample_is_on_below_theta()
    test_bernoulli.test_theta_stops_at_both_ends()
    test_bernoulli.test_utilities_need_not_add_up_to_zero()


def check_utility():
    """What tests/chainer_sno/test_utility.py checks."""
    for losses, expected in test_utility.KNOWN:
        test_utility.test_known_values(losses, expected)


def check_updater():
    """What tests/chainer_sno/test_updater.py checks."""
    with chainer.using_config("dtype", numpy.dtype("d")):
        for samples in (1, 2):
            test_updater.test_is_algorithm_1(samples, numpy.dtype("d"))
        test_updater.test_theta_and_weights_see_the_same_losses(rng())
        test_updater.test_reports_the_mean_loss_of_the_structures(rng())


def check_optimizer():
    """What tests/chainer_sno/test_nesterov.py checks."""
    for decay in (1e-1, None):
        test_nesterov.test_same_bits(decay, numpy.dtype("d"), rng())
        test_nesterov.test_is_the_equation(decay)


def check_schedule():
    """What tests/chainer_sno/test_extensions.py checks."""
    test_extensions.test_the_rates_of_the_schedule()


@contextlib.contextmanager
def with_bernoulli(module):
    with mock.patch.object(test_bernoulli, "Bernoulli", module.Bernoulli):
        yield


@contextlib.contextmanager
def with_utility(module):
    with mock.patch.object(test_utility, "ranking_utility", module.ranking_utility):
        yield


@contextlib.contextmanager
def with_updater(module):
    with mock.patch.object(test_updater, "StructureUpdater", module.StructureUpdater):
        yield


@contextlib.contextmanager
def with_step(module):
    step = module.nesterov_step.py_func

    def steps(addresses, sizes, *factors):
        for each, size in zip(addresses.tolist(), sizes.tolist()):
            pointers = [ctypes.cast(address, ctypes.POINTER(ctypes.c_double)) for address in each]
            step(*(numpy.ctypeslib.as_array(pointer, (size,)) for pointer in pointers), *factors)

    with mock.patch.object(nesterov, "_steps", return_value=steps):
        yield


@contextlib.contextmanager
def with_factors(module):
    with mock.patch.object(nesterov, "_update", module._update):
        yield


@contextlib.contextmanager
def with_schedule(module):
    with mock.patch.object(test_extensions, "StepSchedule", module.StepSchedule):
        yield


CHECKS = {
    "bernoulli": (bernoulli, with_bernoulli, check_bernoulli),
    "utility": (utility, with_utility, check_utility),
    "updater": (updater, with_updater, check_updater),
    "step": (steps, with_step, check_optimizer),
    "factors": (nesterov, with_factors, check_optimizer),
    "schedule": (extensions, with_schedule, check_schedule),
}

MUTANTS = {
    "bernoulli": [
        ("theta.clip(1.0 / d, 1.0 - 1.0 / d).astype(dtype)", "theta.astype(dtype)"),
        (
            "theta.clip(1.0 / d, 1.0 - 1.0 / d).astype(dtype)",
            "theta.clip(0, 1.0 - 1.0 / d).astype(dtype)",
        ),
        (
            "theta.clip(1.0 / d, 1.0 - 1.0 / d).astype(dtype)",
            "theta.clip(1.0 / d, 1.0).astype(dtype)",
        ),
        ("1.0 / d if eta is None", "1.0 if eta is None"),
        ("1.0 / d if eta is None", "2.0 / d if eta is None"),
        ("float(c.max())", "float(c.sum())"),
        ("float(c.max())", "float(c.min())"),
        ("self.epsilon0 / self._largest * self.costs", "self.epsilon0 * self.costs"),
        ("self.epsilon0 / self._largest * self.costs", "self.epsilon0 / self._largest"),
        (
            "self.epsilon0 / self._largest * self.costs",
            "-self.epsilon0 / self._largest * self.costs",
        ),
        ("if epsilon0 != self.epsilon0:", "if epsilon0 is None:"),
        ("self.uniforms.take(samples) < self.theta", "self.uniforms.take(samples) > self.theta"),
        ("self.uniforms.take(samples) < self.theta", "self.uniforms.take(samples) <= self.theta"),
        ("self.uniforms.take(samples) < self.theta", "self.uniforms.take(samples) < 0.5"),
        ("utilities[:, None] * (structures - theta)", "utilities[:, None] * structures"),
        ("utilities[:, None] * (structures - theta)", "utilities[:, None] * (theta - structures)"),
        (".sum(axis=0) / len(structures)", ".sum(axis=0)"),
        (".sum(axis=0) / len(structures)", ".sum(axis=0) / d"),
        ("self.eta * (selection - self.penalty", "self.eta * (selection + self.penalty"),
        ("self.eta * (selection - self.penalty", "(selection - self.penalty"),
        ("* theta * (1 - theta))\n", "* theta)\n"),
        ("* theta * (1 - theta))\n", "* (1 - theta))\n"),
        ("* theta * (1 - theta))\n", ")\n"),
        ("* theta * (1 - theta))\n", "* theta * (1 + theta))\n"),
        ("xp.clip(theta + step, 1.0 / d,", "xp.clip(theta - step, 1.0 / d,"),
        ("xp.clip(theta + step, 1.0 / d,", "xp.clip(theta + step, 0.0,"),
        ("1.0 - 1.0 / d, out=theta)", "1.0, out=theta)"),
        ("1.0 - 1.0 / d, out=theta)", "1.0 - 1.0 / d)"),
        ("return self.theta >= 0.5", "return self.theta > 0.5"),
        ("return self.theta >= 0.5", "return self.theta >= 0.4"),
    ],
    "utility": [
        ("-(-samples // 4)", "samples // 4"),
        ("-(-samples // 4)", "-(-samples // 2)"),
        ("-(-samples // 4)", "-(-samples // 3)"),
        ("utilities[:count] += 1", "utilities[:count] += 2"),
        ("utilities[samples - count :] -= 1", "utilities[samples - count :] -= 2"),
        ("utilities[samples - count :] -= 1", "utilities[samples - count :] = -1"),
        ("([0.0], numpy.cumsum(utilities))", "(numpy.cumsum(utilities), [0.0])"),
        ("xp.where(xp.isnan(losses), xp.inf, losses)", "losses"),
        (
            "xp.where(xp.isnan(losses), xp.inf, losses)",
            "xp.where(xp.isnan(losses), -xp.inf, losses)",
        ),
        ("(losses[None, :] < losses[:, None])", "(losses[None, :] > losses[:, None])"),
        ("(losses[None, :] < losses[:, None])", "(losses[None, :] <= losses[:, None])"),
        ("(losses[None, :] == losses[:, None])", "(losses[None, :] >= losses[:, None])"),
        (
            "(cumulative[better + equal] - cumulative[better]) / equal",
            "cumulative[better + equal] - cumulative[better]",
        ),
    ],
    "updater": [
        ("self.bernoulli.update(structures, ranking_utility(ranked))", "pass"),
        (
            "self.bernoulli.update(structures, ranking_utility(ranked))",
            "self.bernoulli.update(structures, ranking_utility(-ranked))",
        ),
        (
            "self.bernoulli.update(structures, ranking_utility(ranked))",
            "self.bernoulli.update(~structures, ranking_utility(ranked))",
        ),
        ("chainer.functions.mean(losses).backward()", "chainer.functions.sum(losses).backward()"),
        ("chainer.functions.mean(losses).backward()", "losses[0].backward()"),
        ("        link.cleargrads()\n", ""),
        ("        optimizer.update()\n", ""),
        ("        return ranked\n", "        return ranked[::-1]\n"),
        ("losses.mean() if graph is None", "losses.sum() if graph is None"),
        ("losses.mean() if graph is None", "losses[0] if graph is None"),
    ],
    "step": [
        ("g = g + decay * parameter[i]", "g = g - decay * parameter[i]"),
        ("g = g + decay * parameter[i]", "pass"),
        ("g = g + decay * parameter[i]", "g = g + decay"),
        ("if decays:", "if not decays:"),
        ("v = velocity[i] * momentum", "v = velocity[i]"),
        ("v = v - lr * g", "v = v + lr * g"),
        ("v = v - lr * g", "v = v - g"),
        ("p = parameter[i] + square * v", "p = parameter[i] + momentum * v"),
        ("p = parameter[i] + square * v", "p = parameter[i] - square * v"),
        ("g, v, p - rate * g", "g, v, p"),
        ("g, v, p - rate * g", "g, v, p - lr * g"),
        ("g, v, p - rate * g", "g, velocity[i], p - rate * g"),
    ],
    "factors": [
        ("momentum * momentum, (1 + momentum) * lr", "momentum, (1 + momentum) * lr"),
        ("momentum * momentum, (1 + momentum) * lr", "momentum * momentum, momentum * lr"),
        ("momentum * momentum, (1 + momentum) * lr", "momentum * momentum, 1 + momentum"),
        ("factors = decay, lr, momentum,", "factors = lr, decay, momentum,"),
        ("parameter.update_rule.t += 1", "pass"),
    ],
    "schedule": [
        ("divisor: float = 10,", "divisor: float = 2,"),
        ("milestones: Sequence[float] = (0.5, 0.75),", "milestones: Sequence[float] = (0.5, 0.8),"),
        ("milestones: Sequence[float] = (0.5, 0.75),", "milestones: Sequence[float] = (0.75,),"),
        ("int(iterations * fraction)", "round(iterations * fraction)"),
        ("int(iterations * fraction)", "int(iterations * fraction) + 1"),
        ("sum(iteration >= m for m", "sum(iteration > m for m"),
        ("self.initial_lr / self.divisor **", "self.initial_lr * self.divisor **"),
        ("self.initial_lr / self.divisor **", "self.initial_lr / self.divisor *"),
        ("        if trainer.updater.iteration in self.milestones:", "        if False:"),
    ],
}


@pytest.mark.parametrize("part", CHECKS)
def test_the_checks_pass_without_a_change(part):
    module, use, check = CHECKS[part]
    with use(mutated(module, "", "")):
        check()


#: What makes a test fail: that a number is wrong, or that a mutant does not get as far as one.
CAUGHT = (AssertionError, AttributeError, IndexError, RuntimeWarning)


@pytest.mark.parametrize(
    ("part", "line", "other"),
    [(part, *pair) for part, pairs in MUTANTS.items() for pair in pairs],
)
def test_a_mutant_is_caught(part, line, other):
    module, use, check = CHECKS[part]
    with use(mutated(module, line, other)), pytest.raises(CAUGHT):
        check()
