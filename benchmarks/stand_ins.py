"""Drawn photographs under the lists of a published data set: its sizes, without its images.

    python -m benchmarks.stand_ins /scratch/imagenet_lt
    python -m benchmarks.stand_ins /scratch/million --train 1300000 --like even

writes ``train.txt``, ``val.txt`` and ``test.txt`` (``path label`` lines) and the images that they
name. As in ImageNet-LT (Liu et al. 2019): 1,000 classes of 5 to 1,280 training images, 115,846
together, 385 classes of more than 100, 479 of 20 to 100 and 136 of fewer than 20, in shuffled
order; 20 validation and 50 test images of every class. ``--like even`` gives every class the same.

A few files of each class are drawn, in a colour and a pattern of the class, so that there is
something to learn; every line of a list has a path of its own, which is a hard link to one of
them. So a whole epoch of the real size, with validation and test, takes minutes:

    python -m benchmarks.stand_ins /scratch/imagenet_lt --epoch

trains a small network on them by ``train.py``, in a process of its own, shows what that prints, and
then the seconds and the numbers of images and classes of the finished run.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.command_line import Parser

CLASSES, LARGEST, SMALLEST, TOTAL = 1000, 1280, 5, 115_846
MANY, MEDIUM = 385, 479  # classes of more than 100, and of 20 to 100 training images
VAL, TEST = 20, 50  # images of each class


def imagenet_lt_counts() -> np.ndarray:
    """Return numbers of training images, (1000,), largest first, with what is published of them.

    Within each of the three groups they fall by the same ratio from class to class; the steepness
    of the first is what makes the total.
    """
    medium = np.geomspace(100, 20, MEDIUM).round().astype(int)
    few = np.geomspace(19, SMALLEST, CLASSES - MANY - MEDIUM).round().astype(int)
    wanted = TOTAL - int(medium.sum() + few.sum())
    places = np.linspace(1, 0, MANY)
    flat, steep = 1.0, 20.0
    for _ in range(60):
        power = (flat + steep) / 2
        many = _many(places, power)
        flat, steep = (power, steep) if many.sum() > wanted else (flat, power)
    # What rounding left over goes to the middle of the group, one image a class.
    missing = wanted - int(many.sum())
    step = 1 if missing > 0 else -1
    many[MANY // 4 : MANY // 4 + abs(missing)] += step
    return np.concatenate([np.sort(many)[::-1], medium, few])


def _many(places: np.ndarray, power: float) -> np.ndarray:
    return (101 * (LARGEST / 101) ** (places**power)).round().astype(int)


def drawn(label: int, number: int, *, side: int) -> Image.Image:
    """Draw a photograph of a class: its colours in coarse patches, and noise of its own."""
    pattern = np.random.default_rng(label).integers(0, 256, (4, 4, 3))
    noise = np.random.default_rng([label, number]).normal(0, 40, (8, 8, 3))
    patches = np.clip(pattern.repeat(2, 0).repeat(2, 1) + noise, 0, 255).astype(np.uint8)
    width = side if number % 2 else side * 3 // 2  # as photographs, not all of one shape
    return Image.fromarray(patches).resize((width, side), Image.Resampling.BICUBIC)


def write_lists(
    folder: Path, counts: dict[str, np.ndarray], *, files: int, side: int
) -> dict[str, int]:
    """Write the images and a list for each split; return the number of lines of each.

    Args:
        folder: where; it must be new or empty.
        counts: of each split, images of each class (C,), by label.
        files: drawn files of a class.
        side: of the drawn files, in pixels.
    """
    num_classes = len(next(iter(counts.values())))
    drawings = folder / "drawn"
    drawings.mkdir(parents=True)
    for label in range(num_classes):
        for number in range(files):
            drawn(label, number, side=side).save(drawings / f"{label}-{number}.jpg", quality=90)
    for split, own in counts.items():
        with (folder / f"{split}.txt").open("w", encoding="ascii") as lines:
            for label, count in enumerate(own.tolist()):
                place = f"{split}/{label:04}"
                (folder / place).mkdir(parents=True)
                for number in range(count):
                    path = f"{place}/{number:06}.jpg"
                    _link(drawings / f"{label}-{number % files}.jpg", folder / path)
                    lines.write(f"{path} {label}\n")
    return {split: int(own.sum()) for split, own in counts.items()}


def train_epoch(folder: Path) -> int:
    """Train an epoch on what was written; print what it took; return the exit code."""
    folder = folder.resolve()  # train.py starts elsewhere
    runs = folder / "runs"
    lists = [f"data.{split}={split}.txt" for split in ("train", "val", "test")]
    data = ["data=image_list", f"data.root={folder}", *lists, "data.size=32"]
    run = ["model=test_resnet", "schedule.epochs=1", "optim.batch_size=512", "track.to=[]"]
    quiet = ["track.figures=false", f"track.root={runs}", "track.name=epoch", "runtime.threads=1"]
    command = [sys.executable, "train.py", *data, *run, *quiet]
    started, used = time.perf_counter(), _seconds_of_children()
    code = subprocess.run(command, cwd=Path(__file__).parents[1], check=False).returncode
    wall, cpu = time.perf_counter() - started, _seconds_of_children() - used
    for file in runs.glob("epoch/*/summary.json"):
        print(f"{_described(json.loads(file.read_text()))}; {wall:.0f} s, {cpu:.0f} s of CPU time")
    return code


def _described(summary: dict[str, Any]) -> str:
    """Return how many images and classes of each kind a finished run has measured."""
    classes = summary["rules"][summary["headline"]]["classes"]
    sizes = Counter(own["group"] for own in classes)
    groups = " / ".join(str(sizes[name]) for name in ("many", "medium", "few"))
    images = sum(own["train_images"] for own in classes)
    tested = sum(own["support"] for own in classes)
    return (
        f"{images:,} training images, {tested:,} test images, {len(classes):,} classes, "
        f"{groups} of them many / medium / few"
    )


def _seconds_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # too many links to one file, or a file system without any
        shutil.copy(source, target)


def counts_of(given: argparse.Namespace) -> dict[str, np.ndarray]:
    """Return the images of each class in each split."""
    if given.like == "even":
        counts = np.full(CLASSES, given.train // CLASSES)
        counts[: given.train % CLASSES] += 1
    else:
        counts = np.random.default_rng(0).permutation(imagenet_lt_counts())
    if given.scale < 1:
        counts = np.maximum(1, (counts * given.scale).astype(int))
    held_out = {"val": VAL, "test": TEST}
    each = {split: max(1, int(number * given.scale)) for split, number in held_out.items()}
    return {"train": counts} | {split: np.full(CLASSES, number) for split, number in each.items()}


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; make the folder."""
    parser = Parser("benchmarks.stand_ins", __doc__)
    parser.add_argument("folder", type=Path, help="where to write; new or empty")
    parser.add_argument("--like", choices=("imagenet_lt", "even"), default="imagenet_lt")
    parser.add_argument("--train", type=int, help="training images, with --like even")
    parser.add_argument("--files", type=int, default=3, help="drawn files of a class (3)")
    parser.add_argument("--side", type=int, default=32, help="height of these in pixels (32)")
    parser.add_argument("--scale", type=float, default=1.0, help="share of all counts (1)")
    parser.add_argument("--epoch", action="store_true", help="then train an epoch on them")
    given = parser.parse_args(argv)
    if (given.train is None) == (given.like == "even"):
        parser.error("--train goes with --like even, and that needs it")
    if given.files < 1 or given.side < 8 or not 0 < given.scale <= 1:
        parser.error("--files is at least 1, --side at least 8, --scale above 0 and at most 1")
    if given.train is not None and given.train < CLASSES:
        parser.error(f"--train is at least {CLASSES}, one image a class")
    try:
        given.folder.mkdir(parents=True, exist_ok=True)
        is_empty = not any(given.folder.iterdir())
    except OSError as error:
        parser.error(f"{given.folder} cannot be made a folder ({error.strerror}): name a new one")
    if not is_empty:
        parser.error(f"{given.folder} is not empty: name a new folder")
    return given


def main(argv: Sequence[str]) -> int:
    """Write; return the exit code."""
    given = arguments(argv)
    lines = write_lists(given.folder, counts_of(given), files=given.files, side=given.side)
    sizes = ", ".join(f"{split}.txt {number:,} lines" for split, number in lines.items())
    print(f"{given.folder}: {sizes}; {CLASSES * given.files:,} files drawn", flush=True)
    return train_epoch(given.folder) if given.epoch else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
