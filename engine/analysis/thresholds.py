"""Decision thresholds: for each class, the probability from which on calling it is best."""

from __future__ import annotations

import numpy as np

from engine.analysis.blocks import Doubles, Floats, Integers, check

COLUMNS = 2**22
"""Entries of the columns that are sorted at once."""


def best_thresholds(probabilities: Floats, targets: Integers) -> Doubles:
    """Return the threshold of each class with the best F1, one class against the rest, (C,).

    A sample is called the class when its probability of it is at or above the threshold. Choose on
    validation, never on test. The best threshold is always the probability of an image of the
    class: between two of those fewer others are called at the higher end. On a tie the highest
    wins. NaN for a class without images, which has no F1.

    Lipton, Elkan and Naryanaswamy (2014), "Optimal Thresholding of Classifiers to Maximize F1
    Measure". F1 depends on how frequent classes are: a threshold of a balanced split is too low
    where the class is rare.

    Args:
        probabilities: (N, C), or any scores in which more means more of the class.
        targets: (N,) labels.
    """
    check(probabilities, targets)
    num_images, num_classes = probabilities.shape
    found = np.full(num_classes, np.nan)
    step = max(1, COLUMNS // num_images)
    for start in range(0, num_classes, step):
        columns = np.ascontiguousarray(probabilities[:, start : start + step].T)
        for label, column in enumerate(columns, start=start):
            own = np.sort(column[targets == label])[::-1]
            if own.size == 0:
                continue
            column.sort()
            called = num_images - np.searchsorted(column, own, side="left")
            # With equal ones, all of them are called.
            right = own.size - np.searchsorted(own[::-1], own, side="left")
            found[label] = own[(2 * right / (called + own.size)).argmax()]
    return found


def f1_at(probabilities: Floats, targets: Integers, *, thresholds: Doubles) -> Doubles:
    """Return the F1 of each class, one against the rest, where it is called at its threshold, (C,).

    NaN for a class without images, or without a threshold.

    >>> scores = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    >>> f1_at(scores, np.array([0, 1, 1]), thresholds=np.array([0.9, 0.4])).tolist()
    [1.0, 1.0]
    """
    check(probabilities, targets)
    num_images, num_classes = probabilities.shape
    called, right = np.zeros(num_classes), np.zeros(num_classes)
    limits = thresholds.astype(probabilities.dtype)
    step = max(1, COLUMNS // num_classes)
    for start in range(0, num_images, step):
        is_called = probabilities[start : start + step] >= limits
        labels = targets[start : start + step]
        called += is_called.sum(axis=0)
        own = is_called[np.arange(len(labels)), labels]
        right += np.bincount(labels[own], minlength=num_classes)
    images = np.bincount(targets, minlength=num_classes)
    is_defined = (images > 0) & ~np.isnan(thresholds)
    found = np.full(num_classes, np.nan)
    np.divide(2 * right, called + images, out=found, where=is_defined)
    return found
