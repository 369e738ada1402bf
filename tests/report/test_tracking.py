"""W&B records a run when it can, and never costs it anything: read back from real offline files."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import train
from engine.config.components import ROOT
from engine.config.load import flatten, load
from engine.report.tracking import PerClassMode, class_labels, values_of
from engine.report.tracking.wandb import chosen_mode
from engine.training.metrics.per_class import PerClass
from engine.training.provenance import new_run_id
from tests._runs import (
    assert_same_run,
    folder_of,
    quiet_screen,
    rows_of,
    small_config,
    small_run,
    small_words,
)
from tests.report._tracked import started
from tests.report._wandb_log import epochs, history, records
from tests.report._wandb_log import values_of as read_values

OFFLINE = ("track.wandb=offline", "track.figures=true", "seed=1")


class Stop(Exception):  # noqa: N818 - nothing went wrong
    """Ends a run after its second epoch."""


def stop_after_two(epoch: int, row: object) -> None:
    if epoch == 2:
        raise Stop


@dataclass(frozen=True)
class Mirrored:
    """A run of three epochs that stopped after the second and was resumed."""

    folder: Path
    first: Path
    second: Path


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory: pytest.TempPathFactory) -> Mirrored:
    root = tmp_path_factory.mktemp("mirrored")
    with pytest.raises(Stop):
        small_run(root, *OFFLINE, report=stop_after_two)
    small_run(root, *OFFLINE)
    folder = folder_of(root, *OFFLINE)
    first, second = sorted((folder / "wandb").glob("offline-run-*/*.wandb"))
    return Mirrored(folder, first, second)


def union(mirrored: Mirrored) -> list[dict[str, Any]]:
    """The epochs of both segments; the second begins with some that the first has, too."""
    found: dict[int, dict[str, Any]] = {}
    for line in (*epochs(mirrored.first), *epochs(mirrored.second)):
        found[line["epoch"]] = found.get(line["epoch"], {}) | line
    return [found[epoch] for epoch in sorted(found)]


# --- what an epoch sends --------------------------------------------------------------------------


def test_every_epoch_has_recall_precision_and_f1_of_every_class(mirrored: Mirrored) -> None:
    expected = {
        f"val/{kind}/{label:03d}_class{label}"
        for kind in ("recall", "precision", "f1")
        for label in range(4)
    }
    for line in union(mirrored):
        assert expected <= line.keys()
        assert not any(key.startswith("test/recall") for key in line)


def test_recall_in_wandb_is_recall_in_metrics_jsonl(mirrored: Mirrored) -> None:
    for row, line in zip(rows_of(mirrored.folder), union(mirrored), strict=True):
        found = [line[f"val/recall/{label:03d}_class{label}"] for label in range(4)]
        assert found == pytest.approx(row["val/recall"])


def test_an_epoch_sends_every_number_of_its_line_and_no_list(mirrored: Mirrored) -> None:
    for row, line in zip(rows_of(mirrored.folder), union(mirrored), strict=True):
        numbers = {k: v for k, v in row.items() if isinstance(v, int | float)}
        assert {"train/loss", "lr", "val/few_accuracy", "val/balanced_accuracy"} <= numbers.keys()
        assert {k: line[k] for k in numbers} == pytest.approx(numbers)
        assert "time/images_per_second" in line
        assert "train/class_histogram" not in line


def test_the_step_is_the_epoch_in_every_segment(mirrored: Mirrored) -> None:
    assert [(h["_step"], h["epoch"]) for h in epochs(mirrored.first)] == [(1, 1), (2, 2)]
    second = [(h["_step"], h["epoch"]) for h in epochs(mirrored.second)]
    assert second[-2:] == [(2, 2), (3, 3)]


def test_a_resumed_segment_begins_with_the_last_epoch_before_it(mirrored: Mirrored) -> None:
    before = epochs(mirrored.first)[-1]
    *_, again, _ = epochs(mirrored.second)
    row = rows_of(mirrored.folder)[1]
    numbers = {k: v for k, v in row.items() if isinstance(v, int | float)}
    assert {k: again[k] for k in numbers} == pytest.approx({k: before[k] for k in numbers})
    assert again["val/recall/003_class3"] == before["val/recall/003_class3"]


def test_what_closes_a_run_comes_at_a_step_of_its_own(mirrored: Mirrored) -> None:
    (closing,) = [line for line in history(mirrored.second) if "train/loss" not in line]
    assert closing["_step"] == 4
    assert "test/classes/path" in closing


def test_charts_are_drawn_over_epochs(mirrored: Mirrored) -> None:
    axes = {m.glob_name: m.step_metric for m in records(mirrored.first, "metric") if m.glob_name}
    assert axes == {"*": "epoch"}


# --- who the run is -------------------------------------------------------------------------------


def test_the_run_is_the_fingerprint_and_six_characters_in_every_segment(mirrored: Mirrored) -> None:
    (first,), (second,) = (records(p, "run") for p in (mirrored.first, mirrored.second))
    assert re.fullmatch(rf"{mirrored.folder.name}-[a-z0-9]{{6}}", first.run_id)
    assert second.run_id == first.run_id
    assert first.display_name == "synthetic-cross_entropy-seed1"


def test_the_group_is_the_fingerprint_without_the_seeds(mirrored: Mirrored) -> None:
    (run,) = records(mirrored.second, "run")
    environment = json.loads((mirrored.folder / "environment.json").read_text())
    assert run.run_group == environment["group"] != mirrored.folder.name


def test_the_config_is_the_resolved_config_as_plain_values(mirrored: Mirrored) -> None:
    (run,) = records(mirrored.second, "run")
    found = read_values(run.config.update)
    del found["_wandb"]
    config = load([mirrored.folder / "config.yaml"])
    assert found == config.model_dump(mode="json")
    assert found["schedule"]["steps"] == [0.8, 0.9]
    assert flatten(config)["data.num_classes"] == found["data"]["num_classes"] == 4


def test_a_stopped_segment_ends_as_failed_and_the_last_one_well(mirrored: Mirrored) -> None:
    (first,), (second,) = (records(p, "exit") for p in (mirrored.first, mirrored.second))
    assert (first.exit_code, second.exit_code) == (1, 0)


def test_two_run_ids_of_one_fingerprint_differ() -> None:
    assert len({new_run_id("0123456789ab") for _ in range(50)}) == 50


def test_a_group_of_the_users_own_is_taken(tmp_path: Path) -> None:
    words = ("track.wandb=offline", "track.group=mine", "schedule.epochs=1")
    small_run(tmp_path, *words)
    (file,) = (folder_of(tmp_path, *words) / "wandb").glob("offline-run-*/*.wandb")
    assert records(file, "run")[0].run_group == "mine"


def run_record(folder: Path, *words: str) -> Any:
    """What W&B keeps on a run that was started with these config words and ended."""
    started(folder, *words).finish()
    (file,) = folder.rglob("*.wandb")
    (found,) = records(file, "run")
    return found


def test_project_entity_tags_and_notes_are_keys(tmp_path: Path) -> None:
    words = ("track.wandb_project=tails", "track.wandb_entity=us", "track.wandb_notes=first try")
    found = run_record(tmp_path, *words, "track.wandb_tags=[a, b]")
    assert (found.project, found.entity, found.notes) == ("tails", "us", "first try")
    assert list(found.tags) == ["a", "b"]


def test_wandbs_own_variables_count_where_no_key_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("PROJECT", "theirs"), ("ENTITY", "them"), ("TAGS", "c"), ("NOTES", "n")):
        monkeypatch.setenv(f"WANDB_{name}", value)
    found = run_record(tmp_path, "track.wandb_notes=mine")
    assert (found.project, found.entity, found.notes) == ("theirs", "them", "mine")
    assert list(found.tags) == ["c"]


def test_the_project_is_ours_where_nobody_names_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    assert run_record(tmp_path).project == "tailfocus"


# --- what the end of a run sends ------------------------------------------------------------------


def table(mirrored: Mirrored, key: str) -> dict[str, Any]:
    path = history(mirrored.second)[-1][f"{key}/path"]
    content: dict[str, Any] = json.loads((mirrored.second.parent / "files" / path).read_text())
    return content


def test_the_class_table_is_that_of_the_summary(mirrored: Mirrored) -> None:
    found = table(mirrored, "test/classes")
    summary = json.loads((mirrored.folder / "summary.json").read_text())
    classes = summary["rules"][summary["headline"]]["classes"]
    rows = [dict(zip(found["columns"], row, strict=True)) for row in found["data"]]
    assert rows == classes
    assert [row["train_images"] for row in rows] == summary["class_counts"]


def test_the_confusion_matrix_counts_the_stored_predictions(mirrored: Mirrored) -> None:
    found = table(mirrored, "test/confusion_matrix_table")
    stored = np.load(mirrored.folder / "predictions" / "test.val.npz")
    expected = np.zeros((4, 4), dtype=int)
    np.add.at(expected, (stored["targets"], stored["logits"].argmax(1)), 1)
    counts = {(actual, predicted): n for actual, predicted, n in found["data"]}
    names = [f"class{i}" for i in range(4)]
    assert [[counts[a, p] for p in names] for a in names] == expected.tolist()


def test_the_figures_are_sent_as_they_are_on_disk(mirrored: Mirrored) -> None:
    last = history(mirrored.second)[-1]
    for path in (mirrored.folder / "figures").glob("*.png"):
        sent = mirrored.second.parent / "files" / last[f"figures/{path.stem}/path"]
        assert sent.read_bytes() == path.read_bytes()
    assert sum(key.startswith("figures/") and key.endswith("/path") for key in last) == 4


def test_the_closing_numbers_are_named_by_split_and_rule(mirrored: Mirrored) -> None:
    found: dict[str, Any] = {}
    for record in records(mirrored.second, "summary"):
        found |= read_values(record.update)
    summary = json.loads((mirrored.folder / "summary.json").read_text())
    for rule, result in summary["rules"].items():
        for split in ("val", "test"):
            defined = {k: v for k, v in result[split].items() if v is not None}
            assert {k: found[f"{split}/{rule}/{k}"] for k in defined} == pytest.approx(defined)
    assert found["headline"] == "val"


def test_wandbs_own_reader_finds_the_same(mirrored: Mirrored) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(mirrored.first)],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["type"] for line in lines].count("history") == 2
    assert '"val/recall/000_class0"' in done.stdout
    ours = [line["_step"] for line in history(mirrored.first)]
    assert ours == [1, 2]


def test_beyond_a_hundred_classes_there_is_a_table_and_no_confusion_matrix(tmp_path: Path) -> None:
    words = (
        *("data.num_classes=101", "data.num_train_per_class=4", "data.imbalance=none"),
        *("data.num_test_per_class=1", "data.validation.per_class=1", "optim.batch_size=101"),
        *("track.wandb=offline", "track.per_class=table", "schedule.epochs=1"),
    )
    kept = [w for w in small_words(tmp_path, *words) if "imbalance.factor" not in w]
    config = load(overrides=kept)
    train.run(config, screen=quiet_screen())
    (file,) = tmp_path.rglob("*.wandb")
    line, closing = history(file)
    assert closing["test/classes/nrows"] == 101
    assert not any("confusion_matrix" in key for key in closing)
    assert line["val/recall_histogram/_type"] == "histogram"
    assert sum(line["val/recall_histogram/values"]) == 101
    assert not any(key.startswith("val/recall/") for key in line)


# --- which classes are sent -----------------------------------------------------------------------


def scores(num_classes: int) -> PerClass:
    recall = np.linspace(0, 1, num_classes)
    precision = np.full(num_classes, np.nan)
    return PerClass(precision, recall, recall / 2, np.full(num_classes, 3))


@pytest.mark.parametrize(
    ("num_classes", "mode", "kinds"),
    [
        (10, "auto", {"recall": 10, "precision": 10, "f1": 10}),
        (20, "auto", {"recall": 20, "precision": 20, "f1": 20}),
        (21, "auto", {"recall": 21}),
        (100, "auto", {"recall": 100}),
        (101, "auto", {"recall": 101}),
        (1000, "auto", {"recall": 1000}),
        (1001, "auto", {"recall_histogram": 1}),
        (10, "scalars", {"recall": 10, "precision": 10, "f1": 10}),
        (1001, "scalars", {"recall": 1001}),
        (10, "table", {"recall_histogram": 1}),
        (1001, "table", {"recall_histogram": 1}),
        (10, "off", {}),
        (1001, "off", {}),
    ],
)
def test_what_is_sent_of_single_classes_depends_on_their_number_and_the_mode(
    num_classes: int, mode: PerClassMode, kinds: dict[str, int]
) -> None:
    names = [f"name{i}" for i in range(num_classes)]
    found = values_of({}, names, mode=mode, scores=scores(num_classes))
    seen: dict[str, int] = {}
    for key in found:
        split, kind, *_ = key.split("/")
        assert split == "val"
        seen[kind] = seen.get(kind, 0) + 1
    assert seen == kinds


def test_a_histogram_leaves_out_classes_without_images() -> None:
    metrics = scores(3)
    metrics.recall[1] = np.nan
    found = values_of({}, list("abc"), mode="table", scores=metrics)
    assert found["val/recall_histogram"].tolist() == [0.0, 1.0]


def test_an_undefined_score_is_nan_and_never_zero() -> None:
    found = values_of({}, ["a", "b"], mode="auto", scores=scores(2))
    assert math.isnan(found["val/precision/000_a"])
    assert found["val/recall/001_b"] == 1.0


def test_class_keys_sort_by_class_number() -> None:
    labels = class_labels([f"c{i}" for i in range(1200)])
    assert sorted(labels) == labels
    assert class_labels(["cat", "dog"]) == ["000_cat", "001_dog"]


# --- the mode -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "configured", "expected"),
    [
        (None, "offline", "offline"),
        ("", "online", "online"),
        ("disabled", "offline", "disabled"),
        ("OFFLINE", "online", "offline"),
        ("dryrun", "online", "offline"),
        ("run", "offline", "online"),
    ],
)
def test_the_variable_wandb_mode_overrides_the_config(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, configured: str, expected: str
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    if variable is not None:
        monkeypatch.setenv("WANDB_MODE", variable)
    assert chosen_mode(configured) == expected


def test_wandb_mode_disabled_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    small_run(tmp_path, "track.wandb=offline", "schedule.epochs=1")
    folder = folder_of(tmp_path, "track.wandb=offline", "schedule.epochs=1")
    assert (folder / "summary.json").exists()
    assert not (folder / "wandb").exists()


# --- nothing it does reaches the run --------------------------------------------------------------


class Broken:
    """A W&B run whose every call fails, as after its service was killed."""

    def __getattr__(self, name: str) -> Any:
        raise ConnectionResetError("the service\nis gone")


def refuse(**_: object) -> None:
    raise RuntimeError("the disk is full")


@pytest.fixture(scope="module")
def disabled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run without W&B."""
    root = tmp_path_factory.mktemp("disabled")
    small_run(root)
    return folder_of(root)


@dataclass(frozen=True)
class Breakage:
    """A way in which W&B fails, and what the run says of it."""

    module: str
    name: str | None
    value: Any
    said: str


BREAKAGES = {
    "init": Breakage("wandb", "init", refuse, "RuntimeError: the disk is full"),
    "calls": Breakage("wandb", "init", lambda **_: Broken(), "ConnectionResetError: the se"),
    "import": Breakage("wandb", None, None, "ModuleNotFoundError: "),
}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_a_broken_wandb_changes_no_result_and_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disabled: Path, breakage: str
) -> None:
    broken = BREAKAGES[breakage]
    if broken.name is None:
        monkeypatch.setitem(sys.modules, broken.module, broken.value)
    else:
        monkeypatch.setattr(f"{broken.module}.{broken.name}", broken.value)
    screen = quiet_screen()
    train.run(small_config(tmp_path, "track.wandb=offline"), screen=screen)
    assert_same_run(folder_of(tmp_path, "track.wandb=offline"), disabled)
    printed = screen.console.file.getvalue()  # type: ignore[attr-defined]
    (line,) = [line for line in printed.splitlines() if "W&B" in line]
    assert line.startswith(f"W&B is off for the rest of this run: {broken.said}")


class FailingLog:
    """A W&B run that starts well and whose ``log`` fails."""

    def __init__(self) -> None:
        self.logged: list[int] = []

    def define_metric(self, *_: object, **__: object) -> None:
        pass

    def log(self, values: object, *, step: int, commit: bool) -> None:
        self.logged.append(step)
        if step == 2:
            raise ConnectionResetError


def test_a_log_that_fails_is_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disabled: Path
) -> None:
    run = FailingLog()
    monkeypatch.setattr("wandb.init", lambda **_: run)
    small_run(tmp_path, "track.wandb=offline")
    assert run.logged == [1, 2]
    assert_same_run(folder_of(tmp_path, "track.wandb=offline"), disabled)


def test_the_histogram_of_many_classes_needs_no_wandb_while_it_is_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    found = values_of({}, ["x"] * 1001, mode="auto", scores=scores(1001))
    assert found["val/recall_histogram"].shape == (1001,)


def test_the_environment_is_as_before_once_a_run_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_DATA_DIR", "mine")
    monkeypatch.delenv("WANDB_CACHE_DIR", raising=False)
    monkeypatch.setenv("WANDB_SERVICE", "")  # wandb's own, for its child processes
    before = dict(os.environ)
    tracker = started(tmp_path)
    assert os.environ["WANDB_DATA_DIR"] == str(tmp_path / "wandb" / "data")
    tracker.finish()
    assert dict(os.environ) | {"WANDB_SERVICE": ""} == before


def test_the_environment_is_as_before_when_wandb_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wandb.init", refuse)
    before = dict(os.environ)
    started(tmp_path).finish()
    assert dict(os.environ) == before


def test_a_second_run_of_a_process_writes_into_its_own_folder(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        tracker = started(tmp_path / name)
        tracker.log({"loss": 1.0, "recall": np.array([0.5, 1.0])}, step=1)
        tracker.finish()
    for name in ("first", "second"):
        (file,) = (tmp_path / name).rglob("*.wandb")
        (line,) = history(file)
        assert line["loss"] == 1.0


def test_a_class_name_with_markup_and_slashes_arrives_as_it_is(tmp_path: Path) -> None:
    names = ["a/b", "[bold]c[/bold]", "d.e", "f*", "grün", "h i", ":smile:"]
    tracker = started(tmp_path)
    values = values_of({}, names, mode="auto", scores=scores(7))
    tracker.log(values, step=1)
    tracker.finish()
    (file,) = tmp_path.rglob("*.wandb")
    (line,) = history(file)
    assert {f"val/recall/{i:03d}_{name}" for i, name in enumerate(names)} <= line.keys()


# --- in processes of their own: HOME, secrets, no network -----------------------------------------

SLACK = 5.0  # a busy machine wakes a process up late
SECRET = "tail-focus-planted-secret"
KEY = "0123456789abcdef" * 2 + "01234567"
ONLINE = """
import sys, time
import wandb as _  # no part of what a server costs
from pathlib import Path
from engine.report.tracking import wandb
from tests.report._tracked import started

wandb.INIT_SECONDS = 1
folder = Path(sys.argv[1])
folder.mkdir()
began = time.monotonic()
trackers = started(folder, "track.wandb=online")
trackers.log({"loss": 1.0}, step=1)
trackers.finish()
print("seconds", time.monotonic() - began)
"""


@dataclass(frozen=True)
class Finished:
    """A process that has ended, its HOME and the folder it wrote."""

    code: int
    output: str
    home: Path
    folder: Path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Finished]:
    """Three processes at once: a whole offline run, and two that ask for a server nobody runs."""
    root = tmp_path_factory.mktemp("processes")
    words = small_words(root / "offline", "track.wandb=offline", "schedule.epochs=1")
    commands = {
        "offline": ["train.py", *words],
        "online": ["-c", ONLINE, str(root / "online")],
        "no key": ["-c", ONLINE, str(root / "no key")],
    }
    processes = {}
    for name, command in commands.items():
        home = root / f"{name} home"
        home.mkdir()
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "XDG"))},
            "HOME": str(home),
            "SOME_TOKEN": SECRET,
            "OMP_NUM_THREADS": "1",
            "WANDB_BASE_URL": "http://127.0.0.1:9",
            "PYTHONPATH": str(ROOT),
        }
        if name != "no key":
            environment["WANDB_API_KEY"] = KEY
        processes[name] = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    found = {}
    for name, process in processes.items():
        output = process.communicate(timeout=120)[0]
        home = root / f"{name} home"
        found[name] = Finished(process.returncode, output, home, root / name)
    return found


def test_everything_that_wandb_writes_is_below_the_run_folder(
    finished: dict[str, Finished],
) -> None:
    run = finished["offline"]
    assert run.code == 0, run.output
    assert list(run.folder.rglob("*.wandb"))
    assert list(run.home.rglob("*")) == []


@pytest.mark.parametrize("name", ["offline", "online", "no key"])
def test_no_secret_is_in_any_file(finished: dict[str, Finished], name: str) -> None:
    files = [path for path in finished[name].folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    for secret in (SECRET, KEY):
        assert [path for path in files if secret.encode() in path.read_bytes()] == []


@pytest.mark.parametrize("name", ["online", "no key"])
def test_online_without_a_server_or_a_key_is_offline_after_a_bounded_time(
    finished: dict[str, Finished], name: str
) -> None:
    run = finished[name]
    assert run.code == 0, run.output
    said = [line for line in run.output.splitlines() if line.startswith("W&B")]
    assert "W&B: no connection; this run is recorded offline (send it with wandb sync)" in said
    (file,) = run.folder.rglob("offline-run-*/*.wandb")
    assert [line["loss"] for line in history(file)] == [1.0]
    assert list(run.home.rglob("*")) == []
    assert float(run.output.split("seconds")[-1]) < 10 + SLACK


def test_an_offline_run_prints_nothing_of_wandbs_own(finished: dict[str, Finished]) -> None:
    assert "wandb:" not in finished["offline"].output
