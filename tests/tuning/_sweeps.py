"""Small real sweeps for the tests: drawn images, a real network, seconds at most."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import yaml

import sweep
from engine.config.load import dump, flatten, load
from engine.tuning.search import command_line
from engine.tuning.study.folder import StudyFolder
from engine.tuning.study.trials import RUN, ended_trials
from tests._runs import small_config

STUDY = "study"


def arguments(root: Path, text: str, *words: str) -> list[str]:
    """The command line of a small sweep below ``root``."""
    base, path = root / "base.yaml", root / "search.yaml"
    base.write_text(dump(small_config(root)))
    path.write_text(text)
    return [str(base), *words, "--search", str(path), "--study", STUDY]


def small_sweep(root: Path, text: str, *words: str, trials: int | None = None) -> int:
    """Make it in this process, without what comes after search and confirm; the exit code."""
    options = ["--join"] if trials is None else ["--join", "--trials", str(trials)]
    return sweep.main([*arguments(root, text, *words), *options])


def folder_of(root: Path) -> StudyFolder:
    return StudyFolder(root / STUDY)


def study_of(root: Path) -> optuna.Study:
    """As it is on the disk."""
    return optuna.load_study(study_name=STUDY, storage=f"sqlite:///{root / STUDY / 'study.db'}")


def search_of(root: Path, text: str, *words: str) -> Any:
    return command_line.parse(arguments(root, text, *words)).search


def check_arrival(root: Path) -> None:
    """Every value that was sampled stands in the config.yaml that its trial was trained with."""
    trials = ended_trials(study_of(root))
    assert trials
    for trial in trials:
        path = folder_of(root).runs / trial.user_attrs[RUN] / "config.yaml"
        written = flatten(load([path]))
        assert trial.params.items() <= written.items(), (trial.number, trial.params)
        assert yaml.safe_load(path.read_text())["track"]["name"] == "trials"
