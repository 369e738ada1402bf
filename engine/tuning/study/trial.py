"""One trial: sampled values become a config, the config a run, the run a value."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
import torch
from optuna.trial import Trial

import data
import train
from engine.config.load import fingerprint
from engine.config.mistakes import ConfigError
from engine.config.schema import Config
from engine.report.terminal import Terminal
from engine.training.divergence import DivergenceError
from engine.training.patience import Patience
from engine.training.run_folder import BusyError, RunFolder
from engine.training.setup import KeptDataset
from engine.training.signals import EndedEarly
from engine.training.summary import Summary
from engine.tuning.search import Search
from engine.tuning.search.space import constants_of, suggest
from engine.tuning.study.folder import StudyFolder
from engine.tuning.study.trials import OUTCOME, RUN, outcome_of

WAIT = 1.0  # seconds between looks at a run folder that another process is writing

Watch = Callable[[int, int, int], None]
"""Told after every epoch: the trial's number, the epoch (1-based), epochs in all."""


class TrialRunner:
    """Trains trials, one after the other.

    Args:
        search: what every trial shares.
        folder: where their run folders go.
        command: recorded in each run's environment.json.
        watch: told after every epoch.
    """

    def __init__(
        self,
        search: Search,
        folder: StudyFolder,
        *,
        command: Sequence[str],
        watch: Watch,
    ) -> None:
        self.search, self.folder = search, folder
        self.command, self.watch = command, watch
        self.has_pruner = search.file.pruner.name != "none"
        self.datasets = KeptDataset()
        self._constants = constants_of(search)

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """Return the values of the keys that exist in this trial."""
        return suggest(trial, self.search.file.space, constants=self._constants)

    def train(self, trial: Trial, params: Mapping[str, Any]) -> float | Sequence[float]:
        """Train with these values, once a seed, and return the mean of each metric.

        Raises:
            TrialPruned: the trial has ended without a value: pruned, not finite or out of memory.
            ConfigError: a mistake that only the data, timm or the machine could reveal.
        """
        config = self.folder.trial_config(self.search.config(params))
        run = fingerprint(config)
        trial.set_user_attr(RUN, run)
        if _has_diverged(run, trial.study):
            trial.set_user_attr(OUTCOME, "non-finite")
            raise optuna.TrialPruned("a trial with this run has diverged")
        seeds = self.search.seeds
        values: list[list[float]] = []
        try:
            for number, seed in enumerate(seeds):
                seeded = config.model_copy(update={"seed": seed})
                summary = self._run(trial, seeded, by_epoch=len(seeds) == 1)
                values.append([self._value(summary, m) for m in self.search.file.metrics])
                if self.has_pruner and len(seeds) > 1:
                    trial.report(values[-1][0], step=number)
                    if trial.should_prune():
                        raise EndedEarly
        except EndedEarly:
            raise optuna.TrialPruned from None
        except DivergenceError as error:
            trial.set_user_attr(OUTCOME, "non-finite")
            raise optuna.TrialPruned(str(error)) from error
        except torch.OutOfMemoryError as error:
            trial.set_user_attr(OUTCOME, "out of memory")
            raise optuna.TrialPruned(str(error)) from error
        means = [statistics.fmean(column) for column in zip(*values, strict=True)]
        return means[0] if len(means) == 1 else means

    def run_whole(self, config: Config) -> Summary:
        """Train one run of the confirm stage, which ends with test."""
        dataset = self._dataset(config)
        return train.run(config, dataset=dataset, command=self.command, screen=Terminal.silent())

    def _dataset(self, config: Config) -> data.LongTailed:
        dataset = self.datasets.of(config)
        if dataset.val is None:
            raise ConfigError(
                [f"{config.evaluate.metric}: {dataset.title} has no validation split"]
            )
        return dataset

    def _run(self, trial: Trial, config: Config, *, by_epoch: bool) -> Summary:
        """Train one run; where another process is writing it, wait and take its result."""
        epochs, metric = config.schedule.epochs, config.evaluate.metric
        patience = Patience(config)  # what it ends is whole, and is not pruned in its last epoch
        reported: set[int] = set()  # a resumed run makes those since its checkpoint again

        def report(epoch: int, row: Mapping[str, Any]) -> None:
            self.watch(trial.number, epoch, epochs)
            if epoch in reported:
                return
            reported.add(epoch)
            patience.update(row)
            value, is_last = row.get(metric), epoch >= epochs or patience.is_over
            if self.has_pruner and by_epoch and value is not None and not is_last:
                trial.report(value, step=epoch)
                if trial.should_prune():
                    raise EndedEarly

        dataset = self._dataset(config)
        past = RunFolder(self.folder.runs / fingerprint(config))
        while True:
            if not past.validation.exists():
                for row in past.rows():  # of the same trial, killed; or of one with these values
                    report(row["epoch"], row)
            try:
                return train.run(
                    config,
                    report=report,
                    test=False,
                    dataset=dataset,
                    command=self.command,
                    screen=Terminal.silent(),
                )
            except BusyError:
                time.sleep(WAIT)

    def _value(self, summary: Summary, metric: str) -> float:
        found = (summary.result.val or {}).get(metric.removeprefix("val/"))
        if found is None:
            raise ConfigError(
                [f"{metric}: is undefined on this data set; search by another metric"]
            )
        return found


def _has_diverged(run: str, study: optuna.Study) -> bool:
    """Return whether a trial of this run, which computes the same again, has diverged."""
    return any(
        trial.user_attrs.get(RUN) == run and outcome_of(trial) == "non-finite"
        for trial in study.get_trials(deepcopy=False)
    )
