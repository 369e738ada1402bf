"""Rows that start from another row: planned by its fingerprints, made after it, shown with n."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.config.components import ROOT
from engine.config.load import fingerprint, load_run_config
from engine.config.mistakes import ConfigError
from engine.tables.cells import cells, with_stages
from engine.tables.commands import commands, config_of
from engine.tables.names import names_of, renamed
from engine.tables.record import append, read
from engine.tables.table import Table, blocks_of
from engine.tables.table_file import read_table_file
from engine.tables.task import Task
from engine.tables.worker import Event, work
from engine.training.divergence import DivergenceError
from reproduce import main
from tests.tables._tables import cells_of, without_clock, write_table

SECOND = ["model.freeze=true", "model.init_head=false", "sampler=class_balanced"]
METHODS: dict[str, Any] = {
    # The order in which they stand is not the one in which they can be made.
    "third": {"after": "crt", "words": ["optim.momentum=0.8"]},
    "crt": {"after": "cross_entropy", "words": SECOND},
    "cross_entropy": [],
}
CHANGES: dict[str, Any] = {
    "methods": METHODS,
    "settings": {"factor 8": ["data.imbalance.factor=8"]},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a table of three stages, made by asking for the last one alone."""
    folder = tmp_path_factory.mktemp("stages")
    table = write_table(folder, **CHANGES)
    assert main([str(table), "--results", str(folder / "lines.jsonl"), "--only", "third"]) == 0
    return folder


def mistakes(folder: Path, **methods: Any) -> tuple[str, ...]:
    path = write_table(folder, methods={"cross_entropy": [], **methods})
    with pytest.raises(ConfigError) as caught:
        cells(read_table_file(path))
    return tuple(line.replace(f"{path}: ", "") for line in caught.value.mistakes)


def test_a_planned_second_stage_has_the_fingerprint_that_its_run_gets(made: Path) -> None:
    planned = cells_of(write_table(made, **CHANGES))
    records = {record.fingerprint: record for record in read(made / "lines.jsonl")}
    assert len(planned) == len(records) == 6
    for cell in planned:
        assert fingerprint(load_run_config(cell.folder)) == cell.fingerprint
        assert records[cell.fingerprint].method == cell.method


def test_every_run_starts_from_the_one_of_its_seed_and_setting(made: Path) -> None:
    for cell in cells_of(write_table(made, **CHANGES)):
        before = cell.stages_before()
        assert [c.method for c in before] == ["cross_entropy", "crt", "third"][: len(before)]
        assert {(c.seed, c.setting) for c in before} <= {(cell.seed, cell.setting)}
        if before:
            assert load_run_config(cell.folder).model.init_from == str(before[-1].folder)


def test_runs_of_a_second_stage_are_one_row_with_n(made: Path) -> None:
    table = Table(read(made / "lines.jsonl"), read_table_file(made / "tiny.yaml"))
    (block,) = blocks_of(table)
    assert {row.method: len(row.records) for row in block.rows} == dict.fromkeys(METHODS, 2)
    assert [row.notes for row in block.rows] == [()] * 3


def test_asking_for_a_second_stage_plans_the_first_before_it(tmp_path: Path) -> None:
    last = [cell for cell in cells_of(write_table(tmp_path, **CHANGES)) if cell.method == "third"]
    names = [(cell.method, cell.seed) for cell in with_stages(last)]
    order = ["cross_entropy", "crt", "third"]
    assert names == [(method, seed) for seed in (0, 1) for method in order]


def test_a_first_stage_that_has_a_line_and_no_folder_is_made_again(
    tmp_path: Path, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, lines = write_table(tmp_path, **CHANGES), tmp_path / "lines.jsonl"
    for record in read(made / "lines.jsonl"):
        if record.method == "cross_entropy":
            append(lines, record)
    asked = [str(table), "--results", str(lines), "--only", "crt", "--seeds", "1"]
    assert main([*asked, "--list"]) == 0
    listed = capsys.readouterr().out
    assert "0 of 2 runs done" in listed
    assert "1 of those left has a line and no folder: made again" in listed
    assert main(asked) == 0
    expected = lines_of_stage(made, "crt", seed=0)
    assert lines_of_stage(tmp_path, "crt", seed=0) == expected


def lines_of_stage(folder: Path, method: str, *, seed: int) -> dict[str, dict[str, Any]]:
    records = read(folder / "lines.jsonl")
    return without_clock([r for r in records if r.method == method and r.seed == seed])


def test_a_second_stage_made_again_in_another_place_gives_its_numbers(
    tmp_path: Path, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, lines = write_table(tmp_path, **CHANGES), tmp_path / "lines.jsonl"
    for record in read(made / "lines.jsonl"):
        append(lines, record)
    asked = [str(table), "--results", str(lines), "--only", "crt", "--seeds", "1", "--check"]
    assert main(asked) == 0
    assert "2 of 2 runs give the committed numbers, to the last digit" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["check"]


def test_a_later_stage_is_known_by_its_config_whatever_its_line_is_called(
    tmp_path: Path, made: Path
) -> None:
    names = names_of(read_table_file(write_table(tmp_path, **CHANGES)))
    made_before = read(made / "lines.jsonl")
    others = [r.model_copy(update={"method": "old", "setting": "name"}) for r in made_before]
    assert renamed(others, names) == made_before


@pytest.mark.slow
def test_workers_wait_for_the_first_stage_of_each_other(tmp_path: Path, made: Path) -> None:
    table, lines = write_table(tmp_path, **CHANGES), tmp_path / "lines.jsonl"
    command = [sys.executable, "reproduce.py", str(table), "--results", str(lines)]
    done = subprocess.run([*command, "--workers", "2"], cwd=ROOT, check=False)
    assert done.returncode == 0
    assert without_clock(read(lines)) == without_clock(read(made / "lines.jsonl"))


@pytest.mark.slow
def test_the_commands_of_a_second_stage_make_both_runs(tmp_path: Path, made: Path) -> None:
    records = read(made / "lines.jsonl")
    first = [record for record in records if record.seed == 0]
    printed = commands(first, "crt")
    assert len(printed) == 2
    for command in printed:
        program, script, *words = shlex.split(command)
        assert (program, script) == ("python", "train.py")
        quiet = ["track.wandb=disabled", "track.figures=false"]
        done = subprocess.run(
            [sys.executable, ROOT / script, *words, *quiet], cwd=tmp_path, check=False
        )
        assert done.returncode == 0
    names = {path.name for path in (tmp_path / "runs" / "synthetic").iterdir()}
    assert names == {record.fingerprint for record in first if record.method != "third"}


def test_words_of_a_second_stage_are_known_where_no_run_folder_is(
    tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for record in read(made / "lines.jsonl"):
        assert config_of(record) is not None
        assert config_of(record.model_copy(update={"fingerprint": "0" * 12})) is None


def test_a_first_stage_without_a_line_has_no_command(made: Path) -> None:
    alone = [record for record in read(made / "lines.jsonl") if record.method == "crt"]
    with pytest.raises(ConfigError, match=r"crt: run [0-9a-f]{12}, which it needs, has no"):
        commands(alone, "crt")


def test_what_starts_from_a_run_that_failed_fails_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(*_: Any, **__: Any) -> None:
        raise DivergenceError("the loss is nan")

    monkeypatch.setattr("train.run", diverge)
    planned = with_stages(cells_of(write_table(tmp_path, **CHANGES))[:1])
    told: list[Event] = []
    work(planned, Task("tiny", tmp_path / "lines.jsonl"), notify=told.append)
    failed = [
        (event.label.partition(" ")[0], event.text) for event in told if event.kind == "failed"
    ]
    assert failed[0] == ("cross_entropy", "the loss is nan")
    assert failed[1][0] == "crt" and "starts from cross_entropy / factor 8" in failed[1][1]
    assert failed[2][0] == "third" and "starts from crt / factor 8" in failed[2][1]


def test_a_second_stage_is_outdated_once_its_first_was_made_again(tmp_path: Path) -> None:
    from engine.tables.task import code_now, is_outdated
    from engine.training.files import write_json
    from engine.training.run_folder import RunFolder

    _, crt, first = cells_of(write_table(tmp_path, **CHANGES))[:3]
    for cell, minute in ((first, "10"), (crt, "20")):
        began = {"code_hash": code_now(cell), "began": f"2026-01-01T10:{minute}:00+00:00"}
        write_json(RunFolder(cell.folder).environment, {"segments": [began]})
    assert not is_outdated(crt)
    later = {"code_hash": code_now(first), "began": "2026-01-01T10:30:00+00:00"}
    write_json(RunFolder(first.folder).environment, {"segments": [later]})
    assert is_outdated(crt)
    shutil.rmtree(first.folder)
    assert not is_outdated(crt)


def test_other_code_that_left_no_steps_does_not_make_a_run_outdated(tmp_path: Path) -> None:
    from engine.tables.task import code_now, is_outdated
    from engine.training.provenance import Position, add_segment
    from engine.training.run_folder import RunFolder

    cell = cells_of(write_table(tmp_path, **CHANGES))[0]

    def begin(epoch: int, code_hash: str) -> None:
        add_segment(
            RunFolder(cell.folder),
            {"code_hash": code_hash},
            position=Position(epoch),
            facts={},
            identity={"fingerprint": cell.fingerprint, "split_fingerprint": "split"},
            say=lambda _line: None,
        )

    begin(0, "0" * 12)
    assert is_outdated(cell)
    begin(0, code_now(cell))
    begin(2, "0" * 12)
    begin(2, code_now(cell))
    assert not is_outdated(cell)
    begin(4, "0" * 12)
    begin(5, code_now(cell))
    assert is_outdated(cell)


# --- mistakes ------------------------------------------------------------------------------------


def test_a_row_that_starts_from_no_row_names_the_nearest(tmp_path: Path) -> None:
    assert mistakes(tmp_path, crt={"after": "cross_entrpy", "words": SECOND}) == (
        "methods.crt.after=cross_entrpy: no such method (did you mean cross_entropy?); "
        "one of cross_entropy, crt",
    )


def test_rows_that_start_from_each_other_are_one_line(tmp_path: Path) -> None:
    circle = {"a": {"after": "c"}, "b": {"after": "a"}, "c": {"after": "b"}}
    assert mistakes(tmp_path, **circle) == ("methods.a.after: a circle: a -> b -> c -> a",)
    (own,) = mistakes(tmp_path, a={"after": "a"})
    assert own == "methods.a.after: a circle: a -> a"


def test_a_row_has_one_start(tmp_path: Path) -> None:
    words = [*SECOND, "model.init_from=runs/digits/0123456789ab"]
    assert mistakes(tmp_path, crt={"after": "cross_entropy", "words": words}) == (
        "tiny: methods.crt: model.init_from: after=cross_entropy sets it; leave one of them out",
    )


def test_a_wrong_key_of_a_row_names_the_nearest(tmp_path: Path) -> None:
    (line,) = mistakes(tmp_path, crt={"aftr": "cross_entropy", "words": []})
    assert line == "methods.crt.aftr: unknown key (did you mean after?)"


def test_a_mistake_of_the_first_stage_is_not_said_again_of_the_second(tmp_path: Path) -> None:
    wrong = {"first": ["loss.gama=1"], "crt": {"after": "first", "words": SECOND}}
    (line,) = mistakes(tmp_path, **wrong)
    assert line.startswith("tiny: methods.first: loss.gama: unknown key")


def test_a_line_of_a_second_stage_names_its_first_where_train_looks(made: Path) -> None:
    for record in read(made / "lines.jsonl"):
        starts = [word for word in record.words if word.startswith("model.init_from=")]
        assert len(starts) == (record.method != "cross_entropy")
        assert all(word.startswith("model.init_from=runs/synthetic/") for word in starts)
