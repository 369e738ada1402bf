"""What trackers are sent: numbers of an epoch, of single classes and of the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from engine.config import choices
from engine.config.schema import Config
from engine.report.tracking._base import Closing, Confusion
from engine.training.run_folder import data_name

if TYPE_CHECKING:
    from engine.training.evaluation import Assessment
    from engine.training.metrics.per_class import PerClass
    from engine.training.summary import Summary

SCALARS_WITH_PRECISION = 20  # classes up to which precision and F1 are scalars too
SCALARS_AUTO = 1000  # classes up to which recall is a scalar a class
CONFUSION_CLASSES = 100
# A tracker may hold rows back for so long before they are safe from a kill.
UNSAFE_SECONDS = 1.0

PerClassMode = Literal["auto", "scalars", "table", "off"]


def run_name(config: Config) -> str:
    """Return the data, the method and the seed of a run, as in ``digits-ldam-cosine-seed0``.

    The method is the loss and the choices beside it that are not the usual ones. A folder of
    images is called by its own name, as the folder of its runs is.
    """
    method = [config.loss.name]
    chosen = {
        "reweight.scheme": config.reweight.scheme,
        "sampler.name": config.sampler.name,
        "model.head": config.model.head,
    }
    method += [name for key, name in chosen.items() if name != choices.of(key).default]
    method += [name for name in ("mixup", "cutmix") if getattr(config.mixup, name)]
    return "-".join([data_name(config), *method, f"seed{config.seed}"])


def class_labels(names: Sequence[str]) -> list[str]:
    """Return ``003_cat`` for each name, which sorts by class number wherever keys are listed."""
    width = len(str(max(len(names) - 1, 1)))
    width = max(width, 3)
    return [f"{number:0{width}d}_{name}" for number, name in enumerate(names)]


def values_of(
    row: Mapping[str, Any],
    names: Sequence[str],
    *,
    mode: PerClassMode,
    scores: PerClass | None = None,
) -> dict[str, Any]:
    """Return what one epoch sends: the defined scalars of its line, and single classes.

    Args:
        row: A line of metrics.jsonl.
        names: Class names.
        mode: ``auto`` sends scalars up to 1,000 classes (precision and F1 up to 20) and a histogram
            of recalls beyond; ``table`` the histogram only; ``off`` nothing. A histogram is an
            array (C,).
        scores: Of the classes on validation; without, their recall is read off ``row``.
    """
    scalars = {k: v for k, v in row.items() if v is not None and not isinstance(v, list)}
    if scores is not None:
        found = {kind: getattr(scores, kind) for kind in ("recall", "precision", "f1")}
    elif "val/recall" in row:
        found = {"recall": np.array(row["val/recall"], dtype=float)}
    else:
        return scalars
    return {**scalars, **_per_class(found, names, mode=mode)}


def _per_class(
    scores: Mapping[str, np.ndarray], names: Sequence[str], *, mode: PerClassMode
) -> dict[str, Any]:
    if mode == "off":
        return {}
    if mode == "scalars" or (mode == "auto" and len(names) <= SCALARS_AUTO):
        return {
            f"val/{kind}/{label}": float(value)
            for kind, values in scores.items()
            if kind == "recall" or len(names) <= SCALARS_WITH_PRECISION
            for label, value in zip(class_labels(names), values, strict=True)
        }
    return {"val/recall_histogram": scores["recall"][np.isfinite(scores["recall"])]}


def logged_again(rows: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield the rows that a killed run may not have brought to its trackers, oldest first.

    These are the last one, which may have been written a moment before the kill, and those of the
    last second, which a tracker may still have held in memory.
    """
    seconds, first = 0.0, len(rows)
    while first > 0 and seconds < UNSAFE_SECONDS:
        first -= 1
        seconds += rows[first]["time/epoch_seconds"]
    yield from rows[first:]


def closing_values(summary: Summary) -> dict[str, Any]:
    """Return the numbers of a summary: ``test/val/accuracy`` is test by the rule val."""
    values = {
        f"{split}/{rule}/{metric}": value
        for rule, result in summary.rules.items()
        for split, scalars in (("val", result.val), ("test", result.test))
        for metric, value in (scalars or {}).items()
        if value is not None
    }
    return {**values, "headline": summary.headline}


def closing_of(
    summary: Summary, *, test: Assessment, figures: Mapping[str, Path] | None = None
) -> Closing:
    """Return what the end of a run sends: numbers, one row a class, predictions, figures."""
    classes = [result.model_dump() for result in summary.result.classes]
    confusion = Confusion(
        test.predictions.targets.tolist(),
        test.metrics.rows.predictions.tolist(),
        [str(row["name"]) for row in classes],
    )
    return Closing(
        values=closing_values(summary),
        images={f"figures/{name}": path for name, path in (figures or {}).items()},
        classes=classes,
        confusion=confusion if len(classes) <= CONFUSION_CLASSES else None,
    )
