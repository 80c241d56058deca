"""The content of an updater's snapshot, and what a refused snapshot must leave alone."""

import numpy
import pytest

from chainer_sno import chainer


def content_of(updater):
    """Return what a snapshot of an updater holds: NumPy arrays by name, which stay as they are."""
    serializer = chainer.serializers.DictionarySerializer()
    updater.serialize(serializer)
    # The serializer's arrays may be those that are trained.
    return {name: numpy.array(value) for name, value in serializer.target.items()}


def assert_same(found, expected):
    """Check that two snapshots have the same names and bits."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        numpy.testing.assert_array_equal(found[name], value, name)


def check_refused(updater, content, message):
    """Check that an updater refuses the content of a snapshot, and stays as it is."""
    before = content_of(updater)
    with pytest.raises(ValueError, match=message):
        chainer.serializers.NpzDeserializer(content).load(updater)
    assert_same(content_of(updater), before)
