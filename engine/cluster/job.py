"""What a job does: run its commands, and leave the run resumable when it is told to make room.

Lives on the cluster's node; submitit finds it there by its name.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# How long a job whose command was told to stop waits for Slurm to end it and queue it again.
SECONDS_TO_BE_ENDED = 120.0


class Job:
    """Commands, one after the other, each run as by hand; the first that fails ends the job.

    A command that was begun before goes on where it was, since all of ours resume by themselves.

    Args:
        commands: words after ``python``, of each command.
        folder: where ``<job>.exit`` says how the job has ended.
    """

    def __init__(self, commands: Sequence[Sequence[str]], folder: Path) -> None:
        self.commands = [list(command) for command in commands]
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        """Run the commands; return the exit code."""
        import submitit

        code = 0
        for command in self.commands:
            code = self._run(command)
            if code == 128 + signal.SIGTERM:
                # Slurm has told the command to stop, and ends and requeues this job in a moment; a
                # job that ends before by itself would count as failed.
                time.sleep(SECONDS_TO_BE_ENDED)
            if code != 0:
                break
        job = submitit.JobEnvironment().job_id
        (self.folder / f"{job}.exit").write_text(f"{code}\n", encoding="utf-8")
        return code

    def checkpoint(self) -> Any:
        """Stop the command, which writes its checkpoint, and hand the same job in again.

        submitit calls this shortly before the time limit, and when a job is preempted.
        """
        import submitit

        if self._process is not None:
            # Called by a signal in the middle of Popen.wait, which is not to be entered twice.
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(self._process.pid, signal.SIGTERM)
                os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        return submitit.helpers.DelayedSubmission(Job(self.commands, self.folder))

    def _run(self, command: Sequence[str]) -> int:
        print(f"$ python {' '.join(command)}", flush=True)
        # The warning of the time limit, which Slurm sends to every process, is for the job alone.
        before = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        try:
            self._process = subprocess.Popen([sys.executable, *command], env=_environment())
        finally:
            signal.signal(signal.SIGUSR2, before)
        code = self._process.wait()
        self._process = None
        return code if code >= 0 else 128 - code


def _environment() -> dict[str, str]:
    """Return the environment of a command: lines as they come, a thread for each core."""
    cores = os.environ.get("SLURM_CPUS_PER_TASK")
    own = {"OMP_NUM_THREADS": cores} if cores else {}
    return {"PYTHONUNBUFFERED": "1", **own, **os.environ}
