"""Losses that kernels compute, and the logits and targets that they are tried on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from unittest import mock

import torch
from torch import Tensor

from losses import _element_loss, _sample_loss
from losses.balanced_softmax import balanced_softmax_loss
from losses.binary_cross_entropy import binary_cross_entropy_loss
from losses.cross_entropy import cross_entropy_loss
from losses.influence_balanced import influence_balanced_loss
from losses.ldam import ldam_loss
from losses.poly import poly_loss
from losses.sigmoid_focal import sigmoid_focal_loss
from losses.softmax_focal import softmax_focal_loss
from losses.vector_scaling import vector_scaling_loss

IGNORED = -100


def drawn(*shape: int, seed: int = 0, size: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return size * torch.randn(*shape, generator=generator, dtype=torch.float64)


def labels_of(logits: Tensor) -> Tensor:
    """Draw labels, the second of which does not count."""
    N, C = logits.shape
    labels = torch.randint(C, (N,), generator=torch.Generator().manual_seed(1))
    labels[1] = IGNORED
    return labels


WEIGHT = drawn(37, seed=2, size=1).abs()
COUNTS = torch.linspace(900, 1, 37).round()
COUNTS[5] = 0
FEATURES = drawn(6, 4, seed=3)

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": cross_entropy_loss,
    "weighted": lambda x, y: cross_entropy_loss(x, y, weight=WEIGHT),
    "by weights": lambda x, y: cross_entropy_loss(x, y, weight=WEIGHT, normalize="weights"),
    "sum": lambda x, y: cross_entropy_loss(x, y, reduction="sum"),
    "another ignored": lambda x, y: cross_entropy_loss(x, y.clamp_min(-1), ignore_index=-1),
    "focal": softmax_focal_loss,
    "focal, 0.3": lambda x, y: softmax_focal_loss(x, y, gamma=0.3, reduction="sum"),
    "focal, alpha": lambda x, y: softmax_focal_loss(
        x, y, gamma=3, alpha=WEIGHT, weight=WEIGHT, scale=10
    ),
    "focal, p^w": lambda x, y: softmax_focal_loss(x, y, weight=WEIGHT, probability="weighted"),
    "ldam": lambda x, y: ldam_loss(x / 10, y, class_counts=COUNTS, scale=30),
    "balanced": lambda x, y: balanced_softmax_loss(x, y, class_counts=COUNTS, weight=WEIGHT),
    "vector scaling": lambda x, y: vector_scaling_loss(x, y, class_counts=COUNTS),
    "poly": poly_loss,
    "poly, focal": lambda x, y: poly_loss(x, y, epsilon=-0.5, gamma=1.5, weight=WEIGHT),
    "influence": lambda x, y: influence_balanced_loss(x, y, features=FEATURES, alpha=2),
    "influence, focal": lambda x, y: influence_balanced_loss(
        x, y, features=FEATURES, gamma=1.0, weight=WEIGHT, weighted_likelihood=True
    ),
}


def shares_of(logits: Tensor) -> Tensor:
    """Draw targets for all outputs, a third of them 0 and a third 1."""
    shares = torch.rand(logits.shape, generator=torch.Generator().manual_seed(5))
    return (3 * shares - 1).clamp(0, 1)


def masked(logits: Tensor, labels: Tensor) -> Tensor:
    """Put minus infinity where outputs are absent, of which no label is."""
    absent = torch.arange(logits.shape[1]) % 3 == 0
    is_label = torch.isin(torch.arange(logits.shape[1]), labels)
    return logits.masked_fill(absent & ~is_label, -torch.inf)


def two_classes(labels: Tensor) -> Tensor:
    return labels.where(labels == IGNORED, labels % 2)


SIGMOID_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "bce": binary_cross_entropy_loss,
    "bce, weighted": lambda x, y: binary_cross_entropy_loss(x, y, weight=WEIGHT),
    "bce, batch": lambda x, y: binary_cross_entropy_loss(x, y, normalize="batch"),
    "bce, shares": lambda x, _: binary_cross_entropy_loss(x, shares_of(x)),
    "sigmoid focal": sigmoid_focal_loss,
    "sigmoid focal, 0.3": lambda x, y: sigmoid_focal_loss(
        x, y, gamma=0.3, alpha=0.25, weight=WEIGHT, reduction="sum"
    ),
    "sigmoid focal, positives": lambda x, y: sigmoid_focal_loss(x, y, normalize="positives"),
    "sigmoid focal, another ignored": lambda x, y: sigmoid_focal_loss(
        x, y.clamp_min(-1), ignore_index=-1
    ),
    "sigmoid focal, absent": lambda x, y: sigmoid_focal_loss(masked(x, y), y),
    "sigmoid focal, shares": lambda x, _: sigmoid_focal_loss(x, shares_of(x), gamma=1.5),
    "sigmoid focal, shares, batch": lambda x, _: sigmoid_focal_loss(
        x, shares_of(x), gamma=0.3, alpha=0.9, normalize="batch"
    ),
    "sigmoid focal, shares, positives": lambda x, _: sigmoid_focal_loss(
        x, shares_of(x), alpha=0.25, normalize="positives"
    ),
    "sigmoid focal, no positives": lambda x, _: sigmoid_focal_loss(
        x, torch.zeros_like(x), normalize="positives"
    ),
    "sigmoid focal, integers": lambda x, _: sigmoid_focal_loss(x, (shares_of(x) > 0.5).long()),
    "sigmoid focal, one output": lambda x, y: sigmoid_focal_loss(
        x[:, :1], two_classes(y), alpha=0.25, weight=[0.3, 2.0]
    ),
    "sigmoid focal, shares of one output": lambda x, _: sigmoid_focal_loss(
        x[:, :1], shares_of(x[:, :1]).contiguous()
    ),
}
LOGITS: dict[str, Callable[[], Tensor]] = {
    "two turns": lambda: drawn(3, 4099),
    "one class": lambda: drawn(3, 1),
    "sixteen": lambda: drawn(3, 16),
    "large": lambda: drawn(4, 9, size=300),
    "shifted": lambda: drawn(4, 9) + 1e4,
    "turned": lambda: drawn(9, 4).t(),
    "apart": lambda: drawn(6, 20)[::2, :9],
    "one row": lambda: drawn(1, 9).expand(4, 9),
}


@contextlib.contextmanager
def open_to_kernels() -> Iterator[None]:
    """Have losses take every tensor for one where kernels run."""
    with (
        mock.patch.object(_sample_loss, "is_on_device", return_value=True),
        mock.patch.object(_element_loss, "is_on_device", return_value=True),
    ):
        yield


def cases() -> Iterator[tuple[str, Callable[[Tensor, Tensor], Tensor], Tensor]]:
    """Yield names, losses, and logits in float64: each loss once, and all logits."""
    for name, loss in (LOSSES | SIGMOID_LOSSES).items():
        yield name, loss, drawn(6, 37)
    for name, make in LOGITS.items():
        yield f"focal of {name}", softmax_focal_loss, make()
        if name != "one class":  # one output is of two classes, see above
            yield f"sigmoid focal of {name}", sigmoid_focal_loss, make()
            yield (
                f"sigmoid focal, shares, of {name}",
                lambda x, _: sigmoid_focal_loss(x, shares_of(x)),
                make(),
            )
