"""How a run of ours was trained, held against what a published number says of its training."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from engine.config import choices
from engine.config.load import defaults, flatten
from engine.config.rules.needs import NEEDS
from engine.config.schema import Config

if TYPE_CHECKING:
    import pandas as pd

AUGMENTATION = {"crop, flip": {"crop": 4, "flip": True}}

OFF = (False, 0, "none", None)

LDAM_DRW = {
    "optim.name": "momentum",
    "optim.lr": 0.1,
    "optim.weight_decay": 2e-4,
    "optim.momentum": 0.9,
    "optim.batch_size": 128,
    "schedule.name": "steps",
    "schedule.warmup": 0.025,
    "schedule.steps": [0.8, 0.9],
    "schedule.decay": 0.01,
}
"""What the recipe sets; every other key of training has its default, which is off."""

WARM_UP_BY_STEP = ("Class-Balanced loss",)
"""Papers whose code raises the rate step by step (cifar_main.py), and not once an epoch."""

NO_RECIPE = (
    "seed",
    "track.",
    "evaluate.",
    "runtime.",
    # Compared apart, as the columns of published.csv are.
    "data.",
    "model.name",
    "schedule.epochs",
    # What a method is.
    "loss.",
    "reweight.",
    "teacher",
    "model.head",
)
"""Keys that are no recipe, or the beginnings of them; those of the heads are none either."""

IN_THE_NAME = {
    "sampler.": re.compile(r"(?i:sampl)|\bD?RS\b"),
    "mixup.mixup": re.compile(r"(?i)(?<!no )mixup|remix"),
    "mixup.cutmix": re.compile(r"(?i)cutmix|\bCMO\b"),
}
"""Keys that are the method itself where a published method bears such a name."""

PRECISION = "float32"  # of all code that trains by LDAM_DRW


def differences(row: pd.Series, config: Config) -> Iterator[str]:
    """Yield how augmentation, recipe and precision differ from those of a line of published.csv."""
    ours = {k: v for k, v in config.data.augment.model_dump().items() if v not in OFF}
    if not row.augmentation:
        yield "augmentation (theirs not stated)"
    elif AUGMENTATION.get(row.augmentation) != ours:
        yield f"augmentation (theirs {row.augmentation})"
    if row.recipe != "LDAM-DRW":
        yield f"recipe (theirs {row.recipe or 'not stated'})"
        return
    if changed := _changes(row, config):
        said = ", ".join(f"{key}={_spelled(value)}" for key, value in changed.items())
        yield f"recipe (theirs {row.recipe}; ours {said})"
    if config.runtime.precision != PRECISION:
        yield f"precision (theirs {PRECISION}, ours {config.runtime.precision})"


def _changes(row: pd.Series, config: Config) -> dict[str, Any]:
    """Return the keys of a run, with its values, that the recipe LDAM-DRW has otherwise.

    What the published method's name speaks of is the method, and no change of recipe.
    """
    ours, recipe = flatten(config), {**defaults(config), **LDAM_DRW}
    recipe["schedule.unit"] = "step" if row.paper in WARM_UP_BY_STEP else "epoch"
    own = tuple(key for key, pattern in IN_THE_NAME.items() if pattern.search(row.method))
    apart = {*choices.of("model.head").owners()}
    apart |= {need.key for need in NEEDS if ours[need.selector] not in need.choices}
    return {
        key: value
        for key, value in ours.items()
        if value != recipe[key]
        and key not in apart
        and not key.startswith(NO_RECIPE)
        and (key == "sampler.length" or not key.startswith(own))
    }


def _spelled(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
