"""How far runs of one config are apart that differ in their seed alone, from finished runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from engine.config.load import NOT_IDENTITY, SEEDS, flatten, load_run_config
from engine.config.schema import Config
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


def seed_noise(folder: Path, config: Config) -> SeedNoise | None:
    """Pool sum_i (n_i - 1) s_i^2 / sum_i (n_i - 1) over the configs of finished runs.

    Runs on other subsets of the same data (``data.imbalance.seed``) count as other configs.

    Args:
        folder: of run folders.
        config: whose data are described; runs on others are left out.

    Returns:
        None where no config has two finished runs.
    """
    own = _identity(config)
    values: dict[tuple[str, int], list[float]] = {}
    for file in sorted(folder.glob("*/summary.json")):
        try:
            summary = Summary.model_validate(read_json(file))
            run = load_run_config(file.parent, check_named_runs=False)
        except (ValidationError, ValueError):  # a ConfigError is a ValueError
            continue
        value = summary.result.test.get("balanced_accuracy")
        if value is not None and math.isfinite(value) and _identity(run) == own:
            values.setdefault((summary.group, run.data.imbalance.seed), []).append(value)
    found = [mean_and_std(same) for same in values.values() if len(same) > 1]
    freedom = sum(one.n - 1 for one in found)
    if not freedom:
        return None
    squares = sum((one.n - 1) * (one.std or 0.0) ** 2 for one in found)
    return SeedNoise(math.sqrt(squares / freedom), len(found), sum(one.n for one in found))


def _identity(config: Config) -> dict[str, Any]:
    """Return the keys that decide which images are trained on and tested, but for seeds."""
    left_out = (*NOT_IDENTITY, *SEEDS, "data.augment.")
    return {
        key: value
        for key, value in flatten(config).items()
        if key.startswith("data.") and not key.startswith(left_out)
    }
