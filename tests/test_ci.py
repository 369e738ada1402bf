""".ci/run among programs that only log, the workflow that calls it, and the settings of pytest."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
TARGETS = ["lint", "test", "test-system"]


@dataclass(frozen=True)
class CiRun:
    """Which programs .ci/run called, in order, and how it ended."""

    status: int
    calls: list[str]

    @property
    def targets(self) -> list[str]:
        return [call.split()[-1] for call in self.calls if call.startswith("make ")]

    @property
    def apt(self) -> list[str]:
        return [call for call in self.calls if call.startswith("apt-get ")]


def run_ci(folder: Path, *, failing: str = "", missing: str = "", apt: bool = True) -> CiRun:
    """Run a copy of .ci/run where make, dpkg, apt-get and sudo are scripts.

    Args:
        folder: Scratch folder.
        failing: The make target that fails.
        missing: The system package that is not installed.
        apt: Whether apt-get exists.
    """
    log = 'echo "${0##*/} $*" >> "$LOG"'
    scripts = {
        "make": f'{log}\ncase "$*" in *" $FAILING") exit 2 ;; esac',
        "dpkg": 'test -z "$MISSING" || case "$*" in *"$MISSING"*) exit 1 ;; esac',
        "sudo": 'exec "$@"',
    }
    if apt:
        scripts["apt-get"] = (
            f'{log}\ntest "$1" = update || test "$DEBIAN_FRONTEND" = noninteractive'
        )
    programs = folder / "programs"
    programs.mkdir()
    for name, text in scripts.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    for name in ("bash", "dirname", "env"):
        (programs / name).symlink_to(shutil.which(name) or name)
    (folder / ".ci").mkdir()
    script = shutil.copy(ROOT / ".ci/run", folder / ".ci/run")
    environment = {"PATH": str(programs), "LOG": str(folder / "log")}
    environment |= {"FAILING": failing or "none", "MISSING": missing}
    status = subprocess.run([script], env=environment, capture_output=True, check=False).returncode
    return CiRun(status=status, calls=(folder / "log").read_text().splitlines())


def test_ci_lints_and_runs_both_groups_of_tests(tmp_path: Path) -> None:
    run = run_ci(tmp_path)
    assert run.status == 0
    assert run.targets == TARGETS


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_that_ci_names_is_in_the_makefile(target: str) -> None:
    outside = {"PATH": os.environ["PATH"]}
    command = ["make", "--dry-run", target]
    plan = subprocess.run(command, cwd=ROOT, env=outside, capture_output=True, check=False)
    assert plan.returncode == 0, plan.stderr


@pytest.mark.parametrize("target", TARGETS)
def test_ci_fails_when_one_target_does_and_still_runs_the_others(
    tmp_path: Path, target: str
) -> None:
    run = run_ci(tmp_path, failing=target)
    assert run.status != 0
    assert run.targets == TARGETS


def test_ci_installs_a_missing_system_package_without_asking(tmp_path: Path) -> None:
    run = run_ci(tmp_path, missing="dataset-fashion-mnist")
    update, install = run.apt
    assert update.startswith("apt-get update")
    assert install.startswith("apt-get install -y")
    assert install.endswith("dataset-fashion-mnist munge postgresql slurm-wlm")
    assert run.status == 0


def test_ci_leaves_apt_alone_when_nothing_is_missing(tmp_path: Path) -> None:
    assert run_ci(tmp_path).apt == []


def test_ci_runs_where_there_is_no_apt(tmp_path: Path) -> None:
    assert run_ci(tmp_path, missing="dataset-fashion-mnist", apt=False).targets == TARGETS


def test_the_workflow_runs_the_same_script_and_may_only_read() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["cancel-in-progress"] is True
    (job,) = workflow["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == ["bash .ci/run"]


def test_the_workflow_and_conda_use_the_same_python() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    steps = workflow["jobs"]["run"]["steps"]
    (version,) = [s["with"]["python-version"] for s in steps if "setup-python" in s.get("uses", "")]
    assert (
        f"python={version}"
        in yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    )


PLANTED = {
    "losses/__init__.py": "",
    "losses/scale.py": '"""Doc.\n\n>>> 1 + 1\n3\n"""\n',
    "train.py": "raise RuntimeError('the script was imported')\n",
    "tests/test_planted.py": """
import warnings
import pytest
import losses.scale

def test_a_warning() -> None:
    warnings.warn("old", DeprecationWarning, stacklevel=1)

@pytest.mark.system
def test_of_the_system() -> None:
    raise RuntimeError

@pytest.mark.slow
def test_that_is_slow() -> None:
    raise RuntimeError

def test_that_passes() -> None:
    assert losses.scale.__doc__
""",
}


def run_pytest(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    shutil.copy(ROOT / "pyproject.toml", folder)
    for name, text in PLANTED.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words]
    outside = {"PATH": os.environ["PATH"]}
    return subprocess.run(
        command, cwd=folder, env=outside, capture_output=True, text=True, check=False
    )


def test_make_test_runs_doctests_and_takes_warnings_for_errors(tmp_path: Path) -> None:
    lines = run_pytest(tmp_path, "-m", "not slow and not system and not cuda").stdout.splitlines()
    failed = [line.split()[1] for line in lines if line.startswith("FAILED")]
    assert failed == ["tests/test_planted.py::test_a_warning", "losses/scale.py::losses.scale"]
    assert lines[-1].startswith("2 failed, 1 passed, 2 deselected")


def test_a_marker_that_nobody_declared_is_an_error(tmp_path: Path) -> None:
    misspelt = "import pytest\n\n@pytest.mark.sytem\ndef test_x() -> None:\n    assert True\n"
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_marker.py").write_text(misspelt)
    result = run_pytest(tmp_path, "tests/test_marker.py")
    assert "'sytem' not found in `markers`" in result.stdout
    assert result.returncode != 0
