"""Cross-entropies with the classes first, against PyTorch's own: the same numbers bit for bit."""

from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import losses
from losses import _few_classes
from losses._few_classes import CrossEntropies, are_few_classes
from losses.cross_entropy import cross_entropy_loss

FEWEST = _few_classes.FEWEST_LOGITS
REGISTER = _few_classes.REGISTER_BYTES


def drawn(
    samples: int = 2048, num_classes: int = 3, *, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(samples, num_classes, generator=generator, dtype=torch.float64)
    labels = torch.randint(num_classes, (samples,), generator=generator)
    return logits.to(dtype).requires_grad_(), labels


def value_and_gradient(loss: torch.nn.Module, *, fewest: float) -> tuple[Tensor, Tensor]:
    """Of 3 times the loss, with the classes first from so many logits on."""
    logits, labels = drawn()
    extras = {}
    if getattr(loss, "needs_features", False):
        generator = torch.Generator().manual_seed(1)
        extras["features"] = torch.rand(len(logits), 4, generator=generator)
    with mock.patch.object(_few_classes, "FEWEST_LOGITS", fewest):
        value = loss(logits, labels, **extras)
    (gradient,) = torch.autograd.grad(3 * value, logits)
    return value.detach(), gradient


@pytest.mark.parametrize("num_classes", range(2, 16))
@pytest.mark.parametrize("samples", [16, 400])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_where_samples_fill_registers_not_a_bit_differs(
    num_classes: int, samples: int, dtype: torch.dtype
) -> None:
    logits, labels = drawn(samples, num_classes, dtype=dtype)
    with mock.patch.object(_few_classes, "FEWEST_LOGITS", 0):
        chosen = are_few_classes(logits, labels)
    assert chosen == (num_classes < REGISTER // logits.element_size())
    outer = torch.linspace(-1, 2, samples, dtype=dtype)
    found, expected = (
        CrossEntropies.apply(logits, labels),
        F.cross_entropy(logits, labels, reduction="none"),
    )
    gradients = [torch.autograd.grad(values, logits, outer)[0] for values in (found, expected)]
    if chosen:
        assert torch.equal(found, expected)
        assert torch.equal(*gradients)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*gradients)
    assert gradients[0].is_contiguous()


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("cross_entropy", {}),
        ("softmax_focal", {"gamma": 0.5}),
        ("balanced_softmax", {}),
        ("ldam", {"scale": 3.0}),
        ("influence_balanced", {"start": 0.0}),
    ],
)
@pytest.mark.parametrize("weight", [None, [0.5, 1.0, 2.0]])
def test_a_loss_of_few_classes_is_that_of_many_bit_for_bit(
    name: str, keys: dict[str, object], weight: list[float] | None
) -> None:
    loss = losses.build(name, keys, class_counts=torch.tensor([90, 9, 1]))
    loss.set_weight(weight)
    with mock.patch.object(CrossEntropies, "apply", wraps=CrossEntropies.apply) as apply:
        found = value_and_gradient(loss, fewest=0)
    assert apply.call_count == (REGISTER > 0)
    expected = value_and_gradient(loss, fewest=float("inf"))
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


def test_second_derivatives_are_right() -> None:
    logits, labels = drawn(5, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: CrossEntropies.apply(x, labels), logits)
    assert torch.autograd.gradgradcheck(lambda x: CrossEntropies.apply(x, labels), logits)


def test_a_label_that_is_no_class_is_named() -> None:
    logits, labels = drawn()
    labels[7] = 3
    with pytest.raises(IndexError, match="target 3 is out of range: labels are 0 to 2"):
        CrossEntropies.apply(logits, labels)


def test_few_logits_many_classes_and_odd_samples_are_left_to_pytorch() -> None:
    assert are_few_classes(*drawn(FEWEST // 2, 2)) == (REGISTER > 0)
    assert not are_few_classes(*drawn(FEWEST // 4, 2))
    assert not are_few_classes(*drawn(FEWEST // 16, 16))
    assert not are_few_classes(*drawn(FEWEST // 2 + 1, 2))
    logits, labels = drawn(FEWEST // 2, 2)
    assert not are_few_classes(logits.detach(), labels)
    assert not are_few_classes(logits, labels.int())
    assert not are_few_classes(logits, labels[:-1])


def test_several_gradients_at_once_are_those_one_by_one() -> None:
    logits, labels = drawn()
    values = cross_entropy_loss(logits, labels, reduction="none")
    outer = torch.rand(2, len(labels), generator=torch.Generator().manual_seed(2))
    (together,) = torch.autograd.grad(
        values, logits, outer, is_grads_batched=True, retain_graph=True
    )
    apart = [torch.autograd.grad(values, logits, one, retain_graph=True)[0] for one in outer]
    assert torch.equal(together, torch.stack(apart))
