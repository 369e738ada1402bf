"""Time of an analysis beside netcal, scikit-learn and crepes, on drawn predictions.

    python -m benchmarks.analysis --images 10000 --classes 100
    python -m benchmarks.analysis --images 50000 --classes 1000

Draws log-probabilities of a long-tailed classifier, test and 20 validation images a class, and
computes the figures of ``analyze.py`` in one process; then what the libraries have of the same
figures, one after the other, with as many resamples. netcal and crepes are no dependencies of the
project: without them their part is left out and said (pip install netcal crepes). Prints seconds
and the largest memory of each side. Set OMP_NUM_THREADS=1 to use one core.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata

import numpy as np

from engine.analysis import calibration_error as errors
from engine.analysis import conformal, confusions, priors, scaling, thresholds
from engine.analysis.adjustment import TAUS, tau_curve
from engine.analysis.blocks import shares

VALIDATION = 20
CALIBRATIONS = 2
"""As is and after a temperature."""

Times = dict[str, float]


class Drawn:
    """Drawn log-probabilities, float32 (N, C), of test and validation, and training images."""

    def __init__(self, num_images: int, num_classes: int) -> None:
        self.counts = np.geomspace(1280, 5, num_classes).round().astype(int)
        self.test, self.test_targets = self._draw(num_images, num_classes, seed=0)
        self.val, self.val_targets = self._draw(VALIDATION * num_classes, num_classes, seed=1)

    def _draw(self, num: int, num_classes: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
        generator = np.random.default_rng(seed)
        targets = np.arange(num) % num_classes
        logits = generator.standard_normal((num, num_classes), dtype=np.float32)
        logits[np.arange(num), targets] += 3
        logits *= 2
        logits += np.log(shares(self.counts)).astype(np.float32)
        for start in range(0, num, 256):
            rows = logits[start : start + 256]
            rows -= np.log(np.exp(rows).sum(axis=1, keepdims=True))
        return logits, targets


@contextmanager
def timed(times: Times, name: str) -> Iterator[None]:
    """Add the CPU seconds of a block to ``times``: other processes do not count."""
    began = time.process_time()
    yield
    times[name] = times.get(name, 0.0) + time.process_time() - began
    print(f"  {name:<34}{times[name]:8.2f} s", flush=True)


def ours(drawn: Drawn) -> Times:
    """Compute the figures with engine.analysis."""
    times: Times = {}
    test, targets, val, val_targets = drawn.test, drawn.test_targets, drawn.val, drawn.val_targets
    with timed(times, "curve over tau, 81 points"):
        tau_curve(val, val_targets, drawn.counts)
        tau_curve(test, targets, drawn.counts)
    with timed(times, "temperature"):
        ways = [scaling.Scaling.none(test.shape[1]), scaling.temperature(val, val_targets)]
    with timed(times, "vector scaling"):
        scaling.vector(val, val_targets)
    for way in ways:
        with timed(times, "ECE with intervals, two bins"):
            found = scaling.confidences(test, targets, scaling=way)
            correct = found.predicted == targets
            for bins in (errors.equal_width_bins, errors.equal_mass_bins):
                cells = bins(found.confidence)
                errors.calibration_error(found.confidence, correct, bins=cells)
        with timed(times, "class-wise ECE with intervals"):
            errors.classwise_error(test, targets, scaling=way)
    with timed(times, "thresholds by class"):
        limits = thresholds.best_thresholds(val, val_targets)
        thresholds.f1_at(test, targets, thresholds=limits)
    with timed(times, "prediction sets, marginal and class"):
        of_ways = conformal.thresholds(val, val_targets, drawn.counts)
        for way_name in ("marginal", "class-conditional"):
            conformal.prediction_sets(test, targets, of_ways[way_name])
    with timed(times, "confusion matrix"):
        confusions.confusion_counts(targets, found.predicted, num_classes=test.shape[1])
    with timed(times, "only ours: sets, label shift"):
        for way_name in ("prevalence-adjusted", "interpolated"):
            conformal.prediction_sets(test, targets, of_ways[way_name])
        estimate = priors.estimate_by_em(test, shares(drawn.counts))
    print(f"  (EM: {estimate.iterations} steps, converged: {estimate.has_converged})")
    return times


def theirs(drawn: Drawn) -> Times:
    """Compute the same figures with the libraries that are installed."""
    from scipy.optimize import minimize_scalar
    from sklearn.metrics import (
        balanced_accuracy_score,
        confusion_matrix,
        log_loss,
        precision_recall_curve,
    )

    times: Times = {}
    test, targets, val, val_targets = drawn.test, drawn.test_targets, drawn.val, drawn.val_targets
    prior = np.log(shares(drawn.counts)).astype(np.float32)
    with timed(times, "curve over tau, 81 points"):
        for logits, labels in ((val, val_targets), (test, targets)):
            for tau in TAUS.astype(np.float32):
                balanced_accuracy_score(labels, (logits - tau * prior).argmax(axis=1))
    probabilities, held_out = np.exp(test), np.exp(val)
    with timed(times, "temperature"):
        labels_of = np.arange(test.shape[1])

        def loss(temperature: float) -> float:
            scaled = np.exp(val / temperature)
            scaled /= scaled.sum(axis=1, keepdims=True)
            return float(log_loss(val_targets, scaled, labels=labels_of))

        minimize_scalar(loss, bounds=(0.05, 20), method="bounded")
    with timed(times, "thresholds by class"):
        for label in labels_of:
            precision_recall_curve(val_targets == label, held_out[:, label])
    with timed(times, "confusion matrix"):
        confusion_matrix(targets, probabilities.argmax(axis=1), labels=labels_of)
    if importlib.util.find_spec("netcal") is not None:
        _netcal(times, probabilities, targets)
    if importlib.util.find_spec("crepes") is not None:
        _crepes(times, held_out, val_targets, test=probabilities)
    return times


def _netcal(times: Times, probabilities: np.ndarray, targets: np.ndarray) -> None:
    """Measure ECE and its resamples; class-wise ECE as one ECE of each class."""
    from netcal.metrics import ECE

    measure = ECE(errors.NUM_BINS)
    confidence = probabilities.max(axis=1).astype(np.float64)
    correct = (probabilities.argmax(axis=1) == targets).astype(int)
    generator = np.random.default_rng(0)
    with timed(times, "ECE with intervals, two bins"):
        began, done = time.process_time(), 0
        for done in range(1, errors.RESAMPLES + 1):  # noqa: B007 - read below
            rows = generator.integers(len(targets), size=len(targets))
            measure.measure(confidence[rows], correct[rows])
            if time.process_time() - began > 20:
                break
    scale = 2 * CALIBRATIONS * errors.RESAMPLES / done
    _extrapolate(times, "ECE with intervals, two bins", scale, done)
    with timed(times, "class-wise ECE with intervals"):
        began = time.process_time()
        for done in range(1, probabilities.shape[1] + 1):
            label = done - 1
            measure.measure(
                probabilities[:, label].astype(np.float64), (targets == label).astype(int)
            )
            if time.process_time() - began > 20:
                break
    scale = CALIBRATIONS * errors.CLASS_RESAMPLES * probabilities.shape[1] / done
    _extrapolate(times, "class-wise ECE with intervals", scale, done)


def _extrapolate(times: Times, name: str, scale: float, done: int) -> None:
    times[name] *= scale
    print(f"    {done} measured; as many as ours makes: {times[name]:.1f} s")


def _crepes(times: Times, held_out: np.ndarray, labels: np.ndarray, *, test: np.ndarray) -> None:
    """Make marginal and class-conditional sets of up to 2,000 images, and scale to all."""
    from crepes import ConformalClassifier
    from crepes.extras import hinge

    classes = np.arange(test.shape[1])
    rows = test[: min(len(test), 2000)].astype(np.float64)
    scores = hinge(held_out.astype(np.float64), classes, labels)
    name = "prediction sets, marginal and class"
    with timed(times, name):
        for bins in (None, labels):
            model = ConformalClassifier()
            model.fit(scores, bins=bins)
            others = None if bins is None else classes[None].repeat(len(rows), axis=0)
            _sets(model, hinge(rows), others)
    _extrapolate(times, name, len(test) / len(rows), len(rows))


def _sets(model: object, scores: np.ndarray, bins: np.ndarray | None) -> None:
    predict: Callable[..., object] = model.predict_set  # type: ignore[attr-defined]
    if bins is None:
        predict(scores, confidence=0.9, smoothing=False)
        return
    # A class-conditional set asks class by class.
    for label in range(scores.shape[1]):
        predict(scores[:, label : label + 1], bins=bins[:, label], confidence=0.9, smoothing=False)


def memory() -> float:
    """Return the largest memory of this process so far, in GB."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (1e9 if sys.platform == "darwin" else 1e6)


def main(argv: list[str]) -> None:
    """Print the seconds of each figure on both sides."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.analysis")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--ours-only", action="store_true")
    given = parser.parse_args(argv)
    drawn = Drawn(given.images, given.classes)
    print(f"{given.images:,} x {given.classes:,}; ours, CPU seconds:")
    mine = ours(drawn)
    print(f"  {'all':<34}{sum(mine.values()):8.2f} s, at most {memory():.2f} GB")
    if not given.ours_only:
        print("the libraries, CPU seconds:")
        other = theirs(drawn)
        shared = sum(seconds for name, seconds in mine.items() if name in other)
        print(f"  {'all':<34}{sum(other.values()):8.2f} s, at most {memory():.2f} GB")
        print(f"ours / theirs, of what both compute: {shared / sum(other.values()):.3f}")
        print(f"all of ours / theirs: {sum(mine.values()) / sum(other.values()):.3f}")
    packages = ("numpy", "scikit-learn", "netcal", "crepes")
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores", end="")
    for name in packages:
        try:
            print(f", {name} {metadata.version(name)}", end="")
        except metadata.PackageNotFoundError:
            print(f", without {name}", end="")
    print()


if __name__ == "__main__":
    main(sys.argv[1:])
