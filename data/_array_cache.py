"""Decoded images of a published data set, kept as one array below the data root."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from data._base import DataError
from data._decode import decoder_versions, quiet_pillow
from data._folder import readable
from data._progress import progress
from data._scratch import written_whole

_CHUNK = 256  # files whose pixels are written together


def decoded_once(
    folder: Path, paths: Sequence[Path], decode: Callable[[Path], np.ndarray], *, options: str = ""
) -> np.ndarray:
    """Return what ``decode`` makes of all files, one after the other in one uint8 array.

    It is kept under a hash of what the pixels depend on: name, size and time of last change of
    every file, the options and the versions of Pillow and torchvision. Where the folder cannot be
    written, the files are decoded each time.

    Args:
        folder: Where arrays are kept; any of them may be deleted at any time.
        paths: The files, at least one.
        decode: Returns uint8 (n, ...) of a file, the same ``...`` for all.
        options: What else the pixels depend on.

    Raises:
        DataError: If a file is missing or cannot be decoded.
    """
    entry = folder / _key(paths, options)
    if (known := _open(entry)) is not None:
        return known
    with quiet_pillow(), ThreadPoolExecutor() as pool:
        parts: list[np.ndarray] = []
        with progress("decoding", total=len(paths)) as advance:
            for start in range(0, len(paths), _CHUNK):
                chunk = paths[start : start + _CHUNK]
                parts += pool.map(decode, chunk)
                advance(len(chunk))
    whole = np.concatenate(parts)
    try:
        with written_whole(
            entry, needed=whole.nbytes, is_whole=lambda: _open(entry) is not None
        ) as scratch:
            np.save(scratch / "images.npy", whole)
    except DataError:  # a full disk, or a folder of somebody else: it is only slower
        return whole
    return whole


def _key(paths: Sequence[Path], options: str) -> str:
    digest = hashlib.sha256(f"{decoder_versions()} {options}".encode())
    for path in paths:
        with readable(path):
            facts = path.stat()
        digest.update(f"{path.name}\0{facts.st_size} {facts.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:24]


def _open(entry: Path) -> np.ndarray | None:
    """Map an entry privately (writes never reach the file); None if it is absent or damaged."""
    try:
        images = np.load(entry / "images.npy", mmap_mode="c")
    except (OSError, ValueError, EOFError):
        return None
    return images if images.dtype == np.uint8 else None
