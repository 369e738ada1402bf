"""Results lines with numbers of the tests' choosing, on configs that are real."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.config import command_line
from engine.config.load import fingerprint, load
from engine.tables.record import RunRecord
from tests._runs import SMALL

METHODS: dict[str, tuple[str, ...]] = {
    "cross_entropy": (),
    "focal": ("loss=softmax_focal",),
    "inverse_weights": ("reweight=inverse",),
    "slower": ("schedule.warmup=0.2",),
}
QUIET = tuple(word for word in SMALL if not word.startswith(("track.", "runtime.")))


def line(
    method: str = "cross_entropy",
    *,
    seed: int = 0,
    subset: int = 0,
    value: float | None = 0.8,
    words: Sequence[str] = QUIET,
    scores: dict[str, float | None] | None = None,
    **changes: Any,
) -> RunRecord:
    """A run whose every accuracy is ``value``, but for ``scores``; other fields by ``changes``."""
    words = (*words, *METHODS.get(method, ()), f"seed={seed}", f"data.imbalance.seed={subset}")
    given = command_line.parse(words)
    config = load(given.files, given.overrides)
    test = dict.fromkeys(
        ("accuracy", "balanced_accuracy", "many_accuracy", "worst_class_recall"), value
    )
    test |= {"medium_accuracy": value, "few_accuracy": None, "nll": 0.5, "ece": 0.1}
    result = {"epoch": 3, "val": None, "test": test | (scores or {}), "recall": [value] * 4}
    fields: dict[str, Any] = {
        "table": "tiny",
        "method": method,
        "setting": "factor 8",
        "words": words,
        "fingerprint": fingerprint(config),
        "group": fingerprint(config, without_seeds=True),
        "split_fingerprint": f"split{subset}",
        "seed": seed,
        "subset_seed": subset,
        "code_hash": f"code of {config.loss.name}",
        "commit": "c0ffee" * 6,
        "dirty": False,
        "title": "Drawn images",
        "epochs": config.schedule.epochs,
        "model": config.model.name,
        "class_counts": [120, 60, 30, 20],
        "group_sizes": {"many": 1, "medium": 3, "few": 0},
        "headline": "val",
        "rules": {"last": result, "val": result},
        "oracle": None,
        "notes": (),
        "seconds": 1.5,
        "hardware": {"processor": "a CPU", "cores": 2},
        "versions": {"torch": "2.14.1"},
    }
    return RunRecord.model_validate(fields | changes)


def lines(
    method: str, values: Sequence[float], *, subsets: Sequence[int] = (0,), **changes: Any
) -> list[RunRecord]:
    """A run for each value on each subset, seeds 0, 1, 2 ..."""
    return [
        line(method, seed=seed, subset=subset, value=value, **changes)
        for subset in subsets
        for seed, value in enumerate(values)
    ]


def around(mean: float, *, n: int = 5, std: float = 0.01, seed: int = 0) -> list[float]:
    """Accuracies of n runs, multiples of 1 / 500."""
    drawn = np.random.default_rng(seed).normal(mean, std, n)
    return [round(value * 500) / 500 for value in drawn.tolist()]


def write_lines(path: Path, records: Sequence[RunRecord]) -> Path:
    """Write a results file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(record.model_dump(mode="json")) + "\n" for record in records)
    path.write_text(text, encoding="utf-8")
    return path
