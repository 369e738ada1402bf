"""A table made by jobs of a real Slurm, one of which is pre-empted."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from engine.cluster.states import read_submitted, states_of
from engine.config.components import ROOT
from tests.cluster._slurm import asked, slurm
from tests.tables._tables import cells_of, lines_of, write_table

pytestmark = pytest.mark.system
REQUEST = "{{cluster: slurm, jobs: 2, minutes: 20, partition: low, folder: {folder}}}"


def test_a_table_of_four_runs_gets_its_four_lines_although_jobs_are_preempted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = write_table(
        tmp_path,
        methods={"cross_entropy": []},
        settings={f"factor {n}": [f"data.imbalance.factor={n}"] for n in (2, 8)},
        # Slurm takes its seconds to pre-empt a job, which is to be in the middle of a run then.
        epochs=200,
    )
    lines, folder = tmp_path / "lines.jsonl", tmp_path / "jobs"
    request = tmp_path / "cluster.yaml"
    request.write_text(REQUEST.format(folder=folder))
    with slurm(tmp_path / "slurm") as environment:
        monkeypatch.setenv("SLURM_CONF", environment["SLURM_CONF"])
        command = [sys.executable, "reproduce.py", str(table), "--results", str(lines)]
        subprocess.run([*command, "--submit", str(request)], cwd=ROOT, check=True)
        (submitted,) = read_submitted(folder)
        assert len(submitted.jobs) == 2
        while not list((tmp_path / "runs").rglob("config.yaml")):
            assert set(states_of(submitted, folder).values()) <= {"queued", "running"}
            threading.Event().wait(0.2)
        # All cores for a moment, from a partition that comes first.
        asked(environment, "sbatch", "-p", "high", "-n", "2", "-o", "/dev/null", "--wrap", "true")
        while "queued" not in (states := states_of(submitted, folder)).values():
            assert set(states.values()) <= {"running", "done"}
            threading.Event().wait(0.2)
        # Slurm would wait two minutes before it begins a job again.
        while set((states := states_of(submitted, folder)).values()) != {"done"}:
            assert set(states.values()) <= {"queued", "running", "done"}, states
            for job in (job for job, state in states.items() if state == "queued"):
                asked(environment, "scontrol", "update", f"jobid={job}", "StartTime=now")
            threading.Event().wait(1)
        while asked(environment, "squeue", "-h"):  # or a step would wait for Slurm for ever
            threading.Event().wait(0.2)
    assert set(lines_of(lines)) == {cell.fingerprint for cell in cells_of(table)}
    logs = [(folder / f"{job}_0_log.out").read_text() for job in submitted.jobs]
    assert any("stopped by SIGTERM; run the same command to resume" in log for log in logs)
