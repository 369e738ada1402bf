"""Back from a run folder: its weights, what its data were, and its model, ready to predict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import data
import losses
import models
from engine.config.homes import expanded
from engine.config.load import load_run_config
from engine.config.mistakes import ConfigError, mistakes_of, nearest
from engine.config.schema import Config
from engine.config.selection_rules import FINAL, catalogue
from engine.training import checkpoint
from engine.training.base_weights import Base, base_of
from engine.training.build import architecture, build_loss, build_readout, num_outputs
from engine.training.facts import read_facts
from engine.training.files import read_json
from engine.training.image_checks import brightest
from engine.training.probabilities import Readout
from engine.training.runtime import preserved_randomness
from engine.training.selection import Kept, headline_of
from engine.training.teacher import Teacher
from engine.training.weights_hash import file_hashes, weights_hash


@dataclass(frozen=True)
class Weights:
    """A state dict, the selection rule that chose it, and the epoch (1-based) it is from."""

    rule: str
    epoch: int
    state: dict[str, Tensor]


def load_weights(run: str | Path, *, rule: str | None = None) -> Weights:
    """Return a run folder's weights by a selection rule.

    Args:
        run: the run folder.
        rule: which; None takes that of the headline: ``val`` where the run has it, else ``last``.

    Raises:
        ConfigError: no finished epoch, no whole checkpoint, no such rule, or no weights by it.
    """
    if rule is not None and rule not in catalogue():
        hint = nearest(rule, catalogue())
        raise ConfigError([f"rule={rule}: unknown{hint}; one of {', '.join(catalogue())}"])
    folder = Path(run).expanduser() / "checkpoints"
    state, problems, _ = checkpoint.load_latest(folder)
    if state is None:
        raise ConfigError(problems or [f"{folder}: no checkpoint there"])
    if state["epoch"] == 0:
        raise ConfigError(
            [f"{run}: was stopped in its first epoch; run its own command to resume it"]
        )
    if "base" in state:
        state = _base_of_run(Path(run).expanduser()).within(state, where=str(run))
    best: Mapping[str, Kept] = state["best"]
    rule = rule or headline_of(best)
    if rule in best:
        return Weights(rule, best[rule]["epoch"], best[rule]["state"])
    if rule != FINAL:
        kept = ", ".join([FINAL, *best])
        raise ConfigError([f"{run}: has no weights by rule {rule}; it has those of {kept}"])
    return Weights(rule, state["epoch"], checkpoint.final_weights(state))


@dataclass(frozen=True)
class LoadedRun:
    """A trained classifier, as :func:`load_run` found it.

    Attributes:
        model: in eval mode; normalised images to ``(logits, features)``.
        class_names: in label order.
        config: of the run.
        epoch: after which these weights were taken.
        rule: the selection rule that chose them.
        image_shape: (channels, height, width) of the images it predicts, those of its test.
        threshold: of a finished run of two classes with validation: the probability from which on
            class 1 is predicted, chosen for F1 on validation, weighed to the class shares of the
            data set's whole training list; else None.
    """

    model: models.Classifier
    class_names: tuple[str, ...]
    config: Config
    epoch: int
    rule: str
    image_shape: tuple[int, int, int]
    readout: Readout
    mean: tuple[float, ...]
    std: tuple[float, ...]
    threshold: float | None = None

    @torch.no_grad()
    def predict(
        self, images: Tensor, *, max_value: float | None = None, batch_size: int = 256
    ) -> Tensor:
        """Return class probabilities (N, C) float64, on the CPU.

        Args:
            images: (N, channels, height, width), uint8; or floats, with ``max_value``.
            max_value: full brightness in float images: 1 or 255.
            batch_size: images that go through the model at once.

        Raises:
            TypeError: the images are not a tensor.
            ValueError: their shape, their type or their values do not fit the model.
        """
        white = brightest(images, shape=self.image_shape, max_value=max_value)
        device = next(self.model.parameters()).device
        mean, std = (
            torch.tensor(v, device=device).view(1, -1, 1, 1) for v in (self.mean, self.std)
        )
        found = []
        for batch in images.split(batch_size):
            logits = self.model((batch.to(device).float() / white - mean) / std).logits
            found.append(self.readout.predict(logits.double().cpu()))
        return torch.cat(found)


def load_run(
    path: str | Path, *, rule: str | None = None, device: str | torch.device = "cpu"
) -> LoadedRun:
    """Load a run folder for inference.

    Args:
        path: the run folder.
        rule: the selection rule whose weights are loaded; None takes that of the headline.
        device: where it predicts.

    Raises:
        ConfigError: no run folder, no finished epoch, no whole checkpoint, no such rule, or no
            weights by it.

    Three lines::

        run = load_run("runs/digits/0123456789ab")
        probabilities = run.predict(images)                       # uint8 (N, channels, H, W)
        names = [run.class_names[c] for c in probabilities.argmax(1)]

    A binary run, by the threshold that was chosen for F1 rather than 0.5::

        is_positive = probabilities[:, 1] >= run.threshold
    """
    path = expanded(path)
    config = load_run_config(path, check_named_runs=False)
    weights = load_weights(path, rule=rule)
    facts = read_facts(path)
    with preserved_randomness():
        model = _built(config, facts)
    model.load_state_dict(weights.state)
    return LoadedRun(
        model=model.to(device).eval(),
        class_names=tuple(facts["class_names"]),
        config=config,
        epoch=weights.epoch,
        rule=weights.rule,
        image_shape=tuple(facts["test_shape"]),
        readout=readout_of(config, facts),
        mean=tuple(facts["mean"]),
        std=tuple(facts["std"]),
        threshold=_threshold(path, weights.rule),
    )


def _built(
    config: Config, facts: Mapping[str, Any], *, pretrained: bool | str = False
) -> models.Classifier:
    channels, *size = facts["image_shape"]
    return models.build(
        config.model.name,
        num_outputs=facts["num_outputs"],
        in_channels=channels,
        image_size=tuple(size),
        pretrained=pretrained,
        freeze=config.model.freeze,
        **architecture(config),
    )


def _base_of_run(run: Path) -> Base:
    """Return the weights below a lightly tuned run, from where it had them.

    Raises:
        ConfigError: they are not there any more.
    """
    config, facts = load_run_config(run, check_named_runs=False), read_facts(run)
    named = None
    try:
        with mistakes_of(models.ModelError), preserved_randomness():
            model = _built(config, facts, pretrained=config.model.pretrained)
        if isinstance(config.model.init_from, str):
            weights = load_weights(config.model.init_from)
            start, own = start_state(config.model.init_from, weights), model.state_dict()
            named = weights.state
            below = {key: start[key] for key in own if key in start and not key.startswith("head.")}
            model.load_state_dict({**own, **below})
        base = base_of(config, model, named=named)
    except ConfigError as error:
        raise ConfigError(
            [f"{run}: holds only what it has trained, and of the rest: {error.mistakes[0]}"]
        ) from error
    assert base is not None
    return base


def start_state(run: str | Path, weights: Weights | None = None) -> dict[str, Tensor]:
    """Return the weights of a run as another starts from them: low-rank products are merged.

    Args:
        run: the run folder.
        weights: of it, where the caller has them; None loads those of the headline.
    """
    state = (weights or load_weights(run)).state
    earlier = load_run_config(run, check_named_runs=False).model
    if earlier.tune != "lora":  # goes on from the same function, whatever is trained now
        return state
    return models.merged(state, scale=earlier.lora_alpha / earlier.lora_rank)


def readout_of(config: Config, facts: Mapping[str, Any]) -> Readout:
    """Return what turns a run's logits into probabilities, without its model.

    Args:
        config: of the run.
        facts: from :func:`read_facts`.
    """
    return build_readout(
        config,
        loss_of(config, facts),
        class_counts=torch.tensor(facts["class_counts"]),
        classes=facts["predicted_classes"],
    )


def loss_of(config: Config, facts: Mapping[str, Any]) -> losses.Loss:
    """Return the loss that a run was trained with, for its reading of logits.

    Args:
        config: of the run.
        facts: from :func:`read_facts`.
    """
    return build_loss(
        config,
        torch.tensor(facts["class_counts"]),
        tuple(facts["class_names"]),
        taught=facts["taught_classes"],
    )


def _threshold(run: Path, rule: str) -> float | None:
    """Return the threshold that a summary has for a rule; None where the run is not finished."""
    summary = read_json(run / "summary.json") or read_json(run / "validation.json") or {}
    found: float | None = summary.get("rules", {}).get(rule, {}).get("threshold")
    return found


def load_teacher(run: str | Path) -> Teacher:
    """Load the headline weights of a run as a teacher."""
    found = load_run(run)
    return Teacher(found.model, loss_of(found.config, read_facts(Path(run).expanduser())))


def known_names(facts: Mapping[str, Any]) -> list[str]:
    """Return the names of the classes that a run, or a teacher of its, was trained on."""
    return [facts["class_names"][label] for label in facts["known_classes"]]


def facts_of(
    config: Config,
    dataset: data.LongTailed,
    *,
    teacher: Teacher | None = None,
    start: str | None = None,
) -> dict[str, Any]:
    """Return what :func:`load_run` needs to know about the data, and whose weights went in.

    Args:
        config: of the run.
        dataset: of the run.
        teacher: that it learns from.
        start: hash of the weights that it starts from.
    """
    return {
        "title": dataset.title,
        "class_names": list(dataset.class_names),
        "class_counts": dataset.class_counts.tolist(),
        "val_images": 0 if dataset.val is None else len(dataset.val),
        "test_images": len(dataset.test),
        "image_shape": list(dataset.image_shape),
        "test_shape": list(dataset.test_shape),
        "mean": list(dataset.mean),
        "std": list(dataset.std),
        "num_outputs": num_outputs(config, dataset.num_classes),
        "whole_fingerprint": dataset.whole_fingerprint,
        "known_classes": list(dataset.classes.known),
        "taught_classes": list(dataset.classes.taught),
        "predicted_classes": list(dataset.classes.predicted),
        "teacher_weights": None if teacher is None else weights_hash(teacher.model.state_dict()),
        "start_weights": start,
        **file_hashes(config),
    }
