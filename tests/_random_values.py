"""Values of a config key, drawn from its type and range."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types

from engine.config.metrics import selectable

MODELS = (
    *["cifar_resnet8"] * 24,
    "cifar_resnet20",
    "resnet18",
    "mobilenetv3_small_050",
    "vit_tiny_patch16_224",
    "test_convnext",
    "test_efficientnet",
    "test_vit",
    "ghostnet_050",
    "mobilenetv4_conv_small_035",
    "no_such_model",
)
OPTIMIZERS = (
    *["sgd", "momentum", "adamw"] * 4,
    *["adam", "nadamw", "radam", "rmsprop", "rmsproptf", "lamb", "lars", "lion", "adafactor"],
    *["adabelief", "adan", "novograd", "lookahead_sgd", "muon", "kron", "mars", "adopt", "sgdp"],
    *["adahessian", "fromage", "sgdw", "no_such_optimizer"],
)
BATCH_SIZES = (*[16] * 8, 1, 3, 8, 8, 32, 33, 33, 1000)
# Numbers from which a run gets long or its memory large.
LARGEST = {
    "data.cache_gb": 1,
    "data.imbalance.counts": 12,
    "data.imbalance.head": 40,
    "data.num_classes": 12,
    "data.num_test_per_class": 6,
    "data.num_train_per_class": 10,
    "data.test_per_class": 20,
    "model.adapter_width": 4,
    "model.layers": 4,
    "model.lora_rank": 4,
    "model.prompt_tokens": 4,
    "runtime.workers": 2,
    "sampler.length": 60,
    "schedule.epochs": 3,
}


def draw_value(
    key: str, annotation: Any, *, usual: Any, num_classes: int, rng: random.Random
) -> Any:
    """Draw a value of one key, mostly inside its range."""
    if (draw := BY_KEY.get(key)) is not None:
        return draw(rng, num_classes)
    own, limits = _plain(annotation)
    origin = get_origin(own)
    if origin in (Union, UnionType):
        kinds = [kind for kind in get_args(own) if kind is not type(None)]
        if len(kinds) < len(get_args(own)) and rng.random() < 0.2:
            return None
        own = Annotated[rng.choice(kinds), *limits] if limits else rng.choice(kinds)
        return draw_value(key, own, usual=usual, num_classes=num_classes, rng=rng)
    if origin is Literal:
        return rng.choice(get_args(own))
    if origin is tuple:
        length = rng.choices([num_classes, 1, 2, 0], [16, 2, 2, 1])[0]
        first = get_args(own)[0]
        return [
            draw_value(key, first, usual=None, num_classes=num_classes, rng=rng)
            for _ in range(length)
        ]
    if origin is dict:
        numbers = get_args(own)[1]
        return {
            f"class{label}": draw_value(key, numbers, usual=None, num_classes=num_classes, rng=rng)
            for label in range(num_classes)
        }
    if own is bool:
        return rng.random() < 0.5
    if own is int:
        return _whole(key, limits, usual=usual, rng=rng)
    if own is float:
        return _real(limits, usual=usual, rng=rng)
    return rng.choice(["", "x", "auto"])


def _plain(annotation: Any) -> tuple[Any, list[Any]]:
    """A type without its ``Annotated``, and what stood there."""
    limits: list[Any] = []
    while hasattr(annotation, "__metadata__"):
        for item in annotation.__metadata__:
            limits += list(item) if isinstance(item, annotated_types.Interval) else [item]
        annotation = annotation.__origin__
    return annotation, limits


def _bounds(limits: Sequence[Any]) -> tuple[float | None, float | None, bool]:
    """Lowest and highest value, and whether the lowest one is in the range."""
    low = high = None
    has_low = True
    for limit in limits:
        match limit:
            case annotated_types.Ge():
                low = limit.ge
            case annotated_types.Gt():
                low, has_low = limit.gt, False
            case annotated_types.Le():
                high = limit.le
            case annotated_types.Lt():
                high = limit.lt
    return low, high, has_low


def _whole(key: str, limits: Sequence[Any], *, usual: Any, rng: random.Random) -> int:
    low, high, _ = _bounds(limits)
    first = 0 if low is None else int(low)
    most = LARGEST.get(key, first + rng.choice([1, 2, 4, 8, 50]))
    most = most if high is None else min(most, int(high))
    if isinstance(usual, int) and usual <= most and rng.random() < 0.2:
        return usual
    if rng.random() < 0.05 and key not in LARGEST and not key.startswith("data."):
        return 10**6 if high is None else int(high) - 1
    return rng.randint(first, max(first, most))


def _real(limits: Sequence[Any], *, usual: Any, rng: random.Random) -> float:
    low, high, has_low = _bounds(limits)
    first = 0.0 if low is None else float(low)
    if high is not None:
        span = float(high) - first
        places = [0.0, 0.5, 0.9, 1 - 1e-12, 1e-12, rng.random(), rng.random(), rng.random()]
        found = first + span * rng.choice(places)
    else:
        base = usual if isinstance(usual, int | float) and usual else 1.0
        found = max(first, base * rng.choice([0.0, 0.1, 0.5, 1, 2, 3, 10, 1e3, 1e-6, 1e9]))
        if rng.random() < 0.7:
            found = max(first, base * rng.choice([0.2, 0.5, 1.0, 1.5, 2.0]))
    return found if has_low or found > first else first + rng.choice([1e-12, 1e-3, 0.25])


def _labels(rng: random.Random, num_classes: int) -> list[int | str] | None:
    return rng.choice(
        [
            None,
            [0],
            [0, 1],
            [1, 0],
            list(range(num_classes)),
            [num_classes - 1, 0],
            [0, 0],
            [num_classes],
            ["class0", "class1"],
            [],
        ]
    )


Draw = Callable[[random.Random, int], Any]
BY_KEY: Mapping[str, Draw] = {
    "data.classes": _labels,
    "data.test_classes": _labels,
    "data.one_vs_rest": lambda rng, _: rng.choice([None, "0", "1", "class0", "x"]),
    "data.title": lambda rng, _: rng.choice(["", "Äpfel & Co_1 [b]", "x" * 200]),
    "evaluate.metric": lambda rng, _: f"val/{rng.choice(list(selectable()))}",
    "model.name": lambda rng, _: rng.choice(MODELS),
    "optim.batch_size": lambda rng, _: rng.choice(BATCH_SIZES),
    "optim.name": lambda rng, _: rng.choice(OPTIMIZERS),
    "schedule.steps": lambda rng, _: rng.choice([[0.5], [0.2, 0.9], [0.9, 0.2], [0.5, 0.5], []]),
}
