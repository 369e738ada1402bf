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
from engine.report.statistics import (
    Difference,
    MeanAndStd,
    may_differ,
    mean_and_std,
    paired_difference,
)
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
    usual_splits,
    value_of,
    with_values,
)
from engine.tables.record import RunRecord
from engine.training.code_hash import code_files

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
        return paired_difference(*self._columns, clusters=self._clusters) if self.pairs else None

    @cached_property
    def is_better(self) -> bool:
        """Whether the difference is distinguishable and on the good side."""
        if not self.pairs or not may_differ(*self._columns, clusters=self._clusters):
            return False
        assert self.difference is not None
        is_good = (self.difference.mean > 0) == (metrics()[self.metric].better == "max")
        return is_good and self.difference.is_distinguishable

    @property
    def _columns(self) -> tuple[list[float], list[float]]:
        return [pair.ours for pair in self.pairs], [pair.baseline for pair in self.pairs]

    @property
    def _clusters(self) -> list[int | str]:
        return [getattr(pair, self.unit) for pair in self.pairs]


@dataclass(frozen=True)
class Row:
    """Runs of one method in one setting that differ in their seeds alone.

    Attributes:
        config: of one of the runs; None where its words no longer give it.
        first_stage: of the run that its stages began with; None for a run of one stage, or where
            that is not known.
        oracle: mean of the best test epochs, in the metric that the runs select by, and its gap.
        notes: what a reader has to know of this row.
        costs: mean of each measure of cost over runs, those of earlier stages included.
    """

    method: str
    records: tuple[RunRecord, ...]
    config: Config | None
    first_stage: Config | None
    scores: Mapping[str, Score]
    oracle: tuple[float, float] | None
    notes: tuple[str, ...]
    costs: Mapping[str, float | None]

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
    found = []
    for setting in dict.fromkeys([*wanted.settings, *(record.setting for record in records)]):
        here = [record for record in records if record.setting == setting]
        if here:
            here.sort(key=lambda r: (known.index(r.method), r.subset_seed, r.seed))
            found.append(_block(here, wanted=wanted, baseline=baseline))
    return found


@dataclass(frozen=True)
class _Comparison:
    """What every row of a block is held against, and how."""

    baseline: tuple[RunRecord, ...]
    rule: str
    scope: Scope
    expected: tuple[Pair, ...]
    splits: Mapping[int, str]


def _block(records: Sequence[RunRecord], *, wanted: Wanted, baseline: str) -> Block:
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
        rows=_with_code_notes(rows),
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
        scores={metric: _score(runs, matches, against, metric=metric) for metric in metrics},
        oracle=_oracle(runs, rule=against.rule),
        notes=tuple(notes),
        costs=mean_costs(runs, records),
    )


def _score(
    runs: Sequence[RunRecord], matches: Sequence[Match], against: _Comparison, *, metric: str
) -> Score:
    values = [value_of(record, metric, rule=against.rule) for record in runs]
    defined = [value for value in values if value is not None]
    if not defined:
        return Score(metric, None)
    found = with_values(matches, metric=metric, rule=against.rule, scope=against.scope)
    return Score(metric, mean_and_std(defined), tuple(found), against.scope.unit)


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


def _with_code_notes(rows: Sequence[Row]) -> tuple[Row, ...]:
    kinds = [row.method if row.config is None else _files_of(row.config) for row in rows]
    stale = "its command no longer gives these runs: files or defaults have changed since"
    found = []
    for row, notes in zip(rows, code_notes([row.records for row in rows], kinds), strict=True):
        extra = notes if row.config is not None else [*notes, stale]
        found.append(replace(row, notes=(*row.notes, *extra)))
    return tuple(found)


def _files_of(config: Config) -> str:
    """Return the files that make the numbers of a run, in one text."""
    return " ".join(map(str, code_files(config)))
