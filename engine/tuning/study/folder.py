"""The study folder: the database of a study, its table of trials, and where the rest goes."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.config.mistakes import ConfigError
from engine.config.schema import Config
from engine.training.files import write_text
from engine.tuning.search import Search
from engine.tuning.study.trials import RUN, Outcome, ended_trials, outcome_of

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from engine.tuning.study.claims import Claim
    from engine.tuning.study.storage import PatientStorage

IDENTITY = "identity"  # user attribute of a study: what was searched over what


class StudyFolder:
    """``runs/<study>/``: study.db, trials.csv, best.yaml, figures/, and run folders in trials/."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database = path / "study.db"
        self.trials_csv = path / "trials.csv"
        self.best = path / "best.yaml"
        self.figures = path / "figures"
        self.runs = path / "trials"

    def trial_config(self, config: Config) -> Config:
        """Return ``config`` with its run folder inside this study's, in the study's W&B group."""
        changed: dict[str, Any] = {
            "root": str(self.runs.parent),
            "name": self.runs.name,
            "figures": False,
        }
        if config.track.is_tracked:
            changed["group"] = self.path.name
        return config.model_copy(update={"track": config.track.model_copy(update=changed)})

    def open_storage(
        self, url: str | None, *, say: Callable[[str], None], **patience: Any
    ) -> PatientStorage:
        """Connect to the storage at ``url``; without one, to the SQLite file of this folder.

        Args:
            url: SQLAlchemy's.
            say: told when the storage is gone, and when it is back.
            patience: see :func:`engine.tuning.study.storage.open_storage`.

        Raises:
            ConfigError: it cannot be used.
        """
        from engine.tuning.study.address import Address
        from engine.tuning.study.storage import open_storage

        self.path.mkdir(parents=True, exist_ok=True)
        return open_storage(Address(url or f"sqlite:///{self.database}"), say=say, **patience)

    def open(self, search: Search, storage: PatientStorage, *, claim: Claim) -> optuna.Study:
        """Open the study, or create it with what is tried first in its queue.

        Raises:
            ConfigError: the study was made for another space or base config.
        """
        import optuna

        from engine.tuning.study.claims import held

        optuna.logging.disable_default_handler()
        # Without any handler Python prints warnings by itself, in the midst of the live table.
        logging.getLogger("optuna").addHandler(logging.NullHandler())
        with held(claim):
            study = optuna.create_study(
                storage=storage,
                study_name=search.study,
                directions=search.file.directions,
                load_if_exists=True,
            )
            known = study.user_attrs.get(IDENTITY)
            if known not in (None, search.identity()):
                changed = ", ".join(
                    key for key, value in search.identity().items() if known.get(key) != value
                )
                raise ConfigError(
                    [
                        f"{self.path}: is a study of another search ({changed} changed); give this "
                        "one a name of its own with --study NAME"
                    ]
                )
            if known is None:
                for values in search.file.enqueue:
                    study.enqueue_trial(dict(values), skip_if_exists=True)
                study.set_user_attr(IDENTITY, search.identity())
        return study

    def write_csv(self, study: optuna.Study, search: Search) -> None:
        """Write one row a trial that has ended.

        A metric's column holds what whole trials found, and nothing else: the last value that
        a pruned one had reported stands apart, beside the epoch (or the number of seeds) it is of.
        """
        trials = ended_trials(study)
        metrics = search.file.metrics
        keys = sorted({key for trial in trials for key in trial.params})
        steps = "last_epoch" if search.file.seeds == 1 else "seeds_trained"
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["trial", "outcome", *metrics, *keys, steps, "last_value", "seconds", "run"])
        for trial in trials:
            outcome = outcome_of(trial)
            values = trial.values if outcome == "complete" else [None] * len(metrics)
            found = [trial.params.get(key) for key in keys]
            last = _last_report(trial, outcome, counts_from_zero=search.file.seeds > 1)
            seconds = trial.duration.total_seconds() if trial.duration is not None else None
            run = trial.user_attrs.get(RUN)
            rows.writerow([trial.number, outcome, *values, *found, *last, seconds, run])
        write_text(self.trials_csv, text.getvalue())


def _last_report(
    trial: FrozenTrial, outcome: Outcome | None, *, counts_from_zero: bool
) -> tuple[int | None, float | None]:
    """Return the last step that a trial without a value had reported, and what it was then."""
    if outcome == "complete" or not trial.intermediate_values:
        return None, None
    step, value = max(trial.intermediate_values.items())
    return step + counts_from_zero, value
