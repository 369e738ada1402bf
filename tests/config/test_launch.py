"""How a script starts: without the environment, and with Ctrl-C at every stage of it."""

from __future__ import annotations

import gc
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine.config.components import ROOT
from engine.config.launch import STOPPED

HEAD = """
import sys

if __name__ == "__main__":
    from engine.config.launch import launch

    sys.exit(launch("planted"))

"""
IMPORTING = """
import time

def main(words):
    try:
        print("ready", flush=True)
        time.sleep(60)
    except BaseException:
        raise RecursionError("a library that catches what interrupts its import")
"""
WORKING = """
import time
from engine.training.signals import interruptions

def main(words):
    with interruptions():
        pass
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        print("put away", flush=True)
"""


def planted(folder: Path, text: str, *words: str) -> subprocess.Popen[str]:
    path = folder / "planted.py"
    path.write_text(HEAD + text)
    return subprocess.Popen(
        [sys.executable, str(path), *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def interrupted(folder: Path, text: str) -> tuple[int, str, str]:
    """Exit code, output and errors of a script that Ctrl-C reaches once it is ready."""
    process = planted(folder, text)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_ctrl_c_while_libraries_are_imported_is_one_line_whatever_they_catch(
    tmp_path: Path,
) -> None:
    assert interrupted(tmp_path, IMPORTING) == (130, "", f"{STOPPED}\n")


def test_ctrl_c_once_work_has_begun_puts_things_away_and_is_one_line(tmp_path: Path) -> None:
    assert interrupted(tmp_path, WORKING) == (130, "put away\n", f"{STOPPED}\n")


COLLECTING = """
import gc
from engine.training.signals import interruptions

def main(words):
    print(gc.get_threshold()[0] > 10_000, gc.get_freeze_count() > 0)
    for _ in range(2):
        with interruptions():
            print(gc.get_threshold() == USUAL, gc.get_freeze_count() > 0, gc.isenabled())
            was_frozen = gc.get_freeze_count()
    kept = [[] for _ in range(1000)]
    with interruptions():
        print(gc.get_freeze_count() == was_frozen)
"""


def test_garbage_is_collected_as_usual_once_work_has_begun(tmp_path: Path) -> None:
    usual = f"USUAL = {gc.get_threshold()}\n"
    out, err = planted(tmp_path, usual + COLLECTING).communicate(timeout=60)
    assert err == ""
    assert out.splitlines() == ["True False", "True True True", "True True True", "True"]


ENDING = """
import atexit
import gc

def main(words):
    atexit.register(lambda: print(gc.get_freeze_count() > 0))
    return 3
"""


def test_the_end_of_a_script_looks_for_no_garbage_and_keeps_what_was_registered(
    tmp_path: Path,
) -> None:
    process = planted(tmp_path, ENDING)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (3, "True\n", "")


IMPORTED_BY = "import inspect, sys\nfound = inspect.getmodule(sys._getframe(1))\n"
NAMING = """
from importlib import _bootstrap

def main(words):
    import asked
    print(asked.found is _bootstrap)
"""


def test_inspect_knows_the_frames_of_an_import_once_a_script_has_started(tmp_path: Path) -> None:
    (tmp_path / "asked.py").write_text(IMPORTED_BY)
    out, err = planted(tmp_path, NAMING).communicate(timeout=60)
    assert (out, err) == ("True\n", "")


@pytest.mark.parametrize("script", ["train", "sweep", "reproduce", "predict"])
def test_without_the_environment_a_script_says_what_to_do(script: str) -> None:
    done = subprocess.run(
        [sys.executable, "-S", f"{script}.py"],  # without site-packages
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.endswith(
        "is not installed here: activate the environment (source .venv/bin/activate), or use make "
        "train"
    )


def test_a_module_of_ours_that_is_missing_is_a_fault_and_not_the_environments(
    tmp_path: Path,
) -> None:
    process = planted(tmp_path, "import engine.nothing\n")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "No module named 'engine.nothing'" in err


WRONG = """
from engine.config.components import parsed, ROOT
parsed(ROOT / "README.md")
"""
WORDY = """
def main(words):
    for _ in range(100_000):
        print("more than a pipe holds")
    return 0
"""


def test_a_file_of_ours_that_cannot_be_read_at_import_is_one_line(tmp_path: Path) -> None:
    process = planted(tmp_path, WRONG)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert re.fullmatch(r"README\.md: line \d+: .+\n", err)


@pytest.mark.parametrize(
    "words",
    [
        *(["train.py", *words] for words in (["NOBODY.yaml"], ["--submit", "NOBODY.yaml"])),
        ["sweep.py", "--search=NOBODY.yaml"],
        ["reproduce.py", "NOBODY.yaml"],
        ["predict.py", ".", "NOBODY", "--csv=NOBODY.csv"],
        ["analyze.py", ".", "--out", "NOBODY"],
        ["-m", "engine.tables", "NOBODY.yaml"],
        ["-m", "engine.card", "NOBODY.yaml"],
    ],
    ids=" ".join,
)
def test_a_path_in_the_home_folder_of_nobody_is_one_line(words: list[str]) -> None:
    words = [word.replace("NOBODY", "~nobody-of-this-name/x") for word in words]
    found = subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert found.returncode == 2
    named = [word for word in words if "~" in word]
    assert found.stderr.splitlines() == [
        f"{word}: ~nobody-of-this-name has no home folder; write it in full" for word in named
    ]


@pytest.mark.parametrize(
    "module", ["engine.report.runs", "engine.report.page", "engine.report.intervals"]
)
def test_a_folder_in_the_home_of_nobody_is_not_found(module: str) -> None:
    found = subprocess.run(
        [sys.executable, "-m", module, "~nobody-of-this-name/x"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 2
    (line,) = found.stderr.splitlines()
    assert line.startswith("~nobody-of-this-name/x")


def test_a_word_that_is_no_path_of_a_home_folder_starts_the_script(tmp_path: Path) -> None:
    words = ["~/x", "a~b/x", "data.path=~nobody-of-this-name/x", "--out=~/x", "--loss~b"]
    process = planted(tmp_path, "def main(words):\n    print(*words)\n    return 0\n", *words)
    assert process.communicate(timeout=60) == (" ".join(words) + "\n", "")


def test_a_reader_that_has_read_enough_ends_the_script_silently(tmp_path: Path) -> None:
    with planted(tmp_path, WORDY) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "more than a pipe holds\n"
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 128 + signal.SIGPIPE
