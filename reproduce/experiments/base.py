"""What an experiment is: everything that the commands ask of it."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from reproduce import ReproduceError
from reproduce._types import Array, Cells, Record
from reproduce.settings import Settings, format_epsilon0, parse_epsilon0


@dataclasses.dataclass(frozen=True)
class Method:
    """How tables and figures name a method.

    Attributes:
        words (str): in legends.
        label (str): in tables, with one place for the value that varies: ``fixed {} a layer``.
        short (str): the value in the title of a figure: ``{} units``.
        beside (str): what a note beside a point of Figure 1 says; empty for no note.
        written (callable): returns the text of a value; different values have different texts.
    """

    words: str
    label: str = ""
    short: str = ""
    beside: str = ""
    written: Callable[[Any], str] = str


#: The proposed method, which every experiment has.
PROPOSED = Method("proposed method", beside=r"$\epsilon_0$")


class Experiment:
    """An experiment: a kind of training, the settings that vary, and how its results are shown.

    A subclass states the attributes and overrides what its results need.  Nothing here imports
    Chainer; :meth:`training` does, when a training begins.

    Attributes:
        name (str): on the command line and in the names of runs.
        settings (type): its subclass of :class:`reproduce.settings.Settings`.
        title (str): in headings, before the data set.
        section (str): of the paper; empty for an experiment that is not the paper's.
        table (str): the published table, such as ``Table 1``; empty for none.
        figure (str): the part of Figure 1 that shows it, ``a`` or ``b``; empty for none.
        networks (dict): the penalty of each published figure of a network, by its number.
        selected (str): what a structure selects, as the key of a result: ``units``.
        part (str): what it is counted in: ``layer``.
        parts (str): the parts in the heading of a table: ``1st/2nd/3rd``.
        penalties (tuple of str): of the grid, in the paper's order.
        methods (dict): :class:`Method` by name, the proposed one first, then the baselines.
        result_properties (dict): JSON schemas of what a result has beside the usual, by key.
        result_required (tuple of str): which of them every result has.
        structure_legend (str): in the report, above :meth:`structure_table`.
        quick_explanation (str): printed below the table of a quick run; ``{schedules}`` and
            ``{table}`` are replaced.
    """

    name = ""
    settings: type[Settings] = Settings
    title = ""
    section = ""
    table = ""
    figure = ""
    networks: dict[str, str] = {}
    selected = ""
    part = ""
    parts = ""
    penalties: tuple[str, ...] = ()
    methods: dict[str, Method] = {"sno": PROPOSED}
    result_properties: dict[str, Any] = {}
    result_required: tuple[str, ...] = ()
    structure_legend = ""
    quick_explanation = ""

    @property
    def help(self) -> str:
        """What the command line says of it."""
        return f"section {self.section}" if self.section else self.title

    def heading(self) -> str:
        """Return the experiment and its data set for a heading: ``Unit selection on MNIST``."""
        return f"{self.title} on {self.settings().data.title}"

    @property
    def training(self) -> Any:
        """The subclass of :class:`reproduce.training.Training`; imports Chainer."""
        raise NotImplementedError

    def grid(self, values: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
        """Return what varies within each method.

        Args:
            values (dict): further settings of every run, by name.

        Returns:
            dict: lists of dictionaries of settings, by method, in the order of training.
        """
        return {"sno": [{"epsilon0": parse_epsilon0(text)} for text in self.penalties]}

    def quick(self, seed: int) -> Sequence[Settings]:
        """Return the settings of a quick run, the longest first, so that no core idles at the end.

        Args:
            seed (int): of every run.
        """
        raise NotImplementedError

    def place_and_label(self, settings: Settings) -> tuple[tuple[Any, ...], str]:
        """Return the place of a setting in its table, which can be compared, and its label.

        The penalties come in the order of the grid, then the baselines from small to large.
        """
        varied = settings.varied()
        if settings.epsilon0 is not None:
            label = format_epsilon0(settings.epsilon0)
            known = label in self.penalties
            place = self.penalties.index(label) if known else len(self.penalties)
            return (0, place, -settings.epsilon0), f"epsilon0 = {label}"
        for name, method in varied.items():
            if method == settings.method:
                value, own = getattr(settings, name), self.methods[method]
                return (1, value), own.label.format(own.written(value))
        return (2,), settings.method

    def sizes(self, result: Mapping[str, Any]) -> list[int]:
        """Return what is selected in each part, a list of int, from the result of a run."""
        return result[self.selected]

    def structure(self, settings: Any, bits: Array) -> dict[str, Any]:
        """Return what a result says of a structure, for reports of runs that have not ended.

        Args:
            settings (Settings): of the run.
            bits (numpy.ndarray): bool of shape (d,).

        Returns:
            dict: with :attr:`selected` among the keys.

        Raises:
            ReproduceError: the experiment does not say it.
        """
        raise ReproduceError(
            f"the experiment {self.name} does not say what a structure selects: define structure "
            "in its class"
        )

    def draw(
        self, record: Record, title: str, figures: Any
    ) -> list[tuple[str, Callable[[], Any], str]]:
        """Return the figures of one record that only this experiment has.

        Args:
            record (dict): of a run.
            title (str): for the figures.
            figures (module): :mod:`reproduce.figures`, which imports the experiments and therefore
                is not imported here.

        Returns:
            list of tuple: of each an ending for the name of its files, a function without arguments
            that draws it, and a sentence.
        """
        return []

    def structure_table(self, records: Iterable[Record]) -> tuple[Sequence[str], Cells]:
        """Return a table about the structures of runs.

        Args:
            records (list of dict): of the experiment, at one schedule; only ``settings`` and
                ``result`` are read.

        Returns:
            tuple: names of the columns, and a list of cells for each record; empty for none.
        """
        return (), []

    def input_words(self, settings: Any) -> str:
        """Return what an exported network takes, in words.

        Raises:
            ReproduceError: the network cannot be exported.
        """
        raise ReproduceError(
            f"{settings.name!r} cannot be exported: the experiment {self.name} does not say what "
            "its network takes; define input_words in its class"
        )
