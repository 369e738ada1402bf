"""A table of eight short runs on drawn images, for the tests of how tables are made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from engine.config.load import load
from engine.tables.cells import Cell, cells
from engine.tables.record import RunRecord, read
from engine.tables.table_file import read_table_file
from tests._runs import small_words


def content(root: Path, *, epochs: int = 2, **changes: Any) -> dict[str, Any]:
    """What the YAML file of the table says, with ``changes``; runs go below ``root``."""
    shorter = ("model=cifar_resnet8", f"schedule.epochs={epochs}", "data.num_train_per_class=24")
    words = small_words(root, *shorter)
    others = ("track.wandb", "track.figures", "data.imbalance.factor", "optim.lr")
    return {
        "name": "tiny",
        "title": "Tiny",
        "base": [word for word in words if not word.startswith(others)],
        "methods": {"cross_entropy": [], "focal": ["loss=softmax_focal"]},
        "settings": {
            "factor 8": ["data.imbalance.factor=8"],
            "factor 2": ["data.imbalance.factor=2"],
        },
        "seeds": [0, 1],
        "baseline": "cross_entropy",
        "rule": "val",
        **changes,
    }


def write_table(folder: Path, **changes: Any) -> Path:
    """Write the table as ``tiny.yaml`` into ``folder``; its runs go below ``folder/runs``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(content(folder / "runs", **changes), sort_keys=False))
    return path


def cells_of(path: Path) -> list[Cell]:
    """The runs of a table."""
    return cells(read_table_file(path))


CLOCK: Any = {"seconds": True, "cost": {"seconds", "cpu_seconds", "memory"}}


def without_clock(records: list[RunRecord]) -> dict[str, dict[str, Any]]:
    """Records by fingerprint, without what depends on the clock."""
    return {r.fingerprint: r.model_dump(mode="json", exclude=CLOCK) for r in records}


def lines_of(path: Path) -> dict[str, dict[str, Any]]:
    """The lines of a results file; each must be whole, and the only one of its run."""
    records = read(path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["fingerprint"] for line in lines] == [r.fingerprint for r in records]
    assert all(load(overrides=line["words"]).seed == line["seed"] for line in lines)
    return without_clock(records)
