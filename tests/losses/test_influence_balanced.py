"""Influence-balanced loss against a slow loop, its worked value and the gradient it promises."""

import math

import pytest
import torch
from torch import Tensor

from losses import class_weights
from losses.cross_entropy import cross_entropy_loss
from losses.influence_balanced import InfluenceBalanced, influence_balanced_loss
from losses.softmax_focal import softmax_focal_loss

LOGITS = torch.tensor([[2, 1, 0.1, -1], [1, 3, 0.1, -0.5], [-1, -0.5, 2, 0.5]], dtype=torch.float64)
TARGETS = torch.tensor([0, 1, 2])
FEATURES = torch.tensor([[1, 2], [0.5, 0.5], [3, 0]], dtype=torch.float64)
WEIGHT = torch.tensor([1, 2, 3, 4], dtype=torch.float64)


def slow(gamma: float = 0.0) -> list[float]:
    values = []
    rows = zip(LOGITS.tolist(), TARGETS.tolist(), FEATURES.tolist(), strict=True)
    for row, target, feature in rows:
        total = sum(math.exp(x) for x in row)
        p = [math.exp(x) / total for x in row]
        distance = sum(abs(q - (c == target)) for c, q in enumerate(p))
        norm = sum(abs(h) for h in feature)
        focal = (1 - p[target]) ** gamma * -math.log(p[target])
        values.append(WEIGHT[target].item() * focal * 1000 / (distance * norm + 1e-3))
    return values


def test_the_worked_value() -> None:
    found = influence_balanced_loss(LOGITS, TARGETS, features=FEATURES, weight=WEIGHT)
    assert found.item() == pytest.approx(628.7161533, abs=1e-7)


def test_with_class_balanced_weights_it_is_ib_cb() -> None:
    counts = [100, 40, 20, 5]
    weight = class_weights(counts, scheme="effective_number", beta=0.999)
    assert weight is not None
    loss = InfluenceBalanced(start=0)
    loss.set_weight(weight)
    raw = [(1 - 0.999) / (1 - 0.999**n) for n in counts]
    own = [4 * w / sum(raw) for w in raw]
    plain = [value / w for value, w in zip(slow(), WEIGHT.tolist(), strict=False)]
    expected = sum(value * w for value, w in zip(plain, own, strict=False)) / 3
    found = loss(LOGITS, TARGETS, features=FEATURES)
    assert found.item() == pytest.approx(expected)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_it_follows_its_formula(gamma: float) -> None:
    found = influence_balanced_loss(
        LOGITS, TARGETS, features=FEATURES, weight=WEIGHT, gamma=gamma, reduction="none"
    )
    assert found.tolist() == pytest.approx(slow(gamma))


@pytest.mark.parametrize("detach", [True, False])
def test_the_weighted_likelihood_is_that_of_the_authors_code(*, detach: bool) -> None:
    logits = LOGITS.clone().requires_grad_()
    loss = influence_balanced_loss(
        logits,
        TARGETS,
        features=FEATURES,
        weight=WEIGHT,
        gamma=1.5,
        detach=detach,
        weighted_likelihood=True,
    )
    (gradient,) = torch.autograd.grad(loss, logits)
    # As IBFocal does: weighted cross-entropies first, and all that follows from them.
    weighted = torch.nn.functional.cross_entropy(logits, TARGETS, weight=WEIGHT, reduction="none")
    focal = (1 - (-weighted).exp()) ** 1.5 * weighted
    distance = (logits.softmax(1) - torch.nn.functional.one_hot(TARGETS, 4)).abs().sum(1)
    influence = 1000 / (distance * FEATURES.abs().sum(1) + 1e-3)
    expected = (focal * (influence.detach() if detach else influence)).mean()
    (expected_gradient,) = torch.autograd.grad(expected, logits)
    assert loss.item() == pytest.approx(expected.item())
    torch.testing.assert_close(gradient, expected_gradient)
    plain = influence_balanced_loss(
        LOGITS, TARGETS, features=FEATURES, weight=WEIGHT, gamma=1.5, detach=detach
    )
    assert plain.item() != pytest.approx(loss.item(), rel=0.01)


def gradients(*, detach: bool) -> tuple[Tensor, Tensor | None]:
    logits, features = LOGITS.clone().requires_grad_(), FEATURES.clone().requires_grad_()
    influence_balanced_loss(
        logits, TARGETS, features=features, weight=WEIGHT, detach=detach, reduction="sum", eps=1e-12
    ).backward()
    assert logits.grad is not None
    return logits.grad, features.grad


def test_every_sample_pulls_by_its_weight_over_its_features_whatever_its_probability() -> None:
    """With a constant factor and eps -> 0 the gradient's 1-norm is alpha w / ||h||_1."""
    logits, features = gradients(detach=True)
    expected = 1000 * WEIGHT[TARGETS] / FEATURES.abs().sum(1)
    torch.testing.assert_close(logits.abs().sum(1), expected)
    assert features is None


def test_the_authors_form_rewards_large_features() -> None:
    _, features = gradients(detach=False)
    assert features is not None
    assert bool(((features * FEATURES.sign())[FEATURES != 0] < 0).all())


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_gradients_are_those_of_differences(gamma: float, *, detach: bool) -> None:
    def loss(logits: Tensor, features: Tensor) -> Tensor:
        return influence_balanced_loss(
            logits, TARGETS, features=features, gamma=gamma, detach=False, alpha=1.0
        )

    inputs = (LOGITS.clone().requires_grad_(), FEATURES.clone().requires_grad_())
    assert torch.autograd.gradcheck(loss, inputs)
    found, _ = gradients(detach=detach)
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0, 5.0])
def test_saturated_samples_and_empty_features_are_finite(
    dtype: torch.dtype, gamma: float, *, detach: bool
) -> None:
    logits = torch.tensor([[1e4, 0], [-1e4, 0], [50, -50], [0, 0]], dtype=dtype).requires_grad_()
    features = torch.tensor([[0.0], [1.0], [0.0], [1e4]], dtype=dtype).requires_grad_()
    value = influence_balanced_loss(
        logits, torch.zeros(4, dtype=torch.int64), features=features, gamma=gamma, detach=detach
    )
    value.backward()
    assert torch.isfinite(value)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_before_its_start_it_is_cross_entropy_and_then_it_is_not() -> None:
    loss = InfluenceBalanced(start=0.5)
    found = []
    for epoch in range(4):
        loss.set_progress(epoch, 4)
        found.append(loss(LOGITS, TARGETS, features=FEATURES).item())
    plain = cross_entropy_loss(LOGITS, TARGETS).item()
    balanced = influence_balanced_loss(LOGITS, TARGETS, features=FEATURES).item()
    assert found == [plain, plain, balanced, balanced]
    loss.set_progress(1, 3)  # a third of training is not yet half
    assert loss(LOGITS, TARGETS).item() == plain


def test_gamma_makes_it_the_focal_loss_over_the_influence() -> None:
    keys = {"features": torch.full((3, 1), 1e-9, dtype=torch.float64), "eps": 1.0, "alpha": 1.0}
    found = influence_balanced_loss(LOGITS, TARGETS, gamma=2.0, **keys)  # type: ignore[arg-type]
    assert found.item() == pytest.approx(softmax_focal_loss(LOGITS, TARGETS, gamma=2.0).item())


@pytest.mark.parametrize("features", [FEATURES[:2], FEATURES[0]])
def test_features_of_other_samples_are_refused(features: Tensor) -> None:
    with pytest.raises(ValueError, match=r"features must be \(3, D\)"):
        influence_balanced_loss(LOGITS, TARGETS, features=features)


def test_missing_features_are_named() -> None:
    with pytest.raises(ValueError, match="needs features"):
        InfluenceBalanced(start=0.0)(LOGITS, TARGETS)
