"""Which channels of a plain network go where, found out by tracing one call.

Every channel that a layer computes has a number, and every variable of the trace an array of such
numbers, of the shape of one example: from which channel each of its elements comes, or
``ALWAYS``.  Functions move the numbers as they move the values.  Channels that can only be there
together, such as the two that a residual addition adds, are united.
"""

import copy
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from chainer_sno._import_chainer import chainer
from chainer_sno._types import Array
from chainer_sno.tracing import EXAMPLES, Step, Trace, name_of

L = chainer.links

#: The number of what no layer of the network computes, which is always there.
ALWAYS = -1

#: Functions that compute each element from the elements at its place.
ELEMENTWISE = frozenset(
    "Absolute AddConstant Cast Ceil Clip ClippedReLU Cos Div DivFromConstant Dropout ELU Exp Expm1 "
    "Floor Gaussian HardSigmoid Identity LeakyReLU Log Log1p Maximum Minimum Mul MulConstant "
    "MultiAdd Add Neg PowVarConst RReLU ReLU Sigmoid Sign Sin Softplus Sqrt Square Sub "
    "SubFromConstant Tanh Zoneout".split()
)
#: Functions that compute each channel from the same channel at other places.
SPATIAL = frozenset(
    "AveragePooling2D AveragePoolingND MaxPooling2D MaxPoolingND Unpooling2D UnpoolingND "
    "ResizeImages".split()
)
#: Functions that move elements and compute nothing.  They move the numbers of channels as well.
STRUCTURAL = frozenset(
    "Broadcast BroadcastTo Concat Copy Depth2Space Dstack ExpandDims Flip FlipLR FlipUD GetItem "
    "Hstack Moveaxis Repeat Reshape Rollaxis Separate Space2Depth SplitAxis Squeeze Stack Swapaxes "
    "Tile Transpose Vstack".split()
)
#: Functions that reduce some axes.
REDUCING = frozenset("Max Mean Min Sum".split())


def computes_as(link: Any, *kinds: Any) -> bool:
    """Return whether a link is of a kind, or of a subclass without a forward pass of its own."""
    return any(isinstance(link, kind) and type(link).forward is kind.forward for kind in kinds)


def is_layer(link: Any) -> bool:
    """Return whether a link is one whose parameters can be cut: see :class:`Layer`."""
    return computes_as(link, L.Linear, L.Convolution2D) or is_channelwise(link)


def is_channelwise(link: Any) -> bool:
    """Return whether a link with parameters computes each channel by itself."""
    return computes_as(link, L.DepthwiseConvolution2D, L.BatchNormalization, L.PReLU)


@dataclasses.dataclass
class Layer:
    """A link whose parameters can be cut: what it takes, and what it computes.

    Attributes:
        path (str): of the link.
        link (chainer.Link): the link, in the copy that was traced.
        outputs (numpy.ndarray): the numbers of the channels that it computes; none for a link
            that hands on those that it takes, such as BatchNormalization.
        inputs (numpy.ndarray): the numbers of the channels that it takes: for Linear one for each
            of its input units.
        uses (int): how often each weight is used for one example.
    """

    path: str
    link: Any
    outputs: Array
    inputs: Array
    uses: int = 0

    @property
    def groups(self) -> int:
        """The groups of a convolution."""
        return int(getattr(self.link, "groups", 1))

    @property
    def depthwise(self) -> bool:
        """Whether it is a convolution, each of whose outputs comes from one input."""
        own = computes_as(self.link, L.DepthwiseConvolution2D)
        return own or (self.groups > 1 and self.groups == len(self.inputs))

    @property
    def mixes(self) -> bool:
        """Whether an output comes from several inputs, so that absent ones have to be masked."""
        return computes_as(self.link, L.Linear, L.Convolution2D) and not self.depthwise

    @property
    def columns(self) -> Array:
        """The numbers of the channels that the second axis of the weights stands for."""
        if self.depthwise:
            return numpy.full(1, ALWAYS)
        # What is at the same place of each group is united.
        return self.inputs[: len(self.inputs) // self.groups]

    @property
    def kernel(self) -> int:
        """The weights between one input and one output."""
        W = self.link.W
        return int(W.size // max(1, W.shape[0] * W.shape[1]))


class Channels:
    """The channels of a network, after one call or several.

    Attributes:
        layers (dict of Layer): by path, in the order of their first calls.
        owner (list of str): by the number of a channel, the path of the layer that computes it.
    """

    def __init__(self) -> None:
        self.layers: dict[str, Layer] = {}
        self.owner: list[str] = []
        self._parent: list[int] = []
        self._pins: list[tuple[int, str]] = []
        # Checked when all is united: arrays of numbers, the axes along which they may not change,
        # or None where they may change along one axis at most, and what is wrong otherwise.
        self._fixed: list[tuple[Array, tuple[int, ...] | None, str]] = []

    def add(self, trace: Trace, count: bool) -> None:
        """Follow the channels through a trace.

        Args:
            trace (Trace): of a call; its whole links are those of :func:`is_layer`.
            count (bool): whether to count how often weights are used.
        """
        numbers: dict[int, Array] = {}
        for step in trace.steps:
            if step.is_link and id(step.node) not in trace.paths:
                arrays = [self._stray(step, numbers)]
            elif step.is_link:
                arrays = [self._call(step, numbers, count)]
            else:
                arrays = self._function(step, numbers)
            for node, array in zip(step.outputs, arrays):
                if node is not None:
                    numbers[id(node)] = array
        outputs = numbers.get(id(trace.y.node))
        if outputs is not None:
            self.pin(outputs, "they are the network's outputs")
            self.outputs = numpy.unique(outputs)
        else:
            self.outputs = numpy.full(1, ALWAYS)

    def root(self, number: int) -> int:
        """Return the number that stands for a channel and those united with it."""
        while self._parent[number] != number:
            self._parent[number] = self._parent[self._parent[number]]
            number = self._parent[number]
        return number

    def pinned(self) -> dict[int, str]:
        """Return why channels cannot be selected, by the number that stands for them."""
        reasons: dict[int, str] = {}
        for number, reason in self._pins:
            reasons.setdefault(self.root(number), reason)
        return reasons

    def counted(self) -> dict[int, str]:
        """Return which channels go where their number matters, by the number of :meth:`root`.

        A function that takes channels by their places, or that divides them among several axes,
        does something else when some are gone.  Channels that are only there together may go there:
        a division of the outputs of a grouped convolution into its groups stays one.

        Returns:
            dict: the reason, by the number that stands for channels that are united.
        """
        reasons: dict[int, str] = {}
        roots = numpy.array([*map(self.root, range(len(self.owner))), ALWAYS])
        for numbers, axes, reason in self._fixed:
            array = roots[numbers]  # ALWAYS, -1, is the last
            changing = [
                axis for axis in range(array.ndim) if (array != array.take([0], axis)).any()
            ]
            wrong = len(changing) > 1 if axes is None else bool({*axes} & {*changing})
            if wrong:
                for root in numpy.unique(array).tolist():
                    if root != ALWAYS:
                        reasons.setdefault(root, reason)
        return reasons

    def unite(self, a: Array, b: Array, reason: str) -> None:
        """Unite channels pair by pair; one whose partner is always there can never be absent."""
        pairs = numpy.unique(numpy.stack([numpy.ravel(a), numpy.ravel(b)]), axis=1)
        for one, other in pairs.T.tolist():
            if one != ALWAYS and other != ALWAYS:
                self._parent[self.root(one)] = self.root(other)
            elif one != other:
                self._pins.append((max(one, other), reason))

    def pin(self, numbers: Array, reason: str) -> None:
        """State why channels cannot be selected."""
        for number in numpy.unique(numbers).tolist():
            if number != ALWAYS:
                self._pins.append((number, reason))

    def _of(self, node: Any, numbers: dict[int, Array], step: Step) -> Array:
        """Return the numbers of an input; those of what no layer computes are ``ALWAYS``."""
        if node is None:
            return numpy.full((), ALWAYS)
        array = numbers.get(id(node))
        if array is not None:
            return array
        shape = node.shape if _is_parameter(node) else node.shape[1:]
        return numpy.broadcast_to(numpy.int32(ALWAYS), shape)

    # Links.

    def _layer(self, step: Step, inputs: Array) -> Layer:
        """Return the layer of a step, which has been called before or not."""
        if step.path in self.layers:
            layer = self.layers[step.path]
            self.unite(layer.inputs, inputs, f"{step.path} also takes what is always there")
            return layer
        link = step.node
        count = 0
        if computes_as(link, L.Linear, L.Convolution2D):
            count = len(link.W)
        elif computes_as(link, L.DepthwiseConvolution2D):
            count = link.W.shape[0] * link.W.shape[1]
        first = len(self.owner)
        self.owner += [step.path] * count
        self._parent += range(first, first + count)
        outputs = numpy.arange(first, first + count, dtype=numpy.int32)
        layer = self.layers[step.path] = Layer(step.path, link, outputs, inputs)
        if layer.depthwise:
            self.unite(
                outputs,
                inputs.repeat(count // len(inputs)),
                f"{step.path} takes each from one channel that is always there",
            )
        elif layer.groups > 1:
            for numbers in (inputs, outputs):
                parts = numbers.reshape(layer.groups, -1)
                for part in parts[1:]:
                    self.unite(parts[0], part, f"the groups of {step.path} differ")
        return layer

    def _call(self, step: Step, numbers: dict[int, Array], count: bool) -> Array:
        """Return the numbers of what a layer returns."""
        link, (output,) = step.node, step.outputs
        given = self._of(step.inputs[0], numbers, step)
        shape = tuple(output.shape[1:])
        if computes_as(link, L.Linear):
            units = link.W.shape[1]
            if step.inputs[0] is None:
                given = numpy.full(units, ALWAYS)
            # Axes of the mini-batch behind the first, along which the numbers must not change.
            rows = numpy.reshape(given, (-1, units))
            if not (rows == rows[:1]).all():
                self.pin(rows, f"{step.path} takes them at places that differ")
                rows = numpy.full((1, units), ALWAYS)
            layer = self._layer(step, rows[0].astype(numpy.int32))
            if count:
                layer.uses += int(numpy.prod(shape)) // len(link.W)
            return numpy.broadcast_to(layer.outputs, shape)
        if computes_as(link, L.Convolution2D, L.DepthwiseConvolution2D):
            width = link.W.shape[1]
            if computes_as(link, L.Convolution2D):
                width *= int(link.groups)
            inputs = self._per_channel(given, width, step)
            layer = self._layer(step, inputs)
            if count:
                layer.uses += int(numpy.prod(shape[1:]))
            return _over_space(layer.outputs, shape)
        # BatchNormalization and PReLU: a parameter for each channel, or for all of them.
        size = _size_of(link)
        if size == ():
            return given
        width = size[0]
        if len(size) != 1 or not shape or shape[0] != width or not _by_channel(link, step):
            self.pin(given, f"the parameters of {step.path} are not one a channel")
            return numpy.broadcast_to(numpy.int32(ALWAYS), shape)
        inputs = self._per_channel(given, width, step)
        self._layer(step, inputs)
        return _over_space(inputs, shape)

    def _stray(self, step: Step, numbers: dict[int, Array]) -> Array:
        """Pin what goes into a link that the network does not hold, so that it cannot be cut."""
        kind = type(step.node).__name__
        reason = f"they go into a {kind} that is no child of the network (see init_scope)"
        self.pin(self._of(step.inputs[0], numbers, step), reason)
        return numpy.broadcast_to(numpy.int32(ALWAYS), tuple(step.outputs[0].shape[1:]))

    def _per_channel(self, given: Array, width: int, step: Step) -> Array:
        """Return the number of each channel of an input."""
        if not given.shape:
            return numpy.full(width, ALWAYS, dtype=numpy.int32)
        per_channel = channels(given)
        if per_channel is None:
            self.pin(given, f"{step.path} takes them at places that differ")
            return numpy.full(width, ALWAYS, dtype=numpy.int32)
        return per_channel.astype(numpy.int32)

    # Functions.

    def _function(self, step: Step, numbers: dict[int, Array]) -> list[Array]:
        """Return the numbers of what a function returns."""
        shapes = [() if node is None else tuple(node.shape[1:]) for node in step.outputs]
        given = [self._of(node, numbers, step) for node in step.inputs]
        unknown = [numpy.broadcast_to(numpy.int32(ALWAYS), shape) for shape in shapes]
        if all((array == ALWAYS).all() for array in given):
            return unknown
        name = name_of(step.node)
        rules: dict[frozenset[str], Callable[..., list[Array] | None]] = {
            ELEMENTWISE: self._elementwise,
            SPATIAL: self._spatial,
            STRUCTURAL: self._structural,
            REDUCING: self._reducing,
            frozenset(["Pad"]): self._pad,
        }
        parameters = [node for node in step.inputs if _is_parameter(node)]
        outputs = None
        for names, rule in rules.items():
            if name in names and not parameters:
                outputs = rule(step, given, shapes)
        if outputs is None:
            where = f" in {step.path}" if step.path else ""
            reason = f"they go into the function {name}{where}, which "
            if parameters:
                reason += "takes a parameter that belongs to no layer called as a link"
            else:
                reason += "does not keep channels apart, or is not known"
            for array in given:
                self.pin(array, reason)
            return unknown
        return outputs

    def _elementwise(self, step: Step, given: list[Array], shapes: Any) -> list[Array] | None:
        (shape,) = shapes
        reason = f"they meet what is always there, and cannot be cut with them,{_at(step)}".rstrip(
            ","
        )
        united: Array | None = None
        for array in given:
            if (array == ALWAYS).all():
                continue
            if array.ndim != len(shape):
                return None
            array = numpy.broadcast_to(array, shape)
            if united is None:
                united = array
                continue
            a, b = _reduced(united, array)
            self.unite(a, b, reason)
            united = numpy.broadcast_to(numpy.where(a == ALWAYS, b, a), shape)
        assert united is not None, "some input comes from a layer"
        for node, array in zip(step.inputs, given):
            # What does not tell channels apart, such as one number, may stay as it is.
            if (array == ALWAYS).all() and _tells_apart(node, united):
                self.pin(united, reason)
        return [united]

    def _spatial(self, step: Step, given: list[Array], shapes: Any) -> list[Array] | None:
        per_channel = channels(given[0])
        return None if per_channel is None else [_over_space(per_channel, shapes[0])]

    def _pad(self, step: Step, given: list[Array], shapes: Any) -> list[Array] | None:
        width = numpy.asarray(step.node.pad_bw)
        if width.ndim < 2 or width.shape[0] < 2 or width[:2].any():
            return None
        return self._spatial(step, given, shapes)

    def _reducing(self, step: Step, given: list[Array], shapes: Any) -> list[Array] | None:
        array = given[0]
        axes = step.node.axis
        if axes is None:
            return None
        axes = axes if isinstance(axes, tuple) else (axes,)
        axes = tuple(axis % (array.ndim + 1) for axis in axes)
        if 0 in axes:
            return None
        for axis in axes:
            one = array.take([0], axis - 1)
            if not (array == one).all():
                return None
            array = one
        return [numpy.reshape(array, shapes[0])]

    def _structural(self, step: Step, given: list[Array], shapes: Any) -> list[Array] | None:
        """Let the function move the numbers; those of the second example tell it from the first."""
        offset = len(self.owner) + 2
        batches = []
        for node, array in zip(step.inputs, given):
            if node.shape[0] != EXAMPLES or array.shape != tuple(node.shape[1:]):
                return None
            batches.append(numpy.stack([array + offset * i for i in range(EXAMPLES)]))
        self._by_place(step, given)
        moved = copy.copy(step.node).forward(tuple(batches))
        results = []
        for array in moved:
            if array.shape[:1] != (EXAMPLES,):
                return None
            first = array[0]
            if any((array[i] - offset * i != first).any() for i in range(EXAMPLES)):
                return None
            if first.max(initial=ALWAYS) >= offset + ALWAYS:
                return None
            each = channels(first) if first.ndim > 1 else None
            results.append(first if each is None else _over_space(each, first.shape))
        reason = (
            f"they go into the function {name_of(step.node)}{_at(step)}, which divides them among "
            "several axes and so states a number of channels"
        )
        for array in results:
            # What is left of an array without some channels is an array again only where the
            # channels lie along one axis.
            self._fixed.append((_reduced(array)[0], None, reason))
        return results

    def _by_place(self, step: Step, given: list[Array]) -> None:
        """Note the axes of which a function takes parts that it finds by their places."""
        name = name_of(step.node)
        if name == "GetItem":
            axes = _parts_of(step.node.slices, given[0].shape)
        elif name in ("SplitAxis", "Separate"):
            axes = (step.node.axis % (given[0].ndim + 1) - 1,)
        else:
            return
        reason = (
            f"they go into the function {name}{_at(step)}, which takes some by their places, and "
            "the places are others where channels are gone"
        )
        self._fixed.append((_reduced(given[0])[0], axes, reason))


def _parts_of(index: Sequence[Any], shape: Sequence[int]) -> tuple[int, ...]:
    """Return the axes of one example of which an index of a mini-batch does not take everything.

    Whatever takes everything in the order of the places, or in the reverse order, moves the
    channels that remain as it moves all of them.
    """
    entries = [entry for entry in index if entry is not None]
    if any(isinstance(entry, bool) or numpy.asarray(entry).dtype == bool for entry in entries):
        return tuple(range(len(shape)))  # a mask may stand for several axes
    full = (None, *shape)
    if any(entry is Ellipsis for entry in entries):
        at = [entry is Ellipsis for entry in entries].index(True)
        missing = len(full) - (len(entries) - 1)
        entries[at : at + 1] = [slice(None)] * missing
    parts = []
    for axis, (entry, size) in enumerate(zip(entries, full)):
        if size is None:
            continue
        if isinstance(entry, slice):
            places = range(size)[entry]
            if places in (range(size), range(size)[::-1]):
                continue
        parts.append(axis - 1)
    return tuple(parts)


def _at(step: Step) -> str:
    return f" in {step.path}" if step.path else ""


def _is_parameter(node: Any) -> bool:
    """Return whether the variable of a node is a parameter."""
    if node is None or node.creator_node is not None:
        return False
    return isinstance(node.get_variable_or_none(), chainer.Parameter)


def _tells_apart(node: Any, numbers: Array) -> bool:
    """Return whether an input of an elementwise function has a value for each channel."""
    (small,) = _reduced(numbers)
    own = (1,) * (small.ndim + 1 - len(node.shape)) + tuple(node.shape)
    return any(
        own[axis + 1] > 1 and not (small == small.take([0], axis)).all()
        for axis in range(small.ndim)
    )


def _reduced(*arrays: Array) -> list[Array]:
    """Return arrays of one shape without the repetitions along axes that all of them share."""
    index = tuple(
        slice(0, 1) if all(array.strides[axis] == 0 for array in arrays) else slice(None)
        for axis in range(arrays[0].ndim)
    )
    return [array[index] for array in arrays]


def _over_space(each: Array, shape: Sequence[int]) -> Array:
    """Return the numbers of channels, repeated over the axes behind theirs."""
    return numpy.broadcast_to(each.reshape(-1, *[1] * (len(shape) - 1)), tuple(shape))


def channels(numbers: Array) -> Array | None:
    """Return the number of each channel, None where it changes within one."""
    (small,) = _reduced(numbers)
    if small.ndim and numbers.shape[0] != small.shape[0]:
        small = numpy.broadcast_to(small, (numbers.shape[0], *small.shape[1:]))
    rows = small.reshape(len(small), -1)
    if not rows.shape[1] or not (rows == rows[:, :1]).all():
        return None
    per_channel: Array = rows[:, 0]
    return per_channel


def _size_of(link: Any) -> tuple[int, ...]:
    """Return the shape of the parameters of BatchNormalization and PReLU."""
    array = link.avg_mean if isinstance(link, L.BatchNormalization) else link.W
    return tuple(array.shape)


def _by_channel(link: Any, step: Step) -> bool:
    """Return whether the parameters of a BatchNormalization are those of the second axis."""
    axis = getattr(link, "axis", None)
    ndim = len(step.outputs[0].shape)
    return axis is None or tuple(axis) == (0, *range(2, ndim))
