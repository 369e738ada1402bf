"""Which runs of two methods are compared with each other, and what counts as one observation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from engine.report.statistics import FEWEST_FOR_A_CLAIM
from engine.tables.record import RunRecord

Pair = tuple[int, int]
"""(seed, subset seed): what two runs must share to be compared."""


@dataclass(frozen=True)
class Scope:
    """What the independent differences of a block are, and so how far its claims reach.

    Attributes:
        unit: index into a :data:`Pair` that pairs are averaged by; None where each counts.
        text: the same in words.
    """

    unit: int | None
    text: str


def pair_of(record: RunRecord) -> Pair:
    """What a run is paired by."""
    return record.seed, record.subset_seed


def value_of(record: RunRecord, metric: str, *, rule: str) -> float | None:
    """A test number of a run; None where the rule or the metric is not defined for it."""
    result = record.rules.get(rule)
    return None if result is None else result.test.get(metric)


def scope_of(pairs: Iterable[Pair]) -> Scope:
    """Subsets are the unit where there are enough; fewer are taken as given, and said to be.

    Runs on one training subset share its luck. With five subsets or more they are averaged, and a
    claim is one about subsets yet to be drawn; so it is, short of a claim, where each has a single
    seed of its own. With fewer a claim is about these subsets alone: what varies is the seed.
    """
    pairs = set(pairs)
    seeds, subsets = {seed for seed, _ in pairs}, {subset for _, subset in pairs}
    are_own = 1 < len(subsets) == len(pairs) == len(seeds)
    if are_own or len(subsets) >= FEWEST_FOR_A_CLAIM:
        return Scope(1, f"n counts the {len(subsets)} subsets")
    if len(subsets) == 1:
        return Scope(None, "n counts seeds; all ran on one subset, and others may differ")
    text = f"n counts seeds, averaged over the same {len(subsets)} subsets; others may differ"
    return Scope(0, text)


def paired(
    runs: Sequence[RunRecord],
    baseline: Sequence[RunRecord],
    *,
    metric: str,
    rule: str,
    scope: Scope,
) -> dict[Pair, tuple[float, float]]:
    """(ours, baseline) of each seed and subset that both have run, on the same split."""
    theirs = {pair_of(record): record for record in baseline}
    found: dict[Pair, tuple[float, float]] = {}
    for record in runs:
        other = theirs.get(pair_of(record))
        if other is None or other.split_fingerprint != record.split_fingerprint:
            continue
        ours, base = (value_of(run, metric, rule=rule) for run in (record, other))
        if ours is not None and base is not None:
            found[pair_of(record)] = (ours, base)
    if scope.unit != 0:
        return found
    # A seed that lacks a subset would differ by that subset's share.
    subsets = {subset for _, subset in found}
    count = Counter(seed for seed, _ in found)
    return {pair: both for pair, both in found.items() if count[pair[0]] == len(subsets)}


def named(pairs: Iterable[Pair]) -> str:
    """Pairs in words, by subset: ``seeds 0, 1 on subset 0; seed 4 on subset 2``."""
    by_subset: dict[int, list[str]] = {}
    for seed, subset in sorted(set(pairs), key=lambda pair: (pair[1], pair[0])):
        by_subset.setdefault(subset, []).append(str(seed))
    return "; ".join(
        f"seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)} on subset {subset}"
        for subset, seeds in by_subset.items()
    )
