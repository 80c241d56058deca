"""Plain networks in files that hold their geometry beside their weights."""

import json
from pathlib import Path
from typing import Any

import numpy

from chainer_sno import saving_networks
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

    Of a network of one's own, such as :func:`chainer_sno.compact` returns of what
    :func:`chainer_sno.links.select` made, the file holds the arrays and the sizes.  Its class is
    code, which no file holds: :func:`load_compact` needs a network of that class, of any widths.

    Args:
        path (str or pathlib.Path): the file, by custom with the ending ``.npz``.
        network (chainer.Link): a plain network, such as :func:`chainer_sno.compact` returns.

    Raises:
        TypeError: it is a searchable link, or none.
        ValueError: the activation of a MLP's units has no name; or a parameter waits for a first
            call.
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
    name = type(network).__name__
    if not isinstance(network, chainer.Link):
        raise TypeError(f"a {name} is no chainer.Link")
    if hasattr(network, "costs"):
        raise TypeError(f"{name} is searchable, no plain network: compact it first")
    if type(network) not in KINDS.values():
        own = {"format": FORMAT, **saving_networks.describe(network)}
        write_npz(path, {"description": json.dumps(own), **saving_networks.arrays_of(network)})
        return
    description = {
        "format": FORMAT,
        "kind": name,
        "geometry": network.geometry,
        "dtype": next(network.params()).dtype.name,
    }
    write_npz(path, {"description": json.dumps(description), **serialize(network)})


def load_compact(path: str | Path, network: Any = None) -> Any:
    """Return a network that :func:`save_compact` saved, on the CPU.

    Args:
        path (str or pathlib.Path): the file.
        network (chainer.Link): for a network of one's own, one of its class, of any widths, such
            as the one that was given to :func:`chainer_sno.links.select`; a copy of it gets the
            sizes and the arrays of the file.

    Returns:
        chainer.Link: with the weights and statistics of the saved one.

    Raises:
        ValueError: the file is damaged or holds no such network; the message is one line.
        TypeError: the file holds a network of one's own, and none is given; or the other way round.
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
        own = description["kind"] == saving_networks.KIND
        if own and network is not None:
            return saving_networks.restore(network, description, arrays)
        what = str(description["class" if own else "kind"])
        if own == (network is None):
            loaded = None  # one is needed and missing, or given and not needed
        else:
            with chainer.using_config("dtype", numpy.dtype(description["dtype"])):
                loaded = KINDS[description["kind"]](
                    **description["geometry"], initialW=chainer.initializers.Zero()
                )
            load_arrays(loaded, arrays)
    except OSError:
        raise
    except (*DAMAGE, AttributeError, IndexError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{str(path)!r} is not the file of a compact network ({reason})"
        ) from error
    if loaded is None:
        raise TypeError(
            f"{str(path)!r} holds a {what}, "
            + (f"whose class no file holds: give a {what} too" if own else "which needs no network")
        )
    return loaded


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
