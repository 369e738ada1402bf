"""What a run makes of the facts of its loss: notes, and what several processes may share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engine.config.load import load
from engine.config.mistakes import ConfigError
from engine.training import build, notes
from engine.training.processes import Processes
from engine.training.trained import load_run
from tests._runs import small_config, small_run


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["loss=balanced_softmax", "sampler=class_balanced"],
            ["balanced_softmax fits a uniform prior by itself, sampler.name=class_balanced"],
        ),
        (
            ["loss=vector_scaling", "reweight=inverse", "sampler=square_root"],
            ["sampler.name=square_root balances", "reweight.scheme=inverse balances"],
        ),
        (
            ["reweight=inverse", "sampler=class_balanced"],
            ["sampler.name=class_balanced and reweight.scheme=inverse each balance training"],
        ),
        (["reweight=inverse"], []),
        (["loss=logit_adjustment", "loss.tau=0", "sampler=class_balanced"], []),
        (["loss=balanced_softmax"], []),
        (["loss=ldam", "model.head=cosine", "reweight=inverse"], []),
        (["model.head=cosine"], ["cosines, -1 to 1, which cross_entropy does not scale"]),
    ],
)
def test_what_is_balanced_twice_or_never_sure_is_noted(
    words: list[str], expected: list[str]
) -> None:
    found = notes.notes(load(overrides=words))
    assert len(found) == len(expected)
    assert all(text in note for text, note in zip(expected, found, strict=True))


def test_a_note_reaches_the_summary(tmp_path: Path) -> None:
    summary = small_run(tmp_path, "model.head=cosine", "schedule.epochs=1")
    assert any("no prediction is sure (model.head=cosine)" in note for note in summary.notes)


def test_processes_cannot_share_a_batch_that_a_loss_compares_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Processes, "current", staticmethod(lambda: Processes(0, 2)))
    config = small_config(tmp_path, "loss=tversky")
    dataset = build.build_dataset(config)
    with pytest.raises(ConfigError, match="loss=tversky: compares a batch as a whole, and 2 proc"):
        build.build_trainer(config, dataset, device=torch.device("cpu"))


def test_a_warm_up_that_never_comes_is_noted_before_training(tmp_path: Path) -> None:
    words = ["schedule.unit=epoch", "schedule.warmup=0.1", "schedule.epochs="]
    for epochs in (10, 9):
        config = small_config(tmp_path, *words[:2], f"{words[2]}{epochs}")
        said = notes.opening_notes(config, build.build_dataset(config), num_steps=1)
        assert any("0.9 of an epoch" in line for line in said) == (epochs == 9)


def test_a_rate_that_never_falls_is_noted_before_training(tmp_path: Path) -> None:
    words = ["schedule=steps", "schedule.unit=epoch", "schedule.steps=[0.5,0.9]"]
    expected = "schedule.steps=0.9: never begins, the last of 5 epochs starts at 0.8 of training"
    for epochs in (10, 5):
        config = small_config(tmp_path, *words, f"schedule.epochs={epochs}")
        said = notes.opening_notes(config, build.build_dataset(config), num_steps=1)
        assert (expected in said) == (epochs == 5)


def test_mixing_where_no_process_has_two_images_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(tmp_path, "optim.batch_size=4", "mixup.cutmix=1", "schedule.epochs=1")
    dataset = build.build_dataset(config)
    monkeypatch.setattr(Processes, "current", staticmethod(lambda: Processes(0, 4)))
    with pytest.raises(ConfigError, match=r"^mixup\.cutmix=1: has no effect, each process has one"):
        build.build_trainer(config, dataset, device=torch.device("cpu"))


@pytest.mark.parametrize(
    "words",
    [
        ["reweight=power", "reweight.power=1e300"],
        ["reweight=explicit", "reweight.weights=[1, 1, 1, 1e-60]"],
        ["reweight=explicit", "reweight.weights=[1, 1, 1, 1e60]"],
    ],
)
def test_class_weights_that_float32_cannot_hold_are_refused_before_the_run(
    tmp_path: Path, words: list[str]
) -> None:
    with pytest.raises(ConfigError, match=r"the weight .*, which is 0 or infinite in float32"):
        small_run(tmp_path, *words)
    assert list(tmp_path.iterdir()) == []


# Four classes of 34, 17, 8 and 4 images in training.
NAMED = "reweight.weights={class1: 2, class0: 1, class3: 8, class2: 4}"


def test_class_weights_by_name_are_those_of_a_list_in_label_order(tmp_path: Path) -> None:
    words = [(NAMED,), ("reweight.weights=[1, 2, 4, 8]",)]
    configs = [small_config(tmp_path, "reweight=explicit", *own) for own in words]
    dataset = build.build_dataset(configs[0])
    named, listed = (build.build_class_weights(config, dataset) for config in configs)
    assert named is not None
    assert listed is not None
    assert torch.equal(named, listed)
    assert notes.listed_weights(configs[0], dataset, named) == (
        "class weights in label order: 0_class0 1, 1_class1 2, 2_class2 4, 3_class3 8",
    )
    usual = small_config(tmp_path, "reweight=inverse")
    weights = build.build_class_weights(usual, dataset)
    assert notes.listed_weights(usual, dataset, weights) == ()


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ("class0: 1, class1: 2", ": has no number for class2, class3: give one for every class"),
        ("class0: 1, clas1: 2", "='clas1' is not a class of .*; did you mean 'class1'"),
        ("class0: 1, '0': 2", r": names class '0' \(0\) twice"),
    ],
)
def test_class_weights_of_other_names_are_refused(
    tmp_path: Path, weights: str, reason: str
) -> None:
    words = ("reweight=explicit", f"reweight.weights={{{weights}}}")
    config = small_config(tmp_path, *words)
    dataset = build.build_dataset(config)
    with pytest.raises(ConfigError, match=f"^reweight.weights{reason}"):
        build.build_class_weights(config, dataset)


def test_loss_values_by_name_are_those_of_a_list_in_label_order(tmp_path: Path) -> None:
    values = ("{class1: 2, class0: 1, class3: 8, class2: 4}", "[1, 2, 4, 8]")
    for loss, key in (("softmax_focal", "alpha"), ("binary_cross_entropy", "pos_weight")):
        configs = [small_config(tmp_path, f"loss={loss}", f"loss.{key}={v}") for v in values]
        dataset = build.build_dataset(configs[0])
        counts = torch.from_numpy(dataset.class_counts)
        made = [build.build_loss(config, counts, dataset.class_names) for config in configs]
        assert [getattr(loss, key).tolist() for loss in made] == [[1, 2, 4, 8]] * 2
        assert notes.listed_loss_values(configs[0], dataset) == (
            f"loss.{key} in label order: 0_class0 1, 1_class1 2, 2_class2 4, 3_class3 8",
        )


def test_the_one_output_of_two_classes_has_the_value_of_its_positive_class(tmp_path: Path) -> None:
    words = ("data.one_vs_rest=class3", "loss=binary_cross_entropy")
    config = small_config(tmp_path, *words, "loss.pos_weight={class3: 30}")
    dataset = build.build_dataset(config)
    counts = torch.from_numpy(dataset.class_counts)
    loss = build.build_loss(config, counts, dataset.class_names)
    assert loss.pos_weight is not None
    assert loss.pos_weight.tolist() == [30]
    assert notes.listed_loss_values(config, dataset) == ("loss.pos_weight: 30 for class3",)
    other = small_config(tmp_path, *words, "loss.pos_weight={rest: 1, class3: 30}")
    with pytest.raises(
        ConfigError, match=r"one number, of its positive class class3; leave 'rest'"
    ):
        build.build_loss(other, counts, dataset.class_names)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ("class0: 1, class1: 2", ": has no number for class2, class3: give one for every class"),
        ("class0: 1, clas1: 2", "='clas1' is not a class of .*; did you mean 'class1'"),
        ("0: 0, 1: 0, 2: 0, 3: 0", ": every number is 0, and nothing would be learned"),
    ],
)
def test_loss_values_that_do_not_fit_are_refused_before_the_run(
    tmp_path: Path, values: str, reason: str
) -> None:
    with pytest.raises(ConfigError, match=f"^loss.alpha{reason}"):
        small_run(tmp_path, "loss=softmax_focal", f"loss.alpha={{{values}}}")
    assert list(tmp_path.iterdir()) == []


def test_a_run_with_values_by_name_is_loaded_again(tmp_path: Path) -> None:
    words = ("loss=softmax_focal", "loss.alpha={class0: 1, class1: 2, class2: 2, class3: 8}")
    small_run(tmp_path, *words, "schedule.epochs=1")
    (folder,) = (path.parent for path in tmp_path.rglob("summary.json"))
    run = load_run(folder)
    assert run.config.loss.alpha == {"class0": 1, "class1": 2, "class2": 2, "class3": 8}


def test_other_limits_of_the_groups_are_noted_and_the_usual_ones_are_not() -> None:
    (note,) = notes.notes(load(overrides=["evaluate.many_above=50", "evaluate.few_below=10"]))
    assert note == (
        "groups by training images: many > 50, medium 10 to 50, few < 10 "
        "(evaluate.many_above, evaluate.few_below)"
    )
    assert notes.notes(load()) == ()


def test_a_run_counts_its_groups_by_its_own_limits(tmp_path: Path) -> None:
    words = ("evaluate.many_above=30", "evaluate.few_below=5", "schedule.epochs=1")
    summary = small_run(tmp_path, *words)
    counts = summary.class_counts
    assert summary.group_sizes == {
        "many": sum(n > 30 for n in counts),
        "medium": sum(5 <= n <= 30 for n in counts),
        "few": sum(n < 5 for n in counts),
    }
    assert summary.group_sizes["many"] == 1
    assert [row.group == "many" for row in summary.result.classes] == [n > 30 for n in counts]
