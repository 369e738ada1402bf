"""Augmentation image by image: a function of seed, epoch and image, whoever computes it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

import train
from data import Augment, DataError, Loader, Split
from data._augment import image_seed
from data._base import ImageShape
from data._prepared import Batches, PreparedImages
from data._transforms import ImageTransform
from data.image_folder import ImageFolder
from engine.config.cores import num_cores
from engine.config.load import load
from engine.config.mistakes import ConfigError
from engine.training import build, notes
from engine.training.notes import opening_notes
from tests._runs import assert_same_run, quiet_screen, small_run
from tests.data._files import write_folder, write_image
from tests.data._pools import PoolOf

CPU = torch.device("cpu")
ALL = Augment(resized_crop=0.3, policy="trivialaugment", color_jitter=0.4, crop=1, flip=True)
EACH = [Augment(resized_crop=0.3), Augment(policy="randaugment"), Augment(color_jitter=0.5), ALL]
POSITIONS = torch.tensor([4, 0, 7, 7, 2, 19, 11, 4, 4])


def split(*, channels: int = 3, size: int = 12) -> Split:
    part = PoolOf([13, 12], channels=channels, size=size).load().train
    return Split(part.images, part.targets, torch.arange(25) * 3 + 5)


def images(augment: Augment | None, *, epoch: int = 1, start: int = 0, **keys: Any) -> torch.Tensor:
    settings: dict[str, Any] = {
        "batch_size": 4,
        "mean": (0.0,),
        "std": (1 / 255,),
        "device": CPU,
        "seed": 3,
        **keys,
    }
    loader = Loader(settings.pop("split", None) or split(), augment=augment, **settings)
    return torch.cat([b.images for b in loader.epoch(POSITIONS, epoch=epoch, start=start)])


@pytest.mark.parametrize("augment", EACH)
def test_workers_batch_size_and_resume_leave_the_images_alone(augment: Augment) -> None:
    alone = images(augment)
    assert not torch.equal(alone, images(None))
    for keys in ({"workers": 1}, {"workers": 2}, {"batch_size": 3}):
        assert torch.equal(images(augment, **keys), alone)
    assert torch.equal(images(augment, start=1), alone[4:])
    assert torch.equal(images(augment, workers=2, start=2), alone[8:])


def test_seed_epoch_and_a_repeated_draw_change_the_images() -> None:
    alone = images(ALL)
    assert not torch.equal(images(ALL, seed=4), alone)
    assert not torch.equal(images(ALL, epoch=2), alone)
    assert not torch.equal(alone[2], alone[3])  # both are image 7


def test_torchs_generator_is_where_it_was() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    images(ALL)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("augment", "transform"),
    [
        (Augment(resized_crop=0.3), v2.RandomResizedCrop((12, 12), scale=(0.3, 1.0))),
        (Augment(policy="randaugment"), v2.RandAugment()),
        (Augment(color_jitter=0.4), v2.ColorJitter(0.4, 0.4, 0.4)),
    ],
)
def test_each_is_torchvisions_transform_with_the_seed_of_the_image(
    augment: Augment, transform: torch.nn.Module
) -> None:
    whole = split()
    assert isinstance(whole.images, torch.Tensor)
    found = images(augment, split=whole)
    torch.manual_seed(image_seed(int(whole.index[4]), seed=3, epoch=1))
    assert torch.equal(found[0], transform(whole.images[4]).float())
    torch.manual_seed(image_seed(int(whole.index[7]) + (1 << 40), seed=3, epoch=1))
    assert torch.equal(found[3], transform(whole.images[7]).float())


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shape", [(3, 45, 60), (3, 24, 20), (1, 45, 60), (3, 1, 400), (3, 1, 1)])
def test_crops_of_photographs_are_torchvisions_to_the_pixel(
    shape: tuple[int, int, int], interpolation: Literal["bilinear", "bicubic"]
) -> None:
    """As a decoder leaves them, with the channels last in memory, and as planes."""
    draw = torch.Generator().manual_seed(2)
    planes = torch.randint(0, 256, shape, dtype=torch.uint8, generator=draw)
    channels_last = planes.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    how = v2.InterpolationMode(interpolation)
    theirs = v2.RandomResizedCrop((24, 20), scale=(0.08, 1.0), interpolation=how)
    ours = ImageTransform(
        Augment(resized_crop=0.08),
        shape=ImageShape(shape[0], 24, 20),
        seed=3,
        epoch=1,
        interpolation=interpolation,
    )
    for key in range(12):
        torch.manual_seed(image_seed(key, seed=3, epoch=1))
        expected = theirs(planes)
        assert torch.equal(ours(planes, key), expected)
        assert torch.equal(ours(channels_last, key), expected)


@pytest.mark.parametrize("size", [72, 96])
def test_trivialaugment_is_torchvisions_where_32_pixels_are_less_than_its_share(size: int) -> None:
    found = images(Augment(policy="trivialaugment"), split=split(size=size))
    whole = split(size=size)
    assert isinstance(whole.images, torch.Tensor)
    for row, position in enumerate([4, 0, 7]):
        torch.manual_seed(image_seed(int(whole.index[position]), seed=3, epoch=1))
        assert torch.equal(found[row], v2.TrivialAugmentWide()(whole.images[position]).float())


@pytest.mark.parametrize("size", [8, 28, 32])
@pytest.mark.parametrize("policy", ["randaugment", "trivialaugment"])
def test_no_policy_makes_an_image_one_colour(
    policy: Literal["randaugment", "trivialaugment"], size: int
) -> None:
    shape = ImageShape(1, size, size)
    transform = ImageTransform(Augment(policy=policy), shape=shape, seed=0, epoch=0)
    image = torch.randint(
        0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    assert all(len(transform(image, key).unique()) > 1 for key in range(2000))


@pytest.mark.parametrize("key", ["policy=randaugment", "policy=trivialaugment", "color_jitter=0.4"])
def test_colour_needs_one_or_three_channels(tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigError, match=r"data\.augment\.\w+=\S+: needs images of 1") as error:
        small_run(tmp_path, "data.channels=2", f"data.augment.{key}", "runtime.workers=0")
    assert len(error.value.mistakes) == 1
    assert not list(tmp_path.iterdir())


def test_seeds_of_images_differ_and_fit_63_bits() -> None:
    keys = [key + (repeat << 40) for key in range(2000) for repeat in range(3)]
    seeds = {image_seed(key, seed=s, epoch=e) for key in keys for s in (0, 1) for e in (0, 1)}
    assert len(seeds) == 4 * len(keys)
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("augment", EACH)
def test_grey_images_keep_their_one_channel(augment: Augment) -> None:
    found = images(augment, split=split(channels=1))
    assert found.shape == (9, 1, 12, 12)


def test_a_resized_crop_of_a_file_shows_what_the_centre_square_does_not(tmp_path: Path) -> None:
    """The left and right ends of a wide image are red; its centre square is black."""
    pixels = np.zeros((12, 60, 3), dtype=np.uint8)
    pixels[:, :10, 0] = pixels[:, -10:, 0] = 255
    for part, count in (("train", 30), ("test", 1)):
        (tmp_path / "wide" / part / "cat").mkdir(parents=True)
        for number in range(count):
            Image.fromarray(pixels).save(tmp_path / "wide" / part / "cat" / f"{number}.png")
    source = ImageFolder(
        tmp_path,
        path=str(tmp_path / "wide"),
        size=12,
        cache_gb=0,
        normalize="imagenet",
        allow_overlap=True,  # all images are the same
    )
    part = source.load().train
    whole = Split(part.images, part.targets, torch.arange(len(part)))
    shape = {"mean": (0.0,) * 3, "std": (1 / 255,) * 3, "split": whole}
    assert images(None, **shape).max() == 0
    found = images(Augment(resized_crop=0.1), **shape)
    assert found.shape == (9, 3, 12, 12)
    assert found[:, 0].max() > 200
    assert torch.equal(images(Augment(resized_crop=0.1), workers=2, **shape), found)


def test_a_file_that_cannot_be_read_is_named_by_a_worker(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "pets", {"train": {"cat": 20}, "test": {"cat": 1}})
    source = ImageFolder(tmp_path, path=str(folder), cache_gb=0, normalize="imagenet")
    part = source.load().train
    (folder / "train/cat/007.png").write_bytes(b"")
    whole = Split(part.images, part.targets, torch.arange(len(part)))
    with pytest.raises(DataError, match=r"007\.png"):
        images(ALL, split=whole, workers=1, mean=(0.0,) * 3, std=(1.0,) * 3)


def test_the_transform_takes_any_size_and_gives_the_one_asked_for() -> None:
    transform = ImageTransform(
        Augment(resized_crop=0.1), shape=ImageShape(3, 6, 8), seed=0, epoch=0
    )
    image = torch.randint(0, 256, (3, 31, 17), dtype=torch.uint8)
    assert transform(image, 0).shape == (3, 6, 8)
    assert torch.equal(transform(image, 5), transform(image, 5))


# --- the same recipe, the same batches, wherever the images are ----------------------------------

EVERY = [
    *(Augment(), Augment(crop=2), Augment(flip=True), Augment(cutout=3), *EACH),
    *(Augment(resized_crop=0.3, cutout=3), Augment(policy="trivialaugment"), Augment(0, True, 2)),
]


def folder_split(root: Path, *, cache_gb: float, size: int | None) -> Split:
    folder = str(root / "pets")
    source = ImageFolder(root, path=folder, cache_gb=cache_gb, size=size, normalize="imagenet")
    part = source.load().train
    return Split(
        part.images,
        part.targets,
        torch.arange(len(part)),
        files=part.files,
        is_trained_as_tested=part.is_trained_as_tested,
    )


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder above ``pets``, with wide images of one size."""
    root = tmp_path_factory.mktemp("root")
    for part, count in (("train", 20), ("test", 1)):
        for number in range(count):
            path = root / "pets" / part / "cat" / f"{number:02}.png"
            write_image(path, width=14, height=9)
    return root


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")
@pytest.mark.parametrize("size", [None, 7])
@pytest.mark.parametrize("augment", EVERY, ids=str)
def test_cached_or_not_and_with_any_workers_the_batches_are_the_same(
    pets: Path, augment: Augment, size: int | None
) -> None:
    on_disk = folder_split(pets, cache_gb=0, size=size)
    expected = images(augment, split=on_disk)
    if augment != Augment():
        assert not torch.equal(images(Augment(), split=on_disk), expected)
    assert torch.equal(images(augment, split=on_disk, workers=4), expected)
    cached = folder_split(pets, cache_gb=1, size=size)
    assert isinstance(cached.images, torch.Tensor)
    for workers in (0, 4):
        assert torch.equal(images(augment, split=cached, workers=workers), expected)


# --- through train.py -----------------------------------------------------------------------------


class Stop(Exception):  # noqa: N818 - nothing went wrong
    """Ends a run after its first epoch."""


def stop(epoch: int, row: object) -> None:
    raise Stop


def test_a_run_with_all_of_it_resumes_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "root"))
    counts = {"train": {"cat": 24, "dog": 16}, "test": {"cat": 4, "dog": 4}}
    folder = write_folder(tmp_path / "pets", counts)
    words = [
        *("data=image_folder", f"data.path={folder}", "data.cache_gb=0", "data.size=8"),
        *("data.normalize=imagenet", "data.augment.resized_crop=0.25", "runtime.workers=2"),
        *("data.augment.policy=trivialaugment", "data.augment.color_jitter=0.2"),
        *("sampler=class_balanced", "optim.batch_size=8", "schedule.epochs=2"),
        *("runtime.threads=1", "track.wandb=disabled", "track.figures=false", "track.name=pets"),
    ]
    roots = {name: f"track.root={tmp_path / name}" for name in ("whole", "stopped")}
    train.run(load(overrides=[*words, roots["whole"]]), screen=quiet_screen())
    config = load(overrides=[*words, roots["stopped"]])
    with pytest.raises(Stop):
        train.run(config, report=stop, screen=quiet_screen())
    train.run(config, screen=quiet_screen())
    (whole,), (stopped,) = ((tmp_path / name / "pets").iterdir() for name in roots)
    assert_same_run(stopped, whole)


def test_images_in_memory_take_it_too_and_may_then_have_workers(tmp_path: Path) -> None:
    words = ("data.augment.color_jitter=0.3", "schedule.epochs=1")
    first = small_run(tmp_path / "two", *words, "runtime.workers=1")
    assert small_run(tmp_path / "none", *words, "runtime.workers=0").rules == first.rules
    with pytest.raises(ConfigError, match="has no effect, the images of data=synthetic are in mem"):
        small_run(tmp_path, "runtime.workers=1")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("data.crop_ratio=0.875",), r"data\.crop_ratio=0\.875: has no effect without data\.size"),
        (("data.test_size=8",), r"data\.test_size=8: has no effect without data\.size"),
        (("data.interpolation=bicubic",), r"data\.interpolation=bicubic: has no effect without"),
        (
            ("data.size=[8, 9, 10]",),
            r"data\.size=\[8, 9, 10\]: expected .*a list of 2, each a whole",
        ),
        (("data.normalize=weights",), r"data\.normalize=weights: needs pretrained weights"),
    ],
)
def test_a_key_of_the_recipe_without_effect_is_a_mistake(
    words: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load(overrides=["data=image_folder", "data.path=pets", *words])


def test_the_run_says_that_cropped_images_come_from_their_files(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_ROOT", str(tmp_path))
    words = ["data=image_folder", f"data.path={pets / 'two'}", "data.size=8"]
    words += ["runtime.workers=0", "data.validation.fraction=0.4"]
    write_folder(pets / "two", {"train": {"cat": 3, "dog": 3}, "test": {"cat": 1, "dog": 1}})
    for crop, is_said in ((0.3, True), (0.0, False)):
        config = load(overrides=[*words, f"data.augment.resized_crop={crop}"])
        dataset = build.build_dataset(config)
        said = " ".join(opening_notes(config, dataset, num_steps=1))
        assert ("data.augment.resized_crop crops whole images, and the cache" in said) == is_said


@pytest.mark.parametrize(
    ("set_keys", "named"),
    [
        (("data.crop_ratio=0.5",), "data.crop_ratio trains"),
        (("data.test_size=6",), "data.test_size trains"),
        (("data.test_size=6", "data.crop_ratio=0.5"), "data.test_size with data.crop_ratio trains"),
    ],
)
def test_the_run_names_the_key_by_which_it_tests_otherwise_than_it_trains(
    set_keys: tuple[str, ...], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_ROOT", str(tmp_path))
    counts = {"train": {"cat": 3, "dog": 3}, "test": {"cat": 1, "dog": 1}}
    folder = write_folder(tmp_path / "pets", counts)
    words = ["data=image_folder", f"data.path={folder}", "data.size=8", "runtime.workers=0"]
    config = load(overrides=[*words, "data.validation.fraction=0.4", *set_keys])
    said = opening_notes(config, build.build_dataset(config), num_steps=1)
    assert any(note.startswith(f"{named} as it does not test, and the cache") for note in said)


@pytest.mark.parametrize("cores", [3, 4])
def test_the_run_says_in_one_line_that_there_are_more_workers_than_cores(
    cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notes, "num_cores", lambda: cores)
    config = load(overrides=["data.augment.resized_crop=0.3", "runtime.workers=4"])
    said = opening_notes(config, build.build_dataset(config), num_steps=1)
    found = [note for note in said if note.startswith("runtime.workers=4 for 3 cores:")]
    assert len(found) == (cores == 3)


def test_torch_does_not_say_it_again() -> None:
    whole = split()
    made = PreparedImages(whole.images, EACH[0], seed=0, interpolation="bilinear")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        Batches(made, workers=num_cores() + 1, pin_memory=False, seed=0)
    assert said == []
