"""The network of section 4.2, DenseNet with connections under selection, fast."""

from typing import Any

from chainer_sno._import_chainer import chainer
from chainer_sno._types import Array
from chainer_sno.functions.dense_block import DenseBlockFunction
from chainer_sno.links.plain_dense_net import DenseBlock, PlainDenseNet


class DenseNet(PlainDenseNet):
    """What :class:`PlainDenseNet` computes, at a cost that falls with the usage rate.

    The parameters have the same names and shapes, so snapshots of one load into the other.  The
    first convolution is shared by the structures, and connections that are absent, or lead
    nowhere, take no part in the products.  It has no second derivative.

    Args:
        depth, growth_rate, blocks, first_channels, classes, in_channels: see
            :class:`PlainDenseNet`.
    """

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
        h = chainer.functions.transpose(self.stem(x), (1, 0, 2, 3))[None]
        for block, group in zip(self.blocks, self.groups.values()):
            function = DenseBlockFunction(structures[:, group], block)
            parameters = [norm.gamma for norm in block.norms]
            parameters += [norm.beta for norm in block.norms]
            parameters += [conv.W for conv in block.convs]
            if function.has_transition:
                parameters.append(block.transition.W)
            samples = h.size // (h.shape[0] * h.shape[1])
            (h,) = function.apply((h, *parameters))
            if chainer.config.train:
                self._update_statistics(block, function.statistics, samples)
        h = chainer.functions.transpose(h, (0, 2, 1))
        return self.classifier(h, n_batch_axes=2)

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
