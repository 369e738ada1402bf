"""What other classifiers make of a run's stored logits and features."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from engine.analysis import classifiers, reranking
from engine.analysis.blocks import Doubles, Integers, mean_where, recalls
from engine.analysis.comparison import recall_differences
from engine.analysis.groups import REFUSED
from engine.analysis.stored_run import SplitName, StoredRun
from engine.report.predictions_file import ClassifierFile

Section = dict[str, Any]

NOT_STORED = "needs evaluate.store_features=true"
NOT_LINEAR = "needs a linear head"


class Candidate(NamedTuple):
    """A classifier that validation may choose: its setting, and its predictions of a split (N,)."""

    setting: float | str | None
    predict: Callable[[SplitName], Integers]


def classifier_section(run: StoredRun) -> Section:
    """Choose each kind of classifier on validation, and return its recall on test.

    ``weight_scaling`` and ``reranking`` need logits alone, ``tau_normalisation`` also the head's
    weights and ``nearest_mean`` features and class means, which ``evaluate.store_features`` keeps.
    """
    if run.val is None:
        return {"refused": REFUSED}
    if run.num_outputs == 1:
        return {"refused": "needs a model of one output a class"}
    stored = run.classifier
    scales = classifiers.weight_scales(run.logits("val"), run.val.targets)
    scaled = _chosen(run, _weight_scaling(run, scales.factors))
    found: Section = {"weight_scaling": {**scaled, "converged": scales.converged}}
    reranker = reranking.fit(run.val.log_probabilities, run.val.targets, run.class_counts)
    ranked = _chosen(run, _reranking(run, reranker))
    found["reranking"] = {
        **ranked,
        "converged": reranker.converged,
        "offsets": reranker.offsets.tolist(),
        "pair_weights": reranker.pair_weights.tolist(),
    }
    if stored is None:
        return found | {name: {"refused": NOT_STORED} for name in WITH_FEATURES}
    for name, candidates in WITH_FEATURES.items():
        if name == "tau_normalisation" and stored.weight is None:
            found[name] = {"refused": NOT_LINEAR}
        else:
            found[name] = _chosen(run, candidates(run, stored))
    return found


def _weight_scaling(run: StoredRun, factors: Doubles) -> Iterator[Candidate]:
    yield Candidate(None, lambda split: (run.logits(split) * factors).argmax(axis=1))


def _reranking(run: StoredRun, reranker: reranking.Reranker) -> Iterator[Candidate]:
    # Log-probabilities, as a loss may scale its logits, and the penalties would be others.
    parts = {"val": run.val, "test": run.test}

    def predict(split: SplitName) -> Integers:
        part = parts[split]
        assert part is not None
        return reranker.predict(part.log_probabilities, run.class_counts)

    yield Candidate(None, predict)


def _tau_normalisation(run: StoredRun, stored: ClassifierFile) -> Iterator[Candidate]:
    assert stored.weight is not None and stored.bias is not None
    norms, bias = np.linalg.norm(stored.weight.astype(np.float64), axis=1), stored.bias
    for tau in classifiers.NORM_TAUS.tolist():

        def predict(split: SplitName, *, tau: float = tau) -> Integers:
            logits = run.logits(split)
            return classifiers.tau_normalised(logits, norms=norms, bias=bias, tau=tau).argmax(1)

        yield Candidate(tau, predict)


def _nearest_mean(run: StoredRun, stored: ClassifierFile) -> Iterator[Candidate]:
    for distance in classifiers.DISTANCES:

        def predict(split: SplitName, *, distance: classifiers.Distance = distance) -> Integers:
            features = run.features(split)
            near = classifiers.nearness(
                features, stored.means, unit_means=stored.unit_means, distance=distance
            )
            return near.argmax(axis=1)

        yield Candidate(distance, predict)


WITH_FEATURES: dict[str, Callable[[StoredRun, ClassifierFile], Iterator[Candidate]]] = {
    "tau_normalisation": _tau_normalisation,
    "nearest_mean": _nearest_mean,
}


def _chosen(run: StoredRun, candidates: Iterator[Candidate]) -> Section:
    """Take the candidate with the best balanced accuracy on validation, the first of equals."""
    assert run.val is not None
    held_out = run.val.targets
    kept = [(found, _recall(run, held_out, found.predict("val"))) for found in candidates]
    best, on_val = max(kept, key=lambda pair: pair[1]["balanced"] or 0.0)
    targets, labels = run.test.targets, best.predict("test")
    before = run.evaluated_test.argmax(axis=1)
    gain = recall_differences(
        before == targets, labels == targets, targets, masks=run.masks, groups=run.test.groups
    )
    return {
        "setting": best.setting,
        "tried": [candidate.setting for candidate, _ in kept],
        "val": on_val,
        "test": _recall(run, targets, labels),
        "gain": {group: None if d is None else list(d) for group, d in gain.items()},
    }


def _recall(run: StoredRun, targets: Integers, labels: Integers) -> dict[str, float | None]:
    found = recalls(targets, labels, num_classes=len(run.class_counts))
    return {group: mean_where(found, mask) for group, mask in run.masks.items()}
