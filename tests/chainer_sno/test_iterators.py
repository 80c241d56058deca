import io
import itertools

import numpy
import pytest

from chainer_sno import ArrayIterator, chainer


def take(iterator, count):
    return [batch[0].tolist() for batch in itertools.islice(iterator, count)]


def test_an_epoch_shows_every_example_once():
    iterator = ArrayIterator((numpy.arange(20), numpy.arange(20) * 2), 5)
    epochs = []
    for _ in range(2):
        batches = list(itertools.islice(iterator, 4))
        assert iterator.is_new_epoch
        x = numpy.concatenate([batch[0] for batch in batches])
        t = numpy.concatenate([batch[1] for batch in batches])
        assert sorted(x) == list(range(20))
        numpy.testing.assert_array_equal(t, 2 * x)
        epochs.append(x.tolist())
    assert epochs[0] != epochs[1]
    assert epochs[0] != sorted(epochs[0])


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_mini_batch_crosses_into_the_next_epoch(shuffle):
    """The same epochs, their fractions and their ends as Chainer's SerialIterator."""
    mine = ArrayIterator((numpy.arange(7),), 3, shuffle=shuffle)
    stock = chainer.iterators.SerialIterator(list(range(7)), 3, shuffle=False)
    seen = []
    for _ in range(15):
        assert mine.previous_epoch_detail == (
            stock.previous_epoch_detail and pytest.approx(stock.previous_epoch_detail)
        )
        seen += next(mine)[0].tolist()
        expected = next(stock)
        if not shuffle:
            assert seen[-3:] == expected
        assert (mine.epoch, mine.is_new_epoch) == (stock.epoch, stock.is_new_epoch)
        assert mine.epoch_detail == pytest.approx(stock.epoch_detail)
    for start in range(0, 42, 7):
        assert sorted(seen[start : start + 7]) == list(range(7))


def test_without_repeat_it_ends_with_a_smaller_mini_batch():
    iterator = ArrayIterator((numpy.arange(7),), 3, repeat=False, shuffle=False)
    assert take(iterator, 9) == [[0, 1, 2], [3, 4, 5], [6]]
    assert take(iterator, 9) == []
    iterator.reset()
    assert take(iterator, 1) == [[0, 1, 2]]


def test_goes_on_from_a_snapshot():
    whole = ArrayIterator((numpy.arange(10),), 4, seed=3)
    expected = take(whole, 12)
    for count in (0, 1, 3, 5, 7):
        first = ArrayIterator((numpy.arange(10),), 4, seed=3)
        take(first, count)
        file = io.BytesIO()
        chainer.serializers.save_npz(file, first)
        file.seek(0)
        second = ArrayIterator((numpy.arange(10),), 4, seed=3)
        chainer.serializers.load_npz(file, second)
        assert (second.epoch, second.is_new_epoch) == (first.epoch, first.is_new_epoch)
        assert take(second, 12 - count) == expected[count:]
        file.seek(0)
        with pytest.raises(ValueError, match="saved iterator has the seed"):
            chainer.serializers.load_npz(file, ArrayIterator((numpy.arange(10),), 4, seed=4))


@pytest.mark.parametrize(
    ("arrays", "batch_size", "message"),
    [
        ((numpy.zeros(3), numpy.zeros(4)), 2, "the same length"),
        ((numpy.zeros(3),), 4, "batch_size must be between 1 and the 3 examples"),
        ((numpy.zeros(3),), 0, "batch_size must be between 1 and the 3 examples"),
    ],
)
def test_bad_arguments_are_named(arrays, batch_size, message):
    with pytest.raises(ValueError, match=message):
        ArrayIterator(arrays, batch_size)
