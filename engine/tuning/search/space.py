"""The space of a search: which keys a trial has, what they can be, and how many sets there are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from engine.config.load import flatten
from engine.tuning.search import Search
from engine.tuning.search.schema import Axis, Choice, spelled

if TYPE_CHECKING:
    from optuna.trial import Trial

COUNTED = 10_000  # a space of more parameter sets is as good as endless


def suggest(
    trial: Trial, space: Mapping[str, Axis], *, constants: Mapping[str, Any]
) -> dict[str, Any]:
    """Ask a trial's sampler for every key that exists in it, and return their values."""
    values: dict[str, Any] = {}
    for key, axis in space.items():
        if not is_active(axis, {**constants, **values}):
            continue
        if isinstance(axis, Choice):
            values[key] = trial.suggest_categorical(key, axis.values)
        elif axis.kind == "int":
            step = int(axis.step or 1)
            values[key] = trial.suggest_int(
                key, int(axis.low), int(axis.high), step=step, log=axis.log
            )
        else:
            values[key] = trial.suggest_float(
                key, axis.low, axis.high, step=axis.step, log=axis.log
            )
    return values


def is_active(axis: Axis, values: Mapping[str, Any]) -> bool:
    """Return whether the conditions of ``where`` hold; a key that does not exist meets none."""
    return all(key in values and values[key] in wanted for key, wanted in axis.where.items())


def constants_of(search: Search) -> dict[str, Any]:
    """Return what conditions may read besides the space: the base config with ``set`` over it."""
    found = {**flatten(search.base), **search.file.fixed}
    return {key: spelled(value) for key, value in found.items()}


def parameter_sets(search: Search) -> list[dict[str, Any]] | None:
    """Return every parameter set of the space in a fixed order, conditions respected.

    Returns:
        None where the space is endless: a float has no step, or there are more than `COUNTED`
        combinations and nobody asks for the grid of them.
    """
    sizes = [_size(axis) for axis in search.file.space.values()]
    is_grid = search.file.sampler.name == "grid"
    if None in sizes or (not is_grid and math.prod(filter(None, sizes)) > COUNTED):
        return None
    found: list[dict[str, Any]] = [{}]
    constants = constants_of(search)
    for key, axis in search.file.space.items():
        found = [
            {**point, key: value} if exists else point
            for point in found
            for exists in [is_active(axis, {**constants, **point})]
            for value in (_values(axis) if exists else [None])
        ]
    return found


def num_trials(search: Search) -> int | None:
    """Return how many parameter sets are to end; None where only time ends the search."""
    sets, wanted = parameter_sets(search), search.file.budget.trials
    return wanted if sets is None else min(len(sets), wanted or len(sets))


def _size(axis: Axis) -> int | None:
    if isinstance(axis, Choice):
        return len(axis.values)
    if axis.kind == "float" and axis.step is None:
        return None
    return round((axis.high - axis.low) / (axis.step or 1)) + 1


def _values(axis: Axis) -> list[Any]:
    if isinstance(axis, Choice):
        return list(axis.values)
    step, size = axis.step or 1, _size(axis)
    assert size is not None, "a float without a step"
    number = int if axis.kind == "int" else float
    return [number(round(axis.low + i * step, 12)) for i in range(size)]
