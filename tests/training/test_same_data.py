"""Fingerprints that earlier versions gave, told to be of the same data by runs of today."""

from __future__ import annotations

from pathlib import Path

import pytest

import train
from data import _folder_pool
from engine.analysis.differences import differences
from engine.config.load import load
from engine.tables.pairing import matched, scope_of
from engine.tables.record import RunRecord, append, from_run_folder, read
from engine.training.run_folder import RunFolder
from engine.training.same_data import todays_names
from tests._runs import quiet_screen
from tests.data._files import write_folder


def test_a_former_name_leads_to_that_of_today() -> None:
    made = [("new", ["names", "sizes"]), ("names", []), ("other", [])]
    assert todays_names(made) == {"names": "new", "sizes": "new"}


def test_a_former_name_of_two_splits_tells_neither() -> None:
    assert todays_names([("new", ["names"]), ("changed", ["names"])]) == {}


def test_names_of_today_do_not_change_places() -> None:
    assert todays_names([("one", ["two"]), ("two", ["one"])]) == {}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run on files as an earlier version told them, by names, and one of another seed today."""
    root = tmp_path_factory.mktemp("photos")
    counts = {"train": {"cat": 6, "dog": 6}, "test": {"cat": 3, "dog": 3}}
    words = [
        *("data=image_folder", f"data.path={write_folder(root, counts)}", "data.cache_gb=0"),
        *("data.normalize=imagenet", "data.size=8", "data.imbalance.kind=none"),
        *("data.validation.fraction=null", "model=cifar_resnet8", "schedule.epochs=1"),
        *("optim.batch_size=4", "runtime.threads=1", "track.wandb=disabled"),
        *("track.figures=false", f"track.root={root / 'runs'}"),
    ]
    folders = []
    for seed, by_names in ((0, True), (1, False)):
        config = load(overrides=[*words, f"seed={seed}"])
        with pytest.MonkeyPatch.context() as patch:
            if by_names:
                patch.setattr(_folder_pool, "_MOST_LOOKED_AT", 0)
            train.run(config, screen=quiet_screen())
        folders.append(RunFolder.of(config).path)
    return folders[0], folders[1]


def record_of(folder: Path) -> RunRecord:
    return from_run_folder(folder, table="t", method="m", setting="s", words=())


def test_lines_of_an_earlier_version_are_on_the_split_of_todays(
    tmp_path: Path, pair: tuple[Path, Path]
) -> None:
    before, today = map(record_of, pair)
    assert before.split_fingerprint != today.split_fingerprint
    assert before.split_fingerprint in today.former_fingerprints
    before = before.model_copy(update={"former_fingerprints": ()})  # as it left its line
    for record in (before, today):
        append(tmp_path / "t.jsonl", record)
    one, two = read(tmp_path / "t.jsonl")
    assert one.split_fingerprint == two.split_fingerprint == today.split_fingerprint
    assert (
        scope_of([one, two]).text == "n counts seeds; all ran on one subset, and others may differ"
    )
    same_seed = [one.model_copy(update={"seed": two.seed})]
    assert matched(same_seed, [two]) == [(same_seed[0], two)]
    assert f'"split_fingerprint": "{before.split_fingerprint}"' in (tmp_path / "t.jsonl").read_text(
        encoding="utf-8"
    )


def test_data_told_in_two_ways_are_no_cause_of_a_difference(pair: tuple[Path, Path]) -> None:
    causes = differences(*pair).causes
    assert [cause.name for cause in causes if cause.kind == "data"] == []
    assert "seed" in [cause.name for cause in causes]
