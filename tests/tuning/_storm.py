"""A worker whose trials take a moment and train nothing, to be killed: all else is real.

Run as ``python -m tests.tuning._storm FOLDER SEARCH_FILE``, with the storage in SWEEP_STORAGE.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import Trial

from engine.config.components import ROOT
from engine.tuning.search import Search
from engine.tuning.search.command_line import STORAGE
from engine.tuning.search.reader import read_search_file
from engine.tuning.search.space import num_trials, suggest
from engine.tuning.study.folder import StudyFolder
from engine.tuning.study.storage import PatientStorage, claim_of
from engine.tuning.study.trials import ended_trials
from engine.tuning.study.worker import Worker

SEARCH = """
budget: {trials: 24}
sampler: random
space:
  optim.lr: {float: [0.001, 0.1], log: true}
  reweight: {choice: [none, inverse]}
enqueue:
  - {optim.lr: 0.01, reweight: none}
  - {optim.lr: 0.02}
"""


class QuickRunner:
    """Writes down what it was asked for, and takes ``seconds``."""

    def __init__(self, search: Search, log: Path, *, seconds: float) -> None:
        self.search, self.log, self.seconds = search, log, seconds

    def suggest(self, trial: Trial) -> dict[str, Any]:
        return suggest(trial, self.search.file.space, constants={})

    def train(self, trial: Trial, params: Mapping[str, Any]) -> float:
        self._note("begin", trial, params)
        threading.Event().wait(self.seconds)
        self._note("end", trial, params)
        return float(params["optim.lr"])

    def _note(self, what: str, trial: Trial, params: Mapping[str, Any]) -> None:
        line = json.dumps({"what": what, "trial": trial.number, "params": dict(params)}) + "\n"
        with self.log.open("ab", buffering=0) as file:
            file.write(line.encode())


def search_of(path: Path) -> Search:
    return Search(file=read_search_file(path), path=path, files=(), overrides=(), study="storm")


def opened(folder: Path, search: Search, url: str | None) -> tuple[optuna.Study, PatientStorage]:
    study_folder = StudyFolder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    storage = study_folder.open_storage(url, say=print, heartbeat=1, grace=4, retry_seconds=60)
    study = study_folder.open(search, storage, claim=claim_of(storage, study=search.study))
    return study, storage


def work(folder: Path, path: Path, *, seconds: float = 0.05) -> str:
    """Be one worker until all is done; returns how it ended."""
    search = search_of(path)
    study, storage = opened(folder, search, os.environ.get(STORAGE) or None)
    worker = Worker(
        search=search,
        folder=StudyFolder(folder),
        study=study,
        storage=storage,
        claim=claim_of(storage, study=search.study),
        runner=QuickRunner(search, folder / "log.jsonl", seconds=seconds),
        num_trials=num_trials(search),
        deadline=math.inf,
        refresh=lambda _: None,
    )
    return worker.run()


def start(folder: Path, path: Path, url: str | None) -> subprocess.Popen[bytes]:
    with (folder.parent / "output.txt").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.tuning._storm", str(folder), str(path)],
            cwd=ROOT,
            env={**os.environ, STORAGE: url or ""},
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def check_storm(
    tmp_path: Path, *, url: str | None, kills: int, workers: int, seed: int, trials: int = 24
) -> None:
    """Kill workers at random moments, let the last ones finish, and count."""
    path = tmp_path / "search.yaml"
    path.write_text(SEARCH.replace("24", str(trials)))
    folder = tmp_path / "study"
    folder.mkdir()
    draw = random.Random(seed)
    running = [start(folder, path, url) for _ in range(workers)]
    try:
        while kills > 0:
            victim = draw.randrange(workers)
            with contextlib.suppress(subprocess.TimeoutExpired):
                running[victim].wait(draw.uniform(0.05, 1.2))
            if running[victim].poll() is None:
                running[victim].send_signal(signal.SIGKILL)
                running[victim].wait()
                kills -= 1
            elif all(process.poll() is not None for process in running):
                break
            running[victim] = start(folder, path, url)
        for process in running:
            assert process.wait(120) == 0, (tmp_path / "output.txt").read_text()
    finally:
        for process in running:
            process.kill()
            process.wait()
    search = search_of(path)
    study, storage = opened(folder, search, url)
    check_count(study, folder / "log.jsonl", trials=trials)
    storage.engine.dispose()


def check_every_call(tmp_path: Path, *, url: str | None, trials: int) -> int:
    """Kill a worker at each of its calls in turn, and count; returns the number of kills."""
    path, folder = tmp_path / "search.yaml", tmp_path / "study"
    path.write_text(SEARCH.replace("24", str(trials)))
    done = subprocess.run(
        [sys.executable, "-m", "tests.tuning._storm", str(folder), str(path), "--every-call"],
        cwd=ROOT,
        env={**os.environ, STORAGE: url or ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    study, storage = opened(folder, search_of(path), url)
    check_count(study, folder / "log.jsonl", trials=trials)
    storage.engine.dispose()
    return int(done.stdout.split()[-1])


def check_count(study: optuna.Study, log: Path, *, trials: int) -> None:
    """Exactly ``trials`` parameter sets, none lost, none twice, nothing left over."""
    ended = [json.dumps(trial.params, sort_keys=True) for trial in ended_trials(study)]
    assert len(ended) == trials
    assert len(set(ended)) == trials
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    begun = {json.dumps(line["params"], sort_keys=True) for line in lines}
    assert begun == set(ended)
    states = {trial.state.name for trial in study.get_trials(deepcopy=False)}
    assert states <= {"COMPLETE", "FAIL"}
    assert {trial.params["optim.lr"] for trial in ended_trials(study)} >= {0.01, 0.02}


def die_at_call(number: int) -> None:
    """Have this process killed by its own hand at the ``number``-th call to the storage."""
    calls = itertools.count(1)

    def counted(method: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            if next(calls) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return method(*arguments, **options)

        return call

    for name, method in inspect.getmembers_static(RDBStorage, inspect.isfunction):
        if name.startswith(("set_", "_set_", "record_", "create_", "_create_", "get_", "_get_")):
            setattr(RDBStorage, name, counted(method))


def die_at_every_call(folder: Path, path: Path, url: str | None) -> int:
    """Kill a worker at its first call, the next at its second ...; returns how many died."""
    # Imports what is imported late, once for all.
    with tempfile.TemporaryDirectory() as other:
        _, storage = opened(Path(other), search_of(path), None)
        storage.engine.dispose()
    for number in itertools.count(1):
        child = os.fork()
        if child == 0:
            die_at_call(number)
            os.environ[STORAGE] = url or ""
            work(folder, path, seconds=0)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            return number - 1
    raise AssertionError


if __name__ == "__main__":
    began = time.monotonic()
    if "--every-call" in sys.argv:
        print(die_at_every_call(Path(sys.argv[1]), Path(sys.argv[2]), os.environ.get(STORAGE)))
    else:
        ending = work(Path(sys.argv[1]), Path(sys.argv[2]))
        print(f"{ending} after {time.monotonic() - began:.1f} s")
