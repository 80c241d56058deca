"""Checks of what a bit switches: something, and all that is its own.

A link does not state which elements a bit switches, so this is measured, at parameters with noise:
the elements of the parameters that have a gradient with the bit on, and exactly none with it off,
belong to the bit.  A correct bit has three properties:

* switching it changes the outputs, or it does nothing;
* it has elements of its own, or what it switches is still there, only weaker;
* with the bit off, the outputs stay the same to the last place when its own elements are changed.

A fourth check finds forgotten elements.  If a bit owns row j of a parameter, such as the weights of
a unit, and a second parameter of the same link, such as the biases, has as many rows, then row j of
the second one must be switched too, by this bit or by another.

A constant that remains without a parameter of its own, such as sigmoid(0), looks like a bias of the
next layer and is not found here; it is where the link states ``weight_ratio`` or ``compact``.
"""

from collections.abc import Iterator

import numpy

from chainer_sno._types import Array
from chainer_sno.testing.subject import Subject, difference, listed, parameters_of

#: With how many noises on the parameters a bit gets the chance to change something, and to own
#: something: a unit of a ReLU may sleep on all of the mini-batch.
ATTEMPTS = 24
ATTEMPTS_TO_OWN = 8
#: How many times bits are looked at for what they leave behind, all of them together, since what
#: is left may be asleep too.
LOOKS = 24
#: In tolerances of the largest gradient, up to the first is none and more than the second is some.
NONE, SOME = 1e-2, 1


class Switch:
    """The effect of switching one bit off in one structure.

    Args:
        subject (Subject): the link.
        structure (array): with the bit on, shape (d,).
        bit (int): which.
        weights (array): of the outputs in the gradients.
        on (tuple): the outputs and the gradients with the bit on.

    Attributes:
        off (array): the structure without the bit.
        changes (bool): whether the outputs change.
        own (dict): by name of the parameter, a bool array: the elements that are the bit's own.
        acts (dict): by name of the parameter, a bool array: the elements that have a gradient
            with the bit off.
    """

    def __init__(
        self,
        subject: Subject,
        structure: Array,
        bit: int,
        weights: Array,
        on: tuple[Array, dict[str, Array]],
    ) -> None:
        self.subject = subject
        self.bit = bit
        self.off = structure.copy()
        self.off[bit] = False
        train = subject.mode
        self.outputs, off = subject.gradients(self.off[None], weights, train)
        outputs, gradients = on
        self.changes = difference(outputs, self.outputs) > subject.tolerance
        largest = max((numpy.abs(g).max(initial=0) for g in gradients.values()), default=0)
        none, some = (factor * subject.tolerance * largest for factor in (NONE, SOME))
        self.acts = {name: numpy.abs(g) > some for name, g in off.items()}
        self.own = {
            name: (numpy.abs(g) > some) & (numpy.abs(off[name]) <= none)
            for name, g in gradients.items()
        }

    @property
    def owns(self) -> bool:
        """Whether the bit has elements of its own."""
        return any(own.any() for own in self.own.values())

    def still_matters(self) -> bool:
        """Return whether the outputs without the bit change when its own elements do."""
        subject = self.subject
        train = subject.mode
        # A small step: a long one could wake units of a ReLU that were asleep for lack of inputs.
        step = subject.tolerance**0.5
        kept = []
        for name, parameter in parameters_of(subject.double).items():
            if self.own[name].any():
                values = parameter.array
                kept.append((values, values.copy()))
                own = values[self.own[name]]
                size = numpy.abs(own).mean()
                values[self.own[name]] = own + step * size * subject.rng.standard_normal(len(own))
        after = subject.arrays(self.off[None], train)
        for values, old in kept:
            values[...] = old
        return difference(self.outputs, after) > subject.tolerance

    def rows(self, name: str) -> Array:
        """Return which rows of a parameter the bit switches off, bool of shape (rows,)."""
        own, acts = (a[name].reshape(len(a[name]), -1).any(axis=1) for a in (self.own, self.acts))
        return numpy.logical_and(own, ~acts)

    def left_behind(self) -> list[tuple[str, int, str]]:
        """Return the rows that should be switched with the bit's own, and still act without it.

        Returns:
            list: the name of the parameter and the row, and the name of the parameter whose row
            is switched off, for each.
        """
        left = []
        lengths = {name: len(own) for name, own in self.own.items() if own.ndim}
        for name, length in lengths.items():
            rows = self.rows(name)
            if not self.acts[name].any():
                continue  # what the whole link takes is gone, not what a row of it computes
            for other in lengths:
                same_link = other.rsplit("/", 1)[0] == name.rsplit("/", 1)[0]
                if other != name and same_link and lengths[other] == length:
                    acting = self.acts[other].reshape(length, -1).any(axis=1)
                    left += [(other, int(row), name) for row in numpy.flatnonzero(rows & acting)]
        return left


def bits(subject: Subject) -> Iterator[str]:
    """Every bit changes the outputs, and switches all that is its own."""
    pending = [int(bit) for bit in subject.sampled_bits()]
    if len(pending) < subject.d:
        subject.notes.append(
            f"{len(pending)} of the {subject.d} bits were switched one by one; bits=... for more"
        )
    looked = dict.fromkeys(pending, 0)  # how often, at what is the bit's own
    changed = dict.fromkeys(pending, 0)  # how often, without anything of its own
    looks = -(-LOOKS // len(pending))
    cut_only: set[int] = set()
    left: dict[tuple[str, int, str], int] = {}
    for attempt in range(ATTEMPTS):
        for structure in numpy.concatenate((subject.full(), subject.structures(1))):
            behind: dict[tuple[str, int, str], int] = {}
            for switch in _switches(subject, structure, pending):
                if not switch.changes:
                    continue
                if not switch.owns:
                    changed[switch.bit] += 1
                    continue
                looked[switch.bit] += 1
                if switch.still_matters():
                    cut_only.add(switch.bit)
                behind.update(dict.fromkeys(switch.left_behind(), switch.bit))
            left.update(_unowned(subject, structure, behind))
            pending = [
                bit for bit in pending if looked[bit] < looks and changed[bit] < ATTEMPTS_TO_OWN
            ]
        if not pending:
            break
        if attempt < ATTEMPTS - 1:
            subject.redraw()
    yield from _found_about_bits(looked, changed, cut_only, _confirmed(subject, left))


def _found_about_bits(
    looked: dict[int, int],
    changed: dict[int, int],
    cut_only: set[int],
    left: dict[tuple[str, int, str], int],
) -> Iterator[str]:
    """Yield what is wrong with the bits, given what was seen of each."""
    without = [bit for bit, n in looked.items() if n == 0]
    idle = [bit for bit in without if changed[bit] == 0]
    weak = [bit for bit in without if changed[bit] > 0]
    if idle:
        yield f"switching {listed(idle)} changes no output: every bit must switch something"
    if weak:
        yield (
            f"{listed(weak)} off changes the outputs, but all parameters keep their influence: "
            "multiply what the bit switches by 0 or 1"
        )
    if cut_only:
        yield (
            f"with {listed(sorted(cut_only))} off, the outputs still change with parameters that "
            "get no gradient then: mask the values, not the gradients alone"
        )
    if left:
        names = ", ".join(sorted({name for name, _, _ in left}))
        yield (
            f"with {listed(sorted(set(left.values())))} off, {names} still acts in the place of "
            "what is switched off: mask after the bias, the normalisation and the activation "
            "(reading R3)"
        )


def _switches(subject: Subject, structure: Array, pending: list[int]) -> Iterator[Switch]:
    """Yield what switching each bit off does; a bit that is off in the structure is on first."""
    train = subject.mode
    weights = subject.weights_of(subject.arrays(structure[None], train))
    on = subject.gradients(structure[None], weights, train)
    for bit in pending:
        if structure[bit]:
            yield Switch(subject, structure, bit, weights, on)
            continue
        other = structure.copy()
        other[bit] = True
        yield Switch(subject, other, bit, weights, subject.gradients(other[None], weights, train))


def _unowned(
    subject: Subject, structure: Array, left: dict[tuple[str, int, str], int]
) -> dict[tuple[str, int, str], int]:
    """Return those rows of what was left behind that no other bit switches off."""
    if left:
        for switch in _switches(subject, structure, [*range(subject.d)]):
            left = {
                (name, row, source): bit
                for (name, row, source), bit in left.items()
                if not switch.rows(name)[row]
            }
            if not left:
                break
    return left


def _confirmed(
    subject: Subject, left: dict[tuple[str, int, str], int]
) -> dict[tuple[str, int, str], int]:
    """Return those rows of what was left behind whose bit owns the row that is switched off.

    Where all inputs of a unit but one sleep, the bit of that one seems to own the weights of the
    unit.  With other noise on the parameters they act without it.
    """
    for _ in range(ATTEMPTS_TO_OWN if left else 0):
        subject.redraw()
        (full,) = subject.full()
        for switch in _switches(subject, full, sorted(set(left.values()))):
            left = {
                (name, row, source): bit
                for (name, row, source), bit in left.items()
                if bit != switch.bit or not switch.acts[source][row].any()
            }
    return left
