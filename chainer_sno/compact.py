"""The smaller plain network of a structure, which computes the same function.

With batch statistics estimated again at the structure (``reestimate``), its outputs differ from
those of the searchable link, which has the running statistics.
"""

from typing import Any

from chainer_sno import batch_statistics
from chainer_sno._types import Array


def compact(link: Any, structure: Array | None = None, reestimate: Any = None) -> Any:
    """Return the plain network that remains when a structure's absent parts are deleted.

    Args:
        link (chainer.Link): a trained searchable link with a method ``compact``, such as
            :class:`chainer_sno.links.MaskedMLP` and :class:`chainer_sno.links.DenseNet`, or a
            :class:`chainer_sno.links.FixedStructure` of one.
        structure (array): bits, shape (d,); the mode of the distribution after a training.  A
            fixed structure has its own.
        reestimate (int or tuple): how many training mini-batches estimate the statistics of batch
            normalisation at the structure: of the iterator that the updater trains the link with,
            or a pair of an iterator and how many.  0 keeps the running statistics, which average
            over the structures that were sampled; the default is ``link.reestimate`` where there
            is one, as of :func:`chainer_sno.links.select`, and else 0.

    Returns:
        chainer.Link: a plain network, from x to outputs; in evaluation mode the link's, but for
        statistics that are estimated anew.

    Raises:
        ValueError: nothing of the network remains, or there are no mini-batches to estimate with.
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
    source = batch_statistics.source(link, reestimate)
    network = link.compact() if structure is None else link.compact(structure)
    if source is not None:
        batch_statistics.at_structure(link, network, structure, source)
    return network
