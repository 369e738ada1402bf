"""A run that starts from another one: from which weights, which of them go where, what is said."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import shutil
from pathlib import Path

import pytest
import torch
from rich.console import Console

import data
import train
from engine.config.load import load
from engine.config.mistakes import ConfigError
from engine.config.schema import Config
from engine.report.terminal import Terminal
from engine.training import build, checkpoint, trained
from engine.training.setup import load_dataset
from engine.training.start_weights import StartWeights, start_weights
from engine.training.weights_hash import weights_hash
from tests._runs import assert_same_run, folder_of, small_config, small_run

ONE = "schedule.epochs=1"


class Stop(Exception):  # noqa: N818 - nothing went wrong
    """Ends a run after its first epoch."""


def stop(epoch: int, row: object) -> None:
    raise Stop


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run; nothing changes it."""
    root = tmp_path_factory.mktemp("original")
    small_run(root)
    return folder_of(root)


@pytest.fixture
def first(tmp_path: Path, original: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(original, tmp_path / "first" / original.name))


def words_of(first: Path, *words: str) -> tuple[str, ...]:
    return (f"model.init_from={first}", "model.freeze=true", "sampler=class_balanced", *words)


def make_again_with_other_weights(run: Path) -> None:
    state = checkpoint.load_latest(run / "checkpoints").state
    assert state is not None
    for kept in state["best"].values():
        kept["state"]["backbone.conv1.weight"] += 1
    checkpoint.save(run / "checkpoints", state)


def printed(root: Path, *words: str) -> str:
    """What a run prints, on one line."""
    out = io.StringIO()
    train.run(small_config(root, *words), screen=Terminal(Console(file=out, width=300)))
    return " ".join(out.getvalue().split())


# --- from which weights ---------------------------------------------------------------------------


def test_a_run_that_is_not_finished_starts_no_other(tmp_path: Path, first: Path) -> None:
    (first / "summary.json").unlink()
    root = tmp_path / "runs"
    with pytest.raises(ConfigError) as caught:
        small_run(root, *words_of(first))
    assert caught.value.mistakes == (
        f"model.init_from={first}: is not finished; run its own command to finish it",
    )
    assert not root.exists()


def test_a_run_says_and_records_which_weights_it_starts_from(tmp_path: Path, first: Path) -> None:
    weights = trained.load_weights(first)
    said = printed(tmp_path / "runs", *words_of(first, ONE))
    named = f"the weights of run {first.name} after epoch {weights.epoch} (rule val)"
    assert f"starts from {named}" in said
    facts = trained.read_facts(folder_of(tmp_path / "runs", *words_of(first, ONE)))
    assert facts["start_weights"] == weights_hash(weights.state)


def test_a_stopped_run_does_not_go_on_with_other_start_weights(tmp_path: Path, first: Path) -> None:
    words = words_of(first)
    small_run(tmp_path / "whole", *words)
    with pytest.raises(Stop):
        small_run(tmp_path / "runs", *words, report=stop)
    shutil.copytree(first, tmp_path / "kept")
    make_again_with_other_weights(first)
    with pytest.raises(ConfigError) as caught:
        small_run(tmp_path / "runs", *words)
    folder = folder_of(tmp_path / "runs", *words)
    assert caught.value.mistakes == (
        f"{folder}: began with other weights of the run that model.init_from names, which was made "
        "again since; put the old run back, or use --fresh",
    )
    shutil.rmtree(first)
    shutil.copytree(tmp_path / "kept", first)
    small_run(tmp_path / "runs", *words)
    assert_same_run(folder, folder_of(tmp_path / "whole", *words))


def test_a_finished_run_of_other_start_weights_is_not_shown_and_can_be_made_anew(
    tmp_path: Path, first: Path
) -> None:
    words = words_of(first, ONE)
    before = small_run(tmp_path / "runs", *words)
    make_again_with_other_weights(first)
    with pytest.raises(ConfigError, match=r"began with other weights of the run that model\.init_"):
        small_run(tmp_path / "runs", *words)
    after = small_run(tmp_path / "runs", *words, fresh=True)
    assert after.fingerprint == before.fingerprint
    assert after.rules != before.rules
    assert small_run(tmp_path / "runs", *words) == after


def test_a_finished_student_of_another_teacher_is_not_shown(tmp_path: Path, first: Path) -> None:
    words = (f"teacher={first}", "loss=distillation", ONE)
    small_run(tmp_path / "runs", *words)
    make_again_with_other_weights(first)
    with pytest.raises(ConfigError, match="began with other weights of its teacher"):
        small_run(tmp_path / "runs", *words)


def test_a_first_stage_that_was_moved_or_made_again_alike_is_the_same_run(
    tmp_path: Path, first: Path
) -> None:
    before = small_run(tmp_path / "runs", *words_of(first, ONE))
    moved = tmp_path / "moved"
    first.rename(moved)
    assert small_run(tmp_path / "runs", *words_of(moved, ONE)) == before
    small_run(tmp_path / "again")
    assert small_run(tmp_path / "runs", *words_of(folder_of(tmp_path / "again"), ONE)) == before


def test_a_run_older_than_the_record_of_its_start_weights_says_so(
    tmp_path: Path, first: Path
) -> None:
    words = words_of(first, ONE)
    small_run(tmp_path / "runs", *words)
    path = folder_of(tmp_path / "runs", *words) / "environment.json"
    environment = json.loads(path.read_text())
    del environment["facts"]["start_weights"]
    path.write_text(json.dumps(environment))
    said = printed(tmp_path / "runs", *words)
    line = "with which weights of the run that model.init_from names it began is not recorded"
    assert line in said


def older(run: Path, key: str, named: Path) -> None:
    """Let a run have recorded the weights of another as once: names and bytes, twelve digits."""
    digest = hashlib.sha256()
    for name, value in trained.load_weights(named).state.items():
        digest.update(name.encode() + b"\0" + value.numpy().tobytes())
    environment = json.loads((run / "environment.json").read_text())
    environment["facts"][key] = digest.hexdigest()[:12]
    (run / "environment.json").write_text(json.dumps(environment))


@pytest.mark.parametrize("key", ["model.init_from", "teacher"])
def test_weights_that_an_older_run_recorded_are_compared_as_they_were_hashed_then(
    tmp_path: Path, first: Path, key: str
) -> None:
    is_teacher = key == "teacher"
    words = (f"teacher={first}", "loss=distillation") if is_teacher else words_of(first)
    fact = "teacher_weights" if is_teacher else "start_weights"
    small_run(tmp_path, *words, ONE)
    with pytest.raises(Stop):
        small_run(tmp_path, *words, report=stop)
    for run in (folder_of(tmp_path, *words, ONE), folder_of(tmp_path, *words)):
        older(run, fact, first)
    small_run(tmp_path, *words, ONE)  # shown
    with pytest.raises(Stop):
        small_run(tmp_path, *words, report=stop)  # goes on
    make_again_with_other_weights(first)
    for more in ((ONE,), ()):
        with pytest.raises(ConfigError, match="began with other weights of"):
            small_run(tmp_path, *words, *more)


# --- which of them go where -----------------------------------------------------------------------


def start_of(config: Config, dataset: data.LongTailed) -> StartWeights:
    start = start_weights(config, dataset)
    assert start is not None
    return start


def test_rows_of_the_head_go_to_the_classes_of_their_names(tmp_path: Path, original: Path) -> None:
    config = small_config(tmp_path, f"model.init_from={original}")
    usual = load_dataset(config)
    order = [2, 0, 3, 1]
    names = tuple(usual.class_names[label] for label in order)
    start = start_of(config, dataclasses.replace(usual, class_names=names))
    model = build.build_model(config, usual, start=start.state).eval()
    images = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = trained.load_run(original).model(images).logits
        torch.testing.assert_close(model(images).logits, logits[:, order])
    assert "the head's rows in the order of these classes" in start.sentence
    assert start.identity == start_of(config, usual).identity


def test_the_same_classes_in_the_same_order_stay_as_they_are(
    tmp_path: Path, original: Path
) -> None:
    config = small_config(tmp_path, f"model.init_from={original}")
    start = start_of(config, load_dataset(config))
    weights = trained.load_weights(original).state
    assert all(torch.equal(start.state[key], value) for key, value in weights.items())
    assert start.sentence.endswith("(rule val)")


def test_other_classes_are_refused_unless_the_head_is_left_out(
    tmp_path: Path, original: Path
) -> None:
    """As many classes would fit, and be wrong."""
    config = small_config(tmp_path, f"model.init_from={original}")
    usual = load_dataset(config)
    pets = dataclasses.replace(usual, class_names=("class0", "cat", "dog", "class3"))
    with pytest.raises(ConfigError) as caught:
        start_weights(config, pets)
    assert caught.value.mistakes == (
        f"model.init_from={original}: was trained on other classes than those of Synthetic (there "
        "alone: class1, class2; here alone: cat, dog); model.init_head=false leaves its head out",
    )
    headless = small_config(tmp_path, f"model.init_from={original}", "model.init_head=false")
    assert start_of(headless, pets).sentence.endswith("(rule val), with a new head")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("data.num_classes=3",),
            "there alone: class3); model.init_head=false leaves its head out",
        ),
        (
            ("model=cifar_resnet8",),
            "is a run of model.name=cifar_resnet20, this one of cifar_resnet8; give both the same",
        ),
        (
            ("model.norm=group",),
            "is a run of model.norm=batch, this one of group; give both the same",
        ),
        (
            ("data.channels=3",),
            "was trained on images of 1 channel(s), those of Synthetic have 3; give both runs "
            "images of the same channels",
        ),
    ],
)
def test_a_run_that_does_not_fit_is_one_line(
    tmp_path: Path, original: Path, words: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        small_run(tmp_path / "runs", f"model.init_from={original}", *words)
    (line,) = caught.value.mistakes
    assert line.startswith(f"model.init_from={original}: ")
    assert message in line
    assert not (tmp_path / "runs").exists()


def test_one_output_does_not_change_sides(tmp_path: Path) -> None:
    words = ("data.num_classes=2", "loss=binary_cross_entropy", ONE)
    small_run(tmp_path / "first", *words)
    first = folder_of(tmp_path / "first", *words)
    config = small_config(tmp_path, *words, f"model.init_from={first}")
    dataset = load_dataset(config)
    turned = dataclasses.replace(dataset, class_names=dataset.class_names[::-1])
    with pytest.raises(ConfigError, match="has the output of class class1, this model that of cla"):
        start_weights(config, turned)
    two = small_config(tmp_path, "data.num_classes=2", ONE, f"model.init_from={first}")
    with pytest.raises(ConfigError, match=r"has 1 output\(s\), this model 2; model\.init_head=fal"):
        start_weights(two, load_dataset(two))


def test_images_of_another_size_are_said(tmp_path: Path, original: Path) -> None:
    said = printed(tmp_path, f"model.init_from={original}", "data.size=16", ONE)
    assert "(rule val), trained on images of 8 x 8 pixels, here 16 x 16" in said


# --- frozen ---------------------------------------------------------------------------------------


def test_a_random_backbone_is_not_frozen(original: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(overrides=["model.freeze=true"])
    assert caught.value.mistakes == (
        "model.freeze=true: would keep the random weights that the backbone begins with; set "
        "model.init_from=<run folder> or model.pretrained",
    )
    for start in (f"model.init_from={original}", "model.pretrained=true"):
        assert load(overrides=["model.freeze=true", start]).model.freeze
