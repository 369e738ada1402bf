"""Selection rules: which epoch's weights a result is of.

``last`` is the final weights, ``val`` the best epoch by a validation metric (the earliest wins a
tie), among those in which all parts of the method have begun: before that, weights called LDAM-DRW
would be LDAM's. ``oracle``, the best *test* epoch, is read off metrics.jsonl and only ever shown
beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from engine.config.calendar import complete_from
from engine.config.metrics import metrics
from engine.config.schema import Config
from engine.training.summary import Oracle, Scalars


class Selection:
    """The rule ``val``.

    Args:
        metric: as in ``evaluate.metric``, for example ``val/balanced_accuracy``.
        first_epoch: earlier ones (counted from 1) are not chosen.
        reason: why, for those after the first.
    """

    def __init__(self, metric: str, *, first_epoch: int = 1, reason: str = "") -> None:
        self.key = metric
        self.metric = metric.removeprefix("val/")
        self.first_epoch, self.reason = first_epoch, reason

    @classmethod
    def of(cls, config: Config) -> Selection:
        """The rule of a run."""
        first_epoch, reason = complete_from(config)
        return cls(config.evaluate.metric, first_epoch=first_epoch, reason=reason)

    @property
    def needs_ranking(self) -> bool:
        """Whether every epoch must compute AUROC and average precision."""
        return metrics()[self.metric].needs == "ranking"

    def updated(
        self,
        best: dict[str, Any] | None,
        row: Mapping[str, Any],
        *,
        weights: Callable[[], dict[str, Tensor]],
    ) -> dict[str, Any] | None:
        """``best``, or this epoch with a copy of its weights if its line of metrics beats it."""
        value = row.get(self.key)
        if row["epoch"] < self.first_epoch:
            return best
        if value is None or not is_better(self.metric, value, best["value"] if best else None):
            return best
        # A copy on the CPU: training goes on in the tensors that state_dict() shares.
        state = {k: v.detach().to("cpu", copy=True) for k, v in weights().items()}
        return {"epoch": row["epoch"], "value": value, "state": state}


def is_better(metric: str, value: float, than: float | None) -> bool:
    """Whether ``value`` beats ``than`` strictly; NaN never does."""
    if torch.tensor(value).isnan():
        return False
    if than is None:
        return True
    return value > than if metrics()[metric].better == "max" else value < than


def oracle(rows: Sequence[Mapping[str, Any]], metric: str, headline: Scalars) -> Oracle | None:
    """Read the best test epoch off metrics.jsonl; None unless test was logged each epoch."""
    key = f"test/{metric}"
    best: Mapping[str, Any] | None = None
    for row in rows:
        value = row.get(key)
        if value is not None and is_better(metric, value, best[key] if best else None):
            best = row
    own = headline.get(metric)
    if best is None or own is None:
        return None
    return Oracle(epoch=best["epoch"], metric=metric, value=best[key], headline_value=own)
