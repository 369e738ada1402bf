from dataclasses import replace

import pytest
import torch

from data import Imbalance, Labelled, LongTailed, Pool, Validation, build, content_key
from tests.data._pools import PoolOf

OFF = Validation(per_class=None)


def build_twice(first: PoolOf, second: PoolOf) -> list[LongTailed]:
    return [
        build(s, imbalance=Imbalance(factor=2), validation=Validation(2)) for s in (first, second)
    ]


def test_the_fingerprint_is_that_of_equal_content() -> None:
    first, second = build_twice(PoolOf([20, 20]), PoolOf([20, 20]))
    assert first.split_fingerprint == second.split_fingerprint
    assert len(first.split_fingerprint) == 12


@pytest.mark.parametrize("part", ["train", "test", "val"])
def test_one_changed_pixel_in_any_split_changes_the_fingerprint(part: str) -> None:
    source = PoolOf([4, 4], val=[2, 2])

    class Changed:
        def load(self) -> Pool:
            pool = source.load()
            labelled = getattr(pool, part)
            images = labelled.images.clone()
            images[1, 0, 2, 3] ^= 1
            return replace(pool, **{part: replace(labelled, images=images)})

    fingerprints = {
        build(s, imbalance=Imbalance("none"), validation=OFF).split_fingerprint
        for s in (source, Changed())
    }
    assert len(fingerprints) == 2


def test_a_large_set_is_fingerprinted_by_evenly_spaced_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from data import _statistics

    monkeypatch.setattr(_statistics, "_HASHED_BYTES", 16 * 25)
    images = torch.zeros(100, 1, 4, 4, dtype=torch.uint8)
    before = _statistics._content(images)
    images[1] = 1
    assert _statistics._content(images) == before
    images[4] = 1
    assert _statistics._content(images) != before


def test_a_file_made_of_a_large_set_is_named_by_every_image_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from data import _statistics

    monkeypatch.setattr(_statistics, "_HASHED_BYTES", 16 * 25)
    images = torch.zeros(100, 1, 4, 4, dtype=torch.uint8)
    before = content_key(images)
    images[1] = 1
    assert content_key(images) != before


def test_drawing_other_copies_of_the_same_image_changes_the_fingerprint() -> None:
    class Copies:
        def load(self) -> Pool:
            images, targets = torch.zeros(40, 1, 2, 2), torch.arange(40) // 20
            part = Labelled(images.to(torch.uint8), targets)
            return Pool(train=part, test=part, class_names=("a", "b"), title="Copies")

    fingerprints = {
        build(Copies(), imbalance=Imbalance(factor=4, seed=s), validation=OFF).split_fingerprint
        for s in range(2)
    }
    assert len(fingerprints) == 2


def test_classes_changing_places_changes_the_fingerprint() -> None:
    class Relabelled:
        def load(self) -> Pool:
            pool = PoolOf([9, 9]).load()
            return replace(pool, test=replace(pool.test, targets=1 - pool.test.targets))

    fingerprints = {
        build(s, imbalance=Imbalance("none"), validation=OFF).split_fingerprint
        for s in (PoolOf([9, 9]), Relabelled())
    }
    assert len(fingerprints) == 2
