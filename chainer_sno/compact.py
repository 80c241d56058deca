"""From a structure to the smaller plain network that computes the same function."""

import numpy

from chainer_sno._import_chainer import chainer
from chainer_sno.links import MLP


def compact(link, structure):
    """Return the plain network that remains when the units of a structure are deleted.

    Args:
        link (chainer_sno.links.MaskedMLP): the trained network, with ReLU.
        structure (array): bits, shape (d,); the mode of the distribution after a training.

    Returns:
        chainer_sno.links.MLP: on the CPU, with the kept weights and the dtype of the link.  Its
        inputs are those of the link, or the selected ones in their order where the inputs are
        under selection.

    Raises:
        ValueError: a layer keeps no unit, so there is no such network: the outputs do not
            depend on the inputs.
    """
    structure = chainer.backends.cuda.to_cpu(structure).astype(bool)
    kept = [numpy.flatnonzero(structure[group]) for group in link.groups.values()]
    if not link.select_inputs:
        kept.insert(0, numpy.arange(link.widths[0]))
    kept.append(numpy.arange(link.widths[-1]))
    if not all(len(units) for units in kept):
        raise ValueError("a layer keeps no unit: the outputs do not depend on the inputs")
    widths = [len(units) for units in kept]
    source = [layer.linear for layer in link.hidden] + [link.output]
    with chainer.using_config("dtype", link.output.W.dtype):
        network = MLP(widths[0], widths[1:-1], widths[-1])
    for layer, linear, columns, rows in zip(network.layers, source, kept, kept[1:]):
        W = chainer.backends.cuda.to_cpu(linear.W.array)
        layer.W.array[...] = W[numpy.ix_(rows, columns)]
        layer.b.array[...] = chainer.backends.cuda.to_cpu(linear.b.array)[rows]
    return network
