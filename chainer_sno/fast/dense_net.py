"""The DenseNet of section 4.2 on a CPU: all structures, by one or more threads, in few calls."""

import concurrent.futures
import functools
import os
import threading
import weakref
from typing import Any

import numpy

from chainer_sno._types import Array
from chainer_sno.fast import blocks, winograd
from chainer_sno.fast.blocks import Member, Shape
from chainer_sno.fast.vectors import array_at, compiled
from chainer_sno.fast.winograd import BACK, LANES, PAIR, POSITIONS, TILE

#: Numbers after the end of an array that a vector may read or write.
SLACK = 4 * PAIR
#: How many sets of arrays are kept for later calls.
KEPT = 4
#: Threads for each unit of the block that has most units, at most; each repeats some of the work.
PARTS = 4
#: Structures whose maps are in memory at once where there will be no backward pass.
TOGETHER = 2


def _rounded(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


@functools.cache
def _kernel_matrix(dtype: Any) -> Array:
    """Return the matrix that transforms a kernel of 3x3 numbers to POSITIONS numbers."""
    return numpy.kron(winograd.KERNEL, winograd.KERNEL).astype(dtype)


def aligned(size: int, dtype: Any) -> Array:
    """Return zeros that begin at a multiple of 64 bytes, with room for a vector after them."""
    itemsize = numpy.dtype(dtype).itemsize
    memory = numpy.zeros((size + SLACK) * itemsize + 64, numpy.uint8)
    start = -memory.ctypes.data % 64
    zeros: Array = memory[start : start + (size + SLACK) * itemsize].view(dtype)
    return zeros


@compiled
def _transform_kernels(
    W: Array, w_starts: Array, wanted: Array, outputs: int, taps: Array, U: Array, u_starts: Array,
    member: Member,
) -> None:  # fmt: skip
    """Transform the kernels of the channels that are wanted.

    Args:
        W (array): int64, where in memory the kernels (outputs, channels, 9) of each layer begin.
        w_starts (array): int64, how many numbers the layers before each one have.
        wanted (array): uint8, of each layer, shape (layers or more, channels or more).
        outputs (int): of each layer.
        taps (array): room.
        U (array): gets the transformed kernels.
        u_starts (array): int64, where those of each layer begin.
        member (Member): the thread that does its part of the layers.
    """
    step, padded = len(taps) // 9, blocks.rounded(outputs, 4)
    for k in range(member.number, len(W), member.size):
        size = w_starts[k + 1] - w_starts[k]
        channels, kernels = size // (outputs * 9), array_at(W[k], size, taps[0])
        for channel in range(channels):
            if wanted[k, channel]:
                for o in range(outputs):
                    for t in range(9):
                        taps[t * step + o] = kernels[(o * channels + channel) * 9 + t]
                place = u_starts[k] + channel * POSITIONS * padded
                winograd.transform_kernel(taps, step, U, place, padded)


@compiled
def _move_images(
    x: Array, maps: Array, height: int, width: int, back: bool, begin: int, end: int
) -> None:
    """Copy images (N, channels, H, W) to maps (blocks, channels, height, width, LANES), or back.

    They are the images from ``begin`` on, before ``end``.
    """
    n, channels, h, w = x.shape
    for i in range(begin, min(end, n)):
        b, lane = i // LANES, i % LANES
        for c in range(channels):
            for y in range(h):
                place = (((b * channels + c) * height + y) * width) * LANES + lane
                for k in range(w):
                    if back:
                        x[i, c, y, k] = maps[place + k * LANES]
                    else:
                        maps[place + k * LANES] = x[i, c, y, k]


class BlockPlan:
    """The sizes of a block, and where its parameters are in flat arrays.

    Args:
        widths (list of int): channels of its input and of what each layer makes.
        images, height, width (int): N and the sides of the maps.
        outputs (int): channels of its transition; 0 without one.
        inputs (int): inputs of the block, at most; structures may differ in them.
        structures (int): whose maps are in memory at once.

    Attributes:
        shape (Shape): of its maps.
        channels (int): of the input and all layers.
        maps (int): of all structures, at most.
        starts (numpy.ndarray): where the parameters of each consumer's normalisation begin.
        u_starts (numpy.ndarray): where the transformed kernels of each layer begin.
        w_starts (numpy.ndarray): where the kernels of each layer begin.
    """

    def __init__(
        self,
        widths: Any,
        images: int,
        height: int,
        width: int,
        outputs: int,
        inputs: int = 1,
        structures: int = 1,
    ) -> None:
        self.widths, self.outputs = list(widths), outputs
        self.inputs, self.structures = inputs, structures
        self.channels = sum(widths)
        self.maps = inputs * widths[0] + structures * sum(widths[1:])
        growth = widths[-1]
        self.padded_height, self.padded_width = _rounded(height, TILE), _rounded(width, TILE)
        self.plane = self.padded_height * self.padded_width * LANES
        self.blocks = -(-images // LANES)
        tiles = self.padded_height * self.padded_width // TILE**2
        unit = -(-blocks.TILES // tiles)
        self.units = -(-self.blocks // unit)
        # A product writes four outputs at a time, up to three planes after the last one.
        self.shape = Shape(images, self.maps + 3, height, width, growth, unit)
        ends = numpy.cumsum(widths, dtype=numpy.int64)
        self.starts = numpy.concatenate(([0], numpy.cumsum(ends)))
        taken = ends[:-1]
        padded = _rounded(growth, 4)
        sizes = taken * (POSITIONS * padded) + SLACK
        self.u_starts = numpy.concatenate(([0], numpy.cumsum(sizes)))
        self.w_starts = numpy.concatenate(([0], numpy.cumsum(taken * growth * 9)))
        # Pairs of pixels of the next block's maps.
        next_plane = _rounded(height // 2, TILE) * _rounded(width // 2, TILE)
        self.pairs = next_plane // 2
        rows = max(1, blocks.TILES // (self.padded_width // TILE))
        pairs = (rows * self.padded_width // TILE + 1) // 2
        # The gradient of the weights has its inputs where the products of the forward pass are.
        channels, products = max(blocks.CHANNELS, padded), max(blocks.WEIGHT_CHANNELS, padded)
        #: Numbers of the arrays of a thread.
        self.scratch = {
            "S": winograd.POINTS * (self.padded_width + 2) * LANES,
            "V": POSITIONS * (pairs * channels * PAIR + LANES),
            "M": max(POSITIONS * (pairs * products * PAIR + LANES), POSITIONS * BACK * PAIR),
            "gy": unit * growth * self.plane,
            "bits": unit * self.channels * self.plane // 8,
        }
        fours = _rounded(self.channels, 4)
        self.gradient_size = max(fours * POSITIONS * padded, fours * _rounded(max(outputs, 1), 4))


@functools.lru_cache(maxsize=32)
def block_plan(*sizes: Any) -> BlockPlan:
    """Return the plan of some sizes, the arguments of :class:`BlockPlan`; it is made once."""
    return BlockPlan(*sizes)


class _Thread:
    """The arrays that one thread of a team writes to."""

    def __init__(self, plans: list[BlockPlan], dtype: Any) -> None:
        sizes = {name: max(plan.scratch[name] for plan in plans) for name in plans[0].scratch}
        # The borders of S stay zero, and lie elsewhere for another width.
        self.S = [aligned(plan.scratch["S"], dtype) for plan in plans]
        self.V, self.M, self.gy = (aligned(sizes[name], dtype) for name in ("V", "M", "gy"))
        self.bits = aligned(sizes["bits"], numpy.uint8)
        channels, most = (
            max(getattr(plan, name) for plan in plans) for name in ("channels", "maps")
        )
        self.normal = numpy.zeros((4, channels), dtype)
        self.own = aligned(LANES, dtype)
        outputs = max(_rounded(p.shape.growth, 4) for p in plans)
        self.taps = aligned(9 * 4 * outputs, dtype)
        self.kernel_taps = aligned(9 * (outputs + LANES), dtype)[: 9 * (outputs + LANES)]
        #: The kernels of the first convolution, whose plan is the last.
        self.stem_U = aligned(int(plans[-1].u_starts[-1]), dtype)
        self.fresh, self.direct = (numpy.zeros(channels, numpy.uint8) for _ in range(2))
        self.seen = numpy.zeros(most, numpy.uint8)
        self.slope, self.offset = (numpy.zeros(most, dtype) for _ in range(2))


class Workspace:
    """The arrays of a forward and a backward pass, kept for the next ones.

    Args:
        plans (list of BlockPlan): of the blocks.
        in_channels (int): of the images.
        threads (int): how many may work at once.
        dtype (numpy.dtype): of the network.
        training (bool): there will be a backward pass.
    """

    def __init__(
        self,
        plans: list[BlockPlan],
        in_channels: int,
        threads: int,
        dtype: Any,
        training: bool,
    ) -> None:
        first, last = plans[0], plans[-1]
        features = first.widths[0]
        # The first convolution is a layer of its own: images in, `features` maps out.
        self.stem_shape = first.shape._replace(channels=in_channels, growth=features)
        self.stem_plan = BlockPlan(
            [in_channels, features], first.shape.images, first.shape.height, first.shape.width, 0
        )
        # Its gradient is computed of all images at once.
        bits = first.blocks * in_channels * first.plane // 8
        self.stem_plan.scratch |= {"bits": bits, "gy": 0}
        size, units = threads, max(plan.units for plan in plans)
        if size > units:  # a multiple, as the others would have next to nothing to do
            size = min(size // units, PARTS) * units
        self.threads = [_Thread([*plans, self.stem_plan], dtype) for _ in range(size)]
        self.counter = numpy.zeros(1, numpy.int64)
        # Moments are computed for all inputs of a block together, or for the maps of one layer.
        self.parts = [
            numpy.zeros((2, p.units, max(p.inputs * p.widths[0], *p.widths)), numpy.float64)
            for p in plans
        ]
        self.x = [aligned(p.blocks * p.shape.channels * p.plane, dtype) for p in plans]
        self.pooled = [
            aligned(p.structures * p.blocks * p.pairs * p.channels * PAIR * (p.outputs > 0), dtype)
            for p in plans
        ]
        self.y = aligned(last.structures * last.blocks * last.channels * LANES, dtype)
        self.images = aligned(first.blocks * in_channels * first.plane, dtype)
        self.U = [aligned(int(plan.u_starts[-1]), dtype) for plan in plans]
        if training:
            self.gx = aligned(max(p.blocks * p.shape.channels * p.plane for p in plans), dtype)
            self.G = [
                aligned(p.units * p.gradient_size, dtype)[: p.units * p.gradient_size].reshape(
                    p.units, -1
                )
                for p in plans
            ]
            self.sums = [numpy.zeros((p.units, p.channels * PAIR), dtype) for p in plans]
            self.through = [numpy.zeros((2, p.maps)) for p in plans]
            self.gin = [aligned(p.inputs * p.blocks * p.widths[0] * p.plane, dtype) for p in plans]


_kept: list[tuple[Any, Workspace]] = []
#: Reentrant: the garbage collector may give a workspace back while another is taken.
_lock = threading.RLock()
#: Held while a team works: jobs of two callers in one pool would wait for each other.
_teams = threading.Lock()


def take_workspace(key: Any, make: Any) -> Workspace:
    """Return an unused workspace: one that is kept, or a new one."""
    with _lock:
        for item in list(_kept):
            if item[0] == key and item in _kept:
                _kept.remove(item)
                return item[1]
    workspace: Workspace = make()
    return workspace


def give_workspace(key: Any, workspace: Workspace) -> None:
    """Keep a workspace for a later call."""
    with _lock:
        _kept.append((key, workspace))
        del _kept[:-KEPT]


@functools.lru_cache(maxsize=4)
def _pool(threads: int, process: int) -> concurrent.futures.ThreadPoolExecutor:
    """Return threads of this process; a fork has none of its parent's."""
    return concurrent.futures.ThreadPoolExecutor(threads, "chainer_sno")


def _run(jobs: list[Any]) -> None:
    """Do jobs at the same time.

    No thread that receives signals does a job of several threads: if an exception ended it, the
    others would wait for it.  So an interrupt is raised when all of them have ended.
    """
    if len(jobs) == 1:
        jobs[0]()
        return
    with _teams:
        pool, interrupted = _pool(len(jobs), os.getpid()), None
        futures = [pool.submit(job) for job in jobs]
        while not all(future.done() for future in futures):
            try:
                concurrent.futures.wait(futures)
            except KeyboardInterrupt as error:
                interrupted = error
        if interrupted is not None:
            raise interrupted
    for future in futures:
        future.result()


class BlockParameters:
    """The parameters of a block in flat arrays, and the statistics that evaluation uses.

    Args:
        gammas, betas (list of array): of the consumers.
        kernels (list of array): of the layers, contiguous, shape (growth rate, channels, 3, 3).
        transition (array): its weights, shape (outputs, channels, 1, 1), or None.
        norms (sequence): the batch normalisations, for eps and the running statistics.
    """

    def __init__(
        self, gammas: Any, betas: Any, kernels: Any, transition: Any, norms: Any, dtype: Any
    ) -> None:
        self.gamma, self.beta = numpy.concatenate(gammas), numpy.concatenate(betas)
        # They are read where they are.
        self.kernels = kernels
        self.W = numpy.array([W.ctypes.data for W in kernels], numpy.int64)
        self.eps = numpy.array([norm.eps for norm in norms], numpy.float64)
        self.running_mean = numpy.concatenate([norm.avg_mean for norm in norms])
        self.running_var = numpy.concatenate([norm.avg_var for norm in norms])
        self.T = numpy.zeros((1, 4), dtype)
        self.outputs = 0
        if transition is not None:
            self.outputs, channels = transition.shape[:2]
            self.T = numpy.zeros((channels, _rounded(self.outputs, 4)), dtype)
            self.T[:, : self.outputs] = transition.reshape(self.outputs, channels).T


class BlockGraph:
    """The layers and exits of a block that some structures need, each of them once.

    Structures have a layer in common where it takes the same maps: the output depends on nothing
    else, and the layer's gradient is the sum of theirs.  As theta converges, most of the layers are
    common to all structures of a mini-batch.

    Args:
        block (chainer_sno.links.plain_dense_net.DenseBlock): which.
        bits (numpy.ndarray): of the block, of each structure, bool, shape (structures, bits).
        sources (sequence of int): which of the block's inputs each structure has.
        training (bool): statistics of all layers are wanted, also of those that lead nowhere.

    Attributes:
        inputs (int): of the block.
        rows (numpy.ndarray): int64, the maps that the consumers take, one consumer after the other,
            layers before exits.  The maps of the inputs come first, then those of the layers.
        channels (numpy.ndarray): int64, which channels of the block they are.
        ends (numpy.ndarray): int64, where the maps of each consumer end.
        numbers (numpy.ndarray): int64, which layer of the block each consumer is; an exit has the
            number of layers.
        computed (numpy.ndarray): uint8, of each consumer, whether its output is needed.
        needed (numpy.ndarray): uint8, of each consumer, whether its gradient is.
        exits (list of int): which exit each structure has.
        maps (numpy.ndarray): int64, of each structure, which map each channel is.
    """

    def __init__(self, block: Any, bits: Array, sources: Any, training: bool) -> None:
        layers, widths = len(block.convs), block.widths
        starts = numpy.cumsum([0, *widths])[:-1].tolist()
        spans = [
            numpy.arange(start, start + width, dtype=numpy.int64)
            for start, width in zip(starts, widths)
        ]
        self.inputs = max(sources) + 1
        # The first map of what each structure may take.
        made = [[source * widths[0]] for source in sources]
        live = [block.live(own) for own in bits]
        found: dict[Any, int] = {}
        numbers: list[int] = []
        alive: list[bool] = []
        taken: list[int] = []  # the inputs of all consumers, one after the other
        shifts: list[int] = []  # from their channels to their maps
        counts: list[int] = []
        *of_layers, of_exit = enumerate(block.consumers())
        # The layers of a structure come together, and then those that the next structure adds: so a
        # layer reads what was written last.
        order = [(s, consumer) for s in range(len(bits)) for consumer in of_layers]
        order += [(s, of_exit) for s in range(len(bits))]
        lists = bits.tolist()
        self.exits = []
        for s, (number, (own, _)) in order:
            places = [i for i, bit in enumerate(lists[s][own]) if bit]
            key = number, *[made[s][i] for i in places]
            node = found.setdefault(key, len(found))
            if node == len(numbers):
                numbers.append(number)
                alive.append(False)
                taken += places
                shifts += [made[s][i] - starts[i] for i in places]
                counts.append(sum(widths[i] for i in places))
            alive[node] |= live[s][number]
            if number < layers:
                made[s].append(self.inputs * widths[0] + node * widths[-1])
            else:
                self.exits.append(node)
        self.exits = [node - min(self.exits) for node in self.exits]
        self.ends = numpy.cumsum(counts, dtype=numpy.int64)
        # One more, so that they are never empty.
        self.channels = numpy.concatenate([*(spans[i] for i in taken), spans[0][:1]])
        self.rows = self.channels.copy()
        self.rows[:-1] += numpy.repeat(
            numpy.array(shifts, numpy.int64), numpy.array([widths[i] for i in taken], numpy.int64)
        )
        self.numbers = numpy.array(numbers, numpy.int64)
        self.computed = numpy.array([training or needed for needed in alive], numpy.uint8)
        self.needed = numpy.array([a and n > 0 for a, n in zip(alive, counts)], numpy.uint8)
        self.maps = numpy.concatenate(spans) + (numpy.array(made) - starts).repeat(widths, axis=1)

    def mark_inputs(self, wanted: Array) -> None:
        """Set which channels the consumers that are computed take.

        Args:
            wanted (array): uint8, of each layer and the exit, shape (layers + 1, channels).
        """
        counts = numpy.diff(self.ends, prepend=0)
        computed = self.computed.astype(bool).repeat(counts)
        wanted[self.numbers.repeat(counts)[computed], self.channels[:-1][computed]] = 1


class Passes:
    """A forward pass of all structures, and its backward pass.

    Args:
        x (numpy.ndarray): images, shape (N, in_channels, H, W).
        stem (numpy.ndarray): the kernels of the first convolution.
        parameters (list of BlockParameters): of the blocks.
        graphs (list of list of BlockGraph): of each group of structures, of each block; one group
            where there may be a backward pass.
        plans (list of BlockPlan): of the blocks.
        threads (int): how many may work at once.
        train (bool): use the statistics of the mini-batch.
        keep (bool): there may be a backward pass.

    Attributes:
        y (numpy.ndarray): the outputs, shape (lambda, N, channels).
        statistics (list): of each block, of each structure, the mean and the variance of its maps.
    """

    def __init__(
        self,
        x: Array,
        stem: Array,
        parameters: list[BlockParameters],
        graphs: list[list[BlockGraph]],
        plans: list[BlockPlan],
        threads: int,
        train: bool,
        keep: bool,
    ) -> None:
        self.x, self.train, self.parameters, self.graphs = x, train, parameters, graphs
        self.dtype, self.plans = x.dtype, plans
        key = (
            tuple((tuple(p.widths), p.outputs, p.shape, p.inputs, p.structures) for p in plans),
            (x.shape[1], threads, x.dtype.str, keep),
        )
        self.workspace = take_workspace(
            key, lambda: Workspace(plans, x.shape[1], threads, x.dtype, keep)
        )
        # A network may live until Python ends, when there is nothing to give back to any more.
        self._give_back = weakref.finalize(self, give_workspace, key, self.workspace)
        self._give_back.atexit = False
        self.statistics: list[Any] = []
        try:
            self._forward(stem)
        finally:
            if not keep:
                self.release()

    def release(self) -> None:
        """Give the arrays back; there is no backward pass after it."""
        self.workspace = None  # type: ignore[assignment]
        self._give_back()

    def _together(self, work: Any) -> None:
        """Let each member of the team do ``work(thread, member)``."""
        threads = self.workspace.threads
        _run(
            [
                functools.partial(work, thread, Member(number, len(threads)))
                for number, thread in enumerate(threads)
            ]
        )

    def _forward(self, stem: Array) -> None:
        space, plans, dtype = self.workspace, self.plans, self.dtype
        self._stem = numpy.ascontiguousarray(stem)
        self._stem_rows = numpy.arange(stem.shape[1], dtype=numpy.int64)
        self._mean, self._var = ([numpy.zeros(p.maps, dtype) for p in plans] for _ in "mv")
        self.statistics = [[] for _ in plans]
        last, count = plans[-1], sum(len(graphs[-1].exits) for graphs in self.graphs)
        self.y = numpy.empty((count, len(self.x), last.channels), dtype)
        begin = 0
        wanted: Any = self._wanted()
        for graphs in self.graphs:
            self._together(functools.partial(self._forward_member, graphs, wanted))
            wanted = None
            exits = graphs[-1].exits
            size = (max(exits) + 1) * last.blocks * last.channels * LANES
            planes = space.y[:size].reshape(-1, last.blocks, last.channels, LANES)
            images = planes.swapaxes(2, 3).reshape(len(planes), -1, last.channels)
            self.y[begin : begin + len(exits)] = images[exits, : len(self.x)]
            begin += len(exits)
            for i, graph in enumerate(graphs):
                self.statistics[i] += [
                    (self._mean[i][own], self._var[i][own]) for own in graph.maps
                ]

    def _wanted(self) -> list[Array]:
        """Return, of each block, the channels of the layers' kernels that any structure takes."""
        found = []
        for i, plan in enumerate(self.plans):
            found.append(numpy.zeros((len(plan.widths), plan.channels), numpy.uint8))
            for graphs in self.graphs:
                graphs[i].mark_inputs(found[-1])
        return found

    def _start_member(
        self, wanted: list[Array], thread: _Thread, member: Member, mean: Array, var: Array
    ) -> None:
        """Do what comes before the blocks: transform the kernels and compute the first maps.

        Args:
            wanted (list of array): see :meth:`_wanted`.
            thread (_Thread): of the member.
            member (Member): which part to do.
            mean (array): of the member, gets the means of the first block's inputs.
            var (array): the same of their variances.
        """
        space, first, stem = self.workspace, self.plans[0], self.workspace.stem_plan
        features, channels = first.widths[0], self.x.shape[1]
        # Every member transforms the few kernels of the first convolution for itself.
        every = numpy.ones((1, channels), numpy.uint8)
        places = numpy.array([self._stem.ctypes.data], numpy.int64)
        _transform_kernels(
            places, stem.w_starts, every, features, thread.kernel_taps, thread.stem_U,
            stem.u_starts, Member(0, 1),
        )  # fmt: skip
        begin, end = (first.blocks * k // member.size for k in (member.number, member.number + 1))
        _move_images(
            self.x, space.images, first.padded_height, first.padded_width, False, begin * LANES,
            end * LANES,
        )  # fmt: skip
        blocks.convolve(
            space.images, begin, end - begin, space.stem_shape, self._stem_rows, self._stem_rows, 0,
            channels, thread.normal, blocks.LINEAR, thread.stem_U, 0, space.x[0],
            first.shape.channels, 0, features, thread.S[-1], thread.V, thread.M, thread.bits, 0, 1,
        )  # fmt: skip
        for i, (plan, parameters) in enumerate(zip(self.plans, self.parameters)):
            _transform_kernels(
                parameters.W, plan.w_starts, wanted[i], plan.widths[-1], thread.kernel_taps,
                space.U[i], plan.u_starts, member,
            )  # fmt: skip
        blocks.barrier(space.counter, member)
        if self.train:
            blocks.moments(
                space.x[0], first.shape, 0, features, mean, var, space.parts[0], thread.own,
                space.counter, member,
            )  # fmt: skip

    def _forward_member(
        self, graphs: list[BlockGraph], wanted: Any, thread: _Thread, member: Member
    ) -> None:
        space, plans = self.workspace, self.plans
        for i, (plan, parameters, graph) in enumerate(zip(plans, self.parameters, graphs)):
            # Every member has its own; those of the first are the result.
            mean, var = self._mean[i], self._var[i]
            if member.number:
                mean, var = mean.copy(), var.copy()
            if i == 0 and wanted is not None:
                self._start_member(wanted, thread, member, mean, var)
            width = graph.inputs * plan.widths[0]
            y = space.x[i + 1] if plan.outputs else space.y
            y_channels = plans[i + 1].shape.channels if plan.outputs else 0
            blocks.block_forward(
                plan.shape, self.train, space.x[i], graph.rows, graph.channels, graph.ends,
                graph.numbers, graph.computed, space.U[i], plan.u_starts, parameters.gamma,
                parameters.beta, parameters.eps, plan.starts, parameters.running_mean,
                parameters.running_var, mean, var, space.parts[i], thread.normal, thread.own,
                thread.S[i], thread.V, thread.M, thread.bits, width if i else -width,
                plan.outputs > 0, parameters.T.reshape(-1), plan.outputs or plan.channels,
                space.pooled[i], y, y_channels, space.counter, member,
            )  # fmt: skip

    def backward(self, gy: Array, with_images: bool) -> tuple[Any, Any, list[Any]]:
        """Return the gradients.

        Args:
            gy (numpy.ndarray): of the outputs, shape (lambda, N, channels).
            with_images (bool): those of the images are wanted.

        Returns:
            tuple: of the images, or None; of the first convolution; and, of each block, those of
            the consumers' gamma and beta and of the layers' and the transition's weights, flat
            arrays.
        """
        space, plans = self.workspace, self.plans
        (graphs,) = self.graphs
        gradients = self._zeros()
        last, exits = plans[-1], graphs[-1].exits
        images = numpy.zeros((max(exits) + 1, last.blocks * LANES, last.channels), self.dtype)
        for number, own in zip(exits, gy):
            images[number, : len(own)] += own
        planes = images.reshape(-1, last.blocks, LANES, last.channels).swapaxes(2, 3)
        space.y[: planes.size].reshape(planes.shape)[...] = planes
        for through in space.through:
            through[...] = 0
        self._stem_parts: dict[int, Array] = {}
        self._together(functools.partial(self._backward_member, graphs, gradients))
        gx = self._gradient_of_images() if with_images else None
        return gx, self._gradient_of_stem(), gradients

    def _gradient_of_stem(self) -> Array:
        """Return the gradient of the first convolution, given the parts that members computed."""
        outputs, channels = self._stem.shape[:2]
        fours = -(-channels // 4)
        G = numpy.concatenate(
            [
                part.reshape(fours, POSITIONS, -1, 4, 4)
                for _, part in sorted(self._stem_parts.items())
            ],
            axis=2,
        )
        gW = numpy.einsum("pt,fpgoc->gofct", _kernel_matrix(self.dtype), G)
        gW = gW.reshape(-1, 4 * fours, 3, 3)
        return numpy.ascontiguousarray(gW[:outputs, :channels])

    def _zeros(self) -> Any:
        zeros = []
        for plan in self.plans:
            size = int(plan.starts[-1])
            zeros.append(
                (
                    numpy.zeros(size, self.dtype),
                    numpy.zeros(size, self.dtype),
                    numpy.zeros(int(plan.w_starts[-1]), self.dtype),
                    numpy.zeros((max(plan.outputs, 1), plan.channels), self.dtype),
                )
            )
        return zeros

    def _backward_member(
        self, graphs: list[BlockGraph], gradients: Any, thread: _Thread, member: Member
    ) -> None:
        space, plans = self.workspace, self.plans
        gout = space.y
        for i in reversed(range(len(plans))):
            plan, parameters, graph = plans[i], self.parameters[i], graphs[i]
            ggamma, gbeta, gW, gT = gradients[i]
            blocks.block_backward(
                plan.shape, self.train, space.x[i], graph.rows, graph.channels, graph.ends,
                graph.numbers, graph.needed, space.U[i], plan.u_starts, parameters.gamma,
                parameters.beta, parameters.eps, plan.starts, parameters.running_mean,
                parameters.running_var, self._mean[i], self._var[i], thread.normal, thread.S[i],
                thread.V, thread.M, thread.bits, graph.inputs, plan.outputs > 0,
                parameters.T.reshape(-1), plan.outputs or plan.channels, space.pooled[i], gout,
                space.gx, thread.gy, space.G[i], space.sums[i], thread.taps, thread.fresh,
                thread.direct, thread.seen, thread.slope, thread.offset, space.through[i],
                parameters.W, gW, plan.w_starts, gT, ggamma, gbeta, space.gin[i], i > 0,
                space.counter, member,
            )  # fmt: skip
            gout = space.gin[i]
            blocks.barrier(space.counter, member)
        # The images must be added up in one order, so members have outputs, four at a time.
        outputs, channels = self._stem.shape[:2]
        fours = _rounded(outputs, 4) // 4
        begin, end = (4 * (fours * k // member.size) for k in (member.number, member.number + 1))
        if begin == end:
            return
        own = min(end, outputs) - begin
        size = _rounded(channels, 4) * POSITIONS * (end - begin)
        G = aligned(size, self.dtype)
        blocks.gradient_of_weights(
            space.images, gout, outputs, begin, 0, plans[0].blocks, space.stem_shape,
            self._stem_rows, 0, channels, thread.normal, blocks.LINEAR, own, G, 0, thread.S[-1],
            thread.V, thread.M, thread.bits,
        )  # fmt: skip
        self._stem_parts[begin] = G[:size]

    def _gradient_of_images(self) -> Array:
        space, first, thread = self.workspace, self.plans[0], self.workspace.threads[0]
        channels, gstem = self.x.shape[1], space.gin[0]
        gmaps = aligned(first.blocks * channels * first.plane, self.dtype)
        thread.normal[0], thread.normal[2] = 1, 0
        thread.fresh[:], thread.direct[:] = 1, 0
        sums = numpy.zeros(channels * PAIR, self.dtype)
        bits = numpy.full(first.blocks * channels * first.plane // 8 + SLACK, 255, numpy.uint8)
        blocks.gradient_of_maps(
            space.images, gstem, 0, first.blocks, space.stem_shape, self._stem_rows,
            self._stem_rows, 0, channels, thread.normal, thread.fresh, thread.direct,
            thread.stem_U, 0, first.widths[0], gmaps, sums, thread.S[-1], thread.V, thread.M, bits,
        )  # fmt: skip
        gx = numpy.empty_like(self.x)
        _move_images(gx, gmaps, first.padded_height, first.padded_width, True, 0, len(gx))
        return gx
