"""The cost of a plain network: weights and operations, counted, and milliseconds, measured."""

import contextlib
import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy

from chainer_sno._import_chainer import chainer

#: The links whose weights and operations are counted.
COUNTED = (
    chainer.links.Linear,
    chainer.links.Convolution2D,
    chainer.links.DepthwiseConvolution2D,
)


class _Counter(chainer.LinkHook):
    """Count the weights and the operations of the layers that a forward pass goes through."""

    name = "count"

    def __init__(self) -> None:
        self.weights: dict[int, int] = {}
        self.flops = 0

    def forward_postprocess(self, args: Any) -> None:
        if isinstance(args.link, COUNTED):
            W = args.link.W
            self.weights[id(W)] = W.size
            # Each output channel, a row of W, is computed once a sample and pixel.
            depthwise = isinstance(args.link, chainer.links.DepthwiseConvolution2D)
            rows = W.shape[0] * W.shape[1] if depthwise else len(W)
            self.flops += 2 * W.size * (args.out.size // rows)


def count(network: Any, shape: Sequence[int]) -> dict[str, int]:
    """Return the weights, parameters and operations of a plain network.

    A weight costs a multiplication and an addition wherever it is used, in the padding too.
    Biases, activations, batch normalisation and pooling are left out of weights and operations.

    Args:
        network (chainer.Link): from x to outputs; of :class:`chainer.links.Linear`,
            :class:`chainer.links.Convolution2D` and :class:`chainer.links.DepthwiseConvolution2D`,
            and of links without weights.
        shape (tuple of int): of one sample.

    Returns:
        dict: ``weights``; ``parameters``, all that is trained, biases and BN too; and ``flops``,
        floating-point operations of one sample's forward pass.

    Raises:
        ValueError: there are other weights, or some that take no part.
    """
    counter = _Counter()
    with _evaluation(network), counter:
        network(_samples(network, 1, shape))
    for path, parameter in network.namedparams():
        if parameter.ndim > 1 and id(parameter) not in counter.weights:
            raise ValueError(
                f"the operations of {path} cannot be counted: it is not the weight of a Linear, "
                "Convolution2D or DepthwiseConvolution2D link that takes part in the forward pass"
            )
    return {
        "weights": sum(counter.weights.values()),
        "parameters": sum(parameter.size for parameter in network.params()),
        "flops": counter.flops,
    }


def milliseconds(
    network: Any, shape: Any, batch_size: int, seconds: float = 0.3, least: int = 5
) -> Any:
    """Return the time of a forward pass on this machine, at its current load.

    Args:
        network (chainer.Link): from x to outputs.
        shape (tuple of int): of one sample.
        batch_size (int): samples.
        seconds (float): for how long to repeat.
        least (int): the smallest number of passes.

    Returns:
        float: the median of the passes, the first one left out, in evaluation mode.
    """
    times: list[float] = []
    with _evaluation(network):
        x = _samples(network, batch_size, shape)
        network(x)
        _wait(network)
        while len(times) < least or sum(times) < seconds:
            begun = time.perf_counter()
            network(x)
            _wait(network)
            times.append(time.perf_counter() - begun)
    return 1000 * statistics.median(times)


def describe(
    network: Any, shape: Sequence[int], batch_sizes: Sequence[int] = (1, 64), seconds: float = 0.3
) -> dict[str, Any]:
    """Return the cost of a plain network.

    Args:
        network (chainer.Link): from x to outputs; see :func:`chainer_sno.profile.count`.
        shape (tuple of int): of one sample.
        batch_sizes (sequence of int): sizes of mini-batches to be timed.
        seconds (float): for how long to repeat the passes of each.

    Returns:
        dict: the result of :func:`chainer_sno.profile.count`, and ``milliseconds``, a dictionary
        from each batch size to the median time of a forward pass on this machine, at its current
        load.

    Raises:
        ValueError: the operations cannot be counted.

    Example:
        >>> import chainer_sno
        >>> costs = chainer_sno.describe(chainer_sno.links.MLP(8, (4,), 2), (8,), seconds=0.01)
        >>> costs["weights"], costs["parameters"], costs["flops"]  # 8 * 4 + 4 * 2, biases, twice
        (40, 46, 80)
        >>> sorted(costs["milliseconds"])  # of mini-batches of 1 and 64
        [1, 64]

    See Also:
        :func:`chainer_sno.compact`: makes such a network.
    """
    return {
        **count(network, shape),
        "milliseconds": {n: milliseconds(network, shape, n, seconds) for n in batch_sizes},
    }


def _evaluation(network: Any) -> Any:
    """Return a context without training and gradients, on the device of the network."""
    stack = contextlib.ExitStack()
    stack.enter_context(chainer.using_config("train", False))
    stack.enter_context(chainer.no_backprop_mode())
    stack.enter_context(chainer.using_device(network.device))
    return stack


def _samples(network: Any, batch_size: int, shape: Any) -> Any:
    """Return samples at random, of the dtype and on the device of the network."""
    dtype = next(network.params()).dtype
    x = numpy.random.default_rng(0).standard_normal((batch_size, *shape)).astype(dtype)
    return network.device.send(x)


def _wait(network: Any) -> None:
    """Wait for a GPU to finish what was begun on it."""
    if network.xp is not numpy:
        network.xp.cuda.get_current_stream().synchronize()
