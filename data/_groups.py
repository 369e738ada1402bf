"""Splits that keep images together which belong together: of one smear, patient, track or burst."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from data._base import DataError
from data._permutation import fixed_permutation

_DRAW = 0x6B0F  # keeps these draws apart from those of images and tails
_MOST_PASSES = 20  # over all groups; each ends earlier once nothing can be improved


def split_groups(
    labels: np.ndarray, groups: np.ndarray, *, shares: Sequence[float], seed: int = 0
) -> np.ndarray:
    """Return the part that each image goes to, int64 (N,): no group is in two parts.

    Every class is to have its share in every part, and a rare class counts as much as a frequent
    one: with T_c images of class c, of which n_pc are in part p, the sum over p and c of
    (n_pc / T_c - share_p)^2 / share_p is made small. Groups of several images go one by one, those
    that hold most of a class first, to the part that costs least, and are then moved while that
    helps; groups of one image fill up what is missing, exactly. Where there are such groups alone
    this is a stratified draw. Every class has an image in part 0.

    Args:
        labels: (N,) class of each image.
        groups: (N,) number of the group of each image.
        shares: Wanted share of each part, in sum 1; part 0 is training.
        seed: Seed of the draw.

    >>> labels, groups = np.array([0, 0, 1, 1, 0, 1]), np.array([7, 7, 7, 3, 5, 5])
    >>> parts = split_groups(labels, groups, shares=(0.7, 0.3))
    >>> len(set(parts[groups == 7])), len(set(parts[groups == 5]))
    (1, 1)
    """
    num_classes = int(labels.max()) + 1
    _, groups = np.unique(groups, return_inverse=True)
    sizes = np.bincount(groups)
    pairs, counts = np.unique(groups * num_classes + labels, return_counts=True)
    owners, classes = np.divmod(pairs, num_classes)
    weights = counts / np.bincount(labels, minlength=num_classes)[classes]
    filling = _Filling(np.array(shares), num_classes)
    part_of = np.zeros(len(sizes), dtype=np.int64)
    draw = fixed_permutation(len(sizes), key=(_DRAW, seed))
    starts = np.searchsorted(owners, np.arange(len(sizes) + 1))
    entries = {
        int(group): (classes[own], weights[own])
        for group in np.flatnonzero(sizes > 1)
        for own in [slice(starts[group], starts[group + 1])]
    }
    # By the share of its classes that a group holds, rounded: equal ones stay as they are drawn.
    load = np.round(np.bincount(owners, weights), 9)
    order = [int(g) for g in draw[np.argsort(-load[draw], kind="stable")] if int(g) in entries]
    for group in order:
        part_of[group] = filling.add(*entries[group])
    for _ in range(_MOST_PASSES):
        moves = [filling.moved(*entries[g], part=int(part_of[g])) for g in order]
        has_changed = bool((part_of[order] != moves).any())
        part_of[order] = moves
        if not has_changed:
            break
    single = draw[sizes[draw] == 1]
    of_single = classes[starts[single]]
    for label in np.unique(of_single):
        own = single[of_single == label]
        part_of[own] = filling.filled_up(int(label), len(own), weight=weights[starts[own[0]]])
    return _with_training_images(part_of[groups], labels, groups)


def merge_groups(groups: np.ndarray, contents: np.ndarray) -> np.ndarray:
    """Return groups (N,) of which two that share an image are one, by the smallest number of them.

    Args:
        groups: (N,) number of the group of each image.
        contents: (N,) number of what each image shows.

    >>> merge_groups(np.array([7, 7, 3, 5, 2]), np.array([0, 1, 1, 2, 3]))
    array([3, 3, 3, 5, 2])
    """
    merged = groups
    while True:
        before = merged
        for shared in (contents, groups):
            _, unit = np.unique(shared, return_inverse=True)
            smallest = np.full(unit.max() + 1, np.iinfo(np.int64).max)
            np.minimum.at(smallest, unit, merged)
            merged = smallest[unit]
        if np.array_equal(merged, before):
            return merged


class Drawn(NamedTuple):
    """Ascending positions of the images of two splits that share no group."""

    train: np.ndarray
    test: np.ndarray


def draw_test(
    labels: np.ndarray,
    groups: np.ndarray,
    *,
    fraction: float,
    prior: Literal["natural", "balanced"],
    seed: int,
) -> Drawn:
    """Draw the test split of a set that has none, whole groups of it.

    Args:
        labels: (N,) class of each image.
        groups: (N,) number of the group of each image.
        fraction: Share of each class that is wanted in the test split.
        prior: natural takes all images of the groups drawn, balanced as many of each class as the
            rarest has there; the others are in neither split.
        seed: Seed of the draws.

    Raises:
        DataError: The test split would have no image.
    """
    is_test = split_groups(labels, groups, shares=(1 - fraction, fraction), seed=seed) == 1
    test = np.flatnonzero(is_test)
    if not test.size:
        raise DataError(
            f"data.test_fraction={fraction:g} leaves the test split of {len(labels):,} images "
            "empty: raise it, or bring more groups"
        )
    if prior == "balanced":
        test = test[balanced_subset(labels[test], seed=seed)]
    return Drawn(np.flatnonzero(~is_test), test)


class _Filling:
    """How much of each class is in each part, as a share of the class."""

    def __init__(self, shares: np.ndarray, num_classes: int) -> None:
        self._shares = shares[:, None]
        self._filled = np.zeros((len(shares), num_classes))

    def add(self, classes: np.ndarray, weights: np.ndarray) -> int:
        """Put a group where it costs least, and return the part."""
        missing = self._filled[:, classes] - self._shares
        costs = (weights * (weights + 2 * missing) / self._shares).sum(axis=1)
        part = int(costs.argmin())
        self._filled[part, classes] += weights
        return part

    def moved(self, classes: np.ndarray, weights: np.ndarray, *, part: int) -> int:
        """Take a group out of its part and put it where it costs least now."""
        self._filled[part, classes] -= weights
        missing = self._filled[:, classes] - self._shares
        costs = (weights * (weights + 2 * missing) / self._shares).sum(axis=1)
        best = int(costs.argmin())
        if costs[best] > costs[part] - 1e-12:  # no circle among equals
            best = part
        self._filled[best, classes] += weights
        return best

    def filled_up(self, label: int, num: int, *, weight: float) -> np.ndarray:
        """Return the parts (num,) of as many single images of a class, by what is missing."""
        missing = np.maximum(self._shares[:, 0] - self._filled[:, label], 0)
        missing = missing if missing.sum() > 0 else self._shares[:, 0]
        wanted = missing / missing.sum() * num
        whole = np.floor(wanted + 1e-9).astype(np.int64)
        rest = np.argsort(-np.round(wanted - whole, 9), kind="stable")
        whole[rest[: num - whole.sum()]] += 1
        self._filled[:, label] += whole * weight
        return np.repeat(np.arange(len(whole)), whole)


def _with_training_images(parts: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Give part 0 the smallest group of a class that has no image there."""
    sizes = np.bincount(groups)
    for label in np.unique(labels):
        own = labels == label
        if not (parts[own] == 0).any():
            candidates = np.unique(groups[own])
            parts[groups == candidates[sizes[candidates].argmin()]] = 0
    return parts


def balanced_subset(labels: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Return ascending positions of as many images of each class as the rarest one has.

    >>> balanced_subset(np.array([0, 1, 0, 1, 0, 0])).size
    4
    """
    drawn = fixed_permutation(len(labels), key=(_DRAW, seed))
    present = np.unique(labels)
    fewest = min(int((labels == label).sum()) for label in present)
    own = [drawn[labels[drawn] == label][:fewest] for label in present]
    return np.sort(np.concatenate(own))
