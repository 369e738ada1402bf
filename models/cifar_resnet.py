"""ResNets for small images, as the long-tailed literature uses them on CIFAR.

He et al. 2016, "Deep Residual Learning for Image Recognition", sec. 4.2: a 3x3 convolution without
pooling, three stages of 16, 32 and 64 channels, option A shortcuts without parameters, global
average pooling. Kaiming-normal weights in convolutions and in the linear layer, as in the code of
LDAM (Cao et al. 2019). They register in timm as cifar_resnet8, 20, 32, 44, 56 and 110;
resnet8 is ours, the smallest of the family, for tables that a CPU makes.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from timm.layers import create_classifier, get_norm_layer
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

__all__: list[str] = []  # timm adds the registered names


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: (N, in, H, W) to (N, out, H / stride, W / stride)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int,
        norm_layer: type[nn.Module],
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = norm_layer(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = norm_layer(out_channels)
        self.stride = stride
        self.pad = (out_channels - in_channels) // 2

    def forward(self, images: Tensor) -> Tensor:
        """Return the residual plus the shortcut: every stride-th pixel, zeros for new channels."""
        residual = F.relu(self.bn1(self.conv1(images)))
        residual = self.bn2(self.conv2(residual))
        shortcut = images[:, :, :: self.stride, :: self.stride]
        if self.pad:
            shortcut = F.pad(shortcut, (0, 0, 0, 0, self.pad, self.pad))
        return F.relu(residual + shortcut)


class CifarResNet(nn.Module):
    """ResNet of 6 * num_blocks + 2 layers for images of any size, (N, in_chans, H, W).

    Args:
        num_blocks: Blocks in each of the three stages.
        num_classes: Outputs of the classifier, 0 for none.
        in_chans: Channels of the images.
        global_pool: How timm pools the last feature map, (N, 64, H / 4, W / 4).
        norm_layer: Normalisation, a class or one of timm's names.
    """

    # What a head that replaces the classifier should do.
    head_init: ClassVar[Literal["default", "kaiming"]] = "kaiming"

    def __init__(
        self,
        num_blocks: int,
        *,
        num_classes: int = 10,
        in_chans: int = 3,
        global_pool: str = "avg",
        norm_layer: str | type[nn.Module] = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        norm = get_norm_layer(norm_layer)
        self.num_features = self.head_hidden_size = 64
        self.conv1 = nn.Conv2d(in_chans, 16, 3, padding=1, bias=False)
        self.bn1 = norm(16)
        self.layer1 = _stage(16, 16, num_blocks=num_blocks, stride=1, norm_layer=norm)
        self.layer2 = _stage(16, 32, num_blocks=num_blocks, stride=2, norm_layer=norm)
        self.layer3 = _stage(32, 64, num_blocks=num_blocks, stride=2, norm_layer=norm)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        self.reset_classifier(num_classes, global_pool)

    def group_matcher(self, *, coarse: bool = False) -> dict[str, str]:
        """Return which parameters are a layer, from the image up: the stem, then block by block."""
        return {"stem": r"^conv1|^bn1", "blocks": r"^layer(\d+)" + ("" if coarse else r"\.(\d+)")}

    def get_classifier(self) -> nn.Module:
        """Return the linear layer, or an identity where there is none."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str = "avg") -> None:
        """Put a new pooling and a new linear layer of `num_classes` outputs (0 for none) on top."""
        self.num_classes = num_classes
        self.global_pool, self.fc = create_classifier(
            self.num_features, num_classes, pool_type=global_pool
        )
        if isinstance(self.fc, nn.Linear):
            nn.init.kaiming_normal_(self.fc.weight)

    def forward_features(self, images: Tensor) -> Tensor:
        """Return the last feature map, (N, 64, H / 4, W / 4), sizes rounded up."""
        maps = F.relu(self.bn1(self.conv1(images)))
        return self.layer3(self.layer2(self.layer1(maps)))

    def forward_head(self, maps: Tensor, *, pre_logits: bool = False) -> Tensor:
        """Return logits (N, num_classes) of a feature map, or its pooled features (N, 64)."""
        features = self.global_pool(maps)
        return features if pre_logits else self.fc(features)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, num_classes), or pooled features (N, 64) without classifier."""
        return self.forward_head(self.forward_features(images))


def _stage(
    in_channels: int,
    out_channels: int,
    *,
    num_blocks: int,
    stride: int,
    norm_layer: type[nn.Module],
) -> nn.Sequential:
    """Return the blocks of a stage; the first one changes size and channels."""
    first = BasicBlock(in_channels, out_channels, stride=stride, norm_layer=norm_layer)
    others = [
        BasicBlock(out_channels, out_channels, stride=1, norm_layer=norm_layer)
        for _ in range(num_blocks - 1)
    ]
    return nn.Sequential(first, *others)


default_cfgs = generate_default_cfgs(
    {
        f"cifar_resnet{depth}": {
            "url": "",
            "num_classes": 10,
            "input_size": (3, 32, 32),
            "pool_size": (8, 8),
            "crop_pct": 1.0,
            "mean": (0.4914, 0.4822, 0.4465),
            "std": (0.2023, 0.1994, 0.2010),
            "first_conv": "conv1",
            "classifier": "fc",
        }
        for depth in (8, 20, 32, 44, 56, 110)
    }
)


def _create(variant: str, *, depth: int, pretrained: bool, **kwargs: Any) -> CifarResNet:
    model: CifarResNet = build_model_with_cfg(
        CifarResNet, variant, pretrained, num_blocks=(depth - 2) // 6, **kwargs
    )
    return model


@register_model
def cifar_resnet8(*, pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-8 for small images, 0.08 M parameters: one block a stage, for CPUs."""
    return _create("cifar_resnet8", depth=8, pretrained=pretrained, **kwargs)


@register_model
def cifar_resnet20(*, pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-20 for small images, 0.27 M parameters."""
    return _create("cifar_resnet20", depth=20, pretrained=pretrained, **kwargs)


@register_model
def cifar_resnet32(*, pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-32 for small images, 0.46 M parameters."""
    return _create("cifar_resnet32", depth=32, pretrained=pretrained, **kwargs)


@register_model
def cifar_resnet44(*, pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-44 for small images, 0.66 M parameters."""
    return _create("cifar_resnet44", depth=44, pretrained=pretrained, **kwargs)


@register_model
def cifar_resnet56(*, pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-56 for small images, 0.85 M parameters."""
    return _create("cifar_resnet56", depth=56, pretrained=pretrained, **kwargs)


@register_model
def cifar_resnet110(*, pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-110 for small images, 1.7 M parameters."""
    return _create("cifar_resnet110", depth=110, pretrained=pretrained, **kwargs)
