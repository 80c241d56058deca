"""The link under test: copies that may be called, changed and differentiated at will."""

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import numpy

from chainer_sno._import_chainer import chainer
from chainer_sno._types import Array
from chainer_sno.errors import in_one_line

#: What is called equal, and what is called zero, relative to the largest value, by dtype.
TOLERANCE = {"float16": 2e-2, "float32": 2e-4, "float64": 1e-9}


class CallFailed(Exception):
    """The link raised an exception; the message is that exception in one line."""


@contextlib.contextmanager
def failures() -> Iterator[None]:
    """Turn what the link raises in the block into :class:`CallFailed`."""
    try:
        yield
    except Exception as error:
        raise CallFailed(in_one_line(error)) from error


@contextlib.contextmanager
def undisturbed(link: Any) -> Iterator[None]:
    """Put everything of a link but its parameters back as it was when the block ends.

    Running statistics move in training mode, and a check must not see those of another.

    Args:
        link (chainer.Link): its persistent values, and those below it.
    """
    saved = [
        (child, name, copy.deepcopy(getattr(child, name)))
        for child in link.links()
        for name in child._persistent
    ]
    try:
        yield
    finally:
        for child, name, value in saved:
            setattr(child, name, value)


def parameters_of(link: Any) -> dict[str, Any]:
    """Return the parameters of a link by name, those left out that no call has initialised."""
    return dict(link.namedparams(include_uninit=False))


def add_noise(link: Any, values: dict[str, Array], rng: numpy.random.Generator) -> None:
    """Set the parameters of a link to some values with noise on them.

    Args:
        link (chainer.Link): on the CPU.
        values (dict): arrays by the names of the parameters.
        rng (numpy.random.Generator): source of the noise.
    """
    for name, parameter in parameters_of(link).items():
        if parameter.dtype.kind == "f" and parameter.size:
            # Biases begin at one value; without a spread of their own they get one.
            scale = float(values[name].std()) or 0.1
            parameter.array[...] = values[name] + scale * rng.standard_normal(parameter.shape)


def in_double(link: Any) -> Any:
    """Return a copy of a link whose parameters and persistent arrays are float64.

    Args:
        link (chainer.Link): on the CPU, with all parameters initialised.

    Returns:
        chainer.Link: the copy.
    """
    link = link.copy("copy")
    for parameter in parameters_of(link).values():
        if parameter.dtype.kind == "f":
            parameter.array = parameter.array.astype("d")
    for child in link.links():
        for name in child._persistent:
            value = getattr(child, name)
            if isinstance(value, numpy.ndarray) and value.dtype.kind == "f":
                setattr(child, name, value.astype("d"))
    return link


class Subject:
    """A link under test, a mini-batch, and random numbers to test it with.

    The link itself is never called: all is done with copies on the CPU.

    Args:
        link (chainer.Link): the link, perhaps on a GPU.
        x (array): a mini-batch that it takes.
        bits (int): the largest number of bits that are checked one by one.
        seed (int): of the structures and of the noise on the parameters.

    Attributes:
        unchanged (chainer.Link): a copy as it is, on the CPU.
        x (numpy.ndarray): the mini-batch on the CPU.
        d (int): the number of bits; 0 where the costs do not say.
        double (chainer.Link): a copy to differentiate, in float64 where the link bears that; its
            parameters have noise on them, so that none is zero or on the edge of a ReLU.
        double_x (numpy.ndarray): the mini-batch for it.
        differentiable (bool): whether that copy is in float64.
        random (dict): whether two equal calls differ, by training mode.
        gradients_good (bool): whether nothing is known to be wrong with the gradients.
        notes (list of str): what could not be checked.
    """

    def __init__(self, link: Any, x: Array, bits: int, seed: int) -> None:
        self.unchanged = link.copy("copy")
        self.unchanged.to_device("@numpy")
        self.x = chainer.backends.cuda.to_cpu(x)
        self.bits = bits
        self.rng = numpy.random.default_rng(seed)
        self.notes: list[str] = []
        self.d = 0
        self.double = self.unchanged
        self.double_x = self.x
        self.differentiable = False
        self.random = {False: False, True: False}
        self.gradients_good = True
        self._original: dict[str, Array] = {}

    @property
    def groups(self) -> dict[str, slice]:
        """The link's groups, those that are slices."""
        stated = getattr(self.unchanged, "groups", {})
        named = stated if isinstance(stated, dict) else {}
        return {name: group for name, group in named.items() if isinstance(group, slice)}

    @property
    def mode(self) -> bool:
        """Whether gradients are taken in training mode, as they are unless that is random."""
        return not self.random[True]

    @property
    def tolerance(self) -> float:
        """What is zero beside one for the copy that is differentiated."""
        return tolerance_of(self.double)

    def full(self, count: int = 1) -> Array:
        """Return structures with everything on, bool of shape (count, d)."""
        return numpy.ones((count, self.d), dtype=bool)

    def structures(self, count: int) -> Array:
        """Return structures at random, each bit on with probability 1/2 and no two of them equal.

        Where there are few bits, some may be equal all the same.
        """
        structures = self.rng.random((count, self.d)) < 0.5
        for i in range(1, count):
            if (structures[i] == structures[:i]).all(axis=1).any():
                structures[i] = ~structures[i]
        return structures

    def sampled_bits(self) -> Array:
        """Return the bits that are looked at one by one: the ends of the groups, others at random.

        Returns:
            numpy.ndarray: sorted indices, all of them where there are no more than ``bits``.
        """
        if self.d <= self.bits:
            return numpy.arange(self.d)
        chosen: list[int] = []
        for group in self.groups.values():
            own = range(self.d)[group]
            chosen += [own[0], own[-1]] if len(own) else []
        chosen = list(dict.fromkeys(chosen))[: self.bits]
        others = self.rng.permutation(numpy.setdiff1d(numpy.arange(self.d), chosen))
        return numpy.sort(
            numpy.concatenate((chosen, others[: self.bits - len(chosen)])).astype(int)
        )

    def call(
        self, link: Any, x: Array, structures: Array, train: bool = False, backprop: bool = False
    ) -> list[Any]:
        """Call a copy of the link.

        Args:
            link (chainer.Link): which copy.
            x (array): the mini-batch.
            structures (array): shape (lambda, d).
            train (bool): in training mode.
            backprop (bool): whether the outputs will be differentiated.

        Returns:
            list: what the link returns, one entry a structure.

        Raises:
            CallFailed: it raised an exception.
        """
        with (
            chainer.using_config("train", train),
            chainer.using_config("enable_backprop", backprop),
            undisturbed(link),
            failures(),
        ):
            return list(link(x, structures))

    def arrays(self, structures: Array, train: bool = False) -> Array:
        """Return the outputs of the copy that is differentiated, shape (lambda, N, ...)."""
        outputs = self.call(self.double, self.double_x, structures, train)
        return numpy.stack([y.array for y in outputs])

    def weights_of(self, outputs: Array) -> Array:
        """Return random weights of outputs, the same shape and dtype, for a sum of them."""
        return self.rng.standard_normal(outputs.shape).astype(outputs.dtype)

    def gradients(
        self, structures: Array, weights: Array, train: bool
    ) -> tuple[Array, dict[str, Array]]:
        """Return the outputs, and the gradients of a weighted sum of them.

        Args:
            structures (array): shape (lambda, d).
            weights (array): of the outputs, shape (lambda, N, ...).
            train (bool): in training mode.

        Returns:
            tuple: the outputs, shape (lambda, N, ...), and a dictionary from the names of the
            parameters to arrays; zeros where no gradient arrives.
        """
        link = self.double
        link.cleargrads()
        outputs = self.call(link, self.double_x, structures, train, backprop=True)
        total = sum(chainer.functions.sum(y * w) for y, w in zip(outputs, weights))
        with failures():
            total.backward()
        return numpy.stack([y.array for y in outputs]), {
            name: numpy.zeros_like(p.array) if p.grad is None else p.grad
            for name, p in parameters_of(link).items()
        }

    def prepare_double(self) -> None:
        """Make the copy that is differentiated, once the link is known to be callable."""
        x = self.x.astype("d") if self.x.dtype.kind == "f" else self.x
        double = in_double(self.unchanged)
        try:
            outputs = self.call(double, x, self.full())
            if any(y.dtype != numpy.float64 for y in outputs):
                raise CallFailed(f"the outputs are {outputs[0].dtype}")
        except CallFailed as error:
            self.notes.append(
                "numerical gradients are left out, for the link cannot compute in float64 "
                f"({error}): cast structures and constants to the dtype of x"
            )
            self.double = self.unchanged.copy("copy")
        else:
            self.double, self.double_x, self.differentiable = double, x, True
        self._original = {name: p.array.copy() for name, p in parameters_of(self.double).items()}
        self.redraw()

    def redraw(self) -> None:
        """Put new noise on the parameters of the copy that is differentiated.

        The sign of each parameter changes at random as well: a unit of a ReLU that sleeps on all
        of the mini-batch, as half of them do where inputs are positive, wakes up now or then.
        """
        values = {
            name: array * (1 if array.ndim < 2 else self.rng.choice((-1, 1)))
            for name, array in self._original.items()
        }
        add_noise(self.double, values, self.rng)

    def noisy(self) -> Any:
        """Return a copy of the link's dtype with noise on its parameters, as after a training.

        Returns:
            chainer.Link: the copy, on the CPU; running statistics have moved as well.
        """
        link = self.unchanged.copy("copy")
        values = {name: p.array.copy() for name, p in parameters_of(link).items()}
        add_noise(link, values, self.rng)
        with chainer.using_config("train", True), chainer.no_backprop_mode(), failures():
            link(self.x, self.structures(2))
        return link


def tolerance_of(link: Any) -> float:
    """Return what is zero beside one for a link, by the dtype of its parameters."""
    kinds = [p.dtype.name for p in parameters_of(link).values() if p.dtype.kind == "f"]
    return max((TOLERANCE.get(kind, 2e-2) for kind in kinds), default=TOLERANCE["float32"])


def difference(a: Array, b: Array) -> float:
    """Return the largest difference of two arrays beside their largest value."""
    scale = max(numpy.abs(a).max(initial=0), numpy.abs(b).max(initial=0))
    return 0.0 if scale == 0 else float(numpy.abs(a - b).max() / scale)


def listed(bits: Any, shown: int = 6) -> str:
    """Return some numbers as words, such as "bits 0, 3 and 5" or "bits 0, 1, ... (40)"."""
    numbers = [str(int(bit)) for bit in bits]
    if len(numbers) == 1:
        return f"bit {numbers[0]}"
    if len(numbers) > shown:
        return f"bits {', '.join(numbers[:shown])}, ... ({len(numbers)} of those looked at)"
    return f"bits {', '.join(numbers[:-1])} and {numbers[-1]}"
