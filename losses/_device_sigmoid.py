"""Sigmoid losses on a CUDA device: which ones a kernel computes, and how it is tried."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ._device import MadeRows, are_plain, check_made, given_up, is_constant, made_by

if TYPE_CHECKING:
    from ._element_loss import ElementLoss


def device_loss(logits: Tensor, loss: ElementLoss) -> Tensor | None:
    """Return a loss of logits (N, C) computed by a kernel, or None where it is not for it.

    Returns:
        A scalar, in float32.
    """
    if not are_for(logits, loss) or given_up.is_set():
        return None
    from ._sigmoid_kernels import AVAILABLE, row_losses

    if not AVAILABLE:
        return None
    kernel = functools.partial(row_losses, loss=loss)
    return made_by(kernel, logits, loss.targets, loss.composed)


def are_for(logits: Tensor, loss: ElementLoss) -> bool:
    """Tell whether the kernel is for this loss, once its logits are where it runs.

    It is for eager float32 logits (N, C), a scalar, and a derivative by the logits alone; for
    labels, and for targets of the logits' shape that have no class weights.
    """
    targets, weight = loss.targets, loss.weight
    if not (
        are_plain(logits)
        and type(targets) is Tensor
        and targets.device == logits.device
        and targets.is_contiguous()
        and not targets.requires_grad
        and loss.reduction in ("mean", "sum")
        and loss.normalize in ("elements", "batch", "positives")
    ):
        return False
    if not loss.are_labels(logits):
        is_usual = loss.gamma == 0 or loss.soft_form == "likelihood"
        return targets.shape == logits.shape and weight is None and is_usual
    num_outputs = logits.shape[1]
    return (
        targets.dtype == torch.int64
        # Of two classes that share an output not every sample is a positive.
        and (num_outputs > 1 or loss.reduction == "sum" or loss.normalize != "positives")
        and (
            weight is None
            or (is_constant(weight, (max(num_outputs, 2),)) and weight.is_contiguous())
        )
    )


def check_on_trial(
    kernel: Callable[[Tensor, ElementLoss], MadeRows],
    logits: Tensor,
    loss: ElementLoss,
    *,
    rows: int,
) -> None:
    """Compare a kernel with the composition on drawn logits and targets of such a loss.

    Not on those of the batch: where they fit it well, rounding is all that is left of its loss.

    Raises:
        ArithmeticError: They differ by more than rounding explains.
    """
    with torch.inference_mode(mode=False), torch.enable_grad():
        # A generator of its own: the run's draws stay as they are.
        generator = torch.Generator().manual_seed(0)
        num_outputs = logits.shape[1]
        drawn = torch.randn(rows, num_outputs, generator=generator).to(logits.device)
        if loss.are_labels(logits):
            targets = torch.randint(max(num_outputs, 2), (rows,), generator=generator)
            targets[1:2] = loss.ignore_index
        else:
            targets = torch.rand(rows, num_outputs, generator=generator).round(decimals=1)
            targets = targets.to(loss.targets.dtype)
        # Copies, since what was made in inference mode has no part in a gradient.
        weight = None if loss.weight is None else loss.weight.clone()
        loss = loss._replace(targets=targets.to(logits.device), weight=weight)
        check_made(kernel(drawn, loss), drawn, loss.composed)
