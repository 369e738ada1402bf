"""What a table's analysis and a search's folder hold, made by hand for their pages."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any


def _spread(mean: float) -> dict[str, Any]:
    return {"mean": mean, "std": 0.01, "n": 3}


def _method(name: str, value: float, *, is_baseline: bool = False) -> dict[str, Any]:
    fields = ("balanced", "balanced_chosen", "balanced_oracle", "few", "few_chosen", "ece")
    others = ("ece_temperature", "coverage_few", "coverage_few_adjusted", "size", "size_adjusted")
    change = {"mean": value - 0.8, "low": value - 0.83, "high": value - 0.77, "n": 3}
    return {
        "method": name,
        "n": 3,
        "values": {"tau": _spread(0.5)} | {k: _spread(value) for k in (*fields, *others)},
        "difference": {} if is_baseline else {"balanced": change, "balanced_chosen": None},
        "seconds": {"mean": 100 * value, "std": 2.0, "n": 3},
        "curve": {"epochs": [1, 2, 3], "mean": [0.2, 0.6, value]},
    }


TABLE: dict[str, Any] = {
    "table": "tiny",
    "title": "Tiny",
    "rule": "val",
    "alpha": 0.1,
    "baseline": "cross_entropy",
    "planned": 9,
    "finished": 9,
    "settings": [
        {
            "setting": "factor 50",
            "scope": "n counts the subsets",
            "rows": [
                _method("cross_entropy", 0.8, is_baseline=True),
                _method("balanced_softmax", 0.84),
                _method("class_balanced_sampling_with_a_long_name", 0.75),
            ],
        }
    ],
}


def write_study(folder: Path, *, key: str = "loss.gamma") -> Path:
    """Write the table of trials of a search over one number and one choice."""
    folder.mkdir()
    names = ["trial", "outcome", "val/balanced_accuracy", key, "loss.name", "last_epoch"]
    with (folder / "trials.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow([*names, "last_value", "seconds", "run"])
        for trial in range(14):
            gamma, loss = 0.01 * 2**trial, ("cross_entropy", "softmax_focal")[trial % 2]
            value = round(0.6 + 0.02 * ((trial * 5) % 14), 3)
            rows.writerow([trial, "complete", value, gamma, loss, "", "", 1.5, f"{trial:012x}"])
        rows.writerow([14, "pruned", "", 3.0, "softmax_focal", 2, 0.41, 0.5, "f" * 12])
    return folder
