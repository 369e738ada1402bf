"""The stored index of a prediction names the image's file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import train
from engine.config.load import load
from engine.config.mistakes import ConfigError
from engine.tables.predictions import files_of
from engine.training.run_folder import RunFolder
from tests._runs import folder_of, quiet_screen, small_run
from tests.data._files import write_folder, write_image

WORDS = (
    "data.imbalance.kind=none",
    "data.validation={per_class: 2, fraction: null}",
    "schedule.epochs=1",
    "model=cifar_resnet8",
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes."""
    counts = {"train": {"cat": 6, "dog": 6}, "test": {"cat": 3, "dog": 3}}
    return write_folder(tmp_path_factory.mktemp("photos"), counts)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    root = tmp_path_factory.mktemp("runs")
    usual = ["optim.batch_size=4", "runtime.threads=1", "track.wandb=disabled"]
    quiet = ["track.figures=false", f"track.root={root}"]
    data = ["data=image_folder", f"data.path={photos}"]
    config = load(overrides=[*usual, *quiet, *data, *WORDS])
    train.run(config, screen=quiet_screen())
    return RunFolder.of(config).path


@pytest.mark.parametrize("split", ["val", "test"])
def test_every_prediction_has_a_file_of_its_split_and_class(
    run: Path, photos: Path, split: str
) -> None:
    stored = np.load(run / "predictions" / f"{split}.last.npz")
    files = files_of(run, "val" if split == "val" else "test")
    folder = photos / ("train" if split == "val" else "test")
    paths = [files[number] for number in stored["index"].tolist()]
    assert [path.parent for path in paths] == [
        folder / ("cat", "dog")[target] for target in stored["targets"].tolist()
    ]
    assert len(set(paths)) == len(paths) == (4 if split == "val" else 6)
    assert all(path.exists() for path in paths)


def test_files_that_have_changed_since_are_not_named(run: Path, photos: Path) -> None:
    extra = write_image(photos / "test" / "cat" / "later.png")
    try:
        with pytest.raises(ConfigError, match="was made on other files than the folder holds now"):
            files_of(run, "test")
    finally:
        extra.unlink()


def test_images_that_are_no_files_are_said_to_be_none(tmp_path: Path) -> None:
    small_run(tmp_path, "schedule.epochs=1")
    with pytest.raises(ConfigError, match=r"the images of data\.name=synthetic are not files"):
        files_of(folder_of(tmp_path, "schedule.epochs=1"), "test")
