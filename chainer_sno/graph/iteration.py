"""What every captured iteration has: the mini-batch, the structures, equation (7)."""

from typing import Any

import numpy

from chainer_sno._types import Array
from chainer_sno.cuda.kernels import MAX_SAMPLES, Program
from chainer_sno.utility import cumulative_utilities

# Words of the struct Progress of method.cu.  Before them are the positions of the iterator and of
# the streams of structures, of the augmentation and of Dropout.
_LOSS, _LOSSES = 4, 5


class _Stream:
    """A stream of random numbers that kernels draw from.

    Args:
        uniforms (chainer_sno.uniforms.Uniforms): whose position a snapshot keeps; None for no
            stream.
        rows (int): that an iteration takes.
    """

    def __init__(self, uniforms: Any, rows: Any) -> None:
        self.uniforms, self.rows = uniforms, 0 if uniforms is None else rows


def _check_classes(labels: Array, classes: int) -> None:
    """Check that all labels are classes or -1, which the loss leaves out; waits for the device.

    Raises:
        ValueError: one is not.
    """
    low, high = int(labels.min()), int(labels.max())
    if low < -1 or high >= classes:
        raise ValueError(
            f"class numbers must lie in 0..{classes - 1}, or be -1 for examples that the loss "
            f"leaves out; these lie in {low}..{high}"
        )


def _check_sizes(network: Any, bernoulli: Any) -> None:
    """Check that the kernels have room for the structures, and know the dtype of theta.

    Raises:
        ValueError: they have not, or do not.
    """
    if network.samples > MAX_SAMPLES:
        raise ValueError(
            f"the GPU's kernels support at most {MAX_SAMPLES} structures, not "
            f"{network.samples}: use the backend 'reference'"
        )
    if bernoulli is not None and bernoulli.theta.dtype != numpy.float64:
        raise ValueError(
            f"the GPU's kernels support theta in float64, not {bernoulli.theta.dtype}: use the "
            "backend 'reference'"
        )


class Iteration:
    r"""An iteration of Algorithm 1, or of the training of a fixed network, as a program.

    A network adds its kernels; see :class:`chainer_sno.graph.mlp.MLPNetwork`.

    Args:
        kernels (chainer_sno.cuda.kernels.Kernels): with those of ``method.cu``.
        iterator (chainer_sno.ArrayIterator): over arrays on the device.
        network (object): has ``samples``, :math:`\lambda`; ``structures``, an array of shape
            (lambda, d), which is filled, or None; ``x``, what the mini-batch is written to;
            ``row_losses``, float64 of shape (lambda, N); ``classes``; ``rates``;
            ``dropout``, None or the ratio and the random numbers; and adds its kernels with
            ``add_losses(program, t)`` and ``add_update(program)``.
        bernoulli (chainer_sno.Bernoulli): the distribution; None for a fixed network.

    Attributes:
        losses (array): of each structure in the last iteration, float64, shape (lambda,).

    Raises:
        ValueError: more structures than the kernels have room for, theta is not float64, or a class
            number is out of range.
    """

    def __init__(self, kernels: Any, iterator: Any, network: Any, bernoulli: Any = None) -> None:
        _check_sizes(network, bernoulli)
        _check_classes(iterator.arrays[-1], network.classes)
        self.iterator, self.network, self.bernoulli = iterator, network, bernoulli
        self.kernels = kernels
        xp, n, samples = kernels.xp, iterator.batch_size, network.samples
        dropout = network.dropout
        drawn = bernoulli and bernoulli.uniforms, iterator.augmentation, dropout and dropout[1]
        self._streams = [_Stream(*stream) for stream in zip(drawn, (samples, n, n))]
        self._progress = xp.zeros(6, numpy.int64)
        self._known_positions = [0] * 4
        self._orders = xp.zeros((2, iterator.size), numpy.int32)
        # The epoch whose order each row of orders holds.
        self._held: list[int | None] = [None, None]
        self.losses = xp.zeros(samples)
        self.program = Program(kernels)
        self._add_all(xp.zeros(n, numpy.int32))

    def _add_all(self, t: Array) -> None:
        """Add the kernels of an iteration, from the mini-batch to the new parameters.

        Args:
            t (array): where the classes go, int32, shape (N,).
        """
        program, network = self.program, self.network
        self.iterator.add_batch(program, self._progress, self._orders, network.x, t)
        if self.bernoulli is not None:
            self._add_structures()
        if network.dropout is not None:
            self._add_dropout()
        network.add_losses(program, t)
        self._add_selection(t)
        network.add_update(program)

    def _add_structures(self) -> None:
        """Add the kernel that draws the structures."""
        bernoulli, structures = self.bernoulli, self.network.structures
        samples, d = self.network.samples, len(bernoulli)
        self.program.each(
            "sample",
            samples * d,
            *bernoulli.uniforms.key,
            self._progress,
            bernoulli.theta,
            samples,
            d,
            structures,
        )

    def _add_dropout(self) -> None:
        """Add the kernel that draws the factors of Dropout."""
        (ratio, uniforms), factors = self.network.dropout, self.network.structures
        self.program.each(
            "drop",
            factors.size,
            *uniforms.key,
            self._progress,
            ratio,
            1 / (1 - ratio),
            *factors.shape,
            factors,
        )

    def _add_selection(self, t: Array) -> None:
        """Add the end of the method's part: mean losses, equation (7), and the positions."""
        network, bernoulli = self.network, self.bernoulli
        d, theta, penalty, eta = 0, None, None, 0
        if bernoulli is not None:
            d, theta = len(bernoulli), bernoulli.theta
            penalty, eta = bernoulli.penalty, bernoulli.eta
        self.program.each(
            "selection",
            max(d, 1),
            self._progress,
            network.row_losses,
            t,
            network.samples,
            self.iterator.batch_size,
            network.structures,
            d,
            penalty,
            eta,
            self.kernels.xp.asarray(cumulative_utilities(network.samples)),
            *(stream.rows for stream in self._streams),
            self.losses,
            theta,
            aside=True,
        )

    def run(self) -> None:
        """Do one iteration; nothing waits for it."""
        epoch = self.iterator.epoch
        # This epoch's order, and the next one's, into which a mini-batch may cross.
        for e in (epoch, epoch + 1):
            if self._held[e % 2] != e:
                self._orders[e % 2] = self.kernels.xp.asarray(self.iterator.order(e))
                self._held[e % 2] = e
        self.network.rates.refresh()
        if self._positions() != self._known_positions:  # somebody has drawn from a stream
            self._set_positions()
        self.program()
        self.iterator.skip()
        for stream in self._streams:
            if stream.uniforms is not None:
                stream.uniforms.position += stream.rows
        self._known_positions = self._positions()

    def _positions(self) -> list[int]:
        """Return where the iterator and the streams of random numbers stand, as in Progress."""
        streams = (stream.uniforms for stream in self._streams)
        return [self.iterator.position, *(0 if s is None else s.position for s in streams)]

    def _set_positions(self) -> None:
        """Bring to the device where the iterator and the streams stand."""
        self._known_positions = self._positions()
        positions = numpy.array(self._known_positions)
        self._progress[: len(positions)] = self.kernels.xp.asarray(positions)

    def take_loss(self) -> float:
        """Return the mean loss since the last call, and start anew; waits for the device.

        Returns:
            float: NaN where there was no iteration.
        """
        progress = self._host_progress()
        total = progress.view(numpy.float64)[_LOSS]
        self._progress[_LOSS:] = 0
        return float(total / progress[_LOSSES]) if progress[_LOSSES] else float("nan")

    def _host_progress(self) -> Any:
        progress = self._progress
        return progress.get() if hasattr(progress, "get") else progress.copy()

    def serialize(self, serializer: Any) -> None:
        """Save or load the losses since the last report.

        Where the training stands on the device is set from the iterator and the streams of random
        numbers, so load those first.
        """
        progress = numpy.array(serializer("progress", self._host_progress()))
        self._progress[...] = self.kernels.xp.asarray(progress)
        self._set_positions()
        self._held = [None, None]
