from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chi2_contingency, chisquare
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from data import Augment
from data._augment import augment_batch, draw_offsets

SEED, EPOCH = 11, 3


def augmented(
    images: Tensor, index: Tensor, *, seed: int, epoch: int, crop: int = 0, **settings: Any
) -> Tensor:
    """A batch with the offsets that are drawn for ``index``."""
    height, width = images.shape[2:]
    offsets = draw_offsets(index, seed=seed, epoch=epoch, crop=crop, height=height, width=width)
    return augment_batch(images, offsets, crop=crop, **settings)


def batch(*, channels: int = 3, height: int = 9, width: int = 7, num: int = 40) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (num, channels, height, width)
    # From 1: black is then padding or cutout alone.
    return torch.randint(1, 256, shape, dtype=torch.uint8, generator=generator)


MASK, GAMMA = 2**64 - 1, 0x9E3779B97F4A7C15


def finalise(value: int) -> int:
    """The finaliser of splitmix64, in Python's own integers."""
    value &= MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def one_by_one(
    images: Tensor, index: Tensor, *, crop: int, flip: bool, cutout: int, fill: Tensor
) -> Tensor:
    height, width = images.shape[-2:]
    drawn = draw_offsets(index, seed=SEED, epoch=EPOCH, crop=crop, height=height, width=width)
    results = []
    for i, image in enumerate(images):
        top, left, mirrored, row, column = (int(value[i]) for value in drawn)
        result = transforms.pad(image, [crop])
        result = transforms.crop(result, top, left, height, width)
        if flip and mirrored:
            result = transforms.horizontal_flip(result)
        if cutout:
            result = result.clone()
            for y in range(max(0, row - cutout // 2), min(height, row - cutout // 2 + cutout)):
                for x in range(
                    max(0, column - cutout // 2), min(width, column - cutout // 2 + cutout)
                ):
                    result[:, y, x] = fill
        results.append(result)
    return torch.stack(results)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("crop", [0, 1, 4])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("cutout", [0, 3, 4])
def test_a_batch_equals_torchvision_image_by_image(
    *, channels: int, crop: int, flip: bool, cutout: int
) -> None:
    images, index = batch(channels=channels), torch.arange(40) * 17
    fill = torch.arange(5, 5 + channels, dtype=torch.uint8)
    found = augmented(
        images, index, seed=SEED, epoch=EPOCH, crop=crop, flip=flip, cutout=cutout, fill=fill
    )
    assert torch.equal(
        found, one_by_one(images, index, crop=crop, flip=flip, cutout=cutout, fill=fill)
    )


def test_nothing_asked_for_changes_nothing() -> None:
    images = batch()
    assert augmented(images, torch.arange(40), seed=0, epoch=0) is images


def test_cutout_is_black_without_a_colour() -> None:
    painted = augmented(batch(), torch.arange(40), seed=0, epoch=0, cutout=3)
    assert int((painted == 0).sum((1, 2, 3)).min()) >= 3 * 2 * 2


def test_augmentation_leaves_its_input_alone() -> None:
    images = batch()
    augmented(images, torch.arange(40), seed=0, epoch=0, crop=2, flip=True, cutout=3)
    assert torch.equal(images, batch())


def test_an_image_is_augmented_alike_in_any_batch() -> None:
    images, index = batch(), torch.arange(40)
    settings: dict[str, Any] = {"seed": SEED, "epoch": EPOCH, "crop": 2, "flip": True, "cutout": 3}
    whole = augmented(images, index, **settings)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    parts = [augmented(images[part], index[part], **settings) for part in order.split(7)]
    assert torch.equal(torch.cat(parts), whole[order])


@pytest.mark.parametrize("change", [{"seed": SEED + 1}, {"epoch": EPOCH + 1}])
def test_seed_and_epoch_each_change_the_offsets(change: dict[str, int]) -> None:
    images, index = batch(), torch.arange(40)
    settings: dict[str, Any] = {"seed": SEED, "epoch": EPOCH, "crop": 4}
    first = augmented(images, index, **settings)
    assert not torch.equal(augmented(images, index, **{**settings, **change}), first)


def test_the_hash_is_that_of_plain_integers_also_beyond_32_bits() -> None:
    index = torch.tensor([0, 3, 2**31, 2**40 + 1, 2**62])
    found = draw_offsets(index, seed=SEED, epoch=EPOCH, crop=4, height=9, width=7)
    base = finalise(finalise(SEED + GAMMA) ^ (EPOCH * GAMMA & MASK))
    for stream, (values, bound) in enumerate(zip(found, [9, 9, 2, 9, 7], strict=True)):
        start = finalise(base + stream * GAMMA)
        bits = [finalise(start + i * GAMMA) >> 33 for i in index.tolist()]
        assert values.tolist() == [b * bound >> 31 for b in bits]


def test_the_finaliser_gives_the_published_first_output_of_splitmix64() -> None:
    # Vigna's splitmix64.c seeded with 1234567; the value is listed at rosettacode.org.
    assert finalise(1234567 + GAMMA) == 6457827717110365317


@pytest.mark.parametrize("field", ["top", "left", "flip", "row", "column"])
def test_offsets_are_uniform(field: str) -> None:
    drawn = draw_offsets(torch.arange(60_000), seed=0, epoch=0, crop=4, height=8, width=8)
    times = torch.bincount(getattr(drawn, field))
    assert len(times) == {"top": 9, "left": 9, "flip": 2}.get(field, 8)
    assert chisquare(times).pvalue > 1e-3


def test_offsets_of_one_image_and_of_one_epoch_to_the_next_are_independent() -> None:
    epochs = [
        draw_offsets(torch.arange(60_000), seed=0, epoch=epoch, crop=4, height=8, width=8)
        for epoch in range(2)
    ]
    pairs = [
        (epochs[0].top, epochs[0].left),
        (epochs[0].top, epochs[1].top),
        (epochs[0].top[:-1], epochs[0].top[1:]),
        (epochs[0].left, epochs[0].flip),
    ]
    for a, b in pairs:
        table, _, _ = np.histogram2d(a, b, bins=[9, int(b.max()) + 1])
        assert chi2_contingency(table).pvalue > 1e-3


def test_an_augmentation_that_does_nothing_is_false() -> None:
    assert not Augment()
    assert Augment(crop=1)
    assert Augment(flip=True)
    assert Augment(cutout=1)
