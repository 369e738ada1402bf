import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from data import DataError, Imbalance, Validation, build, fashion_mnist
from data.fashion_mnist import FashionMnist
from tests.data._server import served

NUM = {"train": 30, "t10k": 20}


@pytest.fixture(autouse=True)
def no_system_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fashion_mnist, "_SYSTEM_FOLDER", tmp_path / "system")


def pixels(part: str) -> np.ndarray:
    shape = (NUM[part], 28, 28)
    return np.random.default_rng(len(part)).integers(0, 256, shape, dtype=np.uint8)


def labels(part: str) -> np.ndarray:
    return (np.arange(NUM[part]) % 10).astype(np.uint8)


def idx(array: np.ndarray) -> bytes:
    header = struct.pack(f">I{array.ndim}I", 0x0800 | array.ndim, *array.shape)
    return header + array.tobytes()


def write(folder: Path, *, packed: bool = True) -> Path:
    folder.mkdir(parents=True)
    for part in NUM:
        for kind, array in (("images-idx3", pixels(part)), ("labels-idx1", labels(part))):
            file = folder / f"{part}-{kind}-ubyte{'.gz' if packed else ''}"
            file.write_bytes(gzip.compress(idx(array)) if packed else idx(array))
    return folder


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("place", ["fashion_mnist", "FashionMNIST/raw", "../system"])
def test_files_are_read_in_each_place_plain_or_packed(
    tmp_path: Path, *, place: str, packed: bool
) -> None:
    (tmp_path / "root").mkdir()
    write(tmp_path / "root" / place, packed=packed)
    pool = FashionMnist(tmp_path / "root").load()
    for part, split in (("train", pool.train), ("t10k", pool.test)):
        assert np.array_equal(split.images, pixels(part)[:, None])  # type: ignore[arg-type]
        assert split.targets.tolist() == labels(part).tolist()
        assert split.targets.dtype == torch.int64


def test_missing_files_say_where_they_were_looked_for_and_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"FashionMNIST/raw, .*dataset-fashion-mnist") as error:
        FashionMnist(tmp_path).load()
    assert "data.download=true" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_truncated_archive_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "fashion_mnist") / "t10k-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte.gz cannot be read"):
        FashionMnist(tmp_path).load()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "train-images-idx3-ubyte",
            b"\0\0\10\1" + bytes(20),
            "not an idx file of 3 dim.*0x00000803",
        ),
        ("train-labels-idx1-ubyte", b"", "not an idx file of 1 dimensions"),
        ("train-images-idx3-ubyte", idx(pixels("train"))[:-1], "promises 23520 .* has 23519"),
        ("train-images-idx3-ubyte", idx(pixels("train")[:, :27]), "has images of 28x27, not 28x28"),
        ("train-labels-idx1-ubyte", idx(labels("train")[:9]), "has 9 labels for 30 images"),
        ("train-labels-idx1-ubyte", idx(labels("train") + 1), "has label 10: they go from 0 to 9"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (write(tmp_path / "fashion_mnist", packed=False) / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}.*{message}"):
        FashionMnist(tmp_path).load()


def test_download_fetches_missing_files_and_verifies_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "server")
    sums = [(f.name, hashlib.md5(f.read_bytes()).hexdigest()) for f in sorted(folder.iterdir())]
    original = torchvision.datasets.FashionMNIST
    monkeypatch.setattr(original, "resources", sums)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with served(folder) as address:
        monkeypatch.setattr(original, "mirrors", [address])
        pool = FashionMnist(tmp_path / "root", download=True).load()
    assert np.array_equal(pool.train.images, pixels("train")[:, None])  # type: ignore[arg-type]


def test_a_failed_download_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = torchvision.datasets.FashionMNIST
    monkeypatch.setattr(original, "mirrors", [f"{(tmp_path / 'nowhere').as_uri()}/"])
    with pytest.raises(DataError, match="Fashion-MNIST could not be downloaded") as error:
        FashionMnist(tmp_path / "root", download=True).load()
    assert "\n" not in str(error.value)


@pytest.mark.system
def test_debians_files_are_the_70000_originals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    dataset = build(
        FashionMnist(tmp_path),
        imbalance=Imbalance(factor=100),
        validation=Validation(per_class=100),
    )
    assert dataset.class_counts.tolist() == [
        *[5900, 3596, 2156, 1292, 774],
        *[464, 278, 166, 100, 60],
    ]
    assert torch.bincount(dataset.test.targets).tolist() == [1000] * 10
    assert dataset.image_shape == (1, 28, 28)
