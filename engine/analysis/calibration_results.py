"""How far a run's probabilities can be trusted: scalings, calibration errors, thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from engine.analysis import calibration_error as errors
from engine.analysis import scaling, thresholds
from engine.analysis.blocks import (
    Doubles,
    Mask,
    mean_where,
    recalls,
)
from engine.analysis.groups import REFUSED, defined
from engine.analysis.stored_run import StoredRun

Section = dict[str, Any]


def calibration_section(run: StoredRun) -> Section:
    """Fit three scalings on validation, and return likelihood and calibration errors on test."""
    test, val = run.evaluated_test, run.evaluated_val
    ways = {"as is": scaling.Scaling.none(test.shape[1])}
    if run.val is not None and val is not None:
        ways["temperature"] = scaling.temperature(val, run.val.targets)
        ways["class-wise temperature"] = scaling.class_temperatures(val, run.val.targets)
        ways["vector"] = scaling.vector(val, run.val.targets)
    found: Section = {"num_bins": errors.NUM_BINS, "ways": {}}
    samples: dict[str, errors.Singles] = {}
    groups = run.test.groups
    for name, mask in run.masks.items():
        rows = mask[run.test.targets]
        own = None if groups is None else groups[rows]
        samples[name] = errors.resampled(int(rows.sum()), groups=own)
    for name, way in ways.items():
        found["ways"][name] = _calibration(run, way=way, samples=samples)
        found["ways"][name]["temperatures"] = (1 / way.factor).tolist()
        found["ways"][name]["bias"] = way.bias.tolist()
    if "vector" in ways:
        found["ways"]["vector"]["converged"] = ways["vector"].converged
    if len(ways) == 1:
        found["refused"] = REFUSED
    return found


def _calibration(
    run: StoredRun, *, way: scaling.Scaling, samples: Mapping[str, errors.Singles]
) -> Section:
    """Return the errors of one scaling; ``samples`` are bootstrap samples by group."""
    logits, targets = run.evaluated_test, run.test.targets
    conf = scaling.confidences(logits, targets, scaling=way)
    correct = conf.predicted == targets
    of_all = samples["balanced"][: errors.CLASS_RESAMPLES]
    classwise = errors.classwise_error(logits, targets, scaling=way, times=of_all)
    groups: Section = {}
    for group, mask in run.masks.items():
        rows = mask[targets]
        name = "all" if group == "balanced" else group
        if not rows.any():
            groups[name] = None
            continue
        each = classwise.mean(mask)
        groups[name] = {
            "nll": float(-conf.true_log[rows].mean()),
            "accuracy": float(correct[rows].mean()),
            "confidence": float(conf.confidence[rows].mean()),
            **_top_errors(
                conf.confidence[rows],
                correct[rows],
                times=samples[group],
                is_by_class=name != "all",
            ),
            "ece_classwise": None if each is None else asdict(each),
            "reliability": _reliability(conf.confidence[rows], correct[rows]),
        }
    recall = recalls(targets, conf.predicted, num_classes=logits.shape[1])
    return {"balanced_accuracy": float(np.nanmean(recall)), "groups": groups}


def _top_errors(
    confidence: Doubles, correct: Mask, *, times: errors.Singles, is_by_class: bool
) -> Section:
    """Return the errors of the predicted class; of images chosen by class, chance is not known."""
    kinds = {
        "ece_equal_width": errors.equal_width_bins(confidence),
        "ece_equal_mass": errors.equal_mass_bins(confidence),
    }
    found = {
        name: asdict(errors.calibration_error(confidence, correct, bins=bins, times=times))
        for name, bins in kinds.items()
    }
    if is_by_class:
        found = {name: {**row, "expected_if_calibrated": None} for name, row in found.items()}
    return found


def _reliability(confidence: Doubles, correct: Mask) -> Section:
    bins = errors.equal_width_bins(confidence)
    counts = np.bincount(bins, minlength=errors.NUM_BINS)
    sums = {
        "confidence": np.bincount(bins, confidence, minlength=errors.NUM_BINS),
        "accuracy": np.bincount(bins, correct, minlength=errors.NUM_BINS),
    }
    means = {
        name: [float(s / n) if n else None for s, n in zip(values, counts, strict=True)]
        for name, values in sums.items()
    }
    return {"images": counts.tolist(), **means}


# --- thresholds -----------------------------------------------------------------------------------


def threshold_section(run: StoredRun) -> Section:
    """Choose each class's threshold by F1 on validation; return F1 on test there and at 0.5."""
    if run.val is None or run.evaluated_val is None:
        return {"refused": REFUSED}
    limits = thresholds.best_thresholds(run.evaluated_val, run.val.targets)
    half = np.full(len(limits), np.log(0.5))
    test, targets = run.evaluated_test, run.test.targets
    found = {
        "chosen": thresholds.f1_at(test, targets, thresholds=limits),
        "half": thresholds.f1_at(test, targets, thresholds=half),
    }
    return {
        "thresholds": defined(np.exp(limits)),
        "f1": {name: defined(values) for name, values in found.items()},
        "macro_f1": {
            name: {g: mean_where(values, mask) for g, mask in run.masks.items()}
            for name, values in found.items()
        },
    }
