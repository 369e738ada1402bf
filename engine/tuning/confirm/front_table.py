"""The Pareto front of a search with several metrics, listed."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from engine.config.messages import one_line, shown
from engine.tuning.confirm.confirm import front
from engine.tuning.study.trials import Objective, complete

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


def on_front(trials: Sequence[FrozenTrial], objectives: Sequence[Objective]) -> list[FrozenTrial]:
    """The trials that no other one beats in every metric at once, by the first metric."""
    numbers = set(front(trials, objectives))
    found = [trial for trial in complete(trials) if trial.number in numbers]
    return sorted(found, key=lambda trial: -objectives[0].sign * trial.values[0])


def screen_table(
    found: Sequence[FrozenTrial], objectives: Sequence[Objective], *, title: str
) -> Table:
    """For the terminal: number, values and what was set."""
    table = Table(box=SIMPLE_HEAD, title_justify="left", title=Text(one_line(title)))
    table.add_column("trial", justify="right")
    for objective in objectives:
        table.add_column(objective.metric, justify="right")
    table.add_column("sets")
    for trial in found:
        values = [f"{value:.4f}" for value in trial.values]
        words = [
            f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={shown(v)}"
            for k, v in trial.params.items()
        ]
        table.add_row(str(trial.number), *values, Text(one_line(" ".join(words))))
    return table


def csv_text(found: Sequence[FrozenTrial], objectives: Sequence[Objective]) -> str:
    """The same with full precision, one column a key; empty where a trial does not have it."""
    keys = sorted({key for trial in found for key in trial.params})
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["trial", *(objective.metric for objective in objectives), *keys])
    for trial in found:
        rows.writerow([trial.number, *trial.values, *(trial.params.get(key) for key in keys)])
    return text.getvalue()
