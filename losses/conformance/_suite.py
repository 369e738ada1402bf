"""All checks, in the order of the report."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import get_args

from .. import FixedPoint, names
from . import _gradients, _keys, _module, _range, _samples, _values, _weighing
from ._subject import Failed, Subject
from ._variants import defaults

CIRCUMSTANCES = {"weight", "targets", "dense"}  # conditions of idle keys that are no keys
AT_KEYS = ("fixed_point", "is_mean_over_samples")  # the facts that may differ at keys

Check = Callable[[Subject], None]


def stated_facts(subject: Subject) -> None:
    """Catch a stated exception, idle key, fixed point or limit that names nothing that exists."""
    keys = defaults(subject)
    for text in subject.fact("breaks"):
        name, at, key = text.partition(" at ")
        if name not in CHECKS | SLOW_CHECKS or (at and key not in keys):
            raise Failed(f"breaks names {text!r}, which is not a check, or not one at a key")
    for conditions, idle in subject.fact("idle"):
        unknown = sorted((set(conditions) - CIRCUMSTANCES | set(idle)) - set(keys))
        if unknown:
            raise Failed(f"idle names {unknown}, which is not a key")
    for at_keys, facts in (({}, {}), *subject.fact("facts_at")):
        unknown = sorted(set(at_keys) - set(keys)) + sorted(set(facts) - set(AT_KEYS))
        if unknown:
            raise Failed(f"facts_at names {unknown}, which is not a key, or not one of {AT_KEYS}")
        point = facts.get("fixed_point", subject.fact("fixed_point"))
        if point not in get_args(FixedPoint):
            raise Failed(f"fixed_point is {point!r}: choose from {get_args(FixedPoint)}")
    for limits, other, _ in subject.fact("equals"):
        unknown = sorted(set(limits) - set(keys))
        if unknown or other not in names():
            raise Failed(f"equals names {unknown or other!r}, which is not a key or loss")


def _checks_of(module: ModuleType) -> dict[str, Check]:
    """Return the public functions that a module defines, in its order."""
    return {
        name: value
        for name, value in vars(module).items()
        if callable(value) and not name.startswith("_") and value.__module__ == module.__name__
    }


CHECKS: dict[str, Check] = {
    "stated_facts": stated_facts,
    **_checks_of(_values),
    **_checks_of(_keys),
    **_checks_of(_samples),
    **_checks_of(_weighing),
    **_checks_of(_gradients),
    **_checks_of(_range),
    **_checks_of(_module),
}
# What takes a C++ compiler and half a minute.
SLOW_CHECKS: dict[str, Check] = {"compiled_by_inductor": CHECKS.pop("compiled_by_inductor")}
