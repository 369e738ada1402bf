"""A run that is killed again and again, at any moment, ends as if nothing had happened."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.config.components import ROOT
from engine.config.load import fingerprint, load
from tests._runs import assert_same_run
from tests.data._files import write_folder

COMMON = (
    *("optim.batch_size=16", "optim.lr=0.05", "schedule.epochs=4", "runtime.threads=1"),
    *("track.wandb=offline", "runtime.checkpoint_seconds=0.05", "track.name=storm"),
)
SYNTHETIC = (
    *("data=synthetic", "data.num_classes=4", "data.num_train_per_class=60"),
    *("data.num_test_per_class=10", "data.imbalance.factor=8", "data.validation.per_class=6"),
)
SETTINGS = {
    "digits": ("data=digits", "loss=softmax_focal", "reweight=inverse", "reweight.start=0.5"),
    "mixup": (*SYNTHETIC, "mixup.mixup=0.4", "mixup.cutmix=1", "sampler=class_balanced"),
    "ema": (*SYNTHETIC, "model.ema=0.9", "sampler=progressive", "evaluate.test_every_epoch=true"),
    "bfloat16": (
        *(*SYNTHETIC, "runtime.precision=bfloat16", "loss=sigmoid_focal", "optim.accumulate=2"),
        *("data.augment.crop=1", "optim=adamw", "optim.clip_norm=1"),
    ),
    "image_folder": (
        *("data=image_folder", "data.path=pets", "data.cache_gb=0", "data.normalize=imagenet"),
        *("data.validation.fraction=0.2", "runtime.workers=2", "data.augment.cutout=2"),
        *("sampler=square_root", "sampler.start=0.5", "model.ema=0.9"),
    ),
}
PETS = {
    "train": {"cat": 60, "dog": 30, "emu": 10},
    "test": {"cat": 8, "dog": 8, "emu": 8},
}


@dataclass(frozen=True)
class Run:
    """One run: its words on the command line, its folder, and how to start a process for it."""

    words: tuple[str, ...]
    root: Path
    data_root: Path

    @property
    def folder(self) -> Path:
        return self.root / "storm" / fingerprint(load(overrides=self.words))

    @contextlib.contextmanager
    def started(self) -> Iterator[subprocess.Popen[bytes]]:
        """A process in a group of its own; nothing of the group outlives the block."""
        with (self.root / "output.txt").open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "train.py", *self.words, f"track.root={self.root}"],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", "DATA_ROOT": str(self.data_root)},
            )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def is_killed(self, seconds: float) -> bool:
        """Start it and kill it after that time; False if it has ended well before."""
        with self.started() as process:
            try:
                code = process.wait(seconds)
            except subprocess.TimeoutExpired:
                return True
        assert code == 0, self.output()
        return False

    def output(self) -> str:
        return (self.root / "output.txt").read_text()


def new_run(root: Path, words: tuple[str, ...], *, data_root: Path) -> Run:
    root.mkdir()
    return Run((*COMMON, *words), root, data_root)


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data_root")
    write_folder(root / "pets", PETS)
    return root


def check_storm(
    root: Path, words: tuple[str, ...], *, kills: int, seed: str, data_root: Path
) -> None:
    """Kill a run until it is done, then the next, until there were enough kills; compare each."""
    whole = new_run(root / "whole", words, data_root=data_root)
    began = os.times().elapsed
    assert not whole.is_killed(600)
    usual = os.times().elapsed - began
    generator = random.Random(seed)
    for number in itertools.count():
        run = new_run(root / str(number), words, data_root=data_root)
        # A third anywhere, which is mostly while Python imports; the others later.
        while kills > 0 and run.is_killed(
            usual * generator.uniform(0 if generator.random() < 1 / 3 else 0.4, 0.9)
        ):
            kills -= 1
        is_last = kills == 0
        assert not (is_last and run.is_killed(600))
        assert_same_run(run.folder, whole.folder)
        assert "Traceback" not in run.output()
        if is_last:
            return


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_a_run_killed_at_random_moments_ends_as_one_that_never_was(
    tmp_path: Path, name: str, data_root: Path
) -> None:
    check_storm(tmp_path, SETTINGS[name], kills=7, seed=name, data_root=data_root)


@pytest.mark.slow
def test_a_run_killed_at_a_random_moment_ends_as_one_that_never_was(
    tmp_path: Path, data_root: Path
) -> None:
    words = (*SETTINGS["ema"], "track.figures=false")
    check_storm(tmp_path, words, kills=1, seed="short", data_root=data_root)


# --- what a killed run leaves behind --------------------------------------------------------------


def children(pid: int) -> list[int]:
    """Processes whose parent is ``pid``."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if int(stat.read_text().rpartition(") ")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
    return found


FORK = """
import os, sys
from pathlib import Path
from engine.training.run_folder import RunFolder

folder, (begun, begin), (ended, end) = RunFolder(Path(sys.argv[1])), os.pipe(), os.pipe()
with folder.owned():
    child = os.fork()
    if child == 0:
        os.close(end)
        os.write(begin, b".")
        os.read(ended, 1)  # until the parent is gone
        os._exit(0)
    os.read(begun, 1)
with folder.owned():
    print("owned again while the child lives:", os.waitpid(child, os.WNOHANG))
"""


def test_a_process_that_a_run_has_forked_does_not_hold_its_lock(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK, str(tmp_path / "run")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "owned again while the child lives: (0, 0)\n", done.stderr


@pytest.mark.slow
def test_workers_and_service_of_a_killed_run_end_and_the_next_one_need_not_wait(
    tmp_path: Path, data_root: Path
) -> None:
    """Only the run itself is killed, as by the system when memory runs out."""
    run = new_run(tmp_path / "run", SETTINGS["image_folder"], data_root=data_root)
    with run.started() as process:
        while len(left := children(process.pid)) < 3:  # two workers and wandb's service
            with contextlib.suppress(subprocess.TimeoutExpired):
                pytest.fail(f"ended with {process.wait(0.01)} before it had workers")
        process.send_signal(signal.SIGSTOP)  # or it might start more
        left = children(process.pid)
        handles = [os.pidfd_open(pid) for pid in left]
        process.kill()
        process.wait()
        assert not run.is_killed(600)
        assert "is writing this run" not in run.output()
        for handle in handles:
            assert select.select([handle], [], [], 30)[0]
            os.close(handle)
