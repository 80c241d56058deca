"""Chainer's functions as ONNX operators, for networks that are exported from a traced call."""

from collections.abc import Callable
from typing import Any

import numpy

from chainer_sno.tracing import Step, Trace, example_batch, name_of, on_cpu

#: Functions of one or more inputs whose operator has another name, but no attributes.
RENAMED = {
    "Absolute": "Abs",
    "Add": "Add",
    "Div": "Div",
    "Exp": "Exp",
    "Identity": "Identity",
    "Log": "Log",
    "Maximum": "Max",
    "Minimum": "Min",
    "Mul": "Mul",
    "MultiAdd": "Sum",
    "Neg": "Neg",
    "ReLU": "Relu",
    "Sigmoid": "Sigmoid",
    "Sqrt": "Sqrt",
    "Sub": "Sub",
    "Tanh": "Tanh",
}
#: The operators of functions with a number, and whether the number comes first.
WITH_NUMBER = {
    "AddConstant": ("Add", False),
    "DivFromConstant": ("Div", True),
    "MulConstant": ("Mul", False),
    "PowVarConst": ("Pow", False),
    "SubFromConstant": ("Sub", True),
}


class Call:
    """One call of a function, as it becomes operators.

    Args:
        graph (chainer_sno.onnx_export._Graph): gets them.
        step (Step): the call.
        inputs (list): names in the graph; arrays of what does not depend on the mini-batch.
        arrays (list of array): the values of the inputs in the trace.
        examples (int): the size of the mini-batch of the trace.
    """

    def __init__(self, graph: Any, step: Step, inputs: Any, arrays: Any, examples: int) -> None:
        self.graph = graph
        self.step = step
        self.function = step.node
        self.inputs = inputs
        self.arrays = arrays
        self.shape = tuple(step.outputs[0].shape)
        self.examples = examples

    def add(self, operator: str, *inputs: Any, **attributes: Any) -> Any:
        """Add an operator and return the name of its output."""
        return self.graph.add(operator, *inputs, **attributes)

    def narrow(self, value: Any) -> Any:
        """Return an array that is the same for all examples as one for any number of them."""
        if isinstance(value, str) or value.ndim < len(self.shape):
            return value
        if self.over_examples(value.shape) and (value == value[:1]).all():
            return value[:1]
        return value

    def number(self, value: Any) -> Any:
        """Return a number of the dtype of the first input."""
        return numpy.asarray(value, dtype=self.arrays[0].dtype)

    def over_examples(self, shape: tuple[int, ...]) -> bool:
        """Return whether the first axis of a shape is the mini-batch."""
        return bool(shape) and shape[0] == self.examples

    def unknown(self, what: str = "") -> ValueError:
        """Return the error that names the function."""
        where = f" in {self.step.path}" if self.step.path else ""
        return ValueError(
            f"the function {name_of(self.function)}{where} has no ONNX operator here{what}: "
            "replace it by functions that have, or leave it out of the network"
        )


def _linear(call: Call) -> Any:
    return call.add("Gemm", *call.inputs, transB=1)


def _convolution(call: Call) -> Any:
    f = call.function
    if f.cover_all:
        raise call.unknown(" with cover_all")
    return call.add(
        "Conv",
        *call.inputs,
        kernel_shape=list(call.arrays[1].shape[2:]),
        strides=[f.sy, f.sx],
        pads=[f.ph, f.pw] * 2,
        dilations=[f.dy, f.dx],
        group=f.groups,
    )


def _batch_normalization(call: Call) -> Any:
    if tuple(call.function.key_axis) != (1,):
        raise call.unknown(" but for one mean a channel")
    return call.add("BatchNormalization", *call.inputs, epsilon=float(call.function.eps))


def _windows(f: Any) -> tuple[list[int], list[int], list[int]]:
    """Return sizes, strides and paddings of a pooling, of either of Chainer's kinds."""
    if hasattr(f, "ksize"):
        return list(f.ksize), list(f.stride), list(f.pad)
    return [f.kh, f.kw], [f.sy, f.sx], [f.ph, f.pw]


def _max_pooling(call: Call) -> Any:
    sizes, strides, pads = _windows(call.function)
    ends = []
    for size, out, k, s, p in zip(call.arrays[0].shape[2:], call.shape[2:], sizes, strides, pads):
        # So much beyond the image that the last window fits, as Chainer's cover_all has it.
        ends.append(max(p, (out - 1) * s + k - size - p))
        if ends[-1] >= k:
            raise call.unknown(" with a window that sees nothing of the image")
    return call.add(
        "MaxPool",
        call.inputs[0],
        kernel_shape=sizes,
        strides=strides,
        pads=[*pads, *ends],
    )


def _average_pooling(call: Call) -> Any:
    sizes, strides, pads = _windows(call.function)
    outside = getattr(call.function, "pad_value", 0)
    if outside not in (0, None):
        raise call.unknown(f" with pad_value {outside}")
    return call.add(
        "AveragePool",
        call.inputs[0],
        kernel_shape=sizes,
        strides=strides,
        pads=pads * 2,
        count_include_pad=int(outside == 0),
    )


def _reshape(call: Call) -> Any:
    before, after = tuple(call.arrays[0].shape), list(call.shape)
    if call.over_examples(before) and call.over_examples(call.shape):
        after[0] = 0  # as it is
    return call.add("Reshape", call.inputs[0], numpy.array(after, dtype=numpy.int64))


def _broadcast(call: Call) -> Any:
    before, after = tuple(call.arrays[0].shape), list(call.shape)
    if len(before) == len(after) and call.over_examples(before):
        after[0] = 1  # as it is
    return call.add("Expand", call.inputs[0], numpy.array(after, dtype=numpy.int64))


def _get_item(call: Call) -> Any:
    ndim = call.arrays[0].ndim
    slices = list(call.function.slices)
    taken = sum(each is not None and each is not Ellipsis for each in slices)
    if Ellipsis in slices:
        at = slices.index(Ellipsis)
        slices[at : at + 1] = [slice(None)] * (ndim - taken)
    h, axis, dropped = call.inputs[0], 0, []
    for each in [one for one in slices if one is not None]:
        n = call.arrays[0].shape[axis]
        if isinstance(each, (int, numpy.integer)):
            start, stop, step = int(each) % n, int(each) % n + 1, 1
            dropped.append(axis)
        elif isinstance(each, slice):
            start, stop, step = each.indices(n)
            if step < 0:
                raise call.unknown(" with a negative step")
        else:
            raise call.unknown(f" with an index that is a {type(each).__name__}")
        if (start, stop, step) != (0, n, 1):
            if axis == 0:
                raise call.unknown(" of a part of the mini-batch")
            bounds = (numpy.array([value], dtype=numpy.int64) for value in (start, stop))
            axes, steps = (numpy.array([value], dtype=numpy.int64) for value in (axis, step))
            h = call.add("Slice", h, *bounds, axes, steps)
        axis += 1
    if dropped:
        h = call.add("Squeeze", h, numpy.array(dropped, dtype=numpy.int64))
    added, place = [], 0
    for each in slices:
        if each is None:
            added.append(place)
        place += not isinstance(each, (int, numpy.integer))
    if added:
        h = call.add("Unsqueeze", h, numpy.array(added, dtype=numpy.int64))
    return h


def _transpose(call: Call) -> Any:
    axes = call.function.axes
    ndim = call.arrays[0].ndim
    axes = range(ndim)[::-1] if axes is None else [axis % ndim for axis in axes]
    return call.add("Transpose", call.inputs[0], perm=list(axes))


def _reduce(call: Call) -> Any:
    f, x = call.function, call.arrays[0]
    axes = range(x.ndim) if f.axis is None else f.axis
    axes = [axis % x.ndim for axis in (axes if not isinstance(axes, int) else (axes,))]
    operator, keep = f"Reduce{name_of(f)}", int(f.keepdims)
    if operator == "ReduceSum":  # the first that takes its axes as an input
        axes = numpy.array(axes, dtype=numpy.int64)
        return call.add(operator, call.inputs[0], axes, keepdims=keep)
    return call.add(operator, call.inputs[0], axes=axes, keepdims=keep)


def _prelu(call: Call) -> Any:
    x, W = call.arrays
    slope = W.reshape(*W.shape, *[1] * (x.ndim - 1 - W.ndim))
    return call.add("PRelu", call.inputs[0], slope)


def _softplus(call: Call) -> Any:
    beta = call.function.beta
    if beta == 1:
        return call.add("Softplus", call.inputs[0])
    h = call.add("Softplus", call.add("Mul", call.inputs[0], call.number(beta)))
    return call.add("Mul", h, call.number(1 / beta))


def _concat(call: Call) -> Any:
    return call.add("Concat", *call.inputs, axis=call.function.axis % len(call.shape))


def _axis(operator: str) -> Callable[[Call], Any]:
    def add(call: Call) -> Any:
        return call.add(operator, call.inputs[0], axis=call.function.axis % len(call.shape))

    return add


def _lrn(call: Call) -> Any:
    f = call.function
    return call.add(
        "LRN",
        call.inputs[0],
        size=f.n,
        bias=float(f.k),
        alpha=float(f.alpha * f.n),  # ONNX divides it by the size
        beta=float(f.beta),
    )


def _clip(call: Call) -> Any:
    f = call.function
    low, high = (0, f.cap) if hasattr(f, "cap") else (f.x_min, f.x_max)
    bounds = ["" if value is None else call.number(value) for value in (low, high)]
    return call.add("Clip", call.inputs[0], *bounds)


def _matmul(call: Call) -> Any:
    f = call.function
    if any(getattr(f, name, False) for name in ("transa", "transb", "transc")):
        raise call.unknown(" with a transposition")
    return call.add("MatMul", *call.inputs)


#: What becomes of a function, by the name of its class.
FUNCTIONS: dict[str, Callable[[Call], Any]] = {
    "AveragePooling2D": _average_pooling,
    "AveragePoolingND": _average_pooling,
    "BroadcastTo": _broadcast,
    "Clip": _clip,
    "ClippedReLU": _clip,
    "Concat": _concat,
    "Convolution2DFunction": _convolution,
    "ELU": lambda call: call.add("Elu", call.inputs[0], alpha=call.function.alpha),
    "ExpandDims": _reshape,
    "FixedBatchNormalization": _batch_normalization,
    "GetItem": _get_item,
    "HardSigmoid": lambda call: call.add("HardSigmoid", call.inputs[0], alpha=0.2, beta=0.5),
    "LeakyReLU": lambda call: call.add(
        "LeakyRelu", call.inputs[0], alpha=float(call.function.slope)
    ),
    "LinearFunction": _linear,
    "LocalResponseNormalization": _lrn,
    "LogSoftmax": _axis("LogSoftmax"),
    "MatMul": _matmul,
    "Max": _reduce,
    "MaxPooling2D": _max_pooling,
    "MaxPoolingND": _max_pooling,
    "Mean": _reduce,
    "Min": _reduce,
    "PReLUFunction": _prelu,
    "Reshape": _reshape,
    "Softmax": _axis("Softmax"),
    "Softplus": _softplus,
    "Square": lambda call: call.add("Mul", call.inputs[0], call.inputs[0]),
    "Squeeze": _reshape,
    "Sum": _reduce,
    "Transpose": _transpose,
}


def add_network(graph: Any, network: Any, x_shape: Any, examples: int) -> list[Any]:
    """Add a plain network to a graph, from ``x`` to ``y``, as a traced call computes it.

    Args:
        graph (chainer_sno.onnx_export._Graph): gets the nodes and the weights.
        network (chainer.Link): from x to outputs; it stays as it is.
        x_shape (tuple of int): the shape of one example.
        examples (int): the size of the mini-batch that is traced.

    Returns:
        list of int: the axes of one example's output.

    Raises:
        ValueError: a function has no operator here, or the network cannot be called with x.
    """
    network = on_cpu(network)
    trace = Trace(network, example_batch(network, x_shape, examples), values=True)
    names = {id(trace.x): "x"}
    for step in trace.steps:
        arrays = trace.values[id(step.node)]
        # What does not depend on the mini-batch is computed by now.
        if not any(id(node) in names for node in step.inputs):
            continue
        inputs = [names.get(id(node), array) for node, array in zip(step.inputs, arrays)]
        call = Call(graph, step, inputs, arrays, examples)
        name = name_of(step.node)
        if name in RENAMED:
            output = call.add(RENAMED[name], *map(call.narrow, inputs))
        elif name in WITH_NUMBER:
            operator, first = WITH_NUMBER[name]
            both = [call.number(step.node.value), inputs[0]]
            output = call.add(operator, *(both if first else both[::-1]))
        elif name in FUNCTIONS:
            output = FUNCTIONS[name](call)
        else:
            raise call.unknown()
        names[id(step.outputs[0])] = output
    y = trace.y
    if id(y.node) not in names or not y.ndim or y.shape[0] != examples:
        raise ValueError(f"the outputs of {type(network).__name__} are not one for each example")
    graph.add("Identity", names[id(y.node)], output="y")
    return list(y.shape[1:])
