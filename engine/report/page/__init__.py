"""One page of a run: ``report.html``, a file that needs nothing beside it and no network.

:func:`write_page` writes it of a finished run's folder; ``track.report=true`` has a run do so at
its end, and ``python -m engine.report.page`` later.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.config.messages import one_line
from engine.report.page.content import PAIRS, Page, page_of
from engine.report.page.tiles import Images
from engine.report.reading import read_run
from engine.report.statistics import DASH
from engine.training.files import write_text

if TYPE_CHECKING:
    from engine.training.repeats import Repeats

__all__ = ["FILE", "Page", "html", "page_of", "write_page"]

FILE = "report.html"
TEMPLATES = Path(__file__).with_name("templates")
HEADLINE = ("balanced_accuracy", "accuracy")


def write_page(
    run: str | Path,
    *,
    images: Images | None = None,
    remark: str = "",
    repeats: Repeats | None = None,
) -> Path:
    """Write the page of a finished run into its folder, and return the file.

    Args:
        run: the run folder.
        images: of its test split, in the order of the split, to show its worst mistakes.
        remark: why there are none.
        repeats: images of its data that are there more than once; None where nobody looked.

    Raises:
        ConfigError: the run is not finished, or one of its files is missing or damaged.
        OSError: the file cannot be written.
    """
    folder = Path(run).expanduser()
    page = page_of(read_run(folder), images=images, remark=remark, repeats=repeats)
    write_text(folder / FILE, html(page))
    return folder / FILE


def html(page: Page) -> str:
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
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    digest = hashlib.sha256(script.encode()).digest()
    return environment.get_template("run.html").render(
        page=page,
        headline=HEADLINE,
        most_pairs=PAIRS,
        style=Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
        script=Markup(script),
        # The browser runs this script and no other, whatever a name holds.
        script_hash=base64.b64encode(digest).decode("ascii"),
    )


def _number(value: Any) -> str:
    return DASH if value is None else f"{value:.3f}"
