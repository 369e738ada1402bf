"""Classes learnt after others: what a run trains on, what its teacher says, what is tested."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

import data
import train
from engine.config.load import fingerprint, load, load_run_config
from engine.config.mistakes import ConfigError
from engine.config.schema import Config
from engine.report.terminal import Terminal
from engine.training import build, checkpoint, setup, trained
from engine.training.epoch_totals import EpochTotals
from engine.training.machine import machine
from engine.training.train_loop import Trainer
from engine.training.weights_hash import weights_hash
from tests._runs import (
    assert_same_run,
    folder_of,
    rows_of,
    small_config,
    small_run,
    summary_of,
    weights_of,
)

FIRST = ("data.classes=[0, 1]", "loss=balanced_softmax")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on the first two of four classes."""
    root = tmp_path_factory.mktemp("teacher")
    small_run(root, *FIRST)
    return folder_of(root, *FIRST)


def student_words(teacher: Path) -> tuple[str, ...]:
    return (
        "data.classes=[2, class3]",
        f"model.init_from={teacher}",
        f"teacher={teacher}",
        "loss=distillation",
    )


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory, teacher: Path) -> Path:
    """A finished run on the other two, with that teacher."""
    root = tmp_path_factory.mktemp("student")
    small_run(root, *student_words(teacher))
    return folder_of(root, *student_words(teacher))


def stored(folder: Path, split: str) -> Any:
    return np.load(folder / "predictions" / f"{split}.val.npz")


# --- some classes ---------------------------------------------------------------------------------


def test_a_run_on_some_classes_keeps_the_label_space_and_predicts_those_alone(
    teacher: Path,
) -> None:
    summary = summary_of(teacher)
    assert summary["class_counts"] == [40 - 6, 20, 0, 0]
    assert weights_of(teacher)["head.weight"].shape[0] == 4
    for split in ("val", "test"):
        assert set(stored(teacher, split)["targets"].tolist()) == {0, 1}
        assert stored(teacher, split)["logits"].shape[1] == 4
    result = summary["rules"]["val"]
    assert [row["support"] for row in result["classes"]] == [10, 10, 0, 0]
    assert [row["group"] for row in result["classes"]] == ["medium", "medium", None, None]
    assert result["test"]["few_accuracy"] is None
    assert summary["group_sizes"] == {"many": 0, "medium": 2, "few": 0}
    run = trained.load_run(teacher)
    images = setup.load_dataset(small_config(teacher, *FIRST)).test.images
    probabilities = run.predict(images)
    assert not probabilities[:, 2:].any()
    torch.testing.assert_close(probabilities.sum(1), torch.ones(20, dtype=torch.float64))


def test_samplers_and_class_weights_pass_over_the_classes_that_are_left_out(
    tmp_path: Path,
) -> None:
    words = (
        "data.classes=[0, 2, 3]",
        "sampler=class_balanced",
        "reweight=inverse",
        "schedule.epochs=1",
    )
    small_run(tmp_path, *words)
    (row,) = rows_of(folder_of(tmp_path, *words))
    drawn = row["train/class_histogram"]
    assert drawn[1] == 0
    assert min(drawn[0], drawn[2], drawn[3]) > 0
    assert row["val/recall"][1] is None


def test_mixup_goes_together_with_some_classes(tmp_path: Path, teacher: Path) -> None:
    words = (*student_words(teacher), "mixup.mixup=0.4", "schedule.epochs=1")
    small_run(tmp_path, *words)
    assert np.isfinite(rows_of(folder_of(tmp_path, *words))[0]["train/loss"])


# --- a teacher ------------------------------------------------------------------------------------


def test_a_student_is_tested_on_its_own_and_its_teachers_classes(student: Path) -> None:
    summary = summary_of(student)
    assert summary["class_counts"] == [0, 0, 10, 5]
    assert set(stored(student, "val")["targets"].tolist()) == {2, 3}
    assert set(stored(student, "test")["targets"].tolist()) == {0, 1, 2, 3}
    result = summary["rules"]["val"]
    recall = [row["recall"] for row in result["classes"]]
    assert result["test"]["old_accuracy"] == pytest.approx(np.mean(recall[:2]))
    assert result["test"]["new_accuracy"] == pytest.approx(np.mean(recall[2:]))
    assert "old_accuracy" not in result["val"]
    assert [row["group"] for row in result["classes"]] == [None, None, "few", "few"]
    assert summary["group_sizes"] == {"many": 0, "medium": 0, "few": 2, "old": 2, "new": 2}
    assert result["test"]["few_accuracy"] == pytest.approx(np.mean(recall[2:]))
    assert summary["title"] == "Synthetic (trained on 2 of 4 classes, tested on 4)"
    assert "the teacher knows 2 of 4 classes: class0, class1" in summary["notes"]


def test_the_teacher_sees_the_models_own_images_in_eval_mode_and_stays_as_it_was(
    tmp_path: Path, teacher: Path
) -> None:
    words = (*student_words(teacher), "data.augment.crop=2", "mixup.cutmix=1")
    config = small_config(tmp_path, *words)
    dataset = setup.load_dataset(config)
    trainer = trainer_of(config, dataset)
    assert trainer.teacher is not None
    before = weights_hash(trainer.teacher.state_dict())
    seen: dict[str, list[torch.Tensor]] = {"model": [], "teacher": []}

    def note(name: str) -> Any:
        def hook(module: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
            assert module.training == (name == "model")
            assert torch.is_grad_enabled() == (name == "model")
            seen[name].append(inputs[0].clone())

        return hook

    trainer.model.register_forward_pre_hook(note("model"))
    trainer.teacher.register_forward_pre_hook(note("teacher"))
    train_one_epoch(trainer, config, dataset)
    assert len(seen["teacher"]) == len(seen["model"]) > 0
    assert all(torch.equal(a, b) for a, b in zip(*seen.values(), strict=True))
    assert weights_hash(trainer.teacher.state_dict()) == before
    assert all(p.grad is None for p in trainer.teacher.parameters())
    assert not any(key.startswith("teacher") for key in trainer.state_dict())


def trainer_of(config: Config, dataset: data.LongTailed) -> Trainer:
    with machine(config.runtime) as computer:
        return setup.set_up(config, dataset, computer).trainer


def train_one_epoch(trainer: Trainer, config: Any, dataset: Any) -> None:
    loader = data.Loader(
        dataset.train,
        batch_size=config.optim.batch_size,
        mean=dataset.mean,
        std=dataset.std,
        device=torch.device("cpu"),
        seed=0,
        augment=build.augmentation(config),
    )
    positions = torch.arange(len(dataset.train))
    trainer.train_epoch(
        loader.epoch(positions, epoch=0),
        epoch=0,
        steps=loader.num_batches(len(positions)),
        totals=EpochTotals(),
    )


def test_distillation_learns_from_what_the_headline_weights_of_the_teacher_say(
    tmp_path: Path, teacher: Path
) -> None:
    config = small_config(tmp_path, *student_words(teacher))
    trainer = trainer_of(config, setup.load_dataset(config))
    assert trainer.teacher is not None
    wanted = trained.load_weights(teacher).state
    found = trainer.teacher.model.state_dict()
    assert all(torch.equal(found[key], value) for key, value in wanted.items())


def test_a_teacher_of_cosines_is_read_with_the_scale_of_its_own_loss(tmp_path: Path) -> None:
    words = ("loss=ldam", "model.head=cosine", "schedule.epochs=1")
    small_run(tmp_path, *words)
    folder = folder_of(tmp_path, *words)
    config = small_config(tmp_path, f"teacher={folder}", "loss=distillation")
    dataset = setup.load_dataset(config)
    teacher = trainer_of(config, dataset).teacher
    assert teacher is not None
    images = dataset.test.images
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (dataset.mean, dataset.std))
    said = teacher((images.float() / 255 - mean) / std).softmax(1)
    torch.testing.assert_close(
        said.double(), trained.load_run(folder).predict(images), atol=1e-5, rtol=1e-4
    )


def test_pieces_of_a_batch_make_the_steps_of_the_whole(tmp_path: Path, teacher: Path) -> None:
    words = (*student_words(teacher), "schedule.epochs=1", "model.freeze=true", "reweight=inverse")
    small_run(tmp_path, *words)
    small_run(tmp_path, *words, "optim.accumulate=4")
    whole = weights_of(folder_of(tmp_path, *words))
    pieces = weights_of(folder_of(tmp_path, *words, "optim.accumulate=4"))
    torch.testing.assert_close(pieces["head.weight"], whole["head.weight"], atol=1e-5, rtol=1e-4)


def test_a_third_run_keeps_what_the_first_two_learnt(tmp_path: Path, teacher: Path) -> None:
    """Teachers know what their own teachers knew."""
    six = ("data.num_classes=6", "data.validation.per_class=2", "schedule.epochs=1")
    folders: list[Path] = []
    for classes in ("[0, 1]", "[2, 3]", "[4, 5]"):
        words = [*six, f"data.classes={classes}"]
        if folders:
            words += ["loss=distillation", f"teacher={folders[-1]}"]
        small_run(tmp_path, *words)
        folders.append(folder_of(tmp_path, *words))
    assert set(stored(folders[2], "test")["targets"].tolist()) == set(range(6))
    assert trained.read_facts(folders[2])["taught_classes"] == [0, 1, 2, 3]
    assert trained.load_run(folders[2]).predict(torch.zeros(1, 1, 8, 8, dtype=torch.uint8)).all()


def test_a_teacher_of_all_classes_teaches_all(tmp_path: Path) -> None:
    small_run(tmp_path, "schedule.epochs=1")
    words = (f"teacher={folder_of(tmp_path, 'schedule.epochs=1')}", "loss=distillation")
    summary = small_run(tmp_path, *words, "schedule.epochs=1")
    assert "old_accuracy" not in summary.result.test
    assert summary.group_sizes.keys() == {"many", "medium", "few"}


def test_a_run_killed_inside_an_epoch_goes_on_with_its_teacher_bit_for_bit(
    tmp_path: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (
        *student_words(teacher),
        *("model.ema=0.9", "mixup.mixup=0.2", "data.augment.crop=1", "optim.batch_size=4"),
        "runtime.checkpoint_seconds=1e-9",
    )
    small_run(tmp_path / "whole", *words)
    saved: list[int] = []
    save = checkpoint.save

    def crashing_save(folder: Path, state: dict[str, Any]) -> None:
        save(folder, state)
        saved.append(state["totals"]["steps"])
        if len(saved) == 7:
            raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", crashing_save)
        with pytest.raises(ZeroDivisionError):
            small_run(tmp_path / "killed", *words)
    assert saved[-1] > 0
    small_run(tmp_path / "killed", *words)
    killed = folder_of(tmp_path / "killed", *words)
    assert len(json.loads((killed / "environment.json").read_text())["segments"]) == 2
    assert_same_run(killed, folder_of(tmp_path / "whole", *words))


def test_the_loaded_student_predicts_what_the_run_did(tmp_path: Path, student: Path) -> None:
    run = trained.load_run(student)
    dataset = setup.load_dataset(run.config)
    expected = torch.from_numpy(stored(student, "test")["logits"]).double().softmax(1)
    torch.testing.assert_close(run.predict(dataset.test.images), expected, atol=1e-5, rtol=1e-4)


def test_a_student_loads_where_its_teacher_is_gone(tmp_path: Path, teacher: Path) -> None:
    copy = tmp_path / "teacher"
    shutil.copytree(teacher, copy)
    words = (*student_words(copy), "schedule.epochs=1")
    small_run(tmp_path / "runs", *words)
    folder = folder_of(tmp_path / "runs", *words)
    images = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    before = trained.load_run(folder).predict(images)
    shutil.rmtree(copy)
    assert torch.equal(trained.load_run(folder).predict(images), before)
    with pytest.raises(ConfigError, match="not a run folder"):
        load([folder / "config.yaml"])


def test_the_terminal_says_what_was_trained_and_tested_and_splits_old_from_new(
    student: Path,
) -> None:
    out = io.StringIO()
    config = load_run_config(student)
    train.run(config, screen=Terminal(Console(file=out, width=200)))
    text = " ".join(out.getvalue().split())
    assert "Synthetic (trained on 2 of 4 classes, tested on 4): test by class" in text
    assert "tested on 4 of 4 classes: class0, class1, class2, class3" in text
    assert re.search(r"old classes \(2 classes\) +\d\.\d{3}", text)
    assert re.search(r"new classes \(2 classes\) +\d\.\d{3}", text)
    assert re.search(r"class0 +– +0 +\d\.\d{3}", text)


# --- identity -------------------------------------------------------------------------------------


def test_a_teacher_counts_as_the_run_it_is_wherever_it_lies(tmp_path: Path, teacher: Path) -> None:
    shutil.copytree(teacher, tmp_path / "copy")
    words = [f"teacher={teacher}", "loss=distillation"]
    here, there = (
        fingerprint(load(overrides=[f"teacher={path}", "loss=distillation"]))
        for path in (teacher, tmp_path / "copy")
    )
    assert here == there
    assert here != fingerprint(load(overrides=[*words, "loss.temperature=3"]))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.yaml").write_text("seed: 1\n", encoding="utf-8")
    other = load(overrides=[f"teacher={tmp_path / 'other'}", "loss=distillation"])
    assert fingerprint(other) != here


# --- mistakes -------------------------------------------------------------------------------------


def lines_of(root: Path, *words: str) -> tuple[str, ...]:
    """The mistakes of a run that must not begin."""
    with pytest.raises(ConfigError) as caught:
        small_run(root, *words)
    assert not list(root.glob("*/*"))
    return caught.value.mistakes


def test_a_loss_without_need_of_a_teacher_refuses_one(tmp_path: Path, teacher: Path) -> None:
    (line,) = lines_of(tmp_path, f"teacher={teacher}")
    assert line == "teacher: has no effect, cross_entropy needs no teacher"


def test_a_loss_in_need_of_a_teacher_asks_for_one(tmp_path: Path) -> None:
    (line,) = lines_of(tmp_path, "loss=distillation")
    assert line.startswith("teacher: loss=distillation needs it")


def test_a_teacher_that_is_no_run_is_named(tmp_path: Path) -> None:
    (line,) = lines_of(tmp_path, "loss=distillation", "teacher=nowhere")
    assert line.startswith("teacher=nowhere: not a run folder")


def test_a_teacher_that_is_still_training_is_refused(tmp_path: Path, teacher: Path) -> None:
    copy = tmp_path / "teacher"
    shutil.copytree(teacher, copy)
    (copy / "summary.json").unlink()
    (line,) = lines_of(tmp_path / "runs", *student_words(copy))
    assert line.startswith(f"teacher={copy}: is not finished")


def test_a_teacher_whose_config_was_edited_is_refused(tmp_path: Path, teacher: Path) -> None:
    copy = tmp_path / "teacher"
    shutil.copytree(teacher, copy)
    config = copy / "config.yaml"
    config.write_text(config.read_text().replace("lr: 0.05", "lr: 0.06"))
    lines = lines_of(tmp_path / "runs", *student_words(copy))
    assert any(line.startswith(f"teacher={copy}: not a run") for line in lines)
    assert all("was edited" in line for line in lines)


def test_a_teacher_without_its_environment_is_named(tmp_path: Path, teacher: Path) -> None:
    copy = tmp_path / "teacher"
    shutil.copytree(teacher, copy)
    (copy / "environment.json").unlink()
    (line,) = lines_of(tmp_path / "runs", *student_words(copy))
    assert line == f"{copy / 'environment.json'}: is missing or damaged; put it back"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("data.imbalance.factor=4",), "was trained on another split"),
        (("data.imbalance.seed=1",), "was trained on another split"),
        (("data.num_classes=5",), "was trained on other classes than those of Synthetic"),
        (("data.num_classes=3", "data.classes=[1, 2]", "data.test_classes=[0]"), "other classes"),
        (("data=digits",), "it knows the class 'class0', which Digits does not have"),
    ],
)
def test_a_teacher_of_other_data_is_refused(
    tmp_path: Path, teacher: Path, words: tuple[str, ...], message: str
) -> None:
    own = [w for w in student_words(teacher) if not w.startswith("model")]
    given = {w.partition("=")[0] for w in words}
    if words == ("data=digits",):
        own = [w for w in own if not w.startswith("data.")]
        config = load(overrides=["data=digits", *own, f"track.root={tmp_path}"])
        with pytest.raises(ConfigError, match=message):
            setup.load_dataset(config)
        return
    (line,) = lines_of(tmp_path, *(w for w in own if w.partition("=")[0] not in given), *words)
    assert line.startswith(f"teacher={teacher}")
    assert message in line


def test_a_teacher_with_one_output_cannot_teach_a_softmax_of_two(tmp_path: Path) -> None:
    two = ("data.num_classes=2", "schedule.epochs=1")
    small_run(tmp_path / "first", *two, "loss=binary_cross_entropy")
    teacher = folder_of(tmp_path / "first", *two, "loss=binary_cross_entropy")
    (line,) = lines_of(tmp_path / "second", *two, "loss=distillation", f"teacher={teacher}")
    assert line == f"teacher={teacher}: has 1 output, this model 2"


def test_a_teacher_that_was_trained_again_and_differs_stops_the_run(
    tmp_path: Path, teacher: Path
) -> None:
    copy = tmp_path / "teacher"
    shutil.copytree(teacher, copy)
    words = student_words(copy)

    class Stop(Exception):  # noqa: N818 - nothing went wrong
        pass

    def report(epoch: int, row: object) -> None:
        raise Stop

    with pytest.raises(Stop):
        small_run(tmp_path / "runs", *words, report=report)
    last = copy / "checkpoints" / "last.pt"
    found = checkpoint.load_latest(copy / "checkpoints")
    assert found.state is not None
    found.state["best"]["val"]["state"]["head.bias"] += 1
    last.unlink()
    checkpoint.save(copy / "checkpoints", found.state)
    with pytest.raises(ConfigError, match="began with other weights of its teacher"):
        small_run(tmp_path / "runs", *words)


@pytest.mark.parametrize("key", ["data.classes", "data.test_classes"])
def test_one_against_the_rest_has_no_classes_to_choose(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"{key}: cannot go with data\.one_vs_rest"):
        load(overrides=["data.one_vs_rest=2", f"{key}=[0]"])


@pytest.mark.parametrize("value", ["3", "[1.5]", "[true, 1]", "{a: 1}"])
def test_classes_are_a_list_of_names_or_numbers(value: str) -> None:
    with pytest.raises(ConfigError, match=r"data\.classes"):
        load(overrides=[f"data.classes={value}"])


def test_a_class_that_is_none_names_the_nearest(tmp_path: Path) -> None:
    (line,) = lines_of(tmp_path, "data.classes=[clas0, class1]")
    assert "data.classes='clas0' is not a class of Synthetic" in line
    assert "did you mean 'class0'?" in line


# --- post-hoc logit adjustment --------------------------------------------------------------------


def test_logits_are_adjusted_after_training_for_validation_test_and_loaded_models(
    tmp_path: Path,
) -> None:
    words = ("evaluate.logit_adjustment=1.5",)
    plain, adjusted = small_run(tmp_path), small_run(tmp_path, *words)
    before, folder = folder_of(tmp_path), folder_of(tmp_path, *words)
    assert before != folder
    weights, same = weights_of(before), weights_of(folder)
    assert all(torch.equal(weights[key], same[key]) for key in weights)
    logits = np.load(folder / "predictions" / "test.last.npz")["logits"].astype(np.float64)
    assert np.array_equal(logits, np.load(before / "predictions" / "test.last.npz")["logits"])
    share = np.array(adjusted.class_counts) / sum(adjusted.class_counts)
    by_hand = torch.from_numpy(logits - 1.5 * np.log(share)).softmax(1)
    targets = np.load(folder / "predictions" / "test.last.npz")["targets"]
    accuracy = (by_hand.argmax(1).numpy() == targets).mean()
    assert adjusted.rules["last"].test["accuracy"] == pytest.approx(accuracy)
    nll = -by_hand[torch.arange(40), torch.from_numpy(targets)].log().mean().item()
    assert adjusted.rules["last"].test["nll"] == pytest.approx(nll)
    assert plain.rules["last"].test["nll"] != pytest.approx(nll)
    assert rows_of(before)[-1]["val/nll"] != pytest.approx(rows_of(folder)[-1]["val/nll"])
    assert any("predictions use logits - 1.5 log" in note for note in adjusted.notes)
    run = trained.load_run(folder, rule="last")
    images = setup.load_dataset(run.config).test.images
    torch.testing.assert_close(run.predict(images), by_hand, atol=1e-5, rtol=1e-4)


def test_one_output_is_adjusted_by_the_odds_of_its_two_classes(tmp_path: Path) -> None:
    words = (
        *("data.one_vs_rest=3", "loss=binary_cross_entropy", "evaluate.logit_adjustment=1"),
        "schedule.epochs=1",
    )
    summary = small_run(tmp_path, *words)
    folder = folder_of(tmp_path, *words)
    logits = np.load(folder / "predictions" / "test.last.npz")["logits"].astype(np.float64)
    rest, positive = summary.class_counts
    run = trained.load_run(folder, rule="last")
    images = setup.load_dataset(run.config).test.images
    expected = 1 / (1 + np.exp(-(logits[:, 1] - np.log(positive / rest))))
    np.testing.assert_allclose(run.predict(images)[:, 1], expected, atol=1e-5)


UNIFORM = (
    "balanced_binary_cross_entropy",
    "balanced_softmax",
    "lade",
    "logit_adjustment",
    "vector_scaling",
)


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        *((f"loss={name}", f"{name} already fits a uniform prior") for name in UNIFORM),
        ("reweight=inverse", "reweight.scheme=inverse already balances training"),
        ("sampler=class_balanced", "sampler.name=class_balanced already balances training"),
    ],
)
def test_what_is_balanced_already_is_not_adjusted_again(word: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(overrides=["evaluate.logit_adjustment=1", word])
    assert caught.value.mistakes == (f"evaluate.logit_adjustment=1: adjusts twice, {reason}",)


def test_a_class_without_training_images_has_no_prior_to_adjust_by(
    tmp_path: Path, teacher: Path
) -> None:
    (line,) = lines_of(tmp_path, *student_words(teacher), "evaluate.logit_adjustment=1")
    assert "class class0 can be predicted but has no training image here" in line
