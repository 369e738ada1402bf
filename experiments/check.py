"""Whether runs that were made again gave the committed numbers."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.grid import Cell
from experiments.record import RunRecord

# What a run computes; the rest of a record is where and when.
COMPUTED = ("split_fingerprint", "class_counts", "headline", "rules", "oracle")


def differences(
    cells: Sequence[Cell], *, again: Sequence[RunRecord], committed: Sequence[RunRecord]
) -> list[str]:
    """One line for each cell whose numbers are not those of its committed line, to the last digit.

    Args:
        cells: the runs that are compared.
        again: their records of today.
        committed: the records they are held to.
    """
    today = {record.fingerprint: record for record in again}
    before = {record.fingerprint: record for record in committed}
    lines = []
    for cell in cells:
        ours, theirs = today.get(cell.fingerprint), before.get(cell.fingerprint)
        if ours is None:
            lines.append(f"{cell.label}: was not made again")
        elif theirs is None:
            lines.append(f"{cell.label}: is not among the committed lines")
        elif differing := [key for key in COMPUTED if getattr(ours, key) != getattr(theirs, key)]:
            lines.append(f"{cell.label}: {', '.join(differing)} differ{_by(ours, theirs)}")
    return lines


def _by(ours: RunRecord, theirs: RunRecord) -> str:
    """How far apart, and what else is not the same."""
    scores = [r.rules[r.headline].test["balanced_accuracy"] for r in (theirs, ours)]
    gap = f" (balanced accuracy {scores[0]} committed, {scores[1]} now)"
    for name, found in (("hardware", "hardware"), ("versions", "versions")):
        now, then = getattr(ours, found), getattr(theirs, found)
        if other := [f"{k} {then[k]} then, {v} now" for k, v in now.items() if then.get(k) != v]:
            gap += f"; {name}: {', '.join(other)}"
    if ours.code_hash != theirs.code_hash:
        gap += f"; code {theirs.code_hash} then, {ours.code_hash} now"
    return gap
