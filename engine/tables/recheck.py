"""Whether runs that were made again give the committed numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from engine.report.statistics import mean_and_std, paired_difference
from engine.tables.cells import Cell
from engine.tables.record import RunRecord, of_today

# What no machine changes: the images, and which numbers represent the run.
SAME_ANYWHERE = ("split_fingerprint", "class_counts", "headline")
# What a run computes; the rest of a record is where and when.
COMPUTED = (*SAME_ANYWHERE, "rules", "oracle")
# What may move the last bit of a sum, and then, step by step, as much as another seed.
ROUNDING = ("processor", "device", "precision", "threads", "processes")
CONFIDENCE = 0.95  # of all rows together
# Keys of runtime that may round differently, and are no part of a run's fingerprint.
CHOSEN = {"device", "threads", "compile", "deterministic", "cache_features"}


def place(cells: Sequence[Cell]) -> Path:
    """Return the folder of runs that are made again here: one for each way to round.

    Its name goes by processor, device, threads and versions, so that a check goes on with runs of
    an earlier one only where that rounded as it does.

    Raises:
        ConfigError: the device that a run asks for is not there.
    """
    from engine.training.provenance import describe_segment

    asked = [cell.config.runtime.model_dump(mode="json", include=CHOSEN) for cell in cells]
    devices = {_device(name) for name in {cell.config.runtime.device for cell in cells}}
    now = describe_segment(command=(), device="", precision="", threads=0, code="")
    facts = [
        sorted({json.dumps(keys, sort_keys=True) for keys in asked}),
        sorted(devices),
        [now[key] for key in ("processor", "python", "packages")],
    ]
    name = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]
    return Path(cells[0].config.track.root).expanduser() / "check" / name


def _device(name: str) -> str:
    if name == "cpu":
        return name
    from engine.training.runtime import choose_device, device_name

    return device_name(choose_device(name))


class Comparison(NamedTuple):
    """What to say of runs that were made again, and whether the committed numbers hold."""

    lines: tuple[str, ...]
    holds: bool


class _Pair(NamedTuple):
    cell: Cell
    now: RunRecord
    then: RunRecord

    @property
    def balanced(self) -> tuple[float | None, float | None]:
        """Balanced accuracy on test by the headline's rule, now and then."""
        now, then = (r.rules[r.headline].test["balanced_accuracy"] for r in (self.now, self.then))
        return now, then

    @property
    def differing(self) -> tuple[str, ...]:
        """What of that which runs compute differs, by its name in the record."""
        return tuple(k for k in COMPUTED if getattr(self.now, k) != getattr(self.then, k))

    @property
    def may_be_rounding(self) -> bool:
        """Whether the runs differ in nothing but what another machine rounds differently."""
        now, then = self.balanced
        is_alike = not set(self.differing) & set(SAME_ANYWHERE)
        return is_alike and (now is None) == (then is None) and bool(self.elsewhere)

    @property
    def elsewhere(self) -> tuple[str, ...]:
        """What of the circumstances rounds differently, in words."""
        now, then = self.now, self.then
        facts = [(key, then.hardware.get(key), now.hardware.get(key)) for key in ROUNDING]
        facts += [(name, then.versions.get(name), now.versions[name]) for name in now.versions]
        return tuple(f"{name} {old} then, {new} now" for name, old, new in facts if old != new)


def compare(
    cells: Sequence[Cell], *, again: Sequence[RunRecord], committed: Sequence[RunRecord]
) -> Comparison:
    """Compare runs with their committed lines: to the last digit where both rounded alike.

    On another processor, or with other versions, a run is another draw, as with another seed. There
    the rows are compared: over its runs, a row's balanced accuracy must not be distinguishable from
    the committed one, at 95 % for all rows together. Data, headline, and whether a run has a number
    at all, must be the same on any machine.

    Args:
        cells: the runs that are compared.
        again: their records of today.
        committed: the records they are held to.
    """
    records = of_today([*again, *committed])
    today = {record.fingerprint: record for record in records[: len(again)]}
    before = {record.fingerprint: record for record in records[len(again) :]}
    lines, pairs = [], []
    for cell in cells:
        ours, theirs = today.get(cell.fingerprint), before.get(cell.fingerprint)
        if ours is None:
            lines.append(f"{cell.label}: was not made again")
        elif theirs is None:
            lines.append(f"{cell.label}: is not among the committed lines")
        else:
            pairs.append(_Pair(cell, ours, theirs))
    equal = [pair for pair in pairs if not pair.differing]
    others = [pair for pair in pairs if pair.differing]
    lines += [_run(pair) for pair in others if not pair.may_be_rounding]
    drawn_again = [pair for pair in others if pair.may_be_rounding]
    rows = list(_rows(drawn_again))
    lines += [row for row, _ in rows]
    rows_hold = all(holds for _, holds in rows)
    lines += _closing(len(equal), len(cells), drawn_again=drawn_again, holds=rows_hold)
    return Comparison(tuple(lines), rows_hold and len(equal) + len(drawn_again) == len(cells))


def _run(pair: _Pair) -> str:
    """Say how far apart two runs are that should be equal."""
    now, then = pair.balanced
    line = f"{pair.cell.label}: {', '.join(pair.differing)} differ"
    line += f" (balanced accuracy {_number(then)} committed, {_number(now)} now)"
    if pair.now.split_fingerprint != pair.then.split_fingerprint:
        line += "; the images are others, or another version of Pillow reads other pixels"
    if pair.now.code_hash != pair.then.code_hash:
        line += f"; code {pair.then.code_hash} then, {pair.now.code_hash} now"
    return line


def _number(value: float | None) -> str:
    return "undefined" if value is None else str(value)


def _rows(pairs: Sequence[_Pair]) -> Iterator[tuple[str, bool]]:
    """Yield a line for each row, and whether its runs agree with the committed ones."""
    rows: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for pair in pairs:
        now, then = pair.balanced
        if now is not None and then is not None:  # undefined on both sides is no difference
            rows.setdefault((pair.cell.method, pair.cell.setting), []).append((now, then))
    for (method, setting), values in rows.items():
        again, committed = zip(*values, strict=True)
        found = paired_difference(again, committed, level=1 - (1 - CONFIDENCE) / len(rows))
        line = f"{method} / {setting}: {mean_and_std(again).mean:.3f} now, "
        line += f"{mean_and_std(committed).mean:.3f} committed, {found.mean:+.3f}"
        if found.low is None or found.high is None:
            yield line + f", n = {found.n}: too few or too equal to tell", True
        else:
            interval = f" [{found.low:+.3f}, {found.high:+.3f}], n = {found.n}: "
            differs = found.low > 0 or found.high < 0
            yield line + interval + ("differs" if differs else "not distinguishable"), not differs


def _closing(equal: int, total: int, *, drawn_again: Sequence[_Pair], holds: bool) -> Iterator[str]:
    if drawn_again:
        reasons = dict.fromkeys(reason for pair in drawn_again for reason in pair.elsewhere)
        yield f"{len(drawn_again)} of {total} runs were rounded elsewhere: {'; '.join(reasons)}"
        word = "none of their rows differs" if holds else "not all of their rows agree"
        yield f"{word} by more than runs do (intervals: {CONFIDENCE:.0%} for all rows together)"
    yield f"{equal} of {total} runs give the committed numbers, to the last digit"
