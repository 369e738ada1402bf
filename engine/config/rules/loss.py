"""What a loss listens to, and what else balances training beside it."""

from __future__ import annotations

from collections.abc import Iterator

from engine.config.choices import of
from engine.config.derived import (
    balancing,
    fitted_prior,
    gives_cosines,
    idle_keys,
    is_set,
    loss_fact,
)
from engine.config.rules._rule import Rule
from engine.config.schema import Config


def _loss_keys_change_the_loss(config: Config) -> Iterator[str]:
    is_weighted = config.reweight.scheme != "none"
    for key, where in idle_keys(config, is_weighted=is_weighted).items():
        if is_set(config, f"loss.{key}"):
            yield f"loss.{key}: has no effect {where}"


def _a_teacher_needs_a_loss_that_listens(config: Config) -> Iterator[str]:
    needs_teacher = loss_fact(config, "needs_teacher")
    if config.teacher is not None and not needs_teacher:
        yield f"teacher: has no effect, {config.loss.name} needs no teacher"
    if config.teacher is None and needs_teacher:
        yield f"teacher: loss={config.loss.name} needs it: the run folder of the model to keep to"


def _class_weights_need_a_loss_that_takes_them(config: Config) -> Iterator[str]:
    if config.reweight.scheme != "none" and not loss_fact(config, "takes_weight"):
        yield (
            f"reweight.scheme={config.reweight.scheme}: has no effect, "
            f"{config.loss.name} takes no class weights"
        )


def _mixing_needs_soft_targets(config: Config) -> Iterator[str]:
    for key in ("mixup", "cutmix"):
        if getattr(config.mixup, key) > 0 and not loss_fact(config, "takes_soft_targets"):
            yield f"mixup.{key}: {config.loss.name} takes hard targets only; set mixup.{key}=0"


def _mixing_needs_two_images(config: Config) -> Iterator[str]:
    for key, value in config.mixup.model_dump().items():
        if value > 0 and config.optim.batch_size < 2:
            yield (
                f"mixup.{key}={value:g}: has no effect with optim.batch_size=1, images are mixed "
                "in pairs"
            )


def _logits_are_adjusted_once(config: Config) -> Iterator[str]:
    tau, key = config.evaluate.logit_adjustment, "evaluate.logit_adjustment"
    if tau == 0:
        return
    if fitted_prior(config) == "uniform":
        yield f"{key}={tau:g}: adjusts twice, {config.loss.name} already fits a uniform prior"
    for choice in balancing(config):
        yield f"{key}={tau:g}: adjusts twice, {choice} already balances training"


def _scaled_logits_are_cosines(config: Config) -> Iterator[str]:
    scale = getattr(config.loss, "scale", 1)
    if loss_fact(config, "for_cosines") and not gives_cosines(config) and scale != 1:
        heads = of("model.head")
        cosines = [name for name in heads.names if heads.fact(name, "gives_cosines")]
        yield (
            f"model.head={config.model.head}: {config.loss.name} multiplies logits by "
            f"loss.scale={scale:g}, which is for cosines; set model.head={' or '.join(cosines)}, "
            "or loss.scale=1"
        )


RULES: tuple[Rule, ...] = (
    _loss_keys_change_the_loss,
    _a_teacher_needs_a_loss_that_listens,
    _class_weights_need_a_loss_that_takes_them,
    _mixing_needs_soft_targets,
    _mixing_needs_two_images,
    _logits_are_adjusted_once,
    _scaled_logits_are_cosines,
)
