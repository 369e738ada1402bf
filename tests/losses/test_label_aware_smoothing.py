"""Label-aware smoothing against a slow loop over its equations, and its limits."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from losses.cross_entropy import cross_entropy_loss
from losses.label_aware_smoothing import LabelAwareSmoothing, label_aware_smoothing_loss

COUNTS = [100, 40, 20, 5]


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(8, 4, generator=generator, dtype=torch.float64)
    return logits, torch.arange(8) % 4


def strength(n: int, *, head: float, tail: float, shape: str) -> float:
    """The paper's related function f(n), case by case."""
    most, least = max(COUNTS), min(COUNTS)
    if shape == "concave":
        return tail + (head - tail) * math.sin(math.pi * (n - least) / (2 * (most - least)))
    if shape == "linear":
        return tail + (head - tail) * (n - least) / (most - least)
    angle = 3 * math.pi / 2 + math.pi * (n - least) / (2 * (most - least))
    return head + (head - tail) * math.sin(angle)


@given(
    head=st.floats(0, 0.9),
    tail=st.floats(0, 0.9),
    shape=st.sampled_from(["concave", "linear", "convex"]),
)
def test_it_follows_its_equations(head: float, tail: float, shape: str) -> None:
    logits, targets = batch()
    expected = []
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        total = sum(math.exp(x) for x in row)
        s = strength(COUNTS[target], head=head, tail=tail, shape=shape)
        share = [1 - s if c == target else s / 3 for c in range(4)]
        expected.append(
            -sum(q * math.log(math.exp(x) / total) for q, x in zip(share, row, strict=True))
        )
    found = label_aware_smoothing_loss(
        logits,
        targets,
        class_counts=COUNTS,
        smooth_head=head,
        smooth_tail=tail,
        shape=shape,  # type: ignore[arg-type]
        reduction="none",
    )
    assert found.tolist() == pytest.approx(expected)


def test_without_smoothing_it_is_cross_entropy() -> None:
    logits, targets = batch()
    found = label_aware_smoothing_loss(
        logits, targets, class_counts=COUNTS, smooth_head=0, smooth_tail=0
    )
    assert found.item() == pytest.approx(cross_entropy_loss(logits, targets).item(), rel=1e-14)


def test_with_equal_ends_it_is_label_smoothing_over_the_other_classes() -> None:
    """torch spreads s over all C classes: s there is s C / (C - 1) here."""
    logits, targets = batch()
    found = label_aware_smoothing_loss(
        logits, targets, class_counts=COUNTS, smooth_head=0.3, smooth_tail=0.3
    )
    expected = cross_entropy_loss(logits, targets, label_smoothing=0.4)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)


def test_a_mixed_target_is_the_mixture_of_the_losses_of_its_classes() -> None:
    logits, _ = batch()
    soft = batch(1)[0].softmax(1)
    of = [
        label_aware_smoothing_loss(
            logits, torch.full((8,), c), class_counts=COUNTS, reduction="none"
        )
        for c in range(4)
    ]
    found = label_aware_smoothing_loss(logits, soft, class_counts=COUNTS, reduction="none")
    torch.testing.assert_close(found, (soft * torch.stack(of, dim=1)).sum(1))


@pytest.mark.parametrize(
    ("counts", "expected"),
    [([7, 7, 7], [0.4, 0.4, 0.4]), ([9, 0, 3], [0.4, 0.1, 0.1])],
    ids=["balanced", "a class without images"],
)
def test_strengths_at_the_edges(counts: list[int], expected: list[float]) -> None:
    strengths = LabelAwareSmoothing(torch.tensor(counts)).strengths
    assert strengths.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_value_and_gradient_are_finite_at_extreme_logits(dtype: torch.dtype) -> None:
    values = torch.tensor([0.0, 50.0, -50.0, 1e4, -1e4])
    logits = torch.cartesian_prod(values, values, values).to(dtype).requires_grad_()
    for target in range(3):
        targets = torch.full((len(logits),), target)
        found = label_aware_smoothing_loss(logits, targets, class_counts=[10**6, 0, 1])
        found.backward()
        assert torch.isfinite(found)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_the_component_passes_its_keys_and_its_weight_on() -> None:
    logits, targets = batch()
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0])
    keys = {"smooth_head": 0.2, "smooth_tail": 0.05, "shape": "convex", "normalize": "weights"}
    loss = LabelAwareSmoothing(torch.tensor(COUNTS), **keys)  # type: ignore[arg-type]
    loss.set_weight(weight)
    expected = label_aware_smoothing_loss(
        logits,
        targets,
        class_counts=COUNTS,
        weight=weight,
        **keys,  # type: ignore[arg-type]
    )
    assert loss(logits, targets) == expected


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"smooth_head": 1.0}, "must be 0 or more and below 1, not 1"),
        ({"shape": "flat"}, "shape must be concave"),
    ],
)
def test_what_does_not_fit_is_refused(keys: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        label_aware_smoothing_loss(*batch(), class_counts=COUNTS, **keys)  # type: ignore[arg-type]
