"""One key of a search file's space: a range of numbers, or a choice of values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from engine.config.layers import full_key
from engine.config.messages import shown
from engine.config.mistakes import nearest
from engine.tuning.search.schema import Axis, Choice, Range, spelled

AXIS = "expected {float: [low, high]}, {int: [low, high]} or {choice: [value, ...]}"


def read_axis(key: str, given: Any, mistakes: list[str]) -> Axis | None:
    """Return what a key can be; without an axis, ``mistakes`` has one more."""
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
        name: tuple(map(spelled, value)) if isinstance(value, list) else (value,)
        for name, value in leaves(where)
    }
    try:
        if kind == "choice":
            values = tuple(map(spelled, given[kind]))
            if len({(type(value), value) for value in values}) < len(values):
                mistakes.append(f"space.{key}={shown(given)}: names one value twice")
            return Choice(values=values, where=conditions)
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


def is_axis(given: Mapping[str, Any]) -> bool:
    """Return whether a mapping of the space is one key's axis, and not a section."""
    return bool({"float", "int", "choice"} & given.keys())


def leaves(
    given: Mapping[str, Any], prefix: str = "", *, stop: Any = lambda _: False
) -> Iterator[tuple[str, Any]]:
    """Yield ``loss.gamma, x`` of ``{loss: {gamma: x}}``, as in any other YAML file."""
    for key, inner in given.items():
        dotted = f"{prefix}.{key}" if prefix else key
        if isinstance(inner, dict) and inner and not stop(inner):
            yield from leaves(inner, dotted, stop=stop)
        else:
            yield full_key(dotted), inner
