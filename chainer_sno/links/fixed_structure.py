"""A searchable link at one structure: a plain network."""

from typing import Any

import numpy

from chainer_sno._import_chainer import chainer
from chainer_sno._types import ArrayLike
from chainer_sno.compact import compact
from chainer_sno.complexity import check_structure
from chainer_sno.links.plain_dense_net import PlainDenseNet
from chainer_sno.protocols import DenselyConnected, check_forward


class FixedStructure(chainer.Chain):
    """A searchable link that is trained and evaluated at one given structure.

    Layers of a DenseNet that lead nowhere at this structure are not computed, so the running
    statistics of their feature maps fall to zero; nothing at this structure reads them.

    Args:
        link (chainer.Link): a searchable link.
        structure (array): bits, shape (d,); saved with the link.

    Raises:
        ValueError: the structure has another length than the link's costs, or other numbers than
            0 and 1.
    """

    def __init__(self, link: Any, structure: ArrayLike) -> None:
        super().__init__()
        bits = check_structure(numpy.asarray(structure), len(link.costs))
        with self.init_scope():
            self.link = link
        self.add_persistent("structure", bits)

    @property
    def drops_dead_layers(self) -> bool:
        """Whether layers that lead nowhere at the structure are not computed.

        True of a DenseNet, but not of one whose forward pass is its own and may read them.
        """
        if not isinstance(self.link, PlainDenseNet):
            return False
        try:
            self.link.dense_parts()
        except ValueError:
            return False
        return True

    def forward(self, x: Any) -> Any:
        """Return the outputs at the structure.

        Args:
            x (chainer.Variable or array): a mini-batch, as the link takes it.

        Returns:
            chainer.Variable: what the link returns for one structure.
        """
        structure = self.structure
        if self.drops_dead_layers:
            structure = self.link.without_dead_layers(structure)
        return self.link(x, structure[None])[0]

    def dense_parts(self) -> Any:
        """Return the parts of a DenseNet, for the backend ``graph``.

        Returns:
            chainer_sno.protocols.DenseParts: see :class:`chainer_sno.protocols.DenselyConnected`.

        Raises:
            ValueError: the link is no such network, or it computes something else.
        """
        check_forward(self, FixedStructure)
        if not isinstance(self.link, DenselyConnected):
            raise ValueError(
                "the GPU's fast path trains an MLP or a fixed DenseNet, not a fixed "
                f"{type(self.link).__name__}: use the backend 'reference'"
            )
        return self.link.dense_parts()

    def compact(self) -> Any:
        """Return the plain network that remains at the structure.

        Returns:
            chainer.Link: the smaller network; see :func:`chainer_sno.compact`.

        Raises:
            ValueError: nothing of the network remains.
            TypeError: the link does not say what remains of it.
        """
        # Its running statistics are those of this very structure.
        return compact(self.link, self.structure, reestimate=0)
