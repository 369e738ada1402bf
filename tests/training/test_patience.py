"""Early stopping: a run ends where its own metric says so, resumed or not, and says that it did."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import train
from engine.config.load import fingerprint, load
from engine.config.mistakes import ConfigError
from engine.report import seeds
from engine.report.terminal import Terminal
from engine.tables.notes import row_notes
from engine.training.patience import Patience
from tests._runs import (
    assert_same_run,
    folder_of,
    rows_of,
    small_config,
    small_run,
    summary_of,
)
from tests.data._files import write_folder
from tests.tables._lines import line

METRIC = "val/balanced_accuracy"
# Nothing is learnt, so that the first epoch stays the best.
IDLE = ("optim.lr=1e-12", "model.norm=group", "model=cifar_resnet8", "schedule.epochs=6")
STOPPED = "stopped after epoch 3 of 6: no better val/balanced_accuracy for 2 epochs"


def end_of(values: list[float | None], *words: str, metric: str = METRIC) -> int:
    """The epoch with which training ends, given the metric of each epoch that it would have."""
    config = load(overrides=[f"evaluate.metric={metric}", f"schedule.epochs={len(values)}", *words])
    patience = Patience(config)
    for epoch, value in enumerate(values, start=1):
        patience.update({"epoch": epoch, metric: value})
        if patience.is_over:
            return epoch
    return len(values)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.5, 0.6, 0.7, 0.8, 0.9], 5),
        ([0.5, 0.4, 0.4, 0.8, 0.9], 3),
        ([0.5, 0.4, 0.6, 0.5, 0.9], 5),  # a better one starts the count anew
        ([0.5, 0.5, 0.5, 0.5, 0.5], 3),  # a tie is no better
        ([0.5, None, None, 0.8, 0.9], 3),
        ([None, None, 0.5, 0.8, 0.9], 2),
        ([0.5, float("nan"), float("nan"), 0.8, 0.9], 3),
    ],
)
def test_training_ends_after_so_many_epochs_without_a_better_one(
    values: list[float | None], expected: int
) -> None:
    assert end_of(values, "schedule.patience=2") == expected


def test_less_is_better_for_a_metric_of_that_kind() -> None:
    falling = [0.5, 0.4, 0.3, 0.2, 0.1]
    assert end_of([*falling], "schedule.patience=2", metric="val/nll") == 5
    assert end_of(falling[::-1], "schedule.patience=2", metric="val/nll") == 3


def test_epochs_before_the_whole_method_has_begun_are_not_counted() -> None:
    deferred = ("reweight=inverse", "reweight.start=0.5")
    values = [0.9, 0.1, 0.1, 0.1, 0.2, 0.3, 0.2, 0.2, 0.2, 0.2]
    assert end_of(values, "schedule.patience=2") == 3
    assert end_of(values, "schedule.patience=2", *deferred) == 8  # 6 is the first and the best


def test_without_patience_a_run_has_all_its_epochs() -> None:
    assert end_of([0.5, 0.4, 0.3, 0.2, 0.1]) == 5


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The lines of a run that learns, with all its epochs."""
    root = tmp_path_factory.mktemp("whole")
    small_run(root, *LEARNING)
    return rows_of(folder_of(root, *LEARNING))


LEARNING = ("schedule.epochs=8", "model=cifar_resnet8", "model.ema=0.8", "optim.lr=0.2")


def test_a_run_that_ends_early_is_the_beginning_of_the_whole_one(
    tmp_path: Path, whole: list[dict[str, Any]]
) -> None:
    """Its rate too: that goes by ``schedule.epochs``."""
    values, expected = [row[METRIC] for row in whole], len(whole)
    for epoch in range(2, len(whole) + 1):
        if max(values[:epoch]) == max(values[: epoch - 1]):
            expected = epoch
            break
    assert expected < len(whole)
    summary = small_run(tmp_path, *LEARNING, "schedule.patience=1")
    assert rows_of(folder_of(tmp_path, *LEARNING, "schedule.patience=1")) == whole[:expected]
    assert summary.rules["last"].epoch == expected
    assert summary.rules["val"].epoch == expected - 1


def test_a_run_that_was_cut_short_says_so_in_its_summary_and_on_the_screen(tmp_path: Path) -> None:
    words, text = (*IDLE, "schedule.patience=2"), io.StringIO()
    screen = Terminal(Console(file=text, width=200))
    summary = train.run(small_config(tmp_path, *words), screen=screen)
    (note,) = [note for note in summary.notes if "stopped" in note]
    assert note == f"{STOPPED} (schedule.patience)"
    assert summary_of(folder_of(tmp_path, *words))["notes"] == list(summary.notes)
    lines = text.getvalue().splitlines()
    assert any(x.endswith("training ends after 2 epochs without a better") for x in lines)
    assert f"note: {note}" in lines


@pytest.mark.parametrize(
    ("epoch", "place"), [(2, "epoch 3, step 1"), (3, "the final predictions; training is over")]
)
def test_a_run_resumed_before_or_after_its_last_epoch_ends_where_it_would_have(
    tmp_path: Path, epoch: int, place: str
) -> None:
    class Stop(Exception):  # noqa: N818 - nothing went wrong
        pass

    def report(done: int, row: object) -> None:
        if done == epoch:
            raise Stop

    words = (*IDLE, "schedule.patience=2")
    small_run(tmp_path / "whole", *words)
    with pytest.raises(Stop):
        small_run(tmp_path / "stopped", *words, report=report)
    text = io.StringIO()
    config = small_config(tmp_path / "stopped", *words)
    train.run(config, screen=Terminal(Console(file=text, width=200)))
    assert f"resuming at {place}" in text.getvalue().splitlines()
    first, second = (folder_of(tmp_path / name, *words) for name in ("whole", "stopped"))
    assert len(rows_of(first)) == 3
    assert_same_run(first, second)


def test_patience_is_part_of_the_identity_and_null_is_none() -> None:
    usual = fingerprint(load())
    assert fingerprint(load(overrides=["schedule.patience=null"])) == usual
    assert fingerprint(load(overrides=["schedule.patience=5"])) != usual


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["data.validation.per_class=null"],
            "schedule.patience=4: has no effect without a validation split; set "
            "data.validation.per_class or data.validation.fraction",
        ),
        (
            ["evaluate.rules=[last]"],
            "schedule.patience=4: goes by the metric of the rule val; name val in evaluate.rules",
        ),
        (
            ["schedule.epochs=5"],
            "schedule.patience=4: ends nothing early, it counts from epoch 1 of 5 on; set it to 3 "
            "or less",
        ),
        (
            ["schedule.epochs=10", "reweight=inverse", "reweight.start=0.8"],
            "schedule.patience=4: ends nothing early, it counts from epoch 9 of 10 on "
            "(reweight.start=0.8); set it to null",
        ),
    ],
)
def test_patience_that_cannot_end_a_run_is_a_mistake(words: list[str], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(overrides=["schedule.patience=4", *words])
    assert caught.value.mistakes == (line,)


def test_a_folder_of_images_without_validation_is_told_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "data"))
    folder = write_folder(tmp_path / "pets", {s: {"cat": 3, "dog": 2} for s in ("train", "test")})
    words = ["data=image_folder", f"data.path={folder}", f"track.root={tmp_path / 'runs'}"]
    words += ["data.validation.fraction=null", "track.to=[]", "schedule.patience=3"]
    config = load(overrides=words)
    with pytest.raises(ConfigError, match=r"^schedule\.patience=3: has no effect without a valida"):
        train.run(config, screen=Terminal.silent())
    assert not (tmp_path / "runs").exists()


def test_the_report_of_several_seeds_says_which_of_them_were_cut_short(tmp_path: Path) -> None:
    words = (*IDLE, "schedule.epochs=4", "schedule.patience=2")
    summary = small_run(tmp_path, *(w for w in words if w != "schedule.epochs=6"))
    other = summary.model_copy(update={"seed": 7, "notes": summary.notes[:-1]})
    note = f"{STOPPED.replace('of 6', 'of 4')} (schedule.patience)"
    assert f"note, seed 0: {note}" in seeds.remarks([summary, other])
    assert f"note: {note}" in seeds.remarks([summary, summary])


def test_a_table_says_how_many_runs_of_a_row_were_cut_short() -> None:
    note = "stopped after epoch 3 of 9: no better val/mcc for 2 epochs (schedule.patience)"
    runs = [line(seed=s, epochs=9, notes=notes) for s, notes in enumerate(((), (), (note,)))]
    expected = [(run.seed, run.subset_seed) for run in runs]
    splits = {0: runs[0].split_fingerprint}
    (said,) = row_notes(runs, rule="last", expected=expected, splits=splits, baseline=[])
    assert said == "1 of 3 runs stopped early, after epoch 3 of 9 (schedule.patience)"
