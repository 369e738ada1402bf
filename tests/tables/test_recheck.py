"""Runs made again: equal to the last digit where they round alike, else row against row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from engine.config import command_line
from engine.config.load import load
from engine.tables.cells import Cell
from engine.tables.recheck import compare
from engine.tables.record import RunRecord
from tests.tables._lines import line

THEN = [0.80, 0.83, 0.78, 0.81, 0.84]
NEAR = [0.81, 0.82, 0.80, 0.80, 0.83]
FAR = [0.70, 0.72, 0.69, 0.70, 0.72]


def cell(record: RunRecord) -> Cell:
    given = command_line.parse(record.words)
    return Cell(
        method=record.method,
        setting=record.setting,
        seed=record.seed,
        subset_seed=record.subset_seed,
        words=record.words,
        config=load(given.files, given.overrides),
        fingerprint=record.fingerprint,
    )


def runs(
    values: Sequence[float | None], *, processor: str = "here", **changes: Any
) -> list[RunRecord]:
    made = [line(seed=seed, value=value, **changes) for seed, value in enumerate(values)]
    hardware = {**made[0].hardware, "processor": processor}
    return [record.model_copy(update={"hardware": hardware}) for record in made]


def test_equal_runs_hold() -> None:
    then = runs(THEN)
    found = compare([cell(r) for r in then], again=runs(THEN, commit=None), committed=then)
    assert found.holds
    assert found.lines == ("5 of 5 runs give the committed numbers, to the last digit",)


def test_on_the_same_processor_one_digit_is_enough_to_fail() -> None:
    then = runs(THEN)
    again = runs([THEN[0] + 1e-15, *THEN[1:]])
    found = compare([cell(r) for r in then], again=again, committed=then)
    assert not found.holds
    assert found.lines[0].startswith(f"{cell(then[0]).label}: rules differ (balanced accuracy 0.8 ")
    assert found.lines[-1] == "4 of 5 runs give the committed numbers, to the last digit"


def test_code_that_changes_a_number_fails_and_is_named() -> None:
    then = runs(THEN)
    found = compare([cell(r) for r in then], again=runs(NEAR, code_hash="other"), committed=then)
    assert not found.holds
    assert found.lines[0].endswith(f"code {then[0].code_hash} then, other now")


@pytest.mark.parametrize(
    ("now", "holds", "says"),
    [(NEAR, True, "0.812 now, 0.812 committed"), (FAR, False, "0.706 now, 0.812 committed")],
)
def test_on_another_processor_rows_are_compared(
    now: list[float], says: str, *, holds: bool
) -> None:
    then = runs(THEN, processor="there")
    found = compare([cell(r) for r in then], again=runs(now), committed=then)
    assert found.holds == holds
    row, where, verdict, count = found.lines
    assert row.startswith(f"cross_entropy / factor 8: {says}, ")
    assert row.endswith("n = 5: not distinguishable" if holds else "n = 5: differs")
    assert where == "5 of 5 runs were rounded elsewhere: processor there then, here now"
    assert verdict.startswith("none of their rows" if holds else "not all of their rows")
    assert count.startswith("0 of 5 runs")


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"split_fingerprint": "f" * 12}, "split_fingerprint"),
        ({"class_counts": (107, 27, 20, 9)}, "class_counts"),
    ],
)
def test_no_processor_excuses_other_data(changes: dict[str, Any], names: str) -> None:
    then = runs(THEN, processor="there")
    found = compare([cell(r) for r in then], again=runs(THEN, **changes), committed=then)
    assert not found.holds
    assert len(found.lines) == 5 + 1
    assert found.lines[0].startswith(f"{cell(then[0]).label}: {names} differ ")
    assert ("the images are others" in found.lines[0]) == (names == "split_fingerprint")


def test_lines_of_an_earlier_versions_fingerprint_are_of_the_same_images() -> None:
    then, again = runs(THEN), runs(THEN, split_fingerprint="new", former_fingerprints=["split0"])
    assert compare([cell(r) for r in then], again=again, committed=then).holds


@pytest.mark.parametrize("is_now", [True, False])
def test_a_number_that_one_side_lacks_is_no_rounding(*, is_now: bool) -> None:
    then, again = runs(THEN, processor="there"), runs(NEAR)
    lost = (again if is_now else then)[0]
    (again if is_now else then)[0] = lost.model_copy(
        update={"rules": line(value=None).rules},
    )
    found = compare([cell(r) for r in then], again=again, committed=then)
    assert not found.holds
    said = "0.8 committed, undefined now" if is_now else "undefined committed, 0.81 now"
    assert f"rules differ (balanced accuracy {said})" in found.lines[0]
    assert "n = 4: not distinguishable" in found.lines[1]
    assert found.lines[3].startswith("none of their rows differs")


def test_runs_that_diverge_on_both_machines_agree() -> None:
    then = runs([None] * 5, processor="there")
    again = runs([None] * 5)
    assert compare([cell(r) for r in then], again=again, committed=then).holds


@pytest.mark.slow
def test_more_rows_need_more_to_differ() -> None:
    """One row that would differ by itself is no wonder among many."""
    slight = [value - 0.02 - 0.004 * seed for seed, value in enumerate(THEN)]
    alone = runs(THEN, processor="there")
    again = runs(slight)
    assert not compare([cell(r) for r in alone], again=again, committed=alone).holds
    names = [f"method {number}" for number in range(200)]
    committed = [
        record.model_copy(update={"method": name, "fingerprint": f"{name} {record.seed}"})
        for name in names
        for record in alone
    ]
    made = [
        record.model_copy(update={"fingerprint": f"{name} {record.seed}"})
        for name in names
        for record in (again if name == names[0] else runs(NEAR))
    ]
    cells = [
        Cell(
            method=record.method,
            setting=record.setting,
            seed=record.seed,
            subset_seed=record.subset_seed,
            words=record.words,
            config=cell(alone[record.seed]).config,
            fingerprint=record.fingerprint,
        )
        for record in committed
    ]
    assert compare(cells, again=made, committed=committed).holds


def test_two_runs_elsewhere_are_too_few_to_tell() -> None:
    then = runs(THEN[:2], processor="there")
    found = compare([cell(r) for r in then], again=runs(FAR[:2]), committed=then)
    assert found.holds
    assert "n = 2: too few or too equal to tell" in found.lines[0]


def test_a_run_that_one_side_lacks_fails() -> None:
    then = runs(THEN)
    cells = [cell(r) for r in then]
    missing = compare(cells, again=then[1:], committed=then)
    assert not missing.holds and missing.lines[0].endswith("was not made again")
    unknown = compare(cells, again=then, committed=then[1:])
    assert not unknown.holds and unknown.lines[0].endswith("is not among the committed lines")
