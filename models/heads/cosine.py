"""The cosine head."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Cosine(nn.Module):
    """Cosine between features (N, D) and the weight of each output: logits (N, num_outputs).

    The logits lie in -1 to 1: the scale is exactly 1, and a loss that wants another multiplies by
    its own. There is no bias. The weight starts uniform in -1 to 1 with every output's row scaled
    to length 1, as the normalised layer of LDAM (Cao et al. 2019, "Learning Imbalanced Datasets
    with Label-Distribution-Aware Margin Loss"), or at what :meth:`begin_at` is given. Features of
    length 0 give logits of 0.

    Args:
        num_features: D.
        num_outputs: Number of logits.
        head_init: What the weights start at: uniform, class_mean (the mean feature of each class
            over the training images), or text (the embedding of its name; Shi et al. 2024, LIFT).
        text_encoder: For head_init=text, a file of the weights of a CLIP that open_clip knows.
        text_model: Its name in open_clip.
        text_prompt: What is embedded; {} stands for the name of the class.
    """

    gives_cosines: ClassVar[bool] = True

    # Shorter vectors are not stretched to length 1: the gradient of normalising is 1 / length, and
    # torch's own limit of 1e-12 would let it grow far beyond what a step survives.
    shortest = 1e-6

    def __init__(
        self,
        num_features: int,
        num_outputs: int,
        *,
        head_init: Literal["uniform", "class_mean", "text"] = "uniform",
        text_encoder: str | None = None,
        text_model: str = "ViT-B-16",
        text_prompt: str = "a photo of a {}.",
    ) -> None:
        super().__init__()
        # Whoever has the training images, or the names of the classes, calls begin_at.
        del head_init, text_encoder, text_model, text_prompt
        weight = torch.empty(num_outputs, num_features).uniform_(-1, 1)
        self.weight = nn.Parameter(F.normalize(weight, dim=1))

    @torch.no_grad()
    def begin_at(self, directions: Tensor) -> None:
        """Let the weights start at directions (num_outputs, D); rows that are not finite are left.

        Args:
            directions: Of any length; each row is scaled to length 1.
        """
        rows = F.normalize(directions.to(self.weight), dim=1)
        is_known = rows.isfinite().all(1, keepdim=True)
        self.weight.copy_(torch.where(is_known, rows, self.weight))

    def forward(self, features: Tensor) -> Tensor:
        """Return the cosines."""
        directions = F.normalize(features, dim=1, eps=self.shortest)
        return F.linear(directions, F.normalize(self.weight, dim=1, eps=self.shortest))
