"""What a teacher says: the logits of a trained model, read as its own loss reads them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import losses


class Teacher(nn.Module):
    """A trained model at rest, from images to logits whose softmax is what it predicts.

    A model's own logits are that only for a loss on a plain softmax. Those of one that scales
    cosines are cosines, whose softmax is never sure of a class, and those of a sigmoid loss are one
    problem a class. Post-hoc adjustments (``evaluate.logit_adjustment``) are no part of it: they
    belong to the test, not to what was learnt.

    Args:
        model: images to ``(logits, features)``; it is frozen, and put into eval mode.
        loss: that it was trained with.
    """

    def __init__(self, model: nn.Module, loss: losses.Loss) -> None:
        super().__init__()
        self.model = model.requires_grad_(False)
        self.loss = loss
        is_plain = loss.activation == "softmax" and type(loss).predict is losses.Loss.predict
        self._has_own_logits = is_plain
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, C) of images."""
        logits: Tensor = self.model(images)[0]
        if self._has_own_logits:
            return logits
        probabilities = self.loss.predict(logits)
        # The logarithm of 0 would make the loss of whoever learns from it NaN.
        return probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()
