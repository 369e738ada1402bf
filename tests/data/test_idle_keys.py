"""Keys that the data leave without effect: an error or a line, and the order of the labels."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

import train
from data import Imbalance, LongTailed, Validation, build
from engine.config.load import load
from engine.config.mistakes import ConfigError
from engine.report.terminal import Terminal
from tests._runs import small_config, small_run
from tests.data._files import write_folder
from tests.data._pools import PoolOf

EQUAL = ("data.imbalance.factor=1", "data.validation.per_class=null")


def dataset(
    imbalance: Imbalance, validation: Validation, *, val: list[int] | None = None
) -> LongTailed:
    return build(PoolOf([6, 3], val=val), imbalance=imbalance, validation=validation)


@pytest.mark.parametrize(
    ("imbalance", "validation", "expected"),
    [
        (Imbalance("none"), Validation(None), False),
        (Imbalance("none"), Validation(1), True),
        (Imbalance("none"), Validation(None, 0.4), True),
        (Imbalance("exponential", factor=3), Validation(None), True),
        (Imbalance("counts", counts=(6, 3)), Validation(None), False),
        (Imbalance("counts", counts=(6, 2)), Validation(None), True),
    ],
)
def test_the_subset_is_drawn_where_some_images_are_left_out_of_training(
    imbalance: Imbalance, validation: Validation, *, expected: bool
) -> None:
    assert dataset(imbalance, validation).is_drawn == expected


def test_a_data_set_with_its_own_validation_draws_nothing() -> None:
    assert not dataset(Imbalance("none"), Validation(1), val=[2, 2]).is_drawn


def test_the_seed_of_a_natural_folder_with_its_own_val_is_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "root"))
    pets = write_folder(
        tmp_path / "pets", {split: {"cat": 3, "dog": 3} for split in ("train", "val", "test")}
    )
    words = ["data=image_folder", f"data.path={pets}", f"track.root={tmp_path / 'runs'}"]
    with pytest.raises(
        ConfigError, match=r"data\.imbalance\.seed=1: has no effect, every"
    ) as error:
        train.run(load(overrides=[*words, "data.imbalance.seed=1"]))
    assert len(error.value.mistakes) == 1
    assert not (tmp_path / "runs").exists()


def printed(root: Path, *words: str) -> str:
    out = io.StringIO()
    config = small_config(root, "schedule.epochs=1", *words)
    train.run(config, screen=Terminal(Console(file=out, width=300)))
    return out.getvalue()


def test_weights_of_equal_counts_and_a_seed_without_a_choice_are_said(tmp_path: Path) -> None:
    said = printed(tmp_path, *EQUAL, "reweight=inverse", "data.imbalance.seed=3")
    assert "reweight.scheme=inverse has no effect: every class has 40 training images" in said
    assert "data.imbalance.seed=3: has no effect, every training image of Synthetic is used" in said


def test_weights_and_seeds_with_an_effect_are_not_remarked_upon(tmp_path: Path) -> None:
    assert "no effect" not in printed(tmp_path, "reweight=inverse", "data.imbalance.seed=3")


@pytest.mark.parametrize(
    "words",
    [
        ("reweight=explicit", "reweight.weights=[1, 2]"),
        ("loss=softmax_focal", "loss.alpha=[1, 2]"),
        (
            *("data.imbalance.kind=counts", "data.imbalance.counts=[3, 3]"),
            *("data.imbalance.factor=50", "data.validation.per_class=null"),
        ),
    ],
)
def test_a_list_of_another_length_is_answered_with_the_order_of_the_labels(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError, match=r"label order: 0_class0, 1_class1, 2_class2, 3_class3"):
        small_run(tmp_path, *words)
