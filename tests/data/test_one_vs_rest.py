import pytest
import torch

from data import DataError, Imbalance, Validation, build
from tests.data._pools import PoolOf

OFF = Validation(per_class=None)


@pytest.mark.parametrize("wanted", ["bird", "2"])
def test_one_vs_rest_takes_a_name_or_a_label(wanted: str) -> None:
    source = PoolOf([100] * 3, class_names=("cat", "dog", "bird"))
    dataset = build(source, imbalance=Imbalance(factor=100), validation=OFF, one_vs_rest=wanted)
    original = source.load()
    assert dataset.class_names == ("rest", "bird")
    assert dataset.class_counts.tolist() == [200, 2]
    assert torch.equal(dataset.train.targets == 1, original.train.targets[dataset.train.index] == 2)
    assert torch.equal(dataset.test.targets == 1, original.test.targets == 2)


def test_a_class_called_like_a_label_is_found_by_name() -> None:
    source = PoolOf([9] * 3, class_names=("2", "1", "0"))
    dataset = build(source, imbalance=Imbalance("none"), validation=OFF, one_vs_rest="0")
    original = source.load()
    assert torch.equal(dataset.train.targets == 1, original.train.targets == 2)


def test_one_vs_rest_relabels_a_validation_list_too() -> None:
    source = PoolOf([9, 9, 9], val=[1, 2, 3])
    dataset = build(source, imbalance=Imbalance("none"), validation=OFF, one_vs_rest="c2")
    assert dataset.val is not None
    assert torch.bincount(dataset.val.targets).tolist() == [3, 3]


@pytest.mark.parametrize(("wanted", "hint"), [("brid", "did you mean 'bird'"), ("9", "0 to 2")])
def test_an_unknown_class_names_the_nearest_or_the_range(wanted: str, hint: str) -> None:
    source = PoolOf([9] * 3, class_names=("cat", "dog", "bird"))
    with pytest.raises(DataError, match=hint):
        build(source, imbalance=Imbalance("none"), validation=OFF, one_vs_rest=wanted)
