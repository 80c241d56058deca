"""From a structure to the smaller plain network that computes the same function."""

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
        TypeError: the link has no such method, or the structure is missing or one too many.
    """
    if not hasattr(link, "compact"):
        raise TypeError(f"{type(link).__name__} cannot be compacted: give it a method compact()")
    return link.compact() if structure is None else link.compact(structure)
