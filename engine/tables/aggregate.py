"""From results lines to the rows of a table: means over runs, and differences to a baseline row.

Runs are averaged only with runs of the same config, seeds aside. Whatever else sets runs of a row
apart - a missing seed, other code, another split, an undefined number - becomes a note of that row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from engine.config.metrics import metrics
from engine.config.mistakes import ConfigError, nearest
from engine.config.schema import Config
from engine.report.columns import Compared, directions, means_and_stds
from engine.report.statistics import Difference, MeanAndStd, mean_and_std, paired_difference
from engine.tables.commands import config_of, first_stage_of
from engine.tables.costs import mean_costs
from engine.tables.notes import code_notes, provenance, row_notes
from engine.tables.pairing import (
    Match,
    Pair,
    Paired,
    Scope,
    matched,
    pair_of,
    scope_of,
    scores_of,
    usual_splits,
    value_of,
    with_values,
)
from engine.tables.record import RunRecord
from engine.training.code_hash import chosen_files, code_files

METRICS = {name: metric.column for name, metric in metrics().items() if metric.column}
"""Columns, the first being the one whose difference is printed."""

HEADINGS = {name: metric.column or metric.heading for name, metric in metrics().items()}
"""Every metric that may be a column."""

PRIMARY = next(iter(METRICS))


@dataclass(frozen=True)
class Score:
    """One metric of one row.

    Attributes:
        metric: its name, as in :data:`HEADINGS`.
        summary: over runs; None where no run defines the metric, as in an empty group.
        pairs: its numbers and those of the baseline row, by seed and subset; empty for that row.
        unit: what pairs are averaged by before they count.
    """

    metric: str
    summary: MeanAndStd | None
    pairs: tuple[Paired, ...] = ()
    unit: Literal["seed", "split"] = "seed"

    @cached_property  # most are never shown, and their intervals take most of a long table's time
    def difference(self) -> Difference | None:
        """The difference to the baseline row; None for that row itself."""
        if not self.pairs:
            return None
        found = self.compared
        return paired_difference(found.ours, found.baseline, clusters=found.clusters)

    @property
    def is_better(self) -> bool:
        """Whether the difference is distinguishable and on the good side."""
        return are_better([self])[0]

    @property
    def compared(self) -> Compared:
        """Its pairs, of which there is one at least."""
        return Compared(
            [pair.ours for pair in self.pairs],
            [pair.baseline for pair in self.pairs],
            [getattr(pair, self.unit) for pair in self.pairs],
        )


def are_better(scores: Sequence[Score]) -> list[bool]:
    """Return of each score whether its difference is distinguishable and on the good side."""
    paired = [number for number, score in enumerate(scores) if score.pairs]
    found = [False] * len(scores)
    compared = directions([scores[number].compared for number in paired])
    for number, direction in zip(paired, compared, strict=True):
        good = 1 if metrics()[scores[number].metric].better == "max" else -1
        found[number] = direction == good
    return found


@dataclass(frozen=True)
class Row:
    """Runs of one method in one setting that differ in their seeds alone.

    Attributes:
        config: of one of the runs; None where its words no longer give it.
        first_stage: of the run that its stages began with; None for a run of one stage, or where
            that is not known.
        oracle: mean of the best test epochs, in the metric that the runs select by, and its gap.
        notes: what a reader has to know of this row.
        every: runs among which those are that its stages began with.
    """

    method: str
    records: tuple[RunRecord, ...]
    config: Config | None
    first_stage: Config | None
    scores: Mapping[str, Score]
    oracle: tuple[float, float] | None
    notes: tuple[str, ...]
    every: Sequence[RunRecord]

    @cached_property  # few tables show them
    def costs(self) -> Mapping[str, float | None]:
        """Mean of each measure of cost over runs, those of earlier stages included."""
        return mean_costs(self.records, self.every)

    @property
    def num_seeds(self) -> int:
        """Different values of the key seed."""
        return len({record.seed for record in self.records})

    @property
    def subsets(self) -> set[int]:
        """Values of data.imbalance.seed."""
        return {record.subset_seed for record in self.records}

    @property
    def verified(self) -> str:
        """The published data set whose lists all its runs read; empty if one of them did not."""
        found = {record.verified for record in self.records}
        return found.pop() if len(found) == 1 else ""

    @property
    def num_splits(self) -> int:
        """Different splits; some data give the same one to every subset seed."""
        return len({record.split_fingerprint for record in self.records})


@dataclass(frozen=True)
class Block:
    """The rows of one setting.

    Attributes:
        title: the data set as its runs call it.
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
    notes: tuple[str, ...]

    @property
    def oracle_metric(self) -> str | None:
        """The metric of the oracle column; None where test was not logged each epoch."""
        known = (run.oracle.metric for row in self.rows for run in row.records if run.oracle)
        return next(known, None)


@dataclass(frozen=True)
class Wanted:
    """What a table should hold, as far as somebody said.

    Attributes:
        rule: a selection rule; None takes the runs' headline.
        baseline: the row to compare with; None takes ``cross_entropy``, else the first.
        methods: all rows, in order; others follow as they come.
        settings: all settings, in order.
        pairs: seeds and subset seeds of every row; empty takes all that any row has.
        notes: to be said below every block.
        metrics: to be averaged and compared.
    """

    rule: str | None = None
    baseline: str | None = None
    methods: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    pairs: tuple[Pair, ...] = ()
    notes: tuple[str, ...] = ()
    metrics: tuple[str, ...] = tuple(METRICS)


def blocks(records: Sequence[RunRecord], wanted: Wanted | None = None) -> list[Block]:
    """Return one block a setting, from the records of one table.

    Raises:
        ConfigError: no such baseline, or runs whose headlines differ where no rule is named.
    """
    wanted = wanted or Wanted()
    known = list(dict.fromkeys([*wanted.methods, *(record.method for record in records)]))
    baseline = wanted.baseline or ("cross_entropy" if "cross_entropy" in known else known[0])
    if baseline not in known:
        hint = nearest(baseline, known)
        raise ConfigError([f"baseline {baseline}: no such row{hint}; one of {', '.join(known)}"])
    rank = {method: number for number, method in enumerate(known)}
    by_setting: dict[str, list[RunRecord]] = {setting: [] for setting in wanted.settings}
    for record in records:
        by_setting.setdefault(record.setting, []).append(record)
    found, code = [], _CodeKinds()
    for here in filter(None, by_setting.values()):
        here.sort(key=lambda r: (rank[r.method], r.subset_seed, r.seed))
        found.append(_block(here, wanted=wanted, baseline=baseline, code=code))
    return found


@dataclass(frozen=True)
class _Comparison:
    """What every row of a block is held against, and how."""

    baseline: tuple[RunRecord, ...]
    rule: str
    scope: Scope
    expected: tuple[Pair, ...]
    splits: Mapping[int, str]


def _block(
    records: Sequence[RunRecord], *, wanted: Wanted, baseline: str, code: _CodeKinds
) -> Block:
    first, rule = records[0], wanted.rule or _headline(records)
    groups: dict[tuple[str, str], list[RunRecord]] = {}
    for record in records:
        groups.setdefault((record.method, record.group), []).append(record)
    candidates = [runs for (method, _), runs in groups.items() if method == baseline]
    compared: list[RunRecord] = max(candidates, key=len, default=[])
    against = _Comparison(
        baseline=tuple(compared),
        rule=rule,
        scope=scope_of(records),
        expected=wanted.pairs or tuple(sorted({pair_of(record) for record in records})),
        splits=usual_splits(records),
    )
    named = Counter(method for method, _ in groups)
    rows = [
        _row(
            runs,
            against,
            metrics=wanted.metrics,
            is_shared_name=named[method] > 1,
            records=records,
        )
        for (method, _), runs in groups.items()
    ]
    absent = [method for method in wanted.methods if method not in named]
    notes = [f"not run yet: {', '.join(absent)}"] if absent else []
    return Block(
        table=first.table,
        setting=first.setting,
        title=first.title,
        rule=rule,
        baseline=baseline,
        scope=against.scope,
        rows=_with_code_notes(rows, code),
        group_sizes=first.group_sizes,
        notes=(*notes, *provenance(records, baseline=baseline), *wanted.notes),
    )


def _headline(records: Sequence[RunRecord]) -> str:
    headlines = sorted({record.headline for record in records})
    if len(headlines) > 1:
        said = " and ".join(headlines)
        raise ConfigError(
            [f"{records[0].setting}: the headlines of its runs are {said}; choose one by --rule"]
        )
    return headlines[0]


def _row(
    runs: Sequence[RunRecord],
    against: _Comparison,
    *,
    metrics: Sequence[str],
    is_shared_name: bool,
    records: Sequence[RunRecord],
) -> Row:
    notes = row_notes(
        runs,
        rule=against.rule,
        expected=against.expected,
        splits=against.splits,
        baseline=against.baseline,
    )
    if is_shared_name:
        notes.insert(0, f"config {runs[0].group}, one of several that bear this name")
    is_baseline = any(run is runs[0] for run in against.baseline)
    matches = [] if is_baseline else matched(runs, against.baseline)
    return Row(
        method=runs[0].method,
        records=tuple(runs),
        config=config_of(runs[0]),
        first_stage=first_stage_of(runs[0], records),
        scores=_scores(runs, matches, against, metrics=metrics),
        oracle=_oracle(runs, rule=against.rule),
        notes=tuple(notes),
        every=records,
    )


def _scores(
    runs: Sequence[RunRecord],
    matches: Sequence[Match],
    against: _Comparison,
    *,
    metrics: Sequence[str],
) -> dict[str, Score]:
    rule, scope = against.rule, against.scope
    tests = [scores_of(run, rule=rule) for run in runs]
    defined = {
        metric: [value for test in tests if (value := test.get(metric)) is not None]
        for metric in metrics
    }
    some = [metric for metric in metrics if defined[metric]]
    summaries = means_and_stds([defined[metric] for metric in some])
    pairs = with_values(matches, some, rule=rule, scope=scope)
    found = {
        metric: Score(metric, summary, tuple(pairs[metric]), scope.unit)
        for metric, summary in zip(some, summaries, strict=True)
    }
    return {metric: found.get(metric, Score(metric, None)) for metric in metrics}


def _oracle(runs: Sequence[RunRecord], *, rule: str) -> tuple[float, float] | None:
    """Return the mean best test value and its lead over the rule's, over runs that have both."""
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


def _with_code_notes(rows: Sequence[Row], code: _CodeKinds) -> tuple[Row, ...]:
    kinds = [row.method if row.config is None else code.of(row.config) for row in rows]
    stale = "its command no longer gives these runs: files or defaults have changed since"
    found = []
    for row, notes in zip(rows, code_notes([row.records for row in rows], kinds), strict=True):
        extra = notes if row.config is not None else [*notes, stale]
        found.append(replace(row, notes=(*row.notes, *extra)))
    return tuple(found)


class _CodeKinds:
    """Names what makes the numbers of a run: all that use the same files bear one name."""

    def __init__(self) -> None:
        self._known: dict[frozenset[tuple[str, str]], str] = {}

    def of(self, config: Config) -> str:
        """Return the files of a run, in one text."""
        chosen = chosen_files(config)
        key = frozenset((package, name) for package, names in chosen.items() for name in names)
        if key not in self._known:  # to look through the folders takes longer than all else here
            self._known[key] = " ".join(map(str, code_files(config)))
        return self._known[key]
