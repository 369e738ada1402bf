"""Tiny finished runs of two losses, one of them with two seeds."""

from __future__ import annotations

from pathlib import Path

from tests._runs import folder_of, small_run

TINY = ("model=cifar_resnet8", "schedule.epochs=2")
RUNS = (
    (*TINY, "seed=0"),
    (*TINY, "seed=1"),
    (*TINY, "loss=logit_adjustment", "loss.tau=1.5"),
)


def two_losses(root: Path) -> list[Path]:
    """Train them below ``root`` and return their folders."""
    for words in RUNS:
        small_run(root, *words)
    return [folder_of(root, *words) for words in RUNS]
