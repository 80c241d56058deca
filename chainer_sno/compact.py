"""From a structure to the smaller plain network that computes the same function."""

from typing import Any

from chainer_sno._types import Array


def compact(link: Any, structure: Array) -> Any:
    """Return the plain network that remains when a structure's absent parts are deleted.

    Args:
        link (chainer.Link): a trained searchable link with a method ``compact``, such as
            :class:`chainer_sno.links.MaskedMLP`.
        structure (array): bits, shape (d,); the mode of the distribution after a training.

    Returns:
        chainer.Link: a plain network, from x to outputs.

    Raises:
        ValueError: nothing of the network remains.
        TypeError: the link has no such method.
    """
    if not hasattr(link, "compact"):
        raise TypeError(f"{type(link).__name__} does not say what remains of it: no compact()")
    return link.compact(structure)
