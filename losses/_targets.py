"""Targets: class labels or probabilities, which of them count, and what each sample weighs."""

from __future__ import annotations

import torch
from torch import Tensor


def is_readable(tensor: Tensor) -> bool:
    """Whether values may steer Python code: eager on the CPU, where that costs no device sync.

    Not under a transform of torch.func either: vmap over samples has no single value to read.
    """
    if tensor.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    return not torch._C._are_functorch_transforms_active()


def check_fit(logits: Tensor, targets: Tensor) -> None:
    """Raise ValueError unless targets are labels or probabilities of these logits, by their shape.

    Others would broadcast: (N, 1) soft targets to a value that means nothing.
    """
    labels = logits.shape[:1] + logits.shape[2:]
    if targets.shape != (logits.shape if targets.is_floating_point() else labels):
        raise ValueError(
            f"{targets.dtype} targets {tuple(targets.shape)} do not fit logits "
            f"{tuple(logits.shape)}: give integer labels {tuple(labels)} or one probability for "
            "each logit"
        )


def check_labels(labels: Tensor, num_classes: int) -> None:
    """Raise IndexError for a label outside 0..num_classes-1 (checked on the CPU only)."""
    if not is_readable(labels) or labels.numel() == 0:
        return
    low, high = (int(bound) for bound in labels.aminmax())
    if low < 0 or high >= num_classes:
        raise IndexError(
            f"target {low if low < 0 else high} is out of range: labels are 0 to {num_classes - 1} "
            "(or ignore_index)"
        )


def check_probabilities(targets: Tensor) -> None:
    """Raise ValueError for a soft target outside [0, 1] (checked on the CPU only)."""
    if not is_readable(targets) or targets.numel() == 0:
        return
    low, high = (float(bound) for bound in targets.detach().aminmax())
    if not (low >= 0 and high <= 1):
        raise ValueError(
            f"target {low if not low >= 0 else high:g} is out of range: soft targets lie in [0, 1]"
        )


def class_values(values: Tensor, targets: Tensor, *, ignore_index: int) -> Tensor:
    """Return each sample's share of per-class values.

    Args:
        values: (C,), such as class weights.
        targets: (N, ...) labels, giving ``values[label]`` and 0 for ignored ones; or (N, C, ...)
            soft targets t, giving sum_c t_c values_c.
        ignore_index: The label of samples that do not count.

    Returns:
        (N, ...).
    """
    if targets.is_floating_point():
        # Not einsum or matmul: autocast would run those in bfloat16.
        return (targets * values.view(-1, *[1] * (targets.ndim - 2))).sum(dim=1)
    valid = targets != ignore_index
    return values[torch.where(valid, targets, 0)] * valid
