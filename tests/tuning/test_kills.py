"""Workers that are killed: every parameter set ends once, and as many as were asked for."""

from __future__ import annotations

from pathlib import Path

from tests.tuning._storm import check_every_call, check_storm


def test_killed_workers_lose_no_trial_and_none_is_counted_twice(tmp_path: Path) -> None:
    check_storm(tmp_path, url=None, kills=4, workers=2, seed=0, trials=16)


def test_a_worker_killed_at_any_call_to_the_storage_loses_no_trial(tmp_path: Path) -> None:
    assert check_every_call(tmp_path, url=None, trials=2) > 20
