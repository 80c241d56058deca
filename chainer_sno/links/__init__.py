"""Searchable links, and the plain networks that they become.

Everything searchable follows one contract.  It is a :class:`chainer.Link` with

* ``link(x, structures)``: a mini-batch ``x`` and structures, bool of shape (lambda, d), in; the
  lambda outputs out, as one variable whose first axis is lambda or as a sequence;
* ``link.costs``: c, the complexity coefficients, an array of shape (d,).

Two more are optional and make the structure readable in reports:

* ``link.groups``: a dictionary from a name to the slice of the bits that belong together, such
  as the units of a layer;
* ``link.weight_ratio(structure)``: the fraction of the weights that a structure keeps.

A third makes a network that is as cheap as the structure is small:

* ``link.compact(structure)``: the smaller plain link that computes the same in evaluation mode;
  ValueError where nothing remains.

:class:`~chainer_sno.extensions.StructureEvaluator` asks that link where there is one, unless the
searchable one has an attribute ``evaluate_compact`` that is false: it computes one structure as
cheaply, or its evaluations are to be those of its own forward pass, rounding included.
"""

from chainer_sno.links.compact_dense_net import CompactDenseNet
from chainer_sno.links.dense_net import DenseNet
from chainer_sno.links.fixed_structure import FixedStructure
from chainer_sno.links.masked_linear import MaskedLinear
from chainer_sno.links.masked_mlp import MaskedMLP
from chainer_sno.links.mlp import MLP
from chainer_sno.links.plain_dense_net import PlainDenseNet

__all__ = [
    "MLP",
    "CompactDenseNet",
    "DenseNet",
    "FixedStructure",
    "PlainDenseNet",
    "MaskedLinear",
    "MaskedMLP",
]
