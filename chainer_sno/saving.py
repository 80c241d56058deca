"""Plain networks in files that hold their geometry beside their weights."""

import json
from pathlib import Path
from typing import Any

import numpy

from chainer_sno._import_chainer import chainer
from chainer_sno.files import DAMAGE, read_npz, write_npz
from chainer_sno.links import MLP, CompactDenseNet

serialize = chainer.serializers.npz.serialize

#: The version of the form of a file; a change that readers must know raises it.
FORMAT = 1
#: The networks that a file can hold.
KINDS = {kind.__name__: kind for kind in (MLP, CompactDenseNet)}


def save_compact(path: str | Path, network: Any) -> None:
    """Save a plain network so that :func:`load_compact` needs nothing but the file.

    The file is an uncompressed npz archive of the arrays that Chainer's serializer saves and of
    ``description``, a text in JSON: the kind of the network, its geometry and its dtype.  It is
    written in one step, so an interruption leaves the old file in place.

    Args:
        path (str or pathlib.Path): the file, by custom with the ending ``.npz``.
        network (chainer.Link): a :class:`~chainer_sno.links.MLP` or a
            :class:`~chainer_sno.links.CompactDenseNet`, such as :func:`chainer_sno.compact`
            returns.

    Raises:
        TypeError: it is another link.
        ValueError: the activation of its units has no name.
        OSError: the file cannot be written.

    Example:
        >>> import chainer_sno, numpy
        >>> network = chainer_sno.links.MLP(8, (4, 4), 2)
        >>> chainer_sno.save_compact("small.npz", network)
        >>> again = chainer_sno.load_compact("small.npz")
        >>> x = numpy.ones((3, 8), "f")
        >>> numpy.array_equal(network(x).array, again(x).array)
        True

    See Also:
        :func:`chainer_sno.load_compact`: reads the file.

        :func:`chainer_sno.save_onnx`: a file for other runtimes.
    """
    if type(network) not in KINDS.values():
        raise TypeError(
            f"network must be one of {', '.join(KINDS)}, not {type(network).__name__}: compact "
            "it first"
        )
    description = {
        "format": FORMAT,
        "kind": type(network).__name__,
        "geometry": network.geometry,
        "dtype": next(network.params()).dtype.name,
    }
    write_npz(path, {"description": json.dumps(description), **serialize(network)})


def load_compact(path: str | Path) -> Any:
    """Return a network that :func:`save_compact` saved, on the CPU.

    Args:
        path (str or pathlib.Path): the file.

    Returns:
        chainer.Link: with the weights and statistics of the saved one.

    Raises:
        ValueError: the file is damaged or holds no such network; the message is one line.
        OSError: it cannot be read.
    """
    try:
        arrays = read_npz(path)
        description = json.loads(str(arrays.pop("description")))
        if description["format"] != FORMAT:
            raise ValueError(
                f"the file has format {description['format']}, and this version reads format "
                f"{FORMAT}"
            )
        with chainer.using_config("dtype", numpy.dtype(description["dtype"])):
            network = KINDS[description["kind"]](
                **description["geometry"], initialW=chainer.initializers.Zero()
            )
        load_arrays(network, arrays)
    except OSError:
        raise
    except (*DAMAGE, AttributeError, IndexError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{str(path)!r} is not the file of a compact network ({reason})"
        ) from error
    return network


def load_arrays(link: Any, arrays: Any) -> None:
    """Load arrays into a link that has exactly these arrays.

    Chainer's own deserializer accepts an array of another shape if it can be broadcast, and ignores
    arrays that the link does not have.

    Args:
        link (chainer.Link): gets them.
        arrays (dict): by name, as Chainer's serializer saves them.

    Raises:
        ValueError: a name, a shape or a dtype differs.
    """
    own = serialize(link)
    for name in sorted(own.keys() ^ arrays.keys())[:1]:
        raise ValueError(f"{name} is {'missing' if name in own else 'unknown to the network'}")
    for name, array in own.items():
        expected, found = (f"{a.dtype} of shape {a.shape}" for a in (array, arrays[name]))
        if expected != found:
            raise ValueError(f"{name} is {found}, not {expected}")
    chainer.serializers.NpzDeserializer(arrays).load(link)
