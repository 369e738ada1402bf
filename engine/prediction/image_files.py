"""Image files to predict: which there are, and their pixels as a run's own images have them."""

from __future__ import annotations

import csv
import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import torch
from torch import Tensor

import data
from engine.config.homes import expanded
from engine.config.mistakes import ConfigError


@dataclass(frozen=True)
class Found:
    """The files below what was named, and how many others a folder held.

    Attributes:
        files: in the order named, those of a folder sorted by path.
        num_others: files of folders whose name has no ending of an image.
    """

    files: tuple[Path, ...]
    num_others: int


LISTS = (".csv", ".txt")
COLUMN = "file"


def find(paths: Iterable[Path]) -> Found:
    """Return the files named, and the image files of the folders named and all folders in them.

    A file that is named, or that a list names, is always taken; names that begin with a dot are
    left out of a folder.

    Raises:
        ConfigError: a list cannot be read.
    """
    from PIL import Image

    endings = Image.registered_extensions()
    files: list[Path] = []
    num_others = 0
    for path in paths:
        if path.suffix.lower() in LISTS and path.is_file():
            files += _listed(path)
            continue
        inside = sorted(_below(path, above=())) if path.is_dir() else [path]
        taken = [f for f in inside if f == path or f.suffix.lower() in endings]
        files += taken
        num_others += len(inside) - len(taken)
    return Found(tuple(dict.fromkeys(files)), num_others)


@dataclass(frozen=True)
class Preparation:
    """How a run's images were prepared.

    Args:
        shape: Channels, height and width of what its model takes.
        read_image: Decodes a file to uint8 (3 or C, H, W).
    """

    shape: data.ImageShape
    read_image: Callable[[Path], Tensor]

    def image(self, path: Path) -> Tensor:
        """Decode a file to uint8 (C, H, W).

        Raises:
            DataError: it cannot be read, or does not fit the model.
        """
        image = self.read_image(path)
        channels, height, width = self.shape
        if tuple(image.shape[1:]) != (height, width):
            raise data.DataError(
                f"{path} is {image.shape[2]}x{image.shape[1]} pixels and this run takes "
                f"{width}x{height}: resize it"
            )
        if channels == 1 and len(image) == 3:
            if not (image == image[:1]).all():
                raise data.DataError(
                    f"{path} is in colour and this run takes greyscale: convert it"
                )
            image = image[:1]
        return image

    def batches(self, files: Sequence[Path], *, batch_size: int) -> Iterator[Decoded]:
        """Yield the files in groups of ``batch_size``.

        Threads decode the next group while the caller is busy with this one.
        """
        groups = [files[k : k + batch_size] for k in range(0, len(files), batch_size)]
        with data.quiet_pillow(), ThreadPoolExecutor() as pool:
            coming = deque(pool.map(self._image_or_reason, group) for group in groups[:1])
            for group, following in zip_longest(groups, groups[1:]):
                if following is not None:
                    coming.append(pool.map(self._image_or_reason, following))
                yield Decoded.of(group, list(coming.popleft()))

    def _image_or_reason(self, path: Path) -> Tensor | str:
        try:
            return self.image(path)
        except data.DataError as error:
            return str(error)


@dataclass(frozen=True)
class Decoded:
    """A group of files: those that are images, and a line for each of the others.

    Attributes:
        files: N of them.
        images: uint8 (N, C, H, W).
        mistakes: one line for each file that is no image for this run.
    """

    files: list[Path]
    images: Tensor
    mistakes: list[str]

    @classmethod
    def of(cls, files: Sequence[Path], found: Sequence[Tensor | str]) -> Decoded:
        """Sort what was decoded from what was not."""
        pairs = [(f, x) for f, x in zip(files, found, strict=True) if isinstance(x, Tensor)]
        images = torch.stack([image for _, image in pairs]) if pairs else torch.empty(0)
        return cls([f for f, _ in pairs], images, [x for x in found if isinstance(x, str)])


def _listed(path: Path) -> list[Path]:
    """Return the files that a list names; a relative path starts from the folder of the list."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".txt":
            names = [line.strip() for line in text.splitlines()]
        else:
            reader = csv.DictReader(io.StringIO(text, newline=""))
            if COLUMN not in (reader.fieldnames or ()):
                raise ConfigError([f"{path}: expected a first line with the column {COLUMN}"])
            names = [row[COLUMN] or "" for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError([f"{path}: cannot be read as a list of files ({error})"]) from error
    return [path.parent / expanded(name) for name in names if name]


def _below(folder: Path, *, above: tuple[Path, ...]) -> Iterator[Path]:
    """Yield the files of a folder and of those in it, links among them, as training reads them."""
    above = (*above, folder.resolve())
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if path.resolve() not in above:
                yield from _below(path, above=above)
        elif path.is_file():
            yield path
