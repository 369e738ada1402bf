import hashlib
import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision

from data import DataError
from data.cifar10 import Cifar10
from data.cifar100 import Cifar100
from tests.data._server import served

LAYOUT = {
    "CIFAR10": ("cifar-10-batches-py", [f"data_batch_{n}" for n in range(1, 6)], "test_batch"),
    "CIFAR100": ("cifar-100-python", ["train"], "test"),
}
SOURCES: dict[str, type[Cifar10] | type[Cifar100]] = {"CIFAR10": Cifar10, "CIFAR100": Cifar100}
NUM = 4  # images of a batch


class OldPickler(pickle.Pickler):
    """Writes a dtype's alignment flag as 0, as the NumPy did that the real files come from."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, np.dtype):
            return np.dtype, (obj.str[1:], 0, 1), obj.__reduce__()[2]
        return NotImplemented


def pickled(content: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    OldPickler(file, protocol=2).dump(content)
    return file.getvalue()


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def batch_pixels(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (NUM, 3, 32, 32), dtype=np.uint8)


def write_fake(root: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write small files of CIFAR's form, and make torchvision expect their checksums."""
    folder_name, train_names, test_name = LAYOUT[name]
    folder = root / folder_name
    folder.mkdir(parents=True)
    key = "labels" if name == "CIFAR10" else "fine_labels"
    lists: list[list[str]] = []
    for number, file_name in enumerate([*train_names, test_name]):
        targets = [(number + i) % 3 for i in range(NUM)]
        content = pickled({"data": batch_pixels(number).reshape(NUM, -1), key: targets})
        (folder / file_name).write_bytes(content)
        lists.append([file_name, md5(content)])
    original = getattr(torchvision.datasets, name)
    meta = pickle.dumps({original.meta["key"]: ["cat", "dog", "emu"]})
    (folder / original.meta["filename"]).write_bytes(meta)
    monkeypatch.setattr(original, "train_list", lists[:-1])
    monkeypatch.setattr(original, "test_list", lists[-1:])
    monkeypatch.setattr(original, "meta", {**original.meta, "md5": md5(meta)})
    return folder


@pytest.mark.parametrize("name", LAYOUT)
def test_batches_are_read_in_torchvisions_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write_fake(tmp_path, name, monkeypatch)
    num_batches = len(LAYOUT[name][1])
    pool = SOURCES[name](tmp_path).load()
    expected = np.concatenate([batch_pixels(number) for number in range(num_batches)])
    assert np.array_equal(pool.train.images, expected)  # type: ignore[arg-type]
    assert np.array_equal(pool.test.images, batch_pixels(num_batches))  # type: ignore[arg-type]
    assert pool.train.targets.tolist()[:NUM] == [0, 1, 2, 0]
    assert pool.class_names == ("cat", "dog", "emu")


def test_the_title_and_the_published_statistics_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_fake(tmp_path, "CIFAR100", monkeypatch)
    pool = Cifar100(tmp_path).load()
    assert pool.title == "CIFAR-100"
    assert pool.mean == (0.4914, 0.4822, 0.4465)
    assert pool.std == (0.2023, 0.1994, 0.2010)


@pytest.mark.parametrize("name", LAYOUT)
def test_missing_files_say_where_they_were_looked_for(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=rf"{LAYOUT[name][0]}; set data.download=true") as error:
        SOURCES[name](tmp_path).load()
    assert "\n" not in str(error.value)


def test_a_file_that_does_not_match_its_checksum_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_fake(tmp_path, "CIFAR10", monkeypatch)
    (folder / "data_batch_3").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"CIFAR-10 cannot be read.*missing or damaged"):
        Cifar10(tmp_path).load()


def test_download_fetches_the_archive_and_verifies_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_fake(tmp_path / "server", "CIFAR10", monkeypatch)
    archive = tmp_path / "server" / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, arcname=folder.name)
    original = torchvision.datasets.CIFAR10
    monkeypatch.setattr(original, "tgz_md5", md5(archive.read_bytes()))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with served(archive.parent) as address:
        monkeypatch.setattr(original, "url", address + archive.name)
        pool = Cifar10(tmp_path / "root", download=True).load()
    assert len(pool.train) == 5 * NUM


def test_a_failed_download_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = (tmp_path / "nowhere.tar.gz").as_uri()
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", nowhere)
    with pytest.raises(DataError, match=r"CIFAR-10 .*could not be downloaded") as error:
        Cifar10(tmp_path / "root", download=True).load()
    assert "\n" not in str(error.value)
