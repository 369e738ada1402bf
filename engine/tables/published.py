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
* augmentation, recipe: of training, where the source or its code says so; "LDAM-DRW" is batch 128,
  rate 0.1 with a warm-up of 5 of 200 epochs, x 0.01 after 160 and 180, weight decay 2e-4, by SGD
  with momentum 0.9 in float32 and nothing else (:data:`engine.tables.recipes.LDAM_DRW`).
* groups: what many, medium and few mean, where it is not > 100, 20 to 100 and < 20 training images.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.config.components import ROOT
from engine.config.load import defaults, flatten
from engine.config.schema import Config
from engine.tables import recipes
from engine.training.metrics.groups import USUAL, Limits

if TYPE_CHECKING:
    import pandas as pd

PATH = ROOT / "experiments" / "published.csv"
NUMBERS = {"year": "int64", "value": "float64", "acc_pct": "float64", "imbalance_factor": "float64"}

SPLITS = {
    "accuracy": "all",
    "many_accuracy": "many",
    "medium_accuracy": "medium",
    "few_accuracy": "few",
}
"""Our metrics, and the test classes that a published accuracy is of."""

KINDS = {"exponential": "exp", "step": "step", "none": "natural"}
BACKBONES = {
    "cifar_resnet32": "ResNet-32",
    "resnet10": "ResNet-10",
    "resnet18": "ResNet-18",
    "resnet50": "ResNet-50",
    "resnet101": "ResNet-101",
    "resnet152": "ResNet-152",
    "resnext50_32x4d": "ResNeXt-50",
}
TUNED = re.compile(r"\b(best|tuned)\b")

SAME_SUBSET = ("LDAM", "IB loss", "BBN", "Bag of Tricks LT", "MiSLAS", "VS loss")
"""Papers whose code draws the subset as LDAM-DRW's does, with seed 0: ``imbalance.rule=cao``."""


PARTS = ("data.classes", "data.test_classes", "data.one_vs_rest", "data.drop_duplicates")
"""Keys that leave images or classes of a data set out, or make other classes of them."""


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
    """Read the file as a table; text columns hold "" where nothing is stated, numbers NaN."""
    import pandas as pd

    text = pd.read_csv(path, dtype=str, keep_default_na=False)
    numbers = {column: pd.to_numeric(text[column]) for column in NUMBERS}
    return text.assign(**numbers).astype(NUMBERS)


def find(
    config: Config,
    *,
    paper: str,
    table: str,
    method: str,
    rule: str,
    subsets: Collection[int],
    split: str = "all",
    verified: str = "",
    first_stage: Config | None = None,
) -> Published | None:
    """Return the number that a paper's table prints for a method on the data of ``config``.

    Of several lines the one with our backbone comes first, then the one with our epochs.

    Args:
        config: one of our runs.
        paper: as in the column paper.
        table: as in the column table_or_place.
        method: as in the column method.
        rule: the selection rule of our number.
        subsets: data.imbalance.seed of our runs.
        split: as in the column split.
        verified: the published data set whose lists our runs read; empty where that is not known.
        first_stage: the run that a second stage began with; published backbones, epochs,
            augmentation and recipe are those of the first.
    """
    row = chosen(lines_of(paper, table, method), config, split=split, first_stage=first_stage)
    if row is None:
        return None
    return Published(
        accuracy=float(row.acc_pct) / 100,
        place=f"{paper}, {table}, {method}" + ("" if split == "all" else f", {split}"),
        source=str(row.source),
        differs=tuple(
            _differences(
                row,
                config,
                rule=rule,
                subsets=subsets,
                verified=verified,
                first=first_stage or config,
            )
        ),
        flag=f"{row.flag}: {row.flag_reason}" if row.flag else "",
        note=str(row.note),
    )


def lines_of(paper: str, table: str, method: str | None = None) -> pd.DataFrame:
    """Return the lines of a paper's table, or of one of its methods, as printed there."""
    numbers = read()
    named = (numbers.paper == paper) & (numbers.table_or_place == table)
    return numbers[named if method is None else named & (numbers.method == method)]


def chosen(
    lines: pd.DataFrame, config: Config, *, split: str, first_stage: Config | None = None
) -> pd.Series | None:
    """Return the line that stands beside a run, or None where none is on its data."""
    first = first_stage or config
    fitting = [row for _, row in lines[lines.split == split].iterrows() if not misfit(row, config)]
    usual = (backbone(first), str(first.schedule.epochs))
    return max(
        fitting,
        key=lambda row: (row.backbone == usual[0], row.epochs == usual[1]),
        default=None,
    )


def misfit(row: pd.Series, config: Config) -> str:
    """Return why a line is not of the data of a run, in what differs first; empty where it is."""
    imbalance = config.data.imbalance
    if row.acc_pct != row.acc_pct:  # NaN
        return f"{row.metric} is not a top-1 accuracy"
    if _plain(row.dataset) != _plain(data_set(config)):
        return f"no run on {row.dataset}"
    is_natural = row.imbalance_type == "natural"
    same_factor = is_natural or row.imbalance_factor == imbalance.factor
    if row.imbalance_type != KINDS.get(imbalance.kind) or not same_factor:
        factor = "" if is_natural else f" {row.imbalance_factor:g}"
        return f"no run on {row.dataset} {row.imbalance_type}{factor}"
    return ""


def data_set(config: Config) -> str:
    """Return the data set's name in published.csv; a folder of images goes by its title."""
    title = _plain(str(getattr(config.data, "title", None) or config.data.name))
    known = sorted(set(read().dataset), key=len, reverse=True)  # CIFAR-100 begins as CIFAR-10 does
    return next((name for name in known if title.startswith(_plain(name))), config.data.name)


def backbone(config: Config) -> str:
    """Return the network's name in published.csv, where it has one there."""
    plain = config.model.name.partition(".")[0]  # without the tag of its weights
    name = BACKBONES.get(plain, config.model.name)
    return f"{name} (ImageNet-pretrained)" if config.model.pretrained is True else name


def _plain(name: str) -> str:
    """Return a name without case and punctuation: ``Digits`` and ``digits`` are one data set."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _differences(
    row: pd.Series,
    config: Config,
    *,
    rule: str,
    subsets: Collection[int],
    verified: str,
    first: Config,
) -> Iterator[str]:
    """Yield what differs, most consequential first, of what the file states.

    Backbone, epochs, augmentation and recipe are those of ``first``, the first stage.
    """
    data, epochs = config.data, first.schedule.epochs
    if row.quoted_from:
        yield f"quoted from {row.quoted_from}"
    is_held_out = data.validation.per_class is not None or data.validation.fraction is not None
    is_verified = _plain(verified) == _plain(row.dataset)
    drawn_alike = _draws_as_ldam_drw(config) and set(subsets) == {0}
    drawn_alike &= row.paper in SAME_SUBSET
    is_part = _differs(config, PARTS)
    if is_part or (is_held_out and not getattr(data, "val", None)):
        yield "split"
    elif row.imbalance_type == "natural" and not is_verified:
        yield "split (our lists are not verified as theirs)"
    elif row.imbalance_type != "natural" and not drawn_alike:
        yield "split"
    if getattr(data, "title", None) and not is_verified:
        yield "data copy"
    if row.epochs != str(epochs):
        yield f"epochs (theirs {row.epochs or 'not stated'}, ours {epochs})"
    if not row.quoted_from:
        yield from recipes.differences(row, first)
    if TUNED.search(row.method) or TUNED.search(row.note):
        yield "tuning (theirs the best of several settings)"
    if backbone(first) != row.backbone:
        yield f"backbone (theirs {row.backbone}, ours {first.model.name})"
    limits = Limits(config.evaluate.many_above, config.evaluate.few_below)
    if row.split != "all" and (row.groups or limits != USUAL):
        ours = "" if limits == USUAL else f", ours {limits.text}"
        yield f"groups (theirs {row.groups or USUAL.text}{ours})"
    if row.selection.partition(" ")[0] != rule and not row.quoted_from:
        yield f"selection rule (theirs {row.selection or 'not stated'}, ours {rule})"


def _draws_as_ldam_drw(config: Config) -> bool:
    """Return whether a config draws its subset as LDAM-DRW's code does, the seed aside."""
    given = (f"data.imbalance.{key}" for key in ("kind", "factor", "rule", "seed"))
    return config.data.imbalance.rule == "cao" and not _differs(config, ("data.imbalance.",), given)


def _differs(config: Config, keys: tuple[str, ...], apart: Iterable[str] = ()) -> bool:
    """Return whether a key that begins so, and is not set apart, differs from its default."""
    usual, apart = defaults(config), set(apart)
    return any(
        key.startswith(keys) and key not in apart and value != usual[key]
        for key, value in flatten(config).items()
    )
