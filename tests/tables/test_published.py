"""The published numbers: what the file holds, and what is said beside a run of ours."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from engine.config.components import ROOT
from engine.config.load import load
from engine.config.schema import Config
from engine.tables.cells import cells
from engine.tables.published import SAME_SUBSET, Published, find, read
from engine.tables.table_file import read_table_file

EXPERIMENTS = ROOT / "experiments"
LDAM_RECIPE = [EXPERIMENTS / "cifar10_lt.yaml", EXPERIMENTS / "recipes/published.yaml"]
SOURCE = re.compile(
    r"https://(arxiv\.org/abs|github\.com)/\S+( Table \d+ \(paper text\))?"
    r"|[\w.-]+/[\w.-]+(@[0-9a-f]{7})?:[\w./-]+"
    r"|second-hand summary of https://arxiv\.org/abs/[\d.]+"
)


def where(**values: str | float) -> pd.DataFrame:
    """Rows with these values."""
    table = read()
    for column, value in values.items():
        table = table[table[column] == value]
    return table


def test_the_file_has_every_number_with_its_source() -> None:
    table = read()
    assert len(table) == 1746
    assert [source for source in table.source if not SOURCE.fullmatch(source)] == []
    for column in ("paper", "venue", "table_or_place", "dataset", "backbone", "method"):
        assert (table[column] != "").all(), column
    assert table.year.between(2017, 2024).all()


@pytest.mark.parametrize(
    ("column", "allowed"),
    [
        ("imbalance_type", {"exp", "step", "natural"}),
        ("split", {"all", "many", "medium", "few"}),
        ("selection", {"", "best test epoch", "last epoch"}),
        (
            "flag",
            {"", "misprint", "implausible", "inconsistent", "mislabelled", "second-hand"},
        ),
    ],
)
def test_a_closed_column_holds_only_its_words(column: str, allowed: set[str]) -> None:
    assert set(read()[column]) == allowed


def test_accuracies_in_percent_follow_from_the_printed_values() -> None:
    table = read()
    accuracy, error = table.metric == "top1 acc %", table.metric == "top1 err %"
    expected = table.value.where(accuracy, 100 - table.value).where(accuracy | error)
    np.testing.assert_allclose(table.acc_pct, expected, atol=0.005 + 1e-9)
    assert table.acc_pct.dropna().between(0, 100).all()
    assert set(table.metric[~(accuracy | error)]) == {
        "top5 err %",
        "top5 acc %",
        "COCO AP",
        "COCO AP50",
        "COCO AP75",
    }


def test_every_flag_has_a_reason_and_nothing_else_has() -> None:
    table = read()
    assert ((table.flag == "") == (table.flag_reason == "")).all()
    assert (table.flag != "").sum() == 47 + 7 * 4  # of seven rows all, many, medium and few


def test_the_misprint_of_the_ib_table_is_flagged_with_the_right_value() -> None:
    (row,) = where(flag="misprint").itertuples()
    assert (row.paper, row.table_or_place, row.method) == ("IB loss", "Table 4", "LDAM-DRW")
    assert (row.dataset, row.imbalance_factor, row.acc_pct) == ("CIFAR-100", 10, 57.99)
    printed = where(
        paper="LDAM",
        table_or_place="Table 2",
        method="LDAM-DRW",
        dataset="CIFAR-100",
        imbalance_type="exp",
        imbalance_factor=10,
    )
    assert printed.acc_pct.tolist() == [58.71]
    assert "58.71" in row.flag_reason


def test_what_is_quoted_stands_in_the_table_it_is_quoted_from() -> None:
    quoted = where(quoted_from="Class-Balanced loss Table 2")
    original = where(paper="Class-Balanced loss", table_or_place="Table 2")
    assert len(quoted) == 40
    keys = ["dataset", "imbalance_type", "imbalance_factor"]
    both = quoted.merge(original, on=keys, suffixes=("", "_there"))
    # Some papers print one decimal.
    equal = (both.acc_pct - both.acc_pct_there).abs() <= 0.051
    assert len(both[equal].drop_duplicates(["paper", "table_or_place", "method", *keys])) == 40


def ldam(*words: str, rule: str = "last", subsets: tuple[int, ...] = (0,)) -> Published:
    """The number beside a run of the LDAM recipe with changes."""
    return beside(load(LDAM_RECIPE, list(words)), rule=rule, subsets=subsets)


def beside(
    config: Config,
    *,
    paper: str = "LDAM",
    method: str = "LDAM-DRW",
    rule: str = "last",
    subsets: tuple[int, ...] = (0,),
) -> Published:
    found = find(config, paper=paper, table="Table 2", method=method, rule=rule, subsets=subsets)
    assert found is not None
    return found


def test_the_published_recipe_differs_in_its_selection_rule_alone() -> None:
    found = ldam()
    assert found.accuracy == pytest.approx(0.7703)
    assert found.source == "https://arxiv.org/abs/1906.07413"
    assert found.differs == ("selection rule (theirs best test epoch, ours last)",)
    assert found.flag == ""


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["data.imbalance.rule=uniform"], "split"),
        (["data.validation.per_class=20"], "split"),
        (["schedule.epochs=30"], "epochs (theirs 200, ours 30)"),
        (["data.augment.flip=false"], "augmentation (theirs crop, flip)"),
        (["data.augment.cutout=16"], "augmentation (theirs crop, flip)"),
        (["model=cifar_resnet20"], "backbone (theirs ResNet-32, ours cifar_resnet20)"),
    ],
)
def test_each_thing_that_does_not_match_is_named(words: list[str], says: str) -> None:
    assert [reason for reason in ldam(*words).differs if "selection" not in reason] == [says]


def test_another_subset_seed_is_another_split() -> None:
    assert "split" in ldam(subsets=(0, 1)).differs
    assert "split" not in ldam(subsets=(0,)).differs


def test_a_copy_of_the_images_is_named_and_still_finds_its_number(tmp_path: Path) -> None:
    folder = [f"data.path={tmp_path}", "data.title=CIFAR-10 (JPEG)", "data.size=32"]
    recipe = [word for key in ("crop=4", "flip=true") for word in [f"data.augment.{key}"]]
    config = load(
        overrides=[
            "data=image_folder",
            *folder,
            *recipe,
            "data.imbalance={kind: exponential, factor: 100, rule: cao}",
            "model=cifar_resnet32",
            "schedule.epochs=200",
        ]
    )
    assert "data copy" in beside(config).differs
    assert beside(config).accuracy == pytest.approx(0.7703)


def test_a_quoted_number_says_whose_it_is() -> None:
    found = beside(load(LDAM_RECIPE), method="CE (ERM)")
    assert found.differs[0] == "quoted from Class-Balanced loss Table 2"


def test_the_best_of_several_settings_and_another_recipe_are_named_with_the_note() -> None:
    config = load(LDAM_RECIPE)
    best = "CB loss, best of {SM,sigmoid,focal} x beta x gamma"
    found = beside(config, paper="Class-Balanced loss", method=best)
    assert found.differs == ("split", "tuning (theirs the best of several settings)")
    assert found.reasons.endswith("; note: winning config: Focal g=1.0 b=.9999")
    other = find(
        config,
        paper="Logit adjustment",
        table="Table 3",
        method="LA loss tau=1",
        rule="last",
        subsets={0},
    )
    assert other is not None
    assert other.differs == ("split", "recipe (theirs rate decays by 0.1, weight decay 1e-4)")
    assert "released code trains 1241 epochs" in other.reasons


def test_a_fair_comparison_gives_no_reason() -> None:
    assert Published(0.7, "there", "https://", (), "", "own run").reasons == ""


REFERENCES = [
    (path, index)
    for path in sorted(EXPERIMENTS.glob("papers/*.yaml"))
    for index, _ in enumerate(read_table_file(path).published)
]


@pytest.mark.parametrize(
    ("path", "index"), REFERENCES, ids=lambda part: getattr(part, "stem", part)
)
def test_a_table_names_numbers_that_were_printed_and_trains_on_their_images(
    path: Path, index: int
) -> None:
    table = read_table_file(path)
    reference = table.published[index]
    printed = where(paper=reference.paper, table_or_place=reference.table)
    assert set(reference.methods.values()) <= set(printed.method)
    # One method and one seed are enough to see the data of every setting.
    ours = next(iter(reference.methods))
    small = {"methods": {ours: table.methods[ours]}, "baseline": ours}
    one_seed = table.model_copy(update={**small, "seeds": (0,), "subset_seeds": (0,)})
    found = [
        find(
            cell.config,
            paper=reference.paper,
            table=reference.table,
            method=reference.methods[ours],
            rule=table.rule,
            subsets={cell.subset_seed},
        )
        for cell in cells(one_seed)
    ]
    beside_ours = [published for published in found if published is not None]
    assert beside_ours
    if reference.paper in SAME_SUBSET:
        on_cifar = [number for number in beside_ours if "data copy" not in number.differs]
        assert [number.place for number in on_cifar if "split" in number.differs] == []


def test_there_is_no_number_for_other_data() -> None:
    for words in (["data.imbalance.factor=77"], ["data.imbalance.kind=none"]):
        config = load([EXPERIMENTS / "cifar10_lt.yaml"], words) if words else load()
        found = find(config, paper="LDAM", table="Table 2", method="LDAM", rule="last", subsets={0})
        assert found is None
