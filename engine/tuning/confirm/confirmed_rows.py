"""Results of the confirm stage by setting, and which settings it cannot tell apart."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.report.statistics import (
    DASH,
    FEWEST_FOR_A_CLAIM,
    Difference,
    MeanAndStd,
    mean_and_std,
    paired_difference,
)
from engine.tuning.confirm.candidates import DEFAULT, Candidate
from engine.tuning.study.trials import Objective

if TYPE_CHECKING:
    from engine.training.summary import Summary


@dataclass(frozen=True)
class Row:
    """One setting by one metric, over the fresh seeds, by each run's headline: rule ``val``.

    Attributes:
        candidate: the setting.
        objective: the metric, and which way is better.
        searched: value in the search, of one seed or few and the best of many.
        val: over the runs that have the metric; None where none has.
        test: the same on test.
        difference: on test, to the baseline's runs of the same seeds; None of the baseline itself
            and where no pair is left.
        baseline: what the setting is compared with, in words.
        is_baseline: whether this is the baseline itself.
        diverged: runs that did, and so have no result.
        missing: runs that are not there yet.
    """

    candidate: Candidate
    objective: Objective
    searched: float | None
    val: MeanAndStd | None
    test: MeanAndStd | None
    difference: Difference | None
    baseline: str = "the default"
    is_baseline: bool = False
    diverged: int = 0
    missing: int = 0

    @property
    def verdict(self) -> str:
        """The difference in words."""
        if self.is_baseline:
            return DASH
        if self.difference is None:
            return "no pair of runs to compare"
        if not self.difference.is_distinguishable:
            number, same = self.difference.n, f"not distinguishable from {self.baseline}"
            seeds = "1 seed" if number == 1 else f"{number} seeds"
            few = f" ({seeds}; {FEWEST_FOR_A_CLAIM} make a claim)"
            return same if number >= FEWEST_FOR_A_CLAIM else same + few
        is_better = self.difference.mean * self.objective.sign > 0
        return f"{'better' if is_better else 'worse'} than {self.baseline}"


def rows(
    found: Sequence[Candidate],
    results: Mapping[tuple[str, int], Summary],
    objective: Objective,
    *,
    seeds: Sequence[int],
    diverged: Collection[tuple[str, int]] = (),
    index: int = 0,
) -> list[Row]:
    """Return one row a setting, in the order of ``found``; all are compared with the first.

    Args:
        found: the settings, the default first.
        results: summaries by the setting's name and seed.
        objective: the metric, number ``index`` of the search.
        seeds: all that were to be trained.
        diverged: setting's name and seed of the runs that have no result because of that.
        index: which of the search's values it is.
    """
    measure = objective.metric.removeprefix("val/")

    def values(name: str, split: str) -> dict[int, float]:
        found: dict[int, float] = {}
        for seed in seeds:
            if (summary := results.get((name, seed))) is not None:
                scalars = getattr(summary.result, split) or {}
                if (value := scalars.get(measure)) is not None:
                    found[seed] = value
        return found

    first = found[0].name
    baseline = values(first, "test")
    table = []
    for candidate in found:
        val, test = values(candidate.name, "val"), values(candidate.name, "test")
        paired = [seed for seed in seeds if seed in test and seed in baseline]
        is_first = candidate is found[0]
        table.append(
            Row(
                candidate,
                objective,
                searched=None if candidate.searched is None else candidate.searched[index],
                val=_over(val),
                test=_over(test),
                difference=None
                if is_first or not paired
                else paired_difference([test[s] for s in paired], [baseline[s] for s in paired]),
                baseline=f"the {first}" if first == DEFAULT else first,
                is_baseline=is_first,
                diverged=sum((candidate.name, seed) in diverged for seed in seeds),
                missing=sum((candidate.name, s) not in {*results, *diverged} for s in seeds),
            )
        )
    return table


def _over(values: Mapping[int, float]) -> MeanAndStd | None:
    return mean_and_std(list(values.values())) if values else None


def chosen(table: Sequence[Row]) -> Row | None:
    """Return the best mean on validation among the settings all of whose runs have a result.

    Test has no say. The first in the table wins a tie: the default, then by rank in the search.
    None where every setting lacks a run.
    """
    whole = [row for row in table if row.diverged == row.missing == 0 and row.val is not None]
    return max(whole, key=lambda row: row.objective.sign * row.val.mean, default=None)  # type: ignore[union-attr]


def seed_std(table: Sequence[Row]) -> float | None:
    """Return the standard deviation over seeds on validation, pooled over the settings."""
    spreads = [
        (row.val.std**2, row.val.n - 1)
        for row in table
        if row.val is not None and row.val.std is not None
    ]
    if not spreads:
        return None
    return math.sqrt(math.fsum(v * d for v, d in spreads) / sum(degrees for _, degrees in spreads))
