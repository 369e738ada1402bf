"""One process's sitting at a study: open it, then work on it until it is done."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
from rich.console import Console

from engine.config.schema import Config
from engine.tuning.search.search import Search
from engine.tuning.search.space import warmup
from engine.tuning.study.display import Display
from engine.tuning.study.optuna_parts import make_pruner
from engine.tuning.study.processes import starter_is_gone
from engine.tuning.study.storage import PatientStorage, claim_of
from engine.tuning.study.study import StudyFolder, num_trials
from engine.tuning.study.trial import TrialRunner
from engine.tuning.study.worker import Worker


@dataclass(frozen=True)
class Sitting:
    """A study, open in this process, and what a person sees of it."""

    search: Search
    folder: StudyFolder
    storage: PatientStorage
    study: optuna.Study
    display: Display

    def close(self) -> None:
        """Leave: give the connections to the storage back."""
        self.storage.close()


def folder_of(search: Search) -> StudyFolder:
    """``<track.root>/<study>``."""
    return StudyFolder(Path(search.base().track.root).expanduser() / search.study)


def sit_down(
    search: Search,
    configs: Sequence[Config],
    *,
    url: str | None = None,
    is_joining: bool = False,
    console: Console | None = None,
) -> Sitting:
    """Open the study of a search, made where it is not there yet.

    Args:
        search: the search.
        configs: what :func:`engine.tuning.search.space.checked` found it to be able to ask for.
        url: of the storage; None for the file in the study folder.
        is_joining: whether another process has made the study, or is about to.
        console: where to print; default the terminal.

    Raises:
        ConfigError: the storage cannot be used, or the study is one of another search.
    """
    by_epoch = search.file.pruner.name in ("median", "hyperband")
    quiet = warmup(search, list(configs)) if by_epoch else None
    display = Display(search.file.metrics, num_trials=num_trials(search), console=console)
    if quiet is not None:
        display.say(f"nothing is pruned before epoch {quiet.epochs}: {quiet.reason}")
    folder = folder_of(search)
    opening = 60.0 if is_joining else 0.0  # who joins knows that the storage is there
    storage = folder.open_storage(url, say=display.say, opening=opening)
    study = folder.open(search, storage, claim=claim_of(storage, study=search.study))
    study.pruner = make_pruner(
        search, quiet, epochs=max(config.schedule.epochs for config in configs)
    )
    return Sitting(search, folder, storage, study, display)


def work(sitting: Sitting, *, command: Sequence[str]) -> TrialRunner | None:
    """Search until nothing is left to do; torch is imported and data are loaded once.

    Args:
        sitting: at the study.
        command: recorded in each run's environment.json.

    Returns:
        What trains further runs of this search; None where it stopped for a reason other than
        being done or out of time.
    """
    search, study, display = sitting.search, sitting.study, sitting.display

    def watch(number: int, epoch: int, epochs: int) -> None:
        display.epoch(number, epoch, epochs)
        display.show_at_times(study)

    runner = TrialRunner(search, sitting.folder, command=command, watch=watch)
    worker = Worker(
        search=search,
        folder=sitting.folder,
        study=study,
        storage=sitting.storage,
        claim=claim_of(sitting.storage, study=search.study),
        runner=runner,
        num_trials=num_trials(search),
        deadline=time.monotonic() + (search.file.budget.timeout or math.inf),
        refresh=display.show,
        is_wanted=lambda: not starter_is_gone(),
    )
    return runner if worker.run() in ("done", "timeout") else None
