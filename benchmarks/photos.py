"""What a photograph costs from its file to the batch: this loader beside timm's ``create_loader``.

    python -m benchmarks.photos --rounds 11
    python -m benchmarks.photos --folder photos --images 256 --workers 2

Both decode the same JPEG files, crop 8 to 100 % of the whole image at random to 224 x 224 pixels
(bilinear, antialiased), mirror every second one, and normalise the batch. They take turns in a new
random order every round. Without ``--folder`` the files are the two photographs of scikit-learn
(640 x 427 pixels), as often as asked for.

Prints, for each, the median and quartiles over rounds of CPU time an image, in this process and its
workers together, which other programs disturb less than the clock; images a second a core; the
ratio within a round; and how long the first batch of a later epoch was waited for.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks import timing
from benchmarks.command_line import Parser, at_least
from data import Augment, Decoding, DiskImages, ImageShape, Loader, Size, Split
from engine.config.load import load
from engine.training.code_hash import code_hash
from engine.training.provenance import describe_segment
from engine.training.runtime import choose_device, cpu_threads, device_name, preserved_randomness

SIDE = 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CROP = 0.08  # smallest share of the image's area


class Way(NamedTuple):
    """A loader, and how long its later epochs let one wait for their first batch, in seconds."""

    epoch: Callable[[], Iterator[Any]]
    waits: list[float]

    def turn(self, steps: int) -> timing.Cost:
        """Load an epoch; return the seconds an image, CPU time with that of the workers."""
        wall, cpu = time.perf_counter(), time.process_time() + _of_children()
        sizes = []
        for number, batch in enumerate(self.epoch()):
            if number == 0:
                self.waits.append(time.perf_counter() - wall)
            sizes.append(len(batch[0]))
        # Before the next epoch, workers have nothing to do: all that they did is of this one.
        used = time.process_time() + _of_children() - cpu
        assert len(sizes) == steps
        return timing.Cost((time.perf_counter() - wall) / sum(sizes), used / sum(sizes))


def _of_children() -> float:
    """Return the CPU seconds that the processes started here have used so far."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    stats = (Path("/proc", child, "stat").read_text().rpartition(")")[2] for child in children)
    ticks = sum(sum(int(number) for number in stat.split()[11:13]) for stat in stats)
    return ticks / os.sysconf("SC_CLK_TCK")


def ours(folder: Path, *, batch_size: int, workers: int) -> Way:
    """Return the loader of ``train.py``."""
    files = sorted(path.relative_to(folder) for path in folder.rglob("*.jpg"))
    images = DiskImages(
        folder,
        np.array([os.fsencode(file) for file in files]),
        np.array([(folder / file).stat().st_size for file in files]),
        ImageShape(3, SIDE, SIDE),
        Decoding(Size(SIDE, SIDE)),
    )
    every = torch.arange(len(files))
    loader = Loader(
        Split(images, torch.zeros_like(every), every),
        batch_size=batch_size,
        mean=MEAN,
        std=STD,
        device=choose_device("cpu"),
        seed=0,
        augment=Augment(resized_crop=CROP, flip=True),
        workers=workers,
    )
    epochs = iter(range(10**9))
    return Way(lambda: loader.epoch(every, epoch=next(epochs)), [])


def timms(folder: Path, *, batch_size: int, workers: int) -> Way:
    """Return timm's loader with the same geometry."""
    from timm.data import create_dataset, create_loader

    loader = create_loader(
        create_dataset("", root=str(folder)),
        input_size=(3, SIDE, SIDE),
        batch_size=batch_size,
        is_training=True,
        scale=(CROP, 1.0),
        color_jitter=0.0,
        interpolation="bilinear",
        mean=MEAN,
        std=STD,
        num_workers=workers,
        persistent_workers=workers > 0,
        device=choose_device("cpu"),
    )
    return Way(lambda: iter(loader), [])


def sample_folder(folder: Path, *, num_images: int) -> Path:
    """Fill a folder with scikit-learn's photographs, each in a class folder."""
    import sklearn.datasets

    sources = sorted((Path(sklearn.datasets.__file__).parent / "images").glob("*.jpg"))
    for number in range(num_images):
        source = sources[number % len(sources)]
        target = folder / source.stem / f"{number:05}.jpg"
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(source.read_bytes())
    return folder


def report(costs: dict[str, list[timing.Cost]], ways: dict[str, Way], *, batch: int) -> None:
    """Print a line for each way, and the ratio."""
    for name, found in costs.items():
        low, middle, high = np.quantile(1e3 * timing.seconds(found, "cpu"), [0.25, 0.5, 0.75])
        wait = np.median(ways[name].waits[1:])
        whole = batch * np.median(timing.seconds(found, "wall"))
        print(
            f"{name:5} {middle:6.2f} ms of CPU an image (quartiles {low:.2f} to {high:.2f}), "
            f"{1e3 / middle:.0f} images a second a core; first batch of a later epoch after "
            f"{1e3 * wait:.0f} ms, a batch takes {1e3 * whole:.0f} ms"
        )
    ratios = timing.seconds(costs["timm"], "cpu") / timing.seconds(costs["ours"], "cpu")
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    print(f"ours makes {middle:.2f} times the images of timm's (quartiles {low:.2f} to {high:.2f})")


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser("benchmarks.photos", __doc__)
    parser.add_argument("--folder", type=Path, help="class folders of .jpg files")
    parser.add_numbers(
        ("--images", 128, "photographs without --folder"),
        ("--batch-size", 32, "images of a batch, of which there are only whole ones"),
        ("--rounds", 11, "turns of each way"),
    )
    parser.add_argument(
        "--workers", type=at_least(0), default=1, help="worker processes of each loader (1)"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Measure; print the lines and what they were measured on; return the exit code."""
    given = arguments(argv)
    with (
        preserved_randomness(0),
        cpu_threads(1) as threads,
        tempfile.TemporaryDirectory() as scratch,
    ):
        folder = given.folder or sample_folder(Path(scratch), num_images=given.images)
        num_images = len(list(folder.rglob("*.jpg")))
        if num_images == 0 or num_images % given.batch_size:
            print(
                f"{num_images} .jpg files: give a number that --batch-size={given.batch_size} "
                "divides",
                file=sys.stderr,
            )
            return 2
        options = {"batch_size": given.batch_size, "workers": given.workers}
        ways = {"ours": ours(folder, **options), "timm": timms(folder, **options)}
        costs = timing.measure(
            {name: way.turn for name, way in ways.items()},
            rounds=given.rounds,
            steps=num_images // given.batch_size,
        )
    report(costs, ways, batch=given.batch_size)
    print(f"{num_images} images a round, {given.rounds} rounds, {given.workers} worker(s)")
    ran = describe_segment(
        command=["python", "-m", "benchmarks.photos", *argv],
        device=device_name(choose_device("cpu")),
        precision="uint8",
        threads=threads,
        code=code_hash(load()),
    )
    print(json.dumps(ran))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
