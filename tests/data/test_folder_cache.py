import errno
import fcntl
import os
import shutil
import socket
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data import (
    DataError,
    DiskImages,
    Imbalance,
    LongTailed,
    Pool,
    Validation,
    _folder_cache,
    build,
)
from data._array_cache import decoded_once
from data._decode import decode
from data._scratch import written_whole
from data.image_folder import ImageFolder
from tests.data._files import write_folder, write_image

COUNTS = {"train": {"dog": 3, "cat": 2}, "test": {"cat": 1, "dog": 2}}


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "pets", COUNTS)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def cached(pool: Pool) -> torch.Tensor:
    assert isinstance(pool.train.images, torch.Tensor)
    return pool.train.images


def without_imbalance(source: ImageFolder) -> LongTailed:
    return build(source, imbalance=Imbalance("none"), validation=Validation(per_class=None))


def test_a_second_load_reads_the_cache_and_not_the_files(pets: Path, root: Path) -> None:
    first = cached(ImageFolder(root, path=str(pets)).load()).clone()
    file = pets / "train/cat/000.png"
    facts = file.stat()
    file.write_bytes(bytes(facts.st_size))
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert torch.equal(cached(ImageFolder(root, path=str(pets)).load()), first)


@pytest.mark.parametrize("change", ["time", "name", "size"])
def test_a_changed_file_or_option_is_decoded_anew(pets: Path, root: Path, change: str) -> None:
    first = cached(ImageFolder(root, path=str(pets)).load()).clone()
    file = pets / "train/cat/000.png"
    if change == "time":
        write_image(file, seed=99)
        os.utime(file, ns=(1, 1))
    elif change == "name":
        file.rename(pets / "train/cat/zzz.png")
    size = 4 if change == "size" else None
    second = cached(ImageFolder(root, path=str(pets), size=size).load())
    assert first.shape != second.shape or not torch.equal(first, second)


def test_another_version_of_a_decoder_makes_entries_of_its_own(
    pets: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sorted((pets / "train/cat").iterdir())

    def num_entries() -> list[int]:
        ImageFolder(root, path=str(pets)).load()
        decoded_once(root / "arrays", files, lambda path: decode(path, size=None).numpy()[None])
        return [len(list((root / name).iterdir())) for name in ("cache/image_folder", "arrays")]

    assert num_entries() == [1, 1]
    monkeypatch.setattr("data._decode.version", lambda package: f"0 of {package}")
    assert num_entries() == [2, 2]
    monkeypatch.setattr("PIL.__version__", "0")
    assert num_entries() == [3, 3]


def test_writing_into_cached_images_never_reaches_the_cache(pets: Path, root: Path) -> None:
    images = cached(ImageFolder(root, path=str(pets)).load())
    before = images.clone()
    images.zero_()
    assert torch.equal(cached(ImageFolder(root, path=str(pets)).load()), before)


def test_a_moved_folder_keeps_its_cache_and_its_fingerprint(pets: Path, root: Path) -> None:
    first = without_imbalance(ImageFolder(root, path=str(pets)))
    moved = pets.rename(pets.parent / "moved")
    second = without_imbalance(ImageFolder(root, path=str(moved)))
    assert second.split_fingerprint == first.split_fingerprint
    assert len(list((root / "cache/image_folder").iterdir())) == 1


@pytest.mark.parametrize("damage", ["truncated", "emptied", "of another shape"])
def test_a_damaged_cache_is_made_anew(pets: Path, root: Path, damage: str) -> None:
    expected = cached(ImageFolder(root, path=str(pets)).load()).clone()
    (array,) = (root / "cache/image_folder").glob("*/train.npy")
    if damage == "of another shape":
        np.save(array, np.zeros((1, 3, 6, 6), dtype=np.uint8))
    else:
        array.write_bytes(array.read_bytes()[: 200 if damage == "truncated" else 0])
    assert torch.equal(cached(ImageFolder(root, path=str(pets)).load()), expected)


def test_a_failed_decoding_names_the_file_and_leaves_nothing_behind(pets: Path, root: Path) -> None:
    (pets / "test/dog/notes.txt").write_text("no image")
    with pytest.raises(DataError, match=r"test/dog/notes.txt cannot be read as an image"):
        ImageFolder(root, path=str(pets)).load()
    assert list((root / "cache/image_folder").iterdir()) == []


def test_several_loads_at_once_make_one_cache(pets: Path, root: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        loads = [pool.submit(ImageFolder(root, path=str(pets)).load) for _ in range(8)]
        images = [cached(load.result()) for load in loads]
    assert all(torch.equal(images[0], other) for other in images)
    assert len(list((root / "cache/image_folder").iterdir())) == 1


def test_a_cache_that_cannot_be_written_says_what_to_do(pets: Path, root: Path) -> None:
    root.mkdir()
    (root / "cache").write_text("in the way")
    with pytest.raises(DataError, match=r"cannot be written \(.*data.cache_gb=0") as error:
        ImageFolder(root, path=str(pets)).load()
    assert "\n" not in str(error.value)


def test_nothing_has_to_be_written_where_no_image_is_cached(pets: Path) -> None:
    source = ImageFolder(Path("/dev/null/x"), path=str(pets), cache_gb=0, normalize="imagenet")
    pool = source.load()
    assert isinstance(pool.train.images, DiskImages)
    build(source, imbalance=Imbalance("none"), validation=Validation(None))


def test_a_full_disk_is_told_before_anything_is_decoded(
    pets: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(DataError, match=r"0.0 GB needed, 0.0 GB free\): make room"):
        ImageFolder(root, path=str(pets)).load()


def test_a_listing_is_checked_for_sizes_once(
    pets: Path, root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        ImageFolder(root, path=str(pets), cache_gb=0, normalize="imagenet").load()
    assert capfd.readouterr().err.count("checking image sizes: 8 images") == 1


def test_decoding_tells_plain_lines_where_there_is_no_terminal(
    pets: Path, root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ImageFolder(root, path=str(pets)).load()
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("decoding: 8 images\ndecoding: done in ")


def test_decoding_draws_a_bar_on_a_terminal(
    pets: Path, root: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    ImageFolder(root, path=str(pets)).load()
    assert "8/8" in capfd.readouterr().err


def test_an_entry_that_another_process_writes_first_is_kept(
    pets: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = decode
    inodes: list[int] = []

    def overtaken(path: Path, **options: Any) -> torch.Tensor:
        monkeypatch.setattr(_folder_cache, "decode", original)
        if not inodes:
            ImageFolder(root, path=str(pets)).load()
            inodes.append(entry_inode(root))
        return original(path, **options)

    monkeypatch.setattr(_folder_cache, "decode", overtaken)
    monkeypatch.setattr(_folder_cache, "ThreadPoolExecutor", lambda: ThreadPoolExecutor(1))
    images = cached(ImageFolder(root, path=str(pets)).load())
    assert inodes == [entry_inode(root)]
    assert len(images) == 5


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(
    pets: Path, root: Path
) -> None:
    cache = root / "cache/image_folder"
    here = f"@{socket.gethostname()}"
    for name in (f"left{here}", f"living{here}"):
        (cache / f".{name}").mkdir(parents=True)
        (cache / f".{name}" / "train.npy").write_bytes(b"half")
        (cache / f".{name}.lock").touch()
    lock = os.open(cache / f".living{here}.lock", os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    ImageFolder(root, path=str(pets)).load()
    os.close(lock)
    scratch = sorted(path.name for path in cache.iterdir() if path.name.startswith("."))
    assert scratch == [f".living{here}", f".living{here}.lock"]


def test_what_another_machine_writes_is_left_alone_for_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its locks may not be seen here: on NFS as of old, and where a file system has none."""
    entries = (tmp_path / "one", tmp_path / "two")
    monkeypatch.setattr(socket, "gethostname", lambda: "node1")
    with written_whole(entries[0], needed=0, is_whole=entries[0].is_dir) as scratch:
        (scratch / "train.npy").write_bytes(b"half")
        with monkeypatch.context() as patch:
            patch.setattr(socket, "gethostname", lambda: "node2")
            patch.setattr(fcntl, "flock", lambda *_: None)
            with written_whole(entries[1], needed=0, is_whole=entries[1].is_dir):
                assert (scratch / "train.npy").is_file()
                left = scratch.parent / ".three.1.ab@node3"
                left.mkdir()
                os.utime(left, (0, 0))
            with written_whole(entries[1], needed=0, is_whole=entries[1].is_dir):
                pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_a_cache_is_locked_by_a_file_that_is_open_for_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS keeps no others: it refuses a lock of a file that is open for reading alone."""
    locked = []
    flock = fcntl.flock

    def of_nfs(handle: int, how: int) -> None:
        assert stat.S_ISREG(os.fstat(handle).st_mode)
        assert fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR
        locked.append(how)
        flock(handle, how)

    monkeypatch.setattr(fcntl, "flock", of_nfs)
    one, two = tmp_path / "one", tmp_path / "two"
    with (
        written_whole(one, needed=0, is_whole=one.is_dir),
        written_whole(two, needed=0, is_whole=two.is_dir),
    ):
        pass
    assert locked == [fcntl.LOCK_EX, fcntl.LOCK_EX, fcntl.LOCK_EX | fcntl.LOCK_NB]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_a_file_system_without_locks_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none)
    one, two = tmp_path / "one", tmp_path / "two"
    with (
        written_whole(one, needed=0, is_whole=one.is_dir),
        written_whole(two, needed=0, is_whole=two.is_dir),
    ):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def entry_inode(root: Path) -> int:
    (entry,) = (p for p in (root / "cache/image_folder").iterdir() if p.name[0] != ".")
    return entry.stat().st_ino
