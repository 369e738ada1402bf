"""Searches that ended with fewer trials than their budget, which are held against others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.tuning.search.space import num_trials
from engine.tuning.study import trials

if TYPE_CHECKING:
    from optuna import Study

    from engine.tuning.search import Search


def shortfall(search: Search, study: Study) -> str:
    """Return how many of its trials a search has made, and why; empty where it has made all."""
    wanted, ended = num_trials(search), trials.ended_trials(study)
    if wanted is None or len(ended) >= wanted:
        return ""
    said = f"{len(ended)} of {wanted} trials"
    if trials.all_non_finite(ended):
        said += f", as the last {trials.NON_FINITE_IN_A_ROW} diverged"
    return said
