"""A trained run as a function from images to class probabilities, as the run computed them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import data
from engine.prediction.labels import Classes
from engine.training.build import weight_layout
from engine.training.predict_loop import predict
from engine.training.runtime import Precision, choose_device, choose_precision
from engine.training.trained import LoadedRun, load_run, read_facts


@dataclass(frozen=True)
class Model:
    """A loaded run on a device, at the precision that it was evaluated in.

    Attributes:
        folder: the run folder.
        run: whose model is on ``device``.
        facts: what its folder says of its data.
        image_shape: channels, height and width of its images.
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

    @classmethod
    def of(cls, folder: Path, *, rule: str | None, device: str) -> Model:
        """Load the run of a folder.

        Raises:
            ConfigError: it is no whole run, has no weights by that rule, or the device is missing.
        """
        chosen = choose_device(device)
        run = load_run(folder, rule=rule)
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
        )

    @property
    def decoding(self) -> dict[str, Any]:
        """How the run decoded its test files: what decoding takes of the keys of its data set."""
        section = self.run.config.data
        keys = inspect.signature(data.decode).parameters.keys() - {"path"}
        found = {"size": None} | {k: getattr(section, k) for k in keys if hasattr(section, k)}
        return found | {"size": getattr(section, "test_size", None) or found["size"]}

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
        return f"rule {self.run.rule}, weights after epoch {self.run.epoch} of {epochs}"

    def probabilities(self, images: Tensor) -> np.ndarray:
        """Return class probabilities (N, C) float64 of uint8 images (N, channels, H, W).

        They go through the loader and the batch loop of evaluation, without labels.
        """
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
            device=self.device,
            precision=self.precision,
        )
        logits = torch.from_numpy(found.logits).double()
        logits = logits[:, 1:] if self.num_outputs == 1 else logits
        return self.run.readout.predict(logits).numpy()
