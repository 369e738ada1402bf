"""From stored logits to metrics, files and figures."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine import figures
from engine.loop import Predictions
from engine.metrics import Metrics, evaluate
from engine.readout import PredictsProbabilities
from engine.run_folder import write_bytes
from engine.summary import defined


@dataclass(frozen=True)
class Assessment:
    """One pass over a split: stored predictions, probabilities (N, C) float64, metrics."""

    predictions: Predictions
    probabilities: np.ndarray
    metrics: Metrics


def assess(
    predictions: Predictions,
    readout: PredictsProbabilities,
    *,
    class_counts: np.ndarray,
    num_outputs: int,
    old_classes: Sequence[int] = (),
    ranking: bool = False,
    threshold: float | None = None,
) -> Assessment:
    """Probabilities, and the metrics of them.

    Args:
        predictions: from :func:`engine.loop.predict`.
        readout: its ``predict`` turns logits into probabilities.
        class_counts: (C,) training images.
        num_outputs: logits of the model; 1 for a binary task with a sigmoid loss.
        old_classes: labels that an earlier run learnt: also their accuracy and that of the others.
        ranking: also AUROC and average precision.
        threshold: binary tasks: also F1 at this probability.
    """
    logits = torch.from_numpy(predictions.logits).double()
    found = readout.predict(logits[:, 1:] if num_outputs == 1 else logits).numpy()
    metrics = evaluate(
        found,
        predictions.targets,
        class_counts,
        old_classes=old_classes,
        ranking=ranking,
        threshold=threshold,
    )
    return Assessment(predictions, found, metrics)


def row_of(split: str, metrics: Metrics) -> dict[str, Any]:
    """One split's part of a line of metrics.jsonl: scalars, and the recall of each class."""
    recall = [defined(value) for value in metrics.per_class.recall]
    scalars = {f"{split}/{name}": value for name, value in metrics.scalars.items()}
    return {**scalars, f"{split}/recall": recall}


def save_predictions(path: Path, predictions: Predictions, *, pool_index: np.ndarray) -> None:
    """Write one pass as a compressed ``.npz``: logits (N, C), targets (N,), index (N,).

    ``index`` is the position of each image in the data set's own list, so that runs on different
    splits can be compared image by image.
    """
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        logits=predictions.logits,
        targets=predictions.targets,
        index=pool_index[predictions.index],
    )
    write_bytes(path, buffer.getvalue())


def draw_figures(
    folder: Path,
    test: Assessment,
    *,
    class_counts: np.ndarray,
    class_names: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    best_epoch: int | None,
    data_title: str,
    rule: str,
) -> dict[str, Path]:
    """Draw the figures of a run as PNG and PDF; returns the PNGs by name."""
    targets, title = test.predictions.targets, f"{data_title}, test, rule {rule}"
    shown = np.flatnonzero((class_counts > 0) | (test.metrics.per_class.support > 0))
    counts, names = class_counts[shown], [class_names[label] for label in shown.tolist()]
    drawn = {
        "recall_by_class_count": figures.recall_by_class_count(
            test.metrics.per_class.recall[shown], counts, names, title=title
        ),
        "reliability": figures.reliability_diagram(test.probabilities, targets, title=title),
        "curves": figures.learning_curves(rows, best_epoch=best_epoch, title=data_title),
    }
    if test.metrics.confusion is not None:
        drawn["confusion_matrix"] = figures.confusion_matrix(
            test.metrics.confusion[np.ix_(shown, shown)], names, counts, title=title
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in drawn.items():
        figures.save(figure, folder / name)
    return {name: folder / f"{name}.png" for name in drawn}
