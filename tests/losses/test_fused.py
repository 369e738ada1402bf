"""Gradients made in the forward pass, against closed forms in float64 and against autograd."""

import functools
import math
from collections.abc import Callable
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import forward_ad

from losses import _fused
from losses._fused import Adjustment, can_fuse, fused_sigmoid, fused_softmax
from losses._modulator import focal_modulator

GAMMAS = [0.0, 0.3, 0.5, 1.0, 2.0, 3.7]
# PyTorch's own forward derivatives compile a few of their formulas when they are first used.
its_own_script = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
BOTH = ["softmax", "sigmoid"]


def focal(nll: Tensor, factor: Tensor, *, gamma: float) -> Tensor:
    return focal_modulator(nll, gamma=gamma) * nll * factor


def normal(*shape: int, seed: int = 0, size: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return size * torch.randn(*shape, generator=generator, dtype=torch.float64)


def labels_of(*shape: int, num_classes: int, seed: int = 0) -> Tensor:
    return torch.randint(num_classes, shape, generator=torch.Generator().manual_seed(seed))


def slope_of_focal(u: Tensor, nll: Tensor, gamma: float) -> Tensor:
    """d (u^gamma nll) / d nll for u = 1 - exp(-nll), in closed form."""
    return u**gamma * (1 + gamma * (1 - u) * nll / u)


def softmax_in_closed_form(
    logits: Tensor, labels: Tensor, factor: Tensor, *, gamma: float, ignore_index: int
) -> tuple[Tensor, Tensor]:
    """The sum over samples and its gradient, in float64."""
    valid = labels != ignore_index
    one_hot = torch.nn.functional.one_hot(labels.where(valid, 0), logits.shape[1])
    one_hot = one_hot.movedim(-1, 1).double()
    powers = (logits.double() - logits.double().amax(1, keepdim=True)).exp()
    p = powers / powers.sum(1, keepdim=True)
    u = (p * (1 - one_hot)).sum(1)
    nll = -torch.log1p(-u)
    counts = factor.double() * valid
    slope = counts * slope_of_focal(u, nll, gamma)
    return (counts * u**gamma * nll).sum(), slope.unsqueeze(1) * (p - one_hot)


def call(kind: str, logits: Tensor, *, gamma: float = 2.0) -> Tensor:
    """A fused loss of logits (N, C, ...) on some labels, whatever their number."""
    labels = labels_of(len(logits), *logits.shape[2:], num_classes=logits.shape[1])
    if kind == "softmax":
        ones = torch.ones(labels.shape, dtype=logits.dtype)
        return fused_softmax(logits, labels, functools.partial(focal, gamma=gamma), values=[ones])
    value = fused_sigmoid(logits, labels, gamma=gamma)
    assert value is not None
    return value


def value_and_gradient(loss: Callable[[Tensor], Tensor], logits: Tensor) -> tuple[Tensor, Tensor]:
    logits = logits.detach().requires_grad_()
    value = loss(logits)
    value.backward()
    assert logits.grad is not None
    return value.detach(), logits.grad


# --- values and gradients -----------------------------------------------------------------------


@given(
    shape=st.sampled_from([(1, 1), (7, 1), (5, 4), (33, 3), (3, 2, 5), (4, 3, 2, 3)]),
    part=st.sampled_from([1, 13, 40, 10**6]),
    gamma=st.floats(0, 5),
    ignore_index=st.sampled_from([-100, 255, 0]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 100),
)
def test_softmax_follows_the_closed_form_however_it_is_cut(
    shape: tuple[int, ...],
    part: int,
    gamma: float,
    ignore_index: int,
    dtype: torch.dtype,
    seed: int,
) -> None:
    logits = normal(*shape, seed=seed).to(dtype)
    labels = labels_of(shape[0], *shape[2:], num_classes=shape[1], seed=seed)
    labels = labels.where(normal(*labels.shape, seed=seed + 1) > -2, ignore_index)
    factor = normal(*labels.shape, seed=seed + 2).abs().to(dtype)
    with mock.patch.object(_fused, "SOFTMAX_PART", part):
        value, gradient = value_and_gradient(
            lambda x: fused_softmax(
                x,
                labels,
                functools.partial(focal, gamma=gamma),
                values=[factor],
                divisor=3.0,
                ignore_index=ignore_index,
            ),
            logits,
        )
    expected = softmax_in_closed_form(
        logits, labels, factor, gamma=gamma, ignore_index=ignore_index
    )
    one_class = shape[1] == 1
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {}
    assert value.dtype == gradient.dtype == dtype
    torch.testing.assert_close(3 * value.double(), expected[0], **tolerance)
    if not one_class:  # there 1 - p is 0, and the closed form 0 / 0
        torch.testing.assert_close(3 * gradient.double(), expected[1], **tolerance)
    else:
        assert not gradient.any()


@given(
    shape=st.sampled_from([(6,), (7, 1), (5, 4), (3, 2, 5), (2, 3, 4, 2), (2, 1, 3)]),
    part=st.sampled_from([1, 7, 20, 10**6]),
    gamma=st.one_of(st.floats(0, 5), st.sampled_from(GAMMAS)),
    alpha=st.none() | st.floats(0, 1),
    kind=st.sampled_from(["elements", "labels"]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 100),
)
def test_sigmoid_follows_the_closed_form_however_it_is_cut(
    shape: tuple[int, ...],
    part: int,
    gamma: float,
    alpha: float | None,
    kind: str,
    dtype: torch.dtype,
    seed: int,
) -> None:
    logits = normal(*shape, seed=seed).to(dtype)
    if kind == "elements" or len(shape) == 1:
        targets = (normal(*shape, seed=seed + 1) > 2).to(dtype)
        positive = targets.bool()
    else:
        outputs = shape[1]
        targets = labels_of(shape[0], *shape[2:], num_classes=max(outputs, 2), seed=seed)
        one_hot = torch.nn.functional.one_hot(targets, max(outputs, 2)).movedim(-1, 1).bool()
        positive = one_hot[:, -outputs:]
    factor = normal(shape[0], *shape[2:], seed=seed + 2).abs().to(dtype)
    with mock.patch.object(_fused, "SIGMOID_PART", part):
        value, gradient = value_and_gradient(
            lambda x: fused_sigmoid(
                x, targets, gamma=gamma, alpha=alpha, factor=factor, divisor=3.0
            ),
            logits,
        )
    signed = torch.where(positive, -1.0, 1.0).double() * logits.double()
    u, nll = torch.sigmoid(signed), torch.log1p(signed.exp())
    weights = torch.ones_like(u) if alpha is None else torch.where(positive, alpha, 1 - alpha)
    weights = weights * (factor.unsqueeze(1) if len(shape) > 1 else factor)
    slope = weights * slope_of_focal(u, nll, gamma) * u * signed.div(logits.double())
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {}
    assert value.dtype == gradient.dtype == dtype
    torch.testing.assert_close(
        3 * value.double(), (weights * u**gamma * nll).sum().double(), **tolerance
    )
    torch.testing.assert_close(3 * gradient.double(), slope.double(), **tolerance)


@given(
    scale=st.floats(0.1, 30),
    offset=st.floats(-3, 3),
    margin=st.floats(0, 2),
    part=st.sampled_from([1, 9, 1000]),
    dense=st.booleans(),
)
def test_adjusted_logits_have_autograds_gradient(
    scale: float, offset: float, margin: float, part: int, *, dense: bool
) -> None:
    logits = normal(5, 3, *(4,) * dense, size=0.3)
    labels = labels_of(5, *(4,) * dense, num_classes=3)
    by_class = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    adjustment = Adjustment(scale * by_class, offset * by_class, margin * by_class)

    def fused(x: Tensor) -> Tensor:
        return fused_softmax(x, labels, lambda nll: nll.square(), adjustment=adjustment)

    def composed(x: Tensor) -> Tensor:
        over = (-1, *[1] * dense)
        one_hot = torch.nn.functional.one_hot(labels, 3).movedim(-1, 1)
        scaled = x * adjustment.scale.view(over) + adjustment.offset.view(over)
        z = scaled - one_hot * adjustment.margin.view(over)
        return torch.nn.functional.cross_entropy(z, labels, reduction="none").square().sum()

    with mock.patch.object(_fused, "SOFTMAX_PART", part):
        found = value_and_gradient(fused, logits)
    torch.testing.assert_close(found, value_and_gradient(composed, logits))


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
    value, gradient = value_and_gradient(
        lambda x: fused_softmax(x, labels, lambda nll: nll), logits
    )
    assert value == 1e4
    assert gradient.flatten().tolist() == [-1.0, 1.0]
    value, gradient = value_and_gradient(lambda x: fused_sigmoid(x, labels, gamma=2.0), logits)
    assert value == pytest.approx(1e4 + math.log(2) / 4)
    assert gradient.flatten()[0] == -1


def test_a_class_that_is_masked_takes_no_part() -> None:
    logits = torch.tensor([[1.0, -math.inf, 2.0]])
    labels = torch.tensor([2])
    value, gradient = value_and_gradient(
        lambda x: fused_softmax(x, labels, lambda nll: nll), logits
    )
    assert value == pytest.approx(math.log1p(math.exp(-1)))
    assert gradient[0, 1] == 0


@pytest.mark.parametrize("ignored", [0, 3])
def test_ignored_samples_have_no_value_and_no_gradient(ignored: int) -> None:
    logits = torch.tensor([[-math.inf, 0.0], [1.0, 2.0], [3.0, 0.5]])
    labels = torch.tensor([3, 1, 3]) if ignored == 3 else torch.tensor([0, 1, 0])
    value, gradient = value_and_gradient(
        lambda x: fused_softmax(x, labels, lambda nll: nll, ignore_index=ignored), logits
    )
    assert value == pytest.approx(math.log1p(math.exp(-1)))
    assert not gradient[[0, 2]].any()
    assert gradient[1].any()


def test_channels_last_and_slices_are_read_as_they_are() -> None:
    dense = normal(2, 3, 4, 5).float()
    for kind in BOTH:
        expected = value_and_gradient(functools.partial(call, kind), dense)
        last = dense.contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(
            value_and_gradient(functools.partial(call, kind), last), expected
        )
        every_other = torch.stack((dense, dense), dim=2)[:, :, 1]
        torch.testing.assert_close(
            value_and_gradient(functools.partial(call, kind), every_other), expected
        )


@pytest.mark.parametrize("kind", BOTH)
def test_the_same_batch_gives_the_same_bits(kind: str) -> None:
    logits = normal(64, 5000).float()
    first, again = (value_and_gradient(functools.partial(call, kind), logits) for _ in range(2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])


def test_targets_between_0_and_1_and_outside_are_left_to_the_composition() -> None:
    logits = normal(4, 3).requires_grad_()
    for odd in (0.5, 1e-30, -1.0, 2.0, math.nan):
        targets = torch.zeros(4, 3, dtype=torch.float64)
        targets[-1, -1] = odd
        with mock.patch.object(_fused, "SIGMOID_PART", 3):
            assert (fused_sigmoid(logits, targets, gamma=2.0) is None) == (odd != 1e-30)


def test_a_label_that_is_no_class_is_an_index_error() -> None:
    for label in (3, -1):
        with pytest.raises(IndexError, match=f"target {label} is out of range: labels are 0 to 2"):
            fused_softmax(normal(2, 3), torch.tensor([0, label]), lambda nll: nll)


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
    weight = normal(3, 3).requires_grad_()
    inputs = normal(6, 3, seed=1)

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


def enough(*, requires_grad: bool = True) -> Tensor:
    return torch.zeros(_fused.MIN_LOGITS, requires_grad=requires_grad)


def test_many_logits_that_want_a_gradient_are_fused_and_fewer_are_not() -> None:
    assert can_fuse(enough())
    assert can_fuse(enough(), None, torch.ones(3))
    assert can_fuse(torch.nn.Parameter(enough()))
    assert not can_fuse(torch.zeros(_fused.MIN_LOGITS - 1, requires_grad=True))


def test_without_a_gradient_to_make_nothing_is_fused() -> None:
    assert not can_fuse(enough(requires_grad=False))
    with torch.no_grad():
        assert not can_fuse(enough())
    with torch.inference_mode():
        assert not can_fuse(enough())


def test_a_gradient_by_anything_but_the_logits_is_not_fused() -> None:
    assert not can_fuse(enough(), torch.ones(3), torch.ones(3, requires_grad=True))


def test_other_devices_and_other_kinds_of_tensor_are_not_fused() -> None:
    assert not can_fuse(torch.zeros(_fused.MIN_LOGITS, device="meta", requires_grad=True))

    class Named(Tensor):
        pass

    assert not can_fuse(enough().as_subclass(Named))


@its_own_script
def test_forward_derivatives_are_not_fused() -> None:
    with forward_ad.dual_level():
        assert not can_fuse(forward_ad.make_dual(enough(), torch.ones(_fused.MIN_LOGITS)))


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
