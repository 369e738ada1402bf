"""Folders that are not train/, val/ and test/: used, or a line that says what to do."""

import shutil
from pathlib import Path

import pytest

from data import DataError, Pool
from data.image_folder import ImageFolder
from tests.data._files import write_folder, write_image

COUNTS = {"train": {"cat": 10, "dog": 5, "emu": 1}, "test": {"cat": 2, "dog": 2}}


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "pets", COUNTS)


def load(path: Path, **keys: object) -> Pool:
    return ImageFolder(path.parent / "root", path=str(path), **keys).load()  # type: ignore[arg-type]


def sizes(pool: Pool) -> dict[str, list[int]]:
    parts = {"train": pool.train, "val": pool.val, "test": pool.test}
    return {
        name: part.targets.bincount(minlength=len(pool.class_names)).tolist()
        for name, part in parts.items()
        if part is not None
    }


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_validation_goes_by_three_names(pets: Path, name: str) -> None:
    write_folder(pets, {name: {"dog": 2}})
    assert sizes(load(pets))["val"] == [0, 2, 0]


def test_two_folders_for_validation_are_refused(pets: Path) -> None:
    write_folder(pets, {"val": {"dog": 2}, "valid": {"dog": 1}})
    with pytest.raises(DataError, match="has the folders val and valid, which are names of one"):
        load(pets)


def test_a_folder_that_is_not_used_is_named(pets: Path) -> None:
    write_folder(pets, {"holdout": {"dog": 2}})
    assert load(pets).notes == ("not used: holdout (beside train, test)",)


def test_a_folder_without_test_names_the_key_that_draws_one(pets: Path) -> None:
    shutil.rmtree(pets / "test")
    write_folder(pets, {"val": {"dog": 2}})
    with pytest.raises(DataError, match=r"no folder test: .*; data\.test_fraction=0\.2 draws"):
        load(pets)
    pool = load(pets, test_fraction=0.2)
    assert sizes(pool) == {"train": [8, 4, 1], "val": [0, 2, 0], "test": [2, 1, 0]}
    assert pool.notes == (
        "test is 0.2 of each class, drawn by the names of its files: 3 images (data.test_fraction)",
    )


def test_a_folder_of_classes_names_the_key_and_is_split_by_it(pets: Path) -> None:
    with pytest.raises(DataError, match=r"if its folders are the classes \(cat, dog, emu\)"):
        load(pets / "train")
    pool = load(pets / "train", test_fraction=0.4)
    assert pool.class_names == ("cat", "dog", "emu")
    assert sizes(pool) == {"train": [6, 3, 1], "test": [4, 2, 0]}


def test_the_drawn_test_split_depends_on_the_names_of_the_files_alone(pets: Path) -> None:
    before = load(pets / "train", test_fraction=0.3)
    shutil.copytree(pets / "train", pets.parent / "other" / "train")
    moved = load(pets.parent / "other", test_fraction=0.3)
    assert (before.test.images == moved.test.images).all()  # type: ignore[union-attr]
    write_image(pets / "train/cat/new.png")
    after = load(pets / "train", test_fraction=0.3)
    known = {image.numpy().tobytes() for image in before.test.images}  # type: ignore[union-attr]
    now = {image.numpy().tobytes() for image in after.test.images}  # type: ignore[union-attr]
    assert len(known - now) <= 1


def test_the_fraction_beside_a_test_folder_has_no_effect(pets: Path) -> None:
    with pytest.raises(
        DataError, match=r"data\.test_fraction: has no effect, .* has a folder test"
    ):
        load(pets, test_fraction=0.2)


def test_a_class_of_one_image_keeps_it_for_training(tmp_path: Path) -> None:
    lone = write_folder(tmp_path / "lone", {"train": {"cat": 1, "dog": 1}})
    with pytest.raises(DataError, match=r"data\.test_fraction=0\.5: leaves test empty"):
        load(lone, test_fraction=0.5)


def test_folders_of_another_spelling_are_named(pets: Path) -> None:
    (pets / "train").rename(pets / "Train")
    with pytest.raises(DataError, match=r"has no folder train: .*; it has Train, test"):
        load(pets)


@pytest.mark.parametrize(
    "name", ["Thumbs.db", "thumbs.db", "desktop.ini", ".DS_Store", "._001.png", "Icon\r"]
)
def test_what_systems_leave_beside_images_is_left_out(pets: Path, name: str) -> None:
    (pets / "train/cat" / name).write_bytes(b"\0\1")
    assert sizes(load(pets))["train"] == [10, 5, 1]


@pytest.mark.parametrize("name", ["__MACOSX", "@eaDir", ".git"])
def test_folders_that_systems_leave_are_no_classes(pets: Path, name: str) -> None:
    for place in (pets / name, pets / "train" / name, pets / "train/cat" / name):
        place.mkdir()
    pool = load(pets)
    assert pool.class_names == ("cat", "dog", "emu")
    assert pool.notes == ()
