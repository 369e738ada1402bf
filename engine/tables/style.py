"""What of a table is shown, and how its numbers are printed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from engine.config.metrics import metrics
from engine.tables.aggregate import METRICS

NO_SHARE = tuple(name for name, metric in metrics().items() if not metric.share)
"""Metrics that are not a share of anything, and so never a percentage."""


@dataclass(frozen=True)
class Style:
    """What of a table is shown, and how.

    Attributes:
        columns: metrics; the difference to the baseline is that of the first.
        is_percent: accuracies and their like in percent, one decimal.
        marks: what is bold: a distinguishable ``difference``, or the ``best`` mean of a column, the
            second being underlined.
        has_costs: whether columns say what the rows have cost.
        labels: how rows are called; a method without a label goes by its name.
    """

    columns: tuple[str, ...] = tuple(METRICS)
    is_percent: bool = False
    marks: Literal["difference", "best"] = "difference"
    has_costs: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)

    def label(self, method: str) -> str:
        """Return how a row is called."""
        return self.labels.get(method, method)

    def number(self, value: float, metric: str) -> str:
        """Return a value as the table prints it."""
        if self.is_percent and metric not in NO_SHARE:
            return f"{100 * value:.1f}"
        return f"{value:.3f}"

    def signed(self, value: float, metric: str) -> str:
        """Return a difference as the table prints it; what rounds to 0 has no sign."""
        text = self.number(abs(value), metric)
        sign = ("+" if value > 0 else "\N{MINUS SIGN}") if float(text) else ""
        return sign + text
