"""The last batch of an epoch, for a model whose batch normalisation needs two images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import train
from engine.config.load import ConfigError
from engine.training.pieces import piece_sizes
from tests._runs import (
    assert_same_run,
    folder_of,
    quiet_screen,
    rows_of,
    small_config,
    small_run,
    small_words,
)
from tests.test_processes import finished, two

# Three halvings of 4x4 pixels: the last maps have one pixel, so a lone image has no statistics.
ONE_PIXEL = ("data.size=4", "model=cifar_resnet8", "data.imbalance.factor=1")
# 4 classes of 40 images, of which validation takes 6: 136 for training.
LONE = (*ONE_PIXEL, "optim.batch_size=45", "schedule.epochs=2")


class Stop(Exception):  # noqa: N818 - nothing went wrong
    """Ends a run after its first epoch."""


def stop(epoch: int, row: object) -> None:
    raise Stop


def test_a_lone_last_image_joins_the_batch_before_it(tmp_path: Path) -> None:
    small_run(tmp_path, *LONE)
    rows = rows_of(folder_of(tmp_path, *LONE))
    assert [row["step"] for row in rows] == [3, 6]
    assert [sum(row["train/class_histogram"]) for row in rows] == [136, 136]


@pytest.mark.parametrize("words", [("model.norm=group",), ("model.freeze=true",)])
def test_without_batch_statistics_the_last_batch_stays_as_it_is(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    words = (*ONE_PIXEL, "optim.batch_size=45", "schedule.epochs=1", *words)
    if "model.freeze=true" in words:
        small_run(tmp_path, *ONE_PIXEL, "schedule.epochs=1")
        first = folder_of(tmp_path, *ONE_PIXEL, "schedule.epochs=1")
        words = (*words, f"model.init_from={first}")
    small_run(tmp_path, *words)
    assert [row["step"] for row in rows_of(folder_of(tmp_path, *words))] == [4]


@pytest.mark.slow
def test_two_processes_get_two_images_each_of_every_batch(tmp_path: Path) -> None:
    words = (*ONE_PIXEL, "optim.batch_size=19", "schedule.epochs=1")  # 7 batches and 3 images
    with two(["train.py", *small_words(tmp_path, *words)]) as processes:
        printed = finished(processes)
    assert [process.returncode for process in processes] == [0, 0], printed
    assert [row["step"] for row in rows_of(folder_of(tmp_path, *words))] == [7]


def test_a_run_whose_last_batch_has_grown_resumes_bit_for_bit(tmp_path: Path) -> None:
    small_run(tmp_path / "whole", *LONE)
    with pytest.raises(Stop):
        small_run(tmp_path / "stopped", *LONE, report=stop)
    small_run(tmp_path / "stopped", *LONE)
    whole, stopped = (folder_of(tmp_path / name, *LONE) for name in ("whole", "stopped"))
    assert_same_run(stopped, whole)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("optim.batch_size=1",), "optim.batch_size=1: the smallest batch of an epoch has 1 image"),
        (("optim.batch_size=8", "optim.accumulate=8"), "lower optim.accumulate"),
    ],
)
def test_one_image_at_a_time_is_refused_in_one_line_and_leaves_no_folder(
    tmp_path: Path, words: tuple[str, ...], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected) as error:
        small_run(tmp_path, *ONE_PIXEL, *words)
    assert len(error.value.mistakes) == 1
    assert not list(tmp_path.rglob("*"))


def test_one_image_at_a_time_is_fine_for_a_model_that_can(tmp_path: Path) -> None:
    config = small_config(
        tmp_path, *ONE_PIXEL, "data.num_train_per_class=8", "optim.batch_size=1", "model.norm=group"
    )
    assert train.run(config, screen=quiet_screen()).headline == "val"


@pytest.mark.parametrize("num_pieces", [1, 2, 3, 4, 7])
def test_pieces_are_those_of_chunk_unless_one_image_would_be_alone(num_pieces: int) -> None:
    for num_images in range(1, 40):
        chunks = [len(chunk) for chunk in torch.arange(num_images).chunk(num_pieces)]
        found = piece_sizes(num_images, num_pieces)
        assert sum(found) == num_images
        if 1 in chunks and num_pieces > 1 and max(chunks) > 1:
            assert 1 not in found
        else:
            assert found == chunks
