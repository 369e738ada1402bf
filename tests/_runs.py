"""Small real runs for the tests: drawn images, a real network, a few seconds at most."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

import train
from engine.config.load import load
from engine.config.schema import Config
from engine.report.terminal import Terminal
from engine.training.run_folder import RunFolder
from engine.training.summary import Summary

SMALL = (
    "data=synthetic",
    "data.num_classes=4",
    "data.num_train_per_class=40",
    "data.num_test_per_class=10",
    "data.imbalance.factor=8",
    "data.validation.per_class=6",
    "optim.batch_size=16",
    "optim.lr=0.05",
    "schedule.epochs=3",
    "runtime.threads=1",
    "track.wandb=disabled",
    "track.figures=false",
)


def small_words(root: Path, *words: str) -> list[str]:
    """Command-line words of a small run below ``root``; ``words`` replace those of SMALL."""
    given = {word.partition("=")[0] for word in words}
    kept = [word for word in SMALL if word.partition("=")[0] not in given]
    return [*kept, f"track.root={root}", *words]


def small_config(root: Path, *words: str) -> Config:
    """The config of a small run below ``root``."""
    return load(overrides=small_words(root, *words))


def small_run(root: Path, *words: str, **options: Any) -> Summary:
    """Run it quietly."""
    return train.run(small_config(root, *words), screen=quiet_screen(), **options)


def quiet_screen() -> Terminal:
    """A screen nobody sees."""
    return Terminal(Console(file=io.StringIO(), width=200))


def folder_of(root: Path, *words: str) -> Path:
    """The run folder of a small run."""
    config = small_config(root, *words)
    return RunFolder.of(config).path


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what depends on the clock."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]


def summary_of(folder: Path) -> dict[str, Any]:
    """summary.json without what depends on the clock."""
    content: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    counted = {name: content["cost"][name] for name in ("images", "forward", "backward")}
    return {k: v for k, v in content.items() if k != "time"} | {"cost": counted}


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    """Final weights of a run folder; where it keeps the averaged ones alone, those."""
    state = torch.load(folder / "checkpoints" / "last.pt", weights_only=True)
    weights: dict[str, torch.Tensor] = state["ema"] if state["model"] is None else state["model"]
    return weights


def assert_same_run(first: Path, second: Path) -> None:
    """Weights, metrics, summary and predictions are equal bit for bit."""
    a, b = weights_of(first), weights_of(second)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert rows_of(first) == rows_of(second)
    assert summary_of(first) == summary_of(second)
