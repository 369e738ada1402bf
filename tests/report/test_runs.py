"""The list of runs: what each is, its result, and where it lies."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from engine.config.components import ROOT
from engine.config.load import dump
from engine.report import runs
from tests._runs import folder_of, small_config, small_run

TINY = ("model=cifar_resnet8", "schedule.epochs=1")
FOCAL = (*TINY, "loss=softmax_focal", "loss.gamma=3", "seed=4")


class Stop(Exception):  # noqa: N818 - nothing went wrong
    pass


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, and one that was stopped after an epoch of three."""
    root = tmp_path_factory.mktemp("runs")
    small_run(root, *FOCAL)

    def report(epoch: int, row: object) -> None:
        raise Stop

    with pytest.raises(Stop):
        small_run(root, TINY[0], report=report)
    return root


def listed(root: Path, out: Path) -> list[dict[str, str]]:
    file = out / "runs.csv"
    assert runs.main([str(root), "--csv", str(file)]) == 0
    with file.open(encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


def test_every_run_has_a_line_with_what_it_is_and_what_came_of_it(
    root: Path, tmp_path: Path
) -> None:
    by_loss = {line["loss"]: line for line in listed(root, tmp_path)}
    folder = folder_of(root, *FOCAL)
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    found = by_loss["softmax_focal"]
    accuracy = summary["rules"]["val"]["test"]["balanced_accuracy"]
    assert (found["folder"], found["seed"]) == (str(folder), "4")
    assert (found["data"], found["rule"]) == (summary["title"], "val")
    assert found["balanced_accuracy"] == f"{accuracy:.4f}"
    assert "loss.gamma=3.0" in found["set"] and "model.name=cifar_resnet8" in found["set"]
    stopped = by_loss["cross_entropy"]
    assert (stopped["state"], stopped["balanced_accuracy"]) == ("1 of 3 epochs", "")


def test_what_cannot_be_read_is_named_and_the_others_are_listed(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "runs" / "broken"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("los: x\n", encoding="utf-8")
    assert runs.main([str(root), str(tmp_path / "runs")]) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith("passed over: los: unknown key")
    assert str(folder_of(root, *FOCAL)) in captured.out


def test_what_was_set_aside_and_what_trackers_keep_are_no_runs(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(root, *FOCAL)
    place = tmp_path / "runs"
    for name in (folder.name, f"{folder.name}.old-1", f"{folder.name}/wandb/run-1/files"):
        (place / name).mkdir(parents=True)
        shutil.copy(folder / "config.yaml", place / name)
    assert [line["folder"] for line in listed(place, tmp_path)] == [str(place / folder.name)]
    aside = f"passed over: {place / folder.name}.old-1: was set aside by --fresh\n"
    assert capsys.readouterr().err == aside


def test_what_is_set_is_all_that_makes_a_run_another_one(root: Path, tmp_path: Path) -> None:
    words = ("runtime.precision=bfloat16", "runtime.threads=1")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(dump(small_config(root, *words)), encoding="utf-8")
    (line,) = listed(folder, tmp_path)
    assert "runtime.precision=bfloat16" in line["set"]
    assert "runtime.threads" not in line["set"]


def test_a_list_that_cannot_be_written_is_one_line(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    file = tmp_path / "file" / "runs.csv"
    assert runs.main([str(root), "--csv", str(file)]) == 1
    assert capsys.readouterr() == ("", f"{file}: cannot be written: File exists\n")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere"], "nowhere: no such folder"),
        (["."], ".: no run folder there"),
        ([".", "--cvs=x"], "--cvs=x: unknown option (did you mean --csv?)"),
        ([".", "--csv", "x.txt"], "--csv x.txt: expected a file that ends in .csv"),
    ],
)
def test_a_mistake_is_one_line(
    words: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert runs.main(words) == 2
    assert capsys.readouterr().err.splitlines() == [says]


def test_listing_imports_no_torch(root: Path, tmp_path: Path) -> None:
    script = "import sys\nfrom engine.report.runs import main\ncode = main(sys.argv[1:])\n"
    script += "sys.exit('imported torch' if 'torch' in sys.modules else code)"
    done = subprocess.run(
        [sys.executable, "-c", script, str(root)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert small_config(root, *FOCAL).loss.name in done.stdout
