"""The network of section 4.2, DenseNet with connections under selection: the reference."""

import operator
from collections.abc import Iterator
from typing import Any

import numpy

from chainer_sno import complexity
from chainer_sno._import_chainer import chainer
from chainer_sno._types import Array
from chainer_sno.links.compact_dense_net import ONES, CompactDenseNet
from chainer_sno.protocols import check_forward

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

    def __init__(
        self, in_channels: int, layers: int, growth_rate: int, transition: bool, initialW: Any
    ) -> None:
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

    def consumers(self) -> Iterator[tuple[slice, list[int]]]:
        """Yield the slice of the block's bits and the widths of the inputs, per consumer."""
        first = 0
        for inputs in range(1, len(self.widths) + 1):
            yield slice(first, first + inputs), self.widths[:inputs]
            first += inputs

    def live(self, bits: Array) -> Any:
        """Return which consumers the exit depends on.

        Args:
            bits (numpy.ndarray): the block's bits, bool.

        Returns:
            list of bool: of the layers and, last, of the exit itself, which is always true.
        """
        live = [False] * len(self.convs) + [True]
        taken = bits.tolist()
        for consumer, (own, _) in reversed([*enumerate(self.consumers())]):
            if live[consumer]:
                _, *layers = taken[own]
                live[:consumer] = map(operator.or_, live, layers)
        return live

    def remaining(self, bits: Array) -> Any:
        """Return what remains of the block at a structure.

        A layer remains if the exit depends on it and it has an input; without one it outputs
        zeros, and its consumers take a constant in its place.

        Args:
            bits (numpy.ndarray): the block's bits, bool.

        Returns:
            dict: for the number of each consumer that remains, the inputs of a consumer of
            :class:`~chainer_sno.links.CompactDenseNet`; and, as arrays of booleans, which of its
            channels those inputs have, and which are those of feature maps that are zero.

        Raises:
            ValueError: no path leads from the block's input to its exit.
        """
        reached, numbers, remaining = [True], {0: 0}, {}
        live = self.live(bits)
        for i, (own, widths) in enumerate(self.consumers()):
            taken = bits[own]
            reached.append(bool((taken & reached).any()))
            if live[i] and taken.any():
                kept = taken & [source in numbers for source in range(len(taken))]
                zero = taken & ~kept
                inputs = [numbers[source] for source in numpy.flatnonzero(kept).tolist()]
                remaining[i] = (
                    inputs + [ONES] * bool(zero.any()),
                    kept.repeat(widths),
                    zero.repeat(widths),
                )
                numbers[i + 1] = len(remaining)
        if not reached[-1]:
            raise ValueError(
                "this structure cannot be compacted: no path leads through every block, so the "
                "outputs do not depend on the images"
            )
        return remaining


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
        criterion (str): what the costs count, weights.
        groups (dict): the slices of the bits of ``block_1``, ``block_2``, ...

    Raises:
        ValueError: an argument is not a positive integer, or the layers do not spread evenly
            over the blocks.
    """

    criterion = "weights"

    #: DenseNet computes one structure as cheaply as the compact network, and the two must agree.
    evaluate_compact = False

    def __init__(
        self,
        depth: int = 40,
        growth_rate: int = 12,
        blocks: int = 3,
        first_channels: int = 16,
        classes: int = 10,
        in_channels: int = 3,
        initialW: Any = None,
    ) -> None:
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
                f"depth must be 4 plus a positive multiple of {blocks}, the number of blocks, not "
                f"{depth}"
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

    @property
    def printable_specs(self) -> Iterator[tuple[str, Any]]:
        """The constructor's arguments, for ``repr``; ``str`` is Chainer's tree of the links."""
        yield "depth", 4 + sum(len(block.convs) for block in self.blocks)
        yield "growth_rate", self.growth_rate
        yield "blocks", len(self.blocks)
        yield "first_channels", self.stem.out_channels
        yield "classes", self.classes
        yield "in_channels", self.in_channels

    def __repr__(self) -> str:
        return str(chainer.Link.__str__(self))

    def _block_costs(self, block: DenseBlock) -> Array:
        """Return the weights of each connection of a block, in the order of the bits."""
        outputs = [9 * self.growth_rate] * len(block.convs)
        outputs.append(sum(block.widths) if hasattr(block, "transition") else self.classes)
        return numpy.concatenate(
            [
                weights * numpy.array(widths, dtype=numpy.float64)
                for weights, (_, widths) in zip(outputs, block.consumers())
            ]
        )

    def dense_parts(self) -> Any:
        """Return the parts that compute the outputs, for the backend ``graph``.

        Returns:
            PlainDenseNet: this network; see :class:`chainer_sno.protocols.DenselyConnected`.

        Raises:
            ValueError: a subclass has a forward pass of its own, or a link was replaced.
        """
        check_forward(self, PlainDenseNet)
        self.check_links()
        return self

    def check_links(self) -> None:
        """Check that the links are those that the compiled code knows.

        Raises:
            ValueError: one is another, or computes something else.
        """
        convolutions = [(self.stem, 3)]
        for block in self.blocks:
            convolutions += [(conv, 3) for conv in block.convs]
            if hasattr(block, "transition"):
                convolutions.append((block.transition, 1))
            for norm in block.norms:
                if (
                    type(norm) is not chainer.links.BatchNormalization
                    or norm.gamma is None
                    or norm.beta is None
                    or norm.axis not in (None, (0, 2, 3))
                ):
                    self._refuse(norm)
                if norm._local_link_hooks:
                    self._refuse(norm, " with link hooks")
        for conv, side in convolutions:
            own = conv.ksize, conv.stride, conv.pad, conv.dilate, conv.groups
            known = side, (1, 1), (side // 2, side // 2), (1, 1), 1
            if type(conv) is not chainer.links.Convolution2D or own != known or conv.b is not None:
                self._refuse(conv)
            if conv._local_link_hooks:
                self._refuse(conv, " with link hooks")

    @staticmethod
    def _refuse(link: Any, why: str = "") -> None:
        raise ValueError(
            f"DenseNet has compiled code for its own links only, and not for {link!r}{why}: "
            "use PlainDenseNet with the backend 'reference'"
        )

    def costs_of(self, criterion: str, x_shape: tuple[int, ...] | None = None) -> Array:
        """Return what each connection costs by a criterion.

        Args:
            criterion (str): ``"weights"`` or ``"flops"``, see :func:`chainer_sno.complexity.costs`.
                A weight of a convolution is used once a pixel of the block's image, one of the
                classifier once.
            x_shape (tuple of int): of an image, (channels, H, W); for FLOPs.

        Returns:
            numpy.ndarray: c, shape (d,), float64.

        Raises:
            ValueError: the criterion is another, or FLOPs without ``x_shape``.
        """
        if x_shape is None:
            if criterion == "flops":
                raise ValueError("the FLOPs depend on the size of the images: give examples as x")
            x_shape = self.in_channels, 1, 1
        per_weight = numpy.empty(len(self.costs))
        for i, (block, group) in enumerate(zip(self.blocks, self.groups.values())):
            pixels = x_shape[1] * x_shape[2] // 4**i  # a transition halves both sides
            per_weight[group] = complexity.per_weight(criterion, pixels)
            if not hasattr(block, "transition"):
                classifier = slice(group.stop - len(block.widths), group.stop)
                per_weight[classifier] = complexity.per_weight(criterion)
        return per_weight * self.costs

    def weight_ratio(self, structure: Array) -> float:
        """Return the fraction of the weights that a structure keeps.

        Args:
            structure (array): bits, shape (d,).

        Returns:
            float: between 0 and 1; of the convolutions and the classifier, the first
            convolution included, which no bit switches off.  Biases and BN are left out.
        """
        structure = chainer.backends.cuda.to_cpu(structure)
        structure = complexity.check_structure(structure, len(self.costs))
        stem = self.stem.W.size
        return float((stem + (structure * self.costs).sum()) / (stem + self.costs.sum()))

    def without_dead_layers(self, structure: Array) -> Array:
        """Return a structure in which the layers that lead nowhere have no inputs.

        A layer leads nowhere if no path of connections goes from it to the exit of its block.  The
        outputs of the network are the same at both structures.  In training mode they differ in
        the batch statistics of those layers' feature maps, which are zero at the one returned, and
        in what it costs to compute them.

        Args:
            structure (array): bits, shape (d,).

        Returns:
            array: bool of shape (d,), on the device of the structure.
        """
        bits = chainer.backends.cuda.to_cpu(structure).astype(bool)
        for block, group in zip(self.blocks, self.groups.values()):
            own = bits[group]  # a view
            for live, (inputs, _) in zip(block.live(own), block.consumers()):
                own[inputs] &= live
        return chainer.backend.get_device_from_array(structure).send(bits)

    def compact(self, structure: Array) -> Any:
        """Return the plain network that remains when absent connections are deleted.

        Layers that lead nowhere are gone as well, and those without inputs, which output zeros.
        In evaluation mode it computes what this network computes at the structure.  While
        training, its constants are weights like others.

        Args:
            structure (array): bits, shape (d,).

        Returns:
            chainer_sno.links.CompactDenseNet: on the device and of the dtype of this one.

        Raises:
            ValueError: no path leads from the images to the classifier, or the structure has
                another length.
        """
        structure = chainer.backends.cuda.to_cpu(structure)
        structure = complexity.check_structure(structure, len(self.costs))
        remaining = [
            block.remaining(structure[group])
            for block, group in zip(self.blocks, self.groups.values())
        ]
        with chainer.using_config("dtype", self.stem.W.dtype):
            network = CompactDenseNet(
                [[inputs for inputs, _, _ in consumers.values()] for consumers in remaining],
                [block.widths[0] for block in self.blocks],
                self.growth_rate,
                self.classes,
                self.in_channels,
                initialW=chainer.initializers.Zero(),
            )
        network.stem.W.array[...] = chainer.backends.cuda.to_cpu(self.stem.W.array)
        for block, small, consumers in zip(self.blocks, network.blocks, remaining):
            for (i, (_, kept, zero)), consumer in zip(consumers.items(), small):
                layers = [*block.convs, getattr(block, "transition", self.classifier)]
                consumer.take(block.norms[i], layers[i], kept, zero)
        network.to_device(self.device)
        return network

    def check(self, x: Any, structures: Array) -> None:
        """Check that images and structures have the shapes that :meth:`forward` takes.

        Args:
            x (chainer.Variable or array): images, shape (N, in_channels, H, W).
            structures (array): shape (lambda, d).

        Raises:
            ValueError: a shape is another.
        """
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
        return F.stack([self._forward_one(x, structure) for structure in structures])

    def _forward_one(self, x: Any, structure: Array) -> Any:
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
