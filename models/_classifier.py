"""A backbone with a head, and how the two are built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from ._backbone import BUILD_ERRORS, ModelError, create_backbone, own_size
from ._tuning import rest_frozen, tune
from ._unread import patches_of
from ._wording import one_line
from .tuning._base import Tuning


class Output(NamedTuple):
    """What a classifier says about N images."""

    logits: Tensor  # (N, num_outputs)
    features: Tensor  # (N, D), pooled, what the head was given


class Classifier(nn.Module):
    """Images (N, C, H, W) to logits and pooled features.

    Under autocast the backbone alone computes in 16 bits: the head, whichever it is, is given
    float32 features and gives float32 logits. Of 16-bit logits of many classes two are often equal,
    and the prediction would then be the lower label.

    Args:
        backbone: A module that gives pooled features (N, D).
        head: A module that gives logits (N, num_outputs) of them.
        freeze: Keep the backbone as it is: its parameters take no gradient and it stays in
            evaluation mode, so that the statistics of batch normalisation do not move either.
        is_light: Parts of the backbone are frozen: they stay in evaluation mode.

    Attributes:
        remarks: Sentences on what was made of the file of weights that the backbone starts from,
            and on pixels of the images that it does not read.
    """

    remarks: tuple[str, ...] = ()

    def __init__(
        self, backbone: nn.Module, head: nn.Module, *, freeze: bool = False, is_light: bool = False
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.is_light = freeze or is_light
        if freeze:
            backbone.requires_grad_(False)
        if self.is_light:
            rest_frozen(backbone)

    def train(self, mode: bool = True) -> Classifier:  # noqa: FBT001, FBT002
        """Set training or evaluation mode; what is frozen stays in evaluation mode."""
        super().train(mode)
        if self.is_light:
            rest_frozen(self.backbone)
        return self

    def forward(self, images: Tensor) -> Output:
        """Return the logits and features of images (N, C, H, W).

        Given features (N, D) that the backbone has made of images before, it leaves the backbone
        out: a frozen one makes the same again.
        """
        features = images if images.ndim == 2 else self.backbone(images)
        device = images.device.type
        if not torch.is_autocast_enabled(device):
            return Output(self.head(features), features)
        with torch.autocast(device, enabled=False):
            features = features.float()
            return Output(self.head(features), features)


def build(
    name: str,
    *,
    num_outputs: int,
    in_channels: int,
    image_size: int | tuple[int, int],
    test_size: tuple[int, int] | None = None,
    head: Callable[..., nn.Module],
    norm: Literal["batch", "group"] = "batch",
    pretrained: bool | str = False,
    freeze: bool = False,
    prior: float | None = None,
    kwargs: Mapping[str, Any] | None = None,
    tuning: Tuning | None = None,
) -> Classifier:
    """Build a classifier; new weights come from torch's global generator, which the caller seeds.

    Args:
        name: Any model of timm, those that a file of this package registers among them.
        num_outputs: Logits: the number of classes, or 1 for a binary task with a sigmoid loss.
        in_channels: Channels of the images.
        image_size: Their size in pixels, one number or height and width.
        test_size: Height and width of the images that are tested, where it is another.
        head: Makes the head of ``num_features``, ``num_outputs``, ``init`` and ``prior``, all given
            by keyword (see `models.heads`).
        norm: ``group`` puts group normalisation in the place of batch normalisation.
        pretrained: True for the weights that timm downloads, or the path of a file of weights.
        freeze: Train the head alone.
        prior: Probability that every output starts from where the head has a bias, 1/C for sigmoid
            losses on C classes and the share of positives for a single output; None leaves torch's.
        kwargs: More arguments of the model's constructor in timm.
        tuning: Train this part of the backbone alone, or what it adds; None trains all of it.

    Raises:
        ModelError: In one line, for what cannot be built: an unknown name, weights that cannot be
            loaded, images that do not fit the model.
    """
    if prior is not None and not 0 < prior < 1:
        raise ModelError(f"the prior must lie strictly between 0 and 1, not {prior}")
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    backbone, remarks = create_backbone(
        name,
        in_channels=in_channels,
        image_size=size,
        norm=norm,
        pretrained=pretrained,
        asked=kwargs or {},
    )
    blank = torch.zeros(1, in_channels, *size)
    tested = torch.zeros(1, in_channels, *(test_size or size))
    shown_as = {"data.test_size": tested} if tested.shape != blank.shape else {}
    for key, shown in {**shown_as, "data.size": blank}.items():
        with patches_of(backbone, shown, name=name) as patches:
            num_features = _count_features(backbone, shown, name=name, key=key)
        if (remark := patches.remark(key)) is not None:
            remarks = (*remarks, remark)
    made = head(
        num_features=num_features,
        num_outputs=num_outputs,
        init=getattr(backbone, "head_init", "default"),
        prior=prior,
    )
    if tuning is not None:  # after the head, which then starts alike in every way of tuning
        tune(backbone, tuning, blank, name=name)
    model = Classifier(backbone, made, freeze=freeze, is_light=tuning is not None)
    model.remarks = remarks
    return model


def _count_features(backbone: nn.Module, image: Tensor, *, name: str, key: str) -> int:
    """Return D by showing the backbone one image of the size of ``key``, which it must take."""
    backbone.eval()
    size = "x".join(str(side) for side in image.shape[1:])
    try:
        with torch.no_grad():
            features: Tensor = backbone(image)
    except BUILD_ERRORS as error:
        raise ModelError(
            f"model.name={name} does not take images of {size}{own_size(name)}: resize them "
            f"({key}) or choose another ({one_line(error)})"
        ) from error
    finally:
        backbone.train()
    if features.ndim != 2:
        shape = tuple(features.shape)
        raise ModelError(f"model.name={name} gives no pooled features (N, D) but {shape}")
    return features.shape[1]
