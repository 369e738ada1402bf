"""Numbers of classes in lists, arrays and tensors, in every function; and of a wrong length."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import losses
from losses.binary_cross_entropy import BinaryCrossEntropy
from losses.softmax_focal import SoftmaxFocal

LOGITS = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TARGETS = torch.tensor([0, 1, 2, 3, 0, 1])
NUMBERS = [5, 4, 2, 1]
OTHERS: dict[str, Any] = {
    "class_counts": NUMBERS,
    "old_classes": [0, 1],
    "new_classes": [0, 1, 2, 3],
    "features": torch.ones(6, 3),
    "teacher_logits": torch.zeros(6, 4),
}
FUNCTIONS: dict[str, Callable[..., torch.Tensor]] = {
    name: getattr(importlib.import_module(f"losses.{name}"), f"{name}_loss")
    for name in losses.names()
}


def cases() -> list[tuple[str, str]]:
    """Every loss function with each of its arguments of one number a class."""
    found = []
    for name in losses.names():
        for key, parameter in inspect.signature(FUNCTIONS[name]).parameters.items():
            if "ClassValues" in str(parameter.annotation):
                found.append((name, key))
    return found


def value(name: str, **keys: Any) -> torch.Tensor:
    function = FUNCTIONS[name]
    known = inspect.signature(function).parameters
    torch.manual_seed(0)
    return function(LOGITS, TARGETS, **{k: v for k, v in OTHERS.items() if k in known} | keys)


@pytest.mark.parametrize(("name", "key"), cases())
def test_a_list_and_an_array_are_as_good_as_a_tensor(name: str, key: str) -> None:
    expected = value(name, **{key: torch.tensor(NUMBERS)})
    for given in (NUMBERS, tuple(NUMBERS), np.array(NUMBERS), np.array(NUMBERS[::-1])[::-1]):
        torch.testing.assert_close(value(name, **{key: given}), expected)


@pytest.mark.parametrize(("name", "key"), cases())
@pytest.mark.parametrize("given", [[5, 4, 2], [5, 4, 2, 1, 1], 1.0, [[5, 4, 2, 1]], ["5"] * 4])
def test_what_is_not_one_number_a_class_is_one_clear_error(
    name: str, key: str, given: object
) -> None:
    with pytest.raises(ValueError, match=rf"^{key} must be (4 )?numbers.* not "):
        value(name, **{key: given})


def test_every_loss_but_lade_has_a_weight_of_classes() -> None:
    assert {n for n in losses.names() if (n, "weight") not in cases()} == {"lade"}


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (SoftmaxFocal(3), "class weights must be 3 numbers, one for each class, not 4"),
        (BinaryCrossEntropy(3), "class weights must be 3 numbers, one for each class, not 4"),
        (
            losses.build("balanced_softmax", class_counts=torch.ones(3)),
            "class weights must be 3 numbers, one for each class, not 4",
        ),
    ],
    ids=lambda x: type(x).__name__,
)
def test_weights_of_another_length_are_refused_as_they_are_set(
    loss: losses.Loss, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        loss.set_weight(torch.ones(4))


def test_logits_of_more_classes_than_a_loss_was_made_for_are_refused() -> None:
    with pytest.raises(ValueError, match=r"logits of 4 outputs do not fit a loss .* 3 classes"):
        SoftmaxFocal(3)(LOGITS, TARGETS)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
@pytest.mark.parametrize("name", losses.names())
def test_labels_of_any_integer_type_are_what_they_are_in_int64(
    name: str, dtype: torch.dtype
) -> None:
    loss = losses.build(name, class_counts=[9, 7, 4, 2], old_classes=[0, 1])
    loss.set_progress(9, 10)
    if loss.takes_weight:
        loss.set_weight([0.3, 0.7, 1.1, 1.9])
    logits = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([1, 2, 3, 1])  # as many as classes: a mask of that length would do

    def slope(targets: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)
        given = logits.clone().requires_grad_()
        extras = {"features": logits.exp(), "teacher_logits": logits.flip(1)}
        return torch.autograd.grad(loss(given, targets, **extras), given)[0]

    assert torch.equal(slope(labels.to(dtype)), slope(labels))


@pytest.mark.parametrize("numbers", [NUMBERS, torch.tensor(NUMBERS)], ids=["list", "tensor"])
def test_functions_of_counts_compile_to_one_graph(numbers: object) -> None:
    names = [name for name, key in cases() if key == "class_counts"]

    def values() -> list[torch.Tensor]:
        return [value_of(name) for name in names]

    def value_of(name: str) -> torch.Tensor:
        extras = {"noise": 0.0} if name == "gaussian_clouded" else {}
        return FUNCTIONS[name](LOGITS, TARGETS, class_counts=numbers, **extras)

    torch.compiler.reset()
    found = torch.compile(values, fullgraph=True, backend="eager")()
    for name, one, other in zip(names, found, values(), strict=True):
        torch.testing.assert_close(one, other, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("name", losses.names())
def test_targets_that_are_neither_labels_nor_fit_the_logits_are_one_clear_error(name: str) -> None:
    loss = losses.build(name, class_counts=NUMBERS)
    loss.set_progress(9, 10)
    wrong = [torch.ones(6), torch.ones(6, 1), torch.arange(5) % 2 + 2, torch.full((6, 1), 2)]
    if not loss.takes_soft_targets:
        wrong.append(torch.full((6, 4), 0.25))
    for targets in wrong:
        with pytest.raises(ValueError, match=r"targets \(.*\) do not fit logits \(6, 4\)"):
            loss(LOGITS, targets, features=OTHERS["features"], teacher_logits=LOGITS)
