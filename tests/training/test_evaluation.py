"""A held-out split is predicted only where the run has it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from torch import Tensor, nn

import models
import train
from engine.config.load import load
from engine.config.schema import OptimConfig
from engine.training.loaders import evaluation_batch
from engine.training.machine import machine
from engine.training.run_folder import RunFolder
from engine.training.setup import load_dataset, set_up
from tests._runs import quiet_screen, small_config, small_words


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
    assert evaluation_batch(OptimConfig(batch_size=2), dataset) == 2**16 // (height * width) > 200
    assert evaluation_batch(OptimConfig(batch_size=10**6), dataset) == 10**6
    pieces = OptimConfig(batch_size=10**6, accumulate=8)
    assert evaluation_batch(pieces, dataset) == 125_000
    assert evaluation_batch(pieces, dataset, world=4) == 31_250


def test_no_more_images_than_a_piece_go_through_the_model_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In training, in evaluation, and where the statistics of averaged weights are renewed."""
    monkeypatch.setattr("engine.training.loaders.EVALUATED_PIXELS", 1)
    start = small_words(tmp_path, "schedule.epochs=1", "model=cifar_resnet8")
    train.run(load(overrides=start), screen=quiet_screen())
    one = RunFolder.of(load(overrides=start)).path
    two = shutil.copytree(one, tmp_path / "two")
    words = (f"model.init_from=[{one}, {two}]", "model.swa=0", "optim.accumulate=4")
    seen: dict[int, set[int]] = {}

    def note(module: nn.Module, inputs: tuple[Tensor]) -> None:
        seen.setdefault(id(module), set()).add(len(inputs[0]))

    classifier = models.Classifier
    hook = nn.modules.module.register_module_forward_pre_hook(
        lambda module, inputs: note(module, inputs) if isinstance(module, classifier) else None
    )
    try:
        train.run(load(overrides=[*start, *words]), screen=quiet_screen())
    finally:
        hook.remove()
    assert len(seen) == 2  # the model and its average
    assert all(max(sizes) <= 5 for sizes in seen.values()), seen  # a lone last image joins four
