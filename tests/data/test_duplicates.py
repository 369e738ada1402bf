"""The same image twice: counted, named, and refused where it is in two splits."""

import shutil
from pathlib import Path

import pytest

from data import DataError, Imbalance, Validation, build
from data._copies import told_files, within_notes
from data._duplicates import equal_files, numbered
from data._folder import list_folder
from data.image_folder import ImageFolder
from tests.data._files import write_folder

COUNTS = {"train": {"cat": 4, "dog": 3}, "test": {"cat": 2, "dog": 2}}


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "pets", COUNTS)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def notes_of(source: ImageFolder) -> tuple[str, ...]:
    validation = Validation(per_class=None)
    return build(source, imbalance=Imbalance("none"), validation=validation).source_notes


def copy(pets: Path, first: str, second: str) -> None:
    shutil.copy(pets / first, pets / second)


def test_a_folder_without_duplicates_says_nothing(pets: Path, root: Path) -> None:
    assert notes_of(ImageFolder(root, path=str(pets))) == ()


@pytest.mark.parametrize("way", ["copy", "link", "linked folder"])
def test_test_images_that_are_training_images_are_refused(pets: Path, root: Path, way: str) -> None:
    if way == "copy":
        copy(pets, "train/cat/001.png", "test/cat/000.png")
        copy(pets, "train/cat/002.png", "test/cat/001.png")
    elif way == "link":
        for number in range(2):
            (pets / f"test/cat/{number:03}.png").unlink()
            (pets / f"test/cat/{number:03}.png").symlink_to(pets / f"train/cat/{number:03}.png")
    else:
        shutil.rmtree(pets / "test/cat")
        (pets / "test/cat").symlink_to(pets / "train/cat")
    num = "4 of 6" if way == "linked folder" else "2 of 4"
    with pytest.raises(
        DataError, match=rf"test images that are in train, too: {num} \(test/cat/000"
    ) as e:
        ImageFolder(root, path=str(pets)).load()
    assert "data.allow_overlap=true" in str(e.value)
    assert "\n" not in str(e.value)


def test_images_on_disk_are_looked_at_too(pets: Path, root: Path) -> None:
    copy(pets, "train/cat/001.png", "test/cat/000.png")
    source = ImageFolder(root, path=str(pets), cache_gb=0, normalize="imagenet")
    with pytest.raises(DataError, match="test images that are in train, too: 1 of 4"):
        source.load()


def test_with_the_key_the_overlap_is_a_note_of_the_run(pets: Path, root: Path) -> None:
    copy(pets, "train/dog/001.png", "test/cat/000.png")
    source = ImageFolder(root, path=str(pets), allow_overlap=True)
    dataset = build(source, imbalance=Imbalance("none"), validation=Validation(per_class=None))
    expected = "test images that are in train, too: 1 of 4 (test/cat/000.png = train/dog/001.png)"
    assert dataset.notes[0] == expected


def test_the_key_without_an_overlap_has_no_effect(pets: Path, root: Path) -> None:
    with pytest.raises(DataError, match=r"data\.allow_overlap=true: has no effect"):
        ImageFolder(root, path=str(pets), allow_overlap=True).load()


def test_validation_is_one_of_the_splits(pets: Path, root: Path) -> None:
    write_folder(pets, {"val": {"cat": 1}})
    copy(pets, "test/cat/001.png", "val/cat/000.png")
    with pytest.raises(DataError, match="test images that are in val, too: 1 of 4"):
        ImageFolder(root, path=str(pets)).load()


def test_repeats_within_a_split_are_counted_and_one_is_named(pets: Path, root: Path) -> None:
    copy(pets, "train/cat/000.png", "train/cat/copy.png")
    copy(pets, "train/cat/000.png", "train/cat/twin.png")
    copy(pets, "train/cat/001.png", "train/dog/wrong.png")
    assert notes_of(ImageFolder(root, path=str(pets))) == (
        "train images that repeat another: 3 of 10 (train/cat/copy.png = train/cat/000.png)",
        "train images in more than one class: 1 (train/dog/wrong.png = train/cat/001.png)",
    )


def test_files_of_one_size_and_one_middle_are_told_apart_by_their_ends(pets: Path) -> None:
    content = bytes(20_000)
    (pets / "train/cat/a.png").write_bytes(b"1" + content)
    (pets / "train/cat/b.png").write_bytes(b"2" + content)
    (pets / "train/cat/c.png").write_bytes(b"2" + content)
    listing = list_folder(pets)
    contents = numbered(listing, equal_files(listing))
    told = {name: told_files(own, contents[name]) for name, own in listing.splits.items()}
    assert within_notes(told) == (
        "train images that repeat another: 1 of 10 (train/cat/c.png = train/cat/b.png)",
    )


def test_a_large_folder_is_looked_through_once(
    pets: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy(pets, "train/cat/000.png", "train/cat/copy.png")
    monkeypatch.setattr("data._folder_cache._MANY", 1)
    first = notes_of(ImageFolder(root, path=str(pets)))
    assert len(first) == 1
    monkeypatch.setattr("data._folder_cache.equal_files", None)
    assert notes_of(ImageFolder(root, path=str(pets))) == first
    (root / "cache/image_folder").rename(root / "moved")
    with pytest.raises(TypeError):
        ImageFolder(root, path=str(pets)).load()
