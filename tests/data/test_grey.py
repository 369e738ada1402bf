"""X-rays and microscopes: 16-bit files of which some bits are in use."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data import DataError, Loader, Pool, Split
from data.image_folder import ImageFolder
from data.image_list import ImageList
from tests.data._files import write_image


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Twelve bits of noise in 16-bit PNGs."""
    generator = np.random.default_rng(0)
    for place in ("train/healthy", "train/ill", "test/healthy", "test/ill"):
        (tmp_path / "scans" / place).mkdir(parents=True)
        for number in range(12):
            values = generator.integers(0, 4096, (6, 6)).astype(np.uint16)
            values[0, 0] = 4095
            Image.fromarray(values).save(tmp_path / "scans" / place / f"{number:02}.png")
    return tmp_path / "scans"


def load(scans: Path, **keys: object) -> ImageFolder:
    return ImageFolder(scans.parent / "root", path=str(scans), **keys)  # type: ignore[arg-type]


def test_twelve_bits_of_sixteen_are_a_note_with_the_key(scans: Path) -> None:
    pool = load(scans).load()
    assert pool.notes == (
        "16-bit greyscale: 8 training images have no value above 4095, so that 16 of 256 grey "
        "levels are left; data.grey_bits=12 keeps more",
    )
    assert len(pool.train.images.unique()) == 16  # type: ignore[union-attr]


def test_with_the_key_all_levels_are_there_cached_or_not(scans: Path) -> None:
    pool = load(scans, grey_bits=12).load()
    assert pool.notes == ()
    assert isinstance(pool.train.images, torch.Tensor)
    assert len(pool.train.images.unique()) > 200
    disk = load(scans, grey_bits=12, cache_gb=0, normalize="imagenet").load().train
    loader = Loader(
        Split(disk.images, disk.targets, torch.arange(24)),
        batch_size=24,
        mean=(0.0,) * 3,
        std=(1 / 255,) * 3,
        device=torch.device("cpu"),
        seed=0,
    )
    (batch,) = loader.epoch(torch.arange(24), epoch=0)
    assert torch.equal(batch.images, pool.train.images.float())


def test_a_list_has_the_key_that_its_note_names(scans: Path) -> None:
    for split in ("train", "test"):
        files = sorted(scans.glob(f"{split}/*/*.png"))
        lines = [f"{file.relative_to(scans)} {file.parent.name}\n" for file in files]
        (scans / f"{split}.txt").write_text("".join(lines), encoding="utf-8")

    def pool(**keys: int) -> Pool:
        lists = {"root": str(scans), "train": "train.txt", "test": "test.txt"}
        return ImageList(scans.parent / "root", **lists, **keys).load()  # type: ignore[arg-type]

    (note,) = pool().notes
    assert note.endswith("data.grey_bits=12 keeps more")
    assert pool(grey_bits=12).notes == ()
    assert len(pool(grey_bits=12).train.images.unique()) > 200  # type: ignore[union-attr]


def test_another_number_of_bits_is_another_cache(scans: Path) -> None:
    first, second = (load(scans, grey_bits=bits).load().train.images for bits in (12, 13))
    assert not torch.equal(first, second)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_bits_of_files_without_sixteen_have_no_effect(tmp_path: Path, mode: str) -> None:
    for place in ("train/cat/0.png", "test/cat/1.png"):
        path = write_image(tmp_path / "pets" / place)
        Image.open(path).convert(mode).save(path)
    with pytest.raises(DataError, match=r"data\.grey_bits=12: has no effect, no training image"):
        load(tmp_path / "pets", grey_bits=12).load()
