"""Weights as twelve digits."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """Return 12 hex digits over every weight and buffer of a state dict."""
    digest = hashlib.sha256()
    for name, value in state.items():
        digest.update(name.encode() + b"\0")
        digest.update(bytes_of(value))
    return digest.hexdigest()[:12]


def bytes_of(value: Tensor) -> memoryview:
    """Return the bytes of a tensor in the order of its elements; NumPy has no name for bfloat16."""
    return value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
