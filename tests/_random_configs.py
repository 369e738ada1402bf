"""Random configs of small runs, drawn from the schema: a key that is added is drawn as it comes."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from engine.config.components import names, read
from engine.config.load import flatten
from engine.config.schema import standard, tree
from engine.config.validation import keys
from tests._random_values import BATCH_SIZES, LARGEST, MODELS, draw_value

Values = dict[str, Any]  # by dotted key

FOLDER_CLASSES = ("ant", "bee", "cat")
# Never drawn: where results go, what asks the network, and what takes minutes.
DATA_SETS = ("synthetic", "digits", "image_folder", "cifar10")  # the others need their files
LEFT_ALONE = (
    "data.name",
    "data.download",
    "data.path",
    "loss.name",
    "model.kwargs",
    "model.pretrained",
    "model.init_from",
    "runtime.compile",
    "runtime.device",
    "runtime.threads",
    "teacher",
    "track.",
)
ALWAYS: Values = {
    "runtime.device": "cpu",
    "runtime.threads": 1,
    "track.to": [],
    "track.figures": False,
}
# To these a key falls back that a mistake has named, lest its default make the run long.
SMALL: Values = {
    "data.imbalance.factor": 2,
    "data.imbalance.head": 20,
    "data.num_classes": 4,
    "data.num_test_per_class": 2,
    "data.num_train_per_class": 8,
    "data.size": 32,
    "data.test_per_class": 20,
    "data.validation.per_class": 2,
    "model.name": "cifar_resnet8",
    "optim.batch_size": 16,
    "schedule.epochs": 1,
}
SIZES = (*[8] * 16, 28, 32, 32, 64, 1, 5)
WRONG: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1,
    1.5,
    1e300,
    float("nan"),
    float("inf"),
    2**70,
    "",
    "x",
    "null",
    "ä\n",
    [],
    [1],
    [[1]],
    ["x", None],
    {},
    {"a": 1},
)


@dataclass(frozen=True)
class Case:
    """Two configs: of a run, and of the one that it starts from or learns from, if any."""

    values: Values
    parent: Values | None = None
    parent_key: str | None = None  # model.init_from or teacher

    def words(self) -> list[str]:
        """The run as command-line words."""
        return words(self.values)


def words(values: Mapping[str, Any]) -> list[str]:
    """Dotted keys and values as command-line words."""
    return [f"{key}={spelled(value)}" for key, value in values.items()]


def spelled(value: Any) -> str:
    """A value as YAML reads it on one line."""
    if isinstance(value, float):
        return {"inf": ".inf", "-inf": "-.inf", "nan": ".nan"}.get(str(value), repr(value))
    return value if isinstance(value, str) else json.dumps(value)


def draw_case(number: int, *, seed: int, folder: str) -> Case:
    """Draw case ``number``, a function of it and the seed alone.

    Args:
        number: of the case.
        seed: of all cases.
        folder: an image folder of three classes.
    """
    rng = random.Random(f"{seed}-{number}")
    values = _draw(rng, folder=folder)
    key = "teacher" if values["loss.name"] == "distillation" else None
    key = key or ("model.init_from" if rng.random() < 0.1 else None)
    if key is None:
        return Case(_spoiled(values, rng))
    same = ("data.", "model.name", "model.norm", "model.head", "runtime.", "track.", "optim.batch")
    parent = {k: v for k, v in values.items() if k.startswith(same)}
    parent["schedule.epochs"] = 1
    parent["loss.name"] = rng.choice(["cross_entropy", "softmax_focal", "binary_cross_entropy"])
    if rng.random() < 0.3:
        values["data.classes"] = [0, 1]
    if key == "model.init_from" and rng.random() < 0.5:
        values["model.init_head"] = False
        values["model.freeze"] = rng.random() < 0.5
    return Case(_spoiled(values, rng), parent, key)


def _draw(rng: random.Random, *, folder: str) -> Values:
    """Draw the config of a run that may or may not be right."""
    data = rng.choices(DATA_SETS, [80, 8, 11, 1])[0]
    loss = rng.choice(names("losses"))
    known = {k: i for k, i in keys(tree(data, loss, ())).items() if not k.startswith(LEFT_ALONE)}
    values = {"data.name": data, "loss.name": loss, **ALWAYS, **_small(data, rng, folder=folder)}
    num_classes = values.get("data.num_classes", 3 if data == "image_folder" else 10)
    if read("losses", loss).class_facts["for_cosines"] and rng.random() < 0.8:
        values["model.head"] = "cosine"
    usual = flatten(standard(data, loss, ()))
    own = [key for key in known if key.startswith("loss.")]
    others = [key for key in known if key not in own and key not in values]
    drawn = rng.sample(own, min(len(own), rng.choice([0, 1, 1, 2, 3])))
    drawn += rng.sample(others, rng.choice([1, 2, 3, 4, 6, 8]))
    for key in drawn:
        info = known[key]
        annotation = Annotated[info.annotation, *info.metadata] if info.metadata else None
        values[key] = draw_value(
            key,
            annotation or info.annotation,
            usual=usual[key],
            num_classes=num_classes,
            rng=rng,
        )
    return values


def _small(data: str, rng: random.Random, *, folder: str) -> Values:
    """Draw what keeps a run short."""
    epochs = rng.choices([1, 2, 3], [7, 2, 1])[0]
    chosen: Values = {"model.name": rng.choice(MODELS), "schedule.epochs": epochs}
    chosen["optim.batch_size"] = rng.choice(BATCH_SIZES)
    match data:
        case "synthetic":
            num_classes = rng.choice([2, 2, 2, 3, 4, 4, 5, 7])
            train = rng.choice([2, 4, 8, 10])
            chosen["data.num_classes"] = num_classes
            chosen["data.num_train_per_class"] = train
            chosen["data.num_test_per_class"] = rng.choice([1, 2, 4])
            chosen["data.size"] = rng.choice(SIZES)
            chosen["data.channels"] = rng.choice([1, 1, 1, 3, 3, 2, 4])
            chosen["data.imbalance.factor"] = rng.choice([1, 2, 4, train])
            chosen["data.validation.per_class"] = rng.choice([1, 2, train // 2, None])
            if rng.random() < 0.15:
                chosen["data.one_vs_rest"] = f"class{num_classes - 1:0{len(str(num_classes - 1))}}"
        case "image_folder":
            chosen["data.path"] = folder
            chosen["data.size"] = rng.choice(SIZES)
        case "digits":
            chosen["data.test_per_class"] = 20
            chosen["data.imbalance.head"] = rng.choice([5, 20])
            chosen["data.imbalance.factor"] = rng.choice([1, 4, 20])
    return chosen


def _spoiled(values: Values, rng: random.Random) -> Values:
    """Make a mistake, in one case of five."""
    if rng.random() > 0.2:
        return values
    changeable = [key for key in values if key not in {*ALWAYS, "data.name", "data.path"}]
    key = rng.choice(changeable)
    if rng.random() < 0.3:  # a letter too few
        at = rng.randrange(len(key))
        wrong = key[:at] + key[at + 1 :]
        return {**values, wrong: values[key]}
    harmless = [v for v in WRONG if not (_is_large(v) and (key in LARGEST or "size" in key))]
    return {**values, key: rng.choice(harmless)}


def _is_large(value: Any) -> bool:
    return isinstance(value, int | float) and value > 100
