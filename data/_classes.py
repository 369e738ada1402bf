"""Classes: found by name or number, and which of them a run trains on, knows and is tested on."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import torch

from data._base import Classes, DataError, Pool, Split


def choose_classes(
    pool: Pool,
    *,
    trained: Sequence[int | str] | None,
    tested: Sequence[int | str] | None,
    taught: Sequence[str],
) -> Classes:
    """Find the classes that the keys name.

    Args:
        pool: The data set.
        trained: ``data.classes``; None is every class.
        tested: ``data.test_classes``; None is what is trained on or taught.
        taught: Names of the classes that the teacher knows.

    Raises:
        DataError: If there is no such class, one is named twice, or there are too few.
    """
    num_classes = len(pool.class_names)
    unknown = [name for name in taught if name not in pool.class_names]
    if unknown:
        raise DataError(
            f"teacher: it knows the class {unknown[0]!r}, which {pool.title} does not have; "
            "teacher and student need the same data set"
        )
    labels = tuple(sorted(pool.class_names.index(name) for name in taught))
    own = tuple(range(num_classes)) if trained is None else _find_all(pool, trained, key="classes")
    if len(own) < 2:
        raise DataError("data.classes: names one class only: classification needs at least 2")
    if trained is not None and len(own) == num_classes:
        raise DataError(
            f"data.classes: has no effect, it names all {num_classes} classes of {pool.title}; "
            "leave it out"
        )
    if tested is None:
        return Classes(own, labels, tuple(sorted({*own, *labels})))
    return Classes(own, labels, _find_all(pool, tested, key="test_classes"))


class Named(Protocol):
    """A data set whose classes have names."""

    @property
    def title(self) -> str:
        """What messages call it."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names, in label order."""
        ...


class Names(NamedTuple):
    """Names of classes where no data set is at hand."""

    title: str
    class_names: tuple[str, ...]


def find_class(pool: Named, wanted: int | str, *, key: str) -> int:
    """Return the label of the class of that name, else of that number.

    Args:
        pool: The data set.
        wanted: A name or a label.
        key: The config key, for the message.

    Raises:
        DataError: If there is no such class.
    """
    word = str(wanted)
    if word in pool.class_names:
        return pool.class_names.index(word)
    if word.isdecimal() and int(word) < len(pool.class_names):
        return int(word)
    near = difflib.get_close_matches(word, pool.class_names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"for example {pool.class_names[0]!r}"
    raise DataError(
        f"{key}={word!r} is not a class of {pool.title}: give one of its "
        f"{len(pool.class_names)} class names or a label from 0 to {len(pool.class_names) - 1}; "
        f"{hint}"
    )


def by_label(
    values: Mapping[str, float], pool: Named, *, needed: Sequence[int], key: str
) -> tuple[float, ...]:
    """Return the number of each class in label order, 0 for one that has none and needs none.

    Args:
        values: Numbers by class, each named or numbered.
        pool: The data set.
        needed: Labels of the classes that must have one.
        key: The config key, for the message.

    Raises:
        DataError: If a name is no class, a class has two numbers, or one that is needed has none.
    """
    found: dict[int, float] = {}
    for name, value in values.items():
        label = find_class(pool, name, key=key)
        if label in found:
            raise DataError(f"{key}: names class {name!r} ({label}) twice")
        found[label] = value
    if missing := [pool.class_names[label] for label in needed if label not in found]:
        raise DataError(f"{key}: has no number for {', '.join(missing)}: give one for every class")
    return tuple(found.get(label, 0.0) for label in range(len(pool.class_names)))


def select_classes(split: Split, labels: Sequence[int]) -> Split:
    """Return the images of these classes, in their order."""
    kept = torch.nonzero(torch.isin(split.targets, torch.tensor(labels))).flatten()
    return split if len(kept) == len(split) else split.select(kept)


def _find_all(pool: Pool, wanted: Sequence[int | str], *, key: str) -> tuple[int, ...]:
    found = [find_class(pool, one, key=f"data.{key}") for one in wanted]
    for one, label in zip(wanted, found, strict=True):
        if found.count(label) > 1:
            raise DataError(f"data.{key}: names class {one!r} ({label}) twice")
    if not found:
        raise DataError(f"data.{key}: names no class; give names or labels, or null for the usual")
    return tuple(sorted(found))
