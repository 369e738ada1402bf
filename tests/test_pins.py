"""The pin files against what is installed and against each other; environment.yml; the licence."""

import shutil
import subprocess
import sys
import sysconfig
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]


def requirements(name: str) -> list[Requirement]:
    """The requirements of a pin file, those of the files it includes among them."""
    found: list[Requirement] = []
    for raw in (ROOT / name).read_text().splitlines():
        line = raw.split("#")[0].strip()
        if line.startswith("-r "):
            found += requirements(line.removeprefix("-r "))
        elif line:
            found.append(Requirement(line))
    assert found, name
    return found


TOP_LEVEL = [
    pin
    for pin in requirements("requirements-dev.txt")
    if pin.marker is None or pin.marker.evaluate()
]
TRANSITIVE = requirements("constraints.txt")


@pytest.mark.parametrize("pin", TOP_LEVEL, ids=str)
def test_every_top_level_pin_is_exact_and_installed(pin: Requirement) -> None:
    assert [clause.operator for clause in pin.specifier] == ["=="]
    assert pin.specifier.contains(metadata.version(pin.name))


@pytest.mark.parametrize("pin", TOP_LEVEL, ids=str)
def test_every_top_level_pin_is_a_constraint_too(pin: Requirement) -> None:
    name = canonicalize_name(pin.name)
    same_name = [line for line in TRANSITIVE if canonicalize_name(line.name) == name]
    assert [line.specifier for line in same_name] == [pin.specifier]


def test_every_installed_package_has_the_version_of_its_constraint() -> None:
    # Not all of sys.path: setuptools, once imported, puts copies of its own there.
    folders = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    installed = {
        canonicalize_name(found.metadata["Name"]): found.version
        for found in metadata.distributions(path=folders)
    }
    checked = [
        pin
        for pin in TRANSITIVE
        if canonicalize_name(pin.name) in installed
        and (pin.marker is None or pin.marker.evaluate())
    ]
    wrong = [
        str(pin) for pin in checked if installed[canonicalize_name(pin.name)] not in pin.specifier
    ]
    assert len(checked) > len(TOP_LEVEL)
    assert wrong == []


def environment() -> dict[str, list[str]]:
    """environment.yml's channels, conda packages and pip lines."""
    content = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = [entry["pip"] for entry in content["dependencies"] if isinstance(entry, dict)]
    conda = [entry for entry in content["dependencies"] if isinstance(entry, str)]
    return {"channels": content["channels"], "conda": conda, "pip": pip}


def test_conda_takes_packages_from_conda_forge_alone() -> None:
    assert environment()["channels"] == ["conda-forge", "nodefaults"]


def test_conda_gives_python_and_pip_and_leaves_torch_to_pip() -> None:
    assert sorted(line.split("=")[0] for line in environment()["conda"]) == ["pip", "python"]


def test_the_python_of_conda_is_new_enough_for_make() -> None:
    (python,) = [line for line in environment()["conda"] if line.startswith("python=")]
    version = tuple(int(part) for part in python.removeprefix("python=").split("."))
    refuses_below = (ROOT / "Makefile").read_text().split("sys.version_info < ")[1]
    assert refuses_below.startswith("(3, 11)")
    assert version >= (3, 11)


def pip_install(handed_over: Path) -> subprocess.CompletedProcess[str]:
    """What pip would do with a requirements file, without an index to download from."""
    options = ["--isolated", "install", "--dry-run", "--no-index", "--no-deps"]
    return subprocess.run(
        [sys.executable, "-m", "pip", *options, "-r", handed_over.name],
        cwd=handed_over.parent,
        capture_output=True,
        text=True,
        check=False,
    )


def test_pip_reads_the_pip_section_as_conda_hands_it_over(tmp_path: Path) -> None:
    # conda writes the pip lines to a file of its own beside environment.yml and installs that.
    for name in ("requirements.txt", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    handed_over = tmp_path / "condaenv.requirements.txt"
    handed_over.write_text("\n".join(environment()["pip"]))
    result = pip_install(handed_over)
    satisfied = {
        canonicalize_name(Requirement(line.split()[3]).name)
        for line in result.stdout.splitlines()
        if line.startswith("Requirement already satisfied:")
    }
    assert result.returncode == 0, result.stderr
    assert satisfied >= {canonicalize_name(pin.name) for pin in requirements("requirements.txt")}


def test_a_wrong_constraint_would_stop_conda_too(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("PyYAML\n")
    (tmp_path / "constraints.txt").write_text("PyYAML==1.0\n")
    handed_over = tmp_path / "condaenv.requirements.txt"
    handed_over.write_text("\n".join(environment()["pip"]))
    assert pip_install(handed_over).returncode != 0


def test_the_repository_cannot_be_installed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(settings) == {"tool"}


def test_the_licence_is_word_for_word_mit() -> None:
    # pytest is under MIT as well, and brings the text along.
    (theirs,) = [file for file in metadata.files("pytest") or [] if file.name == "LICENSE"]
    ours = (ROOT / "LICENSE").read_text()
    assert ours.startswith("MIT License\n\nCopyright (c) 2026 tailfocus contributors\n")
    _, grant = ours.split("Permission is")
    assert grant.split() == theirs.read_text().split("Permission is")[1].split()


def test_the_citation_names_no_invented_person_or_identifier() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["title"] == "tailfocus"
    assert citation["license"] == "MIT"
    assert citation["authors"] == [{"name": "tailfocus contributors"}]
    assert citation["message"]
    assert citation.keys().isdisjoint({"doi", "identifiers", "url", "repository-code"})
