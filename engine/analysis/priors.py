"""Other class frequencies at test time: what accuracy would be, and what the frequencies are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from engine.analysis.blocks import (
    Doubles,
    Floats,
    Integers,
    Mask,
    argmax_with,
    blocks,
    check,
    recalls,
)

if TYPE_CHECKING:
    from scipy.sparse import csr_array

FACTORS = (2, 5, 10, 25, 50)
ITERATIONS = 2000
TOLERANCE = 1e-7
"""A step this small is below 1e-5 from the end where steps shrink by 1 in 100 or more."""
LEAST_BEND = 1e-12


@dataclass(frozen=True)
class Accuracy:
    """Accuracy under a prior, estimated by weighting the images of each class.

    Attributes:
        value: In [0, 1].
        error: Standard error over test images, or over groups of them, models held.
        effective_images: Kish's effective number of images, (sum w)^2 / sum w^2: how many images
            of that prior the weighted ones are worth.
    """

    value: float
    error: float
    effective_images: float


def long_tailed_prior(
    class_counts: Integers, *, factor: float, direction: Literal["forward", "backward"]
) -> Doubles:
    """Return an exponential long tail, (C,): the most frequent class ``factor`` times the rarest.

    Forward, classes are in the order of their training images, backward in the opposite one; equal
    numbers in label order. Hong et al. (2021), "Disentangling Label Distribution for Long-tailed
    Visual Recognition", made such test sets.

    >>> long_tailed_prior(np.array([9, 3, 1]), factor=4, direction="forward").round(3).tolist()
    [0.571, 0.286, 0.143]
    """
    num_classes = len(class_counts)
    rank = np.empty(num_classes)
    rank[np.argsort(-class_counts, kind="stable")] = np.arange(num_classes)
    if direction == "backward":
        rank = num_classes - 1 - rank
    prior = float(factor) ** (-rank / (num_classes - 1))
    found: Doubles = prior / prior.sum()
    return found


def accuracy_under(
    recall: Doubles, images: Integers, prior: Doubles, *, residuals: csr_array | None = None
) -> Accuracy:
    """Return what accuracy would be were the classes as frequent as in ``prior``.

    It is sum_c prior_c recall_c, the mean over images that are weighted by prior_c / n_c.
    Classes without images are left out of the prior, which is then scaled to sum to one.

    Args:
        recall: (C,) share of each class's images that are right.
        images: (C,) test images of each class.
        prior: (C,) frequencies.
        residuals: (G, C) from :func:`residuals_of`, for a standard error over G groups of images.
            With one group it is that of a share among one.
    """
    seen = images > 0
    weight = prior[seen] / prior[seen].sum()
    hits, number = recall[seen], images[seen]
    variance = weight**2 @ (hits * (1 - hits) / number)
    effective = 1 / (weight**2 @ (1 / number))
    value = float(weight @ hits)
    if residuals is not None:
        variance = _variance_over_groups(residuals[:, seen] @ (weight / number), value=value)
    return Accuracy(value, float(np.sqrt(variance)), float(effective))


def residuals_of(correct: Mask, recall: Doubles, targets: Integers, groups: Integers) -> csr_array:
    """Return how many more images of each group and class are right than its recall says, (G, C).

    Args:
        correct: (N,) whether an image is right.
        recall: (C,) share of each class's images that are right.
        targets: (N,) labels.
        groups: (N,) group of each image.
    """
    from scipy.sparse import coo_array

    names, place = np.unique(groups, return_inverse=True)
    shape = len(names), len(recall)
    return coo_array((correct - recall[targets], (place, targets)), shape=shape).tocsr()


def _variance_over_groups(sums: Doubles, *, value: float) -> float:
    """Return the variance of a mean from what each group adds to it, (G,), of mean 0.

    That is the sandwich of Liang and Zeger (1986), "Longitudinal Data Analysis Using Generalized
    Linear Models", with the usual G / (G - 1).
    """
    number = len(sums)
    if number < 2:
        return value * (1 - value)
    return number / (number - 1) * float(sums @ sums)


@dataclass(frozen=True, eq=False)
class PriorEstimate:
    """Class frequencies of unlabelled images.

    Attributes:
        prior: (C,) or, for several weightings, (K, C).
        iterations: steps of EM that were made, () or (K,).
        has_converged: whether the last one changed the frequencies by less than 1e-7 in all, () or
            (K,).
    """

    prior: Doubles
    iterations: Integers
    has_converged: Mask


def estimate_by_em(
    logits: Floats, source_prior: Doubles, *, weights: Doubles | None = None
) -> PriorEstimate:
    """Estimate the prior of unlabelled images by expectation maximisation.

    Saerens, Latinne and Decaestecker (2002), "Adjusting the Outputs of a Classifier to New a Priori
    Probabilities: A Simple Procedure", equation 2.9. It is the maximum of the likelihood when the
    probabilities are calibrated for ``source_prior``; over-confident ones mislead it (Alexandari et
    al. 2020, "Maximum Likelihood with Bias-Corrected Calibration is Hard-To-Beat at Label Shift
    Adaptation"), so scale them first.

    Args:
        logits: (N, C) log-probabilities.
        source_prior: (C,) frequencies that the probabilities carry: those of the training images,
            unless loss, weights or sampler changed them. All positive.
        weights: (K, N) what each image counts, for K priors at once.
    """
    num_images = len(logits)
    ratio = np.empty_like(logits)
    for rows in blocks(logits):
        block = logits[rows] - np.log(source_prior)
        ratio[rows] = np.exp(block - block.max(axis=1, keepdims=True))
    counts = np.ones((1, num_images)) if weights is None else weights
    counts = counts / counts.sum(axis=1, keepdims=True)
    prior = np.tile(source_prior, (len(counts), 1))
    iterations = np.zeros(len(counts), dtype=np.int64)
    going = np.ones(len(counts), dtype=bool)
    while going.any() and iterations.max() < ITERATIONS:
        # Of three steps the last two say where the path leads (Varadhan and Roland 2008).
        start, images = prior[going], counts[going]
        first = _em_step(ratio, start, images)
        second = _em_step(ratio, first, images)
        iterations[going] += 2
        goes_on = np.abs(second - first).sum(axis=1) > TOLERANCE
        ahead = _extrapolated(start, first, second)
        prior[going] = np.where(goes_on[:, None], ahead, second)
        going[going] = goes_on
    if weights is None:
        return PriorEstimate(prior[0], iterations[0], ~going[0])
    return PriorEstimate(prior, iterations, ~going)


def _em_step(ratio: Floats, prior: Doubles, counts: Doubles) -> Doubles:
    """Return the mean posterior of each weighting, (K, C), summed in double precision."""
    total = np.zeros(prior.shape)
    for rows in blocks(ratio):
        block = ratio[rows].astype(np.float64, copy=False)
        posterior_sum = prior @ block.T
        shares = counts[:, rows] / np.maximum(posterior_sum, np.finfo(np.float64).tiny)
        total += shares @ block
    found: Doubles = prior * total
    return found / found.sum(axis=1, keepdims=True)


def _extrapolated(start: Doubles, first: Doubles, second: Doubles) -> Doubles:
    """Go on along the path of two steps: scheme S3 of Varadhan and Roland (2008), "SQUAREM".

    "Simple and Globally Convergent Methods for Accelerating the Convergence of Any EM Algorithm".
    Where it would leave the simplex, the second step stands.
    """
    step = first - start
    bend = second - first - step
    length = np.linalg.norm(step, axis=1) / np.maximum(np.linalg.norm(bend, axis=1), LEAST_BEND)
    length = np.maximum(length, 1)[:, None]
    found = start + 2 * length * step + length**2 * bend
    is_inside = (found > 0).all(axis=1, keepdims=True)
    found = np.where(is_inside, found, second)
    scaled: Doubles = found / found.sum(axis=1, keepdims=True)
    return scaled


def estimate_by_confusion(
    held_out: Integers, targets: Integers, predicted: Doubles, *, source_prior: Doubles
) -> Doubles:
    """Estimate the prior of unlabelled images from what is predicted for them, (C,).

    Black box shift estimation: Lipton, Wang and Smola (2018), "Detecting and Correcting for Label
    Shift with Black Box Predictors": solve C w = mu, where C[i, j] is the joint
    probability of predicting i for an image of j where labels have ``source_prior``, and mu the
    predicted frequencies. It needs no calibration. Negative frequencies are set to 0 and the rest
    scaled to sum to one; where C cannot be inverted the solution of least norm is taken.

    Args:
        held_out: (M,) predictions of labelled images.
        targets: (M,) their labels.
        predicted: (C,) share of the images in question that are predicted as each class.
        source_prior: (C,) frequencies of the training images.
    """
    num_classes = len(source_prior)
    cells = np.bincount(targets * num_classes + held_out, minlength=num_classes**2)
    by_class = cells.reshape(num_classes, num_classes).T.astype(np.float64)
    images = by_class.sum(axis=0)
    rates = np.divide(by_class, images, out=np.zeros_like(by_class), where=images > 0)
    weights = np.linalg.lstsq(rates * source_prior, predicted, rcond=None)[0]
    found = np.maximum(weights * source_prior, 0)
    scaled: Doubles = found / found.sum()
    return scaled


def shifted(logits: Floats, targets: Integers, *, source: Doubles, target: Doubles) -> Doubles:
    """Return recall by class, (C,), of predictions corrected from one prior to another.

    log(target / source) is added to the log-probabilities: Saerens et al. (2002), equation 2.4. A
    class that ``target`` rules out is never predicted.
    """
    check(logits, targets)
    with np.errstate(divide="ignore"):
        offsets = np.log(target) - np.log(source)
    predicted = argmax_with(logits, offsets[None])[0]
    return recalls(targets, predicted, num_classes=logits.shape[1])
