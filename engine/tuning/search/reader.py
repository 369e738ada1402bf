"""Read a search file and check it by itself, without importing torch or Optuna."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from engine.config.messages import allowed, shown
from engine.config.metrics import selectable
from engine.config.mistakes import ConfigError, nearest
from engine.config.strict_yaml import read_yaml
from engine.tuning.search.axes import is_axis, leaves, read_axis
from engine.tuning.search.schema import (
    DIRECTIONS,
    Budget,
    Confirm,
    Node,
    Pruner,
    Range,
    Sampler,
    SearchFile,
    spelled,
)

TOP_LEVEL: dict[str, str] = {
    "metric": "validation metric, or a list of them (Pareto front); val/balanced_accuracy",
    "direction": "maximize or minimize; follows from the metric, checked where it is given",
    "budget": "trials, timeout, epochs",
    "sampler": "tpe, gp, random or grid; or name and seed",
    "pruner": "none, median, hyperband or wilcoxon; or name and warmup",
    "set": "config keys of every trial, not of the default",
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
    """Return the contents of a search file.

    :mod:`engine.tuning.search.checks` holds it against the config.

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
    found["fixed"] = dict(leaves(_mapping("set", content, mistakes)))
    found["space"] = {
        key: axis
        for key, given in leaves(_mapping("space", content, mistakes), stop=is_axis)
        if (axis := read_axis(key, given, mistakes)) is not None
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


def _enqueued(given: Any, mistakes: list[str]) -> tuple[dict[str, Any], ...]:
    if given is None:
        return ()
    if not isinstance(given, list) or not all(isinstance(entry, dict) for entry in given):
        mistakes.append(f"enqueue={shown(given)}: expected a list of {{key: value, ...}}")
        return ()
    return tuple({key: spelled(value) for key, value in leaves(entry)} for entry in given)


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
