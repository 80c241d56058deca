"""The settings of one training, with the paper's as defaults, and their names."""

import dataclasses
import math
import re
from fractions import Fraction

from reproduce import ReproduceError

#: The penalties of section 4.1, in the order of its list.
UNIT_EPSILON0 = ("2^-6", "2^-7", "2^-8", "2^-9", "0", "-2^-3", "-2^0")
#: The widths of fixed structures with Table 1's usage rates (reading R13).
UNIT_WIDTHS = (52, 205, 453, 609, 735, 784)
#: The penalties of section 4.2, in the order of its list.
CONNECTION_EPSILON0 = ("2^-2", "2^-3", "2^-4", "2^-5", "2^-6", "0", "-2^-3", "-2^0")
#: The usage rates of the random structures: Table 2's.
CONNECTION_USAGE_RATES = (0.158, 0.241, 0.423, 0.675, 0.803, 1.0)
#: Examples of the training sets.
EXAMPLES = {"mnist": 60000, "fashion-mnist": 60000, "cifar10": 50000}
#: Examples of the test sets.
TEST_EXAMPLES = dict.fromkeys(EXAMPLES, 10000)
#: What theta may be kept in, the default first.
THETA_DTYPES = ("float64", "float32")
#: What may be varied where the paper leaves a reading open, the reading's value first.
GRADIENTS, DECAYED = ("mean", "sum"), ("all", "weights")
INPUTS = ("unit-interval", "mean-image", "standardised")
#: Seeds are below this, as in :data:`chainer_sno.uniforms.SEEDS`: snapshots hold them as int64.
SEEDS = 2**63
#: A short training gets an eta_theta with which theta takes this many steps from 0 to 1 at least.
SMALLEST_STEPS = 10
#: By what a schedule divides the paper's epochs.
SCHEDULES = {"paper": 1, "short": 10, "quick": 125}
_FRACTION = re.compile(r"1/([1-9]\d*)")

_POWER = re.compile(r"([+-]?)2(?:\^|\*\*)([+-]?\d+)")


def parse_epsilon0(text):
    """Return the number that a text such as ``-2^-3``, ``2**-7``, ``0`` or ``0.0078125`` names.

    Raises:
        ReproduceError: the text names no finite number.
    """
    text = text.strip()
    power = _POWER.fullmatch(text)
    try:
        if power:
            value = math.ldexp(-1.0 if power[1] == "-" else 1.0, int(power[2]))
        else:
            value = float(text)
    except (ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        raise ReproduceError(
            f"epsilon0 {text!r} is not a number: give one such as 2^-7, -2^-3, 0 or 0.0078125"
        )
    return value


def format_epsilon0(value):
    """Return the shortest usual text of a penalty: ``2^-7`` for a power of two, else the number."""
    if value == 0:
        return "0"
    mantissa, exponent = math.frexp(abs(value))
    if mantissa == 0.5:
        return f"{'-' if value < 0 else ''}2^{exponent - 1}"
    return repr(float(value))


@dataclasses.dataclass(frozen=True)
class Settings:
    r"""One training; the defaults are the paper's, but for those that depend on the method.

    Attributes:
        method (str): ``sno``, the proposed method, or a baseline of the experiment.
        epsilon0 (float): :math:`\epsilon_0` of ``sno``; None for the others.
        dataset (str): the name of the data set.
        epochs (int): passes over the training data.
        batch_size (int): N, examples of a mini-batch.
        seed (int): of the weights, the order of the data, and the structures or dropped units.
        samples (int): lambda, structures an iteration; None without a distribution.
        eta_factor (float): eta_theta times d; None without a distribution.  The paper's is 1.  By
            default a training shortened by a factor raises it by that factor, so that theta has
            the time to reach its ends: at 1/d a short one leaves every theta near 0.5, and the
            mode an arbitrary half of the units.  The noise of theta grows with it, and usage
            rates drift towards one half; so it is raised to an eta_theta of 0.1 at the most.
        theta_dtype (str): ``float32``, of theta and of the arithmetic of equation (7); None for
            float64 and without a distribution.  The paper does not say which it was; see
            "Precision" in the readings.
        gradients (str): ``sum`` adds the gradients of the structures up, where equation (6) has
            their mean, which is None.  It is the same as lambda times the learning rate at a
            weight decay divided by lambda.
        decayed (str): ``weights`` leaves biases and batch normalisation without weight decay; None
            for all parameters (reading R6).
        stochastic_samples (int): structures of the stochastic prediction, 0 for none.
        lr (float): initial learning rate of the weights.
        momentum (float): of Nesterov's momentum.
        weight_decay (float): on every parameter (reading R6).
        examples (int): train on the first so many; None for all.
        test_examples (int): evaluate on the first so many; None for all.
    """

    method: str = "sno"
    epsilon0: float | None = None
    dataset: str = ""
    epochs: int | None = None
    batch_size: int | None = None
    seed: int = 0
    samples: int | None = None
    eta_factor: float | None = None
    theta_dtype: str | None = None
    gradients: str | None = None
    decayed: str | None = None
    stochastic_samples: int = 0
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 1e-4
    examples: int | None = None
    test_examples: int | None = None

    #: The name of the experiment in the command line.
    experiment = ""
    #: The methods that it compares.
    METHODS = ("sno",)
    #: What the paper varies within a method, and the method to which it applies.
    VARIED = {"epsilon0": "sno"}
    #: What may be varied where a reading is open, and its choices, the reading's first.
    OPEN = {"theta_dtype": THETA_DTYPES, "gradients": GRADIENTS, "decayed": DECAYED}
    #: Whether a training may have several threads on a CPU.
    THREADED = False
    #: What is measured beside the training and does not change it.
    MEASURED = ()
    #: What else applies to one method only.
    APPLIES_TO = {
        "samples": "sno",
        "eta_factor": "sno",
        "theta_dtype": "sno",
        "gradients": "sno",
        "stochastic_samples": "sno",
    }
    #: Epochs and batch size of the proposed method (True) and of the others: as many iterations,
    #: and as many examples through the network in each.
    LENGTH = {True: (1, 1), False: (1, 1)}
    #: The least value of each whole number.
    SMALLEST = {
        "epochs": 1,
        "batch_size": 1,
        "seed": 0,
        "samples": 1,
        "stochastic_samples": 0,
        "examples": 1,
        "test_examples": 1,
    }

    def defaults(self):
        """Return the defaults of what depends on the method."""
        epochs, batch_size = self.LENGTH[self.method == "sno"]
        return {"epochs": epochs, "batch_size": batch_size, "samples": 2}

    def __post_init__(self):
        """Fill in the defaults of the method and check the values."""
        if self.method not in self.METHODS:
            raise ReproduceError(f"method {self.method!r} is none of {', '.join(self.METHODS)}")
        for name, value in self.defaults().items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        for name, method in {**self.VARIED, **self.APPLIES_TO}.items():
            if self.method != method:
                object.__setattr__(self, name, 0 if name == "stochastic_samples" else None)
        self.check()

    def check(self):
        """Check the values, and raise eta_theta by what the training is shortened.

        Raises:
            ReproduceError: one is out of range; the message names its option.
        """
        for name, least in self.SMALLEST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ReproduceError(f"{_option(name)} must be at least {least}, not {value}")
        if self.seed >= SEEDS:
            raise ReproduceError(f"--seed must be less than 2^63 = {SEEDS}, not {self.seed}")
        for name, sizes in (("examples", EXAMPLES), ("test_examples", TEST_EXAMPLES)):
            value, most = getattr(self, name), sizes[self.dataset]
            if value is not None and value > most:
                raise ReproduceError(
                    f"{_option(name)} {value} is more than the {most} of {self.dataset}"
                )
        examples = self.examples or EXAMPLES[self.dataset]
        if self.batch_size is not None and self.batch_size > examples:
            raise ReproduceError(
                f"--batch-size {self.batch_size} is more than the {examples} training examples"
            )
        for name, choices in self.OPEN.items():
            value = getattr(self, name)
            if value not in (None, *choices):
                raise ReproduceError(f"{_option(name)} {value!r} is none of {', '.join(choices)}")
            if value == choices[0]:
                # As records and snapshots say it that are older than the option.
                object.__setattr__(self, name, None)
        if self.method == "sno" and self.eta_factor is None:
            raised = min(1 / float(fraction_of_paper(self)), self.bits / SMALLEST_STEPS)
            object.__setattr__(self, "eta_factor", max(1.0, raised))
        for name in ("eta_factor", "lr"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ReproduceError(f"{_option(name)} must be positive, not {value}")
        for name, limit in (("momentum", 1), ("weight_decay", math.inf)):
            check_range(name, getattr(self, name), limit)

    @classmethod
    def at(cls, schedule, **values):
        """Return settings at a schedule; what is given in ``values`` goes before it.

        Args:
            schedule (str): ``paper``, ``short`` (1/10 of the epochs), ``quick`` (1/125), or another
                such part, ``1/60``.
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
                f"--schedule {schedule!r} is none: give {', '.join(SCHEDULES)}, or a part such as "
                f"1/60, 1/{paper.epochs} at the least"
            )
        return cls(**{"epochs": paper.epochs // divisor, **values})

    def as_dict(self):
        """Return every setting that applies to the method, as plain numbers and texts."""
        found = {"experiment": self.experiment, **vars(self)}
        return {name: value for name, value in found.items() if value is not None}

    @classmethod
    def from_dict(cls, values):
        """Return the settings that :meth:`as_dict` returned.

        Raises:
            ReproduceError: they are not those of this experiment.
        """
        values = dict(values)
        names = {field.name for field in dataclasses.fields(cls)}
        if values.pop("experiment", None) != cls.experiment or not set(values) <= names:
            raise ReproduceError(f"these are not settings of {cls.experiment}")
        return cls(**values)

    def as_arguments(self):
        """Return the options of ``run`` that name these settings."""
        values = self.as_dict()
        arguments = [values.pop("experiment")]
        if "epsilon0" in values:
            values["epsilon0"] = format_epsilon0(values["epsilon0"])
        for name, value in values.items():
            arguments.append(f"--{name.replace('_', '-')}={value}")
        return arguments

    @property
    def paper(self):
        """The paper's settings of the same method, with the defaults of what the paper varies."""
        return type(self)(method=self.method)

    def changes(self):
        """Return the settings that are not the paper's, by which a run is told from others."""
        mine = vars(self)
        paper = vars(self.paper)
        identity = ("method", "seed", *self.VARIED, *self.MEASURED)
        return {
            name: value
            for name, value in mine.items()
            if name not in identity and value != paper[name]
        }

    @property
    def is_paper_schedule(self):
        """Whether only what the paper varies differs from its settings."""
        return not self.changes()

    @property
    def setting(self):
        """What the paper varies within the method: ``epsilon0=2^-7``, ``width=205`` or nothing."""
        for name, method in self.VARIED.items():
            if method == self.method:
                value = getattr(self, name)
                text = format_epsilon0(value) if name == "epsilon0" else _short(value)
                return f"{name.replace('_', '-')}={text}"
        return ""

    @property
    def name(self):
        """The name of the run: the method, the setting, every change from the paper, the seed."""
        changes = [f"{name}={_short(value)}" for name, value in self.changes().items()]
        parts = [self.experiment, self.method, self.setting, *changes, f"seed={self.seed}"]
        return "_".join(part for part in parts if part)

    @property
    def bits(self):
        """The number of bits d of a structure."""
        raise NotImplementedError

    def iterations(self, examples=None):
        """Return the iterations of the training, rounded down (reading R10).

        Args:
            examples (int): of the training set; by default those of the whole data set.
        """
        examples = self.examples or examples or EXAMPLES[self.dataset]
        return self.epochs * examples // self.batch_size


@dataclasses.dataclass(frozen=True)
class UnitSelection(Settings):
    """One training of section 4.1.

    Attributes:
        method (str): ``sno``, ``fixed`` (the same number of units in every layer) or ``dropout``.
        dataset (str): ``mnist`` or ``fashion-mnist``.
        width (int): units in each hidden layer of ``fixed``; None for the others.
        units (int): units in each hidden layer of the full network.
        layers (int): hidden layers.
        dropout_ratio (float): of ``dropout``; None for the others.
        inputs (str): ``mean-image`` subtracts the mean training image from the pixels in [0, 1],
            ``standardised`` one mean of all pixels, and divides by one standard deviation; None
            for the pixels in [0, 1].
    """

    dataset: str = "mnist"
    width: int | None = None
    units: int = 784
    layers: int = 3
    dropout_ratio: float | None = None
    inputs: str | None = None

    OPEN = {**Settings.OPEN, "inputs": INPUTS}
    experiment = "unit-selection"
    METHODS = ("sno", "fixed", "dropout")
    VARIED = {"epsilon0": "sno", "width": "fixed"}
    APPLIES_TO = {**Settings.APPLIES_TO, "dropout_ratio": "dropout"}
    LENGTH = {True: (500, 32), False: (1000, 64)}
    SMALLEST = {**Settings.SMALLEST, "units": 2, "layers": 1, "width": 1}

    def defaults(self):
        """Return the defaults of what depends on the method."""
        found = {"epsilon0": 2.0**-7, "width": self.units, "dropout_ratio": 0.5}
        return {**super().defaults(), **found}

    def check(self):
        """Check the values."""
        super().check()
        check_range("dropout_ratio", self.dropout_ratio, 1)
        if self.width is not None and self.width > self.units:
            raise ReproduceError(
                f"width {self.width} is more than the {self.units} units of the full network"
            )

    @property
    def bits(self):
        """The number of bits d of a structure: one for each hidden unit."""
        return self.units * self.layers

    @property
    def widths(self):
        """Units per layer of the network that is built, inputs and outputs left out."""
        return (self.width or self.units,) * self.layers


@dataclasses.dataclass(frozen=True)
class ConnectionSelection(Settings):
    """One training of section 4.2.

    Attributes:
        method (str): ``sno``, or ``random``: a structure drawn at random, trained as it is.
        dataset (str): ``cifar10``.
        usage_rate (float): of ``random``, met to within 0.5 percentage points (reading R12); None
            for ``sno``.
        depth (int): of the DenseNet.
        growth_rate (int): output channels of a layer.
        reestimate (int): training mini-batches from which the statistics of batch normalisation
            are estimated anew for one more evaluation, at most one pass over the training set; 0
            for none.  It changes no training, so it is no part of a run's name.
    """

    dataset: str = "cifar10"
    lr: float = 0.1
    usage_rate: float | None = None
    depth: int = 40
    growth_rate: int = 12
    reestimate: int = 100

    experiment = "connection-selection"
    METHODS = ("sno", "random")
    VARIED = {"epsilon0": "sno", "usage_rate": "random"}
    THREADED = True
    MEASURED = ("reestimate",)
    #: Dense blocks of the network.
    BLOCKS = 3
    LENGTH = {True: (300, 32), False: (600, 64)}
    SMALLEST = {**Settings.SMALLEST, "depth": 7, "growth_rate": 1, "reestimate": 0}

    def defaults(self):
        """Return the defaults of what depends on the method."""
        return {**super().defaults(), "epsilon0": 2.0**-4, "usage_rate": 0.423}

    def check(self):
        """Check the values."""
        if self.usage_rate is not None and not 0 < self.usage_rate <= 1:
            raise ReproduceError(f"--usage-rate must lie in (0, 1], not {self.usage_rate}")
        if self.depth % 3 != 1:
            raise ReproduceError(
                f"--depth must be 4 + a multiple of the 3 blocks, such as 40, not {self.depth}"
            )
        super().check()

    @property
    def bits(self):
        """The number of bits d of a structure: 1 + 2 + ... for the layers and exit of a block."""
        consumers = self.block_layers + 1
        return self.BLOCKS * consumers * (consumers + 1) // 2

    @property
    def block_layers(self):
        """The layers of a block; the other four are the first, the transitions and the last."""
        return (self.depth - 4) // self.BLOCKS


#: The experiments by name.
EXPERIMENTS = {kind.experiment: kind for kind in (UnitSelection, ConnectionSelection)}


def from_dict(values):
    """Return the settings that :meth:`Settings.as_dict` returned.

    Raises:
        ReproduceError: they are those of no experiment here.
    """
    try:
        kind = EXPERIMENTS[values["experiment"]]
    except (KeyError, TypeError) as error:
        raise ReproduceError("these are not settings of an experiment") from error
    return kind.from_dict(values)


def _option(name):
    """Return the option of the command line that sets a field."""
    return "--" + name.replace("_", "-")


def check_range(name, value, limit):
    """Check that a value is None or lies in [0, limit).

    Raises:
        ReproduceError: it does not.
    """
    if value is not None and not 0 <= value < limit:
        raise ReproduceError(f"{_option(name)} must lie in [0, {limit}), not {value}")


def _short(value):
    """Return the text of a value in a name, whole numbers without a point."""
    return str(value).removesuffix(".0")


def fraction_of_paper(settings):
    """Return the length of a schedule as a fraction of the paper's, in iterations.

    Args:
        settings (Settings): of a run.

    Returns:
        fractions.Fraction: 1 for the paper's.
    """
    epochs, batch_size = settings.LENGTH[settings.method == "sno"]
    whole = EXAMPLES[settings.dataset]
    examples = settings.examples or whole
    return Fraction(settings.epochs * examples * batch_size, epochs * whole * settings.batch_size)
