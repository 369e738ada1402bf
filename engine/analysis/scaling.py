"""Temperature scaling: one for all, one for each predicted class, and a vector with a bias.

All are fitted by the negative log-likelihood of held-out images. The first two leave every
prediction as it is; the vector may change it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.analysis.blocks import Doubles, Floats, Integers, blocks, check

COLDEST, HOTTEST = 0.05, 20.0
"""Temperatures stay between these: with no mistake in the data the best one would be 0."""

FEWEST_PREDICTED = 20
"""A class that is predicted for fewer images than this takes the temperature of all."""

ITERATIONS = 50
VECTOR_ITERATIONS = 500


@dataclass(frozen=True, eq=False)
class Scaling:
    """What is done to logits before the softmax.

    Attributes:
        factor: (C,) numbers that logits are multiplied by, 1/temperature.
        bias: (C,) numbers that are added then.
        is_by_prediction: whether all logits of an image are multiplied by the factor of the class
            that has the largest one, rather than each by its own.
        converged: whether the fit reached its tolerance.
    """

    factor: Doubles
    bias: Doubles
    is_by_prediction: bool = False
    converged: bool = True

    @classmethod
    def none(cls, num_classes: int) -> Scaling:
        """Return the one that changes nothing."""
        return cls(np.ones(num_classes), np.zeros(num_classes), is_by_prediction=True)

    def apply(self, logits: Floats) -> Doubles:
        """Return scaled logits (N, C) float64 of logits (N, C)."""
        scaled = logits.astype(np.float64)
        if self.is_by_prediction:
            scaled *= self.factor[logits.argmax(axis=1)][:, None]
        else:
            scaled *= self.factor
        scaled += self.bias
        return scaled


@dataclass(frozen=True, eq=False)
class Confidences:
    """What the probabilities of N images come down to.

    Attributes:
        predicted: (N,) label of the largest probability, the lowest on a tie.
        confidence: (N,) that probability.
        true_log: (N,) logarithm of the true class's probability, in nats.
    """

    predicted: Integers
    confidence: Doubles
    true_log: Doubles

    @property
    def nll(self) -> float:
        """Mean negative log-likelihood in nats."""
        return float(-self.true_log.mean())


def confidences(
    logits: Floats, targets: Integers, *, scaling: Scaling | None = None
) -> Confidences:
    """Return predicted class, its probability, and the true class's, after ``scaling``."""
    check(logits, targets)
    predicted = np.empty(len(logits), dtype=np.int64)
    confidence, true_log = np.empty(len(logits)), np.empty(len(logits))
    for rows in blocks(logits):
        block = logits[rows].astype(np.float64) if scaling is None else scaling.apply(logits[rows])
        block -= block.max(axis=1, keepdims=True)
        predicted[rows] = block.argmax(axis=1)
        true = block[np.arange(len(block)), targets[rows]]
        total = np.exp(block, out=block).sum(axis=1)
        confidence[rows] = 1 / total
        true_log[rows] = true - np.log(total)
    return Confidences(predicted, confidence, true_log)


def temperature(logits: Floats, targets: Integers, *, weights: Doubles | None = None) -> Scaling:
    """Fit one temperature: Guo et al. (2017), "On Calibration of Modern Neural Networks", sec. 4.2.

    Args:
        logits: (N, C).
        targets: (N,) labels.
        weights: (N,) what each image counts; all the same by default.
    """
    check(logits, targets)
    every = np.zeros(len(logits), dtype=np.int64)
    factor = _factors(logits, targets, kinds=every, weights=weights)[0]
    return Scaling(
        np.full(logits.shape[1], factor), np.zeros(logits.shape[1]), is_by_prediction=True
    )


def class_temperatures(logits: Floats, targets: Integers) -> Scaling:
    """Fit a temperature for each predicted class, by likelihood.

    After Frenkel and Goldberger (2021), "Network Calibration by Class-based Temperature Scaling". A
    class that is predicted for fewer than 20 images takes the temperature of all.
    """
    num_classes = logits.shape[1]
    shared = temperature(logits, targets)
    predicted = np.concatenate([logits[rows].argmax(axis=1) for rows in blocks(logits)])
    has_enough = np.bincount(predicted, minlength=num_classes) >= FEWEST_PREDICTED
    # The images of all other classes are one more kind, whose factor is not used.
    kinds = np.where(has_enough[predicted], predicted, num_classes)
    own = _factors(logits, targets, kinds=kinds)
    factor = shared.factor.copy()
    factor[has_enough] = own[:num_classes][has_enough[: len(own)]]
    return Scaling(factor, np.zeros(num_classes), is_by_prediction=True)


def vector(logits: Floats, targets: Integers) -> Scaling:
    """Fit a factor and a bias for each class: vector scaling of log-probabilities.

    Guo et al. (2017), section 4.2, scale logits. With a factor for each class the two differ: what
    a softmax takes from all logits of an image alike is multiplied here too. It has 2 C
    numbers: with few images a class it follows them too closely, which the likelihood of other
    images shows.

    Args:
        logits: (N, C), log-probabilities in an analysis.
        targets: (N,) labels.
    """
    from scipy.optimize import minimize

    check(logits, targets)
    num_images, num_classes = logits.shape
    true = np.zeros((2, num_classes))
    own = logits[np.arange(num_images), targets].astype(np.float64)
    true[0] = np.bincount(targets, weights=own, minlength=num_classes)
    true[1] = np.bincount(targets, minlength=num_classes)

    def objective(numbers: Doubles) -> tuple[float, Doubles]:
        factor, bias = numbers.reshape(2, num_classes)
        value, gradient = -float((true[0] * factor + true[1] * bias).sum()), -true
        for rows in blocks(logits):
            block = logits[rows]
            scaled = block * factor.astype(block.dtype)
            scaled += bias.astype(block.dtype)
            top = scaled.max(axis=1, keepdims=True)
            scaled -= top
            np.exp(scaled, out=scaled)
            total = scaled.sum(axis=1, dtype=np.float64)
            value += float((np.log(total) + top[:, 0]).sum())
            scaled *= (1 / total).astype(block.dtype)[:, None]
            gradient = gradient + np.stack(
                [np.einsum("nc,nc->c", scaled, block), scaled.sum(axis=0)]
            )
        return value / num_images, gradient.ravel() / num_images

    begin = np.concatenate([temperature(logits, targets).factor, np.zeros(num_classes)])
    found = minimize(
        objective, begin, jac=True, method="L-BFGS-B", options={"maxiter": VECTOR_ITERATIONS}
    )
    numbers = found.x
    return Scaling(numbers[:num_classes], numbers[num_classes:], converged=bool(found.success))


def _factors(
    logits: Floats, targets: Integers, *, kinds: Integers, weights: Doubles | None = None
) -> Doubles:
    """Return 1/temperature of each kind of image by Newton's method; the likelihood is concave.

    Args:
        logits: (N, C).
        targets: (N,) labels.
        kinds: (N,) kind of each image, from 0.
        weights: (N,) what each image counts.
    """
    num_kinds = int(kinds.max()) + 1
    weights = np.ones(len(logits)) if weights is None else weights
    factor = np.ones(num_kinds)
    for _ in range(ITERATIONS):
        slope, curve = np.zeros(num_kinds), np.zeros(num_kinds)
        for rows in blocks(logits):
            moments = _moments(logits[rows], targets[rows], factor[kinds[rows]])
            for total, part in zip((slope, curve), moments, strict=True):
                total += np.bincount(kinds[rows], weights[rows] * part, minlength=num_kinds)
        step = np.divide(slope, curve, out=np.zeros(num_kinds), where=curve > 1e-300)
        step = np.where((curve <= 1e-300) & (slope > 0), factor, step)
        new = np.clip(np.clip(factor + step, factor / 2, factor * 2), 1 / HOTTEST, 1 / COLDEST)
        is_done = np.abs(new - factor).max() <= 1e-7 * factor.min()
        factor = new
        if is_done:
            break
    return factor


def _moments(block: Floats, targets: Integers, factor: Doubles) -> Doubles:
    """Return the first two derivatives of each image's log-likelihood by its factor, (2, n).

    The second is returned as the variance, which is its negative.
    """
    logits = block - block.max(axis=1, keepdims=True)
    probabilities = np.exp(logits * factor.astype(block.dtype)[:, None])
    total = probabilities.sum(axis=1, dtype=np.float64)
    mean = np.einsum("nc,nc->n", probabilities, logits) / total
    square = np.einsum("nc,nc,nc->n", probabilities, logits, logits) / total
    own = logits[np.arange(len(logits)), targets]
    return np.stack([own - mean, np.maximum(square - mean**2, 0)])
