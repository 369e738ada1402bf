"""Early stopping: training ends when the metric that chooses the epoch has stopped improving."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from engine.config.calendar import complete_from
from engine.config.metrics import metrics
from engine.config.schema import Config

PATIENCE = "(schedule.patience)"
"""What the note of a run that was cut short ends with."""


class Patience:
    """Counts the epochs since the best one by ``evaluate.metric``, and says when that is enough.

    All that it knows is in the lines of metrics.jsonl, so that a resumed run ends where one that
    was never stopped does. Epochs that the rule ``val`` may not choose are not counted; one without
    a value of the metric, or with NaN, is no better than those before it.

    Args:
        config: of the run; with ``schedule.patience`` null it is never over.
    """

    def __init__(self, config: Config) -> None:
        self.limit: int | None = config.schedule.patience
        self.metric, self.epochs = config.evaluate.metric, config.schedule.epochs
        self.first_epoch = complete_from(config).epoch
        self._epoch, self._best_epoch = 0, self.first_epoch - 1
        self._best: float | None = None

    def update(self, row: Mapping[str, Any]) -> None:
        """Take note of an epoch that has ended, by its line of metrics.jsonl."""
        self._epoch, value = row["epoch"], row.get(self.metric)
        if self._epoch < self.first_epoch or value is None:
            return
        if is_better(self.metric.removeprefix("val/"), value, self._best):
            self._best, self._best_epoch = value, self._epoch

    @property
    def is_over(self) -> bool:
        """Return whether training is to end with the epoch that has ended last."""
        return self.limit is not None and self._epoch - self._best_epoch >= self.limit

    @property
    def ends_training(self) -> bool:
        """Return whether training ends with the epoch that has ended last, by this or by length."""
        return self.is_over or self._epoch >= self.epochs

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what must be said of a run that it has cut short; nothing of any other."""
        if not self.is_over or self._epoch >= self.epochs:
            return ()
        waited = f"{self.limit} epoch" + "s" * (self.limit != 1)
        return (
            f"stopped after epoch {self._epoch} of {self.epochs}: no better {self.metric} for "
            f"{waited} {PATIENCE}",
        )


def ends_training(config: Config, rows: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether a run is trained after the epochs of these lines of metrics.jsonl."""
    patience = Patience(config)
    for row in rows:
        patience.update(row)
    return patience.ends_training


def is_better(metric: str, value: float, than: float | None) -> bool:
    """Return whether ``value`` is strictly better than ``than``; NaN never is."""
    if math.isnan(value):
        return False
    if than is None:
        return True
    return value > than if metrics()[metric].better == "max" else value < than
