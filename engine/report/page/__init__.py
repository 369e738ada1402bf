"""One page of a run: ``report.html``, a file that needs nothing beside it and no network.

:func:`write_page` writes it of a finished run's folder; ``track.report=true`` has a run do so at
its end, and ``python -m engine.report.page`` later.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.config.messages import one_line
from engine.report.page.content import PAIRS, Page, page_of
from engine.report.page.parts import Document, Section
from engine.report.page.tiles import Split
from engine.report.reading import read_run
from engine.report.statistics import DASH
from engine.training.files import write_text

if TYPE_CHECKING:
    from engine.training.repeats import Repeats

__all__ = ["FILE", "Page", "html", "page_of", "write_page"]

FILE = "report.html"
TEMPLATES = Path(__file__).with_name("templates")
LONGEST = 22  # letters of a name in a chart
HEADLINE = ("balanced_accuracy", "accuracy")


def write_page(
    run: str | Path,
    *,
    test: Split | None = None,
    remark: str = "",
    repeats: Repeats | None = None,
    sections: Sequence[Section] = (),
    to: Path | None = None,
) -> Path:
    """Write the page of a finished run, and return the file.

    Args:
        run: the run folder.
        test: its test split, to show its worst mistakes.
        remark: why there are none.
        repeats: images of its data that are there more than once; None where nobody looked.
        sections: what else is said of it, after its own.
        to: the folder of the page; that of the run by default.

    Raises:
        ConfigError: the run is not finished, or one of its files is missing or damaged.
        OSError: the file cannot be written.
    """
    folder = Path(run).expanduser()
    page = page_of(read_run(folder), test=test, remark=remark, repeats=repeats, sections=sections)
    file = (to or folder) / FILE
    write_text(file, html(page))
    return file


def html(page: Page | Document) -> str:
    """Return a page as HTML; markup in a name is shown as it is written, and does nothing."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"json": json.dumps, "number": _number, "one_line": one_line}
    environment.filters["shortened"] = functools.partial(shorten, limit=LONGEST)
    template = "run.html" if isinstance(page, Page) else "document.html"
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    digest = hashlib.sha256(script.encode()).digest()
    return environment.get_template(template).render(
        page=page,
        headline=HEADLINE,
        most_pairs=PAIRS,
        style=Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
        script=Markup(script),
        # The browser runs this script and no other, whatever a name holds.
        script_hash=base64.b64encode(digest).decode("ascii"),
    )


def shorten(name: str, *, limit: int) -> str:
    """Return a name in at most ``limit`` letters, with its middle left out.

    >>> shorten("class_balanced_sampling", limit=12)
    'class_…pling'
    """
    if len(name) <= limit:
        return name
    tail = (limit - 1) // 2
    return f"{name[: limit - 1 - tail]}…{name[len(name) - tail :]}"


def _number(value: Any) -> str:
    return DASH if value is None else f"{value:.3f}"
