"""What every scheme of class weights is."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor


class Scheme:
    """Class counts (C,) to class weights (C,).

    A scheme states the logarithm of its weights in `log_weights`; they are then normalised to sum
    to the number of classes that have samples. A scheme whose weights are to stay as they are
    overrides `__call__`. Class facts, literals in the class body, say more:

    * ``balances``: rarer classes weigh more, so that a correction of the logits on top would
      correct twice.
    * ``follows_counts``: the weights are those of the counts, and equal where these are.
    * ``required``: keys that have no default to go by and must be set.
    """

    balances: ClassVar[bool] = True
    follows_counts: ClassVar[bool] = True
    required: ClassVar[tuple[str, ...]] = ()

    def log_weights(self, counts: Tensor) -> Tensor:
        """Return the logarithm of the unnormalised weights of positive counts."""
        raise NotImplementedError

    def __call__(self, counts: Tensor) -> Tensor:
        """Return the weights (C,) float64 of counts (C,) float64; a count of 0 has weight 0."""
        present = counts > 0
        found = torch.zeros_like(counts)
        # A softmax of the logarithms normalises without overflow for any power.
        found[present] = self.log_weights(counts[present]).softmax(0) * present.sum()
        return found
