"""Compute losses by Triton's interpreter, which runs kernels on the CPU's tensors.

    TRITON_INTERPRET=1 python -m tests.losses._interpreted FILE

writes a dict of tensors: of each case the value and the gradient, and what else is asked of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from unittest import mock

import torch
from torch import Tensor
from triton.runtime import interpreter

from losses import _sigmoid_kernels, _softmax_kernels
from losses.cross_entropy import cross_entropy_loss
from losses.sigmoid_focal import sigmoid_focal_loss
from losses.softmax_focal import softmax_focal_loss
from tests.losses._device_cases import (
    IGNORED,
    cases,
    drawn,
    labels_of,
    open_to_kernels,
    shares_of,
)

Found = Iterator[tuple[str, Tensor]]


def leaf(logits: Tensor) -> Tensor:
    """Return logits in float32, as they lie, of which a derivative is wanted."""
    return logits.float().requires_grad_()


def checked(value: Tensor) -> Tensor:
    """Return a loss that kernels made."""
    assert type(value.grad_fn).__name__ == "GradientOfRowsBackward"
    return value


def of_cases() -> Found:
    for name, loss, logits in cases():
        x = leaf(logits)
        value = checked(loss(x, labels_of(x)))
        yield f"{name}: value", value.detach()
        yield f"{name}: gradient", torch.autograd.grad(value, x)[0]


def of_reductions() -> Found:
    x = leaf(drawn(6, 37))
    y, outer = labels_of(x), drawn(6, seed=4).float()
    values = checked(softmax_focal_loss(x, y, reduction="none"))
    yield "none: values", values.detach().clone()
    yield "none: gradient", torch.autograd.grad(values, x, outer)[0]
    with mock.patch.object(_softmax_kernels, "MAX_COUNTED", 2):
        value = checked(cross_entropy_loss(x, y))
    yield "counted before: value", value.detach()
    yield "counted before: gradient", torch.autograd.grad(value, x)[0]
    nothing = torch.full_like(y, IGNORED)
    value = cross_entropy_loss(x, nothing)
    yield "nothing counts: value", value.detach()
    yield "nothing counts: gradient", torch.autograd.grad(value, x)[0]
    hole = leaf(drawn(6, 37))
    hole.data[1] = torch.nan  # the label of this one is ignored
    value = cross_entropy_loss(hole, y)
    yield "hole: value", value.detach()
    yield "hole: gradient", torch.autograd.grad(value, hole)[0]
    fitted = leaf(16 * torch.nn.functional.one_hot(y.clamp_min(0), 37))
    yield "fitted: value", checked(cross_entropy_loss(fitted, y)).detach()
    with torch.no_grad():
        yield "no gradient: value", softmax_focal_loss(x, y)


def of_derivatives() -> Found:
    x = leaf(drawn(6, 37))
    y = labels_of(x)
    value = checked(softmax_focal_loss(x, y))
    yield "twice: first", torch.autograd.grad(value, x, retain_graph=True)[0].clone()
    yield "twice: second", torch.autograd.grad(value, x)[0]
    value = softmax_focal_loss(x, y)
    (gradient,) = torch.autograd.grad(value, x, create_graph=True)
    yield "second derivative", torch.autograd.grad(gradient.square().sum(), x)[0]
    value = softmax_focal_loss(x, y)
    value *= 3  # what was returned is no longer needed
    yield "in place", torch.autograd.grad(value, x)[0]
    values = softmax_focal_loss(x, y, reduction="none")
    (jacobian,) = torch.autograd.grad(values, x, torch.eye(6), is_grads_batched=True)
    yield "jacobian", jacobian
    per_sample = torch.func.vmap(
        torch.func.grad(lambda row, label: softmax_focal_loss(row.unsqueeze(0), label.unsqueeze(0)))
    )
    yield "vmap", per_sample(x.detach(), y.clamp_min(0))


def of_sigmoids() -> Found:
    x = leaf(drawn(6, 37))
    y = labels_of(x)
    with mock.patch.object(_sigmoid_kernels, "MAX_COUNTED", 2):
        value = checked(sigmoid_focal_loss(x, y))
    yield "sigmoids counted before: value", value.detach()
    yield "sigmoids counted before: gradient", torch.autograd.grad(value, x)[0]
    nothing = checked(sigmoid_focal_loss(x, torch.full_like(y, IGNORED)))
    yield "no sigmoid counts: value", nothing.detach()
    yield "no sigmoid counts: gradient", torch.autograd.grad(nothing, x)[0]
    hole = leaf(drawn(6, 37))
    hole.data[1] = torch.nan  # the label of this one is ignored
    value = checked(sigmoid_focal_loss(hole, y))
    yield "sigmoids, hole: value", value.detach()
    yield "sigmoids, hole: gradient", torch.autograd.grad(value, hole)[0]
    fitted = leaf(32 * torch.nn.functional.one_hot(y.clamp_min(0), 37) - 16)
    yield "sigmoids, fitted: value", checked(sigmoid_focal_loss(fitted, y, gamma=0)).detach()
    with torch.no_grad():
        yield "sigmoids, no gradient: value", sigmoid_focal_loss(x, y)
    value = checked(sigmoid_focal_loss(x, y))
    yield "sigmoids, twice: first", torch.autograd.grad(value, x, retain_graph=True)[0].clone()
    yield "sigmoids, twice: second", torch.autograd.grad(3 * value, x)[0]
    (gradient,) = torch.autograd.grad(sigmoid_focal_loss(x, y), x, create_graph=True)
    yield "sigmoids, second derivative", torch.autograd.grad(gradient.square().sum(), x)[0]


def message_of(run: Callable[[], object]) -> Tensor:
    """Return what an error says, as bytes."""
    try:
        run()
    except Exception as error:  # noqa: BLE001 - which one is the caller's to say
        return torch.tensor(list(str(error).encode()), dtype=torch.uint8)
    return torch.tensor([], dtype=torch.uint8)


def of_mistakes() -> Found:
    x = leaf(drawn(6, 37))
    y = labels_of(x)
    value = cross_entropy_loss(x, y)
    with torch.no_grad():
        x += 1
    yield "logits changed", message_of(value.backward)
    value = cross_entropy_loss(x, y)
    y += 0
    yield "labels changed", message_of(value.backward)
    # As the options do that kernels are started with, of which the interpreter takes none.
    debugging = interpreter.InterpreterOptions(debug=True)
    for wrong in (37, -2):
        y = labels_of(x)
        y[0] = wrong
        with (
            mock.patch.object(interpreter.interpreter_builder, "options", debugging),
            mock.patch("losses._device._give_up", side_effect=raised),
        ):
            yield f"label {wrong}", message_of(lambda y=y: cross_entropy_loss(x, y))
            yield f"sigmoid's label {wrong}", message_of(lambda y=y: sigmoid_focal_loss(x, y))
    shares = shares_of(x)
    value = sigmoid_focal_loss(x, shares)
    shares += 0
    yield "shares changed", message_of(value.backward)


def raised(error: Exception) -> None:
    raise error


if __name__ == "__main__":
    with open_to_kernels():
        found = dict(
            (*of_cases(), *of_reductions(), *of_derivatives(), *of_sigmoids(), *of_mistakes())
        )
    torch.save(found, sys.argv[1])
