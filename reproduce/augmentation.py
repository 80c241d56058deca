"""CIFAR's preprocessing (section 4.2): standardisation, and padding, crop and flip in training."""

from typing import Any

import numpy

from chainer_sno import ArrayIterator, chainer
from chainer_sno.fast import steps
from chainer_sno.uniforms import Stream, Uniforms
from reproduce._types import Array

#: Pixels of padding on each side.
PADDING = 4


def channel_statistics(images: Array) -> tuple[Array, Array]:
    """Return mean and standard deviation of each channel of the training set (reading R8).

    Args:
        images (numpy.ndarray): uint8 of shape (n, channels, height, width).

    Returns:
        tuple: two float32 arrays of shape (1, channels, 1, 1), in units of the pixel values.
    """
    # Counts of each value are whole numbers, so they are exact in any order of the sums.  The
    # images are counted in parts, because bincount makes 64 bits of every pixel.
    pixels = images.size // images.shape[1]
    count = numpy.zeros((images.shape[1], 256), dtype=numpy.int64)
    for first in range(0, len(images), 1000):
        for channel, total in enumerate(count):
            values = images[first : first + 1000, channel].ravel()
            total += numpy.bincount(values, minlength=256)
    values = numpy.arange(256, dtype=numpy.float64)
    mean = count @ values / pixels
    std = numpy.sqrt(count @ values**2 / pixels - mean**2)
    return tuple(array.astype("f").reshape(1, -1, 1, 1) for array in (mean, std))


class Standardise:
    """Turn bytes into standardised images of Chainer's dtype, float32 unless it is configured.

    Args:
        mean (array): shape (1, channels, 1, 1), float32, on the device of the images.
        std (array): the same.
    """

    def __init__(self, mean: Array, std: Array) -> None:
        self.mean = mean
        self.std = std

    def __call__(self, x: Array) -> Array:
        """Return the images, shape (N, channels, height, width), standardised."""
        return (x.astype(chainer.get_dtype()) - self.mean) / self.std


def crop_and_flip(x: Any, uniforms: Any) -> Any:
    """Pad images with zeros, crop a random window of the old size, and flip half of them.

    Args:
        x (array): standardised images, shape (N, channels, height, width).
        uniforms (array): random numbers in [0, 1), shape (N, 3): row, column and flip.

    Returns:
        array: shape and dtype of ``x``.
    """
    xp = chainer.backend.get_array_module(x)
    n, channels, height, width = x.shape
    padded = xp.zeros((n, channels, height + 2 * PADDING, width + 2 * PADDING), x.dtype)
    padded[:, :, PADDING:-PADDING, PADDING:-PADDING] = x
    places = 2 * PADDING + 1
    rows = (uniforms[:, :1] * places).astype(int) + xp.arange(height)
    columns = xp.arange(width)
    # Flip probability 0.5 (R8): a flipped row is read from its end.
    columns = xp.where(uniforms[:, 2:] < 0.5, columns, width - 1 - columns)
    columns = (uniforms[:, 1:2] * places).astype(int) + columns
    images = xp.arange(n)[:, None, None, None]
    channel = xp.arange(channels)[None, :, None, None]
    return padded[images, channel, rows[:, None, :, None], columns[:, None, None, :]]


class ImageIterator(ArrayIterator):
    """Mini-batches of standardised and augmented images.

    The images stay bytes; a mini-batch is converted when it is drawn.  The random numbers of the
    augmentation have a stream of their own, which the snapshot keeps.

    Args:
        arrays (tuple of array): images, uint8 of shape (n, channels, height, width), and labels.
        batch_size (int): examples a mini-batch.
        standardise (Standardise): for these images.
        augment (bool): pad, crop and flip.
        **kwargs: of :class:`chainer_sno.ArrayIterator`.
    """

    def __init__(
        self,
        arrays: tuple[Array, Array],
        batch_size: int,
        standardise: Standardise,
        augment: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(arrays, batch_size, **kwargs)
        self.standardise = standardise
        if augment:
            self.augmentation = Uniforms(3, self.seed, Stream.AUGMENTATION, numpy.float32)
            self.augmentation.to_device(chainer.backend.get_device_from_array(arrays[0]))

    def add_batch(self, program: Any, progress: Array, orders: Array, x: Array, t: Array) -> None:
        """Add the kernel that cuts and augments a mini-batch on a GPU, channel by channel.

        Args:
            program (chainer_sno.cuda.kernels.Program): to which it is added.
            progress (array): where the training stands.
            orders (array): of the even and the odd epoch.
            t (array): where the classes go, as in :class:`chainer_sno.ArrayIterator`.
            x (array): where the images go, shape (channels, N, height, width).

        Raises:
            ValueError: the images are no bytes or have a divisor, or the network takes others.
        """
        images, labels = self._pair()
        if images.dtype != numpy.uint8 or self.divisor is not None:
            raise ValueError(
                f"the GPU's kernels standardise images of uint8 without a divisor, not images of "
                f"{images.dtype} with the divisor {self.divisor}: use the backend 'reference'"
            )
        channels, *sides = images.shape[1:]
        if x.shape != (channels, self.batch_size, *sides):
            raise ValueError(
                f"images of shape {images.shape[1:]} do not fit a network that takes mini-batches "
                f"of shape {x.shape}"
            )
        mean, std = (a.reshape(-1) for a in (self.standardise.mean, self.standardise.std))
        padding, key = 0, (0, 0)
        if self.augmentation is not None:
            padding, key = PADDING, self.augmentation.key
        program.each(
            "take_images",
            x.size,
            progress,
            orders,
            self.size,
            images,
            labels,
            self.batch_size,
            *images.shape[1:],
            mean,
            std,
            padding,
            *key,
            x,
            t,
        )

    def __next__(self) -> tuple[Array, Array]:
        """Return the next mini-batch, float32 images and labels."""
        x, t = super().__next__()
        if self.augmentation is None:
            return self.standardise(x), t
        uniforms = self.augmentation.take(len(x))
        if isinstance(x, numpy.ndarray):
            return self._augment(x, uniforms), t
        return crop_and_flip(self.standardise(x), uniforms), t

    def _augment(self, x: Array, uniforms: Array) -> Array:
        """Return what standardising and :func:`crop_and_flip` make of bytes, in one pass."""
        out = numpy.empty(x.shape, chainer.get_dtype())
        mean, std = (
            a.reshape(-1).astype(out.dtype) for a in (self.standardise.mean, self.standardise.std)
        )
        places = (uniforms[:, :2] * (2 * PADDING + 1)).astype(numpy.int64)
        steps.crop_and_flip(x, mean, std, places, uniforms[:, 2] >= 0.5, PADDING, out)
        return out

    next = __next__

    def serialize(self, serializer: Any) -> None:
        """Save or load the position and the state of the augmentation."""
        super().serialize(serializer)
        if self.augmentation is not None:
            self.augmentation.serialize(serializer["uniforms"])
