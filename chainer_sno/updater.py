"""Algorithm 1 of the paper as an updater of Chainer's trainer."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from chainer_sno import batch_statistics
from chainer_sno._import_chainer import chainer
from chainer_sno._types import Array, DeviceSpec
from chainer_sno.bernoulli import Bernoulli
from chainer_sno.iterators import choose_converter, convert
from chainer_sno.utility import ranking_utility


def _use_threads(link: Any, threads: int) -> None:
    """Let a link compute with a number of threads.

    Raises:
        ValueError: the number is less than one, or the link has one thread only.
    """
    if threads < 1:
        raise ValueError(f"threads must be at least 1, not {threads}")
    if hasattr(link, "threads"):
        link.threads = threads
    elif threads > 1:
        raise ValueError(f"{type(link).__name__} computes with one thread, not with {threads}")


def check_target(link: Any) -> None:
    """Check that a link is searchable, as far as it says so.

    Raises:
        TypeError: it is not.
    """
    if hasattr(link, "costs"):
        return
    name = type(link).__name__
    if isinstance(link, chainer.links.Classifier):
        raise TypeError(
            f"a {name} computes a loss, and a search needs the outputs of each structure: set the "
            "optimizer up with the searchable link itself, and give loss_func to the updater"
        )
    if not isinstance(link, chainer.Link):
        raise TypeError(f"a {name} is no searchable link: call optimizer.setup(link) first")
    raise TypeError(
        f"{name} has no costs, so it is not searchable: chainer_sno.links.select makes a plain "
        "network searchable, and chainer_sno.links says what a link needs"
    )


def check_samples(serializer: Any, samples: int) -> None:
    """Save the number of structures of an iteration, or check the saved one.

    Raises:
        ValueError: the saved number is another one.
    """
    saved = samples
    # Older snapshots do not have it.
    with contextlib.suppress(KeyError):
        saved = int(serializer("samples", samples))
    if saved != samples:
        raise ValueError(
            f"the snapshot was taken with samples={saved}, and this updater has "
            f"samples={samples}: use the same"
        )


@contextlib.contextmanager
def of_this_kind(name: str) -> Iterator[None]:
    """Say what is wrong where a snapshot lacks what an updater of this kind saves.

    Args:
        name (str): of the updater.

    Raises:
        ValueError: in the place of a KeyError.
    """
    try:
        yield
    except KeyError as error:
        raise ValueError(
            f"the snapshot was not saved by a {name} ({error.args[0]}): load it into an updater "
            "of the backend that saved it"
        ) from error


class StructureUpdater(chainer.training.updaters.StandardUpdater):
    r"""Train the weights and the distribution over structures together (Algorithm 1).

    One iteration draws a mini-batch and :math:`\lambda` structures, computes the loss of every
    structure on the same mini-batch, updates :math:`\theta` with the ranking of the losses by
    equation (7), and then the weights with the mean of their gradients, equation (6).  Both
    updates see the same losses (reading R9).

    It reports ``loss``, the mean loss over the structures, for the optimizer's target.

    Args:
        iterator (chainer.dataset.Iterator): mini-batches; the examples are pairs (x, t).
        optimizer (chainer.Optimizer): that of the weights; its target is a searchable link, see
            :mod:`chainer_sno.links`.
        bernoulli (chainer_sno.Bernoulli): the distribution, moved to ``device`` with the link.
        samples (int): :math:`\lambda`, the structures drawn in one iteration.
        loss_func (callable): from the outputs of one structure and t to its loss, a scalar
            variable that is a mean over the mini-batch.
        converter (callable): makes arrays of a mini-batch, as in Chainer's StandardUpdater; by
            default what the iterator needs, see :func:`chainer_sno.iterators.choose_converter`.
        device (device specifier): where to train, as in Chainer's StandardUpdater.
        threads (int): that compute at once, for a link that says how many may: on a CPU,
            :class:`chainer_sno.links.DenseNet`.  By default the link's ``threads`` stay as they
            are.  The numbers do not depend on it.

    Raises:
        TypeError: the optimizer's target is no searchable link.
        ValueError: ``samples`` or ``threads`` is less than one, the distribution has another number
            of bits than the link, or the link cannot use threads.

    Example:
        >>> import chainer_sno, chainer, numpy
        >>> x = numpy.random.default_rng(0).standard_normal((64, 8)).astype("f")
        >>> t = (x[:, 0] > 0).astype("i")
        >>> network = chainer_sno.links.MaskedMLP(8, (16,), 2)
        >>> bernoulli = chainer_sno.Bernoulli(network.costs, epsilon0=2**-6)
        >>> updater = chainer_sno.StructureUpdater(
        ...     chainer_sno.ArrayIterator((x, t), 32),
        ...     chainer.optimizers.NesterovAG(lr=0.05).setup(network),
        ...     bernoulli,
        ...     converter=chainer_sno.pass_arrays,
        ... )
        >>> updater.update()
        >>> updater.iteration, bool((bernoulli.theta != 0.5).any())
        (1, True)

    See Also:
        :func:`chainer_sno.make_updater`: chooses a faster updater that computes the same.

        :class:`chainer_sno.extensions.StepSchedule`: the paper's learning rates.

        :class:`chainer_sno.extensions.StructureEvaluator`: the test error at :math:`M^*`.
    """

    iteration: int
    # The mean loss as a variable, if its computational graph is to be reported.
    _graph: Any = None

    def __init__(
        self,
        iterator: Any,
        optimizer: Any,
        bernoulli: Bernoulli,
        samples: int = 2,
        loss_func: Callable[..., Any] = chainer.functions.softmax_cross_entropy,
        converter: Callable[..., Any] | None = None,
        device: DeviceSpec = None,
        threads: int | None = None,
    ) -> None:
        check_target(optimizer.target)
        if threads is not None:
            _use_threads(optimizer.target, threads)
        if samples < 1:
            raise ValueError(f"samples must be at least 1, not {samples}")
        if len(bernoulli) != len(optimizer.target.costs):
            raise ValueError(
                f"the link has {len(optimizer.target.costs)} bits and the distribution has "
                f"{len(bernoulli)}: make the distribution with the costs of the link"
            )
        converter = converter or choose_converter(iterator)
        super().__init__(iterator, optimizer, converter, device, loss_func)
        batch_statistics.remember(optimizer.target, iterator, converter)
        if self.device is not None:
            bernoulli.to_device(self.device)
        self.bernoulli = bernoulli
        self.samples = samples

    def __repr__(self) -> str:
        link = type(self.get_optimizer("main").target).__name__
        return (
            f"<{type(self).__name__} of {link}: {self.samples} structures an iteration, "
            f"{self.iteration} iterations done, {self.bernoulli!r}>"
        )

    def update_core(self) -> None:
        """Do one iteration of Algorithm 1."""
        iterator = self.get_iterator("main")
        optimizer = self.get_optimizer("main")
        # Algorithm 1, line 4: the mini-batch, one for all structures
        x, t = convert(self.converter, iterator.next(), self.input_device)
        structures = self.bernoulli.sample(self.samples)  # Algorithm 1, line 5
        losses = self.step(x, t, structures)
        graph, self._graph = self._graph, None
        chainer.report({"loss": losses.mean() if graph is None else graph}, optimizer.target)
        if self.auto_new_epoch and iterator.is_new_epoch:
            optimizer.new_epoch(auto=True)

    def step(self, x: Array, t: Array, structures: Array) -> Array:
        """Update theta and the weights with one mini-batch and given structures.

        Args:
            x (array): inputs of the mini-batch, on the device of the link.
            t (array): targets of the mini-batch.
            structures (array): bool of shape (lambda, d).

        Returns:
            array: the losses before the updates, shape (lambda,), float64.
        """
        optimizer = self.get_optimizer("main")
        link = optimizer.target
        link.cleargrads()
        outputs = link(x, structures)
        if isinstance(outputs, chainer.Variable):
            # Iterating over a variable indexes it, and the gradient of that is slow on a CPU.
            outputs = chainer.functions.separate(outputs)
        # Algorithm 1, line 6: the losses
        losses = chainer.functions.stack([self.loss_func(y, t) for y in outputs])
        ranked = losses.array.astype("d")
        if chainer.config.keep_graph_on_report:  # as Chainer's DumpGraph asks for
            self._graph = chainer.functions.mean(chainer.functions.cast(losses, "d"))
        # Algorithm 1, line 7: eq. (7); line 8: the clamp
        self.bernoulli.update(structures, ranking_utility(ranked))
        # eq. (6): the gradient of the mean is the mean of the gradients
        chainer.functions.mean(losses).backward()
        # Algorithm 1, line 9: a step of any optimizer
        optimizer.update()
        return ranked

    def synchronise(self) -> None:
        """Do nothing: the parameters are in the network at all times.  Faster updaters need it."""

    def serialize(self, serializer: Any) -> None:
        """Save or load everything that the training needs to continue.

        Raises:
            ValueError: the snapshot is of another number of structures, of another distribution or
                of an updater of another kind; nothing is loaded then.
        """
        check_samples(serializer, self.samples)
        with of_this_kind(type(self).__name__):
            if not isinstance(serializer, chainer.Serializer):
                serializer["optimizer:main"]("t", None)
                self.bernoulli.check_saved(serializer["bernoulli"])
            super().serialize(serializer)
        self.bernoulli.serialize(serializer["bernoulli"])
