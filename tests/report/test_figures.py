"""Figures: what is drawn equals what came in, and the files are sound."""

import re
import subprocess
import sys
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from fontTools.subset import Options
from fontTools.ttLib import TTFont
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from engine.config.metrics import metrics
from engine.report import figures
from engine.report.figures import curves, style
from engine.report.figures.style import shorten
from engine.training.metrics import Limits
from engine.training.metrics.calibration import reliability

ROOT = Path(figures.__file__).parents[3]
ODD_NAMES = ["a$b$", r"\frac{x}_1^2", "naïve {curly}", "line\nbreak", "a" * 200, "犬", "%d & #"]


def confusion_of(num_classes: int, *, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    confusion = rng.integers(1, 20, size=(num_classes, num_classes))
    return confusion + 30 * np.eye(num_classes, dtype=int)


def names_of(num_classes: int) -> list[str]:
    return [f"class_{i}" for i in range(num_classes)]


def predictions_of(num_classes: int, *, num_samples: int = 300) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(num_classes, 0.3), size=num_samples)
    return probabilities, rng.integers(num_classes, size=num_samples)


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def every_figure(names: list[str]) -> dict[str, Figure]:
    num_classes = len(names)
    counts = np.geomspace(500, 5, num_classes).astype(int)
    recall = np.linspace(0.9, 0.1, num_classes)
    rows = [{"epoch": e, "train/loss": 1 / e, "val/accuracy": e / 9, "lr": 0.1} for e in (1, 2)]
    title = "val $x_1$"
    return {
        "confusion": figures.confusion_matrix(
            confusion_of(num_classes), names, counts, title=title
        ),
        "recall": figures.recall_by_class_count(recall, counts, names, title=title),
        "curves": figures.learning_curves(rows, title=title, best_epoch=2),
        "reliability": figures.reliability_diagram(
            reliability(*predictions_of(num_classes)), title=title
        ),
    }


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every figure, at 2 and at 100 classes."""
    folder = tmp_path_factory.mktemp("figures")
    for num_classes in [2, 100]:
        for name, figure in every_figure(names_of(num_classes)).items():
            figures.save(figure, folder / str(num_classes) / f"{name}.last")
    return folder


def test_confusion_matrix_shows_row_shares_ordered_by_training_count() -> None:
    confusion, counts = confusion_of(4), np.array([5, 400, 50, 50])
    axes = figures.confusion_matrix(confusion, names_of(4), counts, title="t").axes[0]
    shown = axes.images[0].get_array()
    order = [1, 2, 3, 0]
    for row, i in enumerate(order):
        for column, j in enumerate(order):
            assert shown[row, column] == pytest.approx(confusion[i, j] / confusion[i].sum())
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["class_1 (400)", "class_2 (50)", "class_3 (50)", "class_0 (5)"]
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        "class_1", "class_2", "class_3", "class_0",
    ]  # fmt: skip


def test_cells_carry_whole_percent_and_neither_hide_nor_invent_a_mistake() -> None:
    confusion = np.array([[999, 1, 0], [0, 10, 0], [250, 0, 750]])
    counts = np.array([30, 20, 10])
    axes = figures.confusion_matrix(confusion, names_of(3), counts, title="t").axes[0]
    cells = {
        tuple(round(x) for x in text.get_position()[::-1]): text.get_text()
        for text in axes.texts
        if type(text) is Text
    }
    assert cells == {(0, 0): ">99", (0, 1): "<1", (1, 1): "100", (2, 0): "25", (2, 2): "75"}


@pytest.mark.parametrize(("num_classes", "numbered"), [(20, True), (21, False)])
def test_cells_carry_numbers_up_to_twenty_classes(num_classes: int, *, numbered: bool) -> None:
    counts = np.full(num_classes, 50)
    figure = figures.confusion_matrix(
        confusion_of(num_classes), names_of(num_classes), counts, title="t"
    )
    assert (len(figure.axes[0].texts) > num_classes) == numbered


def test_class_without_test_images_is_an_empty_row() -> None:
    confusion = np.array([[4, 0], [0, 0]])
    axes = figures.confusion_matrix(confusion, names_of(2), np.array([9, 2]), title="t").axes[0]
    shown = axes.images[0].get_array()
    assert np.ma.getmaskarray(shown).tolist() == [[False, False], [True, True]]


def test_hundred_classes_have_thinned_names_and_marked_groups() -> None:
    counts = np.geomspace(500, 5, 100).astype(int)
    figure = figures.confusion_matrix(confusion_of(100), names_of(100), counts, title="t")
    axes = figure.axes[0]
    assert 20 <= len(axes.get_xticks()) <= 34
    assert texts(axes) == ["many", "medium", "few"]
    borders = [line.get_ydata()[0] for line in axes.lines if line.get_color() == "white"]
    expected = [(counts > 100).sum() - 0.5, (counts >= 20).sum() - 0.5]
    assert sorted(set(borders) - {0}) == expected


def test_recall_figure_draws_each_class_at_its_count() -> None:
    counts, recall = np.array([300, 50, 5, 40]), np.array([0.9, 0.5, 0.2, 0.7])
    axes = figures.recall_by_class_count(recall, counts, names_of(4), title="t").axes[0]
    drawn = {tuple(point) for line in axes.lines for point in line.get_xydata().tolist()}
    assert drawn == set(zip(counts.tolist(), recall.tolist(), strict=True))


def test_recall_figure_states_size_and_mean_of_each_group_that_has_classes() -> None:
    counts, recall = np.array([300, 200, 5]), np.array([0.9, 0.7, 0.2])
    figure = figures.recall_by_class_count(recall, counts, names_of(3), title="t")
    assert [text.get_text() for text in figure.legends[0].texts] == [
        "many (> 100): 2 classes, mean 0.800",
        "few (< 20): 1 class, mean 0.200",
    ]


def test_figures_have_the_limits_of_their_groups() -> None:
    counts, recall = np.array([300, 60, 5]), np.array([0.9, 0.7, 0.2])
    limits = Limits(many_above=50, few_below=5)
    figure = figures.recall_by_class_count(recall, counts, names_of(3), title="t", limits=limits)
    assert [text.get_text() for text in figure.legends[0].texts] == [
        "many (> 50): 2 classes, mean 0.800",
        "medium (5 to 50): 1 class, mean 0.200",
    ]
    figure = figures.confusion_matrix(
        confusion_of(3), names_of(3), counts, title="t", limits=limits
    )
    assert {"many", "medium", "few"} & set(texts(figure.axes[0])) == {"many", "medium"}


def test_recall_figure_keeps_classes_without_training_images_apart_from_the_few() -> None:
    counts, recall = np.array([300, 5, 0, 0]), np.array([0.9, 0.5, 0.4, 0.2])
    figure = figures.recall_by_class_count(recall, counts, names_of(4), title="t")
    assert [text.get_text() for text in figure.legends[0].texts] == [
        "many (> 100): 1 class, mean 0.900",
        "few (< 20): 1 class, mean 0.500",
        "untrained (0): 2 classes, mean 0.300",
    ]
    axes = figure.axes[0]
    drawn = {tuple(point) for line in axes.lines for point in line.get_xydata().tolist()}
    assert drawn == set(zip(counts.tolist(), recall.tolist(), strict=True))


def test_confusion_figure_marks_no_group_over_classes_without_training_images() -> None:
    counts = np.array([300, 0, 0])
    axes = figures.confusion_matrix(confusion_of(3), names_of(3), counts, title="t").axes[0]
    assert "many" in texts(axes)
    assert "few" not in texts(axes)


def test_recall_figure_leaves_out_a_class_without_test_images() -> None:
    recall = np.array([0.9, np.nan])
    axes = figures.recall_by_class_count(recall, np.array([300, 200]), names_of(2), title="t").axes[
        0
    ]
    assert [line.get_xydata().tolist() for line in axes.lines] == [[[300, 0.9]]]
    assert texts(axes) == ["class_0"]


def test_names_of_ten_classes_are_all_written() -> None:
    counts = np.geomspace(500, 5, 10).astype(int)
    figure = figures.recall_by_class_count(np.full(10, 0.9), counts, names_of(10), title="t")
    assert sorted(texts(figure.axes[0])) == names_of(10)


def test_names_of_crowded_classes_do_not_overlap() -> None:
    figure = figures.recall_by_class_count(
        np.linspace(0.8, 0.81, 10), np.arange(200, 210), names_of(10), title="t"
    )
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [Text.get_window_extent(text, renderer) for text in figure.axes[0].texts]
    assert len(boxes) > 4
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_hundred_classes_name_the_lowest_recalls_of_each_group() -> None:
    counts = np.geomspace(500, 5, 100).astype(int)
    recall = np.random.default_rng(0).uniform(0.1, 0.9, size=100)
    axes = figures.recall_by_class_count(recall, counts, names_of(100), title="t").axes[0]
    groups = [counts > 100, (counts >= 20) & (counts <= 100), counts < 20]
    lowest = {
        f"class_{i}"
        for mask in groups
        for i in sorted(np.flatnonzero(mask), key=lambda i: recall[i])[:5]
    }
    assert 10 <= len(axes.texts) <= 15
    assert set(texts(axes)) <= lowest


def test_class_without_training_images_is_drawn_at_zero() -> None:
    counts, recall = np.array([300, 0]), np.array([0.9, 0.0])
    axes = figures.recall_by_class_count(recall, counts, names_of(2), title="t").axes[0]
    left, _ = axes.get_xlim()
    assert left < 0
    assert [0.0, 0.0] in [line.get_xydata().tolist()[0] for line in axes.lines]


def test_curves_draw_the_keys_that_occur_and_leave_gaps_for_none() -> None:
    rows = [
        {"epoch": 1, "train/loss": 2.0, "val/few_accuracy": None},
        {"epoch": 2, "train/loss": 1.0, "val/few_accuracy": 0.5, "val/unknown": 3.0},
    ]
    figure = figures.learning_curves(rows, title="t")
    drawn = {
        line.get_label(): line.get_xydata().tolist() for axes in figure.axes for line in axes.lines
    }
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Loss", "Accuracy by group"]
    assert drawn["train/loss"] == [[1, 2.0], [2, 1.0]]
    np.testing.assert_array_equal(drawn["val/few_accuracy"], [[1, np.nan], [2, 0.5]])
    assert len(drawn) == 2


@pytest.mark.parametrize("num_epochs", [1, 2, 3])
def test_curves_of_a_short_run_have_ticks_at_whole_epochs(num_epochs: int) -> None:
    rows = [{"epoch": 1 + e, "train/loss": 1.0, "lr": 0.1} for e in range(num_epochs)]
    for axes in figures.learning_curves(rows, title="t").axes:
        ticks = axes.get_xticks()
        assert set(ticks) >= set(range(1, num_epochs + 1)) and np.all(ticks % 1 == 0)


def test_best_epoch_is_marked_in_every_panel_and_named() -> None:
    rows = [{"epoch": e, "train/loss": 1.0, "val/accuracy": 0.5} for e in range(5)]
    figure = figures.learning_curves(rows, title="t", best_epoch=3)
    assert [axes.lines[-1].get_xdata() for axes in figure.axes] == [[3, 3], [3, 3]]
    assert "best epoch, 3" in figure.get_suptitle()
    assert "best" not in figures.learning_curves(rows, title="t").get_suptitle()


@pytest.mark.parametrize(("last", "scale"), [(0.001, "log"), (0.05, "linear"), (0.0, "linear")])
def test_rate_that_falls_in_steps_has_a_logarithmic_axis(last: float, scale: str) -> None:
    rows = [{"epoch": 1, "lr": 0.1}, {"epoch": 2, "lr": last}]
    assert figures.learning_curves(rows, title="t").axes[0].get_yscale() == scale


def test_reliability_diagram_draws_the_bins_and_states_the_error() -> None:
    probabilities, targets = predictions_of(5)
    # Both kinds of gap: the low confidences become too modest, the high ones stay too bold.
    targets[:200] = probabilities[:200].argmax(axis=1)
    bins = reliability(probabilities, targets)
    figure = figures.reliability_diagram(reliability(probabilities, targets), title="val")
    upper, lower = figure.axes
    accuracy, gap = ([bar.get_height() for bar in container] for container in upper.containers)
    np.testing.assert_array_equal(accuracy, bins.accuracy)
    np.testing.assert_allclose(np.add(accuracy, gap), bins.confidence)
    shares = [bar.get_height() for bar in lower.containers[0]]
    np.testing.assert_allclose(shares, bins.counts / 300)
    assert figure.get_suptitle() == f"val · ECE {bins.ece:.3f}"


@pytest.mark.parametrize("num_classes", [2, 100])
def test_saved_files_are_a_sound_png_and_pdf(saved: Path, num_classes: int) -> None:
    for name in every_figure(names_of(2)):
        stem = saved / str(num_classes) / f"{name}.last"
        with Image.open(f"{stem}.png") as image:
            image.load()
            assert all(400 < side < 2500 for side in image.size), (name, image.size)
            assert len(image.convert("L").getcolors(256) or []) > 10
        pdf = Path(f"{stem}.pdf").read_bytes()
        assert pdf.startswith(b"%PDF-")
        assert pdf.rstrip().endswith(b"%%EOF")


def test_both_files_of_a_figure_show_the_same_part_of_it(saved: Path) -> None:
    for stem in sorted({path.with_suffix("") for path in (saved / "2").iterdir()}):
        with Image.open(f"{stem}.png") as image:
            inches = [side / 150 for side in image.size]
        box = re.search(
            rb"/MediaBox \[ 0 0 ([0-9.]+) ([0-9.]+) \]", Path(f"{stem}.pdf").read_bytes()
        )
        assert box is not None
        assert [float(side) / 72 for side in box.groups()] == pytest.approx(inches, abs=0.02)


def fonts_in(pdf: Path) -> list[TTFont]:
    """The fonts that a PDF carries."""
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf.read_bytes(), flags=re.DOTALL)
    contents = [zlib.decompress(stream) for stream in streams if stream.startswith(b"x")]
    return [TTFont(BytesIO(c)) for c in contents if c.startswith(b"\x00\x01\x00\x00")]


def test_a_pdf_carries_the_outlines_of_its_letters_and_nothing_to_lay_them_out(saved: Path) -> None:
    before = list(Options()._drop_tables_default)
    font_file = font_manager.findfont(font_manager.FontProperties(style.FONT))
    whole = TTFont(font_file)
    found = fonts_in(saved / "2" / "curves.last.pdf")
    assert len(found) >= 2  # regular and bold
    assert not any({"GDEF", "GPOS", "GSUB", "kern"} & set(font.keys()) for font in found)
    regular = next(font for font in found if font["OS/2"].usWeightClass == 400)
    letters = [name for name in regular.getGlyphOrder() if name in set("Epochlrtansi")]
    assert len(letters) > 8
    for name in letters:
        assert regular["glyf"][name] == whole["glyf"][name]
        assert regular["hmtx"][name] == whole["hmtx"][name]
    assert Options()._drop_tables_default == before


def test_names_are_placed_for_the_layout_that_is_saved(tmp_path: Path) -> None:
    figure = every_figure(names_of(5))["recall"]
    before = figure.axes[0].get_position().bounds
    figures.save(figure, tmp_path / "recall")
    assert figure.axes[0].get_position().bounds == before


def test_a_saved_figure_keeps_its_layout_engine(tmp_path: Path) -> None:
    figure = every_figure(names_of(2))["curves"]
    before = figure.get_layout_engine()
    figures.save(figure, tmp_path / "curves")
    assert before is not None
    assert figure.get_layout_engine() is before


def test_same_input_gives_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    for name, figure in every_figure(names_of(2)).items():
        figures.save(figure, tmp_path / f"{name}.last")
    files = sorted(tmp_path.iterdir())
    assert len(files) == 8
    for path in files:
        assert path.read_bytes() == (saved / "2" / path.name).read_bytes()


def test_markup_in_class_names_stays_inert(tmp_path: Path) -> None:
    for name, figure in every_figure(ODD_NAMES).items():
        figures.save(figure, tmp_path / name)
        assert "$x_1$" in figure.get_suptitle()
        assert not any(text.get_parse_math() for text in figure.findobj(Text))
    assert len(list(tmp_path.iterdir())) == 8


def test_personal_settings_neither_change_a_figure_nor_are_changed(tmp_path: Path) -> None:
    figures.save(every_figure(names_of(3))["recall"], tmp_path / "plain")
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "red"}):
        figures.save(every_figure(names_of(3))["recall"], tmp_path / "personal")
        assert matplotlib.rcParams["font.size"] == 20
    plain, personal = (tmp_path / f"{name}.png" for name in ["plain", "personal"])
    assert plain.read_bytes() == personal.read_bytes()


def test_figures_neither_import_matplotlib_early_nor_touch_pyplot() -> None:
    script = (
        "import sys, numpy as np; from pathlib import Path; from engine.report import figures;"
        "print('matplotlib' in sys.modules);"
        "figures.learning_curves([{'epoch': 1, 'lr': 0.1}], title='t');"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["False", "False"]


def test_long_names_keep_their_beginning_and_end() -> None:
    name = "Acanthurus_leucosternon"
    assert shorten(name, limit=23) == name
    assert shorten(name, limit=10) == "Acant…rnon"


@pytest.fixture
def fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[font_manager.FontEntry]]:
    """The fonts that are installed, for this test those of Matplotlib alone."""
    known = [entry for entry in font_manager.fontManager.ttflist if "DejaVu" in entry.name]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", known)
    _forget_fonts()
    yield known
    _forget_fonts()


def _forget_fonts() -> None:
    for cached in (style.fallback_fonts, style._known_characters, style._characters):
        cached.cache_clear()
    font_manager.fontManager._findfont_cached.cache_clear()


def a_font(path: Path, *, name: str, letters: str) -> None:
    """Write a font in which every letter is a full square."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    pen = TTGlyphPen(None)
    pen.moveTo((50, 0))
    for point in ((950, 0), (950, 900), (50, 900)):
        pen.lineTo(point)
    pen.closePath()
    square, glyphs = pen.glyph(), [".notdef", *(f"uni{ord(c):04X}" for c in letters)]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(glyphs)
    builder.setupCharacterMap({ord(c): f"uni{ord(c):04X}" for c in letters})
    builder.setupGlyf(dict.fromkeys(glyphs, square))
    builder.setupHorizontalMetrics(dict.fromkeys(glyphs, (1000, 50)))
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": name, "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=900, sTypoDescender=-100)
    builder.setupPost()
    builder.save(path)


def test_characters_without_a_glyph_become_boxes_and_are_named(
    fonts: list[font_manager.FontEntry],
) -> None:
    assert shorten("犬 dog\n", limit=20) == "□ dog"
    assert style.illegible(["犬 dog", "cat", "猫犬"]) == "犬猫"
    assert style.illegible(["dog", "Ωμέγα"]) == ""


def test_an_installed_font_with_the_letters_is_used(
    fonts: list[font_manager.FontEntry], tmp_path: Path
) -> None:
    counts, recall = np.array([300, 50, 5]), np.array([0.9, 0.5, 0.2])
    before = figures.recall_by_class_count(recall, counts, ["犬", "猫", "한"], title="t")
    a_font(tmp_path / "tails.ttf", name="Tails CJK", letters="犬猫汉漢あ한")
    font_manager.fontManager.addfont(tmp_path / "tails.ttf")
    _forget_fonts()
    assert style.fallback_fonts() == ("Tails CJK",)
    assert style.illegible(["犬猫한"]) == ""
    after = figures.recall_by_class_count(recall, counts, ["犬", "猫", "한"], title="t")
    assert texts(before.axes[0]) == ["□"] * 3
    assert sorted(texts(after.axes[0])) == ["犬", "猫", "한"]
    figures.save(after, tmp_path / "after")  # would warn of a glyph that no font has


def test_a_font_that_nobody_needs_changes_no_figure(
    fonts: list[font_manager.FontEntry], tmp_path: Path
) -> None:
    figures.save(every_figure(names_of(3))["confusion"], tmp_path / "without")
    a_font(tmp_path / "tails.ttf", name="Tails CJK", letters="汉漢あ한")
    font_manager.fontManager.addfont(tmp_path / "tails.ttf")
    _forget_fonts()
    figures.save(every_figure(names_of(3))["confusion"], tmp_path / "with")
    without, with_font = (tmp_path / f"{name}.png" for name in ("without", "with"))
    assert without.read_bytes() == with_font.read_bytes()


def test_curves_name_only_keys_that_rows_have() -> None:
    written = {f"{split}/{name}" for split in ("val", "test") for name in metrics()}
    written |= {"train/loss", "train/accuracy", "lr"}
    drawn = {key for lines in curves.PANELS.values() for key in lines}
    assert drawn <= written
