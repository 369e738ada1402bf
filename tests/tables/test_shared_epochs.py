"""Epochs that rows have in common are trained once, and give the numbers of being trained twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import train
from engine.config.components import ROOT
from engine.report.terminal import Terminal
from engine.tables.cells import Cell
from engine.tables.readme import generated
from engine.tables.record import RunRecord, from_run_folder, read, training_seconds
from engine.tables.shared_training import begin_where_it_was, shares_to_train
from engine.tables.task import Task
from engine.tables.trained_alike import Source, sources_of
from engine.tables.worker import Event, work
from engine.training.run_folder import LEFT, RunFolder, epoch_file
from engine.training.signals import EndedEarly
from reproduce import main
from tests._runs import assert_same_run
from tests.tables._tables import cells_of, without_clock, write_table

EPOCHS = 4
WITHOUT = ["data.validation.per_class=null"]
DEFERRED = {
    "cross_entropy": [],
    "influence_balanced": ["loss=influence_balanced", "reweight=inverse", "reweight.start=0.5"],
    "reweighted": ["reweight=effective_number", "reweight.start=0.75"],
    "resampled": ["sampler=class_balanced", "sampler.start=0.75"],
    "averaged": ["model.swa=0.5"],
}
ORACLE = "evaluate.test_every_epoch=true"
LDAM = ["loss=ldam", "model.head=cosine", "schedule.steps=[0.75]"]
REWEIGHTED = ["reweight=inverse", "reweight.start=0.5"]
AS_PUBLISHED: dict[str, Any] = {
    "settings": {"digits": [*WITHOUT, "schedule=steps", "schedule.unit=epoch"]},
    "methods": {
        "cross_entropy": [ORACLE, "schedule.steps=[0.75]"],
        "other_schedule": [ORACLE, "schedule.steps=[0.5, 0.75]", "schedule.decay=0.01"],
        "adjusted": ["schedule.steps=[0.75]", "evaluate.logit_adjustment=1"],
        "ldam": [ORACLE, *LDAM],
        "ldam_drw": [ORACLE, *LDAM, "loss.normalize=weights", *REWEIGHTED],
    },
    "rule": "last",
}


def table_in(folder: Path, **changes: Any) -> Path:
    """Write a table of short runs on a few digits, which go below ``folder``."""
    base = [
        "data=digits",
        "data.imbalance.factor=20",
        "model=cifar_resnet8",
        "sampler.length=48",
        f"schedule.epochs={EPOCHS}",
        "runtime.threads=1",
        f"track.root={folder / 'runs'}",
    ]
    usual = {"base": base, "settings": {"digits": []}, "methods": DEFERRED, "seeds": [0]}
    return write_table(folder, **{**usual, **changes})


def make(folder: Path, *options: str, **changes: Any) -> Path:
    """Make the table."""
    lines = ["--results", str(folder / "lines.jsonl")]
    assert main([str(table_in(folder, **changes)), *lines, *options]) == 0
    return folder


def cell_of(folder: Path, method: str, **changes: Any) -> Cell:
    return next(c for c in cells_of(table_in(folder, **changes)) if c.method == method)


def begun_at(cell: Cell) -> list[int]:
    """The epochs at which the stretches of a run begin."""
    environment = json.loads(RunFolder(cell.folder).environment.read_text())
    return [segment["from_epoch"] for segment in environment["segments"]]


def left_in(cell: Cell) -> list[str]:
    return sorted(file.name for file in RunFolder(cell.folder).checkpoints.glob(LEFT))


def line_of(folder: Path, method: str) -> RunRecord:
    return next(r for r in read(folder / "lines.jsonl") if r.method == method)


def numbers(record: RunRecord) -> Any:
    """The line of a run without what depends on the clock, and on where it was trained."""
    apart = {"trained_as": None, "shared_epochs": None, "shared_seconds": None}
    return without_clock([record.model_copy(update=apart)])


def assert_as_if_trained_alone(folder: Path, cell: Cell, elsewhere: Path) -> None:
    """Weights, lines, predictions and result are those of the run that trains every epoch."""
    alone = cell.with_root(elsewhere)
    train.run(alone.config, screen=Terminal.silent())
    assert_same_run(cell.folder, alone.folder)
    files = [c.folder / "checkpoints/last.pt" for c in (cell, alone)]
    states = [torch.load(file, weights_only=True) for file in files]
    assert [state["epoch"] for state in states] == [EPOCHS] * 2
    assert states[0]["best"].keys() == states[1]["best"].keys()
    for file in (alone.folder / "predictions").glob("*.npz"):
        ours, theirs = np.load(cell.folder / "predictions" / file.name), np.load(file)
        assert all(np.array_equal(ours[name], theirs[name]) for name in theirs.files)
    names = {"table": "tiny", "method": cell.method, "setting": cell.setting}
    expected = from_run_folder(alone.folder, words=cell.words, **names)
    assert numbers(line_of(folder, cell.method)) == numbers(expected)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a table whose rows have validation, and begin as cross-entropy."""
    return make(tmp_path_factory.mktemp("deferred"))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a table that looks at test in every epoch, and not at validation."""
    return make(tmp_path_factory.mktemp("published"), **AS_PUBLISHED)


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a table with its first run alone, which has left its second epoch."""
    folder = tmp_path_factory.mktemp("left")
    config = cell_of(folder, "cross_entropy").config
    train.run(config, screen=Terminal.silent(), leave={2})
    return folder


@pytest.fixture
def begun(left: Path, tmp_path: Path) -> Path:
    """A copy of that folder."""
    shutil.copytree(left, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.mark.parametrize("method", [name for name in DEFERRED if name != "cross_entropy"])
def test_a_deferred_method_has_the_numbers_of_being_trained_alone(
    made: Path, tmp_path: Path, method: str
) -> None:
    cell = cell_of(made, method)
    assert begun_at(cell) == [0, 3 if "start=0.75" in " ".join(DEFERRED[method]) else 2]
    assert_as_if_trained_alone(made, cell, tmp_path)


@pytest.mark.parametrize(
    ("method", "begins"), [("other_schedule", 2), ("adjusted", EPOCHS), ("ldam_drw", 2)]
)
def test_so_has_a_row_of_another_schedule_prediction_or_second_half(
    published: Path, tmp_path: Path, method: str, begins: int
) -> None:
    cell = cell_of(published, method, **AS_PUBLISHED)
    assert begun_at(cell) == [0, begins]
    assert_as_if_trained_alone(published, cell, tmp_path)
    assert (line_of(published, method).oracle is None) == (method == "adjusted")


def test_the_folder_says_which_epochs_are_those_of_which_run(made: Path) -> None:
    first, cell = cell_of(made, "cross_entropy"), cell_of(made, "reweighted")
    environment = json.loads(RunFolder(cell.folder).environment.read_text())
    assert (environment["trained_as"], environment["shared_epochs"]) == (first.fingerprint, 3)
    assert [segment.get("run") for segment in environment["segments"]] == [first.fingerprint, None]
    assert len({segment["code_hash"] for segment in environment["segments"]}) == 1
    record = line_of(made, "reweighted")
    assert (record.trained_as, record.shared_epochs) == (first.fingerprint, 3)


def test_a_run_that_has_all_epochs_of_one_that_began_elsewhere_names_both(
    made: Path, tmp_path: Path
) -> None:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    first, second, third = (
        cell_of(tmp_path, method) for method in ("cross_entropy", "reweighted", "resampled")
    )
    shutil.rmtree(third.folder)
    begin_where_it_was(third, Source(second, EPOCHS))
    environment = json.loads(RunFolder(third.folder).environment.read_text())
    assert environment["trained_as"] == second.fingerprint and "shared_epochs" not in environment
    runs = [segment["run"] for segment in environment["segments"]]
    assert runs == [first.fingerprint, second.fingerprint]


def test_shared_epochs_count_once_and_the_table_says_which_they_are(
    made: Path, tmp_path: Path
) -> None:
    records = read(made / "lines.jsonl")
    own = [record.own_seconds for record in records]
    assert training_seconds(records) == pytest.approx(sum(own))
    assert all(0 < record.own_seconds < record.seconds for record in records[1:])
    alone = [record for record in records if record.method != "cross_entropy"]
    longest = max(record.shared_seconds or 0.0 for record in alone)
    assert training_seconds(alone) == pytest.approx(sum(own[1:]) + longest)
    shutil.copy(made / "lines.jsonl", tmp_path / "tiny.jsonl")
    note = "4 of 5 runs have the first epochs of another row, 2 of 4 and 3 of 4, and their cost"
    assert note in generated(tmp_path)


def test_no_checkpoint_is_left_that_no_run_needs(made: Path, published: Path) -> None:
    assert [left_in(cell) for cell in cells_of(table_in(made))] == [[]] * 5
    assert [left_in(cell) for cell in cells_of(table_in(published, **AS_PUBLISHED))] == [[]] * 5


def test_a_checkpoint_of_a_row_that_was_cut_off_as_it_landed_goes(
    made: Path, tmp_path: Path
) -> None:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    first = cell_of(tmp_path, "cross_entropy")
    epoch_file(RunFolder(first.folder).checkpoints, 3).touch()
    make(tmp_path)
    assert left_in(first) == []


def test_a_row_without_the_one_that_it_begins_in_is_trained_whole(tmp_path: Path) -> None:
    make(tmp_path, "--only", "reweighted")
    assert begun_at(cell_of(tmp_path, "reweighted")) == [0]


def test_a_row_made_by_itself_leaves_what_rows_to_come_begin_with(tmp_path: Path) -> None:
    make(tmp_path, "--only", "cross_entropy")
    first = cell_of(tmp_path, "cross_entropy")
    assert left_in(first) == ["epoch_2.pt", "epoch_3.pt"]
    make(tmp_path, "--only", "reweighted")
    assert begun_at(cell_of(tmp_path, "reweighted")) == [0, 3]
    assert left_in(first) == ["epoch_2.pt", "epoch_3.pt"]  # resampled is still to be made


def test_a_run_that_has_left_nothing_is_no_beginning(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    cell = cell_of(tmp_path, "reweighted")
    shutil.rmtree(cell.folder)
    lines = (made / "lines.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "lines.jsonl").write_text(lines[0])
    make(tmp_path, "--only", "reweighted")
    assert begun_at(cell) == [0]
    assert line_of(tmp_path, "reweighted").trained_as is None


def test_the_list_says_how_many_epochs_are_not_trained_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path, "--list")
    line = "4 of those left begin in another row: 10 of 20 epochs are not trained again"
    assert line in capsys.readouterr().out


def test_the_time_left_has_the_epochs_that_are_still_to_be_trained(
    begun: Path, tmp_path: Path
) -> None:
    cells = cells_of(table_in(tmp_path / "new"))
    assert shares_to_train(cells, sources_of(cells)) == [1, 0.5, 0.25, 0.25, 0.5]
    cells = cells_of(table_in(begun))  # where the state after two epochs was left, and no other
    assert shares_to_train(cells, sources_of(cells)) == [1, 0.5, 1, 1, 0.5]


def test_a_row_that_has_begun_counts_with_the_epochs_that_it_began_with(begun: Path) -> None:
    cells = cells_of(table_in(begun))
    first, elsewhere, itself = cells[0], cells[1], cells[4]
    begin_where_it_was(elsewhere, Source(first, 2))
    itself.folder.mkdir()
    assert shares_to_train([elsewhere, itself], sources_of(cells)) == [0.5, 1]
    epoch_file(RunFolder(first.folder).checkpoints, 2).unlink()
    assert shares_to_train([elsewhere, itself], sources_of(cells)) == [0.5, 1]


def test_epochs_by_older_code_count_only_where_they_are_made_again(
    begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = cells_of(table_in(begun))
    monkeypatch.setattr("engine.tables.task._CODE_NOW", {})
    monkeypatch.setattr("engine.tables.task.code_hash", lambda _config: "0" * 12)
    assert shares_to_train(cells, sources_of(cells)) == [1] * 5
    assert shares_to_train(cells, sources_of(cells), renew=True) == [1, 0.5, 0.25, 0.25, 0.5]


def test_a_killed_run_leaves_what_comes_after_its_checkpoint(begun: Path) -> None:
    cells = cells_of(table_in(begun))
    folder = RunFolder(cells[0].folder)
    folder.summary.unlink()
    assert shares_to_train(cells, sources_of(cells)) == [1, 0.5, 1, 1, 0.5]  # after epoch 4
    second = epoch_file(folder.checkpoints, 2)
    shutil.copy(second, folder.checkpoints / "last.pt")
    assert len(folder.rows()) == EPOCHS
    assert shares_to_train(cells, sources_of(cells)) == [1, 0.5, 0.25, 0.25, 0.5]
    second.unlink()  # nor is an epoch left that the checkpoint has behind it
    assert shares_to_train(cells, sources_of(cells)) == [1, 1, 0.25, 0.25, 1]


class _WaitsError(Exception):
    """A worker found nothing that it can do now."""


def _until_it_waits(folder: Path, **changes: Any) -> Sequence[str]:
    """Work on the table until nothing can be done now; return the rows that have landed."""
    landed: list[str] = []

    def note(event: Event) -> None:
        if event.kind == "waiting":
            raise _WaitsError
        if event.kind == "landed":
            landed.append(event.label.partition(" / ")[0])

    cells = cells_of(table_in(folder, **changes))
    with pytest.raises(_WaitsError):
        work(cells, Task("tiny", folder / "lines.jsonl"), notify=note)
    return landed


def test_a_row_waits_for_a_run_at_work_elsewhere_until_that_is_so_far(begun: Path) -> None:
    first = cell_of(begun, "cross_entropy")
    folder = RunFolder(first.folder)
    shutil.rmtree(folder.predictions)
    folder.summary.unlink()
    lines = folder.metrics.read_text().splitlines(keepends=True)
    methods = {name: DEFERRED[name] for name in ("cross_entropy", "influence_balanced")}
    with folder.owned():
        folder.metrics.write_text("".join(lines[:1]))
        assert _until_it_waits(begun, methods=methods) == []
        folder.metrics.write_text("".join(lines[:2]))
        assert _until_it_waits(begun, methods=methods) == ["influence_balanced"]
    assert begun_at(cell_of(begun, "influence_balanced")) == [0, 2]


def test_a_row_does_not_wait_for_what_will_never_be_left(begun: Path) -> None:
    first = cell_of(begun, "cross_entropy")
    RunFolder(first.folder).summary.unlink()
    methods = {name: DEFERRED[name] for name in ("cross_entropy", "reweighted")}
    with RunFolder(first.folder).owned():
        assert _until_it_waits(begun, methods=methods) == ["reweighted"]
    assert begun_at(cell_of(begun, "reweighted")) == [0]


def test_a_run_that_was_cut_off_leaves_the_same_when_it_goes_on(made: Path, tmp_path: Path) -> None:
    def stop(epoch: int, _row: Mapping[str, Any]) -> None:
        if epoch == 1:
            raise EndedEarly

    with pytest.raises(EndedEarly):
        train.run(cell_of(tmp_path, "cross_entropy").config, screen=Terminal.silent(), report=stop)
    make(tmp_path, "--only", "cross_entropy")
    make(tmp_path, "--only", "influence_balanced")
    cell = cell_of(tmp_path, "influence_balanced")
    assert begun_at(cell) == [0, 1, 2]
    assert_same_run(cell.folder, cell_of(made, "influence_balanced").folder)


@pytest.mark.parametrize("damage", ["torn", "other epoch", "weights alone", "other choice"])
def test_a_checkpoint_of_no_use_is_passed_over(begun: Path, damage: str) -> None:
    first, cell = cell_of(begun, "cross_entropy"), cell_of(begun, "influence_balanced")
    checkpoints = RunFolder(first.folder).checkpoints
    left = epoch_file(checkpoints, 2)
    if damage == "other choice":  # lines by which another epoch is the best so far
        cell = cell_of(begun, "cross_entropy").with_root(begun / "other")
        folder = RunFolder(first.folder)
        rows = [{**row, "val/balanced_accuracy": 0.0} for row in folder.rows()]
        rows[2 - torch.load(left, weights_only=True)["best"]["val"]["epoch"]] |= {
            "val/balanced_accuracy": 1.0
        }
        folder.metrics.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    elif damage == "torn":
        left.write_bytes(left.read_bytes()[:1000])
    elif damage == "other epoch":
        left.rename(epoch_file(checkpoints, 3))
        left = epoch_file(checkpoints, 3)
    else:
        left.write_bytes((checkpoints / "last.pt").read_bytes())
    begin_where_it_was(cell, Source(first, 3 if damage == "other epoch" else 2))
    assert not cell.folder.exists()
    assert list(cell.folder.parent.glob(".*.tmp")) == []


def test_epochs_by_older_code_are_not_taken_over(
    begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.tables.task._CODE_NOW", {})
    monkeypatch.setattr("engine.tables.task.code_hash", lambda _config: "0" * 12)
    make(begun, "--only", "influence_balanced")
    assert begun_at(cell_of(begun, "influence_balanced")) == [0]


def test_what_other_code_has_made_is_made_again_and_shared_again(
    begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods = {name: DEFERRED[name] for name in ("cross_entropy", "influence_balanced")}
    make(begun, methods=methods)
    before = {record.method: record.rules for record in read(begun / "lines.jsonl")}
    monkeypatch.setattr("engine.tables.task._CODE_NOW", {})
    monkeypatch.setattr("engine.tables.task.code_hash", lambda _config: "0" * 12)
    monkeypatch.setattr("engine.training.journal.hash_of", lambda _files: "0" * 12)
    make(begun, "--renew", methods=methods)
    assert begun_at(cell_of(begun, "influence_balanced")) == [0, 2]
    after = {record.method: record for record in read(begun / "lines.jsonl")}
    assert {record.code_hash for record in after.values()} == {"0" * 12}
    assert {method: record.rules for method, record in after.items()} == before


@pytest.mark.slow
def test_workers_that_are_killed_leave_a_table_that_is_finished_as_if_they_had_not_been(
    made: Path, tmp_path: Path
) -> None:
    lines = tmp_path / "lines.jsonl"
    table = [str(table_in(tmp_path)), "--results", str(lines), "--workers", "2"]
    for landed in (("[1/5]",), ("[3/5]", "[4/5]", "[5/5]")):
        with subprocess.Popen(
            [sys.executable, "reproduce.py", *table],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            assert process.stdout is not None
            next(line for line in process.stdout if line.startswith(landed))
            os.killpg(process.pid, signal.SIGKILL)
    make(tmp_path, "--workers", "2")
    assert len(read(lines)) == len(DEFERRED)
    for record in read(made / "lines.jsonl"):
        assert numbers(line_of(tmp_path, record.method)) == numbers(record)
    assert [left_in(cell) for cell in cells_of(table_in(tmp_path))] == [[]] * 5
