"""Optuna's sampler and pruner of a search file."""

from __future__ import annotations

import random
import warnings

import optuna
from optuna.exceptions import ExperimentalWarning

from engine.tuning.search.search import Search
from engine.tuning.search.space import Warmup


def make_sampler(search: Search, *, number: int) -> optuna.samplers.BaseSampler:
    """The sampler for the trial that will be the ``number``-th of the study.

    Seeded trial by trial: workers, and a sweep that goes on, never draw the same numbers twice, and
    a sweep of one worker is the same sweep however often it was stopped.
    """
    name, seed = search.file.sampler.name, search.file.sampler.seed
    drawn = random.Random(f"{seed}/{number}").getrandbits(32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if name == "tpe":
            return optuna.samplers.TPESampler(seed=drawn)
        if name == "gp":
            return optuna.samplers.GPSampler(seed=drawn)
        return optuna.samplers.RandomSampler(seed=drawn)


def make_pruner(search: Search, warmup: Warmup | None, *, epochs: int) -> optuna.pruners.BasePruner:
    """The pruner of the search file; those that compare epochs leave ``warmup`` alone."""
    name = search.file.pruner.name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if name == "wilcoxon":
            return optuna.pruners.WilcoxonPruner(p_threshold=0.1)
        if warmup is None:
            return optuna.pruners.NopPruner()
        if name == "median":
            return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=warmup.epochs)
        return optuna.pruners.HyperbandPruner(
            min_resource=max(warmup.epochs, 1), max_resource=epochs, reduction_factor=3
        )
