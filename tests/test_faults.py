"""A full disk in the middle of a run costs a line, never finished work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from engine.config.components import ROOT
from tests._runs import assert_same_run, folder_of, small_run, small_words

# A few checkpoints of 3 MB each do not fit; the first ones do.
SMALL_DISK = "size=8m"
WORDS = ("schedule.epochs=5", "runtime.checkpoint_epoch_seconds=0")


def shell(script: str) -> subprocess.CompletedProcess[str]:
    """Run a script where mounts are its own and vanish with it."""
    return subprocess.run(
        ["unshare", "--mount", "bash", "-euc", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.system
def test_a_full_disk_stops_the_run_in_one_line_and_it_goes_on_once_there_is_room(
    tmp_path: Path,
) -> None:
    small_run(tmp_path / "whole", *WORDS)
    disk = tmp_path / "disk"
    disk.mkdir()
    train = f"{sys.executable} train.py {' '.join(small_words(disk, *WORDS))}"
    kept = tmp_path / "kept"
    done = shell(
        f"mount -t tmpfs -o {SMALL_DISK} tmpfs {disk}\n"
        f"{train} 2>{tmp_path}/errors || echo exit code $?\n"
        f"ls {disk}/*/*/checkpoints\n"
        f"mount -o remount,size=100m {disk}\n"
        f"{train}\n"
        f"cp -r {disk} {kept}\n"
    )
    assert done.returncode == 0, done.stderr
    assert "exit code 1" in done.stdout
    (line,) = (tmp_path / "errors").read_text().splitlines()
    assert "No space left on device" in line
    assert "run the same command to resume" in line
    assert "resuming at epoch" in done.stdout
    whole = folder_of(tmp_path / "whole", *WORDS)
    assert_same_run(kept / folder_of(disk, *WORDS).relative_to(disk), whole)


@pytest.mark.system
def test_a_read_only_run_folder_is_one_line(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    done = shell(
        f"mount -t tmpfs -o ro tmpfs {disk}\n"
        f"{sys.executable} train.py {' '.join(small_words(disk))} || echo exit code $?\n"
    )
    assert "exit code 2" in done.stdout
    (line,) = done.stderr.splitlines()
    assert "cannot be written: Read-only file system" in line
