"""Visual prompts."""

from __future__ import annotations

import functools
import math
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ._base import CannotTuneError, Tuning


class Prompt(Tuning):
    """Learned tokens beside those of the image (Jia et al. 2022, Visual Prompt Tuning).

    They stand between the class token and the patches, and leave the sequence after the last block.

    Args:
        prompt_tokens: How many.
        prompt_depth: shallow gives them to the first block; deep gives each block new ones in the
            place of those before.
    """

    def __init__(
        self,
        *,
        prompt_tokens: Annotated[int, Ge(1)] = 10,
        prompt_depth: Literal["shallow", "deep"] = "shallow",
    ) -> None:
        self._number, self._is_deep = prompt_tokens, prompt_depth == "deep"

    def targets(self, backbone: nn.Module, image: Tensor) -> list[str]:
        """Return the names of the blocks that get tokens."""
        del image
        if not isinstance(backbone, VisionTransformer):
            raise CannotTuneError("is no plain vision transformer, whose blocks see one sequence")
        number = len(backbone.blocks) if self._is_deep else 1
        return [f"blocks.{index}" for index in range(number)]

    def apply(self, backbone: nn.Module, image: Tensor) -> None:
        """Add the tokens, which alone are trained."""
        names = self.targets(backbone, image)
        assert isinstance(backbone, VisionTransformer)
        first, size = backbone.num_prefix_tokens, backbone.embed_dim
        # The range of the authors' code: that of Xavier's uniform for a patch embedding.
        limit = math.sqrt(6 / (3 * math.prod(backbone.patch_embed.patch_size) + size))
        for name in names:
            block, is_new = backbone.get_submodule(name), name == names[0]
            tokens = _Tokens(self._number, size, first=first, limit=limit, is_new=is_new)
            block.add_module("prompt", tokens)
            block.register_forward_pre_hook(_with_tokens)
        remove = functools.partial(_without_tokens, first=first, number=self._number)
        backbone.blocks[-1].register_forward_hook(remove)


class _Tokens(nn.Module):
    """Tokens (number, D) that a sequence (N, L, D) is given at one block.

    Args:
        number: How many.
        size: D.
        first: Where in the sequence the first one stands.
        limit: They start uniform in -limit to limit.
        is_new: They make the sequence longer, rather than taking the place of earlier ones.
    """

    def __init__(self, number: int, size: int, *, first: int, limit: float, is_new: bool) -> None:
        super().__init__()
        self.first, self.is_new = first, is_new
        self.tokens = nn.Parameter(torch.empty(number, size).uniform_(-limit, limit))

    def forward(self, sequence: Tensor) -> Tensor:
        """Return the sequence with the tokens."""
        rest = self.first + (0 if self.is_new else len(self.tokens))
        own = self.tokens.to(sequence.dtype).expand(len(sequence), -1, -1)
        return torch.cat([sequence[:, : self.first], own, sequence[:, rest:]], dim=1)


def _with_tokens(block: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Give a block the tokens of that very block, so that a copy uses its own."""
    return (block.get_submodule("prompt")(inputs[0]), *inputs[1:])


def _without_tokens(
    block: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, *, first: int, number: int
) -> Tensor:
    del block, inputs
    return torch.cat([output[:, :first], output[:, first + number :]], dim=1)
