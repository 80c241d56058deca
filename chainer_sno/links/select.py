"""A plain network made searchable: its channels and units become the bits of the structure."""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy

from chainer_sno import batch_statistics, complexity
from chainer_sno._import_chainer import chainer
from chainer_sno._types import Array
from chainer_sno.errors import in_one_line, without_flags
from chainer_sno.links.channels import ALWAYS, Channels, Layer, computes_as, is_layer
from chainer_sno.tracing import Trace, call_alone, detached, example_batch, on_cpu

L = chainer.links

#: How many mini-batches re-estimate the statistics of batch normalisation by default.
REESTIMATE = 50
#: How many structures are tried on the smaller networks.
CHECKED = 8
#: How many layers the name of a group lists.
NAMED = 3


def select(
    network: Any,
    layers: Sequence[str],
    x_shape: Sequence[int],
    criterion: str = "flops",
    reestimate: int = REESTIMATE,
) -> "SelectedNetwork":
    """Make a plain network searchable: name the layers whose channels or units are selected.

    The network stays as it is, its forward pass and the names of its parameters too.  One call is
    traced to find out which layer takes which channels.  Where layers cannot be told apart, one
    bit switches a channel of each: the two sides of a residual addition or of a product, an input
    and the outputs of a depthwise convolution, and the channels at the same place of all groups
    of a grouped convolution.  Layers that are tied to a named one are under selection with it.

    A layer is a :class:`chainer.links.Linear` or :class:`chainer.links.Convolution2D`, grouped,
    strided and dilated ones too.  Between it and the layers that take its channels may be batch
    normalisation, depthwise convolutions, whatever works on each element or each channel alone
    (activations, Dropout, pooling), and what moves elements (reshape, concat, transpose).

    What depends on how many channels there are is refused: taking a part of them (``split_axis``,
    ``h[:, :4]``), also where the parts are put together again in another order, and shuffling the
    channels of a convolution that is not grouped.  Smaller networks are compared with the masked
    one at some structures besides.  This check does not find code that does something else at a
    number of channels that none of these structures has.

    Args:
        network (chainer.Link): from x to the outputs, one variable, the loss left out; its layers
            are called as links.
        layers (sequence of str): paths of the layers, such as ``"conv1"`` or ``"block/conv2"``;
            those of a ChainList have numbers, as ``"convs/0"``.
        x_shape (tuple of int): the shape of one example.
        criterion (str): what the costs count: ``"flops"``, ``"weights"`` or ``"units"``, see
            :func:`chainer_sno.complexity.costs`.
        reestimate (int): how many training mini-batches re-estimate the statistics of batch
            normalisation, where the network has some, for evaluations and for
            :func:`chainer_sno.compact`; 0 for the running statistics.

    Returns:
        SelectedNetwork: a searchable link.

    Raises:
        ValueError: there is no such layer, its channels go where they cannot be followed (the
            message names the function or the layer), or the network cannot be called with x alone.
            Then leave the layer out, or write the contract by hand: :mod:`chainer_sno.links`.
            A size of ``x_shape`` is less than 1, or ``reestimate`` less than 0.
        TypeError: the network is no plain one, ``layers`` are no names, or ``x_shape`` or
            ``reestimate`` no whole numbers.
    """
    return SelectedNetwork(network, layers, x_shape, criterion, reestimate)


class SelectedNetwork(chainer.Chain):
    """A plain network whose channels are under selection; :func:`select` makes it.

    Every structure is a forward pass of the network of its own, so batch statistics are those of
    one structure (reading R7).  The masks multiply the *inputs of the layers that take* selected
    channels.  There they are behind the bias, the normalisation and the activation of a channel,
    whatever it passes (reading R3): an absent channel contributes exactly nothing, and its
    parameters get no gradient.  To put a mask there, the layer's ``forward`` is replaced, as an
    attribute of that one link, for the time of the pass; so one network must not be called by
    several threads at once.

    Attributes:
        network (chainer.Link): the plain network, as it was given.
        costs (numpy.ndarray): c, what is gone when a bit alone is off, shape (d,), float64.
        criterion (str): what the costs count.
        groups (dict): the slices of the bits of each layer, or of layers that are tied.
        layers (tuple of str): the paths of the layers that were named.
        x_shape (tuple of int): the shape of one example.
        reestimate (int): see :func:`select`; 0 without batch normalisation.
    """

    def __init__(
        self,
        network: Any,
        layers: Sequence[str],
        x_shape: Sequence[int],
        criterion: str = "flops",
        reestimate: int = REESTIMATE,
    ) -> None:
        super().__init__()
        _check_network(network)
        self.x_shape = _sizes(x_shape)
        self.layers = tuple(_normalised(layers))
        _check_reestimate(reestimate)
        _initialise(network, self.x_shape)
        with self.init_scope():
            self.network = network
        channels = _follow(network, self.x_shape)
        self._take(channels)
        self._resolved: tuple[Any, dict[str, Any]] = (None, {})
        self._on_device: dict[Any, dict[str, Array]] = {}
        norms = any(isinstance(link, L.BatchNormalization) for link in network.links())
        self.reestimate = int(reestimate) if norms else 0
        self.criterion = criterion
        self.costs = numpy.ones(self.d)
        self.costs = complexity.costs(self, criterion)
        self._check_compact()

    def _take(self, channels: Channels) -> None:
        """Make the bits of the channels of the named layers, and of those that are tied to them.

        Raises:
            ValueError: a layer is none, or its channels cannot be selected.
        """
        self._check_names(channels)
        bits: dict[int, int] = {}
        self.groups: dict[str, slice] = {}
        for tied, roots in self._groups_of_roots(channels).items():
            start = len(bits)
            bits.update((root, start + i) for i, root in enumerate(roots))
            self.groups[_name_of(tied, self.groups)] = slice(start, len(bits))
        bit_of = numpy.full(len(channels.owner) + 1, ALWAYS)  # the last is that of ALWAYS
        for number in range(len(channels.owner)):
            bit_of[number] = bits.get(channels.root(number), ALWAYS)
        self._cuts = {path: _Cut(layer, bit_of) for path, layer in channels.layers.items()}
        self._masks = {
            path: bit_of[layer.inputs]
            for path, layer in channels.layers.items()
            if layer.mixes and (bit_of[layer.inputs] != ALWAYS).any()
        }
        self._reach = _Reach(channels)
        self.d = len(bits)

    def _check_names(self, channels: Channels) -> None:
        """Check that the named layers are layers of the network.

        Raises:
            ValueError: one is none.
        """
        candidates = [path for path, layer in channels.layers.items() if layer.mixes]
        for path in self.layers:
            if path not in channels.layers or not len(channels.layers[path].outputs):
                raise ValueError(
                    f"{path!r} is no layer that can be selected and that the outputs of "
                    f"{type(self.network).__name__} come from by Chainer's functions: give some of "
                    f"{', '.join(candidates) or 'none'}"
                )

    def _groups_of_roots(self, channels: Channels) -> dict[tuple[str, ...], list[int]]:
        """Return the roots of the selected channels by the layers that are tied together.

        Raises:
            ValueError: the channels of a named layer cannot be selected.
        """
        members: dict[int, list[str]] = {}
        for number, owner in enumerate(channels.owner):
            members.setdefault(channels.root(number), []).append(owner)
        others = [path for path in channels.layers if path not in self.layers]

        def tied_to(root: int) -> tuple[str, ...]:
            # Those that were named come first.
            return tuple(path for path in (*self.layers, *others) if path in members[root])

        refused = _refused_roots(channels)
        by_group: dict[tuple[str, ...], list[int]] = {}
        for path in self.layers:
            roots_of = [channels.root(number) for number in channels.layers[path].outputs.tolist()]
            for reasons in refused(roots_of):
                for root in roots_of:
                    if root in reasons:
                        raise ValueError(_refusal(path, tied_to(root), reasons[root]))
            for root in roots_of:
                roots = by_group.setdefault(tied_to(root), [])
                if root not in roots:
                    roots.append(root)
        return by_group

    @property
    def printable_specs(self) -> Iterator[tuple[str, Any]]:
        """The arguments, for ``repr``; ``str`` is Chainer's tree of the links."""
        yield "network", type(self.network).__name__
        yield "layers", list(self.layers)
        yield "x_shape", self.x_shape
        yield "criterion", self.criterion
        yield "d", self.d

    def __repr__(self) -> str:
        return str(chainer.Link.__str__(self))

    def copy(self, mode: str = "share") -> "SelectedNetwork":
        """Return a copy, as Chainer's ``Link.copy``; one of mode ``"copy"`` shares nothing.

        What the attributes of the network hold besides its links is copied as well.
        """
        copy: SelectedNetwork = super().copy(mode)
        if mode == "copy":
            copy.network = detached(self.network)
            copy.network.name = "network"
        copy._resolved = (None, {})
        copy._on_device = {}
        return copy

    def forward(self, x: Any, structures: Array) -> list[Any]:
        """Return the outputs of every structure.

        Args:
            x (chainer.Variable or array): a mini-batch, as the network takes it.
            structures (array): shape (lambda, d), bool, or numbers that are all 0 or 1.

        Returns:
            list of chainer.Variable: what the network returns for each structure.

        Raises:
            ValueError: ``structures`` has another shape, or a number is neither 0 nor 1.
        """
        if structures.ndim != 2 or structures.shape[1] != self.d:
            raise ValueError(
                f"structures must have the shape (lambda, {self.d}), not {structures.shape}"
            )
        # Those of a distribution are bool, so a GPU does not have to be waited for.
        if structures.dtype != bool and not ((structures == 0) | (structures == 1)).all():
            raise ValueError(
                "structures must consist of 0 and 1, and these have other numbers: use sample() or "
                "mode() of the distribution instead of theta"
            )
        outputs = []
        for structure in structures:
            with self._masked(structure):
                outputs.append(self.network(x))
        return outputs

    @contextlib.contextmanager
    def _masked(self, structure: Array) -> Iterator[None]:
        """Let the layers that take selected channels mask their inputs."""
        links = self._links()
        xp = chainer.backend.get_array_module(structure)
        # The last stands for what is always there.
        bits = xp.concatenate((structure.astype(bool), xp.ones(1, dtype=bool)))
        replaced = []
        try:
            for path, places in self._places(xp).items():
                link = links[path]
                replaced.append(link)
                link.forward = functools.partial(_masked_forward, link, bits[places])
            yield
        finally:
            for link in replaced:
                del link.forward

    def _links(self) -> dict[str, Any]:
        """Return the links of the network by path."""
        if self._resolved[0] is not self.network:
            links = {path.strip("/"): link for path, link in self.network.namedlinks()}
            self._resolved = self.network, links
        return self._resolved[1]

    def _places(self, xp: Any) -> dict[str, Array]:
        """Return, by the path of each layer that masks, the bit of each input, on a device."""
        if xp is numpy:
            return self._masks
        device = xp.cuda.Device().id
        if device not in self._on_device:
            places = {path: xp.asarray(array) for path, array in self._masks.items()}
            self._on_device[device] = places
        return self._on_device[device]

    def costs_of(self, criterion: str, x_shape: Sequence[int] | None = None) -> Array:
        """Return what is gone when each bit alone is off.

        Args:
            criterion (str): ``"weights"``, biases and batch normalisation left out, or
                ``"flops"``, see :func:`chainer_sno.complexity.costs`.
            x_shape (tuple of int): the shape of one example; by default the one of :func:`select`.

        Returns:
            numpy.ndarray: c, shape (d,), float64.

        Raises:
            ValueError: the criterion is another, or the network does not take such examples.
        """
        uses = self._uses(criterion, x_shape)
        costs = numpy.zeros(self.d)
        for path, cut in self._cuts.items():
            costs += cut.costs(self.d) * uses[path]
        return costs

    def _uses(self, criterion: str, x_shape: Sequence[int] | None) -> dict[str, float]:
        """Return what a weight of each layer costs."""
        uses = {path: cut.uses for path, cut in self._cuts.items()}
        if criterion == "flops" and x_shape is not None and tuple(x_shape) != self.x_shape:
            layers = _follow(self.network, tuple(x_shape)).layers
            uses = {path: layers[path].uses for path in uses}
        return {
            path: complexity.per_weight(criterion) * (n if criterion == "flops" else 1)
            for path, n in uses.items()
        }

    def remaining(
        self, structure: Array, x_shape: Sequence[int] | None = None
    ) -> dict[str, tuple[int, int]]:
        """Return how many weights and operations a structure keeps.

        Args:
            structure (array): bits, shape (d,).
            x_shape (tuple of int): the shape of one example; by default the one of :func:`select`.

        Returns:
            dict: under ``"weights"``, biases left out, and ``"flops"``, floating-point operations
            of one example, how many remain and how many there are.

        Raises:
            ValueError: see :func:`chainer_sno.complexity.check_structure`.
        """
        structure = chainer.backends.cuda.to_cpu(structure)
        structure = complexity.check_structure(structure, self.d)
        full = numpy.ones(self.d, dtype=bool)
        counts = {}
        for criterion in ("weights", "flops"):
            uses = self._uses(criterion, x_shape)
            kept, whole = (
                sum(cut.weights(bits) * uses[path] for path, cut in self._cuts.items())
                for bits in (structure, full)
            )
            other = self._other_weights() if criterion == "weights" else 0
            counts[criterion] = round(kept) + other, round(whole) + other
        return counts

    def _other_weights(self) -> int:
        """Return the number of weights that belong to no layer that can be cut."""
        own = {
            id(layer.W)
            for path, layer in self._links().items()
            if path in self._cuts and hasattr(layer, "W")
        }
        others = {id(p): p for p in self.network.params() if p.ndim > 1 and id(p) not in own}
        return sum(parameter.size for parameter in others.values())

    def weight_ratio(self, structure: Array) -> float:
        """Return the fraction of the weights that a structure keeps, biases left out.

        Args:
            structure (array): bits, shape (d,).

        Returns:
            float: between 0 and 1.

        Raises:
            ValueError: see :func:`chainer_sno.complexity.check_structure`.
        """
        kept, whole = self.remaining(structure)["weights"]
        return kept / whole

    def compact(self, structure: Array) -> Any:
        """Return the network without the channels that are off.

        It is a deep copy of the network whose parameters and running statistics are cut, so its
        class and the names of its parameters are those of the network.  Where all channels of a
        layer are off, one of them remains, for Chainer has no layer without any, and the layers
        that take it have zeros for it.

        Args:
            structure (array): bits, shape (d,).

        Returns:
            chainer.Link: the smaller network, on the device and of the dtype of this one, with
            ``x_shape``, the shape of one example.  It computes the same in evaluation mode.

        Raises:
            ValueError: the outputs do not depend on x, or this is no structure.
        """
        structure = chainer.backends.cuda.to_cpu(structure)
        structure = complexity.check_structure(structure, self.d)
        self._reach.check(structure, self._cuts)
        kept = structure.copy()
        for cut in self._cuts.values():
            cut.keep_one(kept)
        network = detached(self.network)
        links = {path.strip("/"): link for path, link in network.namedlinks()}
        for path, cut in self._cuts.items():
            cut.apply(links[path], kept, structure)
        if not hasattr(network, "x_shape"):
            network.x_shape = self.x_shape
        return network

    def _check_compact(self) -> None:
        """Check on a copy that smaller networks compute the same as the masked one.

        Structures that keep as many channels of each half, or of each layer, may agree by symmetry:
        see :meth:`_structures_to_check`.

        Raises:
            ValueError: one does not, or cannot be called: something was not seen in the trace.
        """
        copy = self.copy("copy")
        copy.to_device("@numpy")
        rng = numpy.random.default_rng(0)
        for parameter in copy.params():
            scale = float(numpy.abs(parameter.array).mean()) or 0.1
            parameter.array += (scale * rng.standard_normal(parameter.shape)).astype(
                parameter.dtype
            )
        for norm in batch_statistics.norms_of(copy):
            norm.avg_mean += (0.1 * rng.standard_normal(norm.avg_mean.shape)).astype(
                norm.avg_mean.dtype
            )
            norm.avg_var *= rng.uniform(0.5, 2, norm.avg_var.shape).astype(norm.avg_var.dtype)
        x = example_batch(copy.network, self.x_shape)
        name = type(self.network).__name__
        for structure in self._structures_to_check():
            with (
                without_flags(),
                chainer.using_config("train", False),
                chainer.no_backprop_mode(),
            ):
                (expected,) = (y.array for y in copy(x, structure[None]))
                small = copy.compact(structure)
                try:
                    found = small(x).array
                except Exception as error:
                    raise ValueError(
                        f"{name} with fewer channels cannot be called ({in_one_line(error)}): its "
                        "code states a number of channels; take it from the array, as in "
                        "F.reshape(h, (len(h), -1)), or write the contract by hand "
                        "(chainer_sno.links)"
                    ) from error
            scale = float(numpy.abs(expected).max()) or 1.0
            limit = 5e-2 if expected.dtype == numpy.float16 else 1e-3
            same = found.shape == expected.shape
            if not same or not numpy.abs(found - expected).max() <= limit * scale:
                kept = ", ".join(
                    f"{int(structure[group].sum())} of {group.stop - group.start} of {path}"
                    for path, group in [*self.groups.items()][:NAMED]
                )
                more = ", ..." if len(self.groups) > NAMED else ""
                raise ValueError(
                    f"{name} without the channels that are off computes something else than with "
                    f"them masked, at a structure that keeps {kept}{more}: the trace has missed "
                    "where they go (a hook on a link, or arrays for variables?), or what the code "
                    "does depends on how many there are (h.shape[1]?).  Write the contract by hand "
                    "(chainer_sno.links)"
                )

    def _structures_to_check(self) -> list[Array]:
        """Return different structures that keep some channel of each group, the same every time.

        They keep every second channel, the first half, the second half, all but one and a single
        one; the others keep numbers of channels that are drawn for each group.
        """
        rng = numpy.random.default_rng(0)
        structures: dict[bytes, Array] = {}
        for number in range(CHECKED):
            structure = numpy.zeros(self.d, dtype=bool)
            for group in self.groups.values():
                bits = structure[group]
                n = len(bits)
                half = max(1, n // 2)
                if number == 0:
                    bits[::2] = True
                elif number == 1:
                    bits[:half] = True
                elif number == 2:
                    bits[-half:] = True
                else:
                    counts = {3: max(1, n - 1), 4: 1}
                    count = counts.get(number) or int(rng.integers(1, n + 1))
                    bits[rng.permutation(n)[:count]] = True
            structures.setdefault(structure.tobytes(), structure)
        return [*structures.values()]


class _Cut:
    """What a structure leaves of a layer.

    Args:
        layer (Layer): the layer.
        bit_of (numpy.ndarray): the bit of each channel, ``ALWAYS`` for none; the last is that of
            what is always there.

    Attributes:
        uses (int): how often a weight is used for one example.
    """

    def __init__(self, layer: Layer, bit_of: Array) -> None:
        self.uses = layer.uses
        self.groups = layer.groups
        self.depthwise = layer.depthwise
        self.has_weights = len(layer.outputs) > 0
        self.kernel = layer.kernel if self.has_weights else 0
        self.rows = bit_of[layer.outputs]
        self.inputs = bit_of[layer.inputs]
        self.columns = bit_of[layer.columns] if self.has_weights else self.rows

    def costs(self, d: int) -> Array:
        """Return how many weights are gone with each bit alone, shape (d,)."""
        rows, columns = (
            numpy.bincount(each[each != ALWAYS], minlength=d) for each in (self.rows, self.columns)
        )
        gone = rows * len(self.columns) + columns * len(self.rows) - rows * columns
        return (self.kernel * gone).astype(numpy.float64)

    def weights(self, structure: Array) -> int:
        """Return how many weights a structure keeps."""
        rows, columns = (int(_on(each, structure).sum()) for each in (self.rows, self.columns))
        return self.kernel * rows * columns

    def keep_one(self, kept: Array) -> None:
        """Keep a channel where a structure keeps none, for a layer cannot be without any."""
        for each in (self.rows, self.inputs):
            if len(each) and not _on(each, kept).any():
                kept[each[0]] = True

    def apply(self, link: Any, kept: Array, structure: Array) -> None:
        """Cut the parameters of a link.

        Args:
            link (chainer.Link): the layer in the smaller network.
            kept (numpy.ndarray): the bits whose channels remain.
            structure (numpy.ndarray): the bits that are on; the others compute nothing.
        """
        xp = link.xp
        inputs = _on(self.inputs, kept)
        rows = xp.asarray(numpy.flatnonzero(_on(self.rows, kept)))
        if not self.has_weights:
            places = xp.asarray(numpy.flatnonzero(inputs))
            if computes_as(link, L.BatchNormalization):
                for name in ("avg_mean", "avg_var"):
                    setattr(link, name, getattr(link, name)[places])
                for parameter in (link.gamma, link.beta):
                    if parameter is not None:
                        _replace(parameter, parameter.array[places])
            else:
                _replace(link.W, link.W.array[places])
            return
        if computes_as(link, L.DepthwiseConvolution2D):
            _replace(link.W, link.W.array[:, xp.asarray(numpy.flatnonzero(inputs))])
        else:
            W = link.W.array
            if not self.depthwise:
                # What remains for lack of another gives nothing.
                zero = _on(self.columns, kept) & ~_on(self.columns, structure)
                if zero.any():
                    W = W.copy()
                    W[:, xp.asarray(numpy.flatnonzero(zero))] = 0
                columns = numpy.flatnonzero(_on(self.columns, kept))
                W = W[:, xp.asarray(columns)]
            _replace(link.W, W[rows])
            if computes_as(link, L.Linear):
                link.in_size, link.out_size = W.shape[1], len(rows)
            else:
                if self.depthwise:
                    link.groups = int(inputs.sum())
                link.in_channels, link.out_channels = int(inputs.sum()), len(rows)
        if link.b is not None:
            _replace(link.b, link.b.array[rows])


class _Reach:
    """Which layers the mini-batch reaches, at a structure."""

    def __init__(self, channels: Channels) -> None:
        # The layers that may compute a channel, by its number.
        members: dict[int, set[str]] = {}
        for number, owner in enumerate(channels.owner):
            members.setdefault(channels.root(number), set()).add(owner)
        owners = [members[channels.root(number)] for number in range(len(channels.owner))]
        self.inputs = {
            path: [owners[n] if n != ALWAYS else None for n in layer.inputs.tolist()]
            for path, layer in channels.layers.items()
            if len(layer.outputs)
        }
        self.outputs = [owners[n] if n != ALWAYS else None for n in channels.outputs.tolist()]

    def check(self, structure: Array, cuts: dict[str, _Cut]) -> None:
        """Check that the outputs depend on the mini-batch.

        Raises:
            ValueError: they do not; the message names the layers that keep nothing.
        """
        reached: set[str] = set()
        for path, inputs in self.inputs.items():
            on = _on(cuts[path].inputs, structure)
            if any(bit and (owners is None or owners & reached) for bit, owners in zip(on, inputs)):
                reached.add(path)
        if any(owners is None or owners & reached for owners in self.outputs):
            return
        empty = [
            path
            for path, cut in cuts.items()
            if cut.has_weights and not _on(cut.rows, structure).any()
        ]
        raise ValueError(
            f"the outputs do not depend on x: {', '.join(empty)} keep{'s' * (len(empty) == 1)} no "
            "channel"
        )


def _on(bits: Array, structure: Array) -> Array:
    """Return which channels a structure keeps, given the bit of each."""
    # ALWAYS, -1, is the last.
    on: Array = numpy.append(structure, True)[bits]
    return on


def _replace(parameter: Any, array: Array) -> None:
    """Give a parameter another array, of another shape."""
    parameter.array = array
    parameter.cleargrad()


def _masked_forward(link: Any, mask: Array, x: Any, *args: Any, **kwargs: Any) -> Any:
    """Call a layer with the channels of its input masked."""
    axes = 1
    if computes_as(link, L.Linear):
        axes = kwargs.get("n_batch_axes", args[0] if args else 1)
        shape = x.shape[axes:]
    else:
        shape = (-1, *[1] * (x.ndim - 2))
    x = chainer.as_variable(x)
    return type(link).forward(link, x * mask.reshape(shape).astype(x.dtype), *args, **kwargs)


def _check_network(network: Any) -> None:
    """Check that something is a plain network.

    Raises:
        TypeError: it is not.
    """
    if not isinstance(network, chainer.Link):
        raise TypeError(f"a {type(network).__name__} is no chainer.Link, as a network has to be")
    if isinstance(network, L.Classifier):
        raise TypeError(
            "a Classifier computes a loss: give its predictor, the network from x to the outputs"
        )
    if hasattr(network, "costs"):
        raise TypeError(f"{type(network).__name__} has costs: it is searchable already")


def _sizes(x_shape: Any) -> tuple[int, ...]:
    """Return the shape of one example.

    Raises:
        ValueError: a size is less than 1.
        TypeError: it consists of something else than whole numbers.
    """
    sizes = [*x_shape] if isinstance(x_shape, Iterable) else [x_shape]
    whole = all(isinstance(n, (int, numpy.integer)) and not isinstance(n, bool) for n in sizes)
    if not isinstance(x_shape, Iterable) or not whole:
        raise TypeError(
            "x_shape must be the shape of one example, whole numbers such as (3, 32, 32), not "
            f"{x_shape!r}"
        )
    if any(n < 1 for n in sizes):
        raise ValueError(
            "x_shape must be the shape of one example, and all of its sizes are at least 1, in "
            f"contrast to {x_shape!r}"
        )
    return tuple(int(n) for n in sizes)


def _check_reestimate(reestimate: Any) -> None:
    """Check a number of mini-batches.

    Raises:
        ValueError: it is less than 0.
        TypeError: it is no whole number.
    """
    if isinstance(reestimate, bool) or not isinstance(reestimate, (int, numpy.integer)):
        raise TypeError(
            "reestimate must be a whole number of training mini-batches, 0 for the running "
            f"statistics, not {reestimate!r}"
        )
    if reestimate < 0:
        raise ValueError(
            "reestimate must be a number of training mini-batches of at least 0, not "
            f"{reestimate!r}"
        )


def _normalised(layers: Sequence[str]) -> list[str]:
    """Return paths in one form, "block/conv1".

    Raises:
        ValueError: there is none, or one twice.
        TypeError: they are no names.
    """
    if isinstance(layers, str):
        layers = [layers]
    names = [*layers] if isinstance(layers, Iterable) else [layers]
    wrong = [name for name in names if not isinstance(name, str)]
    if wrong:
        raise TypeError(
            "layers must be a list of the paths of layers, such as ['conv1', 'block/conv2'], and "
            f"there is a {type(wrong[0]).__name__} in it"
        )
    paths = [name.strip("/").replace(".", "/") for name in names]
    if not paths:
        raise ValueError("name one layer at least")
    twice = [path for path in paths if paths.count(path) > 1]
    if twice:
        raise ValueError(f"layer {twice[0]!r} is named twice")
    return paths


def _initialise(network: Any, x_shape: tuple[int, ...]) -> None:
    """Let a network make the parameters that wait for a first call, as in ``Linear(None, 10)``."""
    if all(parameter.is_initialized for parameter in network.params()):
        return
    x = network.device.send(example_batch(network, x_shape))
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        call_alone(network, x)


def _follow(network: Any, x_shape: tuple[int, ...]) -> Channels:
    """Follow the channels of a network, in evaluation and in training mode."""
    channels = Channels()
    copy = on_cpu(network)
    x = example_batch(copy, x_shape)
    for train in (True, False):
        channels.add(Trace(copy, x, train, is_layer), count=not train)
    shared = _shared_parameters(channels)
    for path, other in shared:
        layer = channels.layers[path]
        for numbers in (layer.inputs, layer.outputs):
            channels.pin(numbers, f"{path} and {other} share a parameter")
    return channels


def _shared_parameters(channels: Channels) -> list[tuple[str, str]]:
    """Return the layers that share parameters with another one."""
    owners: dict[int, str] = {}
    pairs = []
    for path, layer in channels.layers.items():
        for parameter in layer.link.params():
            other = owners.setdefault(id(parameter), path)
            if other != path:
                pairs += [(path, other), (other, path)]
    return pairs


def _name_of(tied: tuple[str, ...], taken: dict[str, slice]) -> str:
    """Return a name for the bits of layers that are tied."""
    name = "+".join(tied[:NAMED])
    if len(tied) > NAMED:
        name += f"+{len(tied) - NAMED}"
    number, candidate = 1, name
    while candidate in taken:
        number += 1
        candidate = f"{name} ({number})"
    return candidate


def _refused_roots(channels: Channels) -> Callable[[list[int]], list[dict[int, str]]]:
    """Return a function from a layer's roots to the reasons why some cannot be selected."""
    pinned, counted = channels.pinned(), channels.counted()
    taken = {
        channels.root(number)
        for layer in channels.layers.values()
        if layer.mixes
        for number in numpy.unique(layer.inputs).tolist()
        if number != ALWAYS
    }

    def refused(roots: list[int]) -> list[dict[int, str]]:
        dropped = {root: "no layer takes them" for root in roots if root not in taken}
        reason = next((counted[root] for root in roots if root in counted), None)
        if reason is not None:
            # A part that is dropped has the same cause.
            dropped = {root: f"{words}, and {reason}" for root, words in dropped.items()}
        return [pinned, dropped, counted]

    return refused


def _refusal(path: str, tied: tuple[str, ...], reason: str) -> str:
    """Return why a layer cannot be selected, in one line."""
    others = [other for other in tied if other != path]
    words = f" (tied to those of {', '.join(others[:NAMED])})" if others else ""
    return (
        f"the channels of {path}{words} cannot be selected: {reason}.  Leave the layer out, or "
        "write the contract by hand (chainer_sno.links)"
    )
