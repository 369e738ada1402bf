import itertools
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data import DataError, Imbalance
from data._imbalance import class_orders, class_sizes


def sizes(imbalance: Imbalance, *, per_class: int, num_classes: int) -> list[int]:
    available = np.full(num_classes, per_class)
    names = tuple(f"c{label}" for label in range(num_classes))
    head = per_class if imbalance.head is None else imbalance.head
    return class_sizes(imbalance, available=available, class_names=names, head=head).tolist()


# Class counts and totals that the papers' tables print, for CIFAR's 5,000 and 500 images a class.
CIFAR10_LISTS = {
    10: [5000, 3871, 2997, 2320, 1796, 1391, 1077, 834, 645, 500],
    20: [5000, 3584, 2569, 1842, 1320, 946, 678, 486, 348, 250],
    50: [5000, 3237, 2096, 1357, 878, 568, 368, 238, 154, 100],
    100: [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50],
    200: [5000, 2775, 1540, 854, 474, 263, 146, 81, 45, 25],
}
CIFAR100_TOTALS = {10: 19573, 20: 15907, 50: 12608, 100: 10847, 200: 9502}
STEP_TOTALS = {10: 27500, 20: 26250, 50: 25500, 100: 25250}


@pytest.mark.parametrize("factor", CIFAR10_LISTS)
def test_exponential_counts_of_cifar10_are_the_published_ones(factor: int) -> None:
    found = sizes(Imbalance(factor=factor), per_class=5000, num_classes=10)
    assert found == CIFAR10_LISTS[factor]


def test_cifar10_at_factor_100_has_12406_images() -> None:
    assert sum(sizes(Imbalance(factor=100), per_class=5000, num_classes=10)) == 12406


@pytest.mark.parametrize("factor", CIFAR100_TOTALS)
def test_exponential_totals_of_cifar100_are_the_published_ones(factor: int) -> None:
    found = sizes(Imbalance(factor=factor), per_class=500, num_classes=100)
    assert sum(found) == CIFAR100_TOTALS[factor]


@pytest.mark.parametrize("factor", STEP_TOTALS)
@pytest.mark.parametrize(("num_classes", "per_class"), [(10, 5000), (100, 500)])
def test_step_totals_of_cifar_are_the_published_ones(
    factor: int, num_classes: int, per_class: int
) -> None:
    found = sizes(Imbalance("step", factor=factor), per_class=per_class, num_classes=num_classes)
    assert sum(found) == STEP_TOTALS[factor]


def test_step_with_an_odd_number_of_classes_has_one_more_small_class() -> None:
    found = sizes(Imbalance("step", factor=10), per_class=100, num_classes=5)
    assert found == [100, 100, 10, 10, 10]


@given(factor=st.floats(1, 50), num_classes=st.integers(2, 40), per_class=st.integers(60, 3000))
def test_exponential_counts_fall_from_head_to_head_over_factor(
    factor: float, num_classes: int, per_class: int
) -> None:
    found = sizes(Imbalance(factor=factor), per_class=per_class, num_classes=num_classes)
    assert found[0] == per_class
    assert all(a >= b for a, b in itertools.pairwise(found))
    assert abs(found[-1] - per_class / factor) <= 1


def test_head_sets_the_largest_class() -> None:
    found = sizes(Imbalance(factor=10, head=40), per_class=100, num_classes=2)
    assert found == [40, 4]


def test_none_keeps_every_image() -> None:
    assert sizes(Imbalance("none"), per_class=7, num_classes=3) == [7, 7, 7]


def test_counts_are_taken_as_given() -> None:
    imbalance = Imbalance("counts", counts=(3, 9, 1))
    assert sizes(imbalance, per_class=9, num_classes=3) == [3, 9, 1]
    named = Imbalance("counts", counts={"c1": 9, "2": 1, "c0": 3})
    assert sizes(named, per_class=9, num_classes=3) == [3, 9, 1]


def test_shuffled_order_permutes_the_same_sizes_by_the_seed() -> None:
    in_order = sizes(Imbalance(), per_class=500, num_classes=10)
    shuffled = [
        sizes(Imbalance(order="shuffled", seed=seed), per_class=500, num_classes=10)
        for seed in range(2)
    ]
    assert sorted(shuffled[0]) == sorted(shuffled[1]) == sorted(in_order)
    assert len({tuple(order) for order in [in_order, *shuffled]}) == 3


@pytest.mark.parametrize("kind", ["exponential", "step", "pareto"])
@pytest.mark.parametrize("per_class", [10, 49, 107])
def test_too_large_a_factor_names_a_class_and_the_largest_that_works(
    kind: Literal["exponential", "step", "pareto"], per_class: int
) -> None:
    def of_factor(factor: int) -> list[int]:
        return sizes(Imbalance(kind, factor=factor), per_class=per_class, num_classes=3)

    with pytest.raises(DataError, match=r"factor=1000 .*class [12]_c[12] no image") as error:
        of_factor(1000)
    largest = int(str(error.value).split()[-1])
    assert min(of_factor(largest)) == 1
    with pytest.raises(DataError):
        of_factor(largest + 1)


def test_asking_for_more_images_than_there_are_names_the_class_and_both_numbers() -> None:
    with pytest.raises(DataError, match=r"asks for 50 .*0_c0, but there are 40.*head"):
        sizes(Imbalance(factor=10, head=50), per_class=40, num_classes=3)


def test_a_class_without_images_is_named() -> None:
    with pytest.raises(DataError, match="1_b has no training image"):
        class_sizes(Imbalance(), available=np.array([3, 0]), class_names=("a", "b"), head=0)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ((1, 2), "has 2 numbers, but there are 3 classes"),
        ((1, 0, 2), "class 1_c1 0 images"),
        ({"c0": 1, "c2": 2}, "counts: has no number for c1: give one for every class"),
        ({"c0": 1, "c3": 2}, "counts='c3' is not a class of the data set"),
    ],
)
def test_counts_that_do_not_fit_the_classes_are_refused(
    counts: tuple[int, ...] | dict[str, int], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        sizes(Imbalance("counts", counts=counts), per_class=9, num_classes=3)


def published_subset(targets: np.ndarray, counts: list[int], *, seed: int) -> list[np.ndarray]:
    """imbalance_cifar.py of kaidic/LDAM-DRW, gen_imbalanced_data, images left out."""
    np.random.seed(seed)  # noqa: NPY002 - the published code seeds the global generator
    chosen = []
    for label, count in zip(np.unique(targets), counts, strict=True):
        own = np.where(targets == label)[0]
        np.random.shuffle(own)  # noqa: NPY002
        chosen.append(own[:count])
    return chosen


@pytest.mark.parametrize("seed", [0, 7])
def test_the_cao_rule_draws_the_published_subset(seed: int) -> None:
    targets = np.random.default_rng(0).integers(0, 10, 2000)
    state = np.random.get_state()  # noqa: NPY002
    counts = [100, 80, 50, 40, 30, 20, 10, 5, 2, 1]
    expected = published_subset(targets, counts, seed=seed)
    np.random.set_state(state)  # noqa: NPY002
    positions = [np.flatnonzero(targets == label) for label in range(10)]
    orders = class_orders(Imbalance(rule="cao", seed=seed), positions)
    for order, count, published in zip(orders, counts, expected, strict=True):
        assert order[:count].tolist() == published.tolist()


def test_the_uniform_rule_orders_a_class_by_seed_and_class_alone() -> None:
    def first_class(others: list[int]) -> list[int]:
        positions = [np.arange(30), *(np.arange(n) for n in others)]
        return class_orders(Imbalance(), positions)[0].tolist()

    assert first_class([5]) == first_class([50, 60])
    assert first_class([5]) != class_orders(Imbalance(seed=1), [np.arange(30)])[0].tolist()


def test_classes_are_drawn_apart_from_each_other() -> None:
    first, second = class_orders(Imbalance(), [np.arange(30), np.arange(30)])
    assert first.tolist() != second.tolist()


@pytest.mark.parametrize("rule", ["uniform", "cao"])
def test_drawing_leaves_the_global_generator_alone(rule: str) -> None:
    before = np.random.get_state(legacy=False)["state"]["key"].tolist()  # noqa: NPY002
    orders = class_orders(Imbalance(rule=rule), [np.arange(30)])  # type: ignore[arg-type]
    assert sorted(orders[0]) == list(range(30))
    assert np.random.get_state(legacy=False)["state"]["key"].tolist() == before  # noqa: NPY002


def test_pareto_counts_are_a_power_of_the_rank_that_ends_at_head_over_factor() -> None:
    found = sizes(Imbalance("pareto", factor=100), per_class=10_000, num_classes=10)
    assert found[0] == 10_000
    assert found[-1] in (99, 100)
    # n_i = n_1 / i^2, since 10^2 = 100.
    assert found[1] in (2499, 2500)
    assert found[4] in (399, 400)


@pytest.mark.parametrize(("head_classes", "head_share"), [(0.2, 0.8), (0.1, 0.5), (0.4, 0.9)])
def test_the_head_has_the_share_of_the_images_that_is_asked_for(
    head_classes: float, head_share: float
) -> None:
    imbalance = Imbalance("head_tail", head_classes=head_classes, head_share=head_share)
    found = sizes(imbalance, per_class=9_000, num_classes=10)
    num_head = round(10 * head_classes)
    assert found[:num_head] == [9_000] * num_head
    assert len(set(found[num_head:])) == 1
    assert sum(found[:num_head]) / sum(found) == pytest.approx(head_share, abs=2e-3)


def test_a_head_that_holds_too_much_names_a_class_without_images() -> None:
    with pytest.raises(DataError, match=r"head_share=0\.99 leaves class 2_c2 no image: .* of 10 "):
        sizes(Imbalance("head_tail", head_share=0.99), per_class=10, num_classes=10)


def test_a_share_below_that_of_equal_classes_is_refused_and_theirs_is_taken() -> None:
    for share in (0.1, 0.49):
        below = Imbalance("head_tail", head_classes=0.5, head_share=share)
        with pytest.raises(DataError, match=rf"head_share={share} is less than 2 of 4 .*\(0\.5\)"):
            sizes(below, per_class=10, num_classes=4)
    equal = Imbalance("head_tail", head_classes=0.3, head_share=0.3)
    assert sizes(equal, per_class=10, num_classes=10) == [10] * 10


def test_a_natural_profile_at_its_own_size_is_the_profile() -> None:
    found = sizes(Imbalance("natural"), per_class=10_000, num_classes=12)
    expected = [10_000, 1_877, 1_639, 1_499, 1_288, 1_056, 940, 827, 249, 246, 204, 175]
    assert all(0 <= e - f <= 1 for e, f in zip(expected, found, strict=True))


@pytest.mark.parametrize("profile", ["infrared_solar", "places_lt", "inaturalist18_groups"])
@pytest.mark.parametrize("num_classes", [2, 10, 100])
def test_a_natural_profile_falls_and_leaves_every_class_an_image(
    profile: Literal["infrared_solar", "places_lt", "inaturalist18_groups"], num_classes: int
) -> None:
    imbalance = Imbalance("natural", profile=profile)
    found = sizes(imbalance, per_class=500, num_classes=num_classes)
    assert found[0] == 500
    assert found[-1] >= 1
    assert all(a >= b for a, b in itertools.pairwise(found))
