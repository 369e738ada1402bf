import math
import random
from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, chisquare

from data import ClassIndex, Sampler, class_histogram
from data._class_index import occurrences
from engine.config import components

COUNTS = [400, 150, 0, 40, 10]
NAMES = components.names("data.samplers")
BALANCING = [n for n in NAMES if components.read("data.samplers", n).class_facts["balances"]]


def sampler_of(name: str, **keys: float) -> Sampler:
    """The sampler with those of the keys that it has."""
    own = {key.name for key in components.read("data.samplers", name).keys}
    chosen = {key: value for key, value in keys.items() if key in own}
    sampler: Sampler = components.build("data.samplers", name, chosen)
    return sampler


def class_probabilities(
    name: str, class_counts: np.ndarray, *, progress: float, **keys: float
) -> np.ndarray:
    return sampler_of(name, **keys).class_probabilities(class_counts, progress=progress)


def targets_of(counts: list[int], *, seed: int = 0) -> torch.Tensor:
    labels = np.repeat(np.arange(len(counts)), counts)
    return torch.from_numpy(np.random.default_rng(seed).permutation(labels))


def draw(
    name: str, counts: list[int] = COUNTS, *, beta: float = 0.9999, **asked: Any
) -> torch.Tensor:
    index = ClassIndex.from_targets(targets_of(counts), num_classes=len(counts))
    settings: dict[str, Any] = {"seed": 0, "epoch": 0, "progress": 0.5, **asked}
    return sampler_of(name, beta=beta).draw(index, **settings)


def expected(name: str, *, progress: float, beta: float) -> list[Fraction]:
    """The sampling probabilities, class by class, in rational arithmetic."""
    t, b = Fraction(progress), Fraction(beta)
    present = sum(n > 0 for n in COUNTS)
    weights = []
    for n in COUNTS:
        natural, balanced = Fraction(n, sum(COUNTS)), Fraction(n > 0, present)
        formulas = {
            "instance": natural,
            "class_balanced": balanced,
            "square_root": Fraction(math.sqrt(n)),
            "effective_number": n * (1 - b) / (1 - b**n) if n else Fraction(0),
            "progressive": (1 - t) * natural + t * balanced,
        }
        weights.append(formulas[name])
    return [weight / sum(weights) for weight in weights]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("progress", "beta"), [(0.0, 0.9), (0.25, 0.999), (1.0, 0.9999)])
def test_class_probabilities_follow_their_formula(name: str, progress: float, beta: float) -> None:
    found = class_probabilities(name, np.array(COUNTS), progress=progress, beta=beta)
    exact = [float(p) for p in expected(name, progress=progress, beta=beta)]
    assert found.tolist() == pytest.approx(exact, rel=1e-11)


def test_effective_number_goes_from_instance_to_class_balanced_with_beta() -> None:
    counts = np.array(COUNTS)
    natural, nearly_balanced = (
        class_probabilities("effective_number", counts, progress=0.0, beta=beta)
        for beta in (0.0, 1 - 1e-14)
    )
    assert natural.tolist() == pytest.approx((counts / counts.sum()).tolist())
    balanced = class_probabilities("class_balanced", counts, progress=0.0)
    assert nearly_balanced.tolist() == pytest.approx(balanced.tolist(), rel=1e-9)


def test_the_instance_sampler_serves_every_position_once() -> None:
    assert sorted(draw("instance").tolist()) == list(range(sum(COUNTS)))


def test_a_permutation_too_large_for_the_cache_is_complete_and_uniform() -> None:
    drawn = draw("instance", [1 << 20, 1]).numpy()
    assert np.array_equal(np.sort(drawn), np.arange((1 << 20) + 1))
    place = np.arange(len(drawn)) >> 16
    table, _, _ = np.histogram2d(place, drawn >> 16, bins=16, range=[[0, 16], [0, 16]])
    assert chi2_contingency(table).pvalue > 1e-3


@pytest.mark.parametrize("name", BALANCING)
def test_realised_classes_follow_the_probabilities(name: str) -> None:
    counts = [n * 100 for n in COUNTS]
    drawn = draw(name, counts, beta=0.999)
    histogram = class_histogram(drawn, targets_of(counts), len(counts)).numpy()
    p = class_probabilities(name, np.array(counts), progress=0.5, beta=0.999)
    seen = p > 0
    assert histogram[~seen].sum() == 0
    assert chisquare(histogram[seen], p[seen] * len(drawn)).pvalue > 1e-3


def test_images_of_a_class_are_drawn_uniformly() -> None:
    counts = [5000, 20]
    drawn = draw("class_balanced", counts)
    tail = drawn[targets_of(counts)[drawn] == 1]
    times = np.bincount(np.unique(tail, return_inverse=True)[1])
    assert len(times) == 20
    assert chisquare(times).pvalue > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_a_class_without_images_is_never_drawn(name: str) -> None:
    drawn = draw(name, [0, 3, 0, 200, 0])
    assert len(drawn) == 203
    assert class_histogram(drawn, targets_of([0, 3, 0, 200, 0]), 5)[[0, 2, 4]].tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", NAMES)
def test_an_epoch_is_a_function_of_seed_and_epoch(name: str) -> None:
    first = draw(name, seed=5, epoch=2)
    for seeder in (random.seed, torch.manual_seed):
        seeder(123)
    assert torch.equal(draw(name, seed=5, epoch=2), first)
    assert not torch.equal(draw(name, seed=5, epoch=3), first)
    assert not torch.equal(draw(name, seed=6, epoch=2), first)
    assert not torch.equal(draw(name, seed=2, epoch=5), first)


@pytest.mark.parametrize("name", NAMES)
def test_drawing_leaves_global_generators_alone(name: str) -> None:
    before = torch.get_rng_state(), random.getstate()
    assert draw(name).dtype == torch.int64
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


def test_progress_moves_the_progressive_sampler_alone() -> None:
    early, late = draw("progressive", progress=0.0), draw("progressive", progress=1.0)
    assert not torch.equal(early, late)
    assert torch.equal(draw("square_root", progress=0.0), draw("square_root", progress=1.0))


def test_beta_moves_the_effective_number_sampler() -> None:
    assert not torch.equal(draw("effective_number", beta=0.5), draw("effective_number", beta=0.999))


@given(labels=st.lists(st.integers(0, 6), min_size=1, max_size=60))
def test_the_class_index_lists_the_positions_of_each_class(labels: list[int]) -> None:
    index = ClassIndex.from_targets(torch.tensor(labels), num_classes=8)
    for label in range(8):
        expected_positions = [i for i, own in enumerate(labels) if own == label]
        assert index.positions(label).tolist() == expected_positions
    assert index.counts.tolist() == [labels.count(label) for label in range(8)]


@given(drawn=st.lists(st.integers(0, 9), max_size=60))
def test_occurrences_count_the_earlier_draws(drawn: list[int]) -> None:
    seen: Counter[int] = Counter()
    counted = []
    for position in drawn:
        counted.append(seen[position])
        seen[position] += 1
    assert occurrences(torch.tensor(drawn, dtype=torch.int64)).tolist() == counted


@given(weights=st.lists(st.integers(0, 50), min_size=1, max_size=12).filter(any))
def test_the_alias_table_holds_exactly_the_probabilities(weights: list[int]) -> None:
    from data.samplers._base import _alias_table

    p = np.array(weights) / sum(weights)
    table = _alias_table(p)
    rebuilt = np.zeros(len(p))
    for column, (keep, other) in enumerate(zip(table.keep, table.other, strict=True)):
        rebuilt[column] += keep / len(p)
        rebuilt[other] += (1 - keep) / len(p)
    assert rebuilt.tolist() == pytest.approx(p.tolist(), abs=1e-14)
    assert (rebuilt[p == 0] == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_more_positions_than_torch_multinomial_takes_are_drawn(name: str) -> None:
    counts = [1 << 24, 1000]
    drawn = draw(name, counts)
    assert len(drawn) == sum(counts)
    assert int(drawn.max()) >= 1 << 24


# --- length ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("length", [1, 250, 600, 1750])
def test_an_epoch_has_the_length_that_is_asked_for(name: str, length: int) -> None:
    positions = draw(name, length=length)
    assert positions.shape == (length,)
    assert 0 <= positions.min() and positions.max() < sum(COUNTS)


@pytest.mark.parametrize("name", NAMES)
def test_the_number_of_images_is_the_usual_length(name: str) -> None:
    assert torch.equal(draw(name, length=sum(COUNTS)), draw(name))


@pytest.mark.parametrize("name", NAMES)
def test_the_classes_of_a_long_epoch_follow_the_same_probabilities(name: str) -> None:
    length = 60_000
    shares = expected(name, progress=0.5, beta=0.9999)
    seen = Counter(targets_of(COUNTS)[draw(name, length=length)].tolist())
    for label, share in enumerate(shares):
        wanted = length * float(share)
        assert abs(seen[label] - wanted) <= 5 * math.sqrt(wanted)


@pytest.mark.parametrize("length", [250, 600, 1750])
def test_instance_sampling_draws_every_image_equally_often_give_or_take_one(length: int) -> None:
    seen = torch.bincount(draw("instance", length=length), minlength=sum(COUNTS))
    assert set(seen.tolist()) <= {length // sum(COUNTS), -(-length // sum(COUNTS))}


def test_short_epochs_of_instance_sampling_are_different_parts_of_the_images() -> None:
    first, second = (draw("instance", length=250, epoch=epoch).tolist() for epoch in (0, 1))
    assert set(first) != set(second)
