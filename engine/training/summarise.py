"""The end of a run: one assessment per selection rule becomes the summary."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from engine.training.cost import cost_of
from engine.training.evaluation import Assessment, Evaluator, save_predictions
from engine.training.metrics import Limits, bagged_threshold, few_shot_groups
from engine.training.metrics.groups import USUAL
from engine.training.selection import HeldOut, Selection, headline_of, oracle
from engine.training.summary import RuleResult, Summary, class_results, defined


class _Split(Protocol):
    @property
    def index(self) -> Tensor: ...
    @property
    def groups(self) -> np.ndarray | None: ...
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
    def whole_counts(self) -> np.ndarray: ...
    @property
    def class_names(self) -> Sequence[str]: ...
    @property
    def val_is_balanced(self) -> bool: ...
    @property
    def notes(self) -> tuple[str, ...]: ...
    @property
    def verified(self) -> str: ...


@dataclass(frozen=True)
class RuleAssessment:
    """Validation and test with the weights of one selection rule; None where not predicted.

    ``threshold`` is of a binary task: the probability of class 1 from which on it is predicted,
    chosen for F1 on validation.
    """

    epoch: int
    val: Assessment | None
    test: Assessment | None
    threshold: float | None = None

    def save_predictions(self, folder: Path, rule: str, *, dataset: _Dataset) -> None:
        """Write ``val.<rule>.npz`` and ``test.<rule>.npz``."""
        for name, assessment, split in (
            ("val", self.val, dataset.val),
            ("test", self.test, dataset.test),
        ):
            if assessment is not None and split is not None:
                path = folder / f"{name}.{rule}.npz"
                save_predictions(
                    path,
                    assessment.predictions,
                    pool_index=split.index.numpy(),
                    groups=split.groups,
                )

    def result(self, dataset: _Dataset) -> RuleResult:
        """Return the numbers, without the predictions."""
        return RuleResult(
            epoch=self.epoch,
            val=None if self.val is None else self.val.metrics.scalars,
            test={} if self.test is None else self.test.metrics.scalars,
            classes=()
            if self.test is None
            else class_results(
                self.test.metrics, names=dataset.class_names, class_counts=dataset.class_counts
            ),
            threshold=None if self.threshold is None else defined(self.threshold),
        )


def assess_rule(
    evaluator: Evaluator, epoch: int, *, test: bool, after_batch: Callable[[], None]
) -> RuleAssessment:
    """Predict the held-out splits with the weights of the moment, which a selection rule chose.

    Args:
        evaluator: of the run.
        epoch: after which these weights were taken.
        test: whether to look at test.
        after_batch: called between batches.
    """
    val = tested = limit = None
    if "val" in evaluator.splits:
        val = evaluator.assess("val", after_batch=after_batch, ranking=True)
        limit = threshold(val, evaluator.whole_counts)
    if test:
        tested = evaluator.assess("test", after_batch=after_batch, ranking=True, threshold=limit)
    return RuleAssessment(epoch, val=val, test=tested, threshold=limit)


def threshold(val: Assessment, whole_counts: np.ndarray) -> float | None:
    """Return the probability of class 1 from which on to predict it, for a binary task.

    It is the mean of the thresholds with the best F1 on bootstrap draws of the validation images,
    or 0.5 for a draw that left out images on which that is better.
    Validation may be balanced where test is not. Its images are weighed to the shares that the
    classes have in the data set's whole training list, before an imbalance is cut: test is taken
    as it is, and its labels choose nothing.

    Args:
        val: of the weights that will be tested.
        whole_counts: (C,) images of each class in that list.
    """
    if val.probabilities.shape[1] != 2:
        return None
    targets = val.predictions.targets
    return bagged_threshold(val.probabilities.whole(), targets, prior_counts=whole_counts)


def summarise(
    assessments: Mapping[str, RuleAssessment],
    *,
    rows: Sequence[Mapping[str, Any]],
    selection: Selection,
    dataset: _Dataset,
    seed: int,
    identity: Mapping[str, Any],
    code_hash: str,
    notes: Sequence[str],
    parameters: Mapping[str, int],
    seconds: float,
    limits: Limits = USUAL,
) -> Summary:
    """Join the rules' results; the headline is ``val`` where it exists, else ``last``."""
    results = {rule: found.result(dataset) for rule, found in assessments.items()}
    headline = headline_of(results)
    held_out = None
    if dataset.val is not None:
        held_out = HeldOut(len(dataset.val), is_balanced=dataset.val_is_balanced)
    trained = sum(row["time/epoch_seconds"] for row in rows)
    return Summary(
        title=dataset.title,
        **identity,
        seed=seed,
        code_hash=code_hash,
        headline=headline,
        rules=results,
        oracle=oracle(rows, selection.metric, results[headline].test),
        selection=selection.sentence(
            {rule: result.epoch for rule, result in results.items()}, rows, held_out
        ),
        class_counts=tuple(dataset.class_counts.tolist()),
        group_sizes=_group_sizes(assessments[headline], dataset, limits),
        notes=(*dataset.notes, *notes, *_notes(assessments, dataset), *selection.patience.notes),
        parameters=dict(parameters),
        verified=dataset.verified,
        cost=cost_of(rows, trained_parameters=parameters["trained"]),
        time={"training_seconds": trained, "last_segment_seconds": seconds},
    )


def _notes(assessments: Mapping[str, RuleAssessment], dataset: _Dataset) -> Iterator[str]:
    """Say at which class shares a threshold was chosen, and how many predictions are ties."""
    chosen = next((found for found in assessments.values() if found.threshold is not None), None)
    if chosen is not None and chosen.val is not None:
        share = dataset.whole_counts[1] / dataset.whole_counts.sum()
        support = chosen.val.metrics.per_class.support
        pairs = zip(support, dataset.class_names, strict=True)
        images = " and ".join(f"{number} of {name}" for number, name in pairs)
        yield (
            f"f1_at_threshold: the threshold is chosen on {images}, weighed to {share:.1%} "
            f"{dataset.class_names[1]} as in the data set's whole training list"
        )
    tested = {rule: found.test.metrics for rule, found in assessments.items() if found.test}
    ties = {rule: metrics.num_ties for rule, metrics in tested.items() if metrics.num_ties}
    if ties:
        counts = ", ".join(f"{number} (rule {rule})" for rule, number in ties.items())
        yield (
            f"test images with two or more equal top probabilities, predicted as the lowest of "
            f"these labels: {counts} of {len(dataset.test)}"
        )


def _group_sizes(headline: RuleAssessment, dataset: _Dataset, limits: Limits) -> dict[str, int]:
    """Count the classes in the groups that the headline numbers average over."""
    predicted = headline.test or headline.val
    if predicted is not None:
        return predicted.metrics.group_sizes
    groups = few_shot_groups(dataset.class_counts, limits)
    return {name: int(mask.sum()) for name, mask in groups.items()}
