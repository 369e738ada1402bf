"""Gradients made in the forward pass, against closed forms in float64 and against autograd."""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import forward_ad

import losses
from engine.training.runtime import cpu_threads
from losses import _fused, _fused_sigmoid, _fused_softmax, _sample_loss
from losses._adjustment import UNADJUSTED, Adjustment
from losses._sample_loss import SampleLoss
from losses._terms import CROSS_ENTROPY, SampleTerm
from losses.sigmoid_focal import sigmoid_focal_loss
from losses.softmax_focal import softmax_focal_loss

GAMMAS = [0.0, 0.3, 0.5, 1.0, 2.0, 3.7]
BOTH = ["softmax", "sigmoid"]
# PyTorch's own forward derivatives compile a few of their formulas when they are first used.
its_own_script = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")


@contextlib.contextmanager
def gate(*, is_open: bool, part: int = 2**16) -> Iterator[None]:
    """Fuse batches of any size, in parts of so many logits; or none."""
    least = 0 if is_open else math.inf
    with (
        mock.patch.dict(_fused.MIN_LOGITS, softmax=least, sigmoid=least),
        mock.patch.object(_sample_loss, "MIN_PARTED", 0),
        mock.patch.object(_fused_softmax, "PART", part),
        mock.patch.multiple(_fused_sigmoid, PART=part, THREAD_LOGITS=1),
    ):
        yield


def is_fused(value: Tensor) -> bool:
    """Whether the graph of a loss has the gradient that was made with it."""
    nodes, seen = [value.grad_fn], []
    while nodes:
        node = nodes.pop()
        if node is not None:
            seen.append(node.name())
            nodes += [function for function, _ in node.next_functions]
    return "GradientInForwardBackward" in seen


def normal(*shape: int, seed: int = 0, size: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return size * torch.randn(*shape, generator=generator, dtype=torch.float64)


def labels_of(*shape: int, num_classes: int, seed: int = 0) -> Tensor:
    return torch.randint(num_classes, shape, generator=torch.Generator().manual_seed(seed))


def one_hot_of(labels: Tensor, num_classes: int) -> Tensor:
    return torch.nn.functional.one_hot(labels, num_classes).movedim(-1, 1)


def value_and_gradient(
    loss: Callable[..., Tensor], logits: Tensor, *arguments: object, **options: Any
) -> tuple[Tensor, Tensor]:
    logits = logits.detach().requires_grad_()
    value = loss(logits, *arguments, **options)
    value.backward()
    assert logits.grad is not None
    return value.detach(), logits.grad


def slope_of_focal(u: Tensor, nll: Tensor, gamma: float) -> Tensor:
    """d (u^gamma nll) / d nll for u = 1 - exp(-nll), in closed form."""
    return u**gamma * (1 + gamma * (1 - u) * nll / u)


def softmax_in_closed_form(
    logits: Tensor, labels: Tensor, factor: Tensor, gamma: float
) -> tuple[Tensor, Tensor]:
    """The sum over samples and its gradient, in float64; factors (N, ...)."""
    one_hot = one_hot_of(labels, logits.shape[1]).double()
    powers = (logits.double() - logits.double().amax(1, keepdim=True)).exp()
    p = powers / powers.sum(1, keepdim=True)
    u = (p * (1 - one_hot)).sum(1)
    nll = -torch.log1p(-u)
    slope = (factor * slope_of_focal(u, nll, gamma)).unsqueeze(1)
    return (factor * u**gamma * nll).sum(), slope * (p - one_hot)


def sigmoid_in_closed_form(
    logits: Tensor, positive: Tensor, factor: Tensor, gamma: float
) -> tuple[Tensor, Tensor]:
    """The sum over elements and its gradient, in float64; factors of the logits' shape."""
    sign = torch.where(positive, -1.0, 1.0).double()
    u, nll = torch.sigmoid(sign * logits.double()), torch.log1p((sign * logits.double()).exp())
    slope = factor * slope_of_focal(u, nll, gamma) * u * sign
    return (factor * u**gamma * nll).sum(), slope


def check_close(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    """Compare a value and a gradient with those of float64, within the precision of theirs."""
    single = found[0].dtype == torch.float32
    tolerance = {"rtol": 1e-5, "atol": 2e-6} if single else {"rtol": 1e-9, "atol": 1e-12}
    assert found[1].dtype == found[0].dtype
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), other, **tolerance)


# --- values and gradients -----------------------------------------------------------------------


@given(
    shape=st.sampled_from([(7, 2), (5, 4), (33, 3), (3, 2, 5), (4, 3, 2, 3)]),
    part=st.sampled_from([1, 13, 40, 10**6]),
    gamma=st.floats(0, 5),
    ignore_index=st.sampled_from([-100, 255, 0]),
    is_weighted=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    is_open=st.booleans(),
    seed=st.integers(0, 100),
)
def test_softmax_follows_the_closed_form_on_both_sides_however_it_is_cut(
    shape: tuple[int, ...],
    part: int,
    gamma: float,
    ignore_index: int,
    dtype: torch.dtype,
    seed: int,
    *,
    is_weighted: bool,
    is_open: bool,
) -> None:
    logits = normal(*shape, seed=seed).to(dtype)
    labels = labels_of(shape[0], *shape[2:], num_classes=shape[1], seed=seed)
    labels = labels.where(normal(*labels.shape, seed=seed + 1) > -2, ignore_index)
    weight = normal(shape[1], seed=seed + 2).abs().to(dtype) if is_weighted else None
    with gate(is_open=is_open, part=part):
        found = value_and_gradient(
            softmax_focal_loss,
            logits,
            labels,
            gamma=gamma,
            weight=weight,
            reduction="sum",
            ignore_index=ignore_index,
        )
    valid = labels != ignore_index
    known = labels.where(valid, 0)
    factor = valid.double() if weight is None else weight.double()[known] * valid
    check_close(found, softmax_in_closed_form(logits, known, factor, gamma))


@given(
    shape=st.sampled_from([(6,), (7, 1), (5, 4), (3, 2, 5), (2, 3, 4, 2), (2, 1, 3)]),
    part=st.sampled_from([1, 7, 20, 10**6]),
    gamma=st.one_of(st.floats(0, 5), st.sampled_from(GAMMAS)),
    alpha=st.none() | st.floats(0, 1),
    are_labels=st.booleans(),
    is_weighted=st.booleans(),
    ignore_index=st.sampled_from([-100, 255, 0]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    is_open=st.booleans(),
    seed=st.integers(0, 100),
)
def test_sigmoid_follows_the_closed_form_on_both_sides_however_it_is_cut(
    shape: tuple[int, ...],
    part: int,
    gamma: float,
    alpha: float | None,
    ignore_index: int,
    dtype: torch.dtype,
    seed: int,
    *,
    are_labels: bool,
    is_weighted: bool,
    is_open: bool,
) -> None:
    logits = normal(*shape, seed=seed).to(dtype)
    weight = None
    if are_labels and len(shape) > 1:
        num_classes = max(shape[1], 2)
        targets = labels_of(shape[0], *shape[2:], num_classes=num_classes, seed=seed)
        targets = targets.where(normal(*targets.shape, seed=seed + 1) > -2, ignore_index)
        valid = targets != ignore_index
        known = targets.where(valid, 0)
        positive = one_hot_of(known, num_classes)[:, -shape[1] :].bool()
        weight = normal(num_classes, seed=seed + 2).abs().to(dtype) if is_weighted else None
        of_class = torch.ones(num_classes) if weight is None else weight
        factor = (of_class.double()[known] * valid).unsqueeze(1)
    else:
        targets = (normal(*shape, seed=seed + 1) > 2).to(dtype)
        positive, factor = targets.bool(), torch.ones(shape, dtype=torch.float64)
    if alpha is not None:
        factor = factor * (alpha * positive.double() + (1 - alpha) * (~positive).double())
    with gate(is_open=is_open, part=part):
        found = value_and_gradient(
            sigmoid_focal_loss,
            logits,
            targets,
            alpha=alpha,
            gamma=gamma,
            weight=weight,
            reduction="sum",
            ignore_index=ignore_index,
        )
    check_close(found, sigmoid_in_closed_form(logits, positive, factor, gamma))


@pytest.mark.parametrize("kind", BOTH)
def test_one_logit_decides_and_either_side_is_right(kind: str) -> None:
    per_row = 1024
    least = _fused.MIN_LOGITS[kind] if kind == "sigmoid" else _sample_loss.MIN_PARTED
    for rows in (least // per_row, least // per_row - 1):
        logits = normal(rows, per_row).float().requires_grad_()
        labels = labels_of(rows, num_classes=per_row)
        loss = softmax_focal_loss if kind == "softmax" else sigmoid_focal_loss
        assert is_fused(loss(logits, labels)) == (kind == "softmax" or logits.numel() == least)
        ones = torch.ones(rows, dtype=torch.float64)
        if kind == "softmax":
            expected = softmax_in_closed_form(logits.detach(), labels, ones, 2.0)
        else:
            positive = one_hot_of(labels, per_row).bool()
            expected = sigmoid_in_closed_form(logits.detach(), positive, ones.unsqueeze(1), 2.0)
        value, gradient = value_and_gradient(loss, logits, labels, reduction="sum")
        torch.testing.assert_close(value.double(), expected[0], rtol=1e-6, atol=0)
        torch.testing.assert_close(gradient.double(), expected[1], rtol=1e-5, atol=1e-6)


COMPONENTS: dict[str, dict[str, object]] = {
    "balanced_binary_cross_entropy": {},
    "balanced_softmax": {},
    "binary_cross_entropy": {"normalize": "positives"},
    "cross_entropy": {"normalize": "weights"},
    "influence_balanced": {"start": 0.0, "gamma": 0.5},
    "ldam": {"scale": 3.0},
    "logit_adjustment": {"tau": 0.5},
    "poly": {"gamma": 1.0},
    "seesaw": {},
    "sigmoid_focal": {"alpha": 0.25, "normalize": "batch"},
    "softmax_focal": {"probability": "weighted", "scale": 10.0},
    "vector_scaling": {},
}


@pytest.mark.parametrize("name", COMPONENTS)
def test_the_fused_path_of_a_component_is_its_composition(name: str) -> None:
    counts = torch.tensor([100, 40, 20, 5, 0])
    logits = normal(9, 5).float()
    labels = labels_of(9, num_classes=4)
    labels[4] = -100

    def loss(x: Tensor) -> Tensor:
        component = losses.build(name, COMPONENTS[name], class_counts=counts)
        component.set_weight(torch.tensor([0.3, 0.7, 1.1, 1.9, 0.0]))
        extras = {"features": normal(9, 3).abs()} if component.needs_features else {}
        return component(x, labels, **extras)

    found = []
    for is_open in (False, True):
        with gate(is_open=is_open, part=15):
            assert is_fused(loss(logits.clone().requires_grad_())) == is_open
            found.append(value_and_gradient(loss, logits))
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-6)


@given(
    scale=st.floats(0.1, 30),
    offset=st.floats(-3, 3),
    margin=st.floats(0, 2),
    part=st.sampled_from([1, 9, 1000]),
    dense=st.booleans(),
    by_class=st.booleans(),
)
def test_adjusted_logits_have_autograds_gradient(
    scale: float, offset: float, margin: float, part: int, *, dense: bool, by_class: bool
) -> None:
    logits = normal(5, 3, *(4,) * dense, size=0.3)
    labels = labels_of(5, *(4,) * dense, num_classes=3)
    factors = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    scales = scale * (factors if by_class else torch.ones_like(factors))
    adjustment = Adjustment(scales if by_class else scale, offset * factors, -margin * factors)

    def composed(x: Tensor) -> Tensor:
        over = (-1, *[1] * dense)
        scaled = x * scales.view(over) + adjustment.offset.view(over)
        z = scaled + one_hot_of(labels, 3) * adjustment.own.view(over)
        nll = torch.nn.functional.cross_entropy(z, labels, reduction="none")
        return (nll * torch.expm1(-nll).square()).sum()

    found = value_and_gradient(
        fused_terms, logits, labels, SampleTerm(gamma=2), adjustment=adjustment, part=part
    )
    torch.testing.assert_close(found, value_and_gradient(composed, logits))


def fused_terms(
    logits: Tensor,
    labels: Tensor,
    term: SampleTerm = CROSS_ENTROPY,
    *,
    adjustment: Adjustment = UNADJUSTED,
    ignore_index: int = -100,
    part: int = 2**16,
) -> Tensor:
    """The fused sum of term(CE)."""
    loss = SampleLoss(
        labels, term, "sum", "samples", ignore_index, None, None, adjustment=adjustment
    )
    with gate(is_open=True, part=part):
        value = loss.of(logits)
    assert is_fused(value)
    return value


def call(kind: str, logits: Tensor, *, gamma: float = 2.0, part: int = 2**16) -> Tensor:
    """A fused sum of focal losses of logits (N, C, ...) on some labels."""
    labels = labels_of(len(logits), *logits.shape[2:], num_classes=logits.shape[1])
    loss = softmax_focal_loss if kind == "softmax" else sigmoid_focal_loss
    with gate(is_open=True, part=part):
        value = loss(logits, labels, gamma=gamma, reduction="sum")
    assert is_fused(value)
    return value


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("dense", [False, True])
def test_saturated_logits_have_finite_losses_and_gradients(
    gamma: float, kind: str, *, dense: bool
) -> None:
    extremes = torch.tensor([0.0, 17.0, 50.0, -50.0, 100.0, -100.0, 1e4, -1e4])
    logits = torch.cartesian_prod(extremes, extremes, extremes)
    logits = logits.unsqueeze(-1).expand(-1, -1, 2) if dense else logits
    value, gradient = value_and_gradient(functools.partial(call, kind, gamma=gamma), logits)
    assert math.isfinite(value.item())
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("dense", [False, True])
def test_the_worst_mistakes_keep_their_value_and_gradient(*, dense: bool) -> None:
    logits = torch.tensor([[-1e4, 0.0]]).view(1, 2, *[1] * dense)
    labels = torch.zeros(1, *[1] * dense, dtype=torch.int64)
    value, gradient = value_and_gradient(fused_terms, logits, labels)
    assert value == 1e4
    assert gradient.flatten().tolist() == [-1.0, 1.0]
    with gate(is_open=True):
        value, gradient = value_and_gradient(sigmoid_focal_loss, logits, labels, reduction="sum")
    assert value == pytest.approx(1e4 + math.log(2) / 4)
    assert gradient.flatten()[0] == -1


@given(gap=st.floats(0, 110))
def test_hard_samples_keep_the_digits_of_their_value(gap: float) -> None:
    logits, labels = torch.tensor([[0.0, gap]]), torch.tensor([0])
    value, gradient = value_and_gradient(fused_terms, logits, labels)
    exact = logits[0, 1].double()
    assert value.item() == pytest.approx(torch.nn.functional.softplus(exact).item(), rel=1e-6)
    assert gradient[0, 1].item() == pytest.approx(torch.sigmoid(exact).item(), rel=1e-6)


def test_a_class_that_is_masked_takes_no_part() -> None:
    logits, labels = torch.tensor([[1.0, -math.inf, 2.0]]), torch.tensor([2])
    value, gradient = value_and_gradient(fused_terms, logits, labels)
    assert value == pytest.approx(math.log1p(math.exp(-1)))
    assert gradient[0, 1] == 0


@pytest.mark.parametrize("ignored", [0, 3])
def test_ignored_samples_have_no_value_and_no_gradient(ignored: int) -> None:
    logits = torch.tensor([[-math.inf, 0.0], [1.0, 2.0], [3.0, 0.5]])
    labels = torch.tensor([ignored, 1, ignored])
    value, gradient = value_and_gradient(fused_terms, logits, labels, ignore_index=ignored)
    assert value == pytest.approx(math.log1p(math.exp(-1)))
    assert not gradient[[0, 2]].any()
    assert gradient[1].any()


@pytest.mark.parametrize("kind", BOTH)
def test_nothing_that_counts_is_a_mean_of_0_with_zero_gradient(kind: str) -> None:
    loss = softmax_focal_loss if kind == "softmax" else sigmoid_focal_loss
    with gate(is_open=True):
        value, gradient = value_and_gradient(loss, normal(4, 3), torch.full((4,), -100))
    assert value == 0
    assert not gradient.any()


@pytest.mark.parametrize("kind", BOTH)
def test_channels_last_and_slices_are_read_as_they_are(kind: str) -> None:
    dense = normal(2, 3, 4, 5).float()
    expected = value_and_gradient(functools.partial(call, kind), dense)
    for other in (
        dense.contiguous(memory_format=torch.channels_last),
        torch.stack((dense, dense), dim=2)[:, :, 1],
    ):
        found = value_and_gradient(functools.partial(call, kind), other)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_and_summed_in_float32(kind: str, dtype: torch.dtype) -> None:
    logits = normal(64, 50, size=5.0).to(dtype)
    value, gradient = value_and_gradient(functools.partial(call, kind), logits)
    expected = value_and_gradient(functools.partial(call, kind), logits.float())
    assert value.dtype == torch.float32
    assert torch.equal(value, expected[0])
    assert torch.equal(gradient, expected[1].to(dtype))


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_batch_gives_the_same_bits(kind: str, threads: int) -> None:
    logits = normal(64, 5000).float()
    with cpu_threads(threads):
        first, again = (value_and_gradient(functools.partial(call, kind), logits) for _ in "ab")
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("dense", [False, True])
def test_threads_share_a_batch_and_change_nothing(kind: str, *, dense: bool) -> None:
    logits = normal(9, 40, *(30,) * dense).float()
    with cpu_threads(1):
        alone = value_and_gradient(functools.partial(call, kind), logits)
    with cpu_threads(3):
        together = value_and_gradient(functools.partial(call, kind, part=50), logits)
    torch.testing.assert_close(together, alone)


def test_a_soft_target_that_one_of_the_threads_meets_is_composed() -> None:
    logits, targets = normal(40, 3).float().requires_grad_(), torch.zeros(40, 3)
    targets[-1, -1] = 0.5
    with cpu_threads(2), gate(is_open=True, part=10):
        assert not is_fused(sigmoid_focal_loss(logits, targets))
        assert is_fused(sigmoid_focal_loss(logits, targets.round()))


def test_autocast_changes_nothing() -> None:
    logits = normal(5, 4).float()
    for kind in BOTH:
        expected = value_and_gradient(functools.partial(call, kind), logits)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = value_and_gradient(functools.partial(call, kind), logits)
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])


@pytest.mark.parametrize("odd", [0.5, 1e-6, 1 - 1e-6])
def test_one_target_between_0_and_1_is_seen_and_composed(odd: float) -> None:
    logits = normal(40, 3).float()
    targets = torch.zeros(40, 3)
    targets[-1, -1] = odd
    with gate(is_open=False):
        expected = value_and_gradient(sigmoid_focal_loss, logits, targets)
    with gate(is_open=True, part=10):
        assert not is_fused(sigmoid_focal_loss(logits.clone().requires_grad_(), targets))
        found = value_and_gradient(sigmoid_focal_loss, logits, targets)
    assert torch.equal(found[1], expected[1])


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float64])
def test_targets_0_and_1_may_be_of_any_type(dtype: torch.dtype) -> None:
    logits, targets = normal(40, 3).float(), (normal(40, 3, seed=1) > 1).to(dtype)
    with gate(is_open=True, part=10):
        assert is_fused(sigmoid_focal_loss(logits.clone().requires_grad_(), targets))
        found = value_and_gradient(sigmoid_focal_loss, logits, targets)
    expected = value_and_gradient(sigmoid_focal_loss, logits, targets.float())
    torch.testing.assert_close(found, expected)


def test_one_dimension_of_logits_with_class_weights_is_composed() -> None:
    logits, targets = normal(6).requires_grad_(), torch.tensor([0, 1, 0, 0, 1, 1])
    with gate(is_open=True):
        value = sigmoid_focal_loss(logits, targets, weight=torch.tensor([1.0, 3.0]))
    assert not is_fused(value)
    assert torch.isfinite(value)


@pytest.mark.parametrize("odd", [-1.0, 2.0, math.nan])
def test_a_target_outside_0_to_1_is_refused(odd: float) -> None:
    logits, targets = normal(4, 3).requires_grad_(), torch.zeros(4, 3)
    targets[-1, -1] = odd
    with gate(is_open=True), pytest.raises(ValueError, match="soft targets lie in"):
        sigmoid_focal_loss(logits, targets)


@pytest.mark.parametrize("label", [3, -1])
def test_a_label_that_is_no_class_is_an_index_error(label: int) -> None:
    logits, labels = normal(2, 3).requires_grad_(), torch.tensor([0, label])
    for loss in (fused_terms, sigmoid_focal_loss):
        with (
            gate(is_open=True),
            pytest.raises(IndexError, match=f"target {label} is out of range: labels are 0 to 2"),
        ):
            loss(logits, labels)


@pytest.mark.parametrize("shape", [(3,), (2, 1), (2, 2)])
def test_labels_that_do_not_fit_are_refused_as_the_composition_does(shape: tuple[int, ...]) -> None:
    logits, labels = normal(2, 3).requires_grad_(), torch.zeros(shape, dtype=torch.int64)
    for loss in (softmax_focal_loss, sigmoid_focal_loss):
        with gate(is_open=True), pytest.raises((ValueError, RuntimeError)):
            loss(logits, labels)


@pytest.mark.parametrize("kind", BOTH)
def test_values_of_single_samples_are_composed(kind: str) -> None:
    loss = softmax_focal_loss if kind == "softmax" else sigmoid_focal_loss
    with gate(is_open=True):
        logits = normal(4, 3).requires_grad_()
        values = loss(logits, torch.tensor([0, 1, 2, 0]), reduction="none")
    assert values.ndim > 0
    assert not is_fused(values)


def test_an_unknown_reduction_is_refused() -> None:
    logits = normal(4, 3).requires_grad_()
    for loss in (softmax_focal_loss, sigmoid_focal_loss):
        with gate(is_open=True), pytest.raises(ValueError, match="reduction must be"):
            loss(logits, torch.tensor([0, 1, 2, 0]), reduction="average")


def test_influence_that_is_not_detached_reaches_the_features_by_the_composition() -> None:
    logits, features = normal(4, 3).requires_grad_(), normal(4, 2).requires_grad_()
    for detach in (True, False):
        keys = {"start": 0.0, "detach": detach}
        loss = losses.build("influence_balanced", keys, class_counts=torch.ones(3))
        with gate(is_open=True):
            value = loss(logits, torch.tensor([0, 1, 2, 0]), features=features)
        assert is_fused(value) == detach
        (slope,) = torch.autograd.grad(value, features, allow_unused=True)
        assert (slope is None) == detach


# --- autograd -----------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.5, 2.0])
@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("shape", [(5, 4), (2, 3, 2)])
def test_first_and_second_derivatives_are_right(
    gamma: float, kind: str, shape: tuple[int, ...]
) -> None:
    logits = normal(*shape).requires_grad_()
    loss = functools.partial(call, kind, gamma=gamma)
    assert torch.autograd.gradcheck(loss, logits)
    assert torch.autograd.gradgradcheck(loss, logits)


@pytest.mark.parametrize("kind", BOTH)
def test_a_penalty_on_the_gradient_can_be_trained(kind: str) -> None:
    weight = normal(3, 3, size=1.0).requires_grad_()
    inputs = normal(6, 3, seed=1, size=1.0)

    def penalty(w: Tensor) -> Tensor:
        logits = inputs @ w
        (slope,) = torch.autograd.grad(call(kind, logits), logits, create_graph=True)
        return slope.square().sum()

    assert torch.autograd.gradcheck(penalty, weight)


@pytest.mark.parametrize("kind", BOTH)
def test_a_factor_of_the_loss_is_a_factor_of_the_gradient(kind: str) -> None:
    logits = normal(5, 4)
    _, once = value_and_gradient(functools.partial(call, kind), logits)
    _, thrice = value_and_gradient(lambda x: 3 * call(kind, x), logits)
    torch.testing.assert_close(thrice, 3 * once)


@pytest.mark.parametrize("kind", BOTH)
def test_a_kept_graph_gives_its_gradient_again_and_a_freed_one_does_not(kind: str) -> None:
    logits = normal(5, 4).requires_grad_()
    value = call(kind, logits)
    (first,) = torch.autograd.grad(value, logits, retain_graph=True)
    expected = first.clone()
    value.backward(retain_graph=True)
    logits.grad.zero_()  # the gradient is the reader's: the graph keeps its own
    (2 * value).backward()
    torch.testing.assert_close(logits.grad, 2 * expected)
    with pytest.raises(RuntimeError, match="a second time"):
        value.backward()


@pytest.mark.parametrize("kind", BOTH)
def test_logits_changed_before_the_backward_pass_are_noticed(kind: str) -> None:
    leaf = normal(5, 4).requires_grad_()
    logits = leaf * 1
    value = call(kind, logits)
    logits.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


# --- when ---------------------------------------------------------------------------------------


LEAST = _fused.MIN_LOGITS["sigmoid"]
can_fuse = functools.partial(_fused.can_fuse, "sigmoid")


def enough(*, requires_grad: bool = True) -> Tensor:
    return torch.zeros(LEAST, requires_grad=requires_grad)


def test_many_logits_that_want_a_gradient_are_fused_and_fewer_are_not() -> None:
    assert can_fuse(enough())
    assert can_fuse(enough(), None, torch.ones(3))
    assert can_fuse(torch.nn.Parameter(enough()))
    assert not can_fuse(torch.zeros(LEAST - 1, requires_grad=True))


def test_without_a_gradient_to_make_nothing_is_fused() -> None:
    assert not can_fuse(enough(requires_grad=False))
    with torch.no_grad():
        assert not can_fuse(enough())
    with torch.inference_mode():
        assert not can_fuse(enough())


def test_a_gradient_by_anything_but_the_logits_is_not_fused() -> None:
    assert not can_fuse(enough(), torch.ones(3), torch.ones(3, requires_grad=True))


def test_other_devices_and_other_kinds_of_tensor_are_not_fused() -> None:
    assert not can_fuse(torch.zeros(LEAST, device="meta", requires_grad=True))

    class Named(Tensor):
        pass

    assert not can_fuse(enough().as_subclass(Named))


@its_own_script
def test_forward_derivatives_are_not_fused() -> None:
    with forward_ad.dual_level():
        assert not can_fuse(forward_ad.make_dual(enough(), torch.ones(LEAST)))


@its_own_script
def test_function_transforms_are_not_fused() -> None:
    seen = []

    def loss(x: Tensor) -> Tensor:
        seen.append(can_fuse(x))
        return x.sum()

    torch.func.grad(loss)(enough())
    torch.func.vmap(torch.func.grad(loss))(torch.stack((enough(), enough())))
    torch.func.jvp(loss, (enough(),), (enough(),))
    assert seen == [False] * 3


def test_compiled_code_is_not_fused() -> None:
    torch.compiler.reset()
    compiled = torch.compile(lambda x: x.sum() + 2 * can_fuse(x), fullgraph=True, backend="eager")
    assert compiled(enough()) == 0


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "shape", [(3, 1), (5, 17), (7, 1000), (64, 8142), (2, 3, 5, 7), (4, 21, 64, 33)]
)
def test_torch_makes_a_softmax_in_place_as_elsewhere(shape: tuple[int, ...], threads: int) -> None:
    """What the fused path relies on, for adjusted logits that stand in the gradient's memory."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        x = 9 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
        for make in (torch.softmax, torch.log_softmax):
            found = x.clone()
            make(found, dim=1, out=found)
            assert torch.equal(found, make(x, dim=1))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("ignored", [0, 3])
def test_the_gradient_is_all_that_many_sigmoids_fill(ignored: int) -> None:
    x = torch.randn(2, 20, 80, 80, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = labels_of(2, 80, 80, num_classes=20)
    labels[0, :ignored] = -100
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        sigmoid_focal_loss(x, labels)
    events = profile.profiler.kineto_results.events()
    sizes = [event.nbytes() for event in events if event.name() == "[memory]"]
    assert sum(size >= 4 * x.numel() for size in sizes) == 1
