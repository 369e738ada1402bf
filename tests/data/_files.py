"""Image files and folders for tests."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from data._decode import decode


def write_image(path: Path, *, seed: int | None = None, width: int = 6, height: int = 6) -> Path:
    """Write a PNG of random colours, by default those of its name, making its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    own = zlib.crc32("/".join(path.parts[-3:]).encode(errors="surrogateescape"))
    pixels = np.random.default_rng(own if seed is None else seed).integers(
        0, 256, (height, width, 3), dtype=np.uint8
    )
    Image.fromarray(pixels).save(path)
    return path


def write_folder(folder: Path, counts: dict[str, dict[str, int]]) -> Path:
    """Write an image folder; ``counts`` are images by split and class."""
    for split, classes in counts.items():
        for name, count in classes.items():
            for number in range(count):
                write_image(folder / split / name / f"{number:03}.png")
    return folder


def stored_pixels(folder: Path, names: list[str]) -> np.ndarray:
    """Decode some files one by one, uint8 (N, 3, H, W)."""
    return np.stack([decode(folder / name, size=None).numpy() for name in names])
