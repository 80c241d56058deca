"""The settings of a training: how one is declared, checked and named.

A setting is a field of a :class:`Settings` class, made with :func:`option`.  The options of the
command line, the checks, the names of runs and the tables of the documentation follow from it.
"""

import dataclasses
import functools
import math
import numbers
import os
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from reproduce import ReproduceError
from reproduce.datasets import DATASETS, DataSet

if TYPE_CHECKING:
    from typing_extensions import Self  # of typing from Python 3.11 on

#: The dtypes of theta, the default first.
THETA_DTYPES = ("float64", "float32")
#: How names begin of what is measured with batch statistics estimated anew, from images augmented
#: as in training.  Older programs took images that are not augmented; they wrote ``reestimated``.
SECOND_RESULT = "reestimated_augmented"
#: A short training gets an eta_theta with which theta takes this many steps from 0 to 1 at least.
SMALLEST_STEPS = 10
#: The divisor of the paper's epochs for each schedule.
SCHEDULES = {"paper": 1, "short": 10, "quick": 125}
_FRACTION = re.compile(r"1/([1-9]\d{,8})")
#: The largest whole number of a setting: what an int32 holds, as kernels and BLAS count.
LARGEST_INTEGER = 2**31 - 1
#: The largest rate of a setting: what a float32 holds, as the weights are.
LARGEST_RATE = 3.4e38
#: The largest eta_theta: one of 1 already moves theta from 0 to 1 in one step.
LARGEST_ETA = 10
#: The largest seed: what an int64 of a snapshot holds.
LARGEST_SEED = 2**63 - 1
#: The most iterations of a training: snapshots are found by the nine digits in their names.
MOST_ITERATIONS = 999_999_999
#: More bytes than any training here needs; a larger number is a typing error.
MOST_MEMORY = 2**40
_POWER = re.compile(r"([+-]?)2(?:\^|\*\*)([+-]?\d+)")


def parse_epsilon0(text: str) -> float:
    """Return the number that a text such as ``-2^-3``, ``2**-7``, ``0`` or ``0.0078125`` names.

    Raises:
        ReproduceError: the text names no finite number.
    """
    text = text.strip()
    power = _POWER.fullmatch(text)
    try:
        if power:
            value = math.ldexp(-1.0 if power[1] == "-" else 1.0, int(power[2]))
            if value == 0:
                raise OverflowError("too small a power")
        else:
            value = float(text)
    except (ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        raise ReproduceError(
            f"--epsilon0 {text[:60]!r} is not a finite number: give one such as 2^-7, -2^-3, 0 or "
            "0.0078125"
        )
    return value


def format_epsilon0(value: float) -> str:
    """Return the shortest usual text of a penalty: ``2^-7`` for a power of two, else the number."""
    if value == 0:
        return "0"
    mantissa, exponent = math.frexp(abs(value))
    if mantissa == 0.5:
        return f"{'-' if value < 0 else ''}2^{exponent - 1}"
    return repr(float(value))


def _short(value: object) -> str:
    """Return the text of a value in a name, whole numbers without a point."""
    return str(value).removesuffix(".0")


@dataclasses.dataclass(frozen=True)
class Option:
    """The declaration of a setting: how it is given, checked and named.

    Attributes:
        help (str): for the command line and the documentation.
        type (callable): returns the value that a text names.
        text (callable): returns the text of a value in names and commands.
        choices (tuple): the only values; empty for any.
        least (float): the smallest value.
        above (float): every value is greater.
        below (float): every value is smaller.
        most (float): the greatest value.
        method (str): the only method to which the setting applies; None for all.
        without (object): the value for other methods.
        varied (bool): the paper varies it within its method.
        reading (bool): the paper leaves it open.  The first choice is the default; records and
            snapshots say it with None, as those do that are older than the option.
        measured (bool): it adds a measurement and does not change the training, so it is no part
            of the name of a run.
        size (bool): the training needs more memory as it grows.
        default (str): the default in words, where it depends on other settings.
    """

    help: str
    type: Callable[[str], Any] = str
    text: Callable[[Any], str] = _short
    choices: tuple[str, ...] = ()
    least: float | None = None
    above: float | None = None
    below: float | None = None
    most: float | None = None
    method: str | None = None
    without: Any = None
    varied: bool = False
    reading: bool = False
    measured: bool = False
    size: bool = False
    default: str | None = None

    def check(self, flag: str, value: Any) -> None:
        """Check a value.

        Args:
            flag (str): the option of the command line, for the message.
            value: of the setting, not None.

        Raises:
            ReproduceError: the value is out of range, not finite or none of the choices.
        """
        if self.choices:
            if not isinstance(value, str) or value not in self.choices:
                choices = " or ".join(self.choices)
                raise ReproduceError(f"{flag} must be {choices}, not {value!r}")
            return
        kind: Any = numbers.Real
        words = "a number"
        if self.type is int:
            kind, words = numbers.Integral, "a whole number"
        elif self.type is str:
            kind, words = str, "a text"
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ReproduceError(f"{flag} must be {words}, not {value!r}")
        if self.type is str:
            return
        most = LARGEST_INTEGER if self.type is int else LARGEST_RATE
        if self.most is not None:
            most = self.most
        least = -LARGEST_RATE if self.least is None else self.least
        limits = [
            # A whole number may have more digits than a float.
            (isinstance(value, numbers.Integral) or math.isfinite(value), "finite"),
            (self.above is None or value > self.above, f"greater than {self.above}"),
            (value >= least, f"at least {least}"),
            (self.below is None or value < self.below, f"less than {self.below}"),
            (value <= most, f"at most {most}"),
        ]
        for holds, words in limits:
            if not holds:
                raise ReproduceError(f"{flag} must be {words}, not {str(value)[:60]}")


def option(default: Any, help: str, /, **values: Any) -> Any:
    """Return a field of a settings class.

    Args:
        default: the paper's value; None where it depends on the method, see
            :meth:`Settings.defaults`.
        help (str): for the command line and the documentation.
        **values: other attributes of :class:`Option`.  By default ``type`` is that of ``default``.

    Returns:
        dataclasses.Field: the field.
    """
    if "type" not in values and default is not None:
        values["type"] = type(default)
    return dataclasses.field(default=default, metadata={"option": Option(help, **values)})


def flag(name: str) -> str:
    """Return the option of the command line that gives a setting."""
    return "--" + name.replace("_", "-")


@dataclasses.dataclass(frozen=True, init=False)
class Settings:
    r"""One training.  The defaults are the paper's; some depend on the method.

    The constructor takes the values of settings by name.  It completes them with the defaults of
    the method, sets to None what does not apply to the method, and checks them.

    ``eta_factor`` is :math:`\eta_\theta` times d.  The paper's is 1.  A training shortened by a
    factor raises it by that factor by default, so that theta has the time to reach its ends: at 1/d
    a short training leaves every theta near 0.5, and the mode is an arbitrary half of the units.
    The noise of theta grows with it, and usage rates drift towards one half; so the default is an
    :math:`\eta_\theta` of at most 0.1.

    ``theta_dtype`` is the dtype of theta and of the arithmetic of equation (7).  The paper does not
    say which it was; see "Precision" in the readings.

    ``gradients=sum`` adds the gradients of the structures up, where equation (6) has their mean.
    It is the same as lambda times the learning rate at a weight decay divided by lambda.

    Raises:
        ReproduceError: a value is out of range; the message names its option.
        TypeError: there is no such setting.
    """

    method: str = option("sno", "how the structure is chosen")
    epsilon0: float | None = option(
        None,
        "the penalty epsilon_0, such as 2^-7, -2^-3, 0 or 0.0078125",
        type=parse_epsilon0,
        text=format_epsilon0,
        method="sno",
        varied=True,
    )
    dataset: str = option("", "the data set")
    epochs: int = option(None, "passes over the training data", type=int, least=1)
    batch_size: int = option(None, "examples of a mini-batch, N", type=int, least=1)
    seed: int = option(
        0,
        "of the weights, the order of the data, and the structures or dropped units",
        least=0,
        most=LARGEST_SEED,
    )
    samples: int | None = option(
        None, "structures of an iteration, lambda", type=int, least=1, method="sno", size=True
    )
    eta_factor: float | None = option(
        None,
        "eta_theta times d",
        type=float,
        above=0,
        method="sno",
        default="1, raised as epochs fall",
    )
    theta_dtype: str | None = option(
        None,
        "dtype of theta and of equation (7)",
        choices=THETA_DTYPES,
        method="sno",
        reading=True,
    )
    gradients: str | None = option(
        None,
        "the mean or the sum of the gradients of the structures",
        choices=("mean", "sum"),
        method="sno",
        reading=True,
    )
    decayed: str | None = option(
        None,
        "the parameters with weight decay (reading R6)",
        choices=("all", "weights"),
        reading=True,
    )
    stochastic_samples: int = option(
        0,
        "structures of the stochastic prediction, 0 for none",
        least=0,
        method="sno",
        without=0,
        size=True,
    )
    lr: float = option(0.01, "initial learning rate of the weights", above=0)
    momentum: float = option(0.9, "of Nesterov's momentum", least=0, below=1)
    weight_decay: float = option(1e-4, "rate of the weight decay", least=0)
    examples: int | None = option(
        None, "train on the first so many examples", type=int, least=1, default="all"
    )
    test_examples: int | None = option(
        None, "evaluate on the first so many examples", type=int, least=1, default="all"
    )

    #: The name of the experiment on the command line.
    experiment = ""
    #: Whether one training can have several threads on a CPU.
    THREADED = False
    #: Epochs and batch size of the proposed method (True) and of the others: as many iterations,
    #: and as many examples through the network in each.
    LENGTH = {True: (1, 1), False: (1, 1)}

    def __init__(self, **values: Any) -> None:
        # Values are written only here, and they are complete before any other code reads them.
        vars(self).update(self._complete(values))

    @classmethod
    @functools.cache
    def options(cls) -> dict[str, Option]:
        """Return every setting of the experiment, :class:`Option` by name."""
        return {field.name: field.metadata["option"] for field in dataclasses.fields(cls)}

    @classmethod
    def methods(cls) -> tuple[str, ...]:
        """Return the methods that the experiment compares, the proposed one first."""
        return cls.options()["method"].choices

    @classmethod
    def varied(cls) -> dict[str, str]:
        """Return what the paper varies: the method to which it applies, by name."""
        return {
            name: each.method
            for name, each in cls.options().items()
            if each.varied and each.method is not None
        }

    @classmethod
    def defaults(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the defaults that depend on other settings.

        Args:
            values (dict): of the settings that are given, and ``method``.

        Returns:
            dict: for settings whose default is None.
        """
        epochs, batch_size = cls.LENGTH[values["method"] == "sno"]
        return {"epochs": epochs, "batch_size": batch_size, "samples": 2}

    @classmethod
    def _complete(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of every setting, checked."""
        options = cls.options()
        for name, value in values.items():
            if name not in options:
                raise TypeError(f"{cls.__name__} has no setting {name!r}")
            if value is not None:
                options[name].check(flag(name), value)
        stated = {field.name: field.default for field in dataclasses.fields(cls)}
        given = {**stated, **values}
        options["method"].check("--method", given["method"])
        for name, value in cls.defaults(given).items():
            if given[name] is None:
                given[name] = value
        for name, each in options.items():
            if given[name] is not None and values.get(name) is None:  # a default
                each.check(flag(name), given[name])
            if each.method not in (None, given["method"]):
                given[name] = each.without
            elif each.reading and given[name] == each.choices[0]:
                given[name] = None
        cls.check(given)
        if given["method"] == "sno" and given["eta_factor"] is None:
            raised = min(1 / float(_fraction(cls, given)), cls.count_bits(given) / SMALLEST_STEPS)
            given["eta_factor"] = max(1.0, raised)
        largest = LARGEST_ETA * cls.count_bits(given)
        if given["eta_factor"] is not None and given["eta_factor"] > largest:
            raise ReproduceError(
                f"--eta-factor must be at most {largest}, {LARGEST_ETA} times the "
                f"bits of a structure, not {given['eta_factor']}"
            )
        return given

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> None:
        """Check the settings that depend on each other.

        Args:
            values (dict): of every setting.

        Raises:
            ReproduceError: two settings contradict each other; the message names the option.
        """
        dataset = DATASETS[values["dataset"]]
        for name in ("examples", "test_examples"):
            value, most = values[name], getattr(dataset, name)
            if value is not None and value > most:
                raise ReproduceError(
                    f"{flag(name)} must be at most {most}, which is all that {dataset.name} has, "
                    f"not {value}"
                )
        examples = values["examples"] or dataset.examples
        if values["batch_size"] > examples:
            raise ReproduceError(
                f"--batch-size must be at most the {examples} training examples, not "
                f"{values['batch_size']}"
            )
        iterations = values["epochs"] * examples // values["batch_size"]
        if iterations > MOST_ITERATIONS:
            raise ReproduceError(
                f"--epochs {values['epochs']} is {iterations} iterations, and a training has at "
                f"most {MOST_ITERATIONS}: give fewer epochs"
            )
        if cls.least_memory(values) > MOST_MEMORY:
            supported = f"{MOST_MEMORY / 2**30:.4g} GiB are supported"
            raise ReproduceError(cls._too_large(values, supported))

    @classmethod
    def count_bits(cls, values: Mapping[str, Any]) -> int:
        """Return the number of bits d of a structure.

        Args:
            values (dict): of the settings.
        """
        raise NotImplementedError

    @classmethod
    def count_weights(cls, values: Mapping[str, Any]) -> int:
        """Return a number of weights that the network reaches or exceeds; 0 where none is known."""
        return 0

    @classmethod
    def least_memory(cls, values: Mapping[str, Any]) -> int:
        """Return the bytes that a training needs at least: of the network and of structures."""
        # Weights, gradients and velocities in float32; of each structure the random numbers.
        structures = max(values["samples"] or 0, values["stochastic_samples"])
        drawn = structures * cls.count_bits(values) if values["method"] == "sno" else 0
        return 12 * cls.count_weights(values) + 8 * drawn

    def check_memory(self) -> None:
        """Check that the training fits into the memory of this machine, as far as is known.

        Raises:
            ReproduceError: its memory is too small.
        """
        try:
            memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, OSError, ValueError):  # the system does not say
            return
        if self.least_memory(vars(self)) > memory:
            has = f"this machine has {memory / 2**30:.1f} GiB"
            raise ReproduceError(self._too_large(vars(self), has))

    @classmethod
    def _too_large(cls, values: Mapping[str, Any], reason: str) -> str:
        sizes = [name for name, each in cls.options().items() if each.size and values[name]]
        sizes.sort(key=lambda name: name in Settings.options())  # those of the network first
        smaller = ", ".join(f"{flag(name)} {values[name]}" for name in sizes)
        return (
            f"the training needs at least {cls.least_memory(values) / 2**30:.4g} GiB of memory, "
            f"and {reason}: give smaller numbers than {smaller}"
        )

    @classmethod
    def at(cls, schedule: str, **values: Any) -> "Self":
        """Return settings at a schedule; ``values`` take precedence over it.

        Args:
            schedule (str): ``paper``, ``short`` (1/10 of the epochs), ``quick`` (1/125), or another
                fraction, ``1/60``.
            **values: fields of the settings.

        Returns:
            Settings: the settings.

        Raises:
            ReproduceError: there is no such schedule, or it has no whole epoch.
        """
        values = {name: value for name, value in values.items() if value is not None}
        paper = cls(method=values.get("method", "sno"))
        part = _FRACTION.fullmatch(schedule)
        divisor = int(part[1]) if part else SCHEDULES.get(schedule)
        if divisor is None or divisor > paper.epochs:
            raise ReproduceError(
                f"--schedule must be {', '.join(SCHEDULES)} or a part of the paper's epochs from "
                f"1/1 to 1/{paper.epochs}, such as 1/60, not {schedule[:60]!r}"
            )
        return cls(**{"epochs": paper.epochs // divisor, **values})

    def as_dict(self) -> dict[str, Any]:
        """Return every setting that applies to the method, as numbers and texts."""
        found = {"experiment": self.experiment, **vars(self)}
        return {name: value for name, value in found.items() if value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Self":
        """Return the settings that :meth:`as_dict` returned.

        Raises:
            ReproduceError: they are not those of this experiment.
        """
        values = dict(values)
        own = values.pop("experiment", None) == cls.experiment
        if not own or not set(values) <= set(cls.options()):
            raise ReproduceError(f"these are not the settings of a training of {cls.experiment}")
        return cls(**values)

    def as_arguments(self) -> list[str]:
        """Return the options of ``run`` that name these settings."""
        values = self.as_dict()
        arguments = [values.pop("experiment")]
        for name, value in values.items():
            arguments.append(f"{flag(name)}={self.options()[name].text(value)}")
        return arguments

    @property
    def paper(self) -> "Self":
        """The paper's settings of the same method, with the defaults of what the paper varies."""
        return type(self)(method=self.method)

    def changes(self) -> dict[str, Any]:
        """Return the settings that differ from the paper's, which tell this run from others."""
        paper = vars(self.paper)
        return {
            name: value
            for name, value in vars(self).items()
            if name not in ("method", "seed")
            and not (self.options()[name].varied or self.options()[name].measured)
            and value != paper[name]
        }

    @property
    def changed(self) -> list[str]:
        """The settings that differ from the paper's, in words: ``criterion=weights``."""
        return [f"{name}={_short(value)}" for name, value in self.changes().items()]

    @property
    def is_paper_schedule(self) -> bool:
        """Whether only what the paper varies differs from its settings."""
        return not self.changes()

    @property
    def setting(self) -> str:
        """The value that the paper varies: ``epsilon0=2^-7``, ``width=205`` or nothing."""
        for name, method in self.varied().items():
            if method == self.method:
                text = self.options()[name].text(getattr(self, name))
                return f"{name.replace('_', '-')}={text}"
        return ""

    @property
    def name(self) -> str:
        """The name of the run: the method, the setting, every change from the paper, the seed."""
        changed = self.changed
        parts = [self.experiment, self.method, self.setting, *changed, f"seed={self.seed}"]
        return "_".join(part for part in parts if part)

    @property
    def bits(self) -> int:
        """The number of bits d of a structure."""
        return self.count_bits(vars(self))

    @property
    def data(self) -> DataSet:
        """The sizes of the data set, :class:`reproduce.datasets.DataSet`."""
        return DATASETS[self.dataset]

    def iterations(self, examples: int | None = None) -> int:
        """Return the iterations of the training, rounded down (reading R10).

        Args:
            examples (int): of the training set; by default those of the whole data set.
        """
        examples = self.examples or examples or self.data.examples
        return self.epochs * examples // self.batch_size


def _fraction(kind: type[Settings], values: Mapping[str, Any]) -> Fraction:
    """Return the length of a schedule as a fraction of the paper's, in iterations."""
    epochs, batch_size = kind.LENGTH[values["method"] == "sno"]
    whole = DATASETS[values["dataset"]].examples
    examples = values["examples"] or whole
    return Fraction(values["epochs"] * examples * batch_size, epochs * whole * values["batch_size"])


def fraction_of_paper(settings: Settings) -> Fraction:
    """Return the length of a schedule as a fraction of the paper's, in iterations.

    Args:
        settings (Settings): of a run.

    Returns:
        fractions.Fraction: 1 for the paper's.
    """
    return _fraction(type(settings), vars(settings))
