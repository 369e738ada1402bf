"""Class-conditional smoothing against a loop over its equation, and its limits."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from losses.class_conditional_smoothing import (
    ClassConditionalSmoothing,
    class_conditional_smoothing_loss,
)
from losses.cross_entropy import cross_entropy_loss

COUNTS = [100, 40, 20, 5]


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(8, 4, generator=generator, dtype=torch.float64), torch.arange(8) % 4


@given(smoothing=st.floats(0, 0.9), power=st.floats(0, 3))
def test_it_follows_its_equation(smoothing: float, power: float) -> None:
    logits, targets = batch()
    expected = []
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        total = sum(math.exp(x) for x in row)
        s = smoothing * (5 / COUNTS[target]) ** power
        share = [s / 4 + (1 - s) * (c == target) for c in range(4)]
        expected.append(
            -sum(q * math.log(math.exp(x) / total) for q, x in zip(share, row, strict=True))
        )
    found = class_conditional_smoothing_loss(
        logits, targets, class_counts=COUNTS, smoothing=smoothing, power=power, reduction="none"
    )
    assert found.tolist() == pytest.approx(expected)


def test_the_rarest_class_is_smoothed_most_and_one_without_images_as_much() -> None:
    strengths = ClassConditionalSmoothing([100, 10, 0, 50], smoothing=0.2).strengths
    assert strengths.tolist() == pytest.approx([0.02, 0.2, 0.2, 0.04])


def test_at_power_0_it_is_label_smoothing_with_class_weights_too() -> None:
    logits, targets = batch()
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0])
    found = class_conditional_smoothing_loss(
        logits, targets, class_counts=COUNTS, smoothing=0.3, power=0, weight=weight
    )
    expected = cross_entropy_loss(logits, targets, weight=weight, label_smoothing=0.3)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"smoothing": 1.0}, "must be 0 or more and below 1, not 1"),
        ({"power": -0.5}, "power must be 0 or more"),
    ],
)
def test_what_does_not_fit_is_refused(keys: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        class_conditional_smoothing_loss(*batch(), class_counts=COUNTS, **keys)  # type: ignore[arg-type]
