"""The network of section 4.2, DenseNet with connections under selection: the plain reference."""

import numpy

from chainer_sno._import_chainer import chainer

F, L = chainer.functions, chainer.links


class DenseBlock(chainer.Chain):
    """The parameters of one block: layers of BN-ReLU-convolution, and the block's exit.

    Args:
        in_channels (int): channels of the block's input.
        layers (int): layers, each of ``growth_rate`` output channels.
        growth_rate (int): output channels of a layer.
        transition (bool): the exit is a transition, with a 1x1 convolution; otherwise it only
            normalises, and the classifier follows.
        initialW (initializer): of the convolutions.

    Attributes:
        norms (chainer.ChainList): the batch normalisations of the consumers, layers first and
            exit last.
        convs (chainer.ChainList): the 3x3 convolutions of the layers.
        widths (list of int): channels of the inputs that a consumer selects among.
    """

    def __init__(self, in_channels, layers, growth_rate, transition, initialW):
        super().__init__()
        self.widths = [in_channels] + [growth_rate] * layers
        ends = numpy.cumsum(self.widths).tolist()
        with self.init_scope():
            self.norms = chainer.ChainList(*(L.BatchNormalization(c) for c in ends))
            self.convs = chainer.ChainList(
                *(
                    L.Convolution2D(c, growth_rate, 3, pad=1, nobias=True, initialW=initialW)
                    for c in ends[:-1]
                )
            )
            if transition:
                self.transition = L.Convolution2D(
                    ends[-1], ends[-1], 1, nobias=True, initialW=initialW
                )

    def consumers(self):
        """Yield the slice of the block's bits and the widths of the inputs, per consumer."""
        first = 0
        for inputs in range(1, len(self.widths) + 1):
            yield slice(first, first + inputs), self.widths[:inputs]
            first += inputs


class PlainDenseNet(chainer.Chain):
    """DenseNet whose layers and exits select among their inputs; one forward pass a structure.

    A layer, a transition and the classifier each select among the input of their block and the
    outputs of the layers before them.  The bits stand block by block, consumer by consumer (the
    exit last), input by input (the block's input first).  An absent connection is masked after
    BN and ReLU (reading R3); batch statistics are those of one structure, and each structure in
    its turn updates the running ones (R7).

    Args:
        depth (int): 4 + the layers of all blocks.
        growth_rate (int): output channels of a layer.
        blocks (int): blocks; between two of them is a transition, which halves the image.
        first_channels (int): output channels of the first convolution.
        classes (int): outputs.
        in_channels (int): channels of the images.
        initialW (initializer): of all weights; Chainer's HeNormal (reading R15) by default.

    Attributes:
        costs (numpy.ndarray): c, the number of weights of each connection (R2), shape (d,),
            float64.
        groups (dict): the slices of the bits of ``block_1``, ``block_2``, ...

    Raises:
        ValueError: an argument is not a positive integer, or the layers do not spread evenly
            over the blocks.
    """

    def __init__(
        self,
        depth=40,
        growth_rate=12,
        blocks=3,
        first_channels=16,
        classes=10,
        in_channels=3,
        initialW=None,
    ):
        super().__init__()
        arguments = {
            "depth": depth,
            "growth_rate": growth_rate,
            "blocks": blocks,
            "first_channels": first_channels,
            "classes": classes,
            "in_channels": in_channels,
        }
        for name, value in arguments.items():
            if isinstance(value, bool) or not isinstance(value, (int, numpy.integer)) or value < 1:
                raise ValueError(f"{name} must be a positive integer, not {value!r}")
        layers, rest = divmod(depth - 4, blocks)
        if layers < 1 or rest:
            raise ValueError(
                f"depth must be 4 + a positive multiple of the {blocks} blocks, not {depth}"
            )
        self.in_channels, self.growth_rate, self.classes = in_channels, growth_rate, classes
        starts = [first_channels + i * layers * growth_rate for i in range(blocks + 1)]
        initialW = initialW or chainer.initializers.HeNormal()
        with self.init_scope():
            self.stem = L.Convolution2D(
                in_channels, first_channels, 3, pad=1, nobias=True, initialW=initialW
            )
            self.blocks = chainer.ChainList(
                *(
                    DenseBlock(channels, layers, growth_rate, i + 1 < blocks, initialW)
                    for i, channels in enumerate(starts[:-1])
                )
            )
            self.classifier = L.Linear(starts[-1], classes, initialW=initialW)
        self.costs = numpy.concatenate([self._block_costs(block) for block in self.blocks])
        bits = len(self.costs) // blocks
        self.groups = {f"block_{i + 1}": slice(i * bits, (i + 1) * bits) for i in range(blocks)}

    def _block_costs(self, block):
        """Return the weights of each connection of a block, in the order of the bits."""
        outputs = [9 * self.growth_rate] * len(block.convs)
        outputs.append(sum(block.widths) if hasattr(block, "transition") else self.classes)
        return numpy.concatenate(
            [
                weights * numpy.array(widths, dtype=numpy.float64)
                for weights, (_, widths) in zip(outputs, block.consumers())
            ]
        )

    def weight_ratio(self, structure):
        """Return the fraction of the weights that a structure keeps.

        Args:
            structure (array): bits, shape (d,).

        Returns:
            float: between 0 and 1; of the convolutions and the classifier, the first
            convolution included, which no bit switches off.  Biases and BN are left out.
        """
        structure = chainer.backends.cuda.to_cpu(structure)
        stem = self.stem.W.size
        return float((stem + (structure * self.costs).sum()) / (stem + self.costs.sum()))

    def _check(self, x, structures):
        """Raise ValueError if the images or the structures have another shape than expected."""
        factor = 2 ** (len(self.blocks) - 1)
        if x.ndim != 4 or x.shape[1] != self.in_channels or any(n % factor for n in x.shape[2:]):
            raise ValueError(
                f"x must have the shape (N, {self.in_channels}, H, W) with H and W multiples "
                f"of {factor}, not {x.shape}"
            )
        d = len(self.costs)
        if structures.ndim != 2 or structures.shape[1] != d or not len(structures):
            raise ValueError(
                f"structures must have the shape (lambda, {d}), not {structures.shape}"
            )

    def forward(self, x, structures):
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
        self._check(x, structures)
        return F.stack([self._forward_one(x, structure) for structure in structures])

    def _forward_one(self, x, structure):
        h = self.stem(x)
        for block, group in zip(self.blocks, self.groups.values()):
            bits = structure[group]
            features = [h]
            for i, (own, widths) in enumerate(block.consumers()):
                mask = self.xp.asarray(bits[own]).repeat(widths).astype(h.dtype)
                h = F.relu(block.norms[i](F.concat(features)))
                h = h * F.broadcast_to(mask[None, :, None, None], h.shape)
                if i < len(block.convs):
                    features.append(block.convs[i](h))
            if hasattr(block, "transition"):
                h = F.average_pooling_2d(block.transition(h), 2)
        return self.classifier(F.mean(h, axis=(2, 3)))
