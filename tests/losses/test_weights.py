"""Class weights."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from losses import class_weights
from losses.weights import names

SCHEMES = sorted(set(names()) - {"explicit"})
counts_lists = st.lists(st.integers(1, 10**7), min_size=2, max_size=20)


def assert_weights(actual: torch.Tensor | None, expected: list[float], rtol: float = 1e-12) -> None:
    assert actual is not None
    torch.testing.assert_close(
        actual, torch.tensor(expected, dtype=torch.float64), rtol=rtol, atol=0
    )


def test_inverse_weights_by_hand() -> None:
    assert_weights(class_weights([100, 200, 50], scheme="inverse"), [6 / 7, 3 / 7, 12 / 7])


def test_explicit_weights_are_taken_as_they_are_but_for_classes_without_images() -> None:
    weights = class_weights([100, 0, 50], scheme="explicit", weights=[0.5, 2.0, 3.0])
    assert_weights(weights, [0.5, 0.0, 3.0])


@pytest.mark.parametrize("weights", [None, [1.0, 2.0], [1.0, 2.0, -3.0], [1.0, 2.0, math.nan]])
def test_explicit_weights_that_are_none_are_refused(weights: list[float] | None) -> None:
    with pytest.raises(ValueError, match="weights must be"):
        class_weights([100, 200, 50], scheme="explicit", weights=weights)


def test_an_explicit_weight_of_0_for_a_class_with_images_is_refused() -> None:
    with pytest.raises(ValueError, match=r"above 0 .*: class 2 has 50 and a weight of 0"):
        class_weights([100, 200, 50], scheme="explicit", weights=[1.0, 2.0, 0.0])


def test_effective_number_weights_as_every_public_code_agrees() -> None:
    weights = class_weights([100, 200, 50], scheme="effective_number", beta=0.999)
    assert_weights(weights, [0.863012, 0.453074, 1.683914], rtol=1e-6)


@pytest.mark.parametrize("beta", [1e-300, 0.1, 0.9, 0.9999, 1 - 1e-12, math.nextafter(1, 0)])
def test_effective_number_weights_are_exact_for_any_beta(beta: float) -> None:
    # In floating point 1 - beta^n cancels as beta nears 1; the geometric sum is the same number.
    powers = [Fraction(beta) ** k for k in range(60)]
    raw = [float(1 / sum(powers[:n])) for n in (60, 2, 1)]
    weights = class_weights([60, 2, 1], scheme="effective_number", beta=beta)
    assert_weights(weights, [3 * value / sum(raw) for value in raw])


def test_beta_of_zero_is_no_weighting() -> None:
    weights = class_weights([900, 30, 1], scheme="effective_number", beta=0.0)
    assert_weights(weights, [1.0, 1.0, 1.0])


def test_beta_of_one_is_the_limit_of_inverse_weights() -> None:
    counts = [900, 30, 1]
    inverse = class_weights(counts, scheme="inverse")
    assert inverse is not None
    limit = class_weights(counts, scheme="effective_number", beta=1.0)
    assert_weights(limit, inverse.tolist())
    near = class_weights(counts, scheme="effective_number", beta=math.nextafter(1, 0))
    assert_weights(near, inverse.tolist())


def test_square_root_weights_by_hand() -> None:
    assert_weights(class_weights([1, 4, 16], scheme="inverse_sqrt"), [12 / 7, 6 / 7, 3 / 7])


@pytest.mark.parametrize("power", [-1.0, 0.0, 0.25, 2.0])
def test_power_weights_follow_their_formula(power: float) -> None:
    counts = [500, 70, 3]
    raw = [n**-power for n in counts]
    expected = [3 * value / sum(raw) for value in raw]
    assert_weights(class_weights(counts, scheme="power", power=power), expected)


def test_a_huge_power_does_not_overflow() -> None:
    assert_weights(class_weights([5000, 50, 2], scheme="power", power=1e4), [0.0, 0.0, 3.0])


def test_no_scheme_is_no_weights() -> None:
    assert class_weights([3, 2], scheme="none") is None


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_empty_class_weighs_nothing_and_leaves_the_others_alone(scheme: str) -> None:
    others = class_weights([100, 20, 3], scheme=scheme)
    assert others is not None
    head, middle, tail = others.tolist()
    assert_weights(class_weights([100, 0, 20, 3], scheme=scheme), [head, 0.0, middle, tail])


@given(counts=counts_lists, scheme=st.sampled_from(SCHEMES))
def test_weights_sum_to_the_number_of_classes_and_never_favour_the_larger_class(
    counts: list[int], scheme: str
) -> None:
    weights = class_weights(counts, scheme=scheme)
    assert weights is not None
    assert math.isclose(weights.sum().item(), len(counts), rel_tol=1e-9)
    by_count = weights[torch.tensor(counts).argsort()]
    assert (by_count.diff() <= 1e-12 * by_count[:-1]).all()


@pytest.mark.parametrize(
    ("counts", "message"),
    [([0, 0], "all 0"), ([3, -1], "not negative"), ([[3]], "not shape"), ([], "all 0")],
)
def test_counts_that_are_no_counts_are_refused(counts: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        class_weights(counts, scheme="inverse")


@pytest.mark.parametrize("beta", [-0.1, 1.1, math.nan])
def test_beta_outside_zero_to_one_is_refused(beta: float) -> None:
    with pytest.raises(ValueError, match="beta must lie in 0 to 1"):
        class_weights([3, 2], scheme="effective_number", beta=beta)


def test_an_infinite_power_is_refused() -> None:
    with pytest.raises(ValueError, match="power must be finite"):
        class_weights([3, 2], scheme="power", power=math.inf)


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match=r"scheme must be none, .*, explicit, .*not 'sqrt'"):
        class_weights([3, 2], scheme="sqrt")


@pytest.mark.parametrize(
    ("scheme", "key", "message"),
    [
        ("inverse", "beta", "scheme 'inverse' has no key 'beta': it takes none$"),
        ("effective_number", "bata", "no key 'bata': choose from beta; did you mean beta"),
        ("none", "beta", "scheme 'none' has no key 'beta'"),
    ],
)
def test_a_key_that_a_scheme_does_not_have_is_named(scheme: str, key: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        class_weights([3, 2], scheme=scheme, **{key: 0.9})


def test_a_scheme_that_is_misspelt_gets_the_nearest() -> None:
    with pytest.raises(ValueError, match="not 'effectve_number'; did you mean effective_number"):
        class_weights([3, 2], scheme="effectve_number")
