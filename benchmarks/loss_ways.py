"""What the bench of losses measures: PyTorch's floor, ours, the usual code and other packages."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple
from unittest import mock

import timm.loss
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

import losses
from benchmarks import timing
from benchmarks.losses import Case
from losses import _device, _fused

Scalar = Callable[[Tensor], Tensor]  # from logits to a loss


class Batch(NamedTuple):
    """A drawn batch whose classes are as many as its logits have outputs."""

    logits: Tensor  # (N, C) or (N, C, ...), a leaf; -1 to 1, which LDAM's scale of 30 is for
    labels: Tensor  # (N,) or (N, ...)
    features: Tensor  # (N, 64), for the influence-balanced loss
    class_counts: Tensor  # (C,), from 1000 down to 5

    @property
    def one_hot(self) -> Tensor:
        """The labels as targets of the logits' shape."""
        return torch.zeros_like(self.logits).scatter_(1, self.labels.unsqueeze(1), 1)


def drawn(shape: tuple[int, ...], device: torch.device) -> Batch:
    """Draw a batch, the same every time and for every device."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.rand(shape, generator=generator) - 1
    return Batch(
        logits.to(device).requires_grad_(),
        torch.randint(shape[1], (shape[0], *shape[2:]), generator=generator).to(device),
        torch.rand(shape[0], 64, generator=generator).to(device),
        torch.linspace(1000, 5, shape[1], device=device).round(),
    )


def ways(case: Case, batch: Batch) -> dict[str, Scalar]:
    """Return every way to compute a case, by name; the first is the floor."""
    return _softmax_ways(batch) if case.activation == "softmax" else _sigmoid_ways(batch)


def _softmax_ways(batch: Batch) -> dict[str, Scalar]:
    y = batch.labels
    found: dict[str, Scalar] = {
        "F.cross_entropy": lambda x: F.cross_entropy(x, y),
        "cross_entropy": _ours("cross_entropy", batch),
        "cross_entropy, weighted": _ours("cross_entropy", batch, is_weighted=True),
        "softmax_focal": _ours("softmax_focal", batch),
        "softmax_focal, composed": _composed(_ours("softmax_focal", batch)),
        "balanced_softmax": _ours("balanced_softmax", batch),
        "balanced_softmax, composed": _composed(_ours("balanced_softmax", batch)),
        "logit_adjustment": _ours("logit_adjustment", batch),
        "ldam": _ours("ldam", batch),
        "ldam, composed": _composed(_ours("ldam", batch)),
        "dice": _ours("dice", batch),
        "dice, alone": _ours("dice", batch, ratio=1.0),
        "usual: focal, log softmax": lambda x: _usual_focal(x, y),
        "usual: focal, one-hot": lambda x: _one_hot_focal(x, y),
    }
    if batch.logits.ndim > 2:
        return found
    return found | {
        "influence_balanced": _ours("influence_balanced", batch, start=0.0),
        "usual: balanced softmax": lambda x: _usual_balanced_softmax(x, batch),
        "usual: LDAM": _usual_ldam(batch),
        "usual: influence-balanced": lambda x: _usual_influence_balanced(x, batch),
        "timm: PolyCrossEntropy": lambda x: timm.loss.PolyCrossEntropy()(x, y),
    }


def _sigmoid_ways(batch: Batch) -> dict[str, Scalar]:
    targets = batch.one_hot
    found: dict[str, Scalar] = {
        "F.binary_cross_entropy": lambda x: F.binary_cross_entropy_with_logits(x, targets),
        "binary_cross_entropy": _ours("binary_cross_entropy", batch, targets=targets),
        "sigmoid_focal": _ours("sigmoid_focal", batch, targets=targets),
        "sigmoid_focal, alpha": _ours("sigmoid_focal", batch, targets=targets, alpha=0.25),
        "sigmoid_focal, labels": _ours("sigmoid_focal", batch),
        "sigmoid_focal, composed": _composed(_ours("sigmoid_focal", batch, targets=targets)),
        "usual: focal, log sigmoid": lambda x: _usual_sigmoid_focal(x, targets),
        "torchvision: sigmoid_focal": lambda x: torchvision.ops.sigmoid_focal_loss(
            x, targets, reduction="mean"
        ),
    }
    for name in ("AsymmetricLossMultiLabel", "PolyBinaryCrossEntropy"):
        loss = getattr(timm.loss, name)()
        found[f"timm: {name}"] = lambda x, loss=loss: loss(x, targets)
    return found


def _ours(
    name: str,
    batch: Batch,
    *,
    targets: Tensor | None = None,
    is_weighted: bool = False,
    **keys: object,
) -> Scalar:
    """Return the value of a component of losses/, on labels unless targets are given."""
    loss = losses.build(name, keys, class_counts=batch.class_counts)
    if is_weighted:
        loss.set_weight(losses.class_weights(batch.class_counts, scheme="inverse"))
    loss.to(batch.logits.device)
    extras = {"features": batch.features} if loss.needs_features else {}
    chosen = batch.labels if targets is None else targets
    return lambda x: loss(x, chosen, **extras)


def _composed(loss: Scalar) -> Scalar:
    """Return the same loss computed without its fused kernels."""

    def call(logits: Tensor) -> Tensor:
        with mock.patch.dict(_fused.MIN_LOGITS, softmax=math.inf, sigmoid=math.inf):
            return loss(logits)

    def call_on_device(logits: Tensor) -> Tensor:
        # What else changes a call's way would take longer than the call.
        had_given_up = _device.given_up.is_set()
        _device.given_up.set()
        value = loss(logits)
        if not had_given_up:
            _device.given_up.clear()
        return value

    return lambda logits: call_on_device(logits) if logits.is_cuda else call(logits)


def is_by_kernel(value: Tensor) -> bool:
    """Tell whether a kernel made a loss on a device."""
    return type(value.grad_fn).__name__ == "GradientOfRowsBackward"


def _usual_focal(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute it as in most places: infinite, or without a gradient, where p underflows."""
    p = logits.softmax(dim=1).gather(1, labels.unsqueeze(1))
    return -((1 - p) ** 2 * p.log()).mean()


def _one_hot_focal(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute it as in the rest: a product with one-hot targets, epsilon in the logarithm."""
    one_hot = F.one_hot(labels, logits.shape[1]).movedim(-1, 1).float()
    p = logits.softmax(dim=1)
    return -(one_hot * (1 - p) ** 2 * (p + 1e-8).log()).sum(dim=1).mean()


def _usual_balanced_softmax(logits: Tensor, batch: Batch) -> Tensor:
    """Compute it as jiawei-ren/BalancedMetaSoftmax does: log of (N, C) counts at every step."""
    counts = batch.class_counts.to(logits).unsqueeze(0).expand(len(logits), -1)
    return F.cross_entropy(logits + counts.log(), batch.labels)


def _usual_ldam(batch: Batch) -> Scalar:
    """Build it as kaidic/LDAM-DRW does: margins from one-hot labels, two masked copies."""
    margins = batch.class_counts**-0.25
    margins = margins * (0.5 / margins.max())

    def call(logits: Tensor) -> Tensor:
        index = torch.zeros_like(logits, dtype=torch.bool)
        index.scatter_(1, batch.labels.view(-1, 1), 1)
        own = torch.matmul(margins[None, :], index.float().transpose(0, 1)).view(-1, 1)
        return F.cross_entropy(30 * torch.where(index, logits - own, logits), batch.labels)

    return call


def _usual_influence_balanced(logits: Tensor, batch: Batch) -> Tensor:
    """Compute it as pseulki/IB-Loss does: a softmax and a one-hot of its own."""
    one_hot = F.one_hot(batch.labels, logits.shape[1])
    influence = (F.softmax(logits, dim=1) - one_hot).abs().sum(dim=1)
    influence = influence * batch.features.abs().sum(dim=1)
    ce = F.cross_entropy(logits, batch.labels, reduction="none")
    return (ce * 1000 / (influence + 1e-3)).mean()


def _usual_sigmoid_focal(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute it as in most places: no gradient for the worst mistakes, where p is clamped."""
    p = logits.sigmoid()
    p_t = p * targets + (1 - p) * (1 - targets)
    return -((1 - p_t) ** 2 * p_t.clamp(min=1e-8).log()).mean()


def step(batch: Batch, loss: Scalar) -> Callable[[], None]:
    """Return a function that does one forward and one backward pass."""

    def run() -> None:
        batch.logits.grad = None
        loss(batch.logits).backward()

    return run


def turn(step: Callable[[], None], device: torch.device) -> timing.Turn:
    """Return a timed turn of this many passes."""

    def run(count: int) -> None:
        for _ in range(count):
            step()

    return lambda count: timing.cost(lambda: run(count), steps=count, device=device)
