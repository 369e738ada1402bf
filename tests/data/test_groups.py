"""Splits that keep groups of images whole: balanced, deterministic, and a leak that is found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import data
from data import SHARED_GROUPS, DataError, Imbalance, LongTailed, Pool, Validation, build
from data._groups import balanced_subset, draw_test, split_groups
from tests.data._pools import PoolOf

NATURAL = Imbalance("none")
FRACTION = Validation(per_class=None, fraction=0.25)


class Grouped:
    """A pool whose images belong to groups of ``size``, in the order of the list."""

    def __init__(self, size: int = 4, *, leak: int = 0, may_leak: bool = False) -> None:
        self._size, self._leak, self._may_leak = size, leak, may_leak

    def load(self) -> Pool:
        pool = PoolOf([60, 30, 10], test_per_class=8).load()
        groups = np.arange(len(pool.train)) // self._size
        test = 1000 + np.arange(len(pool.test))
        test[: self._leak] = groups[: self._leak]
        return replace(
            pool,
            train=replace(pool.train, groups=groups),
            test=replace(pool.test, groups=test),
            group_kind="smear",
            may_share_groups=self._may_leak,
        )


def built(source: data.Source, validation: Validation = FRACTION, **keys: object) -> LongTailed:
    return build(source, imbalance=NATURAL, validation=validation, **keys)  # type: ignore[arg-type]


@given(
    labels=st.lists(st.integers(0, 5), min_size=4, max_size=60),
    size=st.integers(1, 9),
    seed=st.integers(0, 3),
)
def test_no_group_is_in_two_parts_and_every_class_is_trained_on(
    labels: list[int], size: int, seed: int
) -> None:
    targets = np.array(labels)
    groups = np.random.default_rng(seed).integers(0, max(1, len(labels) // size), len(labels))
    parts = split_groups(targets, groups, shares=(0.6, 0.2, 0.2), seed=seed)
    assert all(len(set(parts[groups == group])) == 1 for group in set(groups))
    assert set(targets[parts == 0]) == set(targets)


def test_images_that_are_groups_of_their_own_are_split_exactly() -> None:
    labels = np.repeat([0, 1, 2], [80, 40, 20])
    parts = split_groups(labels, np.arange(140), shares=(0.75, 0.25), seed=3)
    assert np.bincount(labels[parts == 1]).tolist() == [20, 10, 5]


def test_groups_are_split_about_as_evenly_as_scikit_learn_splits_them() -> None:
    from sklearn.model_selection import StratifiedGroupKFold

    draw = np.random.default_rng(0)
    groups = draw.integers(0, 90, 2000)
    kinds = draw.dirichlet(np.array([4.0, 2.0, 0.5, 0.2]), 90)
    labels = np.array([draw.choice(4, p=kinds[group]) for group in groups])
    total = np.bincount(labels)

    def worst(is_test: np.ndarray) -> float:
        return float(np.abs(np.bincount(labels[is_test], minlength=4) / total - 0.25).max())

    folds = StratifiedGroupKFold(4, shuffle=True, random_state=0).split(labels, labels, groups)
    theirs = [worst(np.isin(np.arange(2000), test)) for _, test in folds]
    ours = [worst(split_groups(labels, groups, shares=(0.75, 0.25), seed=s) == 1) for s in range(4)]
    assert max(ours) <= max(theirs) + 0.005
    assert max(ours) < 0.02


def test_the_split_is_the_same_every_time_and_another_for_another_seed() -> None:
    labels, groups = np.arange(300) % 3, np.arange(300) // 5
    first, again, other = (
        split_groups(labels, groups, shares=(0.8, 0.2), seed=seed) for seed in (1, 1, 2)
    )
    assert (first == again).all()
    assert (first != other).any()


def test_the_names_of_groups_do_not_matter() -> None:
    labels, groups = np.arange(300) % 3, np.arange(300) // 5
    shares = (0.8, 0.2)
    first = split_groups(labels, groups, shares=shares)
    assert (first == split_groups(labels, groups * 7 + 11, shares=shares)).all()


def test_a_balanced_subset_has_as_many_of_each_class_as_the_rarest() -> None:
    labels = np.array([2, 0, 1, 0, 1, 0, 0, 2, 2, 1])
    chosen = balanced_subset(labels)
    assert np.bincount(labels[chosen]).tolist() == [3, 3, 3]
    assert sorted(set(chosen.tolist())) == chosen.tolist()


def test_validation_is_made_of_whole_groups_and_says_how_many() -> None:
    dataset = built(Grouped())
    assert dataset.val is not None and dataset.val.groups is not None
    assert not set(dataset.val.groups) & set(dataset.train.groups)  # type: ignore[arg-type]
    assert len(dataset.train) + len(dataset.val) == 100
    assert 20 <= len(dataset.val) <= 30
    assert dataset.notes[-1] == "split by smear, none is in two splits: " + ", ".join(
        f"{len(set(split.groups))} groups in {name}"  # type: ignore[arg-type]
        for name, split in (("train", dataset.train), ("val", dataset.val), ("test", dataset.test))
    )


def test_a_cut_tail_is_drawn_from_the_groups_that_are_left() -> None:
    dataset = build(
        Grouped(), imbalance=Imbalance("counts", counts=(40, 10, 2)), validation=FRACTION
    )
    assert dataset.class_counts.tolist() == [40, 10, 2]
    assert not set(dataset.val.groups) & set(dataset.train.groups)  # type: ignore[union-attr, arg-type]


def test_validation_by_groups_is_that_share_of_the_images_that_training_is_cut_to() -> None:
    imbalance = Imbalance("counts", counts=(40, 12, 10))  # all there are of the last class
    dataset = build(Grouped(), imbalance=imbalance, validation=FRACTION)
    whole = built(Grouped())
    assert dataset.val is not None and whole.val is not None
    held, val = (torch.bincount(own.val.targets).tolist() for own in (whole, dataset))  # type: ignore[union-attr]
    assert val == [10, 3, held[2]]
    assert set(dataset.val.index.tolist()) < set(whole.val.index.tolist())
    assert not set(dataset.train.index.tolist()) & set(whole.val.index.tolist())
    said = f"{sum(held) - sum(val)} images of held-out groups are in no split: validation is cut"
    assert any(note.startswith(said) for note in dataset.notes)
    assert not any("in no split" in note for note in whole.notes)


def test_a_split_by_image_says_what_it_mixes() -> None:
    dataset = built(Grouped(), replace(FRACTION, group=False))
    assert dataset.notes[-1].startswith(f"{SHARED_GROUPS}, by smear: ")
    assert " in train and val" in dataset.notes[-1]


def test_a_group_planted_in_training_and_test_is_found() -> None:
    with pytest.raises(DataError, match=r"by smear: 2 groups in train and test; draw its splits"):
        built(Grouped(leak=8))
    dataset = built(Grouped(leak=8, may_leak=True))
    assert dataset.notes[-1].startswith(f"{SHARED_GROUPS}, by smear: ")
    assert " and test" in dataset.notes[-1]


def test_a_number_of_each_class_cannot_be_met_by_whole_groups() -> None:
    with pytest.raises(DataError, match=r"per_class=2: cannot be met by whole groups of images; "):
        built(Grouped(), Validation(per_class=2))


def test_one_group_alone_cannot_be_held_out() -> None:
    with pytest.raises(DataError, match=r"fraction=0\.25 leaves the validation split empty: no"):
        built(Grouped(1000))


def test_a_tested_class_without_test_images_is_named() -> None:
    class Short:
        def load(self) -> Pool:
            pool = PoolOf([9, 8, 7]).load()
            kept = pool.test.targets != 1
            test = replace(
                pool.test,
                images=pool.test.images[kept],  # type: ignore[index]
                targets=pool.test.targets[kept],
            )
            return replace(pool, test=test)

    assert "1 of 3 classes has no test image: c1" in built(Short()).notes


def test_groups_follow_their_images_where_classes_are_left_out() -> None:
    dataset = built(Grouped(), classes=["c0", "c2"])
    pool = Grouped().load()
    assert pool.train.groups is not None and dataset.train.groups is not None
    assert dataset.train.groups.tolist() == pool.train.groups[dataset.train.index].tolist()


@pytest.mark.parametrize(("fraction", "num_groups"), [(0.01, 6), (0.9, 1)])
def test_a_test_split_that_would_be_empty_is_refused_by_its_key(
    fraction: float, num_groups: int
) -> None:
    groups = np.arange(12) % num_groups
    with pytest.raises(
        DataError, match=rf"^data\.test_fraction={fraction} leaves the test split of"
    ):
        draw_test(groups % 3, groups, fraction=fraction, prior="natural", seed=0)


def test_a_balanced_test_split_leaves_training_as_it_is_and_shares_no_group_with_it() -> None:
    groups = np.arange(400) // 4
    labels = np.minimum(groups % 7, 2)
    natural, balanced = (
        draw_test(labels, groups, fraction=0.25, prior=prior, seed=3)
        for prior in ("natural", "balanced")
    )
    assert balanced.train.tolist() == natural.train.tolist()
    assert set(balanced.test.tolist()) < set(natural.test.tolist())
    assert len(set(np.bincount(labels[balanced.test]).tolist())) == 1
    assert not set(groups[natural.train].tolist()) & set(groups[natural.test].tolist())
    assert len(natural.train) + len(natural.test) == len(labels)
