"""The page of a run: what it says, that it needs nothing beside it, and that names stay inert."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import analyze
import train
from data import Split
from data.synthetic import Synthetic
from engine.config.load import load
from engine.report.page import charts, html, page_of, write_page
from engine.report.page.__main__ import main
from engine.report.page.content import PAIRS
from engine.report.reading import predictions, read_run
from engine.training.metrics.calibration import reliability
from engine.training.run_folder import RunFolder
from tests._runs import folder_of, quiet_screen, small_run
from tests.data._files import write_folder
from tests.report._tables import write_study

LIMITS = ("evaluate.many_above=30", "evaluate.few_below=11")
WORDS = ("model=cifar_resnet8", "schedule.epochs=2", "track.report=true", "seed=3", *LIMITS)
QUIET = ("track.wandb=disabled", "track.figures=false")
STYLE = Path(charts.__file__).with_name("templates") / "style.css"
VOID = ("meta", "input", "img", "br", "line", "path", "rect", "circle")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("page")
    small_run(root, *WORDS, command=["train.py", "seed=3", "track.name='a b'"])
    return folder_of(root, *WORDS)


class Parsed(HTMLParser):
    """Tags with their attributes, and the text between them; every tag must be closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def renamed(run: Path, folder: Path, names: Sequence[str]) -> Path:
    """A copy of a run with as many classes as names, each with one test image of its own."""
    shutil.copytree(run, folder)
    num = len(names)
    for file in ("summary.json", "environment.json"):
        content = json.loads((folder / file).read_text(encoding="utf-8"))
        if file == "summary.json":
            for result in content["rules"].values():
                first = result["classes"][0]
                groups = [(300, "many"), (50, "medium"), (5, "few")]
                result["classes"] = [
                    {**first, "label": k, "name": name, "train_images": n, "group": group}
                    for k, name in enumerate(names)
                    for n, group in [groups[k % 3]]
                ]
        else:
            content["facts"] |= {"class_names": list(names), "class_counts": [1] * num}
            content["facts"] |= {"num_outputs": num, "predicted_classes": list(range(num))}
        (folder / file).write_text(json.dumps(content), encoding="utf-8")
    logits = np.eye(num, dtype=np.float32)[::-1] * 9
    arrays = {"logits": logits, "targets": np.arange(num), "index": np.arange(num)}
    np.savez(folder / "predictions" / "test.val.npz", **arrays)
    return folder


def test_a_run_that_is_asked_to_writes_its_page_and_it_says_what_made_the_numbers(
    run: Path,
) -> None:
    page = Parsed((run / "report.html").read_text(encoding="utf-8"))
    text = " ".join(" ".join(page.texts).split())
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    for result in summary["rules"].values():
        assert f"{result['test']['macro_f1']:.4f}" in text
        assert f"epoch {result['epoch']}" in text
    for said in (summary["selection"], summary["split_fingerprint"], summary["code_hash"]):
        assert said in text
    assert "python train.py seed=3 'track.name='\"'\"'a b'\"'\"''" in text
    assert "data.num_classes=4" in text and "3; of the training subset 0" in text
    assert re.search(r"[0-9.]+ s of training in 2 epochs", text)
    assert "by training images: many > 30, medium 11 to 30, few < 11" in text
    assert {"Loss", "Accuracy", "Learning rate", "Recall by training images"} <= set(page.texts)


def test_a_page_says_what_the_data_are_and_what_their_test_split_can_show(run: Path) -> None:
    from scipy.stats import binomtest

    page = Parsed((run / "report.html").read_text(encoding="utf-8"))
    counts = [c.train_images for c in read_run(run).summary.result.classes]
    said = predictions(run)
    text = " ".join(" ".join(page.texts).split())
    assert f"factor {max(counts) / min(counts):.4g}, Gini " in text
    pairs = np.abs(np.subtract.outer(counts, counts)).mean() / (2 * np.mean(counts))
    assert f"Gini {pairs:.3f};" in text
    assert "repeats none" in text
    num = int((said.targets == 0).sum())
    low, high = binomtest(num // 2, num).proportion_ci(method="wilson")
    val = int((predictions(run, split="val").targets == 0).sum())
    row = f"{said.class_names[0]} many {counts[0]} {val} {num} {50 * (high - low):.1f}"
    assert row in text


def test_a_page_made_without_the_data_says_that_nobody_looked_for_repeats(run: Path) -> None:
    assert "not looked for here" in html(page_of(read_run(run)))


def test_a_page_is_one_file_that_runs_its_own_script_alone(run: Path) -> None:
    content = (run / "report.html").read_text(encoding="utf-8")
    page = Parsed(content)
    assert len(content.encode()) < 3_000_000
    assert re.findall(r"(?:https?:)?//[a-z]", content) == []
    assert page.named("link") == [] and all("src" not in tag for tag in page.named("script"))
    assert all(str(tag["src"]).startswith("data:image/") for tag in page.named("img"))
    (script,) = re.findall(r"<script>(.*?)</script>", content, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [tag["content"] for tag in page.named("meta") if "http-equiv" in tag]
    assert policy is not None and policy.startswith("default-src 'none'")
    assert f"script-src 'sha256-{digest}'" in policy


def test_markup_in_a_name_is_text_and_nothing_else(run: Path, tmp_path: Path) -> None:
    names = ["<img src=x onerror=alert(1)>", '"><script>alert(2)</script>', "' onclick='x", "a&b"]
    folder = renamed(run, tmp_path / "run", names)
    labels = torch.arange(4)
    test = Split(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), labels, labels)
    page = Parsed(html(page_of(read_run(folder), test=test)))
    assert len(page.named("script")) == 1
    assert len(page.named("img")) == 4 and all("onerror" not in t for t in page.named("img"))
    assert not any(key.startswith("on") for _, tag in page.tags for key in tag)
    for name in names:
        assert name in page.texts
        assert any(str(tag.get("data-tip")).startswith(name) for _, tag in page.tags)


def test_a_thousand_classes_are_small_folded_and_searchable(run: Path, tmp_path: Path) -> None:
    folder = renamed(run, tmp_path / "run", [f"species number {k}" for k in range(1000)])
    content = html(page_of(read_run(folder)))
    page = Parsed(content)
    assert len(content.encode()) < 1_000_000
    assert [t["data-folded"] for t in page.named("tbody") if "data-folded" in t] == ["true"] * 3
    assert len([tag for tag in page.named("tr") if tag.get("class") == "row"]) == 1000 + PAIRS
    assert [tag["id"] for tag in page.named("input")] == ["search"]
    assert not any(tag.get("class") == "matrix" for tag in page.named("table"))


def test_the_pictures_of_mistakes_are_those_that_were_most_certainly_wrong(run: Path) -> None:
    said = predictions(run)
    predicted, top = said.probabilities.argmax(1), said.probabilities.max(1)
    wrong = np.flatnonzero(predicted != said.targets)
    worst = wrong[top[wrong].argmax()]
    keys = {"num_classes": 4, "num_train_per_class": 40, "num_test_per_class": 10}
    images = Synthetic(**keys).load().test.images
    content = (run / "report.html").read_text(encoding="utf-8")
    shown = re.findall(r'src="data:image/png;base64,([^"]+)"', content)
    assert len(shown) == min(len(wrong), 20) > 0
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown[0]))))
    assert np.array_equal(pixels, np.asarray(images[int(said.index[worst])])[0])
    assert f">number {said.index[worst]}</span>" in content


@pytest.mark.parametrize("cache_gb", ["4", "0"])
def test_mistakes_have_the_names_of_files_be_they_in_memory_or_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    cache_gb: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "data"))
    counts = {"train": {"cat": 12, "dog": 8}, "test": {"cat": 4, "dog": 4}}
    folder = write_folder(tmp_path / "pets", counts)
    words = (
        "data=image_folder", f"data.path={folder}", f"data.cache_gb={cache_gb}",
        "data.normalize=imagenet", "model=cifar_resnet8", "schedule.epochs=1",
        "optim.batch_size=4", "track.report=true",
    )  # fmt: skip
    root = tmp_path / "runs"
    config = load(overrides=[*words, "runtime.threads=1", f"track.root={root}", *QUIET])
    train.run(config, screen=quiet_screen())
    run = RunFolder.of(config).path
    said = predictions(run)
    files = [f"test/{name}/{number:03}.png" for name in ("cat", "dog") for number in range(4)]
    wrong = [files[place] for place in np.flatnonzero(said.rows.predictions != said.targets)]
    shown = re.findall(r'<img src="data:[^"]+" alt="([^"]+)"', (run / "report.html").read_text())
    assert sorted(shown) == wrong != []
    assert analyze.main([str(run), "--no-figures", "--html", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "analysis.json").read_text(encoding="utf-8"))
    surest = [row["file"] for row in found["confusions"]["surest_mistakes"]]
    assert sorted(surest) == wrong and wrong[0] in capsys.readouterr().out


def test_curves_keep_their_last_epoch_and_leave_gaps_where_a_value_is_missing() -> None:
    rows = [{"epoch": k + 1, "train/loss": 4.0 - k / 500, "val/nll": None} for k in range(1001)]
    rows[0]["val/nll"] = rows[1000]["val/nll"] = 2.0
    (chart,) = charts.learning_curves(rows, epoch=500)
    assert len(chart.epochs) <= charts.MOST_POINTS and chart.epochs[-1] == 1001
    loss, nll = chart.curves
    assert loss.path.startswith("M44.0 12.0L") and nll.path == "M40.0 107.0h8M344.0 107.0h8"
    assert (loss.values[-1], nll.values[1]) == ("2", "–")
    assert chart.marked == pytest.approx(44 + 304 * 499 / 1000, abs=0.05)
    assert chart.data["labels"][-1] == "epoch 1001"


def test_a_rate_that_falls_a_thousandfold_has_a_logarithmic_axis() -> None:
    rows = [{"epoch": k + 1, "lr": 0.1 * 10.0**-k} for k in range(4)]
    (chart,) = charts.learning_curves(rows, epoch=1)
    assert chart.curves[0].path.startswith("M44.0 12.0L")
    heights = [tick.at for tick in chart.y_ticks]
    assert np.allclose(np.diff(heights), heights[1] - heights[0], atol=0.11)


def test_bins_of_the_reliability_diagram_end_at_their_accuracy() -> None:
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    drawn = charts.calibration(reliability(probabilities, np.array([0, 1, 1, 1])))
    # 202 is an accuracy of 0, 12 one of 1.
    assert [bar.accuracy for bar in drawn.bars] == [12.0, 107.0]
    assert [bar.confidence for bar in drawn.bars] == [88.0, 31.0]
    assert "accuracy 0.500, mean confidence 0.900, 2 images" in drawn.bars[1].says


def test_nothing_is_told_by_colour_alone() -> None:
    style = STYLE.read_text(encoding="utf-8")
    dashes = re.findall(r"\.s(\d) \{ stroke-dasharray: ([^;]+); \}", style)
    assert [number for number, _ in dashes] == ["1", "2", "3", "4", "5"]
    assert len({dash for _, dash in dashes}) == 5
    assert max(len(keys) for keys in charts.PANELS.values()) <= 6
    assert len(set(charts.MARKERS.values())) == 3


def test_the_command_writes_the_page_of_a_finished_run_and_names_others(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = shutil.copytree(run, tmp_path / "runs" / "a")
    unfinished = shutil.copytree(run, tmp_path / "runs" / "b")
    (unfinished / "summary.json").unlink()
    (whole / "report.html").unlink()
    assert main([str(tmp_path / "runs")]) == 1
    said = capsys.readouterr()
    assert said.out == f"{whole / 'report.html'}\n"
    assert said.err == f"{unfinished}: is not finished, after 2 epochs\n"
    assert (whole / "report.html").read_bytes() == (run / "report.html").read_bytes()


def test_a_page_whose_data_have_changed_says_so(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(run, tmp_path / "run")
    content = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    (folder / "summary.json").write_text(json.dumps({**content, "split_fingerprint": "0" * 12}))
    assert main([str(folder)]) == 0
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "not shown: the data have changed since the run" in text and "<img" not in text
    assert "not shown" not in write_page(folder).read_text(encoding="utf-8")
    assert capsys.readouterr().err == ""


def test_the_page_of_a_search_says_what_its_trials_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_study(tmp_path / "study", key="<b>key</b>")
    assert main([str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder / 'report.html'}\n"
    page = Parsed((folder / "report.html").read_text(encoding="utf-8"))
    text = " ".join(" ".join(page.texts).split())
    assert "15 trials: 14 complete, 1 pruned" in text
    assert "11, val/balanced_accuracy 0.86, chosen by validation" in text
    assert "<b>key</b>" in page.texts and page.named("b") == []
    tips = [str(tag["data-tip"]) for tag in page.named("circle") if "data-tip" in tag]
    assert "trial 3: val/balanced_accuracy 0.62\n<b>key</b>=0.08\nloss.name=softmax_focal" in tips
    assert {"cross_entropy", "softmax_focal"} <= set(page.texts)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("trial,outcome,val/accuracy\n", "no trial has ended yet"),
        ("trial,outcome,val/accuracy\n1,complete\n", "is damaged: its lines differ in length"),
        ("trial,outcome\n1,complete\n", "has no validation metric"),
    ],
)
def test_a_search_without_a_page_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, says: str
) -> None:
    (tmp_path / "trials.csv").write_text(content, encoding="utf-8")
    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"{tmp_path / 'trials.csv'}: {says}\n"


def test_a_search_whose_confirmation_has_no_row_yet_has_a_page(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study")
    (folder / "confirm.csv").write_text("setting,seed,val/balanced_accuracy\n", encoding="utf-8")
    assert main([str(folder)]) == 0
    assert "Confirmed" not in (folder / "report.html").read_text(encoding="utf-8")


def test_a_best_yaml_that_is_no_text_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_study(tmp_path / "study")
    (folder / "best.yaml").write_bytes(b"# found by\xff\n")
    assert main([str(folder)]) == 1
    assert capsys.readouterr().err.startswith(f"{folder / 'best.yaml'}: cannot be read: 'utf-8'")
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "expected a run folder, as in: python -m engine.report.page runs/digits/0123456789ab"),
        (["nowhere"], "nowhere: no such folder"),
        (["."], ".: no run folder there"),
        ([".", "--no-image"], "--no-image: unknown option (did you mean --no-images?)"),
    ],
)
def test_a_mistake_in_the_command_is_one_line(
    words: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert says in capsys.readouterr().err.splitlines()
