"""By which mean and standard deviation images are normalised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

import data
from engine.config.schema import Config


@dataclass(frozen=True)
class Normalization:
    """Mean and standard deviation of each channel, of pixels from 0 to 1, and what to say of it."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    remarks: tuple[str, ...] = ()


def normalization(config: Config, dataset: data.LongTailed, backbone: nn.Module) -> Normalization:
    """Return that of the training images, or the one that the weights were trained with.

    A backbone of another number of channels than its weights gets the means over the channels of
    the weights: timm sums the weights of the channels for grey images, which is to show each image
    in all channels.

    Args:
        config: of the run.
        dataset: of the run.
        backbone: with the configuration that timm has of its weights.
    """
    if not config.model.pretrained:
        return Normalization(dataset.mean, dataset.std)
    known: Mapping[str, Any] = getattr(backbone, "pretrained_cfg", {})
    if config.model.normalization == "data" or "mean" not in known or "std" not in known:
        return Normalization(dataset.mean, dataset.std, tuple(_remarks(config, dataset, known)))
    mean, std = (_for_channels(known[key], len(dataset.mean)) for key in ("mean", "std"))
    return Normalization(mean, std, tuple(_remarks(config, dataset, known)))


def _for_channels(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    if len(values) == channels:
        return tuple(float(value) for value in values)
    return (float(sum(values) / len(values)),) * channels


def _remarks(config: Config, dataset: data.LongTailed, known: Mapping[str, Any]) -> Iterator[str]:
    """Say where images are not as the weights know them."""
    if config.model.normalization == "data" and "mean" in known:
        theirs = (_for_channels(known[key], len(dataset.mean)) for key in ("mean", "std"))
        if tuple(theirs) != (dataset.mean, dataset.std):
            yield (
                f"images are normalised by the mean and standard deviation of {dataset.title}; "
                "model.normalization=weights takes those that the weights were trained with"
            )
    elif config.model.normalization == "weights" and "mean" not in known:
        yield "the weights say nothing of their normalisation: that of the data is taken"
    _, *size = known.get("input_size") or (0, 0, 0)
    ours = [dataset.image_shape.height, dataset.image_shape.width]
    if known.get("input_size") and size != ours:
        yield (
            f"the weights were trained on images of {size[0]} x {size[1]} pixels, here they are "
            f"{ours[0]} x {ours[1]}"
        )
