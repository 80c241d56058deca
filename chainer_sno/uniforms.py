"""Random numbers on the device, from a state of two integers.

On a CPU the stream is cut into chunks, and chunk ``k`` is drawn by a fresh generator of NumPy
seeded with ``(seed, stream, k)``.  On a GPU a number is a function of the seed, the stream, its row
and its column alone, Philox4x32-10 of ``cuda/common.cuh``, so that kernels draw it where they need
it.  Either way the position in the stream is the whole state, and a resumed training continues with
the same numbers.  The numbers of a CPU and those of a GPU differ.
"""

import enum
from collections.abc import Sequence
from typing import Any

import numpy
from numpy.typing import DTypeLike

from chainer_sno._import_chainer import chainer
from chainer_sno._types import Array
from chainer_sno.cuda.kernels import loaded

__all__ = [
    "CHUNK_SIZE",
    "Stream",
    "Uniforms",
    "check_seed",
    "generator",
]

#: Numbers drawn at once on a CPU, about.
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

    def _draw(self, row: Any, count: Any) -> Any:
        """Return rows drawn on a GPU."""
        xp = self.device.xp
        with chainer.using_device(self.device):
            rows = xp.empty((count, self.size))
            arguments = *self.key, row, count, self.size, rows
            loaded(("method",), rows.dtype).each("uniforms", rows.size, *arguments)
            if self.dtype == numpy.float32:
                # Cut, not rounded, which might give 1; as the kernels do.
                rows = (xp.floor(rows * 2**24) / 2**24).astype(self.dtype)
        return rows

    def _read(self, row: int, count: int) -> Array:
        if self.device.xp is not numpy:
            return self._draw(row, count)
        index, start = divmod(row, self._rows)
        if index != self._chunk_index:
            draw = generator((self.seed, self.stream, index)).random
            self._chunk = draw((self._rows, self.size), dtype=self.dtype)
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

    def serialize(self, serializer: Any) -> None:
        """Save or load the position.

        Raises:
            ValueError: the snapshot belongs to another seed, stream or size.
        """
        identity = numpy.array([self.seed, self.stream, self.size], dtype=numpy.int64)
        found = numpy.array(serializer("identity", identity.copy()))
        if not numpy.array_equal(found, identity):
            raise ValueError(
                "the saved random numbers have the seed, stream and size "
                f"{found.tolist()}, and these have {identity.tolist()}: use the same"
            )
        self.position = int(serializer("position", self.position))
