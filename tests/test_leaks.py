"""Many runs in one process, as a search makes them, leave nothing behind."""

from __future__ import annotations

import gc
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

import train
from engine.config.load import load
from tests._runs import quiet_screen, small_run
from tests.data._files import write_folder

TINY = (
    *("data.num_train_per_class=16", "data.validation.per_class=4", "data.imbalance.factor=2"),
    "schedule.epochs=2",
)
PETS = {"train": {"cat": 12, "dog": 8}, "test": {"cat": 2, "dog": 2}}


@dataclass(frozen=True)
class Usage:
    """What this process holds, and how much memory its children do (W&B's service)."""

    resident: int
    threads: int
    files: int
    children: int
    resident_of_children: int

    @classmethod
    def now(cls) -> Usage:
        gc.collect()
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        return cls(
            resident=status("self", "VmRSS"),
            threads=status("self", "Threads"),
            files=sum(1 for _ in Path("/proc/self/fd").iterdir()),
            children=len(children),
            resident_of_children=sum(status(child, "VmRSS") for child in children),
        )


def status(process: str, key: str) -> int:
    """A number that the system knows of a process; memory in kB."""
    lines = Path("/proc", process, "status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1])


def ten_runs(root: Path, pets: Path) -> None:
    """Seven plain runs, two with W&B, one of them with figures, one with images on disk."""
    for seed in range(7):
        small_run(root, *TINY, f"seed={seed}")
    small_run(root, *TINY, "seed=7", "track.wandb=offline")
    small_run(root, *TINY, "seed=8", "track.wandb=offline", "track.figures=true")
    on_disk = load(
        overrides=[
            *("data=image_folder", f"data.path={pets}", "data.cache_gb=0", "runtime.workers=1"),
            *("data.normalize=imagenet", "schedule.epochs=2", "optim.batch_size=4"),
            *("track.wandb=disabled", "track.figures=false", f"track.root={root}"),
        ]
    )
    train.run(on_disk, screen=quiet_screen())


@pytest.mark.slow
def test_two_hundred_runs_of_one_process_leave_memory_threads_files_and_processes_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "root"))
    pets = write_folder(tmp_path / "pets", PETS)
    seen = []
    for number in range(20):
        ten_runs(tmp_path / str(number), pets)
        seen.append(Usage.now())
    early, late = seen[3], seen[-1]
    for what in ("threads", "files", "children"):
        assert getattr(late, what) == getattr(early, what), seen
    # 160 runs; one that kept its model would keep some 3 MB.
    assert late.resident - early.resident < 60_000, seen
    assert late.resident_of_children - early.resident_of_children < 30_000, seen
