"""The contracts between networks, updaters and backends, as protocols.

A class keeps a protocol by having its attributes and methods; it need not derive from it.  So a
network that is not of this library can be searched, and it can have a fast path.

===========================  ======================================================================
:class:`SearchableLink`      what :class:`chainer_sno.StructureUpdater` trains, with any backend
:class:`FullyConnected`      what the backends ``fast`` and ``graph`` need: the layers
:class:`DenselyConnected`    what the backend ``graph`` needs of a DenseNet: its parts
:class:`Updater`             what every updater of :func:`chainer_sno.make_updater` has
===========================  ======================================================================
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from chainer_sno._types import Array

__all__ = [
    "DenseParts",
    "DenselyConnected",
    "FullyConnected",
    "SearchableLink",
    "Updater",
    "check_forward",
]


@runtime_checkable
class SearchableLink(Protocol):
    """A link with structures, which is all that the reference needs; see :mod:`chainer_sno.links`.

    It is a :class:`chainer.Link` as well.

    Attributes:
        costs (array): c, the complexity coefficients, shape (d,).
    """

    costs: Array

    def __call__(self, x: Any, structures: Array) -> Any:
        """Return the outputs of every structure.

        Args:
            x (chainer.Variable or array): a mini-batch of N examples.
            structures (array): bool of shape (lambda, d), on the device of the link.

        Returns:
            chainer.Variable or sequence of chainer.Variable: lambda outputs of shape (N, ...).
        """
        ...


@runtime_checkable
class FullyConnected(Protocol):
    """A fully connected network with ReLU, which the backends ``fast`` and ``graph`` can train.

    With ``costs``, it is a :class:`SearchableLink` whose bits switch the hidden units, layer by
    layer and in the order of the units; a unit is masked after its ReLU (reading R3).  Without
    ``costs``, it has a fixed structure.  Such a network may have Dropout.  It then has the
    attributes ``dropout_ratio``, a float, and ``uniforms``, a
    :class:`chainer_sno.uniforms.Uniforms` with a column for each hidden unit, and the method
    ``dropout_factors(samples, dtype)``, as :class:`chainer_sno.links.MLP` has.

    :func:`chainer_sno.testing.check_searchable` compares a searchable link with its layers.
    """

    def fast_layers(self) -> Sequence[Any]:
        """Return the layers that compute the outputs of the network.

        It is called before every iteration, so that a change of the network is noticed.

        Returns:
            sequence of chainer.links.Linear: with a bias, the layer of the inputs first.  They
            have all parameters of the network, and share none.

        Raises:
            ValueError: the network computes something else, as it is now.
        """
        ...


class DenseParts(Protocol):
    """The parts of a DenseNet, named as in :class:`chainer_sno.links.PlainDenseNet`.

    Attributes:
        costs (array): shape (d,).
        groups (dict): the slice of the bits of each block.
        stem (chainer.links.Convolution2D): the first convolution.
        blocks (sequence of chainer_sno.links.plain_dense_net.DenseBlock): the blocks.
        classifier (chainer.links.Linear): the last layer.
        growth_rate (int): output channels of a layer.
        in_channels (int): channels of the images.
        classes (int): outputs.

    It is a :class:`chainer.Link` as well.
    """

    costs: Array
    groups: Mapping[str, slice]
    stem: Any
    blocks: Any
    classifier: Any
    growth_rate: int
    in_channels: int
    classes: int

    def __call__(self, x: Any, structures: Array) -> Any:
        """Return the outputs of every structure, as :class:`SearchableLink` does."""
        ...

    def check(self, x: Any, structures: Array) -> None:
        """Check the shapes of images, (N, in_channels, H, W), and structures, (lambda, d).

        Raises:
            ValueError: a shape is another.
        """
        ...


@runtime_checkable
class DenselyConnected(Protocol):
    """A DenseNet, which the backend ``graph`` can train.

    With ``costs``, it is a :class:`SearchableLink`.  Without them, it has the attribute
    ``structure``, the bits at which it is trained, as :class:`chainer_sno.links.FixedStructure`
    has.  If it also has ``drops_dead_layers``, and that is true, it is trained without the layers
    that lead nowhere, see :meth:`chainer_sno.links.PlainDenseNet.without_dead_layers`.  The parts
    have all of its parameters.
    """

    def dense_parts(self) -> DenseParts:
        """Return the parts that compute the outputs of the network.

        It is called before every iteration, so that a change of the network is noticed.

        Raises:
            ValueError: the network computes something else, as it is now.
        """
        ...


@runtime_checkable
class Updater(Protocol):
    """What every updater of :func:`chainer_sno.make_updater` has beside Chainer's methods."""

    def update(self) -> None:
        """Do one iteration."""
        ...

    def synchronise(self) -> None:
        """Write the newest parameters into the network and the optimizer."""
        ...


def check_forward(link: Any, kind: Any, *more: str) -> None:
    """Check that a subclass computes what its base class computes.

    Args:
        link (chainer.Link): to be trained.
        kind (type): the class whose computation is known.
        *more (str): further methods that take part in it.

    Raises:
        ValueError: it has a forward pass of its own.
    """
    for name in ("forward", "__call__", *more):
        if getattr(type(link), name) is not getattr(kind, name) or name in vars(link):
            raise ValueError(
                f"the fast path computes what {kind.__name__} does, and {type(link).__name__} has "
                f"its own {name}: use the backend 'reference'"
            )
