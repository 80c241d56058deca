"""ONNX models, computed by onnxruntime, against the networks that they come from."""

import sys

import numpy
import onnx
import onnxruntime
import pytest

from chainer_sno import compact, links, onnx_export, save_onnx
from chainer_sno._import_chainer import chainer
from chainer_sno.links.mlp import ACTIVATIONS
from tests.chainer_sno.test_compact import make_dense_net, structure_of


def assert_same(path, network, *xs):
    """Compare the outputs of a model's file with those of the network, for each input."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for x in xs:
        (found,) = session.run(["y"], {"x": x})
        with chainer.using_config("train", False):
            expected = network(x).array
        assert found.dtype == expected.dtype
        scale = abs(expected).max()
        numpy.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * scale)


def shapes_of(model):
    return [
        [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    ]


@pytest.mark.parametrize("select_inputs", [False, True])
@pytest.mark.parametrize(
    ("activation", "dtype"),
    # onnxruntime has some operators in float32 alone.
    [*((name, "float32") for name in ACTIVATIONS), ("relu", "float64"), ("tanh", "float64")],
    indirect=["dtype"],
)
def test_an_mlp(select_inputs, activation, dtype, rng, tmp_path):
    link = links.MaskedMLP(6, (5, 4), 3, select_inputs, ACTIVATIONS[activation])
    for parameter in link.params():
        parameter.array[...] = rng.standard_normal(parameter.shape)
    network = compact(link, numpy.arange(len(link.costs)) % 3 > 0)
    path = tmp_path / "network.onnx"
    save_onnx(path, network)
    assert_same(path, network, *(rng.standard_normal((n, 6)).astype(dtype) for n in (1, 9)))
    model = onnx.load(path)
    assert shapes_of(model) == [["batch", 6], ["batch", 3]]
    assert model.graph.name == "MLP"
    assert model.opset_import[0].version >= 13


def test_dropout_is_gone(rng, tmp_path):
    network = links.MLP(6, (50,), 3, dropout_ratio=0.5)
    save_onnx(tmp_path / "network.onnx", network)
    assert_same(tmp_path / "network.onnx", network, rng.standard_normal((4, 6)).astype("f"))


def test_dense_nets(rng, tmp_path):
    network = make_dense_net(rng)
    structures = [rng.random((200, len(network.costs))) < 0.5]
    structures.append(numpy.ones_like(structures[0][:1]))
    by_hand = [[], [0, 1], [0], [0, 1, 2, 3]], [[], [1], [0], [0, 1, 2]], [[], [], [0], [0, 1]]
    structures.append(structure_of(*by_hand)[None])
    path = tmp_path / "network.onnx"
    images = [rng.standard_normal((n, 3, 8, w)).astype("f") for n, w in ((1, 8), (3, 4))]
    done = 0
    for structure in numpy.concatenate(structures[::-1]):
        try:
            small = compact(network, structure)
        except ValueError:
            continue
        save_onnx(path, small)
        assert_same(path, small, *images)
        done += 1
        if done == 15:
            break
    assert done == 15
    assert shapes_of(onnx.load(path)) == [["batch", 3, "height", "width"], ["batch", 5]]


def test_what_is_no_plain_network_is_refused(tmp_path):
    with pytest.raises(TypeError, match="one of MLP, CompactDenseNet, not MaskedMLP: compact it"):
        save_onnx(tmp_path / "x", links.MaskedMLP(3, (2,), 2))
    with pytest.raises(ValueError, match="cannot be saved: give one of"):
        save_onnx(tmp_path / "x", links.MLP(3, (2,), 2, activation=lambda x: x))
    assert list(tmp_path.iterdir()) == []


def test_without_onnx_one_line_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(
        ImportError, match=r"^the ONNX format needs the package onnx: run pip install onnx$"
    ):
        save_onnx(tmp_path / "x", links.MLP(3, (2,), 2))


def test_every_activation_with_a_name_has_an_operator():
    assert onnx_export.ACTIVATIONS.keys() == ACTIVATIONS.keys()
