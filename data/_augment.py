"""Augmentation of a whole batch of uint8 images where they are, with hashed offsets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import torch
from annotated_types import Ge, Le
from torch import Tensor
from torch.nn import functional as F

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_LARGE = 10_000  # values of an image from which on a CPU mirrors one by one faster
_TOP, _LEFT, _FLIP, _ROW, _COLUMN = range(5)
_NUM_STREAMS = 5  # the one after them seeds what is drawn image by image


@dataclass(frozen=True)
class Augment:
    """Random changes to training images.

    Args:
        crop: Pixels of black padding on each side before a random crop to the old size; 0 is off.
        flip: Mirror an image left to right, with probability 1/2.
        cutout: Side of a square that is painted over (DeVries and Taylor 2017); 0 is off.
        resized_crop: Smallest share of the image's area that a random crop has, which is resized
            to the size of the images (Szegedy et al. 2015); 0 is off.
        policy: torchvision's RandAugment (Cubuk et al. 2020) or TrivialAugmentWide (Müller and
            Hutter 2021) at their standard settings, image by image; but no shift exceeds 45 % of a
            side.
        color_jitter: How far brightness, contrast and saturation may be from 1; 0 is off.
        views: How many versions of an image there are: its draws take them in turn, epoch by epoch;
            null makes a new one every time.
    """

    crop: Annotated[int, Ge(0)] = 0
    flip: bool = False
    cutout: Annotated[int, Ge(0)] = 0
    resized_crop: Annotated[float, Ge(0), Le(1)] = 0.0
    policy: Literal["none", "randaugment", "trivialaugment"] = "none"
    color_jitter: Annotated[float, Ge(0)] = 0.0
    views: Annotated[int, Ge(1)] | None = None

    def __bool__(self) -> bool:
        return self.crop > 0 or self.flip or self.cutout > 0 or self.is_by_image

    @property
    def is_by_image(self) -> bool:
        """Whether some of it works image by image, in worker processes."""
        return self.resized_crop > 0 or self.policy != "none" or self.color_jitter > 0


class Offsets(NamedTuple):
    """What is drawn for each of B images, int64 (B,)."""

    top: Tensor
    left: Tensor
    flip: Tensor
    row: Tensor
    column: Tensor


def draw_offsets(
    index: Tensor, *, seed: int, epoch: int, crop: int, height: int, width: int
) -> Offsets:
    """Draw the offsets of images ``index`` (B,) by hashing (seed, epoch, index, stream).

    For many batches at once: its constants come from the host, for whose copies a GPU would have
    to wait at every step.

    The hash is the finaliser of splitmix64 (Steele et al. 2014) in wrapping int64 arithmetic, so
    it is the same on every device and for any make-up of the batch. ``top`` and ``left`` lie in
    0..2*crop, ``flip`` in 0..1, ``row`` and ``column`` (the cutout's centre) inside the image.
    """
    streams = [_signed(_stream(stream, seed=seed, epoch=epoch)) for stream in range(_NUM_STREAMS)]
    start = torch.tensor(streams, device=index.device)[:, None]
    bits = _logical_shift(_mix(start + index * _signed(_GOLDEN)), 33)
    bounds = [2 * crop + 1, 2 * crop + 1, 2, height, width]
    drawn = (bits * torch.tensor(bounds, device=index.device)[:, None]) >> 31
    return Offsets(drawn[_TOP], drawn[_LEFT], drawn[_FLIP], drawn[_ROW], drawn[_COLUMN])


def image_seed(key: int, *, seed: int, epoch: int) -> int:
    """Return the seed, below 2^63, of what is drawn for one image, by the same hash."""
    start = _stream(_NUM_STREAMS, seed=seed, epoch=epoch)
    return _mix_int(start + key * _GOLDEN) >> 1


def _stream(stream: int, *, seed: int, epoch: int) -> int:
    """Return where the hash of a stream starts in this epoch."""
    base = _mix_int(_mix_int(seed + _GOLDEN) ^ (epoch * _GOLDEN & _MASK))
    return _mix_int(base + stream * _GOLDEN)


def augment_batch(
    images: Tensor,
    offsets: Offsets,
    *,
    crop: int = 0,
    flip: bool = False,
    cutout: int = 0,
    fill: Tensor | None = None,
) -> Tensor:
    """Crop, mirror and cut out a batch, each image by its own offsets.

    Equals, image by image, torchvision's RandomCrop with zero padding, then
    RandomHorizontalFlip, then a square painted over, with the offsets of :func:`draw_offsets`.

    Args:
        images: uint8 (B, C, H, W).
        offsets: What was drawn for the images, for the same crop.
        crop: Pixels of zero padding on each side before cropping to (H, W).
        flip: Whether every second image is mirrored.
        cutout: Side of the square; its centre is uniform, so that it may be clipped.
        fill: uint8 (C,), colour of the square; None is black. The paper paints zeros after
            normalisation, which is the mean colour.

    Returns:
        uint8 (B, C, H, W); ``images`` itself where nothing is asked for.
    """
    height, width = images.shape[-2:]
    if crop or flip:
        images = _crop_and_flip(images, offsets, crop=crop, flip=flip)
    if cutout:
        hit = _covered(offsets.row, length=height, side=cutout)[:, None, :, None]
        hit = hit & _covered(offsets.column, length=width, side=cutout)[:, None, None, :]
        colour = images.new_zeros(images.shape[1]) if fill is None else fill
        images = torch.where(hit, colour[:, None, None], images)
    return images


def _crop_and_flip(images: Tensor, offsets: Offsets, *, crop: int, flip: bool) -> Tensor:
    """Gather rows and columns of the padded images; uint8, so a quarter of float32's traffic."""
    if images.is_cpu and not crop:
        return _mirrored(images, offsets.flip.bool())
    batch, channels, height, width = images.shape
    device = images.device
    columns = torch.arange(width, device=device).expand(batch, width)
    if flip:
        columns = torch.where(offsets.flip[:, None].bool(), columns.flip(-1), columns)
    if not crop:
        return images.gather(3, columns[:, None, None, :].expand_as(images))
    padded = F.pad(images, (crop, crop, crop, crop))
    rows = torch.arange(height, device=device) + offsets.top[:, None]
    columns = columns + offsets.left[:, None]
    full_height, full_width = padded.shape[-2:]
    planes = torch.arange(batch * channels, device=device).view(batch, channels, 1) * full_height
    picked = padded.view(-1, full_width).index_select(0, (planes + rows[:, None, :]).flatten())
    picked = picked.view(batch, channels, height, full_width)
    return picked.gather(3, columns[:, None, None, :].expand(batch, channels, height, width))


def _mirrored(images: Tensor, is_mirrored: Tensor) -> Tensor:
    """Mirror some images; a GPU would have to wait until it is known here how many these are."""
    if math.prod(images.shape[1:]) >= _LARGE:
        whole = torch.empty_like(images)
        for row, is_turned in enumerate(is_mirrored.tolist()):
            whole[row] = images[row].flip(-1) if is_turned else images[row]
        return whole
    whole = images.clone()
    rows = is_mirrored.nonzero().flatten()
    whole[rows] = images[rows].flip(-1)
    return whole


def _covered(centre: Tensor, *, length: int, side: int) -> Tensor:
    """Return which of ``length`` pixels a square around ``centre`` (B,) covers, (B, length)."""
    first = (centre - side // 2)[:, None]
    pixels = torch.arange(length, device=centre.device)
    return (pixels >= first) & (pixels < first + side)


def _mix(bits: Tensor) -> Tensor:
    """Apply splitmix64's finaliser to int64 values."""
    bits = (bits ^ _logical_shift(bits, 30)) * _signed(_MIX_1)
    bits = (bits ^ _logical_shift(bits, 27)) * _signed(_MIX_2)
    return bits ^ _logical_shift(bits, 31)


def _mix_int(bits: int) -> int:
    """Apply splitmix64's finaliser to one unsigned 64-bit value."""
    bits &= _MASK
    bits = (bits ^ (bits >> 30)) * _MIX_1 & _MASK
    bits = (bits ^ (bits >> 27)) * _MIX_2 & _MASK
    return bits ^ (bits >> 31)


def _logical_shift(bits: Tensor, by: int) -> Tensor:
    """Shift right with zeros coming in; torch's own shift of int64 copies the sign."""
    return (bits >> by) & ((1 << (64 - by)) - 1)


def _signed(bits: int) -> int:
    """Return the int64 with the same 64 bits."""
    return bits - (1 << 64) if bits >> 63 else bits
