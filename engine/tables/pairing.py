"""Which runs of two methods are compared with each other, and what counts as one observation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from engine.report.statistics import FEWEST_FOR_A_CLAIM
from engine.tables.record import RunRecord

Pair = tuple[int, int]
"""(seed, subset seed): what two runs must share to be compared."""

Match = tuple[RunRecord, RunRecord]
"""A run, and the run of the baseline that it is compared with."""


class Paired(NamedTuple):
    """The numbers of two runs of one seed on one split."""

    seed: int
    split: str
    ours: float
    baseline: float


@dataclass(frozen=True)
class Scope:
    """What the independent differences of a block are, and so how far its claims reach.

    Attributes:
        unit: what pairs are averaged by before they count.
        text: the same in words.
    """

    unit: Literal["seed", "split"]
    text: str


def pair_of(record: RunRecord) -> Pair:
    """Return what a run is paired by."""
    return record.seed, record.subset_seed


def value_of(record: RunRecord, metric: str, *, rule: str) -> float | None:
    """Return a test number of a run; None where the rule or the metric is not defined for it."""
    return scores_of(record, rule=rule).get(metric)


def scores_of(record: RunRecord, *, rule: str) -> Mapping[str, float | None]:
    """Return the test numbers of a run by metric; none where the rule is not defined for it."""
    result = record.rules.get(rule)
    return {} if result is None else result.test


def usual_splits(records: Sequence[RunRecord]) -> dict[int, str]:
    """Return the split that most runs of each subset seed have."""
    found: dict[int, Counter[str]] = {}
    for record in records:
        found.setdefault(record.subset_seed, Counter())[record.split_fingerprint] += 1
    return {subset: counts.most_common(1)[0][0] for subset, counts in found.items()}


def scope_of(records: Sequence[RunRecord]) -> Scope:
    """Decide what an interval over the runs of a block speaks for, as :func:`scope_of_pairs`.

    Subsets are told apart by their split, not by their seed: of data that are long-tailed by
    themselves every seed gives the same images.
    """
    usual = usual_splits(records)
    return scope_of_pairs((record.seed, usual[record.subset_seed]) for record in records)


def scope_of_pairs(pairs: Iterable[tuple[int, str]]) -> Scope:
    """Decide what an interval speaks for: all splits where there are enough, else those at hand.

    Runs on one training subset share its luck. With five subsets or more they are averaged, and a
    claim is one about subsets yet to be drawn; so it is, short of a claim, where each has a single
    seed of its own. With fewer a claim is about these subsets alone: what varies is the seed.

    Args:
        pairs: seed and fingerprint of the split of each run.
    """
    made = set(pairs)
    seeds, splits = {seed for seed, _ in made}, {split for _, split in made}
    are_own = 1 < len(splits) == len(made) == len(seeds)
    if are_own or len(splits) >= FEWEST_FOR_A_CLAIM:
        return Scope("split", f"n counts the {len(splits)} subsets")
    if len(splits) == 1:
        return Scope("seed", "n counts seeds; all ran on one subset, and others may differ")
    text = f"n counts seeds, averaged over the same {len(splits)} subsets; others may differ"
    return Scope("seed", text)


def paired(
    runs: Sequence[RunRecord],
    baseline: Sequence[RunRecord],
    *,
    metric: str,
    rule: str,
    scope: Scope,
) -> list[Paired]:
    """Return what both have run, seed by seed and subset by subset, on the same split."""
    return with_values(matched(runs, baseline), (metric,), rule=rule, scope=scope)[metric]


def matched(runs: Sequence[RunRecord], baseline: Sequence[RunRecord]) -> list[Match]:
    """Return each run with that of the baseline that has its seed, its subset and its split."""
    theirs = {pair_of(record): record for record in baseline}
    return [
        (record, other)
        for record in runs
        if (other := theirs.get(pair_of(record))) is not None
        and other.split_fingerprint == record.split_fingerprint
    ]


def with_values(
    matches: Sequence[Match], metrics: Sequence[str], *, rule: str, scope: Scope
) -> dict[str, list[Paired]]:
    """Return by metric the numbers of both runs of each match that has both, if they count."""
    found: dict[str, list[Paired]] = {metric: [] for metric in metrics}
    for record, other in matches:
        ours, theirs = scores_of(record, rule=rule), scores_of(other, rule=rule)
        seed, split = record.seed, record.split_fingerprint
        for metric, pairs in found.items():
            own, base = ours.get(metric), theirs.get(metric)
            if own is not None and base is not None:
                pairs.append(Paired(seed, split, own, base))
    return {metric: comparable(pairs, scope=scope) for metric, pairs in found.items()}


def comparable(pairs: Sequence[Paired], *, scope: Scope) -> list[Paired]:
    """Return the pairs that count: where seeds are averaged over subsets, seeds that have all."""
    if scope.unit == "split":
        return list(pairs)
    # A seed that lacks a subset would differ by that subset's share.
    splits = {pair.split for pair in pairs}
    have: dict[int, set[str]] = {}
    for pair in pairs:
        have.setdefault(pair.seed, set()).add(pair.split)
    return [pair for pair in pairs if have[pair.seed] == splits]


def named(pairs: Iterable[Pair]) -> str:
    """Return pairs in words, by subset: ``seeds 0, 1 on subset 0; seed 4 on subset 2``."""
    by_subset: dict[int, list[str]] = {}
    for seed, subset in sorted(set(pairs), key=lambda pair: (pair[1], pair[0])):
        by_subset.setdefault(subset, []).append(str(seed))
    return "; ".join(
        f"seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)} on subset {subset}"
        for subset, seeds in by_subset.items()
    )
