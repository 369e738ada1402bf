"""The weights below a lightly tuned model: checkpoints name and hash them, and hold no copy."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import models
from engine.config import choices, derived
from engine.config.mistakes import ConfigError, mistakes_of
from engine.config.schema import Config
from engine.training.weights_hash import bytes_of, weights_hash

WEIGHTS = ("model", "ema")  # the state dicts of a checkpoint, beside those that rules keep


@dataclass(frozen=True)
class Base:
    """The tensors of a model that training leaves alone, as they were before it.

    They are those that the source has byte for byte. What is computed from it, as a filter for
    grey images, a position embedding of another size or a merged product, may come out otherwise
    in the last bit on another kind of processor, and is kept in the checkpoints.

    Attributes:
        name: where they can be had again, in words.
        hash: of all tensors of the source, before anything is done to them.
        former_hash: as checkpoints recorded it before shapes and types were in it.
        state: by their names in the model; buffers too, of which some may change.
        order: the names of all tensors of the model.
    """

    name: str
    hash: str
    former_hash: str
    state: Mapping[str, Tensor]
    order: tuple[str, ...]

    def without(self, checkpoint: Mapping[str, Any]) -> dict[str, Any]:
        """Return a checkpoint without the tensors that are still those of the base."""
        return {**_each(checkpoint, self._changed), "base": {"name": self.name, "hash": self.hash}}

    def within(self, checkpoint: Mapping[str, Any], *, where: str) -> dict[str, Any]:
        """Return a checkpoint with the tensors that were left out of it.

        Args:
            checkpoint: what :meth:`without` returned, of a base with the same source.
            where: begins the message.

        Raises:
            ConfigError: it was of other weights.
        """
        if (recorded := checkpoint["base"])["hash"] not in (self.hash, self.former_hash):
            raise ConfigError(
                [
                    f"{where}: was trained on other weights ({recorded['name']}, hash "
                    f"{recorded['hash']}) than these ({self.name}, hash {self.hash}); put the old "
                    "ones back, or use --fresh"
                ]
            )
        return _each(checkpoint, self._whole)

    def _changed(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            key: value
            for key, value in state.items()
            if key not in self.state or not torch.equal(value.cpu(), self.state[key])
        }

    def _whole(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {key: state[key] if key in state else self.state[key] for key in self.order}


def _each(checkpoint: Mapping[str, Any], change: Any) -> dict[str, Any]:
    """Return a checkpoint whose state dicts are changed: final, averaged, and kept by a rule."""
    changed = {key: None if checkpoint[key] is None else change(checkpoint[key]) for key in WEIGHTS}
    best = {
        rule: {**kept, "state": change(kept["state"])} for rule, kept in checkpoint["best"].items()
    }
    return {**checkpoint, **changed, "best": best}


def base_of(
    config: Config, model: models.Classifier, *, named: Mapping[str, Tensor] | None
) -> Base | None:
    """Return what the checkpoints of a run need not hold; None where they must hold all.

    A backbone that begins with random weights is kept whole: another version of a library might
    draw others. So are the mean of several runs and weights of JAX, which have other shapes.

    Args:
        config: of the run.
        model: at the weights that it starts from.
        named: weights of the one run that ``model.init_from`` names, as they were trained.

    Raises:
        ConfigError: the pretrained weights are not there any more.
    """
    is_light = config.model.freeze or config.model.tune != choices.of("model.tune").default
    is_mean = isinstance(config.model.init_from, tuple)
    if not is_light or is_mean or not derived.begins_trained(config):
        return None
    source = _source(config) if named is None else named
    if not source:
        return None
    digests = {key: _digest(value) for key, value in source.items()}
    known = frozenset(digests.values())
    trained = {key for key, value in model.named_parameters() if value.requires_grad}
    whole = model.state_dict()
    copied = {
        key: value.detach().to("cpu", copy=True)
        for key, value in whole.items()
        if key.startswith("backbone.") and key not in trained and _digest(value) in known
    }
    return Base(_origin(config), weights_hash(source), _joined(digests), copied, tuple(whole))


def _source(config: Config) -> Mapping[str, Tensor]:
    with mistakes_of(models.ModelError):
        return models.source_weights(config.model.name, pretrained=config.model.pretrained)


def _digest(value: Tensor) -> bytes:
    """Hash the values of a tensor, which a file may hold in another precision or shape."""
    value = value.float() if value.is_floating_point() else value
    return hashlib.sha256(bytes_of(value)).digest()


def _joined(digests: Mapping[str, bytes]) -> str:
    """Return 12 hex digits over names and values."""
    joined = hashlib.sha256()
    for key in sorted(digests):
        joined.update(key.encode() + b"\0" + digests[key])
    return joined.hexdigest()[:12]


def _origin(config: Config) -> str:
    if config.model.init_from is not None:
        return f"model.init_from={config.model.init_from}"
    if isinstance(config.model.pretrained, str):
        return f"model.pretrained={config.model.pretrained}"
    return f"timm's weights of {config.model.name}"
