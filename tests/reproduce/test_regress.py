"""regress fails when the method is changed, and only then."""

import json
import os
import re
import shutil
import subprocess
import sys

import numpy
import pytest

from reproduce import ROOT, ReproduceError, cli, regress
from reproduce.experiments.unit_selection import UnitSelection

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
            "kind(self._lr), kind(self.bias_decay)",
            "kind(self._lr), kind(0)",
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
            "    through[1, channel] += gamma[j] * total * inverse\n",
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


def call(root, *options):
    """Run regress in a tree of its own; return the process."""
    environment = {**os.environ, "PYTHONPATH": str(root)}
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
    assert set(found) == set(regress.TRACES)
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
    result = call(copy, "--traces", "--cases", cases)
    assert result.returncode == 1, result.stdout + result.stderr
    found = states(result.stdout)
    print(mutation, found)
    assert set(found) == set(cases.split(","))
    for name, (deviation, state) in found.items():
        assert state == "DRIFTED", name
        # Far beyond the tolerance: a looser one would do as well.
        assert deviation > 1e5 * regress.TOLERANCE, name
        assert re.search(rf"^{name} ", result.stdout.split("What has drifted:")[1], re.MULTILINE)


def test_the_baselines_are_those_of_the_cases():
    for name, case in {**regress.TRACES, **regress.RUNS}.items():
        content = regress.read(name, regress.BASELINES)
        assert content["settings"] == case.settings.as_dict(), name
        assert {"versions", "machine"} <= set(content)
    files = list(regress.BASELINES.iterdir())
    assert {path.stem for path in files} == {*regress.TRACES, *regress.RUNS}
    assert sum(path.stat().st_size for path in files) < 200_000


@pytest.fixture
def baseline(tmp_path):
    """A copy of one baseline, and a function that changes it."""
    path = tmp_path / "units-fixed.json"
    shutil.copy(regress.BASELINES / path.name, path)

    def change(function):
        content = json.loads(path.read_text())
        function(content)
        path.write_text(json.dumps(content))

    return path, change


def held_against(path, *options):
    """Hold the case of a baseline against it in this process; return the exit code."""
    return cli.main(
        ["regress", "--traces", "--cases", path.stem, "--baselines", str(path.parent), *options]
    )


def damage(content):
    content["numbers"]["losses"] = "many"


@pytest.mark.parametrize(
    ("do", "message"),
    [
        (lambda path, change: path.unlink(), "there is no baseline"),
        (lambda path, change: path.write_text(path.read_text()[:300]), "is damaged"),
        (lambda path, change: path.write_text("[]"), "is damaged"),
        (lambda path, change: change(damage), "is damaged"),
        (lambda path, change: change(lambda c: c["numbers"].pop("losses")), "is damaged"),
        (lambda path, change: change(lambda c: c.update(schema=0)), "has schema 0, not 1"),
        (
            lambda path, change: change(lambda c: c.update(case="units")),
            "is the baseline of 'units'",
        ),
    ],
)
def test_a_baseline_of_no_use_gets_one_line(do, message, baseline, capsys):
    path, change = baseline
    do(path, change)
    assert held_against(path) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert str(path) in captured.err
    assert "regress --update --cases units-fixed" in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--cases", "units,unicorns"), "there is no case 'unicorns': give some of units, "),
        (("--cases", "run-units", "--traces"), "none of the --cases"),
    ],
)
def test_unknown_cases_get_one_line(options, message, capsys):
    assert cli.main(["regress", *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_machine_does_not_matter_but_a_number_and_a_setting_do(baseline, capsys):
    path, change = baseline
    change(lambda content: content.update(machine={"processor": "abacus"}, versions={}))
    assert held_against(path) == 0
    change(lambda content: content["settings"].update(momentum=0.8))
    assert held_against(path) == 1
    assert re.search("setting momentum +0.9 +0.8 +equal", capsys.readouterr().out)

    def move(content):
        content["settings"]["momentum"] = 0.9
        content["numbers"]["losses"][4][0] += 1e-8

    change(move)
    assert held_against(path) == 1
    assert "losses, iteration 5" in capsys.readouterr().out


def test_update_writes_the_baseline_and_shows_the_difference(baseline, capsys):
    path, change = baseline
    before = json.loads(path.read_text())
    change(lambda content: content["numbers"]["losses"].reverse())
    assert held_against(path, "--update") == 0
    assert "losses, iteration 1" in capsys.readouterr().out
    after = json.loads(path.read_text())
    assert [*after] == [*before]
    assert after["settings"] == before["settings"]
    assert held_against(path) == 0
    assert held_against(path, "--update") == 0
    assert re.search(r"^units-fixed +\S+ +nothing$", capsys.readouterr().out, re.MULTILINE)
    path.unlink()
    assert held_against(path, "--update") == 0
    assert "no baseline" in capsys.readouterr().out
    assert held_against(path) == 0


def test_losses_that_roundings_could_rank_make_no_baseline(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(regress, "MARGIN", 1.0)
    path = tmp_path / "units.json"
    assert held_against(path, "--update") == 2
    assert "give the case another seed" in capsys.readouterr().err
    assert not path.exists()


def test_closest_looks_at_structures_that_differ():
    structures = numpy.array([[1, 0], [0, 1], [1, 0]], bool)
    losses = numpy.array([2.0, 1.0, 2.0])
    assert regress.closest(losses, structures) == 0.5
    assert regress.closest(losses, structures[[0, 1, 1]]) == 0
    assert regress.closest(losses, structures[[0, 0, 0]]) == numpy.inf


def test_a_fingerprint_sees_every_element(rng):
    array = rng.normal(size=(7, 5))
    for i in range(35):
        other = array.copy()
        other.flat[i] += 1e-6
        assert (
            max(abs(numpy.subtract(regress.fingerprint(array), regress.fingerprint(other)))) > 1e-9
        )
    assert regress.fingerprint(array)[1] != pytest.approx(regress.fingerprint(array[::-1])[1])


@pytest.mark.parametrize(
    ("value", "beyond"), [(1e-10, False), (2e-9, True), (numpy.nan, True), (numpy.inf, True)]
)
def test_hold_is_as_tolerant_as_it_says(value, beyond):
    expected = {"losses": numpy.array([[1.0], [0.5]])}
    largest, rows = regress.hold({"losses": [[1.0], [0.5 + value]]}, expected)
    assert (largest > 1) == beyond
    assert [row[0] for row in rows] == ["losses, iteration 2"] * beyond
    assert regress.hold({}, expected)[1]
    assert regress.hold({"losses": [[1.0]]}, expected)[1]


def test_a_band_is_as_wide_as_it_says(monkeypatch):
    monkeypatch.setattr(regress, "AGAIN", 3)
    half = regress.WIDTH * (2 / 3) ** 0.5
    assert regress.band([1.0, 2.0, 3.0]) == pytest.approx((2 - half, 2 + half))
    low, high = regress.band([41.0] * 12)
    assert low < 41 < high < 41.001


def test_short_runs_are_held_against_the_band_of_their_seeds(tmp_path, monkeypatch, capsys):
    settings = UnitSelection(
        epsilon0=-1.0, epochs=1, units=6, layers=2, examples=640, test_examples=200, eta_factor=2
    )
    monkeypatch.setattr(regress, "RUNS", {"small": regress.Case(settings)})
    monkeypatch.setattr(regress, "SEEDS", 3)
    options = ["regress", "--cases", "small", "--baselines", str(tmp_path)]
    assert cli.main([*options, "--update"]) == 0
    content = json.loads((tmp_path / "small.json").read_text())
    assert {"test_error", "usage_rate", "units 1", "units 2"} <= set(content["numbers"])
    capsys.readouterr()
    monkeypatch.setattr(regress, "AGAIN", 1)
    assert cli.main(options) == 0
    printed = capsys.readouterr().out
    first = content["numbers"]["test_error"][0]
    assert re.search(rf"^small +test_error +{first:.4g} .* held$", printed, re.MULTILINE)
    # The same seed gives the same bits, so there is no need to train again.
    found = {"small": [{name: values[0] for name, values in content["numbers"].items()}]}
    monkeypatch.setattr(regress, "_train", lambda *arguments: (found, {}))
    found["small"][0]["usage_rate"] = -1
    assert cli.main(options) == 1
    assert "usage_rate" in capsys.readouterr().out.split("What has drifted:")[1]
    failed = {"small": "it was killed by SIGKILL"}
    monkeypatch.setattr(regress, "_train", lambda *arguments: ({"small": []}, failed))
    assert cli.main(options) == 1
    assert "failed: it was killed" in capsys.readouterr().out
    with pytest.raises(ReproduceError, match="small failed: it was killed"):
        regress.regress(tmp_path, ["small"], update=True)
