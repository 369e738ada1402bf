import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from data._permutation import fixed_permutation, stable_order


@given(num=st.integers(0, 300), key=st.tuples(st.integers(0, 2**32), st.integers(0, 99)))
def test_a_fixed_permutation_holds_every_number_once(num: int, key: tuple[int, int]) -> None:
    assert sorted(fixed_permutation(num, key=key)) == list(range(num))


def test_a_fixed_permutation_is_the_one_that_earlier_splits_were_drawn_with() -> None:
    # Frozen on purpose: if it changes, every subset drawn so far has changed with it.
    assert fixed_permutation(8, key=(0, 3)).tolist() == [4, 3, 6, 2, 5, 7, 1, 0]


def test_each_part_of_the_key_changes_the_permutation() -> None:
    drawn = {tuple(fixed_permutation(50, key=key)) for key in [(0, 0), (0, 1), (1, 0), (1, 1)]}
    assert len(drawn) == 4


def test_a_fixed_permutation_is_uniform() -> None:
    from scipy.stats import chisquare

    orders = [tuple(fixed_permutation(3, key=(seed,))) for seed in range(3000)]
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 6
    assert chisquare(counts).pvalue > 1e-3


@given(keys=hnp.arrays(np.int64, st.integers(0, 40), elements=st.integers(0, 2**40)))
def test_the_stable_order_is_numpys(keys: np.ndarray) -> None:
    assert stable_order(keys).tolist() == np.argsort(keys, kind="stable").tolist()


@pytest.mark.parametrize("largest", [3, 2**16 - 1, 2**16, 2**33])
def test_equal_keys_keep_their_order(largest: int) -> None:
    keys = np.random.default_rng(0).integers(0, 3, 200) * (largest // 2)
    assert stable_order(keys).tolist() == np.argsort(keys, kind="stable").tolist()
