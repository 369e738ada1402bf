"""A trained run as a function from images to class probabilities, as the run computed them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

import data
from engine.config import components
from engine.config.mistakes import ConfigError
from engine.config.rules import check
from engine.prediction.labels import Classes
from engine.training.build import data_source, weight_layout
from engine.training.facts import read_facts
from engine.training.predict_loop import predict
from engine.training.probabilities import Probabilities
from engine.training.runtime import Precision, choose_device, choose_precision
from engine.training.trained import LoadedRun, load_run, readout_of


class Answered(NamedTuple):
    """Probabilities (N, C) float64 of N images, and the features (N, D) float32 behind them."""

    probabilities: np.ndarray
    features: np.ndarray


@dataclass(frozen=True)
class Model:
    """A loaded run on a device, at the precision that it was evaluated in.

    Attributes:
        folder: the run folder.
        run: whose model is on ``device``.
        facts: what its folder says of its data.
        image_shape: channels, height and width of its images.
        tau: of the logit adjustment that was asked for in place of the run's own, or None.
        num_outputs: logits of the model, 1 for a binary task with a sigmoid loss.
        device: where it computes.
        precision: in which it computes.
    """

    folder: Path
    run: LoadedRun
    facts: Mapping[str, Any]
    image_shape: data.ImageShape
    num_outputs: int
    device: torch.device
    precision: Precision
    tau: float | None = None

    @classmethod
    def of(cls, folder: Path, *, rule: str | None, device: str, tau: float | None = None) -> Model:
        """Load the run of a folder.

        Args:
            folder: the run folder.
            rule: whose weights; None takes those of the headline.
            device: where it computes.
            tau: adjusts in place of the run's ``evaluate.logit_adjustment``.

        Raises:
            ConfigError: it is no whole run, has no weights by that rule, is adjusted already, or
                the device is missing.
        """
        chosen = choose_device(device)
        run = load_run(folder, rule=rule)
        if tau is not None:
            run = _adjusted(run, read_facts(folder), tau=tau)
        precision = choose_precision(run.config.runtime.precision, chosen)
        run.model.to(chosen).to(memory_format=weight_layout(chosen, precision=precision))
        facts = read_facts(folder)
        return cls(
            folder,
            run,
            facts,
            data.ImageShape(*facts["test_shape"]),
            facts["num_outputs"],
            device=chosen,
            precision=precision,
            tau=tau,
        )

    @property
    def read_image(self) -> Callable[[Path], Tensor]:
        """How the run read its test files: as its data set does, where that has a way of its own.

        Else by what decoding takes of the keys of the data set.
        """
        section = self.run.config.data
        if hasattr(components.class_of("data", section.name), "read_image"):
            read: Callable[[Path], Tensor] = data_source(self.run.config).read_image
            return read
        keys = inspect.signature(data.decode).parameters.keys() - {"path"}
        found = {"size": None} | {k: getattr(section, k) for k in keys if hasattr(section, k)}
        found["size"] = getattr(section, "test_size", None) or found["size"]
        return functools.partial(data.decode, **found)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in label order."""
        return self.run.class_names

    @property
    def classes(self) -> Classes:
        """Return the classes that it can answer with."""
        has_rest = self.run.config.data.one_vs_rest is not None
        return Classes(self.class_names, self.facts["predicted_classes"], has_rest=has_rest)

    @property
    def class_counts(self) -> np.ndarray:
        """Return the training images of each class, (C,)."""
        return np.array(self.facts["class_counts"])

    @property
    def origin(self) -> str:
        """Return in words which weights of the run these are."""
        epochs = self.run.config.schedule.epochs
        adjusted = "" if self.tau is None else f", adjusted with tau {self.tau:g}"
        return f"rule {self.run.rule}, weights after epoch {self.run.epoch} of {epochs}{adjusted}"

    def answer(self, images: Tensor) -> Answered:
        """Return what the run says of uint8 images (N, channels, H, W).

        They go through the loader and the batch loop of evaluation, without labels.
        """
        features: list[Tensor] = []
        keep = self.run.model.register_forward_hook(
            lambda *passed: features.append(passed[-1].features.float().cpu())
        )
        try:
            probabilities = self._probabilities(images)
        finally:
            keep.remove()
        return Answered(probabilities, torch.cat(features).numpy())

    def _probabilities(self, images: Tensor) -> np.ndarray:
        positions = torch.arange(len(images))
        loader = data.Loader(
            data.Split(images, targets=torch.zeros_like(positions), index=positions),
            batch_size=len(images),
            mean=self.run.mean,
            std=self.run.std,
            device=self.device,
            seed=0,
        )
        found = predict(
            self.run.model,
            loader.epoch(positions, epoch=0),
            num_images=len(images),
            device=self.device,
            precision=self.precision,
        )
        is_single = self.num_outputs == 1
        return Probabilities(found.logits, self.run.readout, is_single=is_single).whole()


def _adjusted(run: LoadedRun, facts: Mapping[str, Any], *, tau: float) -> LoadedRun:
    """Return a run that predicts with another ``evaluate.logit_adjustment``.

    Its threshold was found without, and is gone.
    """
    key = "evaluate.logit_adjustment"
    evaluate = run.config.evaluate.model_copy(update={"logit_adjustment": tau})
    config = run.config.model_copy(update={"evaluate": evaluate})
    if mistakes := [line for line in check(config) if line.startswith(key)]:
        raise ConfigError([line.replace(f"{key}=", "--tau ", 1) for line in mistakes])
    return replace(run, readout=readout_of(config, facts), threshold=None)
