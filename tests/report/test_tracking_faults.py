"""W&B is a mirror: whatever happens to it, the run ends well, with the same numbers, and soon."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import wandb

import train
from engine.config.components import ROOT
from engine.report.tracking.wandb import _end
from tests._runs import (
    assert_same_run,
    folder_of,
    quiet_screen,
    rows_of,
    small_config,
    small_run,
    small_words,
)
from tests.report._wandb_log import epochs, history, records, values_of, whole_records
from tests.report._wandb_server import Fault, Server, wandb_server

# Real servers and services with their own time-outs: about a minute in all.
pytestmark = pytest.mark.slow

KEY = "0123456789abcdef" * 2 + "01234567"
OFFLINE = ("track.wandb=offline",)
SLACK = 5.0  # a busy machine wakes a process up late
SECRET = "tail-focus-planted-secret"
NO_CONNECTION = "W&B: no connection; this run is recorded offline (send it with wandb sync)"


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run without W&B."""
    root = tmp_path_factory.mktemp("without")
    small_run(root)
    return folder_of(root)


@pytest.fixture(autouse=True)
def _service_of_its_own() -> Iterator[None]:
    """wandb reads its settings when its service starts, so each test starts one."""
    wandb.teardown()
    yield
    wandb.teardown()
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        gc.collect()  # wandb never waits for a service that was killed


def mirrored_run(root: Path, *words: str, after_first: Callable[[], object] = int) -> list[str]:
    """A small run in which ``after_first`` is called after the first epoch; lines about W&B."""

    def report(epoch: int, row: object) -> None:
        if epoch == 1:
            after_first()

    screen = quiet_screen()
    train.run(small_config(root, *words), screen=screen, report=report)
    printed: str = screen.console.file.getvalue()  # type: ignore[attr-defined]
    return [line for line in printed.splitlines() if "W&B" in line]


def services() -> list[int]:
    """Process ids of this process's wandb services."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        name, _, rest = stat.read_text().partition(") ")
        state, parent = rest.split()[:2]
        if int(parent) == os.getpid() and "wandb-core" in name and state != "Z":
            found.append(int(stat.parent.name))
    return found


def kill_the_service() -> None:
    for pid in services():
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


# --- the process beside the run -------------------------------------------------------------------


def test_a_killed_service_changes_no_number_and_the_next_run_has_a_new_one(
    tmp_path: Path, without: Path
) -> None:
    (line,) = mirrored_run(tmp_path / "first", *OFFLINE, after_first=kill_the_service)
    assert line.startswith("W&B is off for the rest of this run: ConnectionResetError")
    assert_same_run(folder_of(tmp_path / "first"), without)
    assert mirrored_run(tmp_path / "second", *OFFLINE) == []
    (file,) = (tmp_path / "second").rglob("*.wandb")
    assert [line["_step"] for line in epochs(file)] == [1, 2, 3]


KILLED = """
import sys
from pathlib import Path
from tests.report._tracked import started
from tests.report.test_tracking_faults import kill_the_service

trackers = started(Path(sys.argv[1]))
kill_the_service()
trackers.log({"loss": 1.0}, step=1)
trackers.finish()
"""


def test_a_killed_service_leaves_no_traceback_when_python_exits(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stderr == ""
    (line,) = done.stdout.splitlines()
    assert line.startswith("W&B is off for the rest of this run: ConnectionResetError")


FROZEN = """
import sys
from pathlib import Path
from engine.report.tracking import wandb
from tests.report._tracked import started
from tests.report.test_tracking_faults import freeze_the_service

wandb.FINISH_SECONDS = wandb.SERVICE_SECONDS = 1
trackers = started(Path(sys.argv[1]))
freeze_the_service()
if sys.argv[2] == "fail":
    trackers._trackers[0].call(lambda tracker: 1 / 0, seconds=60)
trackers.finish()
print("finished")
"""


def freeze_the_service() -> None:
    for pid in services():
        os.kill(pid, signal.SIGSTOP)


@pytest.mark.parametrize("end", ["fail", "finish"])
def test_a_service_that_hangs_holds_up_neither_the_run_nor_pythons_exit(
    tmp_path: Path, end: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FROZEN, str(tmp_path), end],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.splitlines()[-1] == "finished"
    assert "Traceback" not in done.stderr


def test_no_service_is_left_once_a_failed_mirror_has_ended(tmp_path: Path) -> None:
    mirrored_run(tmp_path, *OFFLINE, after_first=kill_the_service)
    assert services() == []


# --- files ----------------------------------------------------------------------------------------


def test_a_file_in_the_place_of_the_wandb_folder_is_one_line(tmp_path: Path, without: Path) -> None:
    folder = folder_of(tmp_path)
    folder.mkdir(parents=True)
    (folder / "wandb").write_text("in the way")
    (line,) = mirrored_run(tmp_path, *OFFLINE)
    assert line.startswith("W&B is off for the rest of this run: ")
    assert str(folder / "wandb") in line
    assert_same_run(folder, without)
    assert (folder / "wandb").read_text() == "in the way"


@pytest.mark.parametrize(("mine", "inside"), [(None, "false"), ("true", "true")])
def test_wandb_reports_nothing_on_itself_unless_it_was_asked_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mine: str | None, inside: str
) -> None:
    monkeypatch.delenv("WANDB_ERROR_REPORTING", raising=False)
    if mine is not None:
        monkeypatch.setenv("WANDB_ERROR_REPORTING", mine)
    seen: list[str | None] = []

    def look() -> None:
        seen.append(os.environ.get("WANDB_ERROR_REPORTING"))

    mirrored_run(tmp_path, *OFFLINE, after_first=look)
    assert (seen, os.environ.get("WANDB_ERROR_REPORTING")) == ([inside], mine)


def test_a_service_that_was_ended_is_not_looked_for_by_child_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WANDB_SERVICE", "3-1-unix-/gone/socket")
    with subprocess.Popen(["sleep", "600"]) as service:
        _end(service)
        assert service.wait() == -signal.SIGKILL
    assert "WANDB_SERVICE" not in os.environ


def test_without_home_the_mirror_works(
    tmp_path: Path, without: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOME")
    assert mirrored_run(tmp_path, *OFFLINE) == []
    (file,) = tmp_path.rglob("*.wandb")
    assert len(epochs(file)) == 3
    assert_same_run(folder_of(tmp_path), without)


@pytest.mark.system
def test_a_full_disk_under_wandb_changes_no_number(tmp_path: Path, without: Path) -> None:
    words = small_words(tmp_path, *OFFLINE)
    folder = folder_of(tmp_path, *OFFLINE)
    (folder / "wandb").mkdir(parents=True)
    done = subprocess.run(
        [
            *("unshare", "--mount", "bash", "-euc"),
            f"mount -t tmpfs -o size=16k tmpfs {folder}/wandb\n"
            f"exec {sys.executable} train.py {' '.join(words)}",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert_same_run(folder, without)


# --- the server -----------------------------------------------------------------------------------

FAULTS: tuple[Fault, ...] = ("500", "hang", "close")
ONLINE = """
import sys, time
from pathlib import Path
from engine.report.tracking import wandb
from tests.report._tracked import started

wandb.INIT_SECONDS = wandb.FINISH_SECONDS = 2
began = time.monotonic()
trackers = started(Path(sys.argv[1]), "track.wandb=online")
print("seconds to start", time.monotonic() - began)
for step in (1, 2, 3):
    trackers.log({"loss": 1.0}, step=step)
print("seconds to log", time.monotonic() - began)
trackers.finish()
print("seconds to finish", time.monotonic() - began)
"""


@dataclass(frozen=True)
class Ended:
    """A process that ended well: its lines without wandb's own, and its folder."""

    lines: list[str]
    folder: Path

    def steps(self, pattern: str) -> list[int]:
        """The steps in the one .wandb file below a folder like ``pattern``."""
        (file,) = self.folder.rglob(f"{pattern}/*.wandb")
        return [line["_step"] for line in history(file)]


def environment_for(server: Server) -> dict[str, str]:
    """No settings of the person who runs the tests count."""
    usual = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    own = {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": server.url, "SOME_TOKEN": SECRET}
    return {**usual, **own, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def under_faults(root: Path, command: list[str], *, after: str | None) -> dict[Fault, Ended]:
    """Run ``command <folder>`` against three servers at once, each with a fault of its own."""
    with contextlib.ExitStack() as stack:
        processes = {}
        for fault in FAULTS:
            (root / fault).mkdir()
            server = stack.enter_context(wandb_server(fault, after=after))
            words = [word.replace("{folder}", str(root / fault)) for word in command]
            processes[fault] = subprocess.Popen(
                [sys.executable, *words],
                cwd=ROOT,
                env=environment_for(server),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        found = {}
        for fault, process in processes.items():
            output = process.communicate(timeout=240)[0]
            assert process.returncode == 0, output
            assert "Traceback" not in output
            lines = [line for line in output.splitlines() if not line.startswith("wandb:")]
            found[fault] = Ended(lines, root / fault)
        return found


def test_a_server_that_fails_in_mid_run_holds_nothing_up_and_the_record_is_whole(
    tmp_path: Path,
) -> None:
    ended = under_faults(tmp_path, ["-c", ONLINE, "{folder}"], after="UpsertBucket")
    for run in ended.values():
        start, log, finish = (float(line.split()[-1]) for line in run.lines if "seconds" in line)
        assert log - start < 1
        assert finish - log < 2 + 1
        assert NO_CONNECTION not in run.lines
        assert run.steps("run-*") == [1, 2, 3]  # for `wandb sync --include-online`


def test_a_server_that_fails_in_the_middle_of_the_start_is_no_obstacle_to_an_offline_record(
    tmp_path: Path,
) -> None:
    """The start that failed must not hold on to the run's id."""
    ended = under_faults(tmp_path, ["-c", ONLINE, "{folder}"], after="RunResumeStatus")
    for run in ended.values():
        assert NO_CONNECTION in run.lines
        assert run.steps("offline-run-*") == [1, 2, 3]


TIMED_RUN = """
import sys, time
import wandb  # no part of what a server costs
import train
from engine.report.tracking import Trackers
from engine.report.tracking._guard import Guarded

seconds = 0.0

def timed(method):
    def call(*arguments, **options):
        global seconds
        began = time.monotonic()
        method(*arguments, **options)
        seconds += time.monotonic() - began
    return call

Guarded.start = timed(Guarded.start)
for name in ("log", "close", "finish"):
    setattr(Trackers, name, timed(getattr(Trackers, name)))
code = train.main(sys.argv[1:])
print("seconds in W&B:", seconds)
sys.exit(code)
"""


@pytest.mark.slow
@pytest.mark.parametrize("after", [None, "UpsertBucket"])
def test_no_fault_of_the_server_changes_a_number_or_costs_more_than_ten_seconds(
    tmp_path: Path, without: Path, after: str | None
) -> None:
    words = small_words(Path("{folder}"), "track.wandb=online")
    for run in under_faults(tmp_path, ["-c", TIMED_RUN, *words], after=after).values():
        assert_same_run(folder_of(run.folder), without)
        assert (NO_CONNECTION in run.lines) == (after is None)
        (file,) = run.folder.rglob("offline-run-*/*.wandb" if after is None else "run-*/*.wandb")
        summary = [values_of(record.update) for record in records(file, "summary")]
        assert any(values.get("headline") == "val" for values in summary)
        assert float(run.lines[-1].rpartition(" ")[2]) < 10 + SLACK


# --- MLflow ---------------------------------------------------------------------------------------

MLFLOW = """
import sys, time
import mlflow as _  # no part of what a server costs
from pathlib import Path
from engine.report.tracking import Closing
from tests.report._tracked import started

began = time.monotonic()
trackers = started(Path(sys.argv[1]), "track.to=[mlflow]", "track.mlflow_uri=" + sys.argv[2])
for step in (1, 2, 3):
    trackers.log({"loss": 1.0}, step=step)
trackers.close(Closing({"headline": "val"}))
trackers.finish()
print("seconds", time.monotonic() - began)
"""


@pytest.mark.parametrize("after", [None, "runs/create"])
@pytest.mark.parametrize("fault", FAULTS)
def test_no_fault_of_an_mlflow_server_costs_more_than_ten_seconds(
    tmp_path: Path, fault: Fault, after: str | None
) -> None:
    with wandb_server(fault, after=after) as server:
        done = subprocess.run(
            [sys.executable, "-c", MLFLOW, str(tmp_path), server.url],
            cwd=ROOT,
            env=environment_for(server),
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        operations = list(server.operations)
    off, seconds = done.stdout.splitlines()
    assert off.startswith("MLflow is off for the rest of this run: MlflowException")
    assert float(seconds.split()[1]) < 10 + SLACK
    assert after is None or after in operations
    assert "Traceback" not in done.stderr


def test_an_mlflow_server_that_works_is_sent_every_epoch(tmp_path: Path) -> None:
    with wandb_server() as server:
        done = subprocess.run(
            [sys.executable, "-c", MLFLOW, str(tmp_path), server.url],
            cwd=ROOT,
            env=environment_for(server),
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
    assert done.stdout.startswith("seconds")
    assert server.operations.count("runs/log-batch") == 1 + 3  # the config, then the epochs
    assert SECRET.encode() not in b"".join(server.requests)


TELEMETRY = """
import sys
from pathlib import Path
from tests.report._tracked import started

started(Path(sys.argv[1]), "track.to=[mlflow]").finish()
from mlflow.telemetry.client import get_telemetry_client
print(get_telemetry_client())
"""


def test_mlflow_reports_nothing_on_its_use(tmp_path: Path) -> None:
    # MLflow is silent by itself where it believes to be under test.
    usual = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "MLFLOW", "CI"))}
    done = subprocess.run(
        [sys.executable, "-c", TELEMETRY, str(tmp_path)],
        cwd=ROOT,
        env={**usual, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout == "None\n"


def test_a_file_in_the_place_of_mlflows_folder_is_one_line(tmp_path: Path, without: Path) -> None:
    (tmp_path / "mlruns").write_text("in the way")
    screen = quiet_screen()
    train.run(small_config(tmp_path, "track.to=[mlflow]"), screen=screen)
    printed: str = screen.console.file.getvalue()  # type: ignore[attr-defined]
    (line,) = [line for line in printed.splitlines() if "MLflow" in line]
    assert line.startswith("MLflow is off for the rest of this run: ")
    assert_same_run(folder_of(tmp_path), without)


# --- a run that is killed -------------------------------------------------------------------------

KILL = """
import os, signal, sys
import train
from engine.config.load import load
from engine.training.run_folder import RunFolder

epoch, moment, *words = sys.argv[1:]
append = RunFolder.append_row

def append_and_die(folder, row):
    append(folder, row)
    if moment == "before" and row["epoch"] == int(epoch):
        os.kill(os.getpid(), signal.SIGKILL)

def die(now, row):
    if now == int(epoch):
        os.kill(os.getpid(), signal.SIGKILL)

RunFolder.append_row = append_and_die
train.run(load(overrides=words), report=die)
"""


@pytest.mark.parametrize(("moment", "seconds"), [("before", 0), ("after", 0), ("after", 600)])
def test_no_epoch_of_a_killed_run_is_missing_in_any_tracker(
    tmp_path: Path, moment: str, seconds: int
) -> None:
    """The kill comes before or after the trackers have the row of the fourth epoch.

    Where there is no checkpoint, all four are made again.
    """
    own = ("track.to=[wandb,mlflow]", *OFFLINE, "schedule.epochs=6")
    words = small_words(tmp_path, *own, f"runtime.checkpoint_epoch_seconds={seconds}")
    done = subprocess.run(
        [sys.executable, "-c", KILL, "4", moment, *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        check=False,
        timeout=240,
    )
    assert done.returncode == -signal.SIGKILL
    mirrored_run(tmp_path, *own)
    folder = folder_of(tmp_path, "schedule.epochs=6")
    rows = {row["epoch"]: row["train/loss"] for row in rows_of(folder)}
    assert list(rows) == [1, 2, 3, 4, 5, 6]
    found: dict[int, set[float]] = {}
    for path in sorted(folder.rglob("*.wandb")):
        for record in whole_records(path):
            if record.WhichOneof("record_type") == "history":
                line = values_of(record.history.item)
                if "train/loss" in line:
                    assert line["_step"] == line["epoch"]
                    found.setdefault(line["epoch"], set()).add(line["train/loss"])
    assert found == {epoch: {loss} for epoch, loss in rows.items()}
    (metric,) = (tmp_path / "mlruns").glob("*/*/metrics/train/loss")
    lines = [line.split() for line in metric.read_text().splitlines()]
    assert {int(step): float(value) for _, value, step in lines} == pytest.approx(rows)
    assert len(lines) == 6


class Stop(Exception):  # noqa: N818 - nothing went wrong
    """Ends a run after its first epoch."""


def stop() -> None:
    raise Stop


def test_sync_of_a_resumed_run_sends_every_epoch_and_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_TOKEN", SECRET)
    with pytest.raises(Stop):
        mirrored_run(tmp_path, *OFFLINE, after_first=stop)
    mirrored_run(tmp_path, *OFFLINE)
    segments = sorted((folder_of(tmp_path) / "wandb").glob("offline-run-*"))
    assert len(segments) == 2
    with wandb_server() as server:
        subprocess.run(
            [sys.executable, "-m", "wandb", "sync", *segments],
            env=environment_for(server),
            capture_output=True,
            check=True,
            timeout=120,
        )
    sent_epochs = [line["epoch"] for line in server.lines if "train/loss" in line]
    assert sent_epochs == [1, 1, 2, 3]  # the first again: a killed run may have lost it
    sent = b"".join(server.requests)
    assert b"val/recall/000_class0" in sent
    assert SECRET.encode() not in sent
    assert KEY.encode() not in sent
