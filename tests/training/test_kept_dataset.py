"""The data set that runs of one process share: the one each of them would have loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.config.load import load
from engine.config.mistakes import ConfigError
from engine.training.run_folder import RunFolder
from engine.training.setup import KeptDataset, load_dataset
from tests._runs import small_config, small_run
from tests.data._files import write_folder


def test_runs_that_ask_for_the_same_data_share_them(tmp_path: Path) -> None:
    kept = KeptDataset()
    first = kept.of(small_config(tmp_path))
    assert kept.of(small_config(tmp_path, "seed=3", "loss=softmax_focal")) is first
    assert kept.of(small_config(tmp_path, "data.imbalance.seed=1")) is not first


def test_a_model_with_other_means_has_data_of_its_own(tmp_path: Path) -> None:
    counts = {"train": {"cat": 6, "dog": 6}, "test": {"cat": 3, "dog": 3}}
    words = [
        *("data=image_folder", f"data.path={write_folder(tmp_path, counts)}", "data.size=8"),
        *("data.normalize=weights", "model.pretrained=true"),
    ]
    kept = KeptDataset()
    for name in ("resnet10t", "mobilevit_xxs", "resnet10t"):  # of two means and deviations
        config = load(overrides=[*words, f"model={name}"])
        alone = load_dataset(config)
        shared = kept.of(config)
        assert (shared.mean, shared.std) == (alone.mean, alone.std), name


def test_every_teacher_is_held_against_the_data(tmp_path: Path) -> None:
    teachers = []
    for subset in (0, 1):
        words = (f"data.imbalance.seed={subset}", "schedule.epochs=1")
        small_run(tmp_path, *words)
        teachers.append(RunFolder.of(small_config(tmp_path, *words)).path)
    student = ("loss=distillation", "data.imbalance.seed=0")
    kept = KeptDataset()
    kept.of(small_config(tmp_path, *student, f"teacher={teachers[0]}"))
    with pytest.raises(ConfigError, match="was trained on another split"):
        kept.of(small_config(tmp_path, *student, f"teacher={teachers[1]}"))


def test_what_only_the_data_can_refuse_is_refused_of_each_run(tmp_path: Path) -> None:
    words = ("data.one_vs_rest=3", "model.head=cosine", "model.head_init=class_mean")
    kept = KeptDataset()
    kept.of(small_config(tmp_path, *words))
    with pytest.raises(ConfigError, match=r"model\.head_init=class_mean: needs an output for each"):
        kept.of(small_config(tmp_path, *words, "loss=binary_cross_entropy"))
