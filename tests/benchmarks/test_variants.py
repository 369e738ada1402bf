"""The table of variants: same seeds, differences seed by seed, nothing trained twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import variants
from tests._runs import SMALL

WORDS = [word for word in SMALL if not word.startswith(("runtime.", "track."))]


def test_a_variant_is_compared_seed_by_seed_and_not_trained_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*WORDS, "--seeds", "2", "--only", "deterministic", "bfloat16"]
    command += ["--root", str(tmp_path)]
    assert variants.main(command) == 0
    first = capsys.readouterr().out.splitlines()[-4:]
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("summary.json")}
    assert len(files) == 6
    assert variants.main(command) == 0
    assert capsys.readouterr().out.splitlines()[-4:] == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("summary.json")} == files
    _, usual, deterministic, bfloat16 = first
    assert deterministic.split()[4:6] == ["+0.000", "+0.000"]  # on a CPU there is nothing to it
    values = {
        name: {
            (summary := json.loads(path.read_text()))["seed"]: summary["rules"]["last"]["test"]
            for path in (tmp_path / name).rglob("summary.json")
        }
        for name in ("float32", "bfloat16")
    }
    for seed in range(2):
        apart = [values[name][seed]["balanced_accuracy"] for name in ("bfloat16", "float32")]
        assert float(bfloat16.split()[4 + seed]) == pytest.approx(apart[0] - apart[1], abs=6e-4)
    mean = sum(values["float32"][seed]["balanced_accuracy"] for seed in range(2)) / 2
    assert float(usual.split()[1]) == pytest.approx(mean, abs=6e-4)


@pytest.mark.slow
def test_two_processes_are_two_and_their_run_is_the_one_that_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for word in WORDS if not word.startswith("schedule.")]
    command = [*words, "schedule.epochs=1", "--seeds", "1", "--only", "two processes"]
    assert variants.main([*command, "--root", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("two processes")
    (environment,) = (tmp_path / "two_processes").rglob("environment.json")
    assert [s["processes"] for s in json.loads(environment.read_text())["segments"]] == [2]


def test_a_mistake_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert variants.main(["optim.lrr=1", "--root", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "none").exists()
