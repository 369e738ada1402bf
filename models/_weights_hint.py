"""What to do where a file of weights is not one."""

from __future__ import annotations

import difflib
from pathlib import Path

SUFFIXES = (".safetensors", ".pth", ".pt", ".th", ".bin", ".ckpt", ".npz")
SHOWN = 3


def hint_to(weights: str, *, name: str) -> str:
    """Return the end of a sentence that says a path is not a file.

    Args:
        weights: The path, as it was given.
        name: Of the model.

    >>> hint_to("https://example.org/weights.pth", name="resnet18")
    ' but an address: download it, and name the file'
    """
    if "://" in weights:
        return " but an address: download it, and name the file"
    path = Path(weights).expanduser()
    if path.is_dir():
        found = sorted(file.name for file in path.iterdir() if file.suffix in SUFFIXES)
        if not found:
            return f" but a folder without one of weights: give one of weights of {name}"
        more = ", ..." if len(found) > SHOWN else ""
        return f" but a folder: name the file in it ({', '.join(found[:SHOWN])}{more})"
    if weights.startswith(("hf_hub:", "hf-hub:")):
        return ": model.pretrained=true downloads the weights that timm knows for model.name"
    there = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, there, n=1)
    return f": did you mean {near[0]}?" if near else f": give one of weights of {name}"
