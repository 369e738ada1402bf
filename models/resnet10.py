"""ResNet-10, the smallest network of the ImageNet-LT literature.

Liu et al. 2019, "Large-Scale Long-Tailed Recognition in an Open World": the ResNet-18 of He et al.
2016 with one block a stage in the place of two, trained from scratch. It is not timm's resnet10t,
whose stem and shortcuts are others. As in their code (ResNetFeature of
github.com/facebookresearch/classifier-balancing), no residual branch begins at zero.
"""

from __future__ import annotations

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock, ResNet

__all__: list[str] = []  # timm adds the registered names

default_cfgs = generate_default_cfgs(
    {
        "resnet10": {
            "url": "",
            "num_classes": 1000,
            "input_size": (3, 224, 224),
            "pool_size": (7, 7),
            "crop_pct": 0.875,
            "interpolation": "bilinear",
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
            "first_conv": "conv1",
            "classifier": "fc",
        }
    }
)


@register_model
def resnet10(*, pretrained: bool = False, **kwargs: Any) -> ResNet:
    """ResNet-10 for photographs, 4.9 M parameters: ResNet-18 with one block a stage."""
    options = {"block": BasicBlock, "layers": (1, 1, 1, 1), "zero_init_last": False, **kwargs}
    model: ResNet = build_model_with_cfg(ResNet, "resnet10", pretrained, **options)
    return model
