"""The tensors of a file, by name."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import clean_state_dict
from torch import Tensor

# What torch and safetensors answer to bytes that are no weights.
DAMAGE = (
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    SafetensorError,
    TypeError,
    ValueError,
)
# What training scripts put weights under; of several in one file the first, averages before others.
WRAPPERS = ("state_dict_ema", "model_ema", "ema", "state_dict", "model")


def read_state(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file, without wrappers and without prefixes of DDP and compile.

    A .safetensors file is read as one, any other as what ``torch.save`` wrote. Pickles that hold
    more than tensors and plain values are refused.

    Raises:
        ValueError: It is damaged or of another kind, would run code, or has no tensor.
        OSError: It cannot be opened.
    """
    content = _content(path)
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


def _content(path: Path) -> Any:
    """Return what a file holds, or say in words of ours why it is not read.

    Those of torch advise to read a refused file all the same.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # timm's own training checkpoints hold the parsed command line, a plain namespace.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        if "Unsupported" in str(error):
            raise ValueError(
                "refused: it holds more than tensors and plain values, and might run code"
            ) from error
        raise ValueError("it is no file that torch.save wrote") from error
    except DAMAGE as error:
        raise ValueError("it is truncated, damaged or of another kind") from error
