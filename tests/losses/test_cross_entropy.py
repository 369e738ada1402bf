"""Cross-entropy against torch's own, worked values and a slow loop."""

import math
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from losses import class_weights
from losses.cross_entropy import CrossEntropy, cross_entropy_loss
from losses.softmax_focal import softmax_focal_loss

LOGITS = torch.tensor([[2, 1, 0.1, -1], [1, 3, 0.1, -0.5], [-1, -0.5, 2, 0.5]], dtype=torch.float64)
TARGETS = torch.tensor([0, 1, 2])
WEIGHT = torch.tensor([1, 2, 3, 4], dtype=torch.float64)


def random_soft(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).softmax(1)


def slow_terms(logits: Tensor, targets: Tensor, weight: Tensor) -> list[float]:
    """-sum_c t_c w_c log p_c of each sample, in plain Python."""
    values = []
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        total = sum(math.exp(x) for x in row)
        log_p = [math.log(math.exp(x) / total) for x in row]
        pairs = zip(target, weight.tolist(), log_p, strict=True)
        values.append(-sum(t * w * value for t, w, value in pairs))
    return values


def test_worked_values_of_weighted_labels() -> None:
    values = cross_entropy_loss(LOGITS, TARGETS, weight=WEIGHT, reduction="none")
    expected = torch.tensor([0.449313, 0.398613, 0.911409], dtype=torch.float64)
    torch.testing.assert_close(values, expected, rtol=0, atol=5e-7)


@pytest.mark.parametrize(
    ("normalize", "expected"), [("samples", 0.586445032), ("weights", 0.293222516)]
)
def test_worked_means(normalize: Literal["samples", "weights"], expected: float) -> None:
    value = cross_entropy_loss(LOGITS, TARGETS, weight=WEIGHT, normalize=normalize)
    assert math.isclose(value.item(), expected, abs_tol=5e-10)


@pytest.mark.parametrize("normalize", ["samples", "weights"])
def test_the_focal_loss_at_gamma_0_has_the_same_worked_values(
    normalize: Literal["samples", "weights"],
) -> None:
    keys = {"weight": WEIGHT, "normalize": normalize}
    found = softmax_focal_loss(LOGITS, TARGETS, gamma=0, **keys)  # type: ignore[arg-type]
    assert found == cross_entropy_loss(LOGITS, TARGETS, **keys)  # type: ignore[arg-type]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weight", [None, WEIGHT])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_it_is_torchs_cross_entropy_where_the_definitions_agree(
    smoothing: float, weight: Tensor | None, reduction: Literal["none", "sum", "mean"]
) -> None:
    targets = torch.tensor([3, -100, 2])
    ours, theirs = (LOGITS.clone().requires_grad_() for _ in range(2))
    options = {"weight": weight, "reduction": reduction, "label_smoothing": smoothing}
    value = cross_entropy_loss(
        ours, targets, normalize="weights", smoothing_weight="class", **options
    )
    expected = F.cross_entropy(theirs, targets, **options)
    value.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weighted_soft_targets_divided_by_samples_are_torchs(smoothing: float) -> None:
    soft = random_soft(3, 4)
    options = {"weight": WEIGHT, "label_smoothing": smoothing}
    value = cross_entropy_loss(LOGITS, soft, smoothing_weight="class", **options)
    torch.testing.assert_close(value, F.cross_entropy(LOGITS, soft, **options))


def test_a_smoothed_label_weighs_what_its_class_does() -> None:
    found = cross_entropy_loss(
        LOGITS, TARGETS, weight=WEIGHT, label_smoothing=0.3, reduction="none"
    )
    plain = F.cross_entropy(LOGITS, TARGETS, label_smoothing=0.3, reduction="none")
    torch.testing.assert_close(found, WEIGHT[TARGETS] * plain)


def test_a_smoothed_mixture_is_the_mixture_of_its_smoothed_labels() -> None:
    soft = random_soft(3, 4)
    keys = {"weight": WEIGHT, "label_smoothing": 0.3, "reduction": "none"}
    of = [cross_entropy_loss(LOGITS, torch.full((3,), c), **keys) for c in range(4)]  # type: ignore[arg-type]
    found = cross_entropy_loss(LOGITS, soft, **keys)  # type: ignore[arg-type]
    torch.testing.assert_close(found, (soft * torch.stack(of, dim=1)).sum(1))


@pytest.mark.parametrize(("smoothing_weight", "asked_for"), [("sample", 0), ("class", 3)])
def test_an_image_of_the_head_asks_for_its_own_class_however_large_the_weights_of_others(
    smoothing_weight: Literal["sample", "class"], asked_for: int
) -> None:
    """At weights of 1/n and a factor of 100 torch's smoothing asks for the rarest class."""
    logits = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True)
    weight = class_weights([100, 22, 5, 1], scheme="inverse")
    optimizer = torch.optim.LBFGS([logits], max_iter=100)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = cross_entropy_loss(
            logits,
            torch.tensor([0]),
            weight=weight,
            label_smoothing=0.1,
            smoothing_weight=smoothing_weight,
        )
        loss.backward()
        return loss

    optimizer.step(closure)
    assert logits.argmax().item() == asked_for


def test_weighted_soft_targets_are_weighed_term_by_term() -> None:
    soft = random_soft(3, 4)
    values = cross_entropy_loss(LOGITS, soft, weight=WEIGHT, reduction="none")
    assert values.tolist() == pytest.approx(slow_terms(LOGITS, soft, WEIGHT), rel=1e-12)


def test_the_weight_of_a_soft_sample_is_the_mean_weight_of_its_classes() -> None:
    soft = random_soft(3, 4)
    value = cross_entropy_loss(LOGITS, soft, weight=WEIGHT, normalize="weights")
    total = sum(t * w for row in soft.tolist() for t, w in zip(row, [1, 2, 3, 4], strict=True))
    assert math.isclose(value.item(), sum(slow_terms(LOGITS, soft, WEIGHT)) / total, rel_tol=1e-12)


def test_weights_of_zero_give_zero_when_they_are_all_there_is_to_divide_by() -> None:
    weight = torch.tensor([0.0, 1.0, 1.0, 1.0])
    logits = LOGITS[:1].clone().requires_grad_()
    value = cross_entropy_loss(logits, TARGETS[:1], weight=weight, normalize="weights")
    value.backward()
    assert value == 0
    assert not logits.grad.any()


def test_another_ignore_index_is_respected() -> None:
    value = cross_entropy_loss(LOGITS, torch.tensor([0, 3, 3]), ignore_index=3)
    torch.testing.assert_close(value, cross_entropy_loss(LOGITS[:1], torch.tensor([0])))


def test_a_masked_class_stays_finite() -> None:
    logits = LOGITS.clone()
    logits[:, 3] = -torch.inf
    logits.requires_grad_()
    value = cross_entropy_loss(logits, TARGETS)
    value.backward()
    torch.testing.assert_close(value, cross_entropy_loss(LOGITS[:, :3], TARGETS))
    assert torch.isfinite(logits.grad).all()


def test_first_and_second_derivatives_are_right() -> None:
    logits = LOGITS.clone().requires_grad_()
    soft = random_soft(3, 4)

    def both(x: Tensor) -> Tensor:
        hard = cross_entropy_loss(x, TARGETS, weight=WEIGHT, normalize="weights")
        return hard + cross_entropy_loss(x, soft, weight=WEIGHT)

    assert torch.autograd.gradcheck(both, logits)
    assert torch.autograd.gradgradcheck(both, logits)


@given(shift=st.floats(-100, 100), seed=st.integers(0, 1000))
def test_a_constant_on_all_logits_changes_nothing(shift: float, seed: int) -> None:
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    targets = torch.arange(5)
    torch.testing.assert_close(
        cross_entropy_loss(logits + shift, targets), cross_entropy_loss(logits, targets)
    )


def test_the_component_passes_its_keys_and_its_weight_on() -> None:
    loss = CrossEntropy(normalize="weights", label_smoothing=0.2, smoothing_weight="class")
    loss.set_weight(WEIGHT)
    expected = F.cross_entropy(LOGITS, TARGETS, weight=WEIGHT, label_smoothing=0.2)
    torch.testing.assert_close(loss(LOGITS, TARGETS), expected)


@pytest.mark.parametrize("option", ["reduction", "normalize", "smoothing_weight"])
def test_an_unknown_option_is_refused(option: str) -> None:
    with pytest.raises(ValueError, match=f"{option} must be"):
        cross_entropy_loss(LOGITS, TARGETS, **{option: "average"})
