"""Plain networks as ONNX models, for other runtimes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy

import chainer_sno
from chainer_sno._import_chainer import chainer
from chainer_sno.files import write_bytes
from chainer_sno.links import MLP, CompactDenseNet
from chainer_sno.onnx_functions import add_network
from chainer_sno.tracing import EXAMPLES

#: The version of ONNX's operators; the first whose Shape takes a part of the axes.
OPSET = 15
#: The operator of each activation that has a name, and its attributes.
ACTIVATIONS = {
    "relu": ("Relu", {}),
    "tanh": ("Tanh", {}),
    "sigmoid": ("Sigmoid", {}),
    "elu": ("Elu", {"alpha": 1.0}),
    "leaky_relu": ("LeakyRelu", {"alpha": 0.2}),
    "softplus": ("Softplus", {}),
}


def save_onnx(path: str | Path, network: Any, x_shape: Sequence[int] | None = None) -> None:
    """Write a plain network as an ONNX model, in one step.

    Args:
        path (str or pathlib.Path): the file, by custom with the ending ``.onnx``.
        network (chainer.Link): see :func:`chainer_sno.onnx_export.to_onnx`.
        x_shape (tuple of int): the shape of one example, see there.

    Raises:
        ImportError: the package onnx is not installed; the message says how to install it.
        TypeError, ValueError: see :func:`chainer_sno.onnx_export.to_onnx`.
        OSError: the file cannot be written.
    """
    write_bytes(path, to_onnx(network, x_shape).SerializeToString())


def to_onnx(network: Any, x_shape: Sequence[int] | None = None) -> Any:
    """Return a plain network as an ONNX model.

    Its input ``x`` and its output ``y`` have a first axis of any length, the mini-batch.  It
    computes what the network computes in evaluation mode, and has its dtype; few runtimes know all
    of float64.  Images of a :class:`~chainer_sno.links.CompactDenseNet` have any height and width
    that the network takes; other networks are exported from a traced call, for examples of one
    shape.

    Args:
        network (chainer.Link): from x to the outputs: a network of one's own, or what
            :func:`chainer_sno.compact` returns.
        x_shape (tuple of int): the shape of one example; needed for a network of one's own that
            does not state it as ``network.x_shape``, as the compact ones of
            :func:`chainer_sno.links.select` do.

    Returns:
        onnx.ModelProto: checked by onnx.

    Raises:
        ImportError: the package onnx is not installed; the message says how to install it.
        TypeError: it is a searchable link, or the shape is missing.
        ValueError: the activation of a MLP's units has no name; or a function that the network
            calls has no operator here, and the message names it; or what it computes depends on the
            size of the mini-batch.
    """
    try:
        import onnx
    except ImportError as error:
        raise ImportError("the ONNX format needs the package onnx: run pip install onnx") from error
    kinds = {MLP: _mlp, CompactDenseNet: _dense_net}
    graph = _Graph(onnx)
    if type(network) in kinds:
        axes, *outputs = kinds[type(network)](graph, network)
    else:
        axes = check_plain(network, x_shape)
        outputs = add_network(graph, network, axes, EXAMPLES)
        again = _Graph(onnx)
        add_network(again, network, axes, EXAMPLES + 1)
        if graph.content() != again.content():
            raise ValueError(
                f"what {type(network).__name__} computes depends on the number of examples: it "
                "must be the same for mini-batches of any size"
            )
    kind = onnx.helper.np_dtype_to_tensor_dtype(next(network.params()).dtype)
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.nodes,
            type(network).__name__,
            [onnx.helper.make_tensor_value_info("x", kind, ["batch", *axes])],
            [onnx.helper.make_tensor_value_info("y", kind, ["batch", *outputs])],
            graph.weights,
        ),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        producer_name="chainer_sno",
        producer_version=chainer_sno.__version__,
    )
    # The oldest form of the file that has these operators, for runtimes that are not of today.
    model.ir_version = onnx.helper.find_min_ir_version_for(model.opset_import)
    onnx.checker.check_model(model, full_check=True)
    return model


def check_plain(network: Any, x_shape: Any) -> list[int]:
    """Return the shape of one example of a plain network.

    Raises:
        TypeError: the network is no plain one, or the shape is missing.
    """
    name = type(network).__name__
    if not isinstance(network, chainer.Link):
        raise TypeError(f"a {name} is no chainer.Link")
    if hasattr(network, "costs"):
        raise TypeError(f"{name} is searchable, no plain network: compact it first")
    if x_shape is None:
        x_shape = getattr(network, "x_shape", None)
    if x_shape is None:
        raise TypeError(f"{name} does not state the shape of one example: give x_shape")
    return [int(n) for n in x_shape]


class _Graph:
    """The nodes and the weights of a graph as they come.

    Args:
        onnx (module): the package.
    """

    def __init__(self, onnx: Any) -> None:
        self.onnx = onnx
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def add(self, operator: Any, *inputs: Any, output: Any = None, **attributes: Any) -> Any:
        """Add a node and return the name of its output.

        Args:
            operator (str): of ONNX.
            inputs (str or array): names, and arrays that become weights of the graph.
            output (str): the name of the output, a number by default.
            attributes: of the node.
        """
        names = [each if isinstance(each, str) else self._weight(each) for each in inputs]
        output = output or f"{operator}_{len(self.nodes)}"
        node = self.onnx.helper.make_node(operator, names, [output], **attributes)
        self.nodes.append(node)
        return output

    def content(self) -> list[bytes]:
        """Return all of it, for comparison."""
        return [each.SerializeToString() for each in (*self.nodes, *self.weights)]

    def _weight(self, array: Any) -> Any:
        name = f"weight_{len(self.weights)}"
        array = array.array if isinstance(array, chainer.Variable) else array
        array = numpy.ascontiguousarray(chainer.backends.cuda.to_cpu(array))
        self.weights.append(self.onnx.numpy_helper.from_array(array, name))
        return name


def _mlp(graph: Any, network: Any) -> Any:
    """Add an MLP; return the axes of a sample and the number of outputs."""
    operator, attributes = ACTIVATIONS[network.geometry["activation"]]
    h = "x"
    if network.inputs is not None:
        columns = chainer.backends.cuda.to_cpu(network.inputs).astype(numpy.int64)
        h = graph.add("Gather", h, columns, axis=1)
    *hidden, last = network.layers
    for layer in hidden:
        h = graph.add("Gemm", h, layer.W, layer.b, transB=1)
        h = graph.add(operator, h, **attributes)
    graph.add("Gemm", h, last.W, last.b, transB=1, output="y")
    return [network.columns], network.widths[-1]


def _dense_net(graph: Any, network: Any) -> Any:
    """Add a compact DenseNet; return the axes of an image and the number of outputs."""
    h = graph.add("Conv", "x", network.stem.W, pads=[1] * 4)
    for block in network.blocks:
        features = [h]
        *layers, exit_ = block
        ones = _ones(graph, h, network) if any(layer.ones for layer in layers) else None
        for layer in layers:
            taken = [_activations(graph, features, layer)] if layer.channels else []
            taken += [ones] if layer.ones else []
            taken = graph.add("Concat", *taken, axis=1) if len(taken) > 1 else taken[0]
            features.append(graph.add("Conv", taken, layer.conv.W, pads=[1] * 4))
        h = _activations(graph, features, exit_)
        if hasattr(exit_, "conv"):
            h = graph.add("AveragePool", h, kernel_shape=[2, 2], strides=[2, 2])
            bias = [exit_.conv.b] if exit_.ones else []
            h = graph.add("Conv", h, exit_.conv.W, *bias)
    h = graph.add("Flatten", graph.add("GlobalAveragePool", h))
    graph.add("Gemm", h, exit_.classifier.W, exit_.classifier.b, transB=1, output="y")
    geometry = network.geometry
    return [geometry["in_channels"], "height", "width"], geometry["classes"]


def _activations(graph: Any, features: Any, consumer: Any) -> Any:
    """Add BN and ReLU of the feature maps that a consumer takes."""
    taken = [features[i] for i in consumer.sources]
    h = graph.add("Concat", *taken, axis=1) if len(taken) > 1 else taken[0]
    norm = consumer.norm
    statistics = (norm.gamma, norm.beta, norm.avg_mean, norm.avg_var)
    return graph.add("Relu", graph.add("BatchNormalization", h, *statistics, epsilon=norm.eps))


def _ones(graph: Any, h: Any, network: Any) -> Any:
    """Add a channel that is 1 everywhere, as large as a feature map."""
    batch, image = graph.add("Shape", h, start=0, end=1), graph.add("Shape", h, start=2)
    shape = graph.add("Concat", batch, numpy.array([1]), image, axis=0)
    one = graph.onnx.numpy_helper.from_array(numpy.ones(1, network.stem.W.dtype))
    return graph.add("ConstantOfShape", shape, value=one)
