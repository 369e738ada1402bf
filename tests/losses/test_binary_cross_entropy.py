"""Binary cross-entropy against its worked values, torch's own and the focal loss at gamma 0."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from losses.binary_cross_entropy import BinaryCrossEntropy, binary_cross_entropy_loss
from losses.sigmoid_focal import sigmoid_focal_loss

TARGETS = torch.tensor([[0, 0, 1], [1, 0, 0]], dtype=torch.float64)


def probabilities() -> Tensor:
    return torch.rand(2, 3, generator=torch.Generator().manual_seed(0)).double()


def test_the_worked_values_on_probabilities() -> None:
    none = binary_cross_entropy_loss(probabilities(), TARGETS, from_logits=False, reduction="none")
    assert none.mean(1).tolist() == pytest.approx([1.524223, 1.132465], abs=5e-7)
    mean = binary_cross_entropy_loss(probabilities(), TARGETS, from_logits=False)
    assert mean.item() == pytest.approx(1.3283442235601577, abs=1e-12)


def test_the_worked_values_on_logits() -> None:
    none = binary_cross_entropy_loss(probabilities().logit(), TARGETS, reduction="none")
    assert none.mean(1).tolist() == pytest.approx([1.524223, 1.132465], abs=5e-7)
    assert none.mean().item() == pytest.approx(1.3283442235601577, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32])
def test_several_labels_a_sample_are_targets_of_the_logits_shape(dtype: torch.dtype) -> None:
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]], dtype=torch.float64)
    targets = torch.tensor([[1, 0, 1], [0, 0, 0]])
    found = binary_cross_entropy_loss(logits, targets.to(dtype))
    expected = F.binary_cross_entropy_with_logits(logits, targets.double())
    assert found.item() == pytest.approx(expected.item())


def test_one_output_stands_for_two_classes() -> None:
    logits, labels = torch.tensor([[2.0], [-1.0], [0.5]]), torch.tensor([1, 0, 0])
    found = binary_cross_entropy_loss(logits, labels, pos_weight=torch.tensor([3.0]))
    expected = F.binary_cross_entropy_with_logits(
        logits[:, 0], labels.float(), pos_weight=torch.tensor(3.0)
    )
    torch.testing.assert_close(found, expected)


@given(st.floats(-30, 30), st.floats(0, 1), st.floats(0, 10))
def test_it_is_torchs_where_that_is_exact(logit: float, target: float, positive: float) -> None:
    logits = torch.tensor([[logit]], dtype=torch.float64)
    targets = torch.tensor([[target]], dtype=torch.float64)
    weight = torch.tensor([positive], dtype=torch.float64)
    found = binary_cross_entropy_loss(logits, targets, pos_weight=weight)
    expected = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weight)
    assert found.item() == pytest.approx(expected.item(), rel=1e-9, abs=1e-12)


def test_an_easy_negative_keeps_its_value_in_float32() -> None:
    logits, targets = torch.tensor([-16.0]), torch.zeros(1)
    assert F.binary_cross_entropy_with_logits(logits, targets) == 0
    found = binary_cross_entropy_loss(logits, targets)
    assert found.item() == pytest.approx(math.log1p(math.exp(-16)), rel=1e-6)


@pytest.mark.parametrize("p", [0.0, 1.0])
@pytest.mark.parametrize("t", [0.0, 1.0])
def test_certain_probabilities_cost_0_or_100_as_in_torch(p: float, t: float) -> None:
    inputs, targets = torch.tensor([p]), torch.tensor([t])
    found = binary_cross_entropy_loss(inputs, targets, from_logits=False)
    assert found.item() == pytest.approx(F.binary_cross_entropy(inputs, targets).item(), abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_the_slope_of_any_probability_is_finite_and_points_to_the_target(
    t: float, dtype: torch.dtype
) -> None:
    """torch's own is -1e12 at p = 0, t = 1; autograd of log p alone is infinite or NaN."""
    smallest = torch.finfo(dtype).smallest_normal
    inputs = torch.tensor([0.0, smallest / 4, smallest, 0.5, 1.0], dtype=dtype).requires_grad_()
    values = binary_cross_entropy_loss(
        inputs, torch.full((5,), t), from_logits=False, reduction="none"
    )
    values.sum().backward()
    assert torch.isfinite(values).all()
    assert inputs.grad is not None
    assert torch.isfinite(inputs.grad).all()
    if t > 0:
        assert bool((inputs.grad[:3] < 0).all())
    if t < 1:
        assert inputs.grad[4] > 0


@given(st.floats(1e-6, 1 - 1e-6), st.floats(0, 1))
def test_probabilities_and_their_logits_agree(p: float, t: float) -> None:
    inputs = torch.tensor([p], dtype=torch.float64)
    targets = torch.tensor([t], dtype=torch.float64)
    found = binary_cross_entropy_loss(inputs, targets, from_logits=False)
    assert found.item() == pytest.approx(F.binary_cross_entropy(inputs, targets).item(), rel=1e-9)


@pytest.mark.parametrize("normalize", ["elements", "batch", "positives"])
def test_it_is_the_focal_loss_at_gamma_0(normalize: str) -> None:
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels = torch.tensor([0, 2, 1, -100, 2])
    weight = torch.tensor([1.0, 2.0, 4.0])
    keys = {"weight": weight, "normalize": normalize}
    found = binary_cross_entropy_loss(logits, labels, **keys)  # type: ignore[arg-type]
    assert found == sigmoid_focal_loss(logits, labels, gamma=0, **keys)  # type: ignore[arg-type]


def test_positives_and_elements_are_weighed() -> None:
    logits = torch.zeros(2, 3, dtype=torch.float64)
    labels = torch.tensor([0, 2])
    element = torch.tensor([[1.0, 0.0, 2.0], [3.0, 1.0, 1.0]])
    found = binary_cross_entropy_loss(
        logits,
        labels,
        pos_weight=torch.tensor([5.0, 6.0, 7.0]),
        element_weight=element,
        reduction="none",
    )
    expected = torch.tensor([[5.0, 0.0, 2.0], [3.0, 1.0, 7.0]], dtype=torch.float64) * math.log(2)
    torch.testing.assert_close(found, expected)


def test_dense_outputs_have_a_weight_each() -> None:
    logits = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(2))
    targets = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(3))
    weight = torch.tensor([1.0, 2.0, 3.0])
    found = binary_cross_entropy_loss(logits, targets, pos_weight=weight)
    flat = [t.movedim(1, -1).reshape(-1, 3) for t in (logits, targets)]
    expected = F.binary_cross_entropy_with_logits(*flat, pos_weight=weight)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: binary_cross_entropy_loss(TARGETS + 2, TARGETS, from_logits=False), "range"),
        (lambda: binary_cross_entropy_loss(TARGETS, TARGETS * 2), "range"),
        (
            lambda: binary_cross_entropy_loss(TARGETS, TARGETS, pos_weight=torch.ones(2)),
            "3 numbers, one for each output, not 2",
        ),
        *(
            (
                lambda shape=shape: binary_cross_entropy_loss(
                    TARGETS, TARGETS, element_weight=torch.ones(shape)
                ),
                r"element_weight must be \(2, 3\) as the inputs, not",
            )
            for shape in ((2, 2, 3), (3,), (1,), (2, 1))
        ),
        (lambda: binary_cross_entropy_loss(TARGETS, TARGETS, normalize="all"), "normalize"),
        (lambda: BinaryCrossEntropy(3, pos_weight=(1.0, 2.0)), "3 numbers"),
        (lambda: BinaryCrossEntropy(2, pos_weight=(-1.0,)), "not negative"),
        (lambda: BinaryCrossEntropy(2, pos_weight=(1.0, 30.0)), "must be 1 number, .* not 2"),
    ],
)
def test_what_does_not_fit_is_refused(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]
