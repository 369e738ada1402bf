"""What a value of JSON is, in words."""

from __future__ import annotations

_KINDS = {
    dict: "an object",
    list: "a list",
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
}


def kind_of(value: object) -> str:
    """Return what a value that was read from JSON is.

    >>> kind_of([1]), kind_of(True), kind_of(None)
    ('a list', 'true or false', 'null')
    """
    return _KINDS[type(value)]
