"""The study folder, and how an Optuna study is read: which trials have ended, and how."""

from __future__ import annotations

import contextlib
import csv
import io
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from engine.config.mistakes import ConfigError
from engine.config.schema import Config
from engine.training.files import write_text
from engine.tuning.search.search import Search
from engine.tuning.search.space import grid

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from engine.tuning.study.storage import Claim, PatientStorage

Outcome = Literal["complete", "pruned", "non-finite", "out of memory"]
RUN = "run"  # user attribute of a trial: its run folder below trials/, of its first seed
OUTCOME = "outcome"  # user attribute of a trial that ended without a value
NON_FINITE_IN_A_ROW = 10
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
        """``config`` with its run folder inside this study's, in the study's W&B group."""
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
        """The storage at ``url``; without one, the SQLite file of this folder.

        Args:
            url: SQLAlchemy's.
            say: told when the storage is gone, and when it is back.
            patience: see :func:`engine.tuning.study.storage.open_storage`.

        Raises:
            ConfigError: it cannot be used.
        """
        from engine.tuning.study.storage import Address, open_storage

        self.path.mkdir(parents=True, exist_ok=True)
        return open_storage(Address(url or f"sqlite:///{self.database}"), say=say, **patience)

    def open(self, search: Search, storage: PatientStorage, *, claim: Claim) -> optuna.Study:
        """The study, made where it is not there yet, with what is tried first in its queue.

        Raises:
            ConfigError: the study was made for another space or base config.
        """
        import optuna

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
                for values in first_points(search):
                    study.enqueue_trial(values, skip_if_exists=True)
                study.set_user_attr(IDENTITY, search.identity())
        return study

    def write_csv(self, study: optuna.Study, metrics: Sequence[str]) -> None:
        """Write one row a trial that has ended: number, outcome, values, keys, seconds."""
        trials = ended_trials(study)
        keys = sorted({key for trial in trials for key in trial.params})
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["trial", "outcome", *metrics, *keys, "seconds", "run"])
        for trial in trials:
            seconds = trial.duration.total_seconds() if trial.duration is not None else None
            values = trial.values or [None] * len(metrics)
            found = [trial.params.get(key) for key in keys]
            run = trial.user_attrs.get(RUN)
            rows.writerow([trial.number, outcome_of(trial), *values, *found, seconds, run])
        write_text(self.trials_csv, text.getvalue())


def first_points(search: Search) -> list[dict[str, Any]]:
    """What is tried before the sampler is asked: ``enqueue``, then all of a grid."""
    points = [dict(values) for values in search.file.enqueue]
    if search.file.sampler.name == "grid":
        # A queue, and not Optuna's GridSampler, which repeats points when several workers ask.
        cells = grid(search)
        random.Random(search.file.sampler.seed).shuffle(cells)
        points += [cell for cell in cells if cell not in points]
    return points


def num_trials(search: Search) -> int | None:
    """Parameter sets to end; None where only time ends the search."""
    if search.file.sampler.name != "grid":
        return search.file.budget.trials
    size = len(first_points(search))
    return min(size, search.file.budget.trials or size)


@contextlib.contextmanager
def held(claim: Claim) -> Iterator[None]:
    """Hold a claim inside the block."""
    claim.acquire()
    try:
        yield
    finally:
        claim.release()


def outcome_of(trial: FrozenTrial) -> Outcome | None:
    """How a trial ended; None while it runs or waits, and of one that was killed.

    A killed trial is run again under another number, which is the one that counts.
    """
    if trial.state.name == "COMPLETE":
        return "complete"
    if trial.state.name == "PRUNED":
        outcome: Outcome = trial.user_attrs.get(OUTCOME, "pruned")
        return outcome
    return None


def ended_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that count, in the order of their numbers: complete, pruned, non-finite."""
    return [trial for trial in study.get_trials(deepcopy=False) if outcome_of(trial) is not None]


def all_non_finite(ended: Sequence[FrozenTrial]) -> bool:
    """Whether the last ten trials that ended all diverged: the next would too."""
    by_time = sorted(ended, key=lambda trial: trial.datetime_complete.timestamp())  # type: ignore[union-attr]
    last = by_time[-NON_FINITE_IN_A_ROW:]
    return len(last) == NON_FINITE_IN_A_ROW and {outcome_of(t) for t in last} == {"non-finite"}


def config_of(trial: FrozenTrial, search: Search) -> Config:
    """The config that a trial trained, with the base config's ``track`` section."""
    return search.config(trial.params)
