"""A search against the config: every corner of the space must load before a trial begins."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

from engine.config.derived import has_validation
from engine.config.layers import full_key
from engine.config.load import NOT_IDENTITY, SEEDS
from engine.config.messages import shown
from engine.config.mistakes import ConfigError, nearest
from engine.config.schema import Config
from engine.tuning.search import Search
from engine.tuning.search.schema import Axis, Choice, Range
from engine.tuning.search.space import constants_of, is_active

COMBINATIONS = 128  # of choices that are loaded together; beyond, choices vary one at a time


def checked(search: Search) -> list[Config]:
    """Load every corner of the space, check every enqueued set, and return the corners' configs.

    Raises:
        ConfigError: with every mistake that was found, one line each.
    """
    from engine.report.tracking import check_installed

    base = search.base
    check_installed(base.track.to)
    mistakes = [
        *_forbidden(search),
        *_unmet_conditions(search),
        *_beyond_the_sampler(search),
        *_without_validation(base),
    ]
    configs: list[Config] = []
    for point in _corners(search):
        try:
            configs.append(search.config(point))
        except ConfigError as error:
            mistakes += error.mistakes
    for number, values in enumerate(search.file.enqueue, start=1):
        mistakes += [f"enqueue {number}: {line}" for line in _outside(values, search)]
    if mistakes:
        name = search.path.name
        unique = dict.fromkeys(mistake.replace(" [values]", f" [{name}]") for mistake in mistakes)
        raise ConfigError(unique)
    return configs


def _forbidden(search: Search) -> Iterator[str]:
    for key in search.file.space:
        if key.startswith(NOT_IDENTITY):
            yield f"space.{key}: changes no number, there is nothing to search"
        elif key in SEEDS:
            yield f"space.{key}: the best seed means nothing; use seeds: N to average over seeds"
        elif key in search.file.fixed:
            yield f"space.{key}: is also in set; leave one of them out"
    for word in search.overrides:
        key = full_key(word.partition("=")[0])
        if key in search.file.space or key in search.file.fixed:
            yield f"{word}: has no effect, {search.path.name} sets this key"
        if key == "schedule.epochs" and search.file.budget.epochs is not None:
            yield f"{word}: has no effect, budget.epochs is {search.file.budget.epochs}"
    for key in (*search.file.space, *search.file.fixed):
        if key.startswith("evaluate."):
            yield f"{key}: trials are compared by metric; leave it out"
        elif key.startswith("data.") and not key.startswith("data.augment."):
            yield f"{key}: makes another task of it; set it in the config, for the default too"


def _without_validation(base: Config) -> Iterator[str]:
    if base.evaluate.test_every_epoch:
        yield "evaluate.test_every_epoch=true: a trial of a search never looks at test"
    if "val" not in base.evaluate.rules:
        yield "evaluate.rules: a search compares trials by rule val; name it"
    if not has_validation(base):
        yield (
            f"{base.evaluate.metric}: a search needs a validation split; set "
            "data.validation.per_class or data.validation.fraction"
        )


def _unmet_conditions(search: Search) -> Iterator[str]:
    """Yield conditions that name no key, or that never hold."""
    space, constants = search.file.space, constants_of(search)
    above: list[str] = []
    for key, axis in space.items():
        for name, wanted in axis.where.items():
            where = f"space.{key}.where.{name}"
            if name in above:
                other = space[name]
                if isinstance(other, Choice) and not set(wanted) <= set(other.values):
                    yield f"{where}={shown(list(wanted))}: {name} is one of {list(other.values)}"
                elif isinstance(other, Range):
                    yield f"{where}: {name} is a range; a condition needs a choice"
            elif name in space:
                yield f"{where}: {name} must stand above {key} in the file"
            elif name not in constants:
                yield f"{where}: unknown key{nearest(name, [*space, *constants])}"
            elif constants[name] not in wanted:
                yield f"{where}={shown(list(wanted))}: never holds, {name}={constants[name]}"
        above.append(key)


def _beyond_the_sampler(search: Search) -> Iterator[str]:
    """Yield keys that a Gaussian process would leave to chance."""
    if search.file.sampler.name != "gp":
        return
    for key, axis in search.file.space.items():
        if inner := next((name for name in axis.where if name in search.file.space), None):
            yield (
                f"space.{key}.where: sampler=gp models keys that every trial has; use sampler: "
                f"tpe, or set {inner} and search the rest"
            )


def _corners(search: Search) -> Iterator[dict[str, Any]]:
    """Yield parameter sets that together have both ends of every range under every choice."""
    space, constants = search.file.space, constants_of(search)
    for choices in _choices(space):
        active: dict[str, Axis] = {}
        values: dict[str, Any] = {}
        for key, axis in space.items():
            if is_active(axis, {**constants, **values}):
                active[key] = axis
                values[key] = choices[key] if isinstance(axis, Choice) else _end(axis, "low")
        yield values
        ranges = {key: axis for key, axis in active.items() if isinstance(axis, Range)}
        yield {**values, **{key: _end(axis, "high") for key, axis in ranges.items()}}
        for key, axis in ranges.items():
            yield {**values, key: _end(axis, "high")}


def _end(axis: Range, end: str) -> int | float:
    value = getattr(axis, end)
    return int(value) if axis.kind == "int" else float(value)


def _choices(space: Mapping[str, Axis]) -> Iterator[dict[str, Any]]:
    axes = {key: axis.values for key, axis in space.items() if isinstance(axis, Choice)}
    if math.prod(map(len, axes.values())) <= COMBINATIONS:
        for chosen in itertools.product(*axes.values()):
            yield dict(zip(axes, chosen, strict=True))
        return
    first = {key: values[0] for key, values in axes.items()}
    for key, values in axes.items():
        for value in values:
            yield {**first, key: value}


def _outside(values: Mapping[str, Any], search: Search) -> Iterator[str]:
    """Yield the values of an enqueued parameter set that lie outside the space."""
    space, constants = search.file.space, constants_of(search)
    for key, value in values.items():
        axis = space.get(key)
        if axis is None:
            yield f"{key}: not in the space{nearest(key, space)}"
        elif not is_active(axis, {**constants, **values}):
            yield f"{key}: does not exist there, its where does not hold"
        elif isinstance(axis, Choice) and value not in axis.values:
            yield f"{key}={shown(value)}: expected one of {list(axis.values)}"
        elif isinstance(axis, Range) and not _is_in(value, axis):
            steps = "" if axis.step is None else f" in steps of {axis.step:g}"
            kind = "a whole number" if axis.kind == "int" else "a number"
            yield f"{key}={shown(value)}: expected {kind} from {axis.low:g} to {axis.high:g}{steps}"


def _is_in(value: Any, axis: Range) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if not axis.low <= value <= axis.high or (axis.kind == "int" and value != int(value)):
        return False
    steps = 0.0 if axis.step is None else (value - axis.low) / axis.step
    return abs(steps - round(steps)) < 1e-9
