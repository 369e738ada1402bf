"""Optuna's samplers and pruners, as a search file names them."""

from __future__ import annotations

import warnings

import optuna
from optuna.exceptions import ExperimentalWarning

from engine.tuning.search import Search
from engine.tuning.search.pruning import PruningStart


def make_sampler(name: str, *, seed: int) -> optuna.samplers.BaseSampler:
    """Return the sampler ``tpe``, ``gp`` or ``random``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if name == "tpe":
            return optuna.samplers.TPESampler(seed=seed)
        if name == "gp":
            return optuna.samplers.GPSampler(seed=seed)
        return optuna.samplers.RandomSampler(seed=seed)


def make_pruner(
    search: Search, start: PruningStart | None, *, epochs: int
) -> optuna.pruners.BasePruner:
    """Return the pruner of the search file; those that compare epochs begin at ``start``."""
    name = search.file.pruner.name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if name == "wilcoxon":
            return optuna.pruners.WilcoxonPruner(p_threshold=0.1)
        if start is None:
            return optuna.pruners.NopPruner()
        if name == "median":
            return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=start.epochs)
        return optuna.pruners.HyperbandPruner(
            min_resource=max(start.epochs, 1), max_resource=epochs, reduction_factor=3
        )
