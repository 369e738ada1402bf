"""predict.py --evaluate: the run's own numbers on its own test images, and others on others."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, log_loss

import predict
from engine.training.trained import load_run
from tests._runs import summary_of
from tests.data._files import write_image
from tests.prediction._trained import COUNTS, own_probabilities, run_of, trained

NAMES = ("cat", "dog", "emu")


def evaluated(root: Path, out: Path, *words: str | Path) -> dict[str, Any]:
    """Evaluate into a JSON file, which must succeed, and return what it holds."""
    path = out / "scores.json"
    command = [str(run_of(root)), *map(str, words), "--evaluate", "--json", str(path)]
    assert predict.main(command) == 0
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def mistakes(capsys: pytest.CaptureFixture[str], *words: str | Path) -> list[str]:
    """What a command is told that must be refused."""
    assert predict.main([str(word) for word in words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


@pytest.fixture
def copied(photos: Path, tmp_path: Path) -> Path:
    """A copy of the test images, to be changed."""
    return Path(shutil.copytree(photos / "pets" / "test", tmp_path / "copied"))


# --- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["last", "val"])
def test_the_test_folder_of_a_run_gets_the_numbers_of_its_summary(
    photos: Path, tmp_path: Path, rule: str
) -> None:
    found = evaluated(photos, tmp_path, photos / "pets" / "test", "--rule", rule)
    own = summary_of(run_of(photos))
    assert found["metrics"] == pytest.approx(own["rules"][rule]["test"], abs=1e-6)
    assert found["classes"] == own["rules"][rule]["classes"]
    assert found["group_sizes"] == own["group_sizes"]
    assert (found["rule"], found["epoch"]) == (rule, own["rules"][rule]["epoch"])
    assert (found["num_images"], found["remarks"]) == (10, [])


def test_sets_are_evaluated_on_the_screen_with_what_they_promise(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = str(photos / "pets" / "test")
    assert predict.main([str(run_of(photos)), images, "--evaluate", "--sets", "marginal"]) == 0
    said = capsys.readouterr().out
    assert "marginal sets for 90 %, from" in said
    assert re.search(r"marginal sets: [\d.]+% hold the true class, [\d.]+ classes each", said)


def test_the_numbers_are_those_that_scikit_learn_makes_of_the_runs_logits(
    photos: Path, tmp_path: Path
) -> None:
    found = evaluated(photos, tmp_path, photos / "pets" / "test", "--rule", "val")
    own = own_probabilities(run_of(photos), rule="val")
    targets = np.repeat([0, 1, 2], list(COUNTS["test"].values()))
    answers = own.argmax(1)
    assert found["confusion"] == confusion_matrix(targets, answers, labels=[0, 1, 2]).tolist()
    expected = balanced_accuracy_score(targets, answers)
    assert found["metrics"]["balanced_accuracy"] == pytest.approx(expected)
    assert found["metrics"]["nll"] == pytest.approx(log_loss(targets, own), abs=1e-6)


def test_groups_go_by_the_images_that_the_run_was_trained_on(photos: Path, copied: Path) -> None:
    for number in range(30):
        write_image(copied / "cat" / f"more{number}.png", seed=number, width=9, height=6)
    found = evaluated(photos, copied.parent, copied)
    assert found["group_sizes"] == {"many": 0, "medium": 0, "few": 3}
    assert [(c["train_images"], c["support"]) for c in found["classes"]] == [
        (9, 34),
        (6, 3),
        (4, 3),
    ]


def test_a_list_of_files_is_as_good_as_their_folders(photos: Path, tmp_path: Path) -> None:
    folder = photos / "pets" / "test"
    lines = [f"{path},{path.parent.name}" for path in sorted(folder.glob("*/*.png"))]
    listed = tmp_path / "images.csv"
    listed.write_text("\n".join(["file,class", *lines]), encoding="utf-8")
    first, second = (evaluated(photos, tmp_path, source) for source in (folder, listed))
    assert first.pop("source") == [str(folder)]
    assert second.pop("source") == [str(listed)]
    assert first == second


def test_paths_in_a_list_start_from_its_folder(photos: Path, copied: Path) -> None:
    listed = copied / "images.csv"
    listed.write_text("class,file\ncat,cat/000.png\ndog,dog/001.png\n", encoding="utf-8")
    found = evaluated(photos, copied.parent, listed)
    assert [c["support"] for c in found["classes"]] == [1, 1, 0]


def test_the_csv_has_the_true_class_beside_the_answer(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    words = [str(run_of(photos)), str(photos / "pets" / "test"), "--evaluate", "--csv", str(out)]
    assert predict.main(words) == 0
    with out.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == ["file", "class", "predicted", "probability", *NAMES]
    assert [line["class"] for line in lines] == [Path(line["file"]).parent.name for line in lines]
    found = [[float(line[name]) for name in NAMES] for line in lines]
    own = own_probabilities(run_of(photos), rule="val")
    assert np.allclose(found, own, rtol=0, atol=1e-6)


def test_every_class_but_the_wanted_one_is_the_rest_of_a_run_of_one_against_all(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_ROOT", str(photos / "data"))
    words = ("data=image_folder", f"data.path={photos / 'pets'}", "data.size=8")
    run = trained(tmp_path, *words, "data.one_vs_rest=dog", "loss=sigmoid_focal")
    found = evaluated(tmp_path, tmp_path, photos / "pets" / "test")
    own = summary_of(run)["rules"]["val"]
    assert [c["support"] for c in found["classes"]] == [7, 3]
    assert found["classes"] == own["classes"]
    assert found["metrics"].keys() == own["test"].keys()
    for name in ("nll", "f1_at_threshold"):
        assert found["metrics"][name] == pytest.approx(own["test"][name], abs=1e-6)
    assert found["remarks"] == ["counted as rest: cat, emu"]


# --- what is said ---------------------------------------------------------------------------------


def test_the_screen_names_weights_images_and_every_number(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(photos)
    assert predict.main([str(run), str(photos / "pets" / "test"), "--evaluate"]) == 0
    printed = capsys.readouterr().out
    epoch = load_run(run).epoch
    assert printed.splitlines()[0] == (
        f"{run}: 10 images of 3 classes, rule val, weights after epoch {epoch} of 2"
    )
    own = summary_of(run)["rules"]["val"]["test"]
    for heading, name in (("balanced accuracy", "balanced_accuracy"), ("NLL", "nll")):
        (line,) = [x for x in printed.splitlines() if x.strip().startswith(heading)]
        assert line.split()[-1] == f"{own[name]:.3f}"
    assert "few (3 classes)" in printed and "ECE" in printed
    assert "true class, predicted:" in printed


def test_missing_and_unknown_classes_and_stray_files_are_said_and_left_out(
    photos: Path, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(copied / "emu")
    write_image(copied / "dogs" / "000.png", seed=1, width=9, height=6)
    (copied / "cat" / "notes.txt").touch()
    (copied / "README").touch()
    found = evaluated(photos, copied.parent, copied)
    assert [c["support"] for c in found["classes"]] == [4, 3, 0]
    assert found["remarks"] == [
        "no images of 1 class of the run: emu; means over classes leave them out",
        "left out: 1 image of what is no class of the run: dogs (did you mean dog?)",
        "left out: 2 files in no class folder, or no image by its name",
    ]
    printed = capsys.readouterr().out
    assert all(f"note: {remark}" in printed for remark in found["remarks"])


def test_an_image_that_cannot_be_read_is_named_and_the_numbers_are_of_the_others(
    photos: Path, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (copied / "cat" / "000.png").write_bytes(b"no image")
    out = copied.parent / "scores.json"
    words = [str(run_of(photos)), str(copied), "--evaluate", "--json", str(out)]
    assert predict.main(words) == 1
    assert "000.png cannot be read as an image" in capsys.readouterr().err
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["num_images"] == 9
    assert found["remarks"] == ["left out: 1 of 10 files, which are no images"]


def test_nothing_in_the_run_folder_is_changed(photos: Path, tmp_path: Path) -> None:
    def state() -> dict[Path, tuple[int, int]]:
        files = list(run_of(photos).rglob("*"))
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in files}

    before = state()
    evaluated(photos, tmp_path, photos / "pets" / "test")
    assert state() == before


# --- mistakes -------------------------------------------------------------------------------------


def test_a_folder_above_the_class_folders_names_the_one_that_holds_them(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pets = photos / "pets"
    (line,) = mistakes(capsys, run_of(photos), pets, "--evaluate")
    assert line == (
        f"{pets}: no folder in it is called like a class of the run (cat, dog, emu); it has test, "
        f"train, val; name {pets / 'test'}"
    )


def test_a_folder_without_any_class_of_the_run_is_refused(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_image(tmp_path / "images" / "000.png")
    (line,) = mistakes(capsys, run_of(photos), tmp_path / "images", "--evaluate")
    assert line.endswith("a class of the run (cat, dog, emu); it has no folders")
    (tmp_path / "images" / "cats").mkdir()
    (line,) = mistakes(capsys, run_of(photos), tmp_path / "images", "--evaluate")
    assert line.endswith("it has cats (did you mean cat?)")
    (tmp_path / "images" / "cats").rename(tmp_path / "images" / "cat")
    (line,) = mistakes(capsys, run_of(photos), tmp_path / "images", "--evaluate")
    assert line.startswith("nothing to evaluate: no image of a class of the run (cat, dog, emu)")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "expected the columns file and class: no file"),
        ("path,class\na.png,cat\n", "no file; its first line has path, class"),
        ("file,class\na.png,\n", ":2: names no file or no class"),
        ("file,class\na.png,cat\na.png,dog\n", "a.png: is listed with two classes; keep one"),
        ("file,class\na.png,fox\n", "nothing to evaluate: no image of a class of the run"),
    ],
)
def test_a_list_that_cannot_be_used_is_one_line(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    listed = tmp_path / "images.csv"
    listed.write_text(text, encoding="utf-8")
    (line,) = mistakes(capsys, run_of(photos), listed, "--evaluate")
    assert says in line


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--evaluate", "--top", "2"], "--top 2: has no effect with --evaluate"),
        (["--json", "x.json"], "--json x.json: has no effect without --evaluate"),
        (["--evaluate", "--json", "x.csv"], "--json x.csv: expected a file that ends in .json"),
        (["--evalute"], "--evalute: unknown option (did you mean --evaluate?)"),
    ],
)
def test_options_without_effect_are_mistakes(
    photos: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    assert mistakes(capsys, run_of(photos), photos / "pets" / "test", *words) == [says]


def test_a_single_image_and_a_place_in_the_run_folder_are_refused(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, inside = photos / "pets/test/cat/000.png", run_of(photos) / "scores.json"
    lines = mistakes(capsys, run_of(photos), image, "--evaluate", "--json", inside)
    assert lines[0].startswith(f"{image}: with --evaluate expected a folder of class folders, or a")
    assert lines[1] == (
        f"--json {inside}: is in the run folder, which stays as it is; name another place"
    )
