"""Losses for classification under class imbalance; a file without underscore is one loss.

The package imports torch and annotated_types alone, so that it can be copied into another project.
A loss called `softmax_focal` is the class `SoftmaxFocal` of softmax_focal.py, next to the pure
function `softmax_focal_loss`; a new file is a new loss.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import cast

from ._base import FixedPoint, Loss
from ._inputs import ClassValues, as_tensor
from ._names import check_keys, nearest
from .weights import class_weights

__all__ = ["FixedPoint", "Loss", "build", "class_weights", "names"]


def names() -> list[str]:
    """Return the names of all losses, sorted.

    >>> "cross_entropy" in names()
    True
    """
    files = (module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg)
    return sorted(name for name in files if not name.startswith("_"))


def build(
    name: str,
    keys: Mapping[str, object] | None = None,
    *,
    class_counts: ClassValues,
    old_classes: Sequence[int] | None = None,
) -> Loss:
    """Make the loss called `name`; of the facts of a run it gets those its constructor names.

    Args:
        name: One of `names`.
        keys: Its keyword arguments.
        class_counts: (C,) training images of each class; their number is ``num_classes``.
        old_classes: Labels that the teacher knows; by default all.

    Raises:
        ValueError: For a name that is no loss, and a key that it does not have.
    """
    if name not in names():
        hint = nearest(name, names())
        raise ValueError(f"no loss is called {name!r}: choose from {', '.join(names())}{hint}")
    module = importlib.import_module(f".{name}", __package__)
    component = _component(module)
    check_keys(component, keys or {}, of=name)
    counts = as_tensor(class_counts, name="class_counts")
    num_classes = len(counts)
    known = {
        "class_counts": counts,
        "num_classes": num_classes,
        "old_classes": range(num_classes) if old_classes is None else old_classes,
    }
    parameters = inspect.signature(component).parameters
    facts = {fact: value for fact, value in known.items() if fact in parameters}
    return component(**facts, **(keys or {}))


def _component(module: ModuleType) -> Callable[..., Loss]:
    """Return the one public class that a loss file defines."""
    classes = [
        value
        for key, value in vars(module).items()
        if inspect.isclass(value) and value.__module__ == module.__name__ and key[0] != "_"
    ]
    assert len(classes) == 1, f"{module.__name__} must define one public class, not {len(classes)}"
    return cast(Callable[..., Loss], classes[0])
