"""InfraredSolarModules and Chula RBC-12, read in the layout of their origin, from small copies."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from data import SHARED_GROUPS, DataError, Imbalance, Pool, Validation, build
from data.chula_rbc12 import ChulaRbc12
from data.infrared_solar import InfraredSolar
from engine.config.load import load
from engine.config.mistakes import ConfigError
from engine.training.setup import load_dataset
from tests.data._natural_sets import write_grey, write_infrared, write_smears


@pytest.fixture
def infrared(tmp_path: Path) -> Path:
    return write_infrared(tmp_path)


def load_infrared(folder: Path, **keys: object) -> Pool:
    return InfraredSolar(folder.parent, **keys).load()  # type: ignore[arg-type]


def test_thermal_images_are_one_channel_of_40_rows_and_a_quarter_of_each_class_is_test(
    infrared: Path,
) -> None:
    pool = load_infrared(infrared)
    assert pool.train.images.shape == (21, 1, 40, 24)  # type: ignore[union-attr]
    assert len(pool.class_names) == 12
    assert pool.test.targets.bincount(minlength=12)[[0, 1, 11]].tolist() == [4, 2, 1]


def test_thermal_images_are_resized_where_that_is_asked(infrared: Path) -> None:
    plain, resized = load_infrared(infrared), load_infrared(infrared, size=32)
    assert tuple(resized.test.images.shape[1:]) == (1, 32, 32)
    floats = plain.test.images.float()  # type: ignore[union-attr]
    expected = F.interpolate(floats, size=(32, 32), mode="bilinear", antialias=True)
    assert (resized.test.images - expected).abs().max() < 1.1  # type: ignore[operator]
    assert torch.equal(plain.test.targets, resized.test.targets)


@pytest.mark.parametrize("size", [None, 32])
def test_another_modules_file_is_read_as_those_of_the_set(infrared: Path, size: int | None) -> None:
    test = load_infrared(infrared, size=size).test
    source = InfraredSolar(infrared.parent, size=size)
    assert test.names is not None
    for name, image in zip(test.names, test.images, strict=True):
        assert torch.equal(source.read_image(infrared / os.fsdecode(name)), torch.as_tensor(image))


def test_the_same_image_under_two_numbers_is_in_one_split_and_counted(infrared: Path) -> None:
    for seed in range(4):
        pool = load_infrared(infrared, split_seed=seed)
        assert pool.train.groups is not None and pool.test.groups is not None
        assert not set(pool.train.groups) & set(pool.test.groups)
        assert any(len(set(g)) == len(g) - 1 for g in (pool.train.groups, pool.test.groups))


def test_the_second_load_reads_the_pixels_of_the_first(infrared: Path) -> None:
    first = load_infrared(infrared)
    assert len(list((infrared.parent / "cache/infrared_solar").glob("*/images.npy"))) == 1
    assert torch.equal(first.train.images, load_infrared(infrared).train.images)  # type: ignore[arg-type]
    write_grey(infrared / "images/3.jpg", 99)
    changed = load_infrared(infrared)
    assert not torch.equal(
        torch.cat([first.train.images, first.test.images]),  # type: ignore[list-item]
        torch.cat([changed.train.images, changed.test.images]),  # type: ignore[list-item]
    )


def test_the_balanced_test_is_a_part_of_the_natural_one_and_leaves_training_alone(
    infrared: Path,
) -> None:
    natural, balanced = (load_infrared(infrared, test_prior=p) for p in ("natural", "balanced"))
    assert balanced.test.targets.bincount(minlength=12)[[0, 1, 11]].tolist() == [1, 1, 1]
    known = {image.numpy().tobytes() for image in natural.test.images}  # type: ignore[union-attr]
    assert all(image.numpy().tobytes() in known for image in balanced.test.images)  # type: ignore[union-attr]
    assert torch.equal(natural.train.images, balanced.train.images)  # type: ignore[arg-type]
    assert any(note.startswith("test has the data set's own class") for note in natural.notes)
    assert any(note.startswith("test is balanced: 1 images of each") for note in balanced.notes)


def test_a_part_of_the_set_and_files_beside_it_are_said(infrared: Path) -> None:
    write_grey(infrared / "images/90.jpg", 90)
    notes = load_infrared(infrared).notes
    assert notes[0].startswith("not the whole set: No-Anomaly 16 of 10,000, Cell 8 of 1,877")
    assert notes[1].startswith("1 files of ")


def test_a_missing_file_of_the_metadata_is_named(infrared: Path) -> None:
    (infrared / "images/5.jpg").unlink()
    with pytest.raises(DataError, match=r"images/5\.jpg cannot be read \(No such file"):
        load_infrared(infrared)


def test_an_image_of_another_size_is_named(infrared: Path) -> None:
    write_grey(infrared / "images/5.jpg", 5, width=40, height=24)
    with pytest.raises(DataError, match=r"images/5\.jpg is 40x24 pixels: expected 24x40"):
        load_infrared(infrared)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", r"module_metadata\.json is not JSON \(.*\): unpack"),
        ("[1]", r"module_metadata\.json is a list: expected \{\"0\": "),
        ("3", r"module_metadata\.json is a number: expected "),
        ('{"a": {}}', "has the key 'a', which is no number: expected "),
        ('{"1": ["images/1.jpg"]}', "the entry '1' is a list: expected "),
        ('{"1": {"image_filepath": "images/1.jpg"}}', "the entry '1' has no anomaly_class: "),
        (
            '{"1": {"image_filepath": "images/1.jpg", "anomaly_class": "Dust"}}',
            "has the class 'Dust': expected one of No-Anomaly, Cell,",
        ),
        ("{}", r"module_metadata\.json names no image: expected "),
        (
            '{"1": {"image_filepath": "a/../../1.jpg", "anomaly_class": "Cell"}}',
            r"module_metadata\.json names a/\.\./\.\./1\.jpg, which leads out of .*infrared_solar$",
        ),
        (
            '{"1": {"image_filepath": "/etc/1.jpg", "anomaly_class": "Cell"}}',
            r"names /etc/1\.jpg, which leads out of ",
        ),
        (
            '{"1": {"image_filepath": "\\ud800", "anomaly_class": "Cell"}}',
            r"image_filepath of the entry '1' is '\\ud800': expected ",
        ),
        (
            '{"1": {"image_filepath": 1, "anomaly_class": "Cell"}}',
            "image_filepath of the entry '1' is a number: expected ",
        ),
        (
            '{"1": {"image_filepath": "images/1.jpg", "anomaly_class": ["Cell"]}}',
            "anomaly_class of the entry '1' is a list: expected ",
        ),
    ],
)
def test_other_metadata_are_refused(infrared: Path, text: str, expected: str) -> None:
    (infrared / "module_metadata.json").write_text(text)
    with pytest.raises(DataError, match=expected):
        load_infrared(infrared)


def test_a_missing_set_names_the_places_and_the_source(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.path: looked for images and .*RaptorMaps"):
        InfraredSolar(tmp_path).load()
    with pytest.raises(DataError, match=r"data\.path=rbc: looked for Dataset and Label in .*Chula"):
        ChulaRbc12(tmp_path, path="rbc").load()


def test_a_folder_that_is_one_off_or_lacks_a_part_is_told_apart(infrared: Path) -> None:
    for wrong in (infrared.parent, infrared / "images"):
        with pytest.raises(DataError, match=rf"; they are in {infrared}: set data\.path to it$"):
            InfraredSolar(infrared.parent, path=str(wrong)).load()
    (infrared / "module_metadata.json").unlink()
    with pytest.raises(DataError, match=r"has images, but no module_metadata\.json; unpack "):
        load_infrared(infrared)


@pytest.fixture
def smears(tmp_path: Path) -> Path:
    return write_smears(tmp_path)


def load_cells(folder: Path, **keys: object) -> Pool:
    return ChulaRbc12(folder.parent, window=16, **keys).load()  # type: ignore[arg-type]


def test_cells_are_cut_around_their_centres_and_padded_with_the_median_colour(smears: Path) -> None:
    pool = load_cells(smears, size=16)
    smear = np.asarray(Image.open(smears / "Dataset/1.jpg"))
    assert pool.train.groups is not None
    part = pool.train if 0 in pool.train.groups else pool.test
    inner, _, corner = (np.asarray(image).transpose(1, 2, 0) for image in part.images[:3])
    assert (inner == smear[12:28, 12:28]).all()
    assert (corner[:9, 8:] == smear[39:48, 0:8]).all()
    assert (corner[:, :8] == np.median(smear, axis=(0, 1)).astype(np.uint8)).all()


def test_a_window_is_read_as_those_of_the_set_and_a_smear_is_none(smears: Path) -> None:
    windows, cells = load_cells(smears, size=16), load_cells(smears, size=8)
    source = ChulaRbc12(smears.parent, window=16, size=8)
    file = smears.parent / "window.png"
    for window, cell in zip(windows.test.images, cells.test.images, strict=True):
        Image.fromarray(np.asarray(window).transpose(1, 2, 0)).save(file)
        assert torch.equal(source.read_image(file), torch.as_tensor(cell))
    with pytest.raises(DataError, match=r"1\.jpg is 64x48 pixels: this run takes windows of 16x16"):
        source.read_image(smears / "Dataset/1.jpg")


def test_cells_of_a_smear_and_of_its_copy_are_in_one_split(smears: Path) -> None:
    for seed in range(4):
        pool = load_cells(smears, size=8, split_seed=seed)
        assert pool.train.groups is not None and pool.test.groups is not None
        assert not set(pool.train.groups) & set(pool.test.groups)
        assert len(set(pool.train.groups) | set(pool.test.groups)) == 9
        assert pool.train.images.shape[1:] == (3, 8, 8)  # type: ignore[union-attr]
    assert pool.notes == (
        "not the whole set: 30 of 22,106 cells",
        "1 of 10 smears repeat another, and count as that one",
        pool.notes[-1],
    )
    counts = pool.test.targets.bincount()
    assert f"{counts.max()} images of a class to {counts[counts > 0].min()}:" in pool.notes[-1]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("1 2", r"3\.txt:1: expected x, y and type, not '1 2'"),
        ("1 2 13", r"3\.txt:1: type 13: they go from 0 to 12"),
        ("64 2 0", r"3\.jpg is 64x48 pixels: a cell at \(64, 2\) is outside"),
    ],
)
def test_a_wrong_label_is_named_with_its_file(smears: Path, line: str, expected: str) -> None:
    (smears / "Label/3.txt").write_text(line)
    with pytest.raises(DataError, match=expected):
        load_cells(smears)


def test_the_mark_that_some_editors_put_before_a_text_is_no_part_of_a_label(smears: Path) -> None:
    before = load_cells(smears)
    label = smears / "Label/3.txt"
    label.write_bytes(b"\xef\xbb\xbf" + label.read_bytes())
    assert torch.equal(load_cells(smears).train.targets, before.train.targets)


def test_smears_without_labels_are_counted(smears: Path) -> None:
    Image.new("RGB", (64, 48)).save(smears / "Dataset/11.jpg")  # its label file has no cell
    for number in (12, 13):
        Image.new("RGB", (64, 48)).save(smears / f"Dataset/{number}.jpg")
    said = "not used of 13 images: without a label file: 2; without cells in it: 1"
    assert said in load_cells(smears).notes


def test_the_balanced_test_of_smears_is_a_part_of_the_natural_one(smears: Path) -> None:
    for number in range(1, 10):
        (smears / f"Label/{number}.txt").write_text("20 20 0\n22 20 0\n40 30 4\n0 47 12\n")
    natural, balanced = (load_cells(smears, test_prior=p) for p in ("natural", "balanced"))
    counts = balanced.test.targets.bincount(minlength=13)[[0, 4, 12]].tolist()
    assert counts == [natural.test.targets.bincount()[4]] * 3
    known = {image.numpy().tobytes() for image in natural.test.images}  # type: ignore[union-attr]
    assert all(image.numpy().tobytes() in known for image in balanced.test.images)  # type: ignore[union-attr]
    assert torch.equal(natural.train.images, balanced.train.images)  # type: ignore[arg-type]
    assert f"test is balanced: {counts[0]} images of each class (data.test_prior)" in balanced.notes


def test_labels_without_cells_are_refused(smears: Path) -> None:
    for file in (smears / "Label").iterdir():
        file.write_text("")
    with pytest.raises(DataError, match="labels no cell: unpack"):
        load_cells(smears)


def test_both_splits_of_the_smears_keep_them_whole(smears: Path) -> None:
    dataset = build(
        ChulaRbc12(smears.parent, window=16, size=8),
        imbalance=Imbalance("none"),
        validation=Validation(None, 0.3),
    )
    assert dataset.notes[-1].startswith("split by smear, none is in two splits: ")
    assert dataset.class_counts[[0, 4, 12]].min() >= 1


def test_a_leak_between_smears_and_between_copies_of_an_image_is_found(
    smears: Path, infrared: Path
) -> None:
    by_image = build(
        ChulaRbc12(smears.parent, window=16, size=8),
        imbalance=Imbalance("none"),
        validation=Validation(None, 0.3, group=False),
    )
    assert by_image.notes[-1].startswith(f"{SHARED_GROUPS}, by smear: ")
    whole = build(
        InfraredSolar(infrared.parent),
        imbalance=Imbalance("none"),
        validation=Validation(None, 0.3),
        drop_duplicates=True,
    )
    assert "no image is left out: none is in two splits (data.drop_duplicates)" in whole.notes


def test_the_key_that_splits_by_image_has_no_effect_without_groups() -> None:
    words = ["data=digits", "data.validation.group=false"]
    with pytest.raises(ConfigError, match=r"group=false: has no effect, Digits knows no groups"):
        load_dataset(load(overrides=words))


def test_copies_of_a_thermal_image_are_named_where_validation_separates_them(
    infrared: Path,
) -> None:
    found = set()
    for seed in range(12):
        dataset = build(
            InfraredSolar(infrared.parent),
            imbalance=Imbalance("none", seed=seed),
            validation=Validation(None, 0.4, group=False),
        )
        assert dataset.val is not None
        halves = [{bytes(i.numpy()) for i in s.images} for s in (dataset.train, dataset.val)]  # type: ignore[union-attr]
        shared = bool(halves[0] & halves[1])
        said = [note for note in dataset.source_notes if "images that are in train, too" in note]
        assert bool(said) == shared
        assert all("(images/0.jpg = images/27.jpg)" in n or "27.jpg = images/0" in n for n in said)
        assert not any("one split alone" in note for note in dataset.notes)
        found.add(shared)
    assert found == {False, True}
