"""A search space against the config: every corner of it must load before a trial begins."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.config.calendar import complete_from
from engine.config.load import NOT_IDENTITY, SEEDS, flatten, full_key
from engine.config.messages import shown
from engine.config.mistakes import ConfigError, nearest
from engine.config.rules import has_validation
from engine.config.schema import Config
from engine.tuning.search.search import Search
from engine.tuning.search.search_file import Axis, Choice, Range

if TYPE_CHECKING:
    from optuna.trial import Trial

COMBINATIONS = 128  # of choices that are loaded together; beyond, choices vary one at a time


def suggest(
    trial: Trial, space: Mapping[str, Axis], *, constants: Mapping[str, Any]
) -> dict[str, Any]:
    """Ask the sampler for every key that exists in this trial."""
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
    """Whether the conditions of ``where`` hold; a key that does not exist meets none."""
    return all(key in values and values[key] in wanted for key, wanted in axis.where.items())


def constants_of(search: Search) -> dict[str, Any]:
    """What conditions may read besides the space: the base config with ``set`` over it."""
    return {**flatten(search.base()), **search.file.fixed}


def grid(search: Search) -> list[dict[str, Any]]:
    """Every combination of the space's values, conditions respected, in a fixed order."""
    points: list[dict[str, Any]] = [{}]
    constants = constants_of(search)
    for key, axis in search.file.space.items():
        points = [
            {**point, key: value} if exists else point
            for point in points
            for exists in [is_active(axis, {**constants, **point})]
            for value in (_values(axis) if exists else [None])
        ]
    return points


def _values(axis: Axis) -> list[Any]:
    if isinstance(axis, Choice):
        return list(axis.values)
    step = axis.step or 1
    number = int if axis.kind == "int" else float
    return [
        number(round(axis.low + i * step, 12))
        for i in range(round((axis.high - axis.low) / step) + 1)
    ]


# --- checks --------------------------------------------------------------------------------------


def checked(search: Search) -> list[Config]:
    """Load every corner of the space, and every enqueued set; returns their configs.

    Raises:
        ConfigError: with every mistake that was found, one line each.
    """
    from engine.report.tracking import check_installed

    base = search.base()
    check_installed(base.track.to)
    mistakes = [*_forbidden(search), *_unmet_conditions(search), *_without_validation(base)]
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
    """Conditions that name no key, or that never hold."""
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


def _corners(search: Search) -> Iterator[dict[str, Any]]:
    """Parameter sets that together have both ends of every range under every choice."""
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
    """What of an enqueued parameter set the space does not hold."""
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
            yield f"{key}={shown(value)}: expected a number from {axis.low:g} to {axis.high:g}"


def _is_in(value: Any, axis: Range) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and axis.low <= value <= axis.high


# --- when pruning may begin ----------------------------------------------------------------------


class Warmup(NamedTuple):
    """Epochs in which nothing is pruned, and why."""

    epochs: int
    reason: str


def warmup(search: Search, configs: list[Config]) -> Warmup:
    """Until when a trial is safe: a share of training, and any deferred start in the space.

    Before it, a trial with a deferred loss, sampler or weighting is one without.

    Raises:
        ConfigError: nothing of training is left to prune in.
    """
    pruner = search.file.pruner
    longest = max(config.schedule.epochs for config in configs)
    found = Warmup(math.ceil(pruner.warmup * longest), f"pruner.warmup={pruner.warmup:g}")
    for config in configs:
        begins, reason = complete_from(config)
        if reason and begins > found.epochs:
            found = Warmup(begins, f"{reason} begins with epoch {begins}")
    if found.epochs >= longest:
        raise ConfigError(
            [
                f"{search.path.name}: pruner={pruner.name}: has no effect, {found.reason} and "
                f"there are {longest} epochs; use pruner: none"
            ]
        )
    return found
