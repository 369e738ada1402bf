"""Runs that every test of prediction may use, each trained once."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from data.digits import Digits
from tests.data._files import write_folder, write_image
from tests.prediction._trained import COUNTS, trained


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of 9x6 pixels, and in ``runs`` a run that learnt them 8x8 and tested 10x12."""
    root = tmp_path_factory.mktemp("photos")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATA_ROOT", str(root / "data"))
        folder = write_folder(root / "pets", COUNTS)
        for number, path in enumerate(sorted(folder.glob("*/*/*.png"))):
            write_image(path, seed=number, width=9, height=6)
        tested = ("data.test_size=[10, 12]", "data.crop_ratio=0.8", "data.interpolation=bicubic")
        words = ("data=image_folder", f"data.path={folder}", "data.size=8", "runtime.workers=0")
        trained(root, *words, *tested)
    return root


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Greyscale PNGs of the test digits in ``images``, and in ``runs`` a run of digits."""
    root = tmp_path_factory.mktemp("digits")
    (root / "images").mkdir()
    for position, image in enumerate(Digits().load().test.images[::10]):
        Image.fromarray(image[0].numpy()).save(root / "images" / f"{10 * position:03}.png")
    trained(root, "data=digits")
    return root
