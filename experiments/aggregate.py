"""From results lines to the rows of a table: means over runs, paired differences, what is odd.

Runs are averaged only with runs of the same config, seeds aside. Whatever sets runs of a row apart
- a missing seed, other code, another split, an undefined number - becomes a note of that row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from engine.config import ConfigError, nearest
from engine.schema import SELECTABLE
from engine.statistics import (
    FEWEST_FOR_A_CLAIM,
    Difference,
    MeanAndStd,
    mean_and_std,
    paired_difference,
)
from experiments.record import RunRecord

METRICS = {
    "balanced_accuracy": "balanced",
    "accuracy": "overall",
    "many_accuracy": "many",
    "medium_accuracy": "medium",
    "few_accuracy": "few",
    "worst_class_recall": "worst class",
    "nll": "NLL",
    "ece": "ECE",
}
"""Columns, the first being the one whose difference is printed."""

Pair = tuple[int, int]
"""(seed, subset seed): what two runs must share to be compared."""


@dataclass(frozen=True)
class Scope:
    """What the independent differences of a block are, and so how far its claims reach.

    Attributes:
        unit: index into a :data:`Pair` that pairs are averaged by; None where each counts.
        text: in words.
    """

    unit: int | None
    text: str


@dataclass(frozen=True)
class Score:
    """One metric of one row.

    Attributes:
        summary: over runs; None where no run defines the metric, as in an empty group.
        difference: to the baseline row, paired by seed and subset; None for that row itself.
        is_better: the difference is distinguishable and on the good side.
    """

    summary: MeanAndStd | None
    difference: Difference | None = None
    is_better: bool = False


@dataclass(frozen=True)
class Row:
    """Runs of one method in one setting that differ in their seeds alone.

    Attributes:
        oracle: mean of the best test epochs, in the metric that the runs select by, and its gap.
        notes: what a reader has to know of this row.
    """

    method: str
    records: tuple[RunRecord, ...]
    scores: Mapping[str, Score]
    oracle: tuple[float, float] | None
    notes: tuple[str, ...]

    @property
    def pairs(self) -> list[Pair]:
        """Seeds and subset seeds of the runs."""
        return [pair_of(record) for record in self.records]


@dataclass(frozen=True)
class Block:
    """The rows of one setting.

    Attributes:
        rule: the selection rule of every number in it.
        baseline: the method that others are compared with.
        scope: what n counts.
        group_sizes: classes with many, medium and few training images.
        notes: what holds for all rows.
    """

    table: str
    setting: str
    title: str
    rule: str
    baseline: str
    scope: Scope
    rows: tuple[Row, ...]
    group_sizes: Mapping[str, int]
    notes: tuple[str, ...] = field(default=())

    @property
    def oracle_metric(self) -> str | None:
        """The metric of the oracle column; None where test was not logged each epoch."""
        known = (r.oracle.metric for row in self.rows for r in row.records if r.oracle)
        return next(known, None)


def pair_of(record: RunRecord) -> Pair:
    """What a run is paired by."""
    return record.seed, record.subset_seed


def blocks(
    records: Sequence[RunRecord],
    *,
    rule: str | None = None,
    baseline: str | None = None,
    methods: Sequence[str] = (),
    settings: Sequence[str] = (),
    pairs: Sequence[Pair] = (),
) -> list[Block]:
    """One block a setting.

    Args:
        records: of one table.
        rule: ``last`` or ``val``; None takes the runs' headline.
        baseline: the method to compare with; None takes ``cross_entropy``, else the first.
        methods: all rows that the table should have, in order; others follow as they come.
        settings: all settings that the table should have, in order.
        pairs: seeds and subset seeds that every row should have; else all that any row has.

    Raises:
        ConfigError: no such baseline, or runs whose headlines differ where no rule is named.
    """
    known = list(dict.fromkeys(record.method for record in records))
    baseline = baseline or ("cross_entropy" if "cross_entropy" in known else known[0])
    if baseline not in known and baseline not in methods:
        hint = nearest(baseline, known)
        raise ConfigError([f"baseline {baseline}: no such row{hint}; one of {', '.join(known)}"])
    order = {name: index for index, name in enumerate([*methods, *known])}
    found = []
    for setting in dict.fromkeys([*settings, *(record.setting for record in records)]):
        here = [record for record in records if record.setting == setting]
        if not here:
            continue
        here.sort(key=lambda r: (order[r.method], r.subset_seed, r.seed))
        absent = [name for name in methods if name not in {r.method for r in here}]
        block = _block(here, rule=rule, baseline=baseline, pairs=pairs)
        notes = (f"not run yet: {', '.join(absent)}",) if absent else ()
        found.append(replace(block, notes=(*notes, *block.notes)))
    return found


def _block(
    records: Sequence[RunRecord], *, rule: str | None, baseline: str, pairs: Sequence[Pair]
) -> Block:
    first = records[0]
    rule = rule or _headline(records)
    expected = list(pairs) or sorted({pair_of(record) for record in records})
    groups: dict[tuple[str, str], list[RunRecord]] = {}
    for record in records:
        groups.setdefault((record.method, record.group), []).append(record)
    sizes = Counter(method for method, _ in groups)
    candidates = [runs for (method, _), runs in groups.items() if method == baseline]
    compared = max(candidates, key=len) if candidates else []
    scope = _scope({pair for runs in groups.values() for pair in map(pair_of, runs)})
    usual = _usual(records)
    rows = []
    for (method, group), runs in groups.items():
        notes = [f"config {group}: one of {sizes[method]} that bear this name"]
        notes = (notes if sizes[method] > 1 else []) + _oddities(
            runs, rule=rule, expected=expected, usual=usual, baseline=compared
        )
        rows.append(
            Row(
                method=method,
                records=tuple(runs),
                scores={
                    metric: _score(runs, compared, metric=metric, rule=rule, scope=scope)
                    for metric in METRICS
                },
                oracle=_oracle(runs, rule=rule),
                notes=tuple(notes),
            )
        )
    return Block(
        table=first.table,
        setting=first.setting,
        title=first.title,
        rule=rule,
        baseline=baseline,
        scope=scope,
        rows=tuple(rows),
        group_sizes=first.group_sizes,
        notes=tuple(_provenance(rows, usual=usual, baseline=baseline)),
    )


def _headline(records: Sequence[RunRecord]) -> str:
    headlines = sorted({record.headline for record in records})
    if len(headlines) > 1:
        setting = records[0].setting
        said = " and ".join(headlines)
        raise ConfigError([f"{setting}: the headlines of its runs are {said}; choose by --rule"])
    return headlines[0]


def _scope(pairs: Iterable[Pair]) -> Scope:
    """Subsets are the unit where there are enough; fewer are taken as given, and said to be."""
    subsets = {subset for _, subset in pairs}
    if len(subsets) >= FEWEST_FOR_A_CLAIM:
        return Scope(1, f"n counts subsets ({len(subsets)}); runs on one subset are averaged")
    if len(subsets) == 1:
        return Scope(None, "n counts seeds; all on one subset, nothing is claimed about others")
    text = f"n counts seeds, averaged over the same {len(subsets)} subsets; nothing is claimed "
    return Scope(0, text + "about others")


# --- one row -------------------------------------------------------------------------------------


def value_of(record: RunRecord, metric: str, *, rule: str) -> float | None:
    """A test number of a run; None where the rule or the metric is not defined for it."""
    result = record.rules.get(rule)
    return None if result is None else result.test.get(metric)


def paired(
    runs: Sequence[RunRecord], baseline: Sequence[RunRecord], *, metric: str, rule: str
) -> dict[Pair, tuple[float, float]]:
    """(ours, baseline) of each seed and subset that both have run, on the same split."""
    theirs = {pair_of(record): record for record in baseline}
    found = {}
    for record in runs:
        other = theirs.get(pair_of(record))
        if other is None or other.split_fingerprint != record.split_fingerprint:
            continue
        ours, base = (value_of(run, metric, rule=rule) for run in (record, other))
        if ours is not None and base is not None:
            found[pair_of(record)] = (ours, base)
    return found


def _score(
    runs: Sequence[RunRecord],
    baseline: Sequence[RunRecord],
    *,
    metric: str,
    rule: str,
    scope: Scope,
) -> Score:
    values = [value_of(record, metric, rule=rule) for record in runs]
    defined = [value for value in values if value is not None]
    if not defined:
        return Score(None)
    summary = mean_and_std(defined)
    found = paired(runs, baseline, metric=metric, rule=rule)
    if scope.unit == 0:
        found = _on_all_subsets(found)
    if not found or runs[0] in baseline:
        return Score(summary)
    difference = paired_difference(
        [ours for ours, _ in found.values()],
        [base for _, base in found.values()],
        clusters=None if scope.unit is None else [pair[scope.unit] for pair in found],
    )
    is_up = difference.mean > 0
    wanted = SELECTABLE.get(metric, "max") == "max"
    return Score(summary, difference, difference.is_distinguishable and is_up == wanted)


def _on_all_subsets(found: dict[Pair, tuple[float, float]]) -> dict[Pair, tuple[float, float]]:
    """Drop the seeds that lack a subset: their mean would differ by the subset's share."""
    subsets = {subset for _, subset in found}
    count = Counter(seed for seed, _ in found)
    return {pair: both for pair, both in found.items() if count[pair[0]] == len(subsets)}


def _oracle(runs: Sequence[RunRecord], *, rule: str) -> tuple[float, float] | None:
    """Mean best test value and how far above the rule's own it lies, over runs that have both."""
    both = [
        (run.oracle.value, own)
        for run in runs
        if run.oracle is not None
        and (own := value_of(run, run.oracle.metric, rule=rule)) is not None
    ]
    if not both:
        return None
    best = mean_and_std([value for value, _ in both]).mean
    return best, best - mean_and_std([own for _, own in both]).mean


# --- what is odd ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Usual:
    """What most runs of a block share: code, package versions, and the split of each subset."""

    code: str
    torch: str | None
    splits: Mapping[int, str]


def _usual(records: Sequence[RunRecord]) -> _Usual:
    splits: dict[int, Counter[str]] = {}
    for record in records:
        splits.setdefault(record.subset_seed, Counter())[record.split_fingerprint] += 1
    return _Usual(
        code=Counter(record.code_hash for record in records).most_common(1)[0][0],
        torch=Counter(record.versions.get("torch") for record in records).most_common(1)[0][0],
        splits={subset: counts.most_common(1)[0][0] for subset, counts in splits.items()},
    )


def _oddities(
    runs: Sequence[RunRecord],
    *,
    rule: str,
    expected: Sequence[Pair],
    usual: _Usual,
    baseline: Sequence[RunRecord],
) -> list[str]:
    """Sentences on the runs of a row."""
    have = {pair_of(run) for run in runs}
    notes = []
    if missing := [pair for pair in expected if pair not in have]:
        notes.append(f"missing: {_named(missing)}")
    for value in dict.fromkeys(run.code_hash for run in runs if run.code_hash != usual.code):
        chosen = [pair_of(run) for run in runs if run.code_hash == value]
        notes.append(f"other code ({value}): {_named(chosen)}")
    other = [pair_of(r) for r in runs if r.split_fingerprint != usual.splits[r.subset_seed]]
    if other:
        notes.append(f"another split of the same subset seed: {_named(other)}")
    others = {pair_of(run): run.split_fingerprint for run in baseline}
    apart = [
        p for r in runs if others.get(p := pair_of(r), r.split_fingerprint) != r.split_fingerprint
    ]
    if apart:
        notes.append(f"not paired, as the baseline's split is another: {_named(apart)}")
    for value in dict.fromkeys(run.versions.get("torch") for run in runs):
        if value != usual.torch:
            chosen = [pair_of(run) for run in runs if run.versions.get("torch") == value]
            notes.append(f"torch {value} instead of {usual.torch}: {_named(chosen)}")
    if without := [pair_of(run) for run in runs if rule not in run.rules]:
        notes.append(f"no result by rule {rule}: {_named(without)}")
    broken = [pair_of(r) for r in runs if rule in r.rules and _is_broken(r, rule)]
    if broken:
        notes.append(f"undefined (the model diverged), left out: {_named(broken)}")
    return notes


def _is_broken(record: RunRecord, rule: str) -> bool:
    return value_of(record, next(iter(METRICS)), rule=rule) is None


def _named(pairs: Sequence[Pair]) -> str:
    """Seeds by subset: ``seeds 0, 1 on subset 0; seed 4 on subset 2``."""
    by_subset: dict[int, list[str]] = {}
    for seed, subset in sorted(set(pairs), key=lambda pair: (pair[1], pair[0])):
        by_subset.setdefault(subset, []).append(str(seed))
    return "; ".join(
        f"seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)} on subset {subset}"
        for subset, seeds in by_subset.items()
    )


def _provenance(rows: Sequence[Row], *, usual: _Usual, baseline: str) -> list[str]:
    """Sentences on all runs of a block."""
    records = [record for row in rows for record in row.records]
    notes = []
    if all(record.method != baseline for record in records):
        notes.append(f"no run of the baseline {baseline}: nothing is compared")
    commits = sorted({record.commit[:12] for record in records if record.commit})
    dirty = sum(record.dirty for record in records)
    text = f"code {usual.code}, torch {usual.torch}"
    if commits:
        text += f", commit{'s' if len(commits) > 1 else ''} {', '.join(commits)}"
    if dirty:
        text += f"; {dirty} of {len(records)} runs from a checkout with uncommitted changes"
    return [*notes, text]
