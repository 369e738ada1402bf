"""Other classifiers on the features that a model has learnt, without training it again.

Kang et al. (2020), "Decoupling Representation and Classifier for Long-Tailed Recognition".
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from engine.analysis.blocks import Doubles, Floats, Integers, blocks, check

NORM_TAUS = np.linspace(0, 2, 41)
"""Strengths of tau-normalisation that are tried; 0 leaves all but the bias as it is."""

Distance = Literal["cosine", "euclidean", "unit euclidean"]
DISTANCES: tuple[Distance, ...] = ("cosine", "euclidean", "unit euclidean")
ITERATIONS = 200


def tau_normalised(logits: Floats, *, norms: Doubles, bias: Doubles, tau: float) -> Doubles:
    """Return logits (N, C) of a linear head whose weight vectors are divided by their norm^tau.

    Kang et al. (2020), section 4.2; as there, the bias is left out.

    Args:
        logits: (N, C) of the head as it is, w_c x + b_c.
        norms: (C,) lengths of its weight vectors w_c.
        bias: (C,) its b_c.
        tau: strength; with 1 all weight vectors are equally long.
    """
    found: Doubles = (logits.astype(np.float64) - bias) / np.maximum(norms, 1e-12) ** tau
    return found


class WeightScales(NamedTuple):
    """Factors (C,) of the classes' logits, and whether their fit reached its tolerance."""

    factors: Doubles
    converged: bool


def weight_scales(logits: Floats, targets: Integers) -> WeightScales:
    """Fit the factor f_c of each class's logit, (C,): learnable weight scaling.

    Kang et al. (2020), section 4.2, learn f on training images drawn equally often from each class;
    here it is fitted to held-out images whose classes count equally, by the likelihood of
    softmax(f_c z_c). With few of them a class it follows them closely.

    Args:
        logits: (N, C), z.
        targets: (N,) labels.
    """
    from scipy.optimize import minimize

    check(logits, targets)
    num_classes = logits.shape[1]
    images = np.bincount(targets, minlength=num_classes)
    weights = 1 / images[targets] / np.count_nonzero(images)

    def objective(factor: Doubles) -> tuple[float, Doubles]:
        value, gradient = 0.0, np.zeros(num_classes)
        for rows in blocks(logits):
            block = logits[rows].astype(np.float64)
            labels, share = targets[rows], weights[rows]
            scaled = block * factor
            scaled -= scaled.max(axis=1, keepdims=True)
            place = np.arange(len(labels))
            own = scaled[place, labels]
            np.exp(scaled, out=scaled)
            total = scaled.sum(axis=1)
            value += float(share @ (np.log(total) - own))
            scaled *= (share / total)[:, None]
            scaled[place, labels] -= share
            gradient += np.einsum("nc,nc->c", scaled, block)
        return value, gradient

    found = minimize(
        objective,
        np.ones(num_classes),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0, None)] * num_classes,
        options={"maxiter": ITERATIONS},
    )
    return WeightScales(found.x, bool(found.success))


def nearness(
    features: Floats,
    means: Floats,
    *,
    unit_means: Floats,
    distance: Distance,
) -> Doubles:
    """Return how near each image is to the mean of each class, (N, C): nearest class means.

    ``cosine``: of the angle between the image's features and the class's mean. ``euclidean``: minus
    the squared distance of the two. ``unit euclidean``: the same of features scaled to length 1
    before and after their mean is taken. A class without a mean, all zeros, is never the nearest.

    Args:
        features: (N, D).
        means: (C, D) mean features of each class's training images.
        unit_means: (C, D) the same of features scaled to length 1.
        distance: which of them.
    """
    centres = (unit_means if distance == "unit euclidean" else means).astype(np.float64)
    lengths = np.linalg.norm(centres, axis=1)
    is_known = lengths > 0
    found = np.empty((len(features), len(centres)))
    for rows in blocks(features):
        block = features[rows].astype(np.float64)
        if distance != "euclidean":
            block /= np.maximum(np.linalg.norm(block, axis=1, keepdims=True), 1e-12)
        found[rows] = block @ centres.T
    if distance == "cosine":
        found /= np.where(is_known, lengths, 1)
    else:
        # |x|^2 is the same for all classes of an image.
        found = 2 * found - lengths**2
    found[:, ~is_known] = -np.inf
    return found
