"""The study in the trackers: one run beside its trials, with the figures and the best values."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from engine.report.tracking import Closing, TrackedRun, start
from engine.training.provenance import new_run_id
from engine.tuning.search import Search
from engine.tuning.study.folder import StudyFolder
from engine.tuning.study.trials import ended_trials, outcome_of

if TYPE_CHECKING:
    import optuna

WANDB_ID = "wandb_id"  # user attribute of a study


def record(
    search: Search,
    folder: StudyFolder,
    *,
    study: optuna.Study,
    figures: Iterable[str],
    say: Callable[[str], None],
) -> None:
    """Make a run of the study in every tracker of its trials, in their group.

    Args:
        search: what was searched, which becomes the run's config.
        folder: of the study; trackers write below it.
        study: that has ended.
        figures: names of those that are in the folder already.
        say: called with one line where a tracker does not work.
    """
    base = search.base
    ended = ended_trials(study)
    values: dict[str, Any] = {"trials": len(ended)}
    for outcome in ("complete", "pruned", "non-finite"):
        values[f"trials/{outcome}"] = sum(outcome_of(trial) == outcome for trial in ended)
    if len(search.file.metrics) == 1 and values["trials/complete"]:
        values |= {"objective": study.best_value, "best_trial": study.best_trial.number}
        values |= {f"best/{key}": value for key, value in study.best_params.items()}
    if (run_id := study.user_attrs.get(WANDB_ID)) is None:
        run_id = new_run_id("study")
        study.set_user_attr(WANDB_ID, run_id)
    tracked = TrackedRun(
        folder=folder.path,
        root=folder.path,
        run_id=run_id,
        name=f"{search.study}-study",
        group=search.study,
        config={**search.file.model_dump(mode="json"), "base": base.model_dump(mode="json")},
    )
    trackers = start(base.track, tracked, say=say)
    images = {f"figures/{name}": folder.figures / f"{name}.png" for name in figures}
    trackers.close(Closing(values, images))
    trackers.finish()
