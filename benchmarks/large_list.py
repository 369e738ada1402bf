"""What a list of a million images costs: until the first batch, and in the memory of a worker.

    python -m benchmarks.stand_ins /scratch/million --like even --train 1300000 --files 2
    python -m benchmarks.large_list /scratch/million

A new process reads and checks the lists, draws the splits as ``train.py`` does, starts the workers
and waits for the first batch of random crops. Prints the seconds since the process was started, by
the clock and of CPU time with that of the workers; and what each process alone holds in memory
(unique set size: private pages, clean and dirty), beside a process that has done nothing. Linux
alone tells these.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.command_line import Parser
from engine.training.runtime import cpu_threads


def first_batch(folder: Path, *, workers: int, batch_size: int) -> dict[str, object]:
    """Get the first batch; return what it cost. For a process of its own."""
    import torch

    import data
    from engine.config.launch import work_begins
    from engine.config.load import load
    from engine.training.runtime import choose_device
    from engine.training.setup import load_dataset

    work_begins()
    lists = [f"data.{split}={split}.txt" for split in ("train", "val", "test")]
    words = ["data=image_list", f"data.root={folder}", *lists, "data.size=32", "data.cache_gb=0"]
    dataset = load_dataset(load(overrides=[*words, "data.augment.resized_crop=0.2"]))
    listed = time.time()
    loader = data.Loader(
        dataset.train,
        batch_size=batch_size,
        mean=dataset.mean,
        std=dataset.std,
        device=choose_device("cpu"),
        seed=0,
        augment=data.Augment(resized_crop=0.2, flip=True),
        workers=workers,
    )
    order = torch.randperm(len(dataset.train), generator=torch.Generator().manual_seed(0))
    next(loader.epoch(order, epoch=0))
    ready = time.time()
    children = [child.pid for child in multiprocessing.active_children()]
    started = float(os.environ["STARTED"])
    return {
        "images": len(dataset.train),
        "listed_seconds": listed - started,
        "batch_seconds": ready - started,
        "cpu_seconds": time.process_time(),
        "main_mb": unique_megabytes(os.getpid()),
        "worker_mb": [unique_megabytes(child) for child in children if child is not None],
    }


def unique_megabytes(pid: int) -> float:
    """Return the memory that no other process shares."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    own = [line for line in lines if line.startswith(("Private_Clean", "Private_Dirty"))]
    return sum(int(line.split()[1]) for line in own) / 1024


def empty_megabytes() -> float:
    """Return the same of a Python process that has done nothing."""
    waiting = "import sys; sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", waiting], stdin=subprocess.PIPE) as process:
        time.sleep(0.5)
        found = unique_megabytes(process.pid)
        process.communicate()
    return found


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser("benchmarks.large_list", __doc__)
    parser.add_argument("folder", type=Path, help="what benchmarks.stand_ins has written")
    parser.add_argument("--workers", type=int, default=4, help="worker processes (4)")
    parser.add_argument("--batch-size", type=int, default=256, help="images of a batch (256)")
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if not (given.folder / "train.txt").is_file():
        parser.error(f"{given.folder} has no train.txt: make it with benchmarks.stand_ins")
    return given


def main(argv: Sequence[str]) -> int:
    """Measure in a new process; print; return the exit code."""
    given = arguments(argv)
    if given.once:
        with cpu_threads(1):
            found = first_batch(given.folder, workers=given.workers, batch_size=given.batch_size)
        print(json.dumps(found))
        return 0
    # As the scripts start, which put off collecting garbage while they import.
    start = "from engine.config.launch import launch; launch('benchmarks.large_list')"
    command = [sys.executable, "-c", start, *argv, "--once"]
    environment = {**os.environ, "STARTED": str(time.time())}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    empty = empty_megabytes()
    workers = ", ".join(f"{size - empty:.0f}" for size in found["worker_mb"])
    print(f"{found['images']:,} training images, {given.workers} workers")
    print(
        f"lists checked after {found['listed_seconds']:.1f} s, first batch after "
        f"{found['batch_seconds']:.1f} s; {found['cpu_seconds']:.1f} s of CPU time in the main "
        "process"
    )
    print(
        f"unique set size over an empty process ({empty:.0f} MB): main "
        f"{found['main_mb'] - empty:.0f} MB, workers {workers} MB"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
