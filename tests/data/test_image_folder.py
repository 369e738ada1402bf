import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from data import DataError, DiskImages, Imbalance, LongTailed, Pool, Validation, build
from data.image_folder import ImageFolder
from tests.data._files import stored_pixels, write_folder, write_image

COUNTS = {"train": {"dog": 3, "cat": 2}, "test": {"cat": 1, "dog": 2}}


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "pets", COUNTS)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def cached(pool: Pool) -> torch.Tensor:
    assert isinstance(pool.train.images, torch.Tensor)
    return pool.train.images


def without_imbalance(source: ImageFolder) -> LongTailed:
    return build(source, imbalance=Imbalance("none"), validation=Validation(per_class=None))


def test_classes_are_sorted_by_name_and_pixels_follow_their_files(pets: Path, root: Path) -> None:
    pool = ImageFolder(root, path=str(pets)).load()
    assert pool.class_names == ("cat", "dog")
    assert pool.train.targets.tolist() == [0, 0, 1, 1, 1]
    assert pool.test.targets.tolist() == [0, 1, 1]
    names = ["cat/000", "cat/001", "dog/000", "dog/001", "dog/002"]
    expected = stored_pixels(pets, [f"train/{name}.png" for name in names])
    assert np.array_equal(cached(pool).numpy(), expected)


def test_the_title_is_the_key_else_the_name_of_the_folder(pets: Path, root: Path) -> None:
    assert ImageFolder(root, path=str(pets)).load().title == "pets"
    named = ImageFolder(root, path=str(pets), title="CIFAR-10 (JPEG copy)")
    assert named.load().title == "CIFAR-10 (JPEG copy)"


def test_a_relative_path_is_found_here_and_below_the_data_root(
    pets: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pets.parent)
    here = ImageFolder(root, path="pets").load()
    monkeypatch.chdir("/")
    below_root = ImageFolder(pets.parent, path="pets").load()
    assert torch.equal(cached(here), cached(below_root))


@pytest.mark.parametrize(
    ("path", "message"),
    [(None, "data.path is missing"), ("nowhere", r"data.path=nowhere is not a folder.*/nowhere")],
)
def test_a_path_that_is_missing_says_so(root: Path, path: str | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        ImageFolder(root, path=path)


def test_images_beyond_cache_gb_stay_on_disk_in_the_same_order(pets: Path, root: Path) -> None:
    memory = ImageFolder(root, path=str(pets)).load()
    disk = ImageFolder(root, path=str(pets), cache_gb=0, normalize="imagenet").load()
    images = disk.train.images
    assert isinstance(images, DiskImages)
    assert images.shape == (3, 6, 6)
    decoded = stored_pixels(pets, [str(images.path(i).relative_to(pets)) for i in range(5)])
    assert np.array_equal(decoded, cached(memory).numpy())
    assert torch.equal(disk.train.targets, memory.train.targets)


def test_images_on_disk_are_fingerprinted_by_name_and_size(pets: Path, root: Path) -> None:
    def fingerprint() -> str:
        source = ImageFolder(root, path=str(pets), cache_gb=0, normalize="imagenet")
        return without_imbalance(source).split_fingerprint

    first = fingerprint()
    os.utime(pets / "train/cat/000.png", ns=(1, 1))
    assert fingerprint() == first
    write_image(pets / "train/cat/000.png", seed=3, width=6, height=6)
    with (pets / "train/cat/000.png").open("ab") as file:
        file.write(b"more")
    assert fingerprint() != first


def test_normalize_chooses_the_statistics(pets: Path, root: Path) -> None:
    own = ImageFolder(root, path=str(pets)).load()
    imagenet = ImageFolder(root, path=str(pets), normalize="imagenet").load()
    assert own.mean is None
    assert own.std is None
    assert imagenet.mean == (0.485, 0.456, 0.406)
    assert imagenet.std == (0.229, 0.224, 0.225)


def test_statistics_of_images_on_disk_are_refused(pets: Path, root: Path) -> None:
    with pytest.raises(
        DataError, match=r"data.normalize=train needs .*set data.normalize=imagenet"
    ):
        ImageFolder(root, path=str(pets), cache_gb=0).load()


@pytest.mark.parametrize("cache_gb", [4.0, 0.0])
def test_sizes_that_differ_name_two_files_and_the_key(
    pets: Path, root: Path, cache_gb: float
) -> None:
    write_image(pets / "train/dog/001.png", width=7, height=5)
    source = ImageFolder(root, path=str(pets), cache_gb=cache_gb, normalize="imagenet")
    with pytest.raises(DataError, match=r"dog/001.png is 7x5 .*cat/000.png is 6x6.*set data.size"):
        source.load()


@pytest.mark.parametrize("cache_gb", [4.0, 0.0])
def test_size_brings_different_images_to_one_shape(pets: Path, root: Path, cache_gb: float) -> None:
    write_image(pets / "train/dog/001.png", width=7, height=5)
    source = ImageFolder(root, path=str(pets), size=4, cache_gb=cache_gb, normalize="imagenet")
    assert without_imbalance(source).image_shape == (3, 4, 4)


def test_a_val_folder_becomes_the_validation_list(pets: Path, root: Path) -> None:
    write_folder(pets, {"val": {"dog": 2}})
    dataset = without_imbalance(ImageFolder(root, path=str(pets)))
    assert dataset.val is not None
    assert dataset.val.targets.tolist() == [1, 1]
    assert len(dataset.train) == 5


def test_hidden_names_and_files_beside_the_classes_are_left_out(pets: Path, root: Path) -> None:
    (pets / "train/.git").mkdir()
    (pets / "train/cat/.DS_Store").write_text("")
    (pets / "train/labels.csv").write_text("")
    pool = ImageFolder(root, path=str(pets)).load()
    assert pool.class_names == ("cat", "dog")
    assert len(pool.train) == 5


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_missing_split_names_the_layout(pets: Path, root: Path, split: str) -> None:
    shutil.rmtree(pets / split)
    with pytest.raises(DataError, match=rf"has no folder {split}: .*{split}/<class>/"):
        ImageFolder(root, path=str(pets)).load()


def test_an_empty_class_is_named(pets: Path, root: Path) -> None:
    (pets / "train/emu").mkdir()
    with pytest.raises(DataError, match=r"train/emu has no images"):
        ImageFolder(root, path=str(pets)).load()


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_without_classes_is_named(pets: Path, root: Path, split: str) -> None:
    shutil.rmtree(pets / split)
    (pets / split).mkdir()
    with pytest.raises(DataError, match=rf"{split} has no class folders"):
        ImageFolder(root, path=str(pets)).load()


@pytest.mark.parametrize("split", ["test", "val"])
def test_a_class_without_training_images_is_named(pets: Path, root: Path, split: str) -> None:
    write_folder(pets, {split: {"emu": 1}})
    with pytest.raises(DataError, match=rf"class 'emu' is in .*{split} but not in .*train"):
        ImageFolder(root, path=str(pets)).load()


def test_a_folder_inside_a_class_is_named(pets: Path, root: Path) -> None:
    (pets / "train/cat/more").mkdir()
    with pytest.raises(DataError, match=r"train/cat/more is a folder in a class folder"):
        ImageFolder(root, path=str(pets)).load()


def test_a_link_to_nothing_is_named(pets: Path, root: Path) -> None:
    (pets / "train/cat/link.png").symlink_to(pets / "gone.png")
    with pytest.raises(DataError, match=r"train/cat/link.png cannot be read \(No such file"):
        ImageFolder(root, path=str(pets)).load()
