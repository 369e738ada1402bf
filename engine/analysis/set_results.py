"""Coverage and size of a run's prediction sets, made from validation and shown on test."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.analysis import conformal
from engine.analysis.blocks import Integers, Mask
from engine.analysis.groups import REFUSED
from engine.analysis.stored_run import StoredRun
from engine.report.cluster_bootstrap import cluster_intervals
from engine.report.statistics import LEVEL, student

TOLERANCE = 0.05
"""By how much coverage may fall short, in the number of images that a class needs."""

Section = dict[str, Any]


def set_section(run: StoredRun, *, alpha: float) -> Section:
    """Make prediction sets from validation, and return coverage and size on test."""
    least = conformal.least_images(alpha)
    needed = conformal.images_for(alpha, tolerance=TOLERANCE)
    found: Section = {"alpha": alpha, "least_images": least, "tolerance": TOLERANCE}
    found |= {"images_needed": needed}
    if run.val is None or run.evaluated_val is None:
        return {**found, "refused": REFUSED}
    counts, targets = run.class_counts, run.test.targets
    limits = conformal.thresholds(run.evaluated_val, run.val.targets, counts, alpha=alpha)
    held_out = np.bincount(run.val.targets, minlength=len(counts))
    found["held_out"] = {"fewest": int(held_out.min()), "most": int(held_out.max())}
    found["without_threshold"] = int((held_out < least).sum())
    found["ways"] = {}
    for name, limit in limits.items():
        sets = conformal.prediction_sets(run.evaluated_test, targets, limit)
        groups = {
            "all" if group == "balanced" else group: _coverage(
                sets, mask[targets], groups=run.test.groups, num_classes=len(counts)
            )
            for group, mask in run.masks.items()
        }
        images = np.bincount(targets, minlength=len(counts))
        hits = np.bincount(targets[sets.covered], minlength=len(counts))
        intervals = _intervals(sets.covered, targets, run.test.groups, num_classes=len(counts))
        by_class = [
            {"coverage": hit / n, "interval": interval} if n else None
            for hit, n, interval in zip(hits.tolist(), images.tolist(), intervals, strict=True)
        ]
        covered = [row["coverage"] for row in by_class if row is not None]
        found["ways"][name] = {
            "groups": groups,
            "macro_coverage": float(np.mean(covered)),
            "least_class_coverage": float(np.min(covered)),
            "empty_share": float((sets.size == 0).mean()),
            "classes": by_class,
        }
    return found


def _coverage(
    sets: conformal.SetResult, rows: Mask, *, groups: Integers | None, num_classes: int
) -> Section | None:
    number = int(rows.sum())
    if number == 0:
        return None
    covered, size = sets.covered[rows], sets.size[rows]
    mean = float(size.mean())
    if groups is None:
        half = 1.96 * float(size.std()) / number**0.5
        ends = [mean - half, mean + half]
    else:
        groups = groups[rows]
        ends = _ends_over_groups(size, groups, most=num_classes)
    of_one_class = np.zeros(number, dtype=np.int64)
    return {
        "coverage": int(covered.sum()) / number,
        "interval": _intervals(covered, of_one_class, groups, num_classes=1)[0],
        "size": mean,
        "size_interval": ends,
        "num_images": number,
    }


def _intervals(
    covered: Mask, labels: Integers, groups: Integers | None, *, num_classes: int
) -> list[list[float] | None]:
    """Return the interval of each class's coverage, None for a class without images.

    Over images it is Wilson's, over groups that of :mod:`engine.report.cluster_bootstrap`.
    """
    images = np.bincount(labels, minlength=num_classes).tolist()
    if groups is None:
        hits = np.bincount(labels[covered], minlength=num_classes).tolist()
        return [
            list(conformal.wilson(hit, n)) if n else None
            for hit, n in zip(hits, images, strict=True)
        ]
    answers = np.where(covered, labels, -1)
    found = cluster_intervals(labels, answers, groups, masks={}, num_classes=num_classes)
    return [[own.low, own.high] if n else None for own, n in zip(found.recall, images, strict=True)]


def _ends_over_groups(size: Integers, groups: Integers, *, most: int) -> list[float]:
    """Return the ends of the interval of a mean size, from 0 to ``most``, over groups of images."""
    _, place = np.unique(groups, return_inverse=True)
    sums = np.bincount(place, size - size.mean())
    number, mean = len(sums), float(size.mean())
    if number < 2:
        return [0.0, float(most)]
    error = float(np.sqrt(number / (number - 1) * (sums @ sums))) / len(size)
    half = student(number, LEVEL) * error
    return [max(0.0, mean - half), min(float(most), mean + half)]
