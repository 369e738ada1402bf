"""Softmax losses of labels on a CUDA device: which ones kernels compute, and how they are tried."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ._device import MadeRows, are_plain, check_made, given_up, is_constant, made_by

if TYPE_CHECKING:
    from ._sample_loss import SampleLoss


def device_loss(logits: Tensor, loss: SampleLoss) -> Tensor | None:
    """Return a loss of logits (N, C) computed by kernels, or None where they are not for it.

    Returns:
        (N,), or a scalar, in float32.
    """
    if not are_for(logits, loss) or given_up.is_set():
        return None
    from ._softmax_kernels import AVAILABLE, row_losses

    if not AVAILABLE:
        return None
    loss = _beside(loss, logits)
    kernel = functools.partial(row_losses, loss=loss)
    return made_by(kernel, logits, loss.labels, loss.composed)


def check_on_trial(
    kernel: Callable[[Tensor, SampleLoss], MadeRows],
    logits: Tensor,
    loss: SampleLoss,
    *,
    rows: int,
) -> None:
    """Compare a kernel with the composition on drawn logits of such a loss.

    Not on those of the batch: where they fit it well, rounding is all that is left of its loss.

    Raises:
        ArithmeticError: They differ by more than rounding explains.
    """
    with torch.inference_mode(mode=False), torch.enable_grad():
        # A generator of its own: the run's draws stay as they are.
        generator = torch.Generator().manual_seed(0)
        num_classes = logits.shape[1]
        drawn = torch.randn(rows, num_classes, generator=generator).to(logits.device)
        labels = torch.randint(num_classes, (rows,), generator=generator)
        labels[1:2] = loss.ignore_index
        size = None if loss.size is None else torch.ones(rows)
        # Copies, since what was made in inference mode has no part in a gradient.
        loss = _copied(loss._replace(labels=labels, size=size), logits.device)
        check_made(kernel(drawn, loss), drawn, loss.composed)


def are_for(logits: Tensor, loss: SampleLoss) -> bool:
    """Tell whether the kernels are for this loss, once its logits are where they run.

    They are for eager float32 logits (N, C) and a derivative by these alone.
    """
    labels, size = loss.labels, loss.size
    return (
        are_plain(logits)
        and type(labels) is Tensor
        and labels.dtype == torch.int64
        and labels.shape == logits.shape[:1]
        and labels.device == logits.device
        and labels.is_contiguous()
        and loss.reduction in ("none", "mean", "sum")
        and loss.normalize in ("samples", "weights")
        and loss.term.detach
        and all(is_constant(v, logits.shape[1:]) for v in _of_classes(loss))
        and (size is None or is_constant(size, logits.shape[:1]))
    )


def _of_classes(loss: SampleLoss) -> list[Tensor]:
    """Return all vectors (C,) of a loss."""
    found = (*loss.adjustment, loss.factor, loss.power, loss.weight)
    return [value for value in found if isinstance(value, Tensor)]


def _beside(loss: SampleLoss, logits: Tensor) -> SampleLoss:
    """Return a loss whose vectors are dense and on the device of the logits."""
    device = logits.device
    size = () if loss.size is None else (loss.size,)
    if all(v.device == device and v.is_contiguous() for v in (*_of_classes(loss), *size)):
        return loss
    return _copied(loss, device)


def _copied(loss: SampleLoss, device: torch.device) -> SampleLoss:
    """Return a loss with copies of its tensors, dense and on a device."""

    def copied(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to(device, copy=True, memory_format=torch.contiguous_format)
        return value

    changes: dict[str, Any] = {name: copied(value) for name, value in loss._asdict().items()}
    own = {name: copied(value) for name, value in loss.adjustment._asdict().items()}
    return loss._replace(**changes)._replace(adjustment=loss.adjustment._replace(**own))
