"""What every loss keeps, whichever it is: a new file in losses/ is tested here as it appears."""

import copy
import importlib
import math

import pytest
import torch
from torch import Tensor

import losses

COUNTS = torch.tensor([100, 40, 20, 5])
NUM_CLASSES = len(COUNTS)
NAMES = losses.names()
WEIGHT = torch.tensor([0.3, 0.7, 1.1, 1.9])
EXTREMES = [0.0, 50.0, -50.0, 100.0, -100.0, 1e4, -1e4]


# What a loss is by default at first, it need not be later.
KEYS: dict[str, dict[str, object]] = {"influence_balanced": {"start": 0.0}}


def built(name: str) -> losses.Loss:
    return losses.build(name, KEYS.get(name), class_counts=COUNTS)


def with_fact(fact: str) -> list[str]:
    return [name for name in NAMES if getattr(built(name), fact)]


def random_logits(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def said_by_a_teacher(logits: Tensor) -> Tensor:
    """Of the logits' shape; the same for sample n of any batch, and for its pixels in a row."""
    shape = (len(logits), *logits.shape[2:], NUM_CLASSES)
    return (
        random_logits(64, NUM_CLASSES, seed=2)[: math.prod(shape[:-1])].view(shape).movedim(-1, 1)
    )


def call(loss: losses.Loss, logits: Tensor, targets: Tensor) -> Tensor:
    extras = {}
    if loss.needs_features:
        extras["features"] = random_logits(len(logits), 8, seed=1)
    if loss.needs_teacher:
        extras["teacher_logits"] = said_by_a_teacher(logits)
    return loss(logits, targets, **extras)


@pytest.fixture(params=NAMES)
def loss(request: pytest.FixtureRequest) -> losses.Loss:
    return built(request.param)


def weigh(loss: losses.Loss, weight: Tensor = WEIGHT) -> losses.Loss:
    """Give the loss class weights if it takes any."""
    if loss.takes_weight:
        loss.set_weight(weight)
    return loss


LOGITS = random_logits(6, NUM_CLASSES)
TARGETS = torch.tensor([0, 1, 2, 3, 0, 1])


def test_the_three_losses_of_the_foundation_are_found() -> None:
    assert {"cross_entropy", "softmax_focal", "sigmoid_focal"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_pure_function_stands_beside_every_loss(name: str) -> None:
    assert callable(getattr(importlib.import_module(f"losses.{name}"), f"{name}_loss"))


def test_a_batch_gives_a_positive_scalar_with_a_gradient(loss: losses.Loss) -> None:
    logits = LOGITS.clone().requires_grad_()
    value = call(loss, logits, TARGETS)
    value.backward()
    assert value.shape == ()
    assert value > 0
    assert logits.grad is not None
    assert logits.grad.abs().sum() > 0


def test_a_step_against_the_gradient_lowers_the_loss(loss: losses.Loss) -> None:
    logits = LOGITS.clone().requires_grad_()
    before = call(loss, logits, TARGETS)
    before.backward()
    after = call(loss, LOGITS - 0.1 * logits.grad, TARGETS)
    assert after < before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_value_and_gradient_are_finite_at_extreme_logits(
    loss: losses.Loss, dtype: torch.dtype
) -> None:
    pairs = torch.cartesian_prod(torch.tensor(EXTREMES), torch.tensor(EXTREMES))
    logits = torch.zeros(len(pairs), NUM_CLASSES, dtype=dtype)
    logits[:, :2] = pairs.to(dtype)
    logits.requires_grad_()
    value = call(loss, logits, torch.zeros(len(pairs), dtype=torch.int64))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize(
    ("given", "computed"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_half_precision_is_computed_in_float32_and_float64_stays(
    loss: losses.Loss, given: torch.dtype, computed: torch.dtype
) -> None:
    value = call(loss, LOGITS.to(given), TARGETS)
    assert value.dtype == computed
    torch.testing.assert_close(value, call(loss, LOGITS.to(given).to(computed), TARGETS))


def test_autocast_does_not_lower_the_precision(loss: losses.Loss) -> None:
    weigh(loss)
    expected = call(loss, LOGITS, TARGETS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = call(loss, LOGITS, TARGETS)
    assert torch.equal(value, expected)


@pytest.mark.parametrize("name", with_fact("takes_soft_targets"))
def test_autocast_does_not_lower_the_precision_of_soft_targets(name: str) -> None:
    loss = weigh(built(name))
    soft = random_logits(6, NUM_CLASSES, seed=4).softmax(1)
    expected = call(loss, LOGITS, soft)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = call(loss, LOGITS, soft)
    assert torch.equal(value, expected)


@pytest.mark.parametrize("targets", [torch.full((6,), -100), TARGETS[:0]], ids=["ignored", "empty"])
def test_nothing_valid_is_zero_with_zero_gradient(loss: losses.Loss, targets: Tensor) -> None:
    logits = LOGITS[: len(targets)].clone().requires_grad_()
    value = call(loss, logits, targets)
    value.backward()
    assert value == 0
    assert not logits.grad.any()


def test_ignored_samples_leave_value_and_gradient_of_the_others_alone(loss: losses.Loss) -> None:
    alone = LOGITS[:4].clone().requires_grad_()
    call(loss, alone, TARGETS[:4]).backward()
    among = LOGITS.clone().requires_grad_()
    targets = torch.where(torch.arange(6) < 4, TARGETS, -100)
    call(loss, among, targets).backward()
    torch.testing.assert_close(among.grad[:4], alone.grad)
    assert not among.grad[4:].any()


@pytest.mark.parametrize("name", with_fact("takes_weight"))
def test_doubled_weights_double_the_loss(name: str) -> None:
    loss = built(name)
    weight = torch.tensor([0.5, 1.0, 2.0, 4.0])
    loss.set_weight(weight)
    single = call(loss, LOGITS, TARGETS)
    loss.set_weight(2 * weight)
    torch.testing.assert_close(call(loss, LOGITS, TARGETS), 2 * single)


@pytest.mark.parametrize("name", with_fact("takes_weight"))
def test_a_sample_is_weighed_by_the_weight_of_its_class(name: str) -> None:
    loss = built(name)
    plain = call(loss, LOGITS[:1], torch.tensor([2]))
    loss.set_weight(torch.tensor([1.0, 10.0, 3.0, 10.0]))
    torch.testing.assert_close(call(loss, LOGITS[:1], torch.tensor([2])), 3 * plain)


@pytest.mark.parametrize("name", with_fact("takes_weight"))
def test_weights_can_be_taken_back(name: str) -> None:
    loss = built(name)
    plain = call(loss, LOGITS, TARGETS)
    loss.set_weight(torch.tensor([0.0, 1.0, 2.0, 4.0]))
    loss.set_weight(None)
    assert torch.equal(call(loss, LOGITS, TARGETS), plain)


@pytest.mark.parametrize("name", with_fact("takes_weight"))
def test_a_sample_of_a_class_of_weight_zero_is_an_error(name: str) -> None:
    loss = built(name)
    loss.set_weight(torch.tensor([1.0, 1.0, 1.0, 0.0]))
    with pytest.raises(ValueError, match="class 3, which has no training images"):
        call(loss, LOGITS, TARGETS)


@pytest.mark.parametrize(
    "weight", [torch.tensor([1.0, -1.0]), torch.tensor([1.0, torch.nan]), torch.ones(())]
)
def test_weights_that_are_no_weights_are_refused(loss: losses.Loss, weight: Tensor) -> None:
    with pytest.raises(ValueError, match="class weights"):
        loss.set_weight(weight)


@pytest.mark.parametrize("target", [NUM_CLASSES, -1])
def test_a_label_out_of_range_is_refused(loss: losses.Loss, target: int) -> None:
    with pytest.raises(IndexError, match=str(target)):
        call(loss, LOGITS, torch.tensor([0, 1, 2, 3, 0, target]))


@pytest.mark.parametrize("name", with_fact("takes_soft_targets"))
@pytest.mark.parametrize("weight", [torch.ones(NUM_CLASSES), WEIGHT])
def test_one_hot_targets_equal_labels(name: str, weight: Tensor) -> None:
    loss = weigh(built(name), weight)
    hard, soft = (LOGITS.clone().requires_grad_() for _ in range(2))
    one_hot = torch.nn.functional.one_hot(TARGETS, NUM_CLASSES).float()
    values = call(loss, hard, TARGETS), call(loss, soft, one_hot)
    sum(values).backward()
    torch.testing.assert_close(*values)
    torch.testing.assert_close(hard.grad, soft.grad)


@pytest.mark.parametrize("name", with_fact("dense"))
def test_dense_logits_equal_the_same_samples_in_a_row(name: str) -> None:
    loss = weigh(built(name))
    logits = random_logits(2, NUM_CLASSES, 3, 5)
    targets = torch.arange(30).view(2, 3, 5) % NUM_CLASSES
    targets[0, 0, 0] = -100
    flat = logits.movedim(1, -1).reshape(-1, NUM_CLASSES)
    torch.testing.assert_close(call(loss, logits, targets), call(loss, flat, targets.flatten()))


def test_non_contiguous_logits_give_the_same_value(loss: losses.Loss) -> None:
    transposed = LOGITS.t().contiguous().t()
    assert not transposed.is_contiguous()
    torch.testing.assert_close(call(loss, transposed, TARGETS), call(loss, LOGITS, TARGETS))


def test_compiled_without_graph_breaks_it_gives_the_same(loss: losses.Loss) -> None:
    weigh(loss, torch.tensor([0.5, 1.0, 2.0, 0.0]))
    targets = TARGETS.clamp_max(2)
    eager, compiled = (LOGITS.clone().requires_grad_() for _ in range(2))
    call(loss, eager, targets).backward()
    torch.compiler.reset()
    call(torch.compile(loss, fullgraph=True, backend="aot_eager"), compiled, targets).backward()
    torch.testing.assert_close(compiled.grad, eager.grad)


def test_a_copy_is_equal_and_independent(loss: losses.Loss) -> None:
    twin = copy.deepcopy(loss)
    before = call(loss, LOGITS, TARGETS)
    assert torch.equal(call(twin, LOGITS, TARGETS), before)
    weigh(twin)
    assert torch.equal(call(loss, LOGITS, TARGETS), before)


@pytest.mark.parametrize("name", NAMES)
def test_a_state_from_after_reweighting_loads_into_a_new_loss(name: str) -> None:
    weighted = weigh(built(name))
    result = built(name).load_state_dict(weighted.state_dict())
    assert not result.missing_keys
    assert not result.unexpected_keys


def test_buffers_follow_the_module(loss: losses.Loss) -> None:
    weigh(loss).to(torch.float64).to("meta")
    buffers = dict(loss.named_buffers())
    assert all(buffer.device.type == "meta" for buffer in buffers.values())
    assert "weight" in buffers or not loss.takes_weight


def test_the_progress_is_taken(loss: losses.Loss) -> None:
    loss.set_progress(9, 10)
    assert torch.isfinite(call(loss, LOGITS, TARGETS))


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_predictions_are_probabilities(loss: losses.Loss, scale: float) -> None:
    probabilities = loss.predict(LOGITS * scale)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(6))
    assert (probabilities >= 0).all()


def test_predictions_rank_as_the_logits(loss: losses.Loss) -> None:
    logits = LOGITS.double()  # a sharp softmax underflows in float32
    assert torch.equal(loss.predict(logits).argsort(1), logits.argsort(1))


def test_predictions_of_half_precision_are_float32(loss: losses.Loss) -> None:
    assert loss.predict(LOGITS.half()).dtype == torch.float32
