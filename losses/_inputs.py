"""What losses are given: logits, targets, and numbers of every class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor


class SupportsArray(Protocol):
    """A NumPy array, or what turns into one."""

    def __array__(self) -> Any: ...


# One number for every class: whatever torch can make a vector of.
ClassValues = Tensor | Sequence[float] | SupportsArray


def as_float(logits: Tensor) -> Tensor:
    """Return logits in the precision that losses compute in: float64 stays, the rest is float32."""
    return logits if logits.dtype in (torch.float32, torch.float64) else logits.float()


def as_tensor(values: object, *, name: str) -> Tensor:
    """Return a tensor as it is, and anything array-like as one.

    Raises:
        ValueError: For what is not made of numbers.
    """
    if isinstance(values, Tensor):
        return values
    try:
        # Through a list: torch would read a list of arrays item by item, and warn of it.
        listed = values.tolist() if hasattr(values, "tolist") else values
        return torch.tensor(listed, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} must be numbers, not {values!r}") from error


def class_vector(
    values: ClassValues, num_classes: int | None, *, name: str, of: str = "class"
) -> Tensor:
    """Return values as a tensor (C,).

    Args:
        values: One number for every class.
        num_classes: C, None where it is not known.
        name: What the values are, for the message.
        of: What there is one number for.

    Raises:
        ValueError: For what is not made of numbers, or of another number of them.
    """
    vector = as_tensor(values, name=name)
    if vector.ndim == 1 and num_classes in (None, len(vector)):
        return vector
    wanted = "numbers" if num_classes is None else f"{num_classes} number{'s'[: num_classes != 1]}"
    shape = {0: "a single number", 1: str(len(vector)) if vector.ndim else ""}
    given = shape.get(vector.ndim, f"shape {tuple(vector.shape)}")
    raise ValueError(f"{name} must be {wanted}, one for each {of}, not {given}")


def checked_values(
    values: ClassValues, num_classes: int | None, *, name: str, of: str = "class"
) -> Tensor:
    """Return `class_vector` of values that are finite and not negative.

    Raises:
        ValueError: For others (never when compiled).
    """
    vector = class_vector(values, num_classes, name=name, of=of)
    if torch.compiler.is_compiling():  # values cannot be read
        return vector
    if not bool((torch.isfinite(vector) & (vector >= 0)).all()):
        raise ValueError(f"{name} must be finite numbers that are not negative")
    return vector


def listed_values(
    values: ClassValues | dict[str, float],
    num_classes: int | None,
    *,
    name: str,
    of: str = "class",
) -> Tensor:
    """Return `checked_values` of a list, as numbers by class name are for a run that knows them.

    Raises:
        ValueError: For numbers by name, and for others than `checked_values` takes.
    """
    if isinstance(values, dict):
        raise ValueError(f"{name} by class name needs a run's names: give a list in label order")
    return checked_values(values, num_classes, name=name, of=of)


def class_weight(
    weight: ClassValues | None, logits: Tensor, *, num_classes: int | None = None
) -> Tensor | None:
    """Return class weights like the logits (N, C, ...), None for none.

    Raises:
        ValueError: For weights that are not C numbers, or `num_classes` where that is given.
    """
    if weight is None:
        return None
    return class_vector(weight, num_classes or logits.shape[1], name="weight").to(logits)


def is_readable(tensor: Tensor) -> bool:
    """Return whether values may steer Python code: eager on the CPU, which needs no device sync.

    Not under a transform of torch.func either: vmap over samples has no single value to read.
    """
    if torch.compiler.is_compiling() or not tensor.is_cpu:
        return False
    return not torch._C._are_functorch_transforms_active()


def all_count(labels: Tensor, *, ignore_index: int) -> bool:
    """Tell whether it is known, without a device sync, that no label is `ignore_index`."""
    return (
        ignore_index < 0
        and is_readable(labels)
        and labels.numel() > 0
        # Fake tensors, and modes that record operations, have no value to read.
        and type(labels) is Tensor
        and torch._C._len_torch_dispatch_stack() == 0
        and labels.min().item() >= 0
    )


def as_labels(targets: Tensor) -> Tensor:
    """Return labels of any integer type as int64: uint8 and bool would index as a mask does.

    Soft targets are returned as they are.
    """
    if targets.dtype == torch.int64 or targets.is_floating_point():
        return targets
    return targets.long()


def known_labels(labels: Tensor, *, ignore_index: int) -> Tensor:
    """Return labels, as int64, with class 0 in the place of ignored ones."""
    labels = as_labels(labels)
    return labels.masked_fill(labels == ignore_index, 0)


def without_ignored(logits: Tensor, valid: Tensor) -> Tensor:
    """Put 0 in the place of logits (N, C, ...) of samples (N, ...) that do not count.

    A factor of 0 would leave NaN of those that are infinite or NaN, and so would a softmax's slope.
    """
    return torch.where(valid.unsqueeze(1), logits, 0)


def counted_logits(logits: Tensor, targets: Tensor, *, ignore_index: int) -> Tensor:
    """Return `without_ignored` of logits where a label may be ignored; soft targets all count."""
    if targets.is_floating_point() or all_count(targets, ignore_index=ignore_index):
        return logits
    return without_ignored(logits, targets != ignore_index)


def check_fit(logits: Tensor, targets: Tensor) -> None:
    """Raise ValueError unless targets are labels or probabilities of these logits, by their shape.

    Others would broadcast: (N, 1) soft targets to a value that means nothing.
    """
    shape = logits.shape
    of_labels = (shape[0], *shape[2:])
    if targets.shape != (shape if targets.is_floating_point() else of_labels):
        raise ValueError(
            f"{targets.dtype} targets {tuple(targets.shape)} do not fit logits {tuple(shape)}: "
            f"give integer labels {of_labels} or one probability for each logit"
        )


def check_labels_fit(logits: Tensor, targets: Tensor) -> None:
    """Raise ValueError unless targets are labels of these logits, by their shape and type."""
    shape = logits.shape
    if targets.is_floating_point() or targets.shape != (shape[0], *shape[2:]):
        raise ValueError(
            f"{targets.dtype} targets {tuple(targets.shape)} do not fit logits {tuple(shape)}: "
            f"give integer labels {(shape[0], *shape[2:])}"
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


def class_values(values: Tensor, targets: Tensor, *, ignore_index: int | None) -> Tensor:
    """Return each sample's share of per-class values.

    Args:
        values: (C,), such as class weights.
        targets: (N, ...) labels, giving ``values[label]`` and 0 for ignored ones; or (N, C, ...)
            soft targets t, giving sum_c t_c values_c.
        ignore_index: The label of samples that do not count; None where all are known to count.

    Returns:
        (N, ...).
    """
    if targets.is_floating_point():
        # Not einsum or matmul: autocast would run those in bfloat16.
        return (targets * values.view(-1, *[1] * (targets.ndim - 2))).sum(dim=1)
    targets = as_labels(targets)
    if ignore_index is None or all_count(targets, ignore_index=ignore_index):
        return values[targets]
    ignored = targets == ignore_index
    return values[targets.masked_fill(ignored, 0)] * ~ignored
