"""Dice and Tversky against slow sums, at sizes where half precision overflows."""

import math
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from losses import _fused_overlap
from losses._overlap import overlap
from losses.cross_entropy import cross_entropy_loss
from losses.dice import Dice, dice_loss
from losses.softmax_focal import softmax_focal_loss
from losses.tversky import Tversky, tversky_loss


def batch(*, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(2, 4, 3, 5, generator=generator, dtype=torch.float64)
    targets = torch.randint(3, (2, 3, 5), generator=generator)  # class 3 is absent
    targets[1, 0] = 255
    return logits, targets


def pixels(logits: Tensor, targets: Tensor, image: int | None) -> list[tuple[list[float], int]]:
    """Probabilities and label of every pixel that counts."""
    places = [
        (n, row, column)
        for n in (range(len(logits)) if image is None else [image])
        for row in range(3)
        for column in range(5)
    ]
    return [
        (logits[n, :, row, column].softmax(0).tolist(), int(targets[n, row, column]))
        for n, row, column in places
        if targets[n, row, column] != 255
    ]


def slow_dice(
    logits: Tensor, targets: Tensor, *, image: int | None, squared: bool
) -> dict[int, float]:
    values = {}
    of = pixels(logits, targets, image)
    for c in {label for _, label in of}:
        both = sum(p[c] for p, label in of if label == c)
        power = 2 if squared else 1
        below = sum(p[c] ** power for p, _ in of) + sum(label == c for _, label in of)
        values[c] = 1 - (2 * both + 0.5) / (below + 0.5)
    return values


@pytest.mark.parametrize("squared", [False, True])
def test_dice_of_a_batch_is_its_sums(*, squared: bool) -> None:
    logits, targets = batch()
    keys = {"smooth": 0.5, "squared": squared, "ignore_index": 255}
    found = dice_loss(logits, targets, reduction="none", **keys)  # type: ignore[arg-type]
    expected = slow_dice(logits, targets, image=None, squared=squared)
    assert found.shape == (1, 4)
    assert {c: found[0, c].item() for c in expected} == pytest.approx(expected)
    assert found[0, 3] == 0
    mean = dice_loss(logits, targets, **keys)  # type: ignore[arg-type]
    assert mean.item() == pytest.approx(sum(expected.values()) / len(expected))


def test_dice_of_images_is_meant_over_the_classes_that_each_has() -> None:
    logits, targets = batch()
    expected = [slow_dice(logits, targets, image=n, squared=False) for n in range(2)]
    values = [value for of in expected for value in of.values()]
    found = dice_loss(logits, targets, smooth=0.5, over="image", ignore_index=255)
    assert found.item() == pytest.approx(sum(values) / len(values))


def test_tversky_counts_false_positives_and_negatives() -> None:
    logits, targets = batch()
    of = pixels(logits, targets, None)
    expected = {}
    for c in {label for _, label in of}:
        tp = sum(p[c] for p, label in of if label == c)
        fp = sum(p[c] for p, label in of if label != c)
        fn = sum(1 - p[c] for p, label in of if label == c)
        expected[c] = 1 - (tp + 1) / (tp + 0.2 * fp + 0.9 * fn + 1)
    found = tversky_loss(logits, targets, alpha=0.2, beta=0.9, ignore_index=255, reduction="none")
    assert {c: found[0, c].item() for c in expected} == pytest.approx(expected)


@pytest.mark.parametrize("over", ["batch", "image"])
def test_tversky_with_equal_halves_is_dice_at_twice_the_smoothing(over: str) -> None:
    logits, targets = batch()
    keys = {"over": over, "ignore_index": 255}
    tversky = tversky_loss(logits, targets, alpha=0.5, beta=0.5, smooth=0.7, **keys)  # type: ignore[arg-type]
    dice = dice_loss(logits, targets, smooth=1.4, **keys)  # type: ignore[arg-type]
    assert tversky.item() == pytest.approx(dice.item())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_many_pixels_are_counted_in_any_precision(dtype: torch.dtype) -> None:
    """float16 ends at 65,504; a float32 sum of ones stops at 16.8 million."""
    logits = torch.zeros(1, 2, 512, 512, dtype=dtype)
    targets = torch.zeros(1, 512, 512, dtype=torch.int64)
    found = dice_loss(logits, targets, smooth=0)
    assert found.item() == pytest.approx(1 - 2 * 0.5 / 1.5, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_seventeen_million_pixels_are_counted(dtype: torch.dtype) -> None:
    logits = torch.zeros(1, 2, 4130, 4130, dtype=dtype)
    targets = torch.zeros(1, 4130, 4130, dtype=torch.int64)
    targets[0, 0, 0] = 1
    for loss in (dice_loss, tversky_loss):
        found = loss(logits, targets, smooth=0, reduction="none")
        pixels = 4130.0**2
        shares = [0.5 * (pixels - 1), 0.5 * 1], [pixels - 1, 1.0]
        index = [
            2 * both / (0.5 * pixels + true)
            if loss is dice_loss
            else both / (both + 0.3 * (0.5 * pixels - both) + 0.7 * (true - both))
            for both, true in zip(*shares, strict=True)
        ]
        assert found[0].tolist() == pytest.approx([1 - value for value in index], rel=1e-6)


@pytest.mark.parametrize("smooth", [0.0, 1.0])
def test_soft_targets_are_best_met_by_hard_predictions_unless_squared(smooth: float) -> None:
    generator = torch.Generator().manual_seed(0)
    soft = torch.rand(64, 3, generator=generator, dtype=torch.float64)
    soft = soft / soft.sum(1, keepdim=True)
    hard = 1e3 * torch.nn.functional.one_hot(soft.argmax(1), 3).double()
    for loss in (dice_loss, tversky_loss):
        assert loss(hard, soft, smooth=smooth) < loss(soft.log(), soft, smooth=smooth) - 0.05
    squared = dice_loss(soft.log(), soft, squared=True, smooth=smooth)
    assert squared.item() == pytest.approx(0, abs=1e-12)
    assert dice_loss(hard, soft, squared=True, smooth=smooth) > 0.1


def test_sums_are_float64_in_which_every_pixel_counts() -> None:
    logits, targets = batch()
    for dtype in (torch.float16, torch.float32):
        sums = overlap(logits.to(dtype), targets, squared=False, over="batch", ignore_index=255)
        assert {value.dtype for value in sums} == {torch.float64}


@pytest.mark.parametrize(("gamma", "ratio"), [(0.0, 0.3), (2.0, 0.3), (2.0, 1.0), (0.0, 0.0)])
def test_tversky_mixes_likewise(gamma: float, ratio: float) -> None:
    logits, targets = batch()
    targets = targets.clamp_max(3)
    rest = softmax_focal_loss(logits, targets, gamma=gamma)
    expected = ratio * tversky_loss(logits, targets) + (1 - ratio) * rest
    torch.testing.assert_close(Tversky(ratio=ratio, gamma=gamma)(logits, targets), expected)


@pytest.mark.parametrize(("gamma", "ratio"), [(0.0, 0.3), (2.0, 0.3), (2.0, 1.0), (0.0, 0.0)])
def test_the_component_mixes_dice_with_cross_entropy_or_focal_loss(
    gamma: float, ratio: float
) -> None:
    logits, targets = batch()
    targets = targets.clamp_max(3)
    rest = softmax_focal_loss(logits, targets, gamma=gamma)
    if gamma == 0:
        assert rest == cross_entropy_loss(logits, targets)
    expected = ratio * dice_loss(logits, targets) + (1 - ratio) * rest
    torch.testing.assert_close(Dice(ratio=ratio, gamma=gamma)(logits, targets), expected)


def test_gradients_are_those_of_differences() -> None:
    logits, targets = batch()
    logits.requires_grad_()
    for squared in (False, True):

        def loss(x: Tensor, squared: bool = squared) -> Tensor:  # noqa: FBT001
            return dice_loss(x, targets, squared=squared, ignore_index=255)

        assert torch.autograd.gradcheck(loss, (logits,))


@pytest.mark.parametrize("keys", [{"over": "pixel"}, {"reduction": "median"}])
def test_what_is_unknown_is_refused(keys: dict[str, str]) -> None:
    logits, targets = batch()
    for loss in (dice_loss, tversky_loss):
        with pytest.raises(ValueError, match="must be"):
            loss(logits, targets.clamp_max(3), **keys)  # type: ignore[arg-type]


# --- labels of few classes, whose gradient is made with the value ---------------------------------


def classified(
    samples: int = 40, num_classes: int = 5, *, dtype: torch.dtype = torch.float64, size: float = 3
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = size * torch.randn(samples, num_classes, generator=generator, dtype=torch.float64)
    labels = torch.randint(num_classes - 1, (samples,), generator=generator)  # the last is absent
    return logits.to(dtype), labels


def is_fused(value: Tensor) -> bool:
    return value.grad_fn is not None and value.grad_fn.name() == "GradientInForwardBackward"


def value_and_gradient(
    loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, labels: Tensor, *, fused: bool
) -> tuple[Tensor, Tensor]:
    leaf = logits.detach().requires_grad_()
    with mock.patch.object(_fused_overlap, "MAX_CLASSES", 128 if fused else 0):
        value = loss(leaf, labels)
    assert is_fused(value) == fused
    (gradient,) = torch.autograd.grad(value, leaf)
    return value.detach(), gradient


VARIANTS: list[tuple[type[Dice] | type[Tversky], dict[str, Any]]] = [
    (Dice, {}),
    (Dice, {"ratio": 1.0}),
    (Dice, {"ratio": 0.3, "squared": True}),
    (Dice, {"ratio": 1.0, "squared": True, "smooth": 0.0}),
    (Tversky, {}),
    (Tversky, {"ratio": 0.8, "alpha": 0.0, "beta": 2.0}),
    (Tversky, {"alpha": 0.9, "beta": 0.4, "smooth": 0.0}),
]


@pytest.mark.parametrize(("component", "keys"), VARIANTS)
@pytest.mark.parametrize("weight", [None, [0.5, 2.0, 1.0, 0.25, 3.0]])
def test_the_gradient_made_with_the_value_is_that_of_the_composition(
    component: type[Dice] | type[Tversky], keys: dict[str, Any], weight: list[float] | None
) -> None:
    loss = component(**keys)
    loss.set_weight(weight)
    composed, fused = (value_and_gradient(loss, *classified(), fused=f) for f in (False, True))
    torch.testing.assert_close(fused, composed, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("component", "keys"), VARIANTS)
def test_a_value_made_with_its_gradient_is_right_to_the_last_digit_of_float32(
    component: type[Dice] | type[Tversky], keys: dict[str, Any]
) -> None:
    loss = component(**keys)
    for size in (0.1, 3.0, 30.0):
        logits, labels = classified(128, 10, dtype=torch.float32, size=size)
        exact = value_and_gradient(loss, logits.double(), labels, fused=False)
        value, gradient = value_and_gradient(loss, logits, labels, fused=True)
        assert value.item() == pytest.approx(exact[0].item(), rel=1.2e-7)
        assert (gradient - exact[1]).abs().max() < 2e-6 * exact[1].abs().max()


@pytest.mark.parametrize(("component", "keys"), VARIANTS)
def test_second_derivatives_are_those_of_the_composition(
    component: type[Dice] | type[Tversky], keys: dict[str, Any]
) -> None:
    logits, labels = classified(4, 3)
    loss = component(**keys)

    def penalty(x: Tensor) -> Tensor:
        value = loss(x, labels)
        assert is_fused(value)
        (slope,) = torch.autograd.grad(value, x, create_graph=True)
        return slope.square().sum()

    assert torch.autograd.gradcheck(penalty, logits.requires_grad_())


@pytest.mark.parametrize("loss", [Dice(), Dice(ratio=1.0), Tversky()])
def test_a_class_that_is_masked_takes_no_part_in_the_overlap(loss: Dice | Tversky) -> None:
    logits, labels = classified(dtype=torch.float32)
    logits[:, 4] = -math.inf  # which no sample has
    expected = value_and_gradient(loss, logits[:, :4], labels, fused=True)
    value, gradient = value_and_gradient(loss, logits, labels, fused=True)
    torch.testing.assert_close((value, gradient[:, :4]), expected)
    assert not gradient[:, 4].any()


@pytest.mark.parametrize("loss", [Dice(), Tversky()])
def test_ignored_labels_and_other_shapes_are_composed(loss: Dice | Tversky) -> None:
    logits, labels = classified()
    logits.requires_grad_()
    some = labels.clone()
    some[0] = -100
    assert not is_fused(loss(logits, some))
    torch.testing.assert_close(loss(logits, some), loss(logits[1:], labels[1:]))
    assert not is_fused(loss(logits.view(2, 20, 5).mT, labels.view(2, 20)))
    assert not is_fused(loss(logits, torch.nn.functional.one_hot(labels, 5).double()))
    with torch.no_grad():
        torch.testing.assert_close(loss(logits, labels), loss(logits, labels).detach())


@pytest.mark.parametrize("loss", [Dice(), Tversky()])
def test_a_label_that_is_no_class_is_named(loss: Dice | Tversky) -> None:
    logits, labels = classified()
    labels[3] = 5
    with pytest.raises(IndexError, match="target 5 is out of range: labels are 0 to 4"):
        loss(logits.requires_grad_(), labels)


@pytest.mark.parametrize("loss", [dice_loss, tversky_loss])
def test_several_gradients_at_once_are_multiples_of_the_one(loss: Callable[..., Tensor]) -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(128, 10, generator=generator, requires_grad=True)
    value = loss(logits, torch.randint(10, (128,), generator=generator))
    (one,) = torch.autograd.grad(value, logits, retain_graph=True)
    outer = torch.tensor([1.0, 2.0])
    (found,) = torch.autograd.grad(value, logits, outer, is_grads_batched=True)
    assert torch.equal(found, torch.stack([one, 2 * one]))
