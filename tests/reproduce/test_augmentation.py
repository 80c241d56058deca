import io
import itertools

import numpy
import pytest

from chainer_sno import chainer
from reproduce.augmentation import (
    ImageIterator,
    Standardise,
    channel_statistics,
    crop_and_flip,
)


def test_statistics_are_those_of_the_channels(rng):
    images = rng.integers(0, 256, (20, 3, 8, 8), dtype=numpy.uint8)
    images[:, 1] //= 3
    mean, std = channel_statistics(images)
    numpy.testing.assert_allclose(mean.ravel(), images.mean(axis=(0, 2, 3)), rtol=1e-6)
    numpy.testing.assert_allclose(std.ravel(), images.std(axis=(0, 2, 3)), rtol=1e-6)
    x = Standardise(mean, std)(images)
    assert x.dtype == numpy.float32
    numpy.testing.assert_allclose(x.mean(axis=(0, 2, 3)), 0, atol=1e-5)
    numpy.testing.assert_allclose(x.std(axis=(0, 2, 3)), 1, atol=1e-5)


def test_crop_and_flip_one_image_at_a_time(rng):
    x = rng.normal(size=(200, 3, 8, 6)).astype("f")
    uniforms = rng.random((200, 3))
    found = crop_and_flip(x, uniforms)
    assert (found.shape, found.dtype) == (x.shape, x.dtype)
    for image, (row, column, flip), result in zip(x, uniforms, found):
        padded = numpy.pad(image, ((0, 0), (4, 4), (4, 4)))
        row, column = int(row * 9), int(column * 9)
        window = padded[:, row : row + 8, column : column + 6]
        expected = window if flip < 0.5 else window[:, :, ::-1]
        numpy.testing.assert_array_equal(result, expected)


def test_every_place_and_both_sides_are_met(rng):
    uniforms = rng.random((5000, 3))
    x = numpy.zeros((5000, 1, 8, 8), "f")
    x[:, 0, 4, 4] = 1
    found = crop_and_flip(x, uniforms)[:, 0]
    # The point is at row 8 of the padded image and so at 8 - row of the window.
    rows = numpy.bincount(found.max(axis=2).argmax(axis=1), minlength=8)
    assert (rows > 0.7 * 5000 / 9).all()
    assert 0 in found.max(axis=(1, 2)), "a crop may leave the point out"


def test_one_pass_gives_the_same_bits(dtype, rng):
    images = rng.integers(0, 256, (50, 3, 10, 8), dtype=numpy.uint8)
    uniforms = rng.random((50, 3)).astype("f")
    standardise = Standardise(*channel_statistics(images))
    iterator = ImageIterator((images, numpy.zeros(50, "i")), 10, standardise)
    found = iterator._augment(images, uniforms)
    expected = crop_and_flip(standardise(images), uniforms)
    assert found.dtype == expected.dtype == dtype
    numpy.testing.assert_array_equal(found, expected)


@pytest.fixture
def arrays(rng):
    images = rng.integers(0, 256, (50, 3, 8, 8), dtype=numpy.uint8)
    return images, numpy.arange(50, dtype="i")


def make(arrays, **kwargs):
    return ImageIterator(arrays, 16, Standardise(*channel_statistics(arrays[0])), **kwargs)


def test_a_plain_iterator_only_standardises(arrays):
    iterator = make(arrays, augment=False, repeat=False, shuffle=False)
    batches = list(iterator)
    x = numpy.concatenate([batch[0] for batch in batches])
    numpy.testing.assert_array_equal(x, iterator.standardise(arrays[0]))
    assert numpy.concatenate([batch[1] for batch in batches]).tolist() == list(range(50))


def test_goes_on_from_a_snapshot_augmentation_included(arrays):
    whole = list(itertools.islice(make(arrays, seed=2), 12))
    assert not numpy.array_equal(whole[0][0], make(arrays).standardise(arrays[0][whole[0][1]]))
    first, second = make(arrays, seed=2), make(arrays, seed=2)
    for _ in range(5):
        next(first)
    file = io.BytesIO()
    chainer.serializers.save_npz(file, first)
    file.seek(0)
    chainer.serializers.load_npz(file, second)
    for (x, t), (x_expected, t_expected) in zip(itertools.islice(second, 7), whole[5:]):
        numpy.testing.assert_array_equal(x, x_expected)
        numpy.testing.assert_array_equal(t, t_expected)
