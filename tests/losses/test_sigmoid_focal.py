"""Sigmoid focal loss against a slow loop, torchvision, binary cross-entropy and worked values."""

import math
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss as torchvision_loss

import losses
from losses.sigmoid_focal import SigmoidFocal, sigmoid_focal_loss

GAMMAS = [0.0, 0.3, 0.5, 1.0, 2.0, 5.0]
WEIGHT = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)


def batch(seed: int = 0, size: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(size, 3, generator=generator, dtype=torch.float64)
    return logits, torch.randint(3, (size,), generator=generator)


def slow_element(x: float, t: float, alpha: float, gamma: float) -> float:
    """One element, in plain Python."""
    p = 1 / (1 + math.exp(-x))
    bce = -t * math.log(p) - (1 - t) * math.log(1 - p)
    return (alpha * t + (1 - alpha) * (1 - t)) * (1 - math.exp(-bce)) ** gamma * bce


@pytest.mark.parametrize("dtype", [torch.int64, torch.float64])
def test_worked_value(dtype: torch.dtype) -> None:
    logits = torch.tensor([2, -1, 3, -2], dtype=torch.float64)
    value = sigmoid_focal_loss(logits, torch.tensor([1, 0, 1, 0], dtype=dtype), alpha=0.25)
    assert math.isclose(value.item(), 0.004706106699428781, rel_tol=1e-14)


def test_worked_value_in_float32() -> None:
    logits, targets = torch.tensor([2.0, -1.0, 3.0, -2.0]), torch.tensor([1, 0, 1, 0])
    value = sigmoid_focal_loss(logits, targets, alpha=0.25)
    assert math.isclose(value.item(), 0.004706109408289194, rel_tol=1e-6)


def test_worked_value_on_probabilities() -> None:
    p = torch.tensor([2, -1, 3, -2], dtype=torch.float64).sigmoid()
    targets = torch.tensor([1, 0, 1, 0])
    value = sigmoid_focal_loss(p, targets, alpha=0.25, from_logits=False)
    assert math.isclose(value.item(), 0.004706106699428781, rel_tol=1e-13)


def test_worked_value_of_one_output_with_labels() -> None:
    logits = torch.tensor([[2], [-1], [3], [-2]], dtype=torch.float64)
    value = sigmoid_focal_loss(logits, torch.tensor([1, 0, 1, 0]), alpha=0.25)
    assert math.isclose(value.item(), 0.004706106699428781, rel_tol=1e-14)


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("kind", ["labels", "multi-hot", "soft"])
def test_it_follows_its_formula(gamma: float, kind: str) -> None:
    logits, labels = batch()
    targets = {
        "labels": F.one_hot(labels, 3).double(),
        "multi-hot": (batch(seed=1)[0] > 0).double(),
        "soft": batch(seed=1)[0].sigmoid(),
    }[kind]
    given = labels if kind == "labels" else targets
    values = sigmoid_focal_loss(logits, given, alpha=0.3, gamma=gamma, reduction="none")
    pairs = zip(logits.flatten().tolist(), targets.flatten().tolist(), strict=True)
    expected = [slow_element(x, t, 0.3, gamma) for x, t in pairs]
    assert values.flatten().tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_the_distance_form_follows_its_formula(gamma: float) -> None:
    """|t - p|^gamma BCE, the quality focal loss."""
    logits, _ = batch()
    soft = batch(seed=1)[0].sigmoid()
    values = sigmoid_focal_loss(
        logits, soft, alpha=0.3, gamma=gamma, soft_form="distance", reduction="none"
    )
    expected = []
    for x, t in zip(logits.flatten().tolist(), soft.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-x))
        bce = -t * math.log(p) - (1 - t) * math.log(1 - p)
        expected.append((0.3 * t + 0.7 * (1 - t)) * abs(t - p) ** gamma * bce)
    assert values.flatten().tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_both_forms_agree_at_targets_of_0_and_1(gamma: float) -> None:
    logits, labels = batch()
    one_hot = F.one_hot(labels, 3).double()
    of = [
        sigmoid_focal_loss(logits, one_hot, gamma=gamma, soft_form=form)
        for form in ("likelihood", "distance")
    ]
    assert of[0].item() == pytest.approx(of[1].item(), rel=1e-12)
    assert of[0].item() == pytest.approx(sigmoid_focal_loss(logits, labels, gamma=gamma).item())


@pytest.mark.parametrize("form", ["likelihood", "distance"])
def test_probabilities_and_their_logits_agree_on_soft_targets(
    form: Literal["likelihood", "distance"],
) -> None:
    logits, soft = batch()[0], batch(seed=1)[0].sigmoid()
    keys = {"gamma": 1.5, "alpha": 0.3, "soft_form": form}
    found = sigmoid_focal_loss(logits.sigmoid(), soft, from_logits=False, **keys)  # type: ignore[arg-type]
    assert found.item() == pytest.approx(sigmoid_focal_loss(logits, soft, **keys).item())  # type: ignore[arg-type]


def test_probabilities_of_0_and_1_have_finite_values_and_slopes() -> None:
    p = torch.tensor([[0.0, 1.0]], requires_grad=True)
    values = sigmoid_focal_loss(p, torch.tensor([0]), from_logits=False, reduction="none")
    values.sum().backward()
    assert values.tolist() == [[100.0, 100.0]]
    assert p.grad is not None
    assert p.grad[0, 0] < 0 < p.grad[0, 1]


@given(
    alpha=st.none() | st.floats(0, 1),
    gamma=st.sampled_from([0.0, 1.0, 1.5, 2.0, 5.0]),
    seed=st.integers(0, 1000),
)
def test_it_is_torchvisions_on_hard_targets(alpha: float | None, gamma: float, seed: int) -> None:
    logits, labels = batch(seed)
    ours, theirs = (logits.clone().requires_grad_() for _ in range(2))
    value = sigmoid_focal_loss(ours, labels, alpha=alpha, gamma=gamma)
    expected = torchvision_loss(
        theirs,
        F.one_hot(labels, 3).double(),
        alpha=-1 if alpha is None else alpha,
        gamma=gamma,
        reduction="mean",
    )
    value.backward()
    expected.backward()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("kind", ["labels", "soft"])
def test_gamma_zero_without_alpha_is_binary_cross_entropy(kind: str) -> None:
    logits, labels = batch()
    targets = batch(seed=1)[0].sigmoid() if kind == "soft" else F.one_hot(labels, 3).double()
    value = sigmoid_focal_loss(logits, targets if kind == "soft" else labels, gamma=0.0)
    torch.testing.assert_close(value, F.binary_cross_entropy_with_logits(logits, targets))


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("kind", ["labels", "one-hot", "soft", "distance"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_saturated_outputs_have_finite_values_and_gradients(
    gamma: float, kind: str, dtype: torch.dtype
) -> None:
    sizes = torch.tensor([0.0, 8.0, 17.0, 50.0, 89.0, 104.0, 1e4])
    logits = torch.cat((sizes, -sizes))[:, None].expand(-1, 2).to(dtype).clone().requires_grad_()
    labels = torch.zeros(14, dtype=torch.int64)
    targets = {
        "labels": labels,
        "one-hot": F.one_hot(labels, 2).float(),
        "soft": torch.full((14, 2), 0.3),
        "distance": torch.tensor([0.5, 1.0]).expand(14, 2),
    }[kind]
    values = sigmoid_focal_loss(
        logits,
        targets,
        gamma=gamma,
        alpha=0.25,
        soft_form="distance" if kind == "distance" else "likelihood",
        reduction="none",
    )
    values.sum().backward()
    assert torch.isfinite(values).all()
    assert torch.isfinite(logits.grad).all()


def test_the_worst_mistakes_keep_their_loss_and_gradient() -> None:
    logits = torch.tensor([[-1e4]], requires_grad=True)
    value = sigmoid_focal_loss(logits, torch.tensor([1]))
    value.backward()
    assert value == 1e4
    assert logits.grad == -1


def test_very_easy_outputs_keep_their_tiny_loss() -> None:
    value = sigmoid_focal_loss(torch.tensor([[-20.0]]), torch.tensor([0]), gamma=1.0)
    assert math.isclose(value.item(), math.exp(-20) ** 2, rel_tol=1e-5)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_first_and_second_derivatives_are_right(gamma: float) -> None:
    logits, labels = batch()
    logits.requires_grad_()
    soft = batch(seed=1)[0].softmax(1)

    def both(x: Tensor) -> Tensor:
        hard = sigmoid_focal_loss(x, labels, gamma=gamma, alpha=0.25)
        distance = sigmoid_focal_loss(x, soft, gamma=gamma, soft_form="distance")
        return hard + distance + sigmoid_focal_loss(x, soft, gamma=gamma, weight=WEIGHT)

    assert torch.autograd.gradcheck(both, logits)
    assert torch.autograd.gradgradcheck(both, logits)


@pytest.mark.parametrize(
    ("normalize", "divisor"), [("elements", 15), ("batch", 5), ("positives", 5)]
)
def test_what_a_mean_over_labels_divides_by(
    normalize: Literal["elements", "batch", "positives"], divisor: int
) -> None:
    logits, labels = batch()
    labels[0] = -100
    total = sigmoid_focal_loss(logits, labels, reduction="sum")
    value = sigmoid_focal_loss(logits, labels, normalize=normalize)
    torch.testing.assert_close(value, total / divisor)


@pytest.mark.parametrize(
    ("normalize", "divisor"), [("elements", 18), ("batch", 6), ("positives", 4)]
)
def test_what_a_mean_over_multi_hot_targets_divides_by(
    normalize: Literal["elements", "batch", "positives"], divisor: int
) -> None:
    logits, _ = batch()
    targets = torch.zeros(6, 3)
    targets[0] = 1
    targets[1, 1] = 1
    total = sigmoid_focal_loss(logits, targets, reduction="sum")
    value = sigmoid_focal_loss(logits, targets, normalize=normalize)
    torch.testing.assert_close(value, total / divisor)


HALVES = [torch.float16, torch.bfloat16]


@pytest.mark.parametrize("name", ["sigmoid_focal", "binary_cross_entropy", "asymmetric"])
@pytest.mark.parametrize("size", [100, 1000])  # composed, and in parts
@pytest.mark.parametrize("dtype", HALVES)
def test_positives_of_16_bits_are_counted_exactly(dtype: torch.dtype, size: int, name: str) -> None:
    """float16 ends at 65504, and bfloat16 counts to 256."""
    loss = losses.build(name, {"normalize": "positives"}, class_counts=[10] * 200)
    generator = torch.Generator().manual_seed(0)
    targets = (torch.rand(size, 200, generator=generator) < 0.6).float()
    found = of_targets(loss, targets.to(dtype))
    for one, other in zip(found, of_targets(loss, targets), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", HALVES)
def test_small_shares_of_16_bits_are_not_rounded_to_0(dtype: torch.dtype) -> None:
    targets = torch.full((1000, 200), 1e-4, dtype=dtype)
    found = of_targets(SigmoidFocal(), targets)
    for one, other in zip(found, of_targets(SigmoidFocal(), targets.float()), strict=True):
        assert torch.equal(one, other)


def of_targets(loss: losses.Loss, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return a loss of drawn logits and its gradient."""
    x = torch.randn(targets.shape, generator=torch.Generator().manual_seed(1)).requires_grad_()
    value = loss(x, targets)
    return value.detach(), torch.autograd.grad(value, x)[0]


def test_without_positives_the_divisor_is_one() -> None:
    logits = torch.zeros(3, 1)
    targets = torch.zeros(3, dtype=torch.int64)
    value = sigmoid_focal_loss(logits, targets, gamma=0.0, normalize="positives")
    assert math.isclose(value.item(), 3 * math.log(2), rel_tol=1e-6)


def test_less_than_one_positive_does_not_raise_the_loss() -> None:
    targets = torch.tensor([[0.2], [0.0]])
    value = sigmoid_focal_loss(torch.zeros(2, 1), targets, gamma=0.0, normalize="positives")
    assert math.isclose(value.item(), 2 * math.log(2), rel_tol=1e-6)


def test_the_weight_of_the_true_class_is_on_all_outputs() -> None:
    logits, labels = batch()
    plain = sigmoid_focal_loss(logits, labels, reduction="none")
    weighted = sigmoid_focal_loss(logits, labels, weight=WEIGHT, reduction="none")
    torch.testing.assert_close(weighted, plain * WEIGHT[labels][:, None])


def test_a_soft_sample_weighs_the_mean_weight_of_its_classes() -> None:
    logits, _ = batch()
    soft = batch(seed=1)[0].softmax(1)
    plain = sigmoid_focal_loss(logits, soft, reduction="none")
    weighted = sigmoid_focal_loss(logits, soft, weight=WEIGHT, reduction="none")
    torch.testing.assert_close(weighted, plain * (soft * WEIGHT).sum(1, keepdim=True))


def test_one_output_is_weighed_by_the_weights_of_two_classes() -> None:
    logits, labels = torch.tensor([[1.0], [-2.0]]), torch.tensor([0, 1])
    plain = sigmoid_focal_loss(logits, labels, reduction="none")
    weighted = sigmoid_focal_loss(logits, labels, weight=torch.tensor([0.5, 1.5]), reduction="none")
    torch.testing.assert_close(weighted, plain * torch.tensor([[0.5], [1.5]]))


@pytest.mark.parametrize("weight", [None, torch.tensor([0.5, 1.5])])
def test_one_output_takes_probabilities_of_two_classes(weight: Tensor | None) -> None:
    logits = torch.tensor([[1.0], [-2.0]])
    soft = torch.tensor([[0.3, 0.7], [1.0, 0.0]])
    value = sigmoid_focal_loss(logits, soft, weight=weight)
    torch.testing.assert_close(value, sigmoid_focal_loss(logits, soft[:, 1:], weight=weight))
    hard = sigmoid_focal_loss(logits[1:], torch.tensor([0]), weight=weight)
    torch.testing.assert_close(sigmoid_focal_loss(logits[1:], soft[1:], weight=weight), hard)


def test_alpha_weighs_positives_and_the_rest_of_it_negatives() -> None:
    logits, labels = torch.zeros(2, 1), torch.tensor([1, 0])
    values = sigmoid_focal_loss(logits, labels, alpha=0.9, gamma=0.0, reduction="none")
    torch.testing.assert_close(values, math.log(2) * torch.tensor([[0.9], [0.1]]))


@given(order=st.permutations(range(3)))
def test_the_order_of_the_classes_does_not_matter(order: list[int]) -> None:
    logits, labels = batch()
    value = sigmoid_focal_loss(logits, labels, weight=WEIGHT)
    inverse = torch.tensor(order).argsort()
    permuted = sigmoid_focal_loss(logits[:, order], inverse[labels], weight=WEIGHT[order])
    torch.testing.assert_close(value, permuted)


def test_another_ignore_index_is_respected() -> None:
    logits, _ = batch(size=3)
    value = sigmoid_focal_loss(logits, torch.tensor([0, 255, 255]), ignore_index=255)
    torch.testing.assert_close(value, sigmoid_focal_loss(logits[:1], torch.tensor([0])))


def test_multi_hot_targets_of_an_empty_class_are_no_labels() -> None:
    logits, labels = batch()
    loss = SigmoidFocal()
    loss.set_weight(torch.tensor([1.0, 0.0, 1.0]))
    multi_hot = F.one_hot(labels.clamp_max(0), 3)
    assert torch.isfinite(loss(logits, multi_hot))


def test_the_component_passes_its_keys_and_its_weight_on() -> None:
    logits, labels = batch()
    soft = batch(seed=1)[0].softmax(1)
    keys = {"alpha": 0.3, "gamma": 0.7, "soft_form": "distance", "normalize": "batch"}
    loss = SigmoidFocal(**keys)  # type: ignore[arg-type]
    loss.set_weight(WEIGHT)
    for targets in (labels, soft):
        expected = sigmoid_focal_loss(logits, targets, weight=WEIGHT, **keys)  # type: ignore[arg-type]
        torch.testing.assert_close(loss(logits, targets), expected)


@pytest.mark.parametrize("target", [2.0, -0.5, math.nan])
def test_a_probability_out_of_range_is_refused(target: float) -> None:
    targets = torch.zeros(6, 3)
    targets[2, 1] = target
    with pytest.raises(ValueError, match=f"target {target:g} is out of range"):
        sigmoid_focal_loss(batch()[0], targets)


def test_a_label_out_of_range_of_one_output_is_refused() -> None:
    with pytest.raises(IndexError, match="target 2 is out of range: labels are 0 to 1"):
        sigmoid_focal_loss(torch.zeros(2, 1), torch.tensor([1, 2]))


@pytest.mark.parametrize(
    "targets", [torch.zeros(6), torch.zeros(6, 2), torch.zeros(5, dtype=torch.int64)]
)
def test_targets_that_do_not_fit_the_logits_are_refused(targets: Tensor) -> None:
    with pytest.raises(ValueError, match=r"do not fit logits \(6, 3\)"):
        sigmoid_focal_loss(batch()[0], targets)


def test_weights_that_do_not_fit_the_logits_are_refused() -> None:
    with pytest.raises(ValueError, match="weight must be 2 numbers"):
        sigmoid_focal_loss(torch.zeros(1, 1), torch.tensor([1]), weight=torch.ones(1))


@pytest.mark.parametrize("alpha", [-0.1, 1.1, math.nan])
def test_alpha_outside_zero_to_one_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha must lie in 0 to 1"):
        sigmoid_focal_loss(*batch(), alpha=alpha)


def test_gamma_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="gamma must be at least 0"):
        sigmoid_focal_loss(*batch(), gamma=-1.0)


@pytest.mark.parametrize("option", ["reduction", "normalize", "soft_form"])
def test_an_unknown_option_is_refused(option: str) -> None:
    with pytest.raises(ValueError, match=f"{option} must be"):
        sigmoid_focal_loss(*batch(), **{option: "average"})


def test_an_unknown_form_is_refused_for_many_logits_too() -> None:
    logits, targets = torch.zeros(1000, 100, requires_grad=True), torch.zeros(1000, 100)
    with pytest.raises(ValueError, match="soft_form must be 'likelihood' or 'distance'"):
        sigmoid_focal_loss(logits, targets, soft_form="far")  # type: ignore[arg-type]
