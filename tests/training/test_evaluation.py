"""A held-out split is predicted only where the run has it."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.training.loaders import EVALUATED_PIXELS, evaluation_batch
from engine.training.machine import machine
from engine.training.setup import load_dataset, set_up
from tests._runs import small_config


def test_a_split_that_the_run_does_not_have_is_never_another_one(tmp_path: Path) -> None:
    config = small_config(tmp_path, "data.validation.per_class=null")
    with machine(config.runtime) as computer:
        evaluator = set_up(config, load_dataset(config), computer).evaluator
        assert sorted(evaluator.splits) == ["test", "train"]
        with pytest.raises(KeyError, match="val"):
            evaluator.assess("val", after_batch=lambda: None)
        assert len(evaluator.assess("test", after_batch=lambda: None).predictions.targets) == 40


def test_an_error_in_a_pass_leaves_the_model_in_the_mode_it_was_in(tmp_path: Path) -> None:
    def fail() -> None:
        raise RuntimeError("between batches")

    config = small_config(tmp_path, "data.validation.per_class=null")
    with machine(config.runtime) as computer:
        evaluator = set_up(config, load_dataset(config), computer).evaluator
        model = evaluator.trainer.evaluated.train()
        with pytest.raises(RuntimeError, match="between batches"):
            evaluator.assess("test", after_batch=fail)
        assert model.training
        with pytest.raises(RuntimeError, match="between batches"):
            list(evaluator.features("test", after_batch=fail))
        assert model.training


def test_tiny_images_are_evaluated_many_at_once_and_never_fewer_than_trained(
    tmp_path: Path,
) -> None:
    dataset = load_dataset(small_config(tmp_path))
    _, height, width = dataset.image_shape
    assert evaluation_batch(2, dataset) == EVALUATED_PIXELS // (height * width) > 200
    assert evaluation_batch(10**6, dataset) == 10**6
