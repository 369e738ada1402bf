"""Kernels of losses without a device: interpreted, compiled, started on none, or refused.

Kernels run on the tensors of the CPU in Triton's interpreter, which a process has to ask for before
it imports Triton: what is tried there is in `_interpreted`, what is compiled in `_launched`.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from losses import (
    _device,
    _device_sigmoid,
    _element_loss,
    _sample_loss,
    _sigmoid_kernels,
    _softmax_kernels,
)
from losses._adjustment import Adjustment
from losses._device import MadeRows, is_on_device
from losses._device_softmax import are_for, check_on_trial
from losses._element_loss import ElementLoss
from losses._sample_loss import SampleLoss
from losses._terms import SampleTerm
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

ROOT = Path(__file__).resolve().parents[2]
NAMES = [name for name, _, _ in cases()]


def run(module: str, folder: Path, **environment: str) -> Path:
    """Run a module of this folder in a process of its own; return the file that it wrote."""
    path = folder / module
    # The cache of compiled kernels would be the user's own.
    own = os.environ | {"TRITON_CACHE_DIR": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", f"tests.losses.{module}", str(path)],
        env=own | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    folder = tmp_path_factory.mktemp("interpreted")
    return torch.load(run("_interpreted", folder, TRITON_INTERPRET="1"), weights_only=True)


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return json.loads(run("_launched", tmp_path_factory.mktemp("launched")).read_text())


@pytest.fixture(autouse=True)
def _kernels_are_not_given_up() -> Any:
    yield
    _device.given_up.clear()


def composed(loss: Any, logits: Tensor, outer: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return value and gradient in float64, of what float32 logits are."""
    x = logits.float().double().requires_grad_()
    value = loss(x, labels_of(x))
    return value.detach(), torch.autograd.grad(value, x, outer)[0]


def check_close(found: dict[str, Tensor], name: str, expected: tuple[Tensor, Tensor]) -> None:
    for kind, value in zip(("value", "gradient"), expected, strict=True):
        one = found[f"{name}: {kind}"]
        assert one.dtype == torch.float32
        largest = value.abs().max().item()
        torch.testing.assert_close(one.double(), value, rtol=2e-6, atol=1e-6 * largest)


# --- what kernels compute ---------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_kernel_follows_the_composition_in_float64(
    interpreted: dict[str, Tensor], name: str
) -> None:
    (loss, logits) = next((loss, logits) for other, loss, logits in cases() if other == name)
    check_close(interpreted, name, composed(loss, logits))


def test_losses_of_samples_take_a_gradient_each(interpreted: dict[str, Tensor]) -> None:
    def loss(x: Tensor, y: Tensor) -> Tensor:
        return softmax_focal_loss(x, y, reduction="none")

    values, gradient = composed(loss, drawn(6, 37), drawn(6, seed=4))
    torch.testing.assert_close(interpreted["none: values"].double(), values, rtol=2e-6, atol=0)
    torch.testing.assert_close(
        interpreted["none: gradient"].double(), gradient, rtol=2e-6, atol=1e-5
    )


def test_samples_of_large_batches_are_counted_before(interpreted: dict[str, Tensor]) -> None:
    check_close(interpreted, "counted before", composed(cross_entropy_loss, drawn(6, 37)))


def test_nothing_that_counts_is_0_with_zero_gradient(interpreted: dict[str, Tensor]) -> None:
    assert interpreted["nothing counts: value"] == 0
    assert (interpreted["nothing counts: gradient"] == 0).all()


def test_logits_that_do_not_count_may_be_nan(interpreted: dict[str, Tensor]) -> None:
    check_close(interpreted, "hole", composed(cross_entropy_loss, drawn(6, 37)))


def test_without_a_gradient_the_value_is_the_same(interpreted: dict[str, Tensor]) -> None:
    assert torch.equal(interpreted["no gradient: value"], interpreted["focal: value"])


def test_a_gradient_can_be_asked_for_twice(interpreted: dict[str, Tensor]) -> None:
    first, second = interpreted["twice: first"], interpreted["twice: second"]
    assert torch.equal(first, interpreted["focal: gradient"])
    torch.testing.assert_close(second, first)


def test_the_second_derivative_is_that_of_the_composition(interpreted: dict[str, Tensor]) -> None:
    x = drawn(6, 37).float().requires_grad_()
    (gradient,) = torch.autograd.grad(softmax_focal_loss(x, labels_of(x)), x, create_graph=True)
    (expected,) = torch.autograd.grad(gradient.square().sum(), x)
    torch.testing.assert_close(interpreted["second derivative"], expected)


def test_a_loss_may_be_changed_in_place(interpreted: dict[str, Tensor]) -> None:
    torch.testing.assert_close(interpreted["in place"], 3 * interpreted["focal: gradient"])


def test_many_gradients_can_be_asked_for_at_once(interpreted: dict[str, Tensor]) -> None:
    jacobian = interpreted["jacobian"]
    assert jacobian.shape == (6, 6, 37)
    counted = jacobian.sum(dim=0) / 5  # the mean's gradient, for one of six does not count
    torch.testing.assert_close(counted, interpreted["focal: gradient"])


def test_under_vmap_a_loss_is_composed(interpreted: dict[str, Tensor]) -> None:
    assert interpreted["vmap"].shape == (6, 37)
    rows = [0, 2, 3, 4, 5]
    torch.testing.assert_close(interpreted["vmap"][rows] / 5, interpreted["focal: gradient"][rows])


@pytest.mark.parametrize("changed", ["logits", "labels", "shares"])
def test_what_was_changed_before_the_gradient_is_an_error(
    interpreted: dict[str, Tensor], changed: str
) -> None:
    message = bytes(interpreted[f"{changed} changed"].tolist()).decode()
    assert "modified by an inplace operation" in message


@pytest.mark.parametrize("whose", ["label", "sigmoid's label"])
@pytest.mark.parametrize("wrong", [37, -2])
def test_a_label_out_of_range_is_an_assertion_on_the_device(
    interpreted: dict[str, Tensor], wrong: int, whose: str
) -> None:
    assert "a label is out of range" in bytes(interpreted[f"{whose} {wrong}"].tolist()).decode()


def test_sigmoids_of_large_batches_are_counted_before(interpreted: dict[str, Tensor]) -> None:
    check_close(interpreted, "sigmoids counted before", composed(sigmoid_focal_loss, drawn(6, 37)))


def test_no_sigmoid_that_counts_is_0_with_zero_gradient(interpreted: dict[str, Tensor]) -> None:
    assert interpreted["no sigmoid counts: value"] == 0
    assert (interpreted["no sigmoid counts: gradient"] == 0).all()


def test_sigmoids_that_do_not_count_may_be_nan(interpreted: dict[str, Tensor]) -> None:
    check_close(interpreted, "sigmoids, hole", composed(sigmoid_focal_loss, drawn(6, 37)))


def test_derivatives_of_sigmoids_can_be_asked_for_again(interpreted: dict[str, Tensor]) -> None:
    first = interpreted["sigmoids, twice: first"]
    assert torch.equal(first, interpreted["sigmoid focal: gradient"])
    torch.testing.assert_close(interpreted["sigmoids, twice: second"], 3 * first)
    found = interpreted["sigmoids, no gradient: value"]
    assert torch.equal(found, interpreted["sigmoid focal: value"])
    x = drawn(6, 37).float().requires_grad_()
    (gradient,) = torch.autograd.grad(sigmoid_focal_loss(x, labels_of(x)), x, create_graph=True)
    (expected,) = torch.autograd.grad(gradient.square().sum(), x)
    torch.testing.assert_close(interpreted["sigmoids, second derivative"], expected)


# --- what kernels are compiled to -------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_kernels_keep_all_they_hold_in_registers(
    launched: dict[str, Any], architecture: str
) -> None:
    kernels = launched[architecture]["kernels"]
    assert len(kernels) == 5
    for kernel in kernels:
        assert kernel["STACK"] == kernel["LOCAL"] == 0, kernel
        assert kernel["REG"] <= 168, kernel  # of eight warps a multiprocessor holds one program
    assert [kernel["asserts"] for kernel in kernels] == [True, True, False, True, True]  # shares


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_a_step_starts_one_kernel_and_another_batch_size_compiles_none(
    launched: dict[str, Any], architecture: str
) -> None:
    assert launched[architecture]["started"] == ["rows_kernel", "elements_kernel"] * 3
    assert launched[architecture]["compiled"] == 2


@pytest.mark.parametrize("kind", ["first", "first sigmoid"])
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_a_kernel_that_does_nothing_is_found_out_at_its_first_use(
    launched: dict[str, Any], architecture: str, kind: str
) -> None:
    is_composed, *said = launched[architecture][kind]
    assert is_composed
    (line,) = said
    assert "its numbers are not those of PyTorch's functions" in line


# --- what kernels are for ---------------------------------------------------------------------


def row_loss(labels: Tensor, **changes: Any) -> SampleLoss:
    usual = SampleLoss(
        labels,
        SampleTerm(gamma=2.0),
        reduction="mean",
        normalize="samples",
        ignore_index=IGNORED,
        weight=None,
        factor=None,
    )
    return usual._replace(**changes)


def test_kernels_are_for_eager_float32_logits_of_labels() -> None:
    x = drawn(6, 37).float().requires_grad_()
    y = labels_of(x)
    assert are_for(x, row_loss(y))
    assert are_for(x.detach().t().contiguous().t(), row_loss(y))
    assert are_for(torch.nn.Parameter(x.detach()), row_loss(y, size=torch.ones(6)))


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((6, 37), torch.float64),
        ((6, 37), torch.bfloat16),
        ((0, 37), torch.float32),
        ((6, 37, 2), torch.float32),
        ((2**16 + 1, 1), torch.float32),
    ],
)
def test_kernels_are_not_for_other_logits(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = torch.zeros(shape, dtype=dtype)
    assert not are_for(x, row_loss(torch.zeros(shape[:1] + shape[2:], dtype=torch.int64)))


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": torch.zeros(6, dtype=torch.int32)},
        {"labels": torch.zeros(5, dtype=torch.int64)},
        {"labels": torch.zeros(12, dtype=torch.int64)[::2]},
        {"labels": torch.zeros(6, dtype=torch.int64, device="meta")},
        {"reduction": "median"},
        {"normalize": "batch"},
        {"factor": torch.ones(36)},
        {"size": torch.ones(37)},
        {"factor": torch.ones(37, requires_grad=True)},
        {"adjustment": Adjustment(offset=torch.ones(37, requires_grad=True))},
    ],
    ids=",".join,
)
def test_kernels_are_not_for_what_they_cannot_read_or_derive(changes: dict[str, Any]) -> None:
    x = drawn(6, 37).float()
    assert not are_for(x, row_loss(labels_of(x))._replace(**changes))


def test_kernels_are_not_for_tensors_on_the_cpu_nor_for_compilers() -> None:
    x = drawn(6, 37).float()
    assert not is_on_device(x)
    with mock.patch.object(torch.compiler, "is_compiling", return_value=True):
        assert not is_on_device(mock.Mock(is_cuda=True))


# PyTorch's own forward derivatives compile a few of their formulas when they are first used.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_kernels_are_not_for_forward_derivatives() -> None:
    x = drawn(6, 37).float()
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        assert not are_for(dual, row_loss(labels_of(x)))


def of_sigmoids(targets: Tensor, **changes: Any) -> ElementLoss:
    usual = ElementLoss(
        targets,
        gamma=2.0,
        alpha=None,
        weight=None,
        reduction="mean",
        normalize="elements",
        ignore_index=IGNORED,
    )
    return usual._replace(**changes)


@pytest.mark.parametrize("normalize", ["elements", "batch", "positives"])
def test_the_kernel_of_sigmoids_is_for_labels_and_for_shares(normalize: Any) -> None:
    x = drawn(6, 37).float().requires_grad_()
    given = {"normalize": normalize}
    assert _device_sigmoid.are_for(x, of_sigmoids(labels_of(x), weight=torch.ones(37), **given))
    assert _device_sigmoid.are_for(x, of_sigmoids(shares_of(x), **given))
    assert _device_sigmoid.are_for(x, of_sigmoids(shares_of(x) > 0.5, **given))


@pytest.mark.parametrize(
    "changes",
    [
        {"targets": torch.zeros(6, dtype=torch.int32)},
        {"targets": torch.zeros(5, dtype=torch.int64)},
        {"targets": torch.zeros(12, dtype=torch.int64)[::2]},
        {"targets": torch.zeros(6, dtype=torch.int64, device="meta")},
        {"targets": torch.zeros(37, 6).t()},
        {"targets": torch.zeros(6, 37), "soft_form": "distance"},
        {"targets": torch.zeros(6, 37), "weight": torch.ones(37)},
        {"targets": torch.zeros(6, 37, requires_grad=True)},
        {"reduction": "none"},
        {"normalize": "rows"},
        {"weight": torch.ones(36)},
        {"weight": torch.ones(37, requires_grad=True)},
    ],
    ids=",".join,
)
def test_the_kernel_of_sigmoids_is_not_for_what_it_cannot_read_or_derive(
    changes: dict[str, Any],
) -> None:
    x = drawn(6, 37).float()
    assert not _device_sigmoid.are_for(x, of_sigmoids(labels_of(x))._replace(**changes))


def test_positives_of_two_classes_that_share_an_output_are_left_to_the_composition() -> None:
    x, labels = drawn(6, 1).float(), torch.tensor([0, 1, 1, 0, 0, 1])
    assert _device_sigmoid.are_for(x, of_sigmoids(labels))
    assert not _device_sigmoid.are_for(x, of_sigmoids(labels, normalize="positives"))


@pytest.mark.parametrize("name", NAMES)
def test_what_second_derivatives_are_of_is_the_loss(name: str) -> None:
    """The composition of what a kernel is told, against the loss that told it."""
    (loss, logits) = next((loss, logits) for other, loss, logits in cases() if other == name)
    x = logits.float().requires_grad_()
    told: list[tuple[Tensor, SampleLoss | ElementLoss]] = []

    def listening(logits: Tensor, rows: SampleLoss | ElementLoss) -> None:
        told.append((logits, rows))

    with (
        open_to_kernels(),
        mock.patch.object(_sample_loss, "device_loss", listening),
        mock.patch.object(_element_loss, "device_loss", listening),
    ):
        value = loss(x, labels_of(x))
    ((given, rows),) = told
    torch.testing.assert_close(rows.composed(given), value)


# --- what happens without them ----------------------------------------------------------------


def test_a_kernel_that_cannot_be_started_leaves_the_loss_to_its_composition_for_good() -> None:
    x = drawn(6, 37).float().requires_grad_()
    y = labels_of(x)
    expected = softmax_focal_loss(x, y)
    fails = mock.Mock(side_effect=RuntimeError("no C compiler\nin a long story"))
    with open_to_kernels(), mock.patch.object(_softmax_kernels, "row_losses", fails):
        with pytest.warns(RuntimeWarning, match="without Triton") as caught:
            first = softmax_focal_loss(x, y)
        second = softmax_focal_loss(x, y)
    assert [str(warning.message).count("\n") for warning in caught] == [0]
    assert "RuntimeError: no C compiler" in str(caught[0].message)
    assert torch.equal(first, expected)
    assert torch.equal(second, expected)
    fails.assert_called_once()


@pytest.mark.parametrize("wrong", ["nothing", "value", "gradient"])
@pytest.mark.parametrize("is_inference", [False, True])
def test_a_kernel_that_is_wrong_is_found_out_when_it_is_first_used(
    wrong: str, *, is_inference: bool
) -> None:
    def kernel(logits: Tensor, loss: SampleLoss) -> MadeRows:
        x = logits.detach().requires_grad_()
        value = loss.composed(x)
        (gradient,) = torch.autograd.grad(value, x)
        made = {"value": value.detach().clone(), "gradient": gradient.clone()}
        if wrong in made:
            made[wrong].view(-1)[0] += 0.01
        return MadeRows(**made)

    expected = contextlib.nullcontext() if wrong == "nothing" else pytest.raises(ArithmeticError)
    with torch.inference_mode(is_inference), expected:
        x = drawn(6, 37).float()
        term = SampleTerm(gamma=2.0, eps=0.1)
        loss = row_loss(labels_of(x), term=term, factor=torch.ones(37), size=torch.ones(6))
        check_on_trial(kernel, x, loss, rows=6)


@pytest.mark.parametrize("wrong", ["nothing", "value", "gradient"])
@pytest.mark.parametrize("are_labels", [False, True])
def test_a_kernel_of_sigmoids_that_is_wrong_is_found_out_when_it_is_first_used(
    wrong: str, *, are_labels: bool
) -> None:
    def kernel(logits: Tensor, loss: ElementLoss) -> MadeRows:
        x = logits.detach().requires_grad_()
        value = loss.composed(x)
        (gradient,) = torch.autograd.grad(value, x)
        made = {"value": value.detach().clone(), "gradient": gradient.clone()}
        if wrong in made:
            made[wrong].view(-1)[0] += 0.01
        return MadeRows(**made)

    expected = contextlib.nullcontext() if wrong == "nothing" else pytest.raises(ArithmeticError)
    with torch.inference_mode(), expected:
        x = drawn(6, 37).float()
        targets = labels_of(x) if are_labels else shares_of(x)
        weight = torch.ones(37) if are_labels else None
        loss = of_sigmoids(targets, weight=weight, alpha=0.3)
        _device_sigmoid.check_on_trial(kernel, x, loss, rows=6)


def test_sigmoids_are_composed_where_their_kernel_fails_or_is_missing() -> None:
    x = drawn(6, 37).float().requires_grad_()
    expected = sigmoid_focal_loss(x, labels_of(x))
    of_softmax = softmax_focal_loss(x, labels_of(x))
    fails = mock.Mock(side_effect=RuntimeError("no C compiler"))
    with open_to_kernels(), mock.patch.object(_sigmoid_kernels, "row_losses", fails):
        with mock.patch.object(_sigmoid_kernels, "AVAILABLE", False):
            assert torch.equal(sigmoid_focal_loss(x, labels_of(x)), expected)
        fails.assert_not_called()
        with pytest.warns(RuntimeWarning, match="without Triton"):
            assert torch.equal(sigmoid_focal_loss(x, labels_of(x)), expected)
        assert torch.equal(softmax_focal_loss(x, labels_of(x)), of_softmax)
    fails.assert_called_once()


def test_logits_that_fit_their_labels_do_not_turn_a_right_kernel_down(
    interpreted: dict[str, Tensor],
) -> None:
    """All that is left of such a loss is rounding, of kernel and composition alike."""
    exact = math.log1p(36 * math.exp(-16))
    assert interpreted["fitted: value"].item() == pytest.approx(exact, rel=0.05)
    exact = math.log1p(math.exp(-16))  # of each sigmoid, whose logarithm does not cancel
    assert interpreted["sigmoids, fitted: value"].item() == pytest.approx(exact, rel=1e-5)


def test_too_little_memory_is_not_taken_for_a_kernel_that_fails() -> None:
    x = drawn(6, 37).float()
    fails = mock.Mock(side_effect=torch.OutOfMemoryError("out of memory"))
    with (
        open_to_kernels(),
        mock.patch.object(_softmax_kernels, "row_losses", fails),
        pytest.raises(torch.OutOfMemoryError),
    ):
        softmax_focal_loss(x, labels_of(x))
    assert not _device.given_up.is_set()


def test_without_triton_a_loss_is_composed_and_nothing_is_said() -> None:
    x = drawn(6, 37).float()
    expected = softmax_focal_loss(x, labels_of(x))
    with warnings.catch_warnings(), open_to_kernels():
        warnings.simplefilter("error")
        with mock.patch.object(_softmax_kernels, "AVAILABLE", False):
            assert torch.equal(softmax_focal_loss(x, labels_of(x)), expected)


def test_triton_is_imported_by_the_kernels_and_they_where_a_device_asks() -> None:
    at_once = re.compile(r"^(import|from) .*(triton|_kernels)", re.MULTILINE)
    for path in (ROOT / "losses").glob("*.py"):
        is_kernel = path.stem.endswith("_kernels")
        assert is_kernel or not at_once.search(path.read_text(encoding="utf-8")), path
