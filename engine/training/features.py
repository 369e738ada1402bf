"""The features behind a run's predictions, stored for classifiers that are fitted without training.

What ``evaluate.store_features`` adds beside the logits of each selection rule:
``<split>.<rule>.features.npy``, the features (N, D) float32 of validation and test in the order of
``<split>.<rule>.npz``, and ``classifier.<rule>.npz``: ``means`` (C, D) of the features of each
class's training images, ``unit_means`` (C, D) of the same scaled to length 1, ``counts`` (C,), and
``weight`` (C, D) and ``bias`` (C,) of a linear head.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engine.training.class_means import ClassSums
from engine.training.evaluation import Evaluator
from engine.training.files import array_file, write_bytes


def store_features(
    folder: Path,
    rule: str,
    *,
    evaluator: Evaluator,
    targets: Tensor,
    num_classes: int,
    after_batch: Callable[[], None],
) -> None:
    """Write the features of the held-out splits and the class means of those of training.

    Joined processes share the images; the main one writes. No more than a batch is in memory.

    Args:
        folder: for the files.
        rule: which chose the weights of the moment.
        evaluator: knows model and splits, training images among them.
        targets: labels of the training images.
        num_classes: C.
        after_batch: called between batches.
    """
    for split in ("val", "test"):
        if split in evaluator.splits:
            _store_split(folder / f"{split}.{rule}.features.npy", evaluator, split, after_batch)
    found = _means(evaluator, targets, num_classes=num_classes, after_batch=after_batch)
    if evaluator.trainer.processes.is_main:
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {**found, **linear_layer(evaluator.trainer.evaluated)}
        np.savez_compressed(buffer, **arrays)
        write_bytes(folder / f"classifier.{rule}.npz", buffer.getvalue())


def _store_split(
    file: Path, evaluator: Evaluator, split: str, after_batch: Callable[[], None]
) -> None:
    batches = evaluator.features(split, after_batch=after_batch)
    first = next(batches)
    if not evaluator.trainer.processes.is_main:
        for _ in batches:
            pass
        return
    shape = (len(evaluator.splits[split]), first.shape[1])
    with array_file(file, shape=shape, dtype=np.float32) as append:
        append(first)
        for batch in batches:
            append(batch)


def _means(
    evaluator: Evaluator, targets: Tensor, *, num_classes: int, after_batch: Callable[[], None]
) -> Mapping[str, np.ndarray]:
    """Return means of features and of features of length 1; zeros for a class without images."""
    sums, unit_sums, done = ClassSums(num_classes), ClassSums(num_classes), 0
    for batch in evaluator.features("train", after_batch=after_batch):
        features = torch.from_numpy(batch).double()
        labels = targets[done : done + len(features)]
        sums.add(features, labels)
        unit_sums.add(nn.functional.normalize(features), labels)
        done += len(features)
    return {
        "means": sums.means(empty=0.0).numpy(),
        "unit_means": unit_sums.means(empty=0.0).numpy(),
        "counts": sums.counts.numpy(),
    }


def linear_layer(model: nn.Module) -> Mapping[str, np.ndarray]:
    """Return weight and bias of a head that is one linear layer and no more; nothing of another.

    Args:
        model: a classifier.
    """
    head = getattr(model, "head", None)
    if not isinstance(head, nn.Linear) or type(head).forward is not nn.Linear.forward:
        return {}
    weight = head.weight.detach().float().cpu()
    # A head may be made without: torch's types do not know.
    own: Tensor | None = getattr(head, "bias", None)
    bias = torch.zeros(len(weight)) if own is None else own.detach().float().cpu()
    return {"weight": weight.numpy(), "bias": bias.numpy()}
