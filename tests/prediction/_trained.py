"""Small trained runs, and what they said of their own test images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

import train
from engine.config.load import load
from tests._runs import quiet_screen

COMMON = (
    "model.name=cifar_resnet8",
    "optim.batch_size=16",
    "schedule.epochs=2",
    "runtime.threads=1",
    "track.wandb=disabled",
    "track.figures=false",
)
COUNTS = {
    "train": {"cat": 9, "dog": 6, "emu": 4},
    "val": {"cat": 2, "dog": 2, "emu": 2},
    "test": {"cat": 4, "dog": 3, "emu": 3},
}


def trained(root: Path, *words: str) -> Path:
    """Train a small run and return its folder."""
    usual = [w for w in COMMON if w.partition("=")[0] not in {x.partition("=")[0] for x in words}]
    config = load(overrides=[*usual, f"track.root={root / 'runs'}", *words])
    train.run(config, screen=quiet_screen())
    (folder,) = (root / "runs").glob("*/*")
    return folder


def run_of(root: Path) -> Path:
    (folder,) = (root / "runs").glob("*/*")
    return folder


def own_probabilities(run: Path, *, rule: str) -> np.ndarray:
    """What the run itself said of its test images."""
    stored = np.load(run / "predictions" / f"test.{rule}.npz")
    logits = torch.from_numpy(stored["logits"])[np.argsort(stored["index"])]
    return logits.double().softmax(1).numpy()
