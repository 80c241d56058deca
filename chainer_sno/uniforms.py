"""Random numbers on the device, from a state of two integers.

On a CPU the stream is cut into chunks, and chunk ``k`` is drawn by a fresh generator of NumPy
seeded with ``(seed, stream, k)``.  On a GPU a number is a function of the seed, the stream, its row
and its column alone, Philox4x32-10 (:func:`philox`), so that the kernels of the backend ``graph``
draw the same number where they need it.  Either way the position in the stream is the whole state,
and a resumed training continues with the same numbers.  The numbers of a CPU and those of a GPU
differ.
"""

import enum
from collections.abc import Sequence
from typing import Any

import numpy
from numpy.typing import DTypeLike

from chainer_sno._import_chainer import chainer
from chainer_sno._types import Array

__all__ = [
    "CHUNK_SIZE",
    "Stream",
    "Uniforms",
    "check_seed",
    "generator",
    "philox",
    "philox_uniforms",
]

#: Numbers drawn at once, about.
CHUNK_SIZE = 1 << 20


class Stream(enum.IntEnum):
    """What random numbers are for; the streams of one seed are independent."""

    ORDER = 0
    STRUCTURES = 1
    DROPOUT = 2
    EVALUATION = 3
    WEIGHTS = 4
    AUGMENTATION = 5
    FIXED_STRUCTURE = 6


def generator(key: Sequence[int]) -> Any:
    """Return a generator that is a pure function of ``key``.

    Args:
        key (sequence of int): what distinguishes the stream, each at least 0.

    Returns:
        numpy.random.Generator: NumPy's default.
    """
    return numpy.random.default_rng(numpy.random.SeedSequence(key))


def philox(counter: Sequence[Any], key: Sequence[int]) -> list[Any]:
    """Return the random words of Philox4x32 with ten rounds (Salmon et al., 2011).

    Args:
        counter (sequence of array): four words, arrays of uint64 of one shape on any device, each
            number below 2**32.
        key (sequence of int): two words.

    Returns:
        list of array: four words, arrays of the same kind.
    """
    words, (key0, key1) = list(counter), key
    low, high = numpy.uint64(0xFFFFFFFF), numpy.uint64(32)
    for _ in range(10):
        a, b = words[0] * numpy.uint64(0xD2511F53), words[2] * numpy.uint64(0xCD9E8D57)
        words = [
            (b >> high) ^ words[1] ^ numpy.uint64(key0),
            b & low,
            (a >> high) ^ words[3] ^ numpy.uint64(key1),
            a & low,
        ]
        key0, key1 = (key0 + 0x9E3779B9) % 2**32, (key1 + 0xBB67AE85) % 2**32
    return words


def philox_uniforms(xp: Any, key: Sequence[int], row: int, count: int, size: int) -> Array:
    """Return rows of uniform numbers in [0, 1), of 53 bits, each a function of its place alone.

    ``uniform`` of ``cuda/common.cuh`` gives the same numbers.

    Args:
        xp (module): numpy or cupy.
        key (sequence of int): two words of 32 bits.
        row (int): the first row.
        count (int): how many rows.
        size (int): columns.

    Returns:
        array: float64, shape (count, size).
    """
    # A counter gives the numbers of two neighbouring columns.
    pairs = -(-size // 2)
    shape = count, pairs
    rows = xp.broadcast_to(xp.arange(row, row + count, dtype=numpy.uint64)[:, None], shape)
    columns = xp.broadcast_to(xp.arange(pairs, dtype=numpy.uint64), shape)
    low, high = numpy.uint64(0xFFFFFFFF), numpy.uint64(32)
    zeros = xp.zeros(shape, numpy.uint64)
    a, b, c, d = philox((rows & low, rows >> high, columns, zeros), key)
    bits = xp.stack(((b << high) | a, (d << high) | c), axis=-1).reshape(count, 2 * pairs)
    return (bits[:, :size] >> numpy.uint64(11)).astype(numpy.float64) * 2.0**-53


#: Seeds are below this, because snapshots hold them as int64.
SEEDS = 2**63


def check_seed(seed: int) -> None:
    """Check a seed; one that is too large would only fail when the first snapshot is saved.

    Raises:
        ValueError: the seed is not in [0, 2**63).
    """
    if not 0 <= seed < SEEDS:
        raise ValueError(f"seed must lie in [0, 2**63), not {seed}")


class Uniforms(chainer.DeviceResident):
    """Rows of independent uniform numbers in [0, 1), drawn on the device.

    Args:
        size (int): numbers a row.
        seed (int): the seed, from 0 to 2**63 - 1.
        stream (Stream): what the numbers are for.
        dtype (numpy.dtype): float32 or float64.

    Raises:
        ValueError: the seed is out of range.

    Attributes:
        position (int): rows taken so far; with the seed, the whole state.
    """

    def __init__(
        self,
        size: int,
        seed: int = 0,
        stream: Stream = Stream.STRUCTURES,
        dtype: DTypeLike = numpy.float64,
    ) -> None:
        super().__init__()
        check_seed(seed)
        self.size = size
        self.seed = seed
        self.stream = stream
        self.dtype = numpy.dtype(dtype)
        self.position = 0
        self._rows = max(1, CHUNK_SIZE // size)
        self._chunk: Any = None
        self._chunk_index = -1

    def device_resident_accept(self, visitor: Any) -> None:
        """Forget the numbers drawn on the device that is left."""
        super().device_resident_accept(visitor)
        self._chunk_index = -1

    @property
    def key(self) -> tuple[int, int]:
        """The key of the stream on a GPU, two integers of 32 bits."""
        sequence = numpy.random.SeedSequence((self.seed, self.stream))
        first, second = sequence.generate_state(2, numpy.uint32).tolist()
        return first, second

    def _draw(self, index: int) -> Array:
        """Return the rows of a chunk."""
        xp = self.device.xp
        if xp is numpy:
            draw = generator((self.seed, self.stream, index)).random
            return draw((self._rows, self.size), dtype=self.dtype)
        with chainer.using_device(self.device):
            rows = philox_uniforms(xp, self.key, index * self._rows, self._rows, self.size)
            if self.dtype == numpy.float32:
                # Cut, not rounded, which might give 1; as the kernels do.
                rows = (xp.floor(rows * 2**24) / 2**24).astype(self.dtype)
        return rows

    def _read(self, row: int, count: int) -> Array:
        index, start = divmod(row, self._rows)
        if index != self._chunk_index:
            self._chunk = self._draw(index)
            self._chunk_index = index
        return self._chunk[start : start + count]

    def take(self, count: int) -> Array:
        """Return the next rows.

        Args:
            count (int): how many.

        Returns:
            array: shape (count, size), the dtype of the stream.  A view: do not write to it.
        """
        rows = self._read(self.position, count)
        self.position += len(rows)
        if len(rows) == count:
            return rows
        return self.device.xp.concatenate((rows, self.take(count - len(rows))))

    def check_saved(self, serializer: Any) -> None:
        """Check that a snapshot is of these random numbers, or save which these are.

        Raises:
            ValueError: the snapshot belongs to another seed, stream or size.
        """
        identity = numpy.array([self.seed, self.stream, self.size], dtype=numpy.int64)
        saved = numpy.array(serializer("identity", identity.copy()))
        if not numpy.array_equal(saved, identity):
            raise ValueError(
                "the saved random numbers have the seed, stream and size "
                f"{saved.tolist()}, and these have {identity.tolist()}: use the same"
            )

    def serialize(self, serializer: Any) -> None:
        """Save or load the position.

        Raises:
            ValueError: see :meth:`check_saved`; nothing is loaded then.
        """
        self.check_saved(serializer)
        self.position = int(serializer("position", self.position))
