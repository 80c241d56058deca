"""The calls of links and functions that lead from a mini-batch to a network's outputs.

Chainer keeps the graph of a forward pass for backpropagation.  A :class:`Trace` is that graph, in
the order of the computation, with the links that asked for it.
"""

import contextlib
import copy
import dataclasses
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy

from chainer_sno._import_chainer import chainer
from chainer_sno.errors import in_one_line, without_flags

#: Examples of the mini-batch of a trace; batch normalisation in training mode needs two.
EXAMPLES = 2


def name_of(function: Any) -> str:
    """Return the name of a function node's class, such as ``"MaxPooling2D"``."""
    # A function of Chainer's old style is wrapped in an adapter.
    return type(getattr(function, "_function", None) or function).__name__


@dataclasses.dataclass
class Step:
    """One call: of a link that is looked at as a whole, or of a function.

    Attributes:
        node (chainer.FunctionNode or chainer.Link): what is called.
        inputs (list of chainer.variable.VariableNode): what it takes; of a link the one input.
        outputs (list): what it returns, None for what nobody uses.
        path (str): the path of the link, or of the link that calls the function; "" where that is
            the network itself.
        batch_axes (int): of a Linear link, the axes of the input that are no units.
    """

    node: Any
    inputs: list[Any]
    outputs: list[Any]
    path: str
    batch_axes: int = 1

    @property
    def is_link(self) -> bool:
        """Whether a link is called."""
        return isinstance(self.node, chainer.Link)


class _Calls(chainer.LinkHook):
    """Keep which links are called, with what and by whom."""

    name = "chainer_sno.tracing"

    def __init__(self, whole: Callable[[Any], bool]) -> None:
        super().__init__()
        self.whole = whole
        self.stack: list[Any] = []
        self.calls: list[tuple[Any, Any, Any, int]] = []

    def forward_preprocess(self, args: Any) -> None:
        self.stack.append(args.link)

    def forward_postprocess(self, args: Any) -> None:
        self.stack.pop()
        if self.whole(args.link) and isinstance(args.out, chainer.Variable):
            given = [*args.args, *args.kwargs.values()]
            axes = args.kwargs.get("n_batch_axes", args.args[1] if len(args.args) > 1 else 1)
            self.calls.append((args.link, given[0], args.out, axes if type(axes) is int else 1))


class _Owners(chainer.FunctionHook):
    """Keep by which link each function is called."""

    name = "chainer_sno.tracing"

    def __init__(self, stack: list[Any], keep: bool) -> None:
        super().__init__()
        self.stack = stack
        self.keep = keep
        self.links: dict[int, Any] = {}
        self.order: dict[int, int] = {}
        self.functions: list[Any] = []
        self.values: dict[int, Any] = {}

    def forward_preprocess(self, function: Any, in_data: Any) -> None:
        self.links[id(function)] = self.stack[-1] if self.stack else None
        self.order[id(function)] = len(self.functions)
        # Held, for another one could get the id of one that nobody needs.
        self.functions.append(function)
        if self.keep:
            self.values[id(function)] = in_data


def paths_of(network: Any) -> dict[int, str]:
    """Return the path of each link below a network, by its id, such as ``"block/conv1"``."""
    paths: dict[int, str] = {}
    for path, link in network.namedlinks():
        paths.setdefault(id(link), path.strip("/"))
    return paths


def call_alone(network: Any, x: Any) -> Any:
    """Return what a network returns for a mini-batch alone.

    Raises:
        ValueError: it raises something; the message names the network and the mini-batch.
    """
    try:
        with without_flags():
            return network(x)
    except Exception as error:
        raise ValueError(
            f"{type(network).__name__} cannot be called with a mini-batch of shape {x.shape} and "
            f"{x.dtype} alone ({in_one_line(error)}): give the network from x to its outputs, "
            "without the loss, and the shape of one example"
        ) from error


class Trace:
    """One call of a network.

    Args:
        network (chainer.Link): from x to outputs, on the CPU; its parameters that are not yet there
            are initialised, and in training mode its running statistics move.
        x (numpy.ndarray): the mini-batch.
        train (bool): in training mode.
        whole (callable): takes a link and returns whether its call is one step.
        values (bool): keep the values of the inputs of functions.

    Attributes:
        x (chainer.variable.VariableNode): the mini-batch.
        y (chainer.Variable): the outputs.
        steps (list of Step): in the order of the computation.
        paths (dict): see :func:`paths_of`.
        values (dict): the values of a function's inputs, by its id, where they are kept.

    Raises:
        ValueError: the network cannot be called with x alone, or does not return one variable that
            depends on it by Chainer's functions.
    """

    def __init__(
        self,
        network: Any,
        x: Any,
        train: bool = False,
        whole: Callable[[Any], bool] = lambda link: False,
        values: bool = False,
    ) -> None:
        calls = _Calls(whole)
        owners = _Owners(calls.stack, values)
        given = chainer.Variable(x)
        name = type(network).__name__
        with (
            chainer.using_config("train", train),
            chainer.using_config("enable_backprop", True),
            undisturbed_random_numbers(),
            calls,
            owners,
        ):
            self.y = call_alone(network, given)
        if not isinstance(self.y, chainer.Variable):
            raise ValueError(
                f"{name} returns a {type(self.y).__name__}"
                f"{' in training mode' if train else ''}: one variable is needed, the outputs"
            )
        self.x = given.node
        self.paths = paths_of(network)
        # Held, for the graph holds outputs by weak references alone.
        self._calls = calls.calls
        whole_calls = {id(y.node): (link, x, y, axes) for link, x, y, axes in calls.calls}
        self.values = owners.values
        self.steps = self._collect(whole_calls, owners)

    def _collect(self, calls: dict[int, Any], owners: _Owners) -> list[Step]:
        steps: dict[int, tuple[int, Step]] = {}
        pending = [self.y.node]
        seen: set[int] = set()
        while pending:
            node = pending.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            function = node.creator_node
            if id(node) in calls:
                link, x, _, axes = calls[id(node)]
                inputs = [x.node] if isinstance(x, chainer.Variable) else [None]
                step = Step(link, inputs, [node], self.paths.get(id(link), ""), axes)
                steps[id(node)] = owners.order.get(id(function), 0), step
            elif function is not None:
                if id(function) in steps:
                    continue
                owner = self.paths.get(id(owners.links.get(id(function))), "")
                outputs = [reference() for reference in function.outputs]
                step = Step(function, [*function.inputs], outputs, owner)
                steps[id(function)] = owners.order[id(function)], step
            else:
                continue
            pending.extend(each for each in step.inputs if each is not None)
        return [step for _, step in sorted(steps.values(), key=lambda pair: pair[0])]


@contextlib.contextmanager
def undisturbed_random_numbers() -> Iterator[None]:
    """Put the global random numbers of NumPy and Python back as they were when the block ends."""
    states = numpy.random.get_state(), random.getstate()
    try:
        yield
    finally:
        numpy.random.set_state(states[0])
        random.setstate(states[1])


def on_cpu(network: Any) -> Any:
    """Return a deep copy of a network on the CPU, with whatever else its attributes hold.

    ``Link.copy`` copies the links below alone: a list that names layers once more would still name
    those of the original.
    """
    copied = detached(network)
    copied.to_device("@numpy")
    return copied


def detached(network: Any) -> Any:
    """Return a deep copy of a network that no optimizer knows, without gradients."""
    copied = copy.deepcopy(network)
    for parameter in copied.params():
        parameter.update_rule = None
    copied.cleargrads()
    return copied


def example_batch(network: Any, x_shape: Any, examples: int = EXAMPLES) -> Any:
    """Return a mini-batch of random numbers, of the dtype of a network, on the CPU."""
    dtypes = [p.dtype for p in network.params(include_uninit=False) if p.dtype.kind == "f"]
    dtype = dtypes[0] if dtypes else chainer.get_dtype()
    x = numpy.random.default_rng(0).standard_normal((examples, *x_shape))
    return x.astype(dtype)
