"""W&B is a mirror: whatever happens to it, the run ends well, with the same numbers, and soon."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb

import train
from engine import tracking
from engine.components import ROOT
from tests._runs import (
    assert_same_run,
    folder_of,
    quiet_screen,
    small_config,
    small_run,
    small_words,
)
from tests.engine._wandb_log import history
from tests.engine._wandb_server import Behaviour, Server, wandb_server

KEY = "0123456789abcdef" * 2 + "01234567"
OFFLINE = ("track.wandb=offline",)
ONLINE = ("track.wandb=online",)
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


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Behaviour], Server]]:
    """Start a server that wandb will use; no settings of the person who runs the tests count."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setattr(tracking, "FINISH_SECONDS", 1)
    with wandb_server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)

        def with_behaviour(behaviour: Behaviour) -> Server:
            server.behaviour = behaviour
            return server

        yield with_behaviour
        wandb.teardown()


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
    assert [line["_step"] for line in history(file)] == [1, 2, 3]


MIRROR = """
import os, signal, sys
from pathlib import Path
from engine import tracking
from tests.engine.test_tracking_faults import kill_the_service

identity = {"project": "tests", "group": "group", "name": "name"}
mirror = tracking.Mirror(
    Path(sys.argv[1]), mode="offline", run_id="0-abcdef", identity=identity, config={}, say=print
)
kill_the_service()
mirror.log({"loss": 1.0}, step=1)
mirror.finish()
"""


def test_a_killed_service_leaves_no_traceback_when_python_exits(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MIRROR, str(tmp_path)],
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


def test_without_home_the_mirror_works(
    tmp_path: Path, without: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOME")
    assert mirrored_run(tmp_path, *OFFLINE) == []
    (file,) = tmp_path.rglob("*.wandb")
    assert len(history(file)) == 3
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


@pytest.mark.parametrize("behaviour", ["500", "hang", "close"])
def test_a_server_that_fails_in_mid_run_costs_finish_seconds_and_no_number(
    tmp_path: Path,
    without: Path,
    serve: Callable[[Behaviour], Server],
    behaviour: Behaviour,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds: list[float] = []
    finish = tracking.Mirror.finish

    def timed(mirror: tracking.Mirror, **options: Any) -> None:
        began = time.monotonic()
        finish(mirror, **options)
        seconds.append(time.monotonic() - began)

    monkeypatch.setattr(tracking.Mirror, "finish", timed)
    server = serve("answer")

    def fail() -> None:
        assert "UpsertBucket" in server.operations  # it had begun well
        server.behaviour = behaviour

    mirrored_run(tmp_path, *ONLINE, after_first=fail)
    assert_same_run(folder_of(tmp_path), without)
    assert seconds[0] < tracking.FINISH_SECONDS + 2
    (file,) = tmp_path.rglob("*.wandb")  # whole on disk, for `wandb sync --include-online`
    assert [line["_step"] for line in history(file)][:3] == [1, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize("behaviour", ["500", "hang", "close"])
def test_a_server_that_never_answers_costs_seconds_and_the_run_is_recorded_offline(
    tmp_path: Path,
    without: Path,
    serve: Callable[[Behaviour], Server],
    behaviour: Behaviour,
) -> None:
    began = time.monotonic()
    mirrored_run(tmp_path / "offline", *OFFLINE)
    usual = time.monotonic() - began
    serve(behaviour)
    wandb.teardown()
    began = time.monotonic()
    assert mirrored_run(tmp_path / "online", *ONLINE) == [NO_CONNECTION]
    assert time.monotonic() - began < usual + 20
    assert_same_run(folder_of(tmp_path / "online"), without)
    (file,) = (tmp_path / "online").rglob("offline-run-*/*.wandb")
    assert [line["_step"] for line in history(file)][:3] == [1, 2, 3]


def test_a_server_that_fails_between_login_and_start_is_no_obstacle_to_offline(
    tmp_path: Path, serve: Callable[[Behaviour], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start that failed must not hold on to the run's id."""
    server = serve("answer")
    login = wandb.login

    def login_then_hang(**options: Any) -> bool:
        answer = login(**options)
        server.behaviour = "hang"
        return answer

    monkeypatch.setattr(wandb, "login", login_then_hang)
    monkeypatch.setattr(tracking, "INIT_SECONDS", 1)
    assert mirrored_run(tmp_path, *ONLINE) == [NO_CONNECTION]
    (file,) = tmp_path.rglob("offline-run-*/*.wandb")
    assert [line["_step"] for line in history(file)] == [1, 2, 3]


class Stop(Exception):  # noqa: N818 - nothing went wrong
    """Ends a run after its first epoch."""


def stop() -> None:
    raise Stop


def test_sync_of_a_resumed_run_sends_every_step_once_and_no_secret(
    tmp_path: Path, serve: Callable[[Behaviour], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_TOKEN", "planted-secret")
    with pytest.raises(Stop):
        mirrored_run(tmp_path, *OFFLINE, after_first=stop)
    mirrored_run(tmp_path, *OFFLINE)
    segments = sorted((folder_of(tmp_path) / "wandb").glob("offline-run-*"))
    assert len(segments) == 2
    server = serve("answer")
    subprocess.run(
        [sys.executable, "-m", "wandb", "sync", *segments],
        capture_output=True,
        check=True,
        timeout=120,
    )
    assert [line["_step"] for line in server.lines] == [1, 2, 3]
    sent = b"".join(server.bodies)
    assert b"val/recall/000_class0" in sent
    assert b"planted-secret" not in sent
    assert KEY.encode() not in sent
