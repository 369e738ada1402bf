"""Local workers: processes that join a study, each with its share of the machine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.config.components import ROOT
from engine.config.cores import num_cores
from engine.config.mistakes import ConfigError
from engine.training.signals import Interrupted, interruptions
from engine.tuning.search import command_line

STARTER = "SWEEP_STARTER"  # environment variable of a worker: process id of who started it


@dataclass(frozen=True)
class LocalWorker:
    """One worker process and the file that its words go to."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def last_words(self) -> str:
        """The last line it printed, or how it ended."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n")
        said = [line for line in lines if line.strip()]
        return said[-1] if said else f"exit code {self.process.returncode}"


def work_in_processes(
    arguments: command_line.Arguments,
    folder: Path,
    *,
    show: Callable[[], None],
    say: Callable[[str], None],
    argv: Sequence[str],
) -> None:
    """Have processes of this machine work, and show what they do until all have ended.

    Args:
        arguments: how many, and on which storage.
        folder: of the study; each one's words go to ``workers/`` inside.
        show: brings the terminal up to date.
        say: told when a worker has failed.
        argv: the command line, which they join with.

    Raises:
        ConfigError: what a worker said before it ended with exit code 2.
        Interrupted: by a signal, after the workers have stopped.
    """
    started = local_workers(
        argv, number=arguments.workers, storage=arguments.storage, folder=folder / "workers"
    )
    with interruptions() as interruption, started as workers:
        running = dict(enumerate(workers))
        while running:
            for number, worker in list(running.items()):
                code = worker.process.poll()
                if code is None:
                    continue
                del running[number]
                if code == 2:
                    raise ConfigError([f"{worker.log}: {worker.last_words}"])
                if code != 0:
                    say(f"worker {number} has ended: {worker.last_words} ({worker.log})")
            show()
            if interruption.signal_number is not None:
                raise Interrupted(interruption.signal_number)
            time.sleep(0.5)


@contextlib.contextmanager
def local_workers(
    argv: Sequence[str], *, number: int, storage: str | None, folder: Path
) -> Iterator[list[LocalWorker]]:
    """Start ``number`` workers of the study that ``argv`` names; at the end none is left.

    Args:
        argv: the command line of the sweep.
        number: of workers.
        storage: URL, handed over where no list of processes shows it.
        folder: where each one's words go, as ``worker-0.log`` ...
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(ROOT / "sweep.py"), *_joining(argv)]
    workers: list[LocalWorker] = []
    try:
        for index in range(number):
            log = folder / f"worker-{index}.log"
            with log.open("wb") as file:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **share(index, number=number), **_handed_over(storage)},
                    # Ctrl-C reaches the one that started them, which tells them once.
                    start_new_session=True,
                )
            workers.append(LocalWorker(process, log))
        yield workers
    finally:
        stop(workers)


def stop(workers: Sequence[LocalWorker]) -> None:
    """Ask those that still run to stop, which they do after a checkpoint, and wait for them."""
    for worker in workers:
        if worker.process.poll() is None:
            worker.process.send_signal(signal.SIGTERM)
    for worker in workers:
        worker.process.wait()


def share(index: int, *, number: int) -> dict[str, str]:
    """Return the environment of one worker of ``number``: its threads, and its GPU if any.

    Threads are set here and not by ``runtime.threads``, which stays what the config says.
    """
    most = int(os.environ.get("OMP_NUM_THREADS") or num_cores())
    found = {"OMP_NUM_THREADS": str(max(1, min(most, num_cores() // number)))}
    if gpus := _gpus():
        found["CUDA_VISIBLE_DEVICES"] = gpus[index % len(gpus)]
    return found


def _gpus() -> list[str]:
    """Return the names of the GPUs that this process may use, found without importing torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name.strip()]
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.split() if done.returncode == 0 else []


def _joining(argv: Sequence[str]) -> list[str]:
    return command_line.without_storage(command_line.for_another_process(argv, join=True))


def _handed_over(storage: str | None) -> Mapping[str, str]:
    return {STARTER: str(os.getpid()), **({command_line.STORAGE: storage} if storage else {})}


def starter_is_gone() -> bool:
    """Return whether this is a worker whose starter has died; it then ends after its trial."""
    starter = os.environ.get(STARTER)
    return starter is not None and starter != str(os.getppid())
