"""One process's session with a study: open it, then work on it until it is done."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
from rich.console import Console

from engine.config.schema import Config
from engine.tuning.search import Search
from engine.tuning.search.pruning import pruning_start
from engine.tuning.search.space import num_trials
from engine.tuning.study.display import Display
from engine.tuning.study.folder import StudyFolder
from engine.tuning.study.optuna_parts import make_pruner
from engine.tuning.study.processes import starter_is_gone
from engine.tuning.study.storage import PatientStorage, claim_of
from engine.tuning.study.trial import TrialRunner
from engine.tuning.study.worker import Worker


@dataclass(frozen=True)
class Session:
    """A study, open in this process, and what a person sees of it."""

    search: Search
    folder: StudyFolder
    storage: PatientStorage
    study: optuna.Study
    display: Display

    def close(self) -> None:
        """Close the connections to the storage."""
        self.storage.close()


def folder_of(search: Search) -> StudyFolder:
    """Return ``<track.root>/<study>``."""
    return StudyFolder(Path(search.base.track.root).expanduser() / search.study)


def open_session(
    search: Search,
    configs: Sequence[Config],
    *,
    url: str | None = None,
    is_joining: bool = False,
    console: Console | None = None,
) -> Session:
    """Open the study of a search, or create it.

    Args:
        search: what is searched.
        configs: of the corners of its space, from :func:`engine.tuning.search.checks.checked`.
        url: of the storage; None for the file in the study folder.
        is_joining: whether another process has made the study, or is about to.
        console: where to print; default the terminal.

    Raises:
        ConfigError: the storage cannot be used, or the study is one of another search.
    """
    by_epoch = search.file.pruner.name in ("median", "hyperband")
    starts = pruning_start(search, configs) if by_epoch else None
    number, wanted = num_trials(search), search.file.budget.trials
    display = Display(search.file.metrics, num_trials=number, console=console)
    if starts is not None:
        display.say(f"nothing is pruned before epoch {starts.epochs}: {starts.reason}")
    if wanted is not None and number is not None and number < wanted:
        sets = "1 parameter set" if number == 1 else f"{number} parameter sets"
        display.say(f"budget.trials is {wanted}, and the space has {sets}: each is tried once")
    folder = folder_of(search)
    # A worker that joins waits: whoever started it is about to make the storage.
    storage = folder.open_storage(url, say=display.say, retry_seconds=60.0 if is_joining else 0.0)
    study = folder.open(search, storage, claim=claim_of(storage, study=search.study))
    study.pruner = make_pruner(
        search, starts, epochs=max(config.schedule.epochs for config in configs)
    )
    return Session(search, folder, storage, study, display)


def work_on(session: Session, *, command: Sequence[str]) -> TrialRunner | None:
    """Search until nothing is left to do; torch is imported and data are loaded once.

    Args:
        session: at the study.
        command: recorded in each run's environment.json.

    Returns:
        What trains further runs of this search; None where it stopped for a reason other than
        being done or out of time.
    """
    search, study, display = session.search, session.study, session.display

    def watch(number: int, epoch: int, epochs: int) -> None:
        display.epoch(number, epoch, epochs)
        display.show_at_times(study)

    runner = TrialRunner(search, session.folder, command=command, watch=watch)
    worker = Worker(
        search=search,
        folder=session.folder,
        study=study,
        storage=session.storage,
        claim=claim_of(session.storage, study=search.study),
        runner=runner,
        num_trials=num_trials(search),
        deadline=time.monotonic() + (search.file.budget.timeout or math.inf),
        refresh=display.show,
        is_wanted=lambda: not starter_is_gone(),
    )
    return runner if worker.run() in ("done", "timeout") else None
