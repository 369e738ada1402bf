"""A Slurm of this machine alone: its daemons, a node of two cores, and two partitions."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

# high takes the node from low, whose jobs are queued again.
CONF = """\
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=10
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SchedulerParameters=batch_sched_delay=1,sched_interval=2
NodeName=node NodeHostname=localhost NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=low Nodes=node Default=YES PriorityTier=1 PreemptMode=REQUEUE
PartitionName=high Nodes=node PriorityTier=10 PreemptMode=OFF
"""


@contextlib.contextmanager
def slurm(folder: Path) -> Iterator[dict[str, str]]:
    """Run munge and Slurm below ``folder``, and yield the environment that finds them."""
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    user = os.environ.get("USER", "root")
    conf = folder / "slurm.conf"
    conf.write_text(CONF.format(folder=folder, ports=[_free_port(), _free_port()], user=user))
    environment = {**os.environ, "SLURM_CONF": str(conf)}
    socket_, pid = f"--socket={folder}/munge.socket", f"--pid-file={folder}/munge.pid"
    more = [f"--seed-file={folder}/munge.seed", f"--log-file={folder}/munge.log"]
    daemons = [
        ["munged", "--foreground", "--force", f"--key-file={key}", socket_, pid, *more],
        ["slurmctld", "-D", "-c"],
        ["slurmd", "-D", "-N", "node"],
    ]
    with contextlib.ExitStack() as stack:
        for daemon in daemons:
            process = subprocess.Popen(
                daemon,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            stack.callback(process.wait)
            stack.callback(process.terminate)
            _wait((folder / "munge.socket").exists)
        _wait(lambda: "idle" in asked(environment, "sinfo", "-h", "-p", "low", "-o", "%t"))
        yield environment


def asked(environment: dict[str, str], *command: str) -> str:
    """Return what a command of Slurm prints; nothing while it has no answer."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


def _wait(is_true: Callable[[], bool], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < until, "Slurm does not start"
        threading.Event().wait(0.1)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
