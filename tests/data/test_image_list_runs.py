"""Runs on lists: what a user types, is told and finds in the run folder."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import data._known_lists as known_module
import train
from data._known_lists import git_blob, known_lists
from engine.config.load import load
from engine.config.mistakes import ConfigError
from engine.tables.record import from_run_folder
from tests.data._files import write_image
from tests.data._lists import TRAIN, Shelf, new_shelf

WORDS = (
    *("data=image_list", "data.validation.fraction=null", "model=cifar_resnet8"),
    *("schedule.epochs=1", "optim.batch_size=4", "runtime.threads=1", "track.to=[]"),
    "track.figures=false",
)


@dataclass(frozen=True)
class Desk:
    """A shelf, and the command line on it."""

    shelf: Shelf
    runs: Path
    captured: pytest.CaptureFixture[str]

    def train(self, *words: str) -> tuple[int, str, list[str]]:
        """Return the exit code, what was printed, and the lines of mistakes."""
        given = {word.partition("=")[0] for word in words}
        usual = [
            *WORDS,
            f"data.root={self.shelf.path}",
            "data.train=train.txt",
            "data.test=test.txt",
            f"track.root={self.runs}",
        ]
        code = train.main([*(w for w in usual if w.partition("=")[0] not in given), *words])
        printed, errors = self.captured.readouterr()
        return code, printed, [e for e in errors.splitlines() if not e.startswith("decoding")]


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Desk:
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "root"))
    return Desk(new_shelf(tmp_path / "shelf"), tmp_path / "runs", capsys)


def test_a_run_on_published_lists_says_so_and_its_record_keeps_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = tuple(
        replace(
            known_lists()[0],
            data_set="Two-LT",
            split=split,
            name=f"Two-LT {split}",
            num_lines=number,
            git_blob=git_blob((desk.shelf.path / f"{split}.txt").read_bytes()),
        )
        for split, number in (("train", 5), ("test", 2))
    )
    rest = tuple(known for known in known_lists() if known.sketch)
    monkeypatch.setattr(known_module, "known_lists", lambda: (*published, *rest))
    names = desk.shelf.write("names.txt", "cat", "dog")
    code, printed, _ = desk.train(f"data.class_names={names}", "data.cache_gb=0", "data.size=6")
    assert code == 0
    said = "train.txt is Two-LT train, 5 images, as in classifier-balancing"
    assert printed.index(said) < printed.index("epoch 1/1")
    (folder,) = desk.runs.glob("*/*")
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["title"], summary["verified"]) == ("Two-LT", "Two-LT")
    assert [row["name"] for row in summary["rules"]["last"]["classes"]] == ["cat", "dog"]
    record = from_run_folder(folder, table="t", method="m", setting="s", words=())
    assert record.verified == "Two-LT"
    assert any(note.startswith(said) for note in record.notes)


def test_a_mistake_in_a_list_is_one_line_and_leaves_no_run_folder(desk: Desk) -> None:
    desk.shelf.write("train.txt", *TRAIN, "a/none.png 0")
    code, _, lines = desk.train()
    assert code == 2
    (line,) = lines
    assert "data.train: 1 of 6 files of train.txt are not in" in line
    assert not desk.runs.exists()


def test_an_edited_list_is_another_split_to_a_run_that_goes_on(desk: Desk) -> None:
    on_disk = ("data.cache_gb=0", "data.size=6")
    assert desk.train(*on_disk)[0] == 0
    write_image(desk.shelf.path / "b/5.png")
    desk.shelf.write("train.txt", *TRAIN, "b/5.png 1")
    code, _, lines = desk.train(*on_disk)
    assert code == 2
    assert "the data now give" in lines[0]


def test_a_finished_run_is_known_again_wherever_its_images_are_kept_now(desk: Desk) -> None:
    assert desk.train("data.size=6")[0] == 0
    assert desk.train("data.size=6", "data.cache_gb=0")[0] == 0
    (folder,) = desk.runs.glob("*/*")
    environment = json.loads((folder / "environment.json").read_text())
    assert len(environment["segments"]) == 1


@pytest.mark.parametrize("key", ["fraction", "per_class"])
def test_a_val_list_leaves_nothing_to_draw_for_validation(key: str) -> None:
    value = {"fraction": "0.2", "per_class": "3"}[key]
    other = {"fraction": "per_class", "per_class": "fraction"}[key]
    words = ["data=image_list", "data.val=val.txt", f"data.validation.{other}=null"]
    with pytest.raises(ConfigError, match=r"has no effect with data\.val; leave one out"):
        load(overrides=[*words, f"data.validation.{key}={value}"])


def test_a_metric_of_validation_needs_a_val_list_or_a_share_of_train() -> None:
    words = ["data=image_list", "data.validation.fraction=null", "evaluate=val/accuracy"]
    with pytest.raises(ConfigError, match=r"evaluate\.metric: has no effect without a validation"):
        load(overrides=words)
    assert load(overrides=[*words, "data.val=val.txt"]).evaluate.metric == "val/accuracy"
