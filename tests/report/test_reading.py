"""Run folders as frames and arrays: what they hold, and what is left out of them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from engine.config.components import ROOT
from engine.config.mistakes import ConfigError
from engine.report.predictions_file import read_predictions_file
from engine.report.reading import predictions, rows, runs
from tests._documents import blocks
from tests.report._two_losses import two_losses


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reading") / "runs"


@pytest.fixture(scope="module")
def folders(root: Path) -> list[Path]:
    return two_losses(root)


def summary_of(folder: Path) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    content: dict[str, dict[str, dict[str, dict[str, float]]]] = json.loads(
        (folder / "summary.json").read_text(encoding="utf-8")
    )
    return content


def test_a_row_has_the_keys_that_differ_and_no_other(root: Path, folders: list[Path]) -> None:
    frame = runs(root)
    assert sorted(frame.index) == sorted(map(str, folders))
    keys = [name for name in frame.columns if "." in name]
    assert keys == ["loss.name", "loss.tau"]
    assert frame.loc[str(folders[1]), "seed"] == 1
    assert frame.loc[str(folders[2]), keys].tolist() == ["logit_adjustment", 1.5]
    assert np.isnan(frame.loc[str(folders[0]), "loss.tau"])


def test_a_row_has_the_results_of_every_rule_and_the_cost(root: Path, folders: list[Path]) -> None:
    row, folder = runs(root).loc[str(folders[2])], folders[2]
    rules = summary_of(folder)["rules"]
    for rule in ("last", "val"):
        for split in ("test", "val"):
            expected = rules[rule][split]["balanced_accuracy"]
            assert row[f"{rule}/{split}/balanced_accuracy"] == expected
        assert row[f"{rule}/epoch"] == rules[rule]["epoch"]
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    spent = sum(json.loads(line)["time/epoch_seconds"] for line in lines)
    assert row["seconds"] == pytest.approx(spent) and row["epochs"] == 2


def test_an_undefined_metric_is_nan_in_a_column_of_numbers(root: Path, folders: list[Path]) -> None:
    assert folders
    frame = runs(root)
    assert frame["val/test/many_accuracy"].isna().all()
    assert frame["val/test/many_accuracy"].dtype == float


def test_patterns_and_folders_find_the_same_runs(root: Path, folders: list[Path]) -> None:
    shutil.copytree(folders[0], inside := folders[0] / "wandb" / "files")
    for where in (f"{root}/**", root, f"{root}/synth*", [root, f"{root}/*/*"]):
        assert len(runs(where)) == len(folders)
    shutil.rmtree(inside.parent)
    with pytest.raises(ConfigError, match="nowhere: no run folder there"):
        runs("nowhere")


BROKEN = {
    "unfinished": lambda run: (run / "summary.json").unlink(),
    "damaged": lambda run: (run / "summary.json").write_text("{", encoding="utf-8"),
    "older": lambda run: (run / "environment.json").write_text("{}", encoding="utf-8"),
    "edited": lambda run: (run / "config.yaml").write_text("seed: 5\n", encoding="utf-8"),
    "bytes": lambda run: (run / "config.yaml").write_bytes(b"\xff\xfe"),
    "aside.old-1": lambda run: None,
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_whole_finished_run_is_named_and_left_out(
    kind: str, folders: list[Path], tmp_path: Path
) -> None:
    broken = shutil.copytree(folders[0], tmp_path / "runs" / kind)
    whole = shutil.copytree(folders[1], tmp_path / "runs" / "whole")
    BROKEN[kind](broken)
    said: list[str] = []
    frame = runs(tmp_path / "runs", say=said.append)
    assert list(frame.index) == [str(whole)]
    (line,) = said
    assert line.startswith(f"left out: {broken}")
    assert list(frame.attrs["left_out"]) == [str(broken)]


def test_a_run_that_left_test_alone_is_read_on_request(folders: list[Path], tmp_path: Path) -> None:
    run = shutil.copytree(folders[0], tmp_path / "runs" / "trial")
    content = summary_of(run)
    for result in content["rules"].values():
        result |= {"test": {}, "classes": []}  # type: ignore[dict-item]
    (run / "summary.json").rename(run / "validation.json")
    (run / "validation.json").write_text(json.dumps(content), encoding="utf-8")
    assert runs(tmp_path, say=lambda line: None).empty
    columns = runs(tmp_path, tested=False).columns
    assert "val/val/balanced_accuracy" in columns
    assert not any("/test/" in name for name in columns)


def test_rows_are_the_lines_of_metrics_by_epoch(folders: list[Path]) -> None:
    frame = rows(folders[0], classes=True)
    lines = [json.loads(x) for x in (folders[0] / "metrics.jsonl").read_text().splitlines()]
    assert frame.index.tolist() == [1, 2]
    assert frame["train/loss"].tolist() == [line["train/loss"] for line in lines]
    recalls = frame.filter(like="val/recall/")
    assert recalls.columns[3] == "val/recall/003_class3"
    assert recalls.to_numpy().tolist() == [line["val/recall"] for line in lines]
    assert not any("recall/" in name for name in rows(folders[0]))


def test_predictions_give_the_numbers_of_the_summary_again(folders: list[Path]) -> None:
    for folder in (folders[0], folders[2]):
        for split in ("test", "val"):
            found = predictions(folder, split=split, rule="last")  # type: ignore[arg-type]
            accuracy = balanced_accuracy_score(found.targets, found.probabilities.argmax(1))
            expected = summary_of(folder)["rules"]["last"][split]["balanced_accuracy"]
            assert accuracy == pytest.approx(expected, abs=1e-12)
            assert found.logits.shape == (len(found.targets), len(found.class_names))
    frame = found.frame()
    assert frame.loc[found.index[3], "true"] == found.class_names[found.targets[3]]
    right = frame["true"] == frame["predicted"]
    assert (frame["probability"][right] == frame["probability_of_true"][right]).all()
    assert np.allclose(found.probabilities.sum(1), 1)


def test_a_mistake_in_what_is_asked_is_one_line(folders: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"test\.vall\.npz: no such predictions \(did you mean"):
        predictions(folders[0], rule="vall")
    with pytest.raises(ConfigError, match="is not finished, after 0 epochs"):
        predictions(tmp_path)
    with pytest.raises(ConfigError, match="has no finished epoch"):
        rows(tmp_path)
    run = shutil.copytree(folders[0], tmp_path / "run")
    (run / "predictions" / "test.val.npz").write_bytes(b"PK")
    with pytest.raises(ConfigError, match=r"test\.val\.npz: is damaged"):
        predictions(run)


@pytest.mark.parametrize("content", ["empty", "cut", "overwritten"])
def test_a_damaged_file_of_predictions_is_one_line(content: str, tmp_path: Path) -> None:
    file, index = tmp_path / "test.val.npz", np.arange(500)
    np.savez_compressed(file, logits=index * 0.3, targets=index, index=index)
    whole = file.read_bytes()
    overwritten = whole[:80] + b"\xff" * 100 + whole[180:]
    file.write_bytes({"empty": b"", "cut": whole[:200], "overwritten": overwritten}[content])
    with pytest.raises(ConfigError, match=r"test\.val\.npz: is damaged; put it back"):
        read_predictions_file(file)


def test_reading_a_run_imports_no_torch(folders: list[Path]) -> None:
    program = (
        "import sys\nfrom engine.report.reading import predictions, rows, runs\n"
        f"run = runs({str(folders[0])!r}).index[0]\n"
        "assert len(rows(run)) and len(predictions(run).targets)\n"
        "assert not {'torch', 'sklearn', 'matplotlib'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_examples_of_the_page_run(
    root: Path, folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root.parent)
    page = (ROOT / "docs/notebook.md").read_text(encoding="utf-8")
    names: dict[str, object] = {}
    for example in blocks(page, "python"):
        exec(compile(example, "docs/notebook.md", "exec"), names)
    assert names["by_loss"]["count"].tolist() == [2, 1]  # type: ignore[attr-defined]
    assert names["recalls"].shape == (2, 4)  # type: ignore[attr-defined]
    assert names["best"] in [str(folder.relative_to(root.parent)) for folder in folders]
