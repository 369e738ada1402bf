"""Losses whose gradient is made at once with their value, against their compositions."""

import functools
from collections.abc import Callable
from unittest import mock

import pytest
import torch
from torch import Tensor

import losses
from losses import _fused, _sample_loss
from losses._fused_softmax import REGISTER_BYTES, classes_go_first
from losses.cross_entropy import cross_entropy_loss
from losses.poly import poly_loss
from losses.softmax_focal import softmax_focal_loss

composed = mock.patch.dict(_fused.MIN_LOGITS, softmax=float("inf"))


def drawn(
    samples: int = 32, num_classes: int = 3, *, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(samples, num_classes, generator=generator, dtype=torch.float64)
    labels = torch.randint(num_classes, (samples,), generator=generator)
    return logits.to(dtype).requires_grad_(), labels


def is_at_once(value: Tensor) -> bool:
    assert value.grad_fn is not None
    return value.grad_fn.name() == "GradientInForwardBackward"


def value_and_gradient(loss: Callable[[Tensor], Tensor], logits: Tensor) -> tuple[Tensor, Tensor]:
    value = loss(logits)
    return value.detach(), torch.autograd.grad(value, logits)[0]


@pytest.mark.parametrize("num_classes", [2, 3, 7, 8, 15, 16, 40])
@pytest.mark.parametrize("samples", [1, 9, 16, 400])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_not_a_bit_of_a_cross_entropy_differs(
    num_classes: int, samples: int, dtype: torch.dtype, reduction: str
) -> None:
    logits, labels = drawn(samples, num_classes, dtype=dtype)
    of = functools.partial(cross_entropy_loss, targets=labels, reduction=reduction)
    assert is_at_once(of(logits))
    found = value_and_gradient(of, logits)
    with composed:
        assert not is_at_once(of(logits))
        expected = value_and_gradient(of, logits)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    assert found[1].is_contiguous()


LOSSES: list[tuple[str, dict[str, object]]] = [
    ("cross_entropy", {"normalize": "weights"}),
    ("softmax_focal", {"gamma": 0.5}),
    ("softmax_focal", {"scale": 3.0}),
    ("softmax_focal", {"gamma": 3.7, "probability": "weighted"}),
    ("balanced_softmax", {}),
    ("ldam", {"scale": 3.0}),
    ("vector_scaling", {}),
    ("poly", {"gamma": 1.0}),
    ("influence_balanced", {"start": 0.0, "gamma": 1.0}),
]


@pytest.mark.parametrize(("name", "keys"), LOSSES)
@pytest.mark.parametrize("weight", [None, [0.5, 1.0, 2.0]])
@pytest.mark.parametrize("samples", [16, 9])
def test_value_and_gradient_of_a_component_are_those_of_its_composition(
    name: str, keys: dict[str, object], weight: list[float] | None, samples: int
) -> None:
    loss = losses.build(name, keys, class_counts=torch.tensor([90, 9, 1]))
    loss.set_weight(weight)
    logits, labels = drawn(samples, dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    extras = (
        {"features": torch.rand(samples, 4, generator=generator)} if loss.needs_features else {}
    )
    of = functools.partial(loss, targets=labels, **extras)
    assert is_at_once(of(logits))
    found = value_and_gradient(lambda x: 3 * of(x), logits)
    with composed:
        expected = value_and_gradient(lambda x: 3 * of(x), logits)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("samples", [5, 8])
def test_first_and_second_derivatives_are_right(gamma: float, samples: int) -> None:
    logits, labels = drawn(samples, dtype=torch.float64)
    of = functools.partial(softmax_focal_loss, targets=labels, gamma=gamma)
    assert is_at_once(of(logits))
    assert torch.autograd.gradcheck(of, logits)
    assert torch.autograd.gradgradcheck(of, logits)


def test_few_classes_go_first_where_samples_fill_registers() -> None:
    numbers = REGISTER_BYTES // 4
    assert classes_go_first(torch.zeros(2 * numbers, 2)) == (numbers > 0)
    assert not classes_go_first(torch.zeros(2 * numbers + 1, 2))
    assert not classes_go_first(torch.zeros(2 * numbers, max(numbers, 1)))


@pytest.mark.parametrize("ignored", [-100, 2])
def test_ignored_samples_are_left_to_the_composition(ignored: int) -> None:
    logits, labels = drawn()
    labels[7] = ignored
    value = cross_entropy_loss(logits, labels, ignore_index=ignored)
    assert not is_at_once(value)
    valid = labels != ignored
    torch.testing.assert_close(value, cross_entropy_loss(logits[valid], labels[valid]))


@pytest.mark.parametrize("name", ["cross_entropy", "ldam"])
@pytest.mark.parametrize("label", [3, -1])
def test_a_label_that_is_no_class_is_an_index_error(name: str, label: int) -> None:
    logits, labels = drawn()
    labels[7] = label
    loss = losses.build(name, {}, class_counts=torch.tensor([90, 9, 1]))
    with pytest.raises(IndexError, match=f"[Tt]arget {label} is out of"):
        loss(logits, labels)


@pytest.mark.parametrize("part", ["dense logits", "short labels", "int32 labels", "no gradient"])
def test_what_is_not_made_at_once_is_composed(part: str) -> None:
    logits, labels = drawn()
    loss = _sample_loss.SampleLoss(
        labels, _sample_loss.SampleTerm(), "mean", "samples", -100, None, None
    )
    assert is_at_once(loss.of(logits))
    with mock.patch.object(_sample_loss.SampleLoss, "composed", return_value="composed"):
        if part == "dense logits":
            loss = loss._replace(labels=labels.unsqueeze(1))
            assert loss.of(logits.unsqueeze(2)) == "composed"
        elif part == "no gradient":
            assert loss.of(logits.detach()) == "composed"
        else:
            labels = labels[:-1] if part == "short labels" else labels.int()
            assert loss._replace(labels=labels).of(logits) == "composed"


def test_several_gradients_at_once_are_those_one_by_one() -> None:
    logits, labels = drawn()
    value = cross_entropy_loss(logits, labels)
    outer = torch.tensor([1.0, 0.5])
    (together,) = torch.autograd.grad(
        value, logits, outer, is_grads_batched=True, retain_graph=True
    )
    apart = [torch.autograd.grad(value, logits, one, retain_graph=True)[0] for one in outer]
    assert torch.equal(together, torch.stack(apart))


def test_an_ignored_sample_has_a_loss_of_0_beside_a_poly_term() -> None:
    logits, labels = drawn(4)
    labels[1] = -100
    values = poly_loss(logits, labels, reduction="none")
    assert (values == 0).tolist() == [False, True, False, False]
