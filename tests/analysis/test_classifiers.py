"""Classifiers on stored features: formulas derived anew, files that are what the run computed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import NearestCentroid

from engine.analysis import classifiers
from engine.analysis.classifier_results import classifier_section
from engine.analysis.results import analyse
from engine.analysis.run_screen import RunScreen
from engine.analysis.stored_run import read_stored_run
from engine.config.mistakes import ConfigError
from engine.training.features import linear_layer
from engine.training.setup import load_dataset
from engine.training.trained import load_run
from tests._runs import folder_of, small_config, small_run
from tests.analysis.conftest import SHORT, Runs

STORING = (*SHORT, "evaluate.store_features=true")


@pytest.fixture(scope="module")
def storing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("storing")
    small_run(root, *STORING)
    return folder_of(root, *STORING)


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(0)


# --- formulas -------------------------------------------------------------------------------------


def test_normalised_logits_are_those_of_a_head_with_shorter_weights(
    generator: np.random.Generator,
) -> None:
    features, weight = generator.normal(size=(9, 5)), generator.normal(size=(4, 5))
    bias = generator.normal(size=4)
    logits = features @ weight.T + bias
    norms = np.sqrt((weight**2).sum(axis=1))
    for tau in (0.0, 0.7, 1.0):
        shorter = np.stack([row / norm**tau for row, norm in zip(weight, norms, strict=True)])
        found = classifiers.tau_normalised(logits, norms=norms, bias=bias, tau=tau)
        assert np.allclose(found, features @ shorter.T)


def test_the_nearest_mean_is_that_of_scikit_learn(generator: np.random.Generator) -> None:
    targets = np.arange(60) % 3
    features = generator.normal(size=(60, 4)) + 2 * np.eye(3, 4)[targets] + 1
    means = np.stack([features[targets == c].mean(axis=0) for c in range(3)])
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    unit_means = np.stack([unit[targets == c].mean(axis=0) for c in range(3)])
    shown = {"euclidean": features, "unit euclidean": unit}
    for distance, points in shown.items():
        found = classifiers.nearness(features, means, unit_means=unit_means, distance=distance)
        expected = NearestCentroid().fit(points, targets).predict(points)
        assert np.array_equal(found.argmax(axis=1), expected)
    cosine = classifiers.nearness(features, means, unit_means=unit_means, distance="cosine")
    lengths = np.linalg.norm(features, axis=1)[:, None] * np.linalg.norm(means, axis=1)
    assert np.allclose(cosine, features @ means.T / lengths)


def test_a_class_without_a_mean_is_never_the_nearest(generator: np.random.Generator) -> None:
    means = np.array([[5.0, 5], [0, 0]])
    features = generator.normal(size=(8, 2))
    for distance in classifiers.DISTANCES:
        found = classifiers.nearness(features, means, unit_means=means, distance=distance)
        assert (found.argmax(axis=1) == 0).all()


def test_scaled_weights_are_a_minimum_in_which_classes_count_equally(
    generator: np.random.Generator,
) -> None:
    targets = np.array([0] * 60 + [1] * 20 + [2] * 10)
    logits = generator.normal(size=(90, 3)) + 1.5 * np.eye(3)[targets] + [2, 1, 0]
    found = classifiers.weight_scales(logits, targets).factors

    def mean_of_classes(scales: np.ndarray) -> float:
        scaled = torch.from_numpy(logits * scales)
        losses = torch.nn.functional.cross_entropy(
            scaled, torch.from_numpy(targets), reduction="none"
        ).numpy()
        return float(np.mean([losses[targets == c].mean() for c in range(3)]))

    best = mean_of_classes(found)
    assert best < mean_of_classes(np.ones(3))
    for label in range(3):
        for step in (-0.02, 0.02):
            assert best <= mean_of_classes(found + step * np.eye(3)[label]) + 1e-9


def test_weight_scaling_that_is_cut_short_says_so(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert classifier_section(read_stored_run(runs.plain))["weight_scaling"]["converged"]
    monkeypatch.setattr(classifiers, "ITERATIONS", 1)
    found = analyse(read_stored_run(runs.plain))
    assert not found["classifiers"]["weight_scaling"]["converged"]
    RunScreen().run(found)
    assert "weight scaling has not converged" in capsys.readouterr().out


# --- files ----------------------------------------------------------------------------------------


def test_the_head_makes_the_stored_logits_of_the_stored_features(storing: Path) -> None:
    folder = storing / "predictions"
    for rule in ("val", "last"):
        head = np.load(folder / f"classifier.{rule}.npz")
        for split in ("val", "test"):
            features = np.load(folder / f"{split}.{rule}.features.npy")
            logits = np.load(folder / f"{split}.{rule}.npz")["logits"]
            assert features.dtype == np.float32
            assert np.allclose(features @ head["weight"].T + head["bias"], logits, atol=1e-5)
    assert not list(folder.glob(".*"))


def test_class_means_are_those_of_the_training_images_without_augmentation(storing: Path) -> None:
    dataset = load_dataset(small_config(storing.parents[1], *STORING))
    run = load_run(storing, rule="val")
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (run.mean, run.std))
    with torch.no_grad():
        features = run.model((dataset.train.images.float() / 255 - mean) / std).features.numpy()
    stored, targets = np.load(storing / "predictions/classifier.val.npz"), dataset.train.targets
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    for label in range(4):
        own = targets.numpy() == label
        assert np.allclose(stored["means"][label], features[own].mean(axis=0), atol=1e-5)
        unit = (features / lengths)[own].mean(axis=0)
        assert np.allclose(stored["unit_means"][label], unit, atol=1e-5)
    assert stored["counts"].tolist() == dataset.class_counts.tolist()


def test_features_are_kept_on_request_alone_and_change_no_number(storing: Path, runs: Runs) -> None:
    plain = {path.name for path in (runs.plain / "predictions").iterdir()}
    assert plain == {f"{s}.{r}.npz" for s in ("val", "test") for r in ("val", "last")}
    for name in sorted(plain):
        one, other = (np.load(run / "predictions" / name) for run in (storing, runs.plain))
        assert np.array_equal(one["logits"], other["logits"])


def test_a_head_that_does_more_than_its_weights_has_no_linear_layer() -> None:
    class Scaled(torch.nn.Linear):
        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(features)

    for head, is_linear in ((torch.nn.Linear(3, 2), True), (Scaled(3, 2), False)):
        model = torch.nn.Module()
        model.head = head
        assert bool(linear_layer(model)) == is_linear


# --- choices --------------------------------------------------------------------------------------


def test_each_classifier_is_chosen_on_validation_and_shown_on_test(storing: Path) -> None:
    found = classifier_section(read_stored_run(storing))
    head = np.load(storing / "predictions/classifier.val.npz")
    norms = np.linalg.norm(head["weight"].astype(float), axis=1)

    def score(split: str, tau: float) -> float:
        file = np.load(storing / f"predictions/{split}.val.npz")
        features = np.load(storing / f"predictions/{split}.val.features.npy").astype(float)
        scores = features @ (head["weight"] / norms[:, None] ** tau).T
        return float(balanced_accuracy_score(file["targets"], scores.argmax(axis=1)))

    section = found["tau_normalisation"]
    on_val = [score("val", tau) for tau in section["tried"]]
    assert section["val"]["balanced"] == pytest.approx(max(on_val))
    assert section["test"]["balanced"] == pytest.approx(score("test", section["setting"]))
    assert found["nearest_mean"]["setting"] in classifiers.DISTANCES
    assert found["weight_scaling"]["test"]["balanced"] > 0


def test_what_was_not_stored_is_refused_in_words(runs: Runs) -> None:
    found = classifier_section(read_stored_run(runs.plain))
    assert "setting" in found["weight_scaling"] and "setting" in found["reranking"]
    for name in ("tau_normalisation", "nearest_mean"):
        assert found[name] == {"refused": "needs evaluate.store_features=true"}
    assert "validation" in classifier_section(read_stored_run(runs.unvalidated))["refused"]


def test_damaged_features_are_one_line(storing: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(storing, tmp_path / "run")
    file = copy / "predictions/val.val.features.npy"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ConfigError, match=r"val\.val\.features\.npy: is damaged"):
        classifier_section(read_stored_run(copy))
    assert json.loads((copy / "summary.json").read_text())
