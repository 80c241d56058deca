"""ONNX models, computed by onnxruntime, against the networks that they come from."""

import sys

import numpy
import onnx
import onnxruntime
import pytest

from chainer_sno import chainer, compact, links, onnx_export, save_onnx
from chainer_sno.links.mlp import ACTIVATIONS
from tests.chainer_sno.networks import NETWORKS, SHAPE
from tests.chainer_sno.test_compact import make_dense_net, structure_of
from tests.chainer_sno.test_select import make

F = chainer.functions


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
    with pytest.raises(TypeError, match="MaskedMLP is searchable, no plain network: compact it"):
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


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_of_ones_own(name, rng, tmp_path):
    numpy.random.seed(0)
    link = make(name, rng)
    structure = rng.random(link.d) < 0.6
    for group in link.groups.values():
        structure[group.start] = True
    path = tmp_path / "network.onnx"
    batches = [rng.standard_normal((n, *SHAPE)).astype("f") for n in (1, 7)]
    for network, arguments in [
        (compact(link, structure, reestimate=0), ()),
        (link.network, (SHAPE,)),
    ]:
        before = network.copy("copy")
        save_onnx(path, network, *arguments)
        assert_same(path, network, *batches)
        for (name, p), (_, q) in zip(before.namedparams(), network.namedparams()):
            numpy.testing.assert_array_equal(p.array, q.array, name)
    model = onnx.load(path)
    assert shapes_of(model) == [["batch", *SHAPE], ["batch", 4]]


ONE, TWO = numpy.float32(1.5), numpy.arange(6, dtype="f")
FUNCTIONS = {
    "arithmetic": lambda x: (2 - x) / (3 + x * x) + 1 / (abs(x) + 1.5) - (-x) ** 2,
    "pow": lambda x: (abs(x) + 1) ** 1.5,
    "constants": lambda x: x * TWO[:, None, None] + ONE,
    "activations": lambda x: F.elu(x, 0.5) + F.leaky_relu(x, 0.3) + F.hard_sigmoid(x) + F.selu(x),
    "softplus": lambda x: F.softplus(x, 2.0) + F.softplus(x),
    "clip": lambda x: F.clip(x, -0.5, 0.8) + F.clipped_relu(x, 0.7),
    "functions": lambda x: F.exp(x) + F.log(abs(x) + 1) + F.sqrt(F.square(x)) + F.absolute(x),
    "maximum": lambda x: F.maximum(x, 0.5 * x) + F.minimum(x, 2 * x),
    "many": lambda x: F.add(x, x, F.tanh(x)),
    "softmax": lambda x: F.softmax(x) + F.log_softmax(x, axis=2) + F.softmax(x, axis=-1),
    "shapes": lambda x: F.squeeze(F.expand_dims(F.transpose(x, (0, 2, -1, 1)), 1), 1),
    "reshape": lambda x: F.reshape(x, (len(x), 3, 2, 8, 5)),
    "slices": lambda x: x[:, 1:5:2, None, ..., 3] + x[:, 0, -1, 2:3, None, None],
    "reductions": lambda x: (
        F.sum(x, axis=1)
        + F.mean(x, axis=(1,), keepdims=True)[:, 0]
        + F.max(x, axis=-3)
        + F.min(x, axis=1)
    ),
    "broadcast": lambda x: x + F.broadcast_to(F.sum(x, axis=(2, 3), keepdims=True), x.shape),
    "padded pooling": lambda x: (
        F.max_pooling_2d(x, (3, 2), (2, 1), 1)
        + F.max_pooling_2d(x, (3, 2), (2, 1), 1, cover_all=True)
    ),
    "floor": lambda x: F.max_pooling_2d(x, 3, 2, cover_all=False),
    "cover all": lambda x: F.max_pooling_2d(x, 3, 2),
    "average": lambda x: F.average_pooling_2d(x, (3, 2), 2, (1, 0)),
    "lrn": lambda x: F.local_response_normalization(x),
    "matmul": lambda x: F.matmul(x, F.transpose(x, (0, 1, 3, 2))),
    "strided": lambda x: F.convolution_2d(
        x, numpy.ones((4, 3, 3, 3), "f"), TWO[:4], (2, 1), (1, 2), dilate=(1, 2), groups=2
    ),
}


class Calls(chainer.Chain):
    """A network of functions."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        with self.init_scope():
            self.scale = chainer.Parameter(1.0, (1,))

    def forward(self, x):
        return self.function(x * F.broadcast_to(self.scale, x.shape))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name, rng, tmp_path):
    network = Calls(FUNCTIONS[name])
    path = tmp_path / "network.onnx"
    save_onnx(path, network, (6, 8, 5))
    assert_same(path, network, *(rng.standard_normal((n, 6, 8, 5)).astype("f") for n in (1, 7)))


def test_what_has_no_operator_is_named(tmp_path):
    path = tmp_path / "network.onnx"
    for function, message in [
        (lambda x: F.cumsum(x, axis=1), "the function Cumsum has no ONNX operator"),
        (lambda x: x[[0]], "GetItem .* with an index that is a list"),
        (lambda x: x[:1], "GetItem .* of a part of the mini-batch"),
        (lambda x: x[:, ::-1], "GetItem .* with a negative step"),
        (lambda x: F.sum(x), "are not one for each example"),
        (lambda x: chainer.Variable(x.array), "are not one for each example"),
        (lambda x: x / len(x), "depends on the number of examples"),
        (lambda x: F.reshape(x, (-1, 3)), "are not one for each example"),
        (lambda x: (x, x), "returns a tuple"),
    ]:
        with pytest.raises(ValueError, match=message):
            save_onnx(path, Calls(function), (6,))
    with pytest.raises(TypeError, match="Calls does not state the shape .* give x_shape"):
        save_onnx(path, Calls(F.relu))
    with pytest.raises(TypeError, match=r"no chainer\.Link"):
        save_onnx(path, F.relu)
    with pytest.raises(TypeError, match="SelectedNetwork is searchable"):
        save_onnx(path, make("mlp"))
    assert list(tmp_path.iterdir()) == []
