"""Weights as twelve digits."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from torch import Tensor


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """Return 12 hex digits over every weight and buffer of a state dict."""
    digest = hashlib.sha256()
    for name, value in state.items():
        digest.update(name.encode() + b"\0")
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]
