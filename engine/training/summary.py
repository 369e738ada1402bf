"""The result of a finished run: one per selection rule, never mixed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from engine.training.metrics import Metrics, few_shot_groups

Scalars = dict[str, float | None]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ClassResult(_Record):
    """One class: how many training images it had and how it fared; undefined is None.

    A class without training images is in no group.
    """

    label: int
    name: str
    group: Literal["many", "medium", "few"] | None
    train_images: int
    recall: float | None
    precision: float | None
    f1: float | None
    support: int


class RuleResult(_Record):
    """Test (and validation) numbers of the weights that one selection rule chose.

    A run that left test alone, as those of a search do, has no ``test`` numbers and no ``classes``.
    ``threshold`` is that of ``f1_at_threshold``, on the probability of class 1; None where there is
    none.
    """

    epoch: int
    val: Scalars | None
    test: Scalars
    classes: tuple[ClassResult, ...]
    threshold: float | None = None


class Oracle(_Record):
    """Best *test* epoch, as the field's public code reports it; shown only next to the results."""

    epoch: int
    metric: str
    value: float
    headline_value: float


class Cost(_Record):
    """What training has cost, all segments together; what is not known is None.

    Attributes:
        trained_parameters: numbers that the optimizer changes.
        images: drawn for training, each as often as it was.
        forward: passes of one image through a network: two a step with sharpness-aware
            minimisation, and one more for each by a teacher.
        backward: the same on the way back.
        seconds: of the training epochs, without validation and test.
        cpu_seconds: in them, of all processes, those that prepare images included.
        gpu_seconds: in them, once for each GPU.
        energy: joules in them: of the GPUs, or of the CPU packages of a run without one; all that
            others used there is in it.
        memory: bytes of the system at the peak of training, in the process that had most.
        gpu_memory: bytes of tensors on a GPU at the peak.
    """

    trained_parameters: int
    images: int | None
    forward: int | None
    backward: int | None
    seconds: float | None
    cpu_seconds: float | None
    gpu_seconds: float | None
    energy: float | None
    memory: int | None
    gpu_memory: int | None


class Summary(_Record):
    """The contents of summary.json.

    Attributes:
        fingerprint: the run; ``group`` is the same without the seeds.
        headline: the rule whose numbers represent the run: ``val`` where it exists, else ``last``.
        rules: results by rule; ``last`` always, others with a validation split.
        oracle: best test epoch by the metric of ``evaluate.metric``, if test was logged each epoch.
        selection: in words, what chose the epoch and how many labels that used.
        notes: what the data set had to say about the splits.
        parameters: of the model, ``trained`` and in ``total``; None in summaries of before.
        former_fingerprints: those that earlier versions gave the same split; none where they gave
            the same one, and in summaries of before.
        verified: the published data set whose training and test lists the run read, checked line
            by line; empty where nothing says so.
        cost: of training; None in summaries of before.
        time: seconds of training, and of the last segment; not part of the result.
    """

    title: str
    fingerprint: str
    group: str
    seed: int
    split_fingerprint: str
    code_hash: str
    headline: str
    rules: dict[str, RuleResult]
    oracle: Oracle | None
    selection: str
    class_counts: tuple[int, ...]
    group_sizes: dict[str, int]
    notes: tuple[str, ...]
    parameters: dict[str, int] | None = None
    former_fingerprints: tuple[str, ...] = Field(default=(), exclude_if=lambda value: not value)
    verified: str = ""
    cost: Cost | None = None
    time: dict[str, float]

    @property
    def result(self) -> RuleResult:
        """The headline rule's result."""
        return self.rules[self.headline]


def class_results(
    metrics: Metrics, *, names: Sequence[str], class_counts: np.ndarray
) -> tuple[ClassResult, ...]:
    """Return one row a class, in label order."""
    groups = few_shot_groups(class_counts, metrics.limits)
    scores = metrics.per_class
    return tuple(
        ClassResult.model_validate(
            {
                "label": label,
                "name": name,
                "group": next((g for g, mask in groups.items() if mask[label]), None),
                "train_images": int(class_counts[label]),
                "recall": defined(scores.recall[label]),
                "precision": defined(scores.precision[label]),
                "f1": defined(scores.f1[label]),
                "support": int(scores.support[label]),
            }
        )
        for label, name in enumerate(names)
    )


def defined(value: float | np.floating[Any]) -> float | None:
    """Return a float, or None for NaN: undefined values are null in every file."""
    return None if np.isnan(value) else float(value)
