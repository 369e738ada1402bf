"""Backbones from timm: names, sizes, normalisation and weights from files."""

import logging
import math
import pickle
import re
import socket
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import HfFileMetadata, constants, get_hf_file_metadata
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

import models
from models import Classifier, ModelError, _own_files, normalization
from models._backbone import GroupNorm
from models._wording import one_line
from tests.models._models import build

SMALL: dict[str, Any] = {"num_outputs": 3, "in_channels": 3, "image_size": 32}


def has(model: nn.Module, kind: type[nn.Module]) -> bool:
    return any(isinstance(module, kind) for module in model.modules())


def equal_weights(model: Classifier, state: dict[str, torch.Tensor]) -> bool:
    return all(value.equal(state[key]) for key, value in model.backbone.state_dict().items())


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    state = timm.create_model("cifar_resnet20", num_classes=10).state_dict()
    state["bn1.running_mean"] += 0.5
    return state


@pytest.mark.parametrize(
    ("name", "size", "num_features"),
    [
        ("cifar_resnet20", (28, 28), 64),
        ("cifar_resnet20", (8, 8), 64),
        ("cifar_resnet20", (9, 13), 64),
        ("resnet10t", (32, 32), 512),
        ("vit_tiny_patch16_224", (48, 32), 192),
        ("mobilenetv3_small_050", (32, 32), 1024),
    ],
)
def test_images_of_one_channel_and_any_size_work(
    name: str, size: tuple[int, int], num_features: int
) -> None:
    model = build(name, num_outputs=3, in_channels=1, image_size=size)
    output = model(torch.zeros(2, 1, *size))
    assert output.logits.shape == (2, 3)
    assert output.features.shape == (2, num_features)


def test_a_model_of_fixed_size_is_built_for_the_images() -> None:
    model = build("vit_tiny_patch16_224", num_outputs=3, in_channels=3, image_size=64)
    assert model.backbone.pos_embed.shape[1] == 1 + (64 // 16) ** 2


def test_a_misspelt_name_shows_its_neighbours() -> None:
    with pytest.raises(ModelError, match=r"model\.name=cifar_resnet23 .*cifar_resnet20"):
        build("cifar_resnet23", **SMALL)


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("resnet32", "cifar_resnet32"),
        ("resnt18", "resnet18"),
        ("vit_base", "vit_base_patch16_224"),
        ("swin_tiny", "swin_tiny_patch4_window7_224"),
        ("convnext_tin", "convnext_tiny"),
    ],
)
def test_the_first_suggestion_is_ours_or_what_goes_on_from_the_name(name: str, first: str) -> None:
    with pytest.raises(ModelError, match=rf"did you mean {first}[,$]"):
        build(name, **SMALL)


@pytest.mark.parametrize(
    ("error", "reason"),
    [(AssertionError(), "AssertionError without a reason"), (ValueError("a\n b"), "a b")],
)
def test_a_reason_is_never_empty(error: Exception, reason: str) -> None:
    assert one_line(error) == reason


def test_a_name_like_no_other_is_still_one_line() -> None:
    with pytest.raises(ModelError, match=r"timm\.list_models\(\) lists the names") as caught:
        build("0000", **SMALL)
    assert "\n" not in str(caught.value)


def test_an_unknown_tag_shows_the_known_ones() -> None:
    with pytest.raises(
        ModelError, match=r"tag that timm does not know: choose .*resnet18\.a1_in1k"
    ):
        build("resnet18.a9", **SMALL)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "convnext_atto"])
def test_images_too_small_for_the_model_are_refused_before_training(name: str) -> None:
    with pytest.raises(
        ModelError, match=f"{name} does not take images of 3x8x8, it is made for"
    ) as caught:
        build(name, **SMALL | {"image_size": 8})
    assert "\n" not in str(caught.value)
    assert "resize them (data.size) or choose another" in str(caught.value)


def test_a_test_size_that_the_model_does_not_take_is_refused_before_training() -> None:
    with pytest.raises(
        ModelError,
        match=r"images of 3x48x48, it is made for 3x224x224: resize them \(data\.test_size\)",
    ):
        build("vit_tiny_patch16_224", **SMALL, test_size=(48, 48))


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0", "vit_tiny_patch16_224"])
def test_images_that_are_not_square_are_taken_as_they_are(name: str) -> None:
    assert build(name, **SMALL | {"image_size": (24, 40)}).head is not None


@pytest.mark.parametrize(
    ("name", "size", "says"),
    [
        (
            "vit_tiny_patch16_224",
            (24, 40),
            "its patches of 16x16 read 16x32 of the 24x40 pixels; the last 8 rows and 8 columns of "
            "every image never count; images of 32x48 (data.size) lose none",
        ),
        (
            "convit_tiny",
            (32, 33),
            "its patches of 16x16 read 32x32 of the 32x33 pixels; the last 1 column of every image "
            "never count; images of 32x48 (data.size) lose none",
        ),
        (
            "convmixer_768_32",
            (15, 28),
            "its patches of 7x7 read 14x28 of the 15x28 pixels; the last 1 row of every image "
            "never count; images of 21x28 (data.size) lose none",
        ),
    ],
)
def test_pixels_that_are_in_no_patch_are_named_with_a_size_that_has_none(
    name: str, size: tuple[int, int], says: str
) -> None:
    model = build(name, **SMALL | {"image_size": size})
    assert model.remarks == (f"model.name={name}: {says}",)
    seen, changed = torch.rand(2, 1, 3, *size)
    height, width = map(int, re.findall(r"read (\d+)x(\d+)", says)[0])
    changed[:, :, :height, :width] = seen[:, :, :height, :width]
    with torch.no_grad():
        assert model.eval()(seen).logits.equal(model(changed).logits)


@pytest.mark.parametrize(
    ("name", "size"),
    [("vit_tiny_patch16_224", 32), ("resnet18", (25, 41)), ("fastvit_t8", (33, 41))],
)
def test_a_model_that_reads_every_pixel_is_without_remark(
    name: str, size: int | tuple[int, int]
) -> None:
    assert build(name, **SMALL | {"image_size": size}).remarks == ()


def test_pixels_of_test_images_that_are_in_no_patch_are_named() -> None:
    model = build("convmixer_768_32", **SMALL | {"image_size": 28}, test_size=(30, 30))
    (remark,) = model.remarks
    assert "of the 30x30 pixels" in remark
    assert "images of 35x35 (data.test_size) lose none" in remark


def test_the_statistics_of_weights_are_timms() -> None:
    assert normalization("resnet18.a1_in1k") == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert normalization("vit_tiny_patch16_224").mean == (0.5, 0.5, 0.5)
    with pytest.raises(ModelError, match="no_such is not a model of timm"):
        normalization("no_such")


def test_a_model_that_cannot_be_built_for_the_images_is_refused() -> None:
    with pytest.raises(ModelError, match="cannot be built with 3 channels and images of 9x9"):
        build("xcit_nano_12_p8_224", **SMALL | {"image_size": 9})


@pytest.mark.parametrize("name", ["cifar_resnet20", "resnet10t"])
def test_group_norm_takes_the_place_of_batch_norm(name: str) -> None:
    model = build(name, norm="group", **SMALL)
    assert has(model, nn.GroupNorm)
    assert not has(model, nn.BatchNorm2d)
    assert has(build(name, norm="batch", **SMALL), nn.BatchNorm2d)


def test_choosing_group_norm_leaves_the_random_weights_as_they_are() -> None:
    first = []
    for norm in ("batch", "group"):
        torch.manual_seed(0)
        first.append(build("cifar_resnet20", norm=norm, **SMALL).backbone.conv1.weight)
    assert torch.equal(*first)


def test_group_norm_without_effect_is_an_error() -> None:
    with pytest.raises(ModelError, match="has no batch normalisation"):
        build("vit_tiny_patch16_224", norm="group", **SMALL)


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "efficientnet_b0"])
def test_a_model_that_cannot_have_group_norm_says_so(name: str) -> None:
    with pytest.raises(ModelError, match=f"{name} cannot be built with norm=group"):
        build(name, norm="group", **SMALL)


def test_group_norm_that_does_not_reach_everything_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class HalfConverted(nn.Sequential):
        def __init__(self, **options: Any) -> None:
            super().__init__(nn.Flatten(), nn.BatchNorm1d(3072))

    monkeypatch.setattr(timm, "create_model", HalfConverted)
    with pytest.raises(ModelError, match="does not reach all of cifar_resnet20"):
        build("cifar_resnet20", norm="group", **SMALL)


@given(channels=st.integers(1, 300).map(lambda n: 2 * n))
def test_groups_divide_the_channels_and_hold_two_at_least(channels: int) -> None:
    groups = GroupNorm(channels).num_groups
    assert channels % groups == 0
    assert channels // groups >= 2
    fitting = [2**k for k in range(6) if channels % 2 ** (k + 1) == 0]
    assert groups == max(fitting)


@pytest.mark.parametrize(("channels", "groups"), [(16, 8), (64, 32), (256, 32), (24, 4), (3, 1)])
def test_group_counts_by_hand(channels: int, groups: int) -> None:
    assert GroupNorm(channels).num_groups == groups


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_come_from_a_file(
    tmp_path: Path, state: dict[str, torch.Tensor], suffix: str
) -> None:
    path = tmp_path / f"weights{suffix}"
    save = save_file if suffix == ".safetensors" else torch.save
    save(state, path)
    model = build("cifar_resnet20", pretrained=str(path), **SMALL)
    assert equal_weights(model, state)
    assert model.head.out_features == 3


def test_weights_of_colour_images_are_adapted_to_one_channel(
    tmp_path: Path, state: dict[str, torch.Tensor]
) -> None:
    torch.save(state, tmp_path / "colour.pth")
    options = SMALL | {"in_channels": 1}
    model = build("cifar_resnet20", pretrained=str(tmp_path / "colour.pth"), **options)
    grey = state["conv1.weight"].sum(1, keepdim=True)
    torch.testing.assert_close(model.backbone.conv1.weight.detach(), grey)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ModelError, match=r"model\.pretrained=nowhere\.pth is not a file"):
        build("cifar_resnet20", pretrained="nowhere.pth", **SMALL)


@pytest.mark.parametrize(
    "name",
    [
        "layer3.2.conv2.weight",
        "layer3.2.bn2.bias",
        "layer3.2.bn2.weight",
        "layer3.2.bn2.running_mean",
        "layer3.2.bn2.running_var",
    ],
)
def test_a_file_that_lacks_a_tensor_is_refused(
    tmp_path: Path, state: dict[str, torch.Tensor], name: str
) -> None:
    lacking = {key: value for key, value in state.items() if key != name}
    torch.save(lacking, tmp_path / "lacking.pth")
    with pytest.raises(ModelError, match=f"has no {re.escape(name)}"):
        build("cifar_resnet20", pretrained=str(tmp_path / "lacking.pth"), **SMALL)


def test_a_file_of_other_names_is_refused(tmp_path: Path) -> None:
    torch.save({"other.weight": torch.ones(3)}, tmp_path / "other.pth")
    with pytest.raises(ModelError, match=r"has no conv1\.weight"):
        build("cifar_resnet20", pretrained=str(tmp_path / "other.pth"), **SMALL)


def test_a_file_for_another_model_is_refused(
    tmp_path: Path, state: dict[str, torch.Tensor]
) -> None:
    wide = {key: torch.cat((value, value)) if value.ndim else value for key, value in state.items()}
    torch.save(wide, tmp_path / "wide.pth")
    path = tmp_path / "wide.pth"
    with pytest.raises(ModelError) as caught:
        build("cifar_resnet20", pretrained=str(path), **SMALL)
    assert str(caught.value) == (
        f"model.pretrained={path} does not fit cifar_resnet20: give a file of its weights "
        "(conv1.weight has another shape)"
    )


def test_the_keys_of_a_file_for_another_model_are_not_listed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"blocks.{number}.attn.qkv.weight" for number in range(100)]
    torch.save({name: torch.ones(3) for name in names}, tmp_path / "other.pth")
    with pytest.raises(ModelError, match=r"has no conv1\.weight: give a file for cifar_resnet20; "):
        build("cifar_resnet20", pretrained=str(tmp_path / "other.pth"), **SMALL)
    assert caplog.records == []


def test_what_a_failed_download_logs_is_said_in_the_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    create = timm.create_model

    def unreachable(model_name: str, *, pretrained: bool = False, **options: Any) -> nn.Module:
        if not pretrained:
            return create(model_name, **options)
        for retry in range(1, 6):
            logging.getLogger("huggingface_hub.utils._http").warning("Retrying [%s/5].", retry)
        raise OSError("Connection refused")

    monkeypatch.setattr(timm, "create_model", unreachable)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"found no weights of resnet10t.*\(Connection refused\)$"):
        build("resnet10t", pretrained=True, **SMALL)
    assert caplog.records == []
    logging.getLogger("timm").warning("heard again")
    assert [record.message for record in caplog.records] == ["heard again"]


@pytest.mark.parametrize("name", ["broken.pth", "broken.safetensors", "broken.npz"])
@pytest.mark.parametrize("content", [b"", b"these are no weights"], ids=["empty", "text"])
def test_a_broken_file_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    said = "does not fit cifar_resnet20" if name.endswith("npz") else "is not a file of weights"
    with pytest.raises(ModelError, match=said):
        build("cifar_resnet20", pretrained=str(path), **SMALL)


class Intruder:
    """What a pickle must not be able to run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("intruder-was-here"),)


def test_a_file_that_would_run_code_is_refused_and_does_not_run_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps({"conv1.weight": Intruder()}, protocol=2))
    with pytest.raises(ModelError, match="is not a file of weights"):
        build("cifar_resnet20", pretrained=str(path), **SMALL)
    assert not (tmp_path / "intruder-was-here").exists()


def test_a_model_without_published_weights_asks_for_a_file() -> None:
    with pytest.raises(ModelError, match="found no weights of cifar_resnet20: give a file"):
        build("cifar_resnet20", pretrained=True, **SMALL)


def test_published_weights_out_of_reach_ask_for_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="found no weights of resnet10t: give a file") as caught:
        build("resnet10t", pretrained=True, **SMALL)
    assert "\n" not in str(caught.value)


def test_a_hub_that_does_not_answer_is_asked_once_for_published_weights(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = f"http://127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", closed)
    template = closed + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    asked = []
    ask = get_hf_file_metadata

    def counting(url: str, **options: Any) -> HfFileMetadata:
        asked.append(url)
        return ask(url, **options)

    monkeypatch.setattr("models._hub.get_hf_file_metadata", counting)
    with pytest.raises(ModelError, match=rf"no weights of resnet10t.*no answer from {closed}"):
        build("resnet10t", pretrained=True, **SMALL)
    assert asked == [f"{closed}/timm/resnet10t.c3_in1k/resolve/main/model.safetensors"]
    assert not constants.HF_HUB_OFFLINE


def test_a_file_of_models_that_cannot_be_imported_is_one_line_when_its_model_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text("import timm\n\nimport timn\n", encoding="utf-8")
    (tmp_path / "yours.py").write_text("x = 1\ndef y(:\n", encoding="utf-8")
    monkeypatch.setattr(models, "__path__", [str(tmp_path)])
    monkeypatch.setattr(_own_files, "names", lambda: ["mine", "yours"])
    found = _own_files._import_all()
    assert found == {
        "mine": "models/mine.py: line 3: ModuleNotFoundError: No module named 'timn'",
        "yours": "models/yours.py: line 2: invalid syntax",
    }
    monkeypatch.setattr(_own_files, "MISTAKES", found)
    with pytest.raises(ModelError) as caught:
        build("mine_small", **SMALL)
    assert str(caught.value) == found["mine"]
    assert build("cifar_resnet20", **SMALL) is not None


def test_an_assertion_without_a_message_is_named_by_its_source() -> None:
    with pytest.raises(AssertionError) as caught:
        torch._assert(SMALL["image_size"] % 3 == 0, "")
    assert one_line(caught.value) == (
        'AssertionError in test_backbones.py: torch._assert(SMALL["image_size"] % 3 == 0, "")'
    )


def test_features_that_are_not_pooled_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm, "create_model", lambda **options: nn.Conv2d(3, 4, 3))
    with pytest.raises(ModelError, match="gives no pooled features"):
        build("cifar_resnet20", **SMALL)


def test_unit_variance_after_group_norm() -> None:
    images = torch.randn(2, 16, 5, 5, generator=torch.Generator().manual_seed(0)) * 3 + 1
    groups = GroupNorm(16)(images).view(2, 8, -1)
    torch.testing.assert_close(groups.mean(2), torch.zeros(2, 8), atol=1e-5, rtol=0)
    assert math.isclose(groups.var(2, correction=0).mean().item(), 1, rel_tol=1e-3)
