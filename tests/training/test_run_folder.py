"""Files of a run folder are whole or absent, it has one owner, and code that ran is named."""

from __future__ import annotations

import contextlib
import fcntl
import json
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from engine.config import components
from engine.config.load import fingerprint, load
from engine.config.mistakes import ConfigError
from engine.training.code_hash import code_files, code_hash
from engine.training.files import read_json, write_bytes, write_json, write_text
from engine.training.provenance import describe_segment
from engine.training.run_folder import BusyError, RunFolder

# --- whole or absent ------------------------------------------------------------------------------


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow beyond 100 bytes: a write of more fails half way, as on a full disk.

    Not a fixture: the limit is the process's, and pytest itself may be writing to a longer file.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("old", encoding="utf-8")
    return path


def test_a_write_that_fails_half_way_leaves_the_old_text(old: Path) -> None:
    with full_disk(), pytest.raises(OSError, match="File too large"):
        write_text(old, "x" * 1000)
    assert old.read_text() == "old"


def test_a_write_that_fails_half_way_leaves_the_old_json(old: Path) -> None:
    with full_disk(), pytest.raises(OSError, match="File too large"):
        write_json(old, {"key": "x" * 1000})
    assert old.read_text() == "old"


def test_a_write_that_fails_half_way_makes_no_new_file(tmp_path: Path) -> None:
    with full_disk(), pytest.raises(OSError, match="File too large"):
        write_bytes(tmp_path / "new", b"x" * 1000)
    assert not (tmp_path / "new").exists()


def test_a_value_that_json_does_not_know_leaves_the_old_file(old: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(old, {"loss": float("nan")})
    assert old.read_text() == "old"


def test_a_write_makes_its_folder_and_leaves_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "deep" / "er" / "file", "grün")
    write_text(tmp_path / "deep" / "er" / "file", "neu")
    assert [p.name for p in (tmp_path / "deep" / "er").iterdir()] == ["file"]
    assert (tmp_path / "deep" / "er" / "file").read_text(encoding="utf-8") == "neu"


def test_json_comes_back_as_it_went(tmp_path: Path) -> None:
    content = {"a": None, "b": [1, 2.5], "c": {"d": "grün"}}
    write_json(tmp_path / "x.json", content)
    assert read_json(tmp_path / "x.json") == content


def test_an_absent_file_is_none_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert read_json(folder.summary) is None
    folder.summary.write_text('{"a": ', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"summary\.json: not valid JSON; repair it or use"):
        read_json(folder.summary)


# --- one owner ------------------------------------------------------------------------------------


def test_a_folder_has_one_owner_at_a_time(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with (
        folder.owned(),
        pytest.raises(ConfigError, match=r"process \d+ is writing this run; wait for it"),
        RunFolder(tmp_path / "run").owned(),
    ):
        pass
    with folder.owned():
        assert (tmp_path / "run" / "lock").exists()


def test_the_folder_is_free_again_after_an_error(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(ZeroDivisionError), folder.owned():
        raise ZeroDivisionError
    with folder.owned():
        assert folder.path.is_dir()


@pytest.mark.parametrize("is_taken", [False, True])
def test_a_folder_that_is_set_aside_while_it_is_being_locked_is_not_owned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_taken: bool
) -> None:
    """--fresh in another process renames it between the opening and the locking of its file."""
    folder, other = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "run")
    with folder.owned():
        folder.summary.touch()
    flock, stack = fcntl.flock, contextlib.ExitStack()

    def too_late(lock: IO[str], operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        other.set_aside()
        if is_taken:
            stack.enter_context(other.owned())
        flock(lock, operation)

    monkeypatch.setattr(fcntl, "flock", too_late)
    refused = pytest.raises(BusyError) if is_taken else contextlib.nullcontext()
    with stack, refused, folder.owned():
        assert not folder.summary.exists()
        assert other.is_owned()
    assert (tmp_path / "run.old-1" / "summary.json").exists()


def test_who_only_asks_for_the_owner_keeps_nobody_from_becoming_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path / "run")
    with folder.owned():
        pass
    with (folder.path / "lock").open() as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        monkeypatch.setattr(time, "sleep", lambda _: fcntl.flock(asking, fcntl.LOCK_UN))
        with folder.owned():
            assert folder.is_owned()


def test_an_empty_folder_is_not_set_aside(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with folder.owned():
        pass
    assert folder.set_aside() is None
    assert folder.path.exists()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("", encoding="utf-8")
    with (
        pytest.raises(ConfigError, match=r"runs/name: cannot be written: "),
        RunFolder(tmp_path / "runs" / "name").owned(),
    ):
        pass


def test_a_folder_in_a_working_directory_that_is_gone_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with (
        pytest.raises(ConfigError, match=r"runs/name: cannot be written: No such file"),
        RunFolder(Path("runs/name")).owned(),
    ):
        pass


def test_folders_are_set_aside_under_rising_numbers(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    assert folder.set_aside() is None
    for number in (1, 2, 3):
        folder.path.mkdir()
        (folder.path / "number").write_text(str(number), encoding="utf-8")
        assert folder.set_aside() == tmp_path / f"run.old-{number}"
    kept = [(tmp_path / f"run.old-{n}" / "number").read_text() for n in (1, 2, 3)]
    assert kept == ["1", "2", "3"]
    assert not folder.path.exists()


# --- metrics.jsonl --------------------------------------------------------------------------------


@pytest.fixture
def four_rows(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path)
    for epoch in range(1, 5):
        folder.append_row({"epoch": epoch, "loss": 1 / epoch})
    return folder


def epochs_on_disk(folder: RunFolder) -> list[int]:
    return [json.loads(line)["epoch"] for line in folder.metrics.read_text().splitlines()]


def test_rows_come_back_as_they_were_added(four_rows: RunFolder) -> None:
    assert four_rows.rows() == [{"epoch": e, "loss": 1 / e} for e in range(1, 5)]
    assert RunFolder(four_rows.path / "elsewhere").rows() == []


@pytest.mark.parametrize("kept", [0, 1, 3, 4])
def test_rows_are_cut_back_to_what_a_checkpoint_knows(four_rows: RunFolder, kept: int) -> None:
    found = four_rows.cut_rows(kept)
    assert [row["epoch"] for row in found] == epochs_on_disk(four_rows) == list(range(1, kept + 1))


@pytest.mark.parametrize(
    "torn", [b'{"epoch": 5, "lo', b'{"epoch": 5, "loss": 1.0}\n{"ep', b"\0\0", b"\xff"]
)
def test_a_torn_last_line_is_dropped_and_the_next_row_stands_alone(
    four_rows: RunFolder, torn: bytes
) -> None:
    with four_rows.metrics.open("ab") as file:
        file.write(torn)
    four_rows.cut_rows(4)
    four_rows.append_row({"epoch": 5})
    assert epochs_on_disk(four_rows) == [1, 2, 3, 4, 5]


def test_a_whole_last_line_without_its_end_is_mended(four_rows: RunFolder) -> None:
    text = four_rows.metrics.read_text()
    four_rows.metrics.write_text(text.removesuffix("\n"), encoding="utf-8")
    four_rows.cut_rows(4)
    four_rows.append_row({"epoch": 5})
    assert epochs_on_disk(four_rows) == [1, 2, 3, 4, 5]


def test_nothing_is_written_where_nothing_is_to_be_cut(four_rows: RunFolder) -> None:
    before = four_rows.metrics.stat().st_ino
    four_rows.cut_rows(4)
    assert four_rows.metrics.stat().st_ino == before


def test_an_undefined_number_in_a_row_is_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        folder.append_row({"loss": float("inf")})
    assert folder.rows() == []


# --- the code that ran ----------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the sources whose hash is taken."""
    for package in ("engine", "data", "losses", "models"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(components.ROOT / package, tmp_path / package, ignore=ignored)
    for file in components.ROOT.glob("*.py"):
        shutil.copy(file, tmp_path)
    monkeypatch.setattr("engine.training.code_hash.ROOT", tmp_path)
    return tmp_path


def code_of(*words: str) -> str:
    return code_hash(load(overrides=words))


def test_a_copy_of_the_code_has_the_same_hash(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = code_of()
    monkeypatch.setattr("engine.training.code_hash.ROOT", components.ROOT)
    assert code_of() == copied
    assert len(copied) == 12


@pytest.mark.parametrize(
    "file",
    [
        "train.py",
        "engine/training/build.py",
        "engine/training/train_loop.py",
        "engine/training/metrics/catalogue.py",
        "engine/training/metrics/ranking.py",
        "engine/config/calendar.py",
        "models/heads/linear.py",
        "models/cifar_resnet.py",
        "data/samplers/_base.py",
        "data/samplers/instance.py",
        "losses/weights/_base.py",
        "engine/training/schedules/cosine.py",
        "models/__init__.py",
        "data/_split.py",
        "data/digits.py",
        "losses/_base.py",
        "losses/cross_entropy.py",
    ],
)
def test_a_change_that_can_change_a_number_changes_the_hash(checkout: Path, file: str) -> None:
    before = code_of()
    with (checkout / file).open("a", encoding="utf-8") as source:
        source.write("\n")
    assert code_of() != before


@pytest.mark.parametrize(
    "file",
    [
        "engine/report/terminal.py",
        "engine/report/statistics.py",
        "engine/report/figures/style.py",
        "engine/config/messages.py",
        "engine/tables/layout.py",
        "engine/training/notes.py",
        "engine/tuning/figures/drawing.py",
        "sweep.py",
    ],
)
def test_a_change_that_only_shows_leaves_the_hash(checkout: Path, file: str) -> None:
    before = code_of()
    with (checkout / file).open("a", encoding="utf-8") as source:
        source.write("A_COLOUR = 1\n")
    assert code_of() == before


@pytest.mark.parametrize(
    ("old", "new", "is_same"),
    [
        ('"balanced accuracy"', '"mean of the recalls"', True),
        ('column="balanced"', 'column="class average"', True),
        ('better="max"', 'better="min"', False),
        ("_mean(scored.recall)", "_mean(scored.precision)", False),
    ],
)
def test_a_metric_counts_in_the_hash_but_for_its_headings(
    checkout: Path, old: str, new: str, *, is_same: bool
) -> None:
    before = code_of()
    catalogue = checkout / "engine/training/metrics/catalogue.py"
    text = catalogue.read_text(encoding="utf-8")
    assert old in text
    catalogue.write_text(text.replace(old, new, 1), encoding="utf-8")
    assert (code_of() == before) == is_same


@pytest.mark.parametrize(
    "file",
    [
        "losses/softmax_focal.py",
        "losses/weights/inverse.py",
        "data/cifar10.py",
        "data/samplers/progressive.py",
        "models/heads/cosine.py",
        "models/new_family.py",
        "engine/training/schedules/steps.py",
        "notes.py",
    ],
)
def test_the_hash_ignores_a_component_that_the_run_does_not_use(checkout: Path, file: str) -> None:
    before = code_of()
    with (checkout / file).open("a", encoding="utf-8") as source:
        source.write("\n")
    assert code_of() == before


@pytest.mark.parametrize(
    ("words", "file"),
    [
        (["reweight=inverse"], "losses/weights/inverse.py"),
        (["sampler=progressive", "sampler.start=0.5"], "data/samplers/progressive.py"),
        (["sampler=progressive", "sampler.start=0.5"], "data/samplers/instance.py"),
        (["model.head=cosine"], "models/heads/cosine.py"),
        (["schedule=steps"], "engine/training/schedules/steps.py"),
    ],
)
def test_the_hash_reaches_the_files_that_a_run_chooses(
    checkout: Path, words: list[str], file: str
) -> None:
    before = code_of(*words)
    with (checkout / file).open("a", encoding="utf-8") as source:
        source.write("\n")
    assert code_of(*words) != before


@pytest.mark.parametrize("file", ["balanced_softmax", "logit_adjustment", "cross_entropy"])
def test_the_hash_reaches_the_losses_that_a_loss_is_made_of(checkout: Path, file: str) -> None:
    before = code_of("loss=balanced_softmax"), code_of("loss=dice")
    with (checkout / f"losses/{file}.py").open("a", encoding="utf-8") as source:
        source.write("\n")
    after = code_of("loss=balanced_softmax"), code_of("loss=dice")
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, True]


def test_a_renamed_file_changes_the_hash(checkout: Path) -> None:
    before = code_of()
    (checkout / "models" / "_backbone.py").rename(checkout / "models" / "_trunk.py")
    assert code_of() != before


def segment(*files: Path) -> dict[str, object]:
    return describe_segment(
        command=["train.py"], device="cpu", precision="float32", threads=1, code="0123", files=files
    )


def commit_all(folder: Path) -> None:
    identity = ["-c", "user.name=Tester", "-c", "user.email=tester@example.org"]
    for words in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "all"]):
        subprocess.run(["git", *words], cwd=folder, check=True)


def test_without_a_repository_the_commit_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.training.provenance.ROOT", tmp_path)
    assert segment()["commit"] is None


def test_results_that_runs_add_do_not_make_a_checkout_dirty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "experiments" / "results"
    results.mkdir(parents=True)
    for file in (results / "digits_lt.jsonl", tmp_path / "train.py"):
        file.write_text("a\n")
    commit_all(tmp_path)
    monkeypatch.setattr("engine.training.provenance.ROOT", tmp_path)
    assert segment()["dirty"] is False
    (results / "digits_lt.jsonl").write_text("a\nb\n")
    assert segment()["dirty"] is False
    (tmp_path / "train.py").write_text("b\n")
    assert segment()["dirty"] is True


@pytest.mark.parametrize("is_ignored", [False, True])
def test_code_that_git_has_never_seen_makes_the_checkout_of_its_run_dirty(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, *, is_ignored: bool
) -> None:
    mine = checkout / "losses" / "softmax_focal.py"
    source = mine.read_bytes()
    mine.unlink()
    (checkout / ".gitignore").write_text("softmax_focal.py\n" if is_ignored else "")
    commit_all(checkout)
    mine.write_bytes(source)
    monkeypatch.setattr("engine.training.provenance.ROOT", checkout)
    of_another = segment(*code_files(load()))
    assert (of_another["dirty"], of_another["untracked"]) == (False, [])
    found = segment(*code_files(load(overrides=["loss=softmax_focal"])))
    assert (found["dirty"], found["untracked"]) == (True, ["losses/softmax_focal.py"])


def test_without_git_the_commit_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert segment()["commit"] is None


def test_a_package_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.training.provenance.PACKAGES", ("torch", "no-such-package"))
    packages = segment()["packages"]
    assert isinstance(packages, dict)
    assert packages["torch"]
    assert packages["no-such-package"] is None


# --- where it is ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["data=digits"], "digits"),
        (["data=image_folder", "data.path=photos"], "photos"),
        (["data=image_folder", "data.path=/mnt/data/my photos (2024)/"], "my_photos_2024_"),
        (["data=image_folder", "data.path=/data/写真"], "写真"),
        (["data=image_folder", "data.path=.."], "image_folder"),
        (["data=image_list", "data.root=photos", "data.train=train.txt"], "photos"),
        (["data=image_folder", "data.path=photos", "track.name=mine"], "mine"),
    ],
)
def test_runs_on_a_folder_of_images_are_filed_under_its_name(words: list[str], name: str) -> None:
    config = load(overrides=words)
    assert RunFolder.of(config).path == Path("runs") / name / fingerprint(config)


def test_a_run_that_is_filed_under_its_kind_of_data_stays_there(tmp_path: Path) -> None:
    words = ["data=image_folder", "data.path=photos", f"track.root={tmp_path}"]
    config = load(overrides=words)
    former = tmp_path / "image_folder" / fingerprint(config)
    former.mkdir(parents=True)
    assert RunFolder.of(config).path == former
    named = load(overrides=[*words, "track.name=mine"])
    assert RunFolder.of(named).path == tmp_path / "mine" / fingerprint(named)
