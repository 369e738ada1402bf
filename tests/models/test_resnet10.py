"""ResNet-10 is ResNet-18 with one block a stage, as torchvision builds it."""

from __future__ import annotations

import timm
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

import models.resnet10  # noqa: F401 - registers itself in timm


def test_resnet10_computes_what_torchvisions_blocks_compute() -> None:
    ours = timm.create_model("resnet10", num_classes=5).eval()
    theirs = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=5).eval()
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), theirs(images))


def test_no_residual_branch_of_resnet10_begins_at_zero() -> None:
    model = timm.create_model("resnet10")
    scales = [m.weight for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(torch.equal(scale, torch.ones_like(scale)) for scale in scales)
