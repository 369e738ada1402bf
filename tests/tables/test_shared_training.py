"""Rows that are trained alike are trained once, and give the numbers of being trained twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import train
from engine.report.terminal import Terminal
from engine.tables.cells import Cell
from engine.tables.record import from_run_folder, read
from engine.tables.shared_training import source_of
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


def table_in(folder: Path, **changes: Any) -> Path:
    """Write the table, with its runs below ``folder``."""
    root = f"track.root={folder / 'runs'}"
    base = [root if word.startswith("track.root") else word for word in CHANGES["base"]]
    return write_table(folder, **{**CHANGES, "base": base, **changes})


def cell_of(folder: Path, method: str) -> Cell:
    return next(cell for cell in cells_of(table_in(folder)) if cell.method == method)


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
        assert [source_of(cell, cells) for cell in cells] == [None] * 3


def test_runs_of_other_code_are_made_again_and_shared_again(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.tables.worker._CODE_NOW", {})
    monkeypatch.setattr("engine.tables.worker.code_hash", lambda _config: "0" * 12)
    monkeypatch.setattr("engine.training.journal.code_hash", lambda _config: "0" * 12)
    before = read(made / "lines.jsonl")
    assert main([str(made / "tiny.yaml"), "--results", str(made / "lines.jsonl"), "--renew"]) == 0
    renewed = environment_of(cell_of(made, "adjusted"))
    assert renewed["trained_as"] == cell_of(made, "cross_entropy").fingerprint
    assert {segment["code_hash"] for segment in renewed["segments"]} == {"0" * 12}
    after = {record.fingerprint: record.rules for record in read(made / "lines.jsonl")}
    assert after == {record.fingerprint: record.rules for record in before}
