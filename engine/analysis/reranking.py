"""Reranking of each image's most probable classes: REPAIR.

Wang et al. (2026), "Beyond Logit Adjustment: A Residual Decomposition Framework for Long-Tailed
Reranking", arXiv 2604.01506; features and penalised fit follow the authors' repository,
WGLab/REPAIR. Theirs stops at a tolerance of 1e-11, and the script of their main table has
penalties of its own for each data set, weighs rare classes up on three of five (alpha 0.3), and for
ImageNet-LT and iNaturalist fits to logit-adjusted scores (tau 1): there the penalties pull towards
adjustment, here towards the scores as they are.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from engine.analysis.blocks import Doubles, Floats, Integers, blocks, check

SHORTLIST = 10
"""Classes of an image that may change places, as in the paper's main table."""

OFFSET_PENALTY, PAIR_PENALTY = 0.01, 0.001
"""Of the squares of offsets and pair weights, beside a mean log-likelihood: the code's defaults."""

ITERATIONS = 300


class Reranker(NamedTuple):
    """What is added to the logits of a shortlist.

    Attributes:
        offsets: (C,) of the classes.
        pair_weights: (3,) of the mean gaps to the other classes of the shortlist: in logit, in
            rank, and in the logarithm of the training images.
        converged: whether the fit reached its tolerance.
        most: classes of a shortlist.
    """

    offsets: Doubles
    pair_weights: Doubles
    converged: bool = True
    most: int = SHORTLIST

    def predict(self, logits: Floats, class_counts: Integers) -> Integers:
        """Return the first class of each image's reranked shortlist, (N,)."""
        labels, scores = shortlist(logits, most=self.most)
        gaps = pair_features(scores, labels, class_counts)
        order = scores + self.offsets[labels] + gaps @ self.pair_weights
        found: Integers = labels[np.arange(len(labels)), order.argmax(axis=1)]
        return found


def shortlist(logits: Floats, *, most: int = SHORTLIST) -> tuple[Integers, Doubles]:
    """Return labels and logits of each image's k most probable classes in their order, (N, k).

    Args:
        logits: (N, C).
        most: k; all classes where there are fewer.
    """
    num_images, num_classes = logits.shape
    size = min(most, num_classes)
    labels = np.empty((num_images, size), dtype=np.int64)
    scores = np.empty((num_images, size))
    for rows in blocks(logits):
        block = logits[rows]
        first = np.argpartition(-block, size - 1, axis=1)[:, :size]
        first.sort(axis=1)  # of equal logits the lowest label comes first
        values = np.take_along_axis(block, first, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        labels[rows] = np.take_along_axis(first, order, axis=1)
        scores[rows] = np.take_along_axis(values, order, axis=1)
    return labels, scores


def pair_features(scores: Doubles, labels: Integers, class_counts: Integers) -> Doubles:
    """Return 1/(k - 1) sum_{j != y} phi(y, j) for each class y of a shortlist, (N, k, 3).

    phi(y, j) is the gap in logit, in rank (better is more) and in log(n + 1) of n training images.
    The authors' similarity of classes is left out, and their log-ratio of probabilities, which is
    the gap in logit. The sum of gaps is (k v_y - sum_j v_j) / (k - 1).

    Args:
        scores: (N, k) logits, the largest first.
        labels: (N, k) classes.
        class_counts: (C,) training images.
    """
    size = scores.shape[1]
    ranks = np.broadcast_to(-np.arange(float(size)), scores.shape)
    values = np.stack([scores, ranks, np.log(class_counts + 1.0)[labels]], axis=-1)
    gaps: Doubles = (size * values - values.sum(axis=1, keepdims=True)) / (size - 1)
    return gaps


def fit(
    logits: Floats, targets: Integers, class_counts: Integers, *, most: int = SHORTLIST
) -> Reranker:
    """Fit offsets and pair weights to held-out images, by the likelihood within their shortlists.

    Images whose class is not on their shortlist are left out, as in the paper; classes count
    equally, as in balanced accuracy.

    Args:
        logits: (N, C), whose scale matters to the penalties: log-probabilities have none to choose.
        targets: (N,) labels.
        class_counts: (C,) training images.
        most: classes of a shortlist; all classes where there are fewer.
    """
    from scipy.optimize import minimize
    from scipy.special import logsumexp

    check(logits, targets, class_counts)
    num_classes = logits.shape[1]
    labels, scores = shortlist(logits, most=most)
    gaps = pair_features(scores, labels, class_counts)
    image, place = np.nonzero(labels == targets[:, None])
    labels, scores, gaps, own = labels[image], scores[image], gaps[image], targets[image]
    images = np.bincount(own, minlength=num_classes)
    share = 1 / images[own] / max(1, int(np.count_nonzero(images)))
    rows = np.arange(len(own))
    penalties = np.r_[np.full(num_classes, OFFSET_PENALTY), np.full(3, PAIR_PENALTY)]

    def objective(numbers: Doubles) -> tuple[float, Doubles]:
        ranked = scores + numbers[:num_classes][labels] + gaps @ numbers[num_classes:]
        logs = ranked - logsumexp(ranked, axis=1, keepdims=True)
        value = -float(share @ logs[rows, place]) + float(penalties @ numbers**2)
        slope = np.exp(logs)
        slope[rows, place] -= 1
        slope *= share[:, None]
        by_class = np.bincount(labels.ravel(), slope.ravel(), minlength=num_classes)
        by_pair = np.einsum("nk,nkd->d", slope, gaps)
        return value, np.r_[by_class, by_pair] + 2 * penalties * numbers

    found = minimize(
        objective,
        np.zeros(num_classes + 3),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": ITERATIONS},
    )
    return Reranker(found.x[:num_classes], found.x[num_classes:], bool(found.success), most)
