import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from data import DataError
from data.digits import Digits


def test_the_test_split_has_50_images_of_each_class_and_train_the_rest() -> None:
    pool = Digits().load()
    assert torch.bincount(pool.test.targets).tolist() == [50] * 10
    per_class = np.bincount(load_digits().target)
    assert torch.bincount(pool.train.targets).tolist() == (per_class - 50).tolist()


def test_every_image_is_scikit_learns_with_its_label() -> None:
    pool = Digits().load()
    pixels, targets = load_digits(return_X_y=True)
    # 0..16 becomes 0..255: no two of the 17 shades fall together.
    shades = np.rint(pixels * 255 / 16).astype(np.uint8)
    images = torch.cat([pool.train.images, pool.test.images]).flatten(1).numpy()  # type: ignore[list-item]
    labels = torch.cat([pool.train.targets, pool.test.targets]).numpy()
    found = sorted((int(t), image.tobytes()) for t, image in zip(labels, images, strict=True))
    expected = sorted((int(t), image.tobytes()) for t, image in zip(targets, shades, strict=True))
    assert found == expected


def test_the_test_split_is_always_the_same() -> None:
    first, second = Digits().load(), Digits().load()
    assert torch.equal(first.test.images, second.test.images)  # type: ignore[arg-type]


def test_test_per_class_sets_the_size_of_the_test_split() -> None:
    small, large = (Digits(test_per_class=num).load().test for num in (10, 20))
    assert (len(small), len(large)) == (100, 200)
    rows = {image.numpy().tobytes() for image in large.images}  # type: ignore[union-attr]
    assert all(image.numpy().tobytes() in rows for image in small.images)  # type: ignore[union-attr]


def test_a_test_split_that_empties_a_class_is_refused() -> None:
    with pytest.raises(DataError, match=r"test_per_class=174 leaves class 8_eight .* 174 images"):
        Digits(test_per_class=174).load()
