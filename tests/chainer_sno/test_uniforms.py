import numpy
import pytest

from chainer_sno import uniforms
from chainer_sno.uniforms import Stream, Uniforms


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
