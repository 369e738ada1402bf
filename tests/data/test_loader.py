import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from data import Augment, Batch, DataError, FeatureLoader, Loader, Pool, Split
from data._augment import augment_batch, draw_offsets
from data.image_folder import ImageFolder
from tests.data._files import write_folder
from tests.data._pools import PoolOf

CPU = torch.device("cpu")
FULL = Augment(crop=1, flip=True, cutout=2)
MEAN, STD = (0.415, 0.5, 0.6), (0.2, 0.25, 0.3)


def memory_split() -> Split:
    part = PoolOf([13, 12], channels=3, size=6).load().train
    # Positions in the pool other than those in the split, as after a draw.
    return Split(part.images, part.targets, torch.arange(25) * 3 + 5)


def loader(split: Split | None = None, **keys: object) -> Loader:
    settings: dict[str, Any] = {
        "batch_size": 4,
        "mean": MEAN,
        "std": STD,
        "device": CPU,
        "seed": 3,
        "augment": FULL,
        **keys,
    }
    return Loader(split or memory_split(), **settings)


def joined(batches: Iterator[Batch]) -> Batch:
    parts = list(batches)
    return Batch(*(torch.cat([part[i] for part in parts]) for i in range(3)))


def same(first: Batch, second: Batch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first[:3], second[:3], strict=True))


def test_images_are_normalised_as_torchvision_does() -> None:
    split = memory_split()
    found = joined(loader(split, augment=None).epoch(torch.arange(25), epoch=0))
    floats = transforms.to_dtype(split.images, torch.float32, scale=True)
    assert found.images.dtype == torch.float32
    torch.testing.assert_close(found.images, transforms.normalize(floats, list(MEAN), list(STD)))


def test_batches_follow_the_positions_and_keep_the_last_partial_one() -> None:
    positions = torch.tensor([7, 0, 24, 3, 9, 11])
    batches = list(loader().epoch(positions, epoch=0))
    assert [len(batch.images) for batch in batches] == [4, 2]
    assert torch.cat([batch.index for batch in batches]).equal(positions)
    targets = torch.cat([batch.targets for batch in batches])
    assert targets.equal(memory_split().targets[positions])


@pytest.mark.parametrize(("num", "expected"), [(0, 0), (1, 1), (4, 1), (5, 2), (25, 7)])
def test_the_number_of_batches_is_what_an_epoch_yields(num: int, expected: int) -> None:
    assert loader().num_batches(num) == expected
    assert len(list(loader().epoch(torch.arange(num), epoch=0))) == expected


@pytest.mark.parametrize(
    ("num", "batch_size", "world", "expected"),
    [
        (9, 4, 1, [4, 5]),
        (10, 4, 1, [4, 4, 2]),
        (8, 4, 1, [4, 4]),
        (11, 4, 2, [4, 7]),
        (12, 8, 2, [8, 4]),
        (21, 8, 3, [8, 13]),
        (1, 4, 1, [1]),
        (3, 1, 1, [1, 1, 1]),
    ],
)
def test_a_last_batch_of_less_than_two_images_a_process_joins_the_one_before(
    num: int, batch_size: int, world: int, expected: list[int]
) -> None:
    subjects = [
        loader(batch_size=batch_size, world=world, rank=rank, smallest_share=2)
        for rank in range(world)
    ]
    shares = [list(subject.epoch(torch.arange(num), epoch=0)) for subject in subjects]
    assert [sum(len(b.index) for b in step) for step in zip(*shares, strict=True)] == expected
    assert {subject.num_batches(num) for subject in subjects} == {len(expected)}


def test_every_image_is_served_once_when_the_last_batch_grows() -> None:
    positions = torch.randperm(25, generator=torch.Generator().manual_seed(1))
    found = joined(loader(smallest_share=2).epoch(positions, epoch=0))
    assert same(found, joined(loader().epoch(positions, epoch=0)))


@pytest.mark.parametrize("start", [0, 2, 5, 6])
def test_an_epoch_whose_last_batch_grows_resumes_bit_for_bit(start: int) -> None:
    positions = torch.arange(25).flip(0)
    whole = list(loader(smallest_share=2).epoch(positions, epoch=2))
    resumed = list(loader(smallest_share=2).epoch(positions, epoch=2, start=start))
    assert [len(b.index) for b in resumed] == [4, 4, 4, 4, 4, 5][start:]
    assert all(same(a, b) for a, b in zip(whole[start:], resumed, strict=True))


def test_augmentation_is_keyed_by_the_position_in_the_pool() -> None:
    split = memory_split()
    found = joined(loader(split, augment=Augment(crop=2)).epoch(torch.arange(25), epoch=5))
    assert isinstance(split.images, Tensor)
    height, width = split.images.shape[2:]
    drawn = draw_offsets(split.index, seed=3, epoch=5, crop=2, height=height, width=width)
    cropped = augment_batch(split.images, drawn, crop=2)
    plain = Split(cropped, split.targets, split.index)
    assert same(found, joined(loader(plain, augment=None).epoch(torch.arange(25), epoch=5)))


@pytest.mark.parametrize("start", [0, 1, 4, 6, 7])
def test_an_epoch_resumed_after_some_batches_goes_on_bit_for_bit(start: int) -> None:
    positions = torch.randint(0, 25, (25,), generator=torch.Generator().manual_seed(0))
    whole = list(loader().epoch(positions, epoch=2))
    resumed = list(loader().epoch(positions, epoch=2, start=start))
    assert len(resumed) == len(whole) - start
    assert all(same(a, b) for a, b in zip(whole[start:], resumed, strict=True))


def test_batch_size_leaves_every_image_alone() -> None:
    positions = torch.randperm(25, generator=torch.Generator().manual_seed(0))
    small, large = (joined(loader(batch_size=size).epoch(positions, epoch=1)) for size in (3, 25))
    assert same(small, large)


@pytest.mark.parametrize("change", [{"seed": 4}, {"augment": Augment(crop=1)}, {"augment": None}])
def test_seed_and_augmentation_change_the_images(change: dict[str, Any]) -> None:
    first, second = (
        joined(loader(**keys).epoch(torch.arange(25), epoch=1)) for keys in ({}, change)
    )
    assert not torch.equal(first.images, second.images)


def test_the_epoch_changes_the_augmentation() -> None:
    first, second = (joined(loader().epoch(torch.arange(25), epoch=e)) for e in range(2))
    assert not torch.equal(first.images, second.images)


def test_an_image_drawn_again_is_augmented_anew_and_the_first_draw_as_ever() -> None:
    once = joined(loader().epoch(torch.arange(25), epoch=0))
    often = joined(loader().epoch(torch.tensor([9] * 20), epoch=0))
    assert torch.equal(often.images[0], once.images[9])
    assert len(torch.unique(often.images, dim=0)) > 10


@pytest.mark.parametrize("world", [1, 2])
def test_what_is_drawn_goes_by_the_image_and_not_by_the_batches_it_is_drawn_with(
    monkeypatch: pytest.MonkeyPatch, world: int
) -> None:
    positions = torch.randperm(25, generator=torch.Generator().manual_seed(0))
    served = loader(world=world)
    together = list(served.epoch(positions, epoch=1))
    monkeypatch.setattr("data._loader._DRAWN_AT_ONCE", 2)
    apart = list(served.epoch(positions, epoch=1))
    assert len(together) == 7
    assert all(same(a, b) for a, b in zip(together, apart, strict=True))


def test_cutout_paints_the_mean_colour() -> None:
    found = joined(loader(augment=Augment(cutout=5)).epoch(torch.arange(25), epoch=0)).images
    within_rounding = found.abs() <= torch.tensor([0.501 / 255 / s for s in STD])[:, None, None]
    assert int(within_rounding.all(1).sum((1, 2)).min()) >= 3 * 3


@pytest.mark.parametrize(
    ("key", "augment"), [("crop", Augment(crop=6)), ("cutout", Augment(cutout=6))]
)
def test_an_augmentation_larger_than_the_images_is_refused(key: str, augment: Augment) -> None:
    with pytest.raises(DataError, match=rf"data.augment.{key}=6 must be smaller .* 6 pixels"):
        loader(augment=augment)


def test_loading_leaves_the_images_of_the_split_alone() -> None:
    split = memory_split()
    joined(loader(split).epoch(torch.arange(25), epoch=0))
    assert torch.equal(split.images, memory_split().images)  # type: ignore[arg-type]


# --- images on disk -----------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(
        tmp_path / "pets", {"train": {"cat": 6, "dog": 5}, "test": {"cat": 1, "dog": 1}}
    )


def whole(pool: Pool) -> Split:
    return Split(pool.train.images, pool.train.targets, torch.arange(len(pool.train)))


def on_disk(folder: Path) -> Split:
    return whole(
        ImageFolder(folder.parent, path=str(folder), cache_gb=0, normalize="imagenet").load()
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_images_on_disk_give_the_batches_that_cached_ones_give(folder: Path, workers: int) -> None:
    in_memory = whole(ImageFolder(folder.parent, path=str(folder)).load())
    positions = torch.tensor([10, 3, 3, 0, 7, 1, 3, 2, 9])
    expected = list(loader(in_memory).epoch(positions, epoch=4))
    found = list(loader(on_disk(folder), workers=workers).epoch(positions, epoch=4))
    assert len(found) == len(expected) == 3
    assert all(same(a, b) for a, b in zip(found, expected, strict=True))


def test_a_resumed_epoch_from_disk_goes_on_bit_for_bit(folder: Path) -> None:
    positions = torch.arange(11)
    split = on_disk(folder)
    expected = list(loader(split).epoch(positions, epoch=1))[1:]
    resumed = list(loader(split).epoch(positions, epoch=1, start=1))
    assert all(same(a, b) for a, b in zip(resumed, expected, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_breaks_after_listing_is_named_in_one_line(folder: Path, workers: int) -> None:
    split = on_disk(folder)
    file = folder / "train/dog/001.png"
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(DataError, match=r"dog/001.png cannot be read as an image") as error:
        list(loader(split, workers=workers).epoch(torch.arange(11), epoch=0))
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_file_that_changes_its_size_after_listing_is_named(folder: Path) -> None:
    from tests.data._files import write_image

    split = on_disk(folder)
    write_image(folder / "train/dog/001.png", width=9, height=9)
    with pytest.raises(DataError, match=r"dog/001.png has changed its size"):
        list(loader(split).epoch(torch.arange(11), epoch=0))


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_loading_leaves_global_generators_alone(folder: Path, place: str) -> None:
    split = memory_split() if place == "memory" else on_disk(folder)
    before: tuple[Tensor, object] = torch.get_rng_state(), random.getstate()
    assert len(list(loader(split).epoch(torch.arange(11), epoch=0))) == 3
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_every_batch_row_by_row(world: int) -> None:
    positions = torch.arange(25).flip(0)
    alone = list(loader(batch_size=8).epoch(positions, epoch=2))
    shared = [
        list(loader(batch_size=8, rank=rank, world=world).epoch(positions, epoch=2))
        for rank in range(world)
    ]
    for step, whole in enumerate(alone):
        for rank in range(world):
            own = shared[rank][step]
            if own.is_spare:  # the last batch has one image
                assert (step, len(whole.index)) == (3, 1)
                assert rank > 0
                assert same(own, whole)
            else:
                assert all(
                    torch.equal(a, b[rank::world]) for a, b in zip(own[:3], whole[:3], strict=True)
                )
    for rank in range(world):
        sizes = loader(batch_size=8, rank=rank, world=world).own_batch_sizes(25)
        assert sizes == [len(batch.index) for batch in shared[rank]]


def test_an_image_drawn_twice_is_augmented_alike_by_one_process_and_by_two() -> None:
    positions = torch.tensor([3, 3, 3, 5, 3, 5])
    whole = joined(loader(batch_size=3).epoch(positions, epoch=0))
    second = joined(loader(batch_size=3, rank=1, world=2).epoch(positions, epoch=0))
    assert torch.equal(second.images, whole.images[[1, 4]])


# --- a fixed number of views, and features of them ------------------------------------------------

VIEWS = Augment(crop=1, flip=True, cutout=2, views=2)


def test_views_are_taken_in_turn() -> None:
    views = [joined(loader(augment=VIEWS).epoch(torch.arange(25), epoch=e)) for e in range(4)]
    assert same(views[0], views[2]) and same(views[1], views[3])
    assert not same(views[0], views[1])


def test_draws_of_one_image_in_an_epoch_take_its_views_in_turn() -> None:
    found = joined(loader(augment=VIEWS).epoch(torch.tensor([3, 8, 3, 3]), epoch=1)).images
    expected = [joined(loader(augment=VIEWS).epoch(torch.tensor([3]), epoch=e)) for e in range(2)]
    for row, view in ((0, 1), (2, 0), (3, 1)):
        assert torch.equal(found[row], expected[view].images[0])


@pytest.mark.parametrize("augment", [VIEWS, Augment(resized_crop=0.5, views=3), None])
@pytest.mark.parametrize("rank", [0, 1])
def test_features_stand_in_the_batches_for_their_images(augment: Augment | None, rank: int) -> None:
    positions = torch.tensor([7, 0, 24, 7, 9, 11, 7, 2, 5])
    keys: dict[str, Any] = {"augment": augment, "rank": rank, "world": 2, "smallest_share": 2}
    views = range(1 if augment is None or augment.views is None else augment.views)
    alone = loader(augment=augment)
    pixels = [joined(alone.epoch(torch.arange(25), epoch=view)).images for view in views]
    features = FeatureLoader(loader(**keys), torch.stack(pixels).flatten(2))
    for start in (0, 1):
        theirs = list(loader(**keys).epoch(positions, epoch=4, start=start))
        ours = list(features.epoch(positions, epoch=4, start=start))
        assert len(ours) == len(theirs) == features.num_batches(9) - start
        for batch, expected in zip(ours, theirs, strict=True):
            assert torch.equal(batch.images, expected.images.flatten(1))
            assert torch.equal(batch.targets, expected.targets)
            assert torch.equal(batch.index, expected.index)
            assert batch.is_spare == expected.is_spare
