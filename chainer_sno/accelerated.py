"""The checks that all accelerated updaters make, and the reference does not need.

An accelerated updater computes what the reference would, from what it knows of the network, the
optimizer and the trainer.  It refuses by name everything that it cannot take into account.
"""

import warnings
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy

from chainer_sno._import_chainer import chainer
from chainer_sno.errors import in_one_line, without_flags
from chainer_sno.protocols import FullyConnected, check_forward

_extensions = chainer.training.extensions


def warn_of_former_name(former: str, name: str) -> None:
    """Warn that a class has another name now.

    Args:
        former (str): the deprecated name.
        name (str): the name to use.
    """
    warnings.warn(f"{former} is called {name} now", DeprecationWarning, stacklevel=3)


def check_loss(loss_func: Any) -> None:
    """Check that the loss is the softmax cross entropy.

    Args:
        loss_func (callable): of the updater.

    Raises:
        ValueError: it is another.
    """
    if loss_func is not chainer.functions.softmax_cross_entropy:
        raise ValueError(
            "the fast path computes the softmax cross entropy only: use the backend 'reference'"
        )


def layers_of(link: Any) -> Sequence[Any]:
    """Return the layers of a fully connected network with ReLU.

    Args:
        link (chainer_sno.protocols.FullyConnected): to be trained.

    Returns:
        sequence of chainer.links.Linear: the layer of the inputs first.

    Raises:
        ValueError: the network has not the method ``fast_layers``, or that raises it or returns
            nothing; a layer is not Chainer's Linear with a bias, or has no weights yet; the layers
            do not fit together; they are not all of the network, or share parameters; the network
            has ``costs``, and not one for each hidden unit; or see :func:`check_dropout`.
    """
    layers, name = [*link.fast_layers()], type(link).__name__
    if not layers:
        raise ValueError(f"fast_layers of {name} returns no layer: use the backend 'reference'")
    for layer in layers:
        linear = type(layer) is chainer.links.Linear
        if not linear or layer.b is None:
            given = "one without" if linear else type(layer).__name__
            raise ValueError(
                f"the fast path supports Linear with a bias, not {given}: use the backend "
                "'reference'"
            )
        check_forward(layer, chainer.links.Linear)
        if not layer.W.is_initialized:
            raise ValueError(
                f"a layer of {name} has no weights before its first call: give Linear the number "
                "of its inputs, or use the backend 'reference'"
            )
    widths = [layer.W.shape for layer in layers]
    if any(outputs != inputs for (outputs, _), (_, inputs) in zip(widths, widths[1:])):
        raise ValueError(
            f"the layers of {name} do not fit together: their weights have the shapes {widths}"
        )
    _check_parameters(link, layers)
    hidden = sum(outputs for outputs, _ in widths[:-1])
    if hasattr(link, "costs") and len(link.costs) != hidden:
        raise ValueError(
            f"the fast path needs a bit for each of the {hidden} hidden units, and {name} has "
            f"{len(link.costs)} costs: use the backend 'reference'"
        )
    check_dropout(link)
    if getattr(link, "dropout_ratio", 0) and link.uniforms.size != hidden:
        raise ValueError(
            f"the fast path needs a random number for each of the {hidden} hidden units, and the "
            f"uniforms of {name} have {link.uniforms.size} columns: use the backend 'reference'"
        )
    return layers


def outputs_of(layers: Sequence[Any], x: Any, bits: Any = None) -> Any:
    """Return what layers compute with ReLU between them, which is what the fast paths compute.

    Args:
        layers (sequence of chainer.links.Linear): the layer of the inputs first.
        x (array): shape (N, inputs).
        bits (array): bool, one for each hidden unit; all on by default.

    Returns:
        chainer.Variable: shape (N, outputs).
    """
    *hidden, last = layers
    start = 0
    for layer in hidden:
        x = chainer.functions.relu(layer(x))
        if bits is not None:
            end = start + layer.W.shape[0]
            x, start = x * bits[start:end].astype(x.dtype), end
    return last(x)


def check_outputs(link: Any, layers: Sequence[Any]) -> None:
    """Check that a network computes what its layers do, on a few random examples.

    A network of somebody else may have another activation, or bits in another order.

    Args:
        link (chainer_sno.protocols.FullyConnected): without link hooks, on any device.
        layers (sequence of chainer.links.Linear): of :func:`layers_of`.

    Raises:
        ValueError: it does not, or it does not take examples of one axis.
    """
    rng, dtype = numpy.random.default_rng(0), layers[0].W.dtype
    x = rng.standard_normal((3, layers[0].W.shape[1])).astype(dtype)
    structures = rng.random((2, sum(len(layer.W) for layer in layers[:-1]))) < 0.5
    x, structures = link.device.send(x), link.device.send(structures)
    if hasattr(link, "costs"):
        compare_outputs(
            link,
            lambda: list(link(x, structures)),
            lambda: [outputs_of(layers, x, bits) for bits in structures],
        )
    else:
        compare_outputs(link, lambda: [link(x)], lambda: [outputs_of(layers, x)])


def compare_outputs(
    link: Any, whole: Callable[[], list[Any]], parts: Callable[[], list[Any]]
) -> None:
    """Compare the outputs of a network with those of the parts that it states.

    Args:
        link (chainer.Link): the network.
        whole (callable): returns the outputs of the network, a list of variables.
        parts (callable): returns those of the parts.

    Raises:
        ValueError: they differ, or the network cannot be called.
    """
    name = type(link).__name__
    with (
        without_flags(),
        chainer.using_device(link.device),
        chainer.using_config("train", False),
        chainer.no_backprop_mode(),
    ):
        try:
            pairs = list(zip(whole(), parts(), strict=True))
        except Exception as error:
            raise ValueError(
                f"the fast path calls {name} with a few random examples to see whether its parts "
                f"compute its outputs, and that raised {in_one_line(error)}; use the backend "
                "'reference'"
            ) from error
    arrays = [[chainer.backends.cuda.to_cpu(y.array) for y in pair] for pair in pairs]
    if not all(_are_close(*pair) for pair in arrays):
        raise ValueError(
            f"the parts that {name} states for the fast path do not compute its outputs: they must "
            "be all of it, fully connected layers with ReLU between them and a bit for each hidden "
            "unit in their order, or a DenseNet; use the backend 'reference'"
        )


def _are_close(y: Any, expected: Any) -> bool:
    """Return whether outputs are the same up to rounding, where they are numbers."""
    if y.shape != expected.shape:
        return False
    finite = numpy.isfinite(y) & numpy.isfinite(expected)
    largest = abs(expected[finite]).max(initial=0)
    tolerance = 1e-8 if y.dtype == numpy.float64 else 1e-3
    return bool((abs(y - expected)[finite] <= tolerance * largest).all())


def _check_parameters(link: Any, layers: Sequence[Any]) -> None:
    """Check that layers have all parameters of a network, each once and of one dtype.

    Raises:
        ValueError: they have not.
    """
    own = [parameter for layer in layers for parameter in (layer.W, layer.b)]
    if len({id(parameter) for parameter in own}) < len(own):
        raise ValueError(
            f"the fast path trains every layer by itself, and layers of {type(link).__name__} "
            "share parameters: use the backend 'reference'"
        )
    check_complete(link, own)
    dtypes = sorted({parameter.dtype.name for parameter in own})
    if len(dtypes) > 1:
        raise ValueError(
            f"the fast path computes in one dtype, and the layers of {type(link).__name__} have "
            f"{' and '.join(dtypes)}: use the backend 'reference'"
        )


def check_complete(link: Any, trained: Iterable[Any]) -> None:
    """Check that a fast path trains all parameters of a network: weight decay moves every one.

    Args:
        link (chainer.Link): to be trained.
        trained (iterable of chainer.Parameter): those that the fast path knows.

    Raises:
        ValueError: the network has others.
    """
    known = {id(parameter) for parameter in trained}
    others = [name for name, parameter in link.namedparams() if id(parameter) not in known]
    if others:
        raise ValueError(
            f"the fast path would leave out parameters of {type(link).__name__}, "
            f"{', '.join(others)}: use the backend 'reference'"
        )


def check_dropout(link: Any) -> None:
    """Check that a fast path can drop the hidden units of a network, where some are to be dropped.

    Args:
        link (chainer_sno.protocols.FullyConnected): to be trained.

    Raises:
        ValueError: it has ``dropout_ratio``, and structures as well or no random numbers.
    """
    if not getattr(link, "dropout_ratio", 0):
        return
    name = type(link).__name__
    if hasattr(link, "costs"):
        raise ValueError(
            f"the fast path has no Dropout beside structures, and {name} has the dropout_ratio "
            f"{link.dropout_ratio}: use the backend 'reference'"
        )
    missing = [each for each in ("dropout_factors", "uniforms") if not hasattr(link, each)]
    if missing:
        raise ValueError(
            f"{name} has the dropout_ratio {link.dropout_ratio} and no {' and no '.join(missing)}, "
            "which the fast path needs for Dropout: use the backend 'reference'"
        )


def check_fully_connected(link: Any, structured: bool) -> None:
    """Check that a network is fully connected, and that it has structures or has none.

    Args:
        link (chainer.Link): to be trained.
        structured (bool): whether it needs structures.

    Raises:
        ValueError: it is another network.
    """
    if isinstance(link, FullyConnected) and hasattr(link, "costs") == structured:
        return
    kind = "a MaskedMLP" if structured else "an MLP"
    raise ValueError(
        f"the fast path trains {kind}, or a link like it that has fast_layers, not "
        f"{type(link).__name__}: use the backend 'reference'"
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
                f"{', '.join(child.local_link_hooks)}: use the backend 'reference'"
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
                "the fast path trains, and chainer.config.train is False: use the backend "
                "'reference'"
            )
        if self._trainer is None:
            return
        trainer, self._trainer = self._trainer(), None
        for name, entry in getattr(trainer, "_extensions", {}).items():
            need = _unmet_need(entry.extension)
            if need:
                raise ValueError(
                    f"the extension {name} needs {need}, which the fast path does not keep: use "
                    "the backend 'reference'"
                )
