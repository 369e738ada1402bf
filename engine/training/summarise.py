"""The end of a run: one assessment per selection rule becomes the summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from engine.training.evaluation import Assessment, save_predictions
from engine.training.metrics import best_threshold, few_shot_groups
from engine.training.selection import Selection, oracle
from engine.training.summary import RuleResult, Summary, class_results


class _Split(Protocol):
    @property
    def index(self) -> Tensor: ...
    def __len__(self) -> int: ...


class _Dataset(Protocol):
    @property
    def title(self) -> str: ...
    @property
    def val(self) -> _Split | None: ...
    @property
    def test(self) -> _Split: ...
    @property
    def class_counts(self) -> np.ndarray: ...
    @property
    def class_names(self) -> Sequence[str]: ...
    @property
    def val_is_balanced(self) -> bool: ...
    @property
    def notes(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class RuleAssessment:
    """Validation and test with the weights of one selection rule; None where not predicted."""

    epoch: int
    val: Assessment | None
    test: Assessment | None

    def save_predictions(self, folder: Path, rule: str, *, dataset: _Dataset) -> None:
        """Write ``val.<rule>.npz`` and ``test.<rule>.npz``."""
        for name, assessment, split in (
            ("val", self.val, dataset.val),
            ("test", self.test, dataset.test),
        ):
            if assessment is not None and split is not None:
                path = folder / f"{name}.{rule}.npz"
                save_predictions(path, assessment.predictions, pool_index=split.index.numpy())

    def result(self, dataset: _Dataset) -> RuleResult:
        """The numbers, without the predictions."""
        return RuleResult(
            epoch=self.epoch,
            val=None if self.val is None else self.val.metrics.scalars,
            test={} if self.test is None else self.test.metrics.scalars,
            classes=()
            if self.test is None
            else class_results(
                self.test.metrics, names=dataset.class_names, class_counts=dataset.class_counts
            ),
        )


def threshold(val: Assessment | None) -> float | None:
    """Binary tasks: the probability of class 1 with the best F1 on validation."""
    if val is None or val.probabilities.shape[1] != 2:
        return None
    return best_threshold(val.probabilities, val.predictions.targets)


def summarise(
    assessments: Mapping[str, RuleAssessment],
    *,
    rows: Sequence[Mapping[str, Any]],
    selection: Selection,
    dataset: _Dataset,
    seed: int,
    identity: Mapping[str, str],
    code_hash: str,
    notes: Sequence[str],
    seconds: float,
) -> Summary:
    """Join the rules' results; the headline is ``val`` where it exists, else ``last``."""
    results = {rule: found.result(dataset) for rule, found in assessments.items()}
    headline = "val" if "val" in results else "last"
    trained = sum(row["time/epoch_seconds"] for row in rows)
    return Summary(
        title=dataset.title,
        **identity,
        seed=seed,
        code_hash=code_hash,
        headline=headline,
        rules=results,
        oracle=oracle(rows, selection.metric, results[headline].test),
        selection=_selection_sentence(results[headline], selection, dataset),
        class_counts=tuple(dataset.class_counts.tolist()),
        group_sizes=_group_sizes(assessments[headline], dataset),
        notes=(*dataset.notes, *notes),
        time={"training_seconds": trained, "last_segment_seconds": seconds},
    )


def _group_sizes(headline: RuleAssessment, dataset: _Dataset) -> dict[str, int]:
    """Classes in the groups that the headline's numbers are of."""
    predicted = headline.test or headline.val
    if predicted is not None:
        return predicted.metrics.group_sizes
    groups = few_shot_groups(dataset.class_counts)
    return {name: int(mask.sum()) for name, mask in groups.items()}


def _selection_sentence(result: RuleResult, selection: Selection, dataset: _Dataset) -> str:
    if dataset.val is None:
        return f"rule last: weights after epoch {result.epoch}; no validation labels were used"
    kind = "balanced" if dataset.val_is_balanced else "not balanced"
    since = ""
    if selection.reason:
        since = f" from epoch {selection.first_epoch} on ({selection.reason})"
    return (
        f"rule val: epoch {result.epoch} has the best {selection.key}{since} on "
        f"{len(dataset.val)} validation labels ({kind}); test chose nothing"
    )
