"""Random numbers on the device, from a state of two integers.

The generators of NumPy and CuPy keep their state in different places, CuPy's on the GPU and out
of reach of a snapshot.  Here the stream is cut into chunks, and chunk ``k`` is drawn by a fresh
generator seeded with ``(seed, stream, k)``.  So the position in the stream is the whole state, a
resumed training continues with the same numbers, and one launch on a GPU serves many iterations.
"""

import enum

import numpy

from chainer_sno._import_chainer import chainer

__all__ = [
    "CHUNK_SIZE",
    "Stream",
    "Uniforms",
    "generator",
]

#: About how many numbers are drawn at once, enough for drawing to be efficient on a GPU.
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


def generator(xp, key):
    """Return a generator of the array module that is a pure function of ``key``.

    Args:
        xp (module): :mod:`numpy` or :mod:`cupy`.
        key (sequence of int): what distinguishes the stream, each at least 0.

    Returns:
        numpy.random.Generator or cupy.random.Generator: with ``random(size, dtype)``.
    """
    sequence = numpy.random.SeedSequence(key)
    if xp is numpy:
        return numpy.random.default_rng(sequence)
    # CuPy's default, XORWOW, takes long to seed; Philox is made for many short streams.
    return xp.random.Generator(xp.random.Philox4x3210(sequence))


class Uniforms(chainer.DeviceResident):
    """Rows of independent uniform numbers in [0, 1), drawn on the device.

    Args:
        size (int): numbers a row.
        seed (int): the seed, at least 0.
        stream (Stream): what the numbers are for.
        dtype (numpy.dtype): float32 or float64.

    Attributes:
        position (int): rows taken so far; with the seed, the whole state.
    """

    def __init__(self, size, seed=0, stream=Stream.STRUCTURES, dtype=numpy.float64):
        super().__init__()
        self.size = size
        self.seed = seed
        self.stream = stream
        self.dtype = numpy.dtype(dtype)
        self.position = 0
        self._rows = max(1, CHUNK_SIZE // size)
        self._chunk = None
        self._chunk_index = -1

    def device_resident_accept(self, visitor):
        """Forget the numbers drawn on the device that is left."""
        super().device_resident_accept(visitor)
        self._chunk_index = -1

    def _read(self, row, count):
        index, start = divmod(row, self._rows)
        if index != self._chunk_index:
            xp = self.device.xp
            with chainer.using_device(self.device):
                draw = generator(xp, (self.seed, self.stream, index)).random
                self._chunk = draw((self._rows, self.size), dtype=self.dtype)
            self._chunk_index = index
        return self._chunk[start : start + count]

    def take(self, count):
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

    def serialize(self, serializer):
        """Save or load the position.

        Raises:
            ValueError: the snapshot belongs to another seed, stream or size.
        """
        identity = numpy.array([self.seed, self.stream, self.size], dtype=numpy.int64)
        found = numpy.array(serializer("identity", identity.copy()))
        if not numpy.array_equal(found, identity):
            raise ValueError(
                "the snapshot's random numbers are those of seed, stream and size "
                f"{found.tolist()}, here {identity.tolist()}"
            )
        self.position = int(serializer("position", self.position))
