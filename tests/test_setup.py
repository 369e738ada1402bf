"""`make` in a scratch clone, with a shell script in place of Python and pip."""

import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RUNTIME_PINS, DEV_PINS = "-r requirements.txt", "-r requirements-dev.txt"

# `-c` really runs, under another version number; environments are empty; all calls are logged.
FAKE_PYTHON = f"""#!/bin/sh
case "$1 $2" in
  "-c "*) exec "{sys.executable}" -ISc "import sys; sys.version_info = ($FAKE_VERSION)
$2" ;;
  "--version "*) echo "Python $FAKE_VERSION"; exit 0 ;;
esac
echo "$*" >> "$FAKE_LOG"
case "$1 $2" in
  "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && cp "$0" "$3/bin/pip" ;;
  "-m pip") printf '%s' "$FAKE_OUTPUT" ;;
esac
test -z "$FAKE_FAILURE" || case "$*" in *"$FAKE_FAILURE"*) exit "${{FAKE_STATUS:-1}}" ;; esac
"""


@dataclass(frozen=True)
class Clone:
    """A copy of the set-up files; `calls` are the words that its fake interpreters were given."""

    root: Path

    def make(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        if not any(word.startswith("PYTHON=") for word in words):
            words = (*words, f"PYTHON={self.root / 'fake python'}")
        return self.run(["make", *words], **environment)

    def run(self, command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
        # Nothing is inherited but PATH: these tests may themselves run under make.
        defaults = {"PATH": os.environ["PATH"], "FAKE_VERSION": "3, 11, 0"}
        environment = defaults | {"FAKE_LOG": str(self.root / "calls")} | environment
        return subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, text=True, check=False
        )

    def calls(self) -> list[str]:
        """What was called since the last look."""
        log = self.root / "calls"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines

    def installs(self) -> list[str]:
        return [
            pins
            for call in self.calls()
            for pins in (RUNTIME_PINS, DEV_PINS)
            if call.startswith("-m pip install") and f"{pins} -c constraints.txt" in call
        ]

    def age(self) -> None:
        """Make every file an hour old, so that whatever is touched next is newer."""
        then = time.time() - 3600
        for path in self.root.rglob("*"):
            os.utime(path, (then, then))


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    root = tmp_path / "a clone"
    root.mkdir()
    pins = ("requirements.txt", "requirements-dev.txt", "requirements-dashboard.txt")
    for name in ("Makefile", *pins, "constraints.txt"):
        shutil.copy(ROOT / name, root / name)
    interpreter = root / "fake python"
    interpreter.write_text(FAKE_PYTHON)
    interpreter.chmod(0o755)
    return Clone(root)


def test_first_train_makes_the_environment_and_installs_the_pins(clone: Clone) -> None:
    assert clone.make("train", "ARGS=seed=1 loss=ldam").returncode == 0
    venv, install, train = clone.calls()
    assert venv == "-m venv .venv"
    assert install.endswith(f"{RUNTIME_PINS} -c constraints.txt")
    assert train == "train.py seed=1 loss=ldam"


PIP_SAYS = """\
Collecting torch==2.14.1 (from -r requirements.txt (line 1))
  Downloading torch-2.14.1-cp311-cp311-manylinux_2_28_x86_64.whl.metadata (29 kB)
Downloading torch-2.14.1-cp311-cp311-manylinux_2_28_x86_64.whl (915.6 MB)
Downloading https://somewhere/whl/nvidia_cudnn-9.20.0.48-py3-none-manylinux_2_27.whl (1.2 GB)
Downloading rich-15.0.0-py3-none-any.whl (310 kB)
Installing collected packages: torch, rich
Successfully installed torch-2.14.1 rich-15.0.0
"""


def test_the_first_install_says_its_size_and_each_large_download(clone: Clone) -> None:
    lines = clone.make("train", FAKE_OUTPUT=PIP_SAYS).stdout.splitlines()
    assert lines == [
        "Installing the pinned packages into .venv: once, in a few minutes, 6 GB with CUDA",
        "  torch-2.14.1 (915.6 MB)",
        "  nvidia_cudnn-9.20.0.48 (1.2 GB)",
        "  unpacking",
    ]


def test_second_train_only_trains_and_prints_nothing_of_its_own(clone: Clone) -> None:
    clone.make("train")
    clone.calls()
    again = clone.make("train")
    assert clone.calls() == ["train.py"]
    assert again.stdout + again.stderr == ""


def test_the_dashboard_adds_its_own_pins_and_shows_the_study_that_was_named(clone: Clone) -> None:
    program = clone.root / ".venv/bin/optuna-dashboard"
    plan = clone.make("--dry-run", "dashboard", "STUDY=runs/mine").stdout
    assert "-r requirements-dashboard.txt -c constraints.txt" in plan
    assert plan.splitlines()[-1].endswith(
        f"{program.relative_to(clone.root)} --server wsgiref sqlite:///runs/mine/study.db"
    )


def test_a_sweep_is_that_of_the_makefile_and_takes_more_words(clone: Clone) -> None:
    clone.make("sweep", "ARGS=--trials 3")
    assert clone.calls()[-1] == (
        "sweep.py experiments/digits_lt.yaml --search experiments/search/softmax_focal.yaml "
        "--workers 2 --trials 3"
    )


def test_first_test_run_adds_the_development_pins(clone: Clone) -> None:
    clone.make("train")
    clone.calls()
    clone.make("test")
    assert clone.installs() == [DEV_PINS]


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("test", "-m not slow and not system and not cuda"),
        ("test-system", "-m system and not browser tests"),
        ("test-browser", "-m browser tests"),
        ("test-all", "-m not system and not cuda"),
    ],
)
def test_each_group_of_tests_has_its_target(clone: Clone, target: str, words: str) -> None:
    assert clone.make(target).returncode == 0
    # Tests of the system stop servers and count seconds: they get the machine to themselves.
    alone = ("test-system", "test-browser")
    shared = "" if target in alone else "-n 2 --dist loadfile --no-loadscope-reorder "
    assert clone.calls()[-1] == f"-m pytest -q {shared}{words}"


def test_a_run_that_collected_no_tests_fails(clone: Clone) -> None:
    no_tests_collected = "5"
    result = clone.make("test", FAKE_FAILURE="-m pytest", FAKE_STATUS=no_tests_collected)
    assert result.returncode != 0


def test_lint_checks_style_format_and_types(clone: Clone) -> None:
    assert clone.make("lint").returncode == 0
    style, layout, types = clone.calls()[-3:]
    assert style.startswith("-m ruff check")
    assert layout.startswith("-m ruff format") and "--check" in layout
    assert types == "-m mypy"


@pytest.mark.parametrize("tool", ["-m ruff check", "-m ruff format", "-m mypy"])
def test_lint_fails_when_one_tool_does(clone: Clone, tool: str) -> None:
    assert clone.make("lint", FAKE_FAILURE=tool).returncode != 0


@pytest.mark.parametrize("version", ["2, 7, 18", "3, 9, 2", "3, 10, 14"])
def test_an_old_python_is_refused_with_one_line_that_says_what_to_do(
    clone: Clone, version: str
) -> None:
    result = clone.make("train", FAKE_VERSION=version)
    assert result.returncode != 0
    message, makes_own = result.stderr.splitlines()
    assert "3.11 or newer" in message and version in message
    assert "make train PYTHON=" in message
    assert makes_own.startswith("make: ***")
    assert clone.calls() == [] and not (clone.root / ".venv").exists()


@pytest.mark.parametrize("version", ["3, 11, 0", "3, 14, 1"])
def test_python_3_11_and_newer_are_accepted(clone: Clone, version: str) -> None:
    assert clone.make("train", FAKE_VERSION=version).returncode == 0


def test_an_interpreter_that_is_not_there_is_named(clone: Clone) -> None:
    result = clone.make("train", "PYTHON=no-such-python")
    assert result.returncode != 0
    assert "no-such-python" in result.stderr.splitlines()[0]


def test_an_environment_of_an_old_python_is_refused_before_pip_runs(clone: Clone) -> None:
    clone.run([str(clone.root / "fake python"), "-m", "venv", ".venv"])
    clone.calls()
    result = clone.make("train", f"PYTHON={sys.executable}", FAKE_VERSION="3, 9, 2")
    assert ".venv/bin/python" in result.stderr and "remove .venv" in result.stderr
    assert clone.calls() == []


def test_an_environment_that_was_left_without_pip_is_made_again(clone: Clone) -> None:
    clone.run([str(clone.root / "fake python"), "-m", "venv", ".venv"])
    (clone.root / ".venv/bin/pip").unlink()
    clone.calls()
    assert clone.make("train").returncode == 0
    assert clone.calls()[0] == "-m venv .venv"


@pytest.mark.parametrize(("pins", "stamp"), [(RUNTIME_PINS, ".ready"), (DEV_PINS, ".ready-dev")])
def test_a_failed_install_leaves_no_stamp_and_is_tried_again(
    clone: Clone, pins: str, stamp: str
) -> None:
    assert clone.make("test", FAKE_FAILURE=pins).returncode != 0
    assert not (clone.root / ".venv" / stamp).exists()
    assert not any("pytest" in call for call in clone.calls())
    assert clone.make("test").returncode == 0
    assert pins in clone.installs()


def test_a_failed_reinstall_takes_the_old_stamp_away(clone: Clone) -> None:
    clone.make("train")
    clone.age()
    (clone.root / "requirements.txt").touch()
    clone.make("train", FAKE_FAILURE=RUNTIME_PINS)
    assert not (clone.root / ".venv/.ready").exists()


@pytest.mark.parametrize(
    ("touched", "reinstalled"),
    [
        ("requirements.txt", [RUNTIME_PINS, DEV_PINS]),
        ("constraints.txt", [RUNTIME_PINS, DEV_PINS]),
        ("requirements-dev.txt", [DEV_PINS]),
    ],
)
def test_a_changed_pin_file_installs_again_what_depends_on_it(
    clone: Clone, touched: str, reinstalled: list[str]
) -> None:
    clone.make("test")
    clone.age()
    clone.calls()
    (clone.root / touched).touch()
    clone.make("test")
    assert clone.installs() == reinstalled
    clone.make("test")
    assert clone.installs() == []


def test_torch_comes_first_and_from_its_own_index_when_one_is_given(clone: Clone) -> None:
    clone.make("train", "TORCH_INDEX=somewhere/cpu")
    _, torch_install, install, _ = clone.calls()
    pins = (clone.root / "requirements.txt").read_text().split()
    torch_pins = " ".join(pin for pin in pins if pin.startswith(("torch==", "torchvision==")))
    assert torch_install.endswith(f"--no-deps --index-url somewhere/cpu {torch_pins}")
    assert "--index-url" not in install


def test_no_index_is_named_when_none_is_given(clone: Clone) -> None:
    clone.make("train")
    assert not any("index" in call for call in clone.calls())


def test_the_environment_can_live_elsewhere(clone: Clone) -> None:
    clone.make("train", "VENV=elsewhere")
    assert (clone.root / "elsewhere/.ready").exists()
    assert not (clone.root / ".venv").exists()


def test_make_alone_lists_every_target_and_installs_nothing(clone: Clone) -> None:
    result = clone.make()
    listed = {line.split()[1] for line in result.stdout.splitlines() if line.startswith("make ")}
    targets = re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert listed == set(targets) - {"help"}
    assert clone.calls() == []
