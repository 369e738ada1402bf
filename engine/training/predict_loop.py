"""The batch loop of evaluation: predictions over a split."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engine.training.divergence import NonFinitePredictionsError
from engine.training.logits import LogitFile
from engine.training.processes import Processes
from engine.training.runtime import Precision, autocast, in_eval_mode


@dataclass(frozen=True)
class Predictions:
    """One pass over a split: logits (N, C) float32, targets (N,), index (N,) of the images."""

    logits: np.ndarray | LogitFile
    targets: np.ndarray
    index: np.ndarray


@torch.no_grad()
def predict(
    model: nn.Module,
    batches: Iterator[Any],
    *,
    num_images: int,
    device: torch.device,
    precision: Precision = "float32",
    after_batch: Callable[[], None] | None = None,
    forward: Callable[[Tensor], Any] | None = None,
    processes: Processes | None = None,
    large_file: Path | None = None,
) -> Predictions:
    """Run the model in eval mode; one logit x a sample is stored as the two logits (0, x).

    Args:
        model: images to (logits, features).
        batches: this process's share of the split.
        num_images: of the whole split.
        device: where the model is.
        precision: of the forward pass.
        after_batch: called between batches.
        forward: what is called in the model's place, such as the same model compiled.
        processes: those that share the split; all get the whole, in the order of the split.
        large_file: where logits are written as they come if they are many; None keeps them here.

    Raises:
        NonFinitePredictionsError: some logits are not finite.
    """
    processes = processes or Processes()
    call = model if forward is None else forward
    kept: list[np.ndarray] | LogitFile | None = None
    targets = np.empty(num_images, dtype=np.int64)
    index = np.empty(num_images, dtype=np.int64)
    done = 0
    with in_eval_mode(model):
        for batch in batches:
            with autocast(device, precision):
                output = call(batch.images)[0].float()
            if output.shape[1] == 1:
                output = torch.cat([torch.zeros_like(output), output], dim=1)
            # Shares are equally long, so that every process has a batch for every batch.
            here = slice(done, min(done + len(output) * processes.world, num_images))
            logits, targets[here], index[here] = (
                processes.joined_shares(part.cpu(), num_rows=here.stop - done).numpy()
                for part in (output, batch.targets, batch.index)
            )
            if not np.isfinite(logits).all():
                raise NonFinitePredictionsError("the model's outputs are not finite")
            if kept is None:
                kept = _keeper((num_images, logits.shape[1]), large_file)
            kept.append(logits)
            done = here.stop
            if after_batch is not None:
                after_batch()
    assert kept is not None and done == num_images, (done, num_images)
    return Predictions(np.concatenate(kept) if isinstance(kept, list) else kept, targets, index)


def _keeper(shape: tuple[int, int], file: Path | None) -> list[np.ndarray] | LogitFile:
    if file is None or not LogitFile.is_wanted(shape):
        return []
    return LogitFile(file, shape)
