"""The tensors of a file, by name."""

from __future__ import annotations

import argparse
import warnings
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from numpy._core import multiarray
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
HEAD = 40  # bytes
SAVED = (b"PK", b"\x80")  # torch.save writes a zip archive, and wrote a pickle
# What a file is called like weights, and begins with, if it is none.
OTHERS = {
    b"version https://git-lfs": "it is a pointer of Git LFS: fetch the file by git lfs pull",
    b"<": "it is a web page: download the file itself",
    b"{": "it is JSON: name a file of tensors, where there are several one with all of them",
}
SCRIPT = "it is a TorchScript archive, which is code: save the state_dict() of torch.jit.load(FILE)"
# What may stand beside the tensors of a file: the parsed command line in timm's checkpoints, and
# numbers of NumPy, as of the best accuracy, under their names of before and after version 2.
PLAIN: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int64, np.bool_)),
    *((multiarray.scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]
# What training scripts put weights under; of several in one file the first, averages before others.
WRAPPERS = (
    *("state_dict_ema", "model_ema", "ema", "ema_state_dict", "model_ema_state_dict", "params_ema"),
    *("state_dict", "model", "model_state_dict", "net", "params"),
)


def read_state(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file, without wrappers and without prefixes of DDP and compile.

    A .safetensors file is read as one, any other as what ``torch.save`` wrote. Pickles that hold
    more than tensors and plain values are refused. Where tensors are below a name that nobody
    knows, and below no other, they are taken.

    Raises:
        ValueError: It is damaged or of another kind, would run code, or has no tensor.
        OSError: It cannot be opened.
    """
    content = _content(path)
    while isinstance(content, Mapping):
        inner = next((content[w] for w in WRAPPERS if _has_tensors(content.get(w))), None)
        if inner is None:
            break
        content = inner
    tensors = _tensors(content)
    if not tensors and isinstance(content, Mapping):
        found = {name: inner for name, value in content.items() if (inner := _tensors(value))}
        if len(found) > 1:
            raise ValueError(
                f"it holds tensors under {', '.join(map(str, found))}; save those of one to a file"
            )
        tensors = next(iter(found.values()), {})
    if not tensors:
        raise ValueError("it holds no tensor by name")
    return clean_state_dict(tensors)


def _is_script(path: Path) -> bool:
    """Return whether a file is what ``torch.jit.save`` wrote."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _tensors(content: Any) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        return {}
    return {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}


def _has_tensors(content: Any) -> bool:
    """Return whether there are tensors by name at any depth; a wrapper may hold settings alone."""
    if not isinstance(content, Mapping):
        return False
    return bool(_tensors(content)) or any(map(_has_tensors, content.values()))


def prefixes_of(state: Mapping[str, Tensor], names: Collection[str]) -> list[str]:
    """Return what has to be taken off the names of a file to find all the names of a model.

    Args:
        state: The tensors of the file.
        names: Of the model; it is not asked for those that count batches.
    """
    wanted = {name for name in names if not name.endswith("num_batches_tracked")}
    first = next(iter(wanted), None)
    candidates = [key.removesuffix(first) for key in state if first and key.endswith(f".{first}")]
    return [prefix for prefix in candidates if all(f"{prefix}{name}" in state for name in wanted)]


def _content(path: Path) -> Any:
    """Return what a file holds, or say in words of ours why it is not read.

    Those of torch advise to read a refused file all the same.
    """
    with path.open("rb") as file:
        head = file.read(HEAD)
    # After the length of the names, whose first byte may be that of any other kind of file.
    is_safe = head[8:10] == b'{"'
    if not is_safe:
        for start, what in OTHERS.items():
            if head.startswith(start):
                raise ValueError(what)
    if head and not is_safe and not head.startswith(SAVED):
        raise ValueError("it is neither what torch.save wrote nor a .safetensors file")
    if _is_script(path):
        raise ValueError(SCRIPT)
    try:
        if is_safe:
            return load_file(path)
        with (
            path.open("rb") as file,  # of a path torch would look at the suffix
            torch.serialization.safe_globals(PLAIN),
            warnings.catch_warnings(),
        ):
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        if "Unsupported" in str(error):
            raise ValueError(
                "refused: it holds more than tensors and plain values, and might run code"
            ) from error
        raise ValueError("it is no file that torch.save wrote") from error
    except DAMAGE as error:
        raise ValueError("it is truncated, damaged or of another kind") from error
