"""Equal images: what a run says of them is so of its own splits, however those are drawn."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from data import (
    DataError,
    DiskImages,
    Imbalance,
    Labelled,
    LongTailed,
    Pool,
    Source,
    Split,
    Validation,
    _folder_pool,
    _statistics,
    build,
)
from data._copies import compare_files
from data.image_folder import ImageFolder
from data.image_list import ImageList
from tests.data._files import write_folder, write_image
from tests.data._lists import TRAIN, Shelf, new_shelf
from tests.data._pools import PoolOf

NONE = Validation(per_class=None)
AHEAD = "images that are in train, too"


def drawn(source: Source, validation: Validation = NONE, **keys: object) -> LongTailed:
    return build(source, imbalance=Imbalance("none"), validation=validation, **keys)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 12 images a class in training, of which 8 have one copy and one has two."""
    folder = tmp_path_factory.mktemp("copies") / "pets"
    write_folder(folder, {"train": {"cat": 12, "dog": 12}, "test": {"cat": 2, "dog": 2}})
    for name in ("cat", "dog"):
        for number in range(8):
            source = folder / f"train/{name}/{number:03}.png"
            shutil.copy(source, folder / f"train/{name}/p{(number * 5) % 8}_{number}.png")
        shutil.copy(folder / f"train/{name}/000.png", folder / f"train/{name}/q.png")
    return folder


@pytest.mark.parametrize(
    "validation", [Validation(None, 0.3), Validation(per_class=7), Validation(None, 0.3, False)]
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_validation_takes_copies_together(copied: Path, validation: Validation, seed: int) -> None:
    source = ImageFolder(copied.parent / "root", path=str(copied))
    dataset = build(source, imbalance=Imbalance("none", seed=seed), validation=validation)
    assert dataset.val is not None
    assert torch.bincount(dataset.val.targets).tolist() in ([6, 6], [7, 7])
    assert not any(AHEAD in note for note in dataset.notes)
    assert any("images that repeat another" in note for note in dataset.notes)


@pytest.mark.parametrize("group_by", [None, "(.*)"])
def test_a_folder_draws_test_with_copies_together_and_is_not_refused(
    copied: Path, group_by: str | None
) -> None:
    path = str(copied / "train")
    source = ImageFolder(copied.parent / "root", path=path, test_fraction=0.3, group_by=group_by)
    dataset = drawn(source, Validation(None, 0.2))
    assert torch.bincount(dataset.test.targets).tolist() == [6, 6]
    assert not any("too: " in note for note in dataset.notes)
    broken = copied / "train/cat/011.png"
    whole = source.describe(without=[broken], refuse=lambda _: None)
    assert len(whole.train) + len(whole.test) == 41


def test_groups_that_all_share_an_image_are_validated_one_by_one_and_no_test_is_drawn_of_them(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "pets"
    for number in range(24):
        write_image(folder / f"{'ab'[number % 2]}/p{number // 4}_{number}.png")
    for number in range(6):
        write_image(folder / f"a/p{number}_blank.png", seed=0)
    keys = {"path": str(folder), "test_fraction": 0.25, "group_by": r"(p\d)_"}
    with pytest.raises(DataError, match="no group can be spared; those that share an image count"):
        drawn(ImageFolder(tmp_path / "root", **keys))  # type: ignore[arg-type]
    source = ImageFolder(tmp_path / "root", allow_overlap=True, **keys)  # type: ignore[arg-type]
    dataset = drawn(source, Validation(None, 0.25))
    assert dataset.val is not None and len(dataset.val) > 0
    said = " ".join(dataset.notes)
    assert f"test {AHEAD}: 1 of" in said
    assert f"val {AHEAD}: 1 of" in said


def test_groups_that_share_an_image_are_validated_as_one(copied: Path) -> None:
    """Each file is a group by its name, so that only what is in it joins two of them."""
    keys = {"group_by": "(.*)", "path": str(copied)}
    source = ImageFolder(copied.parent / "root", allow_overlap=True, **keys)  # type: ignore[arg-type]
    dataset = drawn(source, Validation(None, 0.3))
    assert dataset.val is not None and len(dataset.val) > 8
    assert not any(AHEAD in note and note.startswith("val") for note in dataset.notes)


def test_who_looks_for_the_copies_of_a_run_draws_its_validation_split(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run does not look where lists have too many images; the card does, and describes it."""
    monkeypatch.setattr(_folder_pool, "_MOST_LOOKED_AT", 0)
    names = {s: sorted((copied / s).glob("*/*.png")) for s in ("train", "test")}
    for split, files in names.items():
        lines = [f"{file.relative_to(copied)} {file.parent.name}\n" for file in files]
        (copied.parent / f"{split}.txt").write_text("".join(lines), encoding="utf-8")
    lists = {split: str(copied.parent / f"{split}.txt") for split in names}
    keys = {"root": str(copied), "cache_gb": 0, "size": 6, **lists}
    source = ImageList(copied.parent / "root", **keys)  # type: ignore[arg-type]

    class Compared:
        def load(self) -> Pool:
            return compare_files(source.load())

    for seed in range(3):
        validation, imbalance = Validation(None, 0.3), Imbalance("none", seed=seed)
        run = build(source, imbalance=imbalance, validation=validation)
        card = build(Compared(), imbalance=imbalance, validation=validation)
        assert run.split_fingerprint == card.split_fingerprint
        assert any(AHEAD in note for note in card.notes)


def test_a_class_that_is_one_image_and_its_copies_is_not_held_out(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "pets", {s: {"cat": 1, "dog": 4} for s in ("train", "test")})
    write_image(folder / "test/cat/000.png", seed=1)
    for number in range(3):
        shutil.copy(folder / "train/cat/000.png", folder / f"train/cat/copy{number}.png")
    for number in range(4):
        write_image(folder / f"test/dog/{number:03}.png", seed=number + 2)
    source = ImageFolder(tmp_path / "root", path=str(folder))
    dataset = drawn(source, Validation(None, 0.5))
    assert dataset.val is not None
    assert dataset.val.targets.tolist() == [1, 1]
    shutil.rmtree(folder / "train/dog")
    shutil.copytree(folder / "train/cat", folder / "train/dog")
    with pytest.raises(DataError, match="leaves the validation split empty: images are held out"):
        drawn(source, Validation(None, 0.5))


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


def test_a_copy_of_a_held_out_image_makes_both_part_of_one_split(tmp_path: Path) -> None:
    pets = write_folder(tmp_path / "pets", {s: {"cat": 8, "dog": 8} for s in ("train", "test")})
    plain = drawn(ImageFolder(tmp_path, path=str(pets)), Validation(None, 0.25))
    assert plain.val is not None
    held, trained = plain.val.name(0), plain.train.name(0)
    shutil.copy(pets / held, pets / trained)
    for keys in ({}, {"cache_gb": 0, "normalize": "imagenet"}):
        source = ImageFolder(tmp_path, path=str(pets), **keys)  # type: ignore[arg-type]
        dataset = drawn(source, Validation(None, 0.25))
        assert dataset.val is not None
        named = [
            {split.name(n) for n in range(len(split))} for split in (dataset.train, dataset.val)
        ]
        assert any({held, trained} <= own for own in named)
        (note,) = dataset.source_notes
        assert "images that repeat another: 1 of" in note


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


@pytest.mark.parametrize("keys", [{}, {"cache_gb": 0, "size": 6}])
def test_lists_name_their_copies(shelf: Shelf, keys: dict[str, float]) -> None:
    assert drawn(shelf.source(**keys)).source_notes == (
        "test images that are in train, too: 1 of 2 (b/7.png = a/1.png)",
        "train images that repeat another: 1 of 5 (b/0.png = a/1.png)",
        "train images in more than one class: 1 (b/0.png = a/1.png)",
    )


def test_lists_of_too_many_images_say_that_nobody_looked(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_folder_pool, "_MOST_LOOKED_AT", 0)
    source = shelf.source(cache_gb=0, size=6)
    (said,) = drawn(source).source_notes
    assert said.startswith("copies of an image under another name are not looked for, as 7 images")
    assert "data.drop_duplicates=true" in said
    looked = drawn(source, drop_duplicates=True)
    assert not any("not looked for" in note for note in looked.source_notes)
    assert all(own.contents is not None for own in looked.splits.values())


@pytest.fixture(scope="module")
def twice(copied: Path) -> Path:
    """The folder with a list of each of its splits, and an image of test in training, anew."""
    with Image.open(copied / "test/cat/000.png") as image:
        image.save(copied / "train/cat/zz.png", compress_level=0)
    for split in ("train", "test"):
        files = sorted((copied / split).glob("*/*.png"))
        lines = [f"{file.relative_to(copied)} {file.parent.name}\n" for file in files]
        (copied / f"{split}.txt").write_text("".join(lines), encoding="utf-8")
    return copied


def read(
    twice: Path, *, name: str, cache_gb: float, size: int | None, **keys: object
) -> LongTailed:
    root, given = twice.parent / "root", {"cache_gb": cache_gb, "size": size}
    source: Source = ImageFolder(root, path=str(twice), normalize="imagenet", **given)  # type: ignore[arg-type]
    if name == "list":
        lists = {split: str(twice / f"{split}.txt") for split in ("train", "test")}
        source = ImageList(root, root=str(twice), **lists, **given)  # type: ignore[arg-type]
    return drawn(source, Validation(None, 0.3), **keys)


@pytest.mark.parametrize("name", ["folder", "list"])
@pytest.mark.parametrize("most", [4e9, 0])
@pytest.mark.parametrize("keys", [{}, {"drop_duplicates": True, "near_duplicates": 2}])
def test_where_images_are_kept_changes_neither_splits_nor_their_fingerprint(
    twice: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    most: float,
    keys: dict[str, object],
) -> None:
    monkeypatch.setattr(_folder_pool, "_MOST_LOOKED_AT", most)
    for size in (4, None):
        kept, on_disk = (read(twice, name=name, cache_gb=gb, size=size, **keys) for gb in (4, 0))
        assert isinstance(kept.train.images, torch.Tensor)
        assert isinstance(on_disk.train.images, DiskImages)
        for split, own in kept.splits.items():
            assert own.index.tolist() == on_disk.splits[split].index.tolist()
        assert kept.split_fingerprint == on_disk.split_fingerprint


@pytest.mark.parametrize("name", ["folder", "list"])
def test_a_fingerprint_that_earlier_versions_made_of_the_same_splits_is_known(
    twice: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """They hashed pixels wherever images were in memory, and else names."""
    small = read(twice, name=name, cache_gb=0, size=4)
    in_memory = read(twice, name=name, cache_gb=4, size=4)
    monkeypatch.setattr(_folder_pool, "_MOST_LOOKED_AT", 0)
    by_names = read(twice, name="folder", cache_gb=0, size=4).split_fingerprint
    if name == "folder":
        assert small.split_fingerprint != by_names
        assert small.has_fingerprint(by_names)
        assert not in_memory.has_fingerprint(by_names)
        large = read(twice, name=name, cache_gb=4, size=4)
        assert large.has_fingerprint(in_memory.split_fingerprint)
        monkeypatch.undo()
        some = read(twice, name=name, cache_gb=0, size=4, test_classes=("cat",))
        assert by_names in some.former_whole_fingerprints  # of a teacher that saw all classes
        assert not some.has_fingerprint(by_names)
    assert small.has_fingerprint(small.split_fingerprint)
    assert not small.has_fingerprint("0" * 12)


def test_the_digest_of_many_pixels_on_disk_is_kept_while_the_files_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_statistics, "_MANY", 4)
    pets = write_folder(tmp_path / "pets", {s: {"cat": 4, "dog": 4} for s in ("train", "test")})
    keys = {"path": str(pets), "cache_gb": 0, "normalize": "imagenet", "size": 4}
    before = drawn(ImageFolder(tmp_path, **keys)).split_fingerprint  # type: ignore[arg-type]
    with monkeypatch.context() as patch:
        patch.setattr(_statistics, "decode", None)
        again = drawn(ImageFolder(tmp_path, **keys)).split_fingerprint  # type: ignore[arg-type]
    assert again == before
    write_image(pets / "train/cat/000.png", seed=5)
    assert drawn(ImageFolder(tmp_path, **keys)).split_fingerprint != before  # type: ignore[arg-type]


def test_numbers_of_contents_follow_their_images(shelf: Shelf) -> None:
    train = drawn(shelf.source(), Validation(None, 0.4)).train
    assert train.contents is not None
    named = [train.name(position) for position in range(len(train))]
    contents = dict(zip(named, train.contents.tolist(), strict=True))
    whole = shelf.load().train
    assert whole.contents is not None and whole.names is not None
    for name, number in zip(whole.names.tolist(), whole.contents.tolist(), strict=True):
        assert contents.get(name.decode(), number) == number


@pytest.mark.parametrize("keys", [{}, {"columns": ("file", "label", "patient")}])
def test_a_list_draws_test_with_copies_together(twice: Path, keys: dict[str, object]) -> None:
    files = sorted((twice / "train").glob("*/*.png"))
    rows = [f"{own.relative_to(twice)},{own.parent.name},{n}" for n, own in enumerate(files)]
    (twice / "drawn.csv").write_text("\n".join(["file,label,patient", *rows]), encoding="utf-8")
    for cache_gb in (4, 0):
        source = ImageList(
            twice.parent / "root",
            root=str(twice),
            train=str(twice / "drawn.csv"),
            test_fraction=0.3,
            size=6,
            cache_gb=cache_gb,
            **keys,  # type: ignore[arg-type]
        )
        dataset = drawn(source, Validation(None, 0.2))
        assert torch.bincount(dataset.test.targets).tolist() in ([6, 6], [7, 6], [6, 7])
        assert not any("too: " in note for note in dataset.notes)


def test_images_on_disk_are_called_by_their_files(shelf: Shelf) -> None:
    pool = shelf.load(cache_gb=0, size=6)
    assert pool.train.names is None  # their images have them
    train = drawn(shelf.source(cache_gb=0, size=6), Validation(None, 0.4)).train
    files = [TRAIN[at].split()[0] for at in train.index.tolist()]
    assert [train.name(position) for position in range(len(train))] == files
