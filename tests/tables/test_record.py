"""Results lines: made from a run folder, added whole, read back; one line a run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engine.config.components import ROOT
from engine.config.load import load
from engine.config.mistakes import ConfigError
from engine.tables.record import RunRecord, append, from_run_folder, read
from engine.tables.task import Task
from engine.training.files import WriteError, write_text
from tests._runs import folder_of, small_run, small_words

WORDS = ("seed=3", "data.imbalance.seed=5")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    small_run(root, *WORDS)
    return folder_of(root, *WORDS)


@pytest.fixture(scope="module")
def record(folder: Path) -> RunRecord:
    words = small_words(folder.parents[1], *WORDS)
    return from_run_folder(folder, table="t", method="m", setting="s", words=words)


def test_a_record_says_what_the_run_folder_says(folder: Path, record: RunRecord) -> None:
    summary = json.loads((folder / "summary.json").read_text())
    segment = json.loads((folder / "environment.json").read_text())["segments"][-1]
    assert (record.seed, record.subset_seed, record.epochs) == (3, 5, 3)
    assert (record.fingerprint, record.model) == (folder.name, "cifar_resnet20")
    for key in ("group", "split_fingerprint", "code_hash", "title", "headline", "group_sizes"):
        assert getattr(record, key) == summary[key]
    for key in ("commit", "dirty"):
        assert getattr(record, key) == segment[key]
    assert record.hardware["threads"] == 1
    assert record.versions["torch"] == segment["packages"]["torch"]


def test_the_recall_of_a_record_is_that_of_the_stored_predictions(
    folder: Path, record: RunRecord
) -> None:
    for rule in ("last", "val"):
        stored = np.load(folder / "predictions" / f"test.{rule}.npz")
        hit = stored["logits"].argmax(1) == stored["targets"]
        expected = [hit[stored["targets"] == label].mean() for label in range(4)]
        assert record.rules[rule].recall == pytest.approx(expected)
        assert record.rules[rule].test["balanced_accuracy"] == pytest.approx(np.mean(expected))


def test_the_words_of_a_record_are_the_run(record: RunRecord) -> None:
    config = load(overrides=record.words)
    assert (config.seed, config.data.imbalance.seed) == (record.seed, record.subset_seed)


def test_records_come_back_as_they_were_and_the_latest_of_a_run_wins(
    tmp_path: Path, record: RunRecord
) -> None:
    path = tmp_path / "results" / "t.jsonl"
    other = record.model_copy(update={"fingerprint": "0" * 12})
    again = record.model_copy(update={"seconds": 1.5})
    for written in (record, other, again):
        append(path, written)
    assert read(path) == [other, again]
    assert len(path.read_text().splitlines()) == 2
    assert list(path.parent.iterdir()) == [path]


def test_only_a_line_without_training_of_its_own_names_another_run(
    tmp_path: Path, record: RunRecord
) -> None:
    path = tmp_path / "t.jsonl"
    shared = record.model_copy(update={"fingerprint": "0" * 12, "trained_as": record.fingerprint})
    for written in (record, shared):
        append(path, written)
    before, after = (json.loads(line) for line in path.read_text().splitlines())
    assert "trained_as" not in before
    assert after == before | {"fingerprint": "0" * 12, "trained_as": record.fingerprint}
    assert read(path) == [record, shared]


def test_a_torn_last_line_is_dropped_when_read_and_when_added_to(
    tmp_path: Path, record: RunRecord
) -> None:
    path = tmp_path / "t.jsonl"
    append(path, record)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:100])
    assert read(path) == [record]
    other = record.model_copy(update={"fingerprint": "0" * 12})
    append(path, other)
    assert read(path) == [record, other]


def test_a_file_is_parsed_once_until_it_is_replaced(
    tmp_path: Path, record: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, parsed = tmp_path / "lines.jsonl", list[Path]()

    def counted(asked: Path) -> list[bytes]:
        parsed.append(asked)
        return asked.read_bytes().splitlines()

    append(path, record)
    monkeypatch.setattr("engine.tables.record._whole_lines", counted)
    task = Task("t", path)
    assert [task.left_of([]) for _ in range(3)] == [[], [], []]
    read(path).clear()  # what a caller does to its list is its own affair
    assert read(path) == [record]
    assert len(parsed) == 1
    other = record.model_copy(update={"title": record.title[::-1]})  # of the same length
    write_text(path, f"{json.dumps(other.model_dump(mode='json'))}\n")
    assert read(path) == [other]
    assert len(parsed) == 2


def test_a_damaged_line_is_named_and_nothing_is_written(tmp_path: Path, record: RunRecord) -> None:
    path = tmp_path / "t.jsonl"
    append(path, record)
    content = path.read_text() + '{"table": "t"}\n'
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"t\.jsonl:2: not a results line"):
        append(path, record)
    assert path.read_text() == content


def test_lines_of_another_kind_are_not_to_be_removed(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"epoch": 1, "train/loss": 0.5}\n{"epoch": 2, "train/loss": 0.4}\n')
    with pytest.raises(ConfigError) as caught:
        read(path)
    (line,) = caught.value.mistakes
    assert line.startswith(f"{path}:1: not a results line but of a file of another kind")
    assert "remove" not in line


@pytest.mark.parametrize("content", ["method,accuracy\n", "[1, 2]\n"])
def test_a_file_without_any_results_line_is_not_taken_for_a_damaged_one(
    tmp_path: Path, content: str
) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"remove it if others of the file are; experiments/res"):
        read(path)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, record: RunRecord) -> None:
    (tmp_path / "results").write_text("a file where the folder would be")
    with pytest.raises(WriteError, match=r"mend this and run the same command to add the line"):
        append(tmp_path / "results" / "t.jsonl", record)


def test_a_folder_without_a_finished_run_has_no_record(tmp_path: Path, folder: Path) -> None:
    unfinished = tmp_path / folder.name
    unfinished.mkdir()
    for name in ("config.yaml", "environment.json"):
        (unfinished / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(ConfigError, match=r"summary\.json: is missing; the run is not finished"):
        from_run_folder(unfinished, table="t", method="m", setting="s", words=())


ADD = """
import sys
from pathlib import Path
from engine.tables.record import RunRecord, append
record = RunRecord.model_validate_json(Path(sys.argv[3]).read_text())
for number in range(12):
    name = f"{sys.argv[2]}{number:011d}"
    append(Path(sys.argv[1]), record.model_copy(update={"fingerprint": name}))
"""


def test_processes_that_add_at_once_lose_no_line(tmp_path: Path, record: RunRecord) -> None:
    path = tmp_path / "t.jsonl"
    source = tmp_path / "record.json"
    source.write_text(record.model_dump_json())
    processes = [
        subprocess.Popen([sys.executable, "-c", ADD, path, letter, source], cwd=ROOT)
        for letter in "abc"
    ]
    assert [process.wait() for process in processes] == [0, 0, 0]
    expected = {f"{letter}{number:011d}" for letter in "abc" for number in range(12)}
    assert {r.fingerprint for r in read(path)} == expected
