"""The study folder, and how an Optuna study is read: which trials have ended, and how."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from engine.schema import Config
from tuning.search import Search

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

Outcome = Literal["complete", "pruned", "non-finite", "out of memory"]
OUTCOME = "outcome"  # user attribute of a trial that ended without a value


class StudyFolder:
    """``runs/<study>/``: study.db, trials.csv, best.yaml, figures/, and trials/, the run folders."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database = path / "study.db"
        self.trials_csv = path / "trials.csv"
        self.best = path / "best.yaml"
        self.figures = path / "figures"
        self.runs = path / "trials"

    def trial_config(self, config: Config) -> Config:
        """``config`` with its run folder inside this study's, in the study's W&B group."""
        changed: dict[str, Any] = {
            "root": str(self.path),
            "name": self.runs.name,
            "figures": False,
        }
        if config.track.wandb != "disabled":
            changed["group"] = self.path.name
        return config.model_copy(update={"track": config.track.model_copy(update=changed)})


def outcome_of(trial: FrozenTrial) -> Outcome | None:
    """How a trial ended; None while it runs or waits, and of one that was killed.

    A killed trial is run again under another number, which is the one that counts.
    """
    if trial.state.name == "COMPLETE":
        return "complete"
    if trial.state.name == "PRUNED":
        return trial.user_attrs.get(OUTCOME, "pruned")
    return None


def ended_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that count, in the order of their numbers: complete, pruned, non-finite."""
    return [trial for trial in study.get_trials(deepcopy=False) if outcome_of(trial) is not None]


def config_of(trial: FrozenTrial, search: Search) -> Config:
    """The config that a trial trained, with the base config's ``track`` section."""
    return search.config(trial.params)
