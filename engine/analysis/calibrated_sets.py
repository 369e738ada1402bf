"""Prediction sets for new images, with thresholds from what a run stored of its validation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.analysis import conformal
from engine.analysis.adjustment import offsets_of
from engine.analysis.blocks import Doubles, Floats, Mask, blocks
from engine.analysis.groups import REFUSED
from engine.analysis.readout import log_softmax
from engine.analysis.stored_run import StoredRun, read_stored_run
from engine.config.mistakes import ConfigError


@dataclass(frozen=True, eq=False)
class CalibratedSets:
    """A rule that gives every image its set of classes.

    Attributes:
        chose_epoch: whether the held-out images chose the epoch of the model as well.
        way: one of :func:`engine.analysis.conformal.thresholds`.
        alpha: share of images that may miss their class.
        limits: (C,) least log-probability with which a class is in.
        num_images: held-out images behind them.
        num_always: classes that are in every set, as too few held-out images are theirs.
    """

    chose_epoch: bool
    way: str
    alpha: float
    limits: Doubles
    num_images: int
    num_always: int

    def members(self, probabilities: Floats) -> Mask:
        """Return which classes are in each image's set, (N, C), for probabilities (N, C)."""
        found = np.empty(probabilities.shape, dtype=bool)
        least = np.finfo(np.float64).tiny
        for rows in blocks(probabilities):
            found[rows] = np.log(np.maximum(probabilities[rows], least)) >= self.limits
        return found

    @property
    def sentence(self) -> str:
        """What the sets promise, and on what that rests."""
        promise = f"{self.way} sets for {100 * (1 - self.alpha):.4g} %, from {self.num_images:,}"
        said = f"{promise} validation images; it holds for images like those"
        if self.chose_epoch:
            said += ", but not exactly: they chose the epoch as well"
        if self.num_always:
            said += f"; classes with too few of them, in every set: {self.num_always}"
        return said


def calibrated_sets(
    folder: Path, *, rule: str, way: str, alpha: float, tau: float | None = None
) -> CalibratedSets:
    """Return the sets of a finished run.

    Args:
        folder: the run folder.
        rule: whose weights predict.
        way: one of :func:`engine.analysis.conformal.thresholds`.
        alpha: share of images that may miss their class.
        tau: of the logit adjustment in place of the run's own, or None.

    Raises:
        ConfigError: the run is not finished, has no validation split, or does not predict all of
            its classes.
    """
    run = read_stored_run(folder, rule=rule)
    if run.val is None:
        raise ConfigError([f"--sets {way}: {REFUSED}"])
    strength = run.tau if tau is None else tau
    shift = offsets_of(run.class_counts, np.array([strength]))[0]
    held_out = log_softmax(run.val.log_probabilities + shift)
    found = conformal.thresholds(held_out, run.val.targets, run.class_counts, alpha=alpha)
    limits = found[way]
    always = int(np.isneginf(limits).sum())
    return CalibratedSets(chose_epoch(run), way, alpha, limits, len(run.val.targets), always)


def chose_epoch(run: StoredRun) -> bool:
    """Return whether validation chose the epoch, as a rule's best one or by stopping early."""
    return run.rule != "last" or run.config.schedule.patience is not None
