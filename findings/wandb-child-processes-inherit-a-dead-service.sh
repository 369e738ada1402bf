#!/usr/bin/env bash
# W&B writes the address of its background process into the environment variable WANDB_SERVICE, for
# child processes to share it. When that process is gone (as after the system ran out of memory), the
# variable stays, and every child that is started from then on fails in wandb.init, offline too,
# where nothing but a file is to be written: it does not start a service of its own. A launcher of
# trials thus loses the records of all trials to come. Without the variable the child records.
# Seen with wandb 0.31.0, Python 3.11, Linux. Exit code 0 while that is so, else 1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check wandb==0.31.0
cat > child.py <<'PYTHON'
import wandb

settings = wandb.Settings(silent=True, init_timeout=20)
try:
    run = wandb.init(mode="offline", project="p", settings=settings)
    run.log({"loss": 1.0})
    run.finish()
    print("recorded")
except Exception as error:
    print(type(error).__name__)
PYTHON
cat > parent.py <<'PYTHON'
import os
import signal
import subprocess
import sys

import wandb


def child(**changes):
    environment = {k: v for k, v in (os.environ | changes).items() if v is not None}
    command = [sys.executable, "child.py"]
    return subprocess.run(command, env=environment, capture_output=True, text=True).stdout.strip()


wandb.init(mode="offline", project="p", settings=wandb.Settings(silent=True))
print("wandb", wandb.__version__, "Python", sys.version.split()[0])
found = {"a child while the service lives": child()}
# The variable begins with a version and this process's id; the service is our own child.
services = subprocess.run(
    ["pgrep", "-P", str(os.getpid()), "-f", "wandb-core"], capture_output=True, text=True
).stdout.split()
for service in services:
    os.kill(int(service), signal.SIGKILL)
found["WANDB_SERVICE is set after its end"] = str("WANDB_SERVICE" in os.environ)
found["a child after its end"] = child()
found["the same without WANDB_SERVICE"] = child(WANDB_SERVICE=None)
for what, value in found.items():
    print(f"{what}: {value}")
expected = ["recorded", "True", "WandbServiceConnectionError", "recorded"]
sys.stdout.flush()
os._exit(0 if services and list(found.values()) == expected else 1)
PYTHON
venv/bin/python parent.py
