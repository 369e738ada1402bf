"""Heads that go on from another run's: learnable scaling and tau-normalisation."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import models
from engine.config.load import load
from engine.config.mistakes import ConfigError
from engine.training import build
from engine.training.setup import load_dataset
from engine.training.start_weights import start_weights
from models.heads.learnable_scaling import LearnableScaling
from models.heads.linear import Linear
from models.heads.tau_normalised import TauNormalised, tau_normalised
from tests._runs import folder_of, small_config, small_run, weights_of

FIRST = (
    "model=cifar_resnet8",
    "schedule.epochs=1",
    "data.num_train_per_class=24",
    "data.validation.per_class=4",
)
SECOND = (*FIRST, "model.freeze=true", "schedule.warmup=0")
HEADS = ("learnable_scaling", "tau_normalised")


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run with a linear head, and one of each second stage on top of it."""
    root = tmp_path_factory.mktemp("runs")
    small_run(root, *FIRST)
    first = folder_of(root, *FIRST)
    found = {"first": first}
    for head in HEADS:
        words = (*SECOND, f"model.head={head}", f"model.init_from={first}")
        small_run(root, *words)
        found[head] = folder_of(root, *words)
    return found


@pytest.fixture(scope="module")
def nearest(stages: dict[str, Path]) -> Path:
    """A run that classifies by the class means of the first stage's features."""
    root = stages["first"].parents[2]
    words = (
        *SECOND,
        "model.head=nearest_mean",
        "model.init_head=false",
        "evaluate.store_features=true",
        f"model.init_from={stages['first']}",
    )
    small_run(root, *words)
    return folder_of(root, *words)


def test_the_class_whose_mean_feature_is_nearest_is_predicted(nearest: Path) -> None:
    stored = nearest / "predictions"
    features = torch.from_numpy(np.load(stored / "test.last.features.npy"))
    means = torch.from_numpy(np.load(stored / "classifier.last.npz")["means"])
    features, means = F.normalize(features, dim=1), F.normalize(means, dim=1)
    head = weights_of(nearest)
    torch.testing.assert_close(head["head.weight"], means, atol=1e-4, rtol=1e-4)
    assert head["head.log_temperature"] != 0
    logits = torch.from_numpy(np.load(stored / "test.last.npz")["logits"])
    assert torch.equal(logits.argmax(1), torch.cdist(features, means).argmin(1))


def test_class_means_are_not_taken_over_from_another_run(stages: dict[str, Path]) -> None:
    words = ["model.head=nearest_mean", "model.freeze=true", f"model.init_from={stages['first']}"]
    with pytest.raises(ConfigError, match=r"model\.init_head: has no effect with model\.head="):
        load(overrides=words)


def test_scaling_multiplies_each_logit_bias_included() -> None:
    head, plain = LearnableScaling(5, 3), Linear(5, 3, "default", None)
    head.load_state_dict(plain.state_dict(), strict=False)
    features = torch.randn(4, 5)
    assert torch.equal(head(features), plain(features))
    head.scale.data = torch.tensor([1.0, 2.0, 0.5])
    torch.testing.assert_close(head(features), plain(features) * torch.tensor([1.0, 2.0, 0.5]))


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 2.0])
def test_rows_are_divided_by_their_length_to_the_power_of_tau(tau: float) -> None:
    weight = torch.randn(3, 5, dtype=torch.float64)
    expected = [[x / sum(y * y for y in row) ** (tau / 2) for x in row] for row in weight.tolist()]
    assert tau_normalised(weight, tau=tau).tolist() == [pytest.approx(row) for row in expected]


def test_a_row_without_length_stays() -> None:
    assert not tau_normalised(torch.zeros(2, 3), tau=1.0).any()


def test_at_tau_0_the_logits_are_those_of_the_weights() -> None:
    head, features = TauNormalised(5, 3, tau=0.0), torch.randn(4, 5)
    torch.testing.assert_close(head(features), F.linear(features, head.weight))


@pytest.mark.parametrize(
    ("head", "added", "number"), [(HEADS[0], "scale", 4), (HEADS[1], "log_temperature", 1)]
)
def test_a_second_stage_trains_what_it_adds_and_nothing_else(
    stages: dict[str, Path], head: str, added: str, number: int
) -> None:
    before, after = weights_of(stages["first"]), weights_of(stages[head])
    assert {key for key in after if key not in before} == {f"head.{added}"}
    shared = before.keys() & after.keys()
    assert all(torch.equal(before[key], after[key]) for key in shared)
    trained = json.loads((stages[head] / "summary.json").read_text())["parameters"]["trained"]
    assert trained == number


def test_tau_normalised_predictions_are_those_of_the_first_stages_weights_alone(
    stages: dict[str, Path],
) -> None:
    """Post hoc, from the stored logits of nothing but one image's features."""
    logits = np.load(stages["tau_normalised"] / "predictions/test.last.npz")["logits"]
    weights = weights_of(stages["tau_normalised"])
    factor = weights["head.log_temperature"].exp().item()
    lengths = weights["head.weight"].norm(dim=1).numpy()
    # Of logits t w.x / |w| and the first stage's w.x + b of the same images.
    first = np.load(stages["first"] / "predictions/test.last.npz")["logits"]
    bias = weights_of(stages["first"])["head.bias"].numpy()
    expected = (first - bias) / lengths
    np.testing.assert_allclose(logits / factor, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("words", [[], ["model.pretrained=x.pth"]])
def test_a_second_stage_without_a_first_says_what_to_set(head: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(overrides=[f"model.head={head}", *words])
    assert f"model.head={head}: goes on from the head of another run; set" in str(caught.value)


@pytest.mark.parametrize("head", HEADS)
def test_a_second_stage_keeps_the_head_of_the_first(stages: dict[str, Path], head: str) -> None:
    words = [f"model.head={head}", f"model.init_from={stages['first']}", "model.init_head=false"]
    with pytest.raises(ConfigError, match=r"with model\.init_head=true"):
        load(overrides=words)


# --- heads of another kind ------------------------------------------------------------------------


def started(root: Path, run: Path, head: str, *, order: tuple[int, ...] = ()) -> models.Classifier:
    """Return the model that begins with another run's weights, its classes in another order."""
    words = (*FIRST, "model.freeze=true", f"model.head={head}", f"model.init_from={run}")
    config = small_config(root, *words)
    dataset = load_dataset(config)
    if order:
        names = tuple(dataset.class_names[label] for label in order)
        dataset = dataclasses.replace(dataset, class_names=names)
    start = start_weights(config, dataset)
    assert start is not None
    return build.build_model(config, dataset, start=start.state)


@pytest.mark.parametrize(
    ("theirs", "ours", "key"),
    [
        ("learnable_scaling", "linear", "head.scale"),
        ("learnable_scaling", "tau_normalised", "head.scale"),
        ("first", "cosine", "head.bias"),
    ],
)
def test_a_head_that_would_lose_a_part_is_refused(
    tmp_path: Path, stages: dict[str, Path], theirs: str, ours: str, key: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        started(tmp_path, stages[theirs], ours)
    (line,) = caught.value.mistakes
    assert f"its head has {key}, for which model.head={ours} has no place" in line


@pytest.mark.parametrize("theirs", ["cosine", "nearest_mean"])
def test_directions_have_no_lengths_to_normalise(
    tmp_path: Path, stages: dict[str, Path], nearest: Path, theirs: str
) -> None:
    words = (*FIRST, "model.head=cosine")
    if theirs == "cosine":
        small_run(tmp_path, *words)
    run = nearest if theirs == "nearest_mean" else folder_of(tmp_path, *words)
    with pytest.raises(ConfigError, match=f"is a run of model.head={theirs}, whose weights are"):
        started(tmp_path, run, "tau_normalised")


def test_a_second_stage_goes_on_with_its_classes_in_another_order(
    tmp_path: Path, stages: dict[str, Path]
) -> None:
    order = (2, 0, 3, 1)
    stage = stages["tau_normalised"]
    moved = started(tmp_path, stage, "tau_normalised", order=order).state_dict()
    weights = weights_of(stage)
    assert torch.equal(moved["head.weight"], weights["head.weight"][list(order)])
    assert torch.equal(moved["head.log_temperature"], weights["head.log_temperature"])
