"""predict.py on real trained runs: the answers are the run's own, and every mistake is one line."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import predict
from data.digits import Digits
from engine.config.components import ROOT
from engine.config.load import load, load_run_config
from engine.config.mistakes import ConfigError
from engine.prediction.answers import Answers
from engine.prediction.command_line import OPTIONS, USAGE
from engine.prediction.image_files import find
from engine.training.setup import load_dataset
from engine.training.trained import load_run
from tests._full_disk import full_at
from tests.data._files import write_folder
from tests.data._natural_sets import write_infrared
from tests.prediction._trained import COUNTS, own_probabilities, run_of, trained


def predicted(root: Path, *words: str | Path) -> list[dict[str, str]]:
    """Predict into a CSV, which must succeed, and return its lines."""
    out = root / "out.csv"
    assert predict.main([str(run_of(root)), *map(str, words), "--csv", str(out)]) == 0
    with out.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# --- answers --------------------------------------------------------------------------------------


def test_files_of_a_set_that_reads_them_in_its_own_way_get_the_runs_own_test_predictions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_infrared(tmp_path)
    monkeypatch.setenv("DATA_ROOT", str(tmp_path))
    words = ("data=infrared_solar", "data.size=16", "schedule.epochs=1", "optim.batch_size=4")
    run = trained(tmp_path, *words, "data.validation.fraction=null")
    test = load_dataset(load_run_config(run)).test
    names = [test.name(k) for k in test.index.argsort()]
    lines = predicted(tmp_path, *(folder / name for name in names))
    found = [[float(line[label]) for label in load_run(run).class_names] for line in lines]
    assert np.allclose(found, own_probabilities(run, rule="last"), rtol=0, atol=1e-6)


@pytest.mark.parametrize("rule", ["last", "val"])
@pytest.mark.parametrize("batch_size", ["3", "256"])
def test_images_of_the_test_folder_get_the_runs_own_test_predictions(
    photos: Path, rule: str, batch_size: str
) -> None:
    words = ("--rule", rule, "--batch-size", batch_size)
    lines = predicted(photos, photos / "pets" / "test", *words)
    found = [[float(line[name]) for name in ("cat", "dog", "emu")] for line in lines]
    own = own_probabilities(run_of(photos), rule=rule)
    assert np.allclose(found, own, rtol=0, atol=1e-6)
    assert [line["predicted"] for line in lines] == [
        ("cat", "dog", "emu")[label] for label in own.argmax(1)
    ]
    assert [float(line["probability"]) for line in lines] == [max(row) for row in found]
    assert [line["file"] for line in lines] == [
        str(path) for path in sorted((photos / "pets" / "test").glob("*/*"))
    ]


def test_scans_of_twelve_bits_are_predicted_with_the_bits_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "data"))
    folder = write_folder(tmp_path / "scans", COUNTS)
    for number, path in enumerate(sorted(folder.glob("*/*/*.png"))):
        values = np.random.default_rng(number).integers(0, 4096, (8, 8))
        Image.fromarray(values.astype(np.uint16)).save(path)
    trained(tmp_path, "data=image_folder", f"data.path={folder}", "data.grey_bits=12")
    lines = predicted(tmp_path, folder / "test", "--rule", "last")
    found = [[float(line[name]) for name in ("cat", "dog", "emu")] for line in lines]
    assert np.allclose(found, own_probabilities(run_of(tmp_path), rule="last"), rtol=0, atol=1e-6)


def test_the_two_rules_are_two_models(photos: Path) -> None:
    last, val = (own_probabilities(run_of(photos), rule=rule) for rule in ("last", "val"))
    assert not np.allclose(last, val, rtol=0, atol=1e-3)


def test_greyscale_files_of_digits_get_the_runs_own_test_predictions(digits: Path) -> None:
    lines = predicted(digits, digits / "images", "--rule", "val")
    found = np.array([[float(v) for v in list(line.values())[3:]] for line in lines])
    own = own_probabilities(run_of(digits), rule="val")[::10]
    assert np.allclose(found, own, rtol=0, atol=1e-6)
    assert list(lines[0])[:5] == ["file", "predicted", "probability", "zero", "one"]


def test_a_greyscale_image_stored_as_rgb_is_the_same_image(digits: Path, tmp_path: Path) -> None:
    grey = digits / "images" / "010.png"
    Image.open(grey).convert("RGB").save(tmp_path / "colours.png")
    first, second = predicted(digits, grey, tmp_path / "colours.png")
    assert list(first.values())[1:] == list(second.values())[1:]


def test_a_model_of_one_output_has_the_probability_of_both_classes(
    digits: Path, tmp_path: Path
) -> None:
    run = trained(tmp_path, "data=digits", "data.one_vs_rest=three", "loss=sigmoid_focal")
    out = tmp_path / "out.csv"
    assert predict.main([str(run), str(digits / "images"), "--csv", str(out)]) == 0
    found = np.loadtxt(out, delimiter=",", skiprows=1, usecols=(3, 4))
    own = own_probabilities(run, rule="val")[::10]
    assert np.allclose(found, own, rtol=0, atol=1e-6)


def test_logit_adjustment_of_the_run_is_part_of_its_predictions(
    digits: Path, tmp_path: Path
) -> None:
    from engine.prediction.model import load_run

    run = trained(tmp_path, "data=digits", "evaluate.logit_adjustment=1")
    out = tmp_path / "out.csv"
    assert predict.main([str(run), str(digits / "images"), "--csv", str(out)]) == 0
    found = np.loadtxt(out, delimiter=",", skiprows=1, usecols=range(3, 13))
    images = Digits().load().test.images[::10]
    assert np.allclose(found, load_run(run).predict(images).numpy(), rtol=0, atol=1e-5)
    assert not np.allclose(found, own_probabilities(run, rule="val")[::10], atol=1e-2)


def test_tau_adjusts_by_the_training_images_after_training(digits: Path) -> None:
    run = run_of(digits)
    lines = predicted(digits, digits / "images", "--rule", "last", "--tau", "1.5")
    found = np.array([[float(v) for v in list(line.values())[3:]] for line in lines])
    counts = np.array(json.loads((run / "environment.json").read_text())["facts"]["class_counts"])
    adjusted = own_probabilities(run, rule="last")[::10] / (counts / counts.sum()) ** 1.5
    expected = adjusted / adjusted.sum(axis=1, keepdims=True)
    assert np.allclose(found, expected, rtol=0, atol=1e-6)


def test_tau_is_refused_where_the_loss_fits_a_uniform_prior_already(digits: Path) -> None:
    from engine.prediction import model
    from engine.prediction.model import load_run, read_facts

    run, balanced = run_of(digits), load(overrides=["loss=balanced_softmax"])
    loaded = replace(load_run(run), config=balanced)
    with pytest.raises(ConfigError, match="--tau 1: adjusts twice, balanced_softmax already fits"):
        model._adjusted(loaded, read_facts(run), tau=1.0)


def test_features_are_those_before_the_head(digits: Path) -> None:
    from engine.prediction.model import load_run

    out = digits / "features.npz"
    predicted(digits, digits / "images", "--features", out, "--batch-size", "32")
    stored, run = np.load(out), load_run(run_of(digits))
    images = Digits().load().test.images[::10].float() / 255
    with torch.no_grad():
        expected = run.model((images - run.mean[0]) / run.std[0]).features.numpy()
    assert np.allclose(stored["features"], expected, rtol=0, atol=1e-5)
    assert stored["files"].tolist() == [str(p) for p in sorted((digits / "images").iterdir())]
    assert tuple(stored["class_names"]) == run.class_names
    assert stored["probabilities"].shape == (50, 10)


# --- what is shown --------------------------------------------------------------------------------


def test_the_table_names_the_epoch_and_the_most_probable_classes_first(
    digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = digits / "images" / "000.png"
    assert predict.main([str(run_of(digits)), str(image), "--top", "2"]) == 0
    printed = capsys.readouterr().out
    assert "weights after epoch " in printed and "000.png" in printed
    own = own_probabilities(run_of(digits), rule="val")[0]
    names = Digits().load().class_names
    first, second = np.argsort(-own)[:2]
    line = next(line for line in printed.splitlines() if "000.png" in line)
    assert line.split()[1:] == [
        names[first],
        f"{own[first]:.3f}",
        names[second],
        f"{own[second]:.3f}",
    ]


def test_beside_a_csv_the_table_ends_after_twenty_images(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.csv"
    predict.main([str(run_of(digits)), str(digits / "images"), "--csv", str(out)])
    printed = capsys.readouterr().out
    assert printed.count(".png") == predict.SHOWN
    assert f"and 30 more, all in {out}" in printed


def test_names_with_commas_quotes_and_line_breaks_stay_one_cell(tmp_path: Path) -> None:
    name = 'a "b",\nc.png'
    answers = Answers([Path(name)], np.array([[0.25, 0.75]]), ["x, y", "z"])
    (line,) = csv.DictReader(answers.csv().splitlines(keepends=True))
    assert line == {
        "file": name,
        "predicted": "z",
        "probability": "0.75",
        "x, y": "0.25",
        "z": "0.75",
    }


# --- which files ----------------------------------------------------------------------------------


def test_a_folder_gives_its_image_files_at_any_depth_and_a_named_file_is_always_taken(
    tmp_path: Path,
) -> None:
    for name in ("b.png", "a/c.JPG", "a/.hidden.png", ".git/d.png", "notes.txt", "odd"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find([tmp_path, tmp_path / "odd", tmp_path / "b.png"])
    assert found.files == (tmp_path / "a/c.JPG", tmp_path / "b.png", tmp_path / "odd")
    assert found.num_others == 2


def test_a_link_to_the_folder_above_is_not_followed_for_ever(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.png").touch()
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert find([tmp_path]).files == (tmp_path / "a" / "b.png",)


def test_images_behind_a_link_are_found_as_training_finds_them(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "b.png").touch()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat").symlink_to(tmp_path / "store")
    assert find([tmp_path / "photos"]).files == (tmp_path / "photos" / "cat" / "b.png",)


@pytest.mark.parametrize("spelled", ["list.csv", "./list.csv"])
def test_a_list_to_predict_is_not_written_over(
    digits: Path,
    tmp_path: Path,
    spelled: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("list.csv").write_text("file,notes\na.png,mine\n")
    assert predict.main([str(run_of(digits)), "list.csv", "--csv", spelled]) == 2
    assert "is what to predict, and would be lost; name another file" in capsys.readouterr().err
    assert "mine" in Path("list.csv").read_text()


def test_sets_hold_the_classes_above_the_thresholds_of_validation(
    digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(digits)
    stored = np.load(run / "predictions" / "val.val.npz")
    shares = torch.from_numpy(stored["logits"]).double().softmax(dim=1).numpy()
    words = ("--sets", "class-conditional", "--alpha", "0.2")
    lines = predicted(digits, digits / "images", *words)
    names = load_run(run).class_names
    limits = []
    for label in range(len(names)):
        own = np.sort(shares[stored["targets"] == label, label])
        # The 17th largest of 20: floor(0.2 x 21) = 4 may be missed.
        rank = len(own) - int(np.ceil((len(own) + 1) * 0.8))
        limits.append(own[rank] if rank >= 0 else 0.0)
    for line in lines:
        least = dict(zip(names, limits, strict=True))
        inside = {name for name in names if float(line[name]) >= least[name] - 1e-8}
        assert set(line["set"].split("|")) - {""} == inside
    said = capsys.readouterr().out
    assert "class-conditional sets for 80 %, from 200 validation images" in said
    assert "not exactly: they chose the epoch as well" in said


def test_validation_images_that_chose_nothing_make_exact_sets(
    digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predicted(digits, digits / "images", "--sets", "marginal", "--rule", "last")
    said = capsys.readouterr().out
    assert "marginal sets for 90 %" in said and "exactly" not in said


@pytest.mark.parametrize("name", ["list.txt", "list.csv"])
def test_a_list_names_files_from_its_own_folder(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    images = [digits / "images" / "000.png", digits / "images" / "010.png"]
    (tmp_path / "~near.png").write_bytes(images[1].read_bytes())
    heading = "note,file\n" if name.endswith("csv") else ""
    before = "x," if heading else ""
    rows = [f"{before}{file}" for file in (images[0], "~near.png", "gone.png")]
    (tmp_path / name).write_text(heading + "\n".join(rows) + "\n\n", encoding="utf-8")
    out = tmp_path / "out.csv"
    assert predict.main([str(run_of(digits)), str(tmp_path / name), "--out", str(out)]) == 1
    assert str(tmp_path / "gone.png") in capsys.readouterr().err
    found = [line.split(",")[0] for line in out.read_text().splitlines()[1:]]
    assert found == [str(images[0]), str(tmp_path / "~near.png")]


def test_a_list_without_the_column_is_named(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path\na.png\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"list\.csv: expected a first line with the column file"):
        find([tmp_path / "list.csv"])


# --- mistakes -------------------------------------------------------------------------------------


def test_bad_images_are_one_line_each_and_the_others_are_predicted(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = tmp_path / "good.png"
    good.write_bytes((digits / "images" / "000.png").read_bytes())
    (tmp_path / "broken.png").write_bytes(good.read_bytes()[:40])
    Image.new("L", (9, 8)).save(tmp_path / "wide.png")
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    (tmp_path / "notes.txt").touch()
    out = tmp_path / "out.csv"
    code = predict.main(
        [str(run_of(digits)), str(tmp_path), "--csv", str(out), "--batch-size", "2"]
    )
    assert code == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "left out, not image files by name: 1"
    assert lines[1].startswith(f"{tmp_path / 'broken.png'} cannot be read as an image")
    assert lines[2] == (
        f"{tmp_path / 'red.png'} is in colour and this run takes greyscale: convert it"
    )
    assert lines[3] == (f"{tmp_path / 'wide.png'} is 9x8 pixels and this run takes 8x8: resize it")
    assert lines[4:] == ["not predicted: 3 of 4 files"]
    assert [line.split(",")[0] for line in out.read_text().splitlines()[1:]] == [str(good)]


def test_without_a_single_good_image_no_csv_is_written(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").touch()
    out = tmp_path / "out.csv"
    words = [str(run_of(digits)), str(tmp_path / "broken.png"), "--csv", str(out)]
    assert predict.main(words) == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["{run}"], "expected images after the run folder {run}"),
        (["{run}", "{images}", "--alpha", "0.2"], "--alpha 0.2: has no effect without --sets"),
        (["{run}", "{images}", "--sets", "marginl"], "(did you mean marginal?)"),
        (["{run}", "{images}", "--sets", "marginal", "--alpha", "7"], "--alpha 7: expected a"),
        (["{run}", "nowhere"], "nowhere: no such file or folder"),
        (["{run}", "{empty}"], "{empty}: no image files there"),
        (["nowhere", "{images}"], "nowhere: no such run folder"),
        (["{images}", "{images}"], "{images}: is not a run folder: it has no config.yaml"),
        (["{runs}", "{images}"], "{runs}: is not a run folder; it holds {run}: name one"),
        (["{run}", "{images}", "--rule=best"], "--rule best: expected one of last | val | val_nll"),
        (["{run}", "{images}", "--device=cdua"], "(did you mean cuda?)"),
        (["{run}", "{images}", "--top=0"], "--top 0: expected a whole number >= 1"),
        (["{run}", "{images}", "--batch-size=0"], "--batch-size 0: expected a whole number >= 1"),
        (["{run}", "{images}", "--csv=x.txt"], "--csv x.txt: expected a file that ends in .csv"),
        (["{run}", "{images}", "--csv=no/x.csv"], "expected a file in a folder that is there"),
        (["{run}", "{images}", "--tau=-1"], "--tau -1: expected a number >= 0"),
        (["{run}", "{images}", "--features=x.npy"], "expected a file that ends in .npz"),
        (["{run}", "--export=x.pth"], "--export x.pth: expected a file that ends in .pt2 or .onnx"),
        (
            ["{run}", "{images}", "--export=x.pt2"],
            "{images}: no images are predicted with --export",
        ),
        (["{run}", "--export=x.pt2", "--top=2"], "--top 2: has no effect with --export"),
        (
            ["{run}", "--export=x.pt2", "--device=auto"],
            "--device auto: has no effect with --export",
        ),
        (
            ["{run}", "--export=x.pt2", "--batch-size=8"],
            "--batch-size 8: has no effect with --export",
        ),
        (["{run}", "{images}", "--roule", "val"], "--roule: unknown option (did you mean --rule?)"),
        ([], "expected a run folder and images, as in: python predict.py runs/digits/... images"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    digits: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    expected: str,
) -> None:
    run = run_of(digits)
    (tmp_path / "empty").mkdir()
    places = {
        "run": run,
        "runs": run.parent,
        "images": digits / "images",
        "empty": tmp_path / "empty",
    }
    assert predict.main([word.format(**places) for word in words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert expected.format(**places) in line


@pytest.mark.parametrize("option", ["--csv=out.csv", "--features=out.npz"])
def test_answers_that_cannot_be_written_are_one_line(
    digits: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path(option.partition("=")[2])
    full_at(file)
    assert predict.main([str(run_of(digits)), str(digits / "images"), option]) == 1
    assert capsys.readouterr().err == f"{file}: cannot be written: No space left on device\n"
    assert list(tmp_path.iterdir()) == []


def test_help_names_every_option_and_neither_it_nor_a_typo_imports_torch() -> None:
    script = "import sys, predict\ncode = predict.main(sys.argv[1:])\n"
    script += "heavy = {'torch', 'numpy', 'PIL', 'rich'} & set(sys.modules)\n"
    script += "sys.exit(f'imported {heavy}' if heavy else code)"
    for words, code in (["--help"], 0), (["--hlep"], 2):
        done = subprocess.run(
            [sys.executable, "-c", script, *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
    assert set(OPTIONS) == {
        "--csv",
        "--out",
        "--features",
        "--tau",
        "--export",
        "--evaluate",
        "--json",
        "--rule",
        "--sets",
        "--alpha",
        "--top",
        "--batch-size",
        "--device",
        "--help",
    }
    assert all(len(line) <= 100 for line in USAGE.splitlines())
