import numpy
import pytest

from chainer_sno import ArrayIterator, chainer, uniforms
from chainer_sno.uniforms import Stream, Uniforms, philox, philox_uniforms


def test_chunks_do_not_show(monkeypatch):
    """However the rows are taken, and across the borders of chunks, the stream is the same."""
    monkeypatch.setattr(uniforms, "CHUNK_SIZE", 50)
    whole = Uniforms(10, seed=1)
    parts = Uniforms(10, seed=1)
    expected = whole.take(23)
    found = [parts.take(n) for n in (1, 2, 5, 0, 12, 3)]
    assert [len(rows) for rows in found] == [1, 2, 5, 0, 12, 3]
    numpy.testing.assert_array_equal(numpy.concatenate(found), expected)
    assert len(numpy.unique(expected)) == expected.size


def test_streams_and_seeds_differ():
    takes = [
        Uniforms(100, seed, stream).take(1).ravel()
        for seed in (0, 1)
        for stream in (Stream.STRUCTURES, Stream.DROPOUT)
    ]
    for i, a in enumerate(takes):
        for b in takes[i + 1 :]:
            assert not numpy.isin(a, b).any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_range_and_dtype(dtype):
    rows = Uniforms(1000, dtype=dtype).take(100)
    assert rows.dtype == dtype
    assert rows.min() >= 0
    assert rows.max() < 1
    assert abs(rows.mean() - 0.5) < 5 / numpy.sqrt(12 * rows.size)


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64])
def test_a_seed_that_no_snapshot_can_hold_is_refused_at_once(seed):
    with pytest.raises(ValueError, match=rf"seed must lie in \[0, 2\*\*63\), not {seed}"):
        Uniforms(10, seed)
    with pytest.raises(ValueError, match="seed must lie in"):
        ArrayIterator((numpy.zeros(4),), 2, seed=seed)


@pytest.mark.parametrize("kind", ["uniforms", "iterator"])
def test_the_largest_seed_is_saved(kind):
    def make(seed):
        if kind == "uniforms":
            return Uniforms(10, seed)
        return ArrayIterator((numpy.zeros(4),), 2, seed=seed)

    saved = chainer.serializers.DictionarySerializer()
    make(2**63 - 1).serialize(saved)
    make(2**63 - 1).serialize(chainer.serializers.NpzDeserializer(saved.target))
    with pytest.raises(ValueError, match="seed"):
        make(2**63 - 2).serialize(chainer.serializers.NpzDeserializer(saved.target))


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (
            (0xFFFFFFFF,) * 4,
            (0xFFFFFFFF,) * 2,
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_numbers(counter, key, expected):
    found = philox([numpy.array(word, "u8") for word in counter], key)
    assert tuple(int(word) for word in found) == expected


def test_numbers_of_philox_depend_on_their_place_alone():
    """Also where the number of the row has more than 32 bits, and the last column no neighbour."""
    first = 2**32 - 2
    whole = philox_uniforms(numpy, (1, 2), first, 6, 7)
    parts = [philox_uniforms(numpy, (1, 2), first + row, 1, 5) for row in range(6)]
    numpy.testing.assert_array_equal(whole[:, :5], numpy.concatenate(parts))
    assert len(numpy.unique(whole)) == whole.size
    assert ((whole >= 0) & (whole < 1)).all()
