"""Where a cosine head starts: class means, names of classes, and what cannot be."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import models
import models.heads.cosine
from engine.config.load import load
from engine.config.mistakes import ConfigError
from engine.training.head_start import class_means
from engine.training.machine import machine
from engine.training.setup import Setup, load_dataset, set_up
from tests._runs import small_config

MEANS = ("model.head=cosine", "model.head_init=class_mean", "loss=ldam")


def set_up_of(root: Path, *words: str) -> Setup:
    config = small_config(root, "model=cifar_resnet8", *words)
    with machine(config.runtime) as computer:
        return set_up(config, load_dataset(config), computer)


@pytest.mark.parametrize("words", [(), ("model.tune=head",), ("model.tune=norm", "model.ema=0.9")])
def test_the_head_starts_at_the_mean_feature_of_each_class(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_ROOT", str(tmp_path))
    torch.manual_seed(0)
    torch.save(timm.create_model("cifar_resnet8", in_chans=1).state_dict(), tmp_path / "w.pth")
    setup = set_up_of(tmp_path, *MEANS, *words, f"model.pretrained={tmp_path / 'w.pth'}")
    model: Any = setup.trainer.model.eval()
    split, dataset = setup.dataset.train, setup.dataset
    images = (split.images / 255 - dataset.mean[0]) / dataset.std[0]
    with torch.no_grad():
        features = model.backbone(images)
    means = [features[split.targets == label].mean(0) for label in range(4)]
    expected = F.normalize(torch.stack(means), dim=1)
    torch.testing.assert_close(model.head.weight.detach(), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(setup.trainer.evaluated.head.weight, model.head.weight)
    assert len(list((tmp_path / "cache" / "features").iterdir())) == 1  # one pass


def test_a_class_without_images_keeps_the_weights_that_were_drawn() -> None:
    means = class_means(torch.ones(2, 3), torch.tensor([0, 2]), num_classes=3)
    assert means.isnan().all(1).tolist() == [False, True, False]
    head = models.heads.cosine.Cosine(3, 3)
    drawn = head.weight.detach().clone()
    head.begin_at(means)
    assert torch.equal(head.weight[1], drawn[1])
    torch.testing.assert_close(head.weight[0].detach(), torch.full((3,), 3**-0.5))


# --- names of classes -----------------------------------------------------------------------------


class Clip(nn.Module):
    """A CLIP whose text encoder counts letters: D numbers, and images of ``width`` features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.visual = nn.Module()
        self.visual.proj = nn.Parameter(torch.arange(width * 2.0).view(width, 2))

    def encode_text(self, tokens: Tensor, *, normalize: bool) -> Tensor:
        assert normalize
        return F.normalize(tokens.float(), dim=1)


def stub(width: int) -> SimpleNamespace:
    """The functions of open_clip that are used."""
    return SimpleNamespace(
        list_models=lambda: ["tiny", "large"],
        create_model=lambda name, pretrained: Clip(width),
        get_tokenizer=lambda name: (
            lambda texts: torch.tensor([[text.count("a"), text.count("b")] for text in texts])
        ),
    )


def directions(file: Path, **options: Any) -> Tensor:
    asked = {"model": "tiny", "prompt": "a {}", "num_features": 2, **options}
    return models.text_directions(["ab", "abb"], encoder=str(file), **asked)


def test_names_become_directions_in_the_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", stub(width=5))
    file = tmp_path / "clip.pt"
    torch.save(Clip(5).state_dict(), file)
    embedded = F.normalize(torch.tensor([[2.0, 1.0], [2.0, 2.0]]), dim=1)
    torch.testing.assert_close(directions(file), embedded)
    projected = torch.stack([(Clip(5).visual.proj @ row).detach() for row in embedded])
    torch.testing.assert_close(directions(file, num_features=5), projected)
    with pytest.raises(models.ModelError, match="embeds in 2 numbers, the backbone gives 7"):
        directions(file, num_features=7)
    with pytest.raises(models.ModelError, match=r"not a model of open_clip: did you mean tiny\?"):
        directions(file, model="tinny")
    torch.save({"other": torch.ones(1)}, file)
    with pytest.raises(models.ModelError, match="is no file of tiny"):
        directions(file)
    with pytest.raises(models.ModelError, match="is not a file: give one of weights of tiny"):
        directions(tmp_path / "missing.pt")


def test_without_open_clip_its_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    words = ("model.head=cosine", "model.head_init=text", "model.text_encoder=clip.pt", "loss=ldam")
    with pytest.raises(ConfigError) as caught:
        set_up_of(tmp_path, *words)
    assert caught.value.mistakes == (
        "model.head_init=text: needs open_clip, which is not installed: "
        "pip install open_clip_torch",
    )


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["model.head_init=text"],
            "model.text_encoder: head_init=text needs it: a file of the weights of a CLIP",
        ),
        (
            ["model.text_prompt=photo of {}"],
            "model.text_prompt: has no effect with model.head_init=uniform; needs text",
        ),
        (
            ["model.head_init=text", "model.text_encoder=x", "model.text_prompt=photo"],
            "model.text_prompt=photo: must hold {}, for the name of a class",
        ),
    ],
)
def test_a_start_of_the_head_that_cannot_be_is_refused(words: list[str], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(overrides=["model.head=cosine", "loss=ldam", *words])
    assert caught.value.mistakes == (line,)


def test_one_output_for_two_classes_has_no_mean_of_each(tmp_path: Path) -> None:
    config = small_config(
        tmp_path, "data.num_classes=2", "loss=sigmoid_focal", *MEANS[:2], "model=cifar_resnet8"
    )
    with pytest.raises(ConfigError, match=r"model\.head_init=class_mean: needs an output for each"):
        load_dataset(config)
