"""Weights as sixteen digits."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from engine.config.schema import Config

if TYPE_CHECKING:
    from torch import Tensor


DIGITS = 16
FORMER_DIGITS = 12  # in records of before shapes and types counted


class Hashes(NamedTuple):
    """Hashes of the weights that a run is made with, by the names of its facts.

    Attributes:
        today: as they are recorded.
        former: as older runs recorded them, where that was in another way.
    """

    today: Mapping[str, str | None]
    former: Mapping[str, str | None]


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """Return 16 hex digits over every weight and buffer: its name, type, shape and bytes."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name]
        digest.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        digest.update(bytes_of(value))
    return digest.hexdigest()[:DIGITS]


def former_hash(state: Mapping[str, Tensor]) -> str:
    """Return what older runs recorded: 12 hex digits over names and bytes, in the state's order."""
    digest = hashlib.sha256()
    for name, value in state.items():
        digest.update(name.encode() + b"\0")
        digest.update(bytes_of(value))
    return digest.hexdigest()[:FORMER_DIGITS]


def is_former(recorded: str) -> bool:
    """Return whether a record is of :func:`former_hash`, or several of it joined by ``+``."""
    return len(recorded.partition("+")[0]) == FORMER_DIGITS


def bytes_of(value: Tensor) -> memoryview:
    """Return the bytes of a tensor in the order of its elements; NumPy has no name for bfloat16."""
    import torch  # seconds, which whoever reads records alone need not wait for

    return value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data


def file_hash(path: str | Path) -> str | None:
    """Return 12 hex digits over the bytes of a file; None where there is none to read."""
    try:
        with Path(path).expanduser().open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:12]
    except OSError:
        return None


def file_hashes(config: Config) -> dict[str, str | None]:
    """Return the hashes of the weight files that a config names, under the keys of its facts.

    None for a key without a file; one whose file is not there any more is left out.
    """
    named = {
        "pretrained_file": config.model.pretrained,
        "text_file": getattr(config.model, "text_encoder", None),
    }
    files = {fact: file if isinstance(file, str) else None for fact, file in named.items()}
    found = {fact: None if file is None else file_hash(file) for fact, file in files.items()}
    return {fact: found[fact] for fact, file in files.items() if file is None or found[fact]}
