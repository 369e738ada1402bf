"""Images that are in two splits: counted, or left out of training and never out of test."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from data import DataError, Imbalance, Labelled, LongTailed, Pool, Validation, build
from data.image_folder import ImageFolder
from tests.data._files import write_folder
from tests.data._pools import PoolOf

NONE = Validation(per_class=None)
Place = tuple[str, int]


@dataclass(frozen=True)
class Planted:
    """A pool in which some images are those of other places, as they are or brightened."""

    copies: Mapping[Place, Place]
    val: tuple[int, int] | None = None
    brighten: bool = False

    def load(self) -> Pool:
        pool = PoolOf([6, 5], test_per_class=3, val=self.val, size=16).load()
        for (part, to), (source, origin) in self.copies.items():
            pixels = part_of(pool, source).images[origin]  # type: ignore[index]
            labelled = part_of(pool, part)
            images = labelled.images.clone()  # type: ignore[union-attr]
            images[to] = pixels // 2 + 40 if self.brighten else pixels
            pool = replace(pool, **{part: replace(labelled, images=images)})
        return pool


def part_of(pool: Pool, name: str) -> Labelled:
    part = getattr(pool, name)
    assert isinstance(part, Labelled)
    return part


def split(source: Planted, validation: Validation = NONE, **keys: object) -> LongTailed:
    return build(source, imbalance=Imbalance("none"), validation=validation, **keys)  # type: ignore[arg-type]


def test_training_images_that_are_in_test_are_left_out_and_test_stays_whole() -> None:
    source = Planted({("train", 2): ("test", 0), ("train", 9): ("test", 4)})
    kept, left = split(source), split(source, drop_duplicates=True)
    assert left.train.index.tolist() == [0, 1, 3, 4, 5, 6, 7, 8, 10]
    assert torch.equal(left.test.images, kept.test.images)  # type: ignore[arg-type]
    assert left.class_counts.sum() == 9
    assert left.notes[:2] == (
        "2 of 11 train images are left out, as they repeat images: 2 of test "
        "(data.drop_duplicates)",
        "test keeps all its 6 images (data.drop_duplicates)",
    )
    assert left.split_fingerprint != kept.split_fingerprint


def test_images_of_classes_that_a_run_leaves_out_are_not_called_left_out_of_it() -> None:
    class Three:
        """A copy of the first test image in training, of class c2 alone."""

        def load(self) -> Pool:
            pool = PoolOf([5, 5, 5], test_per_class=3).load()
            images = pool.train.images.clone()  # type: ignore[union-attr]
            at = int(torch.nonzero(pool.train.targets == 2)[0])
            images[at] = pool.test.images[0]  # type: ignore[index]
            return replace(pool, train=replace(pool.train, images=images))

    whole = split(Three(), drop_duplicates=True)  # type: ignore[arg-type]
    assert "1 of 15 train images are left out" in whole.notes[0]
    two = split(Three(), drop_duplicates=True, classes=["c0", "c1"])  # type: ignore[arg-type]
    assert two.source_notes == (
        "no image is left out: none is in two splits (data.drop_duplicates)",
    )
    one = split(Three(), drop_duplicates=True, classes=["c1", "c2"])  # type: ignore[arg-type]
    assert "1 of 10 train images are left out, as they repeat images: 1 of test" in one.notes[0]
    assert one.notes[1] == "test keeps all its 6 images (data.drop_duplicates)"


def test_validation_of_its_own_gives_up_what_is_in_test_and_training_what_is_in_both() -> None:
    source = Planted(
        {("val", 0): ("test", 1), ("train", 3): ("test", 1), ("train", 5): ("val", 2)}, val=(2, 2)
    )
    left = split(source, drop_duplicates=True)
    assert left.val is not None
    assert left.val.index.tolist() == [1, 2, 3]
    assert left.train.index.tolist() == [0, 1, 2, 4, 6, 7, 8, 9, 10]
    assert "1 of 4 val images are left out, as they repeat images: 1 of test" in left.notes[0]
    assert "2 of 11 train images are left out" in left.notes[1]
    assert "1 of test, 1 of val" in left.notes[1]


def test_drawn_validation_keeps_an_image_that_training_repeats() -> None:
    plain = split(Planted({}), Validation(per_class=1))
    assert plain.val is not None
    held, trained = int(plain.val.index[0]), int(plain.train.index[0])
    source = Planted({("train", trained): ("train", held)})
    left = split(source, Validation(per_class=1), drop_duplicates=True)
    assert left.val is not None
    assert left.val.index.tolist() == plain.val.index.tolist()
    assert trained not in left.train.index.tolist()
    assert len(left.train) == len(plain.train) - 1


def test_validation_that_gave_up_images_is_no_longer_called_so_many_of_each_class() -> None:
    plain = split(Planted({}), Validation(per_class=2))
    assert plain.val is not None
    source = Planted({("train", int(plain.val.index[0])): ("test", 0)})
    left = split(source, Validation(per_class=2), drop_duplicates=True)
    assert "validation is not balanced (at most 2 of each class)" in left.notes
    assert not left.val_is_balanced


def test_brightened_copies_are_left_out_on_request_alone() -> None:
    source = Planted({("train", 2): ("test", 0)}, brighten=True)
    exact = split(source, drop_duplicates=True)
    assert exact.notes[0] == "no image is left out: none is in two splits (data.drop_duplicates)"
    near = split(source, drop_duplicates=True, near_duplicates=4)
    assert 2 not in near.train.index.tolist()
    assert "as they repeat or look like images: 1 of test" in near.notes[0]
    counted = split(source, near_duplicates=4)
    assert len(counted.train) == 11
    assert counted.notes[0] == (
        "test images that look like one of train: 1 of 6 (number 0 like number 2; "
        "data.near_duplicates)"
    )


def test_where_nothing_is_left_out_the_split_is_the_one_without_the_key() -> None:
    source = Planted({})
    fingerprints = {split(source, drop_duplicates=d).split_fingerprint for d in (False, True)}
    assert len(fingerprints) == 1


def test_statistics_and_counts_are_those_of_what_is_left() -> None:
    source = Planted({("train", 2): ("test", 0)})
    left = split(source, drop_duplicates=True)
    pixels = left.train.images.double() / 255  # type: ignore[union-attr]
    assert left.mean[0] == pytest.approx(pixels.mean().item())
    assert left.whole_counts.tolist() == [6, 5]


def test_a_class_that_would_be_lost_is_named() -> None:
    labels = part_of(PoolOf([6, 5], test_per_class=3, size=16).load(), "train").targets
    all_of_one = {("train", int(i)): ("test", 0) for i in torch.nonzero(labels == 1)}
    with pytest.raises(DataError, match=r"leaves class c1 no training image: each of its 5 is in"):
        split(Planted(all_of_one), drop_duplicates=True)


def test_validation_that_would_be_empty_is_refused() -> None:
    source = Planted({("val", n): ("test", n) for n in range(2)}, val=(1, 1))
    with pytest.raises(DataError, match="leaves no val image: each of the 2 is in another split"):
        split(source, drop_duplicates=True)


@pytest.mark.parametrize("keys", [{}, {"cache_gb": 0, "normalize": "imagenet"}])
def test_a_copy_in_a_folder_is_refused_or_left_out(tmp_path: Path, keys: dict[str, object]) -> None:
    pets = tmp_path / "pets"
    write_folder(pets, {"train": {"cat": 3, "dog": 3}, "test": {"cat": 2, "dog": 2}})
    shutil.copy(pets / "test/dog/001.png", pets / "train/cat/002.png")
    with pytest.raises(DataError, match=r"data\.drop_duplicates=true to leave them out"):
        ImageFolder(tmp_path, path=str(pets), **keys).load()  # type: ignore[arg-type]
    source = ImageFolder(tmp_path, path=str(pets), allow_overlap=True, **keys)  # type: ignore[arg-type]
    left = build(source, imbalance=Imbalance("none"), validation=NONE, drop_duplicates=True)
    assert left.class_counts.tolist() == [2, 3]
    assert "1 of 6 train images are left out" in " ".join(left.source_notes)
