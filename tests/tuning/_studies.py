"""Small real studies in SQLite, the same every time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import optuna
from optuna.trial import Trial

from engine.tuning.study.trials import Objective

BALANCED = Objective("val/balanced_accuracy", "maximize")
NLL = Objective("val/nll", "minimize")
WORST = Objective("val/worst_class_recall", "maximize")


def study_of(
    folder: Path,
    objective: Callable[[Trial], float | Sequence[float]],
    *,
    trials: int,
    directions: Sequence[str] = ("maximize",),
) -> optuna.Study:
    """Run ``objective`` so many times, with random proposals."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=f"sqlite:///{folder / 'study.db'}",
        directions=list(directions),
        sampler=optuna.samplers.RandomSampler(seed=0),
    )
    study.optimize(objective, n_trials=trials)
    return study


def hill(trial: Trial) -> float:
    """Highest at alpha 0.3, gamma 2, with noise of 0.01; gamma matters more."""
    alpha = trial.suggest_float("loss.alpha", 0.05, 0.95)
    gamma = trial.suggest_float("loss.gamma", 0.0, 5.0)
    noise = np.random.default_rng(trial.number).normal(0, 0.01)
    return 0.7 - 0.04 * (alpha - 0.3) ** 2 - 0.02 * (gamma - 2) ** 2 + float(noise)


def conditional(trial: Trial) -> float:
    """A choice, a key that only one of its values has, a whole number, a logarithmic rate."""
    loss = trial.suggest_categorical("loss", ["cross_entropy", "softmax_focal"])
    gamma = trial.suggest_float("loss.gamma", 0, 5) if loss == "softmax_focal" else 0.0
    rate = trial.suggest_float("optim.lr", 1e-3, 1.0, log=True)
    size = trial.suggest_int("optim.batch_size", 16, 64, step=16)
    head = trial.suggest_categorical("model.head", ["linear", "cosine"])
    value = 0.6 - 0.05 * abs(math.log10(rate) + 1) - 0.01 * gamma - 0.0001 * size
    return value + 0.02 * (head == "cosine")


def two_goals(trial: Trial) -> tuple[float, float]:
    """Balanced accuracy, at its best for gamma 1, against the NLL, at its best for gamma 0."""
    gamma = trial.suggest_float("loss.gamma", 0, 3)
    rate = trial.suggest_float("optim.lr", 1e-3, 1.0, log=True)
    return 0.7 - 0.1 * (gamma - 1) ** 2, 0.5 + 0.2 * gamma + 0.1 * abs(math.log10(rate) + 1)


def with_losses(trial: Trial) -> float:
    """Of each three trials one is pruned with a value, one without, and one is complete."""
    gamma = trial.suggest_float("loss.gamma", 0, 5)
    trial.suggest_float("loss.alpha", 0, 1)
    if trial.number % 3 == 0:
        trial.report(0.1, step=1)
        raise optuna.TrialPruned
    if trial.number % 3 == 1:
        raise optuna.TrialPruned
    return 0.7 - 0.01 * gamma
