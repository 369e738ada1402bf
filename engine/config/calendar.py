"""When the deferred parts of a method begin: fractions of training become epochs.

The only arithmetic here that makes numbers, and so the only file of the package in the code hash.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from engine.config.schema import Config


def start_epoch(start: float, epochs: int) -> int:
    """Return the first epoch (0-based) to begin at or after the fraction ``start`` of training."""
    return math.ceil(start * epochs - 1e-9)


class Beginning(NamedTuple):
    """The first epoch (from 1) in which the whole method is at work, and the key that sets it."""

    epoch: int
    reason: str


def complete_from(config: Config) -> Beginning:
    """Return when all deferred parts have begun; before that the run is of another method."""
    found = Beginning(1, "")
    for key, start in deferred_starts(config).items():
        epoch = start_epoch(start, config.schedule.epochs) + 1
        if epoch > found.epoch:
            found = Beginning(epoch, f"{key}={start:g}")
    return found


def deferred_starts(config: Config) -> dict[str, float]:
    """Return the keys that let a part of the method begin later, and the fraction of training."""
    starts = {"sampler.start": config.sampler.start, "reweight.start": config.reweight.start}
    starts["model.swa"] = config.model.swa or 0.0
    starts["loss.start"] = getattr(config.loss, "start", None) or 0.0
    return {key: start for key, start in starts.items() if start > 0}
