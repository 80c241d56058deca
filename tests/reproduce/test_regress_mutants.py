"""regress fails when the method is changed, and only then."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from reproduce import ROOT
from reproduce.regress import TRACES
from reproduce.regress.traces import TOLERANCE

#: What is planted, by what it is: cases that must drift, and texts of files to be replaced.
MUTATIONS = {
    "theta moves 1% further": (
        "units",
        ("chainer_sno/bernoulli.py", "step = self.eta * (", "step = 1.01 * self.eta * ("),
    ),
    "the penalty is 1% larger": (
        "units",
        ("chainer_sno/bernoulli.py", "- self.penalty * theta", "- 1.01 * self.penalty * theta"),
    ),
    "theta is not clamped": (
        "units",
        (
            "chainer_sno/bernoulli.py",
            "xp.clip(theta + step, 1.0 / d, 1.0 - 1.0 / d, out=theta)",
            "xp.clip(theta + step, 0, 1, out=theta)",
        ),
    ),
    "the utility has the other sign": (
        "units,units-plain",
        (
            "chainer_sno/utility.py",
            "return (cumulative[better + equal] - cumulative[better]) / equal",
            "return (cumulative[better] - cumulative[better + equal]) / equal",
        ),
    ),
    "ties are not shared": (
        "units-ties",
        (
            "chainer_sno/utility.py",
            "    return (cumulative[better + equal] - cumulative[better]) / equal",
            "    rank = losses.argsort(kind='stable').argsort()\n"
            "    return cumulative[rank + 1] - cumulative[rank]",
        ),
    ),
    "biases do not decay, fast": (
        "units-fixed",
        (
            "chainer_sno/fast/engine.py",
            "(self.momentum, self._lr, self.bias_decay))",
            "(self.momentum, self._lr, 0))",
        ),
    ),
    "biases and BN do not decay, plain": (
        "connections-plain",
        (
            "reproduce/training.py",
            "        if self.settings.decayed is None:\n"
            "            optimizer.add_hook(decay)\n"
            "            return\n",
            "",
        ),
    ),
    "batch statistics of all structures together": (
        "connections",
        (
            "chainer_sno/links/dense_net.py",
            "        self.check(x, structures)\n",
            "        return super().forward(x, structures)\n",
        ),
        (
            "chainer_sno/links/plain_dense_net.py",
            "        return F.stack([self._forward_one(x, structure) for structure in structures])",
            "        rows = structures.repeat(len(x), axis=0)\n"
            "        y = self._forward_one(F.concat([x] * len(structures), axis=0), rows)\n"
            "        return y.reshape(len(structures), len(x), -1)",
        ),
        (
            "chainer_sno/links/plain_dense_net.py",
            "bits = structure[group]",
            "bits = structure[:, group]",
        ),
        (
            "chainer_sno/links/plain_dense_net.py",
            "mask = self.xp.asarray(bits[own]).repeat(widths).astype(h.dtype)",
            "mask = self.xp.asarray(bits[:, own]).repeat(widths, axis=1).astype(h.dtype)",
        ),
        (
            "chainer_sno/links/plain_dense_net.py",
            "mask[None, :, None, None]",
            "mask[:, :, None, None]",
        ),
    ),
    "W before theta, fast": (
        "units",
        (
            "chainer_sno/fast/updaters.py",
            "        self.bernoulli.update(structures, ranking_utility(losses))\n",
            "        self.synchronise()\n"
            "        outputs = self.get_optimizer('main').target(x, structures)\n"
            "        after = numpy.array([float(self.loss_func(y, t).array) for y in outputs])\n"
            "        self.bernoulli.update(structures, ranking_utility(after))\n",
        ),
    ),
    "W before theta, plain": (
        "units-plain",
        (
            "chainer_sno/updater.py",
            "        self.bernoulli.update(structures, ranking_utility(ranked))\n"
            "        # eq. (6): the gradient of the mean is the mean of the gradients\n"
            "        chainer.functions.mean(losses).backward()\n"
            "        # Algorithm 1, line 9: a step of any optimizer\n"
            "        optimizer.update()\n",
            "        chainer.functions.mean(losses).backward()\n"
            "        optimizer.update()\n"
            "        with chainer.no_backprop_mode():\n"
            "            after = [self.loss_func(y, t).array for y in link(x, structures)]\n"
            "        after = self.bernoulli.xp.stack(after)\n"
            "        self.bernoulli.update(structures, ranking_utility(after))\n",
        ),
    ),
    "Nesterov's momentum with the velocity before the step, plain": (
        "units-plain",
        (
            "reproduce/training.py",
            "        optimizer = kind(",
            "        def update(rule, parameter):\n"
            "            v, p, g = rule.state['v'], rule.hyperparam, parameter.grad\n"
            "            parameter.data += p.momentum**2 * v - (1 + p.momentum) * p.lr * g\n"
            "            v *= p.momentum\n"
            "            v -= p.lr * g\n\n"
            "        from chainer.optimizers.nesterov_ag import NesterovAGRule\n"
            "        NesterovAGRule.update_core_cpu = update\n"
            "        optimizer = kind(",
        ),
    ),
    "the gradient through the batch statistics lacks that of beta": (
        "connections",
        (
            "chainer_sno/fast/blocks.py",
            "    through[1, own] += gamma[j] * total * inverse\n",
            "",
        ),
    ),
    "a kernel is not flipped on the way back": (
        "connections-random",
        (
            "chainer_sno/fast/winograd.py",
            "FLIPPED = (_INVERSE[:, None] * POINTS + _INVERSE).ravel()",
            "FLIPPED = numpy.arange(36)",
        ),
    ),
    "a gradient's first step as with the velocity before it, fast": (
        "units,units-fixed",
        (
            "chainer_sno/rules.py",
            "return 1 + momentum + momentum**2 if",
            "return 1 + momentum if",
        ),
    ),
    "the gradients are added up": (
        "units-plain",
        (
            "chainer_sno/updater.py",
            "functions.mean(losses).backward()",
            "functions.sum(losses).backward()",
        ),
    ),
    "the learning rate stays as it is": (
        "units-fixed",
        (
            "reproduce/training.py",
            "        trainer.extend(extensions.StepSchedule(self.iterations, self.lr))\n",
            "",
        ),
    ),
    "the mini-batches are others": (
        "units",
        (
            "chainer_sno/iterators.py",
            "(self.seed, Stream.ORDER, epoch)",
            "(self.seed + 1, Stream.ORDER, epoch)",
        ),
    ),
    "the images are not augmented": (
        "connections",
        ("reproduce/augmentation.py", "        if augment:", "        if False:"),
    ),
    "a training fails": (
        "units-fixed",
        ("reproduce/training.py", "    if not math.isfinite(loss):", "    if loss < 100:"),
    ),
}


def call(root, *options, **variables):
    """Run regress in a tree of its own; return the process."""
    environment = {**os.environ, "PYTHONPATH": str(root), **variables}
    return subprocess.run(
        [sys.executable, "-m", "reproduce", "regress", *options],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
    )


def states(printed):
    """Return the largest deviation and the state of each case in the first table."""
    found = re.findall(r"^(\S+) +\d+ +(\S+) +1e-09 +(\S+)$", printed, re.MULTILINE)
    return {name: (float(deviation), state) for name, deviation, state in found}


@pytest.fixture(scope="module")
def unchanged():
    """The outcome of an unchanged tree, which leaves the loops compiled."""
    return call(ROOT, "--traces")


@pytest.fixture
def copy(unchanged, tmp_path):
    """A copy of the tree, the compiled loops included."""
    for part in ("chainer_sno", "reproduce", "results/regression"):
        shutil.copytree(ROOT / part, tmp_path / part)
    return tmp_path


def test_an_unchanged_tree_passes(unchanged):
    assert unchanged.returncode == 0, unchanged.stdout + unchanged.stderr
    found = states(unchanged.stdout)
    assert set(found) == set(TRACES)
    assert {state for _, state in found.values()} == {"held"}


def test_so_does_a_copy(copy):
    result = call(copy, "--traces", "--cases", "units,connections")
    assert result.returncode == 0, result.stdout + result.stderr
    assert set(states(result.stdout)) == {"units", "connections"}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_planted_mistake_is_caught(mutation, copy):
    cases, *changes = MUTATIONS[mutation]
    for name, old, new in changes:
        text = (copy / name).read_text()
        assert text.count(old) == 1, f"{name} has changed: plant the mistake anew"
        (copy / name).write_text(text.replace(old, new))
    # A mistake in the loops has them compiled anew, which takes half of the time if LLVM does not
    # optimise; that alone moves the numbers by 1e-14.
    result = call(copy, "--traces", "--cases", cases, NUMBA_OPT="0")
    assert result.returncode == 1, result.stdout + result.stderr
    found = states(result.stdout)
    print(mutation, found)
    assert set(found) == set(cases.split(","))
    for name, (deviation, state) in found.items():
        assert state == "DRIFTED", name
        # Far beyond the tolerance: a looser one would do as well.
        assert deviation > 1e5 * TOLERANCE, name
        assert re.search(rf"^{name} ", result.stdout.split("What has drifted:")[1], re.MULTILINE)
