"""A loss with each of its keys away from its default."""

from __future__ import annotations

import functools
import typing
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ._subject import NUM_CLASSES, Failed, NotApplicable, Subject, allows, at, in_one_line

NUMBERS = (0.0, 0.3, 1.0, 2.0)
VECTOR = (0.5, 1.0, 2.0, 4.0)
# When a loss begins, and not what it computes; a subject is examined in the last epoch.
TIMES = ("start",)

Check = Callable[[Subject], None]


def defaults(subject: Subject) -> dict[str, Any]:
    """Return the keys of a loss, the keyword-only arguments that have a default, as they are."""
    return {
        name: parameter.default
        for name, parameter in subject.parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is not parameter.empty
    }


def alternatives(subject: Subject, key: str) -> list[Any]:
    """Return at most two other values that the annotation of a key allows, as unlike as may be."""
    hint = subject.hints().get(key)
    default = defaults(subject)[key]
    found: list[Any] = []
    # Of `Annotated[float, Ge(0)] | None` the first, of `Literal["a", "b"]` the words.
    for part in typing.get_args(hint) if type(None) in typing.get_args(hint) else (hint,):
        kind = typing.get_args(part)[0] if hasattr(part, "__metadata__") else part
        if typing.get_origin(part) is typing.Literal:
            found += typing.get_args(part)
        elif kind is bool:
            found += [False, True]
        elif kind in (float, int):
            found += [number for number in NUMBERS if allows(part, number)]
        elif typing.get_origin(part) is tuple:
            found.append(VECTOR[:NUM_CLASSES])
    return [] if key in TIMES else [value for value in found if value != default][:2]


def variants(subject: Subject) -> dict[str, list[dict[str, Any]]]:
    """Return, for every key, what to build the loss with so that it has another value and effect.

    A key that is idle at the defaults of others has them away from these too.
    """
    found = {}
    for key in defaults(subject):
        others = _effective(subject, key)
        found[key] = [{**others, key: value} for value in alternatives(subject, key)]
    return found


def _effective(subject: Subject, key: str) -> dict[str, Any]:
    """Return keys at which another key is not idle."""
    others: dict[str, Any] = {}
    for conditions, keys in subject.fact("idle"):
        if key in keys and holds(conditions, {**defaults(subject), **others}):
            first = next((name for name in conditions if name in defaults(subject)), None)
            if first is not None:
                others[first] = alternatives(subject, first)[-1]
    return others


def holds(
    conditions: Mapping[str, Any],
    keys: Mapping[str, Any],
    *,
    is_weighed: bool = True,
    is_soft: bool = True,
    is_dense: bool = False,
) -> bool:
    """Tell whether all conditions of an ``idle`` fact hold at these keys and this input."""
    circumstances = {
        "weight": "given" if is_weighed else None,
        "targets": "soft" if is_soft else "labels",
        "dense": is_dense,
    }
    known = {**circumstances, **keys}
    return all(known[name] == known.get(str(value), value) for name, value in conditions.items())


def at_every_key(check: Check) -> Check:
    """Return a check that examines a loss at its defaults, and with each key at other values.

    A loss that breaks it at a key for a good reason states ``{"check at key": reason}``.
    """

    @functools.wraps(check)
    def everywhere(subject: Subject) -> None:
        check(subject)
        for key, built_with in variants(subject).items():
            stated = subject.fact("breaks").get(f"{check.__name__} at {key}")
            is_broken = False
            for keys in built_with:
                try:
                    check(replace(subject, keys=keys))
                except NotApplicable:
                    continue
                except Exception as error:
                    if stated is None:
                        raise Failed(f"{in_one_line(error)},{at(keys)}") from error
                    is_broken = True
            if stated is not None and not is_broken:
                raise Failed(f"no longer breaks it at {key}: {stated}")

    return everywhere
