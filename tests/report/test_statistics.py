"""The paired difference on data of known effect: how often its interval holds the truth."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from engine.report import columns, statistics
from engine.report.columns import Compared
from engine.report.statistics import Difference, mean_and_std, paired_difference

Draw = Callable[[np.random.Generator, int], np.ndarray]

IMAGES = 500
"""Of the test set whose accuracies are multiples of 1 / 500."""

ZERO_MEAN: dict[str, Draw] = {
    "normal": lambda rng, n: rng.normal(0, 0.01, n),
    "heavy-tailed": lambda rng, n: 0.01 * rng.standard_t(3, n),
    "uniform": lambda rng, n: rng.uniform(-0.01, 0.01, n),
    "two accuracies": lambda rng, n: (
        (rng.binomial(IMAGES, 0.85, n) - rng.binomial(IMAGES, 0.85, n)) / IMAGES
    ),
    "a few images": lambda rng, n: np.round(rng.normal(0, 1.5, n)) / IMAGES,
    "one image or none": lambda rng, n: rng.choice([-1, 0, 0, 1], n) / IMAGES,
}
"""Differences without effect between methods whose runs could be exchanged: symmetric ones."""

SKEWED: dict[str, Draw] = {
    "exponential": lambda rng, n: 0.01 * (rng.exponential(1, n) - 1),
    "log-normal": lambda rng, n: 0.01 * (rng.lognormal(0, 0.8, n) - math.exp(0.32)),
}


def outcomes(draw: Draw, *, n: int, trials: int) -> tuple[float, float]:
    """Fractions of trials whose interval holds 0, the true mean, and that claim a difference.

    A trial without an interval claims nothing and counts as holding.
    """
    rng = np.random.default_rng(11)
    found = [paired_difference(draw(rng, n).tolist(), [0.0] * n) for _ in range(trials)]
    holds = [d.low is None or d.high is None or d.low <= 0 <= d.high for d in found]
    return float(np.mean(holds)), float(np.mean([d.is_distinguishable for d in found]))


def test_the_interval_keeps_its_promise_for_five_normal_differences() -> None:
    covered, claimed = outcomes(ZERO_MEAN["normal"], n=5, trials=2000)
    assert covered >= 0.95
    assert claimed <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("n", [5, 10])
@pytest.mark.parametrize("kind", ZERO_MEAN)
def test_a_method_without_effect_is_bold_no_more_often_than_the_level_says(
    kind: str, n: int
) -> None:
    covered, claimed = outcomes(ZERO_MEAN[kind], n=n, trials=4000)
    # Two standard errors of a fraction of 0.05 over 4,000 trials are 0.007.
    assert covered >= 0.95 - 0.007
    assert claimed <= 0.05 + 0.007


@pytest.mark.slow
@pytest.mark.parametrize("n", [5, 10])
@pytest.mark.parametrize(("kind", "least"), [("exponential", 0.92), ("log-normal", 0.91)])
def test_skewed_differences_cost_little_coverage_and_less_than_with_students_t(
    kind: str, least: float, n: int
) -> None:
    covered, _ = outcomes(SKEWED[kind], n=n, trials=3000)
    rng = np.random.default_rng(11)
    drawn = [SKEWED[kind](rng, n) for _ in range(3000)]
    by_student = np.mean([stats.ttest_1samp(x, 0).pvalue >= 0.05 for x in drawn])
    assert covered >= least
    assert covered > by_student + 0.02


@pytest.mark.slow
@pytest.mark.parametrize(("n", "effect", "least"), [(5, 0.03, 0.85), (10, 0.015, 0.9)])
def test_an_effect_of_a_few_standard_deviations_is_found(
    n: int, effect: float, least: float
) -> None:
    _, claimed = outcomes(lambda rng, n: rng.normal(effect, 0.01, n), n=n, trials=2000)
    assert claimed >= least


def by_hand(x: np.ndarray) -> tuple[float, float]:
    """Bounds at 95 %, from all n^n ordered resamples one by one and SciPy's interval of t."""
    n, mean, error = len(x), x.mean(), x.std(ddof=1) / math.sqrt(len(x))
    ratios = []
    for rows in itertools.product(range(n), repeat=n):
        drawn = x[list(rows)]
        ratios.append((drawn.mean() - mean) / max(drawn.std(ddof=1) / math.sqrt(n), 0.1 * error))
    ratios.sort()
    # The smallest value at or above which 97.5 % of resamples lie on its side.
    upper, lower = ratios[math.ceil(0.975 * n**n) - 1], ratios[math.floor(0.025 * n**n)]
    student = stats.t.interval(0.95, n - 1, loc=mean, scale=error)
    return min(student[0], mean - upper * error), max(student[1], mean - lower * error)


@pytest.mark.parametrize("n", [3, 4, 5])
def test_the_interval_is_the_one_of_every_resample_taken_one_by_one(n: int) -> None:
    x = np.random.default_rng(n).exponential(0.01, n)
    found = paired_difference(x.tolist(), [0.0] * n)
    assert (found.low, found.high) == pytest.approx(by_hand(x), rel=1e-9)


values = st.lists(st.integers(-50, 50), min_size=3, max_size=12)


@given(values)
def test_exchanging_the_methods_turns_the_interval_round(counts: list[int]) -> None:
    ours, baseline = [k / IMAGES for k in counts], [0.0] * len(counts)
    one, other = paired_difference(ours, baseline), paired_difference(baseline, ours)
    assert one.mean == -other.mean
    if one.low is None or other.high is None:
        assert one.low == other.high
    else:
        assert one.low == pytest.approx(-other.high, abs=1e-12)


@given(values)
def test_the_order_of_pairs_and_the_unit_do_not_matter(counts: list[int]) -> None:
    # Below nine differences, where every resample is counted.
    ours, baseline = [float(k) for k in counts[:8]], [0.0] * len(counts[:8])
    one = paired_difference(ours, baseline)
    other = paired_difference([v / 100 for v in reversed(ours)], baseline)
    if one.low is None or one.high is None:
        assert other.low is None
    else:
        expected = pytest.approx((one.low / 100, one.high / 100), abs=1e-9)
        assert (other.low, other.high) == expected


def centred(rng: np.random.Generator, n: int) -> tuple[np.ndarray, float]:
    """Differences (n,) of mean 0, and how far Student's interval reaches on either side of it."""
    x = rng.normal(size=n)
    low, high = stats.t.interval(0.95, n - 1, scale=x.std(ddof=1) / math.sqrt(n))
    return x - x.mean(), (high - low) / 2


def may_differ(ours: list[float], baseline: list[float]) -> bool:
    (found,) = columns.may_differ([Compared(ours, baseline)])
    return found


@pytest.mark.parametrize("n", range(5, 13))
@pytest.mark.parametrize("factor", [0.98, 1.02, 1.1, 1.5])
def test_the_cheap_look_is_the_interval_wherever_student_reaches_farther(
    factor: float, n: int
) -> None:
    rng, baseline, num_settled = np.random.default_rng(n), [0.0] * n, 0
    for sign in [1, -1] * 5:
        x, reach = centred(rng, n)
        ours = (x + sign * factor * reach).tolist()
        found = paired_difference(ours, baseline)
        assert found.low is not None and found.high is not None
        assert may_differ(ours, baseline) == (factor > 1)
        towards_zero = found.mean - found.low if sign > 0 else found.high - found.mean
        if towards_zero == pytest.approx(reach, rel=1e-9):
            num_settled += 1
            assert may_differ(ours, baseline) == found.is_distinguishable
    assert num_settled > 0


@pytest.mark.parametrize("n", [5, 6, 7])
def test_the_cheap_look_rules_out_nothing_distinguishable_within_bits_of_the_edge(n: int) -> None:
    rng, baseline = np.random.default_rng(0), [0.0] * n
    for bits in [-1, 0, 1, 2] * 100:
        x, reach = centred(rng, n)
        ours = (x + reach * (1 + bits * np.finfo(float).eps)).tolist()
        found = paired_difference(ours, baseline)
        assert may_differ(ours, baseline) or not found.is_distinguishable


def test_equal_calls_give_equal_answers() -> None:
    ours = np.random.default_rng(3).normal(size=15).tolist()
    assert paired_difference(ours, [0.0] * 15) == paired_difference(ours, [0.0] * 15)


@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_pairs_have_a_mean_and_no_interval(n: int) -> None:
    found = paired_difference([0.75, 0.625][:n], [0.5, 0.5][:n])
    assert found == Difference(mean=[0.25, 0.1875][n - 1], low=None, high=None, n=n, pairs=n)
    assert not found.is_distinguishable


@pytest.mark.parametrize("n", [3, 4])
def test_fewer_than_five_pairs_claim_nothing_however_far_apart(n: int) -> None:
    found = paired_difference([0.9, 0.901, 0.902, 0.899][:n], [0.1] * n)
    assert found.low is not None and found.low > 0
    assert not found.is_distinguishable


def test_differences_that_are_all_equal_determine_no_interval() -> None:
    # 0.3 - 0.1 and 0.8 - 0.6 differ in the last bit.
    found = paired_difference([0.3, 0.8, 0.3, 0.8, 0.3], [0.1, 0.6, 0.1, 0.6, 0.1])
    assert found.mean == pytest.approx(0.2)
    assert found.low is None and found.high is None
    assert not found.is_distinguishable


def test_four_equal_differences_of_five_still_give_a_finite_interval() -> None:
    found = paired_difference([0.1, 0.1, 0.1, 0.1, 0.102], [0.0] * 5)
    assert found.low is not None and found.high is not None
    assert 0.095 < found.low < 0.1 < found.high < 0.11
    assert found.is_distinguishable


def shared_luck(rng: np.random.Generator, *, clusters: int, pairs: int) -> np.ndarray:
    """Differences (clusters * pairs,) of mean 0 whose subsets matter as much as their seeds."""
    subset = rng.normal(0, 0.01, (clusters, 1))
    return (subset + rng.normal(0, 0.01, (clusters, pairs))).ravel()


def test_pairs_of_one_subset_count_once() -> None:
    ours, subset = [0.1, 0.3, 0.5, 0.7, 0.9, 1.1], [0, 0, 1, 1, 2, 2]
    found = paired_difference(ours, [0.0] * 6, clusters=subset)
    averaged = paired_difference([0.2, 0.6, 1.0], [0.0] * 3)
    assert (found.n, found.pairs) == (3, 6)
    assert (found.low, found.high) == pytest.approx((averaged.low, averaged.high))


@pytest.mark.slow
def test_clusters_keep_the_promise_that_pairs_of_shared_subsets_break() -> None:
    rng = np.random.default_rng(5)
    subset = np.repeat(np.arange(5), 5).tolist()
    claimed = {True: 0, False: 0}
    for _ in range(2000):
        ours = shared_luck(rng, clusters=5, pairs=5).tolist()
        for named in claimed:
            found = paired_difference(ours, [0.0] * 25, clusters=subset if named else None)
            claimed[named] += found.is_distinguishable
    assert claimed[True] / 2000 <= 0.05
    assert claimed[False] / 2000 > 0.25


@pytest.mark.parametrize(
    ("ours", "baseline", "options", "says"),
    [
        ([1.0], [1.0, 2.0], {}, "1 values are paired with 2"),
        ([], [], {}, "there is no value"),
        ([float("nan")], [1.0], {}, "ours: a value is not finite"),
        ([1.0], [float("inf")], {}, "baseline: a value is not finite"),
        ([1.0], [1.0], {"level": 1.0}, "level must lie between 0 and 1, not 1.0"),
        ([1.0], [1.0], {"clusters": [1, 2]}, "1 pairs have 2 clusters"),
    ],
)
def test_what_cannot_be_compared_is_an_error(
    ours: list[float], baseline: list[float], options: dict, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        paired_difference(ours, baseline, **options)


def test_a_single_value_has_no_standard_deviation() -> None:
    assert mean_and_std([0.5]) == (0.5, None, 1)
    assert mean_and_std([1.0, 2.0, 4.0]).std == pytest.approx(math.sqrt(7 / 3))
    with pytest.raises(ValueError, match="there is no value"):
        mean_and_std([])


@pytest.mark.parametrize("level", [0.025, 0.5, 0.95, 0.975, 0.995])
@pytest.mark.parametrize("shades", [3, 10**9])  # with ties, and without
def test_quantiles_of_drawn_resamples_are_those_of_numpy(level: float, shades: int) -> None:
    values = np.random.default_rng(0).integers(shades, size=statistics.DRAWN) / shades
    weights = np.full(statistics.DRAWN, 1 / statistics.DRAWN)
    expected = np.quantile(values, level, weights=weights, method="inverted_cdf")
    assert statistics._quantile(values, weights, level=level) == expected
