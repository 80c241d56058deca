"""The network of section 4.2, DenseNet with connections under selection, fast."""

from typing import Any

import numpy

from chainer_sno._import_chainer import chainer
from chainer_sno._types import Array
from chainer_sno.functions.dense_block import DenseBlockFunction
from chainer_sno.functions.dense_net import DenseNetFunction, engine
from chainer_sno.links.plain_dense_net import DenseBlock, PlainDenseNet
from chainer_sno.protocols import check_forward


class DenseNet(PlainDenseNet):
    """What :class:`PlainDenseNet` computes, at a cost that falls with the usage rate.

    The parameters have the same names and shapes, so snapshots of one load into the other.  The
    first convolution is shared by the structures, and connections that are absent, or lead
    nowhere, take no part in the products.  On a CPU with numba, a layer that takes the same in
    several structures is computed once.  It has no second derivative.

    Args:
        depth, growth_rate, blocks, first_channels, classes, in_channels: see
            :class:`PlainDenseNet`.
    """

    #: Threads that compute at once on a CPU; the numbers do not depend on it.
    threads = 1

    def forward(self, x: Any, structures: Array) -> Any:
        """Return the outputs of every structure, before the softmax.

        Args:
            x (chainer.Variable or array): images, shape (N, in_channels, H, W), of the dtype of
                the parameters.
            structures (array): bool of shape (lambda, d).

        Returns:
            chainer.Variable: shape (lambda, N, classes), the dtype of ``x``.

        Raises:
            ValueError: ``x`` or ``structures`` has another shape, or the image cannot be halved
                in every transition.
        """
        self.check(x, structures)
        structures = chainer.backends.cuda.to_cpu(structures).astype(bool)
        if not len(x):
            return super().forward(x, structures)
        if self.xp is numpy and self.stem.W.dtype != numpy.float16 and engine() is not None:
            return self._forward_compiled(x, structures)
        h = chainer.functions.transpose(self.stem(x), (1, 0, 2, 3))[None]
        for block, group in zip(self.blocks, self.groups.values()):
            function = DenseBlockFunction(structures[:, group], block)
            samples = h.size // (h.shape[0] * h.shape[1])
            (h,) = function.apply((h, *self._parameters(block)))
            if chainer.config.train and not chainer.config.in_recomputing:
                self._update_statistics(block, function.statistics, samples)
        h = chainer.functions.transpose(h, (0, 2, 1))
        return self.classifier(h, n_batch_axes=2)

    def dense_parts(self) -> Any:
        """Return the parts that compute the outputs, for the backend ``graph``.

        Returns:
            DenseNet: this network; see :class:`chainer_sno.protocols.DenselyConnected`.

        Raises:
            ValueError: a subclass has a forward pass of its own, or a link was replaced.
        """
        check_forward(self, DenseNet)
        self.check_links()
        return self

    def _forward_compiled(self, x: Any, structures: Array) -> Any:
        """Return what :meth:`forward` does, on a CPU."""
        self.check_links()
        if self.threads < 1:
            raise ValueError(f"threads must be at least 1, not {self.threads}")
        function = DenseNetFunction(structures, self, self.threads)
        parameters = [self.stem.W]
        for block in self.blocks:
            parameters += self._parameters(block)
        (h,) = function.apply((x, *parameters))
        if chainer.config.train and not chainer.config.in_recomputing:
            samples = x.size // x.shape[1]
            for i, (block, statistics) in enumerate(zip(self.blocks, function.statistics)):
                self._update_statistics(block, statistics, samples // 4**i)
        return self.classifier(h, n_batch_axes=2)

    @staticmethod
    def _parameters(block: DenseBlock) -> list[Any]:
        """Return the parameters of a block in the order in which the functions take them."""
        parameters = [norm.gamma for norm in block.norms]
        parameters += [norm.beta for norm in block.norms]
        parameters += [conv.W for conv in block.convs]
        if hasattr(block, "transition"):
            parameters.append(block.transition.W)
        return parameters

    @staticmethod
    def _update_statistics(
        block: DenseBlock, statistics: list[tuple[Array, Array]], samples: int
    ) -> None:
        """Update the running statistics as BatchNormalization does, structure by structure."""
        adjust = samples / max(samples - 1.0, 1.0)
        for mean, var in statistics:
            for norm in block.norms:
                for average, value in ((norm.avg_mean, mean), (norm.avg_var, var * adjust)):
                    average *= norm.decay
                    average += value[: len(average)] * (1 - norm.decay)
