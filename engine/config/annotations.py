"""The annotations that a key may have: what YAML and the command line can give."""

from __future__ import annotations

import ast
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types

# All that an annotation may name; anything else is a mistake of the component.
NAMES = {
    "Annotated": Annotated,
    "Literal": Literal,
    **{name: getattr(annotated_types, name) for name in ("Ge", "Gt", "Le", "Lt", "Interval")},
}
_BUILTINS = {t.__name__: t for t in (float, int, bool, str, tuple, dict)} | {"None": None}

ALLOWED = (
    "a key may be float, int, bool, str, Literal[...], tuple[float, ...], dict[str, float], any of "
    "these | None, or Annotated with Ge, Gt, Le, Lt or Interval of annotated_types"
)


def annotation_of(node: ast.expr) -> Any:
    """Return what an annotation in a source means, without importing the source.

    Raises:
        ValueError: a key cannot have it; the message goes on after the key's name.
    """
    source = ast.unparse(node)
    try:
        annotation = eval(source, {"__builtins__": _BUILTINS, **NAMES})
    except Exception as error:
        raise ValueError(f"has the annotation {source}; {ALLOWED}") from error
    if not _is_readable(annotation):
        raise ValueError(f"has the annotation {source}; {ALLOWED}")
    return annotation


def _is_readable(annotation: Any) -> bool:
    """Return whether YAML and the command line can give what the annotation asks for."""
    if hasattr(annotation, "__metadata__"):
        return _is_readable(annotation.__origin__)
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return True
    if origin is dict and parts[0] is not str:
        return False
    if origin in (Union, UnionType, tuple, dict):
        return all(_is_readable(part) for part in parts if part is not Ellipsis)
    return annotation in (float, int, bool, str, NoneType)
