"""Groups in an image folder: by folder or by the names of files, whole in every split."""

from __future__ import annotations

import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import SHARED_GROUPS, DataError, Imbalance, Pool, Validation, build
from data.image_folder import ImageFolder
from tests.data._files import write_image

PATIENTS = {"cat": ("p1", "p2", "p3", "p4"), "dog": ("p1", "p5", "p6", "p7")}


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Three pictures of each patient: in pets/ below its folder, in flat/ with its name."""
    for kind, patients in PATIENTS.items():
        for patient in patients:
            for number in range(3):
                nested = tmp_path / "pets" / kind / patient / f"{number}.png"
                write_image(nested, seed=zlib.crc32(f"{kind} {patient} {number}".encode()))
                flat = tmp_path / "flat" / kind / f"{patient}_{number}.png"
                flat.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(nested, flat)
    return tmp_path / "pets"


def load(path: Path, **keys: object) -> Pool:
    return ImageFolder(path.parent / "root", path=str(path), **keys).load()  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "group_by"), [("pets", "folder"), ("flat", r"(p\d)_")])
def test_test_is_drawn_by_group_and_no_patient_is_in_two_splits(
    pets: Path, name: str, group_by: str
) -> None:
    pool = load(pets.with_name(name), test_fraction=0.3, group_by=group_by)
    assert pool.train.groups is not None and pool.test.groups is not None
    train, test = set(pool.train.groups), set(pool.test.groups)
    assert train.isdisjoint(test)
    assert len(train | test) == 7  # p1 is in both classes and one group
    assert set(pool.test.targets.tolist()) == {0, 1}
    assert pool.notes[0].startswith("test is 0.3 of each class, drawn by group, as nearly as ")


def test_validation_of_a_grouped_folder_keeps_patients_whole(pets: Path) -> None:
    source = ImageFolder(pets.parent / "root", path=str(pets), test_fraction=0.3, group_by="folder")
    dataset = build(source, imbalance=Imbalance("none"), validation=Validation(None, 0.3))
    assert dataset.has_groups
    assert dataset.notes[-1].startswith("split by group, none is in two splits: ")


def split_by_hand(pets: Path) -> Path:
    """Cats of p1 in test, dogs of p1 in training."""
    for kind, patient in (("cat", "p1"), ("dog", "p5")):
        target = pets.parent / "split/test" / kind / patient
        target.parent.mkdir(parents=True)
        (pets / kind / patient).rename(target)
    pets.rename(pets.parent / "split/train")
    return pets.parent / "split"


def test_a_patient_in_training_and_test_is_refused_by_name_or_said(pets: Path) -> None:
    folder = split_by_hand(pets)
    with pytest.raises(
        DataError, match=r"group_by=folder: .* in two splits: groups of test .*: 1 of 2 \(p1\); mov"
    ):
        load(folder, group_by="folder")
    source = ImageFolder(
        folder.parent / "root", path=str(folder), group_by="folder", allow_overlap=True
    )
    notes = build(source, imbalance=Imbalance("none"), validation=Validation(None)).notes
    assert f"{SHARED_GROUPS}, by group: 1 group in train and test" in notes


def test_folders_in_class_folders_name_the_key_that_makes_groups_of_them(pets: Path) -> None:
    with pytest.raises(DataError, match=r"or, if these are groups .* data\.group_by=folder$"):
        load(pets, test_fraction=0.3)


@pytest.mark.parametrize(
    ("group_by", "expected"),
    [
        ("(p", r"^data\.group_by=\(p: is neither folder nor a regular expression"),
        (
            r"p\d",
            r"^data\.group_by=p\\d: is searched in the names of files .*, and .*/cat/p1 is a "
            r"folder there; data\.group_by=folder makes a group of each$",
        ),
    ],
)
def test_an_expression_for_a_folder_of_groups_is_named(
    pets: Path, group_by: str, expected: str
) -> None:
    with pytest.raises(DataError, match=expected):
        load(pets, test_fraction=0.3, group_by=group_by)


def test_an_expression_without_brackets_names_the_group_by_all_that_it_matches(pets: Path) -> None:
    flat = pets.with_name("flat")
    plain, bracket = (
        load(flat, test_fraction=0.3, group_by=group_by).train.groups
        for group_by in (r"p\d", r"(p\d)_")
    )
    assert plain is not None and bracket is not None
    assert plain.tolist() == bracket.tolist()


def test_a_folder_in_the_folder_of_a_group_is_named(pets: Path) -> None:
    write_image(pets / "cat/p1/first/1.png")
    with pytest.raises(DataError, match=r"group_by=folder: .*/p1/first is a folder in the folder"):
        load(pets, test_fraction=0.3, group_by="folder")


def test_a_file_beside_the_groups_is_named(pets: Path) -> None:
    write_image(pets / "cat/loose.png")
    with pytest.raises(DataError, match=r"group_by=folder: .*cat/loose\.png is no folder of imag"):
        load(pets, test_fraction=0.3, group_by="folder")


@pytest.mark.parametrize(
    ("group_by", "expected"),
    [
        ("(p", r"data\.group_by=\(p: is neither folder nor a regular expression"),
        (r"^(q\d)", r"finds no group in the name of cat/p1_0\.png; every file needs one"),
    ],
)
def test_an_expression_that_finds_nothing_is_refused(
    pets: Path, group_by: str, expected: str
) -> None:
    with pytest.raises(DataError, match=expected):
        load(pets.with_name("flat"), test_fraction=0.3, group_by=group_by)


def test_an_overlap_that_is_not_there_cannot_be_allowed(pets: Path) -> None:
    with pytest.raises(DataError, match="allow_overlap=true: has no effect"):
        load(pets, test_fraction=0.3, group_by="folder", allow_overlap=True)


def test_a_brightened_copy_in_test_is_counted_on_request(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for kind in ("cat", "dog"):
            for number in range(3):
                write_image(tmp_path / "pets" / split / kind / f"{number}.png", width=32, height=32)
    stored = np.asarray(Image.open(tmp_path / "pets/train/cat/1.png")).astype(int)
    brighter = np.clip(stored // 2 + 40, 0, 255).astype(np.uint8)
    Image.fromarray(brighter).save(tmp_path / "pets/test/dog/9.png")
    source = ImageFolder(tmp_path / "root", path=str(tmp_path / "pets"))
    plain, looked = (
        build(source, imbalance=Imbalance("none"), validation=Validation(None), near_duplicates=n)
        for n in (None, 2)
    )
    assert plain.source_notes == ()
    assert looked.source_notes == (
        "test images that look like one of train: 1 of 7 "
        "(test/dog/9.png like train/cat/1.png; data.near_duplicates)",
    )
