"""Updaters of Chainer's trainer whose iteration is one launch of a CUDA graph."""

from collections.abc import Callable
from typing import Any

from chainer_sno import links
from chainer_sno._import_chainer import chainer
from chainer_sno.cuda import dense, mlp
from chainer_sno.cuda.iteration import Iteration
from chainer_sno.cuda.kernels import Kernels
from chainer_sno.updater import StructureUpdater


def _mlp(
    layers: Any, optimizer: Any, iterator: Any, make_kernels: Any, samples: int = 1, **options: Any
) -> Any:
    dtype = layers[0].W.dtype
    kernels = make_kernels(("method", "mlp"), dtype, mlp.definitions(dtype))
    network = mlp.MLPNetwork(kernels, layers, optimizer, iterator.batch_size, samples, **options)
    return kernels, network


def _dense(link: Any, optimizer: Any, iterator: Any, make_kernels: Any, samples: int = 1) -> Any:
    shape = iterator.arrays[0].shape[2:]
    link.check(iterator.arrays[0], link.costs[None])
    dtype = link.stem.W.dtype
    kernels = make_kernels(("method", "dense"), dtype, dense.definitions(link, shape, dtype))
    network = dense.DenseNetwork(kernels, link, optimizer, iterator.batch_size, shape, samples)
    return kernels, network


class _Captured:
    """What the two updaters share: they run an iteration, and look at it when they are asked to."""

    captured: Iteration
    auto_new_epoch: bool
    get_iterator: Callable[[str], Any]
    get_optimizer: Callable[[str], Any]

    def update_core(self) -> None:
        """Do one iteration; nothing waits for it."""
        optimizer = self.get_optimizer("main")
        self.captured.run()
        optimizer.t += 1
        if self.auto_new_epoch and self.get_iterator("main").is_new_epoch:
            optimizer.new_epoch(auto=True)

    def synchronise(self) -> None:
        """Wait for the device, and report ``loss``, the mean since the last time."""
        optimizer = self.get_optimizer("main")
        for parameter in optimizer.target.params():
            parameter.update_rule.t = optimizer.t
        chainer.report({"loss": self.captured.take_loss()}, optimizer.target)

    def serialize(self, serializer: Any) -> None:
        """Save or load everything that the training needs to continue."""
        super().serialize(serializer)  # type: ignore[misc]
        self.captured.serialize(serializer["captured"])


class CapturedStructureUpdater(_Captured, StructureUpdater):
    r"""Algorithm 1 on a GPU, an iteration at a launch.

    The data, the parameters and the structures stay on the device, where structures are drawn,
    mini-batches cut, :math:`\theta` moved and the optimizer's step done; the host waits once an
    epoch, when the losses are asked for.  Extend the trainer with
    :class:`chainer_sno.extensions.Synchronise`, which reports them.

    The arithmetic is that of :class:`chainer_sno.StructureUpdater` with the softmax cross entropy,
    Chainer's NesterovAG and WeightDecay, up to rounding.

    Args:
        iterator (chainer_sno.ArrayIterator): over examples and int32 classes on the device.
        optimizer (chainer.optimizers.NesterovAG): set up, with no hook but WeightDecay; its target
            is a :class:`chainer_sno.links.MaskedMLP` with ReLU whose inputs are not under
            selection, or a :class:`chainer_sno.links.PlainDenseNet`, on the device.
        bernoulli (chainer_sno.Bernoulli): the distribution, on the device.
        samples (int): :math:`\lambda`, at most 256.
        make_kernels (callable): makes what launches the kernels;
            :class:`chainer_sno.cuda.kernels.Kernels` by default.

    Raises:
        ValueError: an argument is not as above, or too large for the kernels.
    """

    def __init__(
        self,
        iterator: Any,
        optimizer: Any,
        bernoulli: Any,
        samples: int = 2,
        make_kernels: Any = None,
    ) -> None:
        super().__init__(iterator, optimizer, bernoulli, samples)
        link = optimizer.target
        arguments = optimizer, iterator, make_kernels or Kernels, samples
        if isinstance(link, links.PlainDenseNet):
            kernels, network = _dense(link, *arguments)
        elif isinstance(link, links.MaskedMLP):
            kernels, network = _mlp(link.fast_layers(), *arguments)
        else:
            raise ValueError(
                "the GPU's fast path trains a MaskedMLP or a DenseNet, not "
                f"{type(link).__name__}: use the plain updater"
            )
        self.captured = Iteration(kernels, iterator, network, bernoulli)


class CapturedUpdater(_Captured, chainer.training.updaters.StandardUpdater):
    """The training of a network of fixed structure on a GPU, an iteration at a launch.

    See :class:`CapturedStructureUpdater`.

    Args:
        iterator (chainer_sno.ArrayIterator): over examples and int32 classes on the device.
        optimizer (chainer.optimizers.NesterovAG): its target is a :class:`chainer_sno.links.MLP`
            with ReLU, with or without Dropout, or a :class:`chainer_sno.links.FixedStructure` of a
            DenseNet, on the device.
        make_kernels (callable): makes what launches the kernels;
            :class:`chainer_sno.cuda.kernels.Kernels` by default.

    Raises:
        ValueError: an argument is not as above, or too large for the kernels.
    """

    def __init__(self, iterator: Any, optimizer: Any, make_kernels: Any = None) -> None:
        super().__init__(iterator, optimizer)
        link = optimizer.target
        arguments = optimizer, iterator, make_kernels or Kernels
        if isinstance(link, links.FixedStructure) and isinstance(link.link, links.PlainDenseNet):
            kernels, network = _dense(link.link, *arguments)
            network.structures[...] = link.xp.asarray(link.structure)[None]
        elif isinstance(link, links.MLP):
            dropout = (link.dropout_ratio, link.uniforms) if link.dropout_ratio else None
            layers = link.fast_layers()
            kernels, network = _mlp(layers, *arguments, selected=False, dropout=dropout)
        else:
            raise ValueError(
                "the GPU's fast path trains an MLP or a fixed DenseNet, not "
                f"{type(link).__name__}: use the plain updater"
            )
        self.captured = Iteration(kernels, iterator, network)
