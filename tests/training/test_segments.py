"""A stretch of a run counts as long as some of its steps are part of the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.training.files import read_json, write_json
from engine.training.provenance import Position, add_segment, changes, lasting
from engine.training.run_folder import RunFolder

IDENTITY = {"fingerprint": "0123456789ab", "group": "ba9876543210", "split_fingerprint": "split"}


class Recorded:
    """The stretches of one run, each told and recorded where it begins."""

    def __init__(self, path: Path) -> None:
        self.folder = RunFolder(path)
        self.told: list[str] = []

    def begin(self, epoch: int, step: int = 0, *, threads: int) -> None:
        add_segment(
            self.folder,
            {"threads": threads},
            position=Position(epoch, step),
            facts={},
            identity=IDENTITY,
            say=self.told.append,
        )

    @property
    def environment(self) -> dict[str, Any]:
        content = read_json(self.folder.environment)
        assert content is not None
        return content

    def threads(self, key: str = "segments") -> list[int]:
        return [segment["threads"] for segment in self.environment[key]]


@pytest.fixture
def run(tmp_path: Path) -> Recorded:
    return Recorded(tmp_path)


def test_a_stretch_killed_before_the_first_checkpoint_is_no_part_of_the_run(run: Recorded) -> None:
    run.begin(0, threads=1)
    run.begin(0, threads=2)
    assert run.told == []
    assert changes(run.environment) == ()
    assert run.threads() == [2]


def test_a_stretch_killed_before_its_first_checkpoint_is_no_part_of_the_run(run: Recorded) -> None:
    run.begin(0, threads=1)
    run.begin(5, 3, threads=2)
    run.told.clear()
    run.begin(5, 3, threads=1)
    assert run.told == []
    assert changes(run.environment) == ()
    assert run.threads() == [1, 1]


def test_a_change_is_told_against_the_steps_before_not_a_stretch_that_left_none(
    run: Recorded,
) -> None:
    run.begin(0, threads=1)
    run.begin(5, threads=2)
    run.told.clear()
    run.begin(5, threads=2)
    assert run.told == ["note: threads was 1 and is 2 from here on"]
    assert changes(run.environment) == ("threads changed during the run: 1 -> 2",)


@pytest.mark.parametrize("step", [0, 1])
def test_a_stretch_that_left_steps_is_still_told(run: Recorded, step: int) -> None:
    """They may be those of a part of an epoch."""
    run.begin(0, threads=1)
    run.begin(1 - step, step, threads=2)
    assert run.told == ["note: threads was 1 and is 2 from here on"]
    assert changes(run.environment) == ("threads changed during the run: 1 -> 2",)
    assert "lost_segments" not in run.environment


def test_all_stretches_after_an_older_checkpoint_are_lost_with_the_newer_one(run: Recorded) -> None:
    for epoch, threads in ((0, 1), (2, 2), (4, 3), (2, 4)):
        run.begin(epoch, threads=threads)
    assert run.threads() == [1, 4]
    assert run.threads("lost_segments") == [2, 3]


def test_lost_stretches_stay_in_the_record_in_their_order(run: Recorded) -> None:
    for threads in (1, 2, 3):
        run.begin(0, threads=threads)
    run.begin(1, threads=4)
    assert run.threads() == [3, 4]
    assert run.threads("lost_segments") == [1, 2]


def test_a_record_that_still_counts_lost_stretches_is_put_right(run: Recorded) -> None:
    """As environment.json was written before they were told apart."""
    run.begin(0, threads=1)
    old = run.environment
    (first,) = old["segments"]
    old["segments"] = [first, {**first, "threads": 2}, {**first, "from_epoch": 4, "threads": 3}]
    write_json(run.folder.environment, old)
    run.begin(4, threads=2)
    assert run.told == []
    assert run.threads() == [2, 2]
    assert run.threads("lost_segments") == [1, 3]


def test_what_was_killed_after_training_was_over_is_lost_once_test_is_looked_at_again() -> None:
    """The stretch that trained counts; of the two that only evaluated, the one that goes on."""
    trained = {"from_epoch": 0, "from_step": 0}
    evaluated = {"from_epoch": 3, "from_step": 0}
    assert lasting([trained, evaluated], Position(3, 0)) == [trained]
    assert lasting([trained], Position()) == []
