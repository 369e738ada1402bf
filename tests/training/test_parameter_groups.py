"""Parameters in groups: timm's own grouping is the reference, on models with a classifier."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import nn

import models
import train
from engine.config.load import fingerprint, load
from engine.config.mistakes import ConfigError
from engine.report.group_list import group_list
from engine.training.optim import build_optimizer
from engine.training.parameter_groups import ParameterGroup, described, parameter_groups
from engine.training.rates import rate_factor
from engine.training.schedules.cosine import Cosine
from tests._runs import folder_of, rows_of, small_run, small_words
from tests.models._models import build

SIZES = {"cifar_resnet8": 8, "test_vit": 160, "test_convnext": 160, "test_efficientnet": 160}
OF_HEAD = {"fc.", "head.weight", "head.bias", "head.fc.", "classifier."}


@pytest.fixture(scope="module", params=SIZES)
def pair(request: pytest.FixtureRequest) -> tuple[str, models.Classifier, nn.Module]:
    """A classifier of ours and timm's own model of the same name, with its classifier."""
    name, size = request.param, SIZES[request.param]
    ours = build(name, num_outputs=3, in_channels=3, image_size=size)
    return name, ours, timm.create_model(name, num_classes=3)


def settings_of(groups: list[Any], model: nn.Module) -> dict[str, tuple[float, float]]:
    """Weight decay and rate factor of each parameter of timm's model, under its name here."""
    by_id = {
        id(p): (group["weight_decay"], group.get("lr_scale", 1.0))
        for group in groups
        for p in group["params"]
    }
    found = {}
    classifier = model.get_classifier()
    own = {id(p): f"head.{key}" for key, p in classifier.named_parameters()}
    for key, parameter in model.named_parameters():
        found[own.get(id(parameter), f"backbone.{key}")] = by_id[id(parameter)]
    return found


def ours_of(groups: list[ParameterGroup]) -> dict[str, tuple[float, float]]:
    return {key: (g.weight_decay, g.lr_scale) for g in groups for key in g.names}


def spared(model: nn.Module) -> set[str]:
    names: set[str] = getattr(model, "no_weight_decay", set)()
    return names


def test_weights_alone_decay_as_timm_says(
    pair: tuple[str, models.Classifier, nn.Module],
) -> None:
    name, model, theirs = pair
    found = ours_of(parameter_groups(model, name=name, weight_decay=0.1, decay_on="weights"))
    groups = param_groups_weight_decay(theirs, 0.1, no_weight_decay_list=spared(theirs))
    assert found == settings_of(groups, theirs)
    assert {decay for decay, _ in found.values()} == {0.0, 0.1}


def test_the_rate_falls_layer_by_layer_as_timm_says(
    pair: tuple[str, models.Classifier, nn.Module],
) -> None:
    name, model, theirs = pair
    options: dict[str, Any] = {"weight_decay": 0.1, "layer_decay": 0.7}
    found = ours_of(parameter_groups(model, name=name, decay_on="weights", **options))
    groups = param_groups_layer_decay(theirs, no_weight_decay_list=spared(theirs), **options)
    expected = settings_of(groups, theirs)
    assert found.keys() == expected.keys()
    for key, setting in expected.items():
        assert found[key] == pytest.approx(setting), key
    assert len({scale for _, scale in found.values()}) > 3


def test_the_tokens_of_a_transformer_do_not_decay() -> None:
    model = build("test_vit", num_outputs=3, in_channels=3, image_size=160)
    found = ours_of(parameter_groups(model, name="test_vit", weight_decay=1.0, decay_on="weights"))
    assert model.backbone.cls_token.ndim == 3
    assert found["backbone.cls_token"] == found["backbone.pos_embed"] == (0.0, 1.0)


def test_the_head_has_a_rate_of_its_own_on_top_of_the_layers() -> None:
    model = build("cifar_resnet8", num_outputs=3, in_channels=3, image_size=8)
    options: dict[str, Any] = {"name": "cifar_resnet8", "weight_decay": 0.1}
    found = ours_of(parameter_groups(model, head_lr=10, layer_decay=0.5, **options))
    assert found["head.weight"] == found["head.bias"] == (0.1, 10.0)
    assert found["backbone.layer3.0.conv1.weight"] == (0.1, 0.5)
    assert found["backbone.conv1.weight"] == (0.1, 0.5**4)


def test_what_is_frozen_is_in_no_group() -> None:
    model = build("cifar_resnet8", num_outputs=3, in_channels=3, image_size=8, freeze=True)
    (group,) = parameter_groups(model, name="cifar_resnet8", weight_decay=0.1)
    assert group.names == ("head.weight", "head.bias")
    content = described(model, [group])
    assert content["trained"] == 3 * 64 + 3
    assert content["total"] == sum(p.numel() for p in model.parameters())


def test_where_nothing_is_asked_the_optimizer_is_that_of_plain_parameters() -> None:
    model = build("cifar_resnet8", num_outputs=3, in_channels=3, image_size=8)
    groups = parameter_groups(model, name="cifar_resnet8", weight_decay=0.1)
    options: dict[str, Any] = {"name": "adamw", "lr": 0.1, "weight_decay": 0.1}
    plain, grouped = (build_optimizer(p, **options) for p in (model.parameters(), groups))
    assert str(plain.state_dict()) == str(grouped.state_dict())
    for a, b in zip(plain.param_groups, grouped.param_groups, strict=True):
        assert [id(p) for p in a["params"]] == [id(p) for p in b["params"]]


def test_a_model_without_layers_is_refused_in_one_line() -> None:
    plain = models.Classifier(nn.Linear(2, 2), nn.Linear(2, 3))
    with pytest.raises(ConfigError, match=r"optim\.layer_decay: plain does not say"):
        parameter_groups(plain, name="plain", weight_decay=0.0, layer_decay=0.5)


@pytest.mark.parametrize("name", ["sgd", "adamw", "lamb", "muon", "lion"])
def test_every_group_goes_at_its_own_rate_and_decay(name: str) -> None:
    """With a gradient of zero a step is the decay alone: what does not decay stays."""
    model = build("cifar_resnet8", num_outputs=3, in_channels=3, image_size=8)
    groups = parameter_groups(
        model, name="cifar_resnet8", weight_decay=0.1, decay_on="weights", head_lr=3
    )
    optimizer = build_optimizer(groups, name=name, lr=0.1, weight_decay=0.1)
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    after = dict(model.named_parameters())
    assert torch.equal(after["backbone.bn1.weight"], before["backbone.bn1.weight"])
    shrunk = {
        key: 1 - (after[key].norm() / before[key].norm()).item()
        for key in ("head.weight", "backbone.layer1.0.conv1.weight")
    }
    assert shrunk["backbone.layer1.0.conv1.weight"] > 0
    if name != "lamb":  # its step has the length of the weight, whatever the decay
        ratio = shrunk["head.weight"] / shrunk["backbone.layer1.0.conv1.weight"]
        assert ratio == pytest.approx(3, rel=1e-3)


# --- in a run -------------------------------------------------------------------------------------

WORDS = (
    "model=cifar_resnet8",
    "schedule.epochs=2",
    "optim.decay_on=weights",
    "optim.layer_decay=0.5",
    "optim.head_lr=2",
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a run with groups is."""
    root = tmp_path_factory.mktemp("groups")
    small_run(root, *WORDS)
    return root


def test_a_run_says_which_group_holds_what(root: Path) -> None:
    content = json.loads((folder_of(root, *WORDS) / "parameters.json").read_text())
    names = [key for group in content["groups"] for key in group["names"]]
    assert len(names) == len(set(names))
    assert sum(group["parameters"] for group in content["groups"]) == content["trained"]
    (head,) = [g for g in content["groups"] if "head.weight" in g["names"]]
    assert (head["lr_scale"], head["weight_decay"]) == (2.0, 2e-4)


def test_the_rate_of_a_run_is_that_before_the_factors(root: Path) -> None:
    for row in rows_of(folder_of(root, *WORDS)):
        last, steps = row["step"] - 1, 2 * row["step"] // row["epoch"]
        factor = rate_factor(last, steps, schedule=Cosine(), warmup=0.05)
        assert row["lr"] == pytest.approx(0.05 * factor)


def test_print_groups_shows_them_and_trains_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main([*small_words(tmp_path, *WORDS), "--print-groups"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("trained: 74,612 of 74,612 parameters")
    assert sum(line.startswith("group ") for line in lines) > 4
    assert "  head.weight" in lines
    assert list(tmp_path.iterdir()) == []


def test_a_line_of_each_group_names_factors_and_members() -> None:
    group = {"lr_scale": 0.5, "weight_decay": 0.1, "parameters": 7, "names": ["a", "b"]}
    content: Mapping[str, Any] = {"total": 10, "trained": 7, "groups": [group]}
    assert group_list(content) == [
        "trained: 7 of 10 parameters (70.00%)",
        "",
        "group 1: rate x 0.5, weight decay 0.1, 7 parameters in 2 tensors",
        "  a, b",
    ]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["optim.decay_on=weights", "optim.weight_decay=0"],
            "optim.decay_on=weights: has no effect with optim.weight_decay=0",
        ),
        (
            ["optim.head_lr=2", "model.freeze=true", "model.pretrained=true"],
            "optim.head_lr=2: has no effect, model.freeze=true trains the head alone",
        ),
        (
            ["model.drop=0.1", "model.freeze=true", "model.pretrained=true"],
            "model.drop=0.1: has no effect, with model.freeze=true the backbone only evaluates",
        ),
        (
            ["model.kwargs.drop_rate=0.1"],
            "model.kwargs.drop_rate: cannot be set here; write model.drop",
        ),
        (
            ["model.kwargs.dtype=bfloat16"],
            "model.kwargs.dtype: cannot be set here; write runtime.precision",
        ),
        (
            ["model.kwargs.qk_norm=null"],
            "model.kwargs.qk_norm=null: has no effect, timm leaves such an argument out; leave it "
            "out",
        ),
        (
            ["model.kwargs.norm_layer=x", "model.norm=group"],
            "model.kwargs.norm_layer: cannot go with model.norm=group, which sets it",
        ),
        (["model.kwargs=5"], None),
    ],
)
def test_a_setting_that_cannot_matter_is_refused(words: list[str], line: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        load(overrides=words)
    (found,) = caught.value.mistakes
    assert found == line or (line is None and "expected names, each with a value" in found)


# --- arguments of the constructor -----------------------------------------------------------------


def test_arguments_of_the_constructor_reload_and_are_part_of_the_identity(tmp_path: Path) -> None:
    from engine.config.load import dump

    config = load(overrides=["model.kwargs.global_pool=max", "model.kwargs.act={a: {b: [1, 2]}}"])
    assert config.model.kwargs == {"global_pool": "max", "act": {"a": {"b": [1, 2]}}}
    (tmp_path / "config.yaml").write_text(dump(config))
    assert load([tmp_path / "config.yaml"]) == config
    assert fingerprint(config) != fingerprint(load())
    emptied = load([tmp_path / "config.yaml"], ["model.kwargs={}"])
    assert fingerprint(emptied) == fingerprint(load())


def test_an_argument_reaches_the_constructor_and_the_run_loads_again(tmp_path: Path) -> None:
    from engine.training.trained import load_run

    words = ("model=cifar_resnet8", "schedule.epochs=1", "model.kwargs.global_pool=max")
    small_run(tmp_path, *words)
    loaded = load_run(folder_of(tmp_path, *words))
    assert loaded.model.backbone.global_pool.pool_type == "max"
