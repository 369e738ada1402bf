"""``sampler.length``: as many images an epoch as asked for; steps and rate go by them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from engine.config.load import fingerprint, load
from engine.config.mistakes import ConfigError
from engine.training.build import build_dataset
from tests._runs import assert_same_run, folder_of, rows_of, small_config, small_run

SHORT = ("sampler.length=40", "model=cifar_resnet8", "optim.batch_size=16")
COUNTS = build_dataset(small_config(Path("runs"))).class_counts.tolist()


@pytest.mark.parametrize("sampler", ["instance", "class_balanced"])
def test_images_steps_and_rate_of_an_epoch_follow_its_length(tmp_path: Path, sampler: str) -> None:
    words = (*SHORT, f"sampler={sampler}", "schedule.warmup=0")
    small_run(tmp_path, *words)
    rows = rows_of(folder_of(tmp_path, *words))
    assert [sum(row["train/class_histogram"]) for row in rows] == [40, 40, 40]
    assert [row["step"] for row in rows] == [3, 6, 9]  # 16 + 16 + 8 images
    last = 0.05 * 0.5 * (1 + math.cos(math.pi * 8 / 9))
    assert rows[-1]["lr"] == pytest.approx(last)


def test_an_epoch_may_be_longer_than_the_data(tmp_path: Path) -> None:
    words = (*SHORT[1:], f"sampler.length={2 * sum(COUNTS)}", "schedule.epochs=1")
    small_run(tmp_path, *words)
    (row,) = rows_of(folder_of(tmp_path, *words))
    assert row["train/class_histogram"] == [2 * count for count in COUNTS]


def test_a_run_with_a_length_resumes_bit_for_bit(tmp_path: Path) -> None:
    class Stop(Exception):  # noqa: N818 - nothing went wrong
        pass

    def report(epoch: int, row: object) -> None:
        if epoch == 2:
            raise Stop

    words = (*SHORT, "sampler=class_balanced", "sampler.start=0.5", "data.augment.crop=1")
    small_run(tmp_path / "whole", *words)
    with pytest.raises(Stop):
        small_run(tmp_path / "stopped", *words, report=report)
    small_run(tmp_path / "stopped", *words)
    assert_same_run(folder_of(tmp_path / "whole", *words), folder_of(tmp_path / "stopped", *words))


def test_a_length_is_part_of_the_identity_and_null_is_none() -> None:
    usual = fingerprint(load())
    assert fingerprint(load(overrides=["sampler.length=null"])) == usual
    assert fingerprint(load(overrides=["sampler.length=100"])) != usual


def test_the_number_of_training_images_as_length_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        small_run(tmp_path, f"sampler.length={sum(COUNTS)}")
    (line,) = caught.value.mistakes
    assert line.startswith(f"sampler.length={sum(COUNTS)}: has no effect, ")
    assert line.endswith(" has as many training images; leave it out")
    assert list(tmp_path.iterdir()) == []
