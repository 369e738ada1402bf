"""Files that somebody changed between two stretches of a run, or after it, do not go unnoticed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import train
from engine.config.load import load
from engine.config.mistakes import ConfigError
from engine.config.schema import Config
from engine.training import checkpoint, trained
from tests._runs import (
    assert_same_run,
    folder_of,
    quiet_screen,
    rows_of,
    small_run,
    small_words,
    weights_of,
)
from tests.data._files import write_folder, write_image

EACH = "runtime.checkpoint_epoch_seconds=0"


class Stop(Exception):  # noqa: N818 - nothing went wrong
    """Ends a run after its second epoch."""


def stop_after_two(epoch: int, row: object) -> None:
    if epoch == 2:
        raise Stop


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """The folder of a run of three epochs that stopped after its second."""
    with pytest.raises(Stop):
        small_run(tmp_path, report=stop_after_two)
    return folder_of(tmp_path)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "lock"
    }


# --- metrics.jsonl --------------------------------------------------------------------------------


def delete(path: Path) -> None:
    path.unlink()


def cut_the_last_line(path: Path) -> None:
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])


def cut_the_first_line(path: Path) -> None:
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[1])


def repeat_a_line(path: Path) -> None:
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0] * 2)


def spoil_the_first_line(path: Path) -> None:
    path.write_bytes(b"x" + path.read_bytes())


@pytest.mark.parametrize(
    "change",
    [delete, cut_the_last_line, cut_the_first_line, repeat_a_line, spoil_the_first_line],
)
def test_a_log_without_the_epochs_of_the_checkpoint_is_refused_and_nothing_is_written(
    tmp_path: Path, stopped: Path, change: Callable[[Path], None]
) -> None:
    change(stopped / "metrics.jsonl")
    before = contents(stopped)
    with pytest.raises(ConfigError, match=r"metrics\.jsonl: does not hold the 2 epochs .*--fresh"):
        small_run(tmp_path)
    assert contents(stopped) == before


def test_a_log_that_was_put_back_lets_the_run_go_on(tmp_path: Path, stopped: Path) -> None:
    log = (stopped / "metrics.jsonl").read_bytes()
    (stopped / "metrics.jsonl").unlink()
    with pytest.raises(ConfigError):
        small_run(tmp_path)
    (stopped / "metrics.jsonl").write_bytes(log)
    small_run(tmp_path)
    assert [row["epoch"] for row in rows_of(stopped)] == [1, 2, 3]


# --- environment.json -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is missing"),
        ("{", "not valid JSON"),
        ("[]", "not a JSON object"),
        ("{}", "not of this version"),
    ],
)
def test_a_run_whose_past_nobody_knows_is_not_gone_on_with(
    tmp_path: Path, stopped: Path, content: str | None, message: str
) -> None:
    (stopped / "environment.json").unlink()
    if content is not None:
        (stopped / "environment.json").write_text(content)
    with pytest.raises(ConfigError, match=rf"environment\.json: {message}.*--fresh"):
        small_run(tmp_path)


# --- config.yaml ----------------------------------------------------------------------------------


def edit(folder: Path, key: str, value: object) -> None:
    """Set ``section.key`` in the config.yaml of a run folder."""
    section, leaf = key.split(".")
    content = yaml.safe_load((folder / "config.yaml").read_text())
    content[section][leaf] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(content))


@pytest.fixture(scope="module")
def finished_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("finished")
    small_run(root, "schedule.epochs=1")
    return root


def test_a_config_that_was_edited_is_not_taken_for_that_of_the_weights(
    tmp_path: Path, finished_root: Path
) -> None:
    folder = folder_of(finished_root, "schedule.epochs=1")
    text = (folder / "config.yaml").read_text()
    edit(folder, "optim.lr", 0.25)
    with pytest.raises(ConfigError, match=rf"config\.yaml: was edited: the run is {folder.name},"):
        trained.load_run(folder)
    with pytest.raises(ConfigError, match=r"model\.init_from=.*config\.yaml: was edited"):
        load(overrides=small_words(tmp_path, f"model.init_from={folder}"))
    (folder / "config.yaml").write_text(text)
    assert trained.load_run(folder).epoch == 1


def test_an_edit_that_changes_no_number_is_nobodys_business(finished_root: Path) -> None:
    folder = folder_of(finished_root, "schedule.epochs=1")
    edit(folder, "runtime.workers", 1)
    assert trained.load_run(folder).config.runtime.workers == 1


def test_a_config_of_another_version_cannot_be_compared_and_is_taken_as_it_is(
    tmp_path: Path,
) -> None:
    small_run(tmp_path, "schedule.epochs=1")
    folder = folder_of(tmp_path, "schedule.epochs=1")
    environment = json.loads((folder / "environment.json").read_text())
    environment |= {"config_version": 0, "fingerprint": "0123456789ab"}
    (folder / "environment.json").write_text(json.dumps(environment))
    assert trained.load_run(folder).epoch == 1


def test_a_resumed_run_writes_the_config_it_runs_with(tmp_path: Path, stopped: Path) -> None:
    text = (stopped / "config.yaml").read_text()
    edit(stopped, "optim.lr", 0.25)
    small_run(tmp_path)
    assert (stopped / "config.yaml").read_text() == text


# --- checkpoints ----------------------------------------------------------------------------------


def test_renames_that_a_kill_cut_short_are_done_on_resume(tmp_path: Path) -> None:
    """At the end of a run nothing is saved after them, and last.pt must be the last."""
    small_run(tmp_path / "whole")
    whole = folder_of(tmp_path / "whole")
    small_run(tmp_path / "killed", "track.keep_checkpoints=true", EACH)
    killed = folder_of(tmp_path / "killed")
    (killed / "checkpoints" / "last.pt").rename(killed / "checkpoints" / "next.pt")
    (killed / "summary.json").unlink()
    small_run(tmp_path / "killed", "track.keep_checkpoints=true")
    assert_same_run(killed, whole)
    names = {path.name for path in (killed / "checkpoints").iterdir()}
    assert names == {"last.pt", "previous.pt"}


def test_a_checkpoint_that_is_whole_but_not_in_place_is_found_where_it_is(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, {"epoch": 1})
    (tmp_path / "last.pt").rename(tmp_path / "next.pt")
    assert checkpoint.load_latest(tmp_path).path == tmp_path / "next.pt"


# --- data -----------------------------------------------------------------------------------------

PETS = {"train": {"cat": 12, "dog": 8}, "test": {"cat": 2, "dog": 2}}
ON_DISK = ("data.cache_gb=0", "data.normalize=imagenet", "runtime.workers=0")


def pets_config(tmp_path: Path, *words: str) -> Config:
    return load(
        overrides=[
            *("data=image_folder", f"data.path={tmp_path / 'pets'}", "schedule.epochs=3"),
            *("optim.batch_size=4", "runtime.threads=1", "track.wandb=disabled"),
            *("track.figures=false", f"track.root={tmp_path / 'runs'}", *words),
        ]
    )


def change_pixels(folder: Path) -> None:
    write_image(folder / "train/cat/000.png", seed=99)


def change_pixels_and_size(folder: Path) -> None:
    write_image(folder / "train/cat/000.png", seed=99)
    with (folder / "train/cat/000.png").open("ab") as file:
        file.write(b"more")


def add_an_image(folder: Path) -> None:
    write_image(folder / "train/cat/zzz.png", seed=99)


def move_an_image(folder: Path) -> None:
    (folder / "train/cat/011.png").rename(folder / "train/dog/zzz.png")


def change_a_test_image(folder: Path) -> None:
    write_image(folder / "test/cat/000.png", seed=99)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (change_pixels, ()),
        (change_a_test_image, ()),
        (add_an_image, ()),
        (move_an_image, ()),
        # Images that stay on disk are known by their names and sizes alone.
        (change_pixels_and_size, ON_DISK),
        (add_an_image, ON_DISK),
        (move_an_image, ON_DISK),
    ],
)
def test_images_that_changed_since_are_noticed_before_the_run_goes_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path], None],
    place: tuple[str, ...],
) -> None:
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "root"))
    folder = write_folder(tmp_path / "pets", PETS)
    config = pets_config(tmp_path, *place)
    with pytest.raises(Stop):
        train.run(config, report=stop_after_two, screen=quiet_screen())
    change(folder)
    with pytest.raises(ConfigError, match=r"was made on split .*; put the old data back"):
        train.run(config, screen=quiet_screen())


def test_an_image_that_vanishes_while_a_run_reads_it_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "root"))
    folder = write_folder(tmp_path / "pets", PETS)

    def remove(epoch: int, row: object) -> None:
        (folder / "train/cat/000.png").unlink(missing_ok=True)

    with pytest.raises(ConfigError, match=r"cat/000\.png cannot be read as an image"):
        train.run(pets_config(tmp_path, *ON_DISK, EACH), report=remove, screen=quiet_screen())
    (path,) = (tmp_path / "runs").glob("*/*")
    assert weights_of(path)
