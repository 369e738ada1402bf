"""Tables are made by real processes: killed, resumed, several at once, and every run just once."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.config.components import ROOT
from engine.tables.recheck import place
from engine.tables.record import append, read
from engine.tables.table import read_table
from engine.tables.table_file import TableFile
from engine.training import provenance
from engine.training.run_folder import RunFolder
from reproduce import main
from tests.tables._tables import cells_of, lines_of, write_table

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a table that one undisturbed process has made."""
    folder = tmp_path_factory.mktemp("made")
    assert main([str(write_table(folder)), "--results", str(folder / "lines.jsonl")]) == 0
    return folder


@pytest.fixture
def start() -> Iterator[Start]:
    """Start ``python reproduce.py`` in a process of its own; none outlives the test."""
    with contextlib.ExitStack() as stack:

        def start_one(table: Path, *options: str) -> subprocess.Popen[str]:
            lines = table.with_name("lines.jsonl")
            command = [sys.executable, "reproduce.py", str(table)]
            process = subprocess.Popen(
                [*command, "--results", str(lines), *options],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start_one


def wait_for(process: subprocess.Popen[str], beginning: str) -> None:
    """Return as soon as the process has printed a line that begins so."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if line.startswith(beginning):
            return
    pytest.fail("".join(seen))


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """The process ids of its workers."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [
        int(child)
        for child in children
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


def segments(folder: Path) -> list[int]:
    """How many stretches each run of a table was made in."""
    runs = (folder / "runs").glob("*/*/environment.json")
    return sorted(len(json.loads(path.read_text())["segments"]) for path in runs)


def test_every_run_has_a_line_and_the_table_is_printed(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = made / "tiny.yaml"
    assert lines_of(made / "lines.jsonl").keys() == {c.fingerprint for c in cells_of(table)}
    assert main([str(table), "--results", str(made / "lines.jsonl")]) == 0
    output = capsys.readouterr().out
    assert "[1/8]" not in output
    assert "factor 8: test, rule val" in output
    assert output.count("cross_entropy") >= 2
    assert segments(made) == [1] * 8


def test_a_killed_process_loses_no_line_and_the_next_one_goes_on(
    tmp_path: Path, made: Path, start: Start
) -> None:
    table = write_table(tmp_path)
    process = start(table)
    wait_for(process, "[2/8]")
    process.kill()
    assert process.wait() == -signal.SIGKILL
    process.communicate()
    landed = lines_of(tmp_path / "lines.jsonl")
    assert 2 <= len(landed) < 8
    assert main([str(table), "--results", str(tmp_path / "lines.jsonl")]) == 0
    assert lines_of(tmp_path / "lines.jsonl") == lines_of(made / "lines.jsonl")


@pytest.mark.slow
def test_two_processes_share_a_table_and_make_no_run_twice(
    tmp_path: Path, made: Path, start: Start
) -> None:
    table = write_table(tmp_path)
    processes = [start(table), start(table)]
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert lines_of(tmp_path / "lines.jsonl") == lines_of(made / "lines.jsonl")
    assert segments(tmp_path) == [1] * 8
    assert all("factor 8: test, rule val" in output for output in outputs)


@pytest.mark.slow
def test_a_run_of_another_process_is_passed_over_and_taken_up_when_it_is_free(
    tmp_path: Path, made: Path, start: Start
) -> None:
    table = write_table(tmp_path)
    first = cells_of(table)[0]
    with RunFolder(first.folder).owned():
        process = start(table)
        wait_for(process, f"waiting for 1 run(s) of another process, {first.label} first")
        assert first.fingerprint not in lines_of(tmp_path / "lines.jsonl")
        assert len(lines_of(tmp_path / "lines.jsonl")) == 7
    assert process.wait() == 0
    assert lines_of(tmp_path / "lines.jsonl") == lines_of(made / "lines.jsonl")


@pytest.mark.slow
def test_workers_share_a_table_although_one_of_them_is_killed(
    tmp_path: Path, made: Path, start: Start
) -> None:
    table = write_table(tmp_path)
    process = start(table, "--workers", "3")
    wait_for(process, "[1/8]")
    workers = workers_of(process)
    assert len(workers) == 3
    os.kill(workers[0], signal.SIGKILL)
    output = process.communicate()[0]
    assert process.returncode == 0, output
    assert "a worker ended with SIGKILL; the others take up what it left" in output
    assert lines_of(tmp_path / "lines.jsonl") == lines_of(made / "lines.jsonl")


@pytest.mark.slow
def test_workers_stop_when_the_process_that_started_them_is_killed(
    tmp_path: Path, made: Path, start: Start
) -> None:
    table = write_table(tmp_path)
    process = start(table, "--workers", "2")
    wait_for(process, "[1/8]")
    handles = [os.pidfd_open(worker) for worker in workers_of(process)]
    process.kill()
    for handle in handles:
        assert select.select([handle], [], [], 120)[0] == [handle]
        os.close(handle)
    assert len(lines_of(tmp_path / "lines.jsonl")) < 8
    assert main([str(table), "--results", str(tmp_path / "lines.jsonl")]) == 0
    assert lines_of(tmp_path / "lines.jsonl") == lines_of(made / "lines.jsonl")


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["one", "two"])
def test_a_signal_stops_all_workers_after_a_checkpoint(
    tmp_path: Path, made: Path, start: Start, options: tuple[str, ...]
) -> None:
    table = write_table(tmp_path)
    process = start(table, *options)
    wait_for(process, "[1/8]")
    process.send_signal(signal.SIGTERM)
    output = process.communicate()[0]
    assert process.returncode == 143, output
    assert "stopped by SIGTERM; run the same command to resume" in output
    assert main([str(table), "--results", str(tmp_path / "lines.jsonl")]) == 0
    assert lines_of(tmp_path / "lines.jsonl") == lines_of(made / "lines.jsonl")


def test_a_time_limit_ends_the_run_in_hand_with_its_epoch(
    tmp_path: Path, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_table(tmp_path)
    lines = tmp_path / "lines.jsonl"
    assert main([str(table), "--results", str(lines), "--time-limit", "0s"]) == 0
    assert (
        "the time is up: 8 of 8 runs left; run the same command to resume"
        in capsys.readouterr().out
    )
    assert not lines.exists()


def test_what_is_asked_for_is_all_that_runs(
    tmp_path: Path, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_table(tmp_path)
    asked = ["--only", "focal/factor 2", "--seeds", "1"]
    lines = tmp_path / "lines.jsonl"
    assert main([str(table), "--results", str(lines), *asked]) == 0
    ((own, line),) = lines_of(lines).items()
    assert line == lines_of(made / "lines.jsonl")[own]
    capsys.readouterr()
    assert main([str(table), "--results", str(lines), "--list"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.rpartition(": ")[2] for line in listed[:4]] == ["0 of 2"] * 3 + ["1 of 2"]
    assert listed[4].startswith("1 of 8 runs done; about ")


def test_a_run_that_diverges_is_named_and_the_others_are_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    methods = {"cross_entropy": [], "wild": ["optim.lr=1e30"]}
    table = write_table(tmp_path, methods=methods, seeds=[0])
    lines = tmp_path / "lines.jsonl"
    assert main([str(table), "--results", str(lines), "--only", "wild"]) == 1
    output = capsys.readouterr().out
    assert "failed: wild / factor 8 / seed 0 / subset 0: " in output
    assert "failed: wild / factor 2 / seed 0 / subset 0: " in output
    assert not lines.exists()


def test_check_makes_the_runs_again_elsewhere_and_tells_a_number_that_differs(
    tmp_path: Path, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, lines = write_table(tmp_path), tmp_path / "lines.jsonl"
    records = [r for r in read(made / "lines.jsonl") if r.method == "focal" and r.seed == 0]
    for record in records:
        append(lines, record)
    asked = [str(table), "--results", str(lines), "--check", "--only", "focal", "--seeds", "1"]
    assert main(asked) == 0
    output = capsys.readouterr().out
    (place,) = (tmp_path / "runs" / "check").iterdir()
    assert output.startswith(f"{place}: the runs are made again\n")
    assert "2 of 2 runs give the committed numbers, to the last digit" in output
    assert len(list((place / "synthetic").iterdir())) == 2

    wrong = records[0].rules["val"].model_copy(update={"recall": (1.0, 1.0, 1.0, 1.0)})
    append(lines, records[0].model_copy(update={"rules": {**records[0].rules, "val": wrong}}))
    assert main(asked) == 1
    output = capsys.readouterr().out
    assert output.startswith(f"{place}: 2 of 2 runs are there from an earlier check by this code")
    assert "focal / factor 8 / seed 0 / subset 0: rules differ (balanced accuracy" in output
    assert "1 of 2 runs give the committed numbers" in output


def test_a_row_and_a_setting_with_new_names_keep_their_runs(
    tmp_path: Path,
    made: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = tmp_path / "tiny.jsonl"
    shutil.copy(made / "lines.jsonl", lines)
    table = write_table(
        tmp_path,
        methods={"cross_entropy": [], "gamma 2": ["loss=softmax_focal"]},
        # Names that have changed places.
        settings={
            "factor 2": ["data.imbalance.factor=8"],
            "factor 8": ["data.imbalance.factor=2"],
        },
    )
    monkeypatch.setattr("engine.tables.table_file.RESULTS", tmp_path)
    printed = read_table(table).records
    assert {record.method for record in printed} == {"cross_entropy", "gamma 2"}
    for record in printed:
        assert f"data.imbalance.{record.setting.replace(' ', '=')}" not in record.words
    assert main([str(table), "--results", str(lines)]) == 0
    output = capsys.readouterr().out
    assert output.startswith(f"{lines}: 8 lines have the names that the table gives now\n")
    assert "not run yet" not in output and "focal" not in output
    assert not (tmp_path / "runs").exists()
    assert read(lines) == printed
    assert main([str(table), "--results", str(lines)]) == 0
    assert "names that the table gives" not in capsys.readouterr().out


def test_a_check_takes_over_nothing_that_was_rounded_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = cells_of(write_table(tmp_path))
    here = place(every)
    assert here == place(every)
    runtime = every[0].config.runtime.model_copy(update={"threads": 7})
    config = every[0].config.model_copy(update={"runtime": runtime})
    assert place([replace(every[0], config=config), *every[1:]]) != here
    monkeypatch.setattr(provenance, "_processor", lambda: "another CPU")
    elsewhere = place(every)
    monkeypatch.undo()
    monkeypatch.setattr(provenance, "package_version", lambda package: f"{package} 0.1")
    assert len({here, elsewhere, place(every)}) == 3


def test_runs_of_other_code_are_made_again_only_when_asked_to(
    tmp_path: Path, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, lines = write_table(tmp_path), tmp_path / "lines.jsonl"
    asked = [str(table), "--results", str(lines), "--only", "focal/factor 2", "--seeds", "1"]
    assert main(asked) == 0
    (record,) = read(lines)
    append(lines, record.model_copy(update={"code_hash": "0" * 12}))
    (environment,) = (tmp_path / "runs").glob("*/*/environment.json")
    environment.write_text(environment.read_text().replace(record.code_hash, "0" * 12))
    assert main(asked) == 0
    assert read(lines)[0].code_hash == "0" * 12
    assert main([*asked, "--renew"]) == 0
    assert read(lines)[0].code_hash == record.code_hash
    assert [p.name for p in sorted((tmp_path / "runs" / "synthetic").iterdir())] == [
        record.fingerprint,
        f"{record.fingerprint}.old-1",
    ]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--wokers", "2"], "--wokers: unknown option (did you mean --workers?)"),
        (["--workers", "0"], "--workers 0: expected a whole number >= 1"),
        (["--seeds", "3"], "--seeds 3: the table has 2"),
        (["--time-limit", "soon"], "--time-limit soon: expected a time such as 90s, 20m or 1.5h"),
        (["--only", "focal/factor 3"], "--only: no setting 'factor 3' (did you mean factor 8?)"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line_and_nothing_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], line: str
) -> None:
    assert main([str(write_table(tmp_path)), *options]) == 2
    assert capsys.readouterr().err.startswith(line)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


def test_data_that_are_missing_stop_the_table_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "nowhere"))
    changes: dict[str, Any] = {"base": ["data=cifar10", f"track.root={tmp_path / 'runs'}"]}
    assert main([str(write_table(tmp_path, **changes)), "--seeds", "1"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("cross_entropy / factor 8 / seed 0 / subset 0: ")
    assert error.count("\n") == 1


def test_the_list_says_that_finished_runs_only_get_their_lines(
    tmp_path: Path, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, elsewhere = made / "tiny.yaml", tmp_path / "lines.jsonl"
    assert main([str(table), "--results", str(elsewhere), "--list"]) == 0
    listed = capsys.readouterr().out
    assert "0 of 8 runs done\n" in listed
    assert "8 of those left are finished without a line: each gets its line from" in listed
    assert main([str(table), "--results", str(elsewhere)]) == 0
    assert lines_of(elsewhere) == lines_of(made / "lines.jsonl")
    assert segments(made) == [1] * 8
    capsys.readouterr()
    assert main([str(table), "--results", str(elsewhere), "--list"]) == 0
    assert capsys.readouterr().out.endswith("8 of 8 runs done\n")


def test_help_explains_every_key_of_a_table_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for key in TableFile.model_fields:
        assert f"\n  {key} " in text
    for key in ("methods.ROW.after", "methods.ROW.words", "published.N.paper"):
        assert f"\n  {key}" in text
