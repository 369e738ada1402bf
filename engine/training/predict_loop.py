"""The batch loop of evaluation: predictions over a split."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engine.training.divergence import NonFinitePredictionsError
from engine.training.processes import Processes
from engine.training.runtime import Precision, autocast


@dataclass(frozen=True)
class Predictions:
    """One pass over a split: logits (N, C) float32, targets (N,), index (N,) of the images."""

    logits: np.ndarray
    targets: np.ndarray
    index: np.ndarray

    def joined(self, processes: Processes, *, num_images: int) -> Predictions:
        """Join the predictions of all processes, in the order of the split."""
        if processes.world == 1:
            return self
        whole = (
            processes.joined_shares(torch.from_numpy(part), num_rows=num_images).numpy()
            for part in (self.logits, self.targets, self.index)
        )
        return Predictions(*whole)


@torch.no_grad()
def predict(
    model: nn.Module,
    batches: Iterator[Any],
    *,
    device: torch.device,
    precision: Precision = "float32",
    after_batch: Callable[[], None] | None = None,
    forward: Callable[[Tensor], Any] | None = None,
) -> Predictions:
    """Run the model in eval mode; one logit x a sample is stored as the two logits (0, x).

    Args:
        model: images to ``(logits, features)``.
        batches: of the split.
        device: of the model.
        precision: of its arithmetic.
        after_batch: called between batches.
        forward: what is called in the model's place, such as the same model compiled.

    Raises:
        NonFinitePredictionsError: some logits are not finite.
    """
    was_training = model.training
    model.eval()
    call = model if forward is None else forward
    logits, targets, index = [], [], []
    for batch in batches:
        with autocast(device, precision):
            output = call(batch.images)[0].float()
        if output.shape[1] == 1:
            output = torch.cat([torch.zeros_like(output), output], dim=1)
        logits.append(output.cpu())
        targets.append(batch.targets.cpu())
        index.append(batch.index.cpu())
        if after_batch is not None:
            after_batch()
    model.train(was_training)
    found = Predictions(*(torch.cat(part).numpy() for part in (logits, targets, index)))
    if not np.isfinite(found.logits).all():
        raise NonFinitePredictionsError("the model's outputs are not finite")
    return found
