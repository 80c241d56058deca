"""The smaller plain network that computes the same function as a structure."""

from typing import Any

from chainer_sno._types import Array


def compact(link: Any, structure: Array | None = None) -> Any:
    """Return the plain network that remains when a structure's absent parts are deleted.

    Args:
        link (chainer.Link): a trained searchable link with a method ``compact``, such as
            :class:`chainer_sno.links.MaskedMLP` and :class:`chainer_sno.links.DenseNet`, or a
            :class:`chainer_sno.links.FixedStructure` of one.
        structure (array): bits, shape (d,); the mode of the distribution after a training.  A
            fixed structure has its own.

    Returns:
        chainer.Link: a plain network, from x to outputs; in evaluation mode the link's.

    Raises:
        ValueError: nothing of the network remains.
        TypeError: the link has no such method, the structure is missing, or the link takes none.

    Example:
        >>> import chainer_sno, numpy
        >>> network = chainer_sno.links.MaskedMLP(8, (4, 4), 2)
        >>> structure = numpy.array([1, 0, 1, 0, 0, 0, 1, 1], dtype=bool)
        >>> small = chainer_sno.compact(network, structure)
        >>> small.widths
        (8, 2, 2, 2)
        >>> x = numpy.ones((3, 8), "f")
        >>> same = network(x, structure[None]).array[0]
        >>> numpy.allclose(small(x).array, same, atol=1e-6)
        True

    See Also:
        :func:`chainer_sno.save_compact`, :func:`chainer_sno.save_onnx`: keep the network in a file.

        :func:`chainer_sno.describe`: its weights, operations and milliseconds.
    """
    if not hasattr(link, "compact"):
        raise TypeError(f"{type(link).__name__} cannot be compacted: give it a method compact()")
    return link.compact() if structure is None else link.compact(structure)
