"""Files of weights as they come: wrapped, prefixed, for other classes, images or names."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from models import ModelError
from models._weights_file import read_state
from models.weights.__main__ import main
from tests._full_disk import full_at
from tests.models._models import build

State = dict[str, Tensor]
SMALL: dict[str, Any] = {"num_outputs": 3, "in_channels": 3, "image_size": 32}


@pytest.fixture(scope="module")
def state() -> State:
    torch.manual_seed(5)
    return timm.create_model("cifar_resnet8", num_classes=10).state_dict()


def prefixed(state: State, prefix: str) -> State:
    return {f"{prefix}{key}": value for key, value in state.items()}


WRAPPED: dict[str, Callable[[State], Any]] = {
    "plain": lambda state: state,
    "state_dict": lambda state: {"epoch": 3, "state_dict": state, "optimizer": {"lr": 0.1}},
    "model": lambda state: {"model": state, "args": argparse.Namespace(lr=0.1)},
    "ema": lambda state: {"ema": state, "model": {k: v + 1 for k, v in state.items()}},
    "twice": lambda state: {"model": {"state_dict": state}},
    "average": lambda state: {
        "state_dict": {k: v + 1 for k, v in state.items()},
        "state_dict_ema": state,
    },
    "module": lambda state: prefixed(state, "module."),
    "compiled": lambda state: {"state_dict": prefixed(state, "module._orig_mod.")},
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_weights_are_found_in_their_wrapping(tmp_path: Path, state: State, kind: str) -> None:
    path = tmp_path / "weights.th"
    torch.save(WRAPPED[kind](state), path)
    found = read_state(path)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], state[key]) for key in state)


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [torch.ones(2)], torch.ones(2)])
def test_a_file_without_tensors_by_name_is_refused(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    with pytest.raises(ModelError, match=r"\(it holds no tensor by name\)$"):
        build("cifar_resnet8", pretrained=str(path), **SMALL)


def test_what_was_left_out_or_changed_is_said(tmp_path: Path, state: State) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({**state, "extra.weight": torch.ones(2)}, path)
    model = build("cifar_resnet8", pretrained=str(path), **SMALL | {"in_channels": 1})
    assert model.remarks == (
        "its classifier of 10 classes (fc) is left out",
        "the 3 channels of its first convolution (conv1) are summed to one",
        "1 of its tensors have no place in cifar_resnet8 and are left out (extra.weight)",
    )
    assert build("cifar_resnet8", **SMALL).remarks == ()


def test_position_embeddings_of_another_size_are_resampled_as_timm_does(tmp_path: Path) -> None:
    from timm.layers import resample_abs_pos_embed

    torch.manual_seed(3)
    large = timm.create_model("test_vit", num_classes=7)
    path = tmp_path / "vit.pth"
    torch.save(large.state_dict(), path)
    model = build("test_vit", pretrained=str(path), **SMALL | {"image_size": 64})
    expected = resample_abs_pos_embed(large.pos_embed, new_size=[4, 4], num_prefix_tokens=1)
    torch.testing.assert_close(model.backbone.pos_embed, expected)
    assert model.remarks == (
        "its classifier of 7 classes (head) is left out",
        "its 101 position embeddings are resampled to 17",
    )
    assert "state_dict" not in model.backbone.pretrained_cfg


# --- conversion by order --------------------------------------------------------------------------


@pytest.fixture
def foreign(tmp_path: Path, state: State) -> Path:
    """The weights under other names, as older code wrote them, without counters of batches."""
    kept = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    path = tmp_path / "foreign.pth"
    torch.save({f"net.{number}.w": value for number, value in enumerate(kept.values())}, path)
    return path


def test_weights_of_other_names_are_converted_by_order_and_shape(
    tmp_path: Path, state: State, foreign: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "converted.safetensors"
    with pytest.raises(ModelError, match=r"has no conv1\.weight"):
        build("cifar_resnet8", pretrained=str(foreign), **SMALL)
    assert main([str(foreign), "cifar_resnet8", str(out), "--list"]) == 0
    found = load_file(out)
    assert {k for k in state if not k.endswith("num_batches_tracked")} == found.keys()
    assert all(torch.equal(value, state[key]) for key, value in found.items())
    assert capsys.readouterr().out.splitlines()[:2] == [
        "net.0.w   conv1.weight",
        "net.1.w   bn1.weight",
    ]
    model = build("cifar_resnet8", pretrained=str(out), **SMALL)
    assert torch.equal(model.backbone.layer3[0].conv2.weight, state["layer3.0.conv2.weight"])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["nowhere.pth", "cifar_resnet8", "out.safetensors"], "nowhere.pth: is not a file"),
        (
            ["foreign.pth", "cifar_resnet8", "out.pth"],
            "out.pth: expected a name that ends in .safetensors",
        ),
        (
            ["foreign.pth", "cifar_resnet8", "taken.safetensors"],
            "taken.safetensors: exists; name another file",
        ),
        (
            ["foreign.pth", "cifar_resnet8", "no/out.safetensors"],
            "no/out.safetensors: expected a file in a folder that is there",
        ),
        (
            ["foreign.pth", "cifar_resnet20", "out.safetensors"],
            "foreign.pth: tensor 16 is net.15.w (32, 16, 3, 3) in the file and "
            "layer1.1.conv1.weight (16, 16, 3, 3) in cifar_resnet20; of 37 and 97 tensors the "
            "first 15 agree",
        ),
    ],
)
def test_a_mistake_in_a_conversion_is_one_line_and_writes_nothing(
    words: list[str],
    line: str,
    foreign: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(foreign.parent)
    Path("taken.safetensors").touch()
    assert main(words) == 2
    assert capsys.readouterr().err == f"{line}\n"
    assert {path.name for path in Path().iterdir()} == {"foreign.pth", "taken.safetensors"}


def test_a_conversion_that_cannot_be_written_names_the_new_file(
    foreign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.safetensors"
    full_at(out, unfinished=".{}.unfinished")
    assert main([str(foreign), "cifar_resnet8", str(out)]) == 1
    assert capsys.readouterr().err == f"{out}: cannot be written: No space left on device\n"
    assert list(tmp_path.iterdir()) == [foreign]


def test_an_unknown_model_is_shown_its_neighbours(
    foreign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(foreign), "cifar_resnet9", str(tmp_path / "out.safetensors")]) == 2
    assert "cifar_resnet8" in capsys.readouterr().err
