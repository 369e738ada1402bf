"""Weights of other code under the names of timm, by their order and shapes."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from typing import Any, NamedTuple

import timm
import torch
from torch import Tensor

COUNTER = "num_batches_tracked"  # older files lack it, and nothing is computed from it


class Pair(NamedTuple):
    """A tensor of a file and the name that it gets."""

    theirs: str
    ours: str


def pairs_by_order(state: Mapping[str, Tensor], model: str) -> list[Pair]:
    """Pair the tensors of a file with those of a model, one after the other.

    That all shapes agree is strong evidence and no proof: two layers of one shape in another order
    would go unnoticed, so that predictions on known images should follow.

    Args:
        state: The tensors of the file, in its order; the last is taken for the classifier's bias.
        model: A name of timm.

    Raises:
        ValueError: A tensor has another shape than its partner, or none.
    """
    theirs = [(key, value.shape) for key, value in state.items() if not key.endswith(COUNTER)]
    outputs: dict[str, Any] = {}
    if len(theirs[-1][1]) == 1:
        outputs["num_classes"] = theirs[-1][1][0]
    with torch.random.fork_rng(devices=[]):
        built = timm.create_model(model, **outputs)
    own = built.state_dict().items()
    ours = [(key, value.shape) for key, value in own if not key.endswith(COUNTER)]
    for place, (a, b) in enumerate(zip_longest(theirs, ours), start=1):
        if a is None or b is None or a[1] != b[1]:
            raise ValueError(
                f"tensor {place} is {_described(a)} in the file and {_described(b)} in {model}; of "
                f"{len(theirs)} and {len(ours)} tensors the first {place - 1} agree"
            )
    return [Pair(a[0], b[0]) for a, b in zip(theirs, ours, strict=True)]


def _described(tensor: tuple[str, torch.Size] | None) -> str:
    return "none" if tensor is None else f"{tensor[0]} {tuple(tensor[1])}"
