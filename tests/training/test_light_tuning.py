"""Runs that train a small part: what they keep, how they resume, what may start from them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from rich.console import Console
from safetensors import safe_open

import models
import train
from engine.config.load import load
from engine.config.mistakes import ConfigError
from engine.prediction import export
from engine.report.terminal import Terminal
from engine.training.setup import load_dataset
from engine.training.start_weights import start_weights
from engine.training.trained import load_run
from tests._full_disk import full_at
from tests._runs import assert_same_run, folder_of, small_config, small_run, summary_of, weights_of

ONE = "schedule.epochs=1"
# With all that a lightly tuned run can be combined with.
LORA = (
    "model=test_vit",
    "data.size=16",
    "data.channels=3",
    "model.tune=lora",
    "model.lora_rank=2",
    "model.lora_alpha=3",
    "model.ema=0.9",
    "model.drop_path=0.1",
    "mixup.mixup=0.2",
    "optim.accumulate=2",
    "optim.decay_on=weights",
    "optim.head_lr=2",
    ONE,
)


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run with low-rank products."""
    root = tmp_path_factory.mktemp("lora")
    small_run(root, *LORA)
    return folder_of(root, *LORA)


def test_a_run_interrupted_in_an_epoch_ends_as_one_that_was_not(
    lora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.training.checkpointer import Checkpointer
    from engine.training.signals import Interrupted

    poll = Checkpointer.poll

    def stop(checkpoints: Checkpointer) -> None:
        poll(checkpoints)
        if checkpoints.progress.totals.steps == 3:
            checkpoints.save()
            raise Interrupted(15)

    monkeypatch.setattr(Checkpointer, "poll", stop)
    with pytest.raises(Interrupted):
        small_run(tmp_path, *LORA)
    monkeypatch.setattr(Checkpointer, "poll", poll)
    small_run(tmp_path, *LORA)
    assert_same_run(folder_of(tmp_path, *LORA), lora)


def test_the_summary_says_how_much_is_trained(lora: Path) -> None:
    summary = summary_of(lora)
    sizes = summary["parameters"]
    added = sum(v.numel() for k, v in weights_of(lora).items() if ".lora." in k)
    assert sizes["trained"] == added + 4 * 64 + 4
    assert f"trains {sizes['trained']:,} of {sizes['total']:,} parameters" in summary["notes"][-2]
    assert summary["notes"][-1].startswith("the rest of the backbone keeps its random weights")


def test_a_loaded_run_predicts_as_its_merged_weights_do(lora: Path) -> None:
    run = load_run(lora)
    images = torch.randn(4, 3, 16, 16)
    plain = timm.create_model("test_vit", num_classes=0, img_size=16).eval()
    merged = models.merged(run.model.state_dict(), scale=1.5)
    plain.load_state_dict(
        {k.removeprefix("backbone."): v for k, v in merged.items() if k.startswith("backbone.")}
    )
    torch.testing.assert_close(plain(images), run.model(images).features, atol=1e-6, rtol=1e-5)


def test_an_exported_run_is_a_model_of_timm_that_predicts_the_same(
    lora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "exported.safetensors"
    assert export.main([str(lora), str(file)]) == 0
    number = len(timm.create_model("test_vit", num_classes=4, img_size=16).state_dict())
    assert capsys.readouterr().out == f"{file}: {number} tensors of test_vit, rule val\n"
    options = {"num_classes": 4, "img_size": 16}
    plain = timm.create_model("test_vit", checkpoint_path=str(file), **options).eval()
    run, images = load_run(lora), torch.randn(4, 3, 16, 16)
    expected = run.model(images).logits
    torch.testing.assert_close(plain(images), expected, atol=1e-6, rtol=1e-5)
    with safe_open(file, "pt") as content:
        assert json.loads(content.metadata()["class_names"]) == list(run.class_names)
    assert export.main([str(lora), str(file)]) == 2
    assert "expected a new file" in capsys.readouterr().err


def test_a_model_of_two_classifiers_is_said_to_have_them(
    lora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = load_run(lora)
    own: Any = run.model.backbone
    monkeypatch.setattr(own, "pretrained_cfg", {"classifier": ("head", "head_dist")})
    monkeypatch.setattr("engine.training.trained.load_run", lambda *given, **keys: run)
    assert export.main([str(lora), str(tmp_path / "exported.safetensors")]) == 0
    line = capsys.readouterr().out.splitlines()[1]
    assert line == "the model has two classifiers (head, head_dist): the head is left out"


def test_an_export_that_cannot_be_written_is_one_line(
    lora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "exported.safetensors"
    full_at(file)
    assert export.main([str(lora), str(file)]) == 1
    line = f"{file}: cannot be written: No space left on device\n"
    assert capsys.readouterr().err == line
    assert list(tmp_path.iterdir()) == []


def test_another_run_starts_from_the_merged_weights(lora: Path, tmp_path: Path) -> None:
    words = ["model=test_vit", "data.size=16", "data.channels=3", f"model.init_from={lora}"]
    config = small_config(tmp_path, *words)
    start = start_weights(config, load_dataset(config))
    assert start is not None
    assert start.state.keys() == models.merged(weights_of(lora), scale=1.5).keys()


def test_a_run_with_parts_that_another_lacks_is_no_start_for_it(tmp_path: Path) -> None:
    shared = ["model=test_vit", "data.size=16", "data.channels=3", ONE]
    small_run(tmp_path, *shared, "model.tune=prompt")
    first = folder_of(tmp_path, *shared, "model.tune=prompt")
    config = small_config(tmp_path, *shared, f"model.init_from={first}")
    with pytest.raises(ConfigError, match=r"is a run of model\.tune=prompt, whose added parts"):
        start_weights(config, load_dataset(config))
    same = small_config(tmp_path, *shared, "model.tune=prompt", f"model.init_from={first}")
    assert start_weights(same, load_dataset(same)) is not None


# --- weights from a file --------------------------------------------------------------------------


def test_a_run_says_what_it_makes_of_a_file_of_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    file = tmp_path / "weights.pth"
    torch.save({"state_dict": timm.create_model("cifar_resnet8").state_dict()}, file)
    words = [f"model.pretrained={file}", "model=cifar_resnet8"]
    config = small_config(tmp_path, *words, ONE, "data.channels=3", "model.tune=norm")
    out = io.StringIO()
    train.run(config, screen=Terminal(Console(file=out, width=200)))
    said = out.getvalue()
    assert "its classifier of 10 classes (fc) is left out" in said
    (folder,) = (tmp_path / "synthetic").glob("*")
    assert json.loads((folder / "parameters.json").read_text())["trained"] < 1000


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["model.tune=lora", "model.freeze=true", "model.pretrained=true"],
            "model.freeze=true: is model.tune=head, and cannot go with model.tune=lora",
        ),
        (
            ["model.tune=head"],
            "model.tune=head: would keep the random weights that the backbone begins with; set "
            "model.init_from=<run folder> or model.pretrained",
        ),
        (
            ["model.lora_rank=4"],
            "model.lora_rank: has no effect with model.tune=full; needs lora",
        ),
        (
            ["model.tune=head", "model.pretrained=true", "optim.layer_decay=0.5"],
            "optim.layer_decay=0.5: has no effect, model.tune=head trains the head alone",
        ),
    ],
)
def test_a_setting_of_tuning_that_cannot_matter_is_refused(words: list[str], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(overrides=words)
    assert caught.value.mistakes == (line,)
