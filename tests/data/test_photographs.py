"""Photographs: decoding, geometry of training and test, workers that stay."""

from __future__ import annotations

import dataclasses
import errno
import io
import multiprocessing
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from timm.data.transforms_factory import transforms_imagenet_eval
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from data import (
    Augment,
    DataError,
    DiskImages,
    Imbalance,
    Loader,
    LongTailed,
    Split,
    Validation,
    _jpeg,
    build,
    image_hashes,
)
from data._base import Decoding, ImageShape, Interpolation, Size
from data._decode import decode, stored_shape
from data._jpeg import decode_jpeg, decode_upper_rows, frame_of
from data.image_folder import ImageFolder

RECIPE = Augment(resized_crop=0.2, flip=True, color_jitter=0.3)


def photograph(*, width: int = 61, height: int = 43, seed: int = 0) -> Image.Image:
    """Draw colours that change slowly, edges and some noise."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    smooth[height // 3 : height // 2, width // 4 : width // 2] = (250, 5, 120)
    noisy = smooth + rng.integers(-6, 7, smooth.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def by_pillow(content: bytearray) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).transpose(2, 0, 1)


def jpeg(image: Image.Image, **options: Any) -> bytearray:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return bytearray(buffer.getvalue())


# --- decoding -------------------------------------------------------------------------------------


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_fast_decoder_gives_pillows_pixels(
    mode: str, subsampling: int, *, progressive: bool
) -> None:
    kind = {"subsampling": subsampling} if mode == "RGB" else {}
    for quality in (30, 95):
        content = jpeg(photograph().convert(mode), quality=quality, progressive=progressive, **kind)
        found = decode_jpeg(content, most_pixels=None)
        assert found is not None
        assert np.array_equal(found.numpy(), by_pillow(content))
        frame = frame_of(content)
        assert frame is not None
        assert (frame.size, frame.bits, frame.components) == ((43, 61), 8, len(mode))
        assert frame.is_sequential is not progressive


def scan_by_colour() -> bytearray:
    """Put the three planes of a photograph into a sequential JPEG one after the other."""
    planes = [jpeg(plane) for plane in photograph().convert("YCbCr").split()]
    start = planes[0].index(b"\xff\xc0")  # the frame header: 8 bits, 43 x 61, 1 component
    frame = b"\xff\xc0\0\x11" + planes[0][start + 4 : start + 9] + b"\3"
    frame += b"".join(bytes([number, 0x11, 0]) for number in (1, 2, 3))
    content = planes[0][:start] + frame
    for number, plane in enumerate(planes, 1):
        scan = plane.index(b"\xff\xda")
        if number == 1:
            content += plane[start + 13 : scan]  # the Huffman tables
        content += plane[scan : scan + 5] + bytes([number]) + plane[scan + 6 : -2]
    return content + b"\xff\xd9"


@pytest.mark.parametrize("restarts", [0, 1, 3])
@pytest.mark.parametrize("subsampling", ["grey", "4:4:4", "4:2:2", "4:2:0", "4:1:1"])
def test_the_upper_rows_are_those_of_the_whole_image(
    subsampling: str, restarts: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """For every last row of a crop; and of what libjpeg has to say about it, nothing is shown."""
    image = photograph(width=37, height=53)
    kind = {} if subsampling == "grey" else {"subsampling": subsampling}
    image = image.convert("L") if subsampling == "grey" else image
    content = jpeg(image, quality=95, restart_marker_blocks=restarts, **kind)
    before = bytes(content)
    frame = frame_of(content)
    whole = by_pillow(content)
    assert frame is not None
    for rows in range(1, 54):
        found = decode_upper_rows(content, frame, rows=rows)
        assert found is not None
        assert found.shape[1] == min(rows + 1, 53) if rows < 52 else 53
        assert np.array_equal(found[:, :rows].numpy(), whole[:, :rows])
    assert content == before
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("scans", ["progressive", "one a colour"])
def test_the_upper_rows_are_right_where_a_file_has_several_scans(scans: str) -> None:
    is_progressive = scans == "progressive"
    content = jpeg(photograph(), progressive=True) if is_progressive else scan_by_colour()
    frame = frame_of(content)
    assert frame is not None
    found = decode_upper_rows(content, frame, rows=9)
    assert found is not None
    assert np.array_equal(found[:, :9].numpy(), by_pillow(content)[:, :9])


def test_a_file_cut_below_the_upper_rows_is_found_out() -> None:
    whole = jpeg(photograph(), quality=95)
    frame = frame_of(whole)
    assert frame is not None
    assert decode_upper_rows(whole[: len(whole) * 3 // 4], frame, rows=3) is None


def test_damage_within_the_upper_rows_is_hinted_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    content = jpeg(photograph(), quality=95)
    middle = len(content) // 2
    content[middle : middle + 2] = b"\xff\xd9"  # the end of the image, too early
    frame = frame_of(content)
    assert frame is not None
    assert decode_upper_rows(content, frame, rows=35) is not None
    assert capfd.readouterr().err == "Corrupt JPEG data: premature end of data segment\n"


def test_what_another_thread_prints_while_upper_rows_are_decoded_comes_out(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = jpeg(photograph(), quality=95)
    frame = frame_of(content)
    assert frame is not None
    decoded = _jpeg._decoded

    def decoded_beside_a_failing_thread(content: bytearray) -> Tensor | None:
        thread = threading.Thread(target=os.write, args=(2, b"a thread has failed\n"))
        thread.start()
        thread.join()
        return decoded(content)

    monkeypatch.setattr(_jpeg, "_decoded", decoded_beside_a_failing_thread)
    for _ in range(2):
        assert decode_upper_rows(content, frame, rows=3) is not None
        assert capfd.readouterr().err == "a thread has failed\n"


def test_only_a_closed_standard_error_is_taken_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    content = jpeg(photograph(), quality=95)
    before, frame = bytes(content), frame_of(content)
    assert frame is not None

    def failing(number: int) -> Callable[[int], int]:
        def dup(_: int) -> int:
            raise OSError(number, os.strerror(number))

        return dup

    monkeypatch.setattr(os, "dup", failing(errno.EMFILE))
    with pytest.raises(OSError, match="Too many open files"):
        decode_upper_rows(content, frame, rows=3)
    assert content == before
    monkeypatch.setattr(os, "dup", failing(errno.EBADF))
    assert decode_upper_rows(content, frame, rows=3) is not None


def test_a_comment_fill_bytes_and_bytes_after_the_end_do_not_matter() -> None:
    plain = jpeg(photograph(), comment=b"\xff\xd8\xff" * 30)
    for content in (plain, plain[:2] + b"\xff\xff" + plain[2:], plain + b"more"):
        found = decode_jpeg(content, most_pixels=None)
        assert found is not None
        assert np.array_equal(found.numpy(), by_pillow(plain))


def test_unusual_damaged_and_huge_files_are_left_to_pillow(tmp_path: Path) -> None:
    cmyk = jpeg(photograph().convert("CMYK"))
    assert decode_jpeg(cmyk, most_pixels=None) is None
    (tmp_path / "cmyk.jpg").write_bytes(cmyk)
    assert np.array_equal(decode(tmp_path / "cmyk.jpg", size=None).numpy(), by_pillow(cmyk))
    whole = jpeg(photograph())
    for cut in (2, 3, 20, len(whole) // 2, len(whole) - 2):
        assert decode_jpeg(whole[:cut], most_pixels=None) is None
        (tmp_path / "cut.jpg").write_bytes(whole[:cut])
        with pytest.raises(DataError, match=r"cut\.jpg cannot be read as an image"):
            decode(tmp_path / "cut.jpg", size=None)
    assert decode_jpeg(whole, most_pixels=43 * 61 - 1) is None
    assert decode_jpeg(whole, most_pixels=43 * 61) is not None


@pytest.mark.parametrize("kind", ["jpg", "png", "tif"])
def test_an_orientation_is_applied_where_the_key_says_so(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"photo.{kind}"
    for orientation in range(10):
        exif = Image.Exif()
        exif[274] = orientation
        photograph().save(path, exif=exif)
        upright = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        found = decode(path, size=None, exif_orientation=True)
        assert np.array_equal(found.numpy(), np.asarray(upright).transpose(2, 0, 1))
        assert stored_shape(path, exif_orientation=True) == found.shape
        assert stored_shape(path) == decode(path, size=None).shape


def test_images_on_disk_are_hashed_upright_where_the_key_says_so(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    photograph().save(tmp_path / "photo.png", exif=exif)
    ImageOps.exif_transpose(Image.open(tmp_path / "photo.png")).save(tmp_path / "upright.png")
    names = np.array([b"photo.png", b"upright.png"])

    def hashes(decoding: Decoding) -> list[int]:
        shape = ImageShape(3, 8, 8)
        images = DiskImages(tmp_path, names, np.zeros(2, dtype=np.int64), shape, decoding)
        return image_hashes(images).tolist()

    decoding = Decoding(Size(8, 8), crop_ratio=0.5, exif_orientation=True)
    turned, upright = hashes(decoding)
    in_memory = decode(tmp_path / "upright.png", **vars(decoding))[None]
    assert [turned] == [upright] == image_hashes(in_memory).tolist()
    assert hashes(dataclasses.replace(decoding, exif_orientation=False))[0] != upright


def test_images_on_disk_are_hashed_by_the_grey_bits_in_use(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 4096, (16, 18)).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    Image.fromarray((values >> 4).astype(np.uint8)).save(tmp_path / "usual.png")
    names, sizes = np.array([b"deep.png", b"usual.png"]), np.zeros(2, dtype=np.int64)
    decoding = Decoding(grey_bits=12)
    first, second = image_hashes(
        DiskImages(tmp_path, names, sizes, ImageShape(3, 16, 18), decoding)
    )
    assert first == second


# --- geometry -------------------------------------------------------------------------------------


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("width", [43, 61, 20])
def test_the_test_image_is_timms(tmp_path: Path, width: int, interpolation: Interpolation) -> None:
    path = tmp_path / "photo.png"
    photograph(width=width).save(path)
    timms = transforms_imagenet_eval(
        img_size=16, crop_pct=0.875, interpolation=interpolation, use_prefetcher=True
    )
    expected = timms(Image.open(path))
    found = decode(path, size=16, crop_ratio=0.875, interpolation=interpolation)
    assert np.array_equal(found.numpy(), np.asarray(expected))


def test_height_and_width_cover_the_image_and_keep_its_centre(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    photograph(width=60, height=40).save(path)
    half = decode(path, size=(20, 30)).numpy()
    resized = Image.open(path).resize((30, 20), Image.Resampling.BILINEAR)
    assert np.array_equal(half, np.asarray(resized).transpose(2, 0, 1))
    assert np.array_equal(decode(path, size=(20, 12)).numpy(), half[:, :, 9:21])
    assert np.array_equal(decode(path, size=(10, 30)).numpy(), half[:, 5:15])


@pytest.mark.parametrize(("interpolation", "most"), [("bilinear", 1), ("bicubic", 8)])
def test_random_crops_are_within_the_stated_levels_of_pillows(
    interpolation: str, most: int
) -> None:
    """As docs/data.md states it."""
    image = photograph(width=320, height=240)
    pixels = torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy())
    how = InterpolationMode(interpolation)
    for box in ([0, 0, 240, 320], [10, 33, 51, 70], [100, 5, 64, 300], [3, 7, 200, 90]):
        found = transforms.resized_crop(pixels, *box, [64, 64], interpolation=how).int()
        by_pil = np.asarray(transforms.resized_crop(image, *box, [64, 64], interpolation=how))
        far = (found - torch.from_numpy(by_pil.transpose(2, 0, 1).copy())).abs()
        assert far.max() <= most
        assert (far > 1).float().mean() < 0.01


# --- the same recipe, wherever images live --------------------------------------------------------


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder above ``photos``: JPEGs of several sizes, and one that is CMYK."""
    root = tmp_path_factory.mktemp("root")
    for part, count in (("train", 9), ("test", 2)):
        for name in ("cat", "dog"):
            (root / "photos" / part / name).mkdir(parents=True)
            for number in range(count):
                seed = len(part) * 100 + len(name + part) * 10 + number + ord(name[0])
                image = photograph(width=40 + number, height=50 - 3 * number, seed=seed)
                image = image.convert("CMYK") if number == 1 else image
                image.save(root / "photos" / part / name / f"{number}.jpg")
    return root


def dataset(photos: Path, *, cache_gb: float, **keys: Any) -> LongTailed:
    source = ImageFolder(
        photos, path=str(photos / "photos"), cache_gb=cache_gb, normalize="imagenet", **keys
    )
    return build(source, imbalance=Imbalance("none"), validation=Validation(None, 0.3))


def loader(split: Any, *, workers: int = 0, augment: Augment | None = None) -> Loader:
    return Loader(
        split,
        batch_size=4,
        mean=(0.0,) * 3,
        std=(1 / 255,) * 3,
        device=torch.device("cpu"),
        seed=0,
        augment=augment,
        interpolation="bicubic",
        workers=workers,
    )


def served(split: Any, *, workers: int = 0, augment: Augment | None = None) -> torch.Tensor:
    subject = loader(split, workers=workers, augment=augment)
    return torch.cat([b.images for b in subject.epoch(torch.arange(len(split)), epoch=1)])


KEYS = {"size": (16, 20), "test_size": 24, "crop_ratio": 0.8, "interpolation": "bicubic"}


@pytest.mark.parametrize("augment", [Augment(), RECIPE], ids=["plain", "recipe"])
def test_the_cache_changes_no_pixel_of_any_split(photos: Path, augment: Augment) -> None:
    cached, on_disk = (dataset(photos, cache_gb=gb, **KEYS) for gb in (1, 0))
    assert not isinstance(cached.train.images, DiskImages)
    assert cached.image_shape == on_disk.image_shape == (3, 16, 20)
    assert cached.test_shape == on_disk.test_shape == (3, 24, 24)
    expected = served(on_disk.train, augment=augment)
    assert expected.shape[1:] == (3, 16, 20)
    assert torch.equal(served(cached.train, augment=augment), expected)
    assert torch.equal(served(cached.train, augment=augment, workers=2), expected)
    assert cached.val is not None and on_disk.val is not None
    for ours, theirs in ((cached.val, on_disk.val), (cached.test, on_disk.test)):
        assert torch.equal(served(ours), served(theirs))


def test_validation_images_drawn_from_training_are_prepared_as_test_images(photos: Path) -> None:
    for cache_gb in (1, 0):
        found = dataset(photos, cache_gb=cache_gb, **KEYS)
        files = dataset(photos, cache_gb=0, **KEYS).val
        assert found.val is not None and files is not None
        assert isinstance(files.images, DiskImages)
        expected = decode(files.images.path(0), size=24, crop_ratio=0.8, interpolation="bicubic")
        assert torch.equal(served(found.val)[0], expected.float())


def test_crops_of_training_show_more_than_the_cached_centre(photos: Path) -> None:
    found = dataset(photos, cache_gb=1, size=8)
    assert found.train.trained_on(whole=False) is found.train.images
    files = found.train.trained_on(whole=True)
    assert isinstance(files, DiskImages)
    assert len(files) == len(found.train)
    assert found.test.files is None


# --- workers --------------------------------------------------------------------------------------


def test_workers_are_started_once_and_ended_by_close(photos: Path) -> None:
    before = set(multiprocessing.active_children())
    subject = loader(dataset(photos, cache_gb=0, size=8).train, workers=2)
    started = []
    for epoch in range(3):
        batches = subject.epoch(torch.arange(8), epoch=epoch)
        next(batches)
        started.append({child.pid for child in set(multiprocessing.active_children()) - before})
        if epoch != 1:  # the second epoch is left unfinished
            assert len(list(batches)) == 1
    assert len(started[0]) == 2
    assert started[0] == started[1] == started[2]
    del batches
    subject.close()
    assert set(multiprocessing.active_children()) <= before


def test_a_file_that_cannot_be_read_leaves_no_worker_behind(photos: Path, tmp_path: Path) -> None:
    before = set(multiprocessing.active_children())
    files = dataset(photos, cache_gb=0, size=8).train.images
    assert isinstance(files, DiskImages)
    (tmp_path / "cut.jpg").write_bytes(jpeg(photograph())[:300])
    images = dataclasses.replace(files, folder=tmp_path, names=np.array([b"cut.jpg"]))
    one = torch.zeros(1, dtype=torch.int64)
    subject = loader(Split(images, one, one), workers=1, augment=RECIPE)
    with pytest.raises(DataError, match=r"cut\.jpg cannot be read as an image"):
        next(subject.epoch(one, epoch=0))
    subject.close()
    assert set(multiprocessing.active_children()) <= before


def test_an_epoch_that_another_has_ended_says_so(photos: Path) -> None:
    subject = loader(dataset(photos, cache_gb=0, size=8).train, augment=RECIPE)
    first = subject.epoch(torch.arange(12), epoch=0)
    next(first)
    next(subject.epoch(torch.arange(12), epoch=1))
    with pytest.raises(RuntimeError, match="another epoch of this loader has begun"):
        next(first)
