"""analyze.py on real trained runs: its numbers are the runs' own, and every mistake is one line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from sklearn.metrics import balanced_accuracy_score

import analyze
import losses
from engine.analysis.command_line import OPTIONS, USAGE
from engine.analysis.readout import readout_of
from engine.analysis.stored_run import read_stored_run
from engine.config.components import ROOT
from engine.config.load import load
from engine.config.schema import component_keys
from tests._documents import blocks
from tests._full_disk import full_at
from tests._runs import small_words
from tests.analysis.conftest import SHORT, Runs


@pytest.fixture(scope="module")
def analysed(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of the plain run, figures included."""
    out = tmp_path_factory.mktemp("out")
    assert analyze.main([str(runs.plain), "--out", str(out)]) == 0
    return out


def content(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "analysis.json").read_text())
    return found


def stored(run: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Logits and targets by the rule val."""
    file = np.load(run / "predictions" / f"{split}.val.npz")
    return file["logits"].astype(np.float64), file["targets"]


# --- numbers --------------------------------------------------------------------------------------


def test_as_it_is_the_numbers_are_those_of_the_runs_summary(analysed: Path, runs: Runs) -> None:
    summary = json.loads((runs.plain / "summary.json").read_text())["rules"]["val"]["test"]
    found = content(analysed)
    as_is = found["logit_adjustment"]["as_is"]
    assert as_is["balanced"] == pytest.approx(summary["balanced_accuracy"], abs=1e-12)
    everything = found["calibration"]["ways"]["as is"]["groups"]["all"]
    assert everything["nll"] == pytest.approx(summary["nll"], abs=1e-9)
    assert everything["ece_equal_width"]["ece"] == pytest.approx(summary["ece"], abs=1e-9)


def test_tau_is_the_best_on_validation_and_its_number_is_tests(analysed: Path, runs: Runs) -> None:
    section = content(analysed)["logit_adjustment"]
    counts = np.array(content(analysed)["run"]["class_counts"])
    prior = np.log(counts / counts.sum())

    def score(split: str, tau: float) -> float:
        logits, targets = stored(runs.plain, split)
        return float(balanced_accuracy_score(targets, (logits - tau * prior).argmax(axis=1)))

    on_val = [score("val", tau) for tau in section["taus"]]
    chosen = section["chosen"]
    assert score("val", chosen["tau"]) == pytest.approx(max(on_val))
    assert chosen["test"]["balanced"] == pytest.approx(score("test", chosen["tau"]))
    assert section["val_curve"]["balanced"] == pytest.approx(on_val)


def test_without_validation_nothing_is_chosen_and_the_curve_is_an_oracle(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert analyze.main([str(runs.unvalidated), "--out", str(tmp_path), "--no-figures"]) == 0
    found = content(tmp_path)
    assert found["logit_adjustment"]["chosen"] is None
    assert len(found["logit_adjustment"]["oracle_curve"]["balanced"]) == 81
    assert list(found["calibration"]["ways"]) == ["as is"]
    for section in ("thresholds", "prediction_sets"):
        assert "needs a validation split" in found[section]["refused"]
    assert "no tau is chosen: needs a validation split" in capsys.readouterr().out


def test_a_run_with_its_own_tau_is_analyzed_as_it_was_evaluated(runs: Runs, tmp_path: Path) -> None:
    adjusted = tmp_path / "adjusted"
    shutil.copytree(runs.plain, adjusted)
    config = yaml.safe_load((adjusted / "config.yaml").read_text())
    config["evaluate"]["logit_adjustment"] = 1.0
    (adjusted / "config.yaml").write_text(yaml.safe_dump(config))
    (adjusted / "environment.json").write_text(
        (adjusted / "environment.json").read_text().replace('"config_version": ', '"was": ')
    )
    run = read_stored_run(adjusted)
    logits, _ = stored(runs.plain, "test")
    shifted = logits - np.log(run.class_counts / run.class_counts.sum())
    expected = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    assert np.allclose(run.evaluated_test, expected, atol=1e-6)


# --- what is written and shown --------------------------------------------------------------------


def test_figures_can_be_read_and_nothing_else_is_written(analysed: Path) -> None:
    names = {"tau_curve", "reliability", "test_priors", "prediction_sets", "confusions"}
    written = {path.name for path in analysed.iterdir()}
    assert {"analysis.json"} < written <= {"analysis.json"} | {f"{name}.png" for name in names}
    for file in analysed.glob("*.png"):
        with Image.open(file) as image:
            assert min(image.size) > 300


def test_figures_that_cannot_be_written_are_one_line(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full_at(tmp_path / "tau_curve.png")
    assert analyze.main([str(runs.plain), "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"{tmp_path}: cannot be written: No space left on device\n"
    assert [path.name for path in tmp_path.iterdir()] == ["analysis.json"]


def test_a_run_keeps_its_analysis_in_its_folder_within_eighty_columns(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(runs.plain, copy)
    assert analyze.main([str(copy), "--no-figures", "--rule", "last"]) == 0
    assert content(copy / "analysis")["run"]["rule"] == "last"
    shown = [line for line in capsys.readouterr().out.splitlines() if " note: " not in f" {line}"]
    assert max(len(line.rstrip()) for line in shown if str(tmp_path) not in line) <= 80


def test_two_runs_are_compared_image_by_image(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(runs.plain), str(runs.balanced), "--no-figures", "--out", str(tmp_path)]
    assert analyze.main(words) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["comparison.json", *(run.name for run in (runs.plain, runs.balanced))]
    )
    shown = capsys.readouterr().out
    pair = json.loads((tmp_path / "comparison.json").read_text())["pairs"][0]
    right = [stored(run, "test") for run in (runs.plain, runs.balanced)]
    one, two = (float((logits.argmax(axis=1) == targets).mean()) for logits, targets in right)
    test = pair["ways"]["as_is"]["mcnemar"]
    assert test["accuracy_difference"] == pytest.approx(two - one)
    assert "McNemar's test of it" in shown
    assert "not compared" not in shown
    assert "other answers on" in shown


def with_groups(run: Path, folder: Path, *, images: int) -> dict[str, Any]:
    """The analysis of a copy of a run whose groups have so many images each."""
    shutil.copytree(run, folder)
    for split in ("val", "test"):
        file = folder / "predictions" / f"{split}.val.npz"
        with np.load(file) as arrays:
            kept = dict(arrays)
        np.savez(file, **kept, groups=np.arange(len(kept["targets"])) // images)
    assert analyze.main([str(folder), "--no-figures"]) == 0
    return content(folder / "analysis")


def test_groups_of_one_image_change_nothing(
    analysed: Path, runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, plain = with_groups(runs.plain, tmp_path / "run", images=1), content(analysed)
    assert found["run"].pop("folder") != plain["run"].pop("folder")
    assert found == plain
    shown = capsys.readouterr().out
    assert "over images" in shown and "over groups" not in shown


def test_groups_of_images_change_every_interval_and_no_value(
    analysed: Path, runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, plain = with_groups(runs.plain, tmp_path / "run", images=6), content(analysed)
    assert found["run"]["num_test_groups"] == 8
    one, other = (list(_intervals(section)) for section in (plain, found))
    assert [value for value, _ in one] == pytest.approx([value for value, _ in other])
    # What is the same for every image, as the size of sets that hold all classes, is known.
    ends = [(a, b) for (_, a), (_, b) in zip(one, other, strict=True) if len(set(a)) == len(a)]
    assert len(ends) > 50
    assert not any(a == pytest.approx(b, abs=1e-9) for a, b in ends)
    shown = capsys.readouterr().out
    assert "48 test images in 8 groups" in shown and "over images" not in shown
    assert "intervals and errors are over 8 groups of test images" in shown
    assert "over fewer than 20 groups are too narrow" in shown


def _intervals(found: dict[str, Any]) -> Iterator[tuple[float, list[float]]]:
    """Yield values with what says how sure they are."""
    yield from ((gain[0], gain[1:]) for gain in _gains(found))
    for way in found["calibration"]["ways"].values():
        for kind in ("ece_equal_width", "ece_equal_mass", "ece_classwise"):
            error = way["groups"]["all"][kind]
            yield error["ece"], [error["low"], error["high"]]
    for row in found["test_priors"]["rows"]:
        yield from ((row[way]["value"], [row[way]["error"]]) for way in ("as_is", "known"))
    for way in found["prediction_sets"]["ways"].values():
        every = way["groups"]["all"]
        yield every["coverage"], every["interval"]
        yield every["size"], every["size_interval"]
        yield from ((row["coverage"], row["interval"]) for row in way["classes"])


def _gains(found: dict[str, Any]) -> Iterator[list[float]]:
    yield found["logit_adjustment"]["chosen"]["gain"]["balanced"]
    for row in found["classifiers"].values():
        if "refused" not in row:
            yield row["gain"]["balanced"]


def test_a_page_has_the_analysis_and_names_the_files_of_mistakes(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    groups = tmp_path / "groups.csv"
    lines = [f"class{label},{'ab'[label % 2]}" for label in range(4)]
    groups.write_text("\n".join(["class,superclass", *lines]), encoding="utf-8")
    words = [str(runs.plain), "--no-figures", "--html", "--out", str(tmp_path)]
    assert analyze.main([*words, "--superclasses", str(groups)]) == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert len(page.encode()) < 3_000_000 and "data:image/png" in page
    assert "Other classifiers, chosen on validation: recall on test" in page
    assert "by the strength of logit adjustment" in page
    assert not (runs.plain / "report.html").exists()
    section = content(tmp_path)["confusions"]
    mistakes = section["surest_mistakes"]
    assert mistakes and not any("file" in row for row in mistakes)
    assert ">index<" in page
    assert [row["superclass"] for row in section["superclasses"]] == ["a", "b"]
    logits, targets = stored(runs.plain, "test")
    found = logits.argmax(axis=1)
    share = section["within_superclass"]["balanced"]
    assert share["outside"] == pytest.approx(np.mean(found % 2 != targets % 2))
    assert "Mistakes by superclass" in capsys.readouterr().out


def test_a_table_has_a_line_for_each_method(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*SHORT, *small_words(runs.plain.parents[1])]
    given = {word.partition("=")[0] for word in SHORT}
    words = [*SHORT, *(w for w in words if w.partition("=")[0] not in given)]
    table = {
        "name": "tiny",
        "title": "Tiny",
        "base": words,
        "methods": {"cross_entropy": [], "balanced": ["loss=balanced_softmax"]},
        "settings": {"factor 8": []},
        "seeds": [0, 1],
        "baseline": "cross_entropy",
        "rule": "val",
    }
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(table, sort_keys=False))
    assert analyze.main([str(file), "--out", str(tmp_path), "--html"]) == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Balanced accuracy, points above cross_entropy, as it is" in page and "Cost" in page
    found = content(tmp_path)
    assert (found["planned"], found["finished"]) == (4, 2)
    rows = {row["method"]: row for row in found["settings"][0]["rows"]}
    logits, targets = stored(runs.balanced, "test")
    own = balanced_accuracy_score(targets, logits.argmax(axis=1))
    assert rows["balanced"]["values"]["balanced"]["mean"] == pytest.approx(own)
    plain = rows["cross_entropy"]["values"]["balanced"]["mean"]
    assert rows["balanced"]["difference"]["balanced"]["mean"] == pytest.approx(own - plain)
    assert "2 of 4 runs are finished" in capsys.readouterr().out


def test_the_pages_example_gives_the_numbers_of_the_command(
    analysed: Path, runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = blocks((ROOT / "docs/analysis.md").read_text(encoding="utf-8"), "python")
    exec(example.replace("runs/digits/0123456789ab", str(runs.plain)), {})
    tau, nll, covered = capsys.readouterr().out.splitlines()
    found = content(analysed)
    assert tau == f"tau {found['logit_adjustment']['chosen']['tau']:.2f}"
    scaled = found["calibration"]["ways"]["temperature"]["groups"]["all"]
    assert nll == f"NLL {scaled['nll']:.3f}"
    adjusted = found["prediction_sets"]["ways"]["prevalence-adjusted"]["groups"]["all"]
    assert covered.startswith(f"covered {adjusted['coverage']:.3f}")


# --- differences ----------------------------------------------------------------------------------


def test_every_cause_of_a_difference_is_named(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(runs.balanced, other)
    file = other / "environment.json"
    made = json.loads(file.read_text())
    made["segments"][-1] |= {"code_hash": "0" * 12, "threads": 99, "device": "an older machine"}
    made["segments"][-1]["packages"]["numpy"] = "1.0"
    made["split_fingerprint"] = "another"
    file.write_text(json.dumps(made))
    assert analyze.main(["--diff", str(runs.plain), str(other)]) == 0
    shown = capsys.readouterr().out
    for cause in ("loss.name", "split_fingerprint", "code_hash", "numpy", "threads", "device"):
        assert cause in shown
    assert "balanced accuracy" in shown


def test_a_run_does_not_differ_from_its_copy(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(runs.plain, tmp_path / "copy")
    assert analyze.main(["--diff", str(runs.plain), str(tmp_path / "copy")]) == 0
    assert "nothing that they recorded differs" in capsys.readouterr().out


def test_hashes_of_weights_differ_only_where_both_are_of_one_way(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [Path(shutil.copytree(runs.plain, tmp_path / name)) for name in ("one", "two")]
    twelve, sixteen = "0123456789ab", "0123456789abcdef"
    facts = [
        {"start_weights": twelve, "teacher_weights": twelve, "pretrained_file": twelve},
        {"start_weights": sixteen, "teacher_weights": None, "pretrained_file": None},
    ]
    for folder, theirs in zip(folders, facts, strict=True):
        file = folder / "environment.json"
        made = json.loads(file.read_text())
        file.write_text(json.dumps({**made, "facts": {**made["facts"], **theirs}}))
    assert analyze.main(["--diff", *map(str, folders)]) == 0
    shown = capsys.readouterr().out
    assert "teacher_weights" in shown and "pretrained_file" in shown
    assert "start_weights" not in shown


# --- mistakes -------------------------------------------------------------------------------------


def refused(capsys: pytest.CaptureFixture[str], *words: str | Path) -> list[str]:
    assert analyze.main([str(word) for word in words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


def test_each_mistake_in_the_command_is_one_line(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "table.yaml").write_text("name: table\n")
    for words, said in {
        (): "expected a run folder or a table",
        ("nowhere",): "nowhere: no such folder",
        (runs.plain.parent,): "no run folder, which has a config.yaml; the runs in it are folders",
        (runs.plain, "--rul", "val"): "--rul: unknown option (did you mean --rule?)",
        (runs.plain, "--rule", "vall"): "expected one of last | val",
        (runs.plain, "--alpha", "1e-9"): "--alpha 1e-09: expected a number from 0.001 to 0.5",
        (runs.plain, "--alpha", "0.9999999999"): "expected a number from 0.001 to 0.5",
        (runs.plain, "--alpha", "nan"): "--alpha nan: expected a number from 0.001 to 0.5",
        (runs.unvalidated, "--alpha", "0.2"): "--alpha 0.2: has no effect: prediction sets need",
        (runs.plain, runs.plain): "named twice",
        ("--diff", runs.plain): "--diff: expected two run folders, not 1",
        (tmp_path / "none.yaml",): "no such file",
        (tmp_path / "table.yaml", "--html"): "--html: with a table needs --out FOLDER",
        (runs.plain, "--superclasses", "none.csv"): "--superclasses none.csv: no such file",
        ("--diff", runs.plain, runs.balanced, "--html"): "--html: has no effect with --diff",
        (tmp_path / "table.yaml", "--rule", "val"): "--rule val: has no effect on a table",
    }.items():
        lines = refused(capsys, *words)
        assert len(lines) == 1 and said in lines[0], (words, lines)


def test_a_run_that_cannot_be_read_is_one_line_and_leaves_nothing(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(runs.plain, copy)
    (copy / "predictions" / "test.val.npz").write_bytes(b"PK")
    (line,) = refused(capsys, copy)
    assert "test.val.npz: is damaged" in line
    (copy / "predictions" / "test.val.npz").unlink()
    (line,) = refused(capsys, copy)
    assert "test.val.npz: is missing" in line
    (copy / "summary.json").unlink()
    (line,) = refused(capsys, copy)
    assert "is not finished" in line
    assert not (copy / "analysis").exists()


def test_a_rule_that_the_run_does_not_have_is_refused(
    runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    (line,) = refused(capsys, runs.unvalidated, "--rule", "val")
    assert "has no such rule" in line and "it has last" in line


def test_help_names_every_option_and_needs_no_heavy_import() -> None:
    code = (
        "import sys, analyze; code = analyze.main(['--help']);"
        "heavy = {'torch', 'numpy', 'sklearn', 'matplotlib', 'scipy', 'rich', 'wandb'};"
        "sys.exit(code or ', '.join(sorted(heavy & set(sys.modules))) or None)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == USAGE
    given = {"--rule", "--alpha", "--out", "--superclasses", "--html", "--no-figures", "--diff"}
    assert given | {"--help"} == set(OPTIONS)


def test_a_run_is_analyzed_without_torch(runs: Runs, tmp_path: Path) -> None:
    code = (
        "import sys, analyze; code = analyze.main(sys.argv[1:]);"
        "sys.exit(code or ('torch is imported' if 'torch' in sys.modules else None))"
    )
    words = [str(runs.plain), "--no-figures", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("loss", ["ldam", "binary_cross_entropy", "gaussian_clouded", "seesaw"])
def test_any_loss_reads_its_own_probabilities(loss: str) -> None:
    head = "cosine" if loss in ("ldam", "gaussian_clouded") else "linear"
    config = load(overrides=[f"loss={loss}", f"model.head={head}"])
    facts = {"num_outputs": 3, "class_counts": [9, 4, 2], "taught_classes": []}
    logits = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    keys = component_keys(config.loss)
    own = losses.build(loss, keys, class_counts=facts["class_counts"])
    expected = own.predict(torch.from_numpy(logits).double()).log().numpy()
    assert np.allclose(readout_of(config, facts)(logits), expected, atol=1e-12)
