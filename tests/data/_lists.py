"""Small folders of images with the lists that name them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data import Pool
from data.image_list import ImageList
from tests.data._files import write_image

TRAIN = ("a/0.png 0", "a/1.png 0", "a/2.png 0", "b/0.png 1", "b/1.png 1")
TEST = ("a/7.png 0", "b/7.png 1")


@dataclass(frozen=True)
class Shelf:
    """A folder of images of 6x6 pixels in folders a and b, and the lists beside them."""

    path: Path

    def write(self, name: str, *lines: str, end: str = "\n") -> str:
        """Write a list and return its name."""
        (self.path / name).write_bytes("".join(line + end for line in lines).encode())
        return name

    def source(self, **keys: Any) -> ImageList:
        usual = {"root": str(self.path), "train": "train.txt"}
        if "test_fraction" not in keys:
            usual["test"] = "test.txt"
        return ImageList(self.path / "raw", **usual | keys)

    def load(self, **keys: Any) -> Pool:
        return self.source(**keys).load()


def new_shelf(folder: Path) -> Shelf:
    """Write the images of ``TRAIN`` and ``TEST``, and both lists."""
    shelf = Shelf(folder)
    for line in (*TRAIN, *TEST):
        write_image(folder / line.split()[0])
    shelf.write("train.txt", *TRAIN)
    shelf.write("test.txt", *TEST)
    return shelf


Spoil = Callable[[Shelf], object]
