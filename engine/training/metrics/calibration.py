"""Quality of the probabilities themselves: negative log-likelihood, Brier score, calibration error.

`probabilities` is (N, C) with rows that sum to one, `targets` (N,). Each has a sibling that takes
what is left of a row, so that no more than a block of rows is ever in memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

NUM_BINS = 15


@dataclass(frozen=True, eq=False)
class Reliability:
    """Confidence against accuracy in equal-width bins (edges[b], edges[b + 1]] of the confidence.

    Attributes:
        edges: (B + 1,) bin edges from 0 to 1.
        counts: (B,) samples in each bin.
        confidence: (B,) mean top probability; NaN in an empty bin.
        accuracy: (B,) fraction of samples whose top class is right; NaN in an empty bin.
    """

    edges: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]
    accuracy: npt.NDArray[np.float64]

    @property
    def ece(self) -> float:
        """Expected calibration error: sum_b counts_b / N * |accuracy_b - confidence_b|, in [0, 1].

        Guo et al. (2017), "On Calibration of Modern Neural Networks", equation 3.
        """
        filled = self.counts > 0
        gaps = np.abs(self.accuracy[filled] - self.confidence[filled])
        return float(self.counts[filled] @ gaps / self.counts.sum())


def reliability(
    probabilities: npt.NDArray[np.floating], targets: npt.NDArray[np.integer]
) -> Reliability:
    """Bin samples by their top probability into 15 equal-width bins, as Guo et al. (2017) do.

    The top class is the arg max, the lowest index on a tie. A confidence on an edge belongs to the
    bin below it.
    """
    top = probabilities.argmax(axis=1)
    return binned(probabilities[np.arange(len(targets)), top], top == targets)


def binned(confidence: npt.NDArray[np.floating], is_right: npt.NDArray[np.bool_]) -> Reliability:
    """Return the same of each sample's top probability (N,) and whether it is right (N,)."""
    doubles = confidence.astype(np.float64)
    edges = np.linspace(0.0, 1.0, NUM_BINS + 1)
    # Rounding can put a softmax output one float above 1; it belongs to the last bin.
    bins = np.searchsorted(edges[1:-1], doubles, side="left")
    counts = np.bincount(bins, minlength=NUM_BINS)
    return Reliability(
        edges=edges,
        counts=counts,
        confidence=_bin_mean(doubles, bins=bins, counts=counts),
        accuracy=_bin_mean(is_right.astype(np.float64), bins=bins, counts=counts),
    )


def nll(probabilities: npt.NDArray[np.floating], targets: npt.NDArray[np.integer]) -> float:
    """Return the mean negative log-likelihood of the true class in nats: -1/N sum_n log p[n, y_n].

    Probabilities below the smallest positive normal number of the array's type (1.2e-38 in float32,
    so at most 87.3 nats a sample; 2.2e-308 in float64) are raised to it: one confident mistake that
    underflowed to zero must not make the mean infinite. Equals unweighted cross-entropy where the
    probabilities are the softmax of the logits.

    >>> round(nll(np.array([[0.5, 0.5], [0.25, 0.75]]), np.array([0, 1])), 4)
    0.4904
    """
    return mean_nll(probabilities[np.arange(len(targets)), targets])


def mean_nll(of_true: npt.NDArray[np.floating]) -> float:
    """Return the same of the probability of each sample's true class (N,)."""
    clipped = np.maximum(of_true, np.finfo(of_true.dtype).tiny)
    return float(-np.log(clipped.astype(np.float64)).mean())


def brier(probabilities: npt.NDArray[np.floating], targets: npt.NDArray[np.integer]) -> float:
    """Multi-class Brier score, 1/N sum_n sum_c (p[n, c] - [y_n = c])^2, in [0, 2]; lower is better.

    The sum over classes of Brier (1950), "Verification of Forecasts Expressed in Terms of
    Probability"; at C = 2 it is twice the score that uses the positive class alone.

    >>> brier(np.array([[0.5, 0.5], [0.25, 0.75]]), np.array([0, 1]))
    0.3125
    """
    squares = np.einsum("nc,nc->n", probabilities, probabilities, dtype=np.float64)
    return mean_brier(squares, probabilities[np.arange(len(targets)), targets])


def mean_brier(squares: npt.NDArray[np.float64], of_true: npt.NDArray[np.floating]) -> float:
    """Return the same of each sample's sum of squared probabilities (N,) and that of its class."""
    return float((squares - 2 * of_true.astype(np.float64) + 1).mean())


def _bin_mean(
    values: npt.NDArray[np.float64],
    *,
    bins: npt.NDArray[np.integer],
    counts: npt.NDArray[np.integer],
) -> npt.NDArray[np.float64]:
    sums = np.bincount(bins, weights=values, minlength=len(counts))
    means = np.full(len(counts), np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means
