"""Files of weights as they come: wrapped, prefixed, for other classes, images or names."""

from __future__ import annotations

import argparse
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

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
    "beside a list of averages": lambda state: {
        "model": state,
        "ema": {"decay": 0.9, "shadow_params": list(state.values()), "collected_params": None},
    },
    "average": lambda state: {
        "state_dict": {k: v + 1 for k, v in state.items()},
        "state_dict_ema": state,
    },
    "module": lambda state: prefixed(state, "module."),
    "named by the trainer": lambda state: {"model_state_dict": state, "optimizer": {"state": {}}},
    "named by nobody": lambda state: {"epoch": 3, "encoder_q": state},
    "beside numbers of NumPy": lambda state: {
        "net": state,
        "best": np.float64(0.5),
        3: np.int64(1),
    },
    "compiled": lambda state: {"state_dict": prefixed(state, "module._orig_mod.")},
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_weights_are_found_in_their_wrapping(tmp_path: Path, state: State, kind: str) -> None:
    path = tmp_path / "weights.th"
    torch.save(WRAPPED[kind](state), path)
    found = read_state(path)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], state[key]) for key in state)


FOREIGN: dict[str, tuple[bytes, str]] = {
    "pointer.safetensors": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a",
        "git lfs",
    ),
    "page.pth": (b"<!DOCTYPE html><html><title>404</title></html>", "it is a web page"),
    "model.safetensors.index.json": (b'{"metadata": {}, "weight_map": {}}', "it is JSON"),
    "LICENSE": (b"Copyright (c) 2026, permission to use", "neither what torch.save wrote nor"),
    "empty.pth": (b"", "truncated, damaged or of another kind"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_that_is_no_weights_is_called_what_it_is(tmp_path: Path, name: str) -> None:
    content, said = FOREIGN[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=said):
        read_state(tmp_path / name)


def test_a_script_and_a_whole_module_are_refused(tmp_path: Path) -> None:
    module = nn.Linear(2, 1)
    torch.save({"model": module}, tmp_path / "module.pth")
    with pytest.raises(ValueError, match="refused: it holds more than tensors"):
        read_state(tmp_path / "module.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that torch will drop it one day
        torch.jit.script(module).save(str(tmp_path / "script.pt"))
    with pytest.raises(ValueError, match=r"TorchScript archive.* save the state_dict\(\)"):
        read_state(tmp_path / "script.pt")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".bin"])
def test_what_a_file_is_called_does_not_matter(tmp_path: Path, state: State, suffix: str) -> None:
    for save in (save_file, torch.save):
        save(state, tmp_path / f"weights{suffix}")
        assert read_state(tmp_path / f"weights{suffix}").keys() == state.keys()


@pytest.mark.parametrize("length", [60, 123], ids=["<", "{"])
def test_a_header_as_long_as_the_first_byte_of_a_page_or_of_json_is_read(
    tmp_path: Path, length: int
) -> None:
    header = b'{"weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(length)
    path = tmp_path / "weights.safetensors"
    path.write_bytes(struct.pack("<Q", length) + header + struct.pack("<f", 0.5))
    assert torch.equal(read_state(path)["weight"], torch.tensor([0.5]))


def test_tensors_in_several_places_that_nobody_knows_are_not_chosen_from(
    tmp_path: Path, state: State
) -> None:
    torch.save({"student": state, "teacher": state, "epoch": 1}, tmp_path / "dino.pth")
    with pytest.raises(ValueError, match="tensors under student, teacher; save those of one"):
        read_state(tmp_path / "dino.pth")


def test_names_below_a_name_are_found_where_all_are_there(tmp_path: Path, state: State) -> None:
    path = tmp_path / "lightning.ckpt"
    torch.save({"state_dict": {**prefixed(state, "model."), "loss.w": torch.ones(2)}}, path)
    model = build("cifar_resnet8", pretrained=str(path), **SMALL)
    assert torch.equal(model.backbone.conv1.weight, state["conv1.weight"])
    number = len(state)
    assert model.remarks[0] == (f"of its {number + 1} tensors the {number} under model. are taken")
    both = {**prefixed(state, "model."), **prefixed(state, "ema.")}
    torch.save({"state_dict": both}, path)
    with pytest.raises(ModelError, match=r"holds cifar_resnet8 under model\. and ema\.: save"):
        build("cifar_resnet8", pretrained=str(path), **SMALL)


def test_tensors_beside_all_those_of_the_model_are_said_to_be_left_out(
    tmp_path: Path, state: State
) -> None:
    path = tmp_path / "ema.pth"
    torch.save({**state, **{f"{key}_ema": value for key, value in state.items()}}, path)
    model = build("cifar_resnet8", pretrained=str(path), **SMALL)
    assert f"{len(state) - 2} of its tensors have no place" in model.remarks[-1]


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_become_float32(
    tmp_path: Path, state: State, kind: torch.dtype
) -> None:
    path = tmp_path / "weights.pth"
    torch.save({k: v.to(kind) if v.is_floating_point() else v for k, v in state.items()}, path)
    found = build("cifar_resnet8", pretrained=str(path), **SMALL).backbone.conv1.weight
    assert found.dtype == torch.float32
    assert torch.equal(found, state["conv1.weight"].to(kind).float())


Change = Callable[[State], State]
CHANGED: dict[str, tuple[Change, str]] = {
    "nan": (
        lambda state: {**state, "bn1.bias": state["bn1.bias"] * torch.nan},
        r"has numbers in bn1\.bias that are not finite$",
    ),
    "grey": (
        lambda state: {**state, "conv1.weight": state["conv1.weight"][:, :1]},
        r"does not fit cifar_resnet8: .*\(conv1 is for images of 1 channel\(s\), not for these\)$",
    ),
    "deeper": (
        lambda state: timm.create_model("cifar_resnet20").state_dict(),
        r"has layer1\.1\.conv1\.weight, which cifar_resnet8 has not: name the model that the file",
    ),
    "other names": (
        lambda state: {f"net{number}": value for number, value in enumerate(state.values())},
        r"has no conv1\.weight: .*; python -m models\.weights may convert it$",
    ),
}


@pytest.mark.parametrize("kind", CHANGED)
def test_weights_that_do_not_do_are_refused_in_one_line(
    tmp_path: Path, state: State, kind: str
) -> None:
    change, said = CHANGED[kind]
    torch.save(change(state), tmp_path / "weights.pth")
    with pytest.raises(ModelError, match=said):
        build("cifar_resnet8", pretrained=str(tmp_path / "weights.pth"), **SMALL)


def test_a_path_that_is_not_a_file_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    for given, said in {
        str(tmp_path): "but a folder: name the file in it (model.safetensors)",
        str(tmp_path / "modle.safetensors"): ": did you mean model.safetensors?",
        "https://example.org/weights.pth": "but an address: download it, and name the file",
        "hf_hub:timm/resnet18.a1_in1k": "model.pretrained=true downloads the weights",
        str(tmp_path / "none" / "x.pth"): ": give one of weights of cifar_resnet8",
    }.items():
        with pytest.raises(ModelError) as caught:
            build("cifar_resnet8", pretrained=given, **SMALL)
        assert str(caught.value).startswith(f"model.pretrained={given} is not a file")
        assert said in str(caught.value)


def test_a_model_named_as_on_a_hub_is_shown_its_own_name() -> None:
    with pytest.raises(ModelError, match=r"did you mean resnet18\.a1_in1k\?$"):
        build("hf_hub:timm/resnet18.a1_in1k", **SMALL)


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
