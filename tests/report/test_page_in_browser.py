"""The pages in a real browser: no complaint, no overflow, and sorting, search and hovering work.

They need Debian's chromium and are in a group of their own: `make test-browser`.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data import Split
from engine.analysis.page_sections import document_of_table, sections_of_run
from engine.analysis.results import analyse
from engine.analysis.stored_run import read_stored_run
from engine.report.page import html, write_page
from engine.report.page.study import study_page
from tests._runs import folder_of, small_run
from tests.report._browser import Page, browser
from tests.report._tables import TABLE, write_study

pytestmark = [pytest.mark.system, pytest.mark.browser]

WORDS = ("model=cifar_resnet8", "schedule.epochs=2", "data.num_classes=12")
NAME = '<img src=x onerror="document.title = 1">'
PAGES = ("run", "study", "table")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of each kind; a class of the run and a key of the study have markup in their names."""
    root = tmp_path_factory.mktemp("pages")
    small_run(root, *WORDS)
    folder = folder_of(root, *WORDS)
    for name in ("summary.json", "environment.json"):
        file = folder / name
        text = file.read_text(encoding="utf-8").replace('"class07"', repr_of(NAME))
        file.write_text(text, encoding="utf-8")
    found = analyse(read_stored_run(folder))
    images = torch.zeros(12 * 10, 1, 8, 8, dtype=torch.uint8)
    labels = torch.arange(12 * 10)
    run = write_page(folder, test=Split(images, labels, labels), sections=sections_of_run(found))
    study = write_study(root / "study", key=NAME)
    files = {"study": root / "study.html", "table": root / "table.html"}
    files["study"].write_text(html(study_page(study)), encoding="utf-8")
    files["table"].write_text(html(document_of_table(TABLE)), encoding="utf-8")
    return {"run": run, **files}


def repr_of(name: str) -> str:
    """A name as JSON has it."""
    return '"' + name.replace('"', '\\"') + '"'


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.mark.parametrize("width", [390, 820, 1440])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_its_window_without_a_complaint(
    page: Page, pages: dict[str, Path], name: str, width: int
) -> None:
    inks = []
    for dark in (False, True):
        page.open(pages[name], width=width, dark=dark)
        assert page.faults == []
        assert page.run("document.documentElement.scrollWidth") <= width
        pixels = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("L"))
        assert pixels.shape == (900, width) and pixels.std() > 10
        inks.append(np.median(pixels))
    assert inks[0] > 200 and inks[1] < 60


@pytest.mark.parametrize(("name", "column"), [("run", 2), ("study", 2), ("table", 2)], ids=PAGES)
def test_a_heading_sorts_its_table_both_ways(
    page: Page, pages: dict[str, Path], name: str, column: int
) -> None:
    page.open(pages[name], width=1440)
    tables = "[...document.querySelectorAll('table.sortable:not(#classes)')]"
    table = f"{tables}.at({0 if name == 'run' else -1})"
    page.run(f"{table}.tHead.rows[0].cells[{column}].firstElementChild.id = 'heading'")
    texts = f"[...{table}.querySelectorAll('tr.row')].map(r => r.cells[{column}].textContent)"
    for is_reversed in (True, False):
        page.click("#heading")
        values = [float(text) for text in page.run(texts) if text]
        assert len(set(values)) > 1 and values == sorted(values, reverse=is_reversed)
    assert page.faults == []


@pytest.mark.parametrize(
    ("name", "selector", "says"),
    [
        ("run", "svg[data-curves]", "epoch"),
        ("run", "svg circle[data-tip], svg path[data-tip], svg rect[data-tip]", "recall"),
        ("study", "svg circle[data-tip]", "trial"),
        ("table", "g[data-tip]", "points, n = 3"),
    ],
)
def test_hovering_says_what_is_there(
    page: Page, pages: dict[str, Path], name: str, selector: str, says: str
) -> None:
    page.open(pages[name], width=820)
    page.hover(selector)
    assert page.run("getComputedStyle(document.getElementById('tip')).visibility") == "visible"
    assert says in page.run("document.getElementById('tip').textContent")
    assert page.faults == []


def test_a_search_leaves_the_classes_that_match(page: Page, pages: dict[str, Path]) -> None:
    page.open(pages["run"], width=390)
    page.type("#search", "onerror")
    assert page.run("document.getElementById('found').textContent") == "1 found"
    shown = "[...document.querySelectorAll('#classes tr.row')].filter(r => r.offsetHeight).length"
    assert page.run(shown) == 1


def test_a_search_leaves_the_trials_that_match(page: Page, pages: dict[str, Path]) -> None:
    page.open(pages["study"], width=390)
    page.type("input.filter", "pruned")
    assert page.run("document.querySelector('.found').textContent") == "1 found"


@pytest.mark.parametrize("name", ["run", "study"])
def test_markup_in_a_name_does_nothing(page: Page, pages: dict[str, Path], name: str) -> None:
    page.open(pages[name], width=820)
    assert NAME in page.run("document.body.textContent")
    assert page.run("document.title") != "1"
    assert page.run("document.querySelectorAll('img[src=x]').length") == 0
    assert page.faults == []
