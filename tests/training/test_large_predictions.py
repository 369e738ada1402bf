"""Logits that are too many for the memory: written as they come, and read back all the same."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import train
from engine.analysis.stored_run import read_stored_run
from engine.config.mistakes import ConfigError
from engine.report import intervals, reading
from engine.report.page.content import page_of
from engine.report.predictions_file import read_predictions_file
from engine.training import logits
from engine.training.logits import LogitFile, rows_of
from engine.training.machine import machine
from engine.training.setup import load_dataset, set_up
from engine.training.summary import Summary
from tests._runs import quiet_screen, small_config


class Run:
    """A finished run in its folder."""

    def __init__(self, root: Path) -> None:
        config = small_config(root, "schedule.epochs=2")
        self.summary: Summary = train.run(config, screen=quiet_screen())
        (self.folder,) = (path.parent for path in root.rglob("summary.json"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same run where every pass is too large for the memory, and a block has six rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logits, "IN_MEMORY", 0)
        patch.setattr(logits, "BLOCK_ENTRIES", 60)
        return Run(tmp_path_factory.mktemp("large"))


def test_a_run_ends_with_the_same_numbers_wherever_its_logits_are(small: Run, large: Run) -> None:
    assert large.summary.rules == small.summary.rules
    assert large.summary.headline == small.summary.headline


def test_large_logits_are_a_file_of_their_own_and_nothing_is_left_behind(large: Run) -> None:
    names = {path.name for path in (large.folder / "predictions").iterdir()}
    stems = [f"{split}.{rule}" for split in ("val", "test") for rule in ("last", "val")]
    assert names == {f"{stem}{end}" for stem in stems for end in (".npz", ".logits.npy")}
    with np.load(large.folder / "predictions" / "test.val.npz") as stored:
        assert sorted(stored.files) == ["index", "targets"]


@pytest.mark.parametrize("split", ["val", "test"])
def test_large_predictions_are_read_back_as_small_ones_are(
    small: Run, large: Run, split: str
) -> None:
    expected, found = (
        reading.predictions(run.folder, split=split, rule="val")  # type: ignore[arg-type]
        for run in (small, large)
    )
    assert isinstance(found.logits, np.memmap)
    assert np.array_equal(found.logits, expected.logits)
    assert np.array_equal(found.probabilities, expected.probabilities)
    assert found.frame().equals(expected.frame())


def test_pages_intervals_and_analyses_read_large_predictions(small: Run, large: Run) -> None:
    assert intervals.of_run(large.folder, rule="val") == intervals.of_run(small.folder, rule="val")
    pages = [page_of(reading.read_run(run.folder)) for run in (small, large)]
    assert pages[0].pairs == pages[1].pairs
    assert pages[0].calibration == pages[1].calibration
    analysed = [read_stored_run(run.folder).test.log_probabilities for run in (small, large)]
    assert np.array_equal(*analysed)


def test_a_lost_file_of_logits_is_named(large: Run, tmp_path: Path) -> None:
    folder = tmp_path / "predictions"
    shutil.copytree(large.folder / "predictions", folder)
    file = folder / "test.val.logits.npy"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ConfigError, match=r"test\.val\.npz: is damaged; put it back"):
        read_predictions_file(folder / "test.val.npz")
    file.unlink()
    with pytest.raises(ConfigError, match=r"test\.val\.logits\.npy: is missing; put it back"):
        read_predictions_file(folder / "test.val.npz")


def test_what_is_open_is_read_although_its_file_was_renamed_and_another_written(
    tmp_path: Path,
) -> None:
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    first = LogitFile(tmp_path / "scratch", (4, 3))
    first.append(rows[:1])
    first.append(rows[1:])
    first.keep_as(tmp_path / "kept.npy")
    LogitFile(tmp_path / "scratch", (4, 3)).append(-rows)
    assert np.array_equal(first[1:3], rows[1:3])
    assert np.array_equal(np.load(tmp_path / "kept.npy"), rows)
    mapped = np.load(tmp_path / "kept.npy", mmap_mode="r")
    assert np.array_equal(rows_of(mapped, slice(2, 4)), rows[2:])


def test_a_file_of_logits_goes_with_what_made_it_and_with_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "scratch"
    first = LogitFile(path, (4, 3))
    second = LogitFile(path, (4, 3))
    del first
    assert path.exists()
    del second
    assert not path.exists()


def test_a_second_command_leaves_the_files_of_a_run_that_is_being_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logits, "IN_MEMORY", 0)
    config = small_config(tmp_path)
    dataset = load_dataset(config)
    with machine(config.runtime) as computer:
        running, second = (set_up(config, dataset, computer) for _ in range(2))
        assessed = running.evaluator.assess("val", after_batch=lambda: None)
        second.close()
        assert isinstance(assessed.predictions.logits, LogitFile)
        assessed.predictions.logits.keep_as(tmp_path / "kept.npy")
        left = running.evaluator.assess("val", after_batch=lambda: None)
        running.close()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["kept.npy"]
    assert len(left.predictions.targets) == len(np.load(tmp_path / "kept.npy"))


def test_a_large_split_takes_less_memory_than_its_probabilities_alone() -> None:
    """These are 81 MB of logits and 162 of probabilities, predicted, measured and read back."""
    command = [sys.executable, "-m", "benchmarks.predictions", "--sizes", "8500x2500"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (peak,) = re.findall(r"peak (-?\d+) MB", done.stdout)
    assert int(peak) < 150, done.stdout
