"""DenseNet with connections under selection as a program of kernels: section 4.2 on a GPU."""

from typing import Any

import numpy

from chainer_sno._types import Array
from chainer_sno.cuda.kernels import MAX_CLASSES, blocks_for
from chainer_sno.graph.optimizer import DeviceRates, FlatParameters

# Threads and channels at once, which dense.cuh explains.
_STRIPS, _STRIP, _READ, _GROUP, _SLICES, _CHUNK = 64, 4, 4, 8, 8, 2048
# Blocks of a launch that keep a large GPU busy, about; sums are split until there are so many.
_BLOCKS = 264
#: Bytes of shared memory that a block may have everywhere.
_SHARED = 48 * 1024


def _weight_group(dtype: Any) -> int:
    """Return the channels at once in the gradient of a convolution's weights."""
    return 4 if numpy.dtype(dtype).itemsize > 4 else 8


def _tile(width: int) -> tuple[int, int]:
    """Return the rows of a tile, and the numbers that it needs with its borders."""
    rows = _STRIPS // blocks_for(width, _STRIP)
    return rows, (rows + 3) * (width + 2)


def definitions(link: Any, image_shape: tuple[int, int], dtype: Any) -> dict[str, int]:
    """Return what the source of ``dense`` must know of a network when it is compiled.

    Args:
        link (chainer_sno.links.PlainDenseNet): the network.
        image_shape (tuple of int): height and width.
        dtype (numpy.dtype): of the network.

    Returns:
        dict: names and values.

    Raises:
        ValueError: the images are too wide or the layers too large for the kernels.
    """
    first = link.stem.W.shape[0]
    widths = [image_shape[1] // 2**i for i in range(len(link.blocks))]
    if widths[0] > _STRIPS * _STRIP:
        raise ValueError(
            f"the GPU's kernels support images of at most {_STRIPS * _STRIP} pixels in width: "
            "use the backend 'reference'"
        )
    tile = max(_tile(width)[1] for width in widths)
    size = numpy.dtype(dtype).itemsize
    group, outputs = _weight_group(dtype), max(first, link.growth_rate)
    needed = size * max(
        _READ * (tile + 9 * outputs),
        link.growth_rate * (tile + 9 * _GROUP),
        group * tile + _STRIPS * _STRIP * outputs + 9 * _SLICES * group,
    )
    if needed > _SHARED:
        raise ValueError(
            f"the GPU's kernels would need {needed} bytes of shared memory for this growth rate, "
            f"first convolution and image width, and have {_SHARED}: use the backend 'reference'"
        )
    return {
        "GROWTH": link.growth_rate,
        "STEM": first,
        "TILE": tile,
        "STRIPS": _STRIPS,
        "STRIP": _STRIP,
        "READ": _READ,
        "GROUP": _GROUP,
        "WEIGHT_GROUP": group,
        "SLICES": _SLICES,
        "CHUNK": _CHUNK,
    }


class _Block:
    """A block's buffers and the arguments that many of its kernels share."""

    def __init__(
        self,
        kernels: Any,
        block: Any,
        bits: int,
        first_bit: int,
        images: int,
        height: int,
        width: int,
        samples: int,
    ) -> None:
        self.block, self.inputs, self.samples = block, block.widths[0], samples
        constants = {(norm.decay, norm.eps) for norm in block.norms}
        if len(constants) > 1:
            raise ValueError(
                "the GPU's kernels take one decay and one eps for the batch normalisations of a "
                f"block, not {sorted(constants)}"
            )
        self.growth = block.widths[-1]
        self.consumers = len(block.widths)
        self.channels = sum(block.widths)
        self.columns = images * height * width
        self.images = images
        rows, _ = _tile(width)
        self.tiles = blocks_for(images * height, rows)
        self.chunks = blocks_for(self.columns, _CHUNK)
        self.transition = hasattr(block, "transition")
        self.pooled_size = self.columns // 4 if self.transition else images
        # The struct Geometry of dense.cuh.
        sizes = images, height, width, self.channels, bits, first_bit, self.inputs, self.consumers
        self.geometry = kernels.xp.asarray(numpy.array(sizes, numpy.int32))
        self._make_buffers(kernels.xp, kernels.dtype)
        self._join_averages(kernels.xp, kernels.dtype)

    def _make_buffers(self, xp: Any, dtype: Any) -> None:
        """Make room for the lists of active channels, and for the feature maps and their like."""
        lists = self.samples, self.consumers
        self.rows = xp.zeros((*lists, self.channels), numpy.int32)
        self.counts, self.live = xp.zeros(lists, numpy.int32), xp.zeros(lists, numpy.int32)
        self.lists = self.geometry, self.rows, self.counts
        maps = self.samples, self.channels
        self.features, self.gfeatures = (xp.zeros((*maps, self.columns), dtype) for _ in range(2))
        self.mean, self.var, self.inv_std = (xp.zeros(maps, dtype) for _ in range(3))
        self.partial = xp.zeros((*maps, self.chunks, 2))
        self.through = xp.zeros((2, *maps))
        self.sums = xp.zeros((*maps, max(self.tiles, self.chunks), 2))
        self.gy = xp.zeros((self.samples, max(self.inputs, self.growth), self.columns), dtype)
        self.pooled, self.gpooled = (xp.zeros((*maps, self.pooled_size), dtype) for _ in range(2))

    def _join_averages(self, xp: Any, dtype: Any) -> None:
        """Put the running statistics of all consumers into one array of which theirs are views."""
        self.averages = xp.zeros((self.consumers, 2, self.channels), dtype)
        for own, norm in zip(self.averages, self.block.norms):
            for row, name in zip(own, ("avg_mean", "avg_var")):
                row[: norm.gamma.size] = getattr(norm, name)
                setattr(norm, name, row[: norm.gamma.size])

    def seen(self, consumer: int) -> Any:
        """Return how a consumer sees the feature maps."""
        norm = self.block.norms[consumer]
        return self.features, self.mean, self.inv_std, norm.gamma.array, norm.beta.array

    def below(self, consumer: int) -> int:
        """Return the channels below a consumer."""
        return self.inputs + consumer * self.growth


class DenseNetwork:
    r"""A DenseNet: its losses, their gradients and the optimizer's step.

    Which connections are active is known on the device alone: kernels are launched for all of
    them, and those without work leave at once.

    Args:
        kernels (chainer_sno.cuda.kernels.Kernels): with those of ``optimizer`` and ``dense``, and
            of :func:`definitions`.
        link (chainer_sno.links.PlainDenseNet): the network; its arrays are updated in place.
        optimizer (chainer.Optimizer): NesterovAG, MomentumSGD or SGD, with no hook but WeightDecay.
        batch_size (int): N.
        image_shape (tuple of int): height and width.
        samples (int): :math:`\lambda`.
        drop_dead (bool): layers that lead nowhere are not computed, and their feature maps'
            running statistics fall to zero; ``structures`` loses their inputs.

    Raises:
        ValueError: the network is larger than the kernels have room for, or the optimizer is
            another.
    """

    dropout = None

    def __init__(
        self,
        kernels: Any,
        link: Any,
        optimizer: Any,
        batch_size: int,
        image_shape: tuple[int, int],
        samples: int = 1,
        drop_dead: bool = False,
    ) -> None:
        xp, dtype = kernels.xp, kernels.dtype
        if link.classes > MAX_CLASSES:
            raise ValueError(
                f"the GPU's kernels support at most {MAX_CLASSES} classes: use the "
                "backend 'reference'"
            )
        self.link, self.samples, self.images = link, samples, batch_size
        self.classes, self.drop_dead = link.classes, drop_dead
        self.rates = DeviceRates(optimizer, xp, dtype)
        self._group = _weight_group(dtype)
        self.flat = FlatParameters(list(link.params()), self.rates, xp)
        bits = len(link.costs)
        height, width = image_shape
        self.x = xp.zeros((link.in_channels, batch_size, height, width), dtype)
        self.structures = xp.zeros((samples, bits), dtype)
        self.row_losses = xp.zeros((samples, batch_size))
        self.gy = xp.zeros((samples * batch_size, link.classes), dtype)
        self.blocks = []
        for i, (block, group) in enumerate(zip(link.blocks, link.groups.values())):
            shape = batch_size, height // 2**i, width // 2**i
            self.blocks.append(_Block(kernels, block, bits, group.start, *shape, samples))
        self._all = xp.arange(link.in_channels, dtype=numpy.int32)
        self._prepare_parts(xp, dtype)

    def _prepare_parts(self, xp: Any, dtype: Any) -> None:
        """Make room for the largest parts of sums, one after the other in the same place."""
        sizes = []
        for i, block in enumerate(self.blocks):
            for consumer in range(block.consumers - 1):
                splits, slabs = self._splits(block, consumer), self._slabs(block, consumer)
                sizes.append(splits * self.samples * block.growth * block.columns)
                weights = block.below(consumer) * block.growth * 9
                sizes.append(slabs * self.samples * weights)
            if block.transition:
                sizes.append(self.samples * block.channels * block.pooled_size)
                slabs = self._transition_slabs(block)
                sizes.append(slabs * self.samples * block.channels**2)
            if i == 0:
                sizes.append(block.inputs * block.columns)
                sizes.append(self._stem_slabs(block) * self.link.stem.W.size)
        self.parts = xp.zeros(max(sizes), dtype)

    def _splits(self, block: _Block, consumer: int) -> int:
        """Return into how many sums over channels a convolution is split."""
        wanted = blocks_for(_BLOCKS, block.tiles * self.samples)
        return max(1, min(wanted, block.below(consumer) // (4 * _READ)))

    def _slabs(self, block: _Block, consumer: int) -> int:
        """Return into how many sums over tiles the gradient of a convolution is split."""
        groups = blocks_for(block.below(consumer), _GROUP)
        return max(1, min(2 * _BLOCKS // (groups * self.samples), block.tiles))

    def _stem_slabs(self, block: _Block) -> int:
        return min(_BLOCKS, block.tiles)

    def _transition_slabs(self, block: _Block) -> int:
        return max(1, min(16, block.pooled_size // 512))

    def add_losses(self, program: Any, t: Array) -> None:
        """Add the kernels from x to the losses of all rows.

        Args:
            program (chainer_sno.cuda.kernels.Program): to which they are added.
            t (array): the classes, int32, shape (N,).
        """
        self._add_connections(program)
        self._add_stem(program)
        for i, block in enumerate(self.blocks):
            for consumer in range(block.consumers - 1):
                self._add_layer(program, block, consumer)
            self._add_pool(program, block)
            if block.transition:
                self._add_transition(program, block, self.blocks[i + 1])
        self._add_classifier(program, t)
        self._add_running_statistics(program)

    def _add_connections(self, program: Any) -> None:
        """Add the kernels that list which channels are active, block by block."""
        for block in self.blocks:
            if self.drop_dead:
                program.add(
                    "drop_dead_layers", (self.samples,), (32,), block.geometry, self.structures
                )
            program.add(
                "connect",
                (block.consumers + 1, self.samples),
                (128,),
                block.geometry,
                self.structures,
                block.rows,
                block.counts,
                block.live,
            )

    def _add_stem(self, program: Any) -> None:
        """Add the first convolution, which is the same for all structures."""
        first = self.blocks[0]
        program.add(
            "stem",
            (first.tiles, 1, 1),
            (_STRIPS,),
            first.geometry,
            self.link.in_channels,
            self._all,
            self.x,
            self.link.stem.W.array,
            self.parts,
        )
        self._add_finish(program, first, 0, first.inputs, 1, shared=True)

    def _add_layer(self, program: Any, block: _Block, consumer: int) -> None:
        """Add a layer: its convolution, and the statistics of its feature maps."""
        splits = self._splits(block, consumer)
        program.add(
            "layer",
            (block.tiles, splits, self.samples),
            (_STRIPS,),
            block.geometry,
            consumer,
            block.rows,
            block.counts,
            *block.seen(consumer),
            block.block.convs[consumer].W.array,
            self.parts,
        )
        self._add_finish(program, block, block.below(consumer), block.growth, splits)

    def _add_pool(self, program: Any, block: _Block) -> None:
        """Add the averages at a block's exit."""
        program.each(
            "pool",
            block.pooled_size,
            block.geometry,
            block.transition,
            block.rows,
            block.counts,
            *block.seen(block.consumers - 1),
            block.pooled,
            more=(block.channels, self.samples),
        )

    def _add_transition(self, program: Any, block: _Block, following: _Block) -> None:
        """Add the 1x1 convolution between two blocks."""
        grid = blocks_for(block.pooled_size, 64), blocks_for(block.channels, 64), self.samples
        program.add(
            "transition",
            grid,
            (256,),
            *block.lists,
            block.channels,
            block.pooled,
            block.block.transition.W.array,
            self.parts,
        )
        self._add_finish(program, following, 0, block.channels, 1)

    def _add_classifier(self, program: Any, t: Array) -> None:
        """Add the classifier with the losses and their gradients at its outputs."""
        last, link, rows = self.blocks[-1], self.link, self.samples * self.images
        program.add(
            "classify_pooled",
            (rows,),
            (128,),
            *last.lists,
            link.classes,
            last.pooled,
            link.classifier.W.array,
            link.classifier.b.array,
            t,
            1 / rows,
            self.row_losses,
            self.gy,
        )

    def _add_running_statistics(self, program: Any) -> None:
        """Add the kernels that move the running statistics of all consumers, block by block."""
        for block in self.blocks:
            norm = block.block.norms[0]
            adjust = block.columns / max(block.columns - 1.0, 1.0)
            program.each(
                "running_statistics",
                block.channels,
                block.geometry,
                self.samples,
                norm.decay,
                adjust,
                block.mean,
                block.var,
                block.averages,
                more=(block.consumers,),
            )

    def _add_finish(
        self, program: Any, block: Any, first: Any, count: Any, splits: Any, shared: bool = False
    ) -> None:
        """Add the kernels that put new feature maps in their place."""
        program.add(
            "finish",
            (block.chunks, count, self.samples),
            (256,),
            block.geometry,
            first,
            splits,
            shared,
            self.parts,
            block.features,
            block.partial,
        )
        eps = block.block.norms[0].eps
        program.each(
            "combine",
            count * self.samples,
            block.geometry,
            first,
            count,
            self.samples,
            block.chunks,
            block.partial,
            eps,
            block.mean,
            block.var,
            block.inv_std,
        )

    def add_update(self, program: Any) -> None:
        """Add the kernels from the losses to the new parameters.

        Args:
            program (chainer_sno.cuda.kernels.Program): to which they are added.
        """
        for block in self.blocks:
            for array in (block.gfeatures, block.through):
                words = array.nbytes // 4
                program.each("clear", words, array.view(numpy.uint32), words)
        following = None
        for block in reversed(self.blocks):
            self._add_exit_back(program, block, following)
            for consumer in reversed(range(block.consumers - 1)):
                self._add_layer_back(program, block, consumer)
            following = block
        self._add_stem_back(program)
        flat = self.flat
        program.each(
            "optimize",
            flat.array.size,
            flat.array,
            flat.velocity,
            flat.gradient,
            flat.array.size,
            *self.rates.arguments,
        )

    def _add_stem_back(self, program: Any) -> None:
        """Add the gradient of the first convolution."""
        link, first = self.link, self.blocks[0]
        self._add_complete(program, first, 0, first.inputs, summed=True)
        slabs = self._stem_slabs(first)
        groups = blocks_for(link.in_channels, self._group)
        program.add(
            "stem_weights",
            (groups, slabs, 1),
            (3 * self._group * _SLICES,),
            first.geometry,
            link.in_channels,
            self._all,
            self.x,
            first.gy,
            self.parts,
        )
        gradient = self.flat.gradient_of(link.stem.W)
        program.each("stem_sum", gradient.size, link.in_channels, slabs, self.parts, gradient)

    def _add_complete(
        self, program: Any, block: Any, first: Any, count: Any, summed: bool = False
    ) -> None:
        """Add the kernel that completes the gradient of feature maps, into gy."""
        program.each(
            "complete",
            block.columns,
            block.geometry,
            first,
            self.samples,
            summed,
            block.features,
            block.mean,
            block.inv_std,
            block.through,
            block.gfeatures,
            block.gy,
            more=(count, 1 if summed else self.samples),
        )

    def _add_normalisation_back(self, program: Any, block: Any, consumer: int, tiles: Any) -> None:
        norm = block.block.norms[consumer]
        gradients = [self.flat.gradient_of(p) for p in (norm.gamma, norm.beta)]
        program.add(
            "normalisation_back",
            (block.below(consumer),),
            (64,),
            block.geometry,
            consumer,
            self.samples,
            tiles,
            self.structures,
            block.live,
            block.sums,
            block.inv_std,
            norm.gamma.array,
            block.through,
            *gradients,
        )

    def _add_exit_back(self, program: Any, block: _Block, following: _Block | None) -> None:
        """Add the way back through the exit, from the next block or the classifier."""
        if following is None:
            self._add_classifier_back(program, block)
        else:
            self._add_transition_back(program, block, following)
        last = block.consumers - 1
        program.add(
            "exit_back",
            (block.chunks, block.channels, self.samples),
            (256,),
            block.geometry,
            block.transition,
            block.rows,
            block.counts,
            *block.seen(last),
            block.gpooled,
            block.gfeatures,
            block.sums,
        )
        self._add_normalisation_back(program, block, last, block.chunks)

    def _add_classifier_back(self, program: Any, block: _Block) -> None:
        """Add the gradients of the classifier, and those at its inputs."""
        samples, classifier, classes = self.samples, self.link.classifier, self.link.classes
        gradients = [self.flat.gradient_of(p) for p in (classifier.W, classifier.b)]
        program.each(
            "classifier_gradient",
            classes * (block.channels + 1),
            block.geometry,
            classes,
            samples,
            self.structures,
            block.pooled,
            self.gy,
            *gradients,
        )
        program.each(
            "classifier_back",
            self.images,
            *block.lists,
            classes,
            self.gy,
            classifier.W.array,
            block.gpooled,
            more=(block.channels, samples),
        )

    def _add_transition_back(self, program: Any, block: _Block, following: _Block) -> None:
        """Add the gradient of a transition, and the one at its inputs."""
        W, out, samples = block.block.transition.W, block.channels, self.samples
        self._add_complete(program, following, 0, following.inputs)
        slabs = self._transition_slabs(block)
        program.add(
            "transition_weights",
            (blocks_for(block.channels, 32), blocks_for(out, 32), slabs * samples),
            (256,),
            block.geometry,
            block.counts,
            out,
            samples,
            following.gy,
            block.pooled,
            self.parts,
        )
        gradient = self.flat.gradient_of(W)
        program.each(
            "transition_sum",
            gradient.size,
            block.geometry,
            out,
            samples,
            slabs,
            self.structures,
            self.parts,
            gradient,
        )
        program.add(
            "transition_back",
            (blocks_for(block.pooled_size, 64), blocks_for(block.channels, 64), samples),
            (256,),
            *block.lists,
            out,
            following.gy,
            W.array,
            block.gpooled,
        )

    def _add_layer_back(self, program: Any, block: Any, consumer: int) -> None:
        """Add the way back through a layer."""
        samples, below = self.samples, block.below(consumer)
        conv = block.block.convs[consumer]
        self._add_complete(program, block, below, block.growth)
        own = block.geometry, consumer, block.rows, block.counts, block.live
        slabs = self._slabs(block, consumer)
        program.add(
            "layer_weights",
            (blocks_for(below, self._group), slabs, samples),
            (3 * self._group * _SLICES,),
            *own,
            *block.seen(consumer),
            block.gy,
            self.parts,
        )
        gradient = self.flat.gradient_of(conv.W)
        program.each(
            "layer_sum",
            gradient.size,
            block.geometry,
            consumer,
            samples,
            slabs,
            self.structures,
            block.live,
            self.parts,
            gradient,
        )
        program.add(
            "layer_back",
            (block.tiles, blocks_for(below, _GROUP), samples),
            (_STRIPS,),
            *own,
            *block.seen(consumer),
            conv.W.array,
            block.gy,
            block.gfeatures,
            block.sums,
        )
        self._add_normalisation_back(program, block, consumer, block.tiles)
