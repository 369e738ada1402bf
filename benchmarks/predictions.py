"""What predicting a held-out split costs in memory and time, beside the model.

    python -m benchmarks.predictions
    python -m benchmarks.predictions --sizes 24426x8142 --folder /scratch

For each size, images x classes, a linear model answers random features batch by batch; then come
the metrics of a run, the file of predictions, and the reading of it that a run's page makes: what
``train.py`` does with test, and nothing else. Prints seconds, the bytes written, and the peak of
resident memory above what the process held before, which Linux alone tells.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.command_line import Parser
from engine.report.predictions_file import read_predictions_file
from engine.training.evaluation import save_predictions
from engine.training.metrics import evaluate
from engine.training.metrics.rows import RowScores
from engine.training.predict_loop import predict
from engine.training.probabilities import Probabilities
from engine.training.runtime import choose_device, cpu_threads

FEATURES, BATCH = 16, 256


class Size(NamedTuple):
    """Images and classes."""

    images: int
    classes: int


class Batch(NamedTuple):
    """What a loader serves."""

    images: Tensor
    targets: Tensor
    index: Tensor  # type: ignore[assignment]  # the field's word hides tuple.index


class Linear(nn.Module):
    """Features (N, 16) to logits, as a classifier returns them."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(FEATURES, classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and features."""
        return self.layer(images), images


class Softmax:
    """The readout of cross-entropy."""

    def predict(self, logits: Tensor) -> Tensor:
        """Return probabilities."""
        return logits.softmax(dim=1)


def batches(size: Size) -> Iterator[Batch]:
    """Yield a split of random images."""
    draw = torch.Generator().manual_seed(0)
    for index in torch.arange(size.images).split(BATCH):
        images = torch.randn(len(index), FEATURES, generator=draw)
        yield Batch(images, torch.randint(size.classes, (len(index),), generator=draw), index)


def whole_pass(size: Size, folder: Path) -> None:
    """Predict, measure, store, and read back."""
    torch.manual_seed(0)
    found = predict(
        Linear(size.classes),
        batches(size),
        num_images=size.images,
        device=choose_device("cpu"),
        large_file=folder / ".test.logits.tmp",
    )
    readout, counts = Softmax(), np.full(size.classes, 50)
    said = Probabilities(found.logits, readout, is_single=False)
    metrics = evaluate(said, found.targets, counts, ranking=True)
    file = folder / "test.last.npz"
    save_predictions(file, found, pool_index=np.arange(size.images))
    stored = read_predictions_file(file)
    again = Probabilities(stored.logits, readout, is_single=False)
    rows = RowScores.of(again, stored.targets)
    assert np.array_equal(rows.predictions, metrics.rows.predictions)


def measured(size: Size, folder: Path) -> dict[str, float]:
    """Return seconds, and megabytes of memory and of files."""
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew (proc(5))
    start = time.perf_counter()
    whole_pass(size, folder)
    seconds = time.perf_counter() - start
    written = sum(file.stat().st_size for file in folder.iterdir())
    return {
        "seconds": seconds,
        "peak_mb": _resident("VmHWM") - before,
        "written_mb": written / 2**20,
    }


def _resident(name: str) -> float:
    """Return resident memory in megabytes, now (VmRSS) or at its peak (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def _size(text: str) -> Size:
    images, _, classes = text.partition("x")
    if not (images.isdigit() and classes.isdigit() and int(images) and int(classes) > 1):
        raise argparse.ArgumentTypeError(f"{text}: expected images x classes, as in 50000x1000")
    return Size(int(images), int(classes))


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser("benchmarks.predictions", __doc__)
    default = [Size(50_000, 1000), Size(24_426, 8142)]
    parser.add_argument("--sizes", nargs="+", type=_size, default=default, help="N x C of each")
    parser.add_argument("--folder", type=Path, help="where files are written; default: temporary")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Measure each size; return the exit code."""
    given = arguments(argv)
    with cpu_threads(1):
        with tempfile.TemporaryDirectory(dir=given.folder) as scratch:
            whole_pass(Size(600, 3), Path(scratch))  # what is imported once is not counted
        for size in given.sizes:
            with tempfile.TemporaryDirectory(dir=given.folder) as scratch:
                found = measured(size, Path(scratch))
            print(
                f"{size.images} x {size.classes}: {found['seconds']:.1f} s, peak "
                f"{found['peak_mb']:.0f} MB above the process, {found['written_mb']:.0f} MB written"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
