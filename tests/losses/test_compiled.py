"""Losses compiled whole, at what their conformance leaves out: other targets and other keys.

Of labels at default keys `losses.conformance` compiles each loss by itself. Here all that take a
kind of targets are one graph, since most of the time goes into starting the compiler.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import losses
from losses import Loss

COUNTS = torch.tensor([50, 20, 8, 2])
# Keys that lead through other operations than the defaults.
KEYS: dict[str, dict[str, object]] = {
    "asymmetric": {"margin": 0.2, "normalize": "positives"},
    "cross_entropy": {"label_smoothing": 0.1, "normalize": "weights"},
    "dice": {"squared": True, "gamma": 0.5},
    "distillation": {"temperature": 3.0},
    "influence_balanced": {"start": 0.0, "gamma": 0.5, "detach": False},
    "label_aware_smoothing": {"normalize": "weights"},
    "ldam": {"scale": 3.0, "normalize": "weights"},
    "poly": {"gamma": 1.5},
    "sigmoid_focal": {"alpha": 0.25, "gamma": 0.5, "normalize": "positives"},
    "softmax_focal": {"gamma": 0.5, "probability": "weighted", "label_smoothing": 0.1},
    "tversky": {"ratio": 0.7, "gamma": 2.0},
}


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def built(name: str, keys: dict[str, object]) -> Loss:
    loss = losses.build(name, keys, class_counts=COUNTS)
    if loss.takes_weight:
        loss.set_weight([0.25, 0.5, 1.0, 2.0])
    return loss


def labels() -> Tensor:
    return torch.tensor([0, 1, -100, 3, 2, 0])


def soft_targets() -> Tensor:
    return drawn(6, 4, seed=1).softmax(dim=1)


def dense_labels() -> Tensor:
    return torch.tensor([[0, 1, 2], [3, -100, 0]])


def takes(loss: Loss, kind: str) -> bool:
    if loss.draws:  # a compiled draw is another one
        return False
    if kind == "labels":  # what takes no other
        return not (loss.takes_soft_targets or loss.dense)
    return loss.takes_soft_targets if kind == "soft" else loss.dense


@pytest.mark.parametrize(
    ("kind", "targets"), [("labels", labels()), ("soft", soft_targets()), ("dense", dense_labels())]
)
def test_losses_compiled_as_one_graph_have_the_values_and_gradients_of_eager_ones(
    kind: str, targets: Tensor
) -> None:
    made = {name: built(name, KEYS.get(name, {})) for name in losses.names()}
    chosen = {name: loss for name, loss in made.items() if takes(loss, kind)}
    assert chosen
    shape = (2, 4, 3) if kind == "dense" else (6, 4)
    extras = {"features": drawn(6, 5, seed=2), "teacher_logits": drawn(*shape, seed=3)}

    def values(logits: Tensor) -> list[Tensor]:
        pairs = zip(chosen.values(), logits, strict=True)
        return [loss(own, targets, **extras) for loss, own in pairs]

    eager = values_and_gradients(values, len(chosen), shape)
    torch.compiler.reset()
    compiled = torch.compile(values, fullgraph=True, backend="eager")
    found = values_and_gradients(compiled, len(chosen), shape)
    for name, one, other in zip(chosen, found, eager, strict=True):
        torch.testing.assert_close(one, other, msg=lambda text, name=name: f"{name}: {text}")


def values_and_gradients(
    values: Callable[[Tensor], list[Tensor]], count: int, shape: tuple[int, ...]
) -> list[Tensor]:
    """Return the value of each loss, and its gradient with respect to logits of its own."""
    logits = drawn(1, *shape, seed=0).repeat(count, *[1] * len(shape)).requires_grad_()
    found = torch.stack(values(logits))
    found.sum().backward()
    assert logits.grad is not None
    return [
        torch.cat((value.view(1), gradient.flatten()))
        for value, gradient in zip(found.detach(), logits.grad, strict=True)
    ]
