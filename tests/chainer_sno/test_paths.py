"""What Chainer's extensions see on the plain and on the accelerated paths."""

import io
import json

import numpy
import pytest

from chainer_sno import chainer, links, pass_arrays
from chainer_sno import extensions as own
from chainer_sno.updater import StructureUpdater
from tests.chainer_sno.cuda.conftest import needs_compiler
from tests.chainer_sno.cuda.emulator import Emulator
from tests.chainer_sno.fast import test_updaters as fast
from tests.chainer_sno.graph import test_updaters as graph

ITERATIONS = 30
stock = chainer.training.extensions


def captured():
    """Train on the emulator of a GPU what :func:`captured_plain` trains."""
    platform = Emulator, chainer.get_device("@numpy")
    return next(graph.cases(platform))()


def captured_plain():
    link = links.MaskedMLP(*graph.WIDTHS, initialW=graph.initialW())
    platform = None, chainer.get_device("@numpy")
    return StructureUpdater(
        graph.unit_iterator(platform),
        graph.optimizer_of(link),
        graph.bernoulli_of(link),
        converter=pass_arrays,
    )


PATHS = {
    "units": (
        lambda: fast.structure_updater(fast.FastStructureUpdater),
        lambda: fast.structure_updater(StructureUpdater),
    ),
    "fixed": (
        lambda: fast.standard_updater(fast.FastUpdater, 0.5),
        lambda: reporting(fast.standard_updater(chainer.training.updaters.StandardUpdater, 0.5)),
    ),
    "captured": (captured, captured_plain),
}
paths = pytest.mark.parametrize(
    "path", [pytest.param(p, marks=needs_compiler if p == "captured" else ()) for p in PATHS]
)


def reporting(updater):
    """Let the loss function of a plain training report, as Chainer's Classifier does."""
    link, loss_func = updater.get_optimizer("main").target, updater.loss_func

    def reported(x, t):
        loss = loss_func(x, t)
        chainer.report({"loss": loss}, link)
        return loss

    updater.loss_func = reported
    return updater


def trainer_of(updater, path, out, iterations=ITERATIONS):
    """Return a trainer with the extensions that Chainer's examples have, and then some."""
    trainer = chainer.training.Trainer(updater, (iterations, "iteration"), str(out))
    link = updater.get_optimizer("main").target
    # An accelerated iteration on a GPU reports its loss when it is asked to.
    every = (1, "iteration")
    if path == "captured":
        trainer.extend(own.Synchronise(), trigger=every)
    trainer.extend(stock.observe_lr(), trigger=every)
    trainer.extend(
        stock.observe_value("optimizer_t", lambda t: t.updater.get_optimizer("main").t),
        trigger=every,
    )
    trainer.extend(
        stock.observe_value("optimizer_epoch", lambda t: t.updater.get_optimizer("main").epoch),
        trigger=every,
    )
    trainer.extend(
        stock.observe_value("rule_t", lambda t: next(link.params()).update_rule.t), trigger=every
    )
    trainer.extend(
        stock.ParameterStatistics(link, report_grads=False, trigger=every), trigger=every
    )
    trainer.extend(stock.FailOnNonNumber())
    trainer.extend(stock.ExponentialShift("lr", 0.5), trigger=(7, "iteration"))
    trainer.extend(
        stock.snapshot_object(link, "link-{.updater.iteration}"), trigger=(11, "iteration")
    )
    trainer.extend(
        stock.snapshot_object(updater.get_optimizer("main"), "optimizer-{.updater.iteration}"),
        trigger=(11, "iteration"),
    )
    trainer.extend(stock.LogReport(trigger=every))
    trainer.extend(stock.PrintReport(["iteration", "main/loss", "lr"], out=io.StringIO()))
    return trainer


def close(found, expected, name):
    numpy.testing.assert_allclose(found, expected, 2e-3, 2e-5, err_msg=name)


def compare_logs(found, expected):
    logs = [json.loads((out / "log").read_text()) for out in (found, expected)]
    assert len(logs[0]) == len(logs[1])
    for entry, other in zip(*logs):
        assert entry.keys() == other.keys()
        assert "main/loss" in entry
        for name in entry.keys() - {"elapsed_time"}:
            if "zeros" not in name:
                close(entry[name], other[name], name)


def compare_files(found, expected):
    names = {path.name for path in expected.iterdir()}
    assert {path.name for path in found.iterdir()} == names
    for name in names - {"log"}:
        with numpy.load(found / name) as a, numpy.load(expected / name) as b:
            assert sorted(a.files) == sorted(b.files), name
            for key in a.files:
                close(a[key], b[key], f"{name} {key}")


@paths
def test_extensions_see_the_same(path, tmp_path, monkeypatch):
    outs = tmp_path / "found", tmp_path / "expected"
    updaters = [make() for make in PATHS[path]]
    if path == "captured":  # CuPy's and NumPy's random numbers differ
        follow(*updaters, monkeypatch)
    for updater, out in zip(updaters, outs):
        trainer_of(updater, path, out).run()
    compare_logs(*outs)
    compare_files(*outs)


def follow(found, expected, monkeypatch):
    """Let the plain updater draw the structures of the captured one."""
    drawn = []
    run = found.captured.run

    def noted():
        run()
        drawn.append(found.captured.network.structures.astype(bool))

    monkeypatch.setattr(found.captured, "run", noted)
    monkeypatch.setattr(expected.bernoulli, "sample", lambda samples: drawn.pop(0))


@pytest.mark.parametrize("path", ["units", "fixed"])
def test_a_resumed_training_sees_the_same(path, tmp_path):
    """The epochs of the optimizer, and a schedule that goes on from the constructor's rate."""
    outs = []
    for kind, make in zip(("found", "expected"), PATHS[path]):
        first = trainer_of(make(), path, tmp_path / kind, 20)
        first.run()
        file = io.BytesIO()
        chainer.serializers.save_npz(file, first)
        file.seek(0)
        second = trainer_of(make(), path, tmp_path / f"{kind}-resumed")
        chainer.serializers.load_npz(file, second)
        second.run()
        whole = trainer_of(make(), path, tmp_path / f"{kind}-whole")
        whole.run()
        optimizers = [trainer.updater.get_optimizer("main") for trainer in (second, whole)]
        assert optimizers[0].epoch == optimizers[1].epoch == ITERATIONS * 16 // 200
        assert optimizers[0].lr == optimizers[1].lr == 0.05 / 2**4
        outs.append(tmp_path / f"{kind}-resumed")
    compare_logs(*outs)


def test_a_snapshot_that_does_not_say_the_epoch():
    updater = fast.structure_updater(fast.FastStructureUpdater)
    fast.train([updater], 30)
    file = io.BytesIO()
    chainer.serializers.save_npz(file, updater)
    file.seek(0)
    with numpy.load(file) as content:
        old = {name: content[name] for name in content.files if not name.endswith("engine/epoch")}
        assert len(old) == len(content.files) - 1
    file = io.BytesIO()
    numpy.savez(file, **old)
    file.seek(0)
    again = fast.structure_updater(fast.FastStructureUpdater)
    chainer.serializers.load_npz(file, again)
    assert again.get_optimizer("main").epoch == updater.get_optimizer("main").epoch == 2


@pytest.mark.parametrize("path", ["units", "captured"])
def test_dump_graph_draws_the_plain_path(path, tmp_path):
    updater = PATHS[path][1]()
    trainer = chainer.training.Trainer(updater, (2, "iteration"), str(tmp_path))
    trainer.extend(stock.DumpGraph("main/loss"))
    trainer.extend(stock.LogReport(trigger=(1, "iteration")))
    trainer.run()
    graph = (tmp_path / "cg.dot").read_text()
    assert graph.startswith("digraph")
    assert "LinearFunction" in graph
    assert "MaskUnits" in graph
    # The number is the same as without.
    plain = PATHS[path][1]()
    again = chainer.training.Trainer(plain, (2, "iteration"), str(tmp_path / "again"))
    again.extend(stock.LogReport(trigger=(1, "iteration")))
    again.run()
    logs = [json.loads((out / "log").read_text()) for out in (tmp_path, tmp_path / "again")]
    assert [e["main/loss"] for e in logs[0]] == [e["main/loss"] for e in logs[1]]


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda link: stock.DumpGraph("main/loss"), "a computational graph"),
        (lambda link: stock.ParameterStatistics(link), "gradients"),
        (lambda link: stock.VariableStatisticsPlot(link), "gradients"),
    ],
)
@paths
def test_what_needs_a_graph_or_gradients_is_refused_before_the_training(
    path, make, named, tmp_path
):
    updater = PATHS[path][0]()
    trainer = chainer.training.Trainer(updater, (2, "iteration"), str(tmp_path))
    trainer.extend(make(updater.get_optimizer("main").target), name="theirs")
    with (
        chainer.using_config("keep_graph_on_report", False),
        pytest.raises(ValueError, match=f"the extension theirs needs {named}"),
    ):
        trainer.run()
    assert updater.iteration == 0


@paths
def test_an_evaluation_mode_is_refused(path):
    updater = PATHS[path][0]()
    with (
        chainer.using_config("train", False),
        pytest.raises(ValueError, match="chainer.config.train is False"),
    ):
        updater.update()


def test_synchronise_of_a_plain_updater_does_nothing(tmp_path):
    updater = PATHS["units"][1]()
    trainer = chainer.training.Trainer(updater, (2, "iteration"), str(tmp_path))
    trainer.extend(own.Synchronise(), trigger=(1, "iteration"))
    trainer.run()
    assert updater.iteration == 2
