"""Thresholds of classes: no other probability that occurs does better, by scikit-learn's F1."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from engine.analysis.thresholds import best_thresholds, f1_at
from engine.training.metrics import best_threshold
from tests.analysis._drawn import drawn, probabilities


def test_no_other_threshold_has_a_better_f1() -> None:
    logits, targets = drawn(105)
    scores = probabilities(logits).round(1)  # with many ties
    found = best_thresholds(scores, targets)
    for label in range(7):
        truth = targets == label
        tried = {t: f1_score(truth, scores[:, label] >= t) for t in set(scores[:, label])}
        best = max(tried.values())
        assert tried[found[label]] == pytest.approx(best)
        assert found[label] == max(t for t, value in tried.items() if value >= best - 1e-12)


def test_two_classes_have_the_threshold_of_the_runs() -> None:
    generator = np.random.default_rng(0)
    positive = generator.random(200)
    targets = (generator.random(200) < positive).astype(int)
    scores = np.column_stack([1 - positive, positive])
    assert best_thresholds(scores, targets)[1] == best_threshold(scores, targets)


def test_f1_of_each_class_is_scikit_learns() -> None:
    logits, targets = drawn(210)
    limits = np.linspace(-3, -0.1, 7)
    found = f1_at(logits, targets, thresholds=limits)
    slow = [f1_score(targets == c, logits[:, c] >= limits[c]) for c in range(7)]
    assert found == pytest.approx(slow, abs=1e-12)


def test_a_class_without_images_has_no_threshold_and_no_f1() -> None:
    logits, targets = drawn(70)
    kept = targets != 2
    limits = best_thresholds(logits[kept], targets[kept])
    assert np.flatnonzero(np.isnan(limits)).tolist() == [2]
    assert np.isnan(f1_at(logits, targets, thresholds=limits)[2])
