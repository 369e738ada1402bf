import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data import DataError, Imbalance, Pool, Split, Validation, build
from data.digits import Digits
from tests.data._pools import PoolOf

OFF = Validation(per_class=None)


def members(split: Split | None) -> set[int]:
    assert split is not None
    return set(split.index.tolist())


def test_digits_without_validation_have_342_images() -> None:
    dataset = build(Digits(), imbalance=Imbalance(), validation=OFF)
    assert dataset.class_counts.tolist() == [124, 80, 51, 33, 21, 14, 9, 5, 3, 2]
    assert len(dataset.train) == 342
    assert dataset.notes == ("no validation split: it uses 0 labels",)


def test_digits_with_validation_have_326_images_and_say_what_class_0_gave_up() -> None:
    dataset = build(Digits(), imbalance=Imbalance(), validation=Validation(per_class=20))
    assert dataset.class_counts.tolist() == [108, 80, 51, 33, 21, 14, 9, 5, 3, 2]
    assert len(dataset.train) == 326
    assert dataset.notes == (
        "zero keeps 108 of 124 images: 16 went to validation",
        "validation uses 200 labels (20 of each class)",
    )


def test_cifar10_with_100_validation_images_a_class_takes_100_from_class_0_alone() -> None:
    source = PoolOf([5000] * 10, size=1)
    published = build(source, imbalance=Imbalance(factor=100), validation=OFF)
    dataset = build(source, imbalance=Imbalance(factor=100), validation=Validation(per_class=100))
    assert published.class_counts.sum() == 12406
    assert dataset.class_counts.tolist() == [4900, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    tail = published.train.targets > 0
    kept = dataset.train.targets > 0
    assert published.train.index[tail].equal(dataset.train.index[kept])


def test_cifar100_at_factor_100_has_10847_images() -> None:
    dataset = build(PoolOf([500] * 100, size=1), imbalance=Imbalance(factor=100), validation=OFF)
    assert len(dataset.train) == 10847


@given(
    counts=st.lists(st.integers(12, 40), min_size=2, max_size=6),
    factor=st.floats(1, 10),
    per_class=st.integers(1, 11),
    rule=st.sampled_from(["uniform", "cao"]),
)
def test_train_and_validation_are_disjoint_and_only_short_classes_give_images_up(
    counts: list[int], factor: float, per_class: int, rule: str
) -> None:
    imbalance = Imbalance(factor=factor, rule=rule)  # type: ignore[arg-type]
    source = PoolOf(counts, size=1)
    full = build(source, imbalance=imbalance, validation=OFF)
    dataset = build(source, imbalance=imbalance, validation=Validation(per_class=per_class))
    assert not members(dataset.train) & members(dataset.val)
    assert members(dataset.train) <= members(full.train)
    assert dataset.val is not None and dataset.val_is_balanced
    assert torch.bincount(dataset.val.targets).tolist() == [per_class] * len(counts)
    spare = np.array(counts) - full.class_counts
    gave = full.class_counts - dataset.class_counts
    assert gave.tolist() == np.maximum(0, per_class - spare).tolist()
    assert dataset.class_counts.min() >= 1


@pytest.mark.parametrize("rule", ["uniform", "cao"])
def test_subsets_of_larger_factors_lie_inside_those_of_smaller_ones(rule: str) -> None:
    source = PoolOf([200] * 5, size=1)
    subsets = [
        members(build(source, imbalance=Imbalance(factor=f, rule=rule), validation=OFF).train)  # type: ignore[arg-type]
        for f in (2, 10, 50)
    ]
    assert all(small < large for large, small in itertools.pairwise(subsets))


def test_images_targets_and_index_of_each_split_belong_together() -> None:
    source = PoolOf([40, 30, 35])
    pool = source.load()
    dataset = build(source, imbalance=Imbalance(factor=5), validation=Validation(per_class=3))
    assert dataset.val is not None
    for split, part in [
        (dataset.train, pool.train),
        (dataset.val, pool.train),
        (dataset.test, pool.test),
    ]:
        assert torch.equal(split.images, part.images[split.index])  # type: ignore[arg-type, index]
        assert torch.equal(split.targets, part.targets[split.index])
    assert dataset.test.index.tolist() == list(range(6))
    assert np.bincount(dataset.train.targets).tolist() == dataset.class_counts.tolist()


def test_the_seed_of_the_imbalance_changes_the_subset_and_nothing_else_does() -> None:
    source = PoolOf([50, 50])

    def fingerprint(seed: int) -> str:
        imbalance = Imbalance(factor=5, seed=seed)
        return build(source, imbalance=imbalance, validation=OFF).split_fingerprint

    first = fingerprint(3)
    torch.manual_seed(9)
    assert fingerprint(3) == first
    assert fingerprint(4) != first


def test_a_class_that_validation_would_empty_is_named_with_its_numbers() -> None:
    with pytest.raises(DataError, match=r"per_class=8 leaves class 1_c1 no training .*has 8 "):
        build(PoolOf([9, 8]), imbalance=Imbalance("none"), validation=Validation(per_class=8))


def test_many_classes_that_give_images_up_share_one_note() -> None:
    dataset = build(PoolOf([30] * 8), imbalance=Imbalance(factor=1), validation=Validation(20))
    assert dataset.notes[0] == "8 classes keep 80 of 240 images: 160 went to validation"


def test_a_fraction_of_each_class_is_rounded_and_leaves_one_image_to_train_on() -> None:
    dataset = build(
        PoolOf([100, 26, 24, 4, 1]),
        imbalance=Imbalance("none"),
        validation=Validation(per_class=None, fraction=0.1),
    )
    assert dataset.val is not None
    assert torch.bincount(dataset.val.targets, minlength=5).tolist() == [10, 3, 2, 0, 0]
    assert dataset.class_counts.tolist() == [90, 23, 22, 4, 1]
    assert not dataset.val_is_balanced
    assert dataset.notes == (
        "validation uses 15 labels",
        "validation is not balanced (fraction 0.1 of each class)",
        "2 of 5 classes have no validation image: c3, c4",
    )


def test_a_large_fraction_still_leaves_every_class_one_image() -> None:
    dataset = build(
        PoolOf([3, 2, 1]),
        imbalance=Imbalance("none"),
        validation=Validation(per_class=None, fraction=0.99),
    )
    assert dataset.class_counts.tolist() == [1, 1, 1]


def test_a_fraction_of_classes_of_one_image_is_refused_and_not_to_be_raised() -> None:
    with pytest.raises(DataError, match=r"every class has one image .*; set it to null$"):
        build(
            PoolOf([1, 1]),
            imbalance=Imbalance("none"),
            validation=Validation(per_class=None, fraction=0.5),
        )


def test_a_fraction_too_small_for_any_image_is_refused() -> None:
    with pytest.raises(DataError, match=r"fraction=0.01 leaves the validation split empty"):
        build(
            PoolOf([9, 8]),
            imbalance=Imbalance("none"),
            validation=Validation(per_class=None, fraction=0.01),
        )


def test_a_validation_list_of_its_own_is_used_whole() -> None:
    dataset = build(PoolOf([9, 8], val=[3, 4]), imbalance=Imbalance("none"), validation=OFF)
    assert dataset.val is not None
    assert torch.bincount(dataset.val.targets).tolist() == [3, 4]
    assert dataset.class_counts.tolist() == [9, 8]
    assert dataset.notes[1] == "validation is not balanced (Test set's own list)"


@pytest.mark.parametrize(
    "validation", [Validation(per_class=2), Validation(per_class=None, fraction=0.5)]
)
def test_a_validation_list_of_its_own_leaves_training_whole(validation: Validation) -> None:
    dataset = build(PoolOf([9, 8], val=[3, 3]), imbalance=Imbalance("none"), validation=validation)
    assert dataset.class_counts.tolist() == [9, 8]
    assert dataset.val is not None
    assert len(dataset.val) == 6
    assert dataset.val_is_own


def test_a_single_class_is_refused() -> None:
    with pytest.raises(DataError, match="one class only"):
        build(PoolOf([9]), imbalance=Imbalance(), validation=OFF)


def test_statistics_come_from_the_drawn_training_images() -> None:
    dataset = build(PoolOf([50, 50], channels=3), imbalance=Imbalance(factor=5), validation=OFF)
    pixels = dataset.train.images.double() / 255  # type: ignore[union-attr]
    assert dataset.mean == pytest.approx(pixels.mean((0, 2, 3)).tolist(), rel=1e-12)
    assert dataset.std == pytest.approx(pixels.std((0, 2, 3), correction=0).tolist(), rel=1e-12)


def test_statistics_that_the_data_set_brings_are_kept() -> None:
    source = PoolOf([5, 5], statistics=(0.25,))
    dataset = build(source, imbalance=Imbalance("none"), validation=OFF)
    assert dataset.mean == dataset.std == (0.25,)


def test_a_constant_channel_has_standard_deviation_one() -> None:
    from data._statistics import channel_statistics

    assert channel_statistics(torch.full((2, 1, 3, 3), 51, dtype=torch.uint8)) == ((0.2,), (1.0,))


def test_an_untouched_list_is_shared_and_not_copied() -> None:
    pool = PoolOf([5, 5]).load()

    class Fixed:
        def load(self) -> Pool:
            return pool

    dataset = build(Fixed(), imbalance=Imbalance("none"), validation=OFF)
    assert dataset.train.images is pool.train.images


def test_the_shape_and_number_of_classes_are_told() -> None:
    dataset = build(
        PoolOf([9, 9], channels=3, size=5), imbalance=Imbalance(factor=1), validation=OFF
    )
    assert dataset.image_shape == (3, 5, 5)
    assert dataset.num_classes == 2
