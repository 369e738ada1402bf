"""Selection rules: which epoch's weights a result is of.

``last`` is the final weights, ``val`` the best epoch by a validation metric (the earliest wins a
tie). ``oracle``, the best *test* epoch, is read off metrics.jsonl and only ever shown beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from engine.schema import SELECTABLE
from engine.summary import Oracle, Scalars

RANKING = ("auroc", "average_precision")


class Selection:
    """The rule ``val``.

    Args:
        metric: as in ``evaluate.metric``, for example ``val/balanced_accuracy``.
    """

    def __init__(self, metric: str) -> None:
        self.key = metric
        self.metric = metric.removeprefix("val/")

    @property
    def needs_ranking(self) -> bool:
        """Whether every epoch must compute AUROC and average precision."""
        return self.metric in RANKING

    def updated(
        self,
        best: dict[str, Any] | None,
        row: Mapping[str, Any],
        *,
        weights: Callable[[], dict[str, Tensor]],
    ) -> dict[str, Any] | None:
        """``best``, or this epoch with a copy of its weights if its line of metrics beats it."""
        value = row.get(self.key)
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
    return value > than if SELECTABLE[metric] == "max" else value < than


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
