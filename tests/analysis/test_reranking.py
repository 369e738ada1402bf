"""Reranking of shortlists: the pairwise sums derived anew, one pair at a time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy.special import log_softmax

from engine.analysis import reranking
from engine.analysis.classifier_results import classifier_section
from engine.analysis.results import analyse
from engine.analysis.run_screen import RunScreen
from engine.analysis.stored_run import read_stored_run
from tests.analysis._drawn import COUNTS, drawn
from tests.analysis.conftest import Runs


def by_pairs(logits: np.ndarray, reranker: reranking.Reranker, size: int) -> tuple[list, list]:
    """Labels and reranked scores of one image's shortlist, pair by pair."""
    labels = sorted(range(len(logits)), key=lambda c: (-logits[c], c))[:size]
    scores = []
    for rank, label in enumerate(labels):
        total = 0.0
        for other_rank, other in enumerate(labels):
            if other != label:
                gap = logits[label] - logits[other]
                frequency = np.log((COUNTS[label] + 1) / (COUNTS[other] + 1))
                total += reranker.pair_weights @ [gap, other_rank - rank, frequency]
        scores.append(logits[label] + reranker.offsets[label] + total / (size - 1))
    return labels, scores


@pytest.mark.parametrize("size", [4, 10])
def test_the_first_of_a_shortlist_is_that_of_the_sum_over_pairs(size: int) -> None:
    logits, _ = drawn()
    generator = np.random.default_rng(1)
    reranker = reranking.Reranker(generator.normal(size=7), np.array([0.5, -0.7, -1.1]), most=size)
    found = reranker.predict(logits, COUNTS)
    changed = 0
    for image, row in enumerate(logits):
        labels, scores = by_pairs(row, reranker, min(size, 7))
        assert found[image] == labels[int(np.argmax(scores))]
        changed += found[image] != row.argmax()
    assert changed > 10


def test_no_step_away_from_the_fit_makes_the_images_likelier() -> None:
    logits, targets = drawn(105)
    fitted = reranking.fit(logits, targets, COUNTS)
    assert fitted.converged
    images = np.bincount(targets, minlength=7)

    def loss(offsets: np.ndarray, weights: np.ndarray) -> float:
        moved = reranking.Reranker(offsets, weights)
        total = 0.01 * (offsets**2).sum() + 0.001 * (weights**2).sum()
        for row, target in zip(logits, targets, strict=True):
            labels, scores = by_pairs(row, moved, 7)
            total -= log_softmax(scores)[labels.index(target)] / images[target] / 7
        return float(total)

    best = loss(fitted.offsets, fitted.pair_weights)
    steps = 0.05 * np.eye(10)
    for step in (*steps[[0, 6, 7, 8, 9]], -steps[3]):
        assert best < loss(fitted.offsets + step[:7], fitted.pair_weights + step[7:])


def test_images_whose_class_is_not_on_their_shortlist_are_left_out() -> None:
    counts = np.arange(40, 0, -2)
    targets = np.arange(200) % 20
    logits = np.random.default_rng(0).normal(size=(200, 20)) + 2 * np.eye(20)[targets]
    lost = logits.copy()
    lost[:20] = -10 * np.eye(20)[targets[:20]]
    whole = reranking.fit(lost, targets, counts)
    rest = reranking.fit(lost[20:], targets[20:], counts)
    np.testing.assert_allclose(whole.offsets, rest.offsets, atol=1e-6)


def test_the_size_of_the_shortlists_of_the_fit_is_that_of_the_prediction() -> None:
    logits, targets = drawn(105)
    fitted = reranking.fit(logits, targets, COUNTS, most=2)
    assert fitted.most == 2
    first_two = np.argsort(-logits, axis=1)[:, :2]
    assert (fitted.predict(logits, COUNTS)[:, None] == first_two).any(axis=1).all()


def test_a_loss_that_scales_its_logits_is_reranked_as_it_scales_them(
    runs: Runs, tmp_path: Path
) -> None:
    copy = shutil.copytree(runs.plain, tmp_path / "run")
    for file in (copy / "predictions").glob("*.npz"):
        arrays = dict(np.load(file))
        np.savez(file, **{**arrays, "logits": arrays["logits"] / 30})
    config = yaml.safe_load((copy / "config.yaml").read_text())
    config["loss"] = {"name": "ldam", "scale": 30.0}
    config["model"]["head"] = "cosine"
    (copy / "config.yaml").write_text(yaml.safe_dump(config))
    facts = json.loads((copy / "environment.json").read_text())
    del facts["config_version"]  # else the config would be taken for an edited one
    (copy / "environment.json").write_text(json.dumps(facts))
    plain = classifier_section(read_stored_run(runs.plain))["reranking"]
    scaled = classifier_section(read_stored_run(copy))["reranking"]
    assert scaled["test"] == plain["test"]
    np.testing.assert_allclose(scaled["offsets"], plain["offsets"], atol=1e-3)
    np.testing.assert_allclose(scaled["pair_weights"], plain["pair_weights"], atol=1e-3)


def test_reranking_that_is_cut_short_says_so(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reranking, "ITERATIONS", 1)
    found = analyse(read_stored_run(runs.plain))
    assert not found["classifiers"]["reranking"]["converged"]
    RunScreen().run(found)
    assert "reranking has not converged" in capsys.readouterr().out
