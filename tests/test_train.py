"""One run, as a user would start it: what it writes, what it chooses by, what it refuses."""

from __future__ import annotations

import dataclasses
import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import train
from engine.config.components import ROOT
from engine.config.load import dump, fingerprint, load
from engine.config.mistakes import ConfigError
from engine.training import setup, trained
from engine.training.divergence import NonFiniteLossError, NonFiniteWeightsError
from engine.training.train_loop import Trainer
from tests._runs import (
    assert_same_run,
    folder_of,
    quiet_screen,
    rows_of,
    small_config,
    small_run,
    small_words,
    summary_of,
    weights_of,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def finished(root: Path) -> Path:
    """The folder of one finished small run."""
    small_run(root, "track.figures=true")
    return folder_of(root)


# --- the run folder -------------------------------------------------------------------------------


def test_a_run_folder_explains_itself(finished: Path) -> None:
    files = {p.relative_to(finished).as_posix() for p in finished.rglob("*") if p.is_file()}
    figures = {"confusion_matrix", "recall_by_class_count", "curves", "reliability"}
    expected = {"config.yaml", "environment.json", "metrics.jsonl", "summary.json", "lock"}
    expected |= {"parameters.json", "checkpoints/last.pt"}
    expected |= {f"predictions/{s}.{rule}.npz" for s in ("val", "test") for rule in ("last", "val")}
    expected |= {f"figures/{name}.{kind}" for name in figures for kind in ("png", "pdf")}
    assert files == expected


def test_config_yaml_of_a_run_loads_to_the_same_run(finished: Path) -> None:
    again = load([finished / "config.yaml"])
    assert fingerprint(again) == finished.name
    assert dump(again) == (finished / "config.yaml").read_text()


def test_metrics_jsonl_has_one_line_an_epoch_with_what_was_really_drawn(finished: Path) -> None:
    rows = rows_of(finished)
    counts = summary_of(finished)["class_counts"]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert all(row["train/class_histogram"] == counts for row in rows)
    assert all(len(row["val/recall"]) == 4 for row in rows)
    assert not any(key.startswith("test/") for row in rows for key in row)


def test_stored_predictions_give_the_numbers_of_the_summary(finished: Path) -> None:
    stored = np.load(finished / "predictions" / "test.val.npz")
    accuracy = (stored["logits"].argmax(1) == stored["targets"]).mean()
    assert stored["index"].tolist() == list(range(40))
    assert summary_of(finished)["rules"]["val"]["test"]["accuracy"] == pytest.approx(accuracy)


def test_the_rule_val_is_the_earliest_best_epoch_on_validation(finished: Path) -> None:
    values = [row["val/balanced_accuracy"] for row in rows_of(finished)]
    summary = summary_of(finished)
    assert summary["headline"] == "val"
    assert summary["rules"]["val"]["epoch"] == values.index(max(values)) + 1
    assert summary["rules"]["last"]["epoch"] == 3


def test_environment_json_says_what_made_it(finished: Path) -> None:
    environment = json.loads((finished / "environment.json").read_text())
    (segment,) = environment["segments"]
    assert environment["fingerprint"] == finished.name
    assert environment["split_fingerprint"] == summary_of(finished)["split_fingerprint"]
    assert segment["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert (segment["threads"], segment["precision"], segment["device"]) == (1, "float32", "cpu")
    assert segment["from_epoch"] == segment["from_step"] == 0


def test_load_run_gives_the_stored_predictions_back(finished: Path) -> None:
    run = trained.load_run(finished)
    dataset = setup.load_dataset(run.config)
    found = run.predict(dataset.test.images)
    stored = torch.from_numpy(np.load(finished / "predictions" / "test.val.npz")["logits"])
    assert torch.allclose(found, stored.double().softmax(1), atol=1e-5)
    assert run.class_names == dataset.class_names
    assert run.epoch == summary_of(finished)["rules"]["val"]["epoch"]


def test_load_run_takes_the_weights_of_the_rule_that_was_asked_for(finished: Path) -> None:
    last = trained.load_run(finished, rule="last")
    final = weights_of(finished)
    assert all(torch.equal(final[k], v) for k, v in last.model.state_dict().items())


def test_load_run_of_no_run_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        trained.load_run(tmp_path)


# --- selection ------------------------------------------------------------------------------------


def test_poisoned_test_labels_change_test_numbers_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever looked at test before the end would choose other weights here."""
    words = ("evaluate.test_every_epoch=true", "schedule.epochs=4")
    small_run(tmp_path / "honest", *words)
    load_dataset = setup.load_dataset

    def poisoned(config: object) -> object:
        dataset = load_dataset(config)  # type: ignore[arg-type]
        wrong = (dataset.test.targets + 1) % dataset.num_classes
        return dataclasses.replace(dataset, test=dataclasses.replace(dataset.test, targets=wrong))

    monkeypatch.setattr(setup, "load_dataset", poisoned)
    small_run(tmp_path / "poisoned", *words)
    honest = folder_of(tmp_path / "honest", *words)
    other = folder_of(tmp_path / "poisoned", *words)
    a, b = (torch.load(f / "checkpoints" / "last.pt", weights_only=True) for f in (honest, other))
    kept, wrong = a["best"]["val"], b["best"]["val"]
    assert kept["epoch"] == wrong["epoch"]
    assert all(torch.equal(v, wrong["state"][k]) for k, v in kept["state"].items())
    rules, wrong_rules = summary_of(honest)["rules"], summary_of(other)["rules"]
    assert rules["val"]["val"] == wrong_rules["val"]["val"]
    assert rules["val"]["test"] != wrong_rules["val"]["test"]


def test_the_oracle_is_read_off_the_log_and_shown_beside_the_headline(tmp_path: Path) -> None:
    summary = small_run(tmp_path, "evaluate.test_every_epoch=true")
    folder = folder_of(tmp_path, "evaluate.test_every_epoch=true")
    values = [row["test/balanced_accuracy"] for row in rows_of(folder)]
    assert summary.oracle is not None
    assert summary.oracle.value == max(values)
    assert summary.oracle.epoch == values.index(max(values)) + 1
    assert summary.oracle.headline_value == summary.result.test["balanced_accuracy"]
    assert set(summary.rules) == {"last", "val"}


def test_without_validation_only_the_final_weights_are_a_result(tmp_path: Path) -> None:
    words = ("data.validation.per_class=null",)
    summary = small_run(tmp_path, *words)
    assert summary.headline == "last"
    assert set(summary.rules) == {"last"}
    assert "no validation labels were used" in summary.selection
    assert not (folder_of(tmp_path, *words) / "predictions" / "val.last.npz").exists()


def test_the_metric_that_selects_can_be_one_to_minimise(tmp_path: Path) -> None:
    words = ("evaluate.metric=val/nll",)
    summary = small_run(tmp_path, *words)
    values = [row["val/nll"] for row in rows_of(folder_of(tmp_path, *words))]
    assert summary.result.epoch == values.index(min(values)) + 1


# --- again, and not again -------------------------------------------------------------------------


def test_a_finished_run_is_not_repeated(root: Path, finished: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()}
    again = small_run(root)
    assert again.model_dump(mode="json") == json.loads((finished / "summary.json").read_text())
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()} == before


def test_fresh_runs_again_and_keeps_the_old_folder(tmp_path: Path) -> None:
    small_run(tmp_path, "schedule.epochs=1")
    folder = folder_of(tmp_path, "schedule.epochs=1")
    old = (folder / "environment.json").read_text()
    small_run(tmp_path, "schedule.epochs=1", fresh=True)
    aside = folder.with_name(f"{folder.name}.old-1")
    assert (aside / "environment.json").read_text() == old
    assert (folder / "environment.json").read_text() != old
    assert rows_of(aside) == rows_of(folder)


def test_the_same_seed_gives_the_same_run_and_another_seed_another(
    tmp_path: Path, finished: Path
) -> None:
    small_run(tmp_path)
    small_run(tmp_path, "seed=1")
    assert rows_of(folder_of(tmp_path)) == rows_of(finished)
    assert rows_of(folder_of(tmp_path, "seed=1")) != rows_of(finished)
    assert (
        summary_of(folder_of(tmp_path, "seed=1"))["split_fingerprint"]
        == summary_of(finished)["split_fingerprint"]
    )


def test_a_run_leaves_the_global_generators_as_they_were(tmp_path: Path) -> None:
    random.seed(1)
    np.random.seed(2)  # noqa: NPY002 - the state that must not be disturbed
    torch.manual_seed(3)
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # noqa: NPY002
    small_run(tmp_path, "schedule.epochs=1", "mixup.mixup=0.2")
    after = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # noqa: NPY002
    assert before == after


def write_photos(folder: Path, **counts: int) -> None:
    """Two classes of noise, ``counts`` images of each in each split."""
    generator = np.random.default_rng(0)
    for split, count in counts.items():
        for name in ("cat", "dog"):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(0, 255, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{i}.png")


def photo_words(tmp_path: Path, *words: str) -> list[str]:
    """Words of a small run on the photos."""
    common = [word for word in small_words(tmp_path / "runs") if not word.startswith("data")]
    return [*common, "data=image_folder", f"data.path={tmp_path / 'photos'}", *words]


def test_data_that_changed_under_a_run_are_refused(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", train=6, test=2)
    config = load(overrides=photo_words(tmp_path))
    train.run(config, screen=quiet_screen())
    changed = tmp_path / "photos" / "train" / "cat" / "0.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(changed)
    with pytest.raises(ConfigError, match=r"was made on split \w+, the data now give \w+"):
        train.run(config, screen=quiet_screen())


def test_a_val_folder_is_the_validation_split_and_keys_beside_it_have_no_effect(
    tmp_path: Path,
) -> None:
    write_photos(tmp_path / "photos", train=4, val=3, test=2)
    summary = train.run(load(overrides=photo_words(tmp_path)), screen=quiet_screen())
    assert summary.class_counts == (4, 4)
    assert "on 6 validation labels" in summary.selection
    config = load(overrides=photo_words(tmp_path, "data.validation.fraction=0.5"))
    with pytest.raises(ConfigError, match=r"data\.validation: has no effect"):
        train.run(config, screen=quiet_screen())


@pytest.mark.slow
def test_two_processes_cannot_write_one_run(tmp_path: Path) -> None:
    from engine.training.run_folder import RunFolder

    folder = folder_of(tmp_path)
    with RunFolder(folder).owned():
        done = subprocess.run(
            [sys.executable, "train.py", *small_words(tmp_path)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert "is writing this run" in done.stderr
    assert len(done.stderr.splitlines()) == 1


# --- mistakes that only the data or timm reveal ---------------------------------------------------


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["optim.name=sdg"], "optim.name=sdg: timm has no such optimizer (did you mean sgd?)"),
        (["model.name=cifar_resnet21"], "did you mean"),
        (["optim=adamw", "optim.momentum=0.5"], "optim.momentum=0.5: has no effect"),
        (["runtime.workers=0"], "runtime.workers=0: has no effect, the images"),
        (["data.num_train_per_class=8", "data.validation.per_class=8"], "validation"),
        (["runtime.device=cuda:99"], "runtime.device=cuda:99: not on this machine"),
        (
            ["loss=softmax_focal", "loss.alpha=[1, 2]"],
            "alpha must be 4 numbers, one for each class, not 2",
        ),
        (
            ["data.one_vs_rest=3", "loss=binary_cross_entropy", "loss.pos_weight=[1, 30]"],
            "pos_weight must be 1 number, one for each output, not 2",
        ),
        (
            ["reweight=explicit", "reweight.weights=[0, 1, 1, 1]"],
            "weights must be above 0 for classes with training images: class 0 has",
        ),
    ],
)
def test_late_mistakes_are_one_line_and_leave_no_folder(
    tmp_path: Path, words: list[str], reason: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        small_run(tmp_path, *words)
    (line,) = caught.value.mistakes
    assert reason in line
    assert "\n" not in line
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_is_not_finite_stops_the_run_and_says_where(tmp_path: Path) -> None:
    words = ("optim.lr=1e25", "schedule=constant", "schedule.warmup=0")
    with pytest.raises(NonFiniteLossError, match=r"step \d+: .* classes in the batch") as caught:
        small_run(tmp_path, *words)
    assert any("checkpoint" in note for note in caught.value.__notes__)
    checkpoint = folder_of(tmp_path, *words) / "checkpoints" / "last.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        assert all(torch.isfinite(v).all() for v in state["model"].values())


# --- every axis reaches the run -------------------------------------------------------------------

AXES = {
    "loss": ["loss=softmax_focal"],
    "loss key": ["loss=cross_entropy", "loss.label_smoothing=0.1"],
    "sigmoid loss": ["loss=sigmoid_focal"],
    "reweight": ["reweight=inverse"],
    "deferred reweight": ["reweight=inverse", "reweight.start=0.5"],
    "sampler": ["sampler=class_balanced"],
    "deferred sampler": ["sampler=class_balanced", "sampler.start=0.5"],
    "head": ["model.head=cosine"],
    "norm": ["model.norm=group"],
    "backbone": ["model.name=resnet10t"],
    "freeze": ["model.init_from={finished}", "model.freeze=true"],
    "ema": ["model.ema=0.9"],
    "mixup": ["mixup.mixup=0.4"],
    "cutmix": ["mixup.cutmix=1.0"],
    "augment": ["data.augment.crop=1"],
    "clip": ["optim.clip_norm=0.01"],
    "optimizer": ["optim=adamw"],
    "momentum": ["optim.momentum=0.5"],
    "weight decay": ["optim.weight_decay=0.05"],
    "accumulate": ["optim.accumulate=2"],
    "schedule": ["schedule=constant"],
    "unit": ["schedule.unit=epoch"],
    "precision": ["runtime.precision=bfloat16"],
    "subset": ["data.imbalance.seed=1"],
}


@pytest.mark.parametrize("axis", AXES)
def test_every_axis_changes_the_run(tmp_path: Path, finished: Path, axis: str) -> None:
    words = [word.format(finished=finished) for word in AXES[axis]]
    summary = small_run(tmp_path, *words)
    folder = folder_of(tmp_path, *words)
    assert len(rows_of(folder)) == 3
    assert summary.fingerprint != finished.name
    assert rows_of(folder) != rows_of(finished)


def test_deferred_weights_leave_the_epochs_before_alone(tmp_path: Path, finished: Path) -> None:
    words = ("reweight=inverse", "reweight.start=0.6")
    small_run(tmp_path, *words)
    deferred, plain = rows_of(folder_of(tmp_path, *words)), rows_of(finished)
    assert deferred[:2] == plain[:2]
    assert deferred[2]["train/loss"] != plain[2]["train/loss"]


def test_a_deferred_sampler_shows_in_the_realised_histogram(tmp_path: Path, finished: Path) -> None:
    words = ("sampler=class_balanced", "sampler.start=0.6", "optim.batch_size=16")
    summary = small_run(tmp_path, *words)
    histograms = [row["train/class_histogram"] for row in rows_of(folder_of(tmp_path, *words))]
    counts = list(summary.class_counts)
    assert histograms[0] == histograms[1] == counts
    assert histograms[2] != counts
    assert max(histograms[2]) - min(histograms[2]) < max(counts) - min(counts)


def test_accumulated_pieces_have_the_gradient_of_the_whole_batch(tmp_path: Path) -> None:
    """With GroupNorm no sample sees another, so the pieces must add up."""
    same = ("model.norm=group", "schedule.epochs=1")
    small_run(tmp_path, *same)
    small_run(tmp_path, *same, "optim.accumulate=4")
    whole = rows_of(folder_of(tmp_path, *same))[0]
    pieces = rows_of(folder_of(tmp_path, *same, "optim.accumulate=4"))[0]
    assert pieces["train/loss"] == pytest.approx(whole["train/loss"], rel=1e-4)
    assert pieces["train/grad_norm"] == pytest.approx(whole["train/grad_norm"], rel=1e-3)


def test_the_logged_rate_follows_the_schedule(tmp_path: Path) -> None:
    """The rate falls at the start of the second and of the third epoch."""
    words = ("schedule=steps", "schedule.steps=[0.33, 0.66]", "schedule.warmup=0")
    small_run(tmp_path, *words)
    rates = [row["lr"] for row in rows_of(folder_of(tmp_path, *words))]
    assert rates == pytest.approx([0.05, 0.005, 0.0005])


def test_averaged_weights_are_what_is_evaluated(tmp_path: Path) -> None:
    words = ("model.ema=0.5", "track.keep_checkpoints=true")
    small_run(tmp_path, *words)
    folder = folder_of(tmp_path, *words)
    state = torch.load(folder / "checkpoints" / "last.pt", weights_only=True)
    last = trained.load_run(folder, rule="last")
    found = last.model.state_dict()
    assert all(torch.equal(found[k], v) for k, v in state["ema"].items())
    assert any(not torch.equal(state["model"][k], v) for k, v in state["ema"].items())


def test_a_binary_task_with_a_sigmoid_loss_has_one_output(tmp_path: Path) -> None:
    words = ("data.one_vs_rest=2", "loss=sigmoid_focal", "loss.alpha=0.25")
    summary = small_run(tmp_path, *words)
    folder = folder_of(tmp_path, *words)
    stored = np.load(folder / "predictions" / "test.val.npz")["logits"]
    assert weights_of(folder)["head.weight"].shape[0] == 1
    assert (stored[:, 0] == 0).all()
    assert (stored[:, 1] != 0).any()
    assert {"auroc", "average_precision", "f1_at_threshold"} <= summary.result.test.keys()


def test_classifier_retraining_starts_from_a_run_and_freezes_its_backbone(
    tmp_path: Path, finished: Path
) -> None:
    words = (
        f"model.init_from={finished}",
        "model.init_head=false",
        "model.freeze=true",
        "sampler=class_balanced",
    )
    small_run(tmp_path, *words)
    old = trained.load_weights(finished).state
    new = weights_of(folder_of(tmp_path, *words))
    assert all(torch.equal(old[k], v) for k, v in new.items() if not k.startswith("head."))
    assert not torch.equal(old["head.weight"], new["head.weight"])


def test_report_is_told_every_epoch_and_may_end_the_run(tmp_path: Path) -> None:
    told: list[int] = []

    class Pruned(Exception):  # noqa: N818 - named as a search library names it
        pass

    def report(epoch: int, row: object) -> None:
        told.append(epoch)
        if epoch == 2:
            raise Pruned

    with pytest.raises(Pruned):
        small_run(tmp_path, report=report)
    assert told == [1, 2]
    assert len(rows_of(folder_of(tmp_path))) == 2
    assert small_run(tmp_path).rules["last"].epoch == 3


def test_oracle_rule_has_no_word_in_the_config() -> None:
    with pytest.raises(ConfigError, match="val/"):
        small_config(Path("x"), "evaluate.metric=test/accuracy")


# --- precision, memory ----------------------------------------------------------------------------


@pytest.mark.slow
def test_float16_scales_its_loss_and_resumes_with_the_scale(tmp_path: Path) -> None:
    words = (
        *("runtime.precision=float16", "runtime.deterministic=true"),
        "track.keep_checkpoints=true",
    )
    small_run(tmp_path / "whole", *words)
    whole = folder_of(tmp_path / "whole", *words)
    state = torch.load(whole / "checkpoints" / "last.pt", weights_only=True)
    assert state["scaler"]["scale"] > 1

    class Stop(Exception):  # noqa: N818 - nothing went wrong
        pass

    def stop(epoch: int, row: object) -> None:
        raise Stop

    with pytest.raises(Stop):
        small_run(tmp_path / "stopped", *words, report=stop)
    small_run(tmp_path / "stopped", *words)
    assert_same_run(folder_of(tmp_path / "stopped", *words), whole)
    losses = [row["train/loss"] for row in rows_of(whole)]
    small_run(tmp_path / "usual")
    usual = [row["train/loss"] for row in rows_of(folder_of(tmp_path / "usual"))]
    # The first steps are left out until the scale fits, so the two runs differ a little in length.
    assert losses[0] == pytest.approx(usual[0], rel=0.25)
    assert losses[0] != usual[0]
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["optim.batch_size=48"], "optim.accumulate=2 keeps the batch"),
        (["optim.batch_size=48", "model.norm=group"], "needs less memory, in evaluation too"),
        (["optim.batch_size=48", "optim.accumulate=4"], "optim.accumulate=8 keeps the batch"),
        (["optim.batch_size=3", "optim.accumulate=3"], "no smaller piece is left"),
        (["loss=dice", "optim.batch_size=48"], "dice cannot be computed in pieces of a batch"),
    ],
)
def test_without_memory_on_the_gpu_the_next_batch_size_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    advice: str,
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr("engine.training.train_loop.Trainer._step", full)
    assert train.main(small_words(tmp_path, *words)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("out of GPU memory with optim.batch_size=")
    assert advice in line
    has_norms = "model.norm=group" not in words
    assert ("BatchNorm uses the statistics of each piece" in line) == (
        has_norms and "keeps the batch" in line
    )


def test_a_seed_that_diverges_is_named_and_left_out_of_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check_weights = Trainer.check_weights

    def check(trainer: Trainer) -> None:
        if trainer.seed == 1:
            raise NonFiniteWeightsError("epoch 1: not finite")
        check_weights(trainer)

    monkeypatch.setattr(Trainer, "check_weights", check)
    words = small_words(tmp_path, "schedule.epochs=1", "model=cifar_resnet8")
    assert train.main([*words, "seed=1", "--seeds", "1"]) == 1
    assert not list(tmp_path.rglob("seeds-*.md"))
    capsys.readouterr()
    assert train.main([*words, "--seeds", "3"]) == 1
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert line.startswith("seed=1; epoch 1: not finite; no checkpoint was made; ")
    (file,) = tmp_path.rglob("seeds-*.md")
    assert "over 2 seeds" in file.read_text(encoding="utf-8")
    for text in (out, file.read_text(encoding="utf-8")):
        assert "n = 2 of 3: left out, as it diverged: seed 1" in text


@pytest.mark.parametrize(
    ("ranks", "is_said"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"RANK": "4", "LOCAL_RANK": "0"}, True),
        ({"RANK": "5", "LOCAL_RANK": "1"}, False),
        ({"RANK": "1"}, False),
    ],
)
def test_a_mistake_is_said_once_on_each_machine(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    ranks: dict[str, str],
    *,
    is_said: bool,
) -> None:
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, rank in ranks.items():
        monkeypatch.setenv(name, rank)
    assert train.main(["sed=1"]) == 2
    assert bool(capsys.readouterr().err) == is_said
