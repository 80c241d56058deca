"""Searchable links, the contract that they keep, and the plain networks that they become.

**A plain network** has no structures.  It becomes searchable by naming its layers: :func:`select`.
The contract is for what that cannot follow, and for other kinds of bits.

**What is needed.**  A link is searchable when it is a :class:`chainer.Link` with two things:

* ``link(x, structures)``: a mini-batch ``x`` of N examples and structures, bool of shape
  (lambda, d), in; the lambda outputs out, as one variable whose first axis is lambda or as a
  sequence of variables, each of shape (N, ...).  Output i is that of structure i, whatever the
  others are.  How work is shared between the structures is the link's own business.
* ``link.costs``: c, the complexity coefficients, an array of shape (d,), none negative and one
  positive at least.

**What a bit means.**  A bit that is 0 means that its unit or connection is absent: nothing of it
may reach the outputs, and its parameters get no gradient.  So mask behind the bias, the
normalisation and the activation (reading R3); a layer that is left without inputs outputs zeros
(R4).  Batch statistics are those of one structure, never of all of them stacked (R7).  Structures
come as bool on the device of the link; cast them to the dtype of what they multiply.

**What may be stated as well.**  Each makes something else work:

* ``link.groups``: a dictionary from a name to the slice of the bits that belong together, such as
  the units of a layer; the slices cover all bits and do not overlap.  For reports and plots.
* ``link.weight_ratio(structure)``: the fraction of the weights that a structure keeps, a float.
  For reports.
* ``link.compact(structure)``: the smaller plain link that computes the same in evaluation mode;
  ValueError where nothing remains.  For :func:`chainer_sno.compact`, and for an evaluation as cheap
  as the structure is small, unless ``link.evaluate_compact`` is false: the link computes one
  structure as cheaply, or its evaluations are to be those of its own forward pass, rounding
  included.
* ``link.costs_of(criterion, x_shape)``: the costs of the bits in ``"weights"``, ``"flops"`` or what
  else the link knows, an array of shape (d,); ValueError for another.  ``x_shape`` is the shape of
  one example, or None.  For :func:`chainer_sno.complexity.costs`.
* ``link.criterion``: what ``costs`` count, a word for reports.
* ``link.remaining(structure)``: how many weights and operations of one example a structure keeps, a
  dictionary with pairs (remaining, all) under ``"weights"`` and ``"flops"``.  For reports.
* ``link.fast_layers()``: the layers, where the link is a fully connected network with ReLU and a
  bit for each hidden unit; ``link.dense_parts()`` for a DenseNet.  For the fast paths, see
  :mod:`chainer_sno.protocols`.
* ``link.reestimate``: how many training mini-batches re-estimate the statistics of batch
  normalisation by default, see :func:`chainer_sno.compact` and
  :class:`chainer_sno.extensions.StructureEvaluator`; without it, none.

**Whether it is right.**  :func:`chainer_sno.testing.check_searchable` holds a link against all of
this.  What it asks for, in short::

    class Gated(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.hidden = chainer.links.Linear(784, 100)
                self.output = chainer.links.Linear(100, 10)
            self.costs = numpy.ones(100)

        def forward(self, x, structures):
            h = chainer.functions.relu(self.hidden(x))
            return [self.output(h * bits) for bits in structures.astype(h.dtype)[:, None]]
"""

from chainer_sno.links.compact_dense_net import CompactDenseNet
from chainer_sno.links.dense_net import DenseNet
from chainer_sno.links.fixed_structure import FixedStructure
from chainer_sno.links.masked_linear import MaskedLinear
from chainer_sno.links.masked_mlp import MaskedMLP
from chainer_sno.links.mlp import MLP
from chainer_sno.links.plain_dense_net import PlainDenseNet
from chainer_sno.links.select import SelectedNetwork, select

__all__ = [
    "MLP",
    "CompactDenseNet",
    "DenseNet",
    "FixedStructure",
    "PlainDenseNet",
    "MaskedLinear",
    "MaskedMLP",
    "SelectedNetwork",
    "select",
]
