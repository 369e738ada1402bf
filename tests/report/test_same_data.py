"""Fingerprints that earlier versions gave, told to be of the same data by runs of today."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

import train
from data import _folder_pool
from engine.analysis.differences import differences
from engine.analysis.table_rows import analyse_table
from engine.config.load import load
from engine.report.same_data import todays_names
from engine.tables.pairing import matched, scope_of
from engine.tables.record import RunRecord, append, from_run_folder, of_today, read
from engine.training.run_folder import RunFolder
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
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = tmp_path_factory.mktemp("photos")
    counts = {"train": {"cat": 6, "dog": 6}, "test": {"cat": 3, "dog": 3}}
    return [
        *("data=image_folder", f"data.path={write_folder(root, counts)}", "data.cache_gb=0"),
        *("data.normalize=imagenet", "data.size=8", "data.imbalance.kind=none"),
        *("data.validation.fraction=null", "model=cifar_resnet8", "schedule.epochs=1"),
        *("optim.batch_size=4", "runtime.threads=1", "track.wandb=disabled"),
        *("track.figures=false", f"track.root={root / 'runs'}"),
    ]


def made(words: Sequence[str], *, by_names: bool) -> Path:
    """The folder of a run; on files as an earlier version told them, or as today."""
    config = load(overrides=words)
    with pytest.MonkeyPatch.context() as patch:
        if by_names:
            patch.setattr(_folder_pool, "_MOST_LOOKED_AT", 0)
        train.run(config, screen=quiet_screen())
    return RunFolder.of(config).path


@pytest.fixture(scope="module")
def pair(words: list[str]) -> tuple[Path, Path]:
    """A run of an earlier version, and one of another seed today."""
    return made([*words, "seed=0"], by_names=True), made([*words, "seed=1"], by_names=False)


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


def test_another_size_of_the_same_files_does_not_hide_what_a_setting_is_called_today(
    pair: tuple[Path, Path],
) -> None:
    before, today = (r.model_copy(update={"setting": "small"}) for r in map(record_of, pair))
    before = before.model_copy(update={"former_fingerprints": ()})
    larger = today.model_copy(update={"setting": "large", "split_fingerprint": "of 16 pixels"})
    assert [r.split_fingerprint for r in of_today([before, today, larger])] == [
        today.split_fingerprint,
        today.split_fingerprint,
        "of 16 pixels",
    ]


def test_an_analysis_of_a_table_pairs_an_earlier_versions_runs_with_todays(
    tmp_path: Path, words: list[str]
) -> None:
    methods = {"then": ["optim.lr=0.02"], "now": ["optim.lr=0.03"]}
    table = {"name": "photos", "title": "Photos", "base": words, "methods": methods}
    table |= {"settings": {"all": []}, "seeds": [0, 1], "baseline": "then", "rule": "last"}
    file = tmp_path / "photos.yaml"
    file.write_text(yaml.safe_dump(table))
    for name, own in methods.items():
        for seed in (0, 1):
            made([*words, *own, f"seed={seed}", "data.imbalance.seed=0"], by_names=name == "then")
    (setting,) = analyse_table(file)["settings"]
    (now,) = (row for row in setting["rows"] if row["method"] == "now")
    assert now["difference"]["balanced"]["n"] == 2


def test_data_told_in_two_ways_are_no_cause_of_a_difference(pair: tuple[Path, Path]) -> None:
    causes = differences(*pair).causes
    assert [cause.name for cause in causes if cause.kind == "data"] == []
    assert "seed" in [cause.name for cause in causes]
