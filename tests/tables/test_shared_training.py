"""Rows that are trained alike are trained once, and give the numbers of being trained twice."""

from __future__ import annotations

import errno
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import train
from engine.report.terminal import Terminal
from engine.tables.cells import Cell
from engine.tables.readme import generated
from engine.tables.record import from_run_folder, locked, read
from engine.tables.shared_training import begin_where_it_was, shares_to_train
from engine.tables.task import Task
from engine.tables.trained_alike import Source, sources_of
from engine.tables.worker import Event, work
from engine.training.divergence import DivergenceError
from engine.training.files import write_json
from engine.training.run_folder import RunFolder
from reproduce import main
from tests.tables._tables import cells_of, content, without_clock, write_table

ADJUSTED = ["evaluate.logit_adjustment=1"]
VALIDATION = "data.validation.per_class"
CHANGES: dict[str, Any] = {
    "base": [word for word in content(Path())["base"] if not word.startswith(VALIDATION)],
    # The row that is trained stands first; the one that follows it does not stand next to it.
    "methods": {"cross_entropy": [], "focal": ["loss=softmax_focal"], "adjusted": ADJUSTED},
    "settings": {"factor 8": ["data.imbalance.factor=8", f"{VALIDATION}=null"]},
    "seeds": [0],
    "rule": "last",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a table with one row that another has trained."""
    folder = tmp_path_factory.mktemp("shared")
    table = table_in(folder)
    assert main([str(table), "--results", str(folder / "lines.jsonl")]) == 0
    return folder


@pytest.fixture
def begun(made: Path, tmp_path: Path) -> Path:
    """The same table before the row that another trains has begun."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    adjusted = cell_of(tmp_path, "adjusted")
    shutil.rmtree(adjusted.folder)
    lines = (tmp_path / "lines.jsonl").read_text().splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line)["fingerprint"] != adjusted.fingerprint]
    (tmp_path / "lines.jsonl").write_text("".join(kept))
    return tmp_path


def table_in(folder: Path, **changes: Any) -> Path:
    """Write the table, with its runs below ``folder``."""
    root = f"track.root={folder / 'runs'}"
    base = [root if word.startswith("track.root") else word for word in CHANGES["base"]]
    return write_table(folder, **{**CHANGES, "base": base, **changes})


def cell_of(folder: Path, method: str) -> Cell:
    return next(cell for cell in cells_of(table_in(folder)) if cell.method == method)


def sources(folder: Path) -> tuple[Cell, Source]:
    """The row that another trains, and that row."""
    return cell_of(folder, "adjusted"), Source(cell_of(folder, "cross_entropy"), 2)


def copy_of(cell: Cell) -> RunFolder:
    """Where the copy stands that is renamed once it is whole."""
    return RunFolder(cell.folder.with_name(f".{cell.folder.name}.tmp"))


def environment_of(cell: Cell) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(RunFolder(cell.folder).environment.read_text())
    return content


def test_its_line_is_that_of_the_run_trained_by_itself(made: Path, tmp_path: Path) -> None:
    cell = cell_of(made, "adjusted")
    alone = cell.with_root(tmp_path)
    train.run(alone.config, screen=Terminal.silent())
    names = {"table": "tiny", "method": cell.method, "setting": cell.setting}
    expected = from_run_folder(alone.folder, words=cell.words, **names)
    found = [record for record in read(made / "lines.jsonl") if record.method == "adjusted"]
    assert expected.trained_as is None and found[0].trained_as is not None
    found = [record.model_copy(update={"trained_as": None}) for record in found]
    assert without_clock(found) == without_clock([expected])


def test_it_is_trained_once_and_its_folder_says_as_which_run(made: Path) -> None:
    adjusted, trained = cell_of(made, "adjusted"), cell_of(made, "cross_entropy")
    environment = environment_of(adjusted)
    assert environment["trained_as"] == trained.fingerprint
    assert [segment["from_epoch"] for segment in environment["segments"]] == [0, 2]
    assert RunFolder(adjusted.folder).metrics.read_bytes() == (
        RunFolder(trained.folder).metrics.read_bytes()
    )
    assert "trained_as" not in environment_of(cell_of(made, "focal"))


def test_a_row_that_logs_by_its_predictions_is_trained_by_itself(tmp_path: Path) -> None:
    for words in ([f"{VALIDATION}=4"], [f"{VALIDATION}=null", "evaluate.test_every_epoch=true"]):
        settings = {"factor 8": ["data.imbalance.factor=8", *words]}
        cells = cells_of(table_in(tmp_path, settings=settings))
        assert sources_of(cells) == {}


def test_shared_training_counts_once_and_the_table_says_so(made: Path, tmp_path: Path) -> None:
    records = [
        record.model_copy(update={"seconds": 3600.0}) for record in read(made / "lines.jsonl")
    ]
    (tmp_path / "tiny.jsonl").write_text("".join(f"{r.model_dump_json()}\n" for r in records))
    text = generated(tmp_path)
    assert "3 runs, 2.0 hours of training" in text
    assert "1 of 3 runs has the training of another row" in text


def test_the_time_left_has_no_training_that_another_row_does(begun: Path) -> None:
    cells = cells_of(table_in(begun))
    first, _, adjusted = cells
    assert shares_to_train(cells, sources_of(cells)) == [1, 1, 0]
    assert shares_to_train([adjusted], sources_of(cells)) == [0]
    shutil.rmtree(first.folder)
    assert shares_to_train([adjusted], sources_of(cells)) == [1]


def test_a_row_that_predicts_validation_otherwise_counts_whole(begun: Path) -> None:
    adjusted, trained = sources(begun)
    environment = environment_of(trained.cell)
    brought = {**environment["facts"], "val_images": 9}  # by the data: no config asks for it
    write_json(RunFolder(trained.cell.folder).environment, {**environment, "facts": brought})
    assert shares_to_train([adjusted], {adjusted.fingerprint: trained}) == [1]
    assert shares_to_train([trained.cell, adjusted], {adjusted.fingerprint: trained}) == [1, 1]
    begin_where_it_was(adjusted, trained)
    assert not adjusted.folder.exists()


def test_what_another_run_lost_is_not_told_of_the_run_that_takes_its_training(begun: Path) -> None:
    adjusted, trained = sources(begun)
    lost = {**environment_of(trained.cell), "lost_segments": [{"threads": 99}]}
    write_json(RunFolder(trained.cell.folder).environment, lost)
    begin_where_it_was(adjusted, trained)
    assert environment_of(adjusted)["trained_as"] == trained.cell.fingerprint
    assert "lost_segments" not in environment_of(adjusted)


def test_what_a_killed_copy_has_left_is_replaced(begun: Path) -> None:
    adjusted, trained = sources(begun)
    leftover = copy_of(adjusted)
    leftover.checkpoints.mkdir(parents=True)
    (leftover.checkpoints / "half.pt").write_bytes(b"half")
    begin_where_it_was(adjusted, trained)
    assert environment_of(adjusted)["trained_as"] == trained.cell.fingerprint
    names = [
        {file.name for file in RunFolder(c.folder).checkpoints.iterdir()}
        for c in (adjusted, trained.cell)
    ]
    assert names[0] == names[1]
    assert not leftover.path.exists()


def test_a_copy_that_another_process_is_making_is_waited_for(begun: Path) -> None:
    adjusted, trained = sources(begun)
    with ThreadPoolExecutor(1) as pool:
        with locked(adjusted.folder.parent):
            copied = pool.submit(begin_where_it_was, adjusted, trained)
            with pytest.raises(TimeoutError):
                copied.result(timeout=0.2)
            assert not adjusted.folder.exists()
        copied.result()
    assert environment_of(adjusted)["trained_as"] == trained.cell.fingerprint


def test_workers_that_copy_at_once_leave_one_whole_folder(begun: Path) -> None:
    adjusted, trained = sources(begun)
    with ThreadPoolExecutor(4) as pool:
        copies = [pool.submit(begin_where_it_was, adjusted, trained) for _ in range(8)]
    assert [copy.result() for copy in copies] == [None] * 8
    whole = {"checkpoints", "metrics.jsonl", "environment.json"}
    assert {file.name for file in adjusted.folder.iterdir()} == whole
    assert not copy_of(adjusted).path.exists()


def test_a_run_that_began_during_the_copy_is_left_alone(
    begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adjusted, trained = sources(begun)

    def begin_and_write(path: Path, content: dict[str, Any]) -> None:
        write_json(path, content)
        adjusted.folder.mkdir()
        (adjusted.folder / "lock").touch()

    monkeypatch.setattr("engine.tables.shared_training.write_json", begin_and_write)
    begin_where_it_was(adjusted, trained)
    assert [file.name for file in adjusted.folder.iterdir()] == ["lock"]
    assert not copy_of(adjusted).path.exists()


def test_a_run_that_has_begun_by_itself_goes_on_by_itself(begun: Path) -> None:
    adjusted, trained = sources(begun)
    adjusted.folder.mkdir()
    begin_where_it_was(adjusted, trained)
    assert list(adjusted.folder.iterdir()) == []


def test_a_full_disk_during_the_copy_leaves_nothing_behind(
    begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adjusted, trained = sources(begun)

    def full(path: Path, _text: str) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("engine.tables.shared_training.write_text", full)
    begin_where_it_was(adjusted, trained)
    assert not adjusted.folder.exists() and not copy_of(adjusted).path.exists()


def test_weights_by_older_code_are_not_taken_over(
    begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.tables.task._CODE_NOW", {})
    monkeypatch.setattr("engine.tables.task.code_hash", lambda _config: "0" * 12)
    assert main([str(begun / "tiny.yaml"), "--results", str(begun / "lines.jsonl")]) == 0
    adjusted = environment_of(cell_of(begun, "adjusted"))
    assert "trained_as" not in adjusted
    assert [segment["from_epoch"] for segment in adjusted["segments"]] == [0]


def test_a_row_fails_with_the_row_that_would_have_trained_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(*_: Any, **__: Any) -> None:
        raise DivergenceError("the loss is nan")

    monkeypatch.setattr("train.run", diverge)
    told: list[Event] = []
    work(cells_of(table_in(tmp_path)), Task("tiny", tmp_path / "lines.jsonl"), notify=told.append)
    reasons = [event.text for event in told if event.kind == "failed"]
    assert reasons[:2] == ["the loss is nan"] * 2
    assert reasons[2].startswith("it is trained as cross_entropy / factor 8")
    assert reasons[2].endswith("which failed")


def test_runs_of_other_code_are_made_again_and_shared_again(
    begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, lines = table_in(begun), begun / "lines.jsonl"
    assert main([str(table), "--results", str(lines)]) == 0
    monkeypatch.setattr("engine.tables.task._CODE_NOW", {})
    monkeypatch.setattr("engine.tables.task.code_hash", lambda _config: "0" * 12)
    monkeypatch.setattr("engine.training.journal.hash_of", lambda _files: "0" * 12)
    before = read(lines)
    assert main([str(table), "--results", str(lines), "--renew"]) == 0
    renewed = environment_of(cell_of(begun, "adjusted"))
    assert renewed["trained_as"] == cell_of(begun, "cross_entropy").fingerprint
    assert {segment["code_hash"] for segment in renewed["segments"]} == {"0" * 12}
    after = {record.fingerprint: record.rules for record in read(lines)}
    assert after == {record.fingerprint: record.rules for record in before}
