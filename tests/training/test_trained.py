"""A run folder becomes a model again, and a mistake in what it is given is one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from torch import Tensor

from engine.config.mistakes import ConfigError
from engine.training.machine import machine
from engine.training.metrics import bagged_threshold
from engine.training.selection import Selection
from engine.training.setup import load_dataset, set_up
from engine.training.signals import Interrupted
from engine.training.summarise import assess_rule, summarise
from engine.training.trained import LoadedRun, load_run, load_weights
from tests._runs import folder_of, small_config, small_run

WORDS = ("schedule.epochs=1", "data.channels=3")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trained")
    small_run(root, *WORDS)
    return folder_of(root, *WORDS)


@pytest.fixture(scope="module")
def loaded(folder: Path) -> LoadedRun:
    return load_run(folder)


@pytest.fixture(scope="module")
def images(loaded: LoadedRun) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (5, *loaded.image_shape), generator=generator).to(torch.uint8)


def test_float_images_with_their_range_are_the_same_images(
    loaded: LoadedRun, images: Tensor
) -> None:
    expected = loaded.predict(images)
    assert torch.equal(loaded.predict(images.float(), max_value=255), expected)
    torch.testing.assert_close(
        loaded.predict(images.float() / 255, max_value=1), expected, atol=1e-6, rtol=1e-5
    )


def test_batches_are_as_one_batch(loaded: LoadedRun, images: Tensor) -> None:
    assert torch.allclose(loaded.predict(images, batch_size=2), loaded.predict(images), atol=1e-6)


WRONG: dict[str, tuple[Callable[[Tensor], object], dict[str, float], str]] = {
    "array": (lambda x: x.numpy(), {}, r"expected a tensor, not ndarray; torch\.from_numpy"),
    "float": (lambda x: x / 255, {}, r"float32, whose range only you know; state max_value=1"),
    "range": (lambda x: x.float(), {"max_value": 1}, r"outside 0 to max_value=1"),
    "normalised": (lambda x: x / 255 - 0.5, {"max_value": 1}, "must not be normalised yet"),
    "uint8 of 1": (lambda x: x, {"max_value": 1}, "max_value=1: uint8 images have 255"),
    "integer": (lambda x: x.long(), {}, "are int64; expected uint8, or floats with max_value"),
    "channels last": (lambda x: x.permute(0, 2, 3, 1), {}, r"images\.permute\(0, 3, 1, 2\)"),
    "one image": (lambda x: x[0], {}, r"images\[None\] makes a batch of one image"),
    "larger": (lambda x: x.repeat(1, 1, 2, 2), {}, "resize them to 8 x 8 pixels"),
    "grey": (lambda x: x[:, :1], {}, r"have the shape \(5, 1, 8, 8\), expected \(N, 3, 8, 8\)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_images_that_do_not_fit_are_refused_with_what_to_do(
    loaded: LoadedRun, images: Tensor, name: str
) -> None:
    change, options, message = WRONG[name]
    with pytest.raises((TypeError, ValueError), match=message):
        loaded.predict(change(images), **options)  # type: ignore[arg-type]


def test_the_model_goes_to_the_device_that_was_asked_for(folder: Path) -> None:
    elsewhere = load_run(folder, device=torch.device("meta"))
    assert {p.device.type for p in elsewhere.model.parameters()} == {"meta"}


def test_a_binary_run_keeps_its_threshold_and_the_shares_it_was_chosen_at(tmp_path: Path) -> None:
    words = ("data.one_vs_rest=2", "data.imbalance.factor=3")
    summary = small_run(tmp_path, *words)
    run_folder = folder_of(tmp_path, *words)
    for rule in ("last", "val"):
        stored = np.load(run_folder / "predictions" / f"val.{rule}.npz")
        scores = torch.from_numpy(stored["logits"]).double().softmax(1)[:, 1].numpy()
        # Of the 160 training images 40 are of class 2, whatever the factor.
        probabilities = np.column_stack([1 - scores, scores])
        prior = np.array([120, 40])
        expected = bagged_threshold(probabilities, stored["targets"], prior_counts=prior)
        threshold = load_run(run_folder, rule=rule).threshold
        assert threshold == summary.rules[rule].threshold
        assert threshold == pytest.approx(expected)
        test = np.load(run_folder / "predictions" / f"test.{rule}.npz")
        of_test = torch.from_numpy(test["logits"]).double().softmax(1)[:, 1].numpy()
        f1 = f1_score(test["targets"], of_test >= threshold)
        assert summary.rules[rule].test["f1_at_threshold"] == pytest.approx(f1)
    assert summary.notes[-1] == (
        "f1_at_threshold: the threshold is chosen on 6 of rest and 6 of class2, weighed to 25.0% "
        "class2 as in the data set's whole training list"
    )


def test_a_run_of_many_classes_has_no_threshold(loaded: LoadedRun) -> None:
    assert loaded.threshold is None


def test_tied_predictions_are_counted_in_the_summary(tmp_path: Path) -> None:
    """A rate of nothing and a head of zeros leave every probability equal."""
    words = ("schedule.epochs=1", "optim.lr=1e-30", "optim.weight_decay=0")
    config = small_config(tmp_path, *words)
    with machine(config.runtime) as computer:
        dataset = load_dataset(config)
        setup = set_up(config, dataset, computer)
        head = setup.trainer.model.head
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
        found = {
            "last": assess_rule(setup.evaluator, 1, test=True, after_batch=lambda: None),
        }
    summary = summarise(
        found,
        rows=[],
        selection=Selection.of(config, has_validation=True),
        dataset=dataset,
        seed=0,
        identity={"fingerprint": "", "group": "", "split_fingerprint": ""},
        code_hash="",
        parameters={"trained": 1, "total": 1},
        notes=(),
        seconds=0.0,
    )
    assert summary.notes[-1] == (
        "test images with two or more equal top probabilities, predicted as the lowest of these "
        "labels: 40 (rule last) of 40"
    )


def test_a_run_without_ties_says_nothing_of_them(tmp_path: Path) -> None:
    summary = small_run(tmp_path, "schedule.epochs=1")
    assert not any("equal top probabilities" in note for note in summary.notes)


def test_a_rule_that_does_not_exist_is_refused_with_those_that_do(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"rule=vall: unknown \(did you mean val\?\); one"):
        load_run(folder, rule="vall")


def test_a_rule_that_the_run_did_not_keep_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="no weights by rule val_nll; it has those of last, val"):
        load_run(folder, rule="val_nll")


def test_a_run_that_was_stopped_in_its_first_epoch_is_no_model_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.training.checkpointer import Checkpointer

    def stop(checkpoints: Checkpointer) -> None:
        checkpoints.save()
        raise Interrupted(15)

    monkeypatch.setattr(Checkpointer, "poll", stop)
    with pytest.raises(Interrupted):
        small_run(tmp_path)
    with pytest.raises(ConfigError, match="was stopped in its first epoch; run its own command"):
        load_weights(folder_of(tmp_path))
