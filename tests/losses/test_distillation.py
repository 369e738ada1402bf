"""Distillation: new classes by cross-entropy, old ones by what a teacher says of them."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import losses
from losses.distillation import Distillation, distillation_loss

LOGITS = torch.tensor([[2, 1, 0.1, -1], [1, 3, 0.1, -0.5], [-1, -0.5, 2, 0.5]], dtype=torch.float64)
TEACHER = torch.tensor([[1, 0, 9, 9], [0, 2, -9, 0], [0.5, -0.5, 0, 1]], dtype=torch.float64)
TARGETS = torch.tensor([2, 3, 2])
OLD: dict[str, Any] = {"teacher_logits": TEACHER, "old_classes": [0, 1]}


def softmax(values: list[float]) -> list[float]:
    masses = [math.exp(v - max(values)) for v in values]
    return [m / sum(masses) for m in masses]


def by_hand(
    logits: Tensor, teacher: Tensor, targets: Tensor, *, old: list[int], new: list[int], **keys: Any
) -> list[float]:
    """One sample after the other, in Python's floats."""
    t = keys.get("temperature", 2.0)
    t_teacher = keys.get("teacher_temperature") or t
    found = []
    for x, z, y in zip(logits.tolist(), teacher.tolist(), targets.tolist(), strict=True):
        ce = -math.log(softmax([x[c] for c in new])[new.index(y)])
        p = softmax([x[c] / t for c in old])
        q = softmax([z[c] / t_teacher for c in old])
        pairs = list(zip(p, q, strict=True))
        if keys.get("divergence") == "kl":
            kept = t * t * sum(b * math.log(b / a) for a, b in pairs)
        else:
            tasks = [b * math.log(a) + (1 - b) * math.log(1 - a) for a, b in pairs]
            kept = -sum(tasks) / len(tasks)
        found.append(ce + keys.get("distill_weight", 10.0) * kept)
    return found


def test_the_worked_example_to_all_digits() -> None:
    cross_entropy = distillation_loss(LOGITS, TARGETS, **OLD, distill_weight=0)
    total = distillation_loss(LOGITS, TARGETS, **OLD)
    assert cross_entropy.item() == pytest.approx(0.508745518, abs=5e-10)
    assert (total - cross_entropy).item() / 10 == pytest.approx(0.658868227, abs=5e-10)
    assert total.item() == pytest.approx(7.097427785, abs=5e-10)


def test_the_worked_example_of_the_common_snippet() -> None:
    total = distillation_loss(LOGITS, TARGETS, **OLD, teacher_temperature=1.0)
    cross_entropy = distillation_loss(LOGITS, TARGETS, **OLD, distill_weight=0)
    assert (total - cross_entropy).item() / 10 == pytest.approx(0.599905456, abs=5e-10)
    assert total.item() == pytest.approx(6.507800081, abs=5e-10)


def test_the_snippet_by_the_functions_it_is_written_with() -> None:
    student = (LOGITS[:, :2] / 2).softmax(1)
    teacher = TEACHER[:, :2].softmax(1)
    expected = torch.nn.functional.cross_entropy(
        LOGITS[:, 2:], TARGETS - 2
    ) + 10 * torch.nn.functional.binary_cross_entropy(student, teacher)
    found = distillation_loss(LOGITS, TARGETS, **OLD, teacher_temperature=1.0)
    torch.testing.assert_close(found, expected)


@given(
    seed=st.integers(0, 2**32 - 1),
    temperature=st.floats(0.5, 8),
    teacher_temperature=st.none() | st.floats(0.5, 8),
    distill_weight=st.floats(0, 20),
    divergence=st.sampled_from(["binary_cross_entropy", "kl"]),
)
def test_any_batch_equals_the_loop_by_hand(seed: int, **keys: Any) -> None:
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(8, generator=generator).tolist()
    old, new = order[:3], order[3:7]  # the eighth class is of another day
    logits, teacher = (3 * torch.randn(5, 8, generator=generator).double() for _ in range(2))
    targets = torch.tensor([new[i % 4] for i in range(5)])
    found = distillation_loss(
        logits,
        targets,
        teacher_logits=teacher,
        old_classes=old,
        new_classes=new,
        reduction="none",
        **keys,
    )
    expected = by_hand(logits, teacher, targets, old=old, new=new, **keys)
    assert found.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("divergence", ["binary_cross_entropy", "kl"])
def test_a_student_that_agrees_with_its_teacher_has_no_gradient_on_old_classes(
    divergence: str,
) -> None:
    logits = LOGITS.clone().requires_grad_()
    teacher = LOGITS + torch.tensor([5.0, 5.0, -3.0, 1.0])  # a softmax forgets a common shift
    loss = distillation_loss(
        logits,
        TARGETS,
        teacher_logits=teacher,
        old_classes=[0, 1],
        divergence=divergence,  # type: ignore[arg-type]
    )
    loss.backward()
    torch.testing.assert_close(logits.grad[:, :2], torch.zeros(3, 2, dtype=torch.float64))
    assert logits.grad[:, 2:].abs().min() > 0


def test_kl_is_zero_where_student_and_teacher_agree() -> None:
    keys: dict[str, Any] = {"teacher_logits": LOGITS, "old_classes": [0, 1], "divergence": "kl"}
    agreed = distillation_loss(LOGITS, TARGETS, **keys)
    torch.testing.assert_close(agreed, distillation_loss(LOGITS, TARGETS, **OLD, distill_weight=0))


def test_the_gradient_of_kl_does_not_shrink_with_the_temperature() -> None:
    """Hinton et al. 2015: at high T it tends to (x - z) / K, for logits of mean 0."""
    student = torch.tensor([[0.3, -0.3, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[-0.1, 0.1, 0.0, 0.0]], dtype=torch.float64)
    loss = distillation_loss(
        student,
        torch.tensor([2]),
        teacher_logits=teacher,
        old_classes=[0, 1],
        divergence="kl",
        temperature=1e3,
        distill_weight=1.0,
    )
    loss.backward()
    torch.testing.assert_close(
        student.grad[0, :2], torch.tensor([0.2, -0.2]).double(), rtol=1e-4, atol=0
    )


def test_the_teacher_takes_no_gradient() -> None:
    teacher = TEACHER.clone().requires_grad_()
    logits = LOGITS.clone().requires_grad_()
    distillation_loss(logits, TARGETS, teacher_logits=teacher, old_classes=[0, 1]).backward()
    assert teacher.grad is None
    assert logits.grad is not None


def test_classes_of_another_day_take_no_part() -> None:
    logits = torch.cat([LOGITS, torch.full((3, 2), 1e4, dtype=torch.float64)], 1).requires_grad_()
    teacher = torch.cat([TEACHER, torch.full((3, 2), -1e4, dtype=torch.float64)], 1)
    loss = distillation_loss(
        logits, TARGETS, teacher_logits=teacher, old_classes=[0, 1], new_classes=[2, 3]
    )
    loss.backward()
    torch.testing.assert_close(loss, distillation_loss(LOGITS, TARGETS, **OLD))
    assert not logits.grad[:, 4:].any()


@pytest.mark.parametrize("divergence", ["binary_cross_entropy", "kl"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_value_and_gradient_are_finite_at_extreme_logits(
    dtype: torch.dtype, divergence: str
) -> None:
    extremes = torch.tensor([0.0, 50.0, -50.0, 1e4, -1e4])
    grid = torch.cartesian_prod(*[extremes] * 4)  # two old logits of student and teacher each
    new = torch.tensor([1e4, -1e4]).expand(len(grid), 2)
    logits = torch.cat([grid[:, :2], new], 1).to(dtype).requires_grad_()
    teacher = torch.cat([grid[:, 2:], new], 1).to(dtype)
    values = distillation_loss(
        logits,
        torch.full((len(grid),), 3),
        teacher_logits=teacher,
        old_classes=[0, 1],
        divergence=divergence,  # type: ignore[arg-type]
        reduction="none",
    )
    values.sum().backward()
    assert torch.isfinite(values).all()
    assert torch.isfinite(logits.grad).all()


def test_the_worst_mistake_keeps_its_slope() -> None:
    """Where torch's binary cross-entropy of rounded probabilities cuts the loss at 100."""
    logits = torch.tensor([[1e4, 0.0, 0.0, 0.0]], requires_grad=True)
    teacher = torch.tensor([[0.0, 1e4, 0.0, 0.0]])
    loss = distillation_loss(
        logits, torch.tensor([2]), teacher_logits=teacher, old_classes=[0, 1], distill_weight=1.0
    )
    loss.backward()
    assert loss.item() == pytest.approx(5e3 + math.log(2))
    torch.testing.assert_close(logits.grad[0, :2], torch.tensor([0.5, -0.5]))


def test_gradients_are_those_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    for divergence in ("binary_cross_entropy", "kl"):
        assert torch.autograd.gradcheck(
            lambda x, d=divergence: distillation_loss(
                x,
                torch.tensor([3, 4, 5, -100]),
                teacher_logits=teacher,
                old_classes=[0, 1, 2],
                divergence=d,
            ),
            logits,
        )


def test_ignored_samples_count_nowhere() -> None:
    targets = torch.tensor([2, 255, 2])
    found = distillation_loss(LOGITS, targets, **OLD, ignore_index=255)
    kept = [0, 2]
    alone = distillation_loss(
        LOGITS[kept], TARGETS[kept], teacher_logits=TEACHER[kept], old_classes=[0, 1]
    )
    torch.testing.assert_close(found, alone)


def test_a_class_weight_weighs_the_whole_sample() -> None:
    plain = distillation_loss(LOGITS, TARGETS, **OLD, reduction="none")
    weighted = distillation_loss(
        LOGITS, TARGETS, **OLD, weight=torch.tensor([9.0, 9.0, 0.5, 3.0]), reduction="none"
    )
    torch.testing.assert_close(weighted, plain * torch.tensor([0.5, 3.0, 0.5]))


def test_one_hot_targets_equal_labels_and_mixed_ones_mix_the_cross_entropy() -> None:
    one_hot = torch.nn.functional.one_hot(TARGETS, 4).double()
    torch.testing.assert_close(
        distillation_loss(LOGITS, one_hot, **OLD), distillation_loss(LOGITS, TARGETS, **OLD)
    )
    other = torch.tensor([3, 2, 3])
    mixed = 0.3 * one_hot + 0.7 * torch.nn.functional.one_hot(other, 4)
    torch.testing.assert_close(
        distillation_loss(LOGITS, mixed, **OLD),
        0.3 * distillation_loss(LOGITS, TARGETS, **OLD)
        + 0.7 * distillation_loss(LOGITS, other, **OLD),
    )


@pytest.mark.parametrize(
    "targets",
    [
        torch.tensor([0, 2, 3]),
        torch.tensor([[0.5, 0, 0.5, 0]]).expand(3, 4),
        torch.tensor([[0.001, 0, 0.5, 0.5]], dtype=torch.bfloat16).expand(3, 4),
    ],
)
def test_a_target_that_is_no_new_class_is_refused(targets: Tensor) -> None:
    with pytest.raises(ValueError, match="not among the new"):
        distillation_loss(LOGITS, targets, **OLD)


def test_a_compiled_target_that_is_no_new_class_does_not_pass_either() -> None:
    compiled = torch.compile(distillation_loss, fullgraph=True, backend="aot_eager")
    with pytest.raises((IndexError, RuntimeError), match="out of"):
        compiled(LOGITS, torch.tensor([0, 2, 3]), **OLD)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"old_classes": [0]}, "old classes must be at least 2"),
        ({"old_classes": [0, 1, 2]}, "new classes must be at least 2"),
        ({"old_classes": [0, 0]}, "different labels, 0 to 3"),
        ({"old_classes": [0, 4]}, "different labels, 0 to 3"),
        ({"old_classes": [0, 1], "divergence": "js"}, "divergence must be"),
        ({"old_classes": [0, 1], "teacher_logits": TEACHER[:, :2]}, r"must be \(3, 4\)"),
    ],
)
def test_a_call_that_makes_no_sense_is_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        distillation_loss(LOGITS, TARGETS, **{"teacher_logits": TEACHER, **keys})


def test_the_component_learns_the_classes_that_have_images() -> None:
    loss = losses.build(
        "distillation", class_counts=torch.tensor([0, 0, 5, 7, 0]), old_classes=[0, 1]
    )
    logits, teacher = (torch.cat([x, x[:, :1]], 1) for x in (LOGITS, TEACHER))
    found = loss(logits, TARGETS, teacher_logits=teacher)
    torch.testing.assert_close(found, distillation_loss(LOGITS, TARGETS, **OLD))


def test_the_component_without_old_classes_is_distillation_on_all_classes() -> None:
    loss = losses.build("distillation", class_counts=torch.tensor([5, 5, 5, 5]))
    expected = distillation_loss(
        LOGITS, TARGETS, teacher_logits=TEACHER, old_classes=range(4), new_classes=range(4)
    )
    torch.testing.assert_close(loss(LOGITS, TARGETS, teacher_logits=TEACHER), expected)


def test_the_component_says_that_it_lacks_a_teacher() -> None:
    loss = Distillation(torch.tensor([5, 5, 5, 5]), [0, 1])
    with pytest.raises(ValueError, match="needs teacher_logits"):
        loss(LOGITS, TARGETS)
