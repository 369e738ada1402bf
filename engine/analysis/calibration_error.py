"""Expected calibration error: of the predicted class in two kinds of bins, and class by class.

Every estimate comes with what a perfectly calibrated classifier of the same confidences would show
at the same number of images: the error is a sum of absolute values, and chance alone makes it
positive.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.analysis.blocks import ENTRIES, Doubles, Floats, Integers, Mask, blocks, check
from engine.analysis.scaling import Scaling

NUM_BINS = 15
RESAMPLES = 500
CLASS_RESAMPLES = 200
LEVEL = 0.95

Singles = npt.NDArray[np.float32]


@dataclass(frozen=True)
class CalibrationError:
    """One estimate.

    Attributes:
        ece: The error, in [0, 1].
        expected_if_calibrated: Mean of what chance alone gives with these confidences: the error of
            a calibrated classifier is not 0 but about this. None where the images were chosen by
            their true class: among those even a calibrated classifier is wrong about itself.
        low: Lower end of the bootstrap interval over images, or over groups of them.
        high: Upper end.
        num_images: Images behind it.
    """

    ece: float
    expected_if_calibrated: float | None
    low: float
    high: float
    num_images: int


def equal_width_bins(confidence: Doubles, *, num_bins: int = NUM_BINS) -> Integers:
    """Return the bin (b/B, (b + 1)/B] of each confidence, (N,); Guo et al. (2017), section 2.

    >>> equal_width_bins(np.array([0.1, 0.2, 0.21, 1.0]), num_bins=5).tolist()
    [0, 0, 1, 4]
    """
    edges = np.linspace(0, 1, num_bins + 1)
    return np.searchsorted(edges[1:-1], confidence, side="left")


def equal_mass_bins(confidence: Doubles, *, num_bins: int = NUM_BINS) -> Integers:
    """Return bins that hold equally many images, (N,): the n-th in order of confidence in bin nB/N.

    Nixon et al. (2019), "Measuring Calibration in Deep Learning" (adaptive calibration error, here
    for the predicted class). Equal confidences at an edge are divided in the order given.

    >>> equal_mass_bins(np.array([0.9, 0.1, 0.5, 0.6]), num_bins=2).tolist()
    [1, 0, 0, 1]
    """
    bins = np.empty(len(confidence), dtype=np.int64)
    order = np.argsort(confidence, kind="stable")
    bins[order] = np.arange(len(confidence)) * num_bins // len(confidence)
    return bins


def resampled(
    num_images: int,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    groups: Integers | None = None,
) -> Singles:
    """Return how often each image is in each of R bootstrap samples, (R, N) float32.

    Args:
        num_images: N, drawn N times with replacement.
        resamples: R.
        seed: equal input gives an equal answer.
        groups: (N,) group of each image, of which as many as there are are drawn, whole; None draws
            images.
    """
    generator = np.random.default_rng(seed)
    times = np.empty((resamples, num_images), dtype=np.float32)
    if groups is not None:
        names, place = np.unique(groups, return_inverse=True)
        for row in times:
            drawn = generator.integers(len(names), size=len(names))
            row[:] = np.bincount(drawn, minlength=len(names))[place]
        return times
    for row in times:
        drawn = generator.integers(num_images, size=num_images, dtype=np.int32)
        row[:] = np.bincount(drawn, minlength=num_images)
    return times


def calibration_error(
    confidence: Doubles, correct: Mask, *, bins: Integers, times: Singles | None = None
) -> CalibrationError:
    """Return 1/N sum_b |sum over images of bin b of (confidence - correct)|, with its interval.

    That is Guo et al. (2017), equation 3. The interval is the basic bootstrap's (Davison and
    Hinkley 1997, "Bootstrap Methods and their Application", section 5.2), bins held: resamples are
    biased upwards as the estimate itself is, and this one takes that out once. It is cut at 0.

    Args:
        confidence: (N,) probability of the predicted class.
        correct: (N,) whether it is the true one.
        bins: (N,) from :func:`equal_width_bins` or :func:`equal_mass_bins`.
        times: (R, N) from :func:`resampled`, for several errors of the same images; drawn by
            default.
    """
    num_images, num_bins = len(confidence), int(bins.max()) + 1
    times = resampled(num_images) if times is None else times
    gaps = confidence - correct
    noise = confidence * (1 - confidence)
    variance = np.bincount(bins, noise, minlength=num_bins).astype(np.float64)
    ece = float(np.abs(np.bincount(bins, gaps, minlength=num_bins)).sum()) / num_images
    sums = np.zeros((len(times), num_bins))
    step = max(1, ENTRIES // num_bins)
    for start in range(0, num_images, step):
        rows = slice(start, start + step)
        spread = np.zeros((len(bins[rows]), num_bins), dtype=np.float32)
        spread[np.arange(len(spread)), bins[rows]] = gaps[rows]
        sums += times[:, rows] @ spread
    drawn = _of_an_image(np.abs(sums).sum(axis=1), times)
    return CalibrationError(ece, _chance(variance, num_images), *_basic(ece, drawn), num_images)


def _chance(variance: Doubles, num_images: int) -> float:
    """Return the mean of sum_b |normal of variance v_b| / N, that is sum_b sqrt(2 v_b / pi) / N."""
    return float(np.sqrt(2 * np.maximum(variance, 0) / np.pi).sum()) / num_images


def _of_an_image(totals: Doubles, times: Singles) -> Doubles:
    """Return totals (R, ...) of resamples over the images in each; NaN where there is one group."""
    if times.shape[1] > 1 and (times == 1).all():
        return np.full(totals.shape, np.nan)
    num_images = times.sum(axis=1, dtype=np.float64)
    found: Doubles = totals / num_images.reshape(-1, *(1,) * (totals.ndim - 1))
    return found


def _basic(estimate: float, drawn: Doubles) -> tuple[float, float]:
    if np.isnan(drawn).any():
        return 0.0, 1.0
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return max(0.0, 2 * estimate - float(high)), max(0.0, 2 * estimate - float(low))


# --- class by class -------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ClasswiseError:
    """The calibration error of each class's probability.

    Attributes:
        ece: (C,) errors.
        expected_if_calibrated: (C,) what chance alone gives.
        drawn: (R, C) errors of resampled images.
        num_images: N.
    """

    ece: Doubles
    expected_if_calibrated: Doubles
    drawn: Doubles
    num_images: int

    def mean(self, mask: Mask) -> CalibrationError | None:
        """Return the mean over the classes of a mask (C,); None where it is empty."""
        if not mask.any():
            return None
        ece, chance = float(self.ece[mask].mean()), float(self.expected_if_calibrated[mask].mean())
        low, high = _basic(ece, self.drawn[:, mask].mean(axis=1))
        return CalibrationError(ece, chance, low, high, self.num_images)


def classwise_error(
    logits: Floats,
    targets: Integers,
    *,
    scaling: Scaling | None = None,
    num_bins: int = NUM_BINS,
    times: Singles | None = None,
) -> ClasswiseError:
    """Return the ECE of each class's probability against being of that class, equal-width bins.

    Kull et al. (2019), "Beyond temperature scaling: Obtaining well-calibrated multiclass
    probabilities with Dirichlet calibration"; its mean over classes is the class-wise
    ECE. Of C probabilities few exceed 1/B: only those are put into bins one by one, the first bin
    is what is left of the column.

    Args:
        logits: (N, C).
        targets: (N,) labels.
        scaling: of the logits.
        num_bins: B.
        times: (R, N) from :func:`resampled`, for several scalings of the same images; 200 samples
            are drawn by default. Bins are held.
    """
    check(logits, targets)
    num_images, num_classes = logits.shape
    times = resampled(num_images, resamples=CLASS_RESAMPLES) if times is None else times
    sums = np.zeros((len(times) + 1, num_classes))
    variance = np.zeros(num_classes)
    large: list[tuple[Integers, Integers, Doubles]] = []
    for rows in blocks(logits):
        gaps = _probabilities(logits[rows], scaling)
        variance += gaps.sum(axis=0) - np.einsum("nc,nc->c", gaps, gaps)
        image, label = np.nonzero(gaps > 1 / num_bins)
        large.append((image + rows.start, label, gaps[image, label]))
        gaps[np.arange(len(gaps)), targets[rows]] -= 1
        sums[0] += gaps.sum(axis=0)
        sums[1:] += times[:, rows].astype(logits.dtype) @ gaps.astype(logits.dtype)
    image, label, value = (np.concatenate(parts) for parts in zip(*large, strict=True))
    cells = label * num_bins + equal_width_bins(value, num_bins=num_bins)
    gap = value - (targets[image] == label)
    shape = (num_classes, num_bins)
    total = np.empty((len(times) + 1, num_classes))
    for number, sample in enumerate(sums):
        # The first of the sums is over the images themselves.
        weighted = times[number - 1, image] * gap if number else gap
        found = np.bincount(cells, weighted, minlength=num_classes * num_bins)
        found = found.reshape(shape)
        # What is not in a later bin is in the first.
        found[:, 0] = sample - found[:, 1:].sum(axis=1)
        total[number] = np.abs(found).sum(axis=1)
    spread = np.bincount(cells, value * (1 - value), minlength=num_classes * num_bins)
    spread = spread.reshape(shape)
    spread[:, 0] = variance - spread[:, 1:].sum(axis=1)
    chance = np.sqrt(2 * np.maximum(spread, 0) / np.pi).sum(axis=1) / num_images
    return ClasswiseError(total[0] / num_images, chance, _of_an_image(total[1:], times), num_images)


def _probabilities(block: Floats, scaling: Scaling | None) -> Doubles:
    found = block.astype(np.float64) if scaling is None else scaling.apply(block)
    found -= found.max(axis=1, keepdims=True)
    np.exp(found, out=found)
    found /= found.sum(axis=1, keepdims=True)
    return found
