"""Published numbers with their sources, and what sets them apart from a run of ours.

``published.csv`` holds one number a line. Its columns:

* paper, year, venue, table_or_place, source: where it is printed; a source is an address, or
  ``owner/repository@commit:file``.
* dataset, imbalance_type (exp, step, natural), imbalance_factor (head over tail), backbone, epochs
  (as stated, empty where it is not), method (as printed).
* metric, value: as printed; acc_pct: the same as top-1 accuracy in percent, empty for others.
* split: all test classes, or many, medium, few.
* quoted_from: whose number it is where the paper took it over; empty for a result of its own.
* selection: which epoch it was, where the released code says so; empty where nobody does.
* flag, flag_reason: misprint, implausible, inconsistent, mislabelled, second-hand; empty for most.
* note: what else the source says.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.config.components import ROOT
from engine.config.schema import Config

if TYPE_CHECKING:
    import pandas as pd

PATH = ROOT / "experiments" / "published.csv"
NUMBERS = {"year": "int64", "value": "float64", "acc_pct": "float64", "imbalance_factor": "float64"}

DATA_SETS = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
KINDS = {"exponential": "exp", "step": "step"}
BACKBONES = {"cifar_resnet32": "ResNet-32", "resnet18": "ResNet-18", "resnet50": "ResNet-50"}
USUAL_AUGMENTATION = {"crop": 4, "flip": True}
"""Of CIFAR in every recipe here but those whose note names more."""

RECIPES = {
    "Balanced Meta-Softmax": "batch 512, cosine, weight decay 5e-4",
    "De-confound TDE": "batch 256, rate 0.2, weight decay 5e-4",
    "LADE": "batch 256, rate 0.2, weight decay 5e-4",
    "Logit adjustment": "rate decays by 0.1, weight decay 1e-4",
    "MiSLAS": "rate decays by 0.1",
    "MetaSAug": "10 more images of each class as a meta set",
    "Remix": "rate decays after epochs 150 and 250",
}
"""Papers whose CIFAR recipe is not that of LDAM-DRW: batch 128, rate 0.1 x 0.01 after 160 and 180
of 200 epochs, weight decay 2e-4."""

TUNED = re.compile(r"\b(best|tuned)\b")

OFF = (False, 0, "none")

SAME_SUBSET = ("LDAM", "IB loss", "BBN", "Bag of Tricks LT", "MiSLAS", "VS loss")
"""Papers whose code draws the subset as LDAM-DRW's does, with seed 0: ``imbalance.rule=cao``."""


@dataclass(frozen=True)
class Published:
    """A published accuracy beside ours.

    Attributes:
        accuracy: top-1, in [0, 1].
        place: paper, table and the method's name there.
        source: address, or repository, commit and file.
        differs: by name, what our runs do not share with it; empty for a fair comparison.
        flag: what is wrong with the number itself, empty if nothing is known.
        note: what else the source says.
    """

    accuracy: float
    place: str
    source: str
    differs: tuple[str, ...]
    flag: str
    note: str

    @property
    def reasons(self) -> str:
        """Why the difference to ours is not one of methods alone; empty for a fair comparison."""
        found = [*self.differs, *([self.flag] if self.flag else [])]
        if found and self.note:
            found.append(f"note: {self.note}")
        return "; ".join(found)


@functools.cache
def read(path: Path = PATH) -> pd.DataFrame:
    """The file as a table; text columns hold "" where nothing is stated, numbers NaN."""
    import pandas as pd

    text = pd.read_csv(path, dtype=str, keep_default_na=False)
    numbers = {column: pd.to_numeric(text[column]) for column in NUMBERS}
    return text.assign(**numbers).astype(NUMBERS)


def find(
    config: Config, *, paper: str, table: str, method: str, rule: str, subsets: Collection[int]
) -> Published | None:
    """The number that a paper's table prints for a method on the data of ``config``.

    Args:
        config: one of our runs.
        paper: as in the column paper.
        table: as in the column table_or_place.
        method: as in the column method.
        rule: the selection rule of our number.
        subsets: data.imbalance.seed of our runs.
    """
    numbers = read()
    imbalance = config.data.imbalance
    same = (
        (numbers.paper == paper)
        & (numbers.table_or_place == table)
        & (numbers.method == method)
        & (numbers.dataset == data_set(config))
        & (numbers.imbalance_type == KINDS.get(imbalance.kind))
        & (numbers.imbalance_factor == imbalance.factor)
        & (numbers.split == "all")
        & numbers.acc_pct.notna()
    )
    if not same.any():
        return None
    row = numbers[same].iloc[0]
    return Published(
        accuracy=float(row.acc_pct) / 100,
        place=f"{paper}, {table}, {method}",
        source=str(row.source),
        differs=tuple(_differences(row, config, rule=rule, subsets=subsets)),
        flag=f"{row.flag}: {row.flag_reason}" if row.flag else "",
        note=str(row.note),
    )


def data_set(config: Config) -> str:
    """The data set's name in published.csv; a folder of images goes by its title."""
    title = str(getattr(config.data, "title", None) or "").upper()
    named = re.match(r"CIFAR-?(100|10)\b", title)
    return DATA_SETS.get(config.data.name) or (f"CIFAR-{named[1]}" if named else config.data.name)


def _differences(
    row: pd.Series, config: Config, *, rule: str, subsets: Collection[int]
) -> list[str]:
    """What is not the same, most consequential first."""
    data, theirs = config.data, row.epochs or "not stated"
    found = []
    if row.quoted_from:
        found.append(f"quoted from {row.quoted_from}")
    drawn_alike = data.imbalance.rule == "cao" and set(subsets) == {0}
    held_out = data.validation.per_class is not None or data.validation.fraction is not None
    if row.paper not in SAME_SUBSET or not drawn_alike or held_out:
        found.append("split")
    if data.name not in DATA_SETS:
        found.append("data copy")
    if theirs != str(config.schedule.epochs):
        found.append(f"epochs (theirs {theirs}, ours {config.schedule.epochs})")
    ours = {key: value for key, value in data.augment.model_dump().items() if value not in OFF}
    more = "AutoAugment" in row.note
    if more or ours != USUAL_AUGMENTATION:
        found.append(f"augmentation (theirs {'AutoAugment and Cutout' if more else 'crop, flip'})")
    if row.paper in RECIPES:
        found.append(f"recipe (theirs {RECIPES[row.paper]})")
    if TUNED.search(row.method) or TUNED.search(row.note):
        found.append("tuning (theirs the best of several settings)")
    if BACKBONES.get(config.model.name) != row.backbone:
        found.append(f"backbone (theirs {row.backbone}, ours {config.model.name})")
    if row.selection.partition(" ")[0] != rule and not row.quoted_from:
        found.append(f"selection rule (theirs {row.selection or 'not stated'}, ours {rule})")
    return found
