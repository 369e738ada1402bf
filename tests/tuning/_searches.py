"""Small searches over drawn images, and ended studies of them that cost no training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna

import train
from engine.config.schema import Config
from engine.training.summary import Summary
from engine.tuning.search import Search
from engine.tuning.search.schema import Choice, Confirm, Range, SearchFile
from engine.tuning.study.folder import StudyFolder
from tests._runs import quiet_screen, small_words

SPACE = {
    "loss": Choice(values=("cross_entropy", "softmax_focal")),
    "loss.gamma": Range(kind="float", low=0, high=5, where={"loss": ("softmax_focal",)}),
    "optim.lr": Range(kind="float", low=0.001, high=1, log=True),
}
FOCAL = {"loss": "softmax_focal", "loss.gamma": 1.0, "optim.lr": 0.05}
SLOW = {"loss": "cross_entropy", "optim.lr": 0.001}
DEFAULT = {"loss": "cross_entropy", "optim.lr": 0.05}


def search_of(
    root: Path,
    *words: str,
    top: int = 2,
    seeds: int = 2,
    metrics: Sequence[str] = ("val/balanced_accuracy",),
) -> Search:
    """A search over `SPACE` around a small run of one epoch."""
    file = SearchFile(metrics=tuple(metrics), space=SPACE, confirm=Confirm(top=top, seeds=seeds))
    overrides = tuple(small_words(root, "schedule.epochs=1", *words))
    return Search(file, path=Path("tiny.yaml"), files=(), overrides=overrides, study="tiny")


def ended_study(
    search: Search, folder: StudyFolder, trials: Sequence[tuple[Mapping[str, Any], Any]]
) -> optuna.Study:
    """A study in the folder's own database, with these parameters and values."""
    from engine.tuning.search.space import constants_of, suggest

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.path.mkdir(parents=True)
    study = optuna.create_study(
        storage=f"sqlite:///{folder.database}",
        study_name=search.study,
        directions=list(search.file.directions),
    )
    for params, value in trials:
        study.enqueue_trial(dict(params))
        trial = study.ask()
        suggest(trial, search.file.space, constants=constants_of(search))
        study.tell(trial, value)
    return study


def folder_of(root: Path) -> StudyFolder:
    """The study folder of :func:`search_of`."""
    return StudyFolder(root / "tiny")


def quiet_run(config: Config) -> Summary:
    """``train.run``, unseen."""
    return train.run(config, screen=quiet_screen())
