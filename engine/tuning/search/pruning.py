"""When pruning may begin: not before a trial's whole method is at work."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from engine.config.calendar import complete_from
from engine.config.mistakes import ConfigError
from engine.config.schema import Config
from engine.tuning.search import Search


class PruningStart(NamedTuple):
    """The epochs in which nothing is pruned, and why."""

    epochs: int
    reason: str


def pruning_start(search: Search, configs: Sequence[Config]) -> PruningStart:
    """Return until when a trial is safe: a share of training, and any deferred start in the space.

    Before it, a trial with a deferred loss, sampler or weighting is one without.

    Raises:
        ConfigError: nothing of training is left to prune in.
    """
    pruner = search.file.pruner
    longest = max(config.schedule.epochs for config in configs)
    found = PruningStart(math.ceil(pruner.warmup * longest), f"pruner.warmup={pruner.warmup:g}")
    for config in configs:
        begins, reason = complete_from(config)
        if reason and begins > found.epochs:
            found = PruningStart(begins, f"{reason} begins with epoch {begins}")
    if found.epochs >= longest:
        raise ConfigError(
            [
                f"{search.path.name}: pruner={pruner.name}: has no effect, {found.reason} and "
                f"there are {longest} epochs; use pruner: none"
            ]
        )
    return found
