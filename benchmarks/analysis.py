"""Time of an analysis beside netcal, scikit-learn and crepes, on drawn predictions.

    python -m benchmarks.analysis --images 10000 --classes 100
    python -m benchmarks.analysis --images 50000 --classes 1000

Draws log-probabilities of a long-tailed classifier, test and 20 validation images a class, and
computes every section of ``analyze.py`` in one process; then what the libraries have of the same
figures, one after the other. Two sums are printed of theirs: each figure once, without its
interval; and with as many resamples as ours, of which some are measured and the rest is
multiplication. netcal and crepes are no dependencies of the project: without them their part is
left out and said (pip install netcal crepes). Prints CPU seconds and the largest memory of each
side. Set OMP_NUM_THREADS=1 to use one core.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np

from benchmarks.command_line import Parser
from engine.analysis import calibration_error as errors
from engine.analysis import results, set_results
from engine.analysis.adjustment import TAUS
from engine.analysis.blocks import shares
from engine.analysis.stored_run import Part, StoredRun
from engine.config.load import load
from engine.training.summary import Summary

VALIDATION = 20
WAYS = 4
"""As is, and after three scalings."""

IMAGES_BY_GROUP = 2
"""Every image is in the numbers of all, and in those of its group."""

ENOUGH = 5.0
"""CPU seconds after which a repeated measurement stops."""

SECTIONS = {
    "curve over tau, gain": results.adjustment_section,
    "calibration, three scalings": results.calibration_section,
    "thresholds by class": results.threshold_section,
    "test priors": results.prior_section,
    "label shift": results.shift_section,
    "confusions, mistakes": results.confusion_section,
    "prediction sets, four ways": lambda run: set_results.set_section(run, alpha=0.1),
}

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


def stored_run(drawn: Drawn) -> StoredRun:
    """Return the drawn predictions as a run would hold them."""
    rules = {"last": SimpleNamespace(epoch=1)}
    words = dict.fromkeys(("title", "fingerprint", "group", "split_fingerprint"), "drawn")
    summary = SimpleNamespace(seed=0, rules=rules, **words)
    parts = (
        Part(logits, targets, np.arange(len(targets)))
        for logits, targets in (
            (drawn.test, drawn.test_targets),
            (drawn.val, drawn.val_targets),
        )
    )
    return StoredRun(
        Path("drawn"),
        load([]),
        cast(Summary, summary),
        "last",
        tuple(map(str, range(len(drawn.counts)))),
        drawn.counts,
        *parts,
    )


def ours(drawn: Drawn) -> Times:
    """Compute every section of an analysis."""
    times: Times = {}
    run = stored_run(drawn)
    for name, section in SECTIONS.items():
        with timed(times, name):
            section(run)
    return times


class Theirs:
    """Seconds of the libraries: of each figure once, and as often as an analysis computes it."""

    def __init__(self) -> None:
        self.once: Times = {}
        self.often: Times = {}

    @contextmanager
    def timed(self, name: str, *, times: float = 1) -> Iterator[None]:
        """Measure one computation, which an analysis makes so many ``times``."""
        with timed(self.once, name):
            yield
        self.often[name] = self.once[name] * times

    def repeated(self, name: str, compute: Callable[[], object], *, times: int) -> None:
        """Compute until it has taken long enough, and multiply to ``times``."""
        began, done = time.process_time(), 0
        while done < times and time.process_time() - began < ENOUGH:
            compute()
            done += 1
        self.once[name] = (time.process_time() - began) / done
        self.often[name] = self.once[name] * times
        each = f"{self.once[name]:8.2f} s each, {done} measured of {times}"
        print(f"  {name:<34}{each}", flush=True)


def theirs(drawn: Drawn) -> Theirs:
    """Compute the same figures with the libraries that are installed."""
    from scipy.optimize import minimize_scalar
    from sklearn.metrics import (
        balanced_accuracy_score,
        confusion_matrix,
        f1_score,
        log_loss,
        precision_recall_curve,
    )

    found = Theirs()
    test, targets, val, val_targets = drawn.test, drawn.test_targets, drawn.val, drawn.val_targets
    prior = np.log(shares(drawn.counts)).astype(np.float32)
    labels_of = np.arange(test.shape[1])
    with found.timed("curve over tau, 81 points"):
        for logits, labels in ((val, val_targets), (test, targets)):
            for tau in TAUS.astype(np.float32):
                balanced_accuracy_score(labels, (logits - tau * prior).argmax(axis=1))
    probabilities, held_out = np.exp(test), np.exp(val)
    with found.timed("one temperature"):

        def loss(temperature: float) -> float:
            scaled = np.exp(val / temperature)
            scaled /= scaled.sum(axis=1, keepdims=True)
            return float(log_loss(val_targets, scaled, labels=labels_of))

        minimize_scalar(loss, bounds=(0.05, 20), method="bounded")
    with found.timed("thresholds by class"):
        for label in labels_of:
            precision_recall_curve(val_targets == label, held_out[:, label])
            f1_score(targets == label, probabilities[:, label] >= 0.5)
    with found.timed("confusion matrix"):
        confusion_matrix(targets, probabilities.argmax(axis=1), labels=labels_of)
    if importlib.util.find_spec("netcal") is not None:
        _netcal(found, probabilities, targets)
    if importlib.util.find_spec("crepes") is not None:
        _crepes(found, held_out, val_targets, test=probabilities)
    return found


def _netcal(found: Theirs, probabilities: np.ndarray, targets: np.ndarray) -> None:
    """Measure ECE and its resamples; class-wise ECE as one ECE of each class."""
    from netcal.metrics import ECE

    measure = ECE(errors.NUM_BINS)
    confidence = probabilities.max(axis=1).astype(np.float64)
    correct = (probabilities.argmax(axis=1) == targets).astype(int)
    generator = np.random.default_rng(0)

    def resample() -> None:
        rows = generator.integers(len(targets), size=len(targets))
        measure.measure(confidence[rows], correct[rows])

    # Two kinds of bins.
    times = 2 * WAYS * IMAGES_BY_GROUP * (errors.RESAMPLES + 1)
    found.repeated("ECE of the predicted class", resample, times=times)
    labels = itertools.cycle(range(probabilities.shape[1]))

    def of_a_class() -> None:
        label = next(labels)
        measure.measure(probabilities[:, label].astype(np.float64), (targets == label).astype(int))

    num_classes = probabilities.shape[1]
    times = WAYS * num_classes * (errors.CLASS_RESAMPLES + 1)
    found.repeated("ECE of one class", of_a_class, times=times)
    found.once["ECE of one class"] *= num_classes


def _crepes(found: Theirs, held_out: np.ndarray, labels: np.ndarray, *, test: np.ndarray) -> None:
    """Make marginal and class-conditional sets of up to 2,000 images, and scale to all."""
    from crepes import ConformalClassifier
    from crepes.extras import hinge

    classes = np.arange(test.shape[1])
    rows = test[: min(len(test), 2000)].astype(np.float64)
    scores = hinge(held_out.astype(np.float64), classes, labels)
    name = "prediction sets, marginal and class"
    with found.timed(name):
        for bins in (None, labels):
            model = ConformalClassifier()
            model.fit(scores, bins=bins)
            others = None if bins is None else classes[None].repeat(len(rows), axis=0)
            _sets(model, hinge(rows), others)
    found.once[name] *= len(test) / len(rows)
    found.often[name] = found.once[name]
    print(f"    of {len(rows):,} images; of all: {found.once[name]:.1f} s")


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
    parser = Parser("benchmarks.analysis", __doc__)
    parser.add_numbers(("--images", 10_000, "images"), ("--classes", 100, "classes"))
    parser.add_argument("--ours-only", action="store_true")
    given = parser.parse_args(argv)
    drawn = Drawn(given.images, given.classes)
    print(f"{given.images:,} x {given.classes:,}; ours, CPU seconds:")
    mine = sum(ours(drawn).values())
    print(f"  {'all':<34}{mine:8.2f} s, at most {memory():.2f} GB")
    if not given.ours_only:
        print("the libraries, CPU seconds:")
        found = theirs(drawn)
        once, often = sum(found.once.values()), sum(found.often.values())
        print(f"  {'each figure once':<34}{once:8.2f} s, at most {memory():.2f} GB")
        print(f"  {'with as many resamples':<34}{often:8.2f} s")
        print(f"all of ours / theirs, once: {mine / once:.3f}; with resamples: {mine / often:.4f}")
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
