"""The tensors of a file, by name."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from timm.models import clean_state_dict
from torch import Tensor

# What training scripts put weights under; of several in one file the first, averages before others.
WRAPPERS = ("state_dict_ema", "model_ema", "ema", "state_dict", "model")


def read_state(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file, without wrappers and without prefixes of DDP and compile.

    A .safetensors file is read as one, any other as what ``torch.save`` wrote. Pickles that hold
    more than tensors and plain values are refused.

    Raises:
        ValueError: There is no tensor in it.
        OSError, RuntimeError, pickle.UnpicklingError, safetensors.SafetensorError: It is of another
            kind, damaged, or would run code.
    """
    if path.suffix == ".safetensors":
        content: Any = load_file(path)
    else:
        # timm's own training checkpoints hold the parsed command line, a plain namespace.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    while isinstance(content, Mapping):
        inner = next((content[w] for w in WRAPPERS if isinstance(content.get(w), Mapping)), None)
        if inner is None:
            break
        content = inner
    tensors = {}
    if isinstance(content, Mapping):
        tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ValueError("it holds no tensor by name")
    return clean_state_dict(tensors)
