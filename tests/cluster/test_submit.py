"""``--submit``: what is asked of a cluster, what is sent, and jobs that have to make room."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import reproduce
import sweep
import train
from engine.cluster import __main__ as command
from engine.cluster import submit
from engine.cluster.request import EXAMPLE, Request, read_request, schema
from engine.cluster.states import Submitted, read_submitted, states_of
from engine.cluster.submit import without_option
from engine.config.components import ROOT
from engine.config.load import load
from engine.config.mistakes import ConfigError
from engine.tuning.search.command_line import parse
from tests._runs import small_words
from tests.tables._tables import cells_of, lines_of, write_table


def write(folder: Path, text: str) -> Path:
    path = folder / "cluster.yaml"
    path.write_text(text, encoding="utf-8")
    return path


# --- what is asked --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted((ROOT / "experiments/clusters").glob("*.yaml")))
def test_a_ready_made_file_is_right(path: Path) -> None:
    assert read_request(path).jobs > 1
    assert (ROOT / EXAMPLE).is_file()


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("partitoin: gpu", "partitoin: unknown key (did you mean partition?)"),
        ("cluster: lsf", "cluster: input should be 'slurm' or 'local'"),
        ("minutes: 0", "minutes: input should be greater than or equal to 1"),
        ("jobs: many", "jobs: input should be a valid integer"),
        ("{cluster: local, gpus: 2, setup: [module load cuda]}", "gpus, setup: no effect with"),
    ],
)
def test_a_mistake_names_file_and_key(tmp_path: Path, text: str, mistake: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        read_request(path)
    assert error.value.mistakes[0].startswith(f"{path}: {mistake}")


def test_the_page_names_every_key_of_the_file_and_so_does_the_schema() -> None:
    page = (ROOT / "docs/clusters.md").read_text(encoding="utf-8")
    for key in Request.model_fields:
        assert f"`{key}`" in page
        assert f"  {key} " in schema()


# --- what is refused, before anything is sent -----------------------------------------------------


def refused(code: int, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert code == 2
    assert not (folder / "jobs").exists()
    (line,) = capsys.readouterr().err.splitlines()
    return line


def local(folder: Path, jobs: int = 2) -> str:
    return str(write(folder, f"{{cluster: local, jobs: {jobs}, folder: {folder / 'jobs'}}}"))


def test_a_mistake_in_the_command_comes_before_the_cluster(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = train.main(["optim.lrr=1", "--submit", local(tmp_path)])
    assert "optim.lr" in refused(code, tmp_path, capsys)


def test_fresh_is_refused_because_a_job_that_is_queued_again_would_begin_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = train.main(["--fresh", "--submit", local(tmp_path)])
    assert refused(code, tmp_path, capsys).startswith("--fresh: cannot go with --submit")


def test_jobs_that_share_a_study_need_a_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SWEEP_STORAGE", raising=False)
    words = ["--search", "experiments/search/softmax_focal.yaml", "--submit", local(tmp_path)]
    assert "storage=postgresql://" in refused(sweep.main(words), tmp_path, capsys)


SERVER = "storage=postgresql://me@host/studies"
SEARCH = "experiments/search/softmax_focal.yaml"


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands of the jobs, of which none is sent."""
    commands: list[list[str]] = []
    monkeypatch.setattr(submit, "_send", lambda _r, given, _f, **_k: commands.extend(given) or [])
    return commands


def test_jobs_that_share_a_study_are_one_worker_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sent: list[list[str]]
) -> None:
    words = ["--search", SEARCH, "--workers=2", SERVER, "--submit"]
    assert "jobs: 2, each of which is one worker" in refused(
        sweep.main([*words, local(tmp_path)]), tmp_path, capsys
    )
    assert sent == []
    assert sweep.main([*words, local(tmp_path, jobs=1)]) == 0
    assert parse(sent[0][1:]).workers == 2


def methods(folder: Path, *, sigmoid: str = "") -> list[str]:
    """A search of loss.gamma, and two methods that have it, as words of ``sweep.py``."""
    texts = {
        "search": "{budget: {trials: 2}, space: {loss.gamma: {float: [0, 5]}}}",
        "softmax": "loss: softmax_focal",
        "sigmoid": f"loss: sigmoid_focal{sigmoid}",
    }
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    search, *compared = (str(folder / f"{name}.yaml") for name in texts)
    return ["experiments/digits_lt.yaml", "--search", search, "--compare", *compared]


def test_every_job_of_a_comparison_has_a_command_that_loads(
    tmp_path: Path, sent: list[list[str]]
) -> None:
    words = [*methods(tmp_path), SERVER, "--submit", local(tmp_path, jobs=3), "optim.lr=0.1"]
    assert sweep.main(words) == 0
    found = [parse(command[1:]) for command in sent]
    assert [arguments.join for arguments in found] == [False, True, True]
    for arguments in found:
        losses = [method.base.loss.name for method in arguments.methods]
        assert losses == ["softmax_focal", "sigmoid_focal"]
        assert arguments.search.base.optim.lr == 0.1
        assert arguments.storage == SERVER.removeprefix("storage=")


def test_methods_are_checked_before_jobs_are_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sent: list[list[str]]
) -> None:
    words = [*methods(tmp_path, sigmoid="\nschedule: {epochs: 3}"), "--submit", local(tmp_path)]
    assert "train for different epochs" in refused(sweep.main([*words, SERVER]), tmp_path, capsys)
    assert sent == []


def test_without_slurm_or_submitit_the_line_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    words = ["--submit", str(write(tmp_path, f"folder: {tmp_path / 'jobs'}"))]
    assert "no Slurm here" in refused(train.main(words), tmp_path, capsys)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert "requirements-cluster.txt" in refused(train.main(words), tmp_path, capsys)


def test_what_slurm_says_against_the_jobs_is_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sbatch", "srun"):
        program = tmp_path / name
        program.write_text(
            "#!/bin/sh\n"
            "echo 'sbatch: error: invalid partition specified: gpux' >&2\n"
            "echo 'sbatch: error: Batch job submission failed' >&2\n"
            "exit 1\n"
        )
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    request = write(tmp_path, f"{{partition: gpux, folder: {tmp_path / 'jobs'}}}")
    assert train.main(["data=digits", "--submit", str(request)]) == 2
    said = "invalid partition specified: gpux; Batch job submission failed"
    assert capfd.readouterr() == ("", f"--submit: Slurm takes no job: {said}\n")
    assert not (tmp_path / "jobs" / submit.SUBMITTED).exists()


def test_a_folder_that_cannot_be_made_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "jobs").write_text("")
    request = local(tmp_path)
    assert train.main(["data=digits", "--submit", request]) == 2
    assert capsys.readouterr().err == f"{request}: folder: {tmp_path / 'jobs'}: File exists\n"


def test_an_option_is_left_out_with_its_value() -> None:
    words = ["a.yaml", "--submit", "c.yaml", "seed=1", "--seeds=3", "--fresh"]
    assert without_option(words, "--submit") == ["a.yaml", "seed=1", "--seeds=3", "--fresh"]
    assert without_option(words, "--seeds") == ["a.yaml", "--submit", "c.yaml", "seed=1", "--fresh"]


def test_every_seed_has_a_command_that_loads(tmp_path: Path, sent: list[list[str]]) -> None:
    words = ["data=digits", "seed=3", "--seeds", "2", "--submit", local(tmp_path)]
    assert train.main(words) == 0
    assert [command[0] for command in sent] == ["train.py", "train.py"]
    assert [load(overrides=command[1:]).seed for command in sent] == [3, 4]


# --- jobs of this machine -------------------------------------------------------------------------


def send(folder: Path, *words: str) -> str:
    """Send a command of ours as one job of this machine; return what it says."""
    said = folder / "said.txt"
    with said.open("w") as output:  # a pipe would stay open as long as the job, which inherits it
        subprocess.run(
            [sys.executable, *words, "--submit", local(folder, jobs=1)],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=output,
            check=True,
        )
    return said.read_text()


def wait_for(submitted: Submitted, folder: Path) -> set[str]:
    while "running" in (states := states_of(submitted, folder)).values():
        threading.Event().wait(0.1)
    return set(states.values())


def test_jobs_share_a_table_and_one_that_has_to_make_room_resumes(tmp_path: Path) -> None:
    table = write_table(
        tmp_path,
        methods={"cross_entropy": []},
        settings={"factor 2": ["data.imbalance.factor=2"]},
    )
    lines, folder = tmp_path / "lines.jsonl", tmp_path / "jobs"
    words = [str(table), "--results", str(lines)]
    assert send(tmp_path, "reproduce.py", *words).startswith("1 job(s): ")
    (submitted,) = read_submitted(folder)
    (job,) = submitted.jobs
    while not list((tmp_path / "runs").rglob("config.yaml")):
        assert set(states_of(submitted, folder).values()) == {"running"}
        threading.Event().wait(0.05)
    # What submitit's own test of a pre-emption sends; the process of the job is a child's child.
    (worker,) = _children(int(job))
    os.kill(worker, signal.SIGUSR2)
    assert wait_for(submitted, folder) == {"done"}
    assert set(lines_of(lines)) == {cell.fingerprint for cell in cells_of(table)}
    output = (folder / f"{job}_0_log.out").read_text()
    assert output.count("$ python reproduce.py") == 2
    assert "run the same command to resume" in output
    assert reproduce.main(words) == 0


def _children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow
def test_a_seed_is_a_job_and_one_that_fails_is_named_with_its_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = small_words(tmp_path / "runs", "optim.lr=1e9")
    send(tmp_path, "train.py", *words, "--seeds", "2")
    (submitted,) = read_submitted(tmp_path / "jobs")
    (job,) = submitted.jobs  # of two commands, of which the first diverges
    wait_for(submitted, tmp_path / "jobs")
    capsys.readouterr()
    assert command.main([str(tmp_path / "jobs")]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].endswith(submitted.command)
    assert "--submit" not in shown[0]
    log = tmp_path / "jobs" / f"{job}_0_log.out"
    assert shown[1] == f"  {job:<12} failed with exit code 1; see {log}"
    assert "seed=0" in log.read_text()


def test_a_folder_without_jobs_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([str(tmp_path)]) == 2
    assert (
        capsys.readouterr().err == f"{tmp_path}: no jobs were sent from here (no submitted.jsonl)\n"
    )
