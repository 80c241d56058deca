"""Statistics of batch normalisation at one structure, estimated anew from training mini-batches.

The running statistics of a searchable link mix those of the structures that were drawn last, which
are not the most probable one.  A network can have a training loss near zero and be wrong on most
examples at that structure, until its statistics are estimated there.
"""

import contextlib
import copy
import itertools
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy

from chainer_sno._import_chainer import chainer
from chainer_sno._types import Array
from chainer_sno.iterators import ArrayIterator, choose_converter, convert
from chainer_sno.tracing import undisturbed_random_numbers

#: The training iterator and its converter, by the link that is trained with it.
_SOURCES: Any = weakref.WeakKeyDictionary()


def remember(link: Any, iterator: Any, converter: Any) -> None:
    """Keep with which mini-batches a link is trained; updaters say it.

    Args:
        link (chainer.Link): the optimizer's target.
        iterator (chainer.dataset.Iterator): the training data.
        converter (callable): makes arrays of a mini-batch.
    """
    _SOURCES[link] = iterator, converter


def norms_of(link: Any) -> list[Any]:
    """Return the batch normalisations below a link."""
    kind = chainer.links.BatchNormalization
    return [child for child in link.links() if isinstance(child, kind)]


def check(reestimate: Any) -> None:
    """Check what says with how many mini-batches of what to estimate.

    Raises:
        ValueError: it is neither None, nor a number of mini-batches, nor a pair of an iterator and
            such a number.
    """
    batches = reestimate
    if isinstance(reestimate, (tuple, list)) and len(reestimate) == 2:
        batches = reestimate[1]
    whole = isinstance(batches, (int, numpy.integer)) and not isinstance(batches, bool)
    whole = whole and batches >= 0
    if reestimate is not None and not whole:
        raise ValueError(
            "reestimate must be a number of training mini-batches, or a pair of a training "
            f"iterator and such a number, not {reestimate!r}"
        )


def source(link: Any, reestimate: Any = None) -> tuple[Any, Any, int] | None:
    """Return with what the statistics of a link are to be estimated anew.

    Args:
        link (chainer.Link): a searchable link.
        reestimate (int or tuple): how many mini-batches of the iterator that an updater trains the
            link with; or the iterator and how many; None for ``link.reestimate``, if there is one;
            0 for the running statistics.

    Returns:
        tuple: the iterator, its converter, and how many mini-batches; None where nothing is to be
        estimated.

    Raises:
        ValueError: see :func:`check`; or no updater was made for the link, so there is no iterator.
    """
    check(reestimate)
    if reestimate is None:
        reestimate = getattr(link, "reestimate", 0)
    given = isinstance(reestimate, (tuple, list))
    batches = reestimate[1] if given else reestimate
    if not batches or not norms_of(link):
        return None
    if given:
        iterator = reestimate[0]
        converter = choose_converter(iterator)
    else:
        iterator, converter = _SOURCES.get(link, (None, None))
    if iterator is None:
        raise ValueError(
            "the statistics of batch normalisation are those of the structures that were sampled, "
            "and no updater says with which mini-batches to estimate them anew: give "
            f"reestimate=(training iterator, {batches}), or reestimate=0 to keep them"
        )
    return iterator, converter, int(batches)


def training_batches(
    iterator: Any, batches: int, converter: Any = None, device: Any = None
) -> Iterator[Array]:
    """Yield the inputs of training mini-batches; the iterator does not move.

    They are the same every time: of :class:`chainer_sno.ArrayIterator` those of the first epoch,
    of other iterators those of one order of their data set.

    Args:
        iterator (chainer.dataset.Iterator): the training data: an ArrayIterator, or an iterator
            with ``dataset`` and ``batch_size``.
        batches (int): how many; one pass over the data at the most.
        converter (callable): makes arrays of a mini-batch; chosen by the iterator by default.
        device (device specifier): where to send them; None leaves that open.

    Yields:
        array: x.

    Raises:
        TypeError: the iterator is another.
    """
    converter = converter or choose_converter(iterator)
    if isinstance(iterator, ArrayIterator):
        # All but the arrays: the random numbers of an augmentation must not move on.
        shared = {id(array): array for array in iterator.arrays}
        again = copy.deepcopy(iterator, {**shared, id(iterator.arrays): iterator.arrays})
        again.reset()
        mini_batches: Any = itertools.islice(
            again, min(batches, max(1, again.size // again.batch_size))
        )
    elif hasattr(iterator, "dataset") and hasattr(iterator, "batch_size"):
        mini_batches = _examples(iterator.dataset, iterator.batch_size, batches)
    else:
        raise TypeError(
            f"a {type(iterator).__name__} does not say what its data are (dataset, batch_size): "
            "give an ArrayIterator or a SerialIterator"
        )
    for batch in mini_batches:
        yield convert(converter, batch, device)[0]


def _examples(dataset: Any, batch_size: int, batches: int) -> Iterator[list[Any]]:
    """Yield lists of examples in a fixed order."""
    order = numpy.random.default_rng(0).permutation(len(dataset))
    whole = max(1, len(dataset) // batch_size)
    for k in range(min(batches, whole)):
        yield [dataset[int(i)] for i in order[k * batch_size : (k + 1) * batch_size]]


def estimate(link: Any, forward: Callable[[Array], Any], batches: Iterable[Array]) -> None:
    """Give batch normalisations the statistics of some mini-batches, the mean over all of them.

    Args:
        link (chainer.Link): the batch normalisations below it are the ones.
        forward (callable): computes outputs of a mini-batch x.
        batches (iterable of array): the mini-batches, x each.
    """
    norms = norms_of(link)
    decays = [norm.decay for norm in norms]
    try:
        with (
            undisturbed_random_numbers(),
            chainer.using_config("train", True),
            chainer.no_backprop_mode(),
        ):
            for k, x in enumerate(batches):
                for norm in norms:
                    norm.decay = k / (k + 1)  # the mean over all mini-batches so far
                forward(x)
    finally:
        for norm, decay in zip(norms, decays):
            norm.decay = decay


@contextlib.contextmanager
def kept(link: Any) -> Iterator[None]:
    """Put the statistics of a link back as they were when the block ends."""
    saved = [(norm, norm.avg_mean.copy(), norm.avg_var.copy()) for norm in norms_of(link)]
    try:
        yield
    finally:
        for norm, mean, var in saved:
            norm.avg_mean[...], norm.avg_var[...] = mean, var


def at_structure(link: Any, network: Any, structure: Any, source: Any) -> Callable[[Array], Any]:
    """Return what computes a structure's outputs, with statistics that are estimated there.

    Args:
        link (chainer.Link): a searchable link; it stays as it is.
        network (callable): what :func:`chainer_sno.prediction.deterministic` returns: the compact
            network, whose statistics are set, or another callable.
        structure (array): bits, shape (d,); not needed beside a compact network.
        source (tuple): what :func:`source` returns.

    Returns:
        callable: from x to the outputs.
    """
    iterator, converter, batches = source
    if isinstance(network, chainer.Link) and network is not link:
        subject, forward = network, network
    else:
        subject = link.copy("copy")

        def forward(x: Array) -> Any:
            return subject(x, structure[None])[0]

    estimate(subject, forward, training_batches(iterator, batches, converter, link.device))
    return forward
