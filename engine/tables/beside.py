"""Published numbers beside the rows of a table, and the published lines that stand beside none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from engine.config.mistakes import ConfigError
from engine.config.schema import Config
from engine.tables import published
from engine.tables.aggregate import Block, Row
from engine.tables.published import SPLITS, Published
from engine.tables.table_file import Reference


@dataclass(frozen=True)
class Beside:
    """A published table beside a block: its number for each row, where it has one."""

    name: str
    metric: str
    numbers: tuple[Published | None, ...]


def beside_of(
    block: Block, references: Sequence[Reference], *, metrics: Sequence[str]
) -> list[Beside]:
    """Return what published tables print for the rows of a block, in the metrics they print.

    Raises:
        ConfigError: ``published.csv`` does not know a paper, a table, or its method.
    """
    found = []
    for reference in references:
        for metric in (metric for metric in SPLITS if metric in metrics):
            numbers = tuple(
                published_beside(row, reference, rule=block.rule, metric=metric)
                for row in block.rows
            )
            if any(numbers):
                found.append(Beside(f"{reference.paper} {reference.table}", metric, numbers))
    return found


def published_beside(
    row: Row, reference: Reference, *, rule: str, metric: str = "accuracy"
) -> Published | None:
    """Return what the paper's table prints for a row, or None.

    Raises:
        ConfigError: ``published.csv`` does not know the paper, the table, or its method.
    """
    method = reference.methods.get(row.method)
    if method is None or row.config is None:
        return None
    if published.lines_of(reference.paper, reference.table, method).empty:
        raise ConfigError(
            [f"experiments/published.csv: no {method!r} in {reference.paper}, {reference.table}"]
        )
    return published.find(
        row.config,
        paper=reference.paper,
        table=reference.table,
        method=method,
        rule=rule,
        subsets=row.subsets,
        split=SPLITS[metric],
        verified=row.verified,
        first_stage=row.first_stage,
    )


def reasons_of(number: Published | None) -> list[str]:
    """Return why the difference to a number is not one of methods alone, in one sentence."""
    if number is None or not number.reasons:
        return []
    return [f"{number.place} ({number.source}): {number.reasons}"]


def unmatched(blocks: Sequence[Block], references: Sequence[Reference]) -> list[str]:
    """Return a sentence for each published table that has lines beside no row, with the reasons."""
    configs: dict[str, list[_Stages]] = {}
    for row in (row for block in blocks for row in block.rows):
        known = [_Stages(row.config, row.first_stage)] if row.config else []
        configs.setdefault(row.method, []).extend(known)
    return [text for reference in references for text in _unmatched(reference, configs)]


class _Stages(NamedTuple):
    """The config of a row, and that of its first stage where it is a later one."""

    config: Config
    first: Config | None


def _unmatched(reference: Reference, configs: Mapping[str, Sequence[_Stages]]) -> list[str]:
    lines = published.lines_of(reference.paper, reference.table)
    why = dict.fromkeys(lines.index, "of a method that is not a row here")
    shown: set[int] = set()
    for ours, theirs in reference.methods.items():
        of_method = lines[lines.method == theirs]
        runs = configs.get(ours, [])
        for split in set(of_method.split):
            found = [
                published.chosen(of_method, run.config, split=split, first_stage=run.first)
                for run in runs
            ]
            shown |= {int(row.name) for row in found if row is not None}
        for number, row in of_method.iterrows():
            misfits = [published.misfit(row, run.config) for run in runs]
            if not misfits:
                why[number] = f"of {ours}, which has not run"
            elif "" in misfits:
                why[number] = "behind another line of their method"
            else:
                why[number] = max(misfits, key=len)  # that of the run which comes nearest
    count = Counter(reason for number, reason in why.items() if number not in shown)
    if not count:
        return []
    said = "; ".join(f"{number} {reason}" for reason, number in count.most_common())
    total = f"{sum(count.values())} of {len(lines)} lines"
    return [f"{reference.paper}, {reference.table}: {total} stand beside no row: {said}"]
