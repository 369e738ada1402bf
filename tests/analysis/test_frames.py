"""Figures of an analysis, saved with all of their text."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from engine.analysis.frames import framed, save
from engine.report.figures.style import styled

LONG = "0.99510 of all images"


@pytest.mark.parametrize("label", ["0.5", LONG])
def test_a_label_longer_than_the_margin_makes_the_picture_wider(tmp_path: Path, label: str) -> None:
    figure = styled(framed)(5, 3, title="Accuracy")
    figure.axes[0].set_yticks([0.5], [label])
    with Image.open(save(figure, tmp_path / "figure.png")) as picture:
        assert (picture.width > 5 * figure.dpi + 1) == (label == LONG)
