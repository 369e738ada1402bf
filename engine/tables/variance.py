"""How much of a table's variance is due to the setting, the row, the subset and the seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from engine.config.metrics import metrics
from engine.config.mistakes import ConfigError
from engine.report.statistics import DASH, FEWEST_FOR_A_CLAIM
from engine.tables.aggregate import Block
from engine.tables.analysis_of_variance import Source, chance_in_blocks, decompose, pooled
from engine.tables.layout import Entry, Sheet
from engine.tables.pairing import value_of
from engine.tables.record import RunRecord

SUBSET, SEED = "subset", "seed"
USUAL_AXES = {"settings": "setting", "methods": "row"}
BY_CHANCE = (
    "by chance: the share of a source without any effect, which goes by its degrees of freedom (df)"
)


class Factor(NamedTuple):
    """What runs differ in: a field of their lines, and its values."""

    field: str
    levels: tuple[Any, ...]


@dataclass(frozen=True)
class Share:
    """A source of variance as it is printed.

    Attributes:
        name: in words.
        source: its sum of squares and degrees of freedom.
        p: of its F test; None where nothing is tested, or n is too small for a claim.
    """

    name: str
    source: Source
    p: float | None


def variance_sheet(
    blocks: Sequence[Block], *, metric: str, axes: Mapping[str, str] | None = None
) -> Sheet:
    """Return a sheet of the sources of variance of a metric over all runs of a table.

    Args:
        blocks: one a setting.
        metric: of the test set.
        axes: what ``settings`` and ``methods`` are called.

    Raises:
        ConfigError: a run is missing, one is there twice, or there is nothing to take apart.
    """
    names = {**USUAL_AXES, **(axes or {})}
    runs = [run for block in blocks for row in block.rows for run in row.records]
    rule = blocks[0].rule
    levels = _levels(runs, names)
    values = _array(runs, levels, metric=metric, rule=rule)
    block = _block(runs, levels)
    if block == SEED:
        levels[SEED] = Factor("seed", tuple(sorted({run.seed for run in runs})))
        values = values[..., None]
    shares = _shares(values, list(levels), block=block)
    total = sum(share.source.squares for share in shares)
    degrees = values.size - 1
    rows = [
        (
            Entry(share.name),
            Entry(str(share.source.degrees)),
            Entry(f"{share.source.squares / total:.1%}" if total else DASH),
            Entry(f"{share.source.degrees / degrees:.1%}"),
            Entry(DASH if share.p is None else _p(share.p)),
        )
        for share in shares
    ]
    heading = metrics()[metric].heading
    spread = f"{values.mean():.3f} ± {values.std(ddof=1):.3f}"
    return Sheet(
        caption=f"{heading}, {blocks[0].title}: test, rule {rule}, {values.size} runs: {spread}",
        headings=("source", "df", "share of the squares", "by chance", "p"),
        rows=tuple(rows),
        notes=tuple(("", note) for note in _notes(values, list(levels), block=block)),
    )


def _levels(runs: Sequence[RunRecord], names: Mapping[str, str]) -> dict[str, Factor]:
    """Return the factors that have several levels, subsets last."""
    found = {
        names["settings"]: Factor("setting", tuple(dict.fromkeys(run.setting for run in runs))),
        names["methods"]: Factor("method", tuple(dict.fromkeys(run.method for run in runs))),
        SUBSET: Factor("subset_seed", tuple(sorted({run.subset_seed for run in runs}))),
    }
    several = {name: factor for name, factor in found.items() if len(factor.levels) > 1}
    if not several.keys() - {SUBSET}:
        raise ConfigError(["--variance: one row in one setting; there is nothing to take apart"])
    return several


def _array(
    runs: Sequence[RunRecord], factors: Mapping[str, Factor], *, metric: str, rule: str
) -> np.ndarray:
    """Return the numbers, an axis for each factor and one for the seeds.

    Raises:
        ConfigError: the cells do not all have the same number of runs.
    """
    cells: dict[tuple[int, ...], list[float]] = {}
    for run in sorted(runs, key=lambda run: run.seed):
        place = tuple(f.levels.index(getattr(run, f.field)) for f in factors.values())
        value = value_of(run, metric, rule=rule)
        if value is None:
            where = f"{run.method} in {run.setting}, seed {run.seed}, subset {run.subset_seed}"
            raise ConfigError([f"--variance: {where} has no {metric} by rule {rule}"])
        cells.setdefault(place, []).append(value)
    shape = tuple(len(factor.levels) for factor in factors.values())
    wanted = Counter(len(found) for found in cells.values()).most_common(1)[0][0]
    for place in np.ndindex(*shape):
        if (there := len(cells.get(place, []))) != wanted:
            pairs = zip(place, factors.items(), strict=True)
            words = ", ".join(f"{name} {factor.levels[i]}" for i, (name, factor) in pairs)
            raise ConfigError(
                [
                    f"--variance: {words}: {there} runs, other cells have {wanted}; every cell "
                    "needs the same number"
                ]
            )
    return np.array([cells[place] for place in np.ndindex(*shape)]).reshape(*shape, wanted)


def _block(runs: Sequence[RunRecord], factors: Mapping[str, Factor]) -> str | None:
    """Return what is drawn anew and has runs in every cell: subsets, or seeds of one subset.

    None where the cells of one subset do not share their seeds, or have one each.
    """
    if SUBSET in factors:
        return SUBSET
    seeds: dict[tuple[Any, ...], set[int]] = {}
    for run in runs:
        seeds.setdefault(tuple(getattr(run, f.field) for f in factors.values()), set()).add(
            run.seed
        )
    first, *others = seeds.values()
    return SEED if len(first) > 1 and all(found == first for found in others) else None


def _shares(values: np.ndarray, factors: Sequence[str], *, block: str | None) -> list[Share]:
    """Return the sources with the F test of each fixed one.

    Blocks are drawn: an effect is tested against how much it differs between them, where there
    are enough for a claim.
    """
    found = decompose(values, factors)
    within = [source for source in found if not source.factors]
    alone = [s for s in found if s.factors == (block,)]
    together = [s for s in found if block in s.factors and len(s.factors) > 1]
    has_p = block is not None and values.shape[factors.index(block)] >= FEWEST_FOR_A_CLAIM
    shares = []
    for source in found:
        if source.factors and block not in source.factors:
            p = None
            if block is not None and has_p:
                p = chance_in_blocks(values, source.factors, factors=factors, block=block)
            shares.append(Share(" × ".join(source.factors), source, p))
    # Seeds that go with subsets one by one are part of them.
    name = f"{SUBSET} and {SEED}" if block == SUBSET and not within else str(block)
    shares += [Share(name, source, None) for source in alone]
    if together:
        shares.append(Share(f"{name} × the others", pooled(together, (name, "others")), None))
    shares += [Share(SEED, source, None) for source in within]
    return shares


def _notes(values: np.ndarray, factors: Sequence[str], *, block: str | None) -> list[str]:
    """Return what to know of the shares, of p and of its absence."""
    notes = [BY_CHANCE]
    if block is None:
        notes.append("no p: that takes subsets, or seeds that all cells share, several of them")
    elif (blocks := values.shape[factors.index(block)]) < FEWEST_FOR_A_CLAIM:
        notes.append(f"no p: {blocks} {block}s; a claim takes {FEWEST_FOR_A_CLAIM} or more")
    else:
        notes.append(
            f"p: of an F test against the effect's own differences between the {blocks} {block}s, "
            "which takes them to be normal; unequal variances are allowed for (Greenhouse and "
            "Geisser 1959)"
        )
    if block == SUBSET and values.shape[-1] == 1:
        notes.append("each subset has a seed of its own: the two cannot be told apart")
    if block == SEED:
        notes.append("all ran on one subset, and others may differ")
    return notes


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
