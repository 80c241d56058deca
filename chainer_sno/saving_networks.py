"""Plain networks of one's own in files: their class is code, so the file holds sizes and arrays."""

from collections.abc import Iterator
from typing import Any

import numpy

from chainer_sno._import_chainer import chainer
from chainer_sno._types import Array
from chainer_sno.tracing import on_cpu

L = chainer.links

#: The kind that the description of a file states.
KIND = "network"


def entries(network: Any) -> Iterator[tuple[str, Any, str]]:
    """Yield each parameter and persistent value: its path, its link, and its name there."""
    for path, link in network.namedlinks():
        for name in (*sorted(link._params), *sorted(link._persistent)):
            yield f"{path}/{name}".lstrip("/"), link, name


def describe(network: Any) -> dict[str, Any]:
    """Return what a file says of a network beside its arrays."""
    groups = {
        path.lstrip("/"): int(link.groups)
        for path, link in network.namedlinks()
        if isinstance(link, L.Convolution2D) and link.groups > 1
    }
    shape = getattr(network, "x_shape", None)
    return {
        "kind": KIND,
        "class": type(network).__name__,
        "groups": groups,
        "x_shape": None if shape is None else [int(n) for n in shape],
    }


def arrays_of(network: Any) -> dict[str, Array]:
    """Return the arrays of a network by their paths, on the CPU.

    Raises:
        ValueError: a parameter waits for a first call.
    """
    arrays = {}
    for path, link, name in entries(network):
        value = getattr(link, name)
        value = value.array if isinstance(value, chainer.Variable) else value
        if value is None:
            raise ValueError(f"{path} has no values yet: call the network once")
        arrays[path] = numpy.asarray(chainer.backends.cuda.to_cpu(value))
    return arrays


def restore(network: Any, description: dict[str, Any], arrays: dict[str, Array]) -> Any:
    """Return a copy of a network, on the CPU, with the arrays of a file, whatever their sizes.

    Args:
        network (chainer.Link): of the class that was saved, of any widths.
        description (dict): what :func:`describe` returned.
        arrays (dict): by path.

    Returns:
        chainer.Link: the copy.

    Raises:
        ValueError: the network is of another class, or a name, the number of axes or a dtype
            differs.
    """
    if type(network).__name__ != description["class"]:
        raise ValueError(
            f"it is of the class {description['class']}, and the network given is a "
            f"{type(network).__name__}"
        )
    copy = on_cpu(network)
    own = {path: (link, name) for path, link, name in entries(copy)}
    for path in sorted(own.keys() ^ arrays.keys())[:1]:
        raise ValueError(f"{path} is {'missing' if path in own else 'one too many'}")
    for path, (link, name) in own.items():
        array, value = arrays[path], getattr(link, name)
        if isinstance(value, chainer.Parameter):
            before = value.array
        else:
            before = None if value is None else numpy.asarray(value)
        if before is not None and (before.ndim, before.dtype) != (array.ndim, array.dtype):
            raise ValueError(
                f"{path} is {array.dtype} of {array.ndim} axes, not {before.dtype} of {before.ndim}"
            )
        if isinstance(value, chainer.Parameter):
            value.array = array
        elif isinstance(value, (int, float)):
            setattr(link, name, type(value)(array))
        else:
            setattr(link, name, array)
    for path, link in copy.namedlinks():
        if isinstance(link, L.Linear):
            link.out_size, link.in_size = link.W.shape
        elif isinstance(link, L.Convolution2D):
            link.groups = description["groups"].get(path.lstrip("/"), 1)
            link.out_channels = len(link.W)
            link.in_channels = link.W.shape[1] * link.groups
    if description["x_shape"] is not None:
        copy.x_shape = tuple(description["x_shape"])
    return copy
