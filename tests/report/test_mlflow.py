"""MLflow: what a run sends there, read back through MLflow's own client."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.config.load import flatten, load
from engine.report.tracking import Closing
from engine.report.tracking.mlflow import RUN_ID
from tests._runs import assert_same_run, folder_of, rows_of, small_run
from tests.report._tracked import started

TO_MLFLOW = ("track.to=[mlflow]", "track.figures=true", "seed=1")


class Stop(Exception):  # noqa: N818 - nothing went wrong
    """Ends a run after its second epoch."""


def stop_after_two(epoch: int, row: object) -> None:
    if epoch == 2:
        raise Stop


@pytest.fixture(autouse=True)
def _store_of_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings of the person who runs the tests count, and the client may read a folder."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


def runs_in(store: Path, experiment: str = "tailfocus") -> list[Any]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=str(store))
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return [client.get_run(run.info.run_id) for run in client.search_runs([found.experiment_id])]


def history(store: Path, run: Any, metric: str) -> list[tuple[int, float]]:
    from mlflow.tracking import MlflowClient

    found = MlflowClient(tracking_uri=str(store)).get_metric_history(run.info.run_id, metric)
    return sorted((entry.step, entry.value) for entry in found)


@dataclass(frozen=True)
class Recorded:
    """A run of three epochs that stopped after the second and was resumed."""

    folder: Path
    store: Path
    run: Any
    status_after_two: str


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    root = tmp_path_factory.mktemp("recorded")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        with pytest.raises(Stop):
            small_run(root, *TO_MLFLOW, report=stop_after_two)
        (first,) = runs_in(root / "mlruns")
        small_run(root, *TO_MLFLOW)
        (run,) = runs_in(root / "mlruns")
        yield Recorded(folder_of(root, *TO_MLFLOW), root / "mlruns", run, first.info.status)


def test_every_epoch_has_every_number_of_its_line_once(recorded: Recorded) -> None:
    rows = rows_of(recorded.folder)
    numbers = {k for row in rows for k, v in row.items() if isinstance(v, int | float)}
    assert {"train/loss", "lr", "val/few_accuracy", "val/balanced_accuracy"} <= numbers
    for key in numbers:
        expected = [(row["epoch"], row[key]) for row in rows if row.get(key) is not None]
        found = history(recorded.store, recorded.run, key)
        assert found == [pytest.approx(pair) for pair in expected], key


def test_every_epoch_has_the_recall_of_every_class(recorded: Recorded) -> None:
    for label in range(4):
        found = history(recorded.store, recorded.run, f"val/recall/{label:03d}_class{label}")
        expected = [(r["epoch"], r["val/recall"][label]) for r in rows_of(recorded.folder)]
        assert found == [pytest.approx(pair) for pair in expected]


def test_the_params_are_the_resolved_config(recorded: Recorded) -> None:
    config = flatten(load([recorded.folder / "config.yaml"]))
    assert recorded.run.data.params == {key: str(value) for key, value in config.items()}


def test_the_tags_say_which_run_it_is(recorded: Recorded) -> None:
    environment = json.loads((recorded.folder / "environment.json").read_text())
    tags = recorded.run.data.tags
    assert tags[RUN_ID] == environment["wandb_id"]
    assert tags["group"] == environment["group"]
    assert recorded.run.info.run_name == "synthetic-cross_entropy-seed1"


def test_a_stopped_run_is_failed_until_it_is_resumed_and_finished(recorded: Recorded) -> None:
    assert recorded.status_after_two == "FAILED"
    assert recorded.run.info.status == "FINISHED"


def test_the_closing_numbers_are_named_by_split_and_rule(recorded: Recorded) -> None:
    summary = json.loads((recorded.folder / "summary.json").read_text())
    for rule, result in summary["rules"].items():
        for split in ("val", "test"):
            defined = {k: v for k, v in result[split].items() if v is not None}
            found = {k: recorded.run.data.metrics[f"{split}/{rule}/{k}"] for k in defined}
            assert found == pytest.approx(defined)
    assert recorded.run.data.tags["headline"] == "val"


def test_the_figures_and_the_classes_are_artifacts(recorded: Recorded) -> None:
    artifacts = recorded.store / recorded.run.info.experiment_id / recorded.run.info.run_id
    for path in (recorded.folder / "figures").glob("*.png"):
        sent = artifacts / "artifacts" / "figures" / path.name
        assert sent.read_bytes() == path.read_bytes()
    classes = json.loads((artifacts / "artifacts" / "test" / "classes.json").read_text())
    summary = json.loads((recorded.folder / "summary.json").read_text())
    assert classes["train_images"] == summary["class_counts"]


def test_mlflow_changes_no_number(recorded: Recorded, tmp_path: Path) -> None:
    small_run(tmp_path, "seed=1")
    assert_same_run(recorded.folder, folder_of(tmp_path, "seed=1"))


def test_store_and_experiment_are_keys(tmp_path: Path) -> None:
    words = (f"track.mlflow_uri={tmp_path / 'store'}", "track.mlflow_experiment=tails")
    started(tmp_path, "track.to=[mlflow]", *words).finish()
    (run,) = runs_in(tmp_path / "store", "tails")
    assert run.info.status == "FINISHED"


def test_mlflows_own_variables_count_where_no_key_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(tmp_path / "theirs"))
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "their experiment")
    started(tmp_path, "track.to=[mlflow]").finish()
    assert len(runs_in(tmp_path / "theirs", "their experiment")) == 1


def test_a_histogram_is_sent_as_its_quartiles(tmp_path: Path) -> None:
    trackers = started(tmp_path, "track.to=[mlflow]")
    trackers.log({"val/recall_histogram": np.array([0.0, 0.25, 0.5, 0.75, 1.0])}, step=1)
    trackers.log({"val/recall_histogram": np.array([])}, step=2)
    trackers.finish()
    (run,) = runs_in(tmp_path / "mlruns")
    found = [run.data.metrics[f"val/recall_histogram/q{n}"] for n in range(5)]
    assert found == [0.0, 0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize(
    "name", ["a/b", "../up", "a//b", "[bold]c[/bold]", "f*", "grün", "犬", ":smile:", "d.e", "h "]
)
def test_a_class_of_any_name_is_recorded(tmp_path: Path, name: str) -> None:
    said: list[str] = []
    trackers = started(tmp_path, "track.to=[mlflow]", say=said.append)
    trackers.log({f"val/recall/000_{name}": 0.5}, step=1)
    trackers.finish()
    assert said == []
    (run,) = runs_in(tmp_path / "mlruns")
    assert list(run.data.metrics.values()) == [0.5]


def test_the_environment_is_as_before_once_a_run_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DO_NOT_TRACK", raising=False)
    before = dict(os.environ)
    trackers = started(tmp_path, "track.to=[mlflow]")
    assert os.environ["DO_NOT_TRACK"] == "true"
    trackers.close(Closing({"headline": "val"}))
    trackers.finish()
    assert dict(os.environ) == before
