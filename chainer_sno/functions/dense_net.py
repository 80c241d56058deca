"""The DenseNet of section 4.2 on a CPU, compiled, as a function of Chainer."""

import functools
from typing import Any

import numpy

from chainer_sno._import_chainer import chainer


@functools.lru_cache(maxsize=1)
def engine() -> Any:
    """Return the module of the compiled code, or None where numba is not installed.

    Imported when it is first used: the library works without numba.
    """
    try:
        from chainer_sno.fast import dense_net
    except ImportError:
        return None
    return dense_net


def _split(array: Any, starts: Any) -> list[Any]:
    """Return the parts of a flat array that begin at all of ``starts`` but the last."""
    places = starts.tolist()
    return [array[begin:end] for begin, end in zip(places, places[1:])]


class DenseNetFunction(chainer.FunctionNode):
    """All blocks of a DenseNet and its first convolution, for all structures.

    Inputs are the images, shape (N, in_channels, H, W), the weights of the first convolution, and
    for each block gamma of each consumer, beta of each consumer, the weights of the layers and
    those of the transition if there is one.  The output is the input of the classifier, shape
    (lambda, N, channels).

    Args:
        structures (numpy.ndarray): bool, shape (lambda, d).
        network (chainer_sno.links.DenseNet): for its shape, and the running statistics.
        threads (int): how many may work at once.

    Attributes:
        statistics (list): of each block, of each structure, mean and variance of the feature maps,
            arrays of shape (channels,); of the last forward pass in training mode.
    """

    def __init__(self, structures: Any, network: Any, threads: int = 1) -> None:
        super().__init__()
        self.structures, self.network, self.threads = structures, network, threads

    def check_type_forward(self, in_types: Any) -> None:
        """Check that all inputs have one dtype."""
        for each in in_types[1:]:
            chainer.utils.type_check.expect(each.dtype == in_types[0].dtype)

    def forward(self, inputs: Any) -> Any:
        """Return the output, a tuple of one array."""
        fast = engine()
        x, stem, *others = (numpy.ascontiguousarray(array) for array in inputs)
        train = bool(chainer.config.train)
        height, width = x.shape[2:]
        keep, lam = bool(chainer.config.enable_backprop), len(self.structures)
        together = lam if keep else min(lam, fast.TOGETHER)
        parameters: list[Any] = []
        plans: list[Any] = []
        rest = iter(others)
        for block in self.network.blocks:
            consumers = len(block.norms)
            gammas, betas = ([next(rest) for _ in range(consumers)] for _ in "gb")
            kernels = [next(rest) for _ in block.convs]
            transition = next(rest) if hasattr(block, "transition") else None
            parameters.append(
                fast.BlockParameters(gammas, betas, kernels, transition, block.norms, x.dtype)
            )
            outputs = 0 if transition is None else len(transition)
            inputs = together if plans else 1
            plans.append(
                fast.block_plan(
                    tuple(block.widths), len(x), height, width, outputs, inputs, together
                )
            )
            height, width = height // 2, width // 2
        graphs = [
            self._graphs(self.structures[first : first + together], train)
            for first in range(0, lam, together)
        ]
        self._passes = fast.Passes(x, stem, parameters, graphs, plans, self.threads, train, keep)
        self._plans = plans
        self.statistics = self._passes.statistics
        return (self._passes.y,)

    def _graphs(self, structures: Any, train: bool) -> Any:
        """Return the layers of each block that these structures need."""
        fast, graphs, sources = engine(), [], [0] * len(structures)
        for block, group in zip(self.network.blocks, self.network.groups.values()):
            graphs.append(fast.BlockGraph(block, structures[:, group], sources, train))
            sources = graphs[-1].exits
        return graphs

    def backward(self, indexes: Any, grad_outputs: Any) -> Any:
        """Return the gradients of the inputs."""
        if chainer.config.enable_backprop:
            raise RuntimeError("the fast DenseNet has no second derivative: use PlainDenseNet")
        gx, gstem, blocks = self._passes.backward(grad_outputs[0].array, 0 in indexes)
        grads = [gx, gstem]
        for plan, (ggamma, gbeta, gW, gT) in zip(self._plans, blocks):
            grads += _split(ggamma, plan.starts) + _split(gbeta, plan.starts)
            growth = plan.widths[-1]
            grads += [W.reshape(growth, -1, 3, 3) for W in _split(gW, plan.w_starts)]
            if plan.outputs:
                grads.append(gT[:, :, None, None])
        return tuple(None if grads[i] is None else chainer.as_variable(grads[i]) for i in indexes)
