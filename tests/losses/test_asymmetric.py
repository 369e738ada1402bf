"""Asymmetric loss against a slow loop, timm's where that is exact, and the losses it extends."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.loss import AsymmetricLossMultiLabel
from torch import Tensor

from losses.asymmetric import Asymmetric, asymmetric_loss
from losses.binary_cross_entropy import binary_cross_entropy_loss
from losses.sigmoid_focal import sigmoid_focal_loss

GAMMAS = [0.0, 0.3, 0.5, 1.0, 2.0, 5.0]
WEIGHT = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)


def batch(seed: int = 0, size: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(size, 3, generator=generator, dtype=torch.float64)
    return logits, torch.randint(3, (size,), generator=generator)


def slow(x: float, t: float, *, positive: float, negative: float, margin: float) -> float:
    """One element, in plain Python."""
    p = 1 / (1 + math.exp(-x))
    shifted = max(p - margin, 0)
    gain = (1 - p) ** positive * math.log(p)
    loss = shifted**negative * math.log(1 - shifted)
    return -t * gain - (1 - t) * loss


@given(
    positive=st.sampled_from(GAMMAS),
    negative=st.sampled_from(GAMMAS),
    margin=st.sampled_from([0.0, 0.05, 0.5]),
    kind=st.sampled_from(["labels", "multi-hot", "soft"]),
)
def test_it_follows_its_equation(
    positive: float, negative: float, margin: float, kind: str
) -> None:
    logits, labels = batch()
    one_hot = torch.nn.functional.one_hot(labels, 3).double()
    values = {
        "labels": one_hot,
        "multi-hot": (batch(1)[0] > 0).double(),
        "soft": batch(1)[0].sigmoid(),
    }[kind]
    found = asymmetric_loss(
        logits,
        labels if kind == "labels" else values,
        gamma_positive=positive,
        gamma_negative=negative,
        margin=margin,
        reduction="none",
    )
    pairs = zip(logits.flatten().tolist(), values.flatten().tolist(), strict=True)
    expected = [slow(x, t, positive=positive, negative=negative, margin=margin) for x, t in pairs]
    assert found.flatten().tolist() == pytest.approx(expected, rel=1e-9, abs=1e-14)


@given(
    positive=st.sampled_from([0.0, 1.0, 2.0]),
    negative=st.sampled_from([0.0, 1.0, 4.0]),
    margin=st.sampled_from([0.0, 0.05, 0.2]),
    seed=st.integers(0, 1000),
)
def test_it_is_timms_on_labels_of_moderate_logits(
    positive: float, negative: float, margin: float, seed: int
) -> None:
    logits, _ = batch(seed)
    targets = (batch(seed + 1)[0] > 0).float()
    ours, theirs = (logits.float().clamp(-10, 10).requires_grad_() for _ in range(2))
    value = asymmetric_loss(
        ours,
        targets,
        gamma_positive=positive,
        gamma_negative=negative,
        margin=margin,
        normalize="batch",
    )
    timm = AsymmetricLossMultiLabel(gamma_pos=positive, gamma_neg=negative, clip=margin)
    expected = timm(theirs, targets)
    value.backward()
    expected.backward()
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5)


def test_the_worst_positive_keeps_its_gradient_where_timm_loses_it() -> None:
    target = torch.ones(1, 1)
    ours, theirs = (torch.tensor([[-50.0]], requires_grad=True) for _ in range(2))
    asymmetric_loss(ours, target).backward()
    AsymmetricLossMultiLabel(gamma_pos=0)(theirs, target).backward()
    assert ours.grad == -1
    assert theirs.grad == 0


@pytest.mark.parametrize("gamma", GAMMAS)
def test_with_one_gamma_and_no_margin_it_is_the_focal_loss(gamma: float) -> None:
    logits, labels = batch()
    keys = {"gamma_positive": gamma, "gamma_negative": gamma, "margin": 0.0}
    found = asymmetric_loss(logits, labels, weight=WEIGHT, **keys)  # type: ignore[arg-type]
    expected = sigmoid_focal_loss(logits, labels, gamma=gamma, weight=WEIGHT)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)


def test_without_gamma_and_margin_it_is_binary_cross_entropy_also_on_soft_targets() -> None:
    logits, labels = batch()
    for targets in (labels, batch(1)[0].sigmoid()):
        found = asymmetric_loss(
            logits, targets, gamma_positive=0, gamma_negative=0, margin=0, weight=WEIGHT
        )
        expected = binary_cross_entropy_loss(logits, targets, weight=WEIGHT)
        assert found.item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("margin", [0.0, 1e-9, 0.05])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_value_and_gradient_are_finite_at_extreme_logits(
    gamma: float, margin: float, dtype: torch.dtype
) -> None:
    sizes = torch.tensor([0.0, 2.9444, 8.0, 17.0, 50.0, 89.0, 104.0, 1e4])
    logits = torch.cat((sizes, -sizes))[:, None].expand(-1, 2).to(dtype).clone().requires_grad_()
    labels = torch.zeros(len(logits), dtype=torch.int64)
    for targets in (labels, torch.full((len(logits), 2), 0.3)):
        found = asymmetric_loss(
            logits,
            targets,
            gamma_positive=gamma,
            gamma_negative=gamma,
            margin=margin,
            reduction="none",
        )
        found.sum().backward()
        assert torch.isfinite(found).all()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_derivatives_are_right() -> None:
    logits, labels = batch()
    soft = batch(1)[0].sigmoid()

    def both(x: Tensor) -> Tensor:
        hard = asymmetric_loss(x, labels, gamma_positive=0.5, gamma_negative=1.5)
        return hard + asymmetric_loss(x, soft, margin=0, weight=WEIGHT)

    logits.requires_grad_()
    assert torch.autograd.gradcheck(both, logits)
    assert torch.autograd.gradgradcheck(both, logits)


def test_the_component_passes_its_keys_and_its_weight_on() -> None:
    logits, labels = batch()
    loss = Asymmetric(gamma_positive=0.5, gamma_negative=1.5, margin=0.1, normalize="positives")
    loss.set_weight(WEIGHT)
    expected = asymmetric_loss(
        logits,
        labels,
        gamma_positive=0.5,
        gamma_negative=1.5,
        margin=0.1,
        weight=WEIGHT,
        normalize="positives",
    )
    assert loss(logits, labels) == expected


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"margin": 1.0}, "margin must be 0 or more and below 1, not 1"),
        ({"gamma_negative": -1.0}, "gamma must be at least 0"),
        ({"normalize": "all"}, "normalize must be"),
    ],
)
def test_what_does_not_fit_is_refused(keys: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        asymmetric_loss(*batch(), **keys)  # type: ignore[arg-type]
