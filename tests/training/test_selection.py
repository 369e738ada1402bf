"""Selection rules: the best epoch of the method as it is named; one class is a rule everywhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.config import components
from engine.config.load import fingerprint, load
from engine.config.mistakes import ConfigError
from engine.config.selection_rules import catalogue
from engine.training import checkpoint, selection, trained
from engine.training.selection import HeldOut, Kept, Selection
from tests._runs import (
    assert_same_run,
    folder_of,
    rows_of,
    small_config,
    small_run,
    small_words,
    summary_of,
)

FOUR = "schedule.epochs=4"
DEFERRED = {
    1: (),
    3: ("reweight=inverse", "reweight.start=0.5"),
    4: ("reweight=inverse", "reweight.start=0.75"),
}


def selection_of(*words: str) -> Selection:
    return Selection.of(load(overrides=words), has_validation=True)


def kept_of(found: Selection, rows: list[dict[str, Any]]) -> Mapping[str, Kept]:
    best: Mapping[str, Kept] = {}
    for row in rows:
        weights = {"w": torch.tensor(float(row["epoch"]))}
        best = found.update(best, row, weights=lambda weights=weights: weights)
        weights["w"] += 100  # training goes on in the same tensors
    return best


@pytest.mark.parametrize(
    ("metric", "values", "first_epoch", "expected"),
    [
        ("val/balanced_accuracy", [0.5, 0.9, 0.9, 0.7], 1, 2),  # the earliest wins a tie
        ("val/balanced_accuracy", [0.5, 0.9, 0.6, 0.7], 3, 4),
        ("val/balanced_accuracy", [0.5, 0.9, 0.6, 0.7], 4, 4),
        ("val/balanced_accuracy", [None, 0.2, None, 0.1], 1, 2),
        ("val/nll", [0.5, 0.1, 0.4, 0.3], 3, 4),
        ("val/nll", [0.5, float("nan"), 0.4, 0.6], 1, 3),
        ("val/nll", [0.5, 0.1, float("nan"), float("nan")], 3, None),
    ],
)
def test_the_best_epoch_is_chosen_among_those_that_may_be(
    metric: str, values: list[float | None], first_epoch: int, expected: int | None
) -> None:
    found = selection_of(FOUR, f"evaluate.metric={metric}", *DEFERRED[first_epoch])
    best = kept_of(found, [{"epoch": e, metric: v} for e, v in enumerate(values, start=1)])
    assert (best["val"]["epoch"] if best else None) == expected
    if expected is not None:
        assert best["val"]["value"] == values[expected - 1]
        assert best["val"]["state"]["w"].item() == expected


@pytest.mark.parametrize(
    ("words", "first_epoch", "reason"),
    [
        ([], 1, ""),
        (["reweight=inverse"], 1, ""),
        (["reweight=inverse", "reweight.start=0.8"], 9, "reweight.start=0.8"),
        (["sampler=class_balanced", "sampler.start=0.55"], 7, "sampler.start=0.55"),
        (
            ["loss=influence_balanced", "loss.start=0.5", "reweight=inverse", "reweight.start=0.2"],
            6,
            "loss.start=0.5",
        ),
    ],
)
def test_it_begins_with_the_last_part_that_is_deferred(
    words: list[str], first_epoch: int, reason: str
) -> None:
    rule = selection_of("schedule.epochs=10", *words).rules["val"]
    assert isinstance(rule, selection.Val)
    assert (rule.first_epoch, rule.reason) == (first_epoch, reason)


def test_a_run_takes_no_weights_from_before_its_method_began(tmp_path: Path) -> None:
    words = ["reweight=inverse", "reweight.start=0.6", "evaluate.metric=val/nll", "optim.lr=0.2"]
    summary = small_run(tmp_path, *words)
    assert summary.rules["val"].epoch == 3
    assert "val/nll from epoch 3 on (reweight.start=0.6) on " in summary.selection


def test_two_rules_that_choose_one_epoch_share_one_copy_of_its_weights() -> None:
    found = selection_of("evaluate.rules=[last, val, val_nll]")
    best = kept_of(found, [{"epoch": 1, "val/balanced_accuracy": 0.5, "val/nll": 1.0}])
    assert best["val"]["state"]["w"] is best["val_nll"]["state"]["w"]


def test_val_nll_is_the_epoch_with_the_lowest_validation_loss(tmp_path: Path) -> None:
    words = ("evaluate.rules=[val_nll, val, last]", FOUR, "optim.lr=0.2")
    summary = small_run(tmp_path, *words)
    losses = [row["val/nll"] for row in rows_of(folder_of(tmp_path, *words))]
    assert list(summary.rules) == ["last", "val", "val_nll"]
    assert summary.headline == "val"
    assert summary.rules["val_nll"].epoch == losses.index(min(losses)) + 1
    assert summary.rules["val_nll"].val is not None
    assert summary.rules["val_nll"].val["nll"] == pytest.approx(min(losses))
    assert f"rule val_nll: epoch {summary.rules['val_nll'].epoch} has the best val/nll on 24" in (
        summary.selection
    )


def test_a_run_may_keep_the_final_weights_alone(tmp_path: Path) -> None:
    words = ("evaluate.rules=[last]", "schedule.epochs=2")
    summary = small_run(tmp_path, *words)
    state = checkpoint.load_latest(folder_of(tmp_path, *words) / "checkpoints").state
    assert summary.headline == "last"
    assert set(summary.rules) == {"last"}
    assert summary.selection == "rule last: weights after epoch 2; test chose nothing"
    assert state is not None
    assert state["best"] == {}


def test_the_default_rules_and_their_order_are_no_part_of_the_identity() -> None:
    usual = fingerprint(load())
    assert fingerprint(load(overrides=["evaluate.rules=[val, last]"])) == usual
    assert fingerprint(load(overrides=["evaluate.rules=[last, val_nll]"])) != usual


def test_a_typo_in_a_rule_names_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"evaluate\.rules=.*one of last \| val \| val_nll"):
        load(overrides=["evaluate.rules=[last, vall]"])


# --- a rule that cannot choose --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            (
                "data.imbalance.factor=1",
                "data.imbalance.head=30",
                "evaluate.metric=val/few_accuracy",
            ),
            "evaluate.metric=val/few_accuracy: is undefined on this validation split: none of its "
            "classes has fewer than 20 training images; choose another metric",
        ),
        (
            ("evaluate.metric=val/many_accuracy",),
            "evaluate.metric=val/many_accuracy: is undefined on this validation split: none of its "
            "classes has more than 100 training images; choose another metric",
        ),
    ],
)
def test_a_metric_that_no_epoch_can_have_is_refused_before_training(
    tmp_path: Path, words: tuple[str, ...], line: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        small_run(tmp_path, *words)
    assert caught.value.mistakes == (line,)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            [None, None],
            "rule last: weights after epoch 2; rule val chose nothing: val/mcc is undefined in "
            "every epoch; test chose nothing",
        ),
        (
            [0.5, None],
            "rule val: epoch 1 has the best val/mcc on 8 validation labels (balanced); val/mcc is "
            "undefined in 1 of 2 epochs; test chose nothing",
        ),
    ],
)
def test_the_sentence_says_where_a_metric_is_undefined(
    values: list[float | None], sentence: str
) -> None:
    found = selection_of("schedule.epochs=2", "evaluate.metric=val/mcc")
    rows = [{"epoch": e, "val/mcc": v} for e, v in enumerate(values, start=1)]
    chosen = found.chosen(kept_of(found, rows), epochs=2, weights=dict)
    epochs = {name: kept.epoch for name, kept in chosen.items()}
    assert found.sentence(epochs, rows, HeldOut(8, is_balanced=True)) == sentence


# --- checkpoints of before ------------------------------------------------------------------------


def test_a_checkpoint_that_knew_the_rule_val_alone_resumes_bit_for_bit(tmp_path: Path) -> None:
    class Stop(Exception):  # noqa: N818 - nothing went wrong
        pass

    def report(epoch: int, row: object) -> None:
        if epoch == 2:
            raise Stop

    small_run(tmp_path / "whole")
    with pytest.raises(Stop):
        small_run(tmp_path / "old", report=report)
    checkpoints = folder_of(tmp_path / "old") / "checkpoints"
    state = torch.load(checkpoints / "last.pt", weights_only=True)
    state["best"] = state["best"]["val"]
    assert set(state["best"]) == {"epoch", "value", "state"}
    torch.save(state, checkpoints / "last.pt")
    assert trained.load_weights(checkpoints.parent, rule="val").epoch == state["best"]["epoch"]
    small_run(tmp_path / "old")
    assert_same_run(folder_of(tmp_path / "old"), folder_of(tmp_path / "whole"))


def test_a_checkpoint_of_before_without_validation_has_the_final_weights_alone(
    tmp_path: Path,
) -> None:
    words = ("data.validation.per_class=null", "schedule.epochs=1")
    small_run(tmp_path, *words)
    folder = folder_of(tmp_path, *words)
    state = torch.load(folder / "checkpoints" / "last.pt", weights_only=True)
    torch.save({**state, "best": None}, folder / "checkpoints" / "last.pt")
    assert trained.load_weights(folder).epoch == 1
    with pytest.raises(ConfigError, match="has no weights by rule val; it has those of last"):
        trained.load_weights(folder, rule="val")


# --- one class is a rule everywhere ---------------------------------------------------------------


def test_the_catalogue_read_from_the_source_is_that_of_the_classes() -> None:
    config = small_config(Path("runs"), f"evaluate.rules=[{', '.join(catalogue())}]")
    found = selection.rules_of(config)
    assert [rule.name for rule in found] == list(catalogue())
    for rule in found:
        facts = catalogue()[rule.name]
        assert facts.needs_validation == rule.needs_validation
        assert facts.meaning.lower() in " ".join((rule.__doc__ or "").lower().split())


SECOND = '''

class Second(Rule):
    """The second epoch, whatever it is worth."""

    name: ClassVar[str] = "second"
    needs_validation: ClassVar[bool] = True

    def update(self, kept, row, *, weights):
        """Keep the second epoch."""
        return {"epoch": 2, "value": 0.0, "state": weights()} if row["epoch"] == 2 else kept

    def sentence(self, epoch, rows, held_out):
        """Return in words what chose."""
        return f"rule second: epoch {epoch}, for a test"
'''


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of what a run and a table need, with one more class in one file."""
    for package in ("engine", "data", "losses", "models"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(components.ROOT / package, tmp_path / "copy" / package, ignore=ignored)
    for file in components.ROOT.glob("*.py"):
        shutil.copy(file, tmp_path / "copy")
    with (tmp_path / "copy/engine/training/selection.py").open("a", encoding="utf-8") as source:
        source.write(SECOND)
    return tmp_path / "copy"


def python(folder: Path, *arguments: str) -> str:
    """Run Python in the copy, and return what it printed."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_adding_a_rule_touches_one_file(copy: Path, tmp_path: Path) -> None:
    file = tmp_path / "second.yaml"
    file.write_text("evaluate: {rules: [last, val, second]}\n", encoding="utf-8")
    root = tmp_path / "runs"
    said = python(copy, "train.py", str(file), *small_words(root))
    (folder,) = (root / "synthetic").iterdir()
    assert re.search(r"last \(epoch 3\) +val \(epoch \d, headline\) +second \(epoch 2\)", said)
    assert "rule second: epoch 2, for a test" in said
    assert summary_of(folder)["rules"]["second"]["epoch"] == 2
    state = torch.load(folder / "checkpoints" / "last.pt", weights_only=True)
    assert set(state["best"]) == {"val", "second"}
    assert state["best"]["second"]["epoch"] == 2
    assert (folder / "predictions" / "test.second.npz").exists()

    script = (
        "import json, sys; from pathlib import Path\n"
        "from engine.tables.record import append, from_run_folder\n"
        "from engine.training.trained import load_run\n"
        "folder = Path(sys.argv[1])\n"
        "record = from_run_folder(folder, table='t', method='cross_entropy', setting='s',\n"
        "    words=[])\n"
        "append(Path(sys.argv[2]), record)\n"
        "print(json.dumps(load_run(folder, rule='second').epoch))"
    )
    results = tmp_path / "t.jsonl"
    assert json.loads(python(copy, "-c", script, str(folder), str(results))) == 2
    shown = python(copy, "-m", "engine.tables", str(results), "--rule", "second")
    accuracy = summary_of(folder)["rules"]["second"]["test"]["balanced_accuracy"]
    assert "rule second" in shown
    assert f"{100 * accuracy:.2f}" in shown or f"{accuracy:.3f}" in shown


def test_an_added_rule_is_in_the_help_and_in_what_a_typo_is_told(copy: Path) -> None:
    assert "one of last | val | val_nll | second" in " ".join(
        python(copy, "train.py", "--help", "evaluate.rules").split()
    )
    printed = python(copy, "train.py", "evaluate.rules=[second, last]", "--print-config")
    assert "rules:\n  - last\n  - second\n" in printed
