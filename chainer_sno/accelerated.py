"""The checks that all accelerated updaters make, and Chainer's plain updaters do not need.

An accelerated updater computes what the plain one would, from what it knows of the network, the
optimizer and the trainer.  It refuses by name everything that it cannot take into account.
"""

import warnings
import weakref
from collections.abc import Callable, Iterable
from typing import Any

from chainer_sno import links
from chainer_sno._import_chainer import chainer

_extensions = chainer.training.extensions


def warn_of_former_name(former: str, name: str) -> None:
    """Warn that a class has another name now.

    Args:
        former (str): the deprecated name.
        name (str): the name to use.
    """
    warnings.warn(f"{former} is called {name} now", DeprecationWarning, stacklevel=3)


def check_forward(link: Any, kind: Any) -> None:
    """Check that a subclass computes what its base class computes.

    Args:
        link (chainer.Link): to be trained.
        kind (type): the class whose computation is known.

    Raises:
        ValueError: it has a forward pass of its own.
    """
    for name in ("forward", "__call__"):
        if getattr(type(link), name) is not getattr(kind, name) or name in vars(link):
            raise ValueError(
                f"the fast path computes what {kind.__name__} does, and {type(link).__name__} has "
                f"its own {name}: use the plain updater"
            )


def check_masked(link: Any) -> None:
    """Check that a network and its hidden layers compute what MaskedMLP does.

    Args:
        link (chainer_sno.links.MaskedMLP): to be trained.

    Raises:
        ValueError: see :func:`check_forward`.
    """
    check_forward(link, links.MaskedMLP)
    for layer in link.hidden:
        check_forward(layer, links.MaskedLinear)


def check_loss(loss_func: Any) -> None:
    """Check that the loss is the softmax cross entropy.

    Args:
        loss_func (callable): of the updater.

    Raises:
        ValueError: it is another.
    """
    if loss_func is not chainer.functions.softmax_cross_entropy:
        raise ValueError(
            "the fast path computes the softmax cross entropy only: use the plain updater"
        )


def check_layers(layers: Iterable[Any]) -> None:
    """Check that layers are Chainer's Linear with a bias.

    Args:
        layers (iterable of chainer.Link): of a fully connected network.

    Raises:
        ValueError: one is another.
    """
    for layer in layers:
        if type(layer) is not chainer.links.Linear or layer.b is None:
            raise ValueError(
                f"the fast path supports Linear with a bias, not {layer!r}: use the plain updater"
            )


def check_hooks(link: Any) -> None:
    """Check that no hook takes part in the forward pass.

    Args:
        link (chainer.Link): to be trained.

    Raises:
        ValueError: the link or one below it has a link hook, such as SpectralNormalization.
    """
    for child in link.links():
        if child._n_local_link_hooks:
            raise ValueError(
                f"the fast path calls no link hooks, and {child.name or type(child).__name__} has "
                f"{', '.join(child.local_link_hooks)}: use the plain updater"
            )


def _unmet_need(extension: Any) -> str | None:
    """Return what an extension needs that no accelerated updater provides, None if nothing."""
    if isinstance(extension, _extensions.DumpGraph):
        return "a computational graph"
    if isinstance(extension, _extensions.ParameterStatistics) and "grad" in extension._attrs:
        return "gradients (report_grads=False leaves them out)"
    if isinstance(extension, _extensions.VariableStatisticsPlot) and extension._report_grad:
        return "gradients (report_grad=False leaves them out)"
    return None


class Accelerated:
    """A mixin of updaters: it checks the trainer and the configuration."""

    get_optimizer: Callable[[str], Any]
    _trainer: Any = None

    def connect_trainer(self, trainer: Any) -> None:
        """Note which trainer it is, whose extensions are looked at before the first iteration."""
        super().connect_trainer(trainer)  # type: ignore[misc]
        self._trainer = weakref.ref(trainer)

    def check_trainer(self) -> None:
        """Check, once for each trainer, that its extensions find what they need.

        Raises:
            ValueError: one needs gradients or a graph, which do not exist here; or
                ``chainer.config.train`` is false.
        """
        if not chainer.config.train:
            raise ValueError(
                "the fast path trains, and chainer.config.train is False: use the plain updater"
            )
        if self._trainer is None:
            return
        trainer, self._trainer = self._trainer(), None
        for name, entry in getattr(trainer, "_extensions", {}).items():
            need = _unmet_need(entry.extension)
            if need:
                raise ValueError(
                    f"the extension {name} needs {need}, which the fast path does not keep: use "
                    "the plain updater"
                )
