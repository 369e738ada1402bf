"""Softmax focal loss against a slow loop, cross-entropy and its closed-form gradient."""

import math
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import one_hot

from losses.cross_entropy import cross_entropy_loss
from losses.softmax_focal import SoftmaxFocal, softmax_focal_loss

GAMMAS = [0.0, 0.3, 0.5, 1.0, 2.0, 5.0]
ALPHA = torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64)
WEIGHT = torch.tensor([1, 2, 3, 4], dtype=torch.float64)


def batch(seed: int = 0, size: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(size, 4, generator=generator, dtype=torch.float64)
    return logits, torch.randint(4, (size,), generator=generator)


def slow_focal(logits: Tensor, targets: Tensor, factor: Tensor, gamma: float) -> list[float]:
    """-sum_c t_c f_c (1 - p_c)^gamma log p_c of each sample, in plain Python."""
    values = []
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        total = sum(math.exp(x) for x in row)
        p = [math.exp(x) / total for x in row]
        terms = zip(target, factor.tolist(), p, strict=True)
        values.append(-sum(t * f * (1 - q) ** gamma * math.log(q) for t, f, q in terms))
    return values


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("kind", ["labels", "soft"])
def test_it_follows_its_formula(gamma: float, kind: str) -> None:
    logits, labels = batch()
    one_hot = torch.nn.functional.one_hot(labels, 4).double()
    probabilities = batch(seed=1)[0].softmax(1) if kind == "soft" else one_hot
    values = softmax_focal_loss(
        logits,
        probabilities if kind == "soft" else labels,
        alpha=ALPHA,
        gamma=gamma,
        weight=WEIGHT,
        reduction="none",
    )
    expected = slow_focal(logits, probabilities, ALPHA * WEIGHT, gamma)
    assert values.tolist() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("kind", ["labels", "soft"])
@pytest.mark.parametrize("weight", [None, WEIGHT])
@pytest.mark.parametrize("normalize", ["samples", "weights"])
def test_gamma_zero_is_cross_entropy_bit_for_bit(
    kind: str, weight: Tensor | None, normalize: Literal["samples", "weights"]
) -> None:
    logits, targets = batch(size=50)
    targets = batch(seed=1, size=50)[0].softmax(1) if kind == "soft" else targets
    focal, plain = (logits.float().requires_grad_() for _ in range(2))
    options = {"weight": weight, "normalize": normalize}
    value = softmax_focal_loss(focal, targets, gamma=0.0, **options)
    expected = cross_entropy_loss(plain, targets, **options)
    value.backward()
    expected.backward()
    assert torch.equal(value, expected)
    assert torch.equal(focal.grad, plain.grad)


@given(gamma=st.floats(0, 5), seed=st.integers(0, 1000))
def test_the_gradient_is_the_cross_entropys_times_a_known_factor(gamma: float, seed: int) -> None:
    logits, targets = batch(seed)
    focal, plain = (logits.clone().requires_grad_() for _ in range(2))
    softmax_focal_loss(focal, targets, gamma=gamma, reduction="sum").backward()
    ce = cross_entropy_loss(plain, targets, reduction="none")
    ce.sum().backward()
    u = 1 - torch.exp(-ce.detach())
    factor = u**gamma * (1 + gamma * (1 - u) * ce.detach() / u)
    torch.testing.assert_close(focal.grad, factor[:, None] * plain.grad, rtol=1e-7, atol=1e-12)
    assert (factor <= 1 + gamma).all()


@given(order=st.permutations(range(4)), gamma=st.sampled_from(GAMMAS))
def test_the_order_of_the_classes_does_not_matter(order: list[int], gamma: float) -> None:
    logits, targets = batch()
    inverse = torch.tensor(order).argsort()
    value = softmax_focal_loss(logits, targets, gamma=gamma, alpha=ALPHA, weight=WEIGHT)
    permuted = softmax_focal_loss(
        logits[:, order], inverse[targets], gamma=gamma, alpha=ALPHA[order], weight=WEIGHT[order]
    )
    torch.testing.assert_close(value, permuted)


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("kind", ["labels", "soft"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_saturated_samples_have_finite_values_and_gradients(
    gamma: float, kind: str, dtype: torch.dtype
) -> None:
    sizes = torch.tensor([0.0, 8.0, 17.0, 50.0, 100.0, 1e4])
    logits = torch.zeros(12, 3, dtype=dtype)
    logits[:, 0] = torch.cat((sizes, -sizes)).to(dtype)
    logits.requires_grad_()
    labels = torch.zeros(12, dtype=torch.int64)
    targets = torch.nn.functional.one_hot(labels, 3).float() if kind == "soft" else labels
    values = softmax_focal_loss(logits, targets, gamma=gamma, reduction="none")
    values.sum().backward()
    assert torch.isfinite(values).all()
    assert torch.isfinite(logits.grad).all()


def test_the_worst_mistakes_keep_their_gradient() -> None:
    logits = torch.tensor([[-1e4, 0.0]], requires_grad=True)
    softmax_focal_loss(logits, torch.tensor([0]), gamma=2.0).backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[-1.0, 1.0]]))


@pytest.mark.parametrize("gamma", [0.3, 0.5, 1.5])
def test_the_second_derivative_of_a_saturated_sample_is_finite(gamma: float) -> None:
    logits = torch.tensor([[40.0, 0.0], [0.0, 40.0]], requires_grad=True)
    value = softmax_focal_loss(logits, torch.tensor([0, 0]), gamma=gamma)
    (slope,) = torch.autograd.grad(value, logits, create_graph=True)
    (bend,) = torch.autograd.grad(slope.square().sum(), logits)
    assert torch.isfinite(bend).all()


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_first_and_second_derivatives_are_right(gamma: float) -> None:
    logits, targets = batch()
    logits.requires_grad_()
    soft = batch(seed=1)[0].softmax(1)

    def both(x: Tensor) -> Tensor:
        hard = softmax_focal_loss(x, targets, gamma=gamma, alpha=ALPHA)
        return hard + softmax_focal_loss(x, soft, gamma=gamma, weight=WEIGHT)

    assert torch.autograd.gradcheck(both, logits)
    assert torch.autograd.gradgradcheck(both, logits)


def test_the_modulator_reads_the_unweighted_probability() -> None:
    logits, targets = torch.zeros(1, 2), torch.tensor([0])
    value = softmax_focal_loss(logits, targets, gamma=1.0, weight=torch.tensor([3.0, 1.0]))
    assert math.isclose(value.item(), 3 * 0.5 * math.log(2), rel_tol=1e-6)  # not (1 - 0.5^3)


def test_the_weighted_probability_is_read_off_the_weighted_cross_entropy() -> None:
    """(1 - p^w)^gamma (-w log p), which LDAM-DRW's code calls focal loss."""
    logits, labels = batch()
    ce = cross_entropy_loss(logits, labels, weight=WEIGHT, reduction="none")
    expected = (1 - torch.exp(-ce)) ** 1.5 * ce
    keys = {"gamma": 1.5, "weight": WEIGHT, "probability": "weighted", "reduction": "none"}
    found = softmax_focal_loss(logits, labels, **keys)  # type: ignore[arg-type]
    torch.testing.assert_close(found, expected)
    spread = one_hot(labels, 4).double()
    torch.testing.assert_close(softmax_focal_loss(logits, spread, **keys), expected)  # type: ignore[arg-type]
    plain = softmax_focal_loss(logits, labels, gamma=1.5, weight=WEIGHT, reduction="none")
    assert not torch.allclose(found, plain, rtol=0.01)


def test_the_scale_multiplies_the_loss_as_ib_losss_code_does() -> None:
    logits, labels = batch()
    found = softmax_focal_loss(logits, labels, gamma=1.0, scale=10.0)
    torch.testing.assert_close(found, 10 * softmax_focal_loss(logits, labels, gamma=1.0))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("soft", [False, True])
def test_smoothed_labels_are_soft_targets_with_the_weight_of_each_class(
    gamma: float, *, soft: bool
) -> None:
    logits, labels = batch()
    given = batch(seed=1)[0].softmax(1) if soft else one_hot(labels, 4).double()
    keys = {"gamma": gamma, "alpha": ALPHA, "weight": WEIGHT, "reduction": "none"}
    found = softmax_focal_loss(
        logits,
        given if soft else labels,
        label_smoothing=0.2,
        smoothing_weight="class",
        **keys,  # type: ignore[arg-type]
    )
    expected = softmax_focal_loss(logits, 0.8 * given + 0.2 / 4, **keys)  # type: ignore[arg-type]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("probability", ["model", "weighted"])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_the_even_part_of_a_smoothed_label_has_the_alpha_and_the_weight_of_the_sample(
    gamma: float, probability: str, *, soft: bool
) -> None:
    logits, labels = batch()
    targets = batch(seed=1)[0].softmax(1) if soft else one_hot(labels, 4).double()
    expected = []
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        total = sum(math.exp(x) for x in row)
        p = [math.exp(x) / total for x in row]

        def focal(c: int, w: float, p: list[float] = p) -> float:
            power = w if probability == "weighted" else 1.0
            return float(-((1 - p[c] ** power) ** gamma) * math.log(p[c]))

        weights, alphas = WEIGHT.tolist(), ALPHA.tolist()
        factor = sum(t * a * w for t, a, w in zip(target, alphas, weights, strict=True))
        weight = sum(t * w for t, w in zip(target, weights, strict=True))
        own = sum(t * alphas[c] * weights[c] * focal(c, weights[c]) for c, t in enumerate(target))
        expected.append(0.8 * own + 0.2 * factor * sum(focal(c, weight) for c in range(4)) / 4)
    found = softmax_focal_loss(
        logits,
        targets if soft else labels,
        gamma=gamma,
        alpha=ALPHA,
        weight=WEIGHT,
        probability=probability,  # type: ignore[arg-type]
        label_smoothing=0.2,
        reduction="none",
    )
    assert found.tolist() == pytest.approx(expected)


def test_smoothed_labels_at_gamma_zero_are_the_cross_entropys_bit_for_bit() -> None:
    logits, labels = batch()
    keys = {"weight": WEIGHT, "normalize": "weights", "label_smoothing": 0.1}
    found = softmax_focal_loss(logits, labels, gamma=0, **keys)  # type: ignore[arg-type]
    assert found == cross_entropy_loss(logits, labels, **keys)  # type: ignore[arg-type]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_pixels_of_label_255_are_ignored_in_segmentation(smoothing: float) -> None:
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(2, 4, 3, 5, generator=generator, dtype=torch.float64)
    targets = torch.randint(4, (2, 3, 5), generator=generator)
    targets[0, 1:] = 255
    keys = {"alpha": ALPHA, "gamma": 1.5, "label_smoothing": smoothing}
    found = softmax_focal_loss(logits, targets, ignore_index=255, **keys)  # type: ignore[arg-type]
    kept = targets != 255
    alone = softmax_focal_loss(logits.movedim(1, -1)[kept], targets[kept], **keys)  # type: ignore[arg-type]
    torch.testing.assert_close(found, alone)


def test_alpha_is_a_factor_and_no_part_of_the_normaliser() -> None:
    logits, targets = batch()
    plain = softmax_focal_loss(logits, targets, weight=WEIGHT, normalize="weights")
    doubled = softmax_focal_loss(
        logits, targets, alpha=torch.full((4,), 2.0), weight=WEIGHT, normalize="weights"
    )
    torch.testing.assert_close(doubled, 2 * plain)


def test_another_ignore_index_is_respected() -> None:
    logits, _ = batch(size=3)
    value = softmax_focal_loss(logits, torch.tensor([0, 3, 3]), ignore_index=3)
    torch.testing.assert_close(value, softmax_focal_loss(logits[:1], torch.tensor([0])))


def test_compiled_saturated_samples_stay_finite() -> None:
    torch.compiler.reset()
    compiled = torch.compile(softmax_focal_loss, fullgraph=True, backend="aot_eager")
    logits = torch.tensor([[40.0, 0.0], [0.0, 40.0]], requires_grad=True)
    value = compiled(logits, torch.tensor([0, 0]), gamma=0.5)
    value.backward()
    assert math.isclose(value.item(), 20.0)
    assert torch.isfinite(logits.grad).all()


def test_the_component_passes_its_keys_and_its_weight_on() -> None:
    logits, targets = batch()
    keys = {
        "gamma": 0.7,
        "scale": 10.0,
        "probability": "weighted",
        "normalize": "weights",
        "label_smoothing": 0.1,
    }
    loss = SoftmaxFocal(4, alpha=tuple(ALPHA.tolist()), **keys)  # type: ignore[arg-type]
    loss.set_weight(WEIGHT)
    expected = softmax_focal_loss(logits, targets, alpha=ALPHA, weight=WEIGHT, **keys)  # type: ignore[arg-type]
    torch.testing.assert_close(loss(logits, targets), expected)


@pytest.mark.parametrize(
    ("alpha", "given"), [(torch.tensor(0.25), "a single number"), (torch.ones(3), "3$")]
)
def test_alpha_must_have_a_number_for_every_class(alpha: Tensor, given: str) -> None:
    logits, targets = batch()
    with pytest.raises(
        ValueError, match=f"alpha must be 4 numbers, one for each class, not {given}"
    ):
        softmax_focal_loss(logits, targets, alpha=alpha)


@pytest.mark.parametrize("alpha", [[1.0, -1.0], [1.0, math.nan]])
def test_alpha_that_is_no_factor_is_refused(alpha: list[float]) -> None:
    with pytest.raises(ValueError, match="alpha must be finite numbers"):
        SoftmaxFocal(2, alpha=tuple(alpha))


def test_a_component_with_too_few_factors_is_refused_when_it_is_made() -> None:
    with pytest.raises(ValueError, match="alpha must be 4 numbers, one for each class, not 2"):
        SoftmaxFocal(4, alpha=(1.0, 2.0))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"probability": "own"}, "probability must be 'model' or 'weighted'"),
        ({"label_smoothing": 1.5}, "label_smoothing must lie in 0 to 1"),
        ({"smoothing_weight": "classes"}, "smoothing_weight must be 'sample' or 'class'"),
    ],
)
def test_an_unknown_option_is_refused(keys: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        softmax_focal_loss(*batch(), **keys)  # type: ignore[arg-type]


@pytest.mark.parametrize("gamma", [-0.5, math.nan])
def test_gamma_below_zero_is_refused(gamma: float) -> None:
    with pytest.raises(ValueError, match="gamma must be at least 0"):
        softmax_focal_loss(*batch(), gamma=gamma)


@pytest.mark.parametrize("kind", ["labels", "soft"])
def test_without_weights_smoothing_by_class_has_the_bits_of_smoothing_by_sample(kind: str) -> None:
    """A table trains rows once that differ in a key without effect."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(32, 10, generator=generator)
    targets = torch.randint(10, (32,), generator=generator)
    if kind == "soft":
        targets = torch.softmax(torch.randn(32, 10, generator=generator), dim=1)
    found = []
    for smoothing_weight in ("sample", "class"):
        given = logits.clone().requires_grad_()
        value = softmax_focal_loss(
            given, targets, label_smoothing=0.1, smoothing_weight=smoothing_weight
        )
        value.backward()
        found.append((value.detach(), given.grad))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
