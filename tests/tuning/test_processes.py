"""Workers as processes: their share of the machine, real training killed, signals."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine.config.components import ROOT
from engine.tuning.search import command_line
from engine.tuning.study.processes import share
from engine.tuning.study.trials import RUN, ended_trials, outcome_of
from tests._runs import rows_of
from tests.tuning._sweeps import STUDY, arguments, check_arrival, folder_of, study_of

TEXT = """
budget: {trials: 6, epochs: 3}
sampler: random
set: {loss: softmax_focal}
space:
  loss.gamma: {float: [0, 5]}
  optim.lr: {float: [0.01, 0.1], log: true}
confirm: {top: 1, seeds: 1}
"""


def start(root: Path, *options: str, **environment: str) -> subprocess.Popen[bytes]:
    with (root / "output.txt").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "sweep.py"), *arguments(root, TEXT), *options],
            cwd=root,
            env={**os.environ, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def epochs_of(root: Path) -> int:
    """How many all trials have trained."""
    logs = folder_of(root).runs.glob("*/metrics.jsonl")
    return sum(log.read_bytes().count(b"\n") for log in logs)


def said(root: Path) -> str:
    return (root / "output.txt").read_text()


def test_each_worker_has_its_share_of_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert share(0, number=3) == {"OMP_NUM_THREADS": "2"}
    assert share(0, number=9) == {"OMP_NUM_THREADS": "1"}
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert share(0, number=2) == {"OMP_NUM_THREADS": "1"}


def test_each_worker_has_its_gpu_of_those_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert [share(i, number=3)["CUDA_VISIBLE_DEVICES"] for i in range(3)] == ["2", "5", "2"]


def test_a_storage_url_is_no_part_of_what_is_written_down() -> None:
    words = ["a.yaml", "storage=postgresql://me:hunter2@host/db", "seed=1"]
    assert command_line.without_storage(words) == ["a.yaml", "seed=1"]


@pytest.mark.slow
def test_two_workers_share_a_sweep_and_its_confirm_stage(tmp_path: Path) -> None:
    process = start(tmp_path, "--workers", "2")
    assert process.wait(600) == 0, said(tmp_path)
    trials = ended_trials(study_of(tmp_path))
    assert [outcome_of(trial) for trial in trials] == ["complete"] * 6
    assert len({trial.user_attrs["owner"]["process"] for trial in trials}) == 2
    check_arrival(tmp_path)
    confirmed = list((folder_of(tmp_path).path / "confirm").glob("*/summary.json"))
    assert len(confirmed) == 2
    last = said(tmp_path).splitlines()[-1]
    assert last.startswith("python train.py ")
    assert Path(last.split()[-1]).samefile(folder_of(tmp_path).best)


@pytest.mark.slow
def test_a_killed_trial_goes_on_from_its_own_checkpoint_and_is_the_trial_it_would_have_been(
    tmp_path: Path,
) -> None:
    """Workers that really train, killed again and again, against a sweep that never was."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for root in (whole, killed):
        root.mkdir()
    assert start(whole, "--join").wait(600) == 0, said(whole)
    draw = random.Random(0)
    for epochs in (1, 2, 4):  # of the 18 that there are
        process, before = start(killed, "--join"), epochs_of(killed)
        while epochs_of(killed) < before + epochs:
            assert process.poll() is None, said(killed)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(draw.uniform(0, 0.2))
        assert process.poll() is None, said(killed)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert start(killed, "--join").wait(600) == 0, said(killed)
    a, b = (ended_trials(study_of(root)) for root in (whole, killed))
    assert len(b) == 6
    # A retry has another number, after which the next proposals differ; not those of before.
    by_run = {trial.user_attrs[RUN]: trial.value for trial in a}
    both = [trial for trial in b if trial.user_attrs[RUN] in by_run]
    assert both
    assert all(by_run[trial.user_attrs[RUN]] == trial.value for trial in both)
    for trial in both:
        runs = [folder_of(root).runs / trial.user_attrs[RUN] for root in (whole, killed)]
        assert rows_of(runs[0]) == rows_of(runs[1])
    check_arrival(killed)


@pytest.mark.slow
def test_a_signal_stops_the_workers_after_a_checkpoint_and_the_same_command_goes_on(
    tmp_path: Path,
) -> None:
    process = start(tmp_path, "--workers", "2")
    runs = folder_of(tmp_path).runs
    while not list(runs.glob("*/metrics.jsonl")):
        assert process.poll() is None, said(tmp_path)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert "stopped by SIGTERM; run the same command to resume" in said(tmp_path)
    assert "failed with value" not in said(tmp_path)  # Optuna's word for a trial that goes on
    states = {trial.state.name for trial in study_of(tmp_path).get_trials()}
    assert "RUNNING" not in states
    assert start(tmp_path, "--workers", "2").wait(600) == 0, said(tmp_path)
    trials = ended_trials(study_of(tmp_path))
    assert len(trials) == len({json.dumps(trial.params) for trial in trials}) == 6
    assert (tmp_path / STUDY / "best.yaml").exists()
