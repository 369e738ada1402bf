"""Logits that are infinite or NaN where they do not count: the rest is as without them."""

import math

import pytest
import torch
from torch import Tensor

import losses
from losses import Loss
from losses.binary_cross_entropy import binary_cross_entropy_loss

COUNTS = torch.linspace(900, 10, 40).round()
# Keys that lead through other operations than the defaults.
KEYS: dict[str, list[dict[str, object]]] = {
    "asymmetric": [{"gamma_positive": 1.5}, {"gamma_positive": 1.0, "margin": 0.0}],
    "binary_cross_entropy": [{"pos_weight": tuple(COUNTS.tolist())}],
    "cross_entropy": [{"label_smoothing": 0.1}],
    "dice": [{"over": "image"}, {"squared": True}, {"ratio": 1.0}],
    "distillation": [{"divergence": "kl"}],
    "influence_balanced": [{"start": 0.0}],
    "lade": [{"alpha": 0.0}],
    "poly": [{"gamma": 1.5}],
    "seesaw": [{"eps": 0.01}],
    "sigmoid_focal": [{"alpha": 0.25, "gamma": 0.5, "normalize": "positives"}],
    "softmax_focal": [
        {"label_smoothing": 0.1},
        {"label_smoothing": 0.1, "gamma": 0.0},
        {"label_smoothing": 0.1, "smoothing_weight": "class"},
    ],
    "tversky": [{"ratio": 0.5, "gamma": 1.0}],
}
CASES = [
    pytest.param(name, keys, id=" ".join([name, *map(str, keys)]))
    for name in losses.names()
    for keys in [{}, *KEYS.get(name, [])]
]


def built(name: str, keys: dict[str, object], *, weighted: bool) -> Loss:
    loss = losses.build(name, keys, class_counts=COUNTS)
    loss.set_progress(9, 10)
    if weighted and loss.takes_weight:
        loss.set_weight(torch.linspace(0.5, 3, 40))
    return loss


def value_and_slope(
    loss: Loss, logits: Tensor, targets: Tensor, features: Tensor
) -> tuple[Tensor, Tensor]:
    x = logits.clone().requires_grad_()
    torch.manual_seed(0)
    value = loss(x, targets, features=features, teacher_logits=logits.flip(1))
    return value.detach(), torch.autograd.grad(value, x)[0]


@pytest.mark.parametrize("size", [40, 7000])  # composed, and in parts
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("name", "keys"), CASES)
def test_logits_of_samples_that_do_not_count_may_be_anything(
    name: str, keys: dict[str, object], size: int, *, weighted: bool
) -> None:
    """As those of a class that a model does not know yet, minus infinity, often are."""
    loss = built(name, keys, weighted=weighted)
    generator = torch.Generator().manual_seed(0)
    logits, features = (torch.randn(size, n, generator=generator) for n in (40, 3))
    labels = torch.arange(size) % 20 + 20  # the classes that distillation learns
    labels[::40] = -100
    value, slope = value_and_slope(loss, logits, labels, features)
    for absent in (-math.inf, math.inf, math.nan):
        for columns in (slice(None), slice(None, None, 2), slice(20, 21)):
            logits[::40, columns] = absent
            features[::40] = absent
            found, gradient = value_and_slope(loss, logits, labels, features)
            assert torch.equal(found, value)
            assert torch.equal(gradient, slope)
            assert (gradient[::40] == 0).all()


DENSE = [case for case in CASES if losses.build(case.values[0], class_counts=COUNTS).dense]


@pytest.mark.parametrize(("name", "keys"), DENSE)
def test_pixels_that_do_not_count_may_be_anything(name: str, keys: dict[str, object]) -> None:
    loss = built(name, keys, weighted=False)
    generator = torch.Generator().manual_seed(0)
    logits, features = torch.randn(2, 40, 80, 50, generator=generator), torch.ones(2, 3)
    labels = torch.randint(20, 40, (2, 80, 50), generator=generator)
    labels[:, 3, 5:] = -100
    value, slope = value_and_slope(loss, logits, labels, features)
    for absent in (-math.inf, math.nan):
        logits[:, :, 3, 5:] = absent
        found, gradient = value_and_slope(loss, logits, labels, features)
        assert torch.equal(found, value)
        assert torch.equal(gradient, slope)


ONE_A_CLASS = [
    case
    for case in CASES
    if losses.build(case.values[0], class_counts=COUNTS).activation == "sigmoid"
]


@pytest.mark.parametrize("size", [40, 7000])
@pytest.mark.parametrize(("name", "keys"), ONE_A_CLASS)
def test_a_negative_of_minus_infinity_costs_nothing(
    name: str, keys: dict[str, object], size: int
) -> None:
    loss = built(name, keys, weighted=False)
    logits = torch.randn(size, 40, generator=torch.Generator().manual_seed(0))
    labels, features = torch.arange(size) % 20 + 20, torch.ones(size, 3)
    found = []
    for absent in (-1e4, -math.inf):
        logits[:, :20] = absent
        found.append(value_and_slope(loss, logits, labels, features))
    for finite, infinite in zip(*found, strict=True):
        assert torch.equal(finite, infinite)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("name", "keys"),
    [*ONE_A_CLASS, ("softmax_focal", {}), ("poly", {}), ("poly", {"gamma": 1.5})],
)
def test_an_absent_class_has_no_part_in_one_hot_targets_either(
    name: str, keys: dict[str, object], *, weighted: bool
) -> None:
    loss = built(name, keys, weighted=weighted)
    logits = torch.randn(40, 40, generator=torch.Generator().manual_seed(0))
    logits[:, :20] = -math.inf
    labels, features = torch.arange(40) % 20 + 20, torch.ones(40, 3)
    expected = value_and_slope(loss, logits, labels, features)
    one_hot = torch.nn.functional.one_hot(labels, 40).float()
    found = value_and_slope(loss, logits, one_hot, features)
    torch.testing.assert_close(found, expected)


def test_a_positive_of_infinity_costs_nothing() -> None:
    logits = torch.tensor([[math.inf, -math.inf]]).requires_grad_()
    value = binary_cross_entropy_loss(logits, torch.tensor([[1.0, 0.0]]))
    value.backward()
    assert value == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()
