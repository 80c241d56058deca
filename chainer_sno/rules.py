r"""The optimizers whose step on an untouched weight is a linear map, described once.

With the gradient :math:`g`, weight decay included, such a step is

.. math::
    v' = \mu v - \eta g, \qquad W' = W + a\,v' - b\,\eta g.

=============  =================  =======================  =================
optimizer      :math:`\mu`        :math:`a`                :math:`b`
=============  =================  =======================  =================
NesterovAG     its momentum       :math:`\mu^2`            :math:`1 + \mu`
MomentumSGD    its momentum       1                        0
SGD            0                  1                        0
=============  =================  =======================  =================

From the rule follow the eigenbasis and the step on the biases of a CPU's engine
(:mod:`chainer_sno.fast.engine`), and the step of a GPU's kernels
(:mod:`chainer_sno.graph.optimizer`).  Adam does not fit: it divides by a root of the squared
gradients, so an untouched weight does not follow a linear map.
"""

import dataclasses
from typing import Any

from chainer_sno._import_chainer import chainer

_optimizers = chainer.optimizers


@dataclasses.dataclass(frozen=True)
class Rule:
    """The rule of an optimizer.

    Attributes:
        name (str): of the optimizer.
        optimizer (type): the class of the optimizer.
        update_rule (type): the class of its update rules.
        nesterov (bool): whether a and b are those of NesterovAG; else they are 1 and 0.
        has_momentum (bool): whether there are velocities.
    """

    name: str
    optimizer: Any
    update_rule: Any
    nesterov: bool = False
    has_momentum: bool = True

    def span(self, momentum: float) -> float:
        """Return a + b: by how many times the rate a gradient moves the weight."""
        return 1 + momentum + momentum**2 if self.nesterov else 1.0

    def lag(self, momentum: float) -> float:
        """Return a mu: by how much the velocity before the step moves the weight."""
        return momentum**3 if self.nesterov else momentum


NESTEROV = Rule(
    "NesterovAG", _optimizers.NesterovAG, _optimizers.nesterov_ag.NesterovAGRule, nesterov=True
)
MOMENTUM = Rule("MomentumSGD", _optimizers.MomentumSGD, _optimizers.momentum_sgd.MomentumSGDRule)
SGD = Rule("SGD", _optimizers.SGD, _optimizers.sgd.SGDRule, has_momentum=False)
#: The rules that the accelerated updaters know.
RULES = (NESTEROV, MOMENTUM, SGD)


def known_rule(optimizer: Any) -> Rule:
    """Return the rule of an optimizer.

    Args:
        optimizer (chainer.Optimizer): of an accelerated updater.

    Returns:
        Rule: of NesterovAG, MomentumSGD or SGD.

    Raises:
        ValueError: the optimizer is another.
    """
    for rule in RULES:
        if isinstance(optimizer, rule.optimizer):
            return rule
    names = ", ".join(rule.name for rule in RULES)
    raise ValueError(
        f"the fast path needs one of the optimizers {names}, not {type(optimizer).__name__}: use "
        "the backend 'reference'"
    )


def serialize_rule(serializer: Any, rule: Rule) -> None:
    """Save which optimizer trains, or check that it is the one of a snapshot.

    Args:
        serializer (chainer.AbstractSerializer): of the updater.
        rule (Rule): of the optimizer that trains.

    Raises:
        ValueError: the snapshot is another optimizer's.
    """
    try:
        saved = str(serializer("rule", rule.name))
    except KeyError:  # older snapshots do not say it: they are NesterovAG's
        saved = NESTEROV.name
    if saved != rule.name:
        raise ValueError(f"the snapshot has the optimizer {saved}, here {rule.name}")
