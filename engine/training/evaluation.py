"""From stored logits to metrics, files and figures."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.training.files import write_bytes
from engine.training.metrics import Metrics, evaluate
from engine.training.predict_loop import Predictions
from engine.training.probabilities import PredictsProbabilities
from engine.training.summary import defined


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
        predictions: from :func:`engine.training.predict_loop.predict`.
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
