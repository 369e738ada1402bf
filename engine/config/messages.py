"""How keys, values and ranges read, in ``--help`` and in messages."""

from __future__ import annotations

import json
import types
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic.fields import FieldInfo

_NOUNS: dict[Any, str] = {
    Any: "a value",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
}
_SIGNS = (
    (annotated_types.Ge, "ge", ">="),
    (annotated_types.Gt, "gt", ">"),
    (annotated_types.Le, "le", "<="),
    (annotated_types.Lt, "lt", "<"),
)


def allowed(info: FieldInfo) -> str:
    """Say in words what a key takes: ``a number >= 0, or null``."""
    return _type(info.annotation, info.metadata)


def shown(value: Any) -> str:
    """Return a value as YAML spells it, on one line and not too long."""
    if isinstance(value, str):
        text = value if value.isprintable() else json.dumps(value)
    else:
        text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def one_line(text: str) -> str:
    """Return ``text`` with line breaks and control characters escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return ``1 class`` or ``2 classes``; without ``many`` an s is added.

    >>> counted(1, "run"), counted(1000, "run"), counted(2, "class", "classes")
    ('1 run', '1,000 runs', '2 classes')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _type(annotation: Any, metadata: Any = ()) -> str:
    origin = get_origin(annotation)
    if hasattr(annotation, "__metadata__"):
        inner, *extra = get_args(annotation)
        return _type(inner, [*metadata, *extra])
    if origin is Literal:
        return "one of " + " | ".join(str(a) for a in get_args(annotation))
    if origin in (Union, types.UnionType):
        parts = [_type(a, metadata) for a in get_args(annotation) if a is not type(None)]
        null = ["null"] if type(None) in get_args(annotation) else []
        return ", or ".join(parts + null)
    if origin is dict:
        return f"names, each with {_type(get_args(annotation)[1])}"
    if origin in (tuple, list):
        first, *rest = get_args(annotation)
        length = "" if Ellipsis in rest else f" of {len(rest) + 1}"
        return f"a list{length}, each {_type(first)}"
    return _NOUNS.get(annotation, str(annotation)) + _range(metadata) + _pattern(metadata)


def _range(metadata: Any) -> str:
    flat: list[Any] = []
    for item in metadata:
        flat += list(item) if isinstance(item, annotated_types.Interval) else [item]
    limits = [
        f"{sign} {_plain(getattr(item, name))}"
        for item in flat
        for kind, name, sign in _SIGNS
        if isinstance(item, kind)
    ]
    return f" {' and '.join(limits)}" if limits else ""


def _plain(limit: float) -> str:
    return str(limit) if isinstance(limit, int) else f"{limit:g}"


def _pattern(metadata: Any) -> str:
    patterns = [p for item in metadata if (p := getattr(item, "pattern", None))]
    patterns += [
        p
        for item in metadata
        if isinstance(item, FieldInfo)
        for inner in item.metadata
        if (p := getattr(inner, "pattern", None))
    ]
    return f" of the form {patterns[0].strip('^$')}" if patterns else ""
