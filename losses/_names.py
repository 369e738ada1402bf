"""Names that users write: those of losses, schemes and keys."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable


def nearest(word: str, words: Iterable[str]) -> str:
    """Return a question after the word that was meant, "" where none is near.

    >>> nearest("gama", ["gamma", "alpha"])
    '; did you mean gamma?'
    """
    near = difflib.get_close_matches(word, list(words), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def check_keys(component: Callable[..., object], keys: Iterable[str], *, of: str) -> None:
    """Raise ValueError for a key that is no keyword-only argument of a component.

    Args:
        component: What is made with the keys.
        keys: As they were given.
        of: What it is called, for the message.
    """
    parameters = inspect.signature(component).parameters.values()
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    for key in keys:
        if key not in known:
            choice = f"choose from {', '.join(known)}" if known else "it takes none"
            raise ValueError(f"{of} has no key {key!r}: {choice}{nearest(key, known)}")
