"""How far runs of one config are apart that differ in their seed alone, from finished runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from engine.report.statistics import mean_and_std
from engine.training.files import read_json
from engine.training.summary import Summary


class SeedNoise(NamedTuple):
    """The standard deviation of test balanced accuracy over seeds.

    Attributes:
        std: pooled over configs, as a share.
        num_configs: configs of at least two seeds.
        num_runs: their runs.
    """

    std: float
    num_configs: int
    num_runs: int


def seed_noise(folder: Path, *, title: str) -> SeedNoise | None:
    """Pool sum_i (n_i - 1) s_i^2 / sum_i (n_i - 1) over the configs of finished runs.

    Args:
        folder: of run folders.
        title: of the data set; runs of others are left out.

    Returns:
        None where no config has two finished runs.
    """
    values: dict[str, list[float]] = {}
    for file in sorted(folder.glob("*/summary.json")):
        try:
            summary = Summary.model_validate(read_json(file))
        except (ValidationError, ValueError):
            continue
        value = summary.result.test.get("balanced_accuracy")
        if summary.title == title and value is not None and math.isfinite(value):
            values.setdefault(summary.group, []).append(value)
    found = [mean_and_std(own) for own in values.values() if len(own) > 1]
    freedom = sum(one.n - 1 for one in found)
    if not freedom:
        return None
    squares = sum((one.n - 1) * (one.std or 0.0) ** 2 for one in found)
    return SeedNoise(math.sqrt(squares / freedom), len(found), sum(one.n for one in found))
