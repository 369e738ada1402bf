"""A search file: what is searched, by which metric, for how long, and how the answer is checked.

Read and checked without importing torch or Optuna, so that a typo is answered at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.config.load import full_key
from engine.config.messages import allowed, shown
from engine.config.metrics import selectable
from engine.config.mistakes import ConfigError, nearest
from engine.config.strict_yaml import read_yaml

Scalar = bool | int | float | str | None
Direction = Literal["maximize", "minimize"]
DIRECTIONS: dict[str, Direction] = {"max": "maximize", "min": "minimize"}


class Node(BaseModel):
    """A node of a search file: frozen, strict about types, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Budget(Node):
    """How much is spent."""

    trials: Annotated[int, Ge(1)] | None = Field(
        None, description="parameter sets to end; null with sampler=grid: the whole grid"
    )
    timeout: Annotated[float, Gt(0)] | None = Field(
        None, description="seconds after which no trial begins any more"
    )
    epochs: Annotated[int, Ge(1)] | None = Field(
        None, description="schedule.epochs of every trial; null: as in the config"
    )


class Sampler(Node):
    """Who proposes the next parameter set."""

    name: Literal["tpe", "gp", "random", "grid"] = Field(
        "tpe", description="Optuna's sampler; grid tries every combination, in random order"
    )
    seed: Annotated[int, Ge(0), Lt(2**32)] = Field(0, description="seed of what is proposed")


class Pruner(Node):
    """Who stops a trial that is behind the others."""

    name: Literal["none", "median", "hyperband", "wilcoxon"] = Field(
        "none", description="Optuna's pruner; wilcoxon compares trials seed by seed"
    )
    warmup: Annotated[float, Ge(0), Lt(1)] = Field(
        0.25,
        description="median and hyperband: fraction of training in which nothing is pruned; it is "
        "longer where a deferred loss, sampler or weighting begins later",
    )


class Confirm(Node):
    """The stage that trains the best settings again, on fresh seeds, and only then sees test."""

    top: Annotated[int, Ge(0)] = Field(3, description="settings confirmed beside the default")
    seeds: Annotated[int, Ge(1)] = Field(5, description="fresh seeds each is trained with")


class Range(Node):
    """A number between two ends, both included; on a log scale, or in steps from the lower end."""

    kind: Literal["float", "int"]
    low: float | int
    high: float | int
    log: bool = False
    step: Annotated[float | int, Gt(0)] | None = None
    where: dict[str, tuple[Scalar, ...]] = {}


class Choice(Node):
    """One of several plain values."""

    kind: Literal["choice"] = "choice"
    values: Annotated[tuple[Scalar, ...], MinLen(1)]
    where: dict[str, tuple[Scalar, ...]] = {}


Axis = Range | Choice


class SearchFile(Node):
    """The contents of a search file.

    Attributes:
        metrics: validation metrics; the first chooses the epoch (``evaluate.metric``).
        fixed: config keys of every trial, from ``set``.
        space: dotted key -> what it can be; a key with ``where`` exists only in the trials where
            the keys named there have one of the values given.
        enqueue: parameter sets that are tried first.
        seeds: seeds that a trial is trained with; its value is their mean.
    """

    metrics: Annotated[tuple[str, ...], MinLen(1)]
    budget: Budget = Budget()
    sampler: Sampler = Sampler()
    pruner: Pruner = Pruner()
    fixed: dict[str, Any] = {}
    space: Annotated[dict[str, Axis], MinLen(1)]
    enqueue: tuple[dict[str, Scalar], ...] = ()
    seeds: Annotated[int, Ge(1), Le(100)] = Field(
        1, description="seeds that a trial is trained with; its value is their mean"
    )
    confirm: Confirm = Confirm()

    @property
    def directions(self) -> tuple[Direction, ...]:
        """Of each metric: whether more or less is better."""
        return tuple(DIRECTIONS[selectable()[m.removeprefix("val/")].better] for m in self.metrics)


TOP_LEVEL: dict[str, str] = {
    "metric": "validation metric, or a list of them (Pareto front); val/balanced_accuracy",
    "direction": "maximize or minimize; follows from the metric, checked where it is given",
    "budget": "trials, timeout, epochs",
    "sampler": "tpe, gp, random or grid; or name and seed",
    "pruner": "none, median, hyperband or wilcoxon; or name and warmup",
    "set": "config keys of every trial",
    "space": "config key -> float, int or choice",
    "enqueue": "parameter sets that are tried first",
    "seeds": "seeds that a trial is trained with; its value is their mean",
    "confirm": "top, seeds",
}
SECTIONS: dict[str, type[Node]] = {
    "budget": Budget,
    "sampler": Sampler,
    "pruner": Pruner,
    "confirm": Confirm,
}
NAMED = ("sampler", "pruner")  # `sampler: gp` is `sampler: {name: gp}`


def read_search_file(path: Path) -> SearchFile:
    """Read and check a search file by itself.

    :mod:`engine.tuning.search.space` checks it against the config.

    Raises:
        ConfigError: with every mistake that was found, one line each.
    """
    content = read_yaml(path)
    mistakes: list[str] = []
    found: dict[str, Any] = {}
    for key in content:
        if key not in TOP_LEVEL:
            known = ", ".join(TOP_LEVEL)
            mistakes.append(f"{key}: unknown key{nearest(key, TOP_LEVEL)}; one of {known}")
    for name, model in SECTIONS.items():
        if (section := _section(name, model, content.get(name), mistakes)) is not None:
            found[name] = section
    found["metrics"] = _metrics(content, mistakes)
    found["fixed"] = dict(_leaves(_mapping("set", content, mistakes)))
    found["space"] = {
        key: axis
        for key, given in _leaves(_mapping("space", content, mistakes), stop=_is_axis)
        if (axis := _axis(key, given, mistakes)) is not None
    }
    if not content.get("space"):
        mistakes.append(
            "space: is missing; name a key to search, as in loss.gamma: {float: [0, 5]}"
        )
    found["enqueue"] = _enqueued(content.get("enqueue"), mistakes)
    found["seeds"] = content.get("seeds", 1)
    if mistakes:
        raise ConfigError(f"{path}: {mistake}" for mistake in mistakes)
    try:
        file = SearchFile.model_validate(found)
    except ValidationError as error:
        wrong = sorted({str(e["loc"][0]) for e in error.errors()})
        raise ConfigError(
            f"{path}: {key}={shown(content.get(key))}: expected "
            f"{allowed(SearchFile.model_fields[key])}"
            for key in wrong
        ) from error
    if mistakes := list(_incompatible(file)):
        raise ConfigError(f"{path}: {mistake}" for mistake in mistakes)
    return file


# --- parts of the file ---------------------------------------------------------------------------


def _section(name: str, model: type[Node], given: Any, mistakes: list[str]) -> Node | None:
    if given is None:
        return None
    if name in NAMED and isinstance(given, str):
        given = {"name": given}
    if not isinstance(given, dict):
        keys = ", ".join(model.model_fields)
        mistakes.append(f"{name}={shown(given)}: expected a mapping with {keys}")
        return None
    try:
        return model.model_validate(given)
    except ValidationError as error:
        wrong = {str(e["loc"][0]): None for e in error.errors()}
        mistakes += [_section_mistake(name, model, key, given.get(key)) for key in wrong]
    return None


def _section_mistake(name: str, model: type[Node], key: str, value: Any) -> str:
    info = model.model_fields.get(key)
    if info is None:
        known = ", ".join(model.model_fields)
        return f"{name}.{key}: unknown key{nearest(key, model.model_fields)}; one of {known}"
    hint = nearest(str(value), getattr(info.annotation, "__args__", ())) if key == "name" else ""
    return f"{name}.{key}={shown(value)}: expected {allowed(info)}{hint} ({info.description})"


def _metrics(content: Mapping[str, Any], mistakes: list[str]) -> tuple[str, ...]:
    given = content.get("metric", "val/balanced_accuracy")
    metrics = tuple(given) if isinstance(given, list) else (given,)
    known = [f"val/{name}" for name in selectable()]
    for metric in metrics:
        text = str(metric)
        if text.startswith("test/") or "oracle" in text:
            mistakes.append(
                f"metric={text}: a search never sees test; use a validation metric, such as "
                "val/balanced_accuracy"
            )
        elif metric not in known:
            mistakes.append(
                f"metric={shown(metric)}: unknown{nearest(text, known)}; one of {', '.join(known)}"
            )
    if len(set(map(str, metrics))) < len(metrics):
        mistakes.append(f"metric={shown(given)}: names one metric twice")
    if "direction" in content and not mistakes:
        right = [DIRECTIONS[selectable()[m.removeprefix("val/")].better] for m in metrics]
        wanted = content["direction"]
        if (wanted if isinstance(wanted, list) else [wanted]) != right:
            mistakes.append(
                f"direction={shown(wanted)}: expected {' and '.join(right)}, as "
                f"{' and '.join(metrics)} is read; leave it out"
            )
    return metrics


def _mapping(name: str, content: Mapping[str, Any], mistakes: list[str]) -> Mapping[str, Any]:
    given = content.get(name)
    if given is None:
        return {}
    if not isinstance(given, dict):
        mistakes.append(f"{name}={shown(given)}: expected config keys and what they are")
        return {}
    return given


def _is_axis(given: Mapping[str, Any]) -> bool:
    return bool({"float", "int", "choice"} & given.keys())


def _leaves(
    given: Mapping[str, Any], prefix: str = "", *, stop: Any = lambda _: False
) -> Iterator[tuple[str, Any]]:
    """``{loss: {gamma: x}}`` is ``loss.gamma: x``, as in any other YAML file."""
    for key, inner in given.items():
        dotted = f"{prefix}.{key}" if prefix else key
        if isinstance(inner, dict) and inner and not stop(inner):
            yield from _leaves(inner, dotted, stop=stop)
        else:
            yield full_key(dotted), inner


AXIS = "expected {float: [low, high]}, {int: [low, high]} or {choice: [value, ...]}"


def _axis(key: str, given: Any, mistakes: list[str]) -> Axis | None:
    if not isinstance(given, dict) or len({"float", "int", "choice"} & given.keys()) != 1:
        mistakes.append(f"space.{key}={shown(given)}: {AXIS}")
        return None
    kind = next(k for k in ("float", "int", "choice") if k in given)
    usable = {kind, "where"} | ({"log", "step"} if kind != "choice" else set())
    known = ", ".join(sorted(usable))
    mistakes += [
        f"space.{key}.{word}: unknown key{nearest(word, usable)}; one of {known}"
        for word in given
        if word not in usable
    ]
    where = given.get("where", {})
    if not isinstance(where, dict):
        mistakes.append(
            f"space.{key}.where={shown(where)}: expected keys and values, {{key: value}}"
        )
        return None
    conditions = {
        name: tuple(value) if isinstance(value, list) else (value,)
        for name, value in _leaves(where)
    }
    try:
        if kind == "choice":
            return Choice(values=tuple(given[kind]), where=conditions)
        low, high = given[kind]
        extra = {name: given[name] for name in ("log", "step") if name in given}
        axis = Range(kind=kind, low=low, high=high, where=conditions, **extra)  # type: ignore[arg-type]
    except (ValidationError, TypeError, ValueError):
        mistakes.append(
            f"space.{key}={shown(given)}: {AXIS}; log: true, step: number, where: {{...}}"
        )
        return None
    mistakes += [f"space.{key}={shown(given)}: {reason}" for reason in _range_mistakes(axis)]
    return axis


def _range_mistakes(axis: Range) -> Iterator[str]:
    if axis.low >= axis.high:
        yield "the first number must be the smaller one"
    if axis.log and axis.low <= 0:
        yield "a log scale needs numbers above 0"
    if axis.log and axis.step is not None:
        yield "log and step cannot go together"
    if axis.kind == "int" and any(
        isinstance(number, float) for number in (axis.low, axis.high, axis.step)
    ):
        yield "int takes whole numbers"
    if axis.step is not None and axis.low < axis.high:
        steps = (axis.high - axis.low) / axis.step
        if abs(steps - round(steps)) > 1e-9:
            yield f"the upper end is not a whole number of steps of {axis.step:g} away"


def _enqueued(given: Any, mistakes: list[str]) -> tuple[dict[str, Any], ...]:
    if given is None:
        return ()
    if not isinstance(given, list) or not all(isinstance(entry, dict) for entry in given):
        mistakes.append(f"enqueue={shown(given)}: expected a list of {{key: value, ...}}")
        return ()
    return tuple(dict(_leaves(entry)) for entry in given)


# --- options that have no effect -----------------------------------------------------------------


def _incompatible(file: SearchFile) -> Iterator[str]:
    budget, sampler, pruner = file.budget, file.sampler, file.pruner
    if budget.trials is None and sampler.name != "grid" and budget.timeout is None:
        yield "budget.trials: is missing; only sampler=grid ends by itself"
    if len(file.metrics) > 1 and pruner.name != "none":
        yield f"pruner={pruner.name}: has no effect with two metrics; use pruner: none"
    if pruner.name in ("median", "hyperband") and file.seeds > 1:
        yield f"pruner={pruner.name}: compares epochs of one seed; use wilcoxon, or seeds: 1"
    if pruner.name == "wilcoxon" and file.seeds < 5:
        yield f"seeds={file.seeds}: pruner=wilcoxon compares trials over seeds, give it 5 or more"
    if pruner.name not in ("median", "hyperband") and "warmup" in pruner.model_fields_set:
        yield f"pruner.warmup: has no effect with pruner={pruner.name}"
    if sampler.name == "grid":
        for key, axis in file.space.items():
            if isinstance(axis, Range) and axis.kind == "float" and axis.step is None:
                yield f"space.{key}: sampler=grid needs a step, or choice"
    if budget.trials is not None and len(file.enqueue) > budget.trials:
        yield f"enqueue: has {len(file.enqueue)} parameter sets, budget.trials is {budget.trials}"
