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
            return LateMedianPruner(n_startup_trials=5, n_warmup_steps=start.epochs)
        return optuna.pruners.HyperbandPruner(
            min_resource=max(start.epochs, 1), max_resource=epochs, reduction_factor=3
        )


class LateMedianPruner(optuna.pruners.MedianPruner):
    """Optuna's, which reads all trials before it sees that its warm-up is not over.

    Args:
        n_startup_trials: whole trials that it waits for.
        n_warmup_steps: epochs in which nothing is pruned.
    """

    def __init__(self, *, n_startup_trials: int, n_warmup_steps: int) -> None:
        super().__init__(n_startup_trials=n_startup_trials, n_warmup_steps=n_warmup_steps)
        self.warmup = n_warmup_steps

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        """Return whether the trial is worse than the median of the others in its last epoch."""
        step = trial.last_step
        return step is not None and step >= self.warmup and super().prune(study, trial)
