"""A study in PostgreSQL, as many machines share it: kills, a server that goes away, passwords."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import sweep
from engine.config.mistakes import ConfigError
from engine.tuning.study.folder import StudyFolder
from tests.tuning._postgres import PASSWORD, QUOTED, Postgres, postgres
from tests.tuning._storm import (
    SEARCH,
    check_count,
    check_every_call,
    check_storm,
    opened,
    search_of,
    start,
)
from tests.tuning._sweeps import arguments

pytestmark = pytest.mark.system


@pytest.fixture
def server() -> Iterator[Postgres]:
    with postgres() as running:
        yield running


def test_killed_workers_lose_no_trial_and_none_is_counted_twice(
    tmp_path: Path, server: Postgres
) -> None:
    check_storm(tmp_path, url=server.url, kills=8, workers=3, seed=1)


def test_a_worker_killed_at_any_call_to_the_storage_loses_no_trial(
    tmp_path: Path, server: Postgres
) -> None:
    assert check_every_call(tmp_path, url=server.url, trials=3) > 20


def test_a_server_that_restarts_again_and_again_stops_no_trial(
    tmp_path: Path, server: Postgres
) -> None:
    path = tmp_path / "search.yaml"
    path.write_text(SEARCH)
    folder = tmp_path / "study"
    folder.mkdir()
    workers = [start(folder, path, server.url) for _ in range(3)]
    log = folder / "log.jsonl"
    try:
        # The second time it is away for longer than the grace of a trial.
        for so_far, seconds in ((4, 0), (12, 30), (24, 0)):
            while not log.exists() or log.read_bytes().count(b"\n") < so_far:
                assert any(worker.poll() is None for worker in workers)
            server.stop()
            threading.Event().wait(seconds)
            server.start()
        for worker in workers:
            assert worker.wait(120) == 0, (tmp_path / "output.txt").read_text()
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    study, storage = opened(folder, search_of(path), server.url)
    check_count(study, log, trials=24)
    storage.engine.dispose()
    said = (tmp_path / "output.txt").read_text()
    assert "trying again" in said
    assert PASSWORD not in said
    assert QUOTED not in said


def test_the_password_is_in_no_file_of_a_sweep_and_not_in_what_it_says(
    tmp_path: Path, server: Postgres, capfd: pytest.CaptureFixture[str]
) -> None:
    text = """
budget: {trials: 2, epochs: 1}
space: {optim.lr: {float: [0.01, 0.1]}}
confirm: {top: 0}
"""
    words = arguments(tmp_path, text, f"storage={server.url}", "track.wandb=offline")
    assert sweep.main([*words, "--workers", "2"]) == 0
    said = capfd.readouterr()
    texts = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert any(b"trial   0 (1/2)" in text for text in texts)
    texts += [said.out.encode(), said.err.encode()]
    assert not any(secret.encode() in text for secret in (PASSWORD, QUOTED) for text in texts)


def test_a_wrong_password_is_one_line_without_it(tmp_path: Path, server: Postgres) -> None:
    url = server.url.replace(QUOTED, "wr0ng-secret")
    with pytest.raises(ConfigError) as refused:
        StudyFolder(tmp_path).open_storage(url, say=print)
    (line,) = refused.value.mistakes
    assert "cannot be used" in line
    assert "password authentication failed" in line
    assert "wr0ng-secret" not in line
