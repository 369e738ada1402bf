"""Bad images, folders and names, given to the command line: one clear line, or handled and said."""

from __future__ import annotations

import dataclasses
import json
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import train
from data import DataError, _folder_pool, data_root
from data.chula_rbc12 import ChulaRbc12
from data.image_folder import ImageFolder
from data.image_list import ImageList
from data.infrared_solar import InfraredSolar
from engine.config.components import ROOT
from tests.data._files import write_folder, write_image
from tests.report._wandb_log import history

COUNTS = {"train": {"cat": 6, "dog": 4}, "test": {"cat": 2, "dog": 2}}
WORDS = (
    *("data=image_folder", "data.validation.fraction=null", "schedule.epochs=1"),
    *("optim.batch_size=4", "runtime.threads=1", "track.wandb=disabled", "track.figures=false"),
)
ON_DISK = ("data.cache_gb=0", "data.normalize=imagenet", "runtime.workers=0")


@dataclass(frozen=True)
class Outcome:
    """Exit code, lines on stderr without those of the progress, and the run folder if one is."""

    code: int
    lines: list[str]
    printed: str
    folder: Path | None


@dataclass(frozen=True)
class Pets:
    """A small image folder, and the command line on it."""

    path: Path
    runs: Path
    captured: pytest.CaptureFixture[str]

    def train(self, *words: str) -> Outcome:
        given = {word.partition("=")[0] for word in words}
        usual = [word for word in WORDS if word.partition("=")[0] not in given]
        code = train.main([*usual, f"data.path={self.path}", f"track.root={self.runs}", *words])
        printed, errors = self.captured.readouterr()
        lines = [
            line for line in errors.splitlines() if not line.startswith(("decoding:", "checking "))
        ]
        (folder,) = self.runs.glob("*/*") if self.runs.exists() else (None,)
        return Outcome(code, lines, printed, folder)

    def classes(self, outcome: Outcome) -> dict[str, dict[str, object]]:
        """What summary.json says about each class."""
        assert outcome.code == 0, outcome.lines
        assert outcome.folder is not None
        summary = json.loads((outcome.folder / "summary.json").read_text())
        return {row["name"]: row for row in summary["rules"]["last"]["classes"]}


@pytest.fixture
def pets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Pets:
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "root"))
    return Pets(write_folder(tmp_path / "pets", COUNTS), tmp_path / "runs", capsys)


def assert_refused(outcome: Outcome, *words: str) -> None:
    """Exit code 2, one line that holds all of ``words``, and no run folder."""
    assert outcome.code == 2
    (line,) = outcome.lines
    assert all(word in line for word in words), line
    assert outcome.folder is None


# --- classes --------------------------------------------------------------------------------------


def test_a_class_without_an_image_is_named(pets: Pets) -> None:
    (pets.path / "train/emu").mkdir()
    assert_refused(pets.train(), "train/emu has no images", "fill it or remove it")


def test_a_class_that_is_only_in_test_is_named(pets: Pets) -> None:
    write_image(pets.path / "test/emu/0.png")
    assert_refused(pets.train(), "class 'emu' is in", "every class needs training images")


def test_a_class_with_one_image_is_trained_on_and_keeps_it_from_validation(pets: Pets) -> None:
    write_image(pets.path / "train/emu/0.png")
    write_image(pets.path / "test/emu/0.png")
    outcome = pets.train("data.validation.fraction=0.5")
    assert "1 of 3 classes has no validation image" in outcome.printed
    emu = pets.classes(outcome)["emu"]
    assert (emu["train_images"], emu["support"], emu["group"]) == (1, 1, "few")


def test_a_class_that_is_not_in_test_has_no_recall_and_no_share_in_the_means(pets: Pets) -> None:
    write_image(pets.path / "train/emu/0.png")
    outcome = pets.train()
    rows = pets.classes(outcome)
    assert (rows["emu"]["support"], rows["emu"]["recall"]) == (0, None)
    assert outcome.folder is not None
    summary = json.loads((outcome.folder / "summary.json").read_text())
    recalls = [float(str(rows[name]["recall"])) for name in ("cat", "dog")]
    balanced = summary["rules"]["last"]["test"]["balanced_accuracy"]
    assert balanced == pytest.approx(sum(recalls) / 2)
    assert "NaN" not in (outcome.folder / "metrics.jsonl").read_text()


# --- files ----------------------------------------------------------------------------------------


def empty(path: Path) -> None:
    path.write_bytes(b"")


def truncated(path: Path) -> None:
    write_image(path, width=40, height=40)
    path.write_bytes(path.read_bytes()[:-1000])


def text(path: Path) -> None:
    path.write_text("no image")


def floats(path: Path) -> None:
    """The one way to NaN pixels."""
    Image.fromarray(np.full((6, 6), np.nan, dtype=np.float32)).save(path, format="tiff")


@pytest.mark.parametrize("spoil", [empty, truncated, text, floats])
def test_a_file_that_cannot_be_read_is_named(pets: Pets, spoil: Callable[[Path], None]) -> None:
    spoil(pets.path / "train/cat/bad.png")
    assert_refused(pets.train("data.size=6"), "train/cat/bad.png")


@pytest.mark.parametrize("spoil", [empty, truncated, text, floats])
def test_a_file_that_stays_on_disk_is_named(pets: Pets, spoil: Callable[[Path], None]) -> None:
    spoil(pets.path / "train/cat/bad.png")
    assert_refused(pets.train("data.size=6", *ON_DISK), "train/cat/bad.png")


@pytest.mark.parametrize("spoil", [empty, truncated, text, floats])
def test_one_of_too_many_files_to_look_at_is_named_when_its_batch_comes(
    pets: Pets, spoil: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_folder_pool, "_MOST_LOOKED_AT", 0)
    spoil(pets.path / "train/cat/bad.png")
    outcome = pets.train("data.size=6", *ON_DISK)
    assert outcome.code == 2
    (line,) = outcome.lines
    assert "train/cat/bad.png" in line
    (pets.path / "train/cat/bad.png").unlink()
    assert "the data now give" in pets.train("data.size=6", *ON_DISK).lines[0]


def sixteen_bits(path: Path) -> None:
    Image.fromarray(np.full((6, 6), 40_000, dtype=np.uint16)).save(path, format="png")


def cmyk(path: Path) -> None:
    Image.new("CMYK", (6, 6), (0, 200, 200, 0)).save(path, format="jpeg")


def palette(path: Path) -> None:
    image = Image.new("P", (6, 6), 1)
    image.putpalette([0, 0, 0, 156, 156, 156])
    image.save(path, format="png")


def animated(path: Path) -> None:
    frames = [Image.new("RGB", (6, 6), (grey, grey, grey)) for grey in (156, 0, 255)]
    frames[0].save(path, format="gif", save_all=True, append_images=frames[1:])


@pytest.mark.parametrize(
    ("write", "colour"),
    [
        (sixteen_bits, [156, 156, 156]),  # 40,000 / 256
        (palette, [156, 156, 156]),
        (animated, [156, 156, 156]),  # the first frame
        (cmyk, [255, 55, 55]),
    ],
)
@pytest.mark.parametrize("place", [(), ON_DISK])
def test_an_unusual_image_is_taken_as_8_bit_rgb(
    pets: Pets, write: Callable[[Path], None], colour: list[int], place: tuple[str, ...]
) -> None:
    write(pets.path / "train/cat/odd.png")
    assert pets.classes(pets.train(*place))["cat"]["train_images"] == 7
    arrays = [np.load(file) for file in (pets.path.parent / "root").rglob("train.npy")]
    found = [image[:, 3, 3] for array in arrays for image in array]
    assert bool(place) or any(np.abs(image - np.array(colour)).max() <= 3 for image in found)


def test_a_large_photo_brings_no_warning_of_a_library(
    pets: Pets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)  # the images have 36
    assert pets.train().lines == []
    on_disk = dataclasses.replace(pets, runs=pets.runs / "on_disk")
    assert on_disk.train(*ON_DISK).lines == []


def test_what_windows_leaves_in_a_folder_ends_no_run(pets: Pets) -> None:
    for name in ("Thumbs.db", "desktop.ini"):
        (pets.path / "train/cat" / name).write_bytes(b"\0\1")
    assert pets.train().code == 0


def test_a_run_says_at_its_start_that_images_are_mirrored(pets: Pets) -> None:
    said = "every second training image is mirrored (data.augment.flip=true)"
    printed = pets.train().printed
    assert printed.index(said) < printed.index("epoch 1/1")
    pets = dataclasses.replace(pets, runs=pets.runs / "unmirrored")
    assert said not in pets.train("data.augment.flip=false").printed


def test_test_images_that_are_training_images_are_refused_and_leave_no_folder(pets: Pets) -> None:
    shutil.rmtree(pets.path / "test/cat")
    (pets.path / "test/cat").symlink_to(pets.path / "train/cat")
    assert_refused(
        pets.train(), "test images that are in train, too: 6 of 8", "data.allow_overlap=true"
    )
    outcome = pets.train("data.allow_overlap=true")
    assert outcome.printed.count("test images that are in train, too: 6 of 8") == 2  # begin and end


def test_a_folder_of_classes_is_a_data_set_with_a_fraction_for_test(pets: Pets) -> None:
    shutil.rmtree(pets.path / "test")
    assert_refused(pets.train(), "has no folder test", "data.test_fraction=0.2")
    inside = dataclasses.replace(pets, path=pets.path / "train")
    assert_refused(inside.train(), "has no folder train", "data.test_fraction=0.2")
    assert inside.train("data.test_fraction=0.3").code == 0


# --- folders --------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["train/loop", "train/cat/loop.png", "val"])
def test_a_link_to_itself_is_named(pets: Pets, place: str) -> None:
    (pets.path / place).symlink_to(pets.path / place)
    assert_refused(pets.train(), place, "cannot be read (Too many levels of symbolic links)")


def test_a_link_back_up_is_no_endless_walk(pets: Pets) -> None:
    (pets.path / "train/cat/up").symlink_to(pets.path / "train")
    assert_refused(pets.train(), "train/cat/up is a folder in a class folder")


def test_a_pipe_among_the_images_is_named_and_not_waited_for(pets: Pets) -> None:
    os.mkfifo(pets.path / "train/cat/pipe.png")
    assert_refused(pets.train(), "train/cat/pipe.png is not a file")


def test_a_val_that_is_no_folder_is_named(pets: Pets) -> None:
    (pets.path / "val").write_text("")
    assert_refused(pets.train(), f"{pets.path}/val cannot be read (Not a directory)")


def test_a_path_too_long_for_the_system_is_one_line(pets: Pets) -> None:
    pets = dataclasses.replace(pets, path=Path("x" * 300))
    assert_refused(pets.train(), "cannot be read (File name too long)")


def test_a_folder_without_permission_is_named(pets: Pets) -> None:
    folders = [pets.path / "train/cat", pets.path / "train", pets.path]
    script = "import os, sys, train\nfor folder in sys.argv[2:]:\n    os.chmod(folder, 0)\n"
    script += f"    assert train.main([*{WORDS}, 'data.path=' + sys.argv[1]]) == 2\n"
    # Root reads everything; without these two capabilities it is a user as any other.
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if not os.getuid() else []
    done = subprocess.run(
        [*drop, sys.executable, "-c", script, str(pets.path), *map(str, folders)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    for folder in reversed(folders):
        folder.chmod(0o700)
    assert done.returncode == 0, done.stderr
    for line, folder in zip(done.stderr.splitlines(), folders, strict=True):
        assert line.startswith(f"data.path: {folder}")
        assert line.endswith("cannot be read (Permission denied)")


def test_a_user_without_a_home_is_told_which_variable_to_set(
    pets: Pets, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(uid: int) -> object:
        raise KeyError(uid)

    for variable in ("DATA_ROOT", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    assert_refused(pets.train(), "DATA_ROOT is not set and there is no home folder")


@pytest.mark.parametrize("variable", ["DATA_ROOT", "XDG_CACHE_HOME"])
def test_a_variable_that_names_the_home_folder_of_nobody_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.delenv("DATA_ROOT", raising=False)
    monkeypatch.setenv(variable, "~nosuchuser/d")
    with pytest.raises(DataError, match=f"{variable}=~nosuchuser/d: ~nosuchuser has no home"):
        data_root()


@pytest.mark.parametrize(
    ("source", "key"),
    [
        (lambda path: ImageFolder(Path(), path=path), "data.path"),
        (lambda path: InfraredSolar(Path(), path=path).load(), "data.path"),
        (lambda path: ChulaRbc12(Path(), path=path).load(), "data.path"),
        (lambda path: ImageList(Path(), root=path, train="a", test="b"), "data.root"),
        (lambda path: ImageList(Path(), root=".", train=path, test="b"), "data.train"),
    ],
)
def test_a_path_of_data_in_the_home_folder_of_nobody_is_named(
    source: Callable[[str], object], key: str
) -> None:
    with pytest.raises(DataError, match=f"{key}=~nosuchuser/x: ~nosuchuser has no home folder"):
        source("~nosuchuser/x")


# --- names ----------------------------------------------------------------------------------------

# As they are, and as a terminal shows them.
NAMES = {
    "[red]a": "[red]a",
    "[bold b": "[bold b",
    "c\nd": "c\\nd",
    "\x1b[31me": "\\x1b[31me",
    "$\\frac{$": "$\\frac{$",
    ":smile:": ":smile:",
    "<b>f": "<b>f",
    "grün": "grün",
    "%s{}": "%s{}",
}


def test_names_of_classes_stay_inert_wherever_they_are_written(pets: Pets) -> None:
    for name in NAMES:
        write_image(pets.path / "train" / name / "0.png")
        write_image(pets.path / "test" / name / "0.png")
    outcome = pets.train("track.figures=true", "track.wandb=offline")
    assert set(NAMES) < pets.classes(outcome).keys()
    lines = outcome.printed.splitlines()
    for shown in NAMES.values():
        assert [line for line in lines if line.strip().startswith(f"{shown} ")], shown
    assert "\x1b" not in outcome.printed
    assert outcome.folder is not None
    assert (outcome.folder / "figures/confusion_matrix.png").stat().st_size > 0
    (file,) = outcome.folder.rglob("*.wandb")
    assert history(file)[-1]["test/classes/nrows"] == len(NAMES) + 2
    (table,) = outcome.folder.rglob("media/table/test/classes_*.table.json")
    assert set(NAMES) < {row[1] for row in json.loads(table.read_text())["data"]}
    inside = {path for path in pets.runs.rglob("*") if outcome.folder in path.parents}
    assert set(pets.runs.rglob("*")) - inside == {outcome.folder.parent, outcome.folder}


def test_a_name_of_a_class_that_is_no_text_is_refused(pets: Pets) -> None:
    name = b"caf\xe9"
    (pets.path / "train" / os.fsdecode(name)).mkdir()
    assert_refused(pets.train(), "caf\\udce9 has a name that is no UTF-8: rename it")
