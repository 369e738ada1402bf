"""Class weights from class counts; a file without underscore is one scheme.

The scheme ``effective_number`` is the class ``EffectiveNumber`` of effective_number.py, and its
keyword-only arguments are its keys.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import cast

from torch import Tensor

from .._counts import checked_counts
from .._inputs import ClassValues
from .._names import check_keys, nearest
from ._base import Scheme

__all__ = ["Scheme", "class_weights", "names"]


def names() -> list[str]:
    """Return the names of all schemes, sorted.

    >>> "inverse" in names()
    True
    """
    files = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name for name in files if not name.startswith("_"))


def class_weights(class_counts: ClassValues, *, scheme: str, **keys: object) -> Tensor | None:
    """Return a weight for every class, larger for rarer ones, whose mean is 1 as a rule.

    Args:
        class_counts: (C,) training images of each class. A class of count 0 gets weight 0 and
            leaves the others as they are; public code divides by zero there, or gives such a class
            the largest weight.
        scheme: One of `names`, or ``none`` for no weights at all.
        keys: The scheme's keyword arguments.

    Returns:
        (C,) float64, or None for ``none``.

    Raises:
        ValueError: For counts that are negative, not finite or all 0, an unknown scheme, or keys
            that the scheme does not take.

    >>> class_weights([100, 200, 50], scheme="inverse")
    tensor([0.8571, 0.4286, 1.7143], dtype=torch.float64)
    """
    counts = checked_counts(class_counts)
    if scheme not in ("none", *names()):
        hint = nearest(scheme, names())
        raise ValueError(f"scheme must be none, {', '.join(names())}, not {scheme!r}{hint}")
    component = Scheme if scheme == "none" else _class_of(scheme)
    check_keys(component, keys, of=f"scheme {scheme!r}")
    return None if scheme == "none" else component(**keys)(counts)


def _class_of(name: str) -> type[Scheme]:
    """Return the class of the file ``name``, called as it is."""
    module = importlib.import_module(f".{name}", __name__)
    return cast(type[Scheme], getattr(module, "".join(map(str.capitalize, name.split("_")))))
