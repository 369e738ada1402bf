"""Small copies of the natural data sets, in the layout of their origin."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

FAULTS = {"No-Anomaly": 16, "Cell": 8, "Diode-Multi": 4}


def write_grey(path: Path, seed: int, *, width: int = 24, height: int = 40) -> None:
    """Write drawn pixels as a greyscale image."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_infrared(root: Path) -> Path:
    """28 images of three classes, numbers 0 and 27 being the same image under two labels."""
    folder = root / "infrared_solar"
    (folder / "images").mkdir(parents=True)
    names = [name for name, count in FAULTS.items() for _ in range(count)]
    entries = {}
    for number, name in enumerate(names):
        write_grey(folder / f"images/{number}.jpg", 0 if number == 27 else number)
        entries[str(number)] = {"image_filepath": f"images/{number}.jpg", "anomaly_class": name}
    (folder / "module_metadata.json").write_text(json.dumps(entries))
    return folder


def write_smears(root: Path) -> Path:
    """Nine smears of 64x48 with three cells each, and a tenth that repeats the first."""
    folder = root / "chula_rbc12"
    (folder / "Dataset").mkdir(parents=True)
    (folder / "Label").mkdir()
    for number in range(1, 11):
        draw = np.random.default_rng(1 if number == 10 else number)
        pixels = draw.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"Dataset/{number}.jpg", quality=95)
        cells = [(20, 20, 0), (40, 30, 4), (0, 47, 12)]
        lines = [f"{x} {y} {kind}" for x, y, kind in cells]
        (folder / f"Label/{number}.txt").write_text("\r\n".join(lines) + "\r\n")
    (folder / "Label/11.txt").write_text("")
    return folder
