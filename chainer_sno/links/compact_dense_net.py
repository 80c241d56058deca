"""What remains of a DenseNet at one structure: a plain network."""

from typing import Any

import numpy

from chainer_sno._import_chainer import chainer

F, L = chainer.functions, chainer.links
to_cpu = chainer.backends.cuda.to_cpu

#: The input that is 1 everywhere, which stands for feature maps that are zero everywhere.
ONES = "ones"


class Convolution3x3(chainer.links.Convolution2D):
    """What ``Convolution2D(in_channels, out_channels, 3, pad=1, nobias=True)`` computes, sooner.

    Chainer's convolution copies every input nine times.  Here the weights of all nine offsets
    multiply the inputs as they are, and the products, few channels, are shifted and added.
    """

    def __init__(self, in_channels: int, out_channels: Any, initialW: Any) -> None:
        super().__init__(in_channels, out_channels, 3, pad=1, nobias=True, initialW=initialW)

    def forward(self, x: Any) -> Any:
        """Return the convolution of x, shape (N, out_channels, H, W)."""
        n, c, height, width = x.shape
        outputs = len(self.W)
        W = F.reshape(F.transpose(self.W, (2, 3, 0, 1)), (1, 9 * outputs, c))
        W = F.broadcast_to(W, (n, *W.shape[1:]))
        products = F.matmul(W, F.reshape(x, (n, c, height * width)))
        products = F.reshape(products, (n, 9, outputs, height, width))
        products = F.pad(products, [(0, 0)] * 3 + [(1, 1)] * 2, "constant")
        return sum(
            products[:, 3 * i + j, :, i : i + height, j : j + width]
            for i in range(3)
            for j in range(3)
        )


class _Consumer(chainer.Chain):
    """BN and ReLU of the feature maps that a layer or an exit takes; a subclass goes on.

    Args:
        inputs (sequence): the numbers of the feature maps and, last, ``ONES`` or not.
        widths (list of int): channels of each feature map of the block so far.

    Attributes:
        channels (int): channels of the feature maps that it takes.
        ones (bool): whether it takes the constant too.
    """

    def __init__(self, inputs: Any, widths: Any) -> None:
        super().__init__()
        self.sources = [i for i in inputs if i != ONES]
        self.ones = ONES in inputs
        numbers = list(range(len(widths)))
        wanted = [i for i in numbers if i in self.sources] + [ONES] * self.ones
        if list(inputs) != wanted or not inputs:
            raise ValueError(
                f"the inputs of a consumer must be some of the feature maps {numbers} in ascending "
                f"order, followed by {ONES!r} or nothing, not {inputs!r}"
            )
        self.channels = sum(widths[i] for i in self.sources)
        if self.channels:
            with self.init_scope():
                self.norm = L.BatchNormalization(self.channels)

    def take(self, norm: Any, layer: Any, kept: Any, zero: Any) -> None:
        """Take over what remains of a consumer of the whole network.

        Args:
            norm (chainer.links.BatchNormalization): of all channels that the consumer may take.
            layer (chainer.Link): its convolution, or the classifier.
            kept (numpy.ndarray): which of the channels remain, bool.
            zero (numpy.ndarray): which it takes although they are zero everywhere, bool.
        """
        gamma, beta = to_cpu(norm.gamma.array), to_cpu(norm.beta.array)
        mean, var = to_cpu(norm.avg_mean), to_cpu(norm.avg_var)
        if self.channels:
            self.norm.gamma.array[...], self.norm.beta.array[...] = gamma[kept], beta[kept]
            self.norm.avg_mean[...], self.norm.avg_var[...] = mean[kept], var[kept]
        # What BN and ReLU make of a zero.
        constant = numpy.maximum(beta - gamma * mean / numpy.sqrt(var.astype("d") + norm.eps), 0)
        W = to_cpu(layer.W.array)
        self._take_weights(
            layer, W[:, kept], numpy.tensordot(W[:, zero], constant[zero], axes=(1, 0))
        )

    def activations(self, features: Any) -> Any:
        """Return the feature maps that it takes after BN and ReLU."""
        return F.relu(self.norm(F.concat([features[i] for i in self.sources])))


class CompactLayer(_Consumer):
    """A layer: BN, ReLU and a 3x3 convolution.

    A feature map that is zero everywhere still passes through BN and ReLU of its consumer.  What
    comes out is the same number at every pixel, but not in the padding around the image, so it is
    no bias: it is one more channel of the convolution, which is 1 everywhere.
    """

    def __init__(self, inputs: Any, widths: Any, growth_rate: int, initialW: Any) -> None:
        super().__init__(inputs, widths)
        with self.init_scope():
            self.conv = Convolution3x3(self.channels + self.ones, growth_rate, initialW)

    def _take_weights(self, layer: Any, W: Any, constant: Any) -> None:
        self.conv.W.array[:, : self.channels] = W
        if self.ones:
            self.conv.W.array[:, -1] = constant

    def forward(self, features: Any) -> Any:
        """Return the layer's output, shape (N, growth_rate, H, W), from a list of feature maps."""
        h = [self.activations(features)] if self.channels else []
        if self.ones:
            n, _, *image = features[0].shape
            h.append(self.xp.ones((n, 1, *image), features[0].dtype))
        return self.conv(F.concat(h))


class CompactTransition(_Consumer):
    """BN, ReLU, means over squares and a 1x1 convolution.

    The means come first, for the product is then a quarter as large.  Without padding a constant
    is a bias.
    """

    def __init__(self, inputs: Any, widths: Any, out_channels: Any, initialW: Any) -> None:
        super().__init__(inputs, widths)
        with self.init_scope():
            self.conv = L.Convolution2D(
                self.channels, out_channels, 1, nobias=not self.ones, initialW=initialW
            )

    def _take_weights(self, layer: Any, W: Any, constant: Any) -> None:
        self.conv.W.array[...] = W
        if self.ones:
            self.conv.b.array[...] = constant[:, 0, 0]

    def forward(self, features: Any) -> Any:
        """Return the next block's input, shape (N, out_channels, H / 2, W / 2)."""
        return self.conv(F.average_pooling_2d(self.activations(features), 2))


class CompactExit(_Consumer):
    """BN, ReLU, means over the image and the classifier, whose bias has any constant."""

    def __init__(self, inputs: Any, widths: Any, classes: int, initialW: Any) -> None:
        super().__init__(inputs, widths)
        with self.init_scope():
            self.classifier = L.Linear(self.channels, classes, initialW=initialW)

    def _take_weights(self, layer: Any, W: Any, constant: Any) -> None:
        self.classifier.W.array[...] = W
        self.classifier.b.array[...] = to_cpu(layer.b.array) + constant

    def forward(self, features: Any) -> Any:
        """Return the outputs, shape (N, classes)."""
        return self.classifier(F.mean(self.activations(features), axis=(2, 3)))


class CompactDenseNet(chainer.Chain):
    """A DenseNet of given connections, without what is not connected.

    The feature maps of a block are numbered: 0 is its input and i the output of its layer i.  A
    layer and the exit of a block take some of them, each with a batch normalisation of its own.
    In place of feature maps that are zero everywhere they take ``ONES``.

    Args:
        inputs (sequence): for each block, for each of its layers and last for its exit, the
            numbers of the feature maps that it takes, in their order, and ``"ones"`` behind them
            or not; an exit takes at least one feature map.
        channels (sequence of int): of the input of each block.
        growth_rate (int): output channels of a layer.
        classes (int): outputs.
        in_channels (int): channels of the images.
        initialW (initializer): of all weights; Chainer's HeNormal by default.

    Attributes:
        geometry (dict): the arguments, but for ``initialW``, such as JSON can hold.

    Raises:
        ValueError: the inputs of a consumer are not as above, an exit takes no feature map, or
            there are not as many channels as blocks.
    """

    def __init__(
        self,
        inputs: Any,
        channels: Any,
        growth_rate: int,
        classes: int,
        in_channels: int = 3,
        initialW: Any = None,
    ) -> None:
        super().__init__()
        self.geometry = {
            "inputs": [[list(taken) for taken in block] for block in inputs],
            "channels": [int(c) for c in channels],
            "growth_rate": int(growth_rate),
            "classes": int(classes),
            "in_channels": int(in_channels),
        }
        exits = [set(block[-1]) - {ONES} if block else () for block in inputs]
        if not (len(inputs) == len(channels) > 0 and all(exits)):
            raise ValueError(
                "each block needs its channels and an exit that takes at least one feature map"
            )
        initialW = initialW or chainer.initializers.HeNormal()
        with self.init_scope():
            self.stem = Convolution3x3(in_channels, channels[0], initialW)
            self.blocks = chainer.ChainList()
        for block, width, following in zip(inputs, channels, [*channels[1:], None]):
            *layers, exit_ = block
            widths = [width] + [growth_rate] * len(layers)
            consumers = [
                CompactLayer(taken, widths[: i + 1], growth_rate, initialW)
                for i, taken in enumerate(layers)
            ]
            if following is None:
                consumers.append(CompactExit(exit_, widths, classes, initialW))
            else:
                consumers.append(CompactTransition(exit_, widths, following, initialW))
            self.blocks.append(chainer.ChainList(*consumers))

    def forward(self, x: Any) -> Any:
        """Return the outputs before the softmax.

        Args:
            x (chainer.Variable or array): images, shape (N, in_channels, H, W); every transition
                halves H and W.

        Returns:
            chainer.Variable: shape (N, classes).

        Raises:
            ValueError: the image cannot be halved in every transition.
        """
        factor = 2 ** (len(self.blocks) - 1)
        if any(n % factor for n in x.shape[2:]):
            raise ValueError(
                f"height and width of the images must be multiples of {factor}, not {x.shape[2:]}"
            )
        h = self.stem(x)
        for block in self.blocks:
            features = [h]
            for consumer in block:
                features.append(consumer(features))
            h = features[-1]
        return h
