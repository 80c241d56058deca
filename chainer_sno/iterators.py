"""Mini-batches cut from arrays, with a state of three integers."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from chainer_sno._import_chainer import chainer
from chainer_sno._types import Array
from chainer_sno.errors import in_one_line
from chainer_sno.uniforms import Stream, Uniforms, check_seed, generator


class ArrayIterator(chainer.dataset.Iterator):
    """Iterate over arrays on any device, whole mini-batches at a time.

    Chainer's SerialIterator hands out lists of examples, which the converter has to stack again,
    and its snapshot does not hold the random state of the order.  This one indexes the arrays
    once per mini-batch, and the order of epoch e is a function of the seed and e alone.  Where an
    epoch does not divide into mini-batches, one crosses into the next epoch, as in
    SerialIterator, so ``epochs * n / batch_size`` iterations, rounded down, make so many epochs
    (reading R10).

    Args:
        arrays (tuple of array): of the same length n, NumPy or CuPy, all on one device.
        batch_size (int): examples a mini-batch, between 1 and n.
        repeat (bool): continue for ever; otherwise stop after one epoch.
        shuffle (bool): a new order every epoch; otherwise the order of the arrays.
        seed (int): the seed of the orders, from 0 to 2**63 - 1.
        divisor (float): of the first array, which is then converted to Chainer's dtype, 255 for
            bytes that are to lie in [0, 1]; by default it is handed out as it is.

    Attributes:
        epoch (int): finished epochs.
        is_new_epoch (bool): the last mini-batch finished an epoch.

    Raises:
        ValueError: the arrays differ in length, a mini-batch does not fit, or the seed is out of
            range.

    Example:
        >>> import chainer_sno, numpy
        >>> x, t = numpy.arange(6, dtype="f"), numpy.arange(6, dtype="i")
        >>> iterator = chainer_sno.ArrayIterator((x, t), 4, shuffle=False)
        >>> [array.tolist() for array in iterator.next()]
        [[0.0, 1.0, 2.0, 3.0], [0, 1, 2, 3]]
        >>> [array.tolist() for array in iterator.next()]  # crosses into the next epoch
        [[4.0, 5.0, 0.0, 1.0], [4, 5, 0, 1]]

    See Also:
        :func:`chainer_sno.pass_arrays`: the converter for its mini-batches.
    """

    #: The random numbers of an augmentation that kernels draw; a subclass may have some.
    augmentation: Uniforms | None = None

    def __init__(
        self,
        arrays: Sequence[Array],
        batch_size: int,
        repeat: bool = True,
        shuffle: bool = True,
        seed: int = 0,
        divisor: float | None = None,
    ) -> None:
        lengths = {len(array) for array in arrays}
        if len(lengths) != 1:
            raise ValueError(f"the arrays must have the same length, not {sorted(lengths)}")
        (self.size,) = lengths
        if not 1 <= batch_size <= self.size:
            raise ValueError(
                f"batch_size must be between 1 and the {self.size} examples, not {batch_size}"
            )
        check_seed(seed)
        self.arrays = tuple(arrays)
        self.batch_size = batch_size
        self.repeat = repeat
        self.shuffle = shuffle
        self.seed = seed
        self.divisor = divisor
        self.reset()

    def reset(self) -> None:
        """Start again at the first mini-batch of the first epoch."""
        self.position = 0
        self._previous = -1
        self._order_epoch = -1

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return self.position // self.size

    @property
    def is_new_epoch(self) -> bool:
        """Whether the last mini-batch finished an epoch."""
        return max(self._previous, 0) // self.size < self.epoch

    @property
    def epoch_detail(self) -> float:
        """Finished epochs with the fraction of the current one."""
        return self.position / self.size

    @property
    def previous_epoch_detail(self) -> float | None:
        """The same before the last mini-batch, None before the first."""
        return None if self._previous < 0 else self._previous / self.size

    def order(self, epoch: int) -> Array:
        """Return the order of an epoch.

        Args:
            epoch (int): from 0.

        Returns:
            numpy.ndarray: int64 of shape (n,), on the CPU.
        """
        if not self.shuffle:
            return numpy.arange(self.size)
        return generator((self.seed, Stream.ORDER, epoch)).permutation(self.size)

    def _order(self, epoch: int) -> Array:
        if epoch != self._order_epoch:
            xp = chainer.backend.get_array_module(self.arrays[0])
            self._current_order = xp.asarray(self.order(epoch))
            self._order_epoch = epoch
        return self._current_order

    def skip(self) -> None:
        """Skip the next mini-batch, which other code has already cut out."""
        self._previous = self.position
        self.position += self.batch_size

    def add_batch(self, program: Any, progress: Array, orders: Array, x: Array, t: Array) -> None:
        """Add the kernel that cuts the next mini-batch out of arrays on a GPU.

        Args:
            program (chainer_sno.cuda.kernels.Program): to which it is added.
            progress (array): where the training stands, see ``method.cu``.
            orders (array): int32 of shape (2, n), the orders of the even and the odd epoch.
            x (array): where the examples go, of the program's dtype: shape (batch_size, size), or
                channel by channel (channels, batch_size, height, width).
            t (array): where the targets go, int32, shape (batch_size,).

        Raises:
            ValueError: the arrays are not examples, numbers of the program's dtype or bytes with a
                divisor, with targets that are signed integers; the network does not take the
                mini-batches of them; or a subclass makes others.
        """
        for name in ("__next__", "next"):
            if getattr(type(self), name) is not getattr(ArrayIterator, name):
                raise ValueError(
                    f"{type(self).__name__} has its own {name} and no add_batch, which cuts its "
                    "mini-batches on a GPU: use the backend 'reference'"
                )
        data, labels = self._pair()
        names = {numpy.dtype(numpy.uint8): "take_bytes", program.kernels.dtype: "take_reals"}
        by_channel = x.ndim == 4
        takes = (x.shape[0], *x.shape[2:]) if by_channel else x.shape[1:]
        fits = data.shape[1:] == takes or (not by_channel and data[0].size == x.shape[1])
        if data.dtype not in names or not fits:
            raise ValueError(
                f"examples of {data.dtype} and shape {data.shape[1:]} do not fit a network of "
                f"{x.dtype} that takes {takes}"
            )
        given = data.dtype if self.divisor is None else chainer.get_dtype()
        check_dtypes(given, labels.dtype, program.kernels.dtype)
        channels = x.shape[0] if by_channel else 1
        program.each(
            names[data.dtype],
            x.size,
            progress,
            orders,
            self.size,
            data,
            labels,
            self.batch_size,
            channels,
            data.size // (self.size * channels),
            1 if self.divisor is None else self.divisor,
            x,
            t,
        )

    def _pair(self) -> Any:
        """Return examples and targets.

        Raises:
            ValueError: there is something else.
        """
        if len(self.arrays) != 2 or self.arrays[1].ndim != 1 or self.arrays[1].dtype.kind != "i":
            raise ValueError("the arrays must be examples and their classes, signed integers")
        data, labels = self.arrays
        return data, labels.astype(numpy.int32, copy=False)

    def __next__(self) -> tuple[Array, ...]:
        """Return the next mini-batch, a tuple of arrays."""
        if not self.repeat and self.position >= self.size:
            raise StopIteration
        epoch, start = divmod(self.position, self.size)
        stop = start + self.batch_size
        if not self.repeat:
            stop = min(stop, self.size)
        if self.shuffle:
            index = self._order(epoch)[start:stop]
            if stop > self.size:
                xp = chainer.backend.get_array_module(index)
                index = xp.concatenate((index, self._order(epoch + 1)[: stop - self.size]))
            batch = tuple(array[index] for array in self.arrays)
        elif stop <= self.size:
            batch = tuple(array[start:stop] for array in self.arrays)
        else:
            xp = chainer.backend.get_array_module(self.arrays[0])
            batch = tuple(
                xp.concatenate((array[start:], array[: stop - self.size])) for array in self.arrays
            )
        self._previous = self.position
        self.position += stop - start
        if self.divisor is not None:
            dtype = chainer.get_dtype()
            batch = (batch[0].astype(dtype) / dtype.type(self.divisor), *batch[1:])
        return batch

    next = __next__

    def serialize(self, serializer: Any) -> None:
        """Save or load the position.

        Raises:
            ValueError: the snapshot belongs to another seed or other arrays.
        """
        identity = numpy.array([self.seed, self.size, self.batch_size, self.shuffle])
        saved = numpy.array(serializer("identity", identity.copy()))
        if not numpy.array_equal(saved, identity):
            raise ValueError(
                "the saved iterator has the seed, length, batch size and shuffle "
                f"{saved.tolist()}, and this one has {identity.tolist()}: use the same"
            )
        self.position = int(serializer("position", self.position))
        self._previous = int(serializer("previous", self._previous))


@chainer.dataset.converter()
def pass_arrays(batch: tuple[Array, ...], device: Any = None) -> tuple[Array, ...]:
    """Convert a mini-batch of :class:`ArrayIterator` for an updater: there is nothing to stack.

    Args:
        batch (tuple of array): the mini-batch.
        device (chainer.backend.Device): where to send it; None leaves it where it is.

    Returns:
        tuple of array: the same.
    """
    if device is None:
        return batch
    return tuple(device.send(array) for array in batch)


# Chainer's decorator returns an object with the name and the docstring of its own class.
functools.update_wrapper(pass_arrays, pass_arrays.base_callable)


def choose_converter(iterator: Any) -> Callable[..., Any]:
    """Return the converter that the mini-batches of an iterator need.

    Args:
        iterator (chainer.dataset.Iterator): of any kind.

    Returns:
        callable: :func:`chainer_sno.pass_arrays` for an :class:`ArrayIterator`, Chainer's
        ``concat_examples`` for iterators that hand out lists of examples.
    """
    if isinstance(iterator, ArrayIterator):
        return pass_arrays
    converter: Callable[..., Any] = chainer.dataset.concat_examples
    return converter


def check_dtypes(examples: Any, targets: Any, dtype: Any) -> None:
    """Check that a network takes the dtypes of a mini-batch, as Chainer's functions do.

    Args:
        examples (numpy.dtype): of x.
        targets (numpy.dtype): of t.
        dtype (numpy.dtype): of the network.

    Raises:
        ValueError: the examples have another dtype than the network, or the targets are no signed
            integers.
    """
    if examples != dtype:
        raise ValueError(
            f"a network of {dtype} takes examples of {dtype}, not of {examples}: convert them, or "
            "give an ArrayIterator of integers a divisor, 255 for bytes that are to lie in [0, 1]; "
            "what is divided has the dtype of chainer.config"
        )
    if targets.kind != "i":
        raise ValueError(f"classes must be signed integers, not {targets}: convert them")


def convert(converter: Callable[..., Any], batch: Any, device: Any) -> Any:
    """Call a converter as Chainer's updaters do, one of the old style with the number of a GPU.

    Args:
        converter (callable): as Chainer's StandardUpdater takes.
        batch (object): what the iterator returned.
        device (chainer.backend.Device): where to send the arrays; None leaves that open.

    Returns:
        tuple of array: x and t.

    Raises:
        ValueError: the converter does not make a pair of arrays of the mini-batch.
    """
    try:
        converted = chainer.dataset.convert._call_converter(converter, batch, device)
        if not isinstance(converted, (tuple, list)) or len(converted) != 2:
            raise TypeError(f"it returned {_what(converted)}")
        if not all(hasattr(each, "shape") for each in converted):
            raise TypeError(f"it returned a pair of {_what(converted[0])}")
    except Exception as error:
        raise _not_a_pair(converter, batch, error) from error
    return converted


def _not_a_pair(converter: Callable[..., Any], batch: Any, error: Exception) -> ValueError:
    """Return the error that names a converter that did not make a pair of arrays."""
    named = converter if hasattr(converter, "__name__") else None
    named = named or getattr(converter, "base_callable", type(converter))
    # That of Chainer's concat_examples is concat_examples_func.
    name = getattr(named, "__name__", repr(named)).removesuffix("_func")
    return ValueError(
        f"the converter {name} does not make a pair of arrays (x, t) of a mini-batch that is "
        f"{_what(batch)} ({in_one_line(error)}): leave it out, for an ArrayIterator "
        "needs pass_arrays and others concat_examples, and give examples that are such pairs"
    )


def _what(value: Any) -> str:
    """Return what a value is, in words."""
    name = type(value).__name__
    return f"a {name} of {len(value)}" if isinstance(value, (tuple, list)) else f"a {name}"
