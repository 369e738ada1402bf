"""Equal images: what a run says of them is so of its own splits, however those are drawn."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from data import Imbalance, Labelled, LongTailed, Pool, Source, Split, Validation, build
from data.image_folder import ImageFolder
from tests.data._files import write_folder
from tests.data._lists import TRAIN, Shelf, new_shelf
from tests.data._pools import PoolOf

NONE = Validation(per_class=None)
AHEAD = "images that are in train, too"


def drawn(source: Source, validation: Validation = NONE, **keys: object) -> LongTailed:
    return build(source, imbalance=Imbalance("none"), validation=validation, **keys)  # type: ignore[arg-type]


class Twice:
    """Eight images of each of three classes in training, each of them there twice."""

    def __init__(self, *, val: bool = False) -> None:
        self._val = (2, 2, 2) if val else None

    def load(self) -> Pool:
        pool = PoolOf([8, 8, 8], val=self._val).load()
        order = torch.argsort(pool.train.targets, stable=True)
        images = pool.train.images[order]  # type: ignore[index]
        images[1::2] = images[::2]
        train = Labelled(images, pool.train.targets[order])
        if pool.val is None:
            return replace(pool, train=train)
        val = replace(pool.val, images=images[[0, 1, 8, 9, 16, 17]], targets=torch.arange(6) // 2)
        return replace(pool, train=train, val=val)


def pixels(split: Split | None) -> list[bytes]:
    assert split is not None
    return [image.numpy().tobytes() for image in split.images]  # type: ignore[union-attr]


WAYS = [
    (Twice(), Validation(per_class=3)),
    (Twice(), Validation(None, 0.4)),
    (Twice(val=True), NONE),
]


@pytest.mark.parametrize(("source", "validation"), WAYS)
@pytest.mark.parametrize("classes", [None, ["c0", "c2"]])
def test_copies_in_training_and_validation_are_counted_in_the_splits_of_the_run(
    source: Source, validation: Validation, classes: Sequence[str] | None
) -> None:
    for seed in range(3):
        dataset = build(
            source,
            imbalance=Imbalance("step", 2, seed=seed),
            validation=validation,
            classes=classes,
        )
        trained, held_out = pixels(dataset.train), pixels(dataset.val)
        num = sum(image in set(trained) for image in held_out)
        said = [note for note in dataset.source_notes if note.startswith(f"val {AHEAD}")]
        assert len(said) == (num > 0)
        assert all(f": {num} of {len(held_out)} (number " in note for note in said)
        extra = len(trained) - len(set(trained))
        repeats = [n for n in dataset.notes if n.startswith("train images that repeat another")]
        assert len(repeats) == (extra > 0)
        assert all(f": {extra} of {len(trained)} (" in note for note in repeats)


def test_a_copy_that_was_left_out_is_spoken_of_no_more() -> None:
    dataset = drawn(Twice(), Validation(per_class=3), drop_duplicates=True)
    assert "train images are left out" in dataset.notes[0]
    assert not any(AHEAD in note for note in dataset.notes)
    assert not set(pixels(dataset.train)) & set(pixels(dataset.val))


def test_a_folder_names_the_copies_between_its_training_and_a_drawn_validation(
    tmp_path: Path,
) -> None:
    pets = write_folder(tmp_path / "pets", {s: {"cat": 8, "dog": 8} for s in ("train", "test")})
    plain = drawn(ImageFolder(tmp_path, path=str(pets)), Validation(None, 0.25))
    assert plain.val is not None
    held, trained = plain.val.name(0), plain.train.name(0)
    shutil.copy(pets / held, pets / trained)
    for keys in ({}, {"cache_gb": 0, "normalize": "imagenet"}):
        source = ImageFolder(tmp_path, path=str(pets), **keys)  # type: ignore[arg-type]
        dataset = drawn(source, Validation(None, 0.25))
        assert dataset.source_notes == (f"val {AHEAD}: 1 of 4 ({held} = {trained})",)


def test_a_copy_that_was_left_out_of_a_folder_is_spoken_of_no_more(tmp_path: Path) -> None:
    pets = write_folder(tmp_path / "pets", {s: {"cat": 3, "dog": 3} for s in ("train", "test")})
    shutil.copy(pets / "test/dog/001.png", pets / "train/cat/002.png")
    source = ImageFolder(tmp_path, path=str(pets), allow_overlap=True)
    assert drawn(source).source_notes == (
        "test images that are in train, too: 1 of 6 (test/dog/001.png = train/cat/002.png)",
    )
    left = drawn(source, drop_duplicates=True)
    assert not any("too: " in note for note in left.notes)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """Lists in which a/1.png is in training twice and, under another name, in test."""
    found = new_shelf(tmp_path / "shelf")
    for name in ("b/7.png", "b/0.png"):
        shutil.copy(found.path / "a/1.png", found.path / name)
    return found


def test_lists_name_their_copies_where_images_are_decoded(shelf: Shelf) -> None:
    assert drawn(shelf.source()).source_notes == (
        "test images that are in train, too: 1 of 2 (b/7.png = a/1.png)",
        "train images that repeat another: 1 of 5 (b/0.png = a/1.png)",
        "train images in more than one class: 1 (b/0.png = a/1.png)",
    )


def test_lists_whose_images_stay_on_disk_say_that_nobody_looked(shelf: Shelf) -> None:
    source = shelf.source(cache_gb=0, size=6)
    (said,) = drawn(source).source_notes
    assert said.startswith("copies of an image under another name are not looked for, as 7 images")
    assert "data.drop_duplicates=true" in said
    looked = drawn(source, drop_duplicates=True)
    assert not any("not looked for" in note for note in looked.source_notes)
    assert all(own.contents is not None for own in looked.splits.values())


def test_numbers_of_contents_follow_their_images(shelf: Shelf) -> None:
    train = drawn(shelf.source(), Validation(None, 0.4)).train
    assert train.contents is not None
    named = [train.name(position) for position in range(len(train))]
    contents = dict(zip(named, train.contents.tolist(), strict=True))
    whole = shelf.load().train
    assert whole.contents is not None and whole.names is not None
    for name, number in zip(whole.names.tolist(), whole.contents.tolist(), strict=True):
        assert contents.get(name.decode(), number) == number


def test_images_on_disk_are_called_by_their_files(shelf: Shelf) -> None:
    pool = shelf.load(cache_gb=0, size=6)
    assert pool.train.names is None  # their images have them
    train = drawn(shelf.source(cache_gb=0, size=6), Validation(None, 0.4)).train
    files = [TRAIN[at].split()[0] for at in train.index.tolist()]
    assert [train.name(position) for position in range(len(train))] == files
