"""The size of the most probable structure, for reports, terminals and notebooks."""

import html
from typing import Any

from chainer_sno import complexity
from chainer_sno._import_chainer import chainer


class StructureSummary:
    """The size of the most probable structure at the time when this object is made.

    ``print`` it, or end a notebook's cell with it.

    Args:
        link (chainer.Link): a searchable link.
        bernoulli (chainer_sno.Bernoulli): the distribution.

    Attributes:
        link (str): the name of the link's class.
        criterion (str): what the costs count, see :func:`chainer_sno.complexity.criterion_of`.
        bits (tuple of int): bits that are on, and all.
        usage_rate (float): by the costs of the distribution (reading R1).
        weight_ratio (float): the fraction of the weights; None where the link does not state it.
        remaining (dict): weights and floating-point operations of one example that remain, and
            all, as pairs under ``"weights"`` and ``"flops"``; empty where the link does not state
            them (``link.remaining``).  They are those of the smaller network, which the usage rate
            is not: it counts a weight between two channels at both of its ends.
        groups (dict): from the name of a group to its bits that are on, and all of it.

    Example:
        >>> import chainer_sno
        >>> network = chainer_sno.links.MaskedMLP(8, (4, 4), 2)
        >>> chainer_sno.StructureSummary(network, chainer_sno.Bernoulli(network.costs))
        structure of MaskedMLP
          hidden_1        4 of 4  100.0%
          hidden_2        4 of 4  100.0%
          bits on         8 of 8  100.0%
          usage rate    in units  100.0%
          weight ratio            100.0%

    See Also:
        :class:`chainer_sno.extensions.StructureReport`: the same numbers during a training.

        :func:`chainer_sno.compact`: the network that remains.
    """

    def __init__(self, link: Any, bernoulli: Any) -> None:
        mode = chainer.backends.cuda.to_cpu(bernoulli.mode())
        self.link: str = type(link).__name__
        self.criterion = complexity.criterion_of(link, bernoulli)
        self.bits = int(mode.sum()), len(mode)
        self.usage_rate: float = bernoulli.usage_rate()
        self.weight_ratio: float | None = None
        if hasattr(link, "weight_ratio"):
            self.weight_ratio = link.weight_ratio(mode)
        self.remaining: dict[str, tuple[int, int]] = {}
        if hasattr(link, "remaining"):
            self.remaining = link.remaining(mode)
        self.groups: dict[str, tuple[int, int]] = {
            name: (int(mode[group].sum()), len(mode[group]))
            for name, group in getattr(link, "groups", {}).items()
        }

    def words(self) -> str:
        """Return the usage rate and what remains, in one line."""
        parts = [f"usage rate {self.usage_rate:.1%}, in {self.criterion}"]
        left = [
            f"{kept / max(whole, 1):.1%} of the {name}"
            for name, (kept, whole) in self.remaining.items()
        ]
        if not left and self.weight_ratio is not None:
            left = [f"{self.weight_ratio:.1%} of the weights"]
        return "; ".join([*parts, f"{' and '.join(left)} remain"] if left else parts)

    def _rows(self) -> list[tuple[str, str, str]]:
        """Return the lines of the table: name, bits on of all, fraction."""
        parts = {**self.groups, "bits on": self.bits}
        rows = [(name, f"{on} of {n}", f"{on / n:.1%}") for name, (on, n) in parts.items()]
        rows.append(("usage rate", f"in {self.criterion}", f"{self.usage_rate:.1%}"))
        for name, (left, whole) in self.remaining.items():
            words = f"{left:,} of {whole:,}"
            rows.append((f"{name} that remain", words, f"{left / max(whole, 1):.1%}"))
        if self.weight_ratio is not None and "weights" not in self.remaining:
            rows.append(("weight ratio", "", f"{self.weight_ratio:.1%}"))
        return rows

    def __repr__(self) -> str:
        rows = self._rows()
        first, second, third = (max(map(len, column)) for column in zip(*rows))
        lines = [f"{a:{first}}  {b:>{second}}  {c:>{third}}" for a, b, c in rows]
        return "\n".join([f"structure of {self.link}", *("  " + line.rstrip() for line in lines)])

    def _repr_html_(self) -> str:
        cells = "".join(
            f"<tr><th style='text-align:left'>{html.escape(a)}</th><td>{html.escape(b)}</td>"
            f"<td>{c}</td></tr>"
            for a, b, c in self._rows()
        )
        caption = f"structure of {html.escape(self.link)}"
        return f"<table><caption>{caption}</caption>{cells}</table>"
