"""The published numbers: what the file holds, and what is said beside a run of ours."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from engine.config.components import ROOT
from engine.config.load import load
from engine.config.mistakes import ConfigError
from engine.config.schema import Config
from engine.tables.aggregate import Wanted, blocks
from engine.tables.beside import unmatched
from engine.tables.cells import cells
from engine.tables.commands import stages_of
from engine.tables.published import SAME_SUBSET, Published, backbone, find, read
from engine.tables.table_file import Reference, read_table_file
from tests.tables._lines import line

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
    assert len(table) == 1747
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
    first_stage: Config | None = None,
) -> Published:
    found = find(
        config,
        paper=paper,
        table="Table 2",
        method=method,
        rule=rule,
        subsets=subsets,
        first_stage=first_stage,
    )
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
        (["schedule.epochs=80"], "epochs (theirs 200, ours 80)"),
        (["data.augment.flip=false"], "augmentation (theirs crop, flip)"),
        (["data.augment.cutout=16"], "augmentation (theirs crop, flip)"),
        (["model=cifar_resnet20"], "backbone (theirs ResNet-32, ours cifar_resnet20)"),
    ],
)
def test_each_thing_that_does_not_match_is_named(words: list[str], says: str) -> None:
    assert [reason for reason in ldam(*words).differs if "selection" not in reason] == [says]


@pytest.mark.parametrize(
    "word",
    [
        "optim.name=adamw",
        "optim.sam=0.05",
        "optim.clip_norm=1.0",
        "schedule.warmup=0.4",
        "schedule.unit=step",
        "schedule.name=cosine",
        "mixup.mixup=1.0",
        "sampler.name=class_balanced",
        "sampler.length=5000",
        "model.ema=0.999",
        "model.norm=group",
    ],
)
def test_each_key_that_is_not_of_the_published_recipe_is_named(word: str) -> None:
    selection = "selection rule (theirs best test epoch, ours last)"
    assert ldam(word).differs == (f"recipe (theirs LDAM-DRW; ours {word})", selection)


def test_arithmetic_that_is_not_theirs_is_named() -> None:
    assert "precision (theirs float32, ours bfloat16)" in ldam("runtime.precision=bf16").differs


@pytest.mark.parametrize(
    ("paper", "table", "method", "word"),
    [
        ("LDAM", "Table 2", "CB RS (resample)", "sampler=effective_number"),
        ("LDAM", "Table 5 (supp)", "CE-DRS", "sampler={name: class_balanced, start: 0.8}"),
        ("Bag of Tricks LT", "mixup training", "Input mixup alpha=1", "mixup.mixup=1"),
        ("LDAM", "Table 2", "LDAM-DRW", "model.head=cosine"),
        ("LDAM", "Table 2", "CB RW (reweight CE)", "reweight=effective_number"),
        ("Class-Balanced loss", "Table 2", "CE (softmax)", "schedule.unit=step"),
    ],
)
def test_what_a_published_method_is_by_its_name_is_no_other_recipe(
    paper: str, table: str, method: str, word: str
) -> None:
    config = load(LDAM_RECIPE, [word])
    found = find(config, paper=paper, table=table, method=method, rule="last", subsets={0})
    assert found is not None
    assert [reason for reason in found.differs if reason.startswith("recipe")] == []


@pytest.mark.parametrize(
    "words", [["data.imbalance.order=shuffled"], ["data.classes=[0, 1, 2]"], ["data.one_vs_rest=3"]]
)
def test_other_classes_or_another_order_of_them_are_another_split(words: list[str]) -> None:
    assert "split" in ldam(*words).differs


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
    config = load(LDAM_RECIPE, ["schedule.unit=step"])  # as the first of the two warms up
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
    stages = table.stages(ours)
    small = {"methods": {row: table.methods[row] for row in stages}, "baseline": stages[0]}
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
        if cell.method == ours
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


# --- groups, natural sets, and lines without a row -----------------------------------------------

GROUP_SIZES = {
    "ImageNet-LT": (385, 479, 136),
    "Places-LT": (131, 163, 71),
    "iNaturalist2018": (842, 4076, 3224),
}
ROW = ["paper", "table_or_place", "dataset", "backbone", "epochs", "method", "source"]


def rounding(printed: pd.Series) -> float:
    """Half a unit of the last printed digit; one decimal is never printed coarser than that."""
    return 0.05 if all(round(value, 1) == value for value in printed) else 0.005


def test_what_cannot_come_from_its_groups_is_flagged_and_nothing_else_is() -> None:
    table = read()
    with_groups = table[
        table[ROW].apply(tuple, axis=1).isin(table[table.split == "many"][ROW].apply(tuple, axis=1))
    ]
    flagged, rows = 0, with_groups.groupby(ROW)
    assert len(rows) == 96
    for _, row in rows:
        value = row.drop_duplicates("split").set_index("split").value
        sizes = GROUP_SIZES[row.dataset.iloc[0]]
        groups = value[["many", "medium", "few"]]
        from_groups = sum(n * v for n, v in zip(sizes, groups, strict=True)) / sum(sizes)
        bound = rounding(groups) + rounding(value[["all"]])
        cannot = abs(from_groups - value["all"]) > bound + 1e-9
        is_flagged = row.flag_reason.str.contains("its groups of").all()
        assert cannot == is_flagged, row[ROW].iloc[0].tolist()
        flagged += is_flagged
    assert flagged == 7


IMAGENET_LT = [
    "data=image_folder",
    "data.path=imagenet-lt",
    "data.title=ImageNet-LT",
    "data.validation.fraction=null",
    "schedule.epochs=90",
]


def imagenet(*words: str, split: str = "all", method: str = "DisAlign") -> Published | None:
    said = {word.partition("=")[0] for word in words}
    kept = [word for word in IMAGENET_LT if word.partition("=")[0] not in said]
    return find(
        load(overrides=[*kept, *words]),
        paper="DisAlign",
        table="Table 1",
        method=method,
        rule="last",
        subsets={0},
        split=split,
    )


def test_a_naturally_long_tailed_set_and_its_groups_find_their_numbers() -> None:
    ours = "model=resnext50_32x4d"
    found = {split: imagenet(ours, split=split) for split in ("all", "many", "medium", "few")}
    assert {k: v and v.accuracy for k, v in found.items()} == pytest.approx(
        {"all": 0.526, "many": 0.615, "medium": 0.507, "few": 0.331}
    )
    few = found["few"]
    assert few is not None and few.place == "DisAlign, Table 1, DisAlign, few"
    assert imagenet("data.imbalance={kind: exponential, factor: 256}") is None


def listed(file: str, *words: str, verified: str) -> tuple[str, ...]:
    """What sets a run of lists apart from the first published number that its table names."""
    table = read_table_file(EXPERIMENTS / "papers" / file)
    reference = next(r for r in table.published if table.baseline in r.methods)
    found = find(
        load([Path(table.base[0])], [*table.base[1:], *words]),
        paper=reference.paper,
        table=reference.table,
        method=reference.methods[table.baseline],
        rule=table.rule,
        subsets={0},
        verified=verified,
    )
    assert found is not None
    return tuple(reason for reason in found.differs if reason.startswith(("split", "data copy")))


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("imagenet_lt_resnext50.yaml", "ImageNet-LT"),
        ("imagenet_lt_resnet10.yaml", "ImageNet-LT"),
        ("places_lt.yaml", "Places-LT"),
        ("inaturalist18.yaml", "iNaturalist 2018"),
    ],
)
def test_only_verified_lists_are_the_published_split(file: str, name: str) -> None:
    assert listed(file, verified=name) == ()
    unverified = ("split (our lists are not verified as theirs)", "data copy")
    assert listed(file, verified="") == unverified
    assert listed(file, verified="Another-LT") == unverified
    if name == "iNaturalist 2018":
        assert listed(file, "data.validation.fraction=0.1", verified=name) == ("split",)


def test_a_network_is_known_by_its_name_without_the_tag_of_its_weights() -> None:
    config = load([EXPERIMENTS / "places_lt.yaml"])
    assert backbone(config) == "ResNet-152 (ImageNet-pretrained)"
    assert backbone(load(overrides=["model=resnet10"])) == "ResNet-10"


def test_groups_of_other_limits_are_not_those_of_a_published_number() -> None:
    words = ("model=resnext50_32x4d", "evaluate.many_above=50")
    for split, text in (("all", ""), ("few", "ours many > 50, medium 20 to 50, few < 20")):
        found = imagenet(*words, split=split)
        assert found is not None
        start = "groups (theirs many > 100, medium 20 to 100, few < 20, "
        groups = [reason for reason in found.differs if reason.startswith(start)]
        assert len(groups) == bool(text)
        assert all(text in reason for reason in groups)


def test_nothing_is_said_of_theirs_that_the_file_does_not_say() -> None:
    found = imagenet("model=cifar_resnet20")
    assert found is not None
    assert "augmentation (theirs not stated)" in found.differs
    assert "recipe (theirs not stated)" in found.differs
    table, named = read(), ["paper", "table_or_place", "method"]
    words = {word for column in ("augmentation", "recipe", "groups") for word in table[column]}
    config = load(LDAM_RECIPE)
    cifar = table[(table.dataset == "CIFAR-10") & (table.imbalance_factor == 100)]
    for paper, name, method in cifar[named].drop_duplicates(named[:2]).values:
        beside_ours = find(config, paper=paper, table=name, method=method, rule="val", subsets={3})
        for reason in beside_ours.differs if beside_ours else ():
            for key in ("augmentation", "recipe", "groups"):
                if reason.startswith(f"{key} (theirs "):
                    theirs = reason[len(key) + 9 : -1].partition("; ours ")[0]
                    assert theirs in words | {"not stated"}


def test_the_line_with_our_backbone_and_epochs_stands_beside() -> None:
    table = {"paper": "DisAlign", "table": "Table 3", "method": "cRT", "rule": "last"}
    accuracy = {}
    for network, epochs in (("resnet50", 90), ("resnet152", 90), ("resnet152", 200)):
        words = [f"model={network}", f"schedule.epochs={epochs}", "data.title=iNaturalist 2018"]
        kept = [word for word in IMAGENET_LT if not word.startswith(("data.title", "schedule"))]
        found = find(load(overrides=[*kept, *words]), **table, subsets={0})
        assert found is not None
        accuracy[network, epochs] = found.accuracy
    assert list(accuracy.values()) == pytest.approx([0.652, 0.685, 0.712])


@pytest.mark.parametrize("title", ["ImageNet-LT", "imagenet lt", "ImageNet_LT (our copy)"])
def test_a_data_set_is_known_however_its_title_is_written(title: str) -> None:
    assert imagenet(f"data.title={title}") is not None


def test_what_many_means_is_said_where_it_is_something_else() -> None:
    table = read()
    fixed = table[table.groups != ""]
    assert set(fixed.paper) == {"MiSLAS", "CMO"}
    assert fixed[fixed.paper == "MiSLAS"].groups.str.contains("390, 445 and 165").all()


def block_on(*words: str) -> list[Any]:
    files = ("experiments/cifar10_lt.yaml", "experiments/recipes/published.yaml")
    return blocks([line("ours", words=(*files, *words))], Wanted(baseline="ours"))


@pytest.mark.parametrize(
    "words",
    [
        ["schedule.epochs=80", "model=cifar_resnet20"],
        ["optim.lr=0.5", "schedule=cosine"],
        ["data.augment.crop=0", "data.augment.flip=false"],
    ],
)
def test_a_second_stage_is_compared_by_how_its_first_was_trained(words: list[str]) -> None:
    second = load(LDAM_RECIPE, words)
    found = beside(second, first_stage=load(LDAM_RECIPE))
    assert found.differs == ("selection rule (theirs best test epoch, ours last)",)
    assert len(beside(second).differs) > 1


def test_lines_that_lead_back_to_where_they_began_are_refused() -> None:
    one, two = line("one"), line("two")
    names = {"one": "1" * 12, "two": "2" * 12}
    start = "model.init_from=runs/synthetic/"
    records = [
        one.model_copy(
            update={"words": (f"{start}{names['two']}",), "fingerprint": names["one"]},
        ),
        two.model_copy(
            update={"words": (f"{start}{names['one']}",), "fingerprint": names["two"]},
        ),
    ]
    with pytest.raises(ConfigError, match=r"two: run 1{12} starts from itself"):
        stages_of(records[0], records)


def test_the_row_of_a_second_stage_knows_the_config_of_its_first() -> None:
    first = line("plain")
    start = f"model.init_from=runs/synthetic/{first.fingerprint}"
    changes = {"words": (*first.words, start), "fingerprint": "0" * 12}
    second = line("second").model_copy(update=changes)
    (block,) = blocks([first, second], Wanted(baseline="plain"))
    stages = {row.method: row.first_stage for row in block.rows}
    assert stages["plain"] is None
    assert stages["second"] == block.rows[0].config


def test_every_line_that_stands_beside_no_row_is_counted_with_its_reason() -> None:
    reference = Reference(paper="LDAM", table="Table 2", methods={"ours": "LDAM", "late": "Focal"})
    (said,) = unmatched(block_on(), [reference])
    lines = where(paper="LDAM", table_or_place="Table 2")
    assert said.startswith(f"LDAM, Table 2: {len(lines) - 1} of {len(lines)} lines stand beside no")
    counted = {int(number) for number in re.findall(r"(\d+) (?:of|no|behind)\b", said)}
    assert sum(int(n) for n in re.findall(r"[:;] (\d+) (?:of a|of late|no run)", said)) == (
        len(lines) - 1
    ), counted
    assert "1 no run on CIFAR-10 step 100" in said
    assert "4 no run on CIFAR-100" in said
    assert "8 of late, which has not run" in said


def test_a_table_that_is_shown_whole_says_nothing() -> None:
    reference = Reference(paper="Decoupling", table="nowhere", methods={"ours": "cRT"})
    assert unmatched(block_on(), [reference]) == []


def test_lines_in_another_metric_are_named() -> None:
    table = "Table 3"
    reference = Reference(
        paper="Class-Balanced loss", table=table, methods={"ours": "CB Focal b=.999 g=.5"}
    )
    (said,) = unmatched(block_on(), [reference])
    assert "top5 err % is not a top-1 accuracy" in said
    assert "no run on iNaturalist2018" in said
