"""Time from pressing Enter to the answer of ``--help``, of a typo and of ``--print-config``.

    python -m benchmarks.startup

Prints, for each, the median of five wall times in seconds after one run that warms the file cache.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REPEATS = 5
COMMANDS = ("--help", "schedule.epoch=5", "--print-config")


def seconds(word: str) -> float:
    """Measure the wall time of ``python train.py WORD``."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "train.py", word], cwd=ROOT, capture_output=True, check=False)
    return time.perf_counter() - began


def main() -> None:
    """Print one line a command, and what it ran on."""
    for word in COMMANDS:
        seconds(word)
        times = [seconds(word) for _ in range(REPEATS)]
        print(
            f"python train.py {word:<16}  median {statistics.median(times):.2f} s of {REPEATS}"
            f"  ({min(times):.2f} to {max(times):.2f})"
        )
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.platform()}")


if __name__ == "__main__":
    main()
